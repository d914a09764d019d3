//! The value pass of the many-rows kernel, `Oᵀ = f Oᵀ + Vᵀ P`: columns × rows, rows in lanes.
//!
//! ```text
//! for COLS columns of V at a time:             COLS × VECS accumulators
//!     for key in block:
//!         acc[c][v] += splat(V[key][c]) · P[key][v]
//!     O[c][v] = factor[v] · O[c][v] + acc[c][v]
//! ```
//!
//! The rescaling rides on taking in the block's sums, which begin at 0: rounding grows with the length of a block and
//! with the number of blocks, not with their product. Where a hidden key's value is not finite, 0 times it is
//! NaN: then the item is computed again, and the weights of hidden keys carry a mark (-1) and the sum is selected instead. The last keys,
//! which the first vectors don't see, are added to the others alone.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave tiles in registers"
)]

use super::UNROLL;
use super::arithmetic::MulAdd;
use super::stairs::{STEPS, Stairs, has_stairs};
use core::marker::PhantomData;

use crate::element::{Storage, load_part};
use crate::isa::Isa;
use crate::panel::{Panel, Strips};
use crate::tiling::{SINGLE_TILE, Tile};

/// `output[c][row] = factor[row] · output[c][row] + Σ_key values[key][c] · weights[key][row]`: `weights` is
/// `[keys][VECS]` vectors, `output` `[value_dim][VECS]`, `factor` `VECS`. Compiled once for each level, and each
/// type that is read in place. A `fresh` output is written, not read. What the vectors' `stairs` leave out is not read.
#[inline(never)]
pub(super) fn accumulate<
    S: Isa,
    V: Storage,
    A: MulAdd<S>,
    const COLS: usize,
    const VECS: usize,
    const MARKED: bool,
>(
    s: S,
    values: Panel<'_, V>,
    weights: &[f32],
    factor: &[f32],
    output: &mut [f32],
    fresh: bool,
    stairs: &Stairs,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let weights = s.vectors(weights).as_chunks::<VECS>().0;
            let Some(factor) = s.vectors(factor).first_chunk::<VECS>() else { return };
            let output = s.vectors_mut(output).as_chunks_mut::<VECS>().0;
            let fetches = values.is_dense();
            let mut pass = Pass::<S, V, A, VECS, MARKED> {
                s,
                values,
                weights,
                factor,
                fresh,
                fetches,
                later: [const { None }; STEPS],
                arithmetic: PhantomData,
            };
            if has_stairs::<S>() {
                pass.split(stairs);
            }
            // Whole tiles, then fours, then ones: one tile less where that leaves fours only.
            let mut tiles = output.len() / COLS;
            let leaves_fours = |tiles: usize| (output.len() - tiles * COLS).is_multiple_of(4);
            if tiles > 0 && !leaves_fours(tiles) && leaves_fours(tiles - 1) {
                tiles -= 1;
            }
            let (whole, rest) = output.split_at_mut_checked(tiles * COLS).unwrap_or_default();
            for (tile, output) in whole.as_chunks_mut::<COLS>().0.iter_mut().enumerate() {
                pass.tile(tile * COLS, output);
            }
            // No fours where the tiles are.
            let (fours, ones) = if COLS == 4 { (&mut [][..], rest) } else { rest.as_chunks_mut::<4>() };
            let first = tiles * COLS;
            for (tile, output) in fours.iter_mut().enumerate() {
                pass.tile(first + tile * 4, output);
            }
            let first = first + fours.len() * 4;
            for (tile, output) in ones.as_chunks_mut::<1>().0.iter_mut().enumerate() {
                pass.tile(first + tile, output);
            }
        },
    );
}

/// Values of some keys, and their weights.
type Part<'a, V, W> = (Panel<'a, V>, &'a [W]);

struct Pass<'a, S: Isa, V: Storage, A, const VECS: usize, const MARKED: bool> {
    s: S,
    /// Of the keys that all vectors may see.
    values: Panel<'a, V>,
    weights: &'a [[S::F; VECS]],
    /// Of those after them, that all but the first may see, and so on.
    later: [Option<Part<'a, V, [S::F; VECS]>>; STEPS],
    factor: &'a [S::F; VECS],
    fresh: bool,
    fetches: bool,
    arithmetic: PhantomData<A>,
}

impl<S: Isa, V: Storage, A: MulAdd<S>, const VECS: usize, const MARKED: bool>
    Pass<'_, S, V, A, VECS, MARKED>
{
    #[inline(always)]
    fn tile<const COLS: usize>(&self, column: usize, output: &mut [[S::F; VECS]; COLS]) {
        let s = self.s;
        let Some(strips) = self.values.strips::<COLS>(column) else { return };
        let mut sums = [[s.zero(); VECS]; COLS];
        self.add::<COLS, 0>(strips, self.weights, &mut sums);
        if has_stairs::<S>() {
            self.add_later::<COLS, 1>(column, &mut sums);
            self.add_later::<COLS, 2>(column, &mut sums);
        }
        if !SINGLE_TILE && self.fresh {
            *output = sums;
            return;
        }
        for c in 0..COLS {
            for v in 0..VECS {
                output[c][v] = s.mul_add(output[c][v], self.factor[v], sums[c][v]);
            }
        }
    }

    /// Keeps the keys that the first vectors don't see apart.
    #[inline(always)]
    fn split(&mut self, stairs: &Stairs) {
        let (values, weights, keys) = (self.values, self.weights, self.values.rows());
        let mut start = if VECS > 1 { stairs.end(0, keys) } else { keys };
        self.weights = weights.get(..start).unwrap_or_default();
        for (v, later) in (1..).zip(&mut self.later) {
            let end = if v + 1 < VECS { stairs.end(v, keys) } else { keys };
            *later = values.part(start, end.saturating_sub(start)).zip(weights.get(start..end));
            start = end;
        }
    }

    /// Adds what all vectors but the first `PAST` may see.
    #[inline(always)]
    fn add_later<const COLS: usize, const PAST: usize>(
        &self,
        column: usize,
        sums: &mut [[S::F; VECS]; COLS],
    ) {
        let Some(Some((values, weights))) = self.later.get(PAST - 1) else { return };
        if let Some(strips) = values.strips::<COLS>(column) {
            self.add::<COLS, PAST>(strips, weights, sums);
        }
    }

    /// Adds to all vectors but the first `PAST`.
    #[inline(always)]
    fn add<const COLS: usize, const PAST: usize>(
        &self,
        strips: Strips<'_, COLS, V>,
        weights: &[[S::F; VECS]],
        sums: &mut [[S::F; VECS]; COLS],
    ) {
        let s = self.s;
        let ahead = Tile::of(S::LEVEL).values_ahead;
        strips.zip_each::<UNROLL, _>(
            weights,
            ahead,
            #[inline(always)]
            |line| {
                if ahead > 0 && self.fetches {
                    s.prefetch_near(line);
                }
            },
            #[inline(always)]
            |values, weights| {
                for c in 0..COLS {
                    let value = s.splat(values[c].as_f32());
                    for v in PAST..VECS {
                        let more = A::mul_add(s, value, weights[v], sums[c][v]);
                        let hidden = MARKED.then(|| s.less(weights[v], s.zero()));
                        sums[c][v] = hidden.map_or(more, |hidden| s.select(hidden, sums[c][v], more));
                    }
                }
            },
        );
    }
}

/// `output`, rows of `VECS` vectors, times as many factors. Compiled once for each level and tile that takes it.
#[inline(never)]
pub(super) fn rescale<S: Isa, const VECS: usize>(s: S, output: &mut [f32], factors: &[f32]) {
    s.vectorize(
        #[inline(always)]
        || {
            // Most often no row has met a greater score.
            if factors.iter().fold(true, |all, &factor| all & (factor == 1.0)) {
                return;
            }
            let Some(factors) = s.vectors(factors).first_chunk::<VECS>() else { return };
            for output in s.vectors_mut(output).as_chunks_mut::<VECS>().0 {
                for v in 0..VECS {
                    output[v] = s.mul(output[v], factors[v]);
                }
            }
        },
    );
}

/// Whether one of the numbers, whole vectors of them, is NaN.
#[inline(never)]
pub(super) fn holds_nan<S: Isa>(s: S, numbers: &[f32]) -> bool {
    let mut sum = 0.0;
    s.vectorize(
        #[inline(always)]
        || {
            let mut last = s.zero();
            for &x in s.vectors(numbers) {
                last = s.select(s.equal(x, x), last, x);
            }
            sum = s.sum_lanes(last);
        },
    );
    sum.is_nan()
}

/// Whether no number of the panel is infinite or NaN.
#[inline(never)]
pub(super) fn is_finite<S: Isa, V: Storage>(s: S, panel: Panel<'_, V>) -> bool {
    let mut finite = true;
    s.vectorize(
        #[inline(always)]
        || {
            // 0 times a finite number is 0, times any other NaN.
            let mut sum = s.zero();
            for row in panel.iter() {
                let whole = row.chunks_exact(S::LANES);
                let tail = whole.remainder();
                for from in whole {
                    sum = s.mul_add(V::load(s, from), s.zero(), sum);
                }
                if !tail.is_empty() {
                    sum = s.mul_add(load_part(s, tail), s.zero(), sum);
                }
            }
            finite = s.sum_lanes(sum) == 0.0;
        },
    );
    finite
}
