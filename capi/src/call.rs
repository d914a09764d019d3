//! The descriptor of a call.

use core::ffi::c_void;

use attention::{
    Alignment, Attention, Bf16Dot, BiasData, KvStorage, MaskStrides, Shape, Stage, Strides, bf16, f16,
};

use crate::error::{GQA_ERROR_STRUCT_SIZE, GQA_ERROR_VALUE, gqa_error};
use crate::level::{gqa_level, level};
use crate::memory::{Memory, Place};

/// What the elements of an operand are.
pub type gqa_type = u32;
/// `float`.
pub const GQA_F32: gqa_type = 0;
/// IEEE 754 binary16, 2 bytes.
pub const GQA_F16: gqa_type = 1;
/// bfloat16: the upper 2 bytes of a `float`.
pub const GQA_BF16: gqa_type = 2;

/// Bits of `gqa_call.flags`.
pub type gqa_flags = u32;
/// Hides the keys after a row's own position; the same as GQA_RIGHT_WINDOW with `right_window` 0.
pub const GQA_CAUSAL: gqa_flags = 1;
/// `scale` is the factor of the scores, and not the default 1/sqrt(head_dim).
pub const GQA_SCALE: gqa_flags = 2;
/// Hides the keys more than `left_window` before a row's own position.
pub const GQA_LEFT_WINDOW: gqa_flags = 4;
/// Hides the keys more than `right_window` after a row's own position.
pub const GQA_RIGHT_WINDOW: gqa_flags = 8;
/// Lets bf16 keys and values be multiplied in bf16, summed in float, on machines that gain by it (but few rows only by a matrix unit): the
/// softmax's weights are rounded to bf16 then, and so are queries, which puts outputs off by up to 2^-8 times the
/// weighted mean of |v| (and scores by 2^-8 times scale * the sum of |q k|, if queries are not stored in bf16). On x86-64 Linux the
/// system is asked for the registers of a matrix unit then, once for the process (arch_prctl).
pub const GQA_BF16_DOT: gqa_flags = 16;

/// Where query rows stand among the keys, for causal limits, windows and ALiBi.
pub type gqa_alignment = u32;
/// The last row stands at the last key of its sequence, with its key length.
pub const GQA_BOTTOM_RIGHT: gqa_alignment = 0;
/// The first row stands at key 0.
pub const GQA_TOP_LEFT: gqa_alignment = 1;
/// The first row stands at `offset`, which may be negative or beyond the keys.
pub const GQA_OFFSET: gqa_alignment = 2;

/// A stage of the scores that can be looked at.
pub type gqa_stage = u32;
/// scale * q.k, for every key, visible or not.
pub const GQA_STAGE_RAW: gqa_stage = 0;
/// After the softcap, for every key, visible or not.
pub const GQA_STAGE_SOFTCAPPED: gqa_stage = 1;
/// After ALiBi, bias, mask and visibility: a hidden key is -infinity.
pub const GQA_STAGE_BIASED: gqa_stage = 2;
/// The weights, with the sinks in their denominator: a hidden key is 0.
pub const GQA_STAGE_SOFTMAX: gqa_stage = 3;

/// Elements from one batch, head and row to the next. A row is contiguous. 0 repeats the same data, in inputs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_strides {
    /// From one sequence to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one row (position) to the next.
    pub row: usize,
}

/// Elements from one batch, query head, row and key of a bias or mask to the next. 0 repeats the same data.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_mask_strides {
    /// From one sequence to the next.
    pub batch: usize,
    /// From one query head to the next.
    pub head: usize,
    /// From one query row to the next.
    pub row: usize,
    /// From one key to the next.
    pub key: usize,
}

/// Q, K or V: element c of row r of head h of sequence b is `data[b * batch + h * head + r * row + c]`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_input {
    /// Aligned to its elements. NULL if there are none.
    pub data: *const c_void,
    /// Elements from `data` on that may be read.
    pub len: usize,
    /// What they are.
    pub r#type: gqa_type,
    /// Where rows begin.
    pub strides: gqa_strides,
}

/// The output, placed as an input is. Rows must not overlap.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_output {
    /// Aligned to its elements. NULL if there are none.
    pub data: *mut c_void,
    /// Elements from `data` on that are the call's; those between rows are left alone.
    pub len: usize,
    /// What they are.
    pub r#type: gqa_type,
    /// Where rows begin.
    pub strides: gqa_strides,
}

/// An optional output of floats, placed as an input is. Rows must not overlap.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_float_output {
    /// Aligned. NULL if it is not wanted.
    pub data: *mut f32,
    /// Elements from `data` on that are the call's.
    pub len: usize,
    /// Where rows begin.
    pub strides: gqa_strides,
}

/// An optional number for each head.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_numbers {
    /// NULL for none.
    pub data: *const f32,
    /// How many there are.
    pub len: usize,
}

/// An optional length for each sequence.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_lengths {
    /// NULL for none.
    pub data: *const usize,
    /// How many there are.
    pub len: usize,
}

/// Optional memory for floats.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_floats {
    /// Aligned. NULL for none.
    pub data: *mut f32,
    /// How many fit.
    pub len: usize,
}

/// An optional additive bias [batch, query head, row, key].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_bias {
    /// Aligned to its elements. NULL for none. -infinity hides the key, also one that holds NaN.
    pub data: *const c_void,
    /// Elements from `data` on that may be read.
    pub len: usize,
    /// What they are, whatever Q, K and V are.
    pub r#type: gqa_type,
    /// Where they lie.
    pub strides: gqa_mask_strides,
}

/// An optional mask [batch, query head, row, key].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_mask {
    /// NULL for none. false hides the key; a byte that is not 0 counts as true.
    pub data: *const bool,
    /// Elements from `data` on that may be read.
    pub len: usize,
    /// Where they lie.
    pub strides: gqa_mask_strides,
}

/// What to compute, and on what. Zeros are the defaults: set it to zeros, then `struct_size`, then what differs.
///
/// out = softmax(scores) V with scores = softcap(scale * Q K') + ALiBi + bias, where hidden keys take no part and
/// sinks add to the softmax's denominator. Query head h reads key/value head h / (q_heads / kv_heads). A row that
/// sees no key is exactly 0. Every modifier works with every other.
///
/// Inputs may overlap each other; the memory of `out`, `lse`, `scores`, `partials` and of the scratch, as far as its
/// `len` reaches, must not overlap any other operand.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct gqa_call {
    /// sizeof(gqa_call): later versions add fields at the end, and still take this one.
    pub struct_size: usize,
    /// Independent sequences. May be 0.
    pub batch: usize,
    /// Query heads, at least 1; a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Key/value heads, at least 1.
    pub kv_heads: usize,
    /// Query rows of each sequence. May be 0.
    pub q_len: usize,
    /// Key/value rows of each sequence. May be 0.
    pub kv_len: usize,
    /// Elements of a query or key, at least 1.
    pub head_dim: usize,
    /// Elements of a value and of an output row, at least 1.
    pub value_dim: usize,
    /// Queries [batch, q_heads, q_len, head_dim], of any type.
    pub q: gqa_input,
    /// Keys [batch, kv_heads, kv_len, head_dim], of any type.
    pub k: gqa_input,
    /// Values [batch, kv_heads, kv_len, value_dim], of the type of `k` (of any, if built with `mixed-kv`).
    pub v: gqa_input,
    /// The output [batch, q_heads, q_len, value_dim], of any type.
    pub out: gqa_output,
    /// The natural logarithm of each row's softmax denominator [batch, q_heads, q_len, 1], sinks included; -infinity
    /// for a row that sees no key.
    pub lse: gqa_float_output,
    /// The scores [batch, q_heads, q_len, kv_len] at `stage`, rows of `kv_len` floats.
    pub scores: gqa_float_output,
    /// The stage of `scores`.
    pub stage: gqa_stage,
    /// GQA_CAUSAL, GQA_SCALE, GQA_LEFT_WINDOW, GQA_RIGHT_WINDOW, GQA_BF16_DOT.
    pub flags: gqa_flags,
    /// The factor of q.k with GQA_SCALE; any finite number.
    pub scale: f32,
    /// Bounds scores to softcap * tanh(score / softcap), finite and > 0; 0 for none.
    pub softcap: f32,
    /// Where query rows stand among the keys.
    pub alignment: gqa_alignment,
    /// The instruction set to run at.
    pub level: gqa_level,
    /// The position of query row 0 with GQA_OFFSET.
    pub offset: i64,
    /// Keys that a row sees before its own position, with GQA_LEFT_WINDOW.
    pub left_window: usize,
    /// Keys that a row sees after its own position, with GQA_RIGHT_WINDOW.
    pub right_window: usize,
    /// The keys of each sequence, at most `kv_len`; `batch` numbers.
    pub key_lengths: gqa_lengths,
    /// The first keys of each sequence that every row sees, whatever causal limits and windows say; `batch` numbers.
    pub prefix_lengths: gqa_lengths,
    /// Slopes of ALiBi, finite: adds -slope * |position - key|; `q_heads` numbers.
    pub alibi_slopes: gqa_numbers,
    /// Logits that join the softmax's denominator without a value: finite, or -infinity for none; `q_heads` numbers.
    pub sinks: gqa_numbers,
    /// Added to the scores after the softcap.
    pub bias: gqa_bias,
    /// Where it is false, the key is hidden.
    pub mask: gqa_mask,
    /// The query rows of each sequence, at most `q_len`; `batch` numbers. The rows from there on see no key, and with
    /// GQA_BOTTOM_RIGHT the last of them stands at the last key.
    pub query_lengths: gqa_lengths,
    /// Cuts the call into more items, of which several share the keys of a key/value head, and the last of these that is
    /// run puts together what they came to: for more threads than there are items, with few rows and many keys. The bits
    /// stay the same. At least as many floats as `gqa_partials_len` says, which hold some numbers. The items of a call share
    /// them; `gqa_item_count` makes them ready, and must be called once before the items are run.
    pub partials: gqa_floats,
    /// How many threads run the items, 0 if that is not known. Where few do, an item of a prompt has more rows, which share what is
    /// read. An item of a few rows has several key/value heads if these lie beside each other, `[row, head, dim]`: their keys and
    /// values are read several times as fast then (on x86). The bits stay the same. The number of items depends on it, so
    /// `gqa_item_count` and every `gqa_run_items` of a call must be given the same.
    pub threads: usize,
}

impl From<Strides> for gqa_strides {
    fn from(Strides { batch, head, row }: Strides) -> Self {
        Self { batch, head, row }
    }
}

impl From<gqa_strides> for Strides {
    fn from(gqa_strides { batch, head, row }: gqa_strides) -> Self {
        Self { batch, head, row }
    }
}

impl From<gqa_mask_strides> for MaskStrides {
    fn from(gqa_mask_strides { batch, head, row, key }: gqa_mask_strides) -> Self {
        Self { batch, head, row, key }
    }
}

impl gqa_call {
    /// A copy of the caller's.
    ///
    /// # Safety
    /// `call` is NULL or points to a `struct_size`, and to as many bytes as it says.
    pub(crate) unsafe fn read(call: *const Self) -> Result<Self, gqa_error> {
        Memory::new(c"call", call, 1)?;
        // SAFETY: the caller's promise; the pointer is aligned and not NULL.
        let size = unsafe { (*call).struct_size };
        if size != size_of::<Self>() {
            let error = gqa_error::new(GQA_ERROR_STRUCT_SIZE, c"struct_size");
            return Err(gqa_error { needed: size_of::<Self>(), had: size, ..error });
        }
        // SAFETY: there are so many bytes, and any bytes are a `gqa_call`, whose fields are numbers and raw pointers.
        Ok(unsafe { *call })
    }

    pub(crate) fn shape(&self) -> Shape {
        let Self { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *self;
        Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim }
    }

    pub(crate) fn scratch_len(&self) -> Result<usize, gqa_error> {
        let shape = *Attention::new(self.shape())?.shape();
        let mut storage = KvStorage::F32;
        for (operand, r#type) in [(c"k", self.k.r#type), (c"v", self.v.r#type)] {
            match r#type {
                GQA_F32 => {}
                GQA_F16 | GQA_BF16 => storage = KvStorage::Narrow,
                _ => return Err(gqa_error::new(GQA_ERROR_VALUE, operand)),
            }
        }
        Ok(shape.scratch_len_at(level(self.level)?, storage))
    }

    pub(crate) fn partials_len(&self) -> Result<usize, gqa_error> {
        Ok(Attention::new(self.shape())?.shape().partials_len_at(level(self.level)?))
    }

    /// What to compute, with everything that changes the scores.
    ///
    /// # Safety
    /// The arrays that `modifiers` has found have values, which are not written during `'a`.
    pub(crate) unsafe fn attention<'a>(&self, modifiers: &Modifiers) -> Result<Attention<'a>, gqa_error> {
        let mut attention = Attention::new(self.shape())?.level(level(self.level)?);
        let has = |flag| self.flags & flag != 0;
        const KNOWN: gqa_flags = GQA_CAUSAL | GQA_SCALE | GQA_LEFT_WINDOW | GQA_RIGHT_WINDOW | GQA_BF16_DOT;
        if self.flags & !KNOWN != 0 {
            return Err(gqa_error::new(GQA_ERROR_VALUE, c"flags"));
        }
        if has(GQA_SCALE) {
            attention = attention.scale(self.scale);
        }
        if self.softcap != 0.0 {
            attention = attention.softcap(self.softcap);
        }
        if has(GQA_CAUSAL) {
            attention = attention.causal();
        }
        if has(GQA_LEFT_WINDOW) {
            attention = attention.left_window(self.left_window);
        }
        if has(GQA_RIGHT_WINDOW) {
            attention = attention.right_window(self.right_window);
        }
        if has(GQA_BF16_DOT) {
            attention = attention.bf16_dot(Bf16Dot::WhereFaster);
        }
        attention = attention.align(match self.alignment {
            GQA_BOTTOM_RIGHT => Alignment::BottomRight,
            GQA_TOP_LEFT => Alignment::TopLeft,
            GQA_OFFSET => Alignment::Offset(self.offset),
            _ => return Err(gqa_error::new(GQA_ERROR_VALUE, c"alignment")),
        });
        let Modifiers { query_lengths, key_lengths, prefix_lengths, alibi_slopes, sinks, bias, mask } =
            *modifiers;
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(lengths) = query_lengths {
                attention = attention.query_lengths(lengths.read());
            }
            if let Some(lengths) = key_lengths {
                attention = attention.key_lengths(lengths.read());
            }
            if let Some(lengths) = prefix_lengths {
                attention = attention.prefix_lengths(lengths.read());
            }
            if let Some(slopes) = alibi_slopes {
                attention = attention.alibi(slopes.read());
            }
            if let Some(sinks) = sinks {
                attention = attention.sinks(sinks.read());
            }
            if let Some(bias) = bias {
                attention = attention.bias(bias.read(), self.bias.strides.into());
            }
            if let Some(mask) = mask {
                attention = attention.mask(mask.read(), self.mask.strides.into());
            }
        }
        Ok(attention)
    }

    pub(crate) fn stage(&self) -> Result<Stage, gqa_error> {
        Ok(match self.stage {
            GQA_STAGE_RAW => Stage::Raw,
            GQA_STAGE_SOFTCAPPED => Stage::Softcapped,
            GQA_STAGE_BIASED => Stage::Biased,
            GQA_STAGE_SOFTMAX => Stage::Softmax,
            _ => return Err(gqa_error::new(GQA_ERROR_VALUE, c"stage")),
        })
    }
}

/// The optional arrays that a call reads, their pointers checked.
pub(crate) struct Modifiers {
    query_lengths: Option<Memory<usize>>,
    key_lengths: Option<Memory<usize>>,
    prefix_lengths: Option<Memory<usize>>,
    alibi_slopes: Option<Memory<f32>>,
    sinks: Option<Memory<f32>>,
    bias: Option<Bias>,
    mask: Option<Memory<u8>>,
}

impl Modifiers {
    pub(crate) fn of(call: &gqa_call) -> Result<Self, gqa_error> {
        let numbers = |operand, of: gqa_numbers| Memory::optional(operand, of.data, of.len);
        let lengths = |operand, of: gqa_lengths| Memory::optional(operand, of.data, of.len);
        Ok(Self {
            query_lengths: lengths(c"query_lengths", call.query_lengths)?,
            key_lengths: lengths(c"key_lengths", call.key_lengths)?,
            prefix_lengths: lengths(c"prefix_lengths", call.prefix_lengths)?,
            alibi_slopes: numbers(c"alibi_slopes", call.alibi_slopes)?,
            sinks: numbers(c"sinks", call.sinks)?,
            bias: Bias::of(&call.bias)?,
            mask: Memory::optional(c"mask", call.mask.data.cast(), call.mask.len)?,
        })
    }

    pub(crate) fn places(&self) -> [Option<Place>; 7] {
        [
            self.query_lengths.map(|memory| memory.place()),
            self.key_lengths.map(|memory| memory.place()),
            self.prefix_lengths.map(|memory| memory.place()),
            self.alibi_slopes.map(|memory| memory.place()),
            self.sinks.map(|memory| memory.place()),
            self.bias.map(|bias| bias.place()),
            self.mask.map(|memory| memory.place()),
        ]
    }
}

#[derive(Clone, Copy)]
enum Bias {
    F32(Memory<f32>),
    F16(Memory<f16>),
    Bf16(Memory<bf16>),
}

impl Bias {
    fn of(bias: &gqa_bias) -> Result<Option<Self>, gqa_error> {
        let gqa_bias { data, len, r#type, .. } = *bias;
        Ok(match r#type {
            GQA_F32 => Memory::optional(c"bias", data.cast(), len)?.map(Self::F32),
            GQA_F16 => Memory::optional(c"bias", data.cast(), len)?.map(Self::F16),
            GQA_BF16 => Memory::optional(c"bias", data.cast(), len)?.map(Self::Bf16),
            _ => return Err(gqa_error::new(GQA_ERROR_VALUE, c"bias")),
        })
    }

    fn place(&self) -> Place {
        match self {
            Self::F32(memory) => memory.place(),
            Self::F16(memory) => memory.place(),
            Self::Bf16(memory) => memory.place(),
        }
    }

    /// # Safety
    /// As [`Memory::read`].
    unsafe fn read<'a>(self) -> BiasData<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(memory) => BiasData::F32(memory.read()),
                Self::F16(memory) => BiasData::F16(memory.read()),
                Self::Bf16(memory) => BiasData::Bf16(memory.read()),
            }
        }
    }
}
