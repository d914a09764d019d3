//! A few threads that wait for work: they run one closure together with the caller.
#![allow(unsafe_code, reason = "lends a closure to threads that outlive it")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gqa::{Element, Error, Job};

/// What each thread runs, given its number.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// How long a thread without work spins before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);

/// Items for each thread with which none waits long for the last.
const ENOUGH: usize = 8;

#[derive(Default)]
struct Shared {
    /// Counts the calls; a change means work.
    epoch: AtomicUsize,
    /// Helpers that have not finished the call.
    running: AtomicUsize,
    closing: AtomicBool,
    work: Mutex<Option<Work<'static>>>,
}

/// `threads - 1` helpers, and the caller of [`run`](Self::run).
pub(crate) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let helper = |number| {
            let shared = shared.clone();
            thread::spawn(move || shared.help(number))
        };
        let helpers = (1..threads).map(helper).collect();
        Self { shared, helpers }
    }

    pub(crate) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `work(0)` here and `work(1)`, `work(2)`, … on the helpers; returns when all have ended.
    pub(crate) fn run(&mut self, work: Work<'_>) {
        let shared = &*self.shared;
        // SAFETY: helpers call the closure only between the epoch's change and their decrement of `running`, and `Ended`
        // keeps this function, hence the closure's borrows, alive until `running` is 0, also if `work` panics here.
        let lent = unsafe { core::mem::transmute::<Work<'_>, Work<'static>>(work) };
        *shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(lent);
        shared.running.store(self.helpers.len(), Ordering::Relaxed);
        let _ended = Ended(shared);
        shared.epoch.fetch_add(1, Ordering::Release);
        self.wake();
        work(0);
    }

    /// Runs a call's items; each thread has a scratch. Where there are few items, threads share keys.
    pub(crate) fn run_job<'a, T: Element>(
        &mut self,
        job: Job<'a, T, T, T, T>,
        scratches: &[Mutex<Vec<f32>>],
        partials: &'a mut [f32],
    ) -> Result<(), Error> {
        let scratch = |thread: usize| scratches[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let mut job = job.threads(self.threads());
        if self.threads() == 1 {
            return job.run(&mut scratch(0));
        }
        if job.items().len() < ENOUGH * self.threads() {
            job = job.split_kv(partials)?;
        }
        let items = Mutex::new(job.items());
        let failed = Mutex::new(Ok(()));
        self.run(&|thread| {
            let mut scratch = scratch(thread);
            // From the back: with a causal limit the last items are the longest.
            let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next_back();
            while let Some(mut item) = next() {
                if let Err(error) = item.run(&mut scratch) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                }
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.helpers.iter().for_each(|helper| helper.thread().unpark());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.wake();
        for helper in self.helpers.drain(..) {
            let _ = helper.join();
        }
    }
}

/// Waits until no helper runs.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        wait(|| self.0.running.load(Ordering::Acquire) == 0, thread::yield_now);
    }
}

/// Counts a helper out, also when its work panics.
struct Finished<'a>(&'a Shared);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Release);
    }
}

impl Shared {
    fn help(&self, number: usize) {
        let mut seen = 0;
        loop {
            wait(|| self.epoch.load(Ordering::Acquire) != seen, thread::park);
            seen = self.epoch.load(Ordering::Acquire);
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            let _finished = Finished(self);
            let work = *self.work.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(work) = work {
                work(number);
            }
        }
    }
}

/// Spins for a short while, then calls `sleep` until `ready`.
fn wait(ready: impl Fn() -> bool, sleep: impl Fn()) {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() < PATIENCE {
            core::hint::spin_loop();
        } else {
            sleep();
        }
    }
}
