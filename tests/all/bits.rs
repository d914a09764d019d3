//! The same bits for a row whatever else is in the call, in whatever order, on however many threads, with whatever
//! in the scratch.

use gqa::{Alignment, Attention, Bf16Dot, Level, Shape, Stage, bf16};

use crate::support::{
    self, Answer, Bias, Dense, Layout, Modifiers, Number, Operands, Rng, Visit, levels, mask_strides,
    random_operands, visit_some,
};

/// Shapes on both sides of the limit between few and many rows, of one item and of several, of which the last may be few rows;
/// the last five with several chunks of keys.
const SHAPES: [([usize; 2], [usize; 2]); 12] = [
    ([4, 4], [1, 40]),
    ([6, 2], [1, 133]),
    ([3, 3], [3, 70]),
    ([4, 2], [9, 65]),
    ([3, 1], [23, 97]),
    ([6, 3], [50, 100]),
    ([2, 2], [150, 33]),
    ([8, 2], [1, 1600]),
    ([5, 1], [6, 800]),
    ([4, 2], [15, 769]),
    ([4, 2], [12, 769]),
    ([4, 2], [40, 800]),
];

/// Each of those that can differ from each other on one machine.
const BF16_DOTS: [Bf16Dot; 3] = [Bf16Dot::Never, Bf16Dot::WherePresent, Bf16Dot::ByVectors];

/// Something of everything.
fn modifiers(shape: &Shape, rng: &mut Rng) -> Modifiers {
    let (strides, count) = mask_strides(shape, [false, false, true, true]);
    let bias = Bias::of(0, &rng.normals(count));
    let heads = 0..shape.q_heads;
    Modifiers {
        softcap: Some(20.0),
        bias: Some(Dense { data: bias, strides }),
        left: Some(50),
        alibi: Some(heads.clone().map(|_| 0.125).collect()),
        sinks: Some(heads.map(|_| 0.5).collect()),
        ..Modifiers::causal()
    }
}

/// Nothing, something of everything, and limits of which some hide whole chunks of keys between others.
fn all_modifiers(shape: &Shape, rng: &mut Rng) -> [Modifiers; 3] {
    let lengths = Some((0..shape.batch).map(|batch| shape.kv_len / (1 + batch)).collect());
    let prefix_lengths = Some(vec![70.min(shape.kv_len), 0, 1]);
    let limits = Modifiers { left: Some(200), key_lengths: lengths, prefix_lengths, ..Modifiers::causal() };
    [Modifiers::default(), modifiers(shape, rng), limits]
}

/// Those that make a difference for keys and values stored so.
fn bf16_dots<K: Number, V: Number>() -> impl Iterator<Item = Bf16Dot> {
    let pairs = K::NAME == bf16::NAME && V::NAME == bf16::NAME;
    BF16_DOTS.into_iter().filter(move |&bf16_dot| pairs || bf16_dot == Bf16Dot::Never)
}

/// Runs a check on all shapes, storage types (of which a share of the tests takes one for each shape) and levels, plain
/// and with modifiers.
fn everywhere<C: Check>() {
    for (index, (heads, lens)) in SHAPES.into_iter().enumerate() {
        for storage in 0..support::times(3) {
            let mut rng = Rng(index as u64);
            let shape = support::shape(3, heads, lens, 11 + 13 * (index % 2));
            visit_some(
                index + storage,
                Everywhere::<C>(shape, &all_modifiers(&shape, &mut rng), C::default()),
            );
        }
    }
}

/// A check of one call: `bits` is what it answers when it is run plainly.
trait Check: Default {
    fn check<Q: Number, K: Number, V: Number, O: Number>(
        &self,
        case: &Case<'_, Q, K, V>,
        bits: &[Vec<u32>; 2],
    );
}

struct Everywhere<'a, C>(Shape, &'a [Modifiers], C);

struct Case<'a, Q, K, V> {
    shape: Shape,
    modifiers: &'a Modifiers,
    level: Level,
    bf16_dot: Bf16Dot,
    operands: &'a Operands<Q, K, V>,
}

impl<C: Check> Visit for Everywhere<'_, C> {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let operands = Operands::<Q, K, V>::random(&self.0, &mut Rng(7));
        for modifiers in self.1 {
            for level in levels() {
                let bf16_dot = Bf16Dot::Never;
                let case = Case { shape: self.0, modifiers, level, bf16_dot, operands: &operands };
                let bits = operands.call(&self.0, modifiers, level).run::<O>().bits();
                self.2.check::<Q, K, V, O>(&case, &bits);
            }
        }
    }
}

impl<Q: Number, K: Number, V: Number> Case<'_, Q, K, V> {
    /// The answer's bits when `run` runs the bound job.
    fn bits<O: Number>(&self, run: impl FnOnce(&mut gqa::Job<'_, Q, K, V, O>)) -> [Vec<u32>; 2] {
        self.bits_of(|mut job| run(&mut job))
    }

    /// As [`bits`](Self::bits), of a `run` that takes the job.
    fn bits_of<O: Number>(&self, run: impl FnOnce(gqa::Job<'_, Q, K, V, O>)) -> [Vec<u32>; 2] {
        let mut answer = Answer::<O>::nothing(&self.shape, Layout::Bhsd);
        let attention = self.modifiers.attach(Attention::new(self.shape).unwrap()).level(self.level);
        let attention = attention.bf16_dot(self.bf16_dot);
        let (q, k, v) = (self.operands.q.view(), self.operands.k.view(), self.operands.v.view());
        let job = attention.bind(q, k, v, answer.out.view_mut()).unwrap();
        run(job.lse(answer.lse.view_mut()).unwrap());
        answer.bits()
    }
}

#[derive(Default)]
struct Orders;

impl Check for Orders {
    fn check<Q: Number, K: Number, V: Number, O: Number>(
        &self,
        case: &Case<'_, Q, K, V>,
        bits: &[Vec<u32>; 2],
    ) {
        let reversed = case.bits::<O>(|job| {
            let mut scratch = vec![0.0; job.scratch_len()];
            job.items().rev().for_each(|mut item| item.run(&mut scratch).unwrap());
        });
        assert_eq!(&reversed, bits, "reversed at {} {:?}", case.level, case.shape);
        let shuffled = case.bits::<O>(shuffle);
        assert_eq!(&shuffled, bits, "shuffled at {} {:?}", case.level, case.shape);
    }
}

#[derive(Default)]
struct Threads;

impl Check for Threads {
    fn check<Q: Number, K: Number, V: Number, O: Number>(
        &self,
        case: &Case<'_, Q, K, V>,
        bits: &[Vec<u32>; 2],
    ) {
        for threads in [2, 3] {
            let found = case.bits::<O>(|job| {
                let length = job.scratch_len();
                let mut rest = job.items();
                let share = rest.len().div_ceil(threads);
                std::thread::scope(|scope| {
                    while rest.len() > 0 {
                        let (items, others) = rest.split_at(share);
                        rest = others;
                        scope.spawn(move || {
                            let mut scratch = vec![0.0; length];
                            items.for_each(|mut item| item.run(&mut scratch).unwrap());
                        });
                    }
                });
            });
            assert_eq!(&found, bits, "{threads} threads at {} {:?}", case.level, case.shape);
            let found = case.bits::<O>(|job| {
                let length = job.scratch_len();
                let count = job.items().len();
                let (first, rest) = job.items().split_at(1);
                let queues = [first.queue(), rest.queue()];
                let drawn = std::sync::atomic::AtomicUsize::new(0);
                std::thread::scope(|scope| {
                    for _ in 0..threads {
                        scope.spawn(|| {
                            let mut scratch = vec![0.0; length];
                            for queue in &queues {
                                while let Some(mut item) = queue.pop() {
                                    item.run(&mut scratch).unwrap();
                                    drawn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                }
                            }
                        });
                    }
                });
                assert_eq!(drawn.into_inner(), count);
            });
            assert_eq!(&found, bits, "{threads} threads on a queue at {} {:?}", case.level, case.shape);
        }
    }
}

#[derive(Default)]
struct Scratch;

impl Check for Scratch {
    fn check<Q: Number, K: Number, V: Number, O: Number>(
        &self,
        case: &Case<'_, Q, K, V>,
        bits: &[Vec<u32>; 2],
    ) {
        for (garbage, offset) in [(0.0, 5), (1e30, 2), (f32::INFINITY, 1), (f32::NAN, 0)] {
            let found = case.bits::<O>(|job| {
                let mut scratch = vec![garbage; job.scratch_len() + offset];
                job.run(&mut scratch[offset..]).unwrap();
            });
            assert_eq!(&found, bits, "{garbage} at offset {offset} at {} {:?}", case.level, case.shape);
        }
        let again = case.bits::<O>(|job| {
            let mut scratch = vec![0.0; job.scratch_len()];
            job.run(&mut scratch).unwrap();
            job.run(&mut scratch).unwrap();
        });
        assert_eq!(&again, bits, "run twice at {} {:?}", case.level, case.shape);
    }
}

/// Keys shared by several items.
#[cfg(target_has_atomic = "ptr")]
#[derive(Default)]
struct SplitKv;

#[cfg(target_has_atomic = "ptr")]
impl Check for SplitKv {
    fn check<Q: Number, K: Number, V: Number, O: Number>(
        &self,
        case: &Case<'_, Q, K, V>,
        bits: &[Vec<u32>; 2],
    ) {
        let Case { shape, level, .. } = *case;
        let what = format!("split at {level} {shape:?}");
        let mut places = 0;
        case.bits::<O>(|job| places = job.items().len());
        let never = cfg!(any(target_family = "wasm", feature = "single-tile"));
        let most = if level.name().starts_with("avx512") { 96 } else { 32 };
        let unsplit = never || level == Level::SCALAR || shape.shared_rows() > most;
        let chunks = if unsplit { 1 } else { shape.kv_len.div_ceil(768) };

        let found = case.bits_of::<O>(|job| {
            let len = job.partials_len();
            assert!(len <= shape.partials_len() && (len > 0) == (chunks > 1), "{what}");
            let prompt = Shape { q_len: 512, ..shape };
            assert!(len <= prompt.partials_len_at(level), "{what}: a prompt's is enough");
            let mut partials = vec![f32::NAN; len + 1];
            // At any alignment, and in memory that a call has used that was not run to its end.
            let mut job = job.split_kv(&mut partials[1..]).unwrap();
            let mut scratch = vec![f32::NAN; job.scratch_len()];
            job.items().take(2).for_each(|mut item| item.run(&mut scratch).unwrap());
            let mut items: Vec<_> = job.items().collect();
            assert!(level != Level::SCALAR || items.len() == places, "{what}");
            assert!(chunks == 1 || items.len() == places * chunks, "{what}");
            Rng(8).shuffle(&mut items);
            for item in &mut items {
                item.run(&mut scratch).unwrap();
                // Once more changes nothing.
                item.run(&mut scratch).unwrap();
            }
        });
        assert_eq!(&found, bits, "{what}");

        let found = case.bits_of::<O>(|job| {
            let mut partials = vec![f32::NAN; job.partials_len()];
            let mut job = job.split_kv(&mut partials).unwrap();
            #[cfg(not(target_family = "wasm"))]
            support::run_on_threads(&mut job, 3);
            #[cfg(target_family = "wasm")]
            job.run(&mut vec![f32::NAN; job.scratch_len()]).unwrap();
        });
        assert_eq!(&found, bits, "{what} on threads");
    }
}

/// What is looked at of the scores is whole, and the output the same, though nothing is split then.
#[cfg(target_has_atomic = "ptr")]
#[test]
fn split_and_inspected() {
    let shape = support::shape(2, [4, 2], [1, 800], 16);
    let operands = Operands::<f32, f32, f32>::random(&shape, &mut Rng(12));
    let modifiers = Modifiers::default();
    for level in levels() {
        let mut call = operands.call(&shape, &modifiers, level);
        call.stage = Some(Stage::Softmax);
        let want = call.run::<f32>();
        let mut got = Answer::<f32>::nothing(&shape, Layout::Bhsd);
        let mut scores = vec![f32::NAN; 2 * 4 * 800];
        let attention = Attention::new(shape).unwrap().level(level);
        let job = attention.bind(call.q, call.k, call.v, got.out.view_mut()).unwrap();
        let mut partials = vec![0.0; job.partials_len()];
        let job = job.split_kv(&mut partials).unwrap().lse(got.lse.view_mut()).unwrap();
        let mut job = job.inspect(Stage::Softmax, gqa::ViewMut::bhsd(&mut scores, 4, 1, 800)).unwrap();
        let mut scratch = vec![0.0; job.scratch_len()];
        job.items().for_each(|mut item| item.run(&mut scratch).unwrap());
        assert_eq!(got.bits(), want.bits(), "{level}");
        let scores: Vec<f64> = scores.iter().map(|&x| x.into()).collect();
        assert_eq!(scores, want.scores.numbers(), "{level}");
    }
}

#[derive(Default)]
struct Company;

impl Check for Company {
    /// Each KV head of each sequence alone, with its query heads.
    fn check<Q: Number, K: Number, V: Number, O: Number>(
        &self,
        case: &Case<'_, Q, K, V>,
        bits: &[Vec<u32>; 2],
    ) {
        let Case { shape, modifiers, level, operands, .. } = *case;
        let group = shape.group();
        let alone = Shape { batch: 1, q_heads: group, kv_heads: 1, ..shape };
        let first = |numbers: &Option<Vec<f32>>| numbers.as_ref().map(|numbers| numbers[..group].to_vec());
        let modifiers =
            Modifiers { alibi: first(&modifiers.alibi), sinks: first(&modifiers.sinks), ..modifiers.clone() };
        for (index, rows) in bits[0].chunks(group * shape.q_len * shape.value_dim).enumerate() {
            let of_batch =
                |lengths: &Option<Vec<usize>>| lengths.as_ref().map(|l| vec![l[index / shape.kv_heads]]);
            let modifiers = Modifiers {
                key_lengths: of_batch(&modifiers.key_lengths),
                prefix_lengths: of_batch(&modifiers.prefix_lengths),
                ..modifiers.clone()
            };
            let part = |numbers: Vec<f64>, length: usize| numbers[index * length..][..length].to_vec();
            let [q, k, v] = operands.numbers();
            let numbers = [
                part(q, group * shape.q_len * shape.head_dim),
                part(k, shape.kv_len * shape.head_dim),
                part(v, shape.kv_len * shape.value_dim),
            ];
            let operands = Operands::<Q, K, V>::new(&alone, [Layout::Bshd; 3], &numbers);
            let [out, lse] = operands.call(&alone, &modifiers, level).run::<O>().bits();
            assert_eq!(out, rows, "head {index} alone at {level} {shape:?}");
            assert_eq!(
                lse,
                bits[1][index * lse.len()..][..lse.len()],
                "head {index} alone at {level} {shape:?}"
            );
        }
    }
}

/// The last of 66 rows, which are no whole number of vectors, has the bits of a call of few rows.
struct Tail(Shape, Modifiers);

impl Visit for Tail {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Self(shape, modifiers) = self;
        let operands = Operands::<Q, K, V>::random(&shape, &mut Rng(10));
        let one = Shape { q_len: 1, ..shape };
        let [q, k, v] = operands.numbers();
        let last = |numbers: &[f64], dim: usize| -> Vec<f64> {
            let heads = numbers.chunks_exact(shape.q_len * dim);
            heads.flat_map(|head| head[(shape.q_len - 1) * dim..].to_vec()).collect()
        };
        let alone = Operands::<Q, K, V>::new(&one, [Layout::Bhsd; 3], &[last(&q, shape.head_dim), k, v]);
        for level in levels().filter(|&level| level != Level::SCALAR) {
            for stage in [None, Some(Stage::Raw), Some(Stage::Softmax)] {
                for bf16_dot in BF16_DOTS {
                    let mut calls =
                        [operands.call(&shape, &modifiers, level), alone.call(&one, &modifiers, level)];
                    for call in &mut calls {
                        (call.stage, call.bf16_dot) = (stage, bf16_dot);
                    }
                    let [all, want] = calls.map(|call| call.run::<O>());
                    let what = (level, stage, bf16_dot, [Q::NAME, K::NAME, V::NAME, O::NAME], &modifiers);
                    assert_eq!(last(&all.out.numbers(), shape.value_dim), want.out.numbers(), "{what:?}");
                    assert_eq!(last(&all.lse.numbers(), 1), want.lse.numbers(), "{what:?}");
                    if stage.is_some() {
                        let scores = last(&all.scores.numbers(), shape.kv_len);
                        assert_eq!(scores, want.scores.numbers(), "{what:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn rows_past_whole_vectors_are_few() {
    let shape = support::shape(2, [2, 2], [66, 97], 37);
    // Dense operands are the same for all rows.
    let (strides, count) = mask_strides(&shape, [true, true, false, true]);
    let mut rng = Rng(11);
    let everything = Modifiers {
        mask: Some(Dense { data: (0..count).map(|_| !rng.once_in(5)).collect(), strides }),
        bias: Some(Dense { data: Bias::of(0, &rng.normals(count)), strides }),
        softcap: Some(20.0),
        left: Some(50),
        alibi: Some(vec![0.125; 2]),
        sinks: Some(vec![0.5; 2]),
        ..Modifiers::causal()
    };
    for modifiers in [Modifiers::default(), everything] {
        for storage in 0..3 {
            visit_some(storage, Tail(shape, modifiers.clone()));
        }
        Tail(shape, modifiers).visit::<f32, bf16, bf16, f32>();
    }
}

/// The same sequence so often that the keys and values of the call are of more than some bytes.
struct Bytes(Shape, usize);

impl Visit for Bytes {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Self(shape, bytes) = self;
        let operands = Operands::<Q, K, V>::random(&shape, &mut Rng(13));
        let one = shape.kv_heads
            * shape.kv_len
            * (shape.head_dim * size_of::<K>() + shape.value_dim * size_of::<V>());
        let all = Shape { batch: bytes / one + 1, ..shape };
        for modifiers in [Modifiers::default(), Modifiers { left: Some(333), ..Modifiers::causal() }] {
            for (level, bf16_dot) in
                levels().flat_map(|level| bf16_dots::<K, V>().map(move |dot| (level, dot)))
            {
                let mut call = operands.call(&shape, &modifiers, level);
                call.bf16_dot = bf16_dot;
                let want = call.run::<O>().out.numbers();
                let attention =
                    modifiers.attach(Attention::new(all).unwrap()).level(level).bf16_dot(bf16_dot);
                let (q, k, v) = (operands.q.repeated(), operands.k.repeated(), operands.v.repeated());
                let mut got = Answer::<O>::nothing(&all, Layout::Bhsd);
                let mut job = attention.bind(q, k, v, got.out.view_mut()).unwrap();
                let mut scratch = vec![f32::NAN; job.scratch_len()];
                job.run(&mut scratch).unwrap();
                for got in got.out.numbers().chunks(want.len()) {
                    assert_eq!(got, want, "{bytes} bytes at {level} {bf16_dot:?} {shape:?}");
                }
            }
        }
    }
}

/// More keys and values than the caches of a core hold, or all caches: they are fetched otherwise.
#[cfg(not(miri))]
#[test]
fn any_number_of_bytes() {
    let cases = [(3, [40, 72]), (2, [128, 128]), (5, [64, 200]), (8, [33, 147]), (1, [64, 64])];
    let some = cases.into_iter().take(support::times(cases.len()));
    for (index, (group, [head_dim, value_dim])) in some.enumerate() {
        let shape = Shape { value_dim, ..support::shape(1, [2 * group, 2], [1, 830], head_dim) };
        Bytes(shape, 16 << 20).visit::<f32, f32, f32, f32>();
        visit_some(index, Bytes(shape, 1 << 20));
        visit_some(index + 1, Bytes(shape, 16 << 20));
        // A matrix unit's limit.
        if index == 1 {
            Bytes(shape, 48 << 20).visit::<f32, bf16, bf16, f32>();
        }
    }
}

/// Keys and values of all heads beside each other, and more of them than a core's caches hold: heads are taken together.
struct Beside(Shape, Modifiers, Layout);

impl Visit for Beside {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Self(shape, modifiers, layout) = self;
        let mut numbers = random_operands(&shape, &mut Rng(14));
        // Values that only some rows don't see.
        if modifiers.right.is_some() {
            let last = numbers[2].len() - 1;
            (numbers[2][last], numbers[2][last / 2]) = (f64::NAN, f64::INFINITY);
        }
        let apart = Operands::<Q, K, V>::new(&shape, [Layout::Bhsd; 3], &numbers);
        let beside = Operands::<Q, K, V>::new(&shape, [Layout::Bhsd, layout, layout], &numbers);
        for (level, bf16_dot) in levels().flat_map(|level| bf16_dots::<K, V>().map(move |dot| (level, dot))) {
            let what = (level, bf16_dot, shape, layout, [Q::NAME, K::NAME, V::NAME, O::NAME]);
            for stage in [None, Some(Stage::Raw), Some(Stage::Softmax)] {
                let [got, want] = [&beside, &apart].map(|operands| {
                    let mut call = operands.call(&shape, &modifiers, level);
                    (call.stage, call.bf16_dot) = (stage, bf16_dot);
                    call.run::<O>()
                });
                assert_eq!(got.bits(), want.bits(), "{what:?}");
                assert_eq!(got.scores.bits(), want.scores.bits(), "{what:?}");
            }
            let case = Case { shape, modifiers: &modifiers, level, bf16_dot, operands: &beside };
            let mut call = apart.call(&shape, &modifiers, level);
            call.bf16_dot = bf16_dot;
            let bits = call.run::<O>().bits();
            Orders.check::<Q, K, V, O>(&case, &bits);
            Scratch.check::<Q, K, V, O>(&case, &bits);
            // Fewer threads, fewer items, of more heads.
            for threads in [0, 1, 2, 5] {
                let found = case.bits_of::<O>(|job| shuffle(&mut job.threads(threads)));
                assert_eq!(found, bits, "{threads} threads: {:?}", what);
                #[cfg(target_has_atomic = "ptr")]
                {
                    let found = case.bits_of::<O>(|job| {
                        let len = job.partials_len();
                        assert!(len <= shape.partials_len(), "{:?}", what);
                        let mut partials = vec![f32::NAN; len];
                        // As for 32, and then as for so many with the same memory.
                        let mut job = job.split_kv(&mut partials).unwrap();
                        let many = job.items().len();
                        let mut job = job.threads(threads);
                        assert!(job.items().len() <= many, "{threads} threads: {:?}", what);
                        shuffle(&mut job);
                    });
                    assert_eq!(found, bits, "split, {threads} threads: {:?}", what);
                }
            }
        }
    }
}

/// A prompt of many rows: fewer threads, fewer items, of more rows.
struct Prompt(Shape, Modifiers, Special);

/// A value that only some rows don't see, if there are causal limits: which one, and what.
#[derive(Clone, Copy)]
struct Special(usize, f64);

impl Visit for Prompt {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Self(shape, modifiers, Special(at, special)) = self;
        let mut numbers = random_operands(&shape, &mut Rng(16));
        if modifiers.right.is_some() {
            numbers[2][at] = special;
        }
        let operands = Operands::<Q, K, V>::new(&shape, [Layout::Bshd; 3], &numbers);
        for (level, bf16_dot) in levels().flat_map(|level| BF16_DOTS.map(|dot| (level, dot))) {
            let mut call = operands.call(&shape, &modifiers, level);
            call.bf16_dot = bf16_dot;
            let bits = call.run::<O>().bits();
            let counts = [1, 2, 3, 32, usize::MAX].map(|threads| {
                let what = format!("{threads} threads: {level} {bf16_dot:?} {shape:?} {modifiers:?}");
                let mut answer = Answer::<O>::nothing(&shape, Layout::Bhsd);
                let attention = modifiers.attach(Attention::new(shape).unwrap()).level(level);
                let (q, k, v) = (operands.q.view(), operands.k.view(), operands.v.view());
                let job = attention.bf16_dot(bf16_dot).bind(q, k, v, answer.out.view_mut()).unwrap();
                let mut job = job.lse(answer.lse.view_mut()).unwrap().threads(threads);
                let count = job.items().len();
                shuffle(&mut job);
                assert_eq!(answer.bits(), bits, "{what}");
                count
            });
            assert!(counts.is_sorted(), "{level} {shape:?}: {counts:?} items");
            let fixed = level == Level::SCALAR || cfg!(feature = "single-tile");
            assert_eq!(counts[0] == counts[4], fixed, "{level} {shape:?}: {counts:?} items");
        }
    }
}

#[cfg(not(miri))]
#[test]
fn any_rows_of_an_item() {
    let cases = [([6, 2], [71, 95]), ([16, 1], [27, 100]), ([2, 1], [150, 500]), ([4, 4], [230, 60])];
    for (index, (heads, lens)) in cases.into_iter().enumerate().take(support::times(cases.len())) {
        let shape = Shape { value_dim: 16 + index, ..support::shape(1, heads, lens, 40) };
        let last = Special(shape.kv_heads * shape.kv_len * shape.value_dim - 1, f64::NAN);
        let alignment = Alignment::BottomRight;
        let short = Modifiers { left: Some(20), alignment, ..Modifiers::causal() };
        let all = all_modifiers(&Shape { batch: 3, ..shape }, &mut Rng(17));
        for (number, mut modifiers) in all.into_iter().chain([short]).enumerate() {
            for lengths in [&mut modifiers.key_lengths, &mut modifiers.prefix_lengths] {
                lengths.iter_mut().for_each(|lengths| lengths.truncate(1));
            }
            visit_some(index + number, Prompt(shape, modifiers.clone(), last));
            if number > 1 {
                Prompt(shape, modifiers, last).visit::<f32, bf16, bf16, f32>();
            }
        }
    }
}

/// Where a value is infinite some rows are computed again. Which ones must not depend on the rows beside them in an item.
#[cfg(not(miri))]
#[test]
fn any_rows_beside_an_infinite_value() {
    let shape = support::shape(1, [2, 1], [192, 192], 64);
    Prompt(shape, Modifiers::causal(), Special(100 * 64 + 1, f64::INFINITY)).visit::<bf16, bf16, bf16, f32>();
    // In the second block also where a matrix unit multiplies.
    let shape = support::shape(1, [2, 1], [330, 330], 64);
    Prompt(shape, Modifiers::causal(), Special(270 * 64 + 1, f64::INFINITY)).visit::<bf16, bf16, bf16, f32>();
}

/// Runs the items in some order.
fn shuffle<Q: Number, K: Number, V: Number, O: Number>(job: &mut gqa::Job<'_, Q, K, V, O>) {
    let mut scratch = vec![f32::NAN; job.scratch_len()];
    let mut items: Vec<_> = job.items().collect();
    Rng(8).shuffle(&mut items);
    items.iter_mut().for_each(|item| item.run(&mut scratch).unwrap());
}

#[cfg(not(miri))]
#[test]
fn any_heads_beside_each_other() {
    // [batch, group, KV heads], [rows, keys], dims; the last but one has many items, the last has many of split ones.
    let cases = [
        ([1, 4, 8], [1, 830], [40, 33]),
        ([1, 3, 3], [1, 1600], [64, 64]),
        ([2, 7, 2], [1, 900], [33, 80]),
        ([1, 1, 12], [2, 700], [64, 16]),
        ([1, 5, 5], [2, 830], [72, 128]),
        ([33, 2, 4], [1, 130], [32, 48]),
        ([4, 1, 8], [3, 2400], [24, 17]),
    ];
    let some = cases.into_iter().take(support::times(cases.len()));
    for (index, ([batch, group, kv_heads], lens, [head_dim, value_dim])) in some.enumerate() {
        let shape =
            Shape { value_dim, ..support::shape(batch, [group * kv_heads, kv_heads], lens, head_dim) };
        let modifiers = all_modifiers(&Shape { batch: 3, ..shape }, &mut Rng(15));
        for (number, mut modifiers) in modifiers.into_iter().enumerate() {
            let layout = [Layout::Bshd, Layout::Packed, Layout::Sbhd][(index + number) % 3];
            let of_batch =
                |lengths: Option<Vec<usize>>| lengths.map(|l| (0..batch).map(|b| l[b % 3]).collect());
            modifiers.key_lengths = of_batch(modifiers.key_lengths);
            modifiers.prefix_lengths = of_batch(modifiers.prefix_lengths);
            visit_some(index + number, Beside(shape, modifiers.clone(), layout));
            // By a matrix unit, where there is one, few rows are of such values.
            if value_dim.is_multiple_of(16) && number == index % 3 {
                let shape = Shape { value_dim: value_dim.max(64), ..shape };
                Beside(shape, modifiers, layout).visit::<f32, bf16, bf16, f32>();
            }
        }
    }
}

#[test]
fn any_order_of_items() {
    everywhere::<Orders>();
}

#[cfg(not(target_family = "wasm"))]
#[test]
fn any_number_of_threads() {
    everywhere::<Threads>();
}

#[cfg(target_has_atomic = "ptr")]
#[test]
fn any_split_of_the_keys() {
    everywhere::<SplitKv>();
}

#[test]
fn any_scratch_and_twice() {
    everywhere::<Scratch>();
}

#[test]
fn any_company_of_batches_and_heads() {
    everywhere::<Company>();
}

#[test]
fn any_level_runs_what_it_says() {
    let (shape, modifiers) = (support::shape(1, [2, 1], [3, 9], 8), Modifiers::default());
    let numbers = random_operands(&shape, &mut Rng(9));
    let operands = Operands::<f32, f32, f32>::new(&shape, [Layout::Bhsd; 3], &numbers);
    for level in levels() {
        let bf16_dot = Bf16Dot::Never;
        let case = Case { shape, modifiers: &modifiers, level, bf16_dot, operands: &operands };
        case.bits::<f32>(|job| assert_eq!(job.level(), level));
        assert_eq!(Level::named(level.name()), Some(level));
    }
}
