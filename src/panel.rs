//! Strided memory that is proved once and then touched without further checks: the panels of K and V that the
//! inner loops walk, the query rows of a work item, and the rows of an output that are its own.
#![allow(
    unsafe_code,
    reason = "reads and writes inside bounds that constructors, or their callers, establish"
)]

use core::marker::PhantomData;
use core::slice;

use crate::ahead::{Ahead, RowsAhead, lines_of};
use crate::place::Place;
use crate::view::{Strides, View, ViewMut};

/// `rows` × `cols` numbers, rows `stride` apart.
///
/// Invariant: `rows ≥ 1`, `cols ≥ 1`, and `(rows - 1) · stride + cols ≤ data.len()`, so every element is inside `data`.
#[derive(Clone, Copy)]
pub struct Panel<'a, T = f32> {
    data: &'a [T],
    stride: usize,
    rows: usize,
    cols: usize,
}

impl<'a, T> Panel<'a, T> {
    /// `None` if there is no element, or if `data` is too short.
    #[inline]
    pub(crate) fn new(data: &'a [T], stride: usize, rows: usize, cols: usize) -> Option<Self> {
        let last = rows.checked_sub(1)?.checked_mul(stride)?.checked_add(cols)?;
        (cols > 0 && last <= data.len()).then_some(Self { data, stride, rows, cols })
    }

    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether rows lie 1 KiB apart at most: fetching those ahead that lie in other pages costs more than it gains.
    #[inline(always)]
    pub(crate) fn is_dense(&self) -> bool {
        self.stride <= 1024 / size_of::<T>()
    }

    /// Rows `first..first + rows`; `None` if there are none, or not so many.
    #[inline]
    pub(crate) fn part(&self, first: usize, rows: usize) -> Option<Self> {
        let inside = first.checked_add(rows).is_some_and(|last| last <= self.rows);
        (inside && rows > 0).then(|| Self {
            data: self.data.get(first * self.stride..).unwrap_or_default(),
            rows,
            ..*self
        })
    }

    /// Columns `first..first + cols` of all rows; `None` if there are none, or not so many.
    #[inline(always)]
    pub(crate) fn narrow(&self, first: usize, cols: usize) -> Option<Self> {
        let inside = first.checked_add(cols).is_some_and(|last| last <= self.cols);
        (inside && cols > 0).then(|| Self { data: self.data.get(first..).unwrap_or_default(), cols, ..*self })
    }

    /// The columns in pairs of neighbours, if every row begins and ends with a whole one.
    #[inline]
    pub(crate) fn pairs(&self) -> Option<Panel<'a, [T; 2]>> {
        let even = self.stride.is_multiple_of(2) && self.cols.is_multiple_of(2);
        even.then(|| Panel::new(self.data.as_chunks().0, self.stride / 2, self.rows, self.cols / 2)).flatten()
    }

    /// Row `index`, or the last one beyond it.
    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> &'a [T] {
        let at = index.min(self.rows - 1) * self.stride;
        // SAFETY: the row lies inside `data` by the invariant.
        unsafe { slice::from_raw_parts(self.data.as_ptr().add(at), self.cols) }
    }

    /// All rows in order.
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        let panel = Panel { data: self.data, stride: self.stride, rows: self.rows, cols: self.cols };
        (0..panel.rows).map(
            #[inline(always)]
            move |index| panel.row(index),
        )
    }

    /// The memory that comes `bytes` after row `first`, to be fetched some cache lines at a time.
    #[inline(always)]
    pub(crate) fn ahead(&self, first: usize, bytes: usize) -> Ahead {
        let size = size_of::<T>();
        let first = first.wrapping_add(bytes.checked_div(self.cols * size).unwrap_or(0));
        let row = self.data.as_ptr().wrapping_add(first.wrapping_mul(self.stride));
        // Rows without a gap between them are one.
        let lines = if self.stride == self.cols { usize::MAX } else { lines_of::<T>(self.cols) };
        Ahead::new(row.cast(), self.stride.wrapping_mul(size), lines)
    }

    /// What lies at `[row][0]`, `[row][1]`, …, where rows past the last one repeat it:
    /// column by column, the numbers of `ROWS` rows from `first` on.
    #[inline(always)]
    pub(crate) fn columns<const ROWS: usize>(&self, first: usize) -> Columns<'a, ROWS, T> {
        let mut rows = [self.data.as_ptr(); ROWS];
        for (offset, row) in rows.iter_mut().enumerate() {
            *row = self.row(first + offset).as_ptr();
        }
        Columns { rows, cols: self.cols, data: PhantomData }
    }

    /// As [`columns`](Self::columns), with one product for the pointers where all the rows are there: short tiles begin 2 to 16 % sooner.
    /// From memory it costs 2 %, and in the tiles of prompts NEON's registers.
    #[inline(always)]
    pub(crate) fn few_columns<const ROWS: usize>(&self, first: usize) -> Columns<'a, ROWS, T> {
        if first.saturating_add(ROWS) > self.rows {
            return self.columns(first);
        }
        // SAFETY: there are `first + ROWS` rows, so this one and those after it begin inside `data`.
        let mut rows = [unsafe { self.data.as_ptr().add(first * self.stride) }; ROWS];
        for offset in 1..ROWS {
            // SAFETY: as above.
            rows[offset] = unsafe { rows[offset - 1].add(self.stride) };
        }
        Columns { rows, cols: self.cols, data: PhantomData }
    }

    /// Row by row, the `COLS` numbers from column `first` on; `None` if the panel is narrower.
    #[inline(always)]
    pub(crate) fn strips<const COLS: usize>(&self, first: usize) -> Option<Strips<'a, COLS, T>> {
        let inside = first.checked_add(COLS)? <= self.cols;
        // SAFETY: `first` ≤ `cols` ≤ `data.len()`.
        inside.then(|| unsafe {
            Strips {
                first: self.data.as_ptr().add(first),
                stride: self.stride,
                rows: self.rows,
                data: PhantomData,
            }
        })
    }
}

/// See [`Panel::columns`]. Invariant: each pointer begins a row of `cols` readable elements.
pub(crate) struct Columns<'a, const ROWS: usize, T = f32> {
    rows: [*const T; ROWS],
    cols: usize,
    data: PhantomData<&'a [T]>,
}

impl<const ROWS: usize, T: Copy> Columns<'_, ROWS, T> {
    /// Each column with the item of `with` beside it, until either ends; `UNROLL` columns to a round of the loop.
    #[inline(always)]
    pub(crate) fn zip_each<const UNROLL: usize, U>(self, with: &[U], mut each: impl FnMut([T; ROWS], &U)) {
        let with = with.get(..self.cols).unwrap_or(with);
        let (rounds, rest) = with.as_chunks::<UNROLL>();
        let mut column = 0;
        for items in rounds {
            for item in items {
                // SAFETY: a column is read for each item, and there are at most `cols` items.
                each(unsafe { self.column(column) }, item);
                column += 1;
            }
        }
        for item in rest {
            // SAFETY: as above; these are the last items.
            each(unsafe { self.column(column) }, item);
            column += 1;
        }
    }

    /// Each column with the row of `with` of the same number, until either ends.
    #[inline(always)]
    pub(crate) fn zip_rows<'b, U>(self, with: Panel<'b, U>, mut each: impl FnMut([T; ROWS], &'b [U])) {
        let mut next = with.data.as_ptr();
        for column in 0..self.cols.min(with.rows) {
            // SAFETY: `column` is less than `cols`.
            let numbers = unsafe { self.column(column) };
            // SAFETY: a row is read for each column, and there are at most `with.rows` of them, `with.stride` apart.
            each(numbers, unsafe { slice::from_raw_parts(next, with.cols) });
            // Past the last row the pointer may leave the data, where it is not read.
            next = next.wrapping_add(with.stride);
        }
    }

    /// `width` columns at a time: what each row has there, and the number of the first vector; the last may be narrower.
    #[inline(always)]
    pub(crate) fn each_chunk(self, width: usize, mut each: impl FnMut(usize, [&[T]; ROWS])) {
        let whole = self.cols.checked_div(width).unwrap_or(0);
        for index in 0..whole {
            // SAFETY: the chunk ends at `cols` at most.
            each(index, unsafe { self.chunk(index * width, width) });
        }
        if whole * width < self.cols {
            // SAFETY: as above.
            each(whole, unsafe { self.chunk(whole * width, self.cols - whole * width) });
        }
    }

    /// Elements of a row from column `first` on.
    #[inline(always)]
    pub(crate) fn left(&self, first: usize) -> usize {
        self.cols.saturating_sub(first)
    }

    /// Elements `first..first + count` of row `row`; none if there are not so many rows or elements.
    #[inline(always)]
    pub(crate) fn get(&self, row: usize, first: usize, count: usize) -> &[T] {
        if row >= ROWS || self.cols.checked_sub(first).is_none_or(|left| left < count) {
            return &[];
        }
        // SAFETY: there is this row, and its elements end at `cols` at most.
        unsafe { slice::from_raw_parts(self.rows[row].add(first), count) }
    }

    /// # Safety
    /// `first + count` is at most `cols`.
    #[inline(always)]
    unsafe fn chunk(&self, first: usize, count: usize) -> [&[T]; ROWS] {
        debug_assert!(first + count <= self.cols);
        // SAFETY: each row has `cols` elements, and the caller promises that these are among them.
        self.rows.map(
            #[inline(always)]
            |row| unsafe { slice::from_raw_parts(row.add(first), count) },
        )
    }

    /// # Safety
    /// `column` is less than `cols`.
    #[inline(always)]
    unsafe fn column(&self, column: usize) -> [T; ROWS] {
        debug_assert!(column < self.cols);
        // SAFETY: each row has `cols` elements, and the caller promises one of them.
        self.rows.map(
            #[inline(always)]
            |row| unsafe { *row.add(column) },
        )
    }
}

/// See [`Panel::strips`]. Invariant: `rows` strips of `COLS` elements, `stride` apart, begin at `first`.
pub(crate) struct Strips<'a, const COLS: usize, T = f32> {
    first: *const T,
    stride: usize,
    rows: usize,
    data: PhantomData<&'a [T]>,
}

impl<'a, const COLS: usize, T> Strips<'a, COLS, T> {
    /// Each strip with the item of `with` beside it, until either ends; `UNROLL` strips to a round of the loop. `fetch`
    /// is told where the strip `ahead` after each of a whole round would lie.
    #[inline(always)]
    pub(crate) fn zip_each<const UNROLL: usize, U>(
        self,
        with: &[U],
        ahead: usize,
        mut fetch: impl FnMut(*const u8),
        mut each: impl FnMut(&'a [T; COLS], &U),
    ) {
        let with = with.get(..self.rows).unwrap_or(with);
        let (rounds, rest) = with.as_chunks::<UNROLL>();
        let ahead = ahead.wrapping_mul(self.stride);
        let mut next = self.first;
        for items in rounds {
            for item in items {
                fetch(next.wrapping_add(ahead).cast());
                // SAFETY: a strip is read for each item, and there are at most `rows` items, `stride` apart.
                each(unsafe { &*next.cast::<[T; COLS]>() }, item);
                // Past the last strip the pointer may leave the data, where it is not read.
                next = next.wrapping_add(self.stride);
            }
        }
        for item in rest {
            // SAFETY: as above; these are the last items.
            each(unsafe { &*next.cast::<[T; COLS]>() }, item);
            next = next.wrapping_add(self.stride);
        }
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// As [`new`](Self::new), of memory that no `&mut` slice can be made of, since others hold parts of it: several
    /// calls may be bound to the same output, on several threads, and each run some of the [`Items`](crate::Items).
    ///
    /// # Safety
    /// For `'a`, `data` points to allocated, aligned elements (their values don't matter), and while an item is run
    /// nobody else reads or writes the elements of its rows.
    ///
    /// ```
    /// use gqa::{Attention, Shape, Strides, View, ViewMut};
    /// let shape = Shape { batch: 1, q_heads: 2, kv_heads: 2, q_len: 1, kv_len: 1, head_dim: 1, value_dim: 1 };
    /// let (q, k, v) = ([0.0f32; 2], [0.0f32; 2], [1.0f32, 2.0]);
    /// let mut out = [0.0f32; 2];
    /// let data: *mut [f32] = &mut out;
    /// for head in 0..2 {
    ///     // SAFETY: `out` is used by nothing else while the items run, one after the other.
    ///     let out = unsafe { ViewMut::from_raw(data, Strides::bhsd(2, 1, 1)) };
    ///     let mut job = Attention::new(shape)?
    ///         .bind(View::bhsd(&q, 2, 1, 1), View::bhsd(&k, 2, 1, 1), View::bhsd(&v, 2, 1, 1), out)?;
    ///     let mut scratch = vec![0.0; job.scratch_len()];
    ///     job.items().nth(head).unwrap().run(&mut scratch)?;
    /// }
    /// assert_eq!(out, [1.0, 2.0]);
    /// # Ok::<(), gqa::Error>(())
    /// ```
    #[must_use]
    pub const unsafe fn from_raw(data: *mut [T], strides: Strides) -> Self {
        Self { data, strides, borrow: PhantomData }
    }
}

// SAFETY: a view is an exclusive borrow of its elements, which `&mut [T]` may be sent as when `T` may.
unsafe impl<T: Send> Send for ViewMut<'_, T> {}
// SAFETY: a shared view gives access to nothing.
unsafe impl<T: Sync> Sync for ViewMut<'_, T> {}

/// All rows of an output, of which work items claim disjoint parts.
///
/// Invariant: every row `(batch, head, row)` of the bound sizes is `dim` elements inside one view, and no two rows
/// share an element.
#[derive(Debug)]
pub(crate) struct Grid<'a, T> {
    data: *mut T,
    strides: Strides,
    dim: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a grid is an exclusive borrow of a slice, and `&mut [T]` is `Send` when `T` is.
unsafe impl<T: Send> Send for Grid<'_, T> {}
// SAFETY: a shared grid gives access only through `claim`, whose callers promise disjoint rows: what
// threads then do is what `&mut [T]` split among them may do, which asks for `T: Send`.
unsafe impl<T: Send> Sync for Grid<'_, T> {}

impl<'a, T> Grid<'a, T> {
    /// The rows of an output, with strides that may differ from the view's where it has no elements.
    ///
    /// # Safety
    /// Every `(batch, head, row)` that will be claimed names `dim` elements inside `view`, and two of them share none.
    pub(crate) unsafe fn new(view: ViewMut<'a, T>, strides: Strides, dim: usize) -> Self {
        Self { data: view.data.cast(), strides, dim, borrow: PhantomData }
    }

    /// The rows of one work item.
    ///
    /// # Safety
    /// `place` lies within the bound sizes, and no other claim that is alive has a row of it.
    pub(crate) unsafe fn claim(&self, place: Place) -> RowsMut<'_, T> {
        RowsMut { data: self.data, strides: self.strides, dim: self.dim, place, borrow: PhantomData }
    }
}

/// Booleans as the bytes that they are, 0 or 1.
#[cfg(feature = "modifiers")]
pub(crate) fn bytes_of(booleans: &[bool]) -> &[u8] {
    // SAFETY: the same memory; a `bool` is one byte, always initialised.
    unsafe { slice::from_raw_parts(booleans.as_ptr().cast(), booleans.len()) }
}

/// The rows of one work item of an operand that is read, by the same names as [`RowsMut`] has for one that is written.
///
/// Invariant: each row of `place`, the first at least, is `dim` elements that may be read for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    data: *const T,
    strides: Strides,
    dim: usize,
    place: Place,
    borrow: PhantomData<&'a [T]>,
}

impl<'a, T> Rows<'a, T> {
    /// # Safety
    /// `view` has `dim` elements for each row of `place`, of which there is one at least.
    #[inline(always)]
    pub(crate) unsafe fn new(view: View<'a, T>, dim: usize, place: Place) -> Self {
        Self { data: view.data.as_ptr(), strides: view.strides, dim, place, borrow: PhantomData }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Row `index` of the item, or the last one beyond it.
    #[inline]
    pub(crate) fn row(&self, index: usize) -> &'a [T] {
        let start = self.place.start(index, self.strides);
        // SAFETY: the row may be read by the invariant.
        unsafe { slice::from_raw_parts(self.data.add(start), self.dim) }
    }

    /// Rows `first..` of the item, the last one repeated.
    #[inline]
    pub(crate) fn rows<const ROWS: usize>(&self, first: usize) -> [&'a [T]; ROWS] {
        let mut rows = [&[][..]; ROWS];
        let mut starts = self.place.starts(first, self.strides);
        for to in &mut rows {
            // SAFETY: as in `row`.
            *to = unsafe { slice::from_raw_parts(self.data.add(starts.next()), self.dim) };
        }
        rows
    }

    /// Those that come after them, of `all` that share a KV head, as many at most, to be fetched.
    #[inline(always)]
    pub(crate) fn next_ahead(&self, all: usize) -> Option<RowsAhead> {
        let first = self.place.first + self.place.count;
        let count = all.checked_sub(first)?.min(self.place.count);
        let place = Place { first, count, ..self.place };
        (count > 0).then(|| place.ahead(self.data, self.strides, self.dim))
    }

    /// `count` of the [`rows`](Self::rows), column by column; those after them repeat the first.
    #[inline(always)]
    pub(crate) fn columns<const ROWS: usize>(&self, first: usize, count: usize) -> Columns<'a, ROWS, T> {
        let mut starts = self.place.starts(first, self.strides);
        // SAFETY: as in `row`.
        let mut rows = [unsafe { self.data.add(starts.next()) }; ROWS];
        for to in rows.iter_mut().take(count).skip(1) {
            // SAFETY: as in `row`.
            *to = unsafe { self.data.add(starts.next()) };
        }
        Columns { rows, cols: self.dim, data: PhantomData }
    }
}

/// The output rows of one work item. Invariant: the rows of `place` are this value's alone.
pub(crate) struct RowsMut<'a, T> {
    data: *mut T,
    strides: Strides,
    dim: usize,
    place: Place,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> RowsMut<'_, T> {
    /// No rows.
    pub(crate) const fn none() -> Self {
        let data = core::ptr::dangling_mut();
        Self { data, strides: Strides::NONE, dim: 0, place: Place::NOWHERE, borrow: PhantomData }
    }

    /// Elements of a row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Row `index` of the item, empty if there is no such row.
    #[inline]
    pub(crate) fn row(&mut self, index: usize) -> &mut [T] {
        if index >= self.place.rows() {
            return &mut [];
        }
        let start = self.place.start(index, self.strides);
        // SAFETY: the row lies inside the borrowed slice by the grid's invariant, and is this value's alone.
        unsafe { slice::from_raw_parts_mut(self.data.add(start), self.dim) }
    }

    /// All rows, to be fetched.
    #[inline(always)]
    pub(crate) fn ahead(&self) -> RowsAhead {
        self.place.ahead(self.data, self.strides, self.dim)
    }

    /// Rows `first..` of the item, as many of `count` as there are.
    #[inline(always)]
    pub(crate) fn columns<const ROWS: usize>(
        &mut self,
        first: usize,
        count: usize,
    ) -> ColumnsMut<'_, ROWS, T> {
        let mut rows = [self.data; ROWS];
        let count = self.place.rows().saturating_sub(first).min(count);
        let mut starts = self.place.starts(first, self.strides);
        for to in rows.iter_mut().take(count) {
            // SAFETY: as in `row`.
            *to = unsafe { self.data.add(starts.next()) };
        }
        ColumnsMut { rows, count, cols: self.dim, borrow: PhantomData }
    }
}

/// See [`RowsMut::columns`]. Invariant: each of the first `count` pointers, as far as there are so many, begins a row of `cols` elements
/// that is this value's alone.
pub(crate) struct ColumnsMut<'a, const ROWS: usize, T> {
    rows: [*mut T; ROWS],
    count: usize,
    cols: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<const ROWS: usize, T> ColumnsMut<'_, ROWS, T> {
    /// Elements of a row from column `first` on.
    #[inline(always)]
    pub(crate) fn left(&self, first: usize) -> usize {
        self.cols.saturating_sub(first)
    }

    /// Lends `each` the elements `first..first + count` of `rows` rows, in order, unless there are not so many of both; whether there are.
    #[inline(always)]
    pub(crate) fn each_row(
        &mut self,
        rows: usize,
        first: usize,
        count: usize,
        mut each: impl FnMut(usize, &mut [T]),
    ) -> bool {
        let inside = self.cols.checked_sub(first).is_some_and(|left| count <= left);
        if rows > self.count || rows > ROWS || !inside {
            return false;
        }
        for row in 0..rows {
            // SAFETY: there is this row, and its elements end at `cols` at most.
            each(row, unsafe { slice::from_raw_parts_mut(self.rows[row].add(first), count) });
        }
        true
    }

    /// Elements `first..first + count` of row `row`; none if there is no such row, or if it has not so many.
    #[inline(always)]
    pub(crate) fn get(&mut self, row: usize, first: usize, count: usize) -> &mut [T] {
        let inside = self.cols.checked_sub(first).is_some_and(|left| count <= left);
        if row >= self.count || row >= ROWS || !inside {
            return &mut [];
        }
        // SAFETY: there is this row, and its elements end at `cols` at most.
        unsafe { slice::from_raw_parts_mut(self.rows[row].add(first), count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_panel_is_refused_when_it_leaves_its_data() {
        let data = [0.0f32; 20];
        assert!(Panel::new(&data, 7, 3, 6).is_some());
        assert!(Panel::new(&data, 7, 3, 7).is_none());
        assert!(Panel::new(&data, 0, usize::MAX, 20).is_some());
        assert!(Panel::new(&data, 1, 0, 1).is_none());
        assert!(Panel::new(&data, 1, 1, 0).is_none());
        assert!(Panel::new(&data, usize::MAX, 2, 2).is_none());
        let panel = Panel::new(&data, 7, 3, 6).unwrap();
        assert!(
            panel.part(2, 1).is_some() && panel.part(2, 2).is_none() && panel.part(usize::MAX, 2).is_none()
        );
        assert!(panel.strips::<6>(0).is_some() && panel.strips::<6>(1).is_none());
    }

    #[test]
    fn what_comes_ahead_is_row_by_row() {
        let data = [0.0f32; 400];
        let walk = |stride: usize, lines: usize| {
            let mut ahead = Panel::new(&data, stride, 4, 80).unwrap().ahead(1, 80 * 4);
            let start = data.as_ptr().cast::<u8>();
            (0..6).map(|_| ahead.advance(lines) as usize - start as usize).collect::<Vec<_>>()
        };
        // Rows of 5 lines, from the one after row 1 on.
        assert_eq!(walk(80, 4), [640, 896, 1152, 1408, 1664, 1920]);
        assert_eq!(walk(100, 4), [800, 1056, 1200, 1456, 1600, 1856]);
        assert_eq!(walk(100, 5), [800, 1200, 1600, 2000, 2400, 2800]);
    }

    #[test]
    fn columns_and_strips_walk_the_rows() {
        let data: [f32; 20] = core::array::from_fn(|i| i as f32);
        let panel = Panel::new(&data, 7, 3, 4).unwrap();
        let mut seen = Vec::new();
        // Rows past the last one repeat it.
        panel.columns::<3>(1).zip_each::<2, _>(&[0, 1, 2, 3, 4], |numbers, &item| seen.push((numbers, item)));
        assert_eq!(seen.len(), 4);
        assert_eq!((seen[0], seen[3]), (([7.0, 14.0, 14.0], 0), ([10.0, 17.0, 17.0], 3)));
        panel.few_columns::<2>(0).zip_each::<2, _>(&[0], |numbers, _| assert_eq!(numbers, [0.0, 7.0]));
        assert!(panel.pairs().is_none());
        assert_eq!(Panel::new(&data, 8, 2, 4).unwrap().pairs().unwrap().row(1), [[8.0, 9.0], [10.0, 11.0]]);
        let (mut seen, mut ahead) = (Vec::new(), Vec::new());
        panel.strips::<2>(1).unwrap().zip_each::<2, _>(
            &[0, 1, 2, 3],
            1,
            |next| ahead.push(next as usize - data.as_ptr() as usize),
            |strip, &item| seen.push((*strip, item)),
        );
        // Of each in a whole round.
        assert_eq!(ahead, [8, 15].map(|index| index * size_of::<f32>()));
        assert_eq!(seen, [([1.0, 2.0], 0), ([8.0, 9.0], 1), ([15.0, 16.0], 2)]);
        assert_eq!(panel.iter().count(), 3);
        let mut seen = Vec::new();
        panel.columns::<2>(1).each_chunk(3, |index, rows| seen.push((index, rows.map(<[f32]>::to_vec))));
        assert_eq!(seen[0], (0, [[7.0, 8.0, 9.0].to_vec(), [14.0, 15.0, 16.0].to_vec()]));
        assert_eq!(seen[1..], [(1, [[10.0].to_vec(), [17.0].to_vec()])]);
        let mut seen = Vec::new();
        let narrow = panel.narrow(1, 2).unwrap();
        panel.columns::<1>(2).zip_rows(narrow, |numbers, row| seen.push((numbers, row.to_vec())));
        let row = |first: f32| [first, first + 1.0].to_vec();
        assert_eq!(seen, [([14.0], row(1.0)), ([15.0], row(8.0)), ([16.0], row(15.0))]);
        assert!(panel.narrow(1, 3).is_some() && panel.narrow(1, 4).is_none() && panel.narrow(0, 0).is_none());
    }
}
