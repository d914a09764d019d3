//! [`Options`], a builder with the vocabulary of [`gqa::Attention`].

use candle_core::Tensor;
use gqa::Alignment;

/// What changes the scores: `softcap(scale · Q Kᵀ) + ALiBi + bias`, hidden keys, sinks. Every option works with every
/// other and with every type.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use gqa_candle::{Options, attention};
///
/// // 2 sequences of 5 and 3 tokens, padded to 5: the mask [batch, 1, 1, kv_len] says which tokens there are.
/// let x = Tensor::randn(0f32, 1., (2, 4, 5, 16), &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 1, 1, 1], [1, 1, 1, 0, 0]], &Device::Cpu)?.reshape((2, 1, 1, 5))?;
/// let padded = attention(&x, &x, &x, &Options::new().mask(&mask))?;
/// // The same without a tensor:
/// let lengths = attention(&x, &x, &x, &Options::new().key_lengths([5, 3]))?;
/// assert_eq!(padded.flatten_all()?.to_vec1::<f32>()?, lengths.flatten_all()?.to_vec1::<f32>()?);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Options {
    pub(crate) scale: Option<f32>,
    pub(crate) softcap: Option<f32>,
    pub(crate) alignment: Alignment,
    pub(crate) left_window: Option<usize>,
    pub(crate) right_window: Option<usize>,
    pub(crate) query_lengths: Option<Vec<usize>>,
    pub(crate) key_lengths: Option<Vec<usize>>,
    pub(crate) prefix_lengths: Option<Vec<usize>>,
    pub(crate) alibi: Option<Vec<f32>>,
    pub(crate) sinks: Option<Vec<f32>>,
    pub(crate) mask: Option<Tensor>,
    pub(crate) bias: Option<Tensor>,
}

impl Options {
    /// Every key visible, scale `1/√head_dim`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The factor of `q·k`; any finite number.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Bounds scores smoothly: `cap · tanh(score / cap)`, `cap` finite and > 0.
    pub fn softcap(mut self, cap: f32) -> Self {
        self.softcap = Some(cap);
        self
    }

    /// Hides the keys after a row's own position. The last row stands at the last key, unless [`align`](Self::align) says
    /// otherwise.
    pub fn causal(self) -> Self {
        self.right_window(0)
    }

    /// Where query rows stand among the keys, for causal limits, windows and ALiBi: bottom-right by default.
    pub fn align(mut self, alignment: Alignment) -> Self {
        self.alignment = alignment;
        self
    }

    /// Hides the keys more than `keys` before a row's own position. Of several calls the tightest holds.
    pub fn left_window(mut self, keys: usize) -> Self {
        self.left_window = Some(self.left_window.map_or(keys, |reach| reach.min(keys)));
        self
    }

    /// Hides the keys more than `keys` after a row's own position. Of several calls the tightest holds.
    pub fn right_window(mut self, keys: usize) -> Self {
        self.right_window = Some(self.right_window.map_or(keys, |reach| reach.min(keys)));
        self
    }

    /// The number of query rows of each sequence, for batches of chunks of different lengths: the rows from there on see no
    /// key, and bottom-right the last of the rows stands at the last key.
    pub fn query_lengths(mut self, lengths: impl Into<Vec<usize>>) -> Self {
        self.query_lengths = Some(lengths.into());
        self
    }

    /// The number of keys of each sequence: the rows of K and V beyond are not read for the output.
    pub fn key_lengths(mut self, lengths: impl Into<Vec<usize>>) -> Self {
        self.key_lengths = Some(lengths.into());
        self
    }

    /// The first keys of each sequence that every row sees, whatever causal limits and windows say.
    pub fn prefix_lengths(mut self, lengths: impl Into<Vec<usize>>) -> Self {
        self.prefix_lengths = Some(lengths.into());
        self
    }

    /// Adds `-slope · |position - key|`, a finite slope for each query head; [`alibi_slope`](crate::alibi_slope) gives
    /// the standard ones.
    pub fn alibi(mut self, slopes: impl Into<Vec<f32>>) -> Self {
        self.alibi = Some(slopes.into());
        self
    }

    /// A logit for each query head that joins the softmax's denominator and has no value; -∞ for a head without.
    pub fn sinks(mut self, sinks: impl Into<Vec<f32>>) -> Self {
        self.sinks = Some(sinks.into());
        self
    }

    /// Hides the keys where the mask, u8, is 0 (candle has no booleans; comparisons give u8). Broadcasts to
    /// `[batch, heads, q_len, kv_len]`.
    pub fn mask(mut self, mask: &Tensor) -> Self {
        self.mask = Some(mask.clone());
        self
    }

    /// Adds a bias, f32, f16 or bf16, to the scores; -∞ hides a key. Broadcasts to `[batch, heads, q_len, kv_len]`.
    pub fn bias(mut self, bias: &Tensor) -> Self {
        self.bias = Some(bias.clone());
        self
    }
}
