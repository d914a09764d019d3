//! Products of bf16 by a matrix unit, an [`Arithmetic`] of the many-rows kernel (but for the scores of heads of fewer than 16, which are
//! [`Paired`]'s), laid out as in [`Paired`] but for
//!
//! | | |
//! |---|---|
//! | queries | zeros after them, to whole tiles of 16 pairs |
//! | keys | in place where the dimension is a multiple of 32 and the stride even; else copied, with zeros after each |
//! | weights | zeros after them, to whole tiles of 16 pairs |
//! | values | `[value_dim][key / 2]` pairs of neighbouring keys: transposed |
//!
//! The unit adds to the output in memory, so that is rescaled before, unless every factor is 1.

#![cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]

use core::ops::Range;

use super::arithmetic::{
    Arithmetic, Holds, Paired, Wide, add_marked, pair_neighbours, scale_scores, seen, whole,
};
use super::many::Group;
use super::{Rest, Steps};
use crate::ahead::lines_of;
use crate::element::Storage;
use crate::isa::{MAX_LANES, Pairs, Unit};
use crate::panel::Panel;
use crate::score::block::Hiding;

use half::bf16;
use half::slice::HalfFloatSliceExt;

/// Pairs of a row of a tile.
pub(super) const PAIRS: usize = 16;

/// In tiles of pairs of bf16.
#[derive(Clone, Copy)]
pub(super) struct Tiled<'u, S> {
    pub(super) pairs: Paired<S>,
    pub(super) unit: &'u Unit,
}

/// Pairs that a row of so many numbers takes, in whole tiles.
pub(super) fn tiles(numbers: usize) -> usize {
    numbers.div_ceil(2).next_multiple_of(PAIRS)
}

impl<S: Pairs> Arithmetic<S::Plain, bf16, bf16> for Tiled<'_, S> {
    const KEYS: usize = 2 * PAIRS;
    const TILED: bool = true;

    #[inline(always)]
    fn scales(scale: f32) -> (f32, f32) {
        <Paired<S> as Arithmetic<S::Plain, bf16, bf16>>::scales(scale)
    }

    #[inline(always)]
    fn prepare<const VECS: usize>(self, queries: &mut [f32], pairs: bool) {
        let row = S::LANES * VECS;
        let dim = queries.len() / row;
        Arithmetic::<_, bf16, bf16>::prepare::<VECS>(self.pairs, queries, pairs);
        // Where there is no room for whole tiles vectors multiply.
        queries.get_mut(dim.div_ceil(2) * row..tiles(dim) * row).unwrap_or_default().fill(0.0);
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
        let dim = keys.row(0).len();
        let length = tiles(dim);
        if length > dim {
            Arithmetic::score::<KEYS, VECS>(self.pairs, s, keys, start, groups, wide, scale);
            return;
        }
        let in_place = if dim.is_multiple_of(2 * PAIRS) { keys.pairs() } else { None };
        if let Some(keys) = in_place {
            self.multiply::<_, VECS>(groups, keys, start);
        } else {
            pair_neighbours(self.pairs.0, keys, wide, length);
            let Some(keys) = Panel::new(wide, length, keys.rows(), length) else { return };
            self.multiply::<_, VECS>(groups, keys, start);
        }
        scale_scores::<S::Plain, VECS>(s, groups, scale);
    }

    #[inline(always)]
    fn weigh<const VECS: usize>(self, s: S::Plain, group: &mut Group<'_>, hiding: Hiding, rest: f32) {
        Arithmetic::<_, bf16, bf16>::weigh::<VECS>(self.pairs, s, group, hiding, rest);
    }

    #[inline(always)]
    fn finish<E: Steps, const VECS: usize>(
        self,
        s: S::Plain,
        steps: &mut E,
        sums: [&[f32]; 2],
        rows: Range<usize>,
        rest: Rest<'_, '_>,
    ) {
        Arithmetic::<_, bf16, bf16>::finish::<E, VECS>(self.pairs, s, steps, sums, rows, rest);
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
        if hiding == Hiding::Marked {
            add_marked::<S::Plain, COLS, VECS>(s, values, first, group, wide);
            return;
        }
        let (dim, length) = (values.row(0).len(), tiles(values.rows()));
        if wide.holds != Holds::Pairs {
            transpose_pairs(self.pairs.0, values, wide.room, length);
            wide.holds = Holds::Pairs;
        }
        let (count, row) = (group.keys.len(), S::LANES * VECS);
        let rest = count.div_ceil(2) * row..tiles(count) * row;
        group.weights.get_mut(rest).unwrap_or_default().fill(0.0);
        let values = Panel::new(wide.room, length, dim, length);
        if let Some(values) = values.and_then(|values| values.narrow(first / 2, tiles(count))) {
            group.add_with::<S::Plain, VECS>(
                s,
                #[inline(always)]
                |weights, output, fresh| self.unit.multiply::<_, VECS>(values, weights, output, fresh),
            );
        }
    }
}

impl<S> Tiled<'_, S> {
    /// The scores of the groups that see something of a block that begins at `start`.
    #[inline(always)]
    fn multiply<T, const VECS: usize>(self, groups: &mut [Group<'_>], keys: Panel<'_, T>, start: usize) {
        for (group, keys) in seen(groups, keys, start) {
            self.unit.multiply::<_, VECS>(keys, group.queries, group.weights, true);
        }
    }
}

/// `wide[column][pair]`: the rows of a panel in pairs of neighbours, transposed, `length` pairs from column to column, with zeros
/// after them.
#[inline(never)]
fn transpose_pairs<S: Pairs>(s: S, panel: Panel<'_, bf16>, wide: &mut [f32], length: usize) {
    s.vectorize(
        #[inline(always)]
        || {
            let (rows, columns) = (panel.rows(), panel.row(0).len());
            // The next tile's, or the next block's first one.
            let mut ahead = panel.ahead(2 * PAIRS, 0);
            for (first, tile) in (0..rows).step_by(2 * PAIRS).zip(0..) {
                let numbers = panel.columns::<{ 2 * PAIRS }>(first);
                // What is left, columns or rows, is transposed by squares.
                let eights = if rows - first >= 2 * PAIRS { columns / 8 * 8 } else { 0 };
                for column in (0..eights).step_by(8) {
                    for _ in 0..lines_of::<bf16>(2 * PAIRS * 8) {
                        s.prefetch_near(ahead.advance(1));
                    }
                    let eight = s.transpose_eights(
                        #[inline(always)]
                        |row| numbers.get(row, column, 8).reinterpret_cast(),
                    );
                    for (index, from) in eight.into_iter().enumerate() {
                        let to = (column + index) * length + tile * PAIRS;
                        f32::store(s, from, wide.get_mut(to..).unwrap_or_default());
                    }
                }
                for column in (eights..columns).step_by(S::LANES) {
                    let width = S::LANES.min(columns - column);
                    for _ in 0..lines_of::<bf16>(2 * PAIRS * width) {
                        s.prefetch_near(ahead.advance(1));
                    }
                    let part = |row: usize| {
                        let numbers = if row < rows { panel.row(row) } else { &[] };
                        numbers.get(column..column + width).unwrap_or_default().reinterpret_cast()
                    };
                    let mut square = [s.zero(); MAX_LANES];
                    for (pair, to) in square.iter_mut().enumerate() {
                        let (row, [mut low, mut high]) = (first + 2 * pair, [[0; MAX_LANES]; 2]);
                        let low = whole(part(row), S::LANES, &mut low);
                        *to = s.zip_pairs(low, whole(part(row + 1), S::LANES, &mut high));
                    }
                    s.transpose(&mut square);
                    for (index, &from) in square.iter().enumerate().take(width) {
                        let to = (column + index) * length + tile * PAIRS;
                        f32::store(s, from, wide.get_mut(to..).unwrap_or_default());
                    }
                }
            }
        },
    );
}
