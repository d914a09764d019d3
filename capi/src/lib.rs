//! The C interface of `gqa`: it translates arguments, checks what a C compiler does not, and leaves the rest to the
//! crate. What a user reads is the documentation of the header, which cbindgen makes of this source.
//!
//! ```text
//! gqa_call → read, pointers checked (call.rs, memory.rs) → Attention, Job of the storage types (job.rs) → gqa
//!         ← gqa_error (error.rs)
//! ```
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#![allow(non_camel_case_types, reason = "the names that C sees")]
#![allow(clippy::missing_safety_doc, reason = "the header tells C what its callers promise")]
#![deny(missing_docs)]

mod call;
mod error;
mod job;
mod level;
mod memory;
#[cfg(test)]
mod tests;

use core::ffi::{CStr, c_char};

pub use call::*;
pub use error::*;
pub use level::*;

use attention::Strides;
use job::Work;
use memory::Memory;

/// The version of the library, such as "0.1.0". Never freed.
#[unsafe(no_mangle)]
pub extern "C" fn gqa_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version holds no NUL"),
        };
    VERSION.as_ptr()
}

/// Strides of contiguous [batch, heads, rows, dim].
#[unsafe(no_mangle)]
pub extern "C" fn gqa_strides_bhsd(heads: usize, rows: usize, dim: usize) -> gqa_strides {
    Strides::bhsd(heads, rows, dim).into()
}

/// Strides of contiguous [batch, rows, heads, dim].
#[unsafe(no_mangle)]
pub extern "C" fn gqa_strides_bshd(heads: usize, rows: usize, dim: usize) -> gqa_strides {
    Strides::bshd(heads, rows, dim).into()
}

/// The standard ALiBi slope of query head `head` of `heads` (arXiv 2108.12409).
#[unsafe(no_mangle)]
pub extern "C" fn gqa_alibi_slope(head: usize, heads: usize) -> f32 {
    attention::alibi_slope(head, heads)
}

/// Writes to `len` the scratch memory that a run of `call` needs, in floats (of 4 bytes). It does not depend on
/// `batch` and `kv_len`; only the sizes, the types of `k` and `v`, and the level of the call are looked at, so that
/// it can be asked before there is any memory.
///
/// Errors: GQA_ERROR_NULL, GQA_ERROR_UNALIGNED, GQA_ERROR_STRUCT_SIZE, GQA_ERROR_VALUE, GQA_ERROR_LEVEL,
/// GQA_ERROR_ZERO, GQA_ERROR_HEADS, GQA_ERROR_OVERFLOW; `len` is not written then. `error` gets the details, and may
/// be NULL.
///
/// The caller promises that each pointer is NULL, or points to what its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gqa_scratch_len(
    call: *const gqa_call,
    len: *mut usize,
    error: *mut gqa_error,
) -> gqa_status {
    // SAFETY: the caller's promise.
    unsafe { report(error, gqa_call::read(call).and_then(|call| write(len, call.scratch_len()?))) }
}

/// Writes to `len` the memory that `partials` of `call` needs at most, also with fewer rows, fewer keys or a smaller
/// batch, in floats (of 4 bytes); 0 where nothing can be shared: with few keys, or without vectors. Only the sizes and
/// the level of the call are looked at.
///
/// Errors: as `gqa_scratch_len`; `len` is not written then. `error` gets the details, and may be NULL.
///
/// The caller promises that each pointer is NULL, or points to what its type says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gqa_partials_len(
    call: *const gqa_call,
    len: *mut usize,
    error: *mut gqa_error,
) -> gqa_status {
    // SAFETY: the caller's promise.
    unsafe { report(error, gqa_call::read(call).and_then(|call| write(len, call.partials_len()?))) }
}

/// Checks everything about `call` but the scratch, and writes to `count` the number of work items that it is cut into.
/// With `partials` makes these ready for the items to be run, so no other thread may use them meanwhile.
///
/// Items write disjoint rows of the outputs, or share `partials`, and may be run in any order, on any threads, in ranges of any length; the
/// bits of the results do not depend on it. Each costs about the same but for causal limits.
///
/// Errors: every one but GQA_ERROR_ITEMS; `count` is not written then. `error` gets the details, and may be NULL.
///
/// The caller promises that each pointer, also in the call, is NULL or points to as many elements as are said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gqa_item_count(
    call: *const gqa_call,
    count: *mut usize,
    error: *mut gqa_error,
) -> gqa_status {
    // SAFETY: the caller's promise.
    unsafe {
        report(
            error,
            gqa_call::read(call).and_then(|call| write(count, job::work(&call, Work::Count, None)?)),
        )
    }
}

/// Computes the whole call on this thread.
///
/// `scratch` is `scratch_len` floats, at least as many as `gqa_scratch_len` says, of any content, which is
/// overwritten. Nobody else may use it, nor read or write the outputs, nor write the inputs, during the call.
///
/// Errors: every one but GQA_ERROR_ITEMS; no output is written then. `error` gets the details, and may be NULL.
///
/// The caller promises that each pointer, also in the call, is NULL or points to as many elements as are said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gqa_run(
    call: *const gqa_call,
    scratch: *mut f32,
    scratch_len: usize,
    error: *mut gqa_error,
) -> gqa_status {
    // SAFETY: the caller's promise.
    unsafe {
        report(
            error,
            gqa_call::read(call).and_then(|call| {
                let scratch = Memory::new(c"scratch", scratch, scratch_len)?;
                job::work(&call, Work::All, Some(scratch)).map(drop)
            }),
        )
    }
}

/// Computes the work items `first`, `first + 1`, ..., `first + count - 1` of a call, of those that `gqa_item_count`
/// counts.
///
/// Several threads may do so at the same time with the same call, or with equal ones, if their ranges are disjoint
/// and each has a scratch of its own; all have the same `threads`, and the same `partials` if there are any. With `partials` each item is run
/// once after one `gqa_item_count`; when all have been run, they may be again for the same sizes, types, strides, level
/// and `threads`, for others after another `gqa_item_count`. Once every item has been run, the outputs are complete, and
/// the same as those of `gqa_run`. Nobody may write the inputs meanwhile, nor read or write the outputs.
///
/// Errors: every one; GQA_ERROR_ITEMS if the range ends beyond the last item. No output is written then. `error` gets
/// the details, and may be NULL; threads need one each.
///
/// The caller promises that each pointer, also in the call, is NULL or points to as many elements as are said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gqa_run_items(
    call: *const gqa_call,
    first: usize,
    count: usize,
    scratch: *mut f32,
    scratch_len: usize,
    error: *mut gqa_error,
) -> gqa_status {
    // SAFETY: the caller's promise.
    unsafe {
        report(
            error,
            gqa_call::read(call).and_then(|call| {
                let scratch = Memory::new(c"scratch", scratch, scratch_len)?;
                job::work(&call, Work::Items { first, count }, Some(scratch)).map(drop)
            }),
        )
    }
}

/// Writes a result to where the caller wants it.
///
/// # Safety
/// `to` is NULL or may be written, if it is aligned.
unsafe fn write(to: *mut usize, value: usize) -> Result<(), gqa_error> {
    Memory::new(c"result", to, 1)?;
    // SAFETY: the caller's promise; the pointer has been found to be aligned and not NULL.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes the details of a refusal, if they are wanted.
///
/// # Safety
/// `error` is NULL or may be written.
unsafe fn report(error: *mut gqa_error, result: Result<(), gqa_error>) -> gqa_status {
    let Err(refusal) = result else { return GQA_OK };
    if !error.is_null() {
        // SAFETY: the caller's promise; what may not be aligned is written as such.
        unsafe { error.write_unaligned(refusal) };
    }
    refusal.status
}

#[cfg(not(any(feature = "std", test)))]
#[panic_handler]
fn stop(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
