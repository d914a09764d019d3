//! The modules of the npm package: [`gqa`] behind four raw exports, without an allocator.
//!
//! The page writes a [`Call`] at [`call`], [`bind`] checks it and says how much scratch a thread needs, and
//! [`work`] computes until no work item is left: on one thread, or on several instances that share a memory.
//! What was wrong with a call that `bind` refuses lies at [`failure`].
#![no_std]

mod call;
mod failure;
mod work;

use core::cell::UnsafeCell;

use call::Call;
use failure::Failure;
use work::Work;

/// One call at a time, in memory that all threads see.
struct State {
    call: UnsafeCell<Call>,
    failure: UnsafeCell<Failure>,
    work: Work,
}

// SAFETY: `call` and `failure` are touched only by the thread that binds, while no other works; `Work` is `Sync`.
unsafe impl Sync for State {}

static STATE: State =
    State { call: UnsafeCell::new(Call::EMPTY), failure: UnsafeCell::new(Failure::NONE), work: Work::new() };

/// Where the next call is written.
#[unsafe(no_mangle)]
extern "C" fn call() -> *mut Call {
    STATE.call.get()
}

/// What was wrong with the last call that was refused.
#[unsafe(no_mangle)]
extern "C" fn failure() -> *const Failure {
    STATE.failure.get()
}

/// Checks the call, which so many threads will work at. The scratch that [`work`] needs, in bytes, or -1 after a failure.
///
/// # Safety
/// No thread works, what the call points to stays valid and aligned until the last thread has worked, nothing else
/// touches its outputs until then, and its outputs share no element with its other operands.
#[unsafe(no_mangle)]
unsafe extern "C" fn bind(threads: usize) -> i32 {
    // SAFETY: nothing else touches the call and the work, by this function's contract.
    let bound = unsafe { (*STATE.call.get()).bind(&STATE.work, threads) };
    match bound {
        Ok(scratch_len) => (scratch_len * size_of::<f32>()) as i32,
        Err(failure) => {
            // SAFETY: as above.
            unsafe { *STATE.failure.get() = failure };
            -1
        }
    }
}

/// Takes work items of the bound call until none is left.
///
/// # Safety
/// The last [`bind`] succeeded; `scratch` begins as many bytes as it asked for, aligned to 4 and this thread's alone.
#[unsafe(no_mangle)]
unsafe extern "C" fn work(scratch: *mut f32, bytes: usize) {
    // SAFETY: the caller's promise.
    let scratch = unsafe { core::slice::from_raw_parts_mut(scratch, bytes / size_of::<f32>()) };
    STATE.work.run(scratch);
}

/// Nothing panics: there is no such function in an optimised module, which is checked.
#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
