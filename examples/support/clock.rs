//! Time that this thread has run, so that neighbours on the machine count less.
#![allow(unsafe_code, reason = "the standard library does not tell a thread's CPU time")]

use std::time::Duration;
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
use std::{sync::LazyLock, time::Instant};

/// CPU time of this thread.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) fn thread_time() -> Duration {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the C library, which std links, writes one `timespec`: two 64-bit numbers on 64-bit Linux.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::from_secs(time.seconds as u64) + Duration::from_nanos(time.nanoseconds as u64)
}

/// Time that has passed, where the CPU time of a thread is not at hand.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(crate) fn thread_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// How long `work` takes.
pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let start = thread_time();
    work();
    thread_time() - start
}
