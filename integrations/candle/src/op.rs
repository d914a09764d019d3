//! The operation as candle runs it: layouts become views, storage types choose the job.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Error, Layout, Result, Shape, Tensor, WithDType};
use gqa::{Attention, Element, Strides, View, ViewMut};

use crate::dense::Dense;
use crate::options::Options;
use crate::pool;

/// The operation's name in errors.
const NAME: &str = "gqa-attention";

/// How the result lies in memory.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// `[batch, heads, q_len, value_dim]`.
    HeadsOutside,
    /// `[batch, q_len, heads, value_dim]`.
    RowsOutside,
}

impl Order {
    /// As `q` lies.
    pub(crate) fn of(q: &Tensor) -> Self {
        match *q.stride() {
            [_, head, row, _] if head < row => Self::RowsOutside,
            _ => Self::HeadsOutside,
        }
    }
}

/// Attention of q, k and v, with the result in its order in memory.
pub(crate) struct Op {
    options: Options,
    order: Order,
}

/// Runs the body with the elements of a storage, whatever type they have.
macro_rules! with_elements {
    ($storage:expr, $operand:literal, |$elements:ident| $body:expr) => {
        match $storage {
            CpuStorage::F32($elements) => $body,
            CpuStorage::F16($elements) => $body,
            CpuStorage::BF16($elements) => $body,
            other => {
                Err(Error::UnsupportedDTypeForOp(other.dtype(), concat!($operand, " of gqa-attention")).bt())
            }
        }
    };
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = shape(q_layout, k_layout, v_layout)?;
        let out = with_elements!(q, "q", |q| with_elements!(k, "k", |k| with_elements!(v, "v", |v| {
            self.run(shape, view(q, q_layout)?, view(k, k_layout)?, view(v, v_layout)?)
        })))?;
        let gqa::Shape { batch, q_heads, q_len, value_dim, .. } = shape;
        let dims = match self.order {
            Order::HeadsOutside => [batch, q_heads, q_len, value_dim],
            Order::RowsOutside => [batch, q_len, q_heads, value_dim],
        };
        Ok((out, Shape::from_dims(&dims)))
    }
}

impl Op {
    pub(crate) fn new(options: Options, order: Order) -> Self {
        Self { options, order }
    }

    fn run<Q: Element + WithDType, K: Element, V: Element>(
        &self,
        shape: gqa::Shape,
        q: View<'_, Q>,
        k: View<'_, K>,
        v: View<'_, V>,
    ) -> Result<CpuStorage> {
        let gqa::Shape { batch, q_heads, q_len, kv_len, value_dim, .. } = shape;
        let mut out = vec![Element::from_f32(0.0); batch * q_heads * q_len * value_dim];
        let to = match self.order {
            Order::HeadsOutside => ViewMut::bhsd(&mut out, q_heads, q_len, value_dim),
            Order::RowsOutside => ViewMut::bshd(&mut out, q_heads, q_len, value_dim),
        };

        let broadcast = |tensor: &Tensor| tensor.broadcast_as((batch, q_heads, q_len, kv_len));
        let mask = self.options.mask.as_ref().map(broadcast).transpose()?;
        let bias = self.options.bias.as_ref().map(broadcast).transpose()?;
        let (mask, bias) = (mask.as_ref().map(Dense::of), bias.as_ref().map(Dense::of));
        let mut attention = self.attention(shape)?;
        if let Some(mask) = &mask {
            attention = attention.mask(mask.bytes()?, mask.strides);
        }
        if let Some(bias) = &bias {
            attention = attention.bias(bias.numbers()?, bias.strides);
        }
        pool::run(attention.bind(q, k, v, to).map_err(Error::wrap)?).map_err(Error::wrap)?;
        Ok(Q::to_cpu_storage_owned(out))
    }

    /// All options but tensors.
    fn attention(&self, shape: gqa::Shape) -> Result<Attention<'_>> {
        let options = &self.options;
        let mut attention = Attention::new(shape).map_err(Error::wrap)?.align(options.alignment);
        if let Some(scale) = options.scale {
            attention = attention.scale(scale);
        }
        if let Some(cap) = options.softcap {
            attention = attention.softcap(cap);
        }
        if let Some(keys) = options.left_window {
            attention = attention.left_window(keys);
        }
        if let Some(keys) = options.right_window {
            attention = attention.right_window(keys);
        }
        if let Some(lengths) = &options.query_lengths {
            attention = attention.query_lengths(lengths);
        }
        if let Some(lengths) = &options.key_lengths {
            attention = attention.key_lengths(lengths);
        }
        if let Some(lengths) = &options.prefix_lengths {
            attention = attention.prefix_lengths(lengths);
        }
        if let Some(slopes) = &options.alibi {
            attention = attention.alibi(slopes);
        }
        if let Some(sinks) = &options.sinks {
            attention = attention.sinks(sinks);
        }
        Ok(attention)
    }
}

/// The sizes of a call.
fn shape(q: &Layout, k: &Layout, v: &Layout) -> Result<gqa::Shape> {
    let (batch, q_heads, q_len, head_dim) = q.shape().dims4()?;
    let (_, kv_heads, kv_len, _) = k.shape().dims4()?;
    let (_, _, _, value_dim) = v.shape().dims4()?;
    fits("k of gqa-attention", k, [batch, kv_heads, kv_len, head_dim])?;
    fits("v of gqa-attention", v, [batch, kv_heads, kv_len, value_dim])?;
    Ok(gqa::Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim })
}

fn fits(operand: &str, layout: &Layout, dims: [usize; 4]) -> Result<()> {
    if layout.dims() == dims {
        return Ok(());
    }
    let (expected, got) = (Shape::from_dims(&dims), layout.shape().clone());
    Err(Error::UnexpectedShape { msg: operand.into(), expected, got }.bt())
}

/// The elements that a layout of four dimensions names, where they lie.
fn view<'a, T>(elements: &'a [T], layout: &Layout) -> Result<View<'a, T>> {
    let (&[.., dim], &[batch, head, row, element]) = (layout.dims(), layout.stride()) else {
        unreachable!("`shape` has seen four dimensions")
    };
    if element != 1 && dim > 1 {
        return Err(Error::RequiresContiguous { op: "gqa-attention on the last dimension" }.bt());
    }
    // A tensor without elements may begin anywhere.
    let elements = elements.get(layout.start_offset()..).unwrap_or_default();
    Ok(View::new(elements, Strides { batch, head, row }))
}
