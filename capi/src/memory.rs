//! The checks that a slice has passed already when it reaches the crate: pointers, alignment, sizes, aliasing.

use core::ffi::CStr;
use core::{ptr, slice};

use crate::error::{GQA_ERROR_ALIASED, GQA_ERROR_NULL, GQA_ERROR_OVERFLOW, GQA_ERROR_UNALIGNED, gqa_error};

/// Elements that the caller lends, not NULL unless there are none, aligned, and at most `isize::MAX` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory<T> {
    operand: &'static CStr,
    data: *mut T,
    len: usize,
}

impl<T> Memory<T> {
    pub(crate) fn new(operand: &'static CStr, data: *const T, len: usize) -> Result<Self, gqa_error> {
        if len > 0 && data.is_null() {
            return Err(gqa_error::new(GQA_ERROR_NULL, operand));
        }
        if !data.is_aligned() {
            return Err(gqa_error::new(GQA_ERROR_UNALIGNED, operand));
        }
        let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= isize::MAX as usize);
        if bytes.and_then(|bytes| data.addr().checked_add(bytes)).is_none() {
            return Err(gqa_error::new(GQA_ERROR_OVERFLOW, operand));
        }
        Ok(Self { operand, data: data.cast_mut(), len })
    }

    /// Nothing, if the pointer is NULL and the length 0.
    pub(crate) fn optional(
        operand: &'static CStr,
        data: *const T,
        len: usize,
    ) -> Result<Option<Self>, gqa_error> {
        let memory = Self::new(operand, data, len)?;
        Ok(if data.is_null() { None } else { Some(memory) })
    }

    /// Where it lies.
    pub(crate) fn place(&self) -> Place {
        let start = self.data.addr();
        // Can't overflow: `new` has computed it.
        Place { operand: self.operand, start, end: start + self.len * size_of::<T>() }
    }

    /// For reading.
    ///
    /// # Safety
    /// The elements are there, have values, and are not written during `'a`.
    pub(crate) unsafe fn read<'a>(self) -> &'a [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the caller's promise; `new` has found the pointer aligned, not NULL, and the size small enough.
        unsafe { slice::from_raw_parts(self.data, self.len) }
    }

    /// For writing by one owner.
    ///
    /// # Safety
    /// The elements are there, and nobody else reads or writes them during `'a`.
    pub(crate) unsafe fn own<'a>(self) -> &'a mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as in `read`.
        unsafe { slice::from_raw_parts_mut(self.data, self.len) }
    }

    /// For writing by several owners of parts.
    pub(crate) fn share(self) -> *mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        ptr::slice_from_raw_parts_mut(self.data, self.len)
    }
}

/// An operand's addresses.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    operand: &'static CStr,
    start: usize,
    end: usize,
}

impl Place {
    fn meets(&self, other: &Self) -> bool {
        self.start.max(other.start) < self.end.min(other.end)
    }
}

/// That nothing of `written` overlaps anything else.
pub(crate) fn check_apart(written: &[Option<Place>], read: &[Option<Place>]) -> Result<(), gqa_error> {
    let mut rest = written.iter().flatten();
    while let Some(place) = rest.next() {
        if rest.clone().chain(read.iter().flatten()).any(|other| other.meets(place)) {
            return Err(gqa_error::new(GQA_ERROR_ALIASED, place.operand));
        }
    }
    Ok(())
}
