//! [`Attention`], the builder that a user meets first, and the shortest door beside it.

use crate::element::Element;
use crate::error::{Error, Operand};
use crate::extra::Extra;
#[cfg(feature = "limits")]
use crate::extra::Limit;
use crate::isa::{Level, PairsLevel, sqrt};
use crate::job::Job;
use crate::score::Modifiers;
#[cfg(feature = "modifiers")]
use crate::score::dense::{Bias, BiasData, Mask, MaskData, MaskStrides};
#[cfg(feature = "limits")]
use crate::score::visibility::Alignment;
use crate::score::visibility::Visibility;
use crate::shape::Shape;
use crate::view::{View, ViewMut};

/// What to compute: a [`Shape`] and everything that changes the scores.
///
/// `out = softmax(scores) · V` with `scores = softcap(scale · Q Kᵀ) + ALiBi + bias`, where hidden keys take no part
/// and sinks add to the softmax's denominator. Every modifier works with every other and with every storage type.
///
/// ```
/// use gqa::{Attention, Shape, View, ViewMut};
///
/// // Decode: one token of 8 query heads against a cache of 100 tokens with 2 KV heads.
/// let shape = Shape { batch: 1, q_heads: 8, kv_heads: 2, q_len: 1, kv_len: 100, head_dim: 16, value_dim: 16 };
/// let (q, k, v) = (vec![0.1f32; 8 * 16], vec![0.2f32; 2 * 100 * 16], vec![0.3f32; 2 * 100 * 16]);
/// let mut out = vec![0.0f32; 8 * 16];
/// let mut scratch = vec![0.0f32; shape.scratch_len()];
/// Attention::new(shape)?
///     .causal()
///     .softcap(50.0)
///     .left_window(63)
///     .bind(
///         View::bhsd(&q, 8, 1, 16),
///         View::bhsd(&k, 2, 100, 16),
///         View::bhsd(&v, 2, 100, 16),
///         ViewMut::bhsd(&mut out, 8, 1, 16),
///     )?
///     .run(&mut scratch)?;
/// assert!(out.iter().all(|x| (x - 0.3).abs() < 1e-6));
/// # Ok::<(), gqa::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Attention<'a> {
    shape: Shape,
    level: Level,
    bf16_dot: Bf16Dot,
    modifiers: Modifiers<'a>,
}

/// When bf16 keys and values are multiplied in bf16: see [`Attention::bf16_dot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Bf16Dot {
    /// The arithmetic is f32.
    #[default]
    Never,
    /// Where [`Level::gains_by_bf16_dot`]; by a matrix unit where [`Level::has_bf16_matrix`].
    WhereFaster,
    /// Where [`Level::has_bf16_dot`]; by a matrix unit where [`Level::has_bf16_matrix`].
    WherePresent,
    /// Where [`Level::has_bf16_dot`], by vectors alone, also where there is a matrix unit.
    ByVectors,
}

impl<'a> Attention<'a> {
    /// Plain attention of this shape: scale `1/√head_dim`, every key visible, at [`Level::detect`].
    ///
    /// # Errors
    /// [`Error::Zero`] for no heads or dims, [`Error::HeadsNotDivisible`] if `kv_heads` does not divide `q_heads`,
    /// [`Error::Overflow`] if the number of rows can't be expressed.
    pub fn new(shape: Shape) -> Result<Self, Error> {
        shape.validate()?;
        let modifiers = Modifiers {
            scale: 1.0 / sqrt(shape.head_dim as f32),
            softcap: Extra::NONE,
            alibi: Extra::NONE,
            bias: Extra::NONE,
            mask: Extra::NONE,
            visibility: Visibility::default(),
            sinks: Extra::NONE,
        };
        Ok(Self { shape, level: Level::detect(), bf16_dot: Bf16Dot::Never, modifiers })
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether bf16 keys and values may be multiplied in bf16 (and summed in f32): not unless this is called. Of prompts where a level
    /// has such products; of few rows, as a decoded token's heads are or the last rows of a prompt past its whole tiles, by a matrix unit
    /// alone, where `value_dim` is a multiple of 16 and at least 64. It changes nothing for keys or values of another type, and at other levels.
    ///
    /// Queries that are not stored in bf16 are rounded to it, and so are the softmax's weights, but for their sum:
    /// with bf16 queries an output is off by up to `2⁻⁸ Σ p |v|` (`p` the weights) beside the f32 kernel's error, with
    /// others each score is by up to `2⁻⁸ · scale · Σ |q k|` too. Subnormal operands and sums count as 0, and so
    /// do outputs that are stored in bf16. Sums run in other orders than in f32, first and second numbers of pairs apart, and before they
    /// are scaled: where such a part leaves f32's range, a score or an output may be infinite or NaN though all of it would not be. Rows of a prompt beside a hidden value that is infinite or NaN may have more exact weights.
    ///
    /// A matrix unit's registers are asked for, once for the process, where keys and values are bf16: see [`Level::has_bf16_matrix`]. The
    /// bits depend on whether there is one; [`Bf16Dot::ByVectors`] does without.
    pub fn bf16_dot(mut self, bf16_dot: Bf16Dot) -> Self {
        self.bf16_dot = bf16_dot;
        self
    }

    /// The factor of `q·k`; any finite number.
    pub fn scale(mut self, scale: f32) -> Self {
        self.modifiers.scale = scale;
        self
    }

    /// Bounds scores smoothly: `cap · tanh(score / cap)`, `cap` finite and > 0 (Gemma 2, arXiv 2408.00118).
    #[cfg(feature = "modifiers")]
    pub fn softcap(mut self, cap: f32) -> Self {
        self.modifiers.softcap = Extra::some(cap);
        self
    }

    /// Hides the keys after a row's own position, as [`right_window(0)`](Self::right_window) does.
    /// [`align`](Self::align) says where rows stand: by default the last row at the last key.
    #[cfg(feature = "limits")]
    pub fn causal(self) -> Self {
        self.right_window(0)
    }

    /// Where query rows stand among the keys, for causal limits, windows and ALiBi.
    #[cfg(feature = "limits")]
    pub fn align(mut self, alignment: Alignment) -> Self {
        self.modifiers.visibility.alignment = Limit::some(alignment);
        self
    }

    /// Hides the keys more than `keys` before a row's own position: a row sees `keys` keys and its own.
    /// Of several calls the tightest holds.
    #[cfg(feature = "limits")]
    pub fn left_window(mut self, keys: usize) -> Self {
        let left = &mut self.modifiers.visibility.left;
        *left = Limit::some(left.get().map_or(keys, |&reach| reach.min(keys)));
        self
    }

    /// Hides the keys more than `keys` after a row's own position.
    /// Of several calls, [`causal`](Self::causal) among them, the tightest holds.
    #[cfg(feature = "limits")]
    pub fn right_window(mut self, keys: usize) -> Self {
        let right = &mut self.modifiers.visibility.right;
        *right = Limit::some(right.get().map_or(keys, |&reach| reach.min(keys)));
        self
    }

    /// The number of query rows of each sequence, at most `q_len`, for batches of chunks of different lengths: the rows from
    /// there on see no key, so their outputs are 0 and cost next to nothing. Bottom-right, the last of the rows stands at the
    /// last key of its sequence.
    ///
    /// ```
    /// use gqa::{Attention, Shape, View, ViewMut};
    /// // Two sequences with 7 and 5 keys in caches for 8; the first has brought 3 rows, the second 1.
    /// let shape = Shape { batch: 2, q_heads: 1, kv_heads: 1, q_len: 3, kv_len: 8, head_dim: 1, value_dim: 1 };
    /// let (q, k) = ([0.0f32; 6], [0.0f32; 16]);
    /// let v: Vec<f32> = (0..16).map(|i| (i % 8) as f32).collect();
    /// let mut out = [f32::NAN; 6];
    /// Attention::new(shape)?
    ///     .causal()
    ///     .query_lengths(&[3, 1])
    ///     .key_lengths(&[7, 5])
    ///     .bind(View::bhsd(&q, 1, 3, 1), View::bhsd(&k, 1, 8, 1), View::bhsd(&v, 1, 8, 1), ViewMut::bhsd(&mut out, 1, 3, 1))?
    ///     .run(&mut vec![0.0; shape.scratch_len()])?;
    /// // Means of the values 0..=4, 0..=5 and 0..=6; of 0..=4 where the second sequence's row stands, and nothing.
    /// for (got, want) in out.iter().zip([2.0, 2.5, 3.0, 2.0, 0.0, 0.0]) {
    ///     assert!((got - want).abs() < 1e-6);
    /// }
    /// # Ok::<(), gqa::Error>(())
    /// ```
    #[cfg(feature = "limits")]
    pub fn query_lengths(mut self, lengths: &'a [usize]) -> Self {
        self.modifiers.visibility.query_lengths = Limit::some(lengths);
        self
    }

    /// The number of keys of each sequence, at most `kv_len`: what lies beyond is never read for the output.
    #[cfg(feature = "limits")]
    pub fn key_lengths(mut self, lengths: &'a [usize]) -> Self {
        self.modifiers.visibility.key_lengths = Limit::some(lengths);
        self
    }

    /// The first keys of each sequence that every row sees, whatever causal limits and windows say (but not beyond
    /// its key length): prefix language models, and attention sinks kept before a sliding window
    /// (StreamingLLM, arXiv 2309.17453).
    #[cfg(feature = "limits")]
    pub fn prefix_lengths(mut self, lengths: &'a [usize]) -> Self {
        self.modifiers.visibility.prefix_lengths = Limit::some(lengths);
        self
    }

    /// Attention with linear biases: adds `-slope · |position - key|`, a finite slope for each query head
    /// (arXiv 2108.12409). [`alibi_slope`](crate::alibi_slope) gives the standard slopes.
    #[cfg(feature = "modifiers")]
    pub fn alibi(mut self, slopes: &'a [f32]) -> Self {
        self.modifiers.alibi = Extra::some(slopes);
        self
    }

    /// Adds a bias, f32, f16 or bf16, `[batch, q_head, row, key]` with broadcasting by stride 0.
    /// A bias of -∞ hides the key as a mask does, even a key that holds NaN.
    #[cfg(feature = "modifiers")]
    pub fn bias(mut self, bias: impl Into<BiasData<'a>>, strides: MaskStrides) -> Self {
        self.modifiers.bias = Extra::some(Bias::new(bias.into(), strides));
        self
    }

    /// Hides the keys where `mask`, booleans or bytes, is false or 0, `[batch, q_head, row, key]` with broadcasting by
    /// stride 0.
    #[cfg(feature = "modifiers")]
    pub fn mask(mut self, mask: impl Into<MaskData<'a>>, strides: MaskStrides) -> Self {
        self.modifiers.mask = Extra::some(Mask::new(mask.into(), strides));
        self
    }

    /// A logit for each query head that joins the softmax's denominator and has no value (gpt-oss, arXiv 2508.10925).
    /// Finite, or -∞ for a head without.
    #[cfg(feature = "modifiers")]
    pub fn sinks(mut self, sinks: &'a [f32]) -> Self {
        self.modifiers.sinks = Extra::some(sinks);
        self
    }

    /// The instruction set to run at; the default is [`Level::detect`].
    pub fn level(mut self, level: Level) -> Self {
        self.level = level.compiled();
        self
    }

    /// Checks everything once, and claims the operands: nothing is read or written before the job is run.
    ///
    /// `q`, `k` and `v` may be any views, also of the same memory (a latent cache may hold V as a part of K).
    /// The rows of `out` must not overlap.
    ///
    /// # Errors
    /// [`Error::TooShort`] or [`Error::Overflow`] for an operand that its strides leave, [`Error::Overlap`] for `out`,
    /// [`Error::WrongCount`] or [`Error::TooLong`] for lengths, slopes and sinks, [`Error::Domain`] for numbers.
    pub fn bind<'b, Q: Element, K: Element, V: Element, O: Element>(
        &self,
        q: View<'b, Q>,
        k: View<'b, K>,
        v: View<'b, V>,
        out: ViewMut<'b, O>,
    ) -> Result<Job<'b, Q, K, V, O>, Error>
    where
        'a: 'b,
    {
        self.check_modifiers()?;
        let pairs = match self.bf16_dot {
            // Then nobody asks for the matrix unit either.
            _ if !(K::PRODUCTS_OF_PAIRS && V::PRODUCTS_OF_PAIRS) => None,
            Bf16Dot::Never => None,
            Bf16Dot::WhereFaster => self.level.faster_pairs(),
            Bf16Dot::WherePresent => self.level.pairs().map(PairsLevel::with_matrix),
            Bf16Dot::ByVectors => self.level.pairs(),
        };
        Job::new((self.shape, self.level, pairs, self.modifiers), (q, k, v), out)
    }

    fn check_modifiers(&self) -> Result<(), Error> {
        let (shape, m) = (&self.shape, &self.modifiers);
        numbers(Operand::Scale, &[m.scale], 1, "a finite number", f32::is_finite)?;
        if let Some(&cap) = m.softcap.get() {
            numbers(Operand::Softcap, &[cap], 1, "a finite number > 0 with a finite inverse", |cap| {
                cap > 0.0 && cap.is_finite() && (1.0 / cap).is_finite()
            })?;
        }
        if let Some(slopes) = m.alibi.get() {
            numbers(Operand::AlibiSlopes, slopes, shape.q_heads, "a finite number", f32::is_finite)?;
        }
        if let Some(sinks) = m.sinks.get() {
            numbers(Operand::Sinks, sinks, shape.q_heads, "a number < ∞", |sink| sink < f32::INFINITY)?;
        }
        if let Some(bias) = m.bias.get() {
            bias.validate(shape)?;
        }
        if let Some(mask) = m.mask.get() {
            mask.validate(shape)?;
        }
        for (operand, lengths, needed) in [
            (Operand::QueryLengths, m.visibility.query_lengths, shape.q_len),
            (Operand::KeyLengths, m.visibility.key_lengths, shape.kv_len),
            (Operand::PrefixLengths, m.visibility.prefix_lengths, shape.kv_len),
        ] {
            let Some(lengths) = lengths.get() else { continue };
            count(operand, lengths.len(), shape.batch)?;
            if let Some((index, &had)) = lengths.iter().enumerate().find(|&(_, &length)| length > needed) {
                return Err(Error::TooLong { operand, index, needed, had });
            }
        }
        Ok(())
    }
}

fn count(operand: Operand, had: usize, needed: usize) -> Result<(), Error> {
    if had == needed { Ok(()) } else { Err(Error::WrongCount { operand, needed, had }) }
}

fn numbers(
    operand: Operand,
    numbers: &[f32],
    needed: usize,
    domain: &'static str,
    inside: impl Fn(f32) -> bool,
) -> Result<(), Error> {
    count(operand, numbers.len(), needed)?;
    match numbers.iter().enumerate().find(|&(_, &x)| !inside(x)) {
        Some((index, &had)) => Err(Error::Domain { operand, index, needed: domain, had }),
        None => Ok(()),
    }
}

/// The defining formula in one call: `out = softmax(Q Kᵀ / √head_dim) V` on contiguous `[batch, heads, seq, dim]`
/// slices, every key visible, at the best level of the machine.
///
/// `scratch` has at least [`shape.scratch_len()`](Shape::scratch_len) elements. For anything else, causal limits
/// among it, see [`Attention`].
///
/// # Errors
/// As [`Attention::new`], [`Attention::bind`] and [`Job::run`]; `out` is untouched then.
///
/// ```
/// use gqa::{Shape, grouped_query_attention};
/// let shape = Shape { batch: 1, q_heads: 4, kv_heads: 2, q_len: 3, kv_len: 5, head_dim: 2, value_dim: 2 };
/// let (q, k, v) = (vec![0.5f32; 4 * 3 * 2], vec![0.5f32; 2 * 5 * 2], vec![2.0f32; 2 * 5 * 2]);
/// let mut out = vec![0.0f32; 4 * 3 * 2];
/// let mut scratch = vec![0.0f32; shape.scratch_len()];
/// grouped_query_attention(&q, &k, &v, &mut out, shape, &mut scratch)?;
/// assert!(out.iter().all(|x| (x - 2.0).abs() < 1e-6));
/// # Ok::<(), gqa::Error>(())
/// ```
pub fn grouped_query_attention<Q: Element, K: Element, V: Element, O: Element>(
    q: &[Q],
    k: &[K],
    v: &[V],
    out: &mut [O],
    shape: Shape,
    scratch: &mut [f32],
) -> Result<(), Error> {
    let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = shape;
    Attention::new(shape)?
        .bind(
            View::bhsd(q, q_heads, q_len, head_dim),
            View::bhsd(k, kv_heads, kv_len, head_dim),
            View::bhsd(v, kv_heads, kv_len, value_dim),
            ViewMut::bhsd(out, q_heads, q_len, value_dim),
        )?
        .run(scratch)
}
