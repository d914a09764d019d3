//! The value pass of the few-rows kernel, strip by strip of columns: `acc[row][c] += splat(P[row][key]) · V[key][c]` for all
//! keys, then `O[row][c] = f O[row][c] + acc[row][c]`.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave tiles in registers"
)]

use super::{fetch, step, together};
use crate::ahead::{Ahead, LINE};
use crate::element::{Storage, load_part};
use crate::isa::Isa;
use crate::panel::Panel;
use crate::place::Heads;
use crate::score::block::Hiding;
use crate::tiling::{FEW_TOGETHER, Tile, padded};

/// Where values are taken to lie, and so how they are fetched.
pub(in crate::kernel) enum Source<'a> {
    NearCache,
    /// Fetched ahead into the second-level cache.
    SharedCache(Ahead),
    /// Also some keys at a time, whose rows, if of one head, are fetched into the nearest cache in the order of their addresses:
    /// strips alone read parts of rows, which no core's own prefetchers follow. What the block adds up to is kept in the slice,
    /// as long as the output.
    Memory(Ahead, &'a mut [f32]),
}

/// How values are added.
pub(in crate::kernel) struct Addition<'a> {
    pub(super) hiding: Hiding,
    /// What sums begin with, and lose at last: [`FLOOR`], or 0.
    pub(super) floor: f32,
    pub(super) source: Source<'a>,
}

/// 2⁻¹²⁰, what sums begin with where weights may be of any size. The first keys of a block are often far away, where ALiBi leaves
/// so little of them that their sum would be subnormal, and each step of such a sum takes Intel's cores 150 cycles. It costs up to 2⁻¹⁴⁴ a
/// key and one rounding; a first term of 2⁻⁹⁵ or more absorbs it, and results of that size don't notice that it is lost.
pub(super) const FLOOR: f32 = 64.0 * f32::MIN_POSITIVE;

/// `output[row][c] = factor[row] · output[row][c] + Σ_key weights[row][key] · values[key][c]`, with a panel of so many heads.
#[inline(never)]
pub(super) fn accumulate<S: Isa, V: Storage>(
    s: S,
    (values, heads): (Panel<'_, V>, Heads),
    weights: &[f32],
    factors: &[f32],
    output: &mut [f32],
    addition: Addition<'_>,
) {
    let Addition { hiding, floor, source } = addition;
    s.vectorize(
        #[inline(always)]
        || {
            let (mut ahead, sums) = match source {
                Source::SharedCache(ahead) => (Some(ahead), &mut [][..]),
                Source::Memory(ahead, sums) => (Some(ahead), sums),
                Source::NearCache => (None, &mut [][..]),
            };
            let (dim, count) = (heads.share(values.row(0).len()), heads.share(factors.len()));
            let width = padded(dim, S::LANES);
            let wide = size_of::<V>() == size_of::<f32>();
            let marked = hiding == Hiding::Marked;
            let carried = S::PREFETCHES && !sums.is_empty() && !marked;
            sums.fill(floor);
            let floor = s.splat(floor);
            let step = if carried { step::<V>(S::LEVEL) } else { values.rows() };
            let mut first = 0;
            while let Some(values) = values.part(first, step.min(values.rows().saturating_sub(first))) {
                // Narrow values take more work than their bytes take time to come.
                if carried && wide && heads.count() == 1 {
                    for row in values.iter() {
                        for line in (0..size_of_val(row)).step_by(LINE) {
                            s.prefetch_near(row.as_ptr().cast::<u8>().wrapping_add(line));
                        }
                    }
                }
                let to = if carried { &mut *sums } else { &mut *output };
                for head in 0..heads.count() {
                    let Some(values) = values.narrow(head * dim, dim) else { return };
                    let row = head * count;
                    let weights =
                        weights.get(row * Tile::of(S::LEVEL).few_block + first..).unwrap_or_default();
                    let factors = factors.get(row..row + count).unwrap_or_default();
                    let to = to.get_mut(row * width..).unwrap_or_default();
                    let pass = Pass { s, values, width, carried, floor };
                    if marked {
                        pass.marked(weights, factors, to);
                    } else {
                        pass.groups(weights, factors, to, ahead.as_mut().filter(|_| S::PREFETCHES));
                    }
                }
                first += step;
            }
            if carried {
                let rows = output.chunks_exact_mut(width).zip(sums.chunks_exact(width));
                for ((output, sums), &factor) in rows.zip(factors) {
                    let factor = s.splat(factor);
                    for (output, &sums) in s.vectors_mut(output).iter_mut().zip(s.vectors(sums)) {
                        *output = s.mul_add(*output, factor, s.sub(sums, floor));
                    }
                }
            }
        },
    );
}

struct Pass<'a, S: Isa, V> {
    s: S,
    values: Panel<'a, V>,
    /// From one row of the output to the next.
    width: usize,
    /// Whether sums begin with the output, and become it, without factors.
    carried: bool,
    /// What they begin with otherwise.
    floor: S::F,
}

impl<S: Isa, V: Storage> Pass<'_, S, V> {
    /// All rows, of which the first that go together fetch for all.
    #[inline(always)]
    fn groups(&self, weights: &[f32], factors: &[f32], output: &mut [f32], mut ahead: Option<&mut Ahead>) {
        for (first, rows) in together(factors.len()) {
            let factors = factors.get(first..first + rows).unwrap_or_default();
            let output = output.get_mut(first * self.width..).unwrap_or_default();
            let weights = weights.get(first * Tile::of(S::LEVEL).few_block..).unwrap_or_default();
            match ahead.take() {
                Some(ahead) => self.some::<true>(weights, factors, output, ahead),
                None => self.some::<false>(weights, factors, output, &mut Ahead::default()),
            }
        }
    }

    /// [`rows`](Self::rows) for those that go together.
    #[inline(always)]
    fn some<const FAR: bool>(&self, weights: &[f32], factors: &[f32], output: &mut [f32], ahead: &mut Ahead) {
        // Where a call never has so many, no code for them.
        let four = Tile::of(S::LEVEL).few_rows >= FEW_TOGETHER;
        match factors {
            [_] => self.rows::<1, false, FAR>(weights, factors, output, ahead),
            [_, _, _, _, ..] if four => {
                self.rows::<FEW_TOGETHER, false, FAR>(weights, factors, output, ahead)
            }
            [_, _] => self.rows::<2, false, FAR>(weights, factors, output, ahead),
            _ => self.rows::<3, false, FAR>(weights, factors, output, ahead),
        }
    }

    /// [`rows`](Self::rows) one by one, without the marked keys.
    #[inline(always)]
    fn marked(&self, weights: &[f32], factors: &[f32], output: &mut [f32]) {
        let rows = weights.chunks(Tile::of(S::LEVEL).few_block).zip(output.chunks_mut(self.width));
        for (factor, (weights, output)) in factors.chunks(1).zip(rows) {
            self.rows::<1, true, false>(weights, factor, output, &mut Ahead::default());
        }
    }

    /// Strip by strip of columns, for the first `ROWS` rows.
    #[inline(always)]
    fn rows<const ROWS: usize, const MARKED: bool, const FAR: bool>(
        &self,
        weights: &[f32],
        factors: &[f32],
        output: &mut [f32],
        ahead: &mut Ahead,
    ) {
        let tile = Tile::of(S::LEVEL);
        let Some(weights) = Panel::new(weights, tile.few_block, ROWS, self.values.rows()) else {
            return;
        };
        let factors = core::array::from_fn(|r| factors.get(r).copied().unwrap_or(0.0));
        let dim = self.values.row(0).len();
        let mut column = 0;
        while column < dim {
            let vectors = (dim - column) / S::LANES;
            let output = output.get_mut(column..).unwrap_or_default();
            // What is marked is rare, and takes the shortest code.
            let vectors = if MARKED { 1 } else { vectors };
            let vectors = if vectors >= 8 && tile.few_sums() >= 8 * ROWS {
                self.strip::<ROWS, 8, MARKED, FAR>(column, weights, factors, output, ahead)
            } else if vectors >= 4 && tile.few_sums() >= 4 * ROWS {
                self.strip::<ROWS, 4, MARKED, FAR>(column, weights, factors, output, ahead)
            } else if vectors >= 2 && tile.few_sums() >= 2 * ROWS {
                self.strip::<ROWS, 2, MARKED, FAR>(column, weights, factors, output, ahead)
            } else {
                self.strip::<ROWS, 1, MARKED, FAR>(column, weights, factors, output, ahead)
            };
            column += vectors * S::LANES;
        }
    }

    /// `VECS` vectors of columns, from `column` on, which `output` begins with; a single one may be a part. Gives `VECS`.
    #[inline(always)]
    fn strip<const ROWS: usize, const VECS: usize, const MARKED: bool, const FAR: bool>(
        &self,
        column: usize,
        weights: Panel<'_>,
        factors: [f32; ROWS],
        output: &mut [f32],
        ahead: &mut Ahead,
    ) -> usize {
        let s = self.s;
        let carried = S::PREFETCHES && self.carried;
        let mut sums = [[self.floor; VECS]; ROWS];
        if carried {
            for r in 0..ROWS {
                let output = s.vectors(output.get(r * self.width..).unwrap_or_default());
                for v in 0..VECS {
                    sums[r][v] = output.get(v).copied().unwrap_or(s.zero());
                }
            }
        }
        let mut fetching = *ahead;
        if let Some(values) = self.values.narrow(column, VECS * S::LANES) {
            weights.columns::<ROWS>(0).zip_rows(
                values,
                #[inline(always)]
                |weights, values| {
                    if FAR {
                        fetch::<S, V>(s, &mut fetching, VECS);
                    }
                    let mut row = [s.zero(); VECS];
                    for v in 0..VECS {
                        row[v] = V::load(s, values.get(v * S::LANES..).unwrap_or_default());
                    }
                    add::<S, ROWS, VECS, MARKED>(s, &mut sums, weights, row);
                },
            );
        } else if VECS == 1
            && let Some(values) = self.values.narrow(column, self.values.row(0).len() - column)
        {
            weights.columns::<ROWS>(0).zip_rows(
                values,
                #[inline(always)]
                |weights, values| {
                    if FAR {
                        fetch::<S, V>(s, &mut fetching, VECS);
                    }
                    let row = [load_part(s, values); VECS];
                    add::<S, ROWS, VECS, MARKED>(s, &mut sums, weights, row);
                },
            );
        }
        *ahead = fetching;
        for r in 0..ROWS {
            let factor = s.splat(factors[r]);
            let output = s.vectors_mut(output.get_mut(r * self.width..).unwrap_or_default());
            for v in 0..VECS {
                if let Some(output) = output.get_mut(v) {
                    *output = if carried {
                        sums[r][v]
                    } else {
                        s.mul_add(*output, factor, s.sub(sums[r][v], self.floor))
                    };
                }
            }
        }
        VECS
    }
}

/// Adds a key's values, with each row's weight; not at all where a marked one is negative.
#[inline(always)]
fn add<S: Isa, const ROWS: usize, const VECS: usize, const MARKED: bool>(
    s: S,
    sums: &mut [[S::F; VECS]; ROWS],
    weights: [f32; ROWS],
    values: [S::F; VECS],
) {
    for r in 0..ROWS {
        if MARKED && weights[r] < 0.0 {
            continue;
        }
        let weight = s.splat(weights[r]);
        for v in 0..VECS {
            sums[r][v] = s.mul_add(weight, values[v], sums[r][v]);
        }
    }
}
