//! What the nest does with queries and outputs: by a table, so that it is compiled without their types.

use core::ops::Range;

use super::later::Later;
use super::{Rest, few, many};
use crate::element::Storage;
use crate::isa::{Isa, Level, Op, TileOp};
use crate::panel::{Rows, RowsMut};
use crate::shape::Shape;

/// The queries of a work item, and its rows of the output.
pub(crate) struct Ends<'a, Q, O> {
    pub(crate) queries: Rows<'a, Q>,
    pub(crate) out: &'a mut RowsMut<'a, O>,
}

/// What the nest does with queries and outputs.
pub(super) trait Steps {
    /// See [`many::load_queries`].
    fn load<S: Isa, const VECS: usize>(&mut self, s: S, first: usize, scale: f32, queries: &mut [f32]);

    /// See [`many::finish`].
    fn finish<S: Isa, const VECS: usize>(
        &mut self,
        s: S,
        output: &[f32],
        state: &[f32],
        rows: Range<usize>,
        rest: Rest<'_, '_>,
    );

    /// See [`few::load_queries`].
    fn load_few<S: Isa>(&mut self, s: S, dim: usize, scale: f32, queries: &mut [f32]);

    /// See [`few::finish`].
    fn finish_few<S: Isa>(&mut self, s: S, output: &[f32], state: &few::State<'_>, rest: Rest<'_, '_>);

    /// What to fetch while the keys are computed.
    fn later(&self, shape: &Shape) -> Later;
}

/// The same by a table, whatever the types.
pub(super) trait AnySteps {
    /// Takes a step, compiled for a level.
    fn take(&mut self, level: Level, step: Step<'_, '_>);

    /// See [`Steps::later`].
    fn later_of_any(&self, shape: &Shape) -> Later;
}

/// One of [`Steps`].
pub(super) enum Step<'s, 'a> {
    /// With so many vectors of rows.
    Many(usize, ManyStep<'s, 'a>),
    LoadFew {
        dim: usize,
        scale: f32,
        queries: &'s mut [f32],
    },
    FinishFew {
        output: &'s [f32],
        state: &'s few::State<'s>,
        rest: Rest<'s, 'a>,
    },
}

/// One of [`Steps`] of many rows.
pub(super) enum ManyStep<'s, 'a> {
    Load { first: usize, scale: f32, queries: &'s mut [f32] },
    Finish { output: &'s [f32], state: &'s [f32], rows: Range<usize>, rest: Rest<'s, 'a> },
}

impl<Q: Storage, O: Storage> Steps for Ends<'_, Q, O> {
    #[inline(always)]
    fn load<S: Isa, const VECS: usize>(&mut self, s: S, first: usize, scale: f32, queries: &mut [f32]) {
        many::load_queries::<S, Q, VECS>(s, &{ self.queries }, first, scale, queries);
    }

    #[inline(always)]
    fn finish<S: Isa, const VECS: usize>(
        &mut self,
        s: S,
        output: &[f32],
        state: &[f32],
        rows: Range<usize>,
        rest: Rest<'_, '_>,
    ) {
        many::finish::<S, O, VECS>(s, output, state, rows, rest, self.out);
    }

    #[inline(always)]
    fn load_few<S: Isa>(&mut self, s: S, dim: usize, scale: f32, queries: &mut [f32]) {
        few::load_queries(s, &self.queries, dim, scale, queries);
    }

    #[inline(always)]
    fn finish_few<S: Isa>(&mut self, s: S, output: &[f32], state: &few::State<'_>, rest: Rest<'_, '_>) {
        few::finish(s, output, state, rest, self.out);
    }

    #[inline(always)]
    fn later(&self, shape: &Shape) -> Later {
        Later::of(shape, self)
    }
}

/// A vector instruction set is the proof of its level.
impl Steps for &mut (dyn AnySteps + '_) {
    #[inline(always)]
    fn load<S: Isa, const VECS: usize>(&mut self, _: S, first: usize, scale: f32, queries: &mut [f32]) {
        self.take(S::LEVEL, Step::Many(VECS, ManyStep::Load { first, scale, queries }));
    }

    #[inline(always)]
    fn finish<S: Isa, const VECS: usize>(
        &mut self,
        _: S,
        output: &[f32],
        state: &[f32],
        rows: Range<usize>,
        rest: Rest<'_, '_>,
    ) {
        self.take(S::LEVEL, Step::Many(VECS, ManyStep::Finish { output, state, rows, rest }));
    }

    #[inline(always)]
    fn load_few<S: Isa>(&mut self, _: S, dim: usize, scale: f32, queries: &mut [f32]) {
        self.take(S::LEVEL, Step::LoadFew { dim, scale, queries });
    }

    #[inline(always)]
    fn finish_few<S: Isa>(&mut self, _: S, output: &[f32], state: &few::State<'_>, rest: Rest<'_, '_>) {
        self.take(S::LEVEL, Step::FinishFew { output, state, rest });
    }

    #[inline(always)]
    fn later(&self, shape: &Shape) -> Later {
        self.later_of_any(shape)
    }
}

impl<Q: Storage, O: Storage> AnySteps for Ends<'_, Q, O> {
    fn take(&mut self, level: Level, step: Step<'_, '_>) {
        level.dispatch(OfStep { step, ends: self });
    }

    fn later_of_any(&self, shape: &Shape) -> Later {
        self.later(shape)
    }
}

struct OfStep<'t, 's, 'a, E> {
    step: Step<'s, 'a>,
    ends: &'t mut E,
}

impl<Q: Storage, O: Storage> Op for OfStep<'_, '_, '_, Ends<'_, Q, O>> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        match self.step {
            Step::LoadFew { dim, scale, queries } => self.ends.load_few(s, dim, scale, queries),
            Step::FinishFew { output, state, rest } => self.ends.finish_few(s, output, state, rest),
            Step::Many(vecs, step) => s.with_tile(vecs, StepOfTile { s, step, ends: self.ends }),
        }
    }
}

struct StepOfTile<'t, 's, 'a, S, E> {
    s: S,
    step: ManyStep<'s, 'a>,
    ends: &'t mut E,
}

impl<S: Isa, E: Steps> TileOp for StepOfTile<'_, '_, '_, S, E> {
    #[inline(always)]
    fn run<const KEYS: usize, const VECS: usize>(self) {
        let Self { s, step, ends } = self;
        match step {
            ManyStep::Load { first, scale, queries } => ends.load::<S, VECS>(s, first, scale, queries),
            ManyStep::Finish { output, state, rows, rest } => {
                ends.finish::<S, VECS>(s, output, state, rows, rest);
            }
        }
    }
}
