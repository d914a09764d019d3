//! Which query rows a work item has.

use core::ops::Range;

use crate::ahead::{RowsAhead, lines_of};
use crate::view::{Strides, Walk};

/// Rows `first..first + count` of those that share a KV head in sequence `batch`, for `kv_head` and the heads after it.
/// Row `r` of those that share a head is position `r / group` of query head `kv_head · group + r % group`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) batch: usize,
    pub(crate) kv_head: usize,
    pub(crate) heads: Heads,
    pub(crate) group: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// How many KV heads a work item has: one where no level fetches ahead, and then it is no memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads([usize; SEVERAL]);

const SEVERAL: usize = cfg!(any(target_arch = "x86", target_arch = "x86_64")) as usize;

impl Heads {
    pub(crate) const ONE: Self = Self([1; SEVERAL]);

    pub(crate) const fn new(count: usize) -> Self {
        Self([count; SEVERAL])
    }

    #[inline(always)]
    pub(crate) fn count(self) -> usize {
        self.0.first().copied().unwrap_or(1)
    }

    /// What each has of what all have.
    #[inline(always)]
    pub(crate) fn share(self, all: usize) -> usize {
        if self.count() == 1 { all } else { all.checked_div(self.count()).unwrap_or(0) }
    }
}

impl Place {
    /// Of no rows.
    pub(crate) const NOWHERE: Self =
        Self { batch: 0, kv_head: 0, heads: Heads::ONE, group: 0, first: 0, count: 0 };

    /// The rows of all heads: those of the first, then those of the next.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.heads.count() * self.count
    }

    /// The KV head of row `index` of the item, or of the last row beyond it, and its number among the rows of that head.
    #[inline(always)]
    fn in_head(&self, index: usize) -> (usize, usize) {
        if self.heads.count() == 1 {
            return (self.kv_head, index.min(self.count.saturating_sub(1)));
        }
        let index = index.min(self.rows().saturating_sub(1));
        let head = index.checked_div(self.count).unwrap_or(0);
        (self.kv_head + head, index - head * self.count)
    }

    /// (query head, position) of a row of a KV head.
    #[inline(always)]
    fn row_of(&self, (kv_head, index): (usize, usize)) -> (usize, usize) {
        let row = self.first + index;
        let position = row.checked_div(self.group).unwrap_or(0);
        (kv_head * self.group + (row - position * self.group), position)
    }

    /// (query head, position) of row `index` of the item, or of the last row beyond it.
    #[inline]
    pub(crate) fn head_and_position(&self, index: usize) -> (usize, usize) {
        self.row_of(self.in_head(index))
    }

    /// (query head, position) of the rows from `index` on that share its KV head; the last of them repeats for ever.
    #[inline]
    pub(crate) fn heads_and_positions(&self, index: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Self { group, count, .. } = *self;
        let (kv_head, mut index) = self.in_head(index);
        let (mut head, mut position) = self.row_of((kv_head, index));
        core::iter::repeat_with(move || {
            let row = (head, position);
            index += 1;
            if index < count {
                head += 1;
                if head == (kv_head + 1) * group {
                    (head, position) = (kv_head * group, position + 1);
                }
            }
            row
        })
    }

    /// The element that a row begins with, by its query head and position. Of rows that there are nothing overflows.
    #[inline(always)]
    fn start_of(&self, (head, position): (usize, usize), strides: Strides) -> usize {
        let start = self.batch.wrapping_mul(strides.batch).wrapping_add(head.wrapping_mul(strides.head));
        start.wrapping_add(position.wrapping_mul(strides.row))
    }

    /// The element that row `index` of the item begins with, or the last row beyond it.
    #[inline(always)]
    pub(crate) fn start(&self, index: usize, strides: Strides) -> usize {
        self.start_of(self.head_and_position(index), strides)
    }

    /// As [`start`](Self::start), of the rows from `index` on that share its KV head.
    #[inline(always)]
    pub(crate) fn starts(&self, index: usize, strides: Strides) -> Walk {
        let (kv_head, index) = self.in_head(index);
        let (head, position) = self.row_of((kv_head, index));
        let start = self.start_of((head, position), strides);
        Walk::new(start, self.count.saturating_sub(index), [head - kv_head * self.group, self.group], strides)
    }

    /// The rows of one KV head, of `dim` elements, to be fetched.
    #[inline(always)]
    pub(crate) fn ahead<T>(&self, data: *const T, strides: Strides, dim: usize) -> RowsAhead {
        let bytes = |elements: usize| elements.wrapping_mul(size_of::<T>());
        let strides =
            Strides { batch: bytes(strides.batch), head: bytes(strides.head), row: bytes(strides.row) };
        RowsAhead::new(data.cast(), self.starts(0, strides), lines_of::<T>(dim))
    }

    /// The positions of rows `rows` of the item, which share a KV head.
    #[inline]
    pub(crate) fn positions(&self, rows: Range<usize>) -> Range<usize> {
        let (_, first) = self.head_and_position(rows.start);
        let (_, last) = self.head_and_position(rows.end.saturating_sub(1));
        first..last + 1
    }
}
