//! Attention by candle's `candle_nn::attention::flash_attn`, to compare with.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_nn::attention::{AttnMask, flash_attn};
use gqa::Shape;

use crate::Result;
use crate::attention::{Attend, shape};
use crate::model::Config;

/// A cache of tensors `[1, token, kv_head, head_dim]`, allocated once, whose first tokens are contiguous: candle's
/// attention reads them in place.
pub struct Candle {
    config: Config,
    /// Keys and values of each layer.
    layers: Vec<[Tensor; 2]>,
}

impl Candle {
    /// Room for so many tokens.
    pub fn new(config: &Config, slots: usize) -> Result<Self> {
        let &Config { layers, kv_heads, head_dim, .. } = config;
        let tensor = || Tensor::zeros((1, slots, kv_heads, head_dim), DType::F32, &Device::Cpu);
        let layers = (0..layers).map(|_| Ok([tensor()?, tensor()?])).collect::<Result<_>>()?;
        Ok(Self { config: config.clone(), layers })
    }
}

impl Attend for Candle {
    fn append(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) -> Result<()> {
        let &Config { kv_heads, head_dim, .. } = &self.config;
        for (cache, new) in self.layers[layer].iter().zip([k, v]) {
            let dims = (1, new.len() / (kv_heads * head_dim), kv_heads, head_dim);
            cache.slice_set(&Tensor::from_slice(new, dims, &Device::Cpu)?, 1, position)?;
        }
        Ok(())
    }

    fn attend(&mut self, layer: usize, position: usize, q: &[f32], out: &mut [f32]) -> Result<Duration> {
        let Shape { q_heads, q_len, kv_len, head_dim, .. } =
            shape(&self.config, position, q, |last| last + 1);
        let q = Tensor::from_slice(q, (1, q_len, q_heads, head_dim), &Device::Cpu)?;
        let [k, v] = &self.layers[layer];
        let (k, v) = (k.narrow(1, 0, kv_len)?, v.narrow(1, 0, kv_len)?);
        let mask = AttnMask::causal_with_offset(position);
        let start = Instant::now();
        let result = flash_attn::<f32>(&q, &k, &v, 1.0 / (head_dim as f32).sqrt(), mask, None, None)?;
        let time = start.elapsed();
        out.copy_from_slice(&result.transpose(1, 2)?.flatten_all()?.to_vec1::<f32>()?);
        Ok(time)
    }

    fn at_once(&self, _: usize) -> usize {
        usize::MAX
    }

    fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(|tensor| tensor.elem_count() * size_of::<f32>()).sum()
    }
}
