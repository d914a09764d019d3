//! Dense biases and boolean masks: a number for each (batch, query head, row, key), any of them broadcast by stride 0.
#![allow(
    clippy::needless_range_loop,
    reason = "loops over indices unroll early enough to leave squares in registers"
)]

use half::{bf16, f16};

use super::{Strip, hide};
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
pub(crate) struct Dense<T> {
    data: T,
    strides: MaskStrides,
}

/// What is added to scores; -∞ hides the key whatever its score was.
pub(crate) type Bias<'a> = Dense<BiasData<'a>>;

/// A byte for each key: 0 hides it.
pub(crate) type Mask<'a> = Dense<&'a [u8]>;

/// Keys whose bytes of a mask are looked at together.
pub(crate) const TOGETHER: usize = u32::BITS as usize;

impl<T> Dense<T> {
    fn check(&self, operand: Operand, shape: &Shape, had: usize) -> Result<(), Error> {
        let MaskStrides { batch, head, row, key } = self.strides;
        let axes = [(shape.batch, batch), (shape.q_heads, head), (shape.q_len, row), (shape.kv_len, key)];
        Extent { operand, axes, dim: 1 }.check(had)
    }

    /// Where a batch, query head and row begin.
    #[inline(always)]
    pub(crate) fn start(&self, [batch, head, row]: [usize; 3]) -> usize {
        batch * self.strides.batch + head * self.strides.head + row * self.strides.row
    }

    /// `count` keys from `key` on, of what begins at `start`.
    #[inline(always)]
    fn part(&self, start: usize, key: usize, count: usize) -> Part {
        Part { first: start + key * self.strides.key, step: self.strides.key, count }
    }
}

impl<'a> Bias<'a> {
    #[cfg(feature = "modifiers")]
    pub(crate) fn new(data: BiasData<'a>, strides: MaskStrides) -> Self {
        Self { data, strides }
    }

    pub(crate) fn validate(&self, shape: &Shape) -> Result<(), Error> {
        let had = match self.data {
            BiasData::F32(data) => data.len(),
            BiasData::F16(data) => data.len(),
            BiasData::Bf16(data) => data.len(),
        };
        self.check(Operand::Bias, shape, had)
    }

    /// For each of the first `LANES` of `starts`, or as many as there are, what is added to the scores of `count` ≤ `LANES`
    /// keys from `key` on: a vector each, zeros beyond `count`. What lies `ahead` keys after those of many rows is fetched.
    #[inline(always)]
    pub(crate) fn load<S: Isa>(
        &self,
        s: S,
        starts: &[usize],
        key: usize,
        count: usize,
        ahead: usize,
    ) -> [S::F; MAX_LANES] {
        match self.data {
            BiasData::F32(data) => self.load_from(s, data, starts, key, count, ahead),
            BiasData::F16(data) => self.load_from(s, data, starts, key, count, ahead),
            BiasData::Bf16(data) => self.load_from(s, data, starts, key, count, ahead),
        }
    }

    #[inline(always)]
    fn load_from<S: Isa, T: Storage>(
        &self,
        s: S,
        data: &[T],
        starts: &[usize],
        key: usize,
        count: usize,
        ahead: usize,
    ) -> [S::F; MAX_LANES] {
        let mut rows = [s.zero(); MAX_LANES];
        let whole = self.strides.key == 1 && count == S::LANES;
        if let (true, Some(starts)) = (whole, starts.first_chunk::<MAX_LANES>()) {
            for lane in 0..S::LANES {
                let first = starts[lane] + key;
                if S::PREFETCHES {
                    // The row goes on there, but the core's own prefetchers don't follow so many.
                    s.prefetch(data.as_ptr().wrapping_add(first + ahead).cast());
                }
                if let Some(from) = data.get(first..).and_then(|from| from.get(..S::LANES)) {
                    rows[lane] = T::load(s, from);
                }
            }
            return rows;
        }
        for (to, &start) in rows.iter_mut().zip(starts).take(S::LANES) {
            *to = self.part(start, key, count).load(s, data);
        }
        rows
    }
}

impl<'a> Mask<'a> {
    #[cfg(feature = "modifiers")]
    pub(crate) fn new(data: MaskData<'a>, strides: MaskStrides) -> Self {
        let data = match data {
            MaskData::Bool(booleans) => bytes_of(booleans),
            MaskData::U8(bytes) => bytes,
        };
        Self { data, strides }
    }

    pub(crate) fn validate(&self, shape: &Shape) -> Result<(), Error> {
        self.check(Operand::Mask, shape, self.data.len())
    }

    /// Which of `count` ≤ [`TOGETHER`] keys from `key` on are seen: a bit each, and set beyond `count`.
    #[inline(always)]
    pub(crate) fn load<S: Isa>(&self, s: S, start: usize, key: usize, count: usize) -> u32 {
        let part = self.part(start, key, count);
        if part.step == 1
            && let Some(bytes) = self.data.get(part.first..).and_then(|bytes| bytes.first_chunk::<TOGETHER>())
            && count == TOGETHER
        {
            return s.not_zero(bytes);
        }
        let mut bits = u32::MAX;
        part.each(self.data, |index, &byte| bits &= !(u32::from(byte == 0) << index));
        bits
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
    fn load<S: Isa, T: Storage>(&self, s: S, data: &[T]) -> S::F {
        if self.step == 1
            && self.count >= S::LANES
            && let Some(vector) = data.get(self.first..).and_then(|data| data.get(..S::LANES))
        {
            return T::load(s, vector);
        }
        let mut buffer = [T::ZERO; MAX_LANES];
        self.each(data, |index, &x| {
            if let Some(to) = buffer.get_mut(index) {
                *to = x;
            }
        });
        T::load(s, &buffer)
    }

    #[inline(always)]
    fn each<T>(&self, data: &[T], mut f: impl FnMut(usize, &T)) {
        let data = data.get(self.first..).unwrap_or_default();
        for index in 0..self.count {
            if let Some(x) = data.get(index * self.step) {
                f(index, x);
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

/// Hides the keys that the sets of rows in lanes lack, the first bit being that of the strip's first key.
#[inline(always)]
pub(crate) fn hide_of_rows<S: Isa>(s: S, strip: Strip<'_, S>, sets: &[u32; MAX_LANES]) {
    let mut bit = 1u32;
    strip.map(
        s,
        #[inline(always)]
        |score, _| {
            let lacks = s.lacks(sets, bit);
            bit = bit.rotate_left(1);
            hide(s, lacks, score)
        },
    );
}

/// Hides the keys in lanes that a row's set lacks.
#[inline(always)]
pub(crate) fn hide_of_keys<S: Isa>(s: S, strip: Strip<'_, S>, set: u32) {
    const EACH: [u32; MAX_LANES] = {
        let (mut each, mut lane) = ([0; MAX_LANES], 0);
        while lane < MAX_LANES {
            each[lane] = 1 << lane;
            lane += 1;
        }
        each
    };
    let mut set = set;
    strip.map(
        s,
        #[inline(always)]
        |score, _| {
            let lacks = s.lacks(&EACH, set);
            set = set.rotate_right(S::LANES as u32);
            hide(s, lacks, score)
        },
    );
}
