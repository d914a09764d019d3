//! A mask or bias that is broadcast to the scores.

use std::rc::Rc;

use gqa::{Attention, BiasData, MaskStrides};

use super::Reason;
use super::tensor::{Data, Tensor};

#[derive(Clone, Debug)]
pub(crate) struct Mask {
    tensor: Rc<Tensor>,
    offset: usize,
    strides: MaskStrides,
}

impl Mask {
    /// Lines up the last axes with `[batch, q_heads, q_len, kv_len]`; missing axes and axes of 1 repeat.
    pub(crate) fn broadcast(tensor: Tensor, scores: [usize; 4]) -> Result<Self, Reason> {
        let misfit = || format!("a mask of {:?} does not broadcast to {scores:?}", tensor.shape);
        let missing = 4usize.checked_sub(tensor.shape.len()).ok_or_else(misfit)?;
        let (mut strides, mut stride) = ([0; 4], 1);
        for (axis, &size) in tensor.shape.iter().enumerate().rev() {
            if size == scores[missing + axis] {
                strides[missing + axis] = stride;
            } else if size != 1 {
                return Err(misfit());
            }
            stride *= size;
        }
        let [batch, head, row, key] = strides;
        Ok(Self { tensor: tensor.into(), offset: 0, strides: MaskStrides { batch, head, row, key } })
    }

    /// Makes the last axis `keys` long; keys beyond its end are hidden.
    pub(crate) fn pad(tensor: Tensor, keys: usize) -> Result<Tensor, Reason> {
        let Some((&had, outer)) = tensor.shape.split_last() else { return Ok(tensor) };
        if had >= keys {
            return Ok(tensor);
        }
        fn rows<T: Copy>(elements: &[T], had: usize, keys: usize, count: usize, hidden: T) -> Vec<T> {
            (0..count * keys)
                .map(|i| if i % keys < had { elements[i / keys * had + i % keys] } else { hidden })
                .collect()
        }
        let count = outer.iter().product();
        let hidden = f32::NEG_INFINITY;
        let data = match &tensor.data {
            Data::F32(x) => Data::F32(rows(x, had, keys, count, hidden)),
            Data::F16(x) => Data::F16(rows(x, had, keys, count, gqa::f16::from_f32(hidden))),
            Data::Bf16(x) => Data::Bf16(rows(x, had, keys, count, gqa::bf16::from_f32(hidden))),
            Data::Bool(x) => Data::Bool(rows(x, had, keys, count, false)),
            Data::Int(_) => return Err("a mask of integers is not known".into()),
        };
        Ok(Tensor { shape: [outer, &[keys]].concat(), data })
    }

    /// The mask of one sequence, from key `first` on.
    pub(crate) fn sequence(&self, batch: usize, first: usize) -> Self {
        let offset = self.offset + batch * self.strides.batch + first * self.strides.key;
        Self { offset, ..self.clone() }
    }

    pub(crate) fn apply<'a>(&'a self, attention: Attention<'a>) -> Result<Attention<'a>, Reason> {
        fn from<T>(elements: &[T], offset: usize) -> &[T] {
            elements.get(offset..).unwrap_or_default()
        }
        let bias: BiasData<'a> = match &self.tensor.data {
            Data::Bool(mask) => return Ok(attention.mask(from(mask, self.offset), self.strides)),
            Data::F32(bias) => from(bias, self.offset).into(),
            Data::F16(bias) => from(bias, self.offset).into(),
            Data::Bf16(bias) => from(bias, self.offset).into(),
            Data::Int(_) => return Err("a mask of integers is not known".into()),
        };
        Ok(attention.bias(bias, self.strides))
    }
}
