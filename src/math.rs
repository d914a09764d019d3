//! 2^t, e^x and tanh on vectors, from one polynomial.
//!
//! `t = n + r` with an integer `n`, so that `r` is exact, and `2^r = 1 + r q(r)` on [-½, ½] with `q` of degree 5.
//! Without the constant 1 in the polynomial, `exp2(0)` is exactly 1 (rescaling by an unchanged maximum changes no
//! bit), and `2^t - 1`, and so tanh, keeps its relative error near 0.
//!
//! Weights that are rounded to bf16 have a shorter one, of degree 5 on [0, 1), at the level that has products of bf16.
//!
//! The bounds are tested on every level: over every f32 where the functions are neither 1 nor x nor at their limits
//! in release builds, over a sample otherwise.

use core::f32::consts::LOG2_E;

use crate::isa::{Isa, Pairs};

/// Minimax coefficients of `q(r) = (2^r - 1) / r` for |r| ≤ ½, highest power first; relative error 0.18 · 2⁻²⁴.
const Q: [f32; 6] =
    [1.540_351_2e-4, 1.339_073_5e-3, 9.618_238e-3, 5.550_357_3e-2, 2.402_264_9e-1, 6.931_472e-1];

/// The coefficients of `q(r) · unit`.
const fn coefficients(unit: f32) -> [f32; 6] {
    let (mut q, mut i) = (Q, 0);
    while i < Q.len() {
        q[i] *= unit;
        i += 1;
    }
    q
}

/// The polynomial of these coefficients.
#[inline(always)]
fn quotient<S: Isa>(s: S, r: S::F, coefficients: &[f32; 6]) -> S::F {
    let mut q = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        q = s.mul_add(q, r, s.splat(*c));
    }
    q
}

/// 2^t for t ≤ 0: exactly 1 for 0, NaN for NaN, otherwise within [`EXP2_ULP`] where 2^t ≥ 2^-125.5 (at AVX-512 2⁻¹²⁶); below, 0.
///
/// No weight is subnormal: multiplying a value by one takes some cores 150 cycles, which made prompts with ALiBi six times as
/// long on Intel's.
#[inline(always)]
fn exp2<S: Isa>(s: S, t: S::F) -> S::F {
    let (r, power) = s.split(t);
    let p = s.mul_add(r, quotient(s, r, const { &coefficients(S::UNIT) }), s.splat(S::UNIT));
    s.flush(t, s.scale(p, power))
}

/// Minimax coefficients of `(2^r - 1) / r` for 0 ≤ r ≤ 1, highest power first; 2^r has a relative error of 1.4 · 2⁻²⁴.
const Q_DOWN: [f32; 5] = [1.867_131_4e-3, 9.017_025e-3, 5.579_992e-2, 2.401_644_4e-1, 6.931_513e-1];

#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]
/// As [`exp2`], but within [`EXP2_DOWN_ULP`], in three quarters of the time: what is rounded to bf16 doesn't show it. Below 2⁻¹²⁶ within
/// that: products of bf16 take subnormals as 0.
#[inline(always)]
fn exp2_down<S: Pairs>(s: S, t: S::F) -> S::F {
    let r = s.fraction(t);
    let mut q = s.splat(Q_DOWN[0]);
    for c in &Q_DOWN[1..] {
        q = s.mul_add(q, r, s.splat(*c));
    }
    s.scale_down(s.mul_add(q, r, s.splat(1.0)), t)
}

/// e^x for x ≤ 0, as 2^(x log₂ e): the rounding of the product adds a relative error of |x| 2⁻²³ at most to that of
/// [`exp2`]. A softmax does not notice, since the error shrinks with the weight: |x| e^x < 0.37.
#[inline(always)]
pub(crate) fn exp<S: Isa>(s: S, x: S::F) -> S::F {
    exp2(s, s.mul(x, s.splat(LOG2_E)))
}

#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]
/// As [`exp`], by [`exp2_down`].
#[inline(always)]
pub(crate) fn exp_down<S: Pairs>(s: S, x: S::F) -> S::F {
    exp2_down(s, s.mul(x, s.splat(LOG2_E)))
}

/// tanh(x · `by`), where `by` is positive and finite: for 1, within [`TANH_ULP`], ±1 for |x| ≥ 9.02, NaN for NaN; odd, and 0 keeps
/// its sign. Another `by` adds a rounding of x.
#[inline(always)]
pub(crate) fn tanh<S: Isa>(s: S, x: S::F, by: f32) -> S::F {
    // With e = expm1(-2|x|) = 2^n p + (2^n - 1) and p = 2^r - 1, tanh |x| = -e / (e + 2); here all of e is divided by the unit.
    let factor = (-2.0 * LOG2_E * by).max(f32::MIN);
    let (r, power) = s.split(s.mul(s.abs(x), s.splat(factor)));
    let p = s.mul(r, quotient(s, r, &Q));
    let factor = s.scale(s.splat(1.0), power);
    let e = s.mul_add(p, factor, s.sub(factor, s.splat(1.0 / S::UNIT)));
    s.copy_sign(s.div(e, s.add(e, s.splat(2.0 / S::UNIT))), x)
}

/// The greatest error of [`exp2`] in units in the last place of the true value.
#[cfg(test)]
const EXP2_ULP: f64 = 1.5;

/// The greatest error of [`exp2_down`] in units in the last place of the true value.
#[cfg(test)]
const EXP2_DOWN_ULP: f64 = 3.5;

/// The greatest error of [`tanh`] in units in the last place of the true value.
#[cfg(test)]
const TANH_ULP: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Level, Op, PairsOp, Unit};
    use std::vec::Vec;

    #[derive(Clone, Copy)]
    enum Function {
        Exp2,
        Exp,
        Tanh,
    }

    /// Applies a function of vectors to numbers at one level.
    struct Apply<'a> {
        function: Function,
        numbers: &'a mut [f32],
    }

    impl Op for Apply<'_> {
        #[inline(always)]
        fn run<S: Isa>(self, s: S) {
            for x in s.vectors_mut(self.numbers) {
                *x = match self.function {
                    Function::Exp2 => exp2(s, *x),
                    Function::Exp => exp(s, *x),
                    Function::Tanh => tanh(s, *x, 1.0),
                };
            }
        }
    }

    fn apply(level: Level, function: Function, numbers: &[f32]) -> Vec<f32> {
        let mut padded = numbers.to_vec();
        padded.resize(numbers.len().next_multiple_of(16), 0.0);
        level.dispatch(Apply { function, numbers: &mut padded });
        padded.truncate(numbers.len());
        padded
    }

    /// Applies [`exp2_down`] to numbers.
    struct ApplyDown<'a>(&'a mut [f32]);

    impl PairsOp for ApplyDown<'_> {
        #[inline(always)]
        fn run<S: Pairs>(self, s: S, _: Option<&Unit>) {
            for x in s.vectors_mut(self.0) {
                *x = exp2_down(s, *x);
            }
        }
    }

    /// Whether there is a level that has it.
    fn apply_down(numbers: &mut [f32]) -> bool {
        let pairs = Level::available().find_map(Level::pairs);
        pairs.map(|pairs| pairs.dispatch(ApplyDown(numbers))).is_some()
    }

    /// The error of `got` in units in the last place of `want`.
    fn ulp(got: f32, want: f64) -> f64 {
        let exponent = (want.abs().to_bits() >> 52) as i32 - 1023;
        (f64::from(got) - want).abs() / 2f64.powi(exponent.max(-126) - 23)
    }

    /// Calls `check` with runs of the positive f32: in release builds all from 2⁻³⁰ to 256 (below, both functions are
    /// their first Taylor term to the last place; above, they have reached their limits), elsewhere a sample, and
    /// always the ends of every binade.
    fn sweep(mut check: impl FnMut(&[f32])) {
        const DENSE: core::ops::Range<u32> = 0x3080_0000..0x4380_0000;
        let sparse = if cfg!(miri) { 40_000_003 } else { 1009 };
        let dense = if cfg!(debug_assertions) { sparse } else { 1 };
        let infinity = f32::INFINITY.to_bits();
        let parts = [(0..DENSE.start, sparse), (DENSE, dense), (DENSE.end..infinity + 1, sparse)];
        let mut all = parts.into_iter().flat_map(|(part, stride)| part.step_by(stride)).map(f32::from_bits);
        let ends = (0..256).flat_map(|e| [e << 23, (e << 23) + 1, (e << 23) + 0x7f_ffff]);
        let ends: Vec<f32> = ends.filter(|&bits| bits <= infinity).map(f32::from_bits).collect();
        check(&ends);
        loop {
            let run: Vec<f32> = all.by_ref().take(1 << 16).collect();
            if run.is_empty() {
                break;
            }
            check(&run);
        }
    }

    /// The greatest power that [`exp2`] may take for 0.
    fn flushed(level: Level) -> f64 {
        let exponent = if level.name() == "avx512" { -126.0 } else { -125.5f64 };
        exponent.exp2()
    }

    /// The greatest error so far at each level of the machine.
    fn greatest() -> Vec<(Level, f64)> {
        Level::available().map(|level| (level, 0.0)).collect()
    }

    #[test]
    fn exponentials_are_within_their_bounds_over_their_domain() {
        let (mut greatest, mut relative) = (greatest(), greatest());
        sweep(|magnitudes| {
            let xs: Vec<f32> = magnitudes.iter().map(|x| -x).collect();
            for ((level, greatest), (_, relative)) in greatest.iter_mut().zip(&mut relative) {
                let (twos, es) = (apply(*level, Function::Exp2, &xs), apply(*level, Function::Exp, &xs));
                for ((&x, two), e) in xs.iter().zip(twos).zip(es) {
                    let want = f64::from(x).exp2();
                    if two == 0.0 {
                        assert!(want <= flushed(*level), "{level}: exp2({x}) = 0");
                    } else {
                        assert!(two.is_normal(), "{level}: exp2({x}) = {two}");
                        *greatest = greatest.max(ulp(two, want));
                    }
                    let want = f64::from(x).exp();
                    if e == 0.0 {
                        assert!(want <= flushed(*level) * 1.00001, "{level}: exp({x}) = 0");
                    } else {
                        assert!(e.is_normal(), "{level}: exp({x}) = {e}");
                        let error = (f64::from(e) - want).abs() / want;
                        *relative = relative.max(error / (EXP2_ULP - f64::from(x)) * 2f64.powi(23));
                    }
                }
            }
        });
        for ((level, greatest), (_, relative)) in greatest.into_iter().zip(relative) {
            std::println!("{level}: exp2 within {greatest:.3} ULP, exp within {relative:.3} of its bound");
            assert!(greatest <= EXP2_ULP, "{level}: exp2 off by {greatest} ULP");
            assert!(relative <= 1.0, "{level}: exp off by {relative} of its bound");
            for function in [Function::Exp2, Function::Exp] {
                let special =
                    apply(level, function, &[0.0, -0.0, f32::NEG_INFINITY, f32::MIN, f32::NAN, -f32::NAN]);
                assert_eq!(special[..4], [1.0, 1.0, 0.0, 0.0], "{level}");
                assert!(special[4].is_nan() && special[5].is_nan(), "{level}");
            }
        }
    }

    #[test]
    fn the_quick_exponential_is_within_its_bound_over_its_domain() {
        let mut special = [0.0; 16];
        special[..6].copy_from_slice(&[-0.0, 0.0, f32::NEG_INFINITY, f32::MIN, f32::NAN, -f32::NAN]);
        if !apply_down(&mut special) {
            return;
        }
        assert_eq!(special[..4], [1.0, 1.0, 0.0, 0.0]);
        assert!(special[4].is_nan() && special[5].is_nan());
        let mut greatest: f64 = 0.0;
        sweep(|magnitudes| {
            let mut twos: Vec<f32> = magnitudes.iter().map(|x| -x).collect();
            twos.resize(magnitudes.len().next_multiple_of(16), 0.0);
            apply_down(&mut twos);
            for (&x, two) in magnitudes.iter().zip(twos) {
                let (want, tiny) = ((-f64::from(x)).exp2(), f64::from(f32::MIN_POSITIVE));
                if want >= tiny {
                    greatest = greatest.max(ulp(two, want));
                } else {
                    assert!((0.0..=tiny).contains(&two.into()), "exp2_down(-{x}) = {two}");
                }
            }
        });
        std::println!("exp2_down within {greatest:.3} ULP");
        assert!(greatest <= EXP2_DOWN_ULP, "exp2_down off by {greatest} ULP");
    }

    #[test]
    fn tanh_is_within_its_bound_over_its_domain() {
        let mut greatest = greatest();
        sweep(|xs| {
            let negative: Vec<f32> = xs.iter().map(|x| -x).collect();
            let want: Vec<f64> = xs.iter().map(|&x| f64::from(x).tanh()).collect();
            for (level, greatest) in &mut greatest {
                let (plus, minus) =
                    (apply(*level, Function::Tanh, xs), apply(*level, Function::Tanh, &negative));
                for (((&x, plus), minus), &want) in xs.iter().zip(plus).zip(minus).zip(&want) {
                    assert_eq!(plus.to_bits(), (-minus).to_bits(), "{level}: tanh is odd at {x}");
                    *greatest = greatest.max(ulp(plus, want));
                }
            }
        });
        for (level, greatest) in greatest {
            std::println!("{level}: tanh within {greatest:.3} ULP");
            assert!(greatest <= TANH_ULP, "{level}: tanh off by {greatest} ULP");
            let special = apply(
                level,
                Function::Tanh,
                &[0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 9.1, -1e30, f32::NAN],
            );
            let want = [0.0, -0.0, 1.0, -1.0, 1.0, -1.0f32].map(f32::to_bits);
            assert_eq!(special[..6].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), want, "{level}");
            assert!(special[6].is_nan(), "{level}");
        }
    }
}
