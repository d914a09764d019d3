//! Q, K or V: a strided view of a tensor, which several may share.

use core::mem::discriminant;
use std::rc::Rc;

use gqa::{Strides, View};

use super::Reason;
use super::tensor::{Data, Float, Tensor};

#[derive(Clone, Debug)]
pub(crate) struct Operand {
    tensor: Rc<Tensor>,
    /// Element (0, 0, 0, 0).
    offset: usize,
    strides: Strides,
    /// `[batch, heads, rows, dim]`.
    pub(crate) dims: [usize; 4],
}

impl Operand {
    /// `[batch, heads, rows, dim]`, or less: heads, rows and dim, or rows and dim.
    pub(crate) fn bhsd(tensor: impl Into<Rc<Tensor>>) -> Result<Self, Reason> {
        let tensor = tensor.into();
        let missing = 4usize.checked_sub(tensor.shape.len()).ok_or("needed at most rank 4")?;
        let mut dims = [1; 4];
        dims[missing..].copy_from_slice(&tensor.shape);
        let [_, heads, rows, dim] = dims;
        Ok(Self { tensor, offset: 0, strides: Strides::bhsd(heads, rows, dim), dims })
    }

    /// `heads` heads of `[batch, rows, columns]`, beginning at `column`.
    pub(crate) fn columns(
        tensor: &Rc<Tensor>,
        column: usize,
        heads: usize,
        dim: usize,
    ) -> Result<Self, Reason> {
        let [batch, rows, columns] = tensor.dims()?;
        if column + heads * dim > columns {
            return Err(format!("needed {} columns, had {columns}", column + heads * dim));
        }
        let strides = Strides { batch: rows * columns, head: dim, row: columns };
        Ok(Self { tensor: tensor.clone(), offset: column, strides, dims: [batch, heads, rows, dim] })
    }

    /// `[batch, rows, heads · dim]`.
    pub(crate) fn bshd(tensor: Tensor, heads: usize) -> Result<Self, Reason> {
        let [_, _, columns] = tensor.dims()?;
        if !columns.is_multiple_of(heads) {
            return Err(format!("{columns} columns are no multiple of {heads} heads"));
        }
        Self::columns(&Rc::new(tensor), 0, heads, columns / heads)
    }

    /// Zeros of the same type, contiguous.
    pub(crate) fn zeros_like(&self, dims: [usize; 4]) -> Tensor {
        self.tensor.zeros_like(&dims)
    }

    /// One sequence.
    pub(crate) fn sequence(&self, batch: usize) -> Self {
        let [_, heads, rows, dim] = self.dims;
        Self { offset: self.offset + batch * self.strides.batch, dims: [1, heads, rows, dim], ..self.clone() }
    }

    /// The first rows of each head.
    pub(crate) fn first_rows(&self, rows: usize) -> Result<Self, Reason> {
        let [batch, heads, had, dim] = self.dims;
        if rows > had {
            return Err(format!("needed {rows} rows, had {had}"));
        }
        Ok(Self { dims: [batch, heads, rows, dim], ..self.clone() })
    }

    pub(crate) fn get(&self, [batch, head, row, column]: [usize; 4]) -> f32 {
        let Strides { batch: b, head: h, row: r } = self.strides;
        self.tensor.get(self.offset + batch * b + head * h + row * r + column)
    }

    /// Copies rows of one sequence to rows of a contiguous tensor of the same heads and dim: `(to, from)` batches and
    /// first rows.
    pub(crate) fn copy_rows(&self, from: [usize; 2], to: (&mut Tensor, [usize; 2]), count: usize) {
        let [_, heads, _, dim] = self.dims;
        let (tensor, [batch, first]) = to;
        let rows = tensor.shape[2];
        for (head, row) in (0..heads).flat_map(|head| (0..count).map(move |row| (head, row))) {
            for column in 0..dim {
                let index = ((batch * heads + head) * rows + first + row) * dim + column;
                tensor.set(index, self.get([from[0], head, from[1] + row, column]));
            }
        }
    }

    /// The rows of `past`, then those of `self`: contiguous.
    pub(crate) fn after(&self, past: &Self) -> Result<Self, Reason> {
        let ([batch, heads, new, dim], [b, h, old, d]) = (self.dims, past.dims);
        if [batch, heads, dim] != [b, h, d] {
            return Err(format!("past {:?} does not fit {:?}", past.dims, self.dims));
        }
        let mut both = self.zeros_like([batch, heads, old + new, dim]);
        for b in 0..batch {
            past.copy_rows([b, 0], (&mut both, [b, 0]), old);
            self.copy_rows([b, 0], (&mut both, [b, old]), new);
        }
        Self::bhsd(both)
    }

    /// A contiguous copy.
    pub(crate) fn to_tensor(&self) -> Tensor {
        let mut copy = self.zeros_like(self.dims);
        for batch in 0..self.dims[0] {
            self.copy_rows([batch, 0], (&mut copy, [batch, 0]), self.dims[2]);
        }
        copy
    }

    pub(crate) fn has_type_of(&self, other: &Self) -> bool {
        discriminant(&self.tensor.data) == discriminant(&other.tensor.data)
    }

    /// The same in f32.
    pub(crate) fn widened(self) -> Self {
        let tensor = Tensor { shape: self.tensor.shape.clone(), data: Data::F32(self.tensor.floats()) };
        Self { tensor: tensor.into(), ..self }
    }

    /// What the crate takes, if the elements are of type `T`.
    pub(crate) fn view<T: Float>(&self) -> Option<View<'_, T>> {
        let data = T::slice(&self.tensor.data)?;
        Some(View::new(data.get(self.offset..).unwrap_or_default(), self.strides))
    }
}
