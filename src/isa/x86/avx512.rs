//! AVX-512 (F, BW, CD, DQ, VL), and products of bf16 beside it.

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::{not_zero, prefetch, transpose_fours};
use crate::isa::by_pulp::{ByPulp, operations};
use crate::isa::{Isa, Level, MAX_LANES, Pairs, TileOp};
use pulp::{Simd, cast};

/// With `BF16`, and AVX512_BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool = false> {
    v4: pulp::x86::V4,
}

/// The instruction set of `level`, which is [`Level::AVX512`].
#[inline(always)]
pub(in crate::isa) fn avx512(level: Level) -> Avx512 {
    debug_assert!(level == Level::AVX512);
    // SAFETY: a level other than scalar exists only after `has_avx512` was true.
    unsafe { Avx512 { v4: pulp::x86::V4::new_unchecked() } }
}

/// The instruction set of a [`PairsLevel`](super::PairsLevel) of `level`, which exists only after `bf16_dot` found them.
#[inline(always)]
pub(in crate::isa) fn avx512_bf16(level: Level) -> Avx512<true> {
    Avx512 { v4: avx512(level).v4 }
}

/// Runs `f` compiled for all of [`Avx512<true>`].
#[inline]
#[target_feature(enable = "avx512bf16,avx512cd,avx512dq,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
fn with_bf16<R>(f: impl FnOnce() -> R) -> R {
    f()
}

impl<const BF16: bool> ByPulp for Avx512<BF16> {
    type Simd = pulp::x86::V4;

    #[inline(always)]
    fn simd(self) -> pulp::x86::V4 {
        self.v4
    }
}

impl<const BF16: bool> Isa for Avx512<BF16> {
    type F = pulp::f32x16;
    type M = pulp::b16;
    const LEVEL: Level = Level::AVX512;
    const PREFETCHES: bool = true;
    const UNIT: f32 = 1.0;
    const PAIRS: bool = true;
    const PRODUCTS_OF_PAIRS: bool = BF16;

    operations!();
    x86_operations!();

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        if BF16 {
            // SAFETY: a value with `BF16` is made only where the machine has what is enabled.
            unsafe { with_bf16(f) }
        } else {
            self.v4.vectorize(f)
        }
    }

    #[inline(always)]
    fn with_tile(self, vecs: usize, op: impl TileOp) {
        match vecs {
            3 => op.run::<8, 3>(),
            2 => op.run::<12, 2>(),
            _ => op.run::<12, 1>(),
        }
    }

    /// VREDUCEPS gives 0 for -∞, and VSCALEFPS too.
    #[inline(always)]
    fn split(self, t: Self::F) -> (Self::F, Self::F) {
        let rest = self.v4.avx512dq._mm512_reduce_ps::<_MM_FROUND_TO_NEAREST_INT>(cast(t));
        let n = self.v4.avx512f._mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(cast(t));
        (cast(rest), cast(n))
    }

    #[inline(always)]
    fn scale(self, p: Self::F, power: Self::F) -> Self::F {
        cast(self.v4.avx512f._mm512_scalef_ps(cast(p), cast(power)))
    }

    #[inline(always)]
    fn flush(self, t: Self::F, power: Self::F) -> Self::F {
        let avx512 = self.v4.avx512f;
        let normal = avx512._mm512_cmp_ps_mask::<_CMP_NLT_UQ>(cast(t), avx512._mm512_set1_ps(-126.0));
        cast(avx512._mm512_maskz_mov_ps(normal, cast(power)))
    }

    /// By shuffles inside the quarters of vectors first, which need no vector of indices.
    #[inline(always)]
    fn transpose(self, square: &mut [Self::F; MAX_LANES]) {
        let avx512 = self.v4.avx512f;
        let fours: [__m512; 16] = transpose_fours(
            cast(*square),
            |a, b| [avx512._mm512_unpacklo_ps(a, b), avx512._mm512_unpackhi_ps(a, b)],
            |a, b| {
                cast([
                    avx512._mm512_unpacklo_pd(cast(a), cast(b)),
                    avx512._mm512_unpackhi_pd(cast(a), cast(b)),
                ])
            },
        );
        // Then the quarters are transposed.
        let halves =
            |a, b| (avx512._mm512_shuffle_f32x4::<0x88>(a, b), avx512._mm512_shuffle_f32x4::<0xdd>(a, b));
        for i in 0..4 {
            let (low_even, low_odd) = halves(fours[i], fours[4 + i]);
            let (high_even, high_odd) = halves(fours[8 + i], fours[12 + i]);
            let (first, third) = halves(low_even, high_even);
            let (second, fourth) = halves(low_odd, high_odd);
            [square[i], square[4 + i], square[8 + i], square[12 + i]] = cast([first, second, third, fourth]);
        }
    }

    /// Sums inside the quarters of vectors first, by shuffles that don't cross them: 4 % of decoding's time less than the other
    /// way round with blends, of which LLVM makes shuffles again (Zen 4, f32, d 128, from the caches).
    #[inline(always)]
    fn sum_each(self, vectors: &mut [Self::F]) -> Self::F {
        let avx512 = self.v4.avx512f;
        let quarters = |a, b| {
            let even = avx512._mm512_shuffle_f32x4::<0x88>(a, b);
            avx512._mm512_add_ps(even, avx512._mm512_shuffle_f32x4::<0xdd>(a, b))
        };
        let Some(vectors) = vectors.first_chunk::<16>() else { return self.zero() };
        let mut v: [__m512; 16] = cast(*vectors);
        for i in 0..8 {
            let (a, b) = (v[2 * i], v[2 * i + 1]);
            v[i] = avx512._mm512_add_ps(avx512._mm512_unpacklo_ps(a, b), avx512._mm512_unpackhi_ps(a, b));
        }
        for i in 0..4 {
            let (a, b) = (cast(v[2 * i]), cast(v[2 * i + 1]));
            let (low, high) = (avx512._mm512_unpacklo_pd(a, b), avx512._mm512_unpackhi_pd(a, b));
            v[i] = avx512._mm512_add_ps(cast(low), cast(high));
        }
        for i in 0..2 {
            v[i] = quarters(v[2 * i], v[2 * i + 1]);
        }
        cast(quarters(v[0], v[1]))
    }

    #[inline(always)]
    fn widen_f16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<16>() else { return self.zero() };
        cast(self.v4.avx512f._mm512_cvtph_ps(cast(*bits)))
    }

    #[inline(always)]
    fn load_pairs(self, bits: &[u16]) -> Self::F {
        bits.first_chunk::<32>().map_or(self.zero(), |bits| cast(*bits))
    }

    #[inline(always)]
    fn store_pairs(self, pairs: Self::F, bits: &mut [u16]) {
        if let Some(bits) = bits.first_chunk_mut::<32>() {
            *bits = cast(pairs);
        }
    }

    #[inline(always)]
    fn pair_f16(self, low: Self::F, high: Self::F) -> Self::F {
        let avx512 = self.v4.avx512f;
        let low = avx512._mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(cast(low));
        let high = avx512._mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(cast(high));
        self.zip(avx512._mm512_inserti64x4::<1>(avx512._mm512_castsi256_si512(low), high))
    }

    #[inline(always)]
    fn pair_bf16(self, low: Self::F, high: Self::F) -> Self::F {
        if BF16 {
            // SAFETY: a value with `BF16` proves AVX512_BF16.
            self.zip(bits(unsafe { _mm512_cvtne2ps_pbh(cast(high), cast(low)) }))
        } else {
            self.upper_halves(self.round_bf16(low), self.round_bf16(high))
        }
    }

    #[inline(always)]
    fn narrow_f16(self, x: Self::F, bits: &mut [u16]) {
        let Some(bits) = bits.first_chunk_mut::<16>() else { return };
        *bits = cast(self.v4.avx512f._mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(cast(x)));
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<16>() else { return self.zero() };
        let words = self.v4.avx512f._mm512_cvtepu16_epi32(cast(*bits));
        cast(self.v4.avx512f._mm512_slli_epi32::<16>(words))
    }

    #[inline(always)]
    fn narrow_bf16(self, x: Self::F, bits: &mut [u16]) {
        let Some(bits) = bits.first_chunk_mut::<16>() else { return };
        let (avx512, word) = (self.v4.avx512f, cast(x));
        let high = avx512._mm512_srli_epi32::<16>(word);
        let odd = avx512._mm512_and_si512(high, avx512._mm512_set1_epi32(1));
        let half = avx512._mm512_add_epi32(odd, avx512._mm512_set1_epi32(0x7fff));
        let nearest = avx512._mm512_srli_epi32::<16>(avx512._mm512_add_epi32(word, half));
        let quiet = avx512._mm512_or_si512(high, avx512._mm512_set1_epi32(0x40));
        let nan = avx512._mm512_cmp_ps_mask::<_CMP_UNORD_Q>(cast(x), cast(x));
        *bits = cast(avx512._mm512_cvtepi32_epi16(avx512._mm512_mask_mov_epi32(nearest, nan, quiet)));
    }
}

impl Pairs for Avx512<true> {
    type Plain = Avx512<false>;

    #[inline(always)]
    fn plain(self) -> Avx512<false> {
        Avx512 { v4: self.v4 }
    }

    #[inline(always)]
    fn dot(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: a value with `BF16` proves AVX512_BF16.
        cast(unsafe { _mm512_dpbf16_ps(cast(c), pairs(a), pairs(b)) })
    }

    /// By whole numbers: the instructions for it take twice as many steps.
    #[inline(always)]
    fn pair_weights(self, low: Self::F, high: Self::F) -> Self::F {
        let (avx512, half) = (self.v4.avx512f, self.v4.avx512f._mm512_set1_epi32(0x8000));
        let low = avx512._mm512_add_epi32(cast(low), half);
        let high = avx512._mm512_add_epi32(cast(high), half);
        self.upper_halves(low, high)
    }

    #[inline(always)]
    fn fraction(self, t: Self::F) -> Self::F {
        cast(self.v4.avx512dq._mm512_reduce_ps::<_MM_FROUND_TO_NEG_INF>(cast(t)))
    }

    /// VSCALEFPS rounds the power down itself.
    #[inline(always)]
    fn scale_down(self, p: Self::F, power: Self::F) -> Self::F {
        self.scale(p, power)
    }

    #[inline(always)]
    fn narrow_pairs(self, first: Self::F, second: Self::F) -> Self::F {
        // SAFETY: as above.
        cast(bits(unsafe { _mm512_cvtne2ps_pbh(cast(second), cast(first)) }))
    }

    /// What lies 8 rows apart goes into one vector as it is loaded; its quarters are transposed each by itself.
    #[inline(always)]
    fn transpose_eights<'a>(self, row: impl Fn(usize) -> &'a [u16]) -> [Self::F; 8] {
        let (avx512, words) = (self.v4.avx512f, self.v4.avx512bw);
        let mut eights = [avx512._mm512_setzero_si512(); 8];
        for (i, to) in eights.iter_mut().enumerate() {
            let one = avx512._mm512_castsi128_si512(eight(row(i)));
            let two = avx512._mm512_inserti32x4::<1>(one, eight(row(8 + i)));
            let three = avx512._mm512_inserti32x4::<2>(two, eight(row(16 + i)));
            *to = avx512._mm512_inserti32x4::<3>(three, eight(row(24 + i)));
        }
        let mut fours = eights;
        for i in 0..4 {
            let (a, b) = (eights[2 * i], eights[2 * i + 1]);
            [fours[2 * i], fours[2 * i + 1]] =
                [words._mm512_unpacklo_epi16(a, b), words._mm512_unpackhi_epi16(a, b)];
        }
        let mut twos = fours;
        for i in 0..2 {
            for j in 0..2 {
                let (a, b) = (fours[4 * i + j], fours[4 * i + 2 + j]);
                twos[4 * i + 2 * j] = avx512._mm512_unpacklo_epi32(a, b);
                twos[4 * i + 2 * j + 1] = avx512._mm512_unpackhi_epi32(a, b);
            }
        }
        let mut columns = [self.zero(); 8];
        for i in 0..4 {
            columns[2 * i] = cast(avx512._mm512_unpacklo_epi64(twos[i], twos[4 + i]));
            columns[2 * i + 1] = cast(avx512._mm512_unpackhi_epi64(twos[i], twos[4 + i]));
        }
        columns
    }

    #[inline(always)]
    fn zip_pairs(self, low: &[u16], high: &[u16]) -> Self::F {
        match (low.first_chunk::<16>(), high.first_chunk::<16>()) {
            (Some(low), Some(high)) => {
                let low = self.v4.avx512f._mm512_castsi256_si512(cast(*low));
                self.zip(self.v4.avx512f._mm512_inserti64x4::<1>(low, cast(*high)))
            }
            _ => self.zero(),
        }
    }
}

impl<const BF16: bool> Avx512<BF16> {
    /// Numbers of which the upper 16 bits are bf16, to nearest with ties to even; NaN stays NaN.
    #[inline(always)]
    fn round_bf16(self, x: pulp::f32x16) -> __m512i {
        let (avx512, word) = (self.v4.avx512f, cast(x));
        let odd = avx512._mm512_test_epi32_mask(word, avx512._mm512_set1_epi32(1 << 16));
        let half = avx512._mm512_add_epi32(word, avx512._mm512_set1_epi32(0x7fff));
        let nearest = avx512._mm512_mask_add_epi32(half, odd, half, avx512._mm512_set1_epi32(1));
        let nan = avx512._mm512_cmp_ps_mask::<_CMP_UNORD_Q>(cast(x), cast(x));
        avx512._mm512_mask_or_epi32(nearest, nan, word, avx512._mm512_set1_epi32(0x40 << 16))
    }

    /// Pairs of the upper 16 bits of a lane of `low` and the same one of `high`.
    #[inline(always)]
    fn upper_halves(self, low: __m512i, high: __m512i) -> pulp::f32x16 {
        let avx512 = self.v4.avx512f;
        let low = avx512._mm512_srli_epi32::<16>(low);
        // The bits of the mask from `high`, the others from `low`.
        cast(avx512._mm512_ternarylogic_epi32::<0xca>(avx512._mm512_set1_epi32(!0xffff), high, low))
    }

    /// Pairs of the 16 bits of the low half and those of the high half.
    #[inline(always)]
    fn zip(self, halves: __m512i) -> pulp::f32x16 {
        const ORDER: [u16; 32] = {
            let (mut order, mut i) = ([0; 32], 0);
            while i < 16 {
                (order[2 * i], order[2 * i + 1]) = (i as u16, 16 + i as u16);
                i += 1;
            }
            order
        };
        cast(self.v4.avx512bw._mm512_permutexvar_epi16(cast(ORDER), halves))
    }
}

/// The first 8 numbers; 0 if there are fewer.
#[inline(always)]
fn eight(numbers: &[u16]) -> __m128i {
    cast(numbers.first_chunk::<8>().copied().unwrap_or_default())
}

/// A vector as the intrinsics want pairs.
#[inline(always)]
fn pairs(x: pulp::f32x16) -> __m512bh {
    // SAFETY: both are 64 bytes of which all bits mean something.
    unsafe { core::mem::transmute(x) }
}

/// What a narrowing intrinsic gives, as bits.
#[inline(always)]
fn bits(x: __m512bh) -> __m512i {
    // SAFETY: both are 64 bytes of which all bits mean something.
    unsafe { core::mem::transmute(x) }
}
