//! What every instruction set with vectors takes from `pulp`.

use super::Isa;
#[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
use super::MAX_LANES;
use pulp::Simd;

/// An instruction set by a `pulp` token.
pub(super) trait ByPulp: Isa<F = <Self::Simd as Simd>::f32s> {
    type Simd: Simd;

    fn simd(self) -> Self::Simd;
}

/// The operations of [`Isa`] that `pulp` has, for a type that is [`ByPulp`].
macro_rules! operations {
    () => {
        #[inline(always)]
        fn vectors(self, slice: &[f32]) -> &[Self::F] {
            <Self as ByPulp>::Simd::as_simd_f32s(slice).0
        }

        #[inline(always)]
        fn vectors_mut(self, slice: &mut [f32]) -> &mut [Self::F] {
            <Self as ByPulp>::Simd::as_mut_simd_f32s(slice).0
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::F {
            self.simd().splat_f32s(x)
        }

        #[inline(always)]
        fn add(self, a: Self::F, b: Self::F) -> Self::F {
            self.simd().add_f32s(a, b)
        }

        #[inline(always)]
        fn sub(self, a: Self::F, b: Self::F) -> Self::F {
            self.simd().sub_f32s(a, b)
        }

        #[inline(always)]
        fn mul(self, a: Self::F, b: Self::F) -> Self::F {
            self.simd().mul_f32s(a, b)
        }

        #[inline(always)]
        fn div(self, a: Self::F, b: Self::F) -> Self::F {
            self.simd().div_f32s(a, b)
        }

        #[inline(always)]
        fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            self.simd().mul_add_e_f32s(a, b, c)
        }

        #[inline(always)]
        fn copy_sign(self, a: Self::F, b: Self::F) -> Self::F {
            let s = self.simd();
            let sign = s.splat_f32s(-0.0);
            s.or_f32s(s.and_f32s(sign, b), s.and_f32s(s.not_f32s(sign), a))
        }

        #[inline(always)]
        fn abs(self, a: Self::F) -> Self::F {
            self.simd().abs_f32s(a)
        }

        #[inline(always)]
        fn less(self, a: Self::F, b: Self::F) -> Self::M {
            self.simd().less_than_f32s(a, b)
        }

        #[inline(always)]
        fn equal(self, a: Self::F, b: Self::F) -> Self::M {
            self.simd().equal_f32s(a, b)
        }

        #[inline(always)]
        fn select(self, mask: Self::M, if_true: Self::F, if_false: Self::F) -> Self::F {
            self.simd().select_f32s(mask, if_true, if_false)
        }

        #[inline(always)]
        fn lacks(self, sets: &[u32; MAX_LANES], bits: u32) -> Self::M {
            let s = self.simd();
            let none = s.splat_u32s(0);
            let sets = <Self as ByPulp>::Simd::as_simd_u32s(sets).0.first().copied().unwrap_or(none);
            s.equal_u32s(s.and_u32s(sets, s.splat_u32s(bits)), none)
        }

        #[inline(always)]
        fn sum_lanes(self, a: Self::F) -> f32 {
            self.simd().reduce_sum_f32s(a)
        }

        #[inline(always)]
        fn max_lane(self, a: Self::F) -> f32 {
            self.simd().reduce_max_f32s(a)
        }
    };
}
pub(super) use operations;

/// [`Isa::scale`] by moving bits.
#[inline(always)]
pub(super) fn scale<S: ByPulp>(isa: S, p: S::F, power: S::F) -> S::F {
    let s = isa.simd();
    let exponent = s.wrapping_dyn_shl_u32s(s.transmute_u32s_f32s(power), s.splat_u32s(23));
    isa.mul(p, s.transmute_f32s_u32s(exponent))
}

/// [`Isa::transpose`] of vectors of four, by what gives the two halves of `[a₀ b₀ a₁ b₁ …]`.
#[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
#[inline(always)]
pub(super) fn transpose<F: Copy>(square: &mut [F; MAX_LANES], interleave: impl Fn(F, F) -> (F, F)) {
    for _ in 0..2 {
        let (first, second) = (interleave(square[0], square[2]), interleave(square[1], square[3]));
        [square[0], square[1], square[2], square[3]] = [first.0, first.1, second.0, second.1];
    }
}

/// [`Isa::sum_each`], likewise.
#[cfg(any(target_arch = "aarch64", target_arch = "wasm32"))]
#[inline(always)]
pub(super) fn sum_each<S: Isa>(
    s: S,
    vectors: &[S::F],
    interleave: impl Fn(S::F, S::F) -> (S::F, S::F),
) -> S::F {
    let Some(&[a, b, c, d]) = vectors.first_chunk::<4>() else { return s.zero() };
    let sum = |a, b| {
        let (x, y) = interleave(a, b);
        s.add(x, y)
    };
    sum(sum(a, c), sum(b, d))
}

/// Half-precision bits, zero-extended to 32, as f32: exact, for zeros, subnormals, infinities and NaN too. For sets that have no instruction for it.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub(super) fn widen_f16_bits<S: ByPulp>(isa: S, bits: <S::Simd as Simd>::u32s) -> S::F {
    let s = isa.simd();
    let magnitude = s.wrapping_dyn_shl_u32s(s.and_u32s(bits, s.splat_u32s(0x7fff)), s.splat_u32s(13));
    let sign = s.wrapping_dyn_shl_u32s(s.and_u32s(bits, s.splat_u32s(0x8000)), s.splat_u32s(16));
    // The exponent is rebiased from 15 to 127 by a multiplication, which also normalises subnormals.
    let rebias = isa.splat(f32::from_bits((127 + 112) << 23));
    let scaled = isa.mul(s.transmute_f32s_u32s(magnitude), rebias);
    let special = isa.less(isa.splat(65504.0), scaled);
    let infinite = s.transmute_f32s_u32s(s.or_u32s(s.transmute_u32s_f32s(scaled), s.splat_u32s(0x7f80_0000)));
    let signed = isa.select(special, infinite, scaled);
    s.transmute_f32s_u32s(s.or_u32s(s.transmute_u32s_f32s(signed), sign))
}
