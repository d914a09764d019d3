//! What must hold for any input, stamped over every storage type and, inside, over every level.

use gqa::{Alignment, Level, Shape, bf16, f16};
use quickcheck::{Arbitrary, Gen, QuickCheck};

use crate::support::{
    self, Answer, Bias, Dense, Expected, Layout, Modifiers, Number, Operands, Rng, levels, mask_strides,
    random_operands, reference::Outputs, times,
};

/// A shape, and a seed for everything else.
#[derive(Clone, Debug)]
struct Problem {
    shape: Shape,
    seed: u64,
}

impl Arbitrary for Problem {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut below = |count: usize| usize::arbitrary(g) % count;
        let kv_heads = 1 + below(3);
        let shape = Shape {
            batch: 1 + below(2),
            q_heads: kv_heads * (1 + below(5)),
            kv_heads,
            q_len: 1 + below(20),
            kv_len: 1 + below(150) + if below(8) == 0 { below(1000) } else { 0 },
            head_dim: 1 + below(40),
            value_dim: 1 + below(40),
        };
        Self { shape, seed: u64::arbitrary(g) }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let Self { shape, seed } = self.clone();
        let smaller = [
            Shape { batch: 1, ..shape },
            Shape { q_heads: shape.kv_heads, ..shape },
            Shape { q_heads: shape.group(), kv_heads: 1, ..shape },
            Shape { q_len: shape.q_len.div_ceil(2), ..shape },
            Shape { q_len: shape.q_len.max(2) - 1, ..shape },
            Shape { kv_len: shape.kv_len.div_ceil(2), ..shape },
            Shape { kv_len: shape.kv_len.max(2) - 1, ..shape },
            Shape { head_dim: shape.head_dim.div_ceil(2), value_dim: shape.value_dim.div_ceil(2), ..shape },
        ];
        Box::new(
            smaller.into_iter().filter(move |&other| other != shape).map(move |shape| Self { shape, seed }),
        )
    }
}

macro_rules! properties {
    ($name:ident: $($T:ident)*) => {
        $(#[test]
        fn $T() {
            fn holds(problem: Problem) {
                levels().for_each(|level| super::$name::<$T>(level, &problem));
            }
            let generator = Gen::from_size_and_seed(1000, 1);
            QuickCheck::new().rng(generator).tests(times(100) as u64).quickcheck(holds as fn(Problem));
        })*
    };
    ($($name:ident)*) => {
        $(mod $name {
            use super::*;
            properties!($name: f32 f16 bf16);
        })*
    };
}

properties! {
    order_of_keys
    shifted_scores
    repeated_heads
    merged_parts
    appended_keys
    hostile_scores
    hidden_rubbish
    visible_nan
}

/// Each head's rows of an operand with `heads` heads, moved: row `order[i]` comes to place `i`.
fn reordered(numbers: &[f64], length: usize, dim: usize, order: &[usize]) -> Vec<f64> {
    let heads = numbers.chunks_exact(length * dim);
    heads.flat_map(|head| order.iter().flat_map(|&row| head[row * dim..][..dim].to_vec())).collect()
}

/// The numbers of contiguous operands, Q, the K and V rows of `order`.
fn with_keys(shape: &Shape, [q, k, v]: &[Vec<f64>; 3], order: &[usize]) -> (Shape, [Vec<f64>; 3]) {
    let k = reordered(k, shape.kv_len, shape.head_dim, order);
    let v = reordered(v, shape.kv_len, shape.value_dim, order);
    (Shape { kv_len: order.len(), ..*shape }, [q.clone(), k, v])
}

fn stored<T: Number>(shape: &Shape, numbers: &[Vec<f64>; 3]) -> Operands<T, T, T> {
    Operands::new(shape, [Layout::Bhsd; 3], numbers)
}

fn order_of_keys<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let (mut rng, modifiers) = (Rng(*seed), Modifiers::default());
    let operands = Operands::<T, T, T>::random(shape, &mut rng);
    let mut order: Vec<_> = (0..shape.kv_len).collect();
    rng.shuffle(&mut order);
    let permuted = stored::<T>(shape, &with_keys(shape, &operands.numbers(), &order).1);
    let answer = permuted.call(shape, &modifiers, level).run::<T>();
    operands.expected(shape, &modifiers).check(&answer, None, &level);
}

fn shifted_scores<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let mut rng = Rng(*seed);
    let operands = Operands::<T, T, T>::random(shape, &mut rng);
    let shift = f64::from((100.0 * rng.normal()) as f32);
    let strides = mask_strides(shape, [false; 4]).0;
    let bias = Some(Dense { data: Bias::F32(vec![shift as f32]), strides });
    let modifiers = Modifiers { bias, ..Modifiers::default() };
    let mut expected = operands.expected(shape, &modifiers);
    let plain = operands.expected(shape, &Modifiers::default()).exact;
    expected.exact.out = plain.out;
    expected.exact.lse = plain.lse.iter().map(|lse| lse + shift).collect();
    expected.check(&operands.call(shape, &modifiers, level).run::<T>(), None, &level);
}

fn repeated_heads<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let modifiers = Modifiers::causal();
    let operands = Operands::<T, T, T>::random(shape, &mut Rng(*seed));
    let repeat = |numbers: &[f64], dim: usize| {
        numbers.chunks_exact(shape.kv_len * dim).flat_map(|head| head.repeat(shape.group())).collect()
    };
    let [q, k, v] = operands.numbers();
    let numbers = [q, repeat(&k, shape.head_dim), repeat(&v, shape.value_dim)];
    let all = Shape { kv_heads: shape.q_heads, ..*shape };
    let answer = stored::<T>(&all, &numbers).call(&all, &modifiers, level).run::<T>();
    operands.expected(shape, &modifiers).check(&answer, None, &level);
}

fn merged_parts<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let mut rng = Rng(*seed);
    let offset = rng.below(shape.kv_len) as i64;
    let causal = |first: usize| Modifiers {
        alignment: Alignment::Offset(offset - first as i64),
        ..Modifiers::causal()
    };
    let numbers = stored::<T>(shape, &random_operands(shape, &mut rng)).numbers();
    let whole = Expected::new(shape, &causal(0), &numbers).exact;
    let cut = rng.below(shape.kv_len + 1);
    let parts = [0..cut, cut..shape.kv_len].map(|keys| {
        let modifiers = causal(keys.start);
        let (shape, numbers) = with_keys(shape, &numbers, &keys.collect::<Vec<_>>());
        let operands = stored::<T>(&shape, &numbers);
        let answer = operands.call(&shape, &modifiers, level).run::<f32>();
        (answer.out.numbers(), answer.lse.numbers(), operands.expected(&shape, &modifiers).bound)
    });
    for (index, &exact) in whole.out.iter().enumerate() {
        let row = index / shape.value_dim;
        let lse = parts.iter().map(|(_, lse, _)| lse[row].exp()).sum::<f64>().ln();
        let off = parts.iter().map(|(.., bound)| bound.lse[row]).fold(0.0, f64::max);
        let (mut out, mut limit) = (0.0, support::U * exact.abs() + f64::from(f32::MIN_POSITIVE));
        for (of, of_lse, Outputs { out: bound, .. }) in
            parts.iter().filter(|(_, lse, _)| lse[row].is_finite())
        {
            let factor = (of_lse[row] - lse).exp();
            out += factor * of[index];
            limit += factor * (bound[index] + (2.0 * off + 2.0 * support::U) * of[index].abs());
        }
        assert!((out - exact).abs() <= limit, "{out} is not {exact} within {limit:e} at {level}");
    }
}

/// Keys after the last, which a length, a mask or the causal limit hides, change no bit.
fn appended_keys<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let mut rng = Rng(*seed);
    let modifiers = Modifiers {
        alignment: Alignment::Offset(shape.kv_len as i64 - shape.q_len as i64),
        ..Modifiers::causal()
    };
    let operands = Operands::<T, T, T>::random(shape, &mut rng);
    let bits = operands.call(shape, &modifiers, level).run::<T>().bits();
    let order: Vec<_> = (0..shape.kv_len).chain((0..1 + rng.below(100)).map(|i| i % shape.kv_len)).collect();
    let (longer, numbers) = with_keys(shape, &operands.numbers(), &order);
    let operands = stored::<T>(&longer, &numbers);
    let (strides, count) = mask_strides(&longer, [true, false, false, true]);
    let visible = (0..count).map(|index| index % longer.kv_len < shape.kv_len).collect();
    for (name, modifiers) in [
        ("causal", modifiers.clone()),
        ("lengths", Modifiers { key_lengths: Some(vec![shape.kv_len; shape.batch]), ..modifiers.clone() }),
        ("all rows", {
            let query_lengths = Some(vec![shape.q_len; shape.batch]);
            let key_lengths = Some(vec![shape.kv_len; shape.batch]);
            Modifiers { query_lengths, key_lengths, ..modifiers.clone() }
        }),
        ("mask", Modifiers { mask: Some(Dense { data: visible, strides }), ..modifiers.clone() }),
    ] {
        assert_eq!(operands.call(&longer, &modifiers, level).run::<T>().bits(), bits, "{name} at {level}");
    }
}

/// Scores up to ±300,000, all of them exact in f32.
fn hostile_scores<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let mut rng = Rng(*seed);
    let shape = Shape { head_dim: 1, ..*shape };
    let modifiers = Modifiers { scale: Some(300_000.0 / 256.0), ..Modifiers::default() };
    let [mut q, mut k, v] = random_operands(&shape, &mut rng);
    q.iter_mut().for_each(|x| *x = rng.pick(&[-1.0, 1.0]));
    k.iter_mut().for_each(|x| *x = rng.below(513) as f64 - 256.0);
    let operands = stored::<T>(&shape, &[q, k, v]);
    let mut expected = operands.expected(&shape, &modifiers);
    expected.bound.out.fill(1e-5);
    expected.check(&operands.call(&shape, &modifiers, level).run::<T>(), None, &level);
}

/// Limits of every kind, random.
fn limits(shape: &Shape, rng: &mut Rng) -> Modifiers {
    let (strides, count) = mask_strides(shape, [true, false, true, true]);
    let hidden = |rng: &mut Rng| (0..count).map(|_| rng.once_in(4)).collect::<Vec<_>>();
    let mut modifiers = Modifiers::default();
    match rng.below(6) {
        0 => modifiers.right = Some(rng.below(3)),
        1 => modifiers.left = Some(rng.below(shape.kv_len)),
        2 => modifiers.key_lengths = Some((0..shape.batch).map(|_| rng.below(shape.kv_len + 1)).collect()),
        3 => modifiers.query_lengths = Some((0..shape.batch).map(|_| rng.below(shape.q_len + 1)).collect()),
        4 => {
            modifiers.mask =
                Some(Dense { data: hidden(rng).into_iter().map(|hidden| !hidden).collect(), strides })
        }
        _ => {
            let bias: Vec<_> =
                hidden(rng).into_iter().map(|h| if h { f64::NEG_INFINITY } else { 0.5 }).collect();
            modifiers.bias = Some(Dense { data: Bias::of(rng.below(3), &bias), strides });
        }
    }
    modifiers
}

/// One operand with `rubbish` in all of one key's row of every head.
fn spoiled(numbers: &[f64], length: usize, dim: usize, key: usize, rubbish: f64) -> Vec<f64> {
    let mut numbers = numbers.to_vec();
    for head in numbers.chunks_exact_mut(length * dim) {
        head[key * dim..][..dim].fill(rubbish);
    }
    numbers
}

/// The rows (batch, head, row) that see `key`, and the bits of each row of the output and of `lse`.
fn rows<O: Number>(shape: &Shape, answer: &Answer<O>) -> Vec<Vec<u32>> {
    let out: Vec<u32> = answer.out.elements().into_iter().map(O::bits).collect();
    let rows = out.chunks_exact(shape.value_dim).zip(answer.lse.elements());
    rows.map(|(row, lse)| row.iter().copied().chain([lse.to_bits()]).collect()).collect()
}

/// What a key holds, be it NaN, changes no bit of a row that does not see it.
fn hidden_rubbish<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let mut rng = Rng(*seed);
    let modifiers = limits(shape, &mut rng);
    let operands = Operands::<T, T, T>::random(shape, &mut rng);
    let [q, k, v] = operands.numbers();
    let expected = operands.expected(shape, &modifiers).exact;
    let rows_of = |numbers: &[Vec<f64>; 3]| {
        rows(shape, &stored::<T>(shape, numbers).call(shape, &modifiers, level).run::<T>())
    };
    let clean = rows_of(&[q.clone(), k.clone(), v.clone()]);
    for rubbish in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e4] {
        let key = rng.below(shape.kv_len);
        let numbers = [
            q.clone(),
            spoiled(&k, shape.kv_len, shape.head_dim, key, rubbish),
            spoiled(&v, shape.kv_len, shape.value_dim, key, rubbish),
        ];
        for (row, (spoiled, clean)) in rows_of(&numbers).iter().zip(&clean).enumerate() {
            if expected.biased[row * shape.kv_len + key] == f64::NEG_INFINITY {
                assert_eq!(
                    spoiled, clean,
                    "row {row}, which {rubbish} of key {key} changes at {level}: {modifiers:?}"
                );
            }
        }
    }
}

/// A NaN in a key or a value that a row sees is in the row's output.
fn visible_nan<T: Number>(level: Level, Problem { shape, seed }: &Problem) {
    let mut rng = Rng(*seed);
    let modifiers = limits(shape, &mut rng);
    let operands = Operands::<T, T, T>::random(shape, &mut rng);
    let numbers = operands.numbers();
    let expected = operands.expected(shape, &modifiers).exact;
    let (key, column) = (rng.below(shape.kv_len), rng.below(shape.value_dim));
    for operand in [1, 2] {
        let mut numbers = numbers.clone();
        let (dim, at) = if operand == 1 { (shape.head_dim, 0) } else { (shape.value_dim, column) };
        numbers[operand]
            .chunks_exact_mut(shape.kv_len * dim)
            .for_each(|head| head[key * dim + at] = f64::NAN);
        let out = stored::<T>(shape, &numbers).call(shape, &modifiers, level).run::<T>().out.numbers();
        for (row, out) in out.chunks_exact(shape.value_dim).enumerate() {
            let seen = expected.biased[row * shape.kv_len + key] != f64::NEG_INFINITY;
            for (at, x) in out.iter().enumerate() {
                let wanted = seen && (operand == 1 || at == column);
                assert_eq!(x.is_nan(), wanted, "row {row} column {at} at {level}, {operand}: {modifiers:?}");
            }
        }
    }
}
