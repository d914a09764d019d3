//! Nothing in the crate allocates, at any level, in any storage, with every modifier; and no input is written.
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;
use std::hint::black_box;

use gqa::{Alignment, Attention, Error, Level, Operand, Shape, Stage, View, ViewMut};

use crate::support::{
    self, Answer, Bias, Dense, Layout, Modifiers, Number, Operands, Rng, Visit, levels, mask_strides,
    visit_some,
};

thread_local! {
    /// Allocations of this thread since it began to count; negative when it does not.
    static ALLOCATIONS: Cell<isize> = const { Cell::new(-1) };
}

/// Counts, and otherwise does what the system does.
struct Counting;

fn count() {
    let _ = ALLOCATIONS.try_with(|count| {
        if count.get() >= 0 {
            count.set(count.get() + 1);
        }
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(at, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does `work`, which may neither allocate nor free.
fn without_allocation<R>(what: &str, work: impl FnOnce() -> R) -> R {
    ALLOCATIONS.set(0);
    let result = work();
    let count = ALLOCATIONS.replace(-1);
    assert_eq!(count, 0, "{what} allocated or freed");
    result
}

#[test]
fn the_allocator_counts() {
    ALLOCATIONS.set(0);
    drop(black_box(vec![1]));
    assert_eq!(ALLOCATIONS.replace(-1), 2);
}

/// Every modifier at once.
fn everything(shape: &Shape, rng: &mut Rng) -> Modifiers {
    let (strides, count) = mask_strides(shape, [true; 4]);
    Modifiers {
        scale: Some(0.3),
        softcap: Some(10.0),
        alibi: Some(vec![0.1; shape.q_heads]),
        bias: Some(Dense { data: Bias::of(1, &rng.normals(count)), strides }),
        mask: Some(Dense { data: (0..count).map(|_| !rng.once_in(4)).collect(), strides }),
        alignment: Alignment::Offset(3),
        left: Some(9),
        right: Some(1),
        query_lengths: Some(vec![shape.q_len; shape.batch]),
        key_lengths: Some(vec![shape.kv_len - 1; shape.batch]),
        prefix_lengths: Some(vec![2; shape.batch]),
        sinks: Some(vec![0.5; shape.q_heads]),
    }
}

/// A call from its first line to its last.
struct Whole<'a> {
    shape: Shape,
    modifiers: &'a Modifiers,
    level: Level,
}

impl Visit for Whole<'_> {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Self { shape, modifiers, level } = self;
        let operands = Operands::<Q, K, V>::random(&shape, &mut Rng(1));
        let before = (operands.q.bits(), operands.k.bits(), operands.v.bits());
        let mut answer = Answer::<O>::nothing(&shape, Layout::Bhsd);
        let mut scratch = vec![f32::NAN; shape.scratch_len()];
        without_allocation("a call", || {
            let attention = modifiers.attach(Attention::new(shape).unwrap()).level(level);
            let (q, k, v) = (operands.q.view(), operands.k.view(), operands.v.view());
            let job =
                attention.bind(q, k, v, answer.out.view_mut()).unwrap().lse(answer.lse.view_mut()).unwrap();
            let mut job = job.inspect(Stage::Softmax, answer.scores.view_mut()).unwrap();
            job.run(&mut scratch).unwrap();
            let (first, rest) = job.items().split_at(1);
            for mut item in first.chain(rest.rev()) {
                item.run(&mut scratch).unwrap();
            }
        });
        assert!(answer.lse.numbers().iter().all(|lse| !lse.is_nan()));
        assert_eq!((operands.q.bits(), operands.k.bits(), operands.v.bits()), before, "an input was written");
    }
}

#[test]
fn calls() {
    let levels: Vec<_> = levels().collect();
    for level in levels {
        for storage in 0..3 {
            for (heads, lens) in [([4, 2], [1, 70]), ([4, 2], [20, 70]), ([6, 2], [50, 140])] {
                let shape = support::shape(2, heads, lens, 21);
                let modifiers = everything(&shape, &mut Rng(2));
                visit_some(storage, Whole { shape, modifiers: &Modifiers::default(), level });
                visit_some(storage, Whole { shape, modifiers: &modifiers, level });
            }
        }
    }
}

#[test]
fn levels_and_slopes() {
    without_allocation("detection", || {
        black_box((Level::detect(), Level::named("scalar"), Level::available().count()));
        black_box(gqa::alibi_slope(5, 12));
    });
}

#[test]
fn errors() {
    let shape = support::shape(1, [2, 1], [1, 3], 4);
    let data = [0.0f32; 12];
    let mut out = [0.0f32; 8];
    let error = without_allocation("a refusal", || {
        let attention = Attention::new(shape).unwrap();
        let (q, k, v) =
            (View::bhsd(&data, 2, 1, 4), View::bhsd(&data, 1, 3, 4), View::bhsd(&data[1..], 1, 3, 4));
        attention.bind(q, k, v, ViewMut::bhsd(&mut out, 2, 1, 4)).unwrap_err()
    });
    assert_eq!(error, Error::TooShort { operand: Operand::Value, needed: 12, had: 11 });
}
