//! [`Level`]: an instruction set as a value, found at run time where the target allows.

#[cfg(target_feature = "sse2")]
use super::matrix::Matrix;
use super::{Isa, Pairs, Unit, scalar};
use core::fmt;

/// An instruction set that this machine has.
///
/// A value of this type is the proof that the machine can run it: all but [`Level::SCALAR`] come from
/// [`detect`](Self::detect), [`available`](Self::available) or [`named`](Self::named).
///
/// | level | targets | found |
/// |---|---|---|
/// | `scalar` | all | always |
/// | `avx2` (with FMA, BMI, F16C) | x86, x86-64 (but not on targets without SSE2) | at run time |
/// | `avx512` (F, BW, CD, DQ, VL) | x86, x86-64 (but not on targets without SSE2) | at run time |
/// | `neon` | aarch64 | at compile time (always there but on soft-float targets) |
/// | `simd128`, `relaxed-simd` | wasm32 | at compile time |
///
/// ```
/// use gqa::Level;
/// assert_eq!(Level::available().next(), Some(Level::SCALAR));
/// assert_eq!(Level::available().last(), Some(Level::detect()));
/// assert_eq!(Level::named("scalar"), Some(Level::SCALAR));
/// println!("best here: {}", Level::detect());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(Kind);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Scalar,
    #[cfg(target_feature = "sse2")]
    Avx2,
    #[cfg(target_feature = "sse2")]
    Avx512,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    RelaxedSimd,
}

/// Every level that is compiled for this target, the narrowest first.
pub(crate) const LEVELS: &[Level] = &[
    Level(Kind::Scalar),
    #[cfg(target_feature = "sse2")]
    Level(Kind::Avx2),
    #[cfg(target_feature = "sse2")]
    Level(Kind::Avx512),
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Level(Kind::Neon),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Level(Kind::Simd128),
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    Level(Kind::RelaxedSimd),
];

/// Whether the module runs at its best level alone, so that no other is compiled: feature `single-level` on wasm, where
/// that level is known when the module is compiled.
const SINGLE: bool = cfg!(all(feature = "single-level", target_arch = "wasm32"));

/// Work that is generic over the instruction set.
pub(crate) trait Op {
    /// Runs the work; must be `#[inline(always)]`.
    fn run<S: Isa>(self, isa: S);
}

#[cfg_attr(
    not(target_feature = "sse2"),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]
/// Work that is generic over an instruction set with products of bf16.
pub(crate) trait PairsOp {
    /// Runs the work, by the matrix unit where it may be used; must be `#[inline(always)]`, and runs no other such work by the unit.
    fn run<S: Pairs>(self, isa: S, unit: Option<&Unit>);
}

/// A level whose machine has products of bf16 beside it: a value is the proof.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairsLevel {
    #[cfg(target_feature = "sse2")]
    level: Level,
    #[cfg(target_feature = "sse2")]
    matrix: Option<Matrix>,
    #[cfg(not(target_feature = "sse2"))]
    never: Never,
}

/// No level of the target has them.
#[cfg(not(target_feature = "sse2"))]
#[derive(Clone, Copy, Debug)]
enum Never {}

impl PairsLevel {
    /// With the matrix unit, if there is one.
    pub(crate) fn with_matrix(self) -> Self {
        #[cfg(target_feature = "sse2")]
        return Self { matrix: Matrix::of_machine(), ..self };
        #[cfg(not(target_feature = "sse2"))]
        self
    }

    /// Whether it is with the matrix unit.
    pub(crate) fn has_matrix(self) -> bool {
        #[cfg(target_feature = "sse2")]
        return self.matrix.is_some();
        #[cfg(not(target_feature = "sse2"))]
        match self.never {}
    }

    /// Runs `op` compiled for the level.
    pub(crate) fn dispatch(self, op: impl PairsOp) {
        #[cfg(target_feature = "sse2")]
        {
            let isa = super::x86::avx512_bf16(self.level);
            let unit = self.matrix.map(Matrix::unit);
            isa.vectorize(
                #[inline(always)]
                || op.run(isa, unit.as_ref()),
            );
        }
        #[cfg(not(target_feature = "sse2"))]
        {
            let _ = op;
            match self.never {}
        }
    }
}

impl Level {
    /// Plain f32 arithmetic: on every machine.
    pub const SCALAR: Self = Self(Kind::Scalar);

    #[cfg(target_feature = "sse2")]
    pub(super) const AVX2: Self = Self(Kind::Avx2);
    #[cfg(target_feature = "sse2")]
    pub(super) const AVX512: Self = Self(Kind::Avx512);
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    pub(super) const NEON: Self = Self(Kind::Neon);
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    pub(super) const SIMD128: Self = Self(Kind::Simd128);
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    pub(super) const RELAXED_SIMD: Self = Self(Kind::RelaxedSimd);

    /// The fastest level that this machine has.
    #[must_use]
    pub fn detect() -> Self {
        LEVELS.iter().rev().copied().find(|level| level.is_here()).unwrap_or(Self::SCALAR)
    }

    /// Every level that this machine has, the slowest (`scalar`) first.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> + Clone {
        LEVELS.iter().copied().filter(|level| level.is_here() && level.compiled() == *level)
    }

    /// The level of this name, if this machine has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::available().find(|level| level.name() == name)
    }

    /// The name: `scalar`, `avx2`, `avx512`, `neon`, `simd128` or `relaxed-simd`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_feature = "sse2")]
            Kind::Avx2 => "avx2",
            #[cfg(target_feature = "sse2")]
            Kind::Avx512 => "avx512",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => "neon",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => "simd128",
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Kind::RelaxedSimd => "relaxed-simd",
        }
    }

    /// Numbers of f32 in a vector: 1, 4, 8 or 16.
    #[must_use]
    pub const fn lanes(self) -> usize {
        match self.0 {
            Kind::Scalar => 1,
            #[cfg(target_feature = "sse2")]
            Kind::Avx2 => 8,
            #[cfg(target_feature = "sse2")]
            Kind::Avx512 => 16,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => 4,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => 4,
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Kind::RelaxedSimd => 4,
        }
    }

    /// Whether this level has products of bf16 on this machine, for [`Attention::bf16_dot`](crate::Attention::bf16_dot):
    /// `avx512` where there is AVX512_BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later).
    #[must_use]
    pub fn has_bf16_dot(self) -> bool {
        self.pairs().is_some()
    }

    /// Whether these are by a matrix unit: `avx512` where there is AMX-BF16 (Sapphire Rapids and later), on x86-64 Linux. The first
    /// time this asks the system for the unit's registers (`arch_prctl`), as [`Attention::bf16_dot`](crate::Attention::bf16_dot)
    /// does where it may take them: for the process, once and for all. From then on alternate signal stacks (`sigaltstack`) must have
    /// room for them, some 11 KiB, and are refused if they are smaller, as the old `SIGSTKSZ` of 8 KiB is; where a thread has
    /// such a stack already, the system refuses the unit.
    #[must_use]
    pub fn has_bf16_matrix(self) -> bool {
        self.pairs().is_some_and(|pairs| pairs.with_matrix().has_matrix())
    }

    /// Whether they are faster than those of f32: by a matrix unit, and on cores by AMD, which issue one a cycle. The vectors' of cores by
    /// Intel that have been measured take twice the time of f32. Asks for the matrix unit as [`has_bf16_matrix`](Self::has_bf16_matrix)
    /// does.
    #[must_use]
    pub fn gains_by_bf16_dot(self) -> bool {
        self.faster_pairs().is_some()
    }

    /// The proof of [`has_bf16_dot`](Self::has_bf16_dot), without the matrix unit.
    pub(crate) fn pairs(self) -> Option<PairsLevel> {
        #[cfg(target_feature = "sse2")]
        return (self == Self::AVX512 && super::x86::bf16_dot() != super::x86::Bf16Dot::None)
            .then_some(PairsLevel { level: self, matrix: None });
        #[cfg(not(target_feature = "sse2"))]
        None
    }

    /// The proof of [`gains_by_bf16_dot`](Self::gains_by_bf16_dot).
    pub(crate) fn faster_pairs(self) -> Option<PairsLevel> {
        #[cfg(target_feature = "sse2")]
        return self
            .pairs()
            .map(PairsLevel::with_matrix)
            .filter(|pairs| pairs.has_matrix() || super::x86::bf16_dot() == super::x86::Bf16Dot::Fast);
        #[cfg(not(target_feature = "sse2"))]
        None
    }

    /// The level that this build runs at where it is asked for `self`.
    pub(crate) fn compiled(self) -> Self {
        if SINGLE { Self::detect() } else { self }
    }

    fn is_here(self) -> bool {
        match self.0 {
            Kind::Scalar => true,
            // Miri runs neither the CPUID of a build without `std` nor the intrinsics of AVX-512.
            #[cfg(target_feature = "sse2")]
            _ if cfg!(miri) => false,
            #[cfg(target_feature = "sse2")]
            Kind::Avx2 => super::x86::has_avx2(),
            #[cfg(target_feature = "sse2")]
            Kind::Avx512 => super::x86::has_avx512(),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => !cfg!(miri),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => true,
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Kind::RelaxedSimd => true,
        }
    }

    /// Runs `op` compiled for this level.
    pub(crate) fn dispatch(self, op: impl Op) {
        match self.compiled().0 {
            Kind::Scalar => run(scalar::Scalar, op),
            #[cfg(target_feature = "sse2")]
            Kind::Avx2 => run(super::x86::avx2(self), op),
            #[cfg(target_feature = "sse2")]
            Kind::Avx512 => run(super::x86::avx512(self), op),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => run(super::aarch64::neon(self), op),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => run(super::wasm::simd128(self), op),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Kind::RelaxedSimd => run(super::wasm::relaxed_simd(self), op),
        }
    }
}

fn run<S: Isa>(isa: S, op: impl Op) {
    isa.vectorize(
        #[inline(always)]
        || op.run(isa),
    );
}

impl Default for Level {
    /// [`Level::detect`].
    fn default() -> Self {
        Self::detect()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Level({})", self.name())
    }
}
