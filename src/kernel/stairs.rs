//! How far the vectors of a group see. Rows come in the order of their positions, so under a causal limit each vector sees as far as the
//! one before it, or further; past their ends the tiles of scores and of values leave the first ones out.
//!
//! ```text
//! keys of a block →
//! vector 0 ████████████
//! vector 1 ████████████████████
//! vector 2 ████████████████████████████
//! ```

use core::ops::Range;

use crate::isa::{Isa, MAX_LANES};
use crate::place::Place;
use crate::score::visibility::Sequence;
use crate::tiling::SINGLE_TILE;

/// Vectors that may end before the last one, which sees what the group does.
pub(super) const STEPS: usize = if SINGLE_TILE || MAX_LANES < 16 { 0 } else { 2 };

/// Whether a level has tiles for the vectors that see further: those of eight lanes gain nothing by them (Emerald Rapids, AVX2).
pub(super) const fn has_stairs<S: Isa>() -> bool {
    !SINGLE_TILE && S::LANES == 16
}

/// Keys that a vector sees beyond the one before it, for tiles of their own: 128 tokens take 10 % less time with one head of 128, 6 % with
/// two on one KV head, and 1.5 % with four, whose vectors are four positions (Emerald Rapids); two would take longer.
const LEAST: usize = 4;

/// How many of a group's keys its first vectors see at most, counted from the first key: each no less than the vector before it.
#[derive(Clone, Copy)]
pub(super) struct Stairs([usize; STEPS]);

impl Stairs {
    /// Each vector sees all keys.
    pub(super) const NONE: Self = Self([usize::MAX; STEPS]);

    /// Of the vectors whose rows begin with `first`; in steps of `step` keys.
    pub(super) fn of<S: Isa>(
        sequence: &Sequence,
        place: &Place,
        first: usize,
        keys: &Range<usize>,
        step: usize,
    ) -> Self {
        let mut stairs = Self::NONE;
        if LEAST * place.group > S::LANES {
            return stairs;
        }
        let mut before = 0;
        for (v, end) in stairs.0.iter_mut().enumerate() {
            let first = first + v * S::LANES;
            let seen = sequence.seen_in(&place.positions(first..first + S::LANES), keys);
            before = (seen.end - keys.start).next_multiple_of(step).max(before);
            *end = before;
        }
        stairs
    }

    /// The same where so many keys are one.
    pub(super) fn together(self, keys: usize) -> Self {
        Self(self.0.map(|end| end.div_ceil(keys)))
    }

    /// How many of the first vectors see nothing from key `key` on.
    #[inline(always)]
    pub(super) fn past(&self, key: usize) -> usize {
        self.0.iter().take_while(|&&end| end <= key).count()
    }

    /// Where vector `index` ends, of so many keys.
    #[inline(always)]
    pub(super) fn end(&self, index: usize, keys: usize) -> usize {
        self.0.get(index).map_or(keys, |&end| end.min(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extra::Limit;
    use crate::isa::{Level, Op};
    use crate::place::Heads;
    use crate::score::visibility::Visibility;
    use crate::shape::Shape;

    /// What every row of a vector sees lies before the vector's end, which is no further than it has to be.
    struct Check {
        group: usize,
        left: Option<usize>,
        query_length: usize,
        step: usize,
    }

    impl Op for Check {
        fn run<S: Isa>(self, _: S) {
            if !has_stairs::<S>() {
                return;
            }
            let Self { group, left, query_length, step } = self;
            let (rows, keys) = (3 * S::LANES, 8..90);
            let shape = Shape {
                batch: 1,
                q_heads: group,
                kv_heads: 1,
                q_len: 70,
                kv_len: 100,
                head_dim: 1,
                value_dim: 1,
            };
            let lengths = [query_length];
            let visibility = Visibility {
                left: left.map_or(Limit::NONE, Limit::some),
                right: Limit::some(0),
                query_lengths: Limit::some(&lengths),
                ..Visibility::default()
            };
            let sequence = visibility.sequence(&shape, 0);
            for first in (0..shape.shared_rows() - rows).step_by(7) {
                // The last group of an item may have fewer rows.
                for count in [rows, rows - 5, S::LANES + 1] {
                    let place = Place { batch: 0, kv_head: 0, heads: Heads::ONE, group, first, count };
                    let stairs = Stairs::of::<S>(&sequence, &place, 0, &keys, step);
                    let mut before = 0;
                    for v in 0..3 {
                        let end = stairs.end(v, keys.len());
                        let mut seen = 0;
                        for row in v * S::LANES..(v + 1) * S::LANES {
                            let (_, position) = place.head_and_position(row);
                            let keys = sequence.seen(position).end.saturating_sub(keys.start);
                            seen = seen.max(keys);
                        }
                        let seen = seen.next_multiple_of(step).min(keys.len());
                        assert!(before <= end && seen <= end, "{v}: {seen} of {end}");
                        let tight = v == 2 || LEAST * group > S::LANES || end == seen.max(before);
                        assert!(tight, "{v}: {end}, not {seen}");
                        assert_eq!(stairs.together(2).end(v, keys.len() / 2), end.div_ceil(2));
                        for key in 0..keys.len() {
                            assert!(stairs.past(key) <= v || end <= key, "{v}: key {key} of {end}");
                        }
                        before = end;
                    }
                }
            }
        }
    }

    #[test]
    fn no_vector_ends_before_its_rows() {
        for level in Level::available() {
            for (group, left) in [1, 2, 3, 4, 5].into_iter().flat_map(|g| [None, Some(9)].map(|l| (g, l))) {
                for (query_length, step) in [(70, 1), (70, 2), (30, 1), (41, 2)] {
                    level.dispatch(Check { group, left, query_length, step });
                }
            }
        }
    }
}
