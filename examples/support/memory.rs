//! Memory in huge pages, so that a benchmark measures memory and not address translation.
#![allow(unsafe_code, reason = "the standard library can't ask for huge pages")]

/// An empty vector, of huge pages where the system grants them.
pub(crate) fn huge_pages<T>(capacity: usize) -> Vec<T> {
    let memory = Vec::<T>::with_capacity(capacity);
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn madvise(start: *mut core::ffi::c_void, len: usize, advice: i32) -> i32;
        }
        const MADV_HUGEPAGE: i32 = 14;
        const PAGE: usize = 4096;
        let start = memory.as_ptr().align_offset(PAGE).min(capacity);
        let (start, end) = (memory.as_ptr().wrapping_add(start), memory.as_ptr().wrapping_add(capacity));
        let len = (end as usize).saturating_sub(start as usize) / PAGE * PAGE;
        if len > 4 << 20 {
            // SAFETY: whole pages of memory that is ours, and advice that changes no contents; that it fails, on a
            // system of other pages too, changes nothing.
            unsafe { madvise(start.cast_mut().cast(), len, MADV_HUGEPAGE) };
        }
    }
    memory
}
