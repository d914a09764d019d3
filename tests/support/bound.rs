//! The forward error bound of the crate against exact arithmetic on the stored numbers.
//!
//! With `u = 2⁻²⁴`, `Σ(n) = 3 + min(n, 3 √n)` (n terms have n roundings, which gather as √n: Higham and Mary, *A new
//! approach to probabilistic rounding error analysis*, SIAM J. Sci. Comput. 41, 2019, with λ = 3, which is 5 standard
//! deviations of roundings that are all as large as the sum allows; the 3 are the roundings beside the sum) and
//! `d = head_dim`, to first order:
//!
//! | quantity | error at most |
//! |---|---|
//! | score `s = scale · q·k` | `δ = u Σ(d) · abs(scale) · Σ abs(q k)` |
//! | softcap | `+ 10 u abs(s')`: tanh within 3½ ULP (as measured), its factor's two roundings and the product; its slope is at most 1 |
//! | ALiBi, bias | `+ u (abs(s) + 4 slope · distance + abs(bias))` |
//! | weight `w = e^(s - lse)` | `w (ε + ε̄ + u Σ(n)) + 2⁻¹²⁵` (as below), where `ε = δ + u (10 + abs(s - max))` for `e` within 1.5 ULP and the rescaling of what has been summed, and `ε̄ = Σ w ε` |
//! | `out = Σ w v` | `Σ abs(v) (w (ε + ε̄ + 2 u Σ(n)) + 2⁻¹²⁵)` (what exp flushes to 0), `+ ½ ULP` of the output's storage type |
//! | `lse` | `ε̄ + u (Σ(n) + 2 abs(lse))` |
//!
//! `n` is the number of visible keys. In words: the output's error is at most twice that of the scores, weighted as
//! the values are, and a few roundings of the values' mean magnitude. It does not grow with the number of keys but
//! for √n roundings.

use gqa::Shape;

use super::reference::{Options, Outputs};

/// 2⁻²⁴.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;

/// Roundings of a sum of `n` terms.
fn sum(n: usize) -> f64 {
    let n = n as f64;
    3.0 + n.min(3.0 * n.sqrt())
}

/// The bound of each number of `exact`, before the output is rounded to its storage type.
pub fn bound(shape: &Shape, [q, k, v]: [&[f64]; 3], options: &Options, exact: &Outputs) -> Outputs {
    let mut bounds = Outputs::default();
    let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
    let scale = options.factor(shape).abs();
    for (index, lse) in exact.lse.iter().enumerate() {
        let (batch, head, row) = (index / q_len / q_heads, index / q_len % q_heads, index % q_len);
        let first = (batch * kv_heads + head / (q_heads / kv_heads)) * kv_len;
        let query = &q[index * head_dim..][..head_dim];
        let rows = index * kv_len..(index + 1) * kv_len;
        let (scores, weights) = (&exact.biased[rows.clone()], &exact.softmax[rows.clone()]);
        let visible = scores.iter().filter(|&&score| score != f64::NEG_INFINITY).count();
        let sink = options.sinks.as_ref().map_or(f64::NEG_INFINITY, |sinks| sinks[head].into());
        let maximum = scores.iter().fold(sink, |a, &b| a.max(b));

        let mut exponents = Vec::with_capacity(kv_len);
        for key in 0..kv_len {
            let at = rows.start + key;
            let products: f64 =
                query.iter().zip(&k[(first + key) * head_dim..]).map(|(a, b)| (a * b).abs()).sum();
            let mut delta = U * sum(head_dim) * scale * products;
            bounds.raw.push(delta);
            if options.softcap.is_some() {
                delta += 10.0 * U * exact.softcapped[at].abs();
            }
            bounds.softcapped.push(delta);
            if let Some(slopes) = &options.alibi {
                let distance = (options.position(shape, batch, row) - key as i128).abs() as f64;
                delta += U * (exact.softcapped[at].abs() + 4.0 * f64::from(slopes[head]).abs() * distance);
            }
            if let Some(bias) = &options.bias {
                delta += U * (scores[key].abs() + bias[at].abs());
            }
            let hidden = scores[key] == f64::NEG_INFINITY;
            bounds.biased.push(if hidden { 0.0 } else { delta });
            exponents.push(if hidden { 0.0 } else { delta + U * (10.0 + (maximum - scores[key]).abs()) });
        }
        let of_sink = (sink - lse).exp();
        let of_sink = if of_sink > 0.0 { of_sink * U * (10.0 + maximum - sink) } else { 0.0 };
        let mean = weights.iter().zip(&exponents).map(|(weight, e)| weight * e).sum::<f64>() + of_sink;
        let mut out = vec![0.0; value_dim];
        for (key, (weight, e)) in weights.iter().zip(&exponents).enumerate() {
            // Below 2^-125.5 an exponential is flushed to 0: that of the weight, or of a rescaling. Either takes away less
            // than that, once.
            let flushed = 2.0 * f64::from(f32::MIN_POSITIVE);
            let seen = scores[key] != f64::NEG_INFINITY;
            bounds.softmax.push(weight * (e + mean + U * sum(visible)) + if seen { flushed } else { 0.0 });
            if seen {
                let factor = weight * (e + mean + 2.0 * U * sum(visible)) + flushed;
                for (out, value) in out.iter_mut().zip(&v[(first + key) * value_dim..]) {
                    *out += factor * value.abs();
                }
            }
        }
        bounds.out.extend(out);
        bounds.lse.push(if lse.is_finite() { mean + U * (sum(visible) + 2.0 * lse.abs()) } else { 0.0 });
    }
    bounds
}
