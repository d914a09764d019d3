//! Which query rows a work item has.

use core::ops::Range;

use crate::ahead::{RowsAhead, lines_of};
use crate::view::Strides;

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

    /// The rows of one KV head, of `dim` elements, to be fetched.
    #[inline(always)]
    pub(crate) fn ahead<T>(&self, data: *const T, strides: Strides, dim: usize) -> RowsAhead {
        let (head, position) = self.head_and_position(0);
        let row = self.batch.wrapping_mul(strides.batch).wrapping_add(head.wrapping_mul(strides.head));
        let row = data.wrapping_add(row.wrapping_add(position.wrapping_mul(strides.row)));
        let heads = [head - self.kv_head * self.group, self.group];
        let bytes = [strides.head, strides.row].map(|elements| elements.wrapping_mul(size_of::<T>()));
        RowsAhead::new(row.cast(), lines_of::<T>(dim), self.count, heads, bytes)
    }

    /// The positions of rows `rows` of the item, which share a KV head.
    #[inline]
    pub(crate) fn positions(&self, rows: Range<usize>) -> Range<usize> {
        let (_, first) = self.head_and_position(rows.start);
        let (_, last) = self.head_and_position(rows.end.saturating_sub(1));
        first..last + 1
    }
}
