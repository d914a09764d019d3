//! The memory that follows from the tiles: of the scratch, and of what chunks of keys come to.

use super::{
    CHUNKS, Cuts, Kernel, Products, SINGLE_TILE, Tile, UNSPLIT, chunk, div_rem, div_up, few_rows, most_groups,
};
use crate::isa::{LEVELS, Level, STRIP};
use crate::shape::Shape;

/// How the keys and values of a call are stored, as far as scratch memory depends on it.
///
/// ```
/// use gqa::{KvStorage, Level, Shape};
/// // What a microcontroller without vectors needs for a prompt with f32 keys and values of 64 elements:
/// const SHAPE: Shape = Shape { batch: 1, q_heads: 9, kv_heads: 3, q_len: 8, kv_len: 128, head_dim: 64, value_dim: 64 };
/// assert!(SHAPE.scratch_len_at(Level::SCALAR, KvStorage::F32) * size_of::<f32>() <= 2560);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvStorage {
    /// Both K and V are f32 and read in place.
    F32,
    /// At least one of them is narrower: where there are vectors, a block of it at a time is widened in the scratch.
    Narrow,
}

/// How blocks of keys and values lie while many rows take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// In place, in f32.
    InPlace,
    /// In the scratch, one of keys or of values at a time, as f32 or in pairs.
    Widened,
    /// As the tiles of a matrix unit: values in the scratch, and keys that don't lie so.
    Tiled,
}

impl Blocks {
    pub(crate) const ALL: [Self; 3] = [Self::InPlace, Self::Widened, Self::Tiled];

    /// Whether there may be such blocks of what is stored so, at a level.
    const fn may_be(self, storage: KvStorage, level: Level) -> bool {
        match (self, storage) {
            (Self::InPlace, KvStorage::F32) | (Self::Widened, KvStorage::Narrow) => true,
            (Self::Tiled, KvStorage::Narrow) => level.lanes() == MATRIX_ROWS,
            _ => false,
        }
    }
}

impl KvStorage {
    /// By a matrix unit, or not.
    pub(crate) const fn blocks(self, matrix: bool) -> Blocks {
        match self {
            Self::F32 => Blocks::InPlace,
            Self::Narrow if matrix => Blocks::Tiled,
            Self::Narrow => Blocks::Widened,
        }
    }
}

impl Shape {
    /// The scratch that any call of this shape needs on this target, in f32 elements: at every level, for every
    /// storage type, with every modifier; independent of `batch`, `kv_len` and the number of heads but for their
    /// ratio. Saturates. [`Job::scratch_len`](crate::Job::scratch_len) is what one call needs.
    ///
    /// ```
    /// const DECODE: gqa::Shape =
    ///     gqa::Shape { batch: 1, q_heads: 9, kv_heads: 3, q_len: 1, kv_len: 4096, head_dim: 64, value_dim: 64 };
    /// let mut scratch = [0.0f32; DECODE.scratch_len()];
    /// # let _ = &mut scratch;
    /// ```
    #[must_use]
    pub const fn scratch_len(&self) -> usize {
        let mut len = 0;
        let mut i = 0;
        while i < LEVELS.len() {
            let needed = self.scratch_len_at(LEVELS[i], KvStorage::Narrow);
            if needed > len {
                len = needed;
            }
            i += 1;
        }
        len
    }

    /// As [`scratch_len`](Self::scratch_len), for one level and storage.
    #[must_use]
    pub const fn scratch_len_at(&self, level: Level, storage: KvStorage) -> usize {
        let (mut len, mut i) = (0, 0);
        while i < Blocks::ALL.len() {
            if Blocks::ALL[i].may_be(storage, level) {
                let needed = self.scratch_len_for(level, Blocks::ALL[i]);
                len = if needed > len { needed } else { len };
            }
            i += 1;
        }
        len
    }

    /// As [`scratch_len_at`](Self::scratch_len_at), for blocks that lie so.
    pub(crate) const fn scratch_len_for(&self, level: Level, blocks: Blocks) -> usize {
        let rows = self.shared_rows();
        // Fewer rows are few with any products: from there on there is room for either kernel.
        let needed = match Kernel::of(rows, rows, level, Products::Pairs) {
            // As for items of the greatest tile, and for as many rows as are few; others need less.
            Kernel::Many => {
                let tile = Tile::of(level);
                let most = sum(&many(self, level, blocks, tile.vecs).lens());
                let last = few_rows(tile.few_rows, level);
                let last = if SINGLE_TILE { 0 } else { sum(&few(self, level, last).lens()) };
                if last > most { last } else { most }
            }
            Kernel::Few => sum(&few(self, level, few_rows(rows, level)).lens()),
        };
        // To begin at a vector's boundary.
        needed.saturating_add(level.lanes() - 1)
    }

    /// The memory that [`Job::split_kv`](crate::Job::split_kv) needs at most for any call of this shape on this target, and for
    /// those with fewer rows, fewer keys or a smaller batch, in f32 elements: at every level, for every storage type. Saturates.
    ///
    /// ```
    /// const DECODE: gqa::Shape =
    ///     gqa::Shape { batch: 1, q_heads: 8, kv_heads: 1, q_len: 1, kv_len: 8192, head_dim: 256, value_dim: 256 };
    /// // For each 768 keys the rows of the output, some padded: about 1 % of the keys and values.
    /// assert!(DECODE.partials_len() < DECODE.kv_len * (256 + 256) / 50);
    /// ```
    #[must_use]
    pub const fn partials_len(&self) -> usize {
        let mut len = 0;
        let mut i = 0;
        while i < LEVELS.len() {
            let needed = self.partials_len_at(LEVELS[i]);
            if needed > len {
                len = needed;
            }
            i += 1;
        }
        len
    }

    /// As [`partials_len`](Self::partials_len), for one level.
    #[must_use]
    pub const fn partials_len_at(&self, level: Level) -> usize {
        let (all, most) = (self.shared_rows(), Tile::of(level).least_rows());
        let (mut len, mut rows) = (0, 1);
        while CHUNKS && rows <= all && rows <= most {
            let needed = Split::of_rows(self, rows, level).total(level);
            len = if needed > len { needed } else { len };
            rows += 1;
        }
        len
    }
}

pub(super) const fn sum(lens: &[usize]) -> usize {
    let mut sum: usize = 0;
    let mut i = 0;
    while i < lens.len() {
        sum = sum.saturating_add(lens[i]);
        i += 1;
    }
    sum
}

/// Whether narrow numbers are widened where they are read, and not a block ahead: without vectors that costs the same.
pub(crate) const fn in_place(level: Level) -> bool {
    level.lanes() == 1
}

/// Elements of each buffer of the many-rows kernel.
#[derive(Clone, Copy)]
pub(crate) struct Many {
    /// Groups of rows of an item, at most.
    pub(crate) groups: usize,
    /// Q of a group, transposed: `[head_dim][rows]`.
    pub(crate) queries: usize,
    /// Scores, then weights, of a group: `[block][rows]`.
    pub(crate) weights: usize,
    /// O of a group, transposed: `[value_dim][rows]`.
    pub(crate) output: usize,
    /// Maximum, sum and factor of a group's rows: `[3][rows]`.
    pub(crate) state: usize,
    /// Groups that have the last two once more, for all chunks.
    pub(crate) totals: usize,
    /// A block of K or V widened: `[block][dim]`.
    pub(crate) wide: usize,
}

/// How many sums a kernel keeps of a row.
const fn sums(level: Level) -> usize {
    if !CHUNKS || Tile::of(level).chunk == UNSPLIT { 1 } else { 2 }
}

impl Many {
    /// Elements of what the keys come to for a group.
    const fn sums_len(&self) -> usize {
        self.output.saturating_add(self.state)
    }

    /// Everything of all groups; each is a whole number of vectors but the last.
    pub(super) const fn lens(&self) -> [usize; 4] {
        let groups = self.groups;
        [
            self.queries.saturating_mul(groups),
            self.weights.saturating_mul(groups),
            self.sums_len().saturating_mul(groups + self.totals),
            self.wide,
        ]
    }
}

/// With groups of `vecs` vectors.
pub(crate) const fn many(shape: &Shape, level: Level, blocks: Blocks, vecs: usize) -> Many {
    many_of(shape, shape.shared_rows(), level, blocks, vecs)
}

/// As if each KV head had so many rows.
const fn many_of(shape: &Shape, all: usize, level: Level, blocks: Blocks, vecs: usize) -> Many {
    let tile = Tile::of(level);
    let rows = tile.lanes * vecs;
    let needed = div_up(all, rows);
    let dim = if shape.head_dim > shape.value_dim { shape.head_dim } else { shape.value_dim };
    let (most, block) = (most_groups(shape, level, blocks), tile.block(blocks));
    let groups = if needed < most { needed } else { most };
    // Where there are more groups all keys are one chunk.
    let totals = if groups < tile.least_groups() { groups } else { tile.least_groups() };
    Many {
        groups,
        queries: shape.head_dim.saturating_mul(rows),
        weights: block * rows,
        output: shape.value_dim.saturating_mul(rows),
        state: 3 * rows,
        totals: totals * (sums(level) - 1),
        wide: match blocks {
            Blocks::InPlace => 0,
            _ if in_place(level) => 0,
            _ => dim.saturating_mul(block),
        },
    }
}

/// Rows of a tile of a matrix unit, and lanes of the level that it is beside.
pub(super) const MATRIX_ROWS: usize = 16;

/// Elements of each buffer of the few-rows kernel.
#[derive(Clone, Copy)]
pub(crate) struct Few {
    /// Q, padded to whole vectors: `[rows][head_dim]`, rows that go together interleaved by vectors; where there may be a matrix unit, with room
    /// for its tiles of pairs.
    pub(crate) queries: usize,
    /// Scores, then weights: `[rows][block]`.
    pub(crate) weights: usize,
    /// O, padded to whole vectors: `[rows][value_dim]`.
    pub(crate) output: usize,
    /// Maximum, sum and factor of each row, padded to whole vectors: `[3][rows]`.
    pub(crate) state: usize,
    /// How many of the last two a row has: one of all chunks, and one of the chunk that is being computed.
    pub(crate) sums: usize,
    /// What a block adds to O while its values are streamed, as `output`.
    pub(crate) block_output: usize,
    /// What a matrix unit takes and gives, at levels beside which there may be one: rows of Q of a head, then a square of scores and 16 keys,
    /// or sums.
    pub(crate) room: usize,
}

impl Few {
    /// Elements of what the keys come to.
    const fn sums_len(&self) -> usize {
        self.output.saturating_add(self.state)
    }

    pub(super) const fn lens(&self) -> [usize; 5] {
        let sums = self.sums_len().saturating_mul(self.sums);
        [self.queries, self.weights, sums, self.block_output, self.room]
    }
}

pub(crate) const fn few(shape: &Shape, level: Level, rows: usize) -> Few {
    let tile = Tile::of(level);
    let output = rows.saturating_mul(padded(shape.value_dim, tile.lanes));
    let (queries, room) = if level.lanes() == MATRIX_ROWS {
        // Whole tiles of pairs, for at most twice as many columns as there are rows.
        let row = padded(shape.head_dim, 2 * MATRIX_ROWS);
        let least = MATRIX_ROWS * STRIP;
        let room = row.saturating_mul(MATRIX_ROWS);
        (row, if room > least { room } else { least })
    } else {
        (padded(shape.head_dim, tile.lanes), 0)
    };
    Few {
        queries: rows.saturating_mul(queries),
        weights: rows * tile.few_block,
        output,
        block_output: if tile.streamed > 0 { output } else { 0 },
        state: 3 * padded(rows, tile.lanes),
        sums: sums(level),
        room,
    }
}

/// `dim` rounded up to whole vectors, saturating; one vector at least, so that a compiler sees that rows of this length
/// are not empty.
pub(crate) const fn padded(dim: usize, lanes: usize) -> usize {
    let len = dim.div_ceil(lanes).saturating_mul(lanes);
    if len == 0 { lanes } else { len }
}

/// Cuts buffers off the front of the scratch, the first at a vector's boundary.
pub(crate) struct Carver<'a> {
    rest: &'a mut [f32],
}

impl<'a> Carver<'a> {
    pub(crate) fn new(scratch: &'a mut [f32], level: Level) -> Self {
        let bytes = level.lanes() * size_of::<f32>();
        let skip = match scratch.as_ptr().align_offset(bytes) {
            // An interpreter may not tell: aligned access is faster, not required.
            usize::MAX => 0,
            skip => skip,
        };
        Self { rest: scratch.get_mut(skip..).unwrap_or_default() }
    }

    /// The next `len` elements; fewer if the scratch is too short, which its check excludes.
    pub(crate) fn take(&mut self, len: usize) -> &'a mut [f32] {
        let rest = core::mem::take(&mut self.rest);
        let (taken, rest) = rest.split_at_mut_checked(len).unwrap_or_default();
        self.rest = rest;
        taken
    }
}

/// What the chunks of a call come to, as they are kept until the last has been computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    /// Places: cuts of all KV heads, some of them together, of all sequences.
    pub(crate) places: usize,
    /// Chunks of a place; 1 where nothing is split.
    pub(crate) chunks: usize,
    /// Elements of what a chunk comes to: whole vectors.
    pub(crate) len: usize,
}

impl Split {
    pub(crate) const fn of(shape: &Shape, level: Level) -> Self {
        Self::of_rows(shape, shape.shared_rows(), level)
    }

    /// As if each KV head had so many rows.
    const fn of_rows(shape: &Shape, rows: usize, level: Level) -> Self {
        let places = {
            let groups = Tile::of(level).least_groups();
            let (mut most, mut i) = (0, 0);
            while i < Products::ALL.len() {
                let places = Cuts::of(rows, groups, level, Products::ALL[i]).count();
                most = if places > most { places } else { most };
                i += 1;
            }
            most
        };
        let tile = Tile::of(level);
        let few = few(shape, level, if rows < tile.few_rows { rows } else { tile.few_rows });
        let many = many_of(shape, rows, level, Blocks::InPlace, tile.vecs);
        let (few, many) = (few.sums_len(), many.sums_len().saturating_mul(many.groups));
        // As above.
        let len = match Kernel::of(rows, rows, level, Products::Pairs) {
            Kernel::Many if many > few => many,
            _ => few,
        };
        Self {
            places: places.saturating_mul(shape.kv_heads).saturating_mul(shape.batch),
            chunks: div_up(shape.kv_len, chunk(rows, level)),
            len,
        }
    }

    /// With so many heads to a place, a divisor of their number: no more memory.
    pub(crate) const fn together(self, heads: usize) -> Self {
        let (places, _) = div_rem(self.places, heads);
        Self { places, len: self.len.saturating_mul(heads), ..self }
    }

    /// Elements of a counter for each place, rounded up to whole vectors.
    pub(crate) const fn counters(&self, level: Level) -> usize {
        padded(self.places.saturating_mul(size_of::<usize>() / size_of::<f32>()), level.lanes())
    }

    /// Elements at whose multiples everything begins.
    pub(crate) const fn align(level: Level) -> usize {
        let counter = align_of::<usize>() / align_of::<f32>();
        if counter > level.lanes() { counter } else { level.lanes() }
    }

    /// Elements of everything; 0 where nothing is split.
    pub(crate) const fn total(&self, level: Level) -> usize {
        if !CHUNKS || self.chunks <= 1 || self.places == 0 {
            return 0;
        }
        let states = self.len.saturating_mul(self.chunks).saturating_mul(self.places);
        // To begin at the boundary of a vector and of a counter.
        states.saturating_add(self.counters(level)).saturating_add(Self::align(level) - 1)
    }
}
