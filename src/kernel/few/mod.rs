//! The few-rows kernel: the head dimension lies in lanes (but see [`tiled`]).
//!
//! Decoding has as many rows as a group has heads: too few to fill lanes well, and reading K and V once is what takes
//! the time. Both are read row by row, each vector once for up to [`FEW_TOGETHER`] rows, and fetched ahead ([`Ahead`]):
//!
//! ```text
//! for KEYS keys at a time:   acc[key][row] += K[key][j..] · Q[row][j..], vectors, which are reduced LANES at a time
//! for a strip of columns:    for key: acc[row][c] += splat(P[row][key]) · V[key][c];  O[row][c] = f O[row][c] + acc[row][c]
//! ```
//!
//! Scores lie `[row][block]`, so that modifiers and softmax work on whole vectors of neighbouring keys. Vectors
//! begin at keys that are multiples of `LANES`: which lane a key has depends on nothing else in the call.

mod scores;
mod tiled;
mod values;

use core::ops::Range;

use scores::products;
use values::{Addition, FLOOR, Source, accumulate};

use super::arithmetic::Single;
use super::softmax::{Total, merge, safe_maximum, weigh};
use super::values::{holds_nan, is_finite};
use super::{Nest, Rest, Sight, Steps, Task, Trust};
use crate::ahead::{Ahead, LINE};
use crate::element::{Storage, load_part, store_part};
use crate::isa::{Isa, Level};
use crate::math::exp;
use crate::panel::{Panel, Rows, RowsMut};
use crate::place::{Heads, Place};
use crate::score::Modifiers;
use crate::score::block::{Block, Hiding, Inspection, Lanes, Scoring};
use crate::tiling::{Carver, FEW_TOGETHER, Few, NEAR, Tile, few, padded};

/// How far ahead of their use K and V are fetched into the second-level cache, in bytes of each.
const AHEAD: usize = 16 << 10;

/// Keys and values of so many bytes, in the whole call, are taken to lie in a cache that cores share.
const SHARED: usize = 16 << 20;

/// And where there is a matrix unit. From memory tiles whose keys are fetched ahead are 4 to 6 % faster, whose values are 12 to 15 %, from such
/// a cache up to 10 and 5 % slower (Emerald Rapids; 67 and 134 MiB, and 33).
const SHARED_BY_TILES: usize = 48 << 20;

/// The steps of the few-rows kernel that depend on the arithmetic.
pub(super) trait Arithmetic<S: Isa, K, V>: Copy {
    /// Keys that go together: blocks begin at multiples.
    const KEYS: usize;
    /// Whether keys and values are fetched ahead as they are multiplied, whatever cache they lie in. Else from memory alone, and the softmax
    /// between them begins to fetch the values.
    const FETCHES: bool;

    /// Queries, as they are laid out, from those of a place, of `dim` numbers each; with the room for what is copied.
    fn load<E: Steps>(
        self,
        s: S,
        steps: &mut E,
        place: &Place,
        dim: usize,
        scale: f32,
        queries_and_room: [&mut [f32]; 2],
    );

    /// `scores[row][key] = scale q·k` for all rows and the keys of a panel of so many heads; the lanes past its last key get some number.
    fn score(
        self,
        s: S,
        keys: (Panel<'_, K>, Heads),
        queries_scores_and_room: [&mut [f32]; 3],
        rows: usize,
        scale: f32,
        ahead: Option<Ahead>,
    );

    /// `output[row][c] = factor[row] · output[row][c] + Σ_key weights[row][key] · values[key][c]`, with a panel of so many heads.
    fn add(
        self,
        s: S,
        values: (Panel<'_, V>, Heads),
        weights_output_and_room: [&mut [f32]; 3],
        factors: &[f32],
        addition: Addition<'_>,
    );
}

impl<S: Isa, K: Storage, V: Storage> Arithmetic<S, K, V> for Single {
    const KEYS: usize = S::LANES;
    const FETCHES: bool = true;

    #[inline(always)]
    fn load<E: Steps>(
        self,
        s: S,
        steps: &mut E,
        _: &Place,
        dim: usize,
        scale: f32,
        [queries, _]: [&mut [f32]; 2],
    ) {
        steps.load_few(s, dim, scale, queries);
    }

    #[inline(always)]
    fn score(
        self,
        s: S,
        keys: (Panel<'_, K>, Heads),
        [queries, scores, _]: [&mut [f32]; 3],
        rows: usize,
        _: f32,
        ahead: Option<Ahead>,
    ) {
        products(s, keys, queries, scores, rows, ahead);
    }

    #[inline(always)]
    fn add(
        self,
        s: S,
        values: (Panel<'_, V>, Heads),
        [weights, output, _]: [&mut [f32]; 3],
        factors: &[f32],
        addition: Addition<'_>,
    ) {
        accumulate(s, values, weights, factors, output, addition);
    }
}

/// Computes a task. Compiled once for each level, arithmetic, and type of keys and values.
#[inline(never)]
pub(super) fn compute<S: Isa, K: Storage, V: Storage, A: Arithmetic<S, K, V>, E: Steps>(
    s: S,
    arithmetic: A,
    task: &mut Task<'_, K, V>,
    steps: E,
) {
    s.vectorize(
        #[inline(always)]
        || {
            let scoring = task.scoring();
            let sight = task.sight(scoring.sequence);
            let visits = task.visits(&sight, S::LEVEL);
            let sizes = few(task.shape, S::LEVEL, task.place.rows());
            let mut carver = Carver::new(core::mem::take(&mut task.scratch), S::LEVEL);
            let queries = carver.take(sizes.queries);
            let weights = carver.take(sizes.weights);
            let mut sums = Sums::carve(&mut carver, &sizes);
            // Not there at levels without chunks.
            let mut total = Sums::carve(&mut carver, &sizes);
            let block_output = carver.take(sizes.block_output);
            let room = carver.take(sizes.room);
            let (scoring, sums, total) = (&scoring, &mut sums, &mut total);
            visits.run(FewRows {
                s,
                arithmetic,
                task,
                steps,
                scoring,
                sight,
                sizes,
                queries,
                weights,
                block_output,
                room,
                sums,
                total,
            });
        },
    );
}

/// What passes are lent lies apart, so that the rest need not lie in memory.
struct FewRows<'r, 'a, S, A, K, V, E> {
    s: S,
    arithmetic: A,
    task: &'r mut Task<'a, K, V>,
    steps: E,
    scoring: &'r Scoring<'a>,
    sight: Sight,
    sizes: Few,
    queries: &'a mut [f32],
    weights: &'a mut [f32],
    /// What a block adds to the output, where levels stream.
    block_output: &'a mut [f32],
    /// For what the arithmetic copies.
    room: &'a mut [f32],
    /// What the chunk of keys that is being computed comes to.
    sums: &'r mut Sums<'a>,
    /// What those before it came to.
    total: &'r mut Sums<'a>,
}

impl<'a, S: Isa, K: Storage, V: Storage, A: Arithmetic<S, K, V>, E: Steps> Nest<'a>
    for FewRows<'_, 'a, S, A, K, V, E>
{
    #[inline(always)]
    fn load(&mut self) {
        let Self { s, arithmetic, task, steps, queries, room, .. } = self;
        let (dim, scale) = (task.shape.head_dim, task.modifiers.scale);
        arithmetic.load(*s, steps, &task.place, dim, scale, [queries, room]);
    }

    #[inline(always)]
    fn compute(&mut self, keys: &Range<usize>, trust: Trust) -> bool {
        let Self { s, arithmetic, task, scoring, sight, queries, weights, block_output, room, sums, .. } =
            self;
        let (s, heads, rows) = (*s, task.place.heads, task.place.rows());
        sums.reset();
        let dims = task.keys().zip(task.values());
        let fetches = S::PREFETCHES && task.kv_bytes() > NEAR;
        let Modifiers { alibi, bias, .. } = scoring.modifiers;
        let floor = if S::LANES > 1 && (alibi.is_some() || bias.is_some()) { FLOOR } else { 0.0 };
        let streams = if A::FETCHES {
            // A single row's strips are long, and narrow values that are a strip wide lie in order; wide ones gain all the same.
            let strips = size_of::<V>() == size_of::<f32>() || task.shape.value_dim > FEW_TOGETHER * S::LANES;
            heads.count() > 1 || task.place.count > 1 && strips && task.kv_bytes() > SHARED
        } else {
            task.kv_bytes() > SHARED_BY_TILES
        };
        let mut hidden = false;
        for keys in sight.blocks(keys, Tile::of(S::LEVEL).few_block) {
            // What this adds in front is hidden, or the block would begin there.
            let keys = keys.start / A::KEYS * A::KEYS..keys.end;
            let Some((all_k, all_v)) = dims else { break };
            let (Some(k), Some(v)) = (all_k.part(keys.start, keys.len()), all_v.part(keys.start, keys.len()))
            else {
                break;
            };
            let fetches_keys = if A::FETCHES { fetches } else { streams };
            let ahead_of_k = fetches_keys.then(|| all_k.ahead(keys.start, ahead_of(k, heads, S::LEVEL)));
            let source = match fetches.then(|| all_v.ahead(keys.start, ahead_of(v, heads, S::LEVEL))) {
                Some(ahead) if streams => Source::Memory(ahead, block_output),
                Some(ahead) => Source::SharedCache(ahead),
                None => Source::NearCache,
            };
            let scale = task.modifiers.scale;
            arithmetic.score(s, (k, heads), [queries, weights, room], rows, scale, ahead_of_k);
            let hiding = if !scoring.hides(&sight.positions, &keys) {
                Hiding::Nothing
            } else if trust == Trust::Full || is_finite(s, v) {
                Hiding::Some
            } else {
                Hiding::Marked
            };
            hidden |= hiding != Hiding::Nothing;
            let inspection = &mut task.reports.inspection;
            let state = &mut sums.state;
            if A::FETCHES || !fetches {
                let nothing = Ahead::default();
                update::<S, false>(s, weights, state, rows, scoring, keys, hiding, inspection, nothing);
            } else {
                let values = all_v.ahead(keys.start, 0);
                update::<S, true>(s, weights, state, rows, scoring, keys, hiding, inspection, values);
            }
            let factors = sums.state.factors.get(..rows).unwrap_or_default();
            let addition = Addition { hiding, floor, source };
            arithmetic.add(s, (v, heads), [weights, sums.output, room], factors, addition);
        }
        !(hidden && trust == Trust::Full && holds_nan(s, sums.output))
    }

    #[inline(always)]
    fn compute_in(&mut self, part: &'a mut [f32]) {
        *self.sums = Sums::carve(&mut Carver::new(part, S::LEVEL), &self.sizes);
    }

    #[inline(always)]
    fn compute_nothing(&mut self) {
        self.sums.reset();
    }

    #[inline(always)]
    fn begin_total(&mut self) {
        core::mem::swap(self.total, self.sums);
    }

    #[inline(always)]
    fn take_in(&mut self) {
        self.total.take_in(self.s, self.sums, padded(self.task.shape.value_dim, S::LANES));
    }

    #[inline(always)]
    fn finish(self) {
        let Self { s, task, mut steps, total, .. } = self;
        let rest = Rest { place: &task.place, sinks: task.modifiers.sinks, reports: task.reports };
        steps.finish_few(s, total.output, &total.state, rest);
    }
}

/// What the keys so far, of a chunk or of all, come to.
struct Sums<'a> {
    output: &'a mut [f32],
    state: State<'a>,
}

impl<'a> Sums<'a> {
    fn carve(carver: &mut Carver<'a>, sizes: &Few) -> Self {
        Self { output: carver.take(sizes.output), state: State::new(carver.take(sizes.state)) }
    }

    /// To what no keys come to.
    fn reset(&mut self) {
        self.output.fill(0.0);
        self.state.reset();
    }

    /// Takes in what later keys came to; rows of the output are `width` apart. Compiled once for each level.
    #[inline(never)]
    fn take_in<S: Isa>(&mut self, s: S, part: &mut Self, width: usize) {
        s.vectorize(
            #[inline(always)]
            || {
                let (all, part_state) = (&mut self.state, &mut part.state);
                let all_known = s.vectors_mut(all.maxima).iter_mut().zip(s.vectors_mut(all.sums));
                let known = s.vectors(part_state.maxima).iter().zip(s.vectors(part_state.sums));
                let factors = s.vectors_mut(all.factors).iter_mut().zip(s.vectors_mut(part_state.factors));
                for ((all, part), (factor, factor_of_part)) in all_known.zip(known).zip(factors) {
                    let merged = merge(s, [*all.0, *all.1], [*part.0, *part.1]);
                    ([*all.0, *all.1], [*factor, *factor_of_part]) = merged;
                }
                let rows = self.output.chunks_exact_mut(width).zip(part.output.chunks_exact(width));
                let factors = all.factors.iter().zip(&*part_state.factors);
                for ((all, part), (&factor, &factor_of_part)) in rows.zip(factors) {
                    let (factor, factor_of_part) = (s.splat(factor), s.splat(factor_of_part));
                    for (all, &part) in s.vectors_mut(all).iter_mut().zip(s.vectors(part)) {
                        *all = s.mul_add(*all, factor, s.mul(part, factor_of_part));
                    }
                }
            },
        );
    }
}

/// What is known of the rows: a number of each, and of some that there are not up to a whole vector.
pub(super) struct State<'a> {
    maxima: &'a mut [f32],
    sums: &'a mut [f32],
    /// What an output is multiplied by, as the maximum has changed.
    factors: &'a mut [f32],
}

impl<'a> State<'a> {
    /// Three equal parts of `room`.
    fn new(room: &'a mut [f32]) -> Self {
        let length = room.len() / 3;
        let (maxima, rest) = room.split_at_mut_checked(length).unwrap_or_default();
        let (sums, factors) = rest.split_at_mut_checked(length).unwrap_or_default();
        Self { maxima, sums, factors }
    }

    /// Of rows that have seen nothing.
    fn reset(&mut self) {
        self.maxima.fill(f32::NEG_INFINITY);
        self.sums.fill(0.0);
        self.factors.fill(0.0);
    }
}

/// Keys or values that are taken together where they come from memory, or where those of several heads lie beside each other:
/// of narrow ones twice as many.
const fn step<T>(level: Level) -> usize {
    let keys = Tile::of(level).streamed;
    if size_of::<T>() < size_of::<f32>() { 2 * keys } else { keys }
}

/// How far ahead of its use a panel of so many heads is fetched, in bytes.
fn ahead_of<T>(panel: Panel<'_, T>, heads: Heads, level: Level) -> usize {
    if heads.count() == 1 { AHEAD } else { step::<T>(level) * size_of_val(panel.row(0)) }
}

/// The rows of a head that go together, as evenly as can be (5 are 3 and 2): pairs of their first row and their number.
fn together(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = rows.div_ceil(rows.div_ceil(FEW_TOGETHER).max(1)).max(1);
    (0..rows).step_by(most).map(move |first| (first, (rows - first).min(most)))
}

/// Q, scaled: for rows that go together, `[head_dim vectors][rows]`. Compiled once for each level and type.
#[inline(never)]
pub(super) fn load_queries<S: Isa, Q: Storage>(
    s: S,
    from: &Rows<'_, Q>,
    dim: usize,
    scale: f32,
    queries: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let (scale, count) = (s.splat(scale), from.place().count);
            let vectors = dim.div_ceil(S::LANES);
            for head in 0..from.place().heads.count() {
                for (first, rows) in together(count) {
                    let first = head * count + first;
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
            }
        },
    );
}

/// Takes in the sinks, divides, and writes the rows. Compiled once for each level and type.
#[inline(never)]
pub(super) fn finish<S: Isa, O: Storage>(
    s: S,
    output: &[f32],
    state: &State<'_>,
    rest: Rest<'_, '_>,
    out: &mut RowsMut<'_, O>,
) {
    let Rest { place, sinks, reports } = rest;
    s.vectorize(
        #[inline(always)]
        || {
            let width = padded(out.dim(), S::LANES);
            let known = state.maxima.iter().zip(&*state.sums);
            for (row, (output, (&maximum, &sum))) in output.chunks_exact(width).zip(known).enumerate() {
                let sink = sinks.get().map(|sinks| {
                    let (head, _) = place.head_and_position(row);
                    s.splat(sinks.get(head).copied().unwrap_or(f32::NEG_INFINITY))
                });
                let total = Total::new(s, s.splat(maximum), s.splat(sum), sink);
                for (from, to) in s.vectors(output).iter().zip(out.row(row).chunks_mut(S::LANES)) {
                    store_part(s, total.normalise(s, *from), to);
                }
                reports.report(s, row..row + 1, &total);
            }
        },
    );
}

/// Asks for the cache lines that so many vectors of a `T` are read from.
#[inline(always)]
fn fetch<S: Isa, T>(s: S, ahead: &mut Ahead, vectors: usize) {
    let lines = (vectors * S::LANES * size_of::<T>()).div_ceil(LINE);
    let first = ahead.advance(lines);
    for line in 0..lines {
        s.prefetch(first.wrapping_add(line * LINE));
    }
}

/// The rows' scores become weights; maxima and sums are updated, and the factors written; lines ahead may be fetched meanwhile. What waits for a row's
/// maximum, or for its sum, stands apart from the next row's, so that the rows don't wait for each other.
#[inline(never)]
#[allow(clippy::too_many_arguments, reason = "the parts of one call's state, each borrowed on its own")]
fn update<S: Isa, const FETCH: bool>(
    s: S,
    scores: &mut [f32],
    state: &mut State<'_>,
    rows: usize,
    scoring: &Scoring<'_>,
    keys: Range<usize>,
    hiding: Hiding,
    inspection: &mut Inspection<'_>,
    mut ahead: Ahead,
) {
    // For each vector of weights. One or four are 1 to 3 % slower from the last cache.
    const LINES: usize = 2;
    s.vectorize(
        #[inline(always)]
        || {
            let length = Tile::of(S::LEVEL).few_block;
            let count = keys.len();
            let room = padded(count, S::LANES);
            let modified = hiding != Hiding::Nothing || !scoring.is_plain() || inspection.is_some();
            let State { maxima, sums, factors } = state;
            for (before, &maximum) in factors.iter_mut().zip(maxima.iter()) {
                *before = maximum;
            }
            for (row, (scores, maximum)) in
                scores.chunks_exact_mut(length).zip(maxima.iter_mut()).take(rows).enumerate()
            {
                let scores = scores.get_mut(..room).unwrap_or_default();
                if modified {
                    let vectors = s.vectors_mut(scores);
                    let keys = keys.clone();
                    let mut block = Block { vectors, width: 1, at: 0, lanes: Lanes::Keys, row, keys };
                    scoring.apply(s, &mut block, hiding, inspection);
                }
                for past in scores.get_mut(count..).unwrap_or_default() {
                    *past = f32::NEG_INFINITY;
                }
                let mut greatest = s.splat(*maximum);
                for &score in s.vectors(scores) {
                    greatest = s.max(score, greatest);
                }
                *maximum = s.max_lane(greatest);
            }
            let known = s.vectors(maxima).iter().zip(s.vectors_mut(sums));
            for (factor, (&maximum, sum)) in s.vectors_mut(factors).iter_mut().zip(known) {
                *factor = exp(s, s.sub(*factor, safe_maximum(s, maximum)));
                *sum = s.mul(*sum, *factor);
            }
            for (scores, (&maximum, sum)) in
                scores.chunks_exact_mut(length).zip(maxima.iter().zip(sums.iter_mut())).take(rows)
            {
                let scores = s.vectors_mut(scores.get_mut(..room).unwrap_or_default());
                let safe = safe_maximum(s, s.splat(maximum));
                let scores = scores.iter_mut().inspect(
                    #[inline(always)]
                    |_| {
                        for _ in 0..if FETCH { LINES } else { 0 } {
                            s.prefetch(ahead.advance(1));
                        }
                    },
                );
                *sum += s.sum_lanes(weigh(s, scores, safe, s.zero(), hiding));
            }
        },
    );
}
