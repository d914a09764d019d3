//! The ends of the many-rows kernel, where rows lie in lanes: queries come in, and outputs go out, transposed square by square.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave squares in registers"
)]

use core::ops::Range;
use core::slice;

use super::Rest;
use super::softmax::Total;
use crate::element::{Storage, load_square, load_square_of_pairs, store_square, store_square_of_pairs};
use crate::isa::{Isa, MAX_LANES};
use crate::panel::{ColumnsMut, Rows, RowsMut};

/// Each of `to` with the one of `from` beside it, four to a round: a small core counts for as long as it computes.
#[inline(always)]
fn in_rounds<T, U>(to: &mut [T], from: &[U], mut each: impl FnMut(&mut T, &U)) {
    let (to, last_to) = to.as_chunks_mut::<4>();
    let (from, last_from) = from.as_chunks::<4>();
    for (to, from) in to.iter_mut().zip(from) {
        for i in 0..4 {
            each(&mut to[i], &from[i]);
        }
    }
    for (to, from) in last_to.iter_mut().zip(last_from) {
        each(to, from);
    }
}

/// The rows of Q from `first` on, scaled and transposed square by square. Compiled once for each level and type.
#[inline(never)]
pub(super) fn load_queries<S: Isa, Q: Storage, const VECS: usize>(
    s: S,
    from: &Rows<'_, Q>,
    first: usize,
    scale: f32,
    queries: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let scale = s.splat(scale);
            let queries = s.vectors_mut(queries).as_chunks_mut::<VECS>().0;
            for v in 0..VECS {
                if S::LANES == 1 {
                    // There is nothing to transpose.
                    in_rounds(
                        queries,
                        from.row(first + v),
                        #[inline(always)]
                        |to, from| to[v] = s.mul(scale, Q::load(s, slice::from_ref(from))),
                    );
                    continue;
                }
                let columns = from.columns(first + v * S::LANES, S::LANES);
                for (chunk, to) in queries.chunks_mut(S::LANES).enumerate() {
                    let mut square = load_square(s, &columns, chunk * S::LANES);
                    s.transpose(&mut square);
                    // Whole squares stay in registers.
                    if to.len() == S::LANES {
                        for column in 0..S::LANES {
                            to[column][v] = s.mul(scale, square[column]);
                        }
                    } else {
                        for (to, from) in to.iter_mut().zip(square) {
                            to[v] = s.mul(scale, from);
                        }
                    }
                }
            }
        },
    );
}

/// The rows of Q from `first` on as they are, in pairs of neighbours, transposed square by square. Compiled once for each level and type that
/// has pairs.
#[inline(never)]
pub(super) fn load_pairs<S: Isa, Q: Storage, const VECS: usize>(
    s: S,
    from: &Rows<'_, Q>,
    first: usize,
    queries: &mut [f32],
) {
    s.vectorize(
        #[inline(always)]
        || {
            let queries = s.vectors_mut(queries).as_chunks_mut::<VECS>().0;
            for v in 0..VECS {
                let columns = from.columns(first + v * S::LANES, S::LANES);
                let pairs = columns.left(0).div_ceil(2);
                let queries = queries.get_mut(..pairs).unwrap_or_default();
                for (chunk, to) in queries.chunks_mut(S::LANES).enumerate() {
                    let mut square = load_square_of_pairs(s, &columns, 2 * chunk * S::LANES);
                    s.transpose(&mut square);
                    // Whole squares stay in registers.
                    if to.len() == S::LANES {
                        for pair in 0..S::LANES {
                            to[pair][v] = square[pair];
                        }
                    } else {
                        for (to, from) in to.iter_mut().zip(square) {
                            to[v] = from;
                        }
                    }
                }
            }
        },
    );
}

/// Fetches what the next square is stored to, from column `first` on: from the second-level cache, at best, to which these lines have been
/// fetched before, stores take longer than all else here.
#[inline(always)]
fn fetch_square<S: Isa, O: Storage>(s: S, to: &mut ColumnsMut<'_, MAX_LANES, O>, first: usize) {
    if S::PREFETCHES && to.left(first) > 0 {
        for lane in 0..S::LANES {
            s.prefetch_near(to.get(lane, 0, 0).as_ptr().wrapping_add(first).cast());
        }
    }
}

/// Takes in the sinks, divides, and writes the rows `rows`. Compiled once for each level and type.
#[inline(never)]
pub(super) fn finish<S: Isa, O: Storage, const VECS: usize>(
    s: S,
    output: &[f32],
    state: &[f32],
    rows: Range<usize>,
    rest: Rest<'_, '_>,
    out: &mut RowsMut<'_, O>,
) {
    let Rest { place, sinks, reports } = rest;
    s.vectorize(
        #[inline(always)]
        || {
            let output = s.vectors(output).as_chunks::<VECS>().0;
            let state = s.vectors(state).as_chunks::<VECS>().0;
            let Some([maxima, sums, _]) = state.first_chunk::<3>() else { return };
            for v in 0..VECS {
                let first = rows.start + v * S::LANES;
                let lanes = rows.end.saturating_sub(first).min(S::LANES);
                let sinks = sinks.get().map(|sinks| {
                    let mut buffer = [0.0; MAX_LANES];
                    for (to, (head, _)) in buffer.iter_mut().zip(place.heads_and_positions(first)) {
                        *to = sinks.get(head).copied().unwrap_or(f32::NEG_INFINITY);
                    }
                    f32::load(s, &buffer)
                });
                let total = Total::new(s, maxima[v], sums[v], sinks);
                if S::LANES == 1 {
                    in_rounds(
                        out.row(first),
                        output,
                        #[inline(always)]
                        |to, from| O::store(s, total.normalise(s, from[v]), slice::from_mut(to)),
                    );
                    reports.report(s, first..first + lanes, &total);
                    continue;
                }
                let mut to = out.columns(first, S::LANES);
                if S::PAIRS && O::WIDENS {
                    // Narrowed first, they are half as many squares.
                    for (chunk, from) in output.chunks(2 * S::LANES).enumerate() {
                        let mut square = [s.zero(); MAX_LANES];
                        if from.len() == 2 * S::LANES {
                            for i in 0..S::LANES {
                                square[i] = total.pair::<O>(s, from[2 * i][v], from[2 * i + 1][v]);
                            }
                        } else {
                            let mut narrow = square;
                            for (to, from) in narrow.iter_mut().zip(from.chunks(2)) {
                                let high = from.get(1).map_or(s.zero(), |from| from[v]);
                                *to = from.first().map_or(s.zero(), |from| total.pair::<O>(s, from[v], high));
                            }
                            square = narrow;
                        }
                        fetch_square(s, &mut to, 2 * (chunk + 1) * S::LANES);
                        s.transpose(&mut square);
                        store_square_of_pairs(s, &square, &mut to, 2 * chunk * S::LANES);
                    }
                    reports.report(s, first..first + lanes, &total);
                    continue;
                }
                for (chunk, from) in output.chunks(S::LANES).enumerate() {
                    let mut square = [s.zero(); MAX_LANES];
                    if from.len() == S::LANES {
                        for column in 0..S::LANES {
                            square[column] = total.normalise(s, from[column][v]);
                        }
                    } else {
                        // Apart, so that whole squares stay in registers.
                        let mut narrow = square;
                        for (to, from) in narrow.iter_mut().zip(from) {
                            *to = total.normalise(s, from[v]);
                        }
                        square = narrow;
                    }
                    fetch_square(s, &mut to, (chunk + 1) * S::LANES);
                    s.transpose(&mut square);
                    store_square(s, &square, &mut to, chunk * S::LANES);
                }
                reports.report(s, first..first + lanes, &total);
            }
        },
    );
}
