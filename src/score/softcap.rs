//! Softcapping, `s ↦ cap · tanh(s / cap)`: bounds the logits smoothly (Gemma 2, arXiv 2408.00118, section 2).

use super::Strip;
use crate::isa::Isa;
use crate::math::tanh;

#[inline(always)]
pub(crate) fn apply<S: Isa>(s: S, strip: Strip<'_, S>, cap: f32) {
    let (cap, inverse) = (s.splat(cap), 1.0 / cap);
    strip.map(
        s,
        #[inline(always)]
        |score, _| s.mul(cap, tanh(s, score, inverse)),
    );
}
