//! The fused loop nest: for a tile of query rows, block by block of keys, scores → softmax → values.
//!
//! ```text
//! for keys in blocks of the KV range that any row of the tile sees:
//!     S  = Q Kᵀ                          (scores)
//!     S  = modifiers(S)                  (score/)
//!     m' = max(m, max S);  f = e^(m - m');  P = e^(S - m')
//!     l  = f l + Σ P                     (softmax)
//!     O  = f O + P V                     (values)
//! out = O / l;  lse = m + ln l
//! ```
//!
//! Where few rows share a KV head (`tiling::chunk`), the nest runs for a chunk of keys at a time, from nothing, and `m`, `l` and `O` of the chunks are
//! merged in their order (as in Flash-Decoding): by one task, or by the last of several that share them ([`Chunks`]).
//!
//! Blocks begin at multiples of their size, and what a row adds for a hidden key is exactly nothing, so a row's bits
//! depend on no other row. Two kernels share the modifiers and this nest: in [`many`] the rows lie in the lanes,
//! in [`few`] the head dimension does, or keys and rows in the tiles of a matrix unit.

mod arithmetic;
mod ends;
mod few;
mod later;
mod many;
mod scores;
mod softmax;
mod squares;
mod stairs;
mod tiled;
mod values;

use core::ops::Range;
use core::slice::ChunksExactMut;

use arithmetic::{Arithmetic, Paired, Single};
pub(crate) use ends::Ends;
use ends::{AnySteps, Steps};
use half::{bf16, f16};
use softmax::Total;
use tiled::Tiled;

use crate::element::{ByTypes, Storage};
use crate::extra::Extra;
use crate::isa::{Isa, Level, MAX_LANES, Op, Pairs, PairsLevel, PairsOp, TileOp, Unit};
use crate::panel::{Panel, RowsMut};
use crate::place::Place;
use crate::score::Modifiers;
use crate::score::block::{Inspection, Scoring, Stage};
use crate::score::visibility::Sequence;
use crate::shape::Shape;
use crate::tiling::{self, CHUNKS, Kernel, KvStorage, Products, SINGLE_TILE, Tile, div_rem};
use crate::view::View;

/// Rounds of the inner loops that are written out: counting takes issue slots of the multiply-adds. One where code
/// size matters more.
const UNROLL: usize =
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_abi = "eabihf")) { 2 } else { 1 };

/// Whether loading and finishing are called as such and not by a table, which takes memory: where a build is likely to have one set of types.
const DIRECT: bool = SINGLE_TILE && MAX_LANES == 1;

/// One work item, but for its keys and values: [`ByTypes`] takes these. The loop nest is compiled for each way to store them, and calls what
/// is compiled for each way to store queries and outputs.
pub(crate) struct Work<'a, Q, O> {
    pub(crate) level: Level,
    /// Proof that the level has products of bf16, if they may be taken.
    pub(crate) pairs: Option<PairsLevel>,
    pub(crate) given: Given<'a>,
    pub(crate) ends: Ends<'a, Q, O>,
}

/// What a work item has whatever the types.
pub(crate) struct Given<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) modifiers: &'a Modifiers<'a>,
    pub(crate) place: Place,
    pub(crate) chunks: Chunks<'a>,
    pub(crate) reports: &'a mut Reports<'a>,
    pub(crate) scratch: &'a mut [f32],
}

/// One work item as the loop nest sees it.
struct Task<'a, K, V> {
    shape: &'a Shape,
    modifiers: &'a Modifiers<'a>,
    place: Place,
    k: &'a View<'a, K>,
    v: &'a View<'a, V>,
    chunks: Chunks<'a>,
    /// Apart from the rest, which need not lie in memory then.
    reports: &'a mut Reports<'a>,
    scratch: &'a mut [f32],
}

/// Which chunks of keys a task computes, see [`tiling::chunk`], and where what they come to is kept.
pub(crate) enum Chunks<'a> {
    /// All; each is taken in before the next is computed.
    All,
    /// The one of this number, which comes to what is written here, and not to results.
    One(usize, &'a mut [f32]),
    /// None, since others have computed them: only the results are left.
    Computed(Computed<'a>),
}

/// What the chunks that other tasks computed came to, in order.
pub(crate) struct Computed<'a> {
    pub(crate) parts: ChunksExactMut<'a, f32>,
    /// The number of the first that is left.
    pub(crate) next: usize,
}

impl<'a> Computed<'a> {
    /// The one of this number; those before it are passed over.
    fn part(&mut self, index: usize) -> &'a mut [f32] {
        let skipped = index.saturating_sub(self.next);
        self.next = index + 1;
        self.parts.nth(skipped).unwrap_or_default()
    }
}

/// What finishing needs beside what the keys came to, and the output.
struct Rest<'r, 'a> {
    place: &'r Place,
    sinks: Extra<&'r [f32]>,
    reports: &'r mut Reports<'a>,
}

/// What a work item writes.
pub(crate) struct Results<'a, O> {
    pub(crate) out: RowsMut<'a, O>,
    pub(crate) reports: Reports<'a>,
}

/// What the caller asked for beside the output.
pub(crate) struct Reports<'a> {
    pub(crate) lse: Extra<RowsMut<'a, f32>>,
    pub(crate) inspection: Inspection<'a>,
}

/// Whether the values of hidden keys are taken to be finite. Looking at each takes as long as reading it again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// They are. 0 times one that is not is NaN: then an attempt is given up.
    Full,
    /// Each block's are looked at.
    None,
}

/// The loop nest of one task, as a kernel has it. Each step is inlined where [`Visits::run`] takes it.
trait Nest<'a> {
    /// Takes in the queries.
    fn load(&mut self);
    /// Computes what the rows make of `keys`, of one chunk. Whether that has come to anything.
    fn compute(&mut self, keys: &Range<usize>, trust: Trust) -> bool;
    /// From now on what is computed comes to `part`, or is there already.
    fn compute_in(&mut self, part: &'a mut [f32]);
    /// Nothing has been computed for the rows.
    fn compute_nothing(&mut self);
    /// What has been computed is the first of the total.
    fn begin_total(&mut self);
    /// What has been computed is taken in to the total.
    fn take_in(&mut self);
    /// Writes the rows.
    fn finish(self);
}

/// The keys that a task visits, chunk by chunk.
struct Visits<'a> {
    sight: Sight,
    /// Those that are left.
    keys: Range<usize>,
    chunk: usize,
    chunks: Chunks<'a>,
}

impl<'a> Visits<'a> {
    /// Takes the steps of a nest. A chunk is computed with trust, and once more without if that came to nothing.
    #[inline(always)]
    fn run(mut self, mut nest: impl Nest<'a>) {
        let (mut computed, mut one) = (None, false);
        match core::mem::replace(&mut self.chunks, Chunks::All) {
            Chunks::One(_, part) if CHUNKS => {
                nest.compute_in(part);
                one = true;
            }
            Chunks::Computed(parts) if CHUNKS => computed = Some(parts),
            _ => {}
        }
        if computed.is_none() {
            nest.load();
        }
        let mut empty = true;
        while let Some(keys) = self.next() {
            if let Some(computed) = &mut computed {
                nest.compute_in(computed.part(div_rem(keys.start, self.chunk).0));
            } else {
                for trust in [Trust::Full, Trust::None] {
                    if nest.compute(&keys, trust) {
                        break;
                    }
                }
            }
            if empty {
                nest.begin_total();
            } else {
                nest.take_in();
            }
            empty = false;
        }
        if empty {
            nest.compute_nothing();
            nest.begin_total();
        }
        if !one {
            nest.finish();
        }
    }

    /// The keys of the next chunk that some row sees.
    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        if !CHUNKS {
            let keys = core::mem::replace(&mut self.keys, 0..0);
            return (!keys.is_empty()).then_some(keys);
        }
        while !self.keys.is_empty() {
            let Range { start, end } = self.keys;
            let start = self.sight.sequence.next_seen(&self.sight.positions, start);
            let (index, _) = div_rem(start, self.chunk);
            let end = (index * self.chunk).saturating_add(self.chunk).min(end);
            self.keys.start = end.max(start);
            let keys = self.sight.seen_in(&(start..end));
            if !keys.is_empty() {
                return Some(keys);
            }
        }
        None
    }
}

impl<'a, Q: Storage, O: Storage> ByTypes<'a> for Work<'a, Q, O> {
    #[inline(always)]
    fn f32(mut self, k: &'a View<'a, f32>, v: &'a View<'a, f32>) {
        if DIRECT {
            self.mixed(k, v);
        } else {
            compute_f32(self.level, &mut self.given.with(k, v), &mut self.ends);
        }
    }

    #[inline(always)]
    fn f16(mut self, k: &'a View<'a, f16>, v: &'a View<'a, f16>) {
        if DIRECT {
            self.mixed(k, v);
        } else {
            compute_f16(self.level, &mut self.given.with(k, v), &mut self.ends);
        }
    }

    #[inline(always)]
    fn bf16(mut self, k: &'a View<'a, bf16>, v: &'a View<'a, bf16>) {
        if DIRECT {
            self.mixed(k, v);
        } else {
            compute_bf16(self.level, self.pairs, &mut self.given.with(k, v), &mut self.ends);
        }
    }

    #[inline(always)]
    fn mixed<K: Storage, V: Storage>(mut self, k: &'a View<'a, K>, v: &'a View<'a, V>) {
        let task = &mut self.given.with(k, v);
        if DIRECT {
            self.level.dispatch(OfTask { task, steps: self.ends });
        } else {
            compute(self.level, task, &mut self.ends);
        }
    }
}

#[inline(never)]
fn compute_f32(level: Level, task: &mut Task<'_, f32, f32>, steps: &mut dyn AnySteps) {
    compute(level, task, steps);
}

#[inline(never)]
fn compute_f16(level: Level, task: &mut Task<'_, f16, f16>, steps: &mut dyn AnySteps) {
    compute(level, task, steps);
}

#[inline(never)]
fn compute_bf16(
    level: Level,
    pairs: Option<PairsLevel>,
    task: &mut Task<'_, bf16, bf16>,
    steps: &mut dyn AnySteps,
) {
    match pairs {
        Some(pairs) => pairs.dispatch(OfTask { task, steps }),
        None => compute(level, task, steps),
    }
}

/// Runs the nest, which takes its steps by a table.
#[inline(always)]
fn compute<K: Storage, V: Storage>(level: Level, task: &mut Task<'_, K, V>, steps: &mut dyn AnySteps) {
    // Else it would be compiled all the same.
    if !DIRECT {
        level.dispatch(OfTask { task, steps });
    }
}

/// A task, and what is done with its queries and outputs.
struct OfTask<'t, 'a, K, V, E> {
    task: &'t mut Task<'a, K, V>,
    steps: E,
}

impl<K: Storage, V: Storage, E: Steps> Op for OfTask<'_, '_, K, V, E> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let Place { count, .. } = self.task.place;
        match Kernel::of(count, self.task.shape.shared_rows(), S::LEVEL, Products::Single) {
            Kernel::Few => few::compute(s, Single, self.task, self.steps),
            Kernel::Many => {
                s.with_tile(Tile::of(S::LEVEL).vecs_for(count), OfTile { s, work: self, arithmetic: Single })
            }
        }
    }
}

/// With products of bf16: of few rows by a matrix unit, or not at all.
impl<E: Steps> PairsOp for OfTask<'_, '_, bf16, bf16, E> {
    #[inline(always)]
    fn run<S: Pairs>(self, s: S, unit: Option<&Unit>) {
        let (plain, pairs) = (s.plain(), Paired(s));
        let Self { task, steps } = self;
        let Place { count, .. } = task.place;
        let products = Products::of_pairs(task.shape, unit.is_some());
        if Kernel::of(count, task.shape.shared_rows(), S::LEVEL, products) == Kernel::Few {
            match unit.filter(|_| products == Products::Tiles) {
                Some(unit) => few::compute(plain, Tiled { pairs, unit }, task, steps),
                None => few::compute(plain, Single, task, steps),
            }
            return;
        }
        let (vecs, work) = (Tile::of(S::LEVEL).vecs_for(count), OfTask { task, steps });
        match unit {
            Some(unit) => s.with_tile(vecs, OfTile { s: plain, work, arithmetic: Tiled { pairs, unit } }),
            None => s.with_tile(vecs, OfTile { s: plain, work, arithmetic: pairs }),
        }
    }
}

struct OfTile<'t, 'a, S, K, V, E, A> {
    s: S,
    work: OfTask<'t, 'a, K, V, E>,
    arithmetic: A,
}

impl<S: Isa, K: Storage, V: Storage, E: Steps, A: Arithmetic<S, K, V>> TileOp
    for OfTile<'_, '_, S, K, V, E, A>
{
    #[inline(always)]
    fn run<const KEYS: usize, const VECS: usize>(self) {
        let OfTask { task, steps } = self.work;
        if DIRECT {
            many::compute::<S, K, V, A, E, KEYS, VECS>(self.s, self.arithmetic, task, steps);
        } else {
            many::compute_apart::<S, K, V, A, E, KEYS, VECS>(self.s, self.arithmetic, task, steps);
        }
    }
}

impl<'a> Given<'a> {
    #[inline(always)]
    fn with<K, V>(self, k: &'a View<'a, K>, v: &'a View<'a, V>) -> Task<'a, K, V> {
        let Self { shape, modifiers, place, chunks, reports, scratch } = self;
        Task { shape, modifiers, place, k, v, chunks, reports, scratch }
    }
}

impl<'a, K: Storage, V: Storage> Task<'a, K, V> {
    fn storage(&self) -> KvStorage {
        if K::WIDENS || V::WIDENS { KvStorage::Narrow } else { KvStorage::F32 }
    }

    fn scoring(&self) -> Scoring<'a> {
        let sequence = self.modifiers.visibility.sequence(self.shape, self.place.batch);
        Scoring { modifiers: self.modifiers, sequence, place: self.place }
    }

    /// The keys; a row has those of all heads.
    fn keys(&self) -> Option<Panel<'a, K>> {
        let rows = self.k.head(self.place.batch, self.place.kv_head);
        let heads = self.place.heads.count();
        Panel::new(rows, self.k.strides.row, self.shape.kv_len, heads * self.shape.head_dim)
    }

    /// The values; a row has those of all heads.
    fn values(&self) -> Option<Panel<'a, V>> {
        let rows = self.v.head(self.place.batch, self.place.kv_head);
        let heads = self.place.heads.count();
        Panel::new(rows, self.v.strides.row, self.shape.kv_len, heads * self.shape.value_dim)
    }

    /// Bytes of all keys and values of the call.
    fn kv_bytes(&self) -> usize {
        let Shape { batch, kv_heads, kv_len, head_dim, value_dim, .. } = *self.shape;
        let key = (head_dim * size_of::<K>()).saturating_add(value_dim * size_of::<V>());
        batch.saturating_mul(kv_heads).saturating_mul(kv_len).saturating_mul(key)
    }

    /// Where the rows stand, and what they see as far as it decides which keys are visited.
    fn sight(&self, sequence: Sequence) -> Sight {
        let sequence = match self.reports.inspection.get() {
            // These stages are before visibility.
            Some((Stage::Raw | Stage::Softcapped, _)) => Sequence::unlimited(self.shape.kv_len),
            _ => sequence,
        };
        Sight { sequence, positions: self.place.positions(0..self.place.count) }
    }

    /// The keys that the task visits.
    fn visits(&mut self, sight: &Sight, level: Level) -> Visits<'a> {
        let chunk = tiling::chunk(self.shape.shared_rows(), level);
        let chunks = core::mem::replace(&mut self.chunks, Chunks::All);
        let keys = match chunks {
            Chunks::One(index, _) if CHUNKS => index * chunk..(index * chunk).saturating_add(chunk),
            _ => 0..self.shape.kv_len,
        };
        Visits { sight: sight.clone(), keys: sight.seen_in(&keys), chunk, chunks }
    }
}

/// See [`Task::sight`].
#[derive(Clone)]
struct Sight {
    sequence: Sequence,
    positions: Range<usize>,
}

impl Sight {
    /// The keys of `keys` that some row sees, from the first to the last.
    fn seen_in(&self, keys: &Range<usize>) -> Range<usize> {
        self.sequence.seen_in(&self.positions, keys)
    }

    /// The keys of `keys` that some row sees, cut at the multiples of `block`.
    fn blocks(&self, keys: &Range<usize>, block: usize) -> impl Iterator<Item = Range<usize>> {
        self.sequence.blocks(&self.positions, keys, block)
    }
}

impl<O: Storage> Results<'_, O> {
    /// Those of a task that leaves them to others.
    pub(crate) fn none() -> Self {
        Self { out: RowsMut::none(), reports: Reports { lse: Extra::NONE, inspection: Extra::NONE } }
    }
}

impl Reports<'_> {
    /// What the visits leave out is hidden.
    pub(crate) fn prefill_inspection(&mut self, rows: usize) {
        if let Some((Stage::Biased | Stage::Softmax, scores)) = self.inspection.get_mut() {
            for row in 0..rows {
                scores.row(row).fill(f32::NEG_INFINITY);
            }
        }
    }

    /// Writes them: `total` has a row of `rows` in each lane.
    #[inline(always)]
    fn report<S: Isa>(&mut self, s: S, rows: Range<usize>, total: &Total<S>) {
        if let Some(lse) = self.lse.get_mut() {
            for (row, x) in rows.clone().zip(total.lse(s)) {
                if let Some(to) = lse.row(row).first_mut() {
                    *to = x;
                }
            }
        }
        if let Some((Stage::Softmax, scores)) = self.inspection.get_mut() {
            for (lane, row) in rows.enumerate() {
                total.weights(s, lane, scores.row(row));
            }
        }
    }
}
