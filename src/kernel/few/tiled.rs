//! Products of bf16 by a matrix unit, an [`Arithmetic`] of the few-rows kernel.
//!
//! | | |
//! |---|---|
//! | queries | of a head `[head_dim / 2][columns]` pairs of neighbours, zeros after them to whole tiles of 16 pairs |
//! | keys | in place where the dimension is a multiple of 32 and the stride even; else, and past whole tiles of 16 keys, copied |
//! | scores | tiles of 16 keys × `columns`, those of neighbouring keys beside each other, so that they fill squares, which are transposed; times the scale |
//! | weights | pairs of neighbouring keys, rounded, in the room of their row's first half; zeros after them to whole tiles of 16 pairs |
//! | values | in place, strips of 64 columns, of which the last may begin in the one before; pairs are made of them tile by tile |
//!
//! `columns` are the rows of a head, rounded up to a power of two.

#![cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    allow(dead_code, reason = "no level of these targets has products of bf16")
)]
#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave squares in registers"
)]

use half::bf16;

use super::{Addition, Arithmetic, Source};
use crate::ahead::{Ahead, lines_of};
use crate::isa::{Isa, MAX_LANES, Pairs, STRIP};
use crate::kernel::Steps;
use crate::kernel::arithmetic::{pair_neighbours, pair_rows};
use crate::kernel::softmax::MARK;
use crate::kernel::tiled::{PAIRS, Tiled, tiles};
use crate::panel::Panel;
use crate::place::{Heads, Place};
use crate::score::block::Hiding;
use crate::tiling::{Tile, padded};

/// Numbers of a square that scores are transposed in.
const SQUARE: usize = PAIRS * PAIRS;
type Square = [f32; SQUARE];

/// So many keys ahead values are fetched that come from memory.
const AHEAD: usize = 64;

/// Columns of a tile for so many rows.
fn columns(rows: usize) -> usize {
    rows.next_power_of_two().max(2)
}

impl<S: Pairs> Arithmetic<S::Plain, bf16, bf16> for Tiled<'_, S> {
    const KEYS: usize = 2 * PAIRS;
    const FETCHES: bool = false;

    fn load<E: Steps>(
        self,
        s: S::Plain,
        steps: &mut E,
        place: &Place,
        dim: usize,
        // Scores are scaled.
        _: f32,
        [queries, room]: [&mut [f32]; 2],
    ) {
        let columns = columns(place.count);
        let Some(rows) = room.get_mut(..dim * S::LANES) else { return };
        let heads = queries.chunks_exact_mut(tiles(dim) * columns).take(place.heads.count());
        for (head, queries) in heads.enumerate() {
            let first = head * place.count;
            if !steps.load_pairs::<S::Plain, 1>(s, first, rows) {
                steps.load::<S::Plain, 1>(s, first, 1.0, rows);
                pair_rows::<S, 1>(self.pairs.0, rows);
            }
            queries.fill(0.0);
            let pairs = rows.chunks_exact(S::LANES).take(dim.div_ceil(2));
            for (from, to) in pairs.zip(queries.chunks_exact_mut(columns)) {
                // Short ones, for which a call takes longer.
                for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from.as_chunks::<2>().0) {
                    *to = *from;
                }
            }
        }
    }

    fn score(
        self,
        s: S::Plain,
        (keys, heads): (Panel<'_, bf16>, Heads),
        [queries, scores, room]: [&mut [f32]; 3],
        rows: usize,
        scale: f32,
        mut ahead: Option<Ahead>,
    ) {
        let (dim, count) = (heads.share(keys.row(0).len()), heads.share(rows));
        let (columns, length) = (columns(count), tiles(dim));
        let square_keys = SQUARE / columns;
        let Some((squares, room)) = room.split_first_chunk_mut::<{ 2 * SQUARE }>() else { return };
        let (square, other) = squares.split_at_mut(SQUARE);
        let (Some(mut square), Some(mut other)) = (square.first_chunk_mut(), other.first_chunk_mut()) else {
            return;
        };
        let row = Tile::of(S::LEVEL).few_block;
        let mut lie = |square: &Square, (head, start): (usize, usize)| {
            let scores = scores.get_mut(head * count * row + start..).unwrap_or_default();
            lie_by_row(s, square, columns, count, scale, scores);
        };
        // Tiles are stored late: the square that is transposed is the one before.
        let mut before = None;
        for start in (0..keys.rows()).step_by(square_keys) {
            for (head, queries) in queries.chunks_exact(length * columns).take(heads.count()).enumerate() {
                let Some(keys) = keys.narrow(head * dim, dim) else { return };
                let Some(keys) = keys.part(start, square_keys.min(keys.rows() - start)) else { return };
                let in_place = if dim.is_multiple_of(2 * PAIRS) { keys.pairs() } else { None };
                let whole = in_place.and_then(|keys| keys.part(0, keys.rows() / S::LANES * S::LANES));
                if let Some(keys) = whole {
                    self.unit.score((count, columns), keys, queries, square);
                }
                for first in (whole.map_or(0, |keys| keys.rows())..keys.rows()).step_by(S::LANES) {
                    let square = square.get_mut(first / S::LANES * columns..).unwrap_or_default();
                    let Some(keys) = keys.part(first, S::LANES.min(keys.rows() - first)) else { return };
                    // What is left there from before comes to scores past the last key.
                    pair_neighbours(self.pairs.0, keys, room, length);
                    if let Some(keys) = Panel::new(room, length, S::LANES, length) {
                        self.unit.score((count, columns), keys, queries, square);
                    }
                }
                if let Some(ahead) = &mut ahead {
                    for _ in 0..square_keys * lines_of::<bf16>(dim) {
                        s.prefetch(ahead.advance(1));
                    }
                }
                if let Some(place) = before.replace((head, start)) {
                    lie(other, place);
                }
                core::mem::swap(&mut square, &mut other);
            }
        }
        if let Some(place) = before {
            lie(other, place);
        }
    }

    fn add(
        self,
        s: S::Plain,
        (values, heads): (Panel<'_, bf16>, Heads),
        [weights, output, room]: [&mut [f32]; 3],
        factors: &[f32],
        Addition { hiding, source, .. }: Addition<'_>,
    ) {
        let length = Tile::of(S::LEVEL).few_block;
        let (dim, count) = (heads.share(values.row(0).len()), heads.share(factors.len()));
        let (width, pairs) = (padded(dim, S::LANES), tiles(values.rows()));
        let weights = weights.get_mut(..factors.len() * length).unwrap_or_default();
        if hiding != Hiding::Marked {
            narrow(self.pairs.0, weights, length, values.rows());
        }
        let ahead = if let Source::Memory(..) = source { AHEAD } else { 0 };
        let Some(sums) = room.as_chunks_mut::<STRIP>().0.get_mut(..count) else { return };
        for head in 0..heads.count() {
            let row = head * count;
            let values = values.narrow(head * dim, dim);
            let weights = weights.get(row * length..).unwrap_or_default();
            let pairs = Panel::new(weights, length, count, pairs);
            let (Some(values), Some(pairs)) = (values, pairs) else { return };
            let output = output.get_mut(row * width..(row + count) * width).unwrap_or_default();
            let factors = factors.get(row..row + count).unwrap_or_default();
            for column in (0..dim).step_by(STRIP) {
                let first = column.min(dim.saturating_sub(STRIP));
                let Some(values) = values.narrow(first, STRIP) else { return };
                if hiding == Hiding::Marked {
                    for (sums, weights) in sums.iter_mut().zip(weights.chunks_exact(length)) {
                        *sums = self.marked(weights, values);
                    }
                } else {
                    self.unit.weigh(columns(count), pairs, values, sums, ahead);
                }
                take_in(s, sums, column - first, factors, output, (width, column));
            }
        }
    }
}

impl<S: Pairs> Tiled<'_, S> {
    /// A row's sums of a strip, without the marked keys: to the bit what the unit comes to where their values are finite.
    fn marked(self, weights: &[f32], values: Panel<'_, bf16>) -> [f32; STRIP] {
        const KEYS: usize = 2 * PAIRS;
        let mut sums = [0.0; STRIP];
        for first in (0..values.rows()).step_by(KEYS) {
            let (mut seen, mut pairs) = ([[bf16::ZERO; STRIP]; KEYS], [0.0; KEYS]);
            let keys = first..values.rows().min(first + KEYS);
            let weights = weights.get(keys.clone()).unwrap_or_default();
            for ((key, &weight), (values_seen, to)) in keys.zip(weights).zip(seen.iter_mut().zip(&mut pairs))
            {
                if weight != MARK {
                    *to = weight;
                    values_seen.copy_from_slice(values.row(key));
                }
            }
            narrow(self.pairs.0, &mut pairs, KEYS, KEYS);
            let panels =
                Panel::new(&pairs, PAIRS, 1, PAIRS).zip(Panel::new(seen.as_flattened(), STRIP, KEYS, STRIP));
            let Some((pairs, seen)) = panels else { return sums };
            let mut more = [[0.0; STRIP]];
            self.unit.weigh(columns(1), pairs, seen, &mut more, 0);
            for (sum, more) in sums.iter_mut().zip(more.as_flattened()) {
                *sum += more;
                // As the unit does.
                if sum.abs() < f32::MIN_POSITIVE {
                    *sum = 0.0;
                }
            }
        }
        sums
    }
}

/// Scores of `count` rows from a square of tiles of `columns`, times `scale`, to `[row][block]`.
#[inline(never)]
fn lie_by_row<S: Isa>(s: S, square: &Square, columns: usize, count: usize, scale: f32, scores: &mut [f32]) {
    s.vectorize(
        #[inline(always)]
        || match columns {
            2 => lie_by::<S, 2>(s, square, count, scale, scores),
            4 => lie_by::<S, 4>(s, square, count, scale, scores),
            8 => lie_by::<S, 8>(s, square, count, scale, scores),
            _ => lie_by::<S, 16>(s, square, count, scale, scores),
        },
    );
}

#[inline(always)]
fn lie_by<S: Isa, const COLUMNS: usize>(s: S, square: &Square, count: usize, scale: f32, scores: &mut [f32]) {
    let Some(lines) = s.vectors(square).first_chunk::<MAX_LANES>() else { return };
    let mut lines: [S::F; MAX_LANES] = core::array::from_fn(|line| lines[line]);
    s.transpose(&mut lines);
    let scale = s.splat(scale);
    for row in 0..COLUMNS.min(count) {
        let scores = scores.get_mut(row * Tile::of(S::LEVEL).few_block..).unwrap_or_default();
        let Some(scores) = s.vectors_mut(scores).get_mut(..MAX_LANES / COLUMNS) else { return };
        for tile in 0..MAX_LANES / COLUMNS {
            scores[tile] = s.mul(lines[tile * COLUMNS + row], scale);
        }
    }
}

/// Rows of weights, `length` apart, become pairs of neighbours, in the room of the first half of each, of `count` keys.
#[inline(never)]
fn narrow<S: Pairs>(s: S, weights: &mut [f32], length: usize, count: usize) {
    s.vectorize(
        #[inline(always)]
        || {
            for weights in weights.chunks_exact_mut(length) {
                for past in weights.get_mut(count..2 * tiles(count)).unwrap_or_default() {
                    *past = 0.0;
                }
                let weights = s.vectors_mut(weights);
                for pair in 0..tiles(count) / PAIRS {
                    let Some(&[low, high]) = weights.get(2 * pair..).and_then(|rest| rest.first_chunk())
                    else {
                        return;
                    };
                    if let Some(to) = weights.get_mut(pair) {
                        *to = s.narrow_pairs(low, high);
                    }
                }
            }
        },
    );
}

/// `output[row][column..] = factors[row] · output[row][column..] + sums[row][skip..]`, rows of `width`.
#[inline(never)]
fn take_in<S: Isa>(
    s: S,
    sums: &[[f32; STRIP]],
    skip: usize,
    factors: &[f32],
    output: &mut [f32],
    (width, column): (usize, usize),
) {
    s.vectorize(
        #[inline(always)]
        || {
            for ((output, sums), &factor) in output.chunks_exact_mut(width).zip(sums).zip(factors) {
                let factor = s.splat(factor);
                let sums = s.vectors(sums.get(skip..).unwrap_or_default());
                let output = s.vectors_mut(output.get_mut(column..).unwrap_or_default());
                for (output, &sum) in output.iter_mut().zip(sums) {
                    *output = s.mul_add(*output, factor, sum);
                }
            }
        },
    );
}
