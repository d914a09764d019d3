//! Work items on rayon's current pool.

use std::cell::RefCell;

use gqa::{Element, Error, Items, Job};

/// Multiply-adds below which waking another thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 18;

/// Items for each thread with which none waits long for the last.
const ENOUGH: usize = 8;

thread_local! {
    /// Grows to what the greatest call of this thread needed.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Computes all of a job. Where there are few items, threads share keys.
pub(crate) fn run<Q: Element, K: Element, V: Element, O: Element>(
    job: Job<'_, Q, K, V, O>,
) -> Result<(), Error> {
    let (scratch_len, threads) = (job.scratch_len(), rayon::current_num_threads());
    let mut job = job.threads(threads);
    if job.shape().multiply_adds() < WORTH_A_THREAD || threads == 1 {
        with_scratch(scratch_len, |scratch| job.run(scratch))
    } else if job.items().len() < ENOUGH * threads {
        let mut partials = vec![0.0; job.partials_len()];
        share(job.split_kv(&mut partials)?.items(), scratch_len)
    } else {
        share(job.items(), scratch_len)
    }
}

/// Halves until an item is left; idle threads steal the greater parts, neighbours stay on one thread.
fn share<Q: Element, K: Element, V: Element, O: Element>(
    mut items: Items<'_, '_, Q, K, V, O>,
    scratch_len: usize,
) -> Result<(), Error> {
    if items.len() > 1 {
        let half = items.len() / 2;
        let (left, right) = items.split_at(half);
        let (left, right) = rayon::join(|| share(left, scratch_len), || share(right, scratch_len));
        return left.and(right);
    }
    match items.next() {
        Some(mut item) => with_scratch(scratch_len, |scratch| item.run(scratch)),
        None => Ok(()),
    }
}

/// Items don't run on rayon within, so the scratch is never borrowed twice.
fn with_scratch<R>(len: usize, run: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        run(&mut scratch[..len])
    })
}
