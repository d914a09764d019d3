//! The numbers of the kernels: tiles by level, and the scratch memory that follows from them.
//!
//! A tile of `keys` × `vecs` accumulators (or columns × vecs, in the value pass) wants the registers for them, for
//! `vecs` operands and one broadcast; more accumulators spill. Enough independent sums must be in flight to hide
//! the latency of a multiply-add: two a cycle of four cycles on the x86 cores that we know.
//!
//! | level | tiles | registers | why |
//! |---|---|---|---|
//! | AVX-512 | 8 × 3, 12 × 2, 12 × 1 | 28 of 32 | 8 × 3 and 6 × 4 are equally fast (11 and 10 loads for 24 multiply-adds); 8 divides head dimensions, and 48 rows of Q at d 128 leave room in a first-level cache of 32 KiB |
//! | AVX2 | 6 × 2 | 15 of 16 | 4 × 3 and 3 × 4 spill: 64 % of the peak where 6 × 2 has 93 % |
//! | NEON | 6 × 4, 8 × 2 | 29 of 32 | 10 loads for 24 multiply-adds; not measured on hardware |
//! | simd128 | 2 × 4 | 13 of 16 | engines compile 12 accumulators to spills |
//! | scalar | 4 × 4, 4 × 1; 4 × 3 alone | 21 of 32 | Cortex-M4F; groups of 3 heads, and 1 and 2, waste less of 4 × 3 |
//!
//! Where a vector of rows has no tile, as many rows are few.
//!
//! The last keys of a block, if they are four or fewer, have a tile of four of their own: at AVX2 16 tokens take 3 % less.

mod cuts;
mod memory;

pub(crate) use cuts::{Cuts, Kernel, Products};
pub use memory::KvStorage;
use memory::MATRIX_ROWS;
pub(crate) use memory::{Blocks, Carver, Few, Many, Split, few, in_place, many, padded};

use crate::isa::{LEVELS, Level, MAX_LANES};
use crate::shape::Shape;

/// The sizes of one level. Rows lie in lanes: a group of rows is `lanes · vecs` of them, or fewer vectors for a
/// work item of few rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub(crate) lanes: usize,
    /// Vectors of rows in a group: the greatest `VECS` of [`crate::isa::Isa::with_tile`].
    pub(crate) vecs: usize,
    /// The next smaller number of vectors that has a tile; none is chosen, and none is there, where as many rows are few.
    pub(crate) half: usize,
    /// Groups of a work item at most: they share each block of K and V, which is widened, and read from beyond the second-level
    /// cache, once for all. Four take 6 % less time than two in f16 and 0 to 5 % in f32, eight 2 to 5 % less again in f16 and 1 % in f32,
    /// sixteen are slower (AVX2 on Zen 3, 128 to 2,048 tokens, d 64 and 128). At AVX-512 eight take 0 to 1 % less than four in f16 (Emerald Rapids).
    pub(crate) groups: usize,
    /// And where keys and values are f32, which are not widened: at AVX-512 eight take 2 to 4 % more than four.
    f32_groups: usize,
    /// And as many as have at most so many queries, weights and outputs together, half of a second-level cache: at d 256 eight are 1 %
    /// slower than four in f16.
    cached: usize,
    /// Keys of a block. So many steps a tile of the value pass takes, which also begins and ends: at AVX2 192 are 2 to 4 % faster
    /// than 64 (Zen 3; d 64 to 256), at AVX-512 64 to 144 are equal.
    block: usize,
    /// So many keys ahead the value pass fetches into the nearest cache, whose few sets the rows of a panel share; 0 for none. At AVX2
    /// prompts take 1 to 2.5 % less with 3 or 4, with 6 no less (Zen 3); a vector of AVX-512 takes longer.
    pub(crate) values_ahead: usize,
    /// Up to so many rows of a KV head are computed by the few-rows kernel. At AVX-512 16 and 24 take at most 5 % longer from the caches
    /// than vectors of the other kernel, in f16 5 % less, and from memory half as long (the other one fetches no keys ahead); at AVX2 13 take 4 to 28 %
    /// less, 16 from the caches 10 % more.
    pub(crate) few_rows: usize,
    /// And of the rows past whole groups so many.
    rest_rows: usize,
    /// Keys of a block of the few-rows kernel; a multiple of `lanes`. From the caches of a Zen 4 (f32, d 64 and 128, groups of 1 and 4),
    /// 384 are 2 to 7 % faster than 128 at AVX-512, and 6 to 17 % faster than 64 at AVX2; 768 are no faster than 384 there; on
    /// Emerald Rapids at AVX-512 they are 10 to 15 % faster than 384 from beyond the second-level cache in f32, 2 to 10 % in f16, and 4 to 16 % where a
    /// matrix unit multiplies, but 4 % slower for 8 heads of 256; at AVX2 equal.
    pub(crate) few_block: usize,
    /// Keys whose values are taken together where they come from memory (of narrow ones twice as many), or 0; see `Source::Memory`
    /// of the few-rows kernel. 8, 16 and 32 are equal. Also keys of each of several heads that are taken in turn.
    pub(crate) streamed: usize,
    /// Keys of a chunk, a multiple of both blocks; see [`chunk`]. Taking in chunks of 768 costs 0.5 to 1 % of the time where K and V lie
    /// in the caches (Zen 4, AVX-512, d 128), of 384 2 %; from memory nothing. In f32 at d 128 one takes 31 µs to read from memory.
    chunk: usize,
}

/// Groups that an item has at least where there are vectors, for any number of threads. Two are 5 % faster than one where K and V of a head outgrow the second-level
/// cache (Zen 4, AVX-512).
const LEAST_GROUPS: usize = 2;

/// The greatest [`Tile::groups`] of this target.
pub(crate) const MAX_GROUPS: usize = {
    let (mut groups, mut i) = (1, 0);
    while i < LEVELS.len() {
        let tile = Tile::of(LEVELS[i]);
        groups = if tile.groups > groups { tile.groups } else { groups };
        i += 1;
    }
    groups
};

/// Of a chunk that all keys lie in.
const UNSPLIT: usize = usize::MAX;

/// Keys of a block where a matrix unit multiplies. To begin and end a tile of sums takes as long as some steps, and the output is rescaled
/// in memory once a block: 192 and 256 take 4 to 15 % less than 96 (Emerald Rapids, 128 to 2,048 tokens, d 64 to 256), 256 less than 192 at d 256,
/// 384 more.
const TILED_BLOCK: usize = 256;

/// [`Tile::cached`] there: values are transposed once for all groups. At d 256, where it decides, five groups take 5 to 10 % less than three, and as long as
/// seven.
const TILED_CACHED: usize = 3 << 16;

/// Whether size goes before speed: one kernel with one tile, feature `single-tile`.
pub(crate) const SINGLE_TILE: bool = cfg!(feature = "single-tile");

/// Rows that the few-rows kernel takes together: a vector of K serves so many.
pub(crate) const FEW_TOGETHER: usize = 4;

impl Tile {
    pub(crate) const fn of(level: Level) -> Self {
        match level.lanes() {
            16 => Self {
                lanes: 16,
                vecs: 3,
                half: 2,
                groups: if SINGLE_TILE { 2 } else { 8 },
                f32_groups: if SINGLE_TILE { 2 } else { 4 },
                cached: 1 << 17,
                block: 96,
                values_ahead: 0,
                few_rows: 24,
                rest_rows: 15,
                few_block: 768,
                streamed: 16,
                chunk: 768,
            },
            8 => Self {
                lanes: 8,
                vecs: 2,
                half: 1,
                groups: if SINGLE_TILE { 2 } else { 8 },
                f32_groups: if SINGLE_TILE { 2 } else { 8 },
                cached: 1 << 16,
                block: 192,
                values_ahead: 4,
                few_rows: 13,
                rest_rows: 13,
                few_block: 384,
                streamed: 16,
                chunk: 768,
            },
            4 => Self {
                lanes: 4,
                vecs: 4,
                half: if cfg!(target_arch = "wasm32") { 1 } else { 2 },
                groups: if SINGLE_TILE { 2 } else { 4 },
                f32_groups: if SINGLE_TILE { 2 } else { 4 },
                cached: 1 << 15,
                block: 64,
                values_ahead: 0,
                few_rows: 6,
                rest_rows: 6,
                few_block: 64,
                streamed: 0,
                chunk: 768,
            },
            _ => Self {
                lanes: 1,
                vecs: if SINGLE_TILE { 3 } else { 4 },
                half: 1,
                groups: 1,
                f32_groups: 1,
                cached: 0,
                // The output is taken in once a block: as long as 2.5 KB of scratch allow at head_dim 64.
                block: if SINGLE_TILE { 32 } else { 16 },
                values_ahead: 0,
                few_rows: 3,
                rest_rows: 3,
                few_block: 16,
                streamed: 0,
                // Such cores are often alone, and short of memory. An interpreter has no other level.
                chunk: if cfg!(miri) { 32 } else { UNSPLIT },
            },
        }
    }

    /// Accumulators of the few-rows kernel: more where there are 32 registers.
    pub(crate) const fn few_sums(&self) -> usize {
        match self.lanes {
            // For the size of the code.
            1 => 4,
            8 => 8,
            _ if cfg!(target_arch = "wasm32") => 8,
            _ => 16,
        }
    }

    /// As `rest_rows`, for rows past whole vectors that are no group; 0 where one vector more costs less. µs of a row count, 1,024
    /// keys, d 128: at AVX-512 16 rows 79, 32 157, 48 235, and 1 to 15 rows 15 to 74. At AVX2 8 rows (8 × 1) 88, 16 89.
    pub(crate) const fn tail_rows(&self) -> usize {
        if self.lanes == 16 { self.rest_rows } else { 0 }
    }

    /// Vectors of the groups of a work item of so many rows.
    pub(crate) const fn vecs_for(&self, rows: usize) -> usize {
        if SINGLE_TILE {
            self.vecs
        } else if rows <= self.lanes {
            1
        } else if rows <= self.lanes * self.half {
            self.half
        } else {
            self.vecs
        }
    }

    /// Keys of a block of the many-rows kernel.
    pub(crate) const fn block(&self, blocks: Blocks) -> usize {
        match blocks {
            Blocks::Tiled if !SINGLE_TILE => TILED_BLOCK,
            _ => self.block,
        }
    }

    /// Rows of a group.
    pub(crate) const fn group_rows(&self) -> usize {
        self.lanes * self.vecs
    }

    /// Groups of a work item at least, where there are as many.
    pub(crate) const fn least_groups(&self) -> usize {
        if self.groups < LEAST_GROUPS { self.groups } else { LEAST_GROUPS }
    }

    /// Rows that are in one work item for any number of threads.
    pub(crate) const fn least_rows(&self) -> usize {
        self.group_rows() * self.least_groups()
    }
}

/// The sums of some rows begin anew at the multiples of so many keys, and what they come to is taken in, chunk by chunk in order:
/// then several threads can share the keys, and the bits don't depend on it. All keys are one chunk where a KV head has more rows
/// than the least item of the greatest tile.
pub(crate) const fn chunk(rows: usize, level: Level) -> usize {
    let tile = Tile::of(level);
    if !CHUNKS || rows > tile.least_rows() { UNSPLIT } else { tile.chunk }
}

/// Whether some level has chunks: not where size goes before speed. In wasm, where threads are rare, they would take a tenth of
/// the size, and with the bits of a level depend on whether a module has threads if only those had them.
pub(crate) const CHUNKS: bool = !SINGLE_TILE && MAX_LANES > 1 && !cfg!(target_family = "wasm");

// A chunk is whole blocks, and these whole vectors: else the few-rows kernel would meet keys of the chunk before.
const _: () = {
    let mut i = 0;
    while i < LEVELS.len() {
        let Tile { chunk, block, few_block, lanes, .. } = Tile::of(LEVELS[i]);
        assert!(chunk == UNSPLIT || (chunk.is_multiple_of(block) && chunk.is_multiple_of(few_block)));
        assert!(lanes != MATRIX_ROWS || chunk.is_multiple_of(TILED_BLOCK));
        assert!(few_block.is_multiple_of(lanes));
        // Of a matrix unit's tiles of 16 keys, those of one or two rows fill a square with eight.
        assert!(lanes != MATRIX_ROWS || few_block.is_multiple_of(MATRIX_ROWS * MATRIX_ROWS / 2));
        i += 1;
    }
};

/// The quotient and the remainder of a division by a number that is not 0; a compiler that can't tell keeps no panic.
pub(crate) const fn div_rem(n: usize, by: usize) -> (usize, usize) {
    let quotient = match n.checked_div(by) {
        Some(quotient) => quotient,
        None => 0,
    };
    (quotient, n - quotient * by)
}

/// As [`div_rem`], rounded up.
const fn div_up(n: usize, by: usize) -> usize {
    let (quotient, rest) = div_rem(n, by);
    quotient + (rest > 0) as usize
}

/// Rows of the few-rows kernel that several KV heads have together at most.
const ROWS_TOGETHER: usize = 32;

/// Threads that may draw items, where nobody has said how many.
pub(crate) const THREADS: usize = 32;

/// Items that so many threads should have at least, where the keys of several KV heads could be taken together: of two to a thread
/// none waits long for the last.
const fn items_for(threads: usize) -> usize {
    if threads == 1 { 1 } else { threads.saturating_mul(2) }
}

/// Items of whole groups that there should be for each of several threads, so that none waits long for the last one.
const ITEMS_EACH: usize = 8;

/// How many groups a work item has at most.
const fn most_groups(shape: &Shape, level: Level, blocks: Blocks) -> usize {
    let tile = Tile::of(level);
    let (all, cached) = match blocks {
        Blocks::InPlace => (tile.f32_groups, tile.cached),
        Blocks::Widened => (tile.groups, tile.cached),
        Blocks::Tiled => (tile.groups, TILED_CACHED),
    };
    if SINGLE_TILE || MAX_GROUPS == 1 {
        return all;
    }
    let row = shape.head_dim.saturating_add(shape.value_dim).saturating_add(tile.block(blocks));
    let (most, _) = div_rem(cached, row.saturating_mul(tile.group_rows()));
    if most > all {
        all
    } else if most < tile.least_groups() {
        tile.least_groups()
    } else {
        most
    }
}

/// How many groups a work item has where so many threads draw them: as many as leave enough items, shared out evenly.
pub(crate) const fn groups(shape: &Shape, level: Level, blocks: Blocks, threads: usize) -> usize {
    let tile = Tile::of(level);
    if SINGLE_TILE || MAX_GROUPS == 1 {
        return tile.groups;
    }
    let heads = shape.batch.saturating_mul(shape.kv_heads);
    // Of the rows that aren't cut off.
    let all =
        div_up(Cuts::of(shape.shared_rows(), tile.groups, level, Products::Single).wide, tile.group_rows());
    let enough = if threads == 1 { 1 } else { threads.saturating_mul(ITEMS_EACH) };
    let mut groups = most_groups(shape, level, blocks);
    while groups > tile.least_groups() && div_up(all, groups).saturating_mul(heads) < enough {
        groups -= 1;
    }
    let even = div_up(all, div_up(all, groups));
    if even > tile.least_groups() { even } else { tile.least_groups() }
}

/// How many KV heads, a divisor of their number, an item of few rows has if their keys, and their values, lie beside each other, of
/// so many bytes each: as many as leave enough items for so many threads, where a place is `chunks` items. One where the caches are near.
pub(crate) const fn heads_together(
    shape: &Shape,
    bytes: [usize; 2],
    level: Level,
    chunks: usize,
    threads: usize,
) -> usize {
    let Shape { batch, kv_heads, kv_len, .. } = *shape;
    let items = items_for(threads);
    let places = batch.saturating_mul(kv_heads);
    let all = bytes[0].saturating_add(bytes[1]).saturating_mul(kv_len).saturating_mul(places);
    if Tile::of(level).streamed == 0 || all <= NEAR {
        return 1;
    }
    let (mut heads, _) = div_rem(ROWS_TOGETHER, shape.shared_rows());
    while heads > 1
        && !(kv_heads.is_multiple_of(heads) && places.saturating_mul(chunks) >= heads.saturating_mul(items))
    {
        heads -= 1;
    }
    if heads > 1 { heads } else { 1 }
}

/// The most rows of an item of the few-rows kernel, of calls with so many of each KV head or fewer.
const fn few_rows(rows: usize, level: Level) -> usize {
    if Tile::of(level).streamed > 0 && rows < ROWS_TOGETHER { ROWS_TOGETHER } else { rows }
}

/// Keys and values of so many bytes, in the whole call, are taken to lie in the second-level cache already.
pub(crate) const NEAR: usize = 1 << 20;

/// Queries and outputs of so many bytes, in the whole call, are taken to lie in the nearest caches already.
pub(crate) const NEAREST: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    /// An item has no more groups than there is scratch for, fewer for more threads, and as many as leave enough items.
    #[test]
    fn groups_of_an_item() {
        for level in LEVELS.iter().copied() {
            let tile = Tile::of(level);
            for (dim, rows) in [1, 64, 128, 256, 576, usize::MAX]
                .into_iter()
                .flat_map(|dim| [0, 1, 33, 97, 132, 200, 257, 2048].map(|rows| (dim, rows)))
            {
                let shape = Shape {
                    batch: 2,
                    q_heads: 3,
                    kv_heads: 3,
                    q_len: rows,
                    kv_len: 9,
                    head_dim: dim,
                    value_dim: dim,
                };
                for blocks in Blocks::ALL {
                    let mut last = most_groups(&shape, level, blocks);
                    assert!((tile.least_groups()..=tile.groups).contains(&last), "{level}, d {dim}");
                    for threads in [1, 2, 3, 8, 32, usize::MAX] {
                        let groups = groups(&shape, level, blocks, threads);
                        assert!(
                            (tile.least_groups()..=last).contains(&groups),
                            "{level}, d {dim}, {rows} rows: {groups} for {threads} threads"
                        );
                        last = groups;
                        let room = many(&shape, level, blocks, tile.vecs).groups;
                        let cuts = Cuts::of(rows, groups, level, Products::Single);
                        for (_, count) in (0..cuts.count()).map(|index| cuts.item(index)) {
                            assert!(
                                count.div_ceil(tile.group_rows()) <= room,
                                "{level}, d {dim}, {rows} rows"
                            );
                        }
                        let enough = threads == 1 || cuts.count() * 6 >= threads.saturating_mul(ITEMS_EACH);
                        assert!(
                            SINGLE_TILE || enough || groups == tile.least_groups(),
                            "{level}, {rows} rows"
                        );
                    }
                }
            }
        }
        let shape = |rows| Shape {
            batch: 1,
            q_heads: 1,
            kv_heads: 1,
            q_len: rows,
            kv_len: 9,
            head_dim: 64,
            value_dim: 64,
        };
        for level in LEVELS.iter().copied().filter(|level| level.lanes() == 8 && !SINGLE_TILE) {
            // Evenly: of 16 groups two items have eight each, of 14 seven.
            for (rows, threads, expected) in [
                (132, 1, 8),
                (257, 1, 8),
                (224, 1, 7),
                (2048, 1, 8),
                (2048, 2, 8),
                (2048, 4, 4),
                (2048, 32, 2),
            ] {
                let groups = groups(&shape(rows), level, Blocks::InPlace, threads);
                assert_eq!(groups, expected, "{rows} rows, {threads} threads");
            }
        }
    }

    /// As many heads as have few rows together and leave enough items; one where no level fetches, or where the caches are near.
    #[test]
    fn heads() {
        let shape = |batch, [group, kv_heads]: [usize; 2], kv_len| Shape {
            batch,
            q_heads: group * kv_heads,
            kv_heads,
            q_len: 1,
            kv_len,
            head_dim: 128,
            value_dim: 128,
        };
        for level in LEVELS.iter().copied() {
            let of = |shape, chunks, threads| heads_together(&shape, [512, 512], level, chunks, threads);
            let several = |count| if Tile::of(level).streamed > 0 { count } else { 1 };
            for (sizes, most) in
                [([4, 8], 8), ([7, 2], 2), ([8, 8], 4), ([1, 64], 32), ([5, 9], 3), ([24, 4], 1)]
            {
                assert_eq!(of(shape(1, sizes, 4096), 1, 1), several(most), "{level} {sizes:?}");
            }
            assert_eq!(of(shape(1, [4, 8], 128), 1, 1), 1, "{level}: 1 MiB");
            assert_eq!(of(shape(1, [4, 8], 4096), 1, THREADS), 1, "{level}: 8 items");
            assert_eq!(of(shape(17, [4, 8], 4096), 1, THREADS), several(2), "{level}: 136 items");
            assert_eq!(of(shape(1, [4, 8], 32768), 43, THREADS), several(4), "{level}: 344 items");
            for (threads, most) in [(1, 8), (2, 2), (3, 1), (4, 1), (usize::MAX, 1)] {
                assert_eq!(
                    of(shape(1, [4, 8], 4096), 1, threads),
                    several(most),
                    "{level}: {threads} threads"
                );
            }
            assert_eq!(
                of(shape(1, [4, 8], 4096), 6, 2),
                several(8),
                "{level}: 6 items of 8 heads for 2 threads"
            );
        }
    }
}
