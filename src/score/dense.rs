//! Dense biases and boolean masks: a number for each (batch, query head, row, key), any of them broadcast by stride 0.

use half::{bf16, f16};

use super::Strip;
use crate::element::Storage;
use crate::error::{Error, Operand};
use crate::isa::{Isa, MAX_LANES};
#[cfg(feature = "modifiers")]
use crate::panel::bytes_of;
use crate::shape::Shape;
use crate::view::Extent;

/// Distances, in elements, between neighbouring batches, query heads, rows and keys of a bias or a mask.
/// 0 broadcasts.
///
/// ```
/// use gqa::MaskStrides;
/// // [q_len, kv_len] for all batches and heads, 32 × 128:
/// assert_eq!(MaskStrides::rows(128), MaskStrides { batch: 0, head: 0, row: 128, key: 1 });
/// // [batch, kv_len] padding:
/// assert_eq!(MaskStrides::keys(128), MaskStrides { batch: 128, head: 0, row: 0, key: 1 });
/// // [batch, heads, q_len, kv_len]:
/// assert_eq!(MaskStrides::full(8, 32, 128), MaskStrides { batch: 32768, head: 4096, row: 128, key: 1 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskStrides {
    /// Elements from one sequence to the next.
    pub batch: usize,
    /// Elements from one query head to the next.
    pub head: usize,
    /// Elements from one query row to the next.
    pub row: usize,
    /// Elements from one key to the next: 1, or 0 to broadcast; others work too.
    pub key: usize,
}

impl MaskStrides {
    /// Contiguous `[batch, heads, q_len, kv_len]`. Products saturate; a bind then reports the overflow.
    #[must_use]
    pub const fn full(heads: usize, q_len: usize, kv_len: usize) -> Self {
        let head = q_len.saturating_mul(kv_len);
        Self { batch: heads.saturating_mul(head), head, row: kv_len, key: 1 }
    }

    /// Contiguous `[q_len, kv_len]`, the same for all batches and heads.
    #[must_use]
    pub const fn rows(kv_len: usize) -> Self {
        Self { batch: 0, head: 0, row: kv_len, key: 1 }
    }

    /// Contiguous `[batch, kv_len]`, the same for all heads and rows: a key padding mask.
    #[must_use]
    pub const fn keys(kv_len: usize) -> Self {
        Self { batch: kv_len, head: 0, row: 0, key: 1 }
    }
}

/// The numbers of an additive bias: a slice of f32, f16 or bf16, whatever Q, K and V are.
///
/// ```
/// use gqa::{BiasData, f16};
/// let (single, half) = (vec![0.0f32; 4], vec![f16::ZERO; 4]);
/// let _: [BiasData; 2] = [single[..].into(), half[..].into()];
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum BiasData<'a> {
    /// f32.
    F32(&'a [f32]),
    /// f16.
    F16(&'a [f16]),
    /// bf16.
    Bf16(&'a [bf16]),
}

impl<'a> From<&'a [f32]> for BiasData<'a> {
    fn from(data: &'a [f32]) -> Self {
        Self::F32(data)
    }
}

impl<'a> From<&'a [f16]> for BiasData<'a> {
    fn from(data: &'a [f16]) -> Self {
        Self::F16(data)
    }
}

impl<'a> From<&'a [bf16]> for BiasData<'a> {
    fn from(data: &'a [bf16]) -> Self {
        Self::Bf16(data)
    }
}

/// Which keys a mask lets be seen: a slice of booleans, or of bytes of which 0 hides, as most tensors hold them.
///
/// ```
/// use gqa::MaskData;
/// let (booleans, bytes) = (vec![true; 4], vec![1u8; 4]);
/// let _: [MaskData; 2] = [booleans[..].into(), bytes[..].into()];
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum MaskData<'a> {
    /// False hides the key.
    Bool(&'a [bool]),
    /// 0 hides the key.
    U8(&'a [u8]),
}

impl<'a> From<&'a [bool]> for MaskData<'a> {
    fn from(data: &'a [bool]) -> Self {
        Self::Bool(data)
    }
}

impl<'a> From<&'a [u8]> for MaskData<'a> {
    fn from(data: &'a [u8]) -> Self {
        Self::U8(data)
    }
}

impl<'a, const N: usize> From<&'a [bool; N]> for MaskData<'a> {
    fn from(mask: &'a [bool; N]) -> Self {
        Self::from(mask.as_slice())
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for MaskData<'a> {
    fn from(mask: &'a [u8; N]) -> Self {
        Self::from(mask.as_slice())
    }
}

/// A bias or a mask as the kernels read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dense<'a> {
    data: Data<'a>,
    strides: MaskStrides,
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "modifiers"), expect(dead_code, reason = "no call has one there"))]
enum Data<'a> {
    Bias(BiasData<'a>),
    /// 0 hides the key.
    Mask(&'a [u8]),
}

impl<'a> Dense<'a> {
    #[cfg(feature = "modifiers")]
    pub(crate) fn bias(data: BiasData<'a>, strides: MaskStrides) -> Self {
        Self { data: Data::Bias(data), strides }
    }

    #[cfg(feature = "modifiers")]
    pub(crate) fn mask(data: MaskData<'a>, strides: MaskStrides) -> Self {
        let bytes = match data {
            MaskData::Bool(booleans) => bytes_of(booleans),
            MaskData::U8(bytes) => bytes,
        };
        Self { data: Data::Mask(bytes), strides }
    }

    pub(crate) fn validate(&self, shape: &Shape) -> Result<(), Error> {
        let (operand, had) = match self.data {
            Data::Bias(BiasData::F32(data)) => (Operand::Bias, data.len()),
            Data::Bias(BiasData::F16(data)) => (Operand::Bias, data.len()),
            Data::Bias(BiasData::Bf16(data)) => (Operand::Bias, data.len()),
            Data::Mask(data) => (Operand::Mask, data.len()),
        };
        let MaskStrides { batch, head, row, key } = self.strides;
        let axes = [(shape.batch, batch), (shape.q_heads, head), (shape.q_len, row), (shape.kv_len, key)];
        Extent { operand, axes, dim: 1 }.check(had)
    }

    /// What is added to the scores of `count` ≤ `LANES` keys from `key` on: one vector, zeros beyond `count`.
    /// A mask adds 0, or -∞ where it hides the key.
    #[inline(always)]
    pub(crate) fn load<S: Isa>(&self, s: S, at: [usize; 3], key: usize, count: usize) -> S::F {
        let [batch, head, row] = at;
        let strides = &self.strides;
        let first = batch * strides.batch + head * strides.head + row * strides.row + key * strides.key;
        let of = Part { first, step: strides.key, count };
        match self.data {
            Data::Bias(BiasData::F32(data)) => of.load(s, data, f32::ZERO),
            Data::Bias(BiasData::F16(data)) => of.load(s, data, f16::ZERO),
            Data::Bias(BiasData::Bf16(data)) => of.load(s, data, bf16::ZERO),
            Data::Mask(data) => {
                let mut buffer = [0.0; MAX_LANES];
                of.read(data, &mut buffer, |&byte| if byte != 0 { 0.0 } else { f32::NEG_INFINITY });
                f32::load(s, &buffer)
            }
        }
    }
}

/// `count` elements from `first` on, `step` apart.
struct Part {
    first: usize,
    step: usize,
    count: usize,
}

impl Part {
    #[inline(always)]
    fn load<S: Isa, T: Storage>(&self, s: S, data: &[T], zero: T) -> S::F {
        if self.step == 1
            && self.count >= S::LANES
            && let Some(vector) = data.get(self.first..).and_then(|data| data.get(..S::LANES))
        {
            return T::load(s, vector);
        }
        let mut buffer = [zero; MAX_LANES];
        self.read(data, &mut buffer, |&x| x);
        T::load(s, &buffer)
    }

    #[inline(always)]
    fn read<T, U>(&self, data: &[T], buffer: &mut [U; MAX_LANES], convert: impl Fn(&T) -> U) {
        let data = data.get(self.first..).unwrap_or_default();
        for (index, to) in buffer.iter_mut().take(self.count).enumerate() {
            if let Some(x) = data.get(index * self.step) {
                *to = convert(x);
            }
        }
    }
}

/// Adds a vector of `bias` to each vector of scores; a bias of -∞ hides the key whatever its score was.
#[inline(always)]
pub(crate) fn apply<S: Isa>(s: S, strip: Strip<'_, S>, bias: &[S::F]) {
    let hidden = s.splat(f32::NEG_INFINITY);
    let mut bias = bias.iter();
    strip.map(
        s,
        #[inline(always)]
        |score, _| {
            let bias = bias.next().copied().unwrap_or(hidden);
            s.select(s.equal(bias, hidden), hidden, s.add(score, bias))
        },
    );
}
