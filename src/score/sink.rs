//! Attention sinks: a logit for each query head that takes part in the softmax's denominator and has no value
//! (gpt-oss, arXiv 2508.10925; the idea is that of Xiao et al., arXiv 2309.17453).

use crate::isa::Isa;
use crate::math::exp;

/// The row's maximum `m` and sum `l` with the sink taken in, and the factor that this puts on what has been
/// accumulated: `m' = max(m, sink)`, `l' = l · e^(m - m') + e^(sink - m')`.
#[inline(always)]
pub(crate) fn fold<S: Isa>(s: S, m: S::F, l: S::F, sink: S::F) -> (S::F, S::F, S::F) {
    let least = s.splat(f32::NEG_INFINITY);
    // With neither keys nor a sink both are -∞, whose difference is no number.
    let with = s.max(sink, m);
    let safe = s.select(s.equal(with, least), s.zero(), with);
    let factor = exp(s, s.sub(m, safe));
    (with, s.mul_add(l, factor, exp(s, s.sub(sink, safe))), factor)
}
