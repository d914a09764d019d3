//! Claims about the caller's slices: strides, and the arithmetic that checks them.
//!
//! A view claims nothing until a call is bound: only then are the sizes known. [`Extent`] holds that arithmetic.

use core::marker::PhantomData;

use crate::error::{Error, Operand};

/// Distances, in elements, between neighbouring batches, heads and rows. A row itself is contiguous.
///
/// Stride 0 repeats the same data (allowed for inputs); strides may be in any order.
///
/// ```
/// use gqa::Strides;
/// // 8 heads × 128 rows × 64 elements in both, the heads outside or inside the rows:
/// assert_eq!(Strides::bhsd(8, 128, 64), Strides { batch: 65536, head: 8192, row: 64 });
/// assert_eq!(Strides::bshd(8, 128, 64), Strides { batch: 65536, head: 64, row: 512 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Strides {
    /// Elements from one sequence to the next.
    pub batch: usize,
    /// Elements from one head to the next.
    pub head: usize,
    /// Elements from one row (position) to the next.
    pub row: usize,
}

impl Strides {
    /// Of an operand without elements.
    pub(crate) const NONE: Self = Self { batch: 0, head: 0, row: 0 };

    /// Contiguous `[batch, heads, rows, dim]`. Products saturate; a bind then reports the overflow.
    #[must_use]
    pub const fn bhsd(heads: usize, rows: usize, dim: usize) -> Self {
        let head = rows.saturating_mul(dim);
        Self { batch: heads.saturating_mul(head), head, row: dim }
    }

    /// Contiguous `[batch, rows, heads, dim]`. Products saturate; a bind then reports the overflow.
    #[must_use]
    pub const fn bshd(heads: usize, rows: usize, dim: usize) -> Self {
        let row = heads.saturating_mul(dim);
        Self { batch: rows.saturating_mul(row), head: dim, row }
    }
}

/// The elements that rows begin with: position by position those of a group of heads, and the last row's for ever.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    next: usize,
    /// Rows that are left, and those of them at this position.
    left: usize,
    heads_left: usize,
    group: usize,
    /// From a row to the next head's, and from that of the last head to the first one's of the next position.
    stride: usize,
    to_position: usize,
}

impl Walk {
    /// `count` rows from the one at element `start` on, which is of head `head` of a `group`.
    #[inline(always)]
    pub(crate) fn new(start: usize, count: usize, [head, group]: [usize; 2], strides: Strides) -> Self {
        let to_position = strides.row.wrapping_sub(strides.head.wrapping_mul(group.saturating_sub(1)));
        Self { next: start, left: count, heads_left: group - head, group, stride: strides.head, to_position }
    }

    /// Rows that are left.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The element that the next row begins with.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> usize {
        let row = self.next;
        if self.left > 1 {
            self.heads_left = self.heads_left.wrapping_sub(1);
            let last = self.heads_left == 0;
            self.next = row.wrapping_add(if last { self.to_position } else { self.stride });
            self.heads_left = if last { self.group } else { self.heads_left };
        }
        self.left = self.left.saturating_sub(1);
        row
    }
}

/// A readable operand: a flat slice and its strides.
///
/// ```
/// use gqa::{Strides, View};
/// // K and V interleaved per token as [k: 2 heads × 4 | v: 2 heads × 4]:
/// let cache = [0.0f32; 10 * 16];
/// let strides = Strides { batch: 160, head: 4, row: 16 };
/// let k = View::new(&cache, strides);
/// let v = View::new(&cache[8..], strides);
/// # let _ = (k, v);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) strides: Strides,
}

impl<'a, T> View<'a, T> {
    /// `data[b·batch + h·head + r·row + c]` is element `c` of row `r`, head `h`, batch `b`.
    #[must_use]
    pub const fn new(data: &'a [T], strides: Strides) -> Self {
        Self { data, strides }
    }

    /// Contiguous `[batch, heads, rows, dim]`. `rows` is what each head has in memory; a call reads its `kv_len` first ones:
    ///
    /// ```
    /// use gqa::View;
    /// // 2 heads of 64, with room for 128 tokens each, whatever the `kv_len` of the next call:
    /// let cache = [0.0f32; 2 * 128 * 64];
    /// let k = View::bhsd(&cache, 2, 128, 64);
    /// # let _ = k;
    /// ```
    #[must_use]
    pub const fn bhsd(data: &'a [T], heads: usize, rows: usize, dim: usize) -> Self {
        Self::new(data, Strides::bhsd(heads, rows, dim))
    }

    /// Contiguous `[batch, rows, heads, dim]`, of which a call may take the first rows of each sequence, as in
    /// [`bhsd`](Self::bhsd).
    #[must_use]
    pub const fn bshd(data: &'a [T], heads: usize, rows: usize, dim: usize) -> Self {
        Self::new(data, Strides::bshd(heads, rows, dim))
    }

    /// The view, checked: that it reaches to the last element of `sizes` rows of `dim`. Where there is none, its strides
    /// mean nothing (they may be of any size) and become 0.
    pub(crate) fn checked(mut self, operand: Operand, sizes: [usize; 3], dim: usize) -> Result<Self, Error> {
        let extent = Extent::rows(operand, self.strides, sizes, dim);
        extent.check(self.data.len())?;
        if extent.needed()? == 0 {
            self.strides = Strides::NONE;
        }
        Ok(self)
    }

    /// The elements from the first row of a head on; empty if the view does not reach there.
    #[inline]
    pub(crate) fn head(&self, batch: usize, head: usize) -> &'a [T] {
        self.data.get(batch * self.strides.batch + head * self.strides.head..).unwrap_or_default()
    }
}

/// A writable operand: a flat slice and its strides. Rows must not overlap.
///
/// ```
/// use gqa::ViewMut;
/// // The output as the next matrix product wants it, [batch, row, head, dim]:
/// let mut out = vec![0.0f32; 2 * 5 * 8 * 64];
/// let view = ViewMut::bshd(&mut out, 8, 5, 64);
/// # let _ = view;
/// ```
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    /// Not a reference, which would claim the elements between the rows, and the rows of items that others run.
    pub(crate) data: *mut [T],
    pub(crate) strides: Strides,
    pub(crate) borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> ViewMut<'a, T> {
    /// `data[b·batch + h·head + r·row + c]` is element `c` of row `r`, head `h`, batch `b`, as in [`View::new`].
    #[must_use]
    pub const fn new(data: &'a mut [T], strides: Strides) -> Self {
        Self { data, strides, borrow: PhantomData }
    }

    /// Contiguous `[batch, heads, rows, dim]`.
    #[must_use]
    pub const fn bhsd(data: &'a mut [T], heads: usize, rows: usize, dim: usize) -> Self {
        Self::new(data, Strides::bhsd(heads, rows, dim))
    }

    /// Contiguous `[batch, rows, heads, dim]`.
    #[must_use]
    pub const fn bshd(data: &'a mut [T], heads: usize, rows: usize, dim: usize) -> Self {
        Self::new(data, Strides::bshd(heads, rows, dim))
    }
}

/// Sizes and strides of one operand, outermost first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent<const AXES: usize> {
    pub(crate) operand: Operand,
    /// (size, stride) of each axis.
    pub(crate) axes: [(usize, usize); AXES],
    /// Contiguous elements at each place.
    pub(crate) dim: usize,
}

impl Extent<3> {
    pub(crate) const fn rows(operand: Operand, strides: Strides, sizes: [usize; 3], dim: usize) -> Self {
        let [batch, heads, rows] = sizes;
        Self { operand, axes: [(batch, strides.batch), (heads, strides.head), (rows, strides.row)], dim }
    }
}

impl<const AXES: usize> Extent<AXES> {
    /// The length that a slice must have: one past the last element, 0 if there is none.
    pub(crate) fn needed(&self) -> Result<usize, Error> {
        if self.dim == 0 || self.axes.iter().any(|&(size, _)| size == 0) {
            return Ok(0);
        }
        let mut last = self.dim;
        for (size, stride) in self.axes {
            let step = (size - 1).checked_mul(stride);
            last = match step.and_then(|step| last.checked_add(step)) {
                Some(last) if last <= isize::MAX as usize => last,
                _ => return Err(Error::Overflow { operand: self.operand }),
            };
        }
        Ok(last)
    }

    /// That a slice of `had` elements reaches to the last element.
    pub(crate) fn check(&self, had: usize) -> Result<(), Error> {
        let needed = self.needed()?;
        if had < needed {
            return Err(Error::TooShort { operand: self.operand, needed, had });
        }
        Ok(())
    }

    /// That no element belongs to two places: going from the smallest stride to the greatest,
    /// each axis steps over all that the axes before it reach.
    pub(crate) fn check_disjoint(&self) -> Result<(), Error> {
        if self.needed()? == 0 {
            return Ok(());
        }
        let mut axes = self.axes;
        axes.sort_unstable_by_key(|&(_, stride)| stride);
        let mut reach = self.dim;
        for (size, stride) in axes {
            if size > 1 {
                if stride < reach {
                    return Err(Error::Overlap { operand: self.operand, needed: reach, had: stride });
                }
                // Can't overflow: at most `needed`, which has been computed above.
                reach += (size - 1) * stride;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(axes: [(usize, usize); 3], dim: usize) -> Extent<3> {
        Extent { operand: Operand::Output, axes, dim }
    }

    /// Whether any element is named twice, by listing all of them.
    fn overlaps(extent: &Extent<3>) -> bool {
        let mut seen = [false; 4096];
        let [(b, sb), (h, sh), (r, sr)] = extent.axes;
        for at in (0..b * h * r * extent.dim).map(|i| {
            let (i, c) = (i / extent.dim, i % extent.dim);
            i / (h * r) * sb + i / r % h * sh + i % r * sr + c
        }) {
            if core::mem::replace(&mut seen[at], true) {
                return true;
            }
        }
        false
    }

    #[test]
    fn disjoint_layouts_are_accepted_and_overlaps_are_refused() {
        for (b, h, r, d) in [(1, 1, 1, 1), (2, 3, 4, 5), (3, 1, 2, 4), (1, 4, 1, 2), (2, 2, 2, 1)] {
            for sb in 0..30 {
                for sh in 0..12 {
                    for sr in 0..12 {
                        let extent = extent([(b, sb), (h, sh), (r, sr)], d);
                        if extent.check_disjoint().is_ok() {
                            assert!(!overlaps(&extent), "{extent:?}");
                        }
                    }
                }
            }
            for strides in [Strides::bhsd(h, r, d), Strides::bshd(h, r, d)] {
                Extent::rows(Operand::Output, strides, [b, h, r], d).check_disjoint().unwrap();
            }
        }
        assert_eq!(
            extent([(1, 0), (2, 3), (2, 8)], 4).check_disjoint(),
            Err(Error::Overlap { operand: Operand::Output, needed: 4, had: 3 })
        );
    }

    #[test]
    fn extents_are_exact_and_overflow_is_caught() {
        assert_eq!(extent([(2, 100), (3, 10), (4, 2)], 2).needed(), Ok(100 + 20 + 6 + 2));
        assert_eq!(extent([(0, usize::MAX), (3, 10), (4, 2)], 2).needed(), Ok(0));
        assert_eq!(extent([(1, usize::MAX), (1, usize::MAX), (1, usize::MAX)], 2).needed(), Ok(2));
        let overflow = Err(Error::Overflow { operand: Operand::Output });
        assert_eq!(extent([(2, usize::MAX), (1, 0), (1, 0)], 2).needed(), overflow);
        assert_eq!(extent([(3, usize::MAX / 2), (1, 0), (1, 0)], 2).needed(), overflow);
        assert_eq!(extent([(2, isize::MAX as usize), (1, 0), (1, 0)], 1).needed(), overflow);
    }
}
