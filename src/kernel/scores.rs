//! The score pass of the many-rows kernel, `S = K Qᵀ`: keys × rows, rows in lanes.
//!
//! ```text
//! for KEYS keys at a time:                     KEYS × VECS accumulators
//!     for j in 0..head_dim:
//!         acc[key][v] += splat(K[key][j]) · Q[j][v]
//! ```
//!
//! K is read in its own layout, a number at a time from each of `KEYS` rows; Q has been transposed to
//! `[head_dim][VECS]` vectors. Nothing depends on the dimension being a multiple of anything, and every score is one
//! chain of multiply-adds in the order of `j`. Vectors that see none of a tile's keys have no scores of them.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave tiles in registers"
)]

use super::UNROLL;
use super::arithmetic::MulAdd;
use super::stairs::{Stairs, has_stairs};
use crate::element::Factor;
use crate::isa::Isa;
use crate::panel::Panel;
use crate::tiling::SINGLE_TILE;

/// `scores[key][row] = Σ_j keys[key][j] · queries[j][row]`: `queries` is `[head_dim][VECS]` vectors, `scores`
/// `[keys][VECS]` at least, where the vectors' `stairs` leave what the first ones don't see as it is. Compiled once for each level, and each
/// type that is read in place.
#[inline(never)]
pub(super) fn products<S: Isa, K: Factor, A: MulAdd<S>, const KEYS: usize, const VECS: usize>(
    s: S,
    keys: Panel<'_, K>,
    queries: &[f32],
    scores: &mut [f32],
    stairs: &Stairs,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let queries = s.vectors(queries).as_chunks::<VECS>().0;
            let scores = s.vectors_mut(scores).as_chunks_mut::<VECS>().0;
            let scores = scores.get_mut(..keys.rows()).unwrap_or_default();
            for (index, scores) in scores.chunks_mut(KEYS).enumerate() {
                let first = index * KEYS;
                let past = if has_stairs::<S>() && VECS > 1 { stairs.past(first) } else { 0 };
                // Four keys and fewer don't take the time of `KEYS`.
                if !SINGLE_TILE && KEYS > 4 && scores.len() <= 4 {
                    tile::<S, K, A, 4, VECS, 0>(s, keys, first, queries, scores);
                } else if past == 0 {
                    tile::<S, K, A, KEYS, VECS, 0>(s, keys, first, queries, scores);
                } else if past == 1 || VECS == 2 {
                    tile::<S, K, A, KEYS, VECS, 1>(s, keys, first, queries, scores);
                } else {
                    tile::<S, K, A, KEYS, VECS, 2>(s, keys, first, queries, scores);
                }
            }
        },
    );
}

/// The scores of as many keys, from `first` on, as `scores` has room for, with all vectors but the first `PAST`.
#[inline(always)]
fn tile<S: Isa, K: Factor, A: MulAdd<S>, const KEYS: usize, const VECS: usize, const PAST: usize>(
    s: S,
    keys: Panel<'_, K>,
    first: usize,
    queries: &[[S::F; VECS]],
    scores: &mut [[S::F; VECS]],
) {
    let mut sums = [[s.zero(); VECS]; KEYS];
    // The rows past the last key repeat it: computed, and not stored.
    keys.columns::<KEYS>(first).zip_each::<UNROLL, _>(
        queries,
        #[inline(always)]
        |keys, query| {
            for k in 0..KEYS {
                let key = s.splat(keys[k].as_f32());
                for v in PAST..VECS {
                    sums[k][v] = A::mul_add(s, key, query[v], sums[k][v]);
                }
            }
        },
    );
    for (to, sums) in scores.iter_mut().zip(sums) {
        to[PAST..].copy_from_slice(&sums[PAST..]);
    }
}

#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]
/// Scores of `keys` keys, `[keys][VECS]` vectors, times a number. Compiled once for each level.
#[inline(never)]
pub(super) fn scale<S: Isa, const VECS: usize>(s: S, scores: &mut [f32], keys: usize, scale: f32) {
    s.vectorize(
        #[inline(always)]
        || {
            let scale = s.splat(scale);
            for score in s.vectors_mut(scores).iter_mut().take(keys * VECS) {
                *score = s.mul(*score, scale);
            }
        },
    );
}
