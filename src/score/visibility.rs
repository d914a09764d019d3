//! Which keys a query row sees without a mask tensor: causal limits, windows, key lengths and prefixes.
//!
//! All of them are one half-open range of keys for each row, and a prefix that every row sees. Both ends of the
//! range grow with the position, so the first and the last row of a tile bound all of its rows.

use core::ops::Range;

use super::{Strip, unmasked};
use crate::extra::Limit;
use crate::isa::Isa;
use crate::shape::Shape;

/// How query positions line up with keys: query row `i` stands at key position `i + offset`.
///
/// Causal limits, windows and ALiBi distances are all measured from there.
///
/// ```
/// use gqa::{Alignment, Attention, Shape};
/// // A chunk of 4 rows after 10 that are in the cache of 32 already:
/// let shape = Shape { batch: 1, q_heads: 1, kv_heads: 1, q_len: 4, kv_len: 32, head_dim: 8, value_dim: 8 };
/// let attention = Attention::new(shape)?.causal().align(Alignment::Offset(10));
/// // The same by the length of the sequence and the default, bottom-right:
/// let attention = Attention::new(shape)?.causal().key_lengths(&[14]);
/// # let _ = attention;
/// # Ok::<(), gqa::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Alignment {
    /// The first query row stands at key 0.
    TopLeft,
    /// The last query row stands at the last key of its sequence: the offset is `length - q_len`, with the
    /// sequence's key length and its query length. What a decoder with a cache means by causal.
    #[default]
    BottomRight,
    /// Query row 0 stands at this position, which may be negative or beyond the keys.
    Offset(i64),
}

/// Whether there are any: feature `limits`.
const LIMITS: bool = cfg!(feature = "limits");

/// The structural limits of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visibility<'a> {
    pub(crate) alignment: Limit<Alignment>,
    pub(crate) left: Limit<usize>,
    pub(crate) right: Limit<usize>,
    pub(crate) query_lengths: Limit<&'a [usize]>,
    pub(crate) key_lengths: Limit<&'a [usize]>,
    pub(crate) prefix_lengths: Limit<&'a [usize]>,
}

/// The limits of one sequence of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// Query rows that exist; the others see nothing.
    rows: usize,
    /// Keys that exist.
    pub(crate) length: usize,
    /// Keys that every row sees.
    prefix: usize,
    /// Position of query row 0.
    offset: i64,
    /// Keys seen before and after the own position.
    left: i64,
    right: i64,
}

/// What one row, or a tile of rows, sees beside the prefix.
pub(crate) type Seen = Range<usize>;

impl Visibility<'_> {
    pub(crate) fn sequence(&self, shape: &Shape, batch: usize) -> Sequence {
        let of = |lengths: Limit<&[usize]>| lengths.get().and_then(|l| l.get(batch).copied());
        let length = of(self.key_lengths).unwrap_or(shape.kv_len).min(shape.kv_len);
        let reach =
            |keys: Limit<usize>| keys.get().map_or(i64::MAX, |&n| i64::try_from(n).unwrap_or(i64::MAX));
        let rows = of(self.query_lengths);
        Sequence {
            rows: rows.unwrap_or(usize::MAX),
            length,
            prefix: of(self.prefix_lengths).unwrap_or(0).min(length),
            offset: match self.alignment.get().copied().unwrap_or_default() {
                Alignment::TopLeft => 0,
                Alignment::BottomRight => length as i64 - rows.unwrap_or(shape.q_len) as i64,
                Alignment::Offset(offset) => offset,
            },
            left: reach(self.left),
            right: reach(self.right),
        }
    }
}

impl Sequence {
    /// Every row sees every key.
    pub(crate) fn unlimited(kv_len: usize) -> Self {
        Self { rows: usize::MAX, length: kv_len, prefix: 0, offset: 0, left: i64::MAX, right: i64::MAX }
    }

    /// Where query row `row` stands among the keys.
    #[inline]
    pub(crate) fn position(&self, row: usize) -> i64 {
        self.offset.saturating_add(row as i64)
    }

    /// The keys that query row `row` sees beside the prefix: empty ranges are `n..n`.
    #[inline]
    pub(crate) fn seen(&self, row: usize) -> Seen {
        if !LIMITS {
            return 0..self.length;
        }
        if row >= self.rows {
            return 0..0;
        }
        let position = self.position(row);
        let clamp = |key: i64| key.min(self.length as i64).max(0) as usize;
        let first = clamp(position.saturating_sub(self.left));
        let last = if self.right == i64::MAX {
            self.length
        } else {
            clamp(position.saturating_add(self.right).saturating_add(1))
        };
        first..last.max(first)
    }

    /// The first keys that query row `row` sees whatever the other limits.
    #[inline]
    pub(crate) fn prefix(&self, row: usize) -> usize {
        if LIMITS && row >= self.rows { 0 } else { self.prefix }
    }

    /// The keys that any of the rows sees beside the prefix.
    fn seen_by_any(&self, rows: &Range<usize>) -> Seen {
        let last = if LIMITS { rows.end.min(self.rows.max(rows.start + 1)) } else { rows.end };
        let (first, last) = (self.seen(rows.start), self.seen(last.saturating_sub(1)));
        first.start..last.end.max(first.start)
    }

    /// The keys of `block` that any of the rows sees, from the first such key to the last.
    pub(crate) fn seen_in(&self, rows: &Range<usize>, block: &Range<usize>) -> Range<usize> {
        let seen = meet(&self.seen_by_any(rows), block);
        let prefix = meet(&(0..self.prefix(rows.start)), block);
        match (prefix.is_empty(), seen.is_empty()) {
            (true, _) => seen,
            (_, true) => prefix,
            _ => prefix.start.min(seen.start)..prefix.end.max(seen.end),
        }
    }

    /// The keys of `keys` that any of the rows sees, cut at the multiples of `block` (so that where a block begins depends
    /// on no row): nothing is spent on blocks that no row sees any key of.
    pub(crate) fn blocks<'s>(
        &'s self,
        rows: &'s Range<usize>,
        keys: &Range<usize>,
        block: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<'s> {
        // Never 0: so the compiler sees that no division panics, also where it compiles this on its own.
        let block = block.max(1);
        let Range { start: first, end } = *keys;
        let begin = first / block * block;
        // Between the prefix and what else is seen there may be many blocks.
        let prefix = if LIMITS { self.prefix.clamp(begin, end.max(begin)) } else { begin };
        let rest = self.next_seen(rows, prefix) / block * block;
        let starts = (begin..prefix)
            .step_by(block)
            .chain((rest.max(prefix.next_multiple_of(block))..end).step_by(block));
        starts.filter_map(move |start| {
            let keys = self.seen_in(rows, &(start.max(first)..start.saturating_add(block).min(end)));
            (!keys.is_empty()).then_some(keys)
        })
    }

    /// The first key from `key` on that any of the rows may see.
    #[inline]
    pub(crate) fn next_seen(&self, rows: &Range<usize>, key: usize) -> usize {
        if key < self.prefix(rows.start) { key } else { key.max(self.seen_by_any(rows).start) }
    }

    /// Whether each of the rows exists, and sees all keys before the last one that it sees; not where size goes before speed.
    #[inline]
    pub(crate) fn hides_last_only(&self, rows: &Range<usize>) -> bool {
        !cfg!(feature = "single-tile") && self.left == i64::MAX && self.prefix == 0 && rows.end <= self.rows
    }

    /// Of rows that [see all keys before their last one](Self::hides_last_only): how many of `keys` row `row` sees, and each
    /// row after it one more, where that is at least 0 and at most the second number.
    #[inline]
    pub(crate) fn ends(&self, row: usize, keys: &Range<usize>) -> [f32; 2] {
        const FAR: i64 = 1 << 20;
        let most = self.length.min(keys.end).saturating_sub(keys.start);
        let end = if self.right == i64::MAX {
            FAR
        } else {
            let end = self.position(row).saturating_add(self.right).saturating_add(1);
            end.saturating_sub(keys.start as i64).clamp(-FAR, FAR)
        };
        [end as i32 as f32, most as u32 as f32]
    }

    /// Whether some row, not necessarily one that there is, may not see all `keys`.
    #[inline]
    pub(crate) fn limits(&self, keys: &Range<usize>) -> bool {
        LIMITS
            && (self.rows < usize::MAX
                || self.left < i64::MAX
                || self.right < i64::MAX
                || self.length < keys.end)
    }

    /// The part of `keys` outside of which each of the rows sees each key.
    pub(crate) fn edges(&self, rows: &Range<usize>, keys: &Range<usize>) -> Range<usize> {
        if !LIMITS || rows.end > self.rows || self.prefix > 0 {
            return keys.clone();
        }
        let (first, last) = (self.seen(rows.start), self.seen(rows.end.saturating_sub(1)));
        let start = if keys.start < last.start { keys.start } else { first.end.clamp(keys.start, keys.end) };
        let end = if first.end < keys.end { keys.end } else { last.start.clamp(start, keys.end) };
        start..end
    }

    /// Whether each of the rows sees all `keys`.
    pub(crate) fn all_see(&self, rows: &Range<usize>, keys: &Range<usize>) -> bool {
        if !LIMITS {
            return true;
        }
        let (first, last) = (self.seen(rows.start), self.seen(rows.end.saturating_sub(1)));
        rows.end <= self.rows
            && ((last.start <= keys.start && keys.end <= first.end) || keys.end <= self.prefix)
    }
}

fn meet(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// Hides the keys from `end` + `after` on, which is at most `most`: their scores become -∞ whatever they were.
#[inline(always)]
pub(crate) fn hide_from<S: Isa>(s: S, strip: Strip<'_, S>, [end, most]: [f32; 2], after: S::F) {
    let hidden = s.splat(f32::NEG_INFINITY);
    let (end, most) = (s.add(s.splat(end), after), s.splat(most));
    let end = s.select(s.less(end, most), end, most);
    strip.map(
        s,
        #[inline(always)]
        |score, key| unmasked(s, s.select(s.less(key, end), score, hidden)),
    );
}

/// The limits of the rows of a strip, as numbers of keys from the start of a block.
#[derive(Clone, Copy)]
pub(crate) struct Limits<S: Isa> {
    pub(crate) first: S::F,
    pub(crate) last: S::F,
    pub(crate) prefix: S::F,
}

/// As [`hide_from`], the keys outside `limits`.
#[inline(always)]
pub(crate) fn apply<S: Isa>(s: S, strip: Strip<'_, S>, limits: Limits<S>) {
    let hidden = s.splat(f32::NEG_INFINITY);
    strip.map(
        s,
        #[inline(always)]
        |score, key| {
            let seen = s.select(s.less(key, limits.last), score, hidden);
            let seen = s.select(s.less(key, limits.first), hidden, seen);
            unmasked(s, s.select(s.less(key, limits.prefix), score, seen))
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, key by key.
    fn sees(v: &Visibility<'_>, shape: &Shape, batch: usize, row: usize, key: usize) -> bool {
        let length = v.key_lengths.get().map_or(shape.kv_len, |l| l[batch]);
        let rows = v.query_lengths.get().map_or(shape.q_len, |l| l[batch]);
        let position = row as i128
            + match v.alignment.get().copied().unwrap_or_default() {
                Alignment::TopLeft => 0,
                Alignment::BottomRight => length as i128 - rows as i128,
                Alignment::Offset(offset) => offset.into(),
            };
        let near = v.left.get().is_none_or(|&n| key as i128 >= position - n as i128)
            && v.right.get().is_none_or(|&n| key as i128 <= position + n as i128);
        row < rows && key < length && (near || v.prefix_lengths.get().is_some_and(|p| key < p[batch]))
    }

    #[test]
    fn ranges_agree_with_the_definition() {
        let shape =
            Shape { batch: 2, q_heads: 1, kv_heads: 1, q_len: 4, kv_len: 7, head_dim: 1, value_dim: 1 };
        let reaches = [None, Some(0), Some(2), Some(usize::MAX)];
        let offsets = [i64::MIN, -5, -1, 0, 3, 9, i64::MAX].map(Alignment::Offset);
        for alignment in [Alignment::TopLeft, Alignment::BottomRight].into_iter().chain(offsets) {
            for (left, right) in reaches.iter().flat_map(|&l| reaches.map(|r| (l, r))) {
                for key_lengths in [None, Some(&[0, 5][..]), Some(&[7, 1])] {
                    let prefix_lengths = [None, Some(&[0, 3][..]), Some(&[9, 7])];
                    let query_lengths = [None, Some(&[0, 3][..]), Some(&[1, 4])];
                    for (prefix_lengths, query_lengths) in
                        prefix_lengths.iter().flat_map(|&p| query_lengths.map(|q| (p, q)))
                    {
                        let of = |lengths: Option<&'static [usize]>| lengths.map_or(Limit::NONE, Limit::some);
                        let reach = |keys: Option<usize>| keys.map_or(Limit::NONE, Limit::some);
                        let v = Visibility {
                            alignment: Limit::some(alignment),
                            left: reach(left),
                            right: reach(right),
                            query_lengths: of(query_lengths),
                            key_lengths: of(key_lengths),
                            prefix_lengths: of(prefix_lengths),
                        };
                        for batch in 0..2 {
                            check(&v, &shape, batch);
                        }
                    }
                }
            }
        }
    }

    fn check(v: &Visibility<'_>, shape: &Shape, batch: usize) {
        let sequence = v.sequence(shape, batch);
        let seen = |row: usize, key: usize| sequence.seen(row).contains(&key) || key < sequence.prefix(row);
        for (row, key) in (0..4).flat_map(|row| (0..7).map(move |key| (row, key))) {
            assert_eq!(seen(row, key), sees(v, shape, batch, row, key), "{v:?} {batch} {row} {key}");
        }
        for rows in [0..1, 0..4, 1..3, 3..4] {
            for block in 1..8 {
                let mut visited = [0; 7];
                for keys in sequence.blocks(&rows, &(0..7), block) {
                    assert!(!keys.is_empty() && keys.start / block == (keys.end - 1) / block);
                    keys.for_each(|key| visited[key] += 1);
                }
                for (key, &visits) in visited.iter().enumerate() {
                    let any = rows.clone().any(|row| seen(row, key));
                    assert!(visits <= 1 && (visits == 1 || !any), "{v:?} {rows:?} {block} {key}");
                }
            }
            for block in [0..7, 0..3, 2..6, 6..7] {
                let any: Vec<_> =
                    block.clone().filter(|&key| rows.clone().any(|row| seen(row, key))).collect();
                let range = sequence.seen_in(&rows, &block);
                assert!(any.iter().all(|key| range.contains(key)), "{v:?} {rows:?} {block:?} {range:?}");
                if sequence.prefix == 0
                    && let (Some(first), Some(last)) = (any.first(), any.last())
                {
                    assert_eq!(range, *first..last + 1);
                }
                let all = block.clone().all(|key| rows.clone().all(|row| seen(row, key)));
                let edges = sequence.edges(&rows, &block);
                let hidden = |key: usize| rows.clone().any(|row| !seen(row, key));
                assert!(edges.start >= block.start && edges.end <= block.end && edges.start <= edges.end);
                assert!(
                    block.clone().all(|key| edges.contains(&key) || !hidden(key)),
                    "{v:?} {rows:?} {block:?}"
                );
                if sequence.hides_last_only(&rows) {
                    let [end, most] = sequence.ends(rows.start, &block);
                    for (after, row) in rows.clone().enumerate() {
                        let keys: Vec<_> = block.clone().filter(|&key| seen(row, key)).collect();
                        assert!(keys.iter().copied().eq(block.start..block.start + keys.len()));
                        let end = (end + after as f32).clamp(0.0, most);
                        assert_eq!(end, keys.len() as f32, "{v:?} {row} {block:?}");
                    }
                }
                // Only a range that is partly prefix and partly window may be seen by all without being found so.
                assert!(all || !sequence.all_see(&rows, &block), "{v:?} {rows:?} {block:?}");
                assert!(
                    sequence.prefix > 0 || all == sequence.all_see(&rows, &block),
                    "{v:?} {rows:?} {block:?}"
                );
            }
        }
    }

    extern crate std;
    use std::vec::Vec;
}
