//! What an x86 machine has, and AVX2 (with FMA and F16C).
#![allow(unsafe_code, reason = "intrinsics, and tokens made from the proof that a `Level` is")]
#![allow(
    unused_unsafe,
    reason = "what needs `unsafe` depends on the Rust version and on the features enabled by flags"
)]

#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use core::sync::atomic::{AtomicU8, Ordering};

pub(super) use avx512::{avx512, avx512_bf16};

use super::by_pulp::{ByPulp, operations, scale};
use super::{Isa, Level, MAX_LANES, TileOp};
use pulp::core_arch::x86::{Avx, Avx2 as Avx2Instructions};
use pulp::{Simd, cast};

pulp::simd_type!({
    /// What pulp's V3 lists, and the half-precision conversions.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::undocumented_unsafe_blocks,
        reason = "written by pulp's macro"
    )]
    pub(super) struct V3F16c {
        sse: f!("sse"),
        sse2: f!("sse2"),
        fxsr: f!("fxsr"),
        sse3: f!("sse3"),
        ssse3: f!("ssse3"),
        sse4_1: f!("sse4.1"),
        sse4_2: f!("sse4.2"),
        popcnt: f!("popcnt"),
        avx: f!("avx"),
        avx2: f!("avx2"),
        bmi1: f!("bmi1"),
        bmi2: f!("bmi2"),
        fma: f!("fma"),
        lzcnt: f!("lzcnt"),
        f16c: f!("f16c"),
    }
});

/// Whether the operating system saves the registers that `mask` names in XCR0.
/// `std` asks this itself; pulp without `std` looks at CPUID alone.
fn system_saves(mask: u8) -> bool {
    // Asked once: under a hypervisor CPUID takes microseconds. The bit of the x87 registers tells that it has been.
    const ASKED: u8 = 1;
    static SAVED: AtomicU8 = AtomicU8::new(0);
    let mut saved = SAVED.load(Ordering::Relaxed);
    if saved & ASKED == 0 {
        saved = saved_by_system().to_le_bytes()[0] | ASKED;
        SAVED.store(saved, Ordering::Relaxed);
    }
    saved & mask == mask
}

/// XCR0, the registers that the system saves, 0 where there is none.
pub(super) fn saved_by_system() -> u64 {
    const OSXSAVE: u32 = 1 << 27;
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: the feature is enabled by the attribute.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: every x86 that runs SSE2 code has CPUID, whose leaf 1 always exists.
    let has_xgetbv = unsafe { __cpuid(1) }.ecx & OSXSAVE != 0;
    // SAFETY: OSXSAVE says that the system has enabled XGETBV.
    if has_xgetbv { unsafe { xcr0() } } else { 0 }
}

pub(super) fn has_avx2() -> bool {
    // XMM and YMM.
    system_saves(0x06) && V3F16c::is_available()
}

pub(super) fn has_avx512() -> bool {
    // XMM, YMM, the masks, and both halves of ZMM.
    system_saves(0xe6) && pulp::x86::V4::is_available() && V3F16c::is_available()
}

/// Products of bf16 of the machine's AVX-512, where it has that itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bf16Dot {
    None,
    Slow,
    Fast,
}

/// Asked once: under a hypervisor CPUID takes microseconds.
pub(super) fn bf16_dot() -> Bf16Dot {
    const UNKNOWN: u8 = 0;
    static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);
    match FOUND.load(Ordering::Relaxed) {
        1 => Bf16Dot::None,
        2 => Bf16Dot::Slow,
        3 => Bf16Dot::Fast,
        _ => {
            let (found, number) = match (has_avx512_bf16(), is_amd()) {
                (false, _) => (Bf16Dot::None, 1),
                (true, false) => (Bf16Dot::Slow, 2),
                (true, true) => (Bf16Dot::Fast, 3),
            };
            FOUND.store(number, Ordering::Relaxed);
            found
        }
    }
}

fn has_avx512_bf16() -> bool {
    const AVX512_BF16: u32 = 1 << 5;
    const EXTENDED_FEATURES: u32 = 7;
    // SAFETY: every x86 that runs SSE2 code has CPUID; the leaf and its second part are asked for where they exist.
    unsafe {
        __cpuid(0).eax >= EXTENDED_FEATURES
            && __cpuid_count(EXTENDED_FEATURES, 0).eax >= 1
            && __cpuid_count(EXTENDED_FEATURES, 1).eax & AVX512_BF16 != 0
    }
}

fn is_amd() -> bool {
    // SAFETY: as above; leaf 0 always exists.
    let vendor = unsafe { __cpuid(0) };
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

/// [`Isa::not_zero`] by the sign bits of a comparison.
#[inline(always)]
fn not_zero(avx: Avx, avx2: Avx2Instructions, bytes: &[u8; 32]) -> u32 {
    !(avx2._mm256_movemask_epi8(avx2._mm256_cmpeq_epi8(cast(*bytes), avx._mm256_setzero_si256())) as u32)
}

/// Of each four vectors the squares inside their parts of 16 bytes, transposed, by what interleaves the halves of such parts of two
/// vectors: number by number, and pair by pair.
#[inline(always)]
fn transpose_fours<V: Copy, const N: usize>(
    rows: [V; N],
    numbers: impl Fn(V, V) -> [V; 2],
    pairs: impl Fn(V, V) -> [V; 2],
) -> [V; N] {
    let mut fours = rows;
    for i in 0..N / 4 {
        let [a, c] = numbers(rows[4 * i], rows[4 * i + 1]);
        let [b, d] = numbers(rows[4 * i + 2], rows[4 * i + 3]);
        [fours[4 * i], fours[4 * i + 1]] = pairs(a, b);
        [fours[4 * i + 2], fours[4 * i + 3]] = pairs(c, d);
    }
    fours
}

#[inline(always)]
fn prefetch<const HINT: i32>(line: *const u8) {
    // SAFETY: SSE is part of every level here, and a prefetch reads nothing that a program could see.
    unsafe { _mm_prefetch::<HINT>(line.cast()) }
}

/// The operations of [`Isa`] that x86 levels have in common.
macro_rules! x86_operations {
    () => {
        #[inline(always)]
        fn max(self, a: Self::F, b: Self::F) -> Self::F {
            // MAXPS returns its second operand if either is NaN.
            self.simd().max_f32s(a, b)
        }

        #[inline(always)]
        fn prefetch(self, line: *const u8) {
            prefetch::<_MM_HINT_T1>(line);
        }

        #[inline(always)]
        fn prefetch_near(self, line: *const u8) {
            prefetch::<_MM_HINT_T0>(line);
        }

        #[inline(always)]
        fn not_zero(self, bytes: &[u8; 32]) -> u32 {
            let simd = self.simd();
            not_zero(simd.avx, simd.avx2, bytes)
        }
    };
}

mod avx512;

#[derive(Clone, Copy)]
pub(crate) struct Avx2 {
    v3: pulp::x86::V3,
    vectorize: V3F16c,
}

/// The instruction set of `level`, which is [`Level::AVX2`].
#[inline(always)]
pub(super) fn avx2(level: Level) -> Avx2 {
    debug_assert!(level == Level::AVX2);
    // SAFETY: a level other than scalar exists only after `has_avx2` was true.
    unsafe { Avx2 { v3: pulp::x86::V3::new_unchecked(), vectorize: V3F16c::new_unchecked() } }
}

impl ByPulp for Avx2 {
    type Simd = pulp::x86::V3;

    #[inline(always)]
    fn simd(self) -> pulp::x86::V3 {
        self.v3
    }
}

impl Isa for Avx2 {
    type F = pulp::f32x8;
    type M = pulp::m32x8;
    const LEVEL: Level = Level::AVX2;
    const PREFETCHES: bool = true;

    operations!();
    x86_operations!();

    #[inline(always)]
    fn scale(self, p: Self::F, power: Self::F) -> Self::F {
        scale(self, p, power)
    }

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.vectorize.vectorize(f)
    }

    #[inline(always)]
    fn with_tile(self, _: usize, op: impl TileOp) {
        op.run::<6, 2>();
    }

    /// By shuffles inside the halves of vectors first.
    #[inline(always)]
    fn transpose(self, square: &mut [Self::F; MAX_LANES]) {
        let avx = self.v3.avx;
        let Some(square) = square.first_chunk_mut::<8>() else { return };
        let fours: [__m256; 8] = transpose_fours(
            cast(*square),
            |a, b| [avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b)],
            |a, b| cast([avx._mm256_unpacklo_pd(cast(a), cast(b)), avx._mm256_unpackhi_pd(cast(a), cast(b))]),
        );
        for i in 0..4 {
            let (a, b) = (fours[i], fours[4 + i]);
            square[i] = cast(avx._mm256_permute2f128_ps::<0x20>(a, b));
            square[4 + i] = cast(avx._mm256_permute2f128_ps::<0x31>(a, b));
        }
    }

    /// Sums inside the halves of vectors first, by shuffles that don't cross them.
    #[inline(always)]
    fn sum_each(self, vectors: &mut [Self::F]) -> Self::F {
        let avx = self.v3.avx;
        let Some(vectors) = vectors.first_chunk::<8>() else { return self.zero() };
        let mut v: [__m256; 8] = cast(*vectors);
        for i in 0..4 {
            let (a, b) = (v[2 * i], v[2 * i + 1]);
            v[i] = avx._mm256_add_ps(avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b));
        }
        for i in 0..2 {
            let (a, b) = (cast(v[2 * i]), cast(v[2 * i + 1]));
            v[i] = avx._mm256_add_ps(cast(avx._mm256_unpacklo_pd(a, b)), cast(avx._mm256_unpackhi_pd(a, b)));
        }
        let (low, high) =
            (avx._mm256_permute2f128_ps::<0x20>(v[0], v[1]), avx._mm256_permute2f128_ps::<0x31>(v[0], v[1]));
        cast(avx._mm256_add_ps(low, high))
    }

    #[inline(always)]
    fn widen_f16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<8>() else { return self.zero() };
        // SAFETY: the token proves F16C.
        cast(unsafe { _mm256_cvtph_ps(cast(*bits)) })
    }

    #[inline(always)]
    fn narrow_f16(self, x: Self::F, bits: &mut [u16]) {
        let Some(bits) = bits.first_chunk_mut::<8>() else { return };
        // SAFETY: the token proves F16C.
        *bits = cast(unsafe { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(cast(x)) });
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<8>() else { return self.zero() };
        let words = self.v3.avx2._mm256_cvtepu16_epi32(cast(*bits));
        cast(self.v3.avx2._mm256_slli_epi32::<16>(words))
    }

    #[inline(always)]
    fn narrow_bf16(self, x: Self::F, bits: &mut [u16]) {
        let Some(bits) = bits.first_chunk_mut::<8>() else { return };
        let (avx, avx2, word) = (self.v3.avx, self.v3.avx2, cast(x));
        let high = avx2._mm256_srli_epi32::<16>(word);
        let odd = avx2._mm256_and_si256(high, avx._mm256_set1_epi32(1));
        let half = avx2._mm256_add_epi32(odd, avx._mm256_set1_epi32(0x7fff));
        let nearest = avx2._mm256_srli_epi32::<16>(avx2._mm256_add_epi32(word, half));
        let quiet = avx2._mm256_or_si256(high, avx._mm256_set1_epi32(0x40));
        let nan = avx._mm256_cmp_ps::<_CMP_UNORD_Q>(cast(x), cast(x));
        let words = avx2._mm256_blendv_epi8(nearest, quiet, cast(nan));
        let halves = avx2._mm256_permute4x64_epi64::<0b10_00>(avx2._mm256_packus_epi32(words, words));
        *bits = cast(avx._mm256_castsi256_si128(halves));
    }
}
