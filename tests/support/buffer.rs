//! Operands in the memory layouts that callers have.

use gqa::{Strides, View, ViewMut};

use super::number::Number;

/// How `[batch, head, row, dim]` lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Contiguous `[batch, head, row, dim]`.
    Bhsd,
    /// Contiguous `[batch, row, head, dim]`.
    Bshd,
    /// Contiguous `[row, batch, head, dim]`.
    Sbhd,
    /// The middle third of `[batch, row, 3, head, dim]`: packed QKV.
    Packed,
    /// A part of something greater: gaps after each row, head and batch, odd strides and an odd offset.
    Gaps,
}

/// All of them.
pub const LAYOUTS: [Layout; 5] = [Layout::Bhsd, Layout::Bshd, Layout::Sbhd, Layout::Packed, Layout::Gaps];

/// An operand: `sizes` = [batch, heads, rows] of `dim` elements.
#[derive(Clone, Debug)]
pub struct Buffer<T> {
    pub data: Vec<T>,
    pub offset: usize,
    pub strides: Strides,
    sizes: [usize; 3],
    dim: usize,
}

impl<T: Number> Buffer<T> {
    /// Every element, gaps included, is `fill`; the slice ends with its last element.
    pub fn filled(layout: Layout, sizes: [usize; 3], dim: usize, fill: T) -> Self {
        let [batch, heads, rows] = sizes;
        let (offset, strides) = match layout {
            Layout::Bhsd => (0, Strides::bhsd(heads, rows, dim)),
            Layout::Bshd => (0, Strides::bshd(heads, rows, dim)),
            Layout::Sbhd => (0, Strides { batch: heads * dim, head: dim, row: batch * heads * dim }),
            Layout::Packed => {
                let row = 3 * heads * dim;
                (heads * dim, Strides { batch: rows * row, head: dim, row })
            }
            Layout::Gaps => {
                let row = dim + 3;
                let head = (rows + 2) * row + 1;
                (5, Strides { batch: heads * head + 7, head, row })
            }
        };
        let mut buffer = Self { data: Vec::new(), offset, strides, sizes, dim };
        let needed = buffer.len().checked_sub(1).map_or(0, |last| buffer.place(last) + 1);
        buffer.data = vec![fill; needed.max(offset)];
        buffer
    }

    /// Holds `numbers`, contiguous, rounded, with NaN in the gaps.
    pub fn of(layout: Layout, sizes: [usize; 3], dim: usize, numbers: &[f64]) -> Self {
        let mut buffer = Self::filled(layout, sizes, dim, T::NAN);
        for (index, &x) in numbers.iter().enumerate() {
            let at = buffer.place(index);
            buffer.data[at] = T::of(x);
        }
        buffer
    }

    /// Elements, without gaps.
    pub fn len(&self) -> usize {
        self.sizes.iter().product::<usize>() * self.dim
    }

    /// Where element `index` of the contiguous order lies.
    pub fn place(&self, index: usize) -> usize {
        let [_, heads, rows] = self.sizes;
        let (row, column) = (index / self.dim, index % self.dim);
        let (head, row) = (row / rows, row % rows);
        let (batch, head) = (head / heads, head % heads);
        let Strides { batch: b, head: h, row: r } = self.strides;
        self.offset + batch * b + head * h + row * r + column
    }

    /// The elements in contiguous order.
    pub fn elements(&self) -> Vec<T> {
        (0..self.len()).map(|index| self.data[self.place(index)]).collect()
    }

    /// The elements in contiguous order as f64.
    pub fn numbers(&self) -> Vec<f64> {
        self.elements().into_iter().map(T::wide).collect()
    }

    /// The bits of everything, gaps included.
    pub fn bits(&self) -> Vec<u32> {
        self.data.iter().map(|x| x.bits()).collect()
    }

    /// Whether the gaps still hold `fill`.
    pub fn gaps_hold(&self, fill: T) -> bool {
        let mut rest = self.clone();
        for index in 0..self.len() {
            rest.data[self.place(index)] = fill;
        }
        rest.data.iter().all(|x| x.bits() == fill.bits())
    }

    pub fn view(&self) -> View<'_, T> {
        View::new(&self.data[self.offset..], self.strides)
    }

    /// The first sequence, again and again.
    pub fn repeated(&self) -> View<'_, T> {
        View::new(&self.data[self.offset..], Strides { batch: 0, ..self.strides })
    }

    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::new(&mut self.data[self.offset..], self.strides)
    }
}
