//! What the chunks of keys that several work items share come to, until the last of these items has been run.
#![allow(unsafe_code, reason = "lends each item its own part of the memory, and the last one all of them")]

use core::marker::PhantomData;
use core::slice;
#[cfg(target_has_atomic = "ptr")]
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::isa::Level;
use crate::tiling::Split;

/// A counter for each place, and a part for each chunk of each place.
///
/// Invariant: `counters` begins `of_one.places` counters, and `parts` `of_one.places · of_one.chunks` parts of `of_one.len`
/// elements, all in memory that is borrowed for `'a`; `split` is `of_one` with some heads together.
#[derive(Debug)]
pub(super) struct Partials<'a> {
    counters: *mut usize,
    parts: *mut f32,
    /// With one KV head to a place.
    of_one: Split,
    split: Split,
    /// Whether other jobs count with the same counters, which are not set to 0 then.
    shared: bool,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for an exclusive borrow of a slice of f32, or for memory that is touched as that would be.
unsafe impl Send for Partials<'_> {}
// SAFETY: a shared one gives access to counters only as atomics, and to parts to those who promise that nobody else has them.
unsafe impl Sync for Partials<'_> {}

#[cfg(target_has_atomic = "ptr")]
impl<'a> Partials<'a> {
    /// None where nothing is split.
    pub(super) fn new(data: &'a mut [f32], level: Level, of_one: Split) -> Option<Self> {
        // SAFETY: `data` is borrowed for `'a`.
        let shared = unsafe { Self::shared(data, level, of_one) }?;
        Some(Self { shared: false, ..shared })
    }

    /// # Safety
    /// For `'a`, `data` points to initialised elements that only equal `Partials` touch, of which one that is not shared has set the
    /// counters to 0.
    pub(super) unsafe fn shared(data: *mut [f32], level: Level, of_one: Split) -> Option<Self> {
        let needed = of_one.total(level);
        if needed == 0 || data.len() < needed {
            return None;
        }
        let align = Split::align(level);
        let start = data.cast::<f32>();
        let skip = start.align_offset(align * size_of::<f32>());
        // Where an interpreter can't tell, nothing is split.
        if skip >= align {
            return None;
        }
        let counters = start.wrapping_add(skip);
        let parts = counters.wrapping_add(of_one.counters(level));
        let counters = counters.cast();
        Some(Self { counters, parts, of_one, split: of_one, shared: true, borrow: PhantomData })
    }
}

impl<'a> Partials<'a> {
    /// The items that share a place.
    pub(super) fn chunks(&self) -> usize {
        self.split.chunks
    }

    /// From now on a place has so many KV heads, a divisor of their number. Sets the counters to 0.
    pub(super) fn restart(&mut self, heads: usize) {
        // Fewer places, each of as many more elements: no more memory.
        self.split = self.of_one.together(heads);
        if !self.shared {
            for place in 0..self.split.places {
                // SAFETY: one of the counters, which nobody else touches while this is borrowed exclusively.
                unsafe { self.counters.add(place).write(0) };
            }
        }
    }

    /// The part of a chunk of a place.
    ///
    /// # Safety
    /// There are such a place and such a chunk, and the part is not in use.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that nobody else has it")]
    pub(super) unsafe fn part(&self, place: usize, chunk: usize) -> &mut [f32] {
        let Split { chunks, len, .. } = self.split;
        // SAFETY: in bounds by the invariant, and the caller's promise.
        unsafe { slice::from_raw_parts_mut(self.parts.add((place * chunks + chunk) * len), len) }
    }

    /// Tells that a part of a place has been written. The parts of all its chunks, if it was the last.
    ///
    /// # Safety
    /// There is such a place; its part is not in use and does not arrive again in this call.
    pub(super) unsafe fn arrive(&self, place: usize) -> Option<slice::ChunksExactMut<'_, f32>> {
        let Split { chunks, len, .. } = self.split;
        // SAFETY: one of the counters.
        if !unsafe { count_to(self.counters.add(place), chunks) } {
            return None;
        }
        // SAFETY: in bounds by the invariant; every part has arrived, so that none is in use.
        let parts = unsafe { slice::from_raw_parts_mut(self.parts.add(place * chunks * len), chunks * len) };
        Some(parts.chunks_exact_mut(len.max(1)))
    }
}

/// Counts one up, and whether that makes `all`: back to 0 then. What the threads that counted before have written is seen by the
/// one that makes it all.
///
/// # Safety
/// `counter` points to a number that is only touched so.
#[cfg(target_has_atomic = "ptr")]
unsafe fn count_to(counter: *mut usize, all: usize) -> bool {
    // SAFETY: aligned by the invariant, and the caller's promise.
    let counter = unsafe { AtomicUsize::from_ptr(counter) };
    let last = counter.fetch_add(1, Ordering::AcqRel).wrapping_add(1) == all;
    if last {
        // Nobody else counts any more.
        counter.store(0, Ordering::Relaxed);
    }
    last
}

/// Nothing is split where threads can't count.
#[cfg(not(target_has_atomic = "ptr"))]
unsafe fn count_to(_: *mut usize, _: usize) -> bool {
    false
}
