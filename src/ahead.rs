//! Cache lines that are asked for ahead of their use. Nothing is read through these pointers, which may leave their data.

use crate::view::Walk;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Cache lines of a row of so many elements, at least.
#[inline(always)]
pub(crate) fn lines_of<T>(elements: usize) -> usize {
    (elements * size_of::<T>()).div_ceil(LINE)
}

/// The lines of rows that are equally far apart, some at a time.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    /// The row that is being fetched, and the bytes from one to the next.
    row: *const u8,
    stride: usize,
    /// Cache lines of a row.
    lines: usize,
    /// Those that are left of this one, and where they begin.
    left: usize,
    next: *const u8,
}

impl Default for Ahead {
    /// Of no memory.
    fn default() -> Self {
        Self::new(core::ptr::null(), 0, 0)
    }
}

impl Ahead {
    /// Rows of `lines` lines, `stride` bytes apart.
    #[inline(always)]
    pub(crate) fn new(row: *const u8, stride: usize, lines: usize) -> Self {
        Self { row, stride, lines, left: lines, next: row }
    }

    /// Where the next `lines` cache lines begin; those past the end of a row count as its own.
    #[inline(always)]
    pub(crate) fn advance(&mut self, lines: usize) -> *const u8 {
        let first = self.next;
        self.next = first.wrapping_add(lines * LINE);
        self.left = self.left.saturating_sub(lines);
        if self.left == 0 {
            self.row = self.row.wrapping_add(self.stride);
            (self.next, self.left) = (self.row, self.lines);
        }
        first
    }
}

/// The rows of a work item.
#[derive(Clone, Copy)]
pub(crate) struct RowsAhead {
    data: *const u8,
    /// In bytes.
    rows: Walk,
    /// Cache lines of a row.
    lines: usize,
}

impl RowsAhead {
    /// Rows of `lines` lines.
    #[inline(always)]
    pub(crate) fn new(data: *const u8, rows: Walk, lines: usize) -> Self {
        Self { data, rows, lines }
    }

    /// Rows that are left.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.rows.left()
    }

    /// The lines of the next `rows` rows.
    #[inline(always)]
    pub(crate) fn advance(&mut self, rows: usize, mut each: impl FnMut(*const u8)) {
        for _ in 0..rows.min(self.left()) {
            let row = self.data.wrapping_add(self.rows.next());
            for line in 0..self.lines {
                each(row.wrapping_add(line * LINE));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Strides;
    use std::vec::Vec;

    #[test]
    fn rows_come_position_by_position() {
        for [head_stride, stride] in [[1 << 16, 256], [256, 1 << 16]] {
            let data = core::ptr::null::<u8>().wrapping_add(1 << 20);
            // From the second of three heads on.
            let strides = Strides { batch: 0, head: head_stride, row: stride };
            let mut rows = RowsAhead::new(data, Walk::new(head_stride, 7, [1, 3], strides), 2);
            let mut seen = Vec::new();
            for count in [1, 0, 4, 9] {
                rows.advance(count, |line| seen.push(line as usize - (1 << 20)));
            }
            let at = |head: usize, position: usize| head * head_stride + position * stride;
            let rows = [at(1, 0), at(2, 0), at(0, 1), at(1, 1), at(2, 1), at(0, 2), at(1, 2)];
            assert_eq!(seen, rows.map(|row| [row, row + LINE]).as_flattened());
        }
        let mut last = Walk::new(7, 2, [0, 1], Strides { batch: 0, head: 1, row: 5 });
        assert_eq!([last.next(), last.next(), last.next()], [7, 12, 12]);
        assert_eq!(Walk::new(0, 0, [0, 0], Strides::NONE).left(), 0);
    }
}
