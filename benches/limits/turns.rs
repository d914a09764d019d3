//! Cases that take turns, and what their rates say of each other.

use std::cell::RefCell;
use std::time::Duration;

use gqa::{Attention, Level, Shape};

use super::operands::{Number, Operands};
use super::{clock, roof};

/// How long and how large to measure.
pub(crate) struct Effort {
    rounds: usize,
    /// A turn repeats its call for so long.
    turn: Duration,
    small: bool,
}

impl Effort {
    pub(crate) const FULL: Self = Self { rounds: 11, turn: Duration::from_micros(1500), small: false };
    pub(crate) const SMOKE: Self = Self { rounds: 1, turn: Duration::ZERO, small: true };

    /// The rounds for calls of about a second.
    pub(crate) fn few_rounds(&self) -> Self {
        Self { rounds: self.rounds.min(5), ..*self }
    }

    /// Rows, keys or bytes: no more than `most` when the sizes are small.
    pub(crate) fn at_most(&self, most: usize, size: usize) -> usize {
        if self.small { size.min(most) } else { size }
    }
}

/// Runs once and tells how much was done: operations, bytes, pairs or rows.
pub(crate) type Case<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// What each case did in a nanosecond, in each round.
pub(crate) fn rates(cases: &mut [Case<'_>], effort: &Effort) -> Vec<Vec<f64>> {
    rates_by(clock::thread_time, cases, effort)
}

/// The same by another clock.
pub(crate) fn rates_by(clock: fn() -> Duration, cases: &mut [Case<'_>], effort: &Effort) -> Vec<Vec<f64>> {
    let mut rates = vec![Vec::new(); cases.len()];
    let mut once: Vec<_> = cases.iter_mut().map(|case| turn(clock, case, Duration::ZERO).1).collect();
    for _ in 0..effort.rounds {
        for ((case, rates), once) in cases.iter_mut().zip(&mut rates).zip(&mut once) {
            // The others have had the caches meanwhile, which matters to short calls only.
            if *once < effort.turn {
                case();
            }
            let (amount, time) = turn(clock, case, effort.turn);
            rates.push(amount / time.as_nanos().max(1) as f64);
        }
    }
    rates
}

/// Calls until `least` has passed: the amount done, and the time.
fn turn(clock: fn() -> Duration, case: &mut Case<'_>, least: Duration) -> (f64, Duration) {
    let (start, mut amount) = (clock(), 0.0);
    loop {
        amount += case();
        let time = clock() - start;
        if time >= least {
            return (amount, time);
        }
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median over the rounds of `rates` by `of`.
pub(crate) fn ratio(rates: &[f64], of: &[f64]) -> f64 {
    median(rates.iter().zip(of).map(|(rate, of)| rate / of))
}

/// Operands and scratch that several cases use in turn, so that all find the same memory.
pub(crate) struct Bench<T>(RefCell<(Operands<T>, Vec<f32>)>);

impl<T: Number> Bench<T> {
    pub(crate) fn new(shape: Shape) -> Self {
        Self(RefCell::new((Operands::new(shape), Vec::new())))
    }

    /// A call that does `amount`, bound each time.
    pub(crate) fn case<'a>(&'a self, attention: Attention<'a>, amount: f64) -> Case<'a> {
        Box::new(move || {
            let (operands, scratch) = &mut *self.0.borrow_mut();
            let mut job = operands.bind(&attention).expect("operands of the shape");
            if scratch.len() < job.scratch_len() {
                scratch.resize(job.scratch_len(), 0.0);
            }
            job.run(scratch).expect("enough scratch");
            amount
        })
    }
}

/// Multiply-adds of the level.
pub(crate) fn fma(level: Level) -> Case<'static> {
    Box::new(move || roof::fma_burst(level))
}

/// A call's shape: query heads and rows, KV heads and keys, and the dimension.
pub(crate) fn shape([q_heads, q_len]: [usize; 2], [kv_heads, kv_len]: [usize; 2], dim: usize) -> Shape {
    Shape { batch: 1, q_heads, kv_heads, q_len, kv_len, head_dim: dim, value_dim: dim }
}

/// Operations of so many pairs of a row and a key.
pub(crate) fn operations(pairs: f64, dim: usize) -> f64 {
    4.0 * pairs * dim as f64
}
