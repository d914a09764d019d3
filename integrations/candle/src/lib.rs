//! Grouped-query attention on CPU tensors of [candle](candle_core), computed by [`gqa`] in one fused pass.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use gqa_candle::{Options, attention};
//!
//! // 9 query heads on 3 KV heads of 64. A cache with room for 128 tokens holds 20, the last 4 of them new.
//! let cpu = &Device::Cpu;
//! let q = Tensor::randn(0f32, 1., (1, 4, 9, 64), cpu)?.transpose(1, 2)?; // [b, heads, q_len, dim]
//! let (k, v) = (Tensor::ones((1, 3, 128, 64), DType::F16, cpu)?, Tensor::ones((1, 3, 128, 64), DType::F16, cpu)?);
//! let out = attention(&q, &k.narrow(2, 0, 20)?, &v.narrow(2, 0, 20)?, &Options::new().causal())?;
//! assert_eq!((out.dims(), out.dtype()), (&[1, 9, 4, 64][..], DType::F32));
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! [`attention`] is the door, [`Options`] all that changes the scores.

mod dense;
mod op;
mod options;
mod pool;

use candle_core::{Result, Tensor};
pub use gqa::{Alignment, alibi_slope};
use op::{Op, Order};
pub use options::Options;

/// `softmax(scores) · V`, where the scores are those of `q` and `k`, changed by `options`.
///
/// | tensor | shape |
/// |---|---|
/// | `q` | `[batch, heads, q_len, head_dim]` |
/// | `k` | `[batch, kv_heads, kv_len, head_dim]`, `kv_heads` a divisor of `heads` |
/// | `v` | `[batch, kv_heads, kv_len, value_dim]` |
/// | result | `[batch, heads, q_len, value_dim]`, with the type of `q` |
///
/// Each of `q`, `k` and `v` is f32, f16 or bf16, whatever the others are, and is read where it lies: transposed,
/// narrowed or broadcast tensors are not copied, and K and V are not repeated for the heads that share them. Only the
/// elements of a row must be neighbours. The result lies in memory as `q` does: if `q` is a transposed
/// `[batch, q_len, heads, head_dim]`, then `transpose(1, 2)` of the result is contiguous.
///
/// Work is done on the current pool of rayon: within [`Device::with_context`](candle_core::Device::with_context) that is
/// candle's. A decoded token occupies as many threads as there are sequences times KV heads. Threads keep their scratch
/// memory (about 100 kB).
///
/// # Numerics
/// Arithmetic is f32. The result's bits do not depend on threads, strides, or the other sequences of the batch. A row that
/// sees no key is 0. Error bounds are in the README of `gqa`.
///
/// # Errors
/// - `UnexpectedNumberOfDims` for a tensor that has not 4 dimensions, `UnexpectedShape` if a size of `k` or `v` does not
///   fit;
/// - `UnsupportedDTypeForOp` for other types, also of a mask or a bias, and `RequiresContiguous` if the elements of a row are
///   not neighbours;
/// - candle's error of `broadcast_as` for a mask or a bias that does not broadcast to
///   `[batch, heads, q_len, kv_len]`;
/// - `Wrapped` around a [`gqa::Error`] for everything else: heads that don't divide, counts and domains of numbers in
///   `options`;
/// - candle's own for tensors that are not on the CPU.
///
/// The operation has no gradient: `backward` through it returns `BackwardNotSupported`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, options: &Options) -> Result<Tensor> {
    let order = Order::of(q);
    let out = q.apply_op3(k, v, Op::new(options.clone(), order))?;
    match order {
        Order::HeadsOutside => Ok(out),
        Order::RowsOutside => out.transpose(1, 2),
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
