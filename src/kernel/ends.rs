//! What the nest does with queries and outputs: by a table, so that it is compiled without their types.

use core::marker::PhantomData;
use core::ops::Range;

use half::{bf16, f16};

use super::later::Later;
use super::{Rest, few, squares};
use crate::element::{ByType, Storage};
use crate::isa::{Isa, Level, Op, Pairs, PairsLevel, PairsOp, TileOp, Unit};
use crate::panel::{Rows, RowsMut};
use crate::shape::Shape;

/// The queries of a work item, and its rows of the output.
pub(crate) struct Ends<'a, Q, O> {
    pub(crate) queries: Rows<'a, Q>,
    pub(crate) out: &'a mut RowsMut<'a, O>,
}

/// What the nest does with queries and outputs.
pub(super) trait Steps {
    /// See [`squares::load_queries`].
    fn load<S: Isa, const VECS: usize>(&mut self, s: S, first: usize, scale: f32, queries: &mut [f32]);

    /// See [`squares::load_pairs`]. Nothing, and false, where the queries' type or the instruction set has no pairs.
    fn load_pairs<S: Isa, const VECS: usize>(&mut self, s: S, first: usize, queries: &mut [f32]) -> bool;

    /// See [`squares::finish`].
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
    /// Reads the queries.
    fn load_at(&self, level: Level, load: Load<'_>);

    /// Writes the output; with products of pairs, if there is proof of them.
    fn finish_at(&mut self, level: Level, pairs: Option<PairsLevel>, finish: Finish<'_, '_>);

    /// See [`Steps::later`].
    fn later_of_any(&self, shape: &Shape) -> Later;
}

/// What [`Steps`] reads the queries for: many rows, with so many vectors of them, or few.
pub(super) enum Load<'s> {
    Many {
        vecs: usize,
        first: usize,
        scale: f32,
        queries: &'s mut [f32],
    },
    /// As pairs; whether there are any.
    Pairs {
        vecs: usize,
        first: usize,
        queries: &'s mut [f32],
        loaded: &'s mut bool,
    },
    Few {
        dim: usize,
        scale: f32,
        queries: &'s mut [f32],
    },
}

/// What [`Steps`] writes to the output.
pub(super) enum Finish<'s, 'a> {
    Many { vecs: usize, output: &'s [f32], state: &'s [f32], rows: Range<usize>, rest: Rest<'s, 'a> },
    Few { output: &'s [f32], state: &'s few::State<'s>, rest: Rest<'s, 'a> },
}

impl<Q: Storage, O: Storage> Steps for Ends<'_, Q, O> {
    #[inline(always)]
    fn load<S: Isa, const VECS: usize>(&mut self, s: S, first: usize, scale: f32, queries: &mut [f32]) {
        squares::load_queries::<S, Q, VECS>(s, &{ self.queries }, first, scale, queries);
    }

    #[inline(always)]
    fn load_pairs<S: Isa, const VECS: usize>(&mut self, s: S, first: usize, queries: &mut [f32]) -> bool {
        if S::PAIRS && Q::PRODUCTS_OF_PAIRS {
            squares::load_pairs::<S, Q, VECS>(s, &{ self.queries }, first, queries);
        }
        S::PAIRS && Q::PRODUCTS_OF_PAIRS
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
        squares::finish::<S, O, VECS>(s, output, state, rows, rest, self.out);
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
        self.load_at(S::LEVEL, Load::Many { vecs: VECS, first, scale, queries });
    }

    #[inline(always)]
    fn load_pairs<S: Isa, const VECS: usize>(&mut self, _: S, first: usize, queries: &mut [f32]) -> bool {
        let mut loaded = false;
        if S::PAIRS {
            self.load_at(S::LEVEL, Load::Pairs { vecs: VECS, first, queries, loaded: &mut loaded });
        }
        loaded
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
        // Without the matrix unit, which the nest may have in use.
        let pairs = if S::PRODUCTS_OF_PAIRS { S::LEVEL.pairs() } else { None };
        self.finish_at(S::LEVEL, pairs, Finish::Many { vecs: VECS, output, state, rows, rest });
    }

    #[inline(always)]
    fn load_few<S: Isa>(&mut self, _: S, dim: usize, scale: f32, queries: &mut [f32]) {
        self.load_at(S::LEVEL, Load::Few { dim, scale, queries });
    }

    #[inline(always)]
    fn finish_few<S: Isa>(&mut self, _: S, output: &[f32], state: &few::State<'_>, rest: Rest<'_, '_>) {
        self.finish_at(S::LEVEL, None, Finish::Few { output, state, rest });
    }

    #[inline(always)]
    fn later(&self, shape: &Shape) -> Later {
        self.later_of_any(shape)
    }
}

impl<Q: Storage, O: Storage> AnySteps for Ends<'_, Q, O> {
    fn load_at(&self, level: Level, load: Load<'_>) {
        Q::by_type(&self.queries, LoadAt { level, load, rows: PhantomData });
    }

    fn finish_at(&mut self, level: Level, pairs: Option<PairsLevel>, finish: Finish<'_, '_>) {
        O::by_type(&mut *self.out, FinishAt { level, pairs, finish, rows: PhantomData });
    }

    fn later_of_any(&self, shape: &Shape) -> Later {
        self.later(shape)
    }
}

/// The methods of [`ByType`], which aren't generic, and so are compiled with this crate.
macro_rules! for_each_type {
    ($op:ident, $step:ident: $($T:ident)*) => {$(
        #[inline(never)]
        fn $T(self, rows: Self::Of<$T>) {
            self.level.dispatch($op { $step: self.$step, rows });
        }
    )*};
}

/// Reading queries at a level.
struct LoadAt<'s, 'r, 'a> {
    level: Level,
    load: Load<'s>,
    rows: PhantomData<&'r Rows<'a, ()>>,
}

impl<'r, 'a> ByType for LoadAt<'_, 'r, 'a> {
    type Of<T: Storage> = &'r Rows<'a, T>;

    for_each_type!(OfLoad, load: f32 f16 bf16);
}

/// Writing an output at a level.
struct FinishAt<'s, 't, 'r, 'a> {
    level: Level,
    pairs: Option<PairsLevel>,
    finish: Finish<'s, 't>,
    rows: PhantomData<&'r mut RowsMut<'a, ()>>,
}

impl<'r, 'a> ByType for FinishAt<'_, '_, 'r, 'a> {
    type Of<T: Storage> = &'r mut RowsMut<'a, T>;

    for_each_type!(OfFinish, finish: f32 f16);

    #[inline(never)]
    fn bf16(self, rows: Self::Of<bf16>) {
        let op = OfFinish { finish: self.finish, rows };
        match self.pairs {
            Some(pairs) => pairs.dispatch(op),
            None => self.level.dispatch(op),
        }
    }
}

struct OfLoad<'s, 'r, 'a, Q> {
    load: Load<'s>,
    rows: &'r Rows<'a, Q>,
}

impl<Q: Storage> Op for OfLoad<'_, '_, '_, Q> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        match self.load {
            Load::Few { dim, scale, queries } => few::load_queries(s, self.rows, dim, scale, queries),
            Load::Many { vecs, first, scale, queries } => {
                s.with_tile(vecs, LoadOfTile { s, first, scale, queries, rows: self.rows });
            }
            Load::Pairs { vecs, first, queries, loaded } => {
                *loaded = S::PAIRS && Q::PRODUCTS_OF_PAIRS;
                if S::PAIRS && Q::PRODUCTS_OF_PAIRS {
                    s.with_tile(vecs, LoadPairsOfTile { s, first, queries, rows: self.rows });
                }
            }
        }
    }
}

struct LoadOfTile<'s, 'r, 'a, S, Q> {
    s: S,
    first: usize,
    scale: f32,
    queries: &'s mut [f32],
    rows: &'r Rows<'a, Q>,
}

impl<S: Isa, Q: Storage> TileOp for LoadOfTile<'_, '_, '_, S, Q> {
    #[inline(always)]
    fn run<const KEYS: usize, const VECS: usize>(self) {
        squares::load_queries::<S, Q, VECS>(self.s, self.rows, self.first, self.scale, self.queries);
    }
}

struct LoadPairsOfTile<'s, 'r, 'a, S, Q> {
    s: S,
    first: usize,
    queries: &'s mut [f32],
    rows: &'r Rows<'a, Q>,
}

impl<S: Isa, Q: Storage> TileOp for LoadPairsOfTile<'_, '_, '_, S, Q> {
    #[inline(always)]
    fn run<const KEYS: usize, const VECS: usize>(self) {
        squares::load_pairs::<S, Q, VECS>(self.s, self.rows, self.first, self.queries);
    }
}

struct OfFinish<'s, 't, 'r, 'a, O> {
    finish: Finish<'s, 't>,
    rows: &'r mut RowsMut<'a, O>,
}

impl<O: Storage> Op for OfFinish<'_, '_, '_, '_, O> {
    #[inline(always)]
    fn run<S: Isa>(self, s: S) {
        let out = self.rows;
        match self.finish {
            Finish::Few { output, state, rest } => few::finish(s, output, state, rest, out),
            Finish::Many { vecs, output, state, rows, rest } => {
                s.with_tile(vecs, FinishOfTile { s, output, state, rows, rest, out });
            }
        }
    }
}

impl<O: Storage> PairsOp for OfFinish<'_, '_, '_, '_, O> {
    #[inline(always)]
    fn run<S: Pairs>(self, s: S, _: Option<&Unit>) {
        Op::run(self, s);
    }
}

struct FinishOfTile<'s, 't, 'r, 'a, S, O> {
    s: S,
    output: &'s [f32],
    state: &'s [f32],
    rows: Range<usize>,
    rest: Rest<'s, 't>,
    out: &'r mut RowsMut<'a, O>,
}

impl<S: Isa, O: Storage> TileOp for FinishOfTile<'_, '_, '_, '_, S, O> {
    #[inline(always)]
    fn run<const KEYS: usize, const VECS: usize>(self) {
        let Self { s, output, state, rows, rest, out } = self;
        squares::finish::<S, O, VECS>(s, output, state, rows, rest, out);
    }
}
