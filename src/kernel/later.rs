//! Memory that the many-rows kernel needs later: the item's rows of the output, and the queries of the item that comes next.

use super::Ends;
use crate::ahead::RowsAhead;
use crate::element::Storage;
use crate::isa::Isa;
use crate::shape::Shape;
use crate::tiling::NEAREST;

/// None where no level fetches ahead.
const KINDS: usize = if cfg!(any(target_arch = "x86", target_arch = "x86_64")) { 2 } else { 0 };

/// What is left of it. It is fetched while the keys are computed, in parts: lines that are asked for at once wait for each other, and
/// the multiply-adds for them.
pub(super) struct Later {
    rows: [Option<RowsAhead>; KINDS],
    /// Rows of each that are fetched together.
    each: [usize; KINDS],
}

impl Later {
    #[inline(always)]
    pub(super) fn none() -> Self {
        Self { rows: [const { None }; KINDS], each: [0; KINDS] }
    }

    /// For a level that fetches ahead.
    #[inline(always)]
    pub(super) fn of<Q: Storage, O: Storage>(shape: &Shape, ends: &Ends<'_, Q, O>) -> Self {
        let mut later = Self::none();
        let fetches = bytes_of::<Q, O>(shape) > NEAREST;
        if let (true, [out, queries]) = (fetches, later.rows.as_mut_slice()) {
            *out = Some(ends.out.ahead());
            *queries = ends.queries.next_ahead(shape.shared_rows());
        }
        later
    }

    /// From now on what is left is fetched in so many parts.
    #[inline(always)]
    pub(super) fn spread(&mut self, parts: usize) {
        for (each, rows) in self.each.iter_mut().zip(&self.rows) {
            *each = rows.as_ref().and_then(|rows| rows.left().checked_div(parts)).map_or(0, |n| n + 1);
        }
    }

    /// A part. Not by [`Isa::vectorize`]: that takes nothing that the target lacks.
    #[inline(never)]
    pub(super) fn fetch<S: Isa>(&mut self, s: S) {
        for (rows, &each) in self.rows.iter_mut().zip(&self.each) {
            if let Some(rows) = rows {
                rows.advance(each, |line| s.prefetch(line));
            }
        }
    }
}

/// Bytes of all queries and outputs of a call.
fn bytes_of<Q, O>(shape: &Shape) -> usize {
    let Shape { batch, q_heads, q_len, head_dim, value_dim, .. } = *shape;
    let row = (head_dim * size_of::<Q>()).saturating_add(value_dim * size_of::<O>());
    batch.saturating_mul(q_heads).saturating_mul(q_len).saturating_mul(row)
}
