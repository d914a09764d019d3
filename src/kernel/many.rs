//! The many-rows kernel: rows lie in lanes.
//!
//! The rows of a group of query heads are taken position-major, so that grouped heads fill the lanes by themselves
//! and share every number of K and V that is read. An item is up to `groups` groups of `LANES · VECS` rows, which
//! share each block of K and V:
//!
//! | buffer | shape | at AVX-512, d 128 |
//! |---|---|---|
//! | queries (most often scaled) | `[group][head_dim][VECS]` vectors | 24 KiB a group |
//! | weights | `[group][block][VECS]` vectors | 18 KiB a group (48 by a matrix unit) |
//! | output | `[group][value_dim][VECS]` vectors | 24 KiB a group |
//! | wide | `[block][dim]`, for narrow storage only | 48 KiB (128 by a matrix unit) |
//! | output of the chunks before, of the first two groups, at levels that have chunks | as output | 24 KiB a group |
//!
//! How these are multiplied, and laid out for it, is an [`Arithmetic`]. The lanes past the last row repeat it: computed, and not stored.

use core::ops::Range;

use super::arithmetic::{Arithmetic, Holds, MulAdd, Wide};
use super::later::Later;
use super::stairs::{Stairs, has_stairs};
use super::{Nest, Rest, Sight, Steps, Task, Trust, scores, softmax, values};
use crate::element::{Factor, Storage};
use crate::isa::Isa;
use crate::panel::Panel;
use crate::place::Place;
use crate::score::block::{Block, Hiding, Inspection, Lanes, Scoring};
use crate::tiling::{CHUNKS, Carver, MAX_GROUPS, Many, SINGLE_TILE, Tile, many};

/// `LANES · VECS` rows.
pub(super) struct Group<'a> {
    pub(super) queries: &'a mut [f32],
    pub(super) weights: &'a mut [f32],
    /// What the chunk of keys that is being computed comes to.
    sums: Sums<'a>,
    /// What those before it come to: nothing from the third group on, since all keys are one chunk then.
    total: [Sums<'a>; TOTALS],
    /// Which rows of the item.
    rows: Range<usize>,
    /// Where they stand.
    positions: Range<usize>,
    /// Which keys of the block they see; empty for none.
    pub(super) keys: Range<usize>,
    /// How far its vectors see of them, for an arithmetic that makes use of it.
    pub(super) stairs: Stairs,
    /// Whether the values of hidden keys may be finite, as far as is known; where an arithmetic rounds.
    trusted: bool,
    /// Whether nothing has been added to the output, which then holds anything; not where size goes before speed.
    fresh: bool,
}

/// None where no level has chunks.
const TOTALS: usize = CHUNKS as usize;

/// What some keys come to for a group.
#[derive(Default)]
struct Sums<'a> {
    output: &'a mut [f32],
    /// The rows' maxima, their sums, and the factors of their outputs.
    state: &'a mut [f32],
}

/// As [`compute`]. Compiled once for each level, tile, and type of keys and values.
#[inline(never)]
pub(super) fn compute_apart<
    S: Isa,
    K: Storage,
    V: Storage,
    A: Arithmetic<S, K, V>,
    E: Steps,
    const KEYS: usize,
    const VECS: usize,
>(
    s: S,
    arithmetic: A,
    task: &mut Task<'_, K, V>,
    steps: E,
) {
    s.vectorize(
        #[inline(always)]
        || compute::<S, K, V, A, E, KEYS, VECS>(s, arithmetic, task, steps),
    );
}

/// Computes a task.
#[inline(always)]
pub(super) fn compute<
    S: Isa,
    K: Storage,
    V: Storage,
    A: Arithmetic<S, K, V>,
    E: Steps,
    const KEYS: usize,
    const VECS: usize,
>(
    s: S,
    arithmetic: A,
    task: &mut Task<'_, K, V>,
    steps: E,
) {
    let later = if S::PREFETCHES { steps.later(task.shape) } else { Later::none() };
    let scoring = task.scoring();
    let sight = task.sight(scoring.sequence);
    let visits = task.visits(&sight, S::LEVEL);
    let sizes = many(task.shape, S::LEVEL, task.storage().blocks(A::TILED), VECS);
    let mut carver = Carver::new(core::mem::take(&mut task.scratch), S::LEVEL);
    let all = task.place.count;
    let rows = |index: usize| {
        let start = (index * S::LANES * VECS).min(all);
        start..(start + S::LANES * VECS).min(all)
    };
    let mut groups: [Group<'_>; MAX_GROUPS] = core::array::from_fn(|index| {
        if MAX_GROUPS > 1 {
            return Group::none();
        }
        Group::new(&mut carver, &sizes, task.place, rows(index), true)
    });
    let count = all.div_ceil(S::LANES * VECS);
    if MAX_GROUPS > 1 {
        for (index, to) in first(&mut groups, count).iter_mut().enumerate() {
            *to = Group::new(&mut carver, &sizes, task.place, rows(index), index < sizes.totals);
        }
    }
    let wide = carver.take(sizes.wide);
    let scale = task.modifiers.scale;
    // As they become weights, scores may be scaled where nothing else changes them; and where one that is clamped to the least finite
    // number before stays finite by that.
    let plain = A::ROUNDS && scale > 0.0 && scale <= 1.0 && scoring.is_plain();
    let (query_scale, score_scale) = if plain { (1.0, scale) } else { A::scales(scale) };
    let late = plain && task.reports.inspection.is_none();
    visits.run(ManyRows::<S, K, V, A, E, KEYS, VECS> {
        s,
        task,
        steps,
        scoring: &scoring,
        sight,
        sizes,
        groups: &mut groups,
        count,
        wide,
        query_scale,
        score_scale,
        late,
        later,
        arithmetic,
    });
}

/// What passes are lent lies apart, so that the rest need not lie in memory.
struct ManyRows<'r, 'a, S, K, V, A, E, const KEYS: usize, const VECS: usize> {
    s: S,
    task: &'r mut Task<'a, K, V>,
    steps: E,
    scoring: &'r Scoring<'a>,
    sight: Sight,
    sizes: Many,
    groups: &'r mut [Group<'a>; MAX_GROUPS],
    /// Groups that there are.
    count: usize,
    wide: &'a mut [f32],
    query_scale: f32,
    score_scale: f32,
    /// Whether scores are scaled as they become weights.
    late: bool,
    later: Later,
    arithmetic: A,
}

/// The first groups, as many as an item has.
#[inline(always)]
fn first<'g, 'a>(groups: &'g mut [Group<'a>; MAX_GROUPS], count: usize) -> &'g mut [Group<'a>] {
    /// Not inlined: compilers would write loops over so few out.
    #[inline(never)]
    fn part<'g, 'a>(groups: &'g mut [Group<'a>], count: usize) -> &'g mut [Group<'a>] {
        groups.get_mut(..count).unwrap_or_default()
    }
    if MAX_GROUPS == 1 { groups } else { part(groups, count) }
}

/// Each of them. A single one has rows, but compilers keep it out of memory only if that is asked.
#[inline(always)]
fn present<'g, 'a>(
    groups: &'g mut [Group<'a>; MAX_GROUPS],
    count: usize,
) -> impl Iterator<Item = &'g mut Group<'a>> {
    first(groups, count).iter_mut().filter(
        #[inline(always)]
        |group| MAX_GROUPS > 1 || !group.rows.is_empty(),
    )
}

impl<'a, S: Isa, K: Storage, V: Storage, A, E, const KEYS: usize, const VECS: usize> Nest<'a>
    for ManyRows<'_, 'a, S, K, V, A, E, KEYS, VECS>
where
    A: Arithmetic<S, K, V>,
    E: Steps,
{
    #[inline(always)]
    fn load(&mut self) {
        for group in present(self.groups, self.count) {
            let (s, first) = (self.s, group.rows.start);
            let pairs = A::ROUNDS
                && self.query_scale == 1.0
                && self.steps.load_pairs::<S, VECS>(s, first, group.queries);
            if !pairs {
                self.steps.load::<S, VECS>(s, first, self.query_scale, group.queries);
            }
            self.arithmetic.prepare::<VECS>(group.queries, pairs);
        }
    }

    #[inline(always)]
    fn compute(&mut self, keys: &Range<usize>, trust: Trust) -> bool {
        let Self {
            s, task, scoring, sight, groups, count, wide, score_scale, late, later, arithmetic, ..
        } = self;
        let (s, arithmetic, count) = (*s, *arithmetic, *count);
        for group in present(groups, count) {
            if A::ROUNDS {
                // Each by what it came to itself, so that it doesn't matter which groups an item has.
                group.trusted = trust == Trust::Full || !values::holds_nan(s, group.sums.output);
            }
            group.sums.reset::<S, VECS>(s);
            group.fresh = !SINGLE_TILE;
            if SINGLE_TILE {
                group.sums.output.fill(0.0);
            }
        }
        let dims = task.keys().zip(task.values());
        let mut hidden = false;
        let length = Tile::of(S::LEVEL).block(task.storage().blocks(A::TILED));
        for block in sight.blocks(keys, length) {
            let block = together(block, A::KEYS, sight.sequence.length);
            // Before the scores, and around the softmax of each group.
            let blocks = (keys.end - block.start).div_ceil(length);
            later.spread((1 + 2 * count) * blocks);
            later.fetch(s);
            let Some((keys, values)) = dims else { break };
            let (Some(keys), Some(values)) =
                (keys.part(block.start, block.len()), values.part(block.start, block.len()))
            else {
                break;
            };
            for group in present(groups, count) {
                let keys = sight.sequence.seen_in(&group.positions, &block);
                group.keys = together(keys, A::KEYS, sight.sequence.length);
                if has_stairs::<S>() && VECS > 1 {
                    let Group { positions, keys, rows, .. } = &*group;
                    group.stairs = if sight.sequence.all_see(positions, keys) {
                        Stairs::NONE
                    } else {
                        Stairs::of::<S>(&sight.sequence, &task.place, rows.start, keys, A::KEYS)
                    };
                }
            }
            let (scale, rest) = if *late { (1.0, *score_scale) } else { (*score_scale, 1.0) };
            arithmetic.score::<KEYS, VECS>(s, keys, block.start, first(groups, count), wide, scale);
            let mut wide = Wide { room: wide, holds: Holds::Nothing };
            let inspection = &mut task.reports.inspection;
            // By index, so that a single group need not lie in memory.
            for index in 0..if MAX_GROUPS == 1 { 1 } else { count } {
                let Some(group) = groups.get_mut(index) else { break };
                if group.keys.is_empty() {
                    continue;
                }
                let trusted = if A::ROUNDS { group.trusted } else { trust == Trust::Full };
                let hiding = if !scoring.hides(&group.positions, &group.keys) {
                    Hiding::Nothing
                } else if trusted
                    || values
                        .part(group.keys.start - block.start, group.keys.len())
                        .is_none_or(|values| values::is_finite(s, values))
                {
                    // Of its own keys, as above.
                    Hiding::Some
                } else {
                    Hiding::Marked
                };
                hidden |= hiding != Hiding::Nothing;
                let rest = if !A::ROUNDS || hiding != Hiding::Marked {
                    rest
                } else {
                    group.scale::<S, VECS>(s, rest)
                };
                group.modify::<S, VECS>(s, scoring, hiding, inspection);
                later.fetch(s);
                arithmetic.weigh::<VECS>(s, group, hiding, rest);
                later.fetch(s);
                let first = group.keys.start - block.start;
                arithmetic.add::<KEYS, VECS>(s, values, first, group, hiding, &mut wide);
            }
        }
        for group in present(groups, count) {
            if !SINGLE_TILE && group.fresh {
                group.sums.output.fill(0.0);
            }
        }
        !(hidden
            && trust == Trust::Full
            && present(groups, count).any(|group| values::holds_nan(s, group.sums.output)))
    }

    #[inline(always)]
    fn compute_in(&mut self, part: &'a mut [f32]) {
        let mut carver = Carver::new(part, S::LEVEL);
        for group in present(self.groups, self.count) {
            group.sums = Sums::carve(&mut carver, &self.sizes);
        }
    }

    #[inline(always)]
    fn compute_nothing(&mut self) {
        for group in present(self.groups, self.count) {
            group.sums.reset::<S, VECS>(self.s);
            group.sums.output.fill(0.0);
        }
    }

    #[inline(always)]
    fn begin_total(&mut self) {
        for Group { total, sums, .. } in present(self.groups, self.count) {
            for total in total {
                core::mem::swap(total, sums);
            }
        }
    }

    #[inline(always)]
    fn take_in(&mut self) {
        for Group { total, sums, .. } in present(self.groups, self.count) {
            for total in total {
                total.take_in::<S, VECS>(self.s, sums);
            }
        }
    }

    #[inline(always)]
    fn finish(self) {
        let Self { s, task, mut steps, groups, count, arithmetic, .. } = self;
        for group in present(groups, count) {
            let Sums { output, state } = group.total.first().unwrap_or(&group.sums);
            let rest = Rest { place: &task.place, sinks: task.modifiers.sinks, reports: task.reports };
            arithmetic.finish::<E, VECS>(s, &mut steps, [output, state], group.rows.clone(), rest);
        }
    }
}

/// `keys`, widened to whole multiples of `step` but for the last one that there is: what this adds is hidden. Of all keys, so that
/// it doesn't matter where those of an item begin.
#[inline(always)]
fn together(keys: Range<usize>, step: usize, end: usize) -> Range<usize> {
    if step == 1 || keys.is_empty() {
        return keys;
    }
    keys.start / step * step..keys.end.next_multiple_of(step).min(end)
}

impl<'a> Sums<'a> {
    #[inline(always)]
    fn carve(carver: &mut Carver<'a>, sizes: &Many) -> Self {
        Self { output: carver.take(sizes.output), state: carver.take(sizes.state) }
    }

    /// To what no keys come to, but for the output.
    #[inline(always)]
    fn reset<S: Isa, const VECS: usize>(&mut self, s: S) {
        for (index, x) in s.vectors_mut(self.state).iter_mut().enumerate() {
            *x = s.splat(if index < VECS { f32::NEG_INFINITY } else { 0.0 });
        }
    }

    /// Takes in what later keys came to. Compiled once for each level and tile.
    #[inline(never)]
    fn take_in<S: Isa, const VECS: usize>(&mut self, s: S, part: &mut Self) {
        s.vectorize(
            #[inline(always)]
            || {
                let all = s.vectors_mut(self.state).as_chunks_mut::<VECS>().0;
                let of_part = s.vectors_mut(part.state).as_chunks_mut::<VECS>().0;
                let (Some([maxima, sums, factors]), Some([maxima2, sums2, factors2])) =
                    (all.first_chunk_mut::<3>(), of_part.first_chunk_mut::<3>())
                else {
                    return;
                };
                for v in 0..VECS {
                    let merged = softmax::merge(s, [maxima[v], sums[v]], [maxima2[v], sums2[v]]);
                    ([maxima[v], sums[v]], [factors[v], factors2[v]]) = merged;
                }
                let all = s.vectors_mut(self.output).as_chunks_mut::<VECS>().0;
                let of_part = s.vectors(part.output).as_chunks::<VECS>().0;
                for (all, part) in all.iter_mut().zip(of_part) {
                    for v in 0..VECS {
                        all[v] = s.mul_add(all[v], factors[v], s.mul(part[v], factors2[v]));
                    }
                }
            },
        );
    }
}

impl<'a> Group<'a> {
    fn none() -> Self {
        Self {
            queries: &mut [],
            weights: &mut [],
            sums: Sums::default(),
            total: core::array::from_fn(|_| Sums::default()),
            rows: 0..0,
            positions: 0..0,
            keys: 0..0,
            stairs: Stairs::NONE,
            trusted: true,
            fresh: false,
        }
    }

    fn new(carver: &mut Carver<'a>, sizes: &Many, place: Place, rows: Range<usize>, has_total: bool) -> Self {
        Self {
            queries: carver.take(sizes.queries),
            weights: carver.take(sizes.weights),
            sums: Sums::carve(carver, sizes),
            total: core::array::from_fn(
                |_| if has_total { Sums::carve(carver, sizes) } else { Sums::default() },
            ),
            positions: place.positions(rows.clone()),
            rows,
            keys: 0..0,
            stairs: Stairs::NONE,
            trusted: true,
            fresh: true,
        }
    }

    /// Its scores of `keys`, which are those that it sees.
    #[inline(always)]
    pub(super) fn multiply<S: Isa, K: Factor, A: MulAdd<S>, const KEYS: usize, const VECS: usize>(
        &mut self,
        s: S,
        keys: Panel<'_, K>,
    ) {
        scores::products::<S, K, A, KEYS, VECS>(s, keys, self.queries, self.weights, &self.stairs);
    }

    /// Adds `values` to the output, weighted.
    #[inline(always)]
    pub(super) fn accumulate<S: Isa, V: Storage, A: MulAdd<S>, const COLS: usize, const VECS: usize>(
        &mut self,
        s: S,
        values: Panel<'_, V>,
        hiding: Hiding,
    ) {
        let factor = self.sums.state.get(2 * S::LANES * VECS..).unwrap_or_default();
        let fresh = core::mem::replace(&mut self.fresh, false);
        let (weights, output) = (&*self.weights, &mut *self.sums.output);
        if hiding == Hiding::Marked {
            // Rare: a narrower tile is shorter code.
            values::accumulate::<S, V, A, 4, VECS, true>(
                s,
                values,
                weights,
                factor,
                output,
                fresh,
                &Stairs::NONE,
            );
        } else {
            values::accumulate::<S, V, A, COLS, VECS, false>(
                s,
                values,
                weights,
                factor,
                output,
                fresh,
                &self.stairs.together(A::DEPTH),
            );
        }
    }

    /// Lends weights and output to `add`, which adds to that in memory: rescaled, unless nothing has been added before, as it is told.
    #[inline(always)]
    pub(super) fn add_with<S: Isa, const VECS: usize>(
        &mut self,
        s: S,
        add: impl FnOnce(&[f32], &mut [f32], bool),
    ) {
        let factors = self.sums.state.get(2 * S::LANES * VECS..).unwrap_or_default();
        let fresh = core::mem::replace(&mut self.fresh, false);
        if !fresh {
            values::rescale::<S, VECS>(s, self.sums.output, factors);
        }
        add(self.weights, self.sums.output, fresh);
    }

    /// Multiplies its scores; what is left to multiply them by.
    #[inline(always)]
    fn scale<S: Isa, const VECS: usize>(&mut self, s: S, scale: f32) -> f32 {
        if scale != 1.0 {
            scores::scale::<S, VECS>(s, self.weights, self.keys.len(), scale);
        }
        1.0
    }

    /// Its scores, `VECS` vectors to a key, and the state of its rows.
    #[inline(always)]
    pub(super) fn scores_and_state<S: Isa, const VECS: usize>(&mut self) -> [&mut [f32]; 2] {
        let scores = self.weights.get_mut(..self.keys.len() * S::LANES * VECS).unwrap_or_default();
        [scores, self.sums.state]
    }

    #[inline(always)]
    fn modify<S: Isa, const VECS: usize>(
        &mut self,
        s: S,
        scoring: &Scoring<'_>,
        hiding: Hiding,
        inspection: &mut Inspection<'_>,
    ) {
        if hiding == Hiding::Nothing && scoring.is_plain() && inspection.is_none() {
            return;
        }
        let (rows, mut keys, row) = (self.rows.clone(), self.keys.clone(), S::LANES * VECS);
        let mut scores = self.weights.get_mut(..keys.len() * row).unwrap_or_default();
        if !SINGLE_TILE && inspection.is_none() {
            let modified = scoring.modified(&self.positions, &keys, hiding);
            let first = modified.start - keys.start;
            scores = scores.get_mut(first * row..(first + modified.len()) * row).unwrap_or_default();
            keys = modified;
        }
        modify::<S, VECS>(s, scores, scoring, rows, keys, hiding, inspection);
    }
}

/// The modifiers on a group's `[keys][VECS]` scores. Compiled once for each level.
#[inline(never)]
fn modify<S: Isa, const VECS: usize>(
    s: S,
    scores: &mut [f32],
    scoring: &Scoring<'_>,
    rows: Range<usize>,
    keys: Range<usize>,
    hiding: Hiding,
    inspection: &mut Inspection<'_>,
) {
    s.vectorize(
        #[inline(always)]
        || {
            for at in 0..VECS {
                let row = rows.start + at * S::LANES;
                let vectors = s.vectors_mut(scores);
                let mut block =
                    Block { vectors, width: VECS, at, lanes: Lanes::Rows, row, keys: keys.clone() };
                scoring.apply(s, &mut block, hiding, inspection);
            }
        },
    );
}
