//! One call as the page writes it, and its way into the crate.

use core::{ptr, slice};

#[cfg(not(feature = "modifiers"))]
use gqa::Operand;
use gqa::{Alignment, Attention, Element, Error, Shape, Strides, View, ViewMut};
#[cfg(feature = "modifiers")]
use gqa::{BiasData, Job, MaskStrides, Stage};
#[cfg(feature = "half")]
use gqa::{bf16, f16};

use crate::failure::Failure;
use crate::work::{Combination, Work};

/// Elements from `data` on, where it is not null.
#[repr(C)]
#[derive(Clone, Copy)]
struct Slice {
    data: *mut u8,
    len: usize,
}

/// A tensor of `[batch, head, row, key or dim]`; strides are in elements, the last one is read of masks and biases.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tensor {
    elements: Slice,
    strides: [usize; 4],
}

/// Every field is made of 32-bit words, in the order of `js/call.js`.
#[repr(C)]
pub(crate) struct Call {
    /// batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim.
    shape: [usize; 7],
    /// Of Q and the output, of K and V, of the bias: 0 is f32, 1 f16, 2 bf16.
    storage: u32,
    kv_storage: u32,
    bias_storage: u32,
    /// Of an inspection: 0 raw, 1 softcapped, 2 biased, 3 softmax.
    stage: u32,
    /// The bits of the next five fields that are given, the first the lowest.
    given: u32,
    scale: f32,
    softcap: f32,
    left_window: usize,
    right_window: usize,
    /// Position of the first query row among the keys; bottom-right if it is not given.
    offset: i32,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scores: Tensor,
    bias: Tensor,
    mask: Tensor,
    query_lengths: Slice,
    key_lengths: Slice,
    prefix_lengths: Slice,
    alibi_slopes: Slice,
    sinks: Slice,
}

impl Slice {
    const NONE: Self = Self { data: ptr::null_mut(), len: 0 };

    /// # Safety
    /// Of `bind`, for elements of type `T`.
    unsafe fn get<T>(self) -> Option<&'static [T]> {
        // SAFETY: the page has made the slice from memory of its own, aligned, by the contract of `bind`.
        (!self.data.is_null()).then(|| unsafe { slice::from_raw_parts(self.data.cast(), self.len) })
    }
}

impl Tensor {
    const NONE: Self = Self { elements: Slice::NONE, strides: [0; 4] };

    fn row_strides(&self) -> Strides {
        let [batch, head, row, _] = self.strides;
        Strides { batch, head, row }
    }

    #[cfg(feature = "modifiers")]
    fn mask_strides(&self) -> MaskStrides {
        let [batch, head, row, key] = self.strides;
        MaskStrides { batch, head, row, key }
    }

    /// # Safety
    /// Of `bind`, for elements of type `T`.
    unsafe fn view<T>(&self) -> View<'static, T> {
        // SAFETY: the caller's promise.
        View::new(unsafe { self.elements.get() }.unwrap_or_default(), self.row_strides())
    }

    /// # Safety
    /// Of `bind`, for elements of type `T` of an output.
    unsafe fn view_mut<T>(&self) -> Option<ViewMut<'static, T>> {
        let Slice { data, len } = self.elements;
        // SAFETY: as `Slice::get`; an output shares no element with another operand.
        let data = (!data.is_null()).then(|| unsafe { slice::from_raw_parts_mut(data.cast(), len) })?;
        Some(ViewMut::new(data, self.row_strides()))
    }
}

impl Call {
    pub(crate) const EMPTY: Self = Self {
        shape: [0; 7],
        storage: 0,
        kv_storage: 0,
        bias_storage: 0,
        stage: 0,
        given: 0,
        scale: 0.0,
        softcap: 0.0,
        left_window: 0,
        right_window: 0,
        offset: 0,
        q: Tensor::NONE,
        k: Tensor::NONE,
        v: Tensor::NONE,
        out: Tensor::NONE,
        lse: Tensor::NONE,
        scores: Tensor::NONE,
        bias: Tensor::NONE,
        mask: Tensor::NONE,
        query_lengths: Slice::NONE,
        key_lengths: Slice::NONE,
        prefix_lengths: Slice::NONE,
        alibi_slopes: Slice::NONE,
        sinks: Slice::NONE,
    };

    /// Makes the call the one that `work` runs; the scratch that a thread needs, in elements.
    ///
    /// # Safety
    /// Of the export `bind`.
    pub(crate) unsafe fn bind(&self, work: &Work, threads: usize) -> Result<usize, Failure> {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.storage, self.kv_storage) {
                #[cfg(feature = "half")]
                (1, _) => self.bind_as::<f16, f16>(work, threads),
                #[cfg(feature = "half")]
                (2, _) => self.bind_as::<bf16, bf16>(work, threads),
                #[cfg(feature = "half")]
                (_, 1) => self.bind_as::<f32, f16>(work, threads),
                #[cfg(feature = "half")]
                (_, 2) => self.bind_as::<f32, bf16>(work, threads),
                _ => self.bind_as::<f32, f32>(work, threads),
            }
        }
    }

    /// # Safety
    /// As `bind`; Q and the output hold `Q`s, K and V hold `K`s.
    unsafe fn bind_as<Q: Element, K: Element>(&self, work: &Work, threads: usize) -> Result<usize, Failure>
    where
        (Q, K): Combination<Q, K>,
    {
        #[cfg(not(feature = "modifiers"))]
        if let Some(operand) = self.modifier() {
            return Err(Failure::missing(operand));
        }
        // SAFETY: the caller's promise, for each operand.
        let (attention, q, k, v, out) = unsafe {
            let out = self.out.view_mut().unwrap_or(ViewMut::new(&mut [], self.out.row_strides()));
            (self.attention()?, self.q.view(), self.k.view(), self.v.view(), out)
        };
        let job = attention.bind::<Q, K, K, Q>(q, k, v, out)?;
        // SAFETY: as above.
        #[cfg(feature = "modifiers")]
        let job = unsafe { self.outputs(job)? };
        let scratch_len = job.scratch_len();
        // SAFETY: no thread works, by the caller's promise.
        unsafe { work.set(job, threads) };
        Ok(scratch_len)
    }

    /// # Safety
    /// As `bind`.
    unsafe fn attention(&self) -> Result<Attention<'static>, Error> {
        let [batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim] = self.shape;
        let shape = Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim };
        let mut attention = Attention::new(shape)?;
        let given = |bit: u32| self.given & 1 << bit != 0;
        if given(0) {
            attention = attention.scale(self.scale);
        }
        if given(2) {
            attention = attention.left_window(self.left_window);
        }
        if given(3) {
            attention = attention.right_window(self.right_window);
        }
        if given(4) {
            attention = attention.align(Alignment::Offset(self.offset.into()));
        }
        // SAFETY: the caller's promise, for each slice.
        unsafe {
            if let Some(lengths) = self.query_lengths.get() {
                attention = attention.query_lengths(lengths);
            }
            if let Some(lengths) = self.key_lengths.get() {
                attention = attention.key_lengths(lengths);
            }
            if let Some(lengths) = self.prefix_lengths.get() {
                attention = attention.prefix_lengths(lengths);
            }
        }
        // SAFETY: as above.
        #[cfg(feature = "modifiers")]
        let attention = unsafe { self.modified(attention)? };
        Ok(attention)
    }

    /// What a module without modifiers is asked for, and can't do.
    #[cfg(not(feature = "modifiers"))]
    fn modifier(&self) -> Option<Operand> {
        let given = |elements: Slice| !elements.data.is_null();
        let asked = [
            (Operand::Lse, given(self.lse.elements)),
            (Operand::Scores, given(self.scores.elements)),
            (Operand::Bias, given(self.bias.elements)),
            (Operand::Mask, given(self.mask.elements)),
            (Operand::AlibiSlopes, given(self.alibi_slopes)),
            (Operand::Sinks, given(self.sinks)),
            (Operand::Softcap, self.given & 1 << 1 != 0),
        ];
        asked.into_iter().find_map(|(operand, asked)| asked.then_some(operand))
    }
}

#[cfg(feature = "modifiers")]
impl Call {
    /// # Safety
    /// As `bind`.
    unsafe fn modified(&self, mut attention: Attention<'static>) -> Result<Attention<'static>, Error> {
        if self.given & 1 << 1 != 0 {
            attention = attention.softcap(self.softcap);
        }
        // SAFETY: the caller's promise, for each slice.
        unsafe {
            if let Some(slopes) = self.alibi_slopes.get() {
                attention = attention.alibi(slopes);
            }
            if let Some(sinks) = self.sinks.get() {
                attention = attention.sinks(sinks);
            }
            if let Some(bias) = self.bias_data() {
                attention = attention.bias(bias, self.bias.mask_strides());
            }
            if let Some(mask) = self.mask.elements.get::<u8>() {
                attention = attention.mask(mask, self.mask.mask_strides());
            }
        }
        Ok(attention)
    }

    /// The outputs beside the output.
    ///
    /// # Safety
    /// As `bind`.
    unsafe fn outputs<Q: Element, K: Element>(
        &self,
        mut job: Job<'static, Q, K, K, Q>,
    ) -> Result<Job<'static, Q, K, K, Q>, Error> {
        // SAFETY: the caller's promise.
        let (lse, scores) = unsafe { (self.lse.view_mut(), self.scores.view_mut()) };
        if let Some(lse) = lse {
            job = job.lse(lse)?;
        }
        if let Some(scores) = scores {
            let stage = match self.stage {
                0 => Stage::Raw,
                1 => Stage::Softcapped,
                2 => Stage::Biased,
                _ => Stage::Softmax,
            };
            job = job.inspect(stage, scores)?;
        }
        Ok(job)
    }

    /// # Safety
    /// As `bind`.
    unsafe fn bias_data(&self) -> Option<BiasData<'static>> {
        // SAFETY: the caller's promise.
        unsafe {
            match self.bias_storage {
                #[cfg(feature = "half")]
                1 => Some(self.bias.elements.get::<f16>()?.into()),
                #[cfg(feature = "half")]
                2 => Some(self.bias.elements.get::<bf16>()?.into()),
                _ => Some(self.bias.elements.get::<f32>()?.into()),
            }
        }
    }
}
