//! A block of scores under the modifiers: which row and which key lies where, and the order of the pipeline.

use core::ops::Range;

use super::dense::{Bias, Dense, Mask, TOGETHER};
use super::visibility::{Limits, Sequence};
use super::{Modifiers, Strip, alibi, dense, softcap, visibility};
use crate::extra::Extra;
use crate::isa::{Isa, MAX_LANES};
use crate::panel::RowsMut;
use crate::place::Place;

/// What lies in the lanes of a score vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// Neighbouring rows, of one key.
    Rows,
    /// Neighbouring keys, of one row.
    Keys,
}

/// A stage of the score pipeline that can be looked at; see [`Job::inspect`](crate::Job::inspect).
///
/// ```
/// use gqa::{Attention, Shape, Stage, View, ViewMut};
/// let shape = Shape { batch: 1, q_heads: 1, kv_heads: 1, q_len: 2, kv_len: 2, head_dim: 1, value_dim: 1 };
/// let (q, k, v) = ([1.0f32, 2.0], [3.0f32, 5.0], [0.0f32, 1.0]);
/// let (mut out, mut weights) = ([0.0f32; 2], [0.0f32; 4]);
/// let mut scratch = vec![0.0; shape.scratch_len()];
/// Attention::new(shape)?
///     .causal()
///     .bind(View::bhsd(&q, 1, 2, 1), View::bhsd(&k, 1, 2, 1), View::bhsd(&v, 1, 2, 1), ViewMut::bhsd(&mut out, 1, 2, 1))?
///     .inspect(Stage::Softmax, ViewMut::bhsd(&mut weights, 1, 2, 2))?
///     .run(&mut scratch)?;
/// // The first row sees one key; the second 2·3 and 2·5, whose weights are 1/(1 + e⁴) and 1/(1 + e⁻⁴).
/// assert_eq!(weights[..2], [1.0, 0.0]);
/// assert!((weights[2] - 0.017986).abs() < 1e-6 && (weights[3] - 0.982014).abs() < 1e-6);
/// # Ok::<(), gqa::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `scale · q·k`, for every key, visible or not.
    Raw,
    /// After the softcap, for every key, visible or not.
    Softcapped,
    /// After ALiBi, bias, masks and visibility: a hidden key is -∞.
    Biased,
    /// The weights: what the softmax makes of the scores, sinks in its denominator. A hidden key is 0.
    Softmax,
}

/// The output of an inspection, as one work item has it.
pub(crate) type Inspection<'a> = Extra<(Stage, RowsMut<'a, f32>)>;

/// What a call's modifiers are for one work item.
#[derive(Clone, Copy)]
pub(crate) struct Scoring<'a> {
    pub(crate) modifiers: &'a Modifiers<'a>,
    pub(crate) sequence: Sequence,
    pub(crate) place: Place,
}

/// The scores of some rows with the keys `keys`.
pub(crate) struct Block<'a, S: Isa> {
    pub(crate) vectors: &'a mut [S::F],
    /// The vectors of this block are every `width`th, from `at` on.
    pub(crate) width: usize,
    pub(crate) at: usize,
    pub(crate) lanes: Lanes,
    /// The row, or the first of the rows, counted in the item.
    pub(crate) row: usize,
    pub(crate) keys: Range<usize>,
}

/// Whether a block may hold keys that one of its rows must not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hiding {
    /// Each row sees each key.
    Nothing,
    /// Some keys, and the values are finite, or taken to be: adding 0 times a value adds nothing.
    Some,
    /// Some keys, and a value is infinite or NaN: the weights of hidden keys are marked, see [`crate::kernel`].
    Marked,
}

impl<'a> Scoring<'a> {
    /// Whether rows in `positions` may have to be kept from some of `keys`.
    pub(crate) fn hides(&self, positions: &Range<usize>, keys: &Range<usize>) -> bool {
        let m = self.modifiers;
        m.mask.is_some() || m.bias.is_some() || !self.sequence.all_see(positions, keys)
    }

    /// The part of `keys` outside of which the pipeline leaves every score as it is.
    pub(crate) fn modified(
        &self,
        positions: &Range<usize>,
        keys: &Range<usize>,
        hiding: Hiding,
    ) -> Range<usize> {
        if hiding == Hiding::Some && self.is_plain() && self.modifiers.mask.is_none() {
            return self.sequence.edges(positions, keys);
        }
        keys.clone()
    }

    /// Whether nothing but the scale changes a score that is not hidden.
    pub(crate) fn is_plain(&self) -> bool {
        let m = self.modifiers;
        m.softcap.is_none() && m.alibi.is_none() && m.bias.is_none()
    }

    /// Runs the pipeline on raw scores: softcap → ALiBi, bias → mask, visibility.
    #[inline(always)]
    pub(crate) fn apply<S: Isa>(
        &self,
        s: S,
        block: &mut Block<'_, S>,
        hiding: Hiding,
        inspection: &mut Inspection<'_>,
    ) {
        let m = self.modifiers;
        block.show(s, Stage::Raw, inspection);
        if let Some(&cap) = m.softcap.get() {
            softcap::apply(s, block.strip(s), cap);
        }
        block.show(s, Stage::Softcapped, inspection);
        if let Some(slopes) = m.alibi.get() {
            let start = block.keys.start;
            let constants = block.constants(s, self.place, |head, position| {
                let position = self.sequence.position(position).saturating_sub(start as i64);
                [position as f32, slopes.get(head).copied().unwrap_or(0.0)]
            });
            alibi::apply(s, block.strip(s), constants[0], constants[1]);
        }
        if hiding == Hiding::Marked {
            // From here on -∞ means hidden: the score of a visible key that is -∞ keeps its value's NaN.
            let least = s.splat(f32::MIN);
            block.strip(s).map(
                s,
                #[inline(always)]
                |score, _| s.max(least, score),
            );
        }
        if let Some(bias) = m.bias.get() {
            block.add(s, bias, self.place);
        }
        if let Some(mask) = m.mask.get() {
            block.hide(s, mask, self.place);
        }
        let (sequence, positions) = (&self.sequence, self.place.positions(block.rows()));
        if hiding != Hiding::Nothing
            && sequence.limits(&block.keys)
            && !sequence.all_see(&positions, &block.keys)
        {
            if sequence.hides_last_only(&positions) {
                let first = positions.start;
                let ends = sequence.ends(first, &block.keys);
                let [after] =
                    block.constants(s, self.place, |_, position| [(position - first) as u16 as f32]);
                visibility::hide_from(s, block.strip(s), ends, after);
            } else {
                let limits = block.limits(s, self.place, sequence);
                visibility::apply(s, block.strip(s), limits);
            }
        }
        block.show(s, Stage::Biased, inspection);
        block.show(s, Stage::Softmax, inspection);
    }
}

impl<S: Isa> Block<'_, S> {
    #[inline(always)]
    fn strip(&mut self, s: S) -> Strip<'_, S> {
        let mut first_key = s.zero();
        let mut step = s.splat(1.0);
        if self.lanes == Lanes::Keys {
            let mut count = [0.0; MAX_LANES];
            for (lane, x) in count.iter_mut().enumerate() {
                *x = lane as f32;
            }
            first_key = s.vectors(&count).first().copied().unwrap_or(first_key);
            step = s.splat(S::LANES as f32);
        }
        Strip { vectors: self.vectors, width: self.width, at: self.at, first_key, step }
    }

    /// The limits of each lane's row, as numbers of keys from the first one of the block.
    #[inline(always)]
    fn limits(&self, s: S, place: Place, sequence: &Sequence) -> Limits<S> {
        let Range { start, end } = self.keys;
        // The heads of a group stand at the same positions.
        let (mut before, mut limits) = (usize::MAX, [0.0; 3]);
        let [first, last, prefix] = self.constants(s, place, |_, position| {
            if position != before {
                let seen = sequence.seen(position);
                limits = [seen.start, seen.end, sequence.prefix(position)]
                    .map(|key| key.min(end).saturating_sub(start) as f32);
                before = position;
            }
            limits
        });
        Limits { first, last, prefix }
    }

    /// Numbers of each lane's row, from its query head and position.
    #[inline(always)]
    fn constants<const COUNT: usize>(
        &self,
        s: S,
        place: Place,
        mut of: impl FnMut(usize, usize) -> [f32; COUNT],
    ) -> [S::F; COUNT] {
        if self.lanes == Lanes::Keys {
            let (head, position) = place.head_and_position(self.row);
            return of(head, position).map(
                #[inline(always)]
                |x| s.splat(x),
            );
        }
        let mut numbers = [[0.0; MAX_LANES]; COUNT];
        for (lane, (head, position)) in place.heads_and_positions(self.row).take(S::LANES).enumerate() {
            for (numbers, x) in numbers.iter_mut().zip(of(head, position)) {
                if let Some(number) = numbers.get_mut(lane) {
                    *number = x;
                }
            }
        }
        numbers.each_ref().map(
            #[inline(always)]
            |numbers| s.vectors(numbers).first().copied().unwrap_or(s.zero()),
        )
    }

    /// The rows, some of which may be past the last one.
    #[inline(always)]
    fn rows(&self) -> Range<usize> {
        self.row..self.row + if self.lanes == Lanes::Rows { S::LANES } else { 1 }
    }

    /// The keys of a vector.
    #[inline(always)]
    fn step(&self) -> usize {
        if self.lanes == Lanes::Rows { 1 } else { S::LANES }
    }

    /// Where the rows begin in a bias or a mask.
    #[inline(always)]
    fn starts<T>(&self, dense: &Dense<T>, place: Place) -> [usize; MAX_LANES] {
        let mut starts = [0; MAX_LANES];
        let rows = place.heads_and_positions(self.row).take(self.rows().len());
        for (start, (head, position)) in starts.iter_mut().zip(rows) {
            *start = dense.start([place.batch, head, position]);
        }
        starts
    }

    /// The strips of `count` keys, a multiple of a vector's, each with its first key and how many there are.
    #[inline(always)]
    fn strips(&mut self, s: S, count: usize) -> impl Iterator<Item = (Strip<'_, S>, usize, usize)> {
        let (width, at, keys) = (self.width.max(1), self.at, self.keys.clone());
        let vectors = self.vectors.chunks_mut(width.saturating_mul(count / self.step()));
        keys.clone().step_by(count).zip(vectors).map(
            #[inline(always)]
            move |(key, vectors)| {
                let strip = Strip { vectors, width, at, first_key: s.zero(), step: s.zero() };
                (strip, key, (keys.end - key).min(count))
            },
        )
    }

    /// Adds a bias.
    #[inline(always)]
    fn add(&mut self, s: S, bias: &Bias<'_>, place: Place) {
        let (starts, lanes) = (self.starts(bias, place), self.lanes);
        // To the next block.
        let ahead = self.keys.len();
        for (strip, key, count) in self.strips(s, S::LANES) {
            if lanes == Lanes::Rows {
                let mut square = bias.load(s, &starts, key, count, ahead);
                s.transpose(&mut square);
                dense::apply(s, strip, &square);
            } else {
                dense::apply(s, strip, &bias.load(s, &starts[..1], key, count, ahead));
            }
        }
    }

    /// Hides what a mask does.
    #[inline(always)]
    fn hide(&mut self, s: S, mask: &Mask<'_>, place: Place) {
        let (starts, lanes) = (self.starts(mask, place), self.lanes);
        for (strip, key, count) in self.strips(s, TOGETHER) {
            if lanes == Lanes::Keys {
                dense::hide_of_keys(s, strip, mask.load(s, starts[0], key, count));
                continue;
            }
            // Heads often share a mask.
            let (mut sets, mut all) = ([0; MAX_LANES], u32::MAX);
            let (mut before, mut set) = (usize::MAX, 0);
            for (to, &start) in sets.iter_mut().zip(&starts).take(S::LANES) {
                if start != before {
                    (before, set) = (start, mask.load(s, start, key, count));
                    all &= set;
                }
                *to = set;
            }
            if all != u32::MAX {
                dense::hide_of_rows(s, strip, &sets);
            }
        }
    }

    /// Copies the scores to the output of an inspection that asks for this stage.
    #[inline(always)]
    fn show(&self, s: S, stage: Stage, inspection: &mut Inspection<'_>) {
        let Some((wanted, scores)) = inspection.get_mut() else { return };
        if *wanted != stage {
            return;
        }
        let mut key = self.keys.start;
        for vectors in self.vectors.chunks_exact(self.width.max(1)) {
            let mut buffer = [0.0; MAX_LANES];
            if let (Some(to), Some(&from)) = (s.vectors_mut(&mut buffer).first_mut(), vectors.get(self.at)) {
                *to = from;
            }
            for (lane, &score) in buffer.iter().take(S::LANES).enumerate() {
                let (row, key) = match self.lanes {
                    Lanes::Rows => (self.row + lane, key),
                    Lanes::Keys => (self.row, key + lane),
                };
                if key < self.keys.end
                    && let Some(to) = scores.row(row).get_mut(key)
                {
                    *to = score;
                }
            }
            key += if self.lanes == Lanes::Rows { 1 } else { S::LANES };
        }
    }
}
