//! exp and tanh on vectors, from one polynomial.
//!
//! Both reduce `x = n ln 2 + r` with ln 2 in two parts (Cody and Waite), so that the product with `n` is exact
//! without a fused multiply-add, and take `e^r - 1 = r + r² q(r)` on [-½ ln 2, ½ ln 2] with `q` of degree 4.
//! Without the constant 1 in the polynomial, `exp(0)` is exactly 1 (rescaling by an unchanged maximum changes
//! no bit), and `expm1`, and so tanh, keeps its relative error near 0.
//!
//! The bounds are tested on every level: over every f32 of the domain in release builds, over a sample otherwise.

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
