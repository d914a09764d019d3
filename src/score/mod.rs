//! What happens to a score between the product `q·k` and the softmax, one file for each modifier.
//!
//! A modifier is a function of vectors of scores, of the keys they belong to and of constants of their rows. It does
//! not know whether a vector holds many rows of one key or many keys of one row: [`block`] knows.
//! The order is fixed: scale → softcap → ALiBi, bias → masks, visibility → softmax (with sinks in the denominator).

pub(crate) mod alibi;
pub(crate) mod block;
pub(crate) mod dense;
pub(crate) mod sink;
pub(crate) mod softcap;
pub(crate) mod visibility;

use crate::extra::Extra;
use crate::isa::Isa;
use dense::{Bias, Mask};
use visibility::Visibility;

/// Everything that a call asks to be done to its scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modifiers<'a> {
    pub(crate) scale: f32,
    pub(crate) softcap: Extra<f32>,
    /// A slope for each query head.
    pub(crate) alibi: Extra<&'a [f32]>,
    pub(crate) bias: Extra<Bias<'a>>,
    pub(crate) mask: Extra<Mask<'a>>,
    pub(crate) visibility: Visibility<'a>,
    /// A logit for each query head.
    pub(crate) sinks: Extra<&'a [f32]>,
}

/// A run of score vectors of the same rows, and the keys they belong to: vector `i` belongs to the keys
/// `first_key + i · step`, lane by lane. Keys are counted from the first key of the run, so they are exact in f32.
pub(crate) struct Strip<'a, S: Isa> {
    /// Every `width`th vector, from `at` on.
    pub(crate) vectors: &'a mut [S::F],
    pub(crate) width: usize,
    pub(crate) at: usize,
    pub(crate) first_key: S::F,
    pub(crate) step: S::F,
}

/// `score`, whatever it is, or -∞ where it is hidden.
#[inline(always)]
fn hide<S: Isa>(s: S, hides: S::M, score: S::F) -> S::F {
    let hidden = s.splat(f32::NEG_INFINITY);
    unmasked(s, s.select(hides, hidden, score))
}

/// The same scores. Compilers turn a selection that goes back to where it came from into a store under a mask, which takes AMD's cores
/// some twelve cycles at AVX2; they don't see that this maximum (of a NaN too) changes nothing.
#[inline(always)]
fn unmasked<S: Isa>(s: S, scores: S::F) -> S::F {
    if S::LANES == 1 { scores } else { s.max(s.splat(f32::NEG_INFINITY), scores) }
}

impl<S: Isa> Strip<'_, S> {
    /// Replaces each vector of scores by `f(scores, keys)`.
    #[inline(always)]
    pub(crate) fn map(self, s: S, mut f: impl FnMut(S::F, S::F) -> S::F) {
        let mut key = self.first_key;
        for vectors in self.vectors.chunks_exact_mut(self.width.max(1)) {
            if let Some(score) = vectors.get_mut(self.at) {
                *score = f(*score, key);
            }
            key = s.add(key, self.step);
        }
    }
}
