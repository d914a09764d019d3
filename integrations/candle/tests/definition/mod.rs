//! The definition of attention in candle's own operations.

use candle_core::{D, DType, Result, Tensor};

/// The definition, in f32: `added` [batch, heads, q_len, kv_len] is -∞ where a key is hidden.
pub struct Definition {
    pub scale: f64,
    pub softcap: Option<f64>,
    pub added: Option<Tensor>,
    pub sinks: Option<Vec<f32>>,
}

impl Definition {
    /// Matrix product, softmax, matrix product.
    pub fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let heads = q.dim(1)?;
        let (q, k, v) = (single(q)?, repeated(&single(k)?, heads)?, repeated(&single(v)?, heads)?);
        let mut scores = (q.matmul(&k.t()?.contiguous()?)? * self.scale)?;
        if let Some(cap) = self.softcap {
            scores = ((scores / cap)?.tanh()? * cap)?;
        }
        if let Some(added) = &self.added {
            scores = (scores + added)?;
        }
        let (batch, _, q_len, kv_len) = scores.dims4()?;
        if let Some(sinks) = &self.sinks {
            let sinks = Tensor::new(sinks.as_slice(), q.device())?.reshape((1, heads, 1, 1))?;
            scores = Tensor::cat(&[&scores, &sinks.broadcast_as((batch, heads, q_len, 1))?], D::Minus1)?;
        }
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.narrow(D::Minus1, 0, kv_len)?;
        weights.contiguous()?.matmul(&v)
    }
}

fn single(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(DType::F32)?.contiguous()
}

/// Each K/V head for each of the query heads that share it.
fn repeated(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, kv_heads, len, dim) = tensor.dims4()?;
    let dims = (batch, kv_heads, heads / kv_heads, len, dim);
    tensor.unsqueeze(2)?.broadcast_as(dims)?.reshape((batch, heads, len, dim))
}
