//! exp and tanh on vectors, from one polynomial.
//!
//! Both reduce `x = n ln 2 + r` with ln 2 in two parts (Cody and Waite), so that the product with `n` is exact
//! without a fused multiply-add, and take `e^r - 1 = r + r² q(r)` on [-½ ln 2, ½ ln 2] with `q` of degree 4.
//! Without the constant 1 in the polynomial, `exp(0)` is exactly 1 (rescaling by an unchanged maximum changes
//! no bit), and `expm1`, and so tanh, keeps its relative error near 0.
//!
//! The bounds are tested on every level: over every f32 where the functions are neither 1 nor x nor at their limits
//! in release builds, over a sample otherwise.

use crate::isa::Isa;

/// Minimax coefficients of `q(r) = (e^r - 1 - r) / r²`, highest power first; weighted error 0.06 · 2⁻²⁴ of `e^r`.
const Q: [f32; 5] = [1.381_454e-3, 8.368_745e-3, 4.166_839e-2, 1.666_652_1e-1, 4.999_999_4e-1];

/// ln 2 = `LN_2 + LN_2_LOW`; the first has 15 significant bits, so `n · LN_2` is exact for |n| < 512.
const LN_2: f32 = 0.693_145_75;
const LN_2_LOW: f32 = 1.428_606_8e-6;

/// `(e^r - 1, power)` with `x = n ln 2 + r` and `power` for [`Isa::scale`] by `2^n`.
#[inline(always)]
fn reduced<S: Isa>(s: S, x: S::F) -> (S::F, S::F) {
    let (n, power) = s.round_power(x, core::f32::consts::LOG2_E);
    let r = s.mul_add(n, s.splat(-LN_2), x);
    let r = s.mul_add(n, s.splat(-LN_2_LOW), r);
    let mut q = s.splat(Q[0]);
    for c in &Q[1..] {
        q = s.mul_add(q, r, s.splat(*c));
    }
    (s.mul_add(s.mul(r, r), q, r), power)
}

/// e^x for x ≤ 0: exactly 1 for 0, NaN for NaN, otherwise within [`EXP_ULP`] where e^x ≥ 2⁻¹²⁶;
/// below, where it may be flushed to 0, within 2⁻¹²⁶.
#[inline(always)]
pub(crate) fn exp<S: Isa>(s: S, x: S::F) -> S::F {
    // `max` keeps a NaN in its second operand.
    let (p, power) = reduced(s, s.max(s.splat(S::EXP_LEAST), x));
    s.scale(s.add(p, s.splat(1.0)), power)
}

/// tanh x, within [`TANH_ULP`]; ±1 for |x| ≥ 9.02, NaN for NaN; odd, and 0 keeps its sign.
#[inline(always)]
pub(crate) fn tanh<S: Isa>(s: S, x: S::F) -> S::F {
    // expm1(2|x|) = 2^n (e^r - 1) + (2^n - 1), then tanh = expm1 / (expm1 + 2).
    let twice = s.mul(s.splat(2.0), s.abs(x));
    let limit = s.splat(18.04);
    let twice = s.select(s.less(limit, twice), limit, twice);
    let (p, power) = reduced(s, twice);
    let one = s.splat(1.0);
    let e = s.add(s.scale(p, power), s.sub(s.scale(one, power), one));
    s.copy_sign(s.div(e, s.add(e, s.splat(2.0))), x)
}

/// The greatest error of [`exp`] in units in the last place of the true value.
#[cfg(test)]
const EXP_ULP: f64 = 1.5;

/// The greatest error of [`tanh`] in units in the last place of the true value.
#[cfg(test)]
const TANH_ULP: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Level, Op};
    use std::vec::Vec;

    /// Applies a function of vectors to numbers at one level.
    struct Apply<'a> {
        tanh: bool,
        numbers: &'a mut [f32],
    }

    impl Op for Apply<'_> {
        #[inline(always)]
        fn run<S: Isa>(self, s: S) {
            for x in s.vectors_mut(self.numbers) {
                *x = if self.tanh { tanh(s, *x) } else { exp(s, *x) };
            }
        }
    }

    fn apply(level: Level, tanh: bool, numbers: &[f32]) -> Vec<f32> {
        let mut padded = numbers.to_vec();
        padded.resize(numbers.len().next_multiple_of(16), 0.0);
        level.dispatch(Apply { tanh, numbers: &mut padded });
        padded.truncate(numbers.len());
        padded
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

    /// The greatest error so far at each level of the machine.
    fn greatest() -> Vec<(Level, f64)> {
        Level::available().map(|level| (level, 0.0)).collect()
    }

    #[test]
    fn exp_is_within_its_bound_over_its_domain() {
        let mut greatest = greatest();
        sweep(|magnitudes| {
            let xs: Vec<f32> = magnitudes.iter().map(|x| -x).collect();
            let want: Vec<f64> = xs.iter().map(|&x| f64::from(x).exp()).collect();
            for (level, greatest) in &mut greatest {
                for ((&x, got), &want) in xs.iter().zip(apply(*level, false, &xs)).zip(&want) {
                    if want >= f64::from(f32::MIN_POSITIVE) {
                        *greatest = greatest.max(ulp(got, want));
                    } else {
                        assert!((0.0..=f32::MIN_POSITIVE).contains(&got), "{level}: exp({x}) = {got}");
                    }
                }
            }
        });
        for (level, greatest) in greatest {
            std::println!("{level}: exp within {greatest:.3} ULP");
            assert!(greatest <= EXP_ULP, "{level}: exp off by {greatest} ULP");
            let special = apply(level, false, &[0.0, -0.0, f32::NEG_INFINITY, f32::MIN, f32::NAN, -f32::NAN]);
            assert_eq!(special[..4], [1.0, 1.0, 0.0, 0.0], "{level}");
            assert!(special[4].is_nan() && special[5].is_nan(), "{level}");
        }
    }

    #[test]
    fn tanh_is_within_its_bound_over_its_domain() {
        let mut greatest = greatest();
        sweep(|xs| {
            let negative: Vec<f32> = xs.iter().map(|x| -x).collect();
            let want: Vec<f64> = xs.iter().map(|&x| f64::from(x).tanh()).collect();
            for (level, greatest) in &mut greatest {
                let (plus, minus) = (apply(*level, true, xs), apply(*level, true, &negative));
                for (((&x, plus), minus), &want) in xs.iter().zip(plus).zip(minus).zip(&want) {
                    assert_eq!(plus.to_bits(), (-minus).to_bits(), "{level}: tanh is odd at {x}");
                    *greatest = greatest.max(ulp(plus, want));
                }
            }
        });
        for (level, greatest) in greatest {
            std::println!("{level}: tanh within {greatest:.3} ULP");
            assert!(greatest <= TANH_ULP, "{level}: tanh off by {greatest} ULP");
            let special =
                apply(level, true, &[0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 9.1, -1e30, f32::NAN]);
            let want = [0.0, -0.0, 1.0, -1.0, 1.0, -1.0f32].map(f32::to_bits);
            assert_eq!(special[..6].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), want, "{level}");
            assert!(special[6].is_nan(), "{level}");
        }
    }
}
