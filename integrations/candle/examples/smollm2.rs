//! SmolLM2-135M on candle's tensors, with all attention by gqa, held to transformers: first the golden prompt, then the
//! continuation of a text of your own.
//!
//! `cargo run --release --example smollm2 -- 'The history of the city'` in this folder. The engine in `examples/smollm2` of
//! the repository reads the file and the text; it computes without candle, and faster.

use std::path::Path;

use candle_core::{D, DType, Device, IndexOp, Tensor, safetensors};
use candle_nn::kv_cache::KvCache;
use candle_nn::{Embedding, Linear, Module, RmsNorm, ops, rotary_emb};
use engine::gguf::Gguf;
use engine::matrix::Matrix;
use engine::model::{Config, FETCH, weights_path};
use engine::tokenizer::Tokenizer;
use engine::{Error, Result};
use gqa_candle::{Options, attention};

/// Tokens that the caches hold.
const SLOTS: usize = 256;
/// Tokens that continue a text.
const CONTINUATION: usize = 40;
/// The greatest error of a logit that is accepted; logits reach 27.
const BOUND: f32 = 1e-3;

struct Layer {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    /// `x` is `[1, token, hidden]`; `turns` are the cosines and sines of the tokens' positions.
    fn forward(
        &self,
        config: &Config,
        x: &Tensor,
        turns: &[Tensor; 2],
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let normed = self.attention_norm.forward(x)?;
        let heads = |linear: &Linear, count: usize| {
            linear.forward(&normed)?.reshape((1, (), count, config.head_dim))?.transpose(1, 2)
        };
        // Candle's rotation is the one operation that wants its heads contiguous.
        let [cos, sin] = turns;
        let rotated = |x: Tensor| rotary_emb::rope_i(&x.contiguous()?, cos, sin);
        let (q, k) = (rotated(heads(&self.q, config.heads)?)?, rotated(heads(&self.k, config.kv_heads)?)?);
        // Parts of the longer caches, read in place.
        let (k, v) = cache.append(&k, &heads(&self.v, config.kv_heads)?.contiguous()?)?;
        let seen = attention(&q, &k, &v, &Options::new().causal())?;
        let x = (x + self.output.forward(&seen.transpose(1, 2)?.reshape(x.shape())?)?)?;

        let normed = self.feed_forward_norm.forward(&x)?;
        let gated = (ops::silu(&self.gate.forward(&normed)?)? * self.up.forward(&normed)?)?;
        Ok((x + self.down.forward(&gated)?)?)
    }
}

struct Model {
    config: Config,
    tokenizer: Tokenizer,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// Cosines and sines `[position, pair]`.
    turns: [Tensor; 2],
}

impl Model {
    fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| {
            format!("{}: {error}\nThis command in the repository's root fetches the weights (93 MB):\n\n    {FETCH}\n", path.display())
        })?;
        let file = Gguf::parse(bytes)?;
        let config = Config::read(&file)?;
        let matrix = |name: &str| -> Result<Tensor> {
            let matrix = Matrix::read(&file.tensor(name)?)?;
            let numbers: Vec<f32> = (0..matrix.rows()).flat_map(|row| matrix.row(row)).collect();
            let dims = (matrix.rows(), numbers.len() / matrix.rows());
            Ok(Tensor::from_vec(numbers, dims, &Device::Cpu)?)
        };
        let linear = |name: &str| Ok::<_, Error>(Linear::new(matrix(name)?, None));
        let norm =
            |name: &str| Ok::<_, Error>(RmsNorm::new(matrix(name)?.squeeze(0)?, config.epsilon.into()));
        let layer = |layer: usize| -> Result<Layer> {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            Ok(Layer {
                attention_norm: norm(&name("attn_norm"))?,
                q: linear(&name("attn_q"))?,
                k: linear(&name("attn_k"))?,
                v: linear(&name("attn_v"))?,
                output: linear(&name("attn_output"))?,
                feed_forward_norm: norm(&name("ffn_norm"))?,
                gate: linear(&name("ffn_gate"))?,
                up: linear(&name("ffn_up"))?,
                down: linear(&name("ffn_down"))?,
            })
        };
        let pairs = config.head_dim / 2;
        let turn = |turn: fn(f64) -> f64| -> Result<Tensor> {
            let angle = |position: usize, pair: usize| {
                position as f64 * config.rope_base.powf(-(pair as f64) / pairs as f64)
            };
            let turns: Vec<f32> = (0..SLOTS)
                .flat_map(|position| (0..pairs).map(move |pair| turn(angle(position, pair)) as f32))
                .collect();
            Ok(Tensor::from_vec(turns, (SLOTS, pairs), &Device::Cpu)?)
        };
        Ok(Self {
            tokenizer: Tokenizer::read(&file)?,
            embedding: Embedding::new(matrix("token_embd.weight")?, config.hidden),
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: norm("output_norm.weight")?,
            turns: [turn(f64::cos)?, turn(f64::sin)?],
            config,
        })
    }

    fn caches(&self) -> Vec<KvCache> {
        vec![KvCache::new(2, SLOTS); self.layers.len()]
    }

    /// The logits after some tokens that follow those in the caches.
    fn forward(&self, tokens: &[u32], caches: &mut [KvCache]) -> Result<Tensor> {
        let first = caches.first().map_or(0, KvCache::current_seq_len);
        let [cos, sin] = &self.turns;
        let turns = [cos.narrow(0, first, tokens.len())?, sin.narrow(0, first, tokens.len())?];
        let mut x = self.embedding.forward(&Tensor::new(tokens, &Device::Cpu)?)?.unsqueeze(0)?;
        for (layer, cache) in self.layers.iter().zip(caches) {
            x = layer.forward(&self.config, &x, &turns, cache)?;
        }
        let last = self.norm.forward(&x.i((.., tokens.len() - 1, ..))?.contiguous()?)?;
        Ok(last.matmul(&self.embedding.embeddings().t()?)?.squeeze(0)?)
    }

    /// Takes the likeliest token so many times.
    fn greedy(&self, mut logits: Tensor, caches: &mut [KvCache], count: usize) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        while tokens.len() < count {
            let token = logits.argmax(D::Minus1)?.to_scalar::<u32>()?;
            tokens.push(token);
            logits = self.forward(&[token], caches)?;
        }
        Ok(tokens)
    }
}

fn ids(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.to_dtype(DType::U32)?.to_vec1()?)
}

fn run(text: &str) -> Result<()> {
    let model = Model::read(&weights_path())?;
    let golden =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/smollm2/golden/smollm2.safetensors");
    let golden = safetensors::load(golden, &Device::Cpu)?;

    let mut caches = model.caches();
    let logits = model.forward(&ids(&golden["prompt_ids"])?, &mut caches)?;
    let error = (&logits - &golden["last_logits"])?.abs()?.max_all()?.to_scalar::<f32>()?;
    let expected = ids(&golden["greedy_ids"])?;
    let tokens = model.greedy(logits, &mut caches, expected.len())?;
    let agreeing = tokens.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    println!(
        "greatest error of a logit {error:.1e}, {agreeing} of {} greedy tokens (transformers 5.23.0, f32)",
        expected.len()
    );
    if error > BOUND || agreeing < expected.len() {
        return Err(format!("more than {BOUND:e}, or other tokens").into());
    }

    let mut caches = model.caches();
    let logits = model.forward(&model.tokenizer.encode(text)?, &mut caches)?;
    let tokens = model.greedy(logits, &mut caches, CONTINUATION)?;
    println!("\n{text}{}", model.tokenizer.decode(&tokens));
    Ok(())
}

fn main() -> Result<()> {
    let text = std::env::args().nth(1).unwrap_or_else(|| String::from("The history of the city"));
    Device::Cpu.with_context(|| run(&text))
}
