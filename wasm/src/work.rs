//! The bound call, whose items any number of threads take one after the other.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering};

use gqa::{Item, Items, Job};
#[cfg(feature = "half")]
use gqa::{bf16, f16};

/// A pair of storage types, of Q and the output and of K and V, that the module has a kernel for.
pub(crate) trait Combination<Q: 'static, K: 'static> {
    fn job(job: Job<'static, Q, K, K, Q>, threads: usize) -> AnyJob;
}

macro_rules! combinations {
    ($($(#[$if:meta])* $name:ident: $Q:ty, $K:ty;)*) => {
        pub(crate) enum AnyJob {
            $($(#[$if])* $name(Job<'static, $Q, $K, $K, $Q>),)*
        }

        enum AnyItems {
            $($(#[$if])* $name(Items<'static, 'static, $Q, $K, $K, $Q>),)*
        }

        enum AnyItem {
            $($(#[$if])* $name(Item<'static, 'static, $Q, $K, $K, $Q>),)*
        }

        impl AnyJob {
            fn items(&'static mut self) -> AnyItems {
                match self {
                    $($(#[$if])* Self::$name(job) => AnyItems::$name(job.items()),)*
                }
            }
        }

        impl AnyItems {
            fn next(&mut self) -> Option<AnyItem> {
                match self {
                    $($(#[$if])* Self::$name(items) => Some(AnyItem::$name(items.next()?)),)*
                }
            }
        }

        impl AnyItem {
            fn run(&mut self, scratch: &mut [f32]) -> Result<(), gqa::Error> {
                match self {
                    $($(#[$if])* Self::$name(item) => item.run(scratch),)*
                }
            }
        }

        $($(#[$if])*
        impl Combination<$Q, $K> for ($Q, $K) {
            fn job(job: Job<'static, $Q, $K, $K, $Q>, threads: usize) -> AnyJob {
                // Instances that can't share a memory are alone.
                AnyJob::$name(job.threads(if cfg!(target_feature = "atomics") { threads } else { 1 }))
            }
        })*
    };
}

combinations! {
    F32: f32, f32;
    #[cfg(feature = "half")] F32F16: f32, f16;
    #[cfg(feature = "half")] F32Bf16: f32, bf16;
    #[cfg(feature = "half")] F16: f16, f16;
    #[cfg(feature = "half")] Bf16: bf16, bf16;
}

/// `items` borrows from `job`, which is replaced only when nothing takes items.
pub(crate) struct Work {
    job: UnsafeCell<Option<AnyJob>>,
    items: UnsafeCell<Option<AnyItems>>,
    /// Held while an item is taken.
    lock: AtomicBool,
}

impl Work {
    pub(crate) const fn new() -> Self {
        Self { job: UnsafeCell::new(None), items: UnsafeCell::new(None), lock: AtomicBool::new(false) }
    }

    /// # Safety
    /// No thread is in `run`, and `self` is a static.
    pub(crate) unsafe fn set<Q: 'static, K: 'static>(&self, job: Job<'static, Q, K, K, Q>, threads: usize)
    where
        (Q, K): Combination<Q, K>,
    {
        // SAFETY: nothing else touches the cells, by the caller's promise; the old items go before the job that
        // they borrow from, which then stays where it is until this function is called again.
        unsafe {
            *self.items.get() = None;
            let job: &'static mut _ = (*self.job.get()).insert(<(Q, K)>::job(job, threads));
            *self.items.get() = Some(job.items());
        }
    }

    /// Runs items until none is left. Every thread needs a scratch of its own, as long as the job asks for.
    pub(crate) fn run(&self, scratch: &mut [f32]) {
        while let Some(mut item) = self.take() {
            if item.run(scratch).is_err() {
                // Too short: the items that are left are for threads with a longer one.
                return;
            }
        }
    }

    fn take(&self) -> Option<AnyItem> {
        while self.lock.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: the lock is held: no other thread touches the items.
        let item = unsafe { (*self.items.get()).as_mut() }.and_then(AnyItems::next);
        self.lock.store(false, Ordering::Release);
        item
    }
}
