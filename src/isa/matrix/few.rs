//! What few rows take of the unit: both products keep keys and values as they lie in memory.

use core::arch::asm;
use core::mem::MaybeUninit;

use half::bf16;

use super::{LANES, ROWS, SetUp, Unit, row_bytes};
use crate::panel::Panel;

/// Columns of values that are summed together.
pub(crate) const STRIP: usize = 4 * LANES;

/// Of pairs of 32 values.
#[repr(C, align(64))]
struct Tiles([[[f32; LANES]; ROWS]; STRIP / LANES]);

impl Unit {
    /// `scores[key % 16][key / 16 · columns + row] = Σ_p keys[key][p] · queries[p][row]`, as [`multiply`](Self::multiply) sums, for whole
    /// multiples of 16 keys that fill a row of 16 scores at most; `queries` has `columns` pairs in a row. The tiles are set up for `rows`
    /// rows, at most `columns`. Nothing where an operand is too short.
    #[inline(never)]
    pub(crate) fn score<T>(
        &self,
        (rows, columns): (usize, usize),
        keys: Panel<'_, T>,
        queries: &[f32],
        scores: &mut [f32],
    ) {
        const { assert!(size_of::<T>() == size_of::<f32>()) }
        let (steps, tiles) = (keys.row(0).len() / LANES, keys.rows() / ROWS);
        let fits = (1..=columns).contains(&rows) && tiles > 0 && tiles.saturating_mul(columns) <= LANES;
        let needed = (ROWS - 1) * LANES + tiles.saturating_mul(columns);
        if !fits || steps == 0 || queries.len() < steps * LANES * columns || scores.len() < needed {
            return;
        }
        self.set_up(SetUp::Few { rows: rows as u8, columns: columns as u8 });
        // SAFETY: `self` proves the unit, and it is set up. There are `tiles` times 16 keys, with `steps` tiles in each; so many tiles of
        // queries, one after the other; and `columns` numbers for each tile of keys in each of 16 rows of scores, as has been checked.
        unsafe {
            asm!(
                "2:",
                "mov {key}, {keys}",
                "mov {query}, {queries}",
                "mov {count}, {steps}",
                "tilezero tmm0",
                "3:",
                "tileloadd tmm2, [{key} + {keys_row}]",
                "tileloadd tmm1, [{query} + {queries_row}]",
                "tdpbf16ps tmm0, tmm2, tmm1",
                "add {key}, 64",
                "add {query}, {queries_step}",
                "dec {count}",
                "jnz 3b",
                "mov {count:e}, 64",
                "tilestored [{scores} + {count}], tmm0",
                "add {scores}, {queries_row}",
                "mov {key}, {keys_row}",
                "shl {key}, 4",
                "add {keys}, {key}",
                "dec {tiles}",
                "jnz 2b",
                key = out(reg) _,
                query = out(reg) _,
                count = out(reg) _,
                keys = inout(reg) keys.row(0).as_ptr() => _,
                keys_row = in(reg) row_bytes(&keys),
                queries = in(reg) queries.as_ptr(),
                queries_row = in(reg) columns * size_of::<f32>(),
                queries_step = in(reg) columns * size_of::<f32>() * ROWS,
                scores = inout(reg) scores.as_mut_ptr() => _,
                steps = in(reg) steps,
                tiles = inout(reg) tiles => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _,
                options(nostack),
            );
        }
    }

    /// `sums[row][c] = Σ_key weights[row][key] · values[key][c]`, as [`multiply`](Self::multiply) sums pairs of neighbouring keys: `weights` has
    /// rows of whole multiples of 16 pairs, zeros after the last key; `values` as many keys or fewer, of 64 columns. `sums` has rows of
    /// 64. The tiles are set up for `columns`, at least as many as there are rows. Values so many keys ahead are fetched into the
    /// second-level cache; none if 0. Nothing where an operand has not these sizes.
    ///
    /// ```text
    /// for 32 keys:    tiles of pairs of them, 16 columns each;  sums += weights · tiles
    /// ```
    #[inline(never)]
    pub(crate) fn weigh(
        &self,
        columns: usize,
        weights: Panel<'_>,
        values: Panel<'_, bf16>,
        sums: &mut [[f32; STRIP]],
        ahead: usize,
    ) {
        let (rows, keys, steps) = (weights.rows(), values.rows(), weights.row(0).len() / LANES);
        let fits = rows <= columns && columns <= LANES && rows <= sums.len();
        if !fits || keys.div_ceil(2 * LANES) != steps || values.row(0).len() != STRIP {
            return;
        }
        self.set_up(SetUp::Few { rows: rows as u8, columns: columns as u8 });
        // Keys past whole tiles, with zeros after them.
        let whole = keys / (2 * LANES);
        let mut last = MaybeUninit::<[[bf16; STRIP]; 2 * LANES]>::uninit();
        if steps > whole {
            let last = last.write([[bf16::ZERO; STRIP]; 2 * LANES]);
            for (key, to) in (whole * 2 * LANES..keys).zip(last) {
                to.copy_from_slice(values.row(key));
            }
        }
        let mut room = MaybeUninit::<[Tiles; 2]>::uninit();
        let room = room.as_mut_ptr().cast::<Tiles>();
        // Where there are no whole tiles the others come first.
        let (first, next, row): (*const bf16, *const bf16, usize) = match whole {
            0 => (last.as_ptr().cast(), core::ptr::null(), STRIP * size_of::<bf16>()),
            _ if steps == whole => (values.row(0).as_ptr(), core::ptr::null(), row_bytes(&values)),
            _ => (values.row(0).as_ptr(), last.as_ptr().cast(), row_bytes(&values)),
        };
        // SAFETY: `self` proves the unit, and it is set up; units are made beside AVX-512 alone. `first` has 32 keys for each of `whole` steps, or
        // for one, `row` bytes apart; `next` is null, or has 32 keys 128 bytes apart. Each has 64 numbers of 2 bytes, which is what is read.
        // There are `rows` rows of `steps` tiles of weights, and of sums, as has been checked.
        unsafe {
            asm!(
                "tilezero tmm4",
                "tilezero tmm5",
                "tilezero tmm6",
                "tilezero tmm7",
                "xor {begun:e}, {begun:e}",
                "2:",
                "mov {count:e}, 16",
                "3:",
                "vmovdqu64 zmm0, [{values}]",
                "vmovdqu64 zmm1, [{values} + 64]",
                "vmovdqu64 zmm2, [{values} + {row}]",
                "vmovdqu64 zmm3, [{values} + {row} + 64]",
                "test {ahead}, {ahead}",
                "jz 4f",
                "prefetcht1 [{values} + {ahead}]",
                "prefetcht1 [{values} + {ahead} + 64]",
                "add {ahead}, {row}",
                "prefetcht1 [{values} + {ahead}]",
                "prefetcht1 [{values} + {ahead} + 64]",
                "sub {ahead}, {row}",
                "4:",
                "lea {values}, [{values} + 2 * {row}]",
                "vpunpcklwd zmm4, zmm0, zmm2",
                "vpunpckhwd zmm5, zmm0, zmm2",
                "vpunpcklwd zmm6, zmm1, zmm3",
                "vpunpckhwd zmm7, zmm1, zmm3",
                "vmovdqa64 [{room}], zmm4",
                "vmovdqa64 [{room} + 1024], zmm5",
                "vmovdqa64 [{room} + 2048], zmm6",
                "vmovdqa64 [{room} + 3072], zmm7",
                "add {room}, 64",
                "dec {count:e}",
                "jnz 3b",
                "sub {room}, 1024",
                "xchg {room}, {other}",
                // Loads of tiles wait until what is stored has left the core: the pairs that are multiplied are those of the step before.
                "test {begun:e}, {begun:e}",
                "jz 6f",
                "5:",
                "mov {count:e}, 64",
                "tileloadd tmm3, [{weights} + {weights_row}]",
                "tileloadd tmm2, [{room} + {count}]",
                "tdpbf16ps tmm4, tmm3, tmm2",
                "tileloadd tmm2, [{room} + {count} + 1024]",
                "tdpbf16ps tmm5, tmm3, tmm2",
                "tileloadd tmm2, [{room} + {count} + 2048]",
                "tdpbf16ps tmm6, tmm3, tmm2",
                "tileloadd tmm2, [{room} + {count} + 3072]",
                "tdpbf16ps tmm7, tmm3, tmm2",
                "add {weights}, 64",
                "6:",
                "inc {begun:e}",
                "dec {steps}",
                "jg 2b",
                "jl 7f",
                "test {next}, {next}",
                "mov {values}, {next}",
                "mov {row:e}, 128",
                "mov {next:e}, 0",
                "mov {steps:e}, 1",
                "jnz 2b",
                // The last step's.
                "xchg {room}, {other}",
                "mov {steps:e}, 0",
                "jmp 5b",
                "7:",
                "mov {count:e}, 256",
                "tilestored [{sums} + {count}], tmm4",
                "tilestored [{sums} + {count} + 64], tmm5",
                "tilestored [{sums} + {count} + 128], tmm6",
                "tilestored [{sums} + {count} + 192], tmm7",
                // Each two tiles have had the even and the odd quarters of their columns.
                "8:",
                "vmovups zmm0, [{sums}]",
                "vmovups zmm1, [{sums} + 64]",
                "vmovups zmm2, [{sums} + 128]",
                "vmovups zmm3, [{sums} + 192]",
                "vshuff64x2 zmm4, zmm0, zmm1, 0x44",
                "vshuff64x2 zmm5, zmm0, zmm1, 0xee",
                "vshuff64x2 zmm6, zmm2, zmm3, 0x44",
                "vshuff64x2 zmm7, zmm2, zmm3, 0xee",
                "vshuff64x2 zmm4, zmm4, zmm4, 0xd8",
                "vshuff64x2 zmm5, zmm5, zmm5, 0xd8",
                "vshuff64x2 zmm6, zmm6, zmm6, 0xd8",
                "vshuff64x2 zmm7, zmm7, zmm7, 0xd8",
                "vmovups [{sums}], zmm4",
                "vmovups [{sums} + 64], zmm5",
                "vmovups [{sums} + 128], zmm6",
                "vmovups [{sums} + 192], zmm7",
                "add {sums}, {count}",
                "dec {rows}",
                "jnz 8b",
                count = out(reg) _,
                values = inout(reg) first => _,
                row = inout(reg) row => _,
                next = inout(reg) next => _,
                room = inout(reg) room => _,
                other = inout(reg) room.add(1) => _,
                begun = out(reg) _,
                ahead = inout(reg) row_bytes(&values) * ahead => _,
                weights = inout(reg) weights.row(0).as_ptr() => _,
                weights_row = in(reg) row_bytes(&weights),
                steps = inout(reg) whole.max(1) => _,
                sums = inout(reg) sums.as_mut_ptr() => _,
                rows = inout(reg) rows => _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                out("zmm4") _, out("zmm5") _, out("zmm6") _, out("zmm7") _,
                out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::super::{Matrix, tests::number};
    use super::*;
    use crate::isa::Level;
    use std::vec::Vec;

    fn whole(index: usize) -> bf16 {
        bf16::from_f32(number(index))
    }

    /// Scores, then values, of few rows, with one unit in turns.
    #[test]
    fn few_rows_are_products() {
        let there = Level::detect().has_bf16_matrix();
        let Some(matrix) = Matrix::of_machine().filter(|_| there) else { return };
        let unit = matrix.unit();
        for (rows, columns) in [(1, 2), (2, 2), (3, 4), (5, 8), (9, 16), (16, 16)] {
            for (steps, tiles) in [(1, 1), (3, 16 / columns)] {
                let (pairs, keys) = (16 * steps, 16 * tiles);
                let k: Vec<_> = (0..keys * (pairs + 1)).map(|i| [whole(2 * i), whole(2 * i + 1)]).collect();
                let q: Vec<_> = (0..pairs * columns).map(|i| [whole(3 * i), whole(i + 4)]).collect();
                let queries: Vec<_> = q
                    .iter()
                    .map(|[low, high]| {
                        f32::from_bits(u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16)
                    })
                    .collect();
                let mut scores = [0.5; 256];
                let keys = Panel::new(&k, pairs + 1, keys, pairs).unwrap();
                unit.score((rows, columns), keys, &queries, &mut scores);
                for (key, lane) in (0..16).flat_map(|key| (0..16).map(move |lane| (key, lane))) {
                    let product = |p: usize| {
                        let key = key + 16 * (lane / columns);
                        let (k, q) = (k[key * (pairs + 1) + p], q[p * columns + lane % columns]);
                        k[0].to_f32() * q[0].to_f32() + k[1].to_f32() * q[1].to_f32()
                    };
                    let want = if lane < tiles * columns { (0..pairs).map(product).sum() } else { 0.5 };
                    assert_eq!(scores[16 * key + lane], want, "{rows} {columns} {steps}: {key} {lane}");
                }
            }
            for keys in [1, 31, 32, 33, 64, 95] {
                let (steps, gap) = (usize::div_ceil(keys, 32), 7);
                let v: Vec<_> = (0..keys * (64 + gap)).map(|i| whole(5 * i + i / 71)).collect();
                let weight =
                    |row: usize, key: usize| if key < keys { whole(row * 11 + key) } else { bf16::ZERO };
                let pair = |row: usize, pair: usize| {
                    let bits = |key| u32::from(weight(row, key).to_bits());
                    f32::from_bits(bits(2 * pair) | bits(2 * pair + 1) << 16)
                };
                let weights: Vec<_> =
                    (0..rows * 16 * steps).map(|i| pair(i / (16 * steps), i % (16 * steps))).collect();
                let weights = Panel::new(&weights, 16 * steps, rows, 16 * steps).unwrap();
                let values = Panel::new(&v, 64 + gap, keys, 64).unwrap();
                let mut sums = [[0.5; 64]; 16];
                unit.weigh(columns, weights, values, &mut sums[..rows], keys % 3);
                for (row, column) in (0..16).flat_map(|row| (0..64).map(move |column| (row, column))) {
                    let product =
                        |key: usize| weight(row, key).to_f32() * v[key * (64 + gap) + column].to_f32();
                    let want = if row < rows { (0..keys).map(product).sum() } else { 0.5 };
                    assert_eq!(sums[row][column], want, "{rows} × {keys}: {row} {column}");
                }
                let mut left = [[0.5; 64]; 16];
                unit.weigh(columns, weights, values, &mut left[..rows - 1], 0);
                unit.weigh(rows - 1, weights, values, &mut left, 0);
                unit.weigh(columns, weights, values.narrow(0, 63).unwrap(), &mut left, 0);
                assert_eq!(left, [[0.5; 64]; 16]);
            }
        }
    }
}
