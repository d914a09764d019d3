//! The whole way of a call in shapes that an interpreter has time for: `cargo +nightly miri test --test all miri::` looks
//! for undefined behaviour where the other tests look for wrong numbers.

use std::sync::Mutex;

use gqa::{Alignment, Attention, Error, Level, Operand, Shape, Stage, Strides, View, ViewMut};

use crate::support::{
    self, Bias, Dense, LAYOUTS, Layout, Modifiers, Number, Operands, Rng, Visit, levels, mask_strides,
    visit_some,
};

/// Rows for the few-rows kernel, and for the many-rows kernel with more than one work item of every KV head
/// at the narrowest level.
const Q_LENS: [usize; 2] = [1, 4];

fn small(q_len: usize) -> Shape {
    Shape { batch: 2, q_heads: 4, kv_heads: 2, q_len, kv_len: 19, head_dim: 3, value_dim: 5 }
}

/// Everything at once.
fn everything(shape: &Shape, rng: &mut Rng) -> Modifiers {
    let (of_mask, mask) = mask_strides(shape, [true, false, true, true]);
    let (of_bias, bias) = mask_strides(shape, [false, true, true, true]);
    let mut numbers = rng.normals(bias);
    numbers[0] = f64::NEG_INFINITY;
    Modifiers {
        scale: Some(0.5),
        softcap: Some(4.0),
        alibi: Some((0..shape.q_heads).map(|head| gqa::alibi_slope(head, shape.q_heads)).collect()),
        bias: Some(Dense { data: Bias::of(rng.below(3), &numbers), strides: of_bias }),
        mask: Some(Dense { data: (0..mask).map(|_| !rng.once_in(5)).collect(), strides: of_mask }),
        alignment: Alignment::Offset(11),
        left: Some(6),
        right: Some(1),
        query_lengths: Some(vec![shape.q_len, shape.q_len - 1]),
        key_lengths: Some(vec![shape.kv_len - 2, shape.kv_len]),
        prefix_lengths: Some(vec![3, 0]),
        sinks: Some(vec![0.5; shape.q_heads]),
    }
}

struct Agreement<'a>(&'a mut Rng);

impl Visit for Agreement<'_> {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        for shape in Q_LENS.map(small) {
            let layouts = [self.0.pick(&LAYOUTS), self.0.pick(&LAYOUTS), self.0.pick(&LAYOUTS)];
            let numbers = support::random_operands(&shape, self.0);
            let operands = Operands::<Q, K, V>::new(&shape, layouts, &numbers);
            // Plain calls take some of the same ways: once.
            let plain = (O::NAME == "f32").then(Modifiers::default);
            for modifiers in plain.into_iter().chain([everything(&shape, self.0)]) {
                let expected = operands.expected(&shape, &modifiers);
                for level in levels() {
                    let mut call = operands.call(&shape, &modifiers, level);
                    (call.layout, call.stage) = (self.0.pick(&LAYOUTS), Some(Stage::Softmax));
                    expected.check(&call.run::<O>(), call.stage, &(level, shape));
                }
            }
        }
    }
}

#[test]
fn storage_types_modifiers_and_both_kernels() {
    let mut rng = Rng(1);
    // f32 alone, and two mixtures of all three types.
    for storage in [0, 3, 4] {
        visit_some(storage, Agreement(&mut rng));
    }
}

/// Two threads take items from a shuffled heap; the bits are those of one thread.
#[cfg(not(target_family = "wasm"))]
#[test]
fn shuffled_items_on_two_threads() {
    let mut rng = Rng(2);
    for shape in Q_LENS.map(small) {
        let operands = Operands::<f32, f32, f32>::random(&shape, &mut rng);
        let modifiers = Modifiers::causal();
        for level in levels() {
            // Heads inside the rows: the items' rows are interleaved.
            let mut call = operands.call(&shape, &modifiers, level);
            call.layout = Layout::Bshd;
            let want = call.run::<f32>();
            let mut got = support::Answer::<f32>::nothing(&shape, Layout::Bshd);
            let attention = modifiers.attach(Attention::new(shape).unwrap()).level(level);
            let job = attention.bind(call.q, call.k, call.v, got.out.view_mut()).unwrap();
            let mut job = job.lse(got.lse.view_mut()).unwrap();
            let scratch_len = job.scratch_len();
            let mut items: Vec<_> = job.items().collect();
            assert!(items.len() >= shape.batch * shape.kv_heads);
            rng.shuffle(&mut items);
            let items = Mutex::new(items);
            std::thread::scope(|threads| {
                for _ in 0..2 {
                    threads.spawn(|| {
                        let mut scratch = vec![f32::NAN; scratch_len];
                        loop {
                            let item = items.lock().unwrap().pop();
                            let Some(mut item) = item else { break };
                            item.run(&mut scratch).unwrap();
                        }
                    });
                }
            });
            assert_eq!(got.bits(), want.bits(), "{level} {shape:?}");

            let mut got = support::Answer::<f32>::nothing(&shape, Layout::Bshd);
            let job = attention.bind(call.q, call.k, call.v, got.out.view_mut()).unwrap();
            let mut job = job.lse(got.lse.view_mut()).unwrap();
            support::run_on_threads(&mut job, 2);
            assert_eq!(got.bits(), want.bits(), "{level} {shape:?}");
        }
    }
}

/// Aligned by its type, since an interpreter may not tell where memory begins.
#[repr(align(64))]
struct Lines([f32; 8192]);

/// Two threads share the keys of each head, with few rows and with many.
#[cfg(not(target_family = "wasm"))]
#[test]
fn shared_keys() {
    let mut rng = Rng(5);
    for q_len in [1, 2] {
        // Two chunks and a key; an interpreter has the scalar level, with short ones.
        let kv_len = if cfg!(miri) { 65 } else { 1537 };
        let shape = Shape { batch: 1, q_heads: 4, kv_heads: 2, q_len, kv_len, head_dim: 2, value_dim: 3 };
        let operands = Operands::<f32, f32, f32>::random(&shape, &mut rng);
        let modifiers = Modifiers { sinks: Some(vec![0.5; 4]), ..Modifiers::causal() };
        for level in levels().filter(|&level| cfg!(miri) || level != Level::SCALAR) {
            let call = operands.call(&shape, &modifiers, level);
            let want = call.run::<f32>();
            let mut got = support::Answer::<f32>::nothing(&shape, Layout::Bshd);
            let attention = modifiers.attach(Attention::new(shape).unwrap()).level(level);
            let job = attention.bind(call.q, call.k, call.v, got.out.view_mut()).unwrap();
            let mut partials = Box::new(Lines([f32::NAN; 8192]));
            let mut job = job.lse(got.lse.view_mut()).unwrap().split_kv(&mut partials.0).unwrap();
            let of_head = if cfg!(feature = "single-tile") { 1 } else { 3 };
            assert_eq!(job.items().len(), 2 * of_head, "each head's keys are three items");
            support::run_on_threads(&mut job, 2);
            let [got, want] = [got, want].map(|answer| [answer.out.numbers(), answer.lse.numbers()]);
            assert_eq!(got, want, "{level} {shape:?}");
        }
    }
}

/// Strides that no memory has, where there is nothing that they could lead to.
#[test]
fn strides_of_nothing() {
    let far = Strides { batch: usize::MAX, head: usize::MAX - 1, row: usize::MAX };
    for q_len in [0, 1, 4] {
        let shape = Shape { kv_len: 0, ..small(q_len) };
        let q = vec![1.0f32; shape.batch * shape.q_heads * q_len * shape.head_dim];
        let mut out = vec![1.0f32; shape.batch * shape.q_heads * q_len * shape.value_dim];
        let mut scratch = vec![0.0; shape.scratch_len()];
        for level in levels() {
            let out = ViewMut::bhsd(&mut out, shape.q_heads, q_len, shape.value_dim);
            let attention = Attention::new(shape).unwrap().level(level);
            let nothing = View::<f32>::new(&[], far);
            let job =
                attention.bind(View::bhsd(&q, shape.q_heads, q_len, shape.head_dim), nothing, nothing, out);
            job.unwrap()
                .inspect(Stage::Softmax, ViewMut::new(&mut [], far))
                .unwrap()
                .run(&mut scratch)
                .unwrap();
        }
        assert!(out.iter().all(|&x| x == 0.0));
    }
}

#[test]
fn bad_calls() {
    let shape = small(4);
    let operands = Operands::<f32, f32, f32>::random(&shape, &mut Rng(3));
    let attention = Attention::new(shape).unwrap().level(Level::SCALAR);
    let (q, k, v) = (operands.q.view(), operands.k.view(), operands.v.view());
    let needed = shape.batch * shape.q_heads * shape.q_len * shape.value_dim;
    let mut out = vec![7.0f32; needed];
    let bhsd = Strides::bhsd(shape.q_heads, shape.q_len, shape.value_dim);

    let short = attention.bind(q, k, v, ViewMut::new(&mut out[1..], bhsd)).err();
    assert_eq!(short, Some(Error::TooShort { operand: Operand::Output, needed, had: needed - 1 }));
    let short =
        attention.bind(q, View::new(&[0.0f32; 3], Strides::bhsd(2, 19, 3)), v, ViewMut::new(&mut out, bhsd));
    assert!(matches!(short.err(), Some(Error::TooShort { operand: Operand::Key, had: 3, .. })));
    let same = Strides { row: 0, ..bhsd };
    let overlap = attention.bind(q, k, v, ViewMut::new(&mut out, same)).err();
    assert!(matches!(overlap, Some(Error::Overlap { operand: Operand::Output, .. })));
    let mut job = attention.bind(q, k, v, ViewMut::new(&mut out, bhsd)).unwrap();
    let mut scratch = vec![0.0; job.scratch_len() - 1];
    assert!(matches!(job.run(&mut scratch), Err(Error::TooShort { operand: Operand::Scratch, .. })));
    assert!(out.iter().all(|&x| x == 7.0));
}
