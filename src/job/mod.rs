//! A bound call, and the disjoint work items that it is cut into.
#![allow(unsafe_code, reason = "hands each work item its rows, of the queries and of the outputs")]

mod partials;

use core::iter::FusedIterator;
use core::ops::Range;
#[cfg(target_has_atomic = "ptr")]
use core::sync::atomic::{AtomicUsize, Ordering};

use partials::Partials;

use crate::element::Element;
use crate::error::{Error, Operand};
use crate::extra::Extra;
use crate::isa::{Level, PairsLevel};
use crate::kernel::{Chunks, Computed, Ends, Given, Reports, Results, Work};
use crate::panel::{Grid, Rows};
use crate::place::{Heads, Place};
use crate::score::Modifiers;
use crate::score::block::Stage;
use crate::shape::Shape;
use crate::tiling::{
    Blocks, CHUNKS, Cuts, Kernel, KvStorage, Products, Split, THREADS, div_rem, groups, heads_together,
};
use crate::view::{Extent, Strides, View, ViewMut};

/// A call whose every size, stride and slice has been checked: what [`Attention::bind`](crate::Attention::bind) returns.
///
/// Run it on one thread with [`run`](Self::run), or hand its [`items`](Self::items) to any thread pool. It may be run
/// again: the same inputs give the same bits.
///
/// ```
/// use gqa::{Attention, Shape, View, ViewMut};
/// let shape = Shape { batch: 1, q_heads: 2, kv_heads: 1, q_len: 1, kv_len: 2, head_dim: 1, value_dim: 1 };
/// let (q, k, v) = ([0.0f32; 2], [0.0f32; 2], [1.0f32, 3.0]);
/// let (mut out, mut lse) = ([0.0f32; 2], [0.0f32; 2]);
/// let mut job = Attention::new(shape)?
///     .bind(View::bhsd(&q, 2, 1, 1), View::bhsd(&k, 1, 2, 1), View::bhsd(&v, 1, 2, 1), ViewMut::bhsd(&mut out, 2, 1, 1))?
///     .lse(ViewMut::bhsd(&mut lse, 2, 1, 1))?;
/// let mut scratch = vec![0.0; job.scratch_len()];
/// job.run(&mut scratch)?;
/// assert_eq!(out, [2.0, 2.0]);
/// assert!((lse[0] - 2f32.ln()).abs() < 1e-6);
/// # Ok::<(), gqa::Error>(())
/// ```
#[derive(Debug)]
pub struct Job<'a, Q, K, V, O> {
    shape: Shape,
    level: Level,
    /// Where products are of pairs of bf16.
    pairs: Option<PairsLevel>,
    modifiers: Modifiers<'a>,
    q: View<'a, Q>,
    k: View<'a, K>,
    v: View<'a, V>,
    out: Grid<'a, O>,
    lse: Extra<Grid<'a, f32>>,
    inspection: Extra<(Stage, Grid<'a, f32>)>,
    partials: Option<Partials<'a>>,
    /// That draw items.
    threads: usize,
}

/// Checks an output and makes the grid of its rows.
fn grid<'a, T>(
    operand: Operand,
    view: ViewMut<'a, T>,
    shape: &Shape,
    dim: usize,
) -> Result<Grid<'a, T>, Error> {
    let extent = Extent::rows(operand, view.strides, [shape.batch, shape.q_heads, shape.q_len], dim);
    extent.check(view.data.len())?;
    extent.check_disjoint()?;
    // Rows without elements may have strides of any size.
    let strides = if extent.needed()? == 0 { Strides::NONE } else { view.strides };
    // SAFETY: `check` has found every row inside the view, `check_disjoint` that no two share an element, for the
    // sizes of `shape`; items name only rows of these sizes.
    Ok(unsafe { Grid::new(view, strides, dim) })
}

impl<'a, Q: Element, K: Element, V: Element, O: Element> Job<'a, Q, K, V, O> {
    const STORAGE: KvStorage = if K::WIDENS || V::WIDENS { KvStorage::Narrow } else { KvStorage::F32 };

    /// The one validation of operands; the shape and the modifiers have been checked.
    pub(crate) fn new(
        (shape, level, pairs, modifiers): (Shape, Level, Option<PairsLevel>, Modifiers<'a>),
        (q, k, v): (View<'a, Q>, View<'a, K>, View<'a, V>),
        out: ViewMut<'a, O>,
    ) -> Result<Self, Error> {
        let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim } = shape;
        let q = q.checked(Operand::Query, [batch, q_heads, q_len], head_dim)?;
        let k = k.checked(Operand::Key, [batch, kv_heads, kv_len], head_dim)?;
        let v = v.checked(Operand::Value, [batch, kv_heads, kv_len], value_dim)?;
        let out = grid(Operand::Output, out, &shape, value_dim)?;
        Ok(Self {
            shape,
            level,
            pairs,
            modifiers,
            q,
            k,
            v,
            out,
            lse: Extra::NONE,
            inspection: Extra::NONE,
            partials: None,
            threads: THREADS,
        })
    }

    /// Also writes the natural logarithm of each row's softmax denominator, `lse[batch, q_head, row]` (elements are
    /// placed by the strides of `lse`; a row has one).
    ///
    /// `lse = max + ln Σ e^(s - max)`, sinks included; -∞ for a row that sees no key. With it, parts of an
    /// attention over split keys merge: `out = Σ e^(lseᵢ - lse) outᵢ`.
    ///
    /// # Errors
    /// As for `out` at [`bind`](crate::Attention::bind): too short, or elements that overlap.
    #[cfg(feature = "modifiers")]
    pub fn lse(mut self, lse: ViewMut<'a, f32>) -> Result<Self, Error> {
        self.lse = Extra::some(grid(Operand::Lse, lse, &self.shape, 1)?);
        Ok(self)
    }

    /// Also writes the score matrix `[batch, q_head, row, key]` at one stage of its way, rows of `kv_len` contiguous f32.
    /// The output's bits stay the same; [`Stage::Raw`] and [`Stage::Softcapped`] compute hidden scores as well.
    ///
    /// # Errors
    /// As for `out` at [`bind`](crate::Attention::bind): too short, or rows that overlap.
    #[cfg(feature = "modifiers")]
    pub fn inspect(mut self, stage: Stage, scores: ViewMut<'a, f32>) -> Result<Self, Error> {
        let scores = grid(Operand::Scores, scores, &self.shape, self.shape.kv_len)?;
        self.inspection = Extra::some((stage, scores));
        Ok(self)
    }

    /// The sizes of the call.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The level that it runs at.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The scratch that [`run`](Self::run), or one [`Item`], needs, in f32 elements. Calls with fewer rows need no more, and
    /// `kv_len` and `batch` make no difference: [`Shape::scratch_len`] of the longest chunk of a prompt is enough for all
    /// calls of a model.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.shape.scratch_len_for(self.level, self.blocks())
    }

    /// How many threads will draw the [`items`](Self::items), for their number: with few threads they may be greater. 32 unless this is
    /// called, at least 1. The bits stay the same, and [`run`](Self::run) is one thread whatever was said.
    ///
    /// An item of a prompt has up to 192 rows of a KV head (AVX-512; 384 where keys or values are not f32), 128 (AVX2) or 64 (NEON, wasm), fewer where heads are large. They
    /// share each block of keys and values, so that less is read and widened. Where several threads would get fewer than eight items each,
    /// items are smaller, but not below 96 (AVX-512) or 32 rows.
    ///
    /// Items of a few rows, as a decoded token has, are of several KV heads where their keys and values lie beside each other,
    /// `[row, head, dim]`, are more than 1 MiB, and leave two items to each of several threads: a head at a time would be read
    /// at half the rate and less, since its rows are short and lie apart. With [`split_kv`](Self::split_kv) there are more items,
    /// and so more heads to each. At x86 levels; at others it changes nothing.
    ///
    /// ```
    /// use gqa::{Attention, Shape, View, ViewMut};
    /// let shape = Shape { batch: 1, q_heads: 8, kv_heads: 8, q_len: 1, kv_len: 4096, head_dim: 64, value_dim: 64 };
    /// let (q, k, v) = (vec![0.1f32; 8 * 64], vec![0.1f32; 4096 * 8 * 64], vec![0.5f32; 4096 * 8 * 64]);
    /// let mut out = vec![0.0f32; 8 * 64];
    /// let mut partials = vec![0.0; shape.partials_len()];
    /// let mut job = Attention::new(shape)?
    ///     .bind(View::bshd(&q, 8, 1, 64), View::bshd(&k, 8, 4096, 64), View::bshd(&v, 8, 4096, 64), ViewMut::bshd(&mut out, 8, 1, 64))?
    ///     .threads(2)
    ///     .split_kv(&mut partials)?;
    /// let mut scratch = vec![0.0; job.scratch_len()];
    /// for mut item in job.items() {
    ///     item.run(&mut scratch)?;
    /// }
    /// assert!(out.iter().all(|x| (x - 0.5).abs() < 1e-6));
    /// # Ok::<(), gqa::Error>(())
    /// ```
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Cuts the work into smaller [`items`](Self::items): several share the keys of one KV head, and the last of them to be run
    /// puts together what they came to (Flash-Decoding). For calls with fewer items than threads: few KV heads, and a row or a
    /// few of each sequence. The bits stay the same.
    ///
    /// Each item becomes one for each 768 keys of `kv_len` (for several KV heads, where these lie as `[row, head, dim]` and leave enough
    /// items for [`threads`](Self::threads)), where the rows that share a KV head, `q_len` · `q_heads` / `kv_heads`, are
    /// at most 96 (AVX-512) or 32 (AVX2, NEON). Else nothing changes, nor without vectors, in wasm, with the feature `single-tile`,
    /// and with [`inspect`](Self::inspect). The items must come from one call of [`items`](Self::items), which starts anew.
    ///
    /// `partials` is overwritten, and must have [`partials_len`](Self::partials_len) elements, with whatever content.
    ///
    /// # Errors
    /// [`Error::TooShort`] if `partials` is shorter.
    ///
    /// ```
    /// use gqa::{Attention, Shape, View, ViewMut};
    /// let shape = Shape { batch: 1, q_heads: 8, kv_heads: 1, q_len: 1, kv_len: 2048, head_dim: 16, value_dim: 16 };
    /// let (q, k, v) = (vec![0.1f32; 8 * 16], vec![0.1f32; 2048 * 16], vec![0.5f32; 2048 * 16]);
    /// let mut out = vec![0.0f32; 8 * 16];
    /// let job = Attention::new(shape)?.bind(
    ///     View::bhsd(&q, 8, 1, 16), View::bhsd(&k, 1, 2048, 16), View::bhsd(&v, 1, 2048, 16),
    ///     ViewMut::bhsd(&mut out, 8, 1, 16),
    /// )?;
    /// let mut partials = vec![0.0; job.partials_len()];
    /// let mut job = job.split_kv(&mut partials)?;
    /// let scratch_len = job.scratch_len();
    /// let queue = job.items().queue();
    /// std::thread::scope(|threads| {
    ///     for _ in 0..2 {
    ///         threads.spawn(|| {
    ///             let mut scratch = vec![0.0; scratch_len];
    ///             while let Some(mut item) = queue.pop() {
    ///                 item.run(&mut scratch).unwrap();
    ///             }
    ///         });
    ///     }
    /// });
    /// assert!(out.iter().all(|x| (x - 0.5).abs() < 1e-6));
    /// # Ok::<(), gqa::Error>(())
    /// ```
    #[cfg(target_has_atomic = "ptr")]
    pub fn split_kv(mut self, partials: &'a mut [f32]) -> Result<Self, Error> {
        self.check(Operand::Partials, self.partials_len(), partials.len())?;
        self.partials = Partials::new(partials, self.level, Split::of(&self.shape, self.level));
        Ok(self)
    }

    /// As [`split_kv`](Self::split_kv), with memory that several jobs share, bound to the same operands, each of which runs
    /// some of the items (see [`ViewMut::from_raw`]).
    ///
    /// # Errors
    /// As [`split_kv`](Self::split_kv).
    ///
    /// # Safety
    /// For `'a`, `partials` points to allocated, aligned and initialised elements, which nobody else reads or writes but these
    /// jobs: all of the same [`Attention`](crate::Attention), types, strides, outputs and [`threads`](Self::threads), so that they have
    /// the same items. Before these are run, [`items`](Self::items) of such a job that has the memory by [`split_kv`](Self::split_kv) has
    /// been called, and that job has been dropped. Each item is run once, by one of the jobs; when all have been, they may be again.
    #[cfg(target_has_atomic = "ptr")]
    pub unsafe fn split_kv_raw(mut self, partials: *mut [f32]) -> Result<Self, Error> {
        self.check(Operand::Partials, self.partials_len(), partials.len())?;
        // SAFETY: the caller's promise.
        self.partials = unsafe { Partials::shared(partials, self.level, Split::of(&self.shape, self.level)) };
        Ok(self)
    }

    /// The memory that [`split_kv`](Self::split_kv) needs, in f32 elements; 0 where it has nothing to split. As with the scratch,
    /// [`Shape::partials_len`] of the longest prompt chunk and cache is enough for all calls of a model.
    #[must_use]
    pub fn partials_len(&self) -> usize {
        Split::of(&self.shape, self.level).total(self.level)
    }

    fn check_scratch(&self, scratch: &[f32]) -> Result<(), Error> {
        self.check(Operand::Scratch, self.scratch_len(), scratch.len())
    }

    fn check(&self, operand: Operand, needed: usize, had: usize) -> Result<(), Error> {
        if had < needed { Err(Error::TooShort { operand, needed, had }) } else { Ok(()) }
    }

    /// Computes everything on this thread. `scratch` is overwritten; what it held does not matter.
    ///
    /// # Errors
    /// [`Error::TooShort`] if `scratch` is shorter than [`scratch_len`](Self::scratch_len); nothing is written then.
    pub fn run(&mut self, scratch: &mut [f32]) -> Result<(), Error> {
        self.check_scratch(scratch)?;
        for mut item in self.items_of(1) {
            item.run(scratch)?;
        }
        Ok(())
    }

    fn blocks(&self) -> Blocks {
        Self::STORAGE.blocks(self.pairs.is_some_and(PairsLevel::has_matrix))
    }

    fn products(&self) -> Products {
        match self.pairs {
            Some(pairs) => Products::of_pairs(&self.shape, pairs.has_matrix()),
            None => Products::Single,
        }
    }

    /// KV heads of an item where each place is `chunks` items, of which there should be enough for so many threads. More than one are
    /// those whose keys and values lie beside each other in rows of all heads: a head alone reads parts of rows, which neither memory nor
    /// the cores' own prefetchers are made for.
    fn heads_of(&self, chunks: usize, threads: usize) -> usize {
        let Shape { head_dim, value_dim, .. } = self.shape;
        if self.k.strides.head != head_dim || self.v.strides.head != value_dim {
            return 1;
        }
        let rows = self.shape.shared_rows();
        if Kernel::of(rows, rows, self.level, self.products()) == Kernel::Many {
            return 1;
        }
        let bytes = [size_of::<K>() * head_dim, size_of::<V>() * value_dim];
        heads_together(&self.shape, bytes, self.level, chunks, threads)
    }

    /// The work items, each once: together they are the whole call. They write disjoint rows, or share rows by
    /// [`split_kv`](Self::split_kv), so they may run in any order and on any threads; the bits do not depend on it. About equal in
    /// work but for what limits and lengths hide. How many there are depends on [`threads`](Self::threads).
    ///
    /// ```
    /// use gqa::{Attention, Shape, View, ViewMut};
    /// let shape = Shape { batch: 1, q_heads: 8, kv_heads: 2, q_len: 64, kv_len: 64, head_dim: 16, value_dim: 16 };
    /// let (q, k, v) = (vec![0.1f32; 8 * 64 * 16], vec![0.1f32; 2 * 64 * 16], vec![0.5f32; 2 * 64 * 16]);
    /// let mut out = vec![0.0f32; 8 * 64 * 16];
    /// let mut job = Attention::new(shape)?.causal().bind(
    ///     View::bhsd(&q, 8, 64, 16), View::bhsd(&k, 2, 64, 16), View::bhsd(&v, 2, 64, 16),
    ///     ViewMut::bhsd(&mut out, 8, 64, 16),
    /// )?;
    /// let scratch_len = job.scratch_len();
    /// let queue = job.items().queue(); // or `split_at`, for pools that halve the work
    /// std::thread::scope(|threads| {
    ///     for _ in 0..2 {
    ///         threads.spawn(|| {
    ///             let mut scratch = vec![0.0; scratch_len];
    ///             while let Some(mut item) = queue.pop() {
    ///                 item.run(&mut scratch).unwrap();
    ///             }
    ///         });
    ///     }
    /// });
    /// assert!(out.iter().all(|x| (x - 0.5).abs() < 1e-6));
    /// # Ok::<(), gqa::Error>(())
    /// ```
    pub fn items(&mut self) -> Items<'_, 'a, Q, K, V, O> {
        self.items_of(self.threads)
    }

    /// The items for so many threads.
    fn items_of(&mut self, threads: usize) -> Items<'_, 'a, Q, K, V, O> {
        let groups = groups(&self.shape, self.level, self.blocks(), threads);
        let cuts = Cuts::of(self.shape.shared_rows(), groups, self.level, self.products());
        let tiles = cuts.count();
        let split = CHUNKS && self.inspection.is_none();
        let chunks = self.partials.as_ref().filter(|_| split).map_or(1, Partials::chunks);
        let heads = self.heads_of(chunks, threads);
        if let Some(partials) = self.partials.as_mut().filter(|_| split) {
            partials.restart(heads);
        }
        // Can't overflow: 0 without rows, else at most the number of query rows, which the shape's check bounds; or the number
        // of parts that `partials` has.
        let (of_heads, _) = div_rem(self.shape.kv_heads, heads);
        let places = tiles * of_heads * self.shape.batch;
        Items { job: self, cuts, tiles, heads: Heads::new(heads), chunks, indices: 0..places * chunks }
    }
}

/// The work items of a [`Job`] that have not been handed out yet: an iterator with a known length and two ends, which
/// [`split_at`](Self::split_at) cuts into shares for threads, and [`queue`](Self::queue) lets several threads draw from.
/// See [`Job::items`] for an example.
#[derive(Debug)]
pub struct Items<'j, 'a, Q, K, V, O> {
    /// Borrowed exclusively by [`Job::items`]; no two `Items` of a job share an index.
    job: &'j Job<'a, Q, K, V, O>,
    cuts: Cuts,
    /// Places of one KV head, and items of a place.
    tiles: usize,
    /// KV heads of a place.
    heads: Heads,
    chunks: usize,
    indices: Range<usize>,
}

impl<'j, 'a, Q: Element, K: Element, V: Element, O: Element> Items<'j, 'a, Q, K, V, O> {
    /// Splits off the first `count` items, or all if there are fewer.
    #[must_use]
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let Self { job, cuts, tiles, heads, chunks, indices: Range { start, end } } = self;
        let middle = start + count.min(end - start);
        let part = |indices| Self { job, cuts, tiles, heads, chunks, indices };
        (part(start..middle), part(middle..end))
    }

    /// The items as threads draw them from a shared reference, each once, without a lock. The last come first: with a causal
    /// limit they are the longest. On targets with compare-and-swap.
    #[cfg(target_has_atomic = "ptr")]
    pub fn queue(self) -> Queue<'j, 'a, Q, K, V, O> {
        Queue { end: AtomicUsize::new(self.indices.end), items: self }
    }

    fn item(&self, index: usize) -> Item<'j, 'a, Q, K, V, O> {
        let Shape { kv_heads, .. } = self.job.shape;
        let (index, chunk) = div_rem(index, self.chunks);
        let part = (CHUNKS && self.chunks > 1).then_some(Part { index, chunk, done: false });
        let (head, tile) = div_rem(index, self.tiles);
        let heads = self.heads;
        let (batch, kv_head) = div_rem(head * heads.count(), kv_heads);
        let (first, count) = self.cuts.item(tile);
        let place = Place { batch, kv_head, heads, group: self.job.shape.group(), first, count };
        Item { job: self.job, place, part }
    }
}

impl<'j, 'a, Q: Element, K: Element, V: Element, O: Element> Iterator for Items<'j, 'a, Q, K, V, O> {
    type Item = Item<'j, 'a, Q, K, V, O>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.indices.next()?;
        Some(self.item(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        let index = self.indices.nth(n)?;
        Some(self.item(index))
    }
}

impl<Q: Element, K: Element, V: Element, O: Element> DoubleEndedIterator for Items<'_, '_, Q, K, V, O> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let index = self.indices.next_back()?;
        Some(self.item(index))
    }
}

impl<Q: Element, K: Element, V: Element, O: Element> ExactSizeIterator for Items<'_, '_, Q, K, V, O> {}
impl<Q: Element, K: Element, V: Element, O: Element> FusedIterator for Items<'_, '_, Q, K, V, O> {}

/// The work items of a [`Job`], drawn by several threads: what [`Items::queue`] returns. See [`Job::items`] for an example.
#[cfg(target_has_atomic = "ptr")]
#[derive(Debug)]
pub struct Queue<'j, 'a, Q, K, V, O> {
    items: Items<'j, 'a, Q, K, V, O>,
    /// The indices of `items` from here on have been drawn.
    end: AtomicUsize,
}

#[cfg(target_has_atomic = "ptr")]
impl<'j, 'a, Q: Element, K: Element, V: Element, O: Element> Queue<'j, 'a, Q, K, V, O> {
    /// An item that no other call gets; none when all have been drawn.
    pub fn pop(&self) -> Option<Item<'j, 'a, Q, K, V, O>> {
        let start = self.items.indices.start;
        let draw = |end: usize| (end > start).then(|| end.saturating_sub(1));
        // Nothing but the index is shared, so nothing else has to be ordered.
        let end = self.end.fetch_update(Ordering::Relaxed, Ordering::Relaxed, draw).ok()?;
        Some(self.items.item(end.saturating_sub(1)))
    }
}

/// One unit of work: some rows of the output, which are this item's alone, or shared by items that were split.
/// See [`Job::items`] for an example.
#[derive(Debug)]
pub struct Item<'j, 'a, Q, K, V, O> {
    job: &'j Job<'a, Q, K, V, O>,
    place: Place,
    /// Of an item that has been split: see [`Job::split_kv`].
    part: Option<Part>,
}

/// One of the items that share a place.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The place's number.
    index: usize,
    chunk: usize,
    /// Whether it has been run: others may be reading what it came to.
    done: bool,
}

impl<'j, 'a, Q: Element, K: Element, V: Element, O: Element> Item<'j, 'a, Q, K, V, O> {
    /// Computes and writes the item's rows; where items share them, the last of these to be run does, and an item that
    /// is run once more does nothing. `scratch` is overwritten; threads need one each.
    ///
    /// # Errors
    /// [`Error::TooShort`] if `scratch` is shorter than [`Job::scratch_len`]; nothing is written then.
    pub fn run(&mut self, scratch: &mut [f32]) -> Result<(), Error> {
        let Self { job, place, part } = self;
        job.check_scratch(scratch)?;
        let Some((partials, part)) = job.partials.as_ref().zip(part.as_mut()).filter(|_| CHUNKS) else {
            // SAFETY: this is the only item of `place`, and `&mut self` keeps two runs of it apart.
            unsafe { job.compute(*place, Chunks::All, job.claim(*place), scratch) };
            return Ok(());
        };
        if part.done {
            return Ok(());
        }
        part.done = true;
        // SAFETY: this is the only item of this place and chunk, and it is run for the first time.
        unsafe {
            let memory = partials.part(part.index, part.chunk);
            job.compute(*place, Chunks::One(part.chunk, memory), Results::none(), scratch);
        }
        // SAFETY: it arrives once, and `memory` is no longer in use.
        if let Some(parts) = unsafe { partials.arrive(part.index) } {
            // SAFETY: all items of `place` have arrived, this one as the last, and only the last claims it.
            unsafe {
                let chunks = Chunks::Computed(Computed { parts, next: 0 });
                job.compute(*place, chunks, job.claim(*place), scratch);
            }
        }
        Ok(())
    }
}

impl<'a, Q: Element, K: Element, V: Element, O: Element> Job<'a, Q, K, V, O> {
    /// The rows of a place.
    ///
    /// # Safety
    /// `Items` made `place` within the bound sizes and hands each index out once, itself or through the one `Queue` that it
    /// becomes; the job is borrowed exclusively while items live. No other claim of `place` is alive.
    unsafe fn claim(&self, place: Place) -> Results<'_, O> {
        // SAFETY: the caller's promise.
        let mut results = unsafe {
            let lse = self.lse.map(|lse| lse.claim(place));
            let inspection = self.inspection.map(|(stage, scores)| (*stage, scores.claim(place)));
            Results { out: self.out.claim(place), reports: Reports { lse, inspection } }
        };
        results.reports.prefill_inspection(place.rows());
        results
    }

    /// Runs the kernel for the rows of a place.
    ///
    /// # Safety
    /// `Items` made `place` within the bound sizes.
    unsafe fn compute(&self, place: Place, chunks: Chunks<'_>, results: Results<'_, O>, scratch: &mut [f32]) {
        let mut results = results;
        let Results { out, reports } = &mut results;
        let (shape, modifiers) = (&self.shape, &self.modifiers);
        // SAFETY: `new` has checked that `q` has each row of the bound sizes, and an item has one at least.
        let ends = Ends { queries: unsafe { Rows::new(self.q, shape.head_dim, place) }, out };
        let given = Given { shape, modifiers, place, chunks, reports, scratch };
        K::of_keys(&self.k, &self.v, Work { level: self.level, pairs: self.pairs, given, ends });
    }
}
