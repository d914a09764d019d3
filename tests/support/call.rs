//! One call of the crate, what it answers, and how the answer is judged.

use std::fmt::Debug;

use gqa::{Attention, Bf16Dot, Job, Level, Shape, Stage, View};

use super::bound::bound;
use super::buffer::{Buffer, Layout};
use super::modifiers::Modifiers;
use super::number::Number;
use super::reference::{Outputs, attention};
use super::rng::Rng;

/// Contiguous Q, K and V as f64: normal random numbers.
pub fn random_operands(shape: &Shape, rng: &mut Rng) -> [Vec<f64>; 3] {
    let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim } = *shape;
    [
        rng.normals(batch * q_heads * q_len * head_dim),
        rng.normals(batch * kv_heads * kv_len * head_dim),
        rng.normals(batch * kv_heads * kv_len * value_dim),
    ]
}

/// Q, K and V in memory.
#[derive(Clone, Debug)]
pub struct Operands<Q, K, V> {
    pub q: Buffer<Q>,
    pub k: Buffer<K>,
    pub v: Buffer<V>,
}

impl<Q: Number, K: Number, V: Number> Operands<Q, K, V> {
    pub fn new(shape: &Shape, layouts: [Layout; 3], [q, k, v]: &[Vec<f64>; 3]) -> Self {
        let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim } = *shape;
        Self {
            q: Buffer::of(layouts[0], [batch, q_heads, q_len], head_dim, q),
            k: Buffer::of(layouts[1], [batch, kv_heads, kv_len], head_dim, k),
            v: Buffer::of(layouts[2], [batch, kv_heads, kv_len], value_dim, v),
        }
    }

    /// Contiguous and random.
    pub fn random(shape: &Shape, rng: &mut Rng) -> Self {
        Self::new(shape, [Layout::Bhsd; 3], &random_operands(shape, rng))
    }

    /// What has been stored.
    pub fn numbers(&self) -> [Vec<f64>; 3] {
        [self.q.numbers(), self.k.numbers(), self.v.numbers()]
    }

    pub fn call<'a>(&'a self, shape: &Shape, modifiers: &'a Modifiers, level: Level) -> Call<'a, Q, K, V> {
        let (q, k, v) = (self.q.view(), self.k.view(), self.v.view());
        Call {
            shape: *shape,
            modifiers,
            level,
            q,
            k,
            v,
            layout: Layout::Bhsd,
            stage: None,
            bf16_dot: Bf16Dot::Never,
        }
    }

    pub fn expected(&self, shape: &Shape, modifiers: &Modifiers) -> Expected {
        Expected::new(shape, modifiers, &self.numbers())
    }
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a, Q, K, V> {
    pub shape: Shape,
    pub modifiers: &'a Modifiers,
    pub level: Level,
    pub q: View<'a, Q>,
    pub k: View<'a, K>,
    pub v: View<'a, V>,
    /// Of the outputs.
    pub layout: Layout,
    /// To be inspected.
    pub stage: Option<Stage>,
    pub bf16_dot: Bf16Dot,
}

/// What a call wrote, NaN where it did not.
#[derive(Clone, Debug)]
pub struct Answer<O> {
    pub out: Buffer<O>,
    pub lse: Buffer<f32>,
    pub scores: Buffer<f32>,
}

impl<O: Number> Answer<O> {
    pub fn nothing(shape: &Shape, layout: Layout) -> Self {
        let sizes = [shape.batch, shape.q_heads, shape.q_len];
        Self {
            out: Buffer::filled(layout, sizes, shape.value_dim, O::NAN),
            lse: Buffer::filled(layout, sizes, 1, f32::NAN),
            scores: Buffer::filled(layout, sizes, shape.kv_len, f32::NAN),
        }
    }

    /// Of the output and the log-sum-exp.
    pub fn bits(&self) -> [Vec<u32>; 2] {
        [self.out.bits(), self.lse.bits()]
    }
}

impl<Q: Number, K: Number, V: Number> Call<'_, Q, K, V> {
    /// On one thread, with garbage in a scratch that is just long enough.
    pub fn run<O: Number>(&self) -> Answer<O> {
        let mut answer = Answer::nothing(&self.shape, self.layout);
        let attention = self
            .modifiers
            .attach(Attention::new(self.shape).unwrap())
            .level(self.level)
            .bf16_dot(self.bf16_dot);
        let mut job = attention.bind(self.q, self.k, self.v, answer.out.view_mut()).unwrap();
        job = job.lse(answer.lse.view_mut()).unwrap();
        if let Some(stage) = self.stage {
            job = job.inspect(stage, answer.scores.view_mut()).unwrap();
        }
        assert!(job.scratch_len() <= self.shape.scratch_len());
        let mut scratch = vec![f32::NAN; job.scratch_len()];
        job.run(&mut scratch).unwrap();
        assert!(answer.out.gaps_hold(O::NAN) && answer.lse.gaps_hold(f32::NAN), "wrote beside its rows");
        assert!(answer.scores.gaps_hold(f32::NAN), "wrote beside its rows");
        answer
    }
}

/// What a call must come to.
#[derive(Clone, Debug)]
pub struct Expected {
    pub exact: Outputs,
    pub bound: Outputs,
    value_dim: usize,
}

impl Expected {
    pub fn new(shape: &Shape, modifiers: &Modifiers, [q, k, v]: &[Vec<f64>; 3]) -> Self {
        let options = modifiers.options(shape);
        let exact = attention(shape, q, k, v, &options);
        let bound = bound(shape, [q, k, v], &options, &exact);
        Self { exact, bound, value_dim: shape.value_dim }
    }

    /// Judges an answer, and gives its greatest error as a part of the bound.
    pub fn check<O: Number>(&self, answer: &Answer<O>, stage: Option<Stage>, what: &dyn Debug) -> f64 {
        let Self { exact, bound, value_dim } = self;
        let out = answer.out.elements();
        for (row, _) in exact.lse.iter().enumerate().filter(|(_, lse)| **lse == f64::NEG_INFINITY) {
            let zeros = out[row * value_dim..][..*value_dim].iter().all(|x| x.bits() == 0);
            assert!(zeros, "row {row} sees no key and is not 0: {what:?}");
        }
        let mut worst = compare("out", &out, &exact.out, &bound.out, what);
        worst = worst.max(compare("lse", &answer.lse.elements(), &exact.lse, &bound.lse, what));
        let scores = answer.scores.elements();
        let of = |name, exact, bound| compare(name, &scores, exact, bound, what);
        worst.max(match stage {
            None => 0.0,
            Some(Stage::Raw) => of("raw", &exact.raw, &bound.raw),
            Some(Stage::Softcapped) => of("softcapped", &exact.softcapped, &bound.softcapped),
            Some(Stage::Biased) => of("biased", &exact.biased, &bound.biased),
            Some(Stage::Softmax) => of("softmax", &exact.softmax, &bound.softmax),
        })
    }
}

/// Asserts that each number is within its bound and half a unit in the last place, and gives the greatest part of
/// the bound that was used.
fn compare<T: Number>(name: &str, got: &[T], exact: &[f64], bound: &[f64], what: &dyn Debug) -> f64 {
    assert_eq!(got.len(), exact.len(), "{name}: {what:?}");
    let mut worst = 0.0f64;
    for (index, ((got, &exact), &bound)) in got.iter().zip(exact).zip(bound).enumerate() {
        let got = got.wide();
        if got == exact {
            continue;
        }
        let error = (got - exact).abs();
        let rounding = T::ROUNDOFF * (exact.abs() + bound) + T::LEAST;
        let limit = bound + rounding;
        assert!(
            error <= limit,
            "{name}[{index}] is {got}, not {exact}: off by {error:e} > {limit:e}: {what:?}"
        );
        worst = worst.max((error - rounding) / bound);
    }
    worst
}

/// Runs a job on threads that draw its items from a queue.
#[cfg(not(target_family = "wasm"))]
pub fn run_on_threads<Q: Number, K: Number, V: Number, O: Number>(
    job: &mut Job<'_, Q, K, V, O>,
    threads: usize,
) {
    let scratch_len = job.scratch_len();
    let queue = job.items().queue();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut scratch = vec![f32::NAN; scratch_len];
                while let Some(mut item) = queue.pop() {
                    item.run(&mut scratch).unwrap();
                }
            });
        }
    });
}
