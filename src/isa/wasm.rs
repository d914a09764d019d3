//! wasm simd128, and with relaxed SIMD: chosen when the module is compiled, since a module with an
//! instruction that its engine lacks is refused whole.
#![allow(unsafe_code, reason = "tokens made from the proof that a `Level` is")]

use super::by_pulp::{ByPulp, operations, scale, sum_each, transpose, widen_f16_bits};
use super::{Isa, Level, MAX_LANES, TileOp};
use core::arch::wasm32::*;
use pulp::{Simd, cast, f32x4};

/// The two halves of `[a₀ b₀ a₁ b₁ …]`.
#[inline(always)]
fn interleave(a: f32x4, b: f32x4) -> (f32x4, f32x4) {
    let (a, b): (v128, v128) = (cast(a), cast(b));
    (cast(i32x4_shuffle::<0, 4, 1, 5>(a, b)), cast(i32x4_shuffle::<2, 6, 3, 7>(a, b)))
}

macro_rules! isa {
    ($name:ident, $pulp:ty, $level:expr, $new:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub(crate) struct $name {
            token: $pulp,
        }

        /// The instruction set of `level`.
        #[inline(always)]
        pub(super) fn $new(level: Level) -> $name {
            debug_assert!(level == $level);
            // SAFETY: a level other than scalar exists only when its target feature is enabled.
            unsafe { $name { token: <$pulp>::new_unchecked() } }
        }

        impl ByPulp for $name {
            type Simd = $pulp;

            #[inline(always)]
            fn simd(self) -> $pulp {
                self.token
            }
        }

        impl Isa for $name {
            type F = f32x4;
            type M = pulp::m32x4;
            const LEVEL: Level = $level;

            operations!();

            #[inline(always)]
            fn scale(self, p: Self::F, power: Self::F) -> Self::F {
                scale(self, p, power)
            }

            #[inline(always)]
            fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
                // The whole module has the instructions.
                f()
            }

            #[inline(always)]
            fn with_tile(self, _: usize, op: impl TileOp) {
                op.run::<2, 4>();
            }

            #[inline(always)]
            fn transpose(self, square: &mut [Self::F; MAX_LANES]) {
                transpose(square, interleave);
            }

            #[inline(always)]
            fn sum_each(self, vectors: &mut [Self::F]) -> Self::F {
                sum_each(self, vectors, interleave)
            }

            #[inline(always)]
            fn widen_f16(self, bits: &[u16]) -> Self::F {
                let Some(&[a, b, c, d]) = bits.first_chunk::<4>() else { return self.zero() };
                widen_f16_bits(self, cast(u32x4_extend_low_u16x8(u16x8(a, b, c, d, 0, 0, 0, 0))))
            }

            #[inline(always)]
            fn widen_bf16(self, bits: &[u16]) -> Self::F {
                let Some(&[a, b, c, d]) = bits.first_chunk::<4>() else { return self.zero() };
                cast(i32x4_shl(u32x4_extend_low_u16x8(u16x8(a, b, c, d, 0, 0, 0, 0)), 16))
            }
        }
    };
}

isa!(Simd128, pulp::wasm::Simd128, Level::SIMD128, simd128, "simd128: multiply, then add.");
#[cfg(target_feature = "relaxed-simd")]
isa!(
    RelaxedSimd,
    pulp::wasm::RelaxedSimd,
    Level::RELAXED_SIMD,
    relaxed_simd,
    "relaxed SIMD: fused where the host is."
);
