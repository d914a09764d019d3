//! One number at a time: the level of microcontrollers, of Miri, and the yardstick of the others.

use super::{Isa, Level, TileOp, widen_f16_bits};

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Isa for Scalar {
    type Simd = pulp::Scalar;
    type F = f32;
    type U = u32;
    type M = bool;
    const LEVEL: Level = Level::SCALAR;

    #[inline(always)]
    fn simd(self) -> pulp::Scalar {
        pulp::Scalar
    }

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    fn with_tile(self, vecs: usize, op: impl TileOp) {
        match vecs {
            4 => op.run::<4, 4>(),
            _ => op.run::<4, 1>(),
        }
    }

    /// Never fused: `fma` is a call on a core that lacks it, and two numbers would depend on which.
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn select(self, mask: bool, if_true: f32, if_false: f32) -> f32 {
        if mask { if_true } else { if_false }
    }

    /// Written as a comparison: `f32::max` is a call on Cortex-M.
    #[inline(always)]
    fn max_lane(self, a: f32) -> f32 {
        a
    }

    #[inline(always)]
    fn interleave(self, a: f32, b: f32) -> (f32, f32) {
        (a, b)
    }

    #[inline(always)]
    fn widen_f16(self, bits: &[u16]) -> f32 {
        bits.first().map_or(0.0, |&bits| widen_f16_bits(self, bits.into()))
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16]) -> f32 {
        bits.first().map_or(0.0, |&bits| f32::from_bits(u32::from(bits) << 16))
    }
}
