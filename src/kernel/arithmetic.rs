//! How the many-rows kernel multiplies: numbers widened to f32, or pairs of bf16 by the instruction for them.
//!
//! | | f32 ([`Single`]) | pairs of bf16 ([`Paired`]) |
//! |---|---|---|
//! | queries | `[head_dim][VECS]`, scaled | `[head_dim / 2][VECS]` pairs of neighbours, as they are or scaled by a power of two |
//! | keys | in place, or widened | `[key][head_dim / 2]` pairs of neighbours: in place, or copied where the dimension or the stride is odd |
//! | scores | as they are summed | times the rest of the scale |
//! | weights | `[key][VECS]` | `[key / 2][VECS]` pairs of neighbours, rounded |
//! | values | in place, or widened | `[key / 2][value_dim]` pairs of neighbouring keys |
//!
//! The tiles are the same, as are maximum, sum and output, which are f32. What is left over at an odd end pairs with 0.

#![cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]

use core::ops::Range;

use super::many::Group;
use super::{Rest, Steps, scores, softmax};
use crate::element::{Storage, store_part};
use crate::isa::{Isa, MAX_LANES, Pairs};
use crate::panel::Panel;
use crate::score::block::Hiding;
use crate::tiling::in_place;

use half::bf16;
use half::slice::HalfFloatSliceExt;

/// What the tiles do with a factor, a vector and a vector of sums.
pub(super) trait MulAdd<S: Isa> {
    /// Numbers of a lane that are multiplied together: neighbouring columns, or keys.
    const DEPTH: usize;

    /// `c` and the product, or the two products, of `a` and `b`.
    fn mul_add(s: S, a: S::F, b: S::F, c: S::F) -> S::F;
}

/// The steps of the many-rows kernel that depend on the arithmetic.
pub(super) trait Arithmetic<S: Isa, K, V>: Copy {
    /// Keys that go together: what a group sees of a block begins and ends at multiples, but for the block's end.
    const KEYS: usize;
    /// Whether numbers are rounded to be multiplied: then what is computed again in f32 has other bits, and the scale may come after
    /// the products.
    const ROUNDS: bool = Self::KEYS > 1;

    /// Whether a matrix unit multiplies.
    const TILED: bool = false;

    /// The factor of the queries as they are loaded, and the one of the scores.
    fn scales(scale: f32) -> (f32, f32);

    /// Prepares the queries, `[head_dim][VECS]` vectors, or pairs already.
    fn prepare<const VECS: usize>(self, queries: &mut [f32], pairs: bool);

    /// The scores of a block's keys, which begin at `start`, times `scale`.
    fn score<const KEYS: usize, const VECS: usize>(
        self,
        s: S,
        keys: Panel<'_, K>,
        start: usize,
        groups: &mut [Group<'_>],
        wide: &mut [f32],
        scale: f32,
    );

    /// The softmax of a group's scores, times what is left of their scale: `rest`, positive and at most 1.
    fn weigh<const VECS: usize>(self, s: S, group: &mut Group<'_>, hiding: Hiding, rest: f32);

    /// Writes rows of the output: see [`Steps::finish`].
    #[inline(always)]
    fn finish<E: Steps, const VECS: usize>(
        self,
        s: S,
        steps: &mut E,
        sums: [&[f32]; 2],
        rows: Range<usize>,
        rest: Rest<'_, '_>,
    ) {
        let [output, state] = sums;
        steps.finish::<S, VECS>(s, output, state, rows, rest);
    }

    /// Adds a block's values, weighted, to the output of a group, whose keys begin with the value `first`.
    fn add<const COLS: usize, const VECS: usize>(
        self,
        s: S,
        values: Panel<'_, V>,
        first: usize,
        group: &mut Group<'_>,
        hiding: Hiding,
        wide: &mut Wide<'_>,
    );
}

/// Room for a block of values, and what it holds.
pub(super) struct Wide<'a> {
    pub(super) room: &'a mut [f32],
    pub(super) holds: Holds,
}

/// What [`Wide`] holds of the block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Something else.
    Nothing,
    /// The values, widened.
    Single,
    /// Pairs of them, as the arithmetic wants them.
    Pairs,
}

/// In f32.
#[derive(Clone, Copy)]
pub(super) struct Single;

impl<S: Isa> MulAdd<S> for Single {
    const DEPTH: usize = 1;

    #[inline(always)]
    fn mul_add(s: S, a: S::F, b: S::F, c: S::F) -> S::F {
        s.mul_add(a, b, c)
    }
}

impl<S: Isa, K: Storage, V: Storage> Arithmetic<S, K, V> for Single {
    const KEYS: usize = 1;

    #[inline(always)]
    fn scales(scale: f32) -> (f32, f32) {
        (scale, 1.0)
    }

    #[inline(always)]
    fn prepare<const VECS: usize>(self, _: &mut [f32], _: bool) {}

    #[inline(always)]
    fn score<const KEYS: usize, const VECS: usize>(
        self,
        s: S,
        keys: Panel<'_, K>,
        start: usize,
        groups: &mut [Group<'_>],
        wide: &mut [f32],
        _: f32,
    ) {
        if in_place(S::LEVEL) {
            for (group, keys) in seen(groups, keys, start) {
                group.multiply::<S, K, Self, KEYS, VECS>(s, keys);
            }
        } else if let Some(keys) = K::widen(s, keys, wide) {
            for (group, keys) in seen(groups, keys, start) {
                group.multiply::<S, f32, Self, KEYS, VECS>(s, keys);
            }
        }
    }

    #[inline(always)]
    fn weigh<const VECS: usize>(self, s: S, group: &mut Group<'_>, hiding: Hiding, _: f32) {
        let [scores, state] = group.scores_and_state::<S, VECS>();
        softmax::update::<S, VECS>(s, scores, state, hiding);
    }

    #[inline(always)]
    fn add<const COLS: usize, const VECS: usize>(
        self,
        s: S,
        values: Panel<'_, V>,
        first: usize,
        group: &mut Group<'_>,
        hiding: Hiding,
        wide: &mut Wide<'_>,
    ) {
        if in_place(S::LEVEL) {
            if let Some(values) = values.part(first, group.keys.len()) {
                group.accumulate::<S, V, Self, COLS, VECS>(s, values, hiding);
            }
        } else if let Some(values) =
            widened(s, values, wide).and_then(|values| values.part(first, group.keys.len()))
        {
            group.accumulate::<S, f32, Self, COLS, VECS>(s, values, hiding);
        }
    }
}

/// In pairs of bf16, where keys and values are stored as such.
#[derive(Clone, Copy)]
pub(super) struct Paired<S>(pub(super) S);

impl<S: Pairs> MulAdd<S> for Paired<S> {
    const DEPTH: usize = 2;

    #[inline(always)]
    fn mul_add(s: S, a: S::F, b: S::F, c: S::F) -> S::F {
        s.dot(a, b, c)
    }
}

impl<S: Pairs> Arithmetic<S::Plain, bf16, bf16> for Paired<S> {
    const KEYS: usize = 2;

    /// Queries times a power of two are as exact as before.
    #[inline(always)]
    fn scales(scale: f32) -> (f32, f32) {
        const FRACTION: u32 = (1 << 23) - 1;
        if scale.to_bits() & FRACTION == 0 { (scale, 1.0) } else { (1.0, scale) }
    }

    #[inline(always)]
    fn prepare<const VECS: usize>(self, queries: &mut [f32], pairs: bool) {
        if !pairs {
            pair_rows::<S, VECS>(self.0, queries);
        }
    }

    #[inline(always)]
    fn score<const KEYS: usize, const VECS: usize>(
        self,
        s: S::Plain,
        keys: Panel<'_, bf16>,
        start: usize,
        groups: &mut [Group<'_>],
        wide: &mut [f32],
        scale: f32,
    ) {
        if let Some(keys) = keys.pairs() {
            for (group, keys) in seen(groups, keys, start) {
                group.multiply::<S, _, Self, KEYS, VECS>(self.0, keys);
            }
        } else {
            let pairs = keys.row(0).len().div_ceil(2);
            pair_neighbours(self.0, keys, wide, pairs);
            let Some(keys) = Panel::new(wide, pairs, keys.rows(), pairs) else { return };
            for (group, keys) in seen(groups, keys, start) {
                group.multiply::<S, _, Self, KEYS, VECS>(self.0, keys);
            }
        }
        scale_scores::<S::Plain, VECS>(s, groups, scale);
    }

    /// To pairs of neighbouring keys, but where marks are of single keys.
    #[inline(always)]
    fn weigh<const VECS: usize>(self, s: S::Plain, group: &mut Group<'_>, hiding: Hiding, rest: f32) {
        let [scores, state] = group.scores_and_state::<S, VECS>();
        if hiding == Hiding::Marked {
            softmax::update::<S::Plain, VECS>(s, scores, state, hiding);
        } else {
            softmax::update_pairs::<S, VECS>(self.0, scores, state, rest);
        }
    }

    /// With pairs, which are narrowed by an instruction then.
    #[inline(always)]
    fn finish<E: Steps, const VECS: usize>(
        self,
        _: S::Plain,
        steps: &mut E,
        [output, state]: [&[f32]; 2],
        rows: Range<usize>,
        rest: Rest<'_, '_>,
    ) {
        steps.finish::<S, VECS>(self.0, output, state, rows, rest);
    }

    #[inline(always)]
    fn add<const COLS: usize, const VECS: usize>(
        self,
        s: S::Plain,
        values: Panel<'_, bf16>,
        first: usize,
        group: &mut Group<'_>,
        hiding: Hiding,
        wide: &mut Wide<'_>,
    ) {
        let count = group.keys.len();
        if hiding == Hiding::Marked {
            add_marked::<S::Plain, COLS, VECS>(s, values, first, group, wide);
            return;
        }
        if wide.holds != Holds::Pairs {
            pair_keys(self.0, values, wide.room);
            wide.holds = Holds::Pairs;
        }
        let dim = values.row(0).len();
        let values = Panel::new(wide.room, dim, values.rows().div_ceil(2), dim);
        if let Some(values) = values.and_then(|values| values.part(first / 2, count.div_ceil(2))) {
            group.accumulate::<S, f32, Self, COLS, VECS>(self.0, values, hiding);
        }
    }
}

/// The groups that see something of a block that begins at `start`, each with its part of a panel.
#[inline(always)]
pub(super) fn seen<'g, 'k, T>(
    groups: &'g mut [Group<'k>],
    panel: Panel<'g, T>,
    start: usize,
) -> impl Iterator<Item = (&'g mut Group<'k>, Panel<'g, T>)> {
    groups.iter_mut().filter(|group| !group.keys.is_empty()).filter_map(
        #[inline(always)]
        move |group| {
            let keys = panel.part(group.keys.start - start, group.keys.len())?;
            Some((group, keys))
        },
    )
}

/// What is left of the scale.
#[inline(always)]
pub(super) fn scale_scores<S: Isa, const VECS: usize>(s: S, groups: &mut [Group<'_>], scale: f32) {
    for group in groups.iter_mut().filter(|group| scale != 1.0 && !group.keys.is_empty()) {
        scores::scale::<S, VECS>(s, group.weights, group.keys.len(), scale);
    }
}

/// [`Arithmetic::add`] in f32, since marks are of single keys.
#[inline(always)]
pub(super) fn add_marked<S: Isa, const COLS: usize, const VECS: usize>(
    s: S,
    values: Panel<'_, bf16>,
    first: usize,
    group: &mut Group<'_>,
    wide: &mut Wide<'_>,
) {
    if let Some(values) = widened(s, values, wide).and_then(|values| values.part(first, group.keys.len())) {
        group.accumulate::<S, f32, Single, COLS, VECS>(s, values, Hiding::Marked);
    }
}

/// The values as f32, in place or in the room for them.
#[inline(always)]
fn widened<'w, S: Isa, V: Storage>(s: S, values: Panel<'w, V>, wide: &'w mut Wide<'_>) -> Option<Panel<'w>> {
    let (rows, dim) = (values.rows(), values.row(0).len());
    if V::WIDENS && wide.holds == Holds::Single {
        return Panel::new(wide.room, dim, rows, dim);
    }
    wide.holds = Holds::Single;
    V::widen(s, values, wide.room)
}

/// Rows of `VECS` vectors become half as many rows of pairs of neighbours, in the room of the first ones.
/// Compiled once for each level.
#[inline(never)]
pub(super) fn pair_rows<S: Pairs, const VECS: usize>(s: S, rows: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || {
            let rows = s.vectors_mut(rows).as_chunks_mut::<VECS>().0;
            for index in 0..rows.len().div_ceil(2) {
                let Some(&low) = rows.get(2 * index) else { return };
                let high = rows.get(2 * index + 1).copied().unwrap_or([s.zero(); VECS]);
                let Some(to) = rows.get_mut(index) else { return };
                for v in 0..VECS {
                    to[v] = s.pair_bf16(low[v], high[v]);
                }
            }
        },
    );
}

/// `wide[row][pair]`: the columns of a panel in pairs of neighbours, in rows of `length`, with zeros after them.
#[inline(never)]
pub(super) fn pair_neighbours<S: Pairs>(s: S, panel: Panel<'_, bf16>, wide: &mut [f32], length: usize) {
    s.vectorize(
        #[inline(always)]
        || {
            let pairs = panel.row(0).len().div_ceil(2);
            for (from, to) in panel.iter().zip(wide.chunks_exact_mut(length)) {
                let (to, rest) = to.split_at_mut_checked(pairs).unwrap_or_default();
                rest.fill(0.0);
                for (from, to) in from.reinterpret_cast().chunks(2 * S::LANES).zip(to.chunks_mut(S::LANES)) {
                    let mut buffer = [0; 2 * MAX_LANES];
                    store_part(s, s.load_pairs(whole(from, 2 * S::LANES, &mut buffer)), to);
                }
            }
        },
    );
}

/// `wide[pair][column]`: the rows of a panel in pairs of neighbours.
#[inline(never)]
fn pair_keys<S: Pairs>(s: S, panel: Panel<'_, bf16>, wide: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || {
            let dim = panel.row(0).len();
            for (pair, to) in wide.chunks_exact_mut(dim).take(panel.rows().div_ceil(2)).enumerate() {
                let alone = 2 * pair + 1 == panel.rows();
                panel.columns::<2>(2 * pair).each_chunk(
                    S::LANES,
                    #[inline(always)]
                    |index, [low, high]| {
                        let to = to.get_mut(index * S::LANES..).unwrap_or_default();
                        if low.len() == S::LANES && !alone {
                            f32::store(s, s.zip_pairs(low.reinterpret_cast(), high.reinterpret_cast()), to);
                            return;
                        }
                        let (mut first, mut second) = ([0; MAX_LANES], [0; MAX_LANES]);
                        let low = whole(low.reinterpret_cast(), S::LANES, &mut first);
                        let high = if alone { &[] } else { high.reinterpret_cast() };
                        store_part(s, s.zip_pairs(low, whole(high, S::LANES, &mut second)), to);
                    },
                );
            }
        },
    );
}

/// `count` numbers: those of `from`, with zeros after them where there are fewer.
#[inline(always)]
pub(super) fn whole<'a>(from: &'a [u16], count: usize, buffer: &'a mut [u16]) -> &'a [u16] {
    if from.len() >= count {
        return from;
    }
    for (to, &x) in buffer.iter_mut().zip(from) {
        *to = x;
    }
    buffer
}
