//! The sizes of a call.

use crate::error::{Error, Operand};

/// The sizes of one attention call.
///
/// Query head `h` reads key/value head `h / (q_heads / kv_heads)`: neighbouring query heads share one.
/// `kv_heads == q_heads` is multi-head attention, `kv_heads == 1` multi-query attention.
/// (Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models*, arXiv 2305.13245.)
///
/// | operand | logical shape |
/// |---|---|
/// | q | `[batch, q_heads, q_len, head_dim]` |
/// | k | `[batch, kv_heads, kv_len, head_dim]` |
/// | v | `[batch, kv_heads, kv_len, value_dim]` |
/// | out | `[batch, q_heads, q_len, value_dim]` |
///
/// `batch`, `q_len` and `kv_len` may be 0; heads and dims are at least 1.
///
/// ```
/// let shape = gqa::Shape { batch: 1, q_heads: 9, kv_heads: 3, q_len: 38, kv_len: 38, head_dim: 64, value_dim: 64 };
/// assert_eq!(shape.group(), 3);
/// assert_eq!(shape.visible_pairs_causal(), 38 * 39 / 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Independent sequences.
    pub batch: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Query rows of each sequence.
    pub q_len: usize,
    /// Key/value rows of each sequence.
    pub kv_len: usize,
    /// Elements of a query or key.
    pub head_dim: usize,
    /// Elements of a value and of an output row.
    pub value_dim: usize,
}

impl Shape {
    /// Query heads that share one key/value head; 0 if `kv_heads` is 0.
    #[must_use]
    pub const fn group(&self) -> usize {
        match self.q_heads.checked_div(self.kv_heads) {
            Some(group) => group,
            None => 0,
        }
    }

    /// Query rows that share one key/value head in a sequence: `q_len · group`, saturating.
    #[must_use]
    pub const fn shared_rows(&self) -> usize {
        self.q_len.saturating_mul(self.group())
    }

    /// The multiply-adds of a call in which every row sees every key, saturating:
    /// `batch · q_heads · q_len · kv_len · (head_dim + value_dim)`. What to weigh against the cost of waking a thread.
    ///
    /// ```
    /// let shape = gqa::Shape { batch: 1, q_heads: 9, kv_heads: 3, q_len: 1, kv_len: 100, head_dim: 64, value_dim: 64 };
    /// assert_eq!(shape.multiply_adds(), 9 * 100 * 128);
    /// ```
    #[must_use]
    pub const fn multiply_adds(&self) -> usize {
        self.batch
            .saturating_mul(self.q_heads)
            .saturating_mul(self.q_len)
            .saturating_mul(self.kv_len)
            .saturating_mul(self.head_dim.saturating_add(self.value_dim))
    }

    /// The (query, key) pairs of one head that a bottom-right causal mask leaves visible, saturating;
    /// the work of a causal call is `4 · batch · q_heads · head_dim` times this many floating-point operations.
    #[must_use]
    pub const fn visible_pairs_causal(&self) -> usize {
        let (rows, keys) = (self.q_len, self.kv_len);
        let seeing = if rows < keys { rows } else { keys };
        // The last `seeing` rows see keys - seeing + 1, ..., keys of them.
        let twice = (2 * keys as u128 + 1).saturating_sub(seeing as u128).saturating_mul(seeing as u128);
        if twice / 2 > usize::MAX as u128 { usize::MAX } else { (twice / 2) as usize }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        for (size, operand) in [
            (self.q_heads, Operand::QHeads),
            (self.kv_heads, Operand::KvHeads),
            (self.head_dim, Operand::HeadDim),
            (self.value_dim, Operand::ValueDim),
        ] {
            if size == 0 {
                return Err(Error::Zero { operand });
            }
        }
        if !self.q_heads.is_multiple_of(self.kv_heads) {
            return Err(Error::HeadsNotDivisible { q_heads: self.q_heads, kv_heads: self.kv_heads });
        }
        // Positions are computed as i64 and rows as q_len · group: both must stay far from the ends.
        let rows = self.q_len.checked_mul(self.q_heads).and_then(|n| n.checked_mul(self.batch.max(1)));
        if rows.is_none_or(|n| n > isize::MAX as usize) {
            return Err(Error::Overflow { operand: Operand::QLen });
        }
        let keys = self.kv_len.checked_mul(self.kv_heads).and_then(|n| n.checked_mul(self.batch.max(1)));
        if keys.is_none_or(|n| n > isize::MAX as usize) {
            return Err(Error::Overflow { operand: Operand::KvLen });
        }
        Ok(())
    }
}
