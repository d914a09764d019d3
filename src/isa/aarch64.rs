//! NEON: part of every aarch64 target but the soft-float ones.
//!
//! Conversions between half and single precision belong to it (`FCVTL`, `FCVTN`): there is nothing to detect. What
//! `FEAT_FP16` adds is arithmetic in half precision, which nothing here does.
#![allow(unsafe_code, reason = "intrinsics, and tokens made from the proof that a `Level` is")]

use super::by_pulp::{ByPulp, operations, scale, sum_each, transpose};
use super::{Isa, Level, MAX_LANES, TileOp};
use core::arch::aarch64::*;
use core::arch::asm;
use pulp::{Simd, cast, f32x4};

#[derive(Clone, Copy)]
pub(crate) struct Neon {
    neon: pulp::aarch64::Neon,
}

/// The instruction set of `level`, which is [`Level::NEON`].
#[inline(always)]
pub(super) fn neon(level: Level) -> Neon {
    debug_assert!(level == Level::NEON);
    // SAFETY: a level other than scalar exists only after it was found.
    unsafe { Neon { neon: pulp::aarch64::Neon::new_unchecked() } }
}

impl ByPulp for Neon {
    type Simd = pulp::aarch64::Neon;

    #[inline(always)]
    fn simd(self) -> pulp::aarch64::Neon {
        self.neon
    }
}

impl Isa for Neon {
    type F = f32x4;
    type M = pulp::m32x4;
    const LEVEL: Level = Level::NEON;

    operations!();

    #[inline(always)]
    fn scale(self, p: Self::F, power: Self::F) -> Self::F {
        scale(self, p, power)
    }

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        self.neon.vectorize(f)
    }

    #[inline(always)]
    fn with_tile(self, vecs: usize, op: impl TileOp) {
        match vecs {
            4 => op.run::<6, 4>(),
            _ => op.run::<8, 2>(),
        }
    }

    #[inline(always)]
    fn transpose(self, square: &mut [Self::F; MAX_LANES]) {
        transpose(square, |a, b| self.interleave(a, b));
    }

    #[inline(always)]
    fn sum_each(self, vectors: &mut [Self::F]) -> Self::F {
        sum_each(self, vectors, |a, b| self.interleave(a, b))
    }

    #[inline(always)]
    fn widen_f16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<4>() else { return self.zero() };
        let from: uint16x4_t = cast(*bits);
        let to: float32x4_t;
        // The intrinsic asks for a newer compiler.
        // SAFETY: the token proves NEON; the instruction reads and writes registers alone.
        unsafe {
            asm!("fcvtl {to:v}.4s, {from:v}.4h", from = in(vreg) from, to = lateout(vreg) to,
                options(pure, nomem, nostack, preserves_flags));
        }
        cast(to)
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<4>() else { return self.zero() };
        // SAFETY: the token proves NEON.
        cast(unsafe { vshll_n_u16::<16>(cast(*bits)) })
    }

    #[inline(always)]
    fn narrow_f16(self, x: Self::F, bits: &mut [u16]) {
        let Some(bits) = bits.first_chunk_mut::<4>() else { return };
        let from: float32x4_t = cast(x);
        let to: uint16x4_t;
        // SAFETY: as in `widen_f16`. It rounds as everything in Rust does, to nearest with ties to even.
        unsafe {
            asm!("fcvtn {to:v}.4h, {from:v}.4s", from = in(vreg) from, to = lateout(vreg) to,
                options(pure, nomem, nostack, preserves_flags));
        }
        *bits = cast(to);
    }

    #[inline(always)]
    fn narrow_bf16(self, x: Self::F, bits: &mut [u16]) {
        let Some(bits) = bits.first_chunk_mut::<4>() else { return };
        // SAFETY: the token proves NEON.
        let narrow = unsafe {
            let x: uint32x4_t = cast(x);
            let odd = vandq_u32(vshrq_n_u32::<16>(x), vdupq_n_u32(1));
            let rounded = vaddq_u32(vaddq_u32(x, vdupq_n_u32(0x7fff)), odd);
            let number = vceqq_f32(cast(x), cast(x));
            let quiet = vorrq_u32(x, vdupq_n_u32(0x0040_0000));
            vshrn_n_u32::<16>(vbslq_u32(number, rounded, quiet))
        };
        *bits = cast(narrow);
    }
}

impl Neon {
    /// The two halves of `[a₀ b₀ a₁ b₁ …]`.
    #[inline(always)]
    fn interleave(self, a: f32x4, b: f32x4) -> (f32x4, f32x4) {
        // SAFETY: the token proves NEON.
        unsafe { (cast(vzip1q_f32(cast(a), cast(b))), cast(vzip2q_f32(cast(a), cast(b)))) }
    }
}
