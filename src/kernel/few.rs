//! The few-rows kernel: the head dimension lies in lanes.
//!
//! Decoding has as many rows as a group has heads: too few to fill the lanes, and reading K and V once is what takes
//! the time. Both are read row by row in one linear stream, each vector once for up to [`FEW_TOGETHER`] rows:
//!
//! ```text
//! for LANES keys at a time:  sums[row][key] = Σ_j K[key][j] · Q[row][j], vectors, reduced LANES at a time
//! for a strip of columns:    for key: acc[row][c] += splat(P[row][key]) · V[key][c];  O[row][c] = f O[row][c] + acc[row][c]
//! ```
//!
//! Scores lie `[row][block]`, so that modifiers and softmax work on whole vectors of neighbouring keys. Vectors
//! begin at keys that are multiples of `LANES`: which lane a key has depends on nothing else in the call.

use core::ops::Range;

use super::softmax::{Total, safe_maximum, weigh};
use super::values::is_finite;
use super::{Results, Task};
use crate::element::{Element, load_part, store_part};
use crate::isa::{Isa, sum_each};
use crate::panel::{Panel, Place, Rows};
use crate::score::block::{Block, Hiding, Inspection, Lanes, Scoring};
use crate::tiling::{Carver, FEW_TOGETHER, Tile, few, padded};

/// Vectors of V that a strip of the value pass has at most.
const STRIP: usize = 8;

#[inline(always)]
pub(super) fn run<S: Isa, Q: Element, K: Element, V: Element, O: Element>(
    s: S,
    mut task: Task<'_, Q, K, V, O>,
) {
    let length = Tile::of(S::LEVEL).few_block;
    let sizes = few(task.shape, S::LEVEL);
    let mut carver = Carver::new(core::mem::take(&mut task.scratch), S::LEVEL);
    let queries = carver.take(sizes.queries);
    let weights = carver.take(sizes.weights);
    let output = carver.take(sizes.output);
    let sums = carver.take(sizes.sums);
    let state = carver.take(sizes.state).as_chunks_mut::<3>().0;

    let count = task.place.count;
    load_queries(s, &task.queries(), count, task.shape.head_dim, task.modifiers.scale, queries);
    output.fill(0.0);
    state.fill([f32::NEG_INFINITY, 0.0, 0.0]);

    let scoring = task.scoring();
    let positions = task.place.positions(0..count);
    let dims = task.keys().zip(task.values());
    for keys in task.blocks(length) {
        // What this adds in front is hidden, or the block would begin there.
        let keys = keys.start / S::LANES * S::LANES..keys.end;
        let Some((k, v)) = dims else { break };
        let (Some(k), Some(v)) = (k.part(keys.start, keys.len()), v.part(keys.start, keys.len())) else {
            break;
        };
        products(s, k, queries, weights, sums, length, count);
        let hiding = if !scoring.hides(&positions, &keys) {
            Hiding::Nothing
        } else if is_finite(s, v) {
            Hiding::Some
        } else {
            Hiding::Marked
        };
        for (row, (weights, state)) in weights.chunks_exact_mut(length).zip(state.iter_mut()).enumerate() {
            update(s, weights, state, &scoring, row, keys.clone(), hiding, &mut task.results.inspection);
        }
        accumulate(s, v, weights, state, output, length, hiding);
    }

    finish(s, output, state, task.place, task.modifiers.sinks, &mut task.results);
}

/// The rows that go together: pairs of their first row and their number.
fn together(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).step_by(FEW_TOGETHER).map(move |first| (first, (rows - first).min(FEW_TOGETHER)))
}

/// Q, scaled: for rows that go together, `[head_dim vectors][rows]`. Compiled once for each level and type.
#[inline(never)]
fn load_queries<S: Isa, Q: Element>(
    s: S,
    from: &Rows<'_, Q>,
    count: usize,
    dim: usize,
    scale: f32,
    queries: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let scale = s.splat(scale);
            let vectors = dim.div_ceil(S::LANES);
            for (first, rows) in together(count) {
                let queries = s.vectors_mut(queries).get_mut(first * vectors..).unwrap_or_default();
                let from: [_; FEW_TOGETHER] = from.rows(first);
                for (offset, from) in from.iter().take(rows).enumerate() {
                    for (from, to) in from.chunks(S::LANES).zip(queries.chunks_exact_mut(rows)) {
                        if let Some(to) = to.get_mut(offset) {
                            *to = s.mul(scale, load_part(s, from));
                        }
                    }
                }
            }
        },
    );
}

/// Takes in the sinks, divides, and writes the rows. Compiled once for each level and type.
#[inline(never)]
fn finish<S: Isa, O: Element>(
    s: S,
    output: &[f32],
    state: &[[f32; 3]],
    place: Place,
    sinks: Option<&[f32]>,
    results: &mut Results<'_, O>,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let width = padded(results.out.dim(), S::LANES);
            for (row, (output, state)) in output.chunks_exact(width).zip(state).enumerate() {
                let sink = sinks.map(|sinks| {
                    let (head, _) = place.head_and_position(row);
                    s.splat(sinks.get(head).copied().unwrap_or(f32::NEG_INFINITY))
                });
                let total = Total::new(s, s.splat(state[0]), s.splat(state[1]), sink);
                for (from, to) in s.vectors(output).iter().zip(results.out.row(row).chunks_mut(S::LANES)) {
                    store_part(s, total.normalise(s, *from), to);
                }
                results.report(s, row..row + 1, &total);
            }
        },
    );
}

/// `scores[row][key] = q·k` for all rows and the keys of a panel; the lanes past its last key get some number.
#[inline(never)]
fn products<S: Isa, K: Element>(
    s: S,
    keys: Panel<'_, K>,
    queries: &[f32],
    scores: &mut [f32],
    sums: &mut [f32],
    length: usize,
    rows: usize,
) {
    let vectors = keys.row(0).len().div_ceil(S::LANES);
    for (first, rows) in together(rows) {
        let queries = s.vectors(queries).get(first * vectors..).unwrap_or_default();
        let scores = scores.get_mut(first * length..).unwrap_or_default();
        s.vectorize(
            #[inline(always)]
            || match rows {
                1 => dot::<S, K, 1>(s, keys, queries, scores, sums, length),
                2 => dot::<S, K, 2>(s, keys, queries, scores, sums, length),
                3 => dot::<S, K, 3>(s, keys, queries, scores, sums, length),
                _ => dot::<S, K, FEW_TOGETHER>(s, keys, queries, scores, sums, length),
            },
        );
    }
}

#[inline(always)]
fn dot<S: Isa, K: Element, const ROWS: usize>(
    s: S,
    keys: Panel<'_, K>,
    queries: &[S::F],
    scores: &mut [f32],
    sums: &mut [f32],
    length: usize,
) {
    let queries = queries.as_chunks::<ROWS>().0;
    let mut key = 0;
    while key < keys.rows() {
        let count = (keys.rows() - key).min(S::LANES);
        let sums = s.vectors_mut(sums);
        for lane in 0..count {
            let row = keys.row(key + lane);
            let whole = row.chunks_exact(S::LANES);
            let tail = whole.remainder();
            let mut products = [s.zero(); ROWS];
            let mut queries = queries.iter();
            for (from, queries) in whole.zip(queries.by_ref()) {
                let from = K::load(s, from);
                for (product, &query) in products.iter_mut().zip(queries) {
                    *product = s.mul_add(from, query, *product);
                }
            }
            if !tail.is_empty()
                && let Some(queries) = queries.next()
            {
                let from = load_part(s, tail);
                for (product, &query) in products.iter_mut().zip(queries) {
                    *product = s.mul_add(from, query, *product);
                }
            }
            for (sums, product) in sums.chunks_exact_mut(S::LANES).zip(products) {
                if let Some(sum) = sums.get_mut(lane) {
                    *sum = product;
                }
            }
        }
        for (sums, scores) in sums.chunks_exact_mut(S::LANES).zip(scores.chunks_exact_mut(length)).take(ROWS)
        {
            let scores = scores.get_mut(key..).unwrap_or_default();
            if let Some(score) = s.vectors_mut(scores).first_mut() {
                *score = sum_each(s, sums);
            }
        }
        key += S::LANES;
    }
}

/// A row's scores become weights; `state` is its maximum and sum, which are updated, and the factor that its
/// output needs, which is written.
#[inline(never)]
#[allow(clippy::too_many_arguments, reason = "the parts of one call's state, each borrowed on its own")]
fn update<S: Isa>(
    s: S,
    scores: &mut [f32],
    state: &mut [f32; 3],
    scoring: &Scoring<'_>,
    row: usize,
    keys: Range<usize>,
    hiding: Hiding,
    inspection: &mut Inspection<'_>,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let count = keys.len();
            let scores = scores.get_mut(..padded(count, S::LANES)).unwrap_or_default();
            if hiding != Hiding::Nothing || !scoring.is_plain() || inspection.is_some() {
                let vectors = s.vectors_mut(scores);
                let mut block = Block { vectors, width: 1, at: 0, lanes: Lanes::Keys, row, keys };
                scoring.apply(s, &mut block, hiding, inspection);
            }
            for past in scores.get_mut(count..).unwrap_or_default() {
                *past = f32::NEG_INFINITY;
            }
            let scores = s.vectors_mut(scores);
            let mut greatest = s.splat(state[0]);
            for &score in scores.iter() {
                greatest = s.max(score, greatest);
            }
            let maximum = s.max_lane(greatest);
            let safe = safe_maximum(s, s.splat(maximum));
            let factor = crate::math::exp(s, s.sub(s.splat(state[0]), safe));
            let sum = s.sum_lanes(weigh(s, scores.iter_mut(), safe, s.zero(), hiding));
            let mut first = [0.0];
            store_part(s, factor, &mut first);
            *state = [maximum, state[1] * first[0] + sum, first[0]];
        },
    );
}

/// `output[row][c] = factor[row] · output[row][c] + Σ_key weights[row][key] · values[key][c]`.
#[inline(never)]
fn accumulate<S: Isa, V: Element>(
    s: S,
    values: Panel<'_, V>,
    weights: &[f32],
    state: &[[f32; 3]],
    output: &mut [f32],
    length: usize,
    hiding: Hiding,
) {
    let dim = values.row(0).len();
    s.vectorize(
        #[inline(always)]
        || {
            let rows = output.chunks_mut(2 * padded(dim, S::LANES));
            for ((output, weights), state) in rows.zip(weights.chunks(2 * length)).zip(state.chunks(2)) {
                match state {
                    [a, b] if hiding != Hiding::Marked => {
                        pass::<S, V, 2>(s, values, weights, [a[2], b[2]], output, length, hiding);
                    }
                    _ => {
                        let rows = output.chunks_exact_mut(padded(dim, S::LANES));
                        for ((output, weights), state) in rows.zip(weights.chunks_exact(length)).zip(state) {
                            pass::<S, V, 1>(s, values, weights, [state[2]], output, length, hiding);
                        }
                    }
                }
            }
        },
    );
}

#[inline(always)]
fn pass<S: Isa, V: Element, const ROWS: usize>(
    s: S,
    values: Panel<'_, V>,
    weights: &[f32],
    factors: [f32; ROWS],
    output: &mut [f32],
    length: usize,
    hiding: Hiding,
) {
    let dim = values.row(0).len();
    let Some(weights) = Panel::new(weights, length, ROWS, values.rows()) else { return };
    let strip =
        Strip { s, values, weights, factors, marked: hiding == Hiding::Marked, width: padded(dim, S::LANES) };
    let mut column = 0;
    while column + STRIP * S::LANES <= dim {
        strip.accumulate::<STRIP>(column, output, false);
        column += STRIP * S::LANES;
    }
    while column + 4 * S::LANES <= dim {
        strip.accumulate::<4>(column, output, false);
        column += 4 * S::LANES;
    }
    while column + S::LANES <= dim {
        strip.accumulate::<1>(column, output, false);
        column += S::LANES;
    }
    if column < dim {
        strip.accumulate::<1>(column, output, true);
    }
}

struct Strip<'a, S: Isa, V: Element, const ROWS: usize> {
    s: S,
    values: Panel<'a, V>,
    weights: Panel<'a>,
    factors: [f32; ROWS],
    marked: bool,
    /// From one row of the output to the next.
    width: usize,
}

impl<S: Isa, V: Element, const ROWS: usize> Strip<'_, S, V, ROWS> {
    /// `VECS` vectors of columns, from `column` on; the last may be a part.
    #[inline(always)]
    fn accumulate<const VECS: usize>(&self, column: usize, output: &mut [f32], part: bool) {
        let s = self.s;
        let mut sums = [[s.zero(); VECS]; ROWS];
        let mut key = 0;
        self.weights.columns::<ROWS>(0).each(
            #[inline(always)]
            |weights| {
                let row = self.values.row(key);
                key += 1;
                let mut values = [s.zero(); VECS];
                if part {
                    values[0] = load_part(s, row.get(column..).unwrap_or_default());
                } else if let Some(row) = row.get(column..).and_then(|row| row.get(..VECS * S::LANES)) {
                    for (value, from) in values.iter_mut().zip(row.chunks_exact(S::LANES)) {
                        *value = V::load(s, from);
                    }
                }
                for (sums, weight) in sums.iter_mut().zip(weights) {
                    if self.marked && weight < 0.0 {
                        continue;
                    }
                    let weight = s.splat(weight);
                    for (sum, &value) in sums.iter_mut().zip(&values) {
                        *sum = s.mul_add(weight, value, *sum);
                    }
                }
            },
        );
        for ((sums, output), factor) in sums.iter().zip(output.chunks_exact_mut(self.width)).zip(self.factors)
        {
            let factor = s.splat(factor);
            let output = s.vectors_mut(output.get_mut(column..).unwrap_or_default());
            for (output, &sum) in output.iter_mut().zip(sums) {
                *output = s.mul_add(*output, factor, sum);
            }
        }
    }
}
