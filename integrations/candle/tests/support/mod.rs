//! Tensors of random numbers and the definition of attention in candle's own operations.

use candle_core::{D, DType, Device, Result, Tensor};

/// Standard normal numbers, the same ones for a seed whatever the order of tests.
pub fn normal(dims: [usize; 4], seed: u64, dtype: DType) -> Tensor {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((state >> 33) as f64 + 0.5) / (1u64 << 31) as f64
    };
    let count = dims.iter().product();
    let numbers: Vec<f32> = (0..count)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect();
    Tensor::from_vec(numbers, &dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

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
pub fn repeated(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, kv_heads, len, dim) = tensor.dims4()?;
    let dims = (batch, kv_heads, heads / kv_heads, len, dim);
    tensor.unsqueeze(2)?.broadcast_as(dims)?.reshape((batch, heads, len, dim))
}

/// The greatest difference.
pub fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let flat = |tensor: &Tensor| single(tensor).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let difference = |(a, b): (f32, f32)| if a == b { 0.0 } else { (a - b).abs() };
    // NaN must not pass for nearness.
    flat(a)
        .into_iter()
        .zip(flat(b))
        .map(difference)
        .fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}
