//! What can be wrong with a call: every variant names the operand, what was needed and what it had.

use core::fmt;

/// The part of a call that an [`Error`] is about; its text is the name of the argument or field.
///
/// ```
/// assert_eq!(gqa::Operand::KvHeads.to_string(), "kv_heads");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operand {
    /// [`Shape::batch`](crate::Shape::batch).
    Batch,
    /// [`Shape::q_heads`](crate::Shape::q_heads).
    QHeads,
    /// [`Shape::kv_heads`](crate::Shape::kv_heads).
    KvHeads,
    /// [`Shape::q_len`](crate::Shape::q_len).
    QLen,
    /// [`Shape::kv_len`](crate::Shape::kv_len).
    KvLen,
    /// [`Shape::head_dim`](crate::Shape::head_dim).
    HeadDim,
    /// [`Shape::value_dim`](crate::Shape::value_dim).
    ValueDim,
    /// The queries, `q`.
    Query,
    /// The keys, `k`.
    Key,
    /// The values, `v`.
    Value,
    /// The output, `out`.
    Output,
    /// The log-sum-exp output, `lse`.
    Lse,
    /// The score matrix of an inspection.
    Scores,
    /// The additive bias.
    Bias,
    /// The boolean mask.
    Mask,
    /// The numbers of query rows, one for each sequence.
    QueryLengths,
    /// The key lengths, one for each sequence.
    KeyLengths,
    /// The prefix lengths, one for each sequence.
    PrefixLengths,
    /// The ALiBi slopes, one for each query head.
    AlibiSlopes,
    /// The attention sinks, one for each query head.
    Sinks,
    /// The factor of the scores.
    Scale,
    /// The bound of the scores.
    Softcap,
    /// The caller's scratch memory.
    Scratch,
    /// The caller's memory for what split keys come to; see [`Job::split_kv`](crate::Job::split_kv).
    Partials,
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batch => "batch",
            Self::QHeads => "q_heads",
            Self::KvHeads => "kv_heads",
            Self::QLen => "q_len",
            Self::KvLen => "kv_len",
            Self::HeadDim => "head_dim",
            Self::ValueDim => "value_dim",
            Self::Query => "q",
            Self::Key => "k",
            Self::Value => "v",
            Self::Output => "out",
            Self::Lse => "lse",
            Self::Scores => "scores",
            Self::Bias => "bias",
            Self::Mask => "mask",
            Self::QueryLengths => "query_lengths",
            Self::KeyLengths => "key_lengths",
            Self::PrefixLengths => "prefix_lengths",
            Self::AlibiSlopes => "alibi_slopes",
            Self::Sinks => "sinks",
            Self::Scale => "scale",
            Self::Softcap => "softcap",
            Self::Scratch => "scratch",
            Self::Partials => "partials",
        })
    }
}

/// Why a call was refused. Nothing has been written when one is returned.
///
/// ```
/// use gqa::{Error, Operand, Shape, grouped_query_attention};
/// let shape = Shape { batch: 1, q_heads: 4, kv_heads: 2, q_len: 1, kv_len: 8, head_dim: 16, value_dim: 16 };
/// let (q, k, v) = ([0.0f32; 4 * 16], [0.0f32; 2 * 8 * 16 - 1], [0.0f32; 2 * 8 * 16]);
/// let error = grouped_query_attention(&q, &k, &v, &mut [0.0f32; 4 * 16], shape, &mut []).unwrap_err();
/// assert_eq!(error, Error::TooShort { operand: Operand::Key, needed: 256, had: 255 });
/// assert_eq!(error.to_string(), "k: needed 256 elements, had 255");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A size that must be at least 1 is 0.
    Zero {
        /// The size.
        operand: Operand,
    },
    /// `kv_heads` does not divide `q_heads`.
    HeadsNotDivisible {
        /// The query heads of the call.
        q_heads: usize,
        /// The key/value heads of the call.
        kv_heads: usize,
    },
    /// The product of sizes, or the farthest element that sizes and strides name, exceeds `isize::MAX` elements.
    Overflow {
        /// The operand whose extent can't be expressed.
        operand: Operand,
    },
    /// A slice ends before the last element that its sizes and strides name, or the scratch is too short.
    TooShort {
        /// The slice.
        operand: Operand,
        /// The elements that the call needs.
        needed: usize,
        /// The elements that it had.
        had: usize,
    },
    /// A slice with one number for each head or sequence has another count.
    WrongCount {
        /// The slice.
        operand: Operand,
        /// The count that the shape asks for.
        needed: usize,
        /// The count that it had.
        had: usize,
    },
    /// A length of one sequence exceeds what the shape allows.
    TooLong {
        /// The slice that holds the length.
        operand: Operand,
        /// The sequence.
        index: usize,
        /// The greatest length allowed.
        needed: usize,
        /// The length that it had.
        had: usize,
    },
    /// Two rows of an output share, or may share, an element: each stride must be at least the extent of what it steps over.
    Overlap {
        /// The output.
        operand: Operand,
        /// The smallest stride that keeps the rows apart.
        needed: usize,
        /// The stride that it had.
        had: usize,
    },
    /// A number is outside its domain (NaN, infinite, or of the wrong sign).
    Domain {
        /// The number, or the slice that holds it.
        operand: Operand,
        /// Its place in the slice, 0 for a single number.
        index: usize,
        /// The domain.
        needed: &'static str,
        /// The number that it had.
        had: f32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Zero { operand } => write!(f, "{operand}: needed at least 1, had 0"),
            Self::HeadsNotDivisible { q_heads, kv_heads } => {
                write!(f, "kv_heads: needed a divisor of q_heads = {q_heads}, had {kv_heads}")
            }
            Self::Overflow { operand } => {
                write!(f, "{operand}: needed an extent of at most isize::MAX elements, had more")
            }
            Self::TooShort { operand, needed, had } => {
                write!(f, "{operand}: needed {needed} elements, had {had}")
            }
            Self::WrongCount { operand, needed, had } => {
                write!(f, "{operand}: needed exactly {needed} numbers, had {had}")
            }
            Self::TooLong { operand, index, needed, had } => {
                write!(f, "{operand}[{index}]: needed at most {needed}, had {had}")
            }
            Self::Overlap { operand, needed, had } => {
                write!(f, "{operand}: rows overlap, needed a stride of at least {needed}, had {had}")
            }
            Self::Domain { operand, index, needed, had } => {
                write!(f, "{operand}[{index}]: needed {needed}, had {had}")
            }
        }
    }
}

impl core::error::Error for Error {}
