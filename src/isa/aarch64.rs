//! NEON: part of every aarch64 target but the soft-float ones.
#![allow(unsafe_code, reason = "intrinsics, and tokens made from the proof that a `Level` is")]

use super::by_pulp::{ByPulp, operations, scale, widen_f16_bits};
use super::{Isa, Level, TileOp};
use core::arch::aarch64::*;
use pulp::{Simd, cast};

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
    type F = pulp::f32x4;
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
            2 => op.run::<8, 2>(),
            _ => op.run::<8, 1>(),
        }
    }

    #[inline(always)]
    fn interleave(self, a: Self::F, b: Self::F) -> (Self::F, Self::F) {
        // SAFETY: the token proves NEON.
        unsafe { (cast(vzip1q_f32(cast(a), cast(b))), cast(vzip2q_f32(cast(a), cast(b)))) }
    }

    #[inline(always)]
    fn widen_f16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<4>() else { return self.zero() };
        // SAFETY: the token proves NEON.
        widen_f16_bits(self, cast(unsafe { vmovl_u16(cast(*bits)) }))
    }

    #[inline(always)]
    fn widen_bf16(self, bits: &[u16]) -> Self::F {
        let Some(bits) = bits.first_chunk::<4>() else { return self.zero() };
        // SAFETY: the token proves NEON.
        cast(unsafe { vshll_n_u16::<16>(cast(*bits)) })
    }
}
