//! One number at a time: the level of microcontrollers, of Miri, and the yardstick of the others.

use super::{Isa, Level, MAX_LANES, TileOp, fpu};

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

impl Isa for Scalar {
    type F = f32;
    type M = bool;
    const LEVEL: Level = Level::SCALAR;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    fn with_tile(self, vecs: usize, op: impl TileOp) {
        match vecs {
            4 => op.run::<4, 4>(),
            3 if cfg!(feature = "single-tile") => op.run::<4, 3>(),
            _ => op.run::<4, 1>(),
        }
    }

    #[inline(always)]
    fn vectors(self, slice: &[f32]) -> &[f32] {
        slice
    }

    #[inline(always)]
    fn vectors_mut(self, slice: &mut [f32]) -> &mut [f32] {
        slice
    }

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }

    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }

    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }

    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }

    /// Never fused: `fma` is a call on a core that lacks it, and two numbers would depend on which.
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn copy_sign(self, a: f32, b: f32) -> f32 {
        a.copysign(b)
    }

    #[inline(always)]
    fn abs(self, a: f32) -> f32 {
        a.abs()
    }

    #[inline(always)]
    fn less(self, a: f32, b: f32) -> bool {
        a < b
    }

    #[inline(always)]
    fn equal(self, a: f32, b: f32) -> bool {
        a == b
    }

    #[inline(always)]
    fn select(self, mask: bool, if_true: f32, if_false: f32) -> f32 {
        if mask { if_true } else { if_false }
    }

    #[inline(always)]
    fn lacks(self, sets: &[u32; MAX_LANES], bits: u32) -> bool {
        sets[0] & bits == 0
    }

    #[inline(always)]
    fn scale(self, p: f32, power: f32) -> f32 {
        p * f32::from_bits(power.to_bits() << 23)
    }

    #[inline(always)]
    fn transpose(self, _: &mut [f32; MAX_LANES]) {}

    #[inline(always)]
    fn sum_each(self, vectors: &mut [f32]) -> f32 {
        vectors.first().copied().unwrap_or(0.0)
    }

    #[inline(always)]
    fn sum_lanes(self, a: f32) -> f32 {
        a
    }

    #[inline(always)]
    fn max_lane(self, a: f32) -> f32 {
        a
    }

    #[inline(always)]
    fn widen_f16(self, bits: &[u16]) -> f32 {
        bits.first().map_or(0.0, |&bits| fpu::widen_f16(bits))
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16]) -> f32 {
        f32::from_bits(bits.first().map_or(0, |&bits| u32::from(bits) << 16))
    }
}
