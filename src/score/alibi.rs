//! ALiBi, `s ↦ s - slope · |position - key|`: attention with linear biases (Press et al., arXiv 2108.12409).

use super::Strip;
use crate::isa::Isa;

/// `position` of each row, from the start of the block as the keys are, and `slope` of its head.
#[inline(always)]
pub(crate) fn apply<S: Isa>(s: S, strip: Strip<'_, S>, position: S::F, slope: S::F) {
    let slope = s.sub(s.zero(), slope);
    strip.map(
        s,
        #[inline(always)]
        |score, key| s.mul_add(slope, s.abs(s.sub(position, key)), score),
    );
}

/// The standard ALiBi slope of head `head` of `heads`.
///
/// For a power of two, `2^(-8 (head + 1) / heads)`. For other counts the paper's reference code is followed: the
/// slopes of the next smaller power of two come first, then every second one of the next greater.
///
/// Exact powers of two are exact; the others are within 1 ULP.
///
/// ```
/// let slopes: Vec<f32> = (0..8).map(|head| gqa::alibi_slope(head, 8)).collect();
/// assert_eq!(slopes, [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
/// // 12 heads: the 8 above, then the 1st, 3rd, 5th and 7th of the 16.
/// assert!((gqa::alibi_slope(8, 12) - 0.5f32.sqrt()).abs() < 1e-7);
/// ```
#[must_use]
pub fn alibi_slope(head: usize, heads: usize) -> f32 {
    let below = match heads.checked_ilog2() {
        Some(log) => 1usize << log,
        None => return 0.0,
    };
    let (index, count) = match head.checked_sub(below) {
        None => (head + 1, below),
        Some(beyond) => (beyond.saturating_mul(2).saturating_add(1), below.saturating_mul(2)),
    };
    exp2_fraction(index.saturating_mul(8), count)
}

/// `2^(-numerator / denominator)` for a power of two `denominator`: an exact scaling of a root of 2.
fn exp2_fraction(numerator: usize, denominator: usize) -> f32 {
    let whole = numerator / denominator;
    let rest = (numerator % denominator) as f32 / denominator as f32;
    // rest is exact: a fraction with a power of two below it.
    let fraction = if rest == 0.0 { 1.0 } else { libm::expf(-rest * core::f32::consts::LN_2) };
    libm::scalbnf(fraction, -(whole.min(1000) as i32))
}

#[cfg(test)]
mod tests {
    use super::alibi_slope;

    /// The paper's reference code, in f64.
    fn slope(head: usize, heads: usize) -> f64 {
        let below = 1usize << heads.ilog2();
        if head < below {
            2f64.powf(-8.0 * (head + 1) as f64 / below as f64)
        } else {
            2f64.powf(-8.0 * (2 * (head - below) + 1) as f64 / (2 * below) as f64)
        }
    }

    #[test]
    fn slopes_are_the_standard_ones_for_any_head_count() {
        for heads in 1..=130 {
            for head in 0..heads {
                let (got, want) = (f64::from(alibi_slope(head, heads)), slope(head, heads));
                assert!((got - want).abs() <= want * 1.2e-7, "{head} of {heads}: {got} {want}");
            }
        }
        assert_eq!(alibi_slope(7, 8), 1.0 / 256.0);
        assert_eq!(alibi_slope(0, 0), 0.0);
    }
}
