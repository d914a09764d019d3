//! The modifiers of a call as a caller holds them: compact, strided, in their storage types.

use gqa::{Alignment, Attention, BiasData, MaskStrides, Shape, bf16, f16};

use super::number::Number;
use super::reference::Options;

/// A bias or mask, with broadcasting.
#[derive(Clone, Debug)]
pub struct Dense<T> {
    pub data: T,
    pub strides: MaskStrides,
}

/// A bias in one of its storage types.
#[derive(Clone, Debug)]
pub enum Bias {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// What is attached to an [`Attention`].
#[derive(Clone, Debug, Default)]
pub struct Modifiers {
    pub scale: Option<f32>,
    pub softcap: Option<f32>,
    pub alibi: Option<Vec<f32>>,
    pub bias: Option<Dense<Bias>>,
    pub mask: Option<Dense<Vec<bool>>>,
    pub alignment: Alignment,
    pub left: Option<usize>,
    pub right: Option<usize>,
    pub query_lengths: Option<Vec<usize>>,
    pub key_lengths: Option<Vec<usize>>,
    pub prefix_lengths: Option<Vec<usize>>,
    pub sinks: Option<Vec<f32>>,
}

/// How a bias or mask of this shape may be broadcast: which of its axes [batch, head, row, key] it has.
pub fn mask_strides(shape: &Shape, has: [bool; 4]) -> (MaskStrides, usize) {
    let sizes = [shape.batch, shape.q_heads, shape.q_len, shape.kv_len];
    let (mut strides, mut count) = ([0; 4], 1);
    for axis in (0..4).rev().filter(|&axis| has[axis]) {
        strides[axis] = count;
        count *= sizes[axis];
    }
    let [batch, head, row, key] = strides;
    (MaskStrides { batch, head, row, key }, count)
}

/// Each element of `[batch, q_head, row, key]`.
fn expanded<T>(shape: &Shape, strides: MaskStrides, at: impl Fn(usize) -> T) -> Vec<T> {
    let mut all = Vec::new();
    for batch in 0..shape.batch {
        for head in 0..shape.q_heads {
            for row in 0..shape.q_len {
                let first = batch * strides.batch + head * strides.head + row * strides.row;
                all.extend((0..shape.kv_len).map(|key| at(first + key * strides.key)));
            }
        }
    }
    all
}

impl Bias {
    fn at(&self, index: usize) -> f64 {
        match self {
            Self::F32(data) => data[index].wide(),
            Self::F16(data) => data[index].wide(),
            Self::Bf16(data) => data[index].wide(),
        }
    }

    fn data(&self) -> BiasData<'_> {
        match self {
            Self::F32(data) => data[..].into(),
            Self::F16(data) => data[..].into(),
            Self::Bf16(data) => data[..].into(),
        }
    }

    /// In one of the storage types.
    pub fn of(storage: usize, numbers: &[f64]) -> Self {
        fn stored<T: Number>(numbers: &[f64]) -> Vec<T> {
            numbers.iter().map(|&x| T::of(x)).collect()
        }
        match storage % 3 {
            0 => Self::F32(stored(numbers)),
            1 => Self::F16(stored(numbers)),
            _ => Self::Bf16(stored(numbers)),
        }
    }
}

impl Modifiers {
    pub fn causal() -> Self {
        Self { right: Some(0), ..Self::default() }
    }

    /// For the reference.
    pub fn options(&self, shape: &Shape) -> Options {
        Options {
            scale: self.scale.map(f64::from),
            softcap: self.softcap.map(f64::from),
            alibi: self.alibi.clone(),
            bias: self.bias.as_ref().map(|bias| expanded(shape, bias.strides, |at| bias.data.at(at))),
            mask: self.mask.as_ref().map(|mask| expanded(shape, mask.strides, |at| mask.data[at])),
            alignment: self.alignment,
            left: self.left,
            right: self.right,
            query_lengths: self.query_lengths.clone(),
            key_lengths: self.key_lengths.clone(),
            prefix_lengths: self.prefix_lengths.clone(),
            sinks: self.sinks.clone(),
        }
    }

    /// For the crate.
    pub fn attach<'a>(&'a self, mut attention: Attention<'a>) -> Attention<'a> {
        attention = attention.align(self.alignment);
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if let Some(cap) = self.softcap {
            attention = attention.softcap(cap);
        }
        if let Some(slopes) = &self.alibi {
            attention = attention.alibi(slopes);
        }
        if let Some(bias) = &self.bias {
            attention = attention.bias(bias.data.data(), bias.strides);
        }
        if let Some(mask) = &self.mask {
            attention = attention.mask(&mask.data[..], mask.strides);
        }
        if let Some(keys) = self.left {
            attention = attention.left_window(keys);
        }
        match self.right {
            Some(0) => attention = attention.causal(),
            Some(keys) => attention = attention.right_window(keys),
            None => {}
        }
        if let Some(lengths) = &self.query_lengths {
            attention = attention.query_lengths(lengths);
        }
        if let Some(lengths) = &self.key_lengths {
            attention = attention.key_lengths(lengths);
        }
        if let Some(lengths) = &self.prefix_lengths {
            attention = attention.prefix_lengths(lengths);
        }
        if let Some(sinks) = &self.sinks {
            attention = attention.sinks(sinks);
        }
        attention
    }
}
