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
//! Where a KV head has few rows, the nest runs for a chunk of keys at a time, from nothing, and `m`, `l` and `O` of the chunks are
//! merged in their order (as in Flash-Decoding): by one task, or by the last of several that share them ([`Chunks`]).
//!
//! Blocks begin at multiples of their size, and what a row adds for a hidden key is exactly nothing, so a row's bits
//! depend on no other row. Two kernels share the modifiers and this nest: in [`many`] the rows lie in the lanes,
//! in [`few`] the head dimension does.

mod arithmetic;
mod few;
mod many;
mod scores;
mod softmax;
mod values;

use core::ops::Range;
use core::slice::ChunksExactMut;

use arithmetic::{Arithmetic, Paired, Single};
use half::bf16;
use softmax::Total;

use crate::element::Element;
use crate::extra::Extra;
use crate::isa::{Isa, Level, Op, Pairs, PairsOp, TileOp};
use crate::panel::{Panel, Place, Rows, RowsMut};
use crate::score::Modifiers;
use crate::score::block::{Inspection, Scoring, Stage};
use crate::score::visibility::Sequence;
use crate::shape::Shape;
use crate::tiling::{self, Kernel, KvStorage, Tile, div_rem};
use crate::view::View;

/// Rounds of the inner loops that are written out: counting takes issue slots of the multiply-adds. One where code
/// size matters more.
const UNROLL: usize =
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_abi = "eabihf")) { 2 } else { 1 };

/// One work item as a kernel sees it.
pub(crate) struct Task<'a, Q, K, V, O> {
    pub(crate) shape: &'a Shape,
    pub(crate) modifiers: &'a Modifiers<'a>,
    pub(crate) place: Place,
    pub(crate) q: &'a View<'a, Q>,
    pub(crate) k: &'a View<'a, K>,
    pub(crate) v: &'a View<'a, V>,
    pub(crate) chunks: Chunks<'a>,
    /// Where the rows are written: none for a task that leaves this to others. Apart from the rest, which need not lie in memory then.
    pub(crate) results: Option<&'a mut Results<'a, O>>,
    pub(crate) scratch: &'a mut [f32],
}

/// Which chunks of keys a task computes, see [`tiling::chunk`], and where what they come to is kept.
pub(crate) enum Chunks<'a> {
    /// All; each is taken in before the next is computed.
    All,
    /// The one of this number, which comes to what is written here.
    One(usize, &'a mut [f32]),
    /// None, since others have computed them.
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

/// What a work item writes.
pub(crate) struct Results<'a, O> {
    pub(crate) out: RowsMut<'a, O>,
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

/// Runs `attempt`, and once more with less trust if it was given up.
#[inline(always)]
fn attempts(mut attempt: impl FnMut(Trust) -> bool) {
    for trust in [Trust::Full, Trust::None] {
        if attempt(trust) {
            return;
        }
    }
}

impl<Q: Element, K: Element, V: Element, O: Element> Op for Task<'_, Q, K, V, O> {
    #[inline(always)]
    fn run<S: Isa>(mut self, s: S) {
        match Kernel::of(self.place.count, self.shape.shared_rows(), S::LEVEL) {
            Kernel::Few => few::run(s, &mut self),
            Kernel::Many => {
                let vecs = Tile::of(S::LEVEL).vecs_for(self.place.count);
                s.with_tile(vecs, ManyRows { s, task: &mut self, arithmetic: Single });
            }
        }
    }
}

/// A task of many rows, with products of bf16.
impl<Q: Element, O: Element> PairsOp for Task<'_, Q, bf16, bf16, O> {
    #[inline(always)]
    fn run<S: Pairs>(mut self, s: S) {
        let vecs = Tile::of(S::LEVEL).vecs_for(self.place.count);
        s.with_tile(vecs, ManyRows { s, task: &mut self, arithmetic: Paired });
    }
}

struct ManyRows<'t, 'a, S, Q, K, V, O, A> {
    s: S,
    task: &'t mut Task<'a, Q, K, V, O>,
    #[expect(dead_code, reason = "only its type matters")]
    arithmetic: A,
}

impl<S: Isa, Q: Element, K: Element, V: Element, O: Element, A: Arithmetic<S, K, V>> TileOp
    for ManyRows<'_, '_, S, Q, K, V, O, A>
{
    #[inline(always)]
    fn run<const KEYS: usize, const VECS: usize>(self) {
        many::run::<S, Q, K, V, O, A, KEYS, VECS>(self.s, self.task);
    }
}

impl<'a, Q: Element, K: Element, V: Element, O: Element> Task<'a, Q, K, V, O> {
    fn storage(&self) -> KvStorage {
        if K::WIDENS || V::WIDENS { KvStorage::Narrow } else { KvStorage::F32 }
    }

    fn scoring(&self) -> Scoring<'a> {
        let sequence = self.modifiers.visibility.sequence(self.shape, self.place.batch);
        Scoring { modifiers: self.modifiers, sequence, place: self.place }
    }

    /// The query rows of the item.
    fn queries(&self) -> Rows<'a, Q> {
        Rows { view: *self.q, dim: self.shape.head_dim, place: self.place }
    }

    /// The query rows of the item that comes after this one for the same keys, if there is one.
    fn next_queries(&self) -> Option<Rows<'a, Q>> {
        let first = self.place.first + self.place.count;
        let count = self.shape.shared_rows().checked_sub(first)?.min(self.place.count);
        (count > 0).then(|| Rows { place: Place { first, count, ..self.place }, ..self.queries() })
    }

    fn keys(&self) -> Option<Panel<'a, K>> {
        let rows = self.k.head(self.place.batch, self.place.kv_head);
        Panel::new(rows, self.k.strides.row, self.shape.kv_len, self.shape.head_dim)
    }

    fn values(&self) -> Option<Panel<'a, V>> {
        let rows = self.v.head(self.place.batch, self.place.kv_head);
        Panel::new(rows, self.v.strides.row, self.shape.kv_len, self.shape.value_dim)
    }

    /// Bytes of all keys and values of the call.
    fn kv_bytes(&self) -> usize {
        let Shape { batch, kv_heads, kv_len, head_dim, value_dim, .. } = *self.shape;
        let key = (head_dim * size_of::<K>()).saturating_add(value_dim * size_of::<V>());
        batch.saturating_mul(kv_heads).saturating_mul(kv_len).saturating_mul(key)
    }

    /// The rows and what they see, as far as it decides which keys are visited.
    fn sight(&self, sequence: Sequence) -> Sight {
        let inspection = self.results.as_ref().and_then(|results| results.inspection.get());
        let sequence = match inspection {
            // These stages are before visibility.
            Some((Stage::Raw | Stage::Softcapped, _)) => Sequence::unlimited(self.shape.kv_len),
            _ => sequence,
        };
        Sight { sequence, positions: self.place.positions(0..self.place.count) }
    }

    /// The keys that the task visits, cut into chunks.
    fn visits(&self, sight: &Sight, level: Level) -> impl Iterator<Item = Range<usize>> + use<Q, K, V, O> {
        let chunk = tiling::chunk(self.shape, level);
        let keys = match self.chunks {
            Chunks::One(index, _) if tiling::CHUNKS => index * chunk..(index * chunk).saturating_add(chunk),
            _ => 0..self.shape.kv_len,
        };
        sight.blocks(&keys, chunk)
    }

    /// The number of the chunk that keys lie in.
    fn chunk(&self, level: Level, keys: &Range<usize>) -> usize {
        div_rem(keys.start, tiling::chunk(self.shape, level)).0
    }
}

/// Where rows stand, and what decides which keys are visited for them.
struct Sight {
    sequence: Sequence,
    positions: Range<usize>,
}

impl Sight {
    /// The keys of `keys` that some row sees, cut at the multiples of `block`.
    fn blocks(&self, keys: &Range<usize>, block: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        self.sequence.blocks(self.positions.clone(), keys, block)
    }
}

impl<O: Element> Results<'_, O> {
    /// What the visits leave out is hidden.
    pub(crate) fn prefill_inspection(&mut self, rows: usize) {
        if let Some((Stage::Biased | Stage::Softmax, scores)) = self.inspection.get_mut() {
            for row in 0..rows {
                scores.row(row).fill(f32::NEG_INFINITY);
            }
        }
    }

    /// Writes what the caller asked for beside the output: `total` has a row of `rows` in each lane.
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
