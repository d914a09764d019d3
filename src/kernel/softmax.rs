//! The online softmax (Milakov and Gimelshein, arXiv 1805.02867) on score vectors.
//!
//! The state of a row is its maximum `m` so far and the sum `l` of `e^(s - m)`. A row that has seen nothing has
//! `m = -∞`, `l = 0`; the maximum that is subtracted is then 0, so that no difference of infinities arises.

use crate::element::{Storage, load_part, store_part};
use crate::isa::{Isa, MAX_LANES, Pairs};
use crate::math::{exp, exp_down};
use crate::score::block::Hiding;
use crate::score::sink;

/// The weight of a hidden key under [`Hiding::Marked`].
pub(super) const MARK: f32 = -1.0;

/// What is subtracted from the scores of a row whose maximum is `m`.
#[inline(always)]
pub(super) fn safe_maximum<S: Isa>(s: S, m: S::F) -> S::F {
    s.select(s.equal(m, s.splat(f32::NEG_INFINITY)), s.zero(), m)
}

/// Turns scores into weights against `safe`, returning their sum.
#[inline(always)]
pub(super) fn weigh<'a, S: Isa>(
    s: S,
    scores: impl Iterator<Item = &'a mut S::F>,
    safe: S::F,
    mut sum: S::F,
    hiding: Hiding,
) -> S::F
where
    S::F: 'a,
{
    if hiding == Hiding::Marked {
        let hidden = s.splat(f32::NEG_INFINITY);
        for score in scores {
            let weight = exp(s, s.sub(*score, safe));
            sum = s.add(sum, weight);
            *score = s.select(s.equal(*score, hidden), s.splat(MARK), weight);
        }
    } else {
        for score in scores {
            let weight = exp(s, s.sub(*score, safe));
            sum = s.add(sum, weight);
            *score = weight;
        }
    }
    sum
}

/// A block of `[keys][VECS]` scores of rows in lanes becomes weights; `state` is `[3][VECS]` vectors: the rows'
/// maxima and sums, which are updated, and the factors that their outputs need, which are written.
#[inline(never)]
pub(super) fn update<S: Isa, const VECS: usize>(s: S, scores: &mut [f32], state: &mut [f32], hiding: Hiding) {
    s.vectorize(
        #[inline(always)]
        || {
            let scores = s.vectors_mut(scores).as_chunks_mut::<VECS>().0;
            let Some([maxima, sums, factors]) =
                s.vectors_mut(state).as_chunks_mut::<VECS>().0.first_chunk_mut::<3>()
            else {
                return;
            };
            let mut greatest = *maxima;
            for scores in scores.iter() {
                for (greatest, &score) in greatest.iter_mut().zip(scores) {
                    *greatest = s.max(score, *greatest);
                }
            }
            for v in 0..VECS {
                let safe = safe_maximum(s, greatest[v]);
                factors[v] = exp(s, s.sub(maxima[v], safe));
                maxima[v] = greatest[v];
                let column = scores.iter_mut().map(
                    #[inline(always)]
                    |scores| &mut scores[v],
                );
                let sum = weigh(s, column, safe, s.zero(), hiding);
                sums[v] = s.mul_add(sums[v], factors[v], sum);
            }
        },
    );
}

#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]
/// As [`update`], to pairs of weights of neighbouring keys, in the room of the first half, of scores times `scale`, which is positive:
/// as if they had been multiplied before.
#[inline(never)]
pub(super) fn update_pairs<S: Pairs, const VECS: usize>(
    s: S,
    scores: &mut [f32],
    state: &mut [f32],
    scale: f32,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let scale = s.splat(scale);
            let scores = s.vectors_mut(scores).as_chunks_mut::<VECS>().0;
            let Some([maxima, sums, factors]) =
                s.vectors_mut(state).as_chunks_mut::<VECS>().0.first_chunk_mut::<3>()
            else {
                return;
            };
            // Of even and of odd keys, so that they don't wait for each other.
            let mut greatest = [[s.splat(f32::NEG_INFINITY); VECS]; 2];
            let (twos, one) = scores.as_chunks::<2>();
            for two in twos {
                for (greatest, scores) in greatest.iter_mut().zip(two) {
                    for v in 0..VECS {
                        greatest[v] = s.max(scores[v], greatest[v]);
                    }
                }
            }
            for scores in one {
                for v in 0..VECS {
                    greatest[0][v] = s.max(scores[v], greatest[0][v]);
                }
            }
            let (mut safe, mut added) = ([s.zero(); VECS], [s.zero(); VECS]);
            for v in 0..VECS {
                let greatest = s.mul(s.max(greatest[1][v], greatest[0][v]), scale);
                let greatest = s.max(greatest, maxima[v]);
                safe[v] = safe_maximum(s, greatest);
                factors[v] = exp(s, s.sub(maxima[v], safe[v]));
                maxima[v] = greatest;
            }
            for pair in 0..scores.len() / 2 {
                let Some(&[low, high]) = scores.get(2 * pair..).and_then(|rest| rest.first_chunk()) else {
                    return;
                };
                let Some(to) = scores.get_mut(pair) else { return };
                for v in 0..VECS {
                    let low = exp_down(s, s.sub(s.mul(low[v], scale), safe[v]));
                    let high = exp_down(s, s.sub(s.mul(high[v], scale), safe[v]));
                    added[v] = s.add(s.add(added[v], low), high);
                    to[v] = s.pair_weights(low, high);
                }
            }
            if let (1, Some(&last)) = (scores.len() % 2, scores.last()) {
                let Some(to) = scores.get_mut(scores.len() / 2) else { return };
                for v in 0..VECS {
                    let last = exp_down(s, s.sub(s.mul(last[v], scale), safe[v]));
                    added[v] = s.add(added[v], last);
                    to[v] = s.pair_weights(last, s.zero());
                }
            }
            for v in 0..VECS {
                sums[v] = s.mul_add(sums[v], factors[v], added[v]);
            }
        },
    );
}

/// The state of rows whose keys came in two parts, each with its maximum and sum: the maximum and the sum of both, and what each
/// part's accumulated values are multiplied by. A part that a row sees nothing of adds exactly nothing.
#[inline(always)]
pub(super) fn merge<S: Isa>(s: S, [m, l]: [S::F; 2], [m2, l2]: [S::F; 2]) -> ([S::F; 2], [S::F; 2]) {
    let greatest = s.max(m2, m);
    let safe = safe_maximum(s, greatest);
    let factors = [exp(s, s.sub(m, safe)), exp(s, s.sub(m2, safe))];
    ([greatest, s.mul_add(l, factors[0], s.mul(l2, factors[1]))], factors)
}

/// What a row, or each lane's row, comes to once all its keys are in.
pub(super) struct Total<S: Isa> {
    /// What is subtracted from a score, and the inverse of the sum of what `e` to that power comes to.
    pub(super) safe: S::F,
    pub(super) inverse: S::F,
    /// The factor of the accumulated values.
    factor: S::F,
    /// The maximum and the sum, with the sink; the maximum of a row that sees no key is -∞ even so.
    maximum: S::F,
    sum: S::F,
}

impl<S: Isa> Total<S> {
    /// From a row's maximum, sum and sink.
    #[inline(always)]
    pub(super) fn new(s: S, m: S::F, l: S::F, sink: Option<S::F>) -> Self {
        let mut total = Self { safe: m, inverse: l, factor: s.splat(1.0), maximum: m, sum: l };
        if let Some(sink) = sink {
            let unseen = s.equal(m, s.splat(f32::NEG_INFINITY));
            (total.maximum, total.sum, total.factor) = sink::fold(s, m, l, sink);
            total.safe = safe_maximum(s, total.maximum);
            total.maximum = s.select(unseen, m, total.maximum);
        } else {
            total.safe = safe_maximum(s, m);
        }
        // A row that sees nothing sums to 0; a NaN is not equal to 0 and stays.
        let empty = s.equal(total.sum, s.zero());
        total.inverse = s.select(empty, s.zero(), s.div(s.splat(1.0), total.sum));
        total.factor = s.mul(total.factor, total.inverse);
        total
    }

    /// An output from what has been accumulated; never -0, which would depend on how often it was rescaled.
    #[inline(always)]
    pub(super) fn normalise(&self, s: S, accumulated: S::F) -> S::F {
        s.add(s.mul(accumulated, self.factor), s.zero())
    }

    /// Two outputs of each lane as pairs.
    #[inline(always)]
    pub(super) fn pair<O: Storage>(&self, s: S, low: S::F, high: S::F) -> S::F {
        O::pair(s, self.normalise(s, low), self.normalise(s, high))
    }

    /// The log-sum-exp of each lane.
    #[inline(always)]
    pub(super) fn lse(&self, s: S) -> [f32; MAX_LANES] {
        let (maxima, mut sums) = (lanes(s, self.maximum), lanes(s, self.sum));
        for (sum, m) in sums.iter_mut().zip(maxima).take(S::LANES) {
            *sum = if m == f32::NEG_INFINITY { m } else { m + libm::logf(*sum) };
        }
        sums
    }

    /// Turns the scores of the row in lane `lane` into its weights.
    #[inline(always)]
    pub(super) fn weights(&self, s: S, lane: usize, scores: &mut [f32]) {
        let of = |x: S::F| s.splat(lanes(s, x).get(lane).copied().unwrap_or(0.0));
        let (safe, inverse) = (of(self.safe), of(self.inverse));
        for chunk in scores.chunks_mut(S::LANES) {
            let weight = s.mul(exp(s, s.sub(load_part(s, chunk), safe)), inverse);
            store_part(s, weight, chunk);
        }
    }
}

/// The numbers of a vector.
#[inline(always)]
fn lanes<S: Isa>(s: S, x: S::F) -> [f32; MAX_LANES] {
    let mut buffer = [0.0; MAX_LANES];
    store_part(s, x, &mut buffer);
    buffer
}
