//! The score pass of the few-rows kernel: for `KEYS` keys at a time,
//! `acc[key][row] += K[key][j..] · Q[row][j..]`, vectors, which are reduced `LANES` at a time.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave tiles in registers"
)]

use super::{fetch, step, together};
use crate::ahead::Ahead;
use crate::element::{Storage, load_part};
use crate::isa::{Isa, MAX_LANES};
use crate::panel::Panel;
use crate::place::Heads;
use crate::tiling::{FEW_TOGETHER, Tile};

/// Sums that [`dot`] holds at a time: a vector of them or, where vectors are short, a tile's.
const SUMS: usize = {
    let tile = FEW_TOGETHER * 4;
    if tile > MAX_LANES { tile } else { MAX_LANES }
};

/// `scores[row][key] = q·k` for all rows and the keys of a panel of so many heads; the lanes past its last key get some number.
/// Several heads take some keys at a time.
#[inline(never)]
pub(super) fn products<S: Isa, K: Storage>(
    s: S,
    (keys, heads): (Panel<'_, K>, Heads),
    queries: &[f32],
    scores: &mut [f32],
    rows: usize,
    mut ahead: Option<Ahead>,
) {
    let length = Tile::of(S::LEVEL).few_block;
    let (dim, count) = (heads.share(keys.row(0).len()), heads.share(rows));
    let vectors = dim.div_ceil(S::LANES);
    let step = if heads.count() > 1 { step::<K>(S::LEVEL) } else { keys.rows() };
    let mut start = 0;
    while let Some(keys) = keys.part(start, step.min(keys.rows().saturating_sub(start))) {
        for head in 0..heads.count() {
            let Some(keys) = keys.narrow(head * dim, dim) else { return };
            // The first rows of a head fetch for all.
            let mut ahead = ahead.as_mut().filter(|_| S::PREFETCHES);
            for (first, rows) in together(count) {
                let first = head * count + first;
                let queries = s.vectors(queries).get(first * vectors..).unwrap_or_default();
                let scores = scores.get_mut(first * length..).unwrap_or_default();
                let ahead = ahead.take();
                s.vectorize(
                    #[inline(always)]
                    || match ahead {
                        Some(ahead) => {
                            *ahead = dots::<S, K, true>(s, keys, queries, (scores, start), rows, *ahead)
                        }
                        None => {
                            dots::<S, K, false>(s, keys, queries, (scores, start), rows, Ahead::default());
                        }
                    },
                );
            }
        }
        start += step;
    }
}

/// [`dot`] for rows that go together, with the key that the scores of a row begin with.
#[inline(always)]
fn dots<S: Isa, K: Storage, const FAR: bool>(
    s: S,
    keys: Panel<'_, K>,
    queries: &[S::F],
    scores: (&mut [f32], usize),
    rows: usize,
    ahead: Ahead,
) -> Ahead {
    let tile = Tile::of(S::LEVEL);
    match rows {
        1 => dot::<S, K, 1, 4, FAR>(s, keys, queries, scores, ahead),
        2 if tile.few_sums() < 8 => dot::<S, K, 2, 2, FAR>(s, keys, queries, scores, ahead),
        2 => dot::<S, K, 2, 4, FAR>(s, keys, queries, scores, ahead),
        FEW_TOGETHER if tile.few_rows < FEW_TOGETHER => ahead,
        FEW_TOGETHER if tile.few_sums() < 16 => {
            dot::<S, K, FEW_TOGETHER, 2, FAR>(s, keys, queries, scores, ahead)
        }
        FEW_TOGETHER => dot::<S, K, FEW_TOGETHER, 4, FAR>(s, keys, queries, scores, ahead),
        _ if tile.few_sums() < 12 => dot::<S, K, 3, 2, FAR>(s, keys, queries, scores, ahead),
        _ => dot::<S, K, 3, 4, FAR>(s, keys, queries, scores, ahead),
    }
}

/// For `ROWS` rows that go together, `KEYS` keys at a time: vectors of sums, reduced when there are `LANES` of them. Gives what is
/// fetched next.
#[inline(always)]
fn dot<S: Isa, K: Storage, const ROWS: usize, const KEYS: usize, const FAR: bool>(
    s: S,
    keys: Panel<'_, K>,
    queries: &[S::F],
    (scores, start): (&mut [f32], usize),
    mut ahead: Ahead,
) -> Ahead {
    let length = Tile::of(S::LEVEL).few_block;
    let queries = queries.as_chunks::<ROWS>().0;
    let tiles = (S::LANES / (ROWS * KEYS)).max(1);
    let mut key = 0;
    while key < keys.rows() {
        let mut sums = [s.zero(); SUMS];
        for tile in 0..tiles {
            let mut products = [[s.zero(); ROWS]; KEYS];
            let first = key + tile * KEYS;
            let columns = if FAR { keys.columns::<KEYS>(first) } else { keys.few_columns::<KEYS>(first) };
            columns.each_chunk(
                S::LANES,
                #[inline(always)]
                |vector, keys| {
                    let Some(query) = queries.get(vector) else { return };
                    if FAR {
                        fetch::<S, K>(s, &mut ahead, KEYS);
                    }
                    for k in 0..KEYS {
                        let from = load_part(s, keys[k]);
                        for r in 0..ROWS {
                            products[k][r] = s.mul_add(from, query[r], products[k][r]);
                        }
                    }
                },
            );
            for k in 0..KEYS {
                for r in 0..ROWS {
                    sums[(r * tiles + tile) * KEYS + k] = products[k][r];
                }
            }
        }
        let mut buffer = [0.0; SUMS];
        for (sums, to) in sums.chunks_exact_mut(S::LANES).zip(s.vectors_mut(&mut buffer)) {
            *to = s.sum_each(sums);
        }
        for (from, to) in buffer.chunks_exact(tiles * KEYS).zip(scores.chunks_exact_mut(length)).take(ROWS) {
            if let Some(to) = to.get_mut(start + key..).and_then(|to| to.get_mut(..tiles * KEYS)) {
                to.copy_from_slice(from);
            }
        }
        key += tiles * KEYS;
    }
    ahead
}
