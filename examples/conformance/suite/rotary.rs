//! Rotary position embedding (arXiv 2104.09864): what some operators do to Q and K before attention.

use super::Reason;
use super::operand::Operand;
use super::tensor::Tensor;

/// Angles by position, and which elements pair up.
#[derive(Debug)]
pub(crate) struct Rotary {
    /// `[positions, pairs]`.
    cos: Tensor,
    sin: Tensor,
    /// Pairs (2i, 2i + 1), not (i, i + pairs).
    interleaved: bool,
}

impl Rotary {
    pub(crate) fn new(cos: Tensor, sin: Tensor, interleaved: bool) -> Result<Self, Reason> {
        if cos.dims::<2>()? != sin.dims::<2>()? {
            return Err("cos_cache and sin_cache differ in shape".into());
        }
        Ok(Self { cos, sin, interleaved })
    }

    /// Rotates each row by its position; elements beyond the pairs pass through. The copy is contiguous.
    pub(crate) fn rotate(
        &self,
        x: &Operand,
        position: impl Fn(usize, usize) -> usize,
    ) -> Result<Operand, Reason> {
        let ([batch, heads, rows, dim], [positions, pairs]) = (x.dims, self.cos.dims()?);
        if 2 * pairs > dim {
            return Err(format!("{pairs} pairs in a head of {dim}"));
        }
        let mut rotated = x.to_tensor();
        for (b, row) in (0..batch).flat_map(|b| (0..rows).map(move |row| (b, row))) {
            let position = position(b, row);
            if position >= positions {
                return Err(format!("position {position} is not among the {positions} of cos_cache"));
            }
            for (head, i) in (0..heads).flat_map(|head| (0..pairs).map(move |i| (head, i))) {
                let angle = position * pairs + i;
                let (cos, sin) = (self.cos.get(angle), self.sin.get(angle));
                let (first, second) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
                let (re, im) = (x.get([b, head, row, first]), x.get([b, head, row, second]));
                let start = ((b * heads + head) * rows + row) * dim;
                rotated.set(start + first, re * cos - im * sin);
                rotated.set(start + second, im * cos + re * sin);
            }
        }
        Operand::bhsd(rotated)
    }
}
