//! Every modifier with every other, in both kernels and mixed storage, at every level: output, log-sum-exp and each
//! stage of the scores against the reference; looking at a stage changes no bit of the output.

use gqa::{Alignment, Attention, MaskData, MaskStrides, Shape, Stage, View, ViewMut, alibi_slope};

use crate::support::{
    self, Bias, Dense, LAYOUTS, Modifiers, Number, Operands, Rng, Visit, levels, mask_strides,
    random_operands, times, visit_some,
};

const STAGES: [Stage; 4] = [Stage::Raw, Stage::Softcapped, Stage::Biased, Stage::Softmax];

/// Choices taken from a number digit by digit, so that counting goes through the whole cross product.
struct Choices(usize);

impl Choices {
    fn of(&mut self, count: usize) -> usize {
        let choice = self.0 % count;
        self.0 /= count;
        choice
    }

    /// `then()` in one of two cases.
    fn maybe<T>(&mut self, then: impl FnOnce() -> T) -> Option<T> {
        (self.of(2) == 1).then(then)
    }
}

/// How many choices [`modifiers`] has.
const COMBINATIONS: usize = 2 * 2 * 4 * 2 * 6 * 4 * 2 * 2 * 2 * 2;

/// Combination number `index`; how dense operands are broadcast, and all numbers, are random.
fn modifiers(index: usize, shape: &Shape, rng: &mut Rng) -> Modifiers {
    let mut choices = Choices(index);
    let broadcast = rng.below(16);
    let has = [0, 1, 2, 3].map(|axis| broadcast >> axis & 1 == 1);
    let (strides, count) = mask_strides(shape, has);
    let lengths = |rng: &mut Rng| (0..shape.batch).map(|_| rng.below(shape.kv_len + 1)).collect::<Vec<_>>();
    let scale = choices.maybe(|| (rng.normal() * 0.5) as f32);
    let softcap = choices.maybe(|| 0.5 + 4.0 * rng.unit() as f32);
    let bias = match choices.of(4) {
        0 => None,
        storage => {
            let numbers: Vec<_> = (0..count)
                .map(|_| if rng.once_in(6) { f64::NEG_INFINITY } else { 3.0 * rng.normal() })
                .collect();
            Some(Dense { data: Bias::of(storage, &numbers), strides })
        }
    };
    let mask = choices.maybe(|| {
        let axes = rng.below(16);
        let (strides, count) = mask_strides(shape, [0, 1, 2, 3].map(|axis| axes >> axis & 1 == 1));
        Dense { data: (0..count).map(|_| !rng.once_in(4)).collect(), strides }
    });
    let reach = |rng: &mut Rng| Some(rng.below(shape.kv_len));
    let (alignment, causal) = match choices.of(6) {
        0 => (Alignment::default(), None),
        1 => (Alignment::TopLeft, Some(0)),
        2 => (Alignment::BottomRight, Some(0)),
        3 => (Alignment::Offset(rng.below(2 * shape.kv_len) as i64), Some(0)),
        4 => (Alignment::Offset(-(rng.below(2 * shape.q_len) as i64)), Some(0)),
        _ => (Alignment::Offset(rng.below(100) as i64 - 50), None),
    };
    let (left, right) = match choices.of(4) {
        0 => (None, causal),
        1 => (reach(rng), causal),
        2 => (None, causal.or(reach(rng))),
        _ => (reach(rng), causal.or(reach(rng))),
    };
    Modifiers {
        scale,
        softcap,
        bias,
        mask,
        alignment,
        left,
        right,
        alibi: choices.maybe(|| (0..shape.q_heads).map(|head| alibi_slope(head, shape.q_heads)).collect()),
        query_lengths: rng.once_in(4).then(|| (0..shape.batch).map(|_| rng.below(shape.q_len + 1)).collect()),
        key_lengths: choices.maybe(|| lengths(rng)),
        prefix_lengths: choices.maybe(|| lengths(rng)),
        sinks: choices.maybe(|| {
            let sink = |_| if rng.once_in(5) { f32::NEG_INFINITY } else { 2.0 * rng.normal() as f32 };
            (0..shape.q_heads).map(sink).collect()
        }),
    }
}

/// One combination.
struct Case<'a> {
    shape: Shape,
    modifiers: Modifiers,
    rng: &'a mut Rng,
    worst: &'a mut f64,
}

impl Visit for Case<'_> {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Self { shape, modifiers, rng, worst } = self;
        let layouts = [rng.pick(&LAYOUTS), rng.pick(&LAYOUTS), rng.pick(&LAYOUTS)];
        let operands = Operands::<Q, K, V>::new(&shape, layouts, &random_operands(&shape, rng));
        let expected = operands.expected(&shape, &modifiers);
        for level in levels() {
            let mut call = operands.call(&shape, &modifiers, level);
            call.layout = rng.pick(&LAYOUTS);
            let bits = call.run::<O>().bits();
            for stage in STAGES {
                call.stage = Some(stage);
                let answer = call.run::<O>();
                let what = (stage, level, [Q::NAME, K::NAME, V::NAME, O::NAME], shape, &modifiers);
                assert_eq!(answer.bits(), bits, "{what:?}");
                *worst = worst.max(expected.check(&answer, call.stage, &what));
            }
        }
    }
}

/// Goes through all combinations, with shapes of these `[q_heads, kv_heads]` and `[q_len, kv_len]` in turn.
fn cross(seed: u64, shapes: &[([usize; 2], [usize; 2])]) {
    let (mut rng, mut worst) = (Rng(seed), 0.0);
    for round in 0..times(COMBINATIONS) {
        // A step without a common divisor: each part of a shortened run has every choice too.
        let index = round * 4999 % COMBINATIONS;
        let (heads, lens) = shapes[round % shapes.len()];
        let shape = Shape { value_dim: 1 + rng.below(9), ..support::shape(2, heads, lens, 1 + rng.below(9)) };
        let modifiers = modifiers(index, &shape, &mut rng);
        visit_some(rng.below(3), Case { shape, modifiers, rng: &mut rng, worst: &mut worst });
    }
    println!("greatest error in parts of the bound: {worst:.3}");
    // The bound holds for any numbers; random ones, whose roundings differ in size, stay far below it.
    assert!(worst <= 0.75, "{worst} of the bound");
}

#[test]
fn few_rows() {
    cross(1, &[([2, 2], [3, 21]), ([3, 1], [1, 70]), ([4, 2], [2, 35]), ([8, 1], [1, 33])]);
}

#[test]
fn many_rows() {
    cross(2, &[([4, 2], [13, 21]), ([1, 1], [37, 70]), ([6, 2], [9, 35]), ([7, 1], [11, 66])]);
}

#[test]
fn masks_of_bytes_are_those_of_booleans() {
    let mut rng = Rng(3);
    for q_len in [1, 40] {
        let shape = support::shape(1, [6, 2], [q_len, 35], 5);
        let numbers = random_operands(&shape, &mut rng);
        let [q, k, v] = numbers.map(|numbers| numbers.iter().map(|&x| x as f32).collect::<Vec<_>>());
        let bytes: Vec<u8> = (0..q_len * 35).map(|_| rng.pick(&[0, 1, 2, 255])).collect();
        let booleans: Vec<bool> = bytes.iter().map(|&byte| byte != 0).collect();
        for level in levels() {
            let run = |mask: MaskData<'_>| {
                let mut out = vec![f32::NAN; 6 * q_len * 5];
                let attention = Attention::new(shape).unwrap().level(level).mask(mask, MaskStrides::rows(35));
                let (q, k, v) =
                    (View::bhsd(&q, 6, q_len, 5), View::bhsd(&k, 2, 35, 5), View::bhsd(&v, 2, 35, 5));
                let mut job = attention.bind(q, k, v, ViewMut::bhsd(&mut out, 6, q_len, 5)).unwrap();
                job.run(&mut vec![f32::NAN; shape.scratch_len()]).unwrap();
                out
            };
            assert_eq!(run(bytes[..].into()), run(booleans[..].into()), "{level}");
        }
    }
}

/// Caps near the ends of their domain: the constants that come of them are finite, and a score of 0 stays 0.
#[test]
fn the_least_and_the_greatest_caps() {
    for (rows, level) in [1, 40].into_iter().flat_map(|rows| levels().map(move |level| (rows, level))) {
        let shape =
            Shape { batch: 1, q_heads: 1, kv_heads: 1, q_len: rows, kv_len: 3, head_dim: 2, value_dim: 1 };
        let q: Vec<f32> = (0..rows * 2).map(|i| if i / 2 % 2 == 0 { 0.0 } else { 1.0 }).collect();
        let (k, v) = ([-1.0f32, -1.0, 0.0, 0.0, 1.0, 1.0], [1.0f32, 2.0, 6.0]);
        let run = |cap: Option<f32>| {
            let (mut attention, mut out) = (Attention::new(shape).unwrap().level(level), vec![0.0f32; rows]);
            if let Some(cap) = cap {
                attention = attention.softcap(cap);
            }
            let (q, k, v) = (View::bhsd(&q, 1, rows, 2), View::bhsd(&k, 1, 3, 2), View::bhsd(&v, 1, 3, 1));
            let mut job = attention.bind(q, k, v, ViewMut::bhsd(&mut out, 1, rows, 1)).unwrap();
            let mut scratch = vec![0.0; job.scratch_len()];
            job.run(&mut scratch).unwrap();
            out
        };
        for cap in [3e-39, 4e-39, 8.4e-39, f32::MIN_POSITIVE] {
            // No score is far from 0, so each value weighs the same.
            let out = run(Some(cap));
            assert!(out.iter().all(|x| (x - 3.0).abs() < 1e-6), "{level} {cap:e}: {out:?}");
        }
        let (plain, capped) = (run(None), run(Some(1e30)));
        assert!(
            plain.iter().zip(&capped).all(|(a, b)| (a - b).abs() < 1e-5),
            "{level}: {plain:?} {capped:?}"
        );
    }
}

/// Weights from 1 to where they are flushed, of values large and tiny: sums that would be subnormal at first lose 2⁻¹⁴⁴ a key at most,
/// and a rounding.
#[test]
fn steep_slopes_and_tiny_values() {
    const KEYS: usize = 500;
    for (rows, level) in [1, 40].into_iter().flat_map(|rows| levels().map(move |level| (rows, level))) {
        let shape = Shape {
            batch: 1,
            q_heads: 1,
            kv_heads: 1,
            q_len: rows,
            kv_len: KEYS,
            head_dim: 1,
            value_dim: 40,
        };
        let (q, k) = (vec![0.0f32; rows], vec![0.0f32; KEYS]);
        for exponent in [0, -60, -95, -110, -120, -130] {
            let v: Vec<f32> = (0..KEYS * 40)
                .map(|i| ((i * 37 % 101) as f32 - 30.5) / 3.0 * 2f32.powi(exponent - 6))
                .collect();
            let run = |slope: f32, keys: usize| {
                let mut out = vec![f32::NAN; rows * 40];
                let (slopes, lengths) = ([slope], [keys]);
                let mut job = Attention::new(shape)
                    .unwrap()
                    .level(level)
                    .alibi(&slopes)
                    .key_lengths(&lengths)
                    .bind(
                        View::bhsd(&q, 1, rows, 1),
                        View::bhsd(&k, 1, KEYS, 1),
                        View::bhsd(&v, 1, KEYS, 40),
                        ViewMut::bhsd(&mut out, 1, rows, 40),
                    )
                    .unwrap();
                let mut scratch = vec![0.0; job.scratch_len()];
                job.run(&mut scratch).unwrap();
                out
            };
            for slope in [0.1f32, 0.25, 1.0] {
                let out = run(slope, KEYS);
                // The last row stands at the last key.
                let weights: Vec<f64> =
                    (0..KEYS).map(|key| (-f64::from(slope) * (KEYS - 1 - key) as f64).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (column, &out) in out[(rows - 1) * 40..].iter().enumerate() {
                    let (mut sum, mut size) = (0.0, 0.0);
                    for (key, weight) in weights.iter().enumerate() {
                        let value = f64::from(v[key * 40 + column]);
                        sum += weight * value / total;
                        size += weight * value.abs() / total;
                    }
                    let limit = 1e-5 * size + KEYS as f64 * 2f64.powi(-144);
                    assert!(
                        (f64::from(out) - sum).abs() <= limit,
                        "{level} {slope} {exponent}: {out:e}, not {sum:e}"
                    );
                }
            }
            // One key is its value.
            let out = run(0.25, 1);
            for (out, value) in out[(rows - 1) * 40..].iter().zip(&v) {
                let exact = exponent > -95;
                let off = (f64::from(*out) - f64::from(*value)).abs();
                let limit = 2f64.powi(-143) + 2f64.powi(-23) * f64::from(value.abs());
                assert!(if exact { out == value } else { off <= limit }, "{level} {exponent}: {out:e}");
            }
        }
    }
}
