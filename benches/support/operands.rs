//! Random operands of one call, contiguous `[batch, heads, seq, dim]`.

use gqa::{Attention, Element, Error, Job, Shape, View, ViewMut, bf16, f16};

use super::memory;

/// A storage type of the benches.
pub(crate) trait Number: Element + Default {
    const NAME: &'static str;
    /// Half a unit in the last place of a number near 1.
    const ROUNDING: f64;
    fn to_f64(self) -> f64;
}

macro_rules! number {
    ($type:ident, $rounding:literal) => {
        impl Number for $type {
            const NAME: &'static str = stringify!($type);
            const ROUNDING: f64 = $rounding;
            fn to_f64(self) -> f64 {
                self.into()
            }
        }
    };
}
number!(f32, 0.0);
number!(f16, 4.9e-4);
number!(bf16, 3.9e-3);

/// Numbers between -1 and 1, always the same, in huge pages where there are many.
pub(crate) fn random<T: Number>(count: usize, seed: u64) -> Vec<T> {
    let mut state = seed;
    let mut numbers = memory::huge_pages(count);
    numbers.extend((0..count).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        T::from_f32((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
    }));
    numbers
}

pub(crate) struct Operands<T> {
    pub(crate) shape: Shape,
    pub(crate) q: Vec<T>,
    pub(crate) k: Vec<T>,
    pub(crate) v: Vec<T>,
    pub(crate) out: Vec<T>,
}

impl<T: Number> Operands<T> {
    pub(crate) fn new(shape: Shape) -> Self {
        let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim } = shape;
        Self {
            shape,
            q: random(batch * q_heads * q_len * head_dim, 1),
            k: random(batch * kv_heads * kv_len * head_dim, 2),
            v: random(batch * kv_heads * kv_len * value_dim, 3),
            out: vec![T::default(); batch * q_heads * q_len * value_dim],
        }
    }

    pub(crate) fn bind<'a>(&'a mut self, attention: &Attention<'a>) -> Result<Job<'a, T, T, T, T>, Error> {
        let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = self.shape;
        attention.bind(
            View::bhsd(&self.q, q_heads, q_len, head_dim),
            View::bhsd(&self.k, kv_heads, kv_len, head_dim),
            View::bhsd(&self.v, kv_heads, kv_len, value_dim),
            ViewMut::bhsd(&mut self.out, q_heads, q_len, value_dim),
        )
    }
}
