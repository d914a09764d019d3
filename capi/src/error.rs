//! What can be wrong with a call, as C sees it.

use core::ffi::{CStr, c_char};

use attention::{Error, Operand};

/// How a call ended: GQA_OK, or why it was refused.
pub type gqa_status = i32;
/// Done.
pub const GQA_OK: gqa_status = 0;
/// A pointer is NULL and something had to be there.
pub const GQA_ERROR_NULL: gqa_status = 1;
/// A pointer is not aligned to the size of its elements, or the pointer to the call not to that of a pointer.
pub const GQA_ERROR_UNALIGNED: gqa_status = 2;
/// Memory that is written (`out`, `lse`, `scores`, the scratch) overlaps memory of another operand.
pub const GQA_ERROR_ALIASED: gqa_status = 3;
/// `struct_size` is not that of a `gqa_call` which the library knows.
pub const GQA_ERROR_STRUCT_SIZE: gqa_status = 4;
/// A type, flag, alignment or stage that is not among the constants.
pub const GQA_ERROR_VALUE: gqa_status = 5;
/// A storage type, or types of K and V together, that the library has been built without.
pub const GQA_ERROR_TYPE: gqa_status = 6;
/// A level that is unknown or that this machine lacks.
pub const GQA_ERROR_LEVEL: gqa_status = 7;
/// A range ends beyond the last work item: `needed` is their number.
pub const GQA_ERROR_ITEMS: gqa_status = 8;
/// A size that must be at least 1 is 0.
pub const GQA_ERROR_ZERO: gqa_status = 9;
/// `kv_heads`, of which there are `had`, does not divide `q_heads`, which is `needed`.
pub const GQA_ERROR_HEADS: gqa_status = 10;
/// A product of sizes, or the farthest element that sizes and strides name, can't be expressed.
pub const GQA_ERROR_OVERFLOW: gqa_status = 11;
/// Memory of `had` elements ends before the last that the call names: it needs `needed`.
pub const GQA_ERROR_TOO_SHORT: gqa_status = 12;
/// There are `had` numbers where there is one for each head or sequence: `needed`.
pub const GQA_ERROR_WRONG_COUNT: gqa_status = 13;
/// The length at `index` is `had`, more than the `needed` keys of the call.
pub const GQA_ERROR_TOO_LONG: gqa_status = 14;
/// Rows of an output overlap: a stride is `had` and must be at least `needed`.
pub const GQA_ERROR_OVERLAP: gqa_status = 15;
/// The number at `index`, which is `number`, is outside its domain.
pub const GQA_ERROR_DOMAIN: gqa_status = 16;

/// Why a call was refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct gqa_error {
    /// What is wrong.
    pub status: gqa_status,
    /// What it is wrong with: the name of the argument, or of the field of the call. Never NULL, never freed.
    pub operand: *const c_char,
    /// Its place in an array, else 0.
    pub index: usize,
    /// What was needed, as the status explains; else 0.
    pub needed: usize,
    /// What there was; else 0.
    pub had: usize,
    /// The number outside its domain; else 0.
    pub number: f32,
}

impl gqa_error {
    pub(crate) fn new(status: gqa_status, operand: &'static CStr) -> Self {
        Self { status, operand: operand.as_ptr(), index: 0, needed: 0, had: 0, number: 0.0 }
    }
}

impl From<Error> for gqa_error {
    fn from(error: Error) -> Self {
        let of = |status, operand| Self::new(status, name(operand));
        match error {
            Error::Zero { operand } => of(GQA_ERROR_ZERO, operand),
            Error::HeadsNotDivisible { q_heads, kv_heads } => {
                Self { needed: q_heads, had: kv_heads, ..of(GQA_ERROR_HEADS, Operand::KvHeads) }
            }
            Error::Overflow { operand } => of(GQA_ERROR_OVERFLOW, operand),
            Error::TooShort { operand, needed, had } => {
                Self { needed, had, ..of(GQA_ERROR_TOO_SHORT, operand) }
            }
            Error::WrongCount { operand, needed, had } => {
                Self { needed, had, ..of(GQA_ERROR_WRONG_COUNT, operand) }
            }
            Error::TooLong { operand, index, needed, had } => {
                Self { index, needed, had, ..of(GQA_ERROR_TOO_LONG, operand) }
            }
            Error::Overlap { operand, needed, had } => Self { needed, had, ..of(GQA_ERROR_OVERLAP, operand) },
            Error::Domain { operand, index, had, .. } => {
                Self { index, number: had, ..of(GQA_ERROR_DOMAIN, operand) }
            }
            // Errors that the crate adds get a status of their own here; until then they are of no known value.
            _ => Self::new(GQA_ERROR_VALUE, c"call"),
        }
    }
}

/// The operand's own name, for C.
pub(crate) fn name(operand: Operand) -> &'static CStr {
    match operand {
        Operand::Batch => c"batch",
        Operand::QHeads => c"q_heads",
        Operand::KvHeads => c"kv_heads",
        Operand::QLen => c"q_len",
        Operand::KvLen => c"kv_len",
        Operand::HeadDim => c"head_dim",
        Operand::ValueDim => c"value_dim",
        Operand::Query => c"q",
        Operand::Key => c"k",
        Operand::Value => c"v",
        Operand::Output => c"out",
        Operand::Lse => c"lse",
        Operand::Scores => c"scores",
        Operand::Bias => c"bias",
        Operand::Mask => c"mask",
        Operand::QueryLengths => c"query_lengths",
        Operand::KeyLengths => c"key_lengths",
        Operand::PrefixLengths => c"prefix_lengths",
        Operand::AlibiSlopes => c"alibi_slopes",
        Operand::Sinks => c"sinks",
        Operand::Scale => c"scale",
        Operand::Softcap => c"softcap",
        Operand::Scratch => c"scratch",
        Operand::Partials => c"partials",
        _ => c"call",
    }
}

/// What a status says, in English. Never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn gqa_message(status: gqa_status) -> *const c_char {
    let message = match status {
        GQA_OK => c"no error",
        GQA_ERROR_NULL => c"a pointer is NULL and something had to be there",
        GQA_ERROR_UNALIGNED => c"a pointer is not aligned",
        GQA_ERROR_ALIASED => c"memory that is written overlaps that of another operand",
        GQA_ERROR_STRUCT_SIZE => c"the size of the call is of no version that the library knows",
        GQA_ERROR_VALUE => c"a value that is not among the constants",
        GQA_ERROR_TYPE => c"storage types that the library has been built without",
        GQA_ERROR_LEVEL => c"a level that is unknown or that this machine lacks",
        GQA_ERROR_ITEMS => c"a range ends beyond the last work item",
        GQA_ERROR_ZERO => c"a size that must be at least 1 is 0",
        GQA_ERROR_HEADS => c"the key/value heads do not divide the query heads",
        GQA_ERROR_OVERFLOW => c"sizes and strides name an element that can't be expressed",
        GQA_ERROR_TOO_SHORT => c"memory ends before the last element that is needed",
        GQA_ERROR_WRONG_COUNT => c"there is not one number for each head or sequence",
        GQA_ERROR_TOO_LONG => c"a length exceeds the number of keys",
        GQA_ERROR_OVERLAP => c"rows of an output overlap",
        GQA_ERROR_DOMAIN => c"a number is outside its domain",
        _ => c"no status of this library",
    };
    message.as_ptr()
}
