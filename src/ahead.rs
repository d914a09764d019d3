//! Cache lines that are asked for ahead of their use. Nothing is read through these pointers, which may leave their data.

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

/// The rows of a work item, each by its first line: position by position those of a group of heads.
#[derive(Clone, Copy)]
pub(crate) struct RowsAhead {
    next: *const u8,
    /// Rows that are left, and those of them at this position.
    left: usize,
    heads_left: usize,
    group: usize,
    /// Bytes from a row to the next head's, and from that of the last head to the first one's of the next position.
    stride: usize,
    to_position: usize,
    /// Cache lines of a row.
    lines: usize,
}

impl RowsAhead {
    /// `count` rows of `lines` lines from one of head `head` of a `group` on, with so many bytes from head to head, and from
    /// position to position.
    #[inline(always)]
    pub(crate) fn new(
        next: *const u8,
        lines: usize,
        count: usize,
        [head, group]: [usize; 2],
        [stride, position]: [usize; 2],
    ) -> Self {
        let to_position = position.wrapping_sub(stride.wrapping_mul(group.saturating_sub(1)));
        Self { next, left: count, heads_left: group - head, group, stride, to_position, lines }
    }

    /// Rows that are left.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The lines of the next `rows` rows.
    #[inline(always)]
    pub(crate) fn advance(&mut self, rows: usize, mut each: impl FnMut(*const u8)) {
        for _ in 0..rows.min(self.left) {
            for line in 0..self.lines {
                each(self.next.wrapping_add(line * LINE));
            }
            self.left -= 1;
            self.heads_left = self.heads_left.wrapping_sub(1);
            let last = self.heads_left == 0;
            self.next = self.next.wrapping_add(if last { self.to_position } else { self.stride });
            self.heads_left = if last { self.group } else { self.heads_left };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn rows_come_position_by_position() {
        for [head_stride, stride] in [[1 << 16, 256], [256, 1 << 16]] {
            let start = core::ptr::null::<u8>().wrapping_add(1 << 20);
            // From the second of three heads on.
            let mut rows =
                RowsAhead::new(start.wrapping_add(head_stride), 2, 7, [1, 3], [head_stride, stride]);
            let mut seen = Vec::new();
            for count in [1, 0, 4, 9] {
                rows.advance(count, |line| seen.push(line as usize - (1 << 20)));
            }
            let at = |head: usize, position: usize| head * head_stride + position * stride;
            let rows = [at(1, 0), at(2, 0), at(0, 1), at(1, 1), at(2, 1), at(0, 2), at(1, 2)];
            assert_eq!(seen, rows.map(|row| [row, row + LINE]).as_flattened());
        }
        assert_eq!(RowsAhead::new(core::ptr::null(), 2, 0, [0, 0], [0, 0]).left(), 0);
    }
}
