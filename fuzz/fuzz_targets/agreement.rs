//! Any valid call agrees with its definition in f64, within the written bound, and shows nothing of what it hides:
//! NaN and infinities lie in every gap of the operands, and in the keys and values that no row sees.
#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use arbitrary::{Arbitrary, Result, Unstructured};
use gqa::{Alignment, Level, Shape, Stage};
use libfuzzer_sys::fuzz_target;
use support::{
    Bias, Dense, Expected, LAYOUTS, Layout, Modifiers, Number, Operands, Rng, Visit, mask_strides,
    random_operands, visit_some,
};

/// What a hidden key or value may hold.
const HOSTILE: [f64; 5] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e30, -1e30];

/// A call of small sizes, and everything about it.
#[derive(Debug)]
struct Case {
    shape: Shape,
    modifiers: Modifiers,
    level: Level,
    storage: usize,
    layouts: [Layout; 4],
    stage: Option<Stage>,
    numbers: [Vec<f64>; 3],
    /// For the hidden keys, and for the hidden values.
    hostile: [f64; 2],
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kv_heads = u.int_in_range(1..=3)?;
        let shape = Shape {
            batch: u.int_in_range(0..=2)?,
            q_heads: kv_heads * u.int_in_range(1..=9)?,
            kv_heads,
            q_len: u.int_in_range(0..=20)?,
            kv_len: u.int_in_range(0..=70)?,
            head_dim: u.int_in_range(1..=40)?,
            value_dim: u.int_in_range(1..=40)?,
        };
        let levels: Vec<_> = Level::available().collect();
        let level = *u.choose(&levels)?;
        let storage = u.int_in_range(0..=4)?;
        let layouts =
            [*u.choose(&LAYOUTS)?, *u.choose(&LAYOUTS)?, *u.choose(&LAYOUTS)?, *u.choose(&LAYOUTS)?];
        let stage = *u.choose(&[
            None,
            Some(Stage::Raw),
            Some(Stage::Softcapped),
            Some(Stage::Biased),
            Some(Stage::Softmax),
        ])?;
        let hostile = [*u.choose(&HOSTILE)?, *u.choose(&HOSTILE)?];
        let modifiers = modifiers(&shape, u)?;
        // Numbers come from a seed; those at some places from the input itself.
        let mut rng = Rng(u.arbitrary()?);
        let mut numbers = random_operands(&shape, &mut rng);
        let magnitude = f64::from(u.int_in_range(1..=64)?) / 16.0;
        numbers.iter_mut().flatten().for_each(|x| *x *= magnitude);
        while !u.is_empty() {
            let (operand, at, x) = (u.int_in_range(0..=2)?, u.arbitrary::<u16>()?, u.arbitrary::<i8>()?);
            let operand: &mut Vec<f64> = &mut numbers[operand];
            if !operand.is_empty() {
                let at = usize::from(at) % operand.len();
                operand[at] = f64::from(x) / 8.0;
            }
        }
        Ok(Self { shape, modifiers, level, storage, layouts, stage, numbers, hostile })
    }
}

/// Something half of the time.
fn maybe<'a, T>(
    u: &mut Unstructured<'a>,
    of: impl FnOnce(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Option<T>> {
    if u.arbitrary()? { of(u).map(Some) } else { Ok(None) }
}

/// A number within ±`most`.
fn number(u: &mut Unstructured<'_>, most: f32) -> Result<f32> {
    Ok(f32::from(u.arbitrary::<i8>()?) / 128.0 * most)
}

/// A number of keys: some that are there, or far more.
fn reach(u: &mut Unstructured<'_>) -> Result<usize> {
    Ok(if u.ratio(1, 16)? { usize::MAX } else { u.int_in_range(0..=80)? })
}

fn lengths(u: &mut Unstructured<'_>, shape: &Shape) -> Result<Vec<usize>> {
    (0..shape.batch).map(|_| u.int_in_range(0..=shape.kv_len)).collect()
}

fn alignment(u: &mut Unstructured<'_>) -> Result<Alignment> {
    Ok(match u.int_in_range(0..=2)? {
        0 => Alignment::TopLeft,
        1 => Alignment::BottomRight,
        _ => Alignment::Offset(u.int_in_range(-90..=90)?),
    })
}

/// Numbers for the axes [batch, head, row, key] that a bias or mask has, from a seed.
fn dense<T>(
    u: &mut Unstructured<'_>,
    shape: &Shape,
    mut of: impl FnMut(&mut Rng) -> T,
) -> Result<Dense<Vec<T>>> {
    let (strides, count) = mask_strides(shape, u.arbitrary()?);
    let mut rng = Rng(u.arbitrary()?);
    Ok(Dense { data: (0..count).map(|_| of(&mut rng)).collect(), strides })
}

fn modifiers(shape: &Shape, u: &mut Unstructured<'_>) -> Result<Modifiers> {
    let per_head =
        |u: &mut Unstructured<'_>, most: f32| (0..shape.q_heads).map(|_| number(u, most)).collect();
    let hidden = u.int_in_range(1..=8)?;
    Ok(Modifiers {
        scale: maybe(u, |u| number(u, 2.0))?,
        softcap: maybe(u, |u| Ok(number(u, 60.0)?.abs() + 0.5))?,
        alibi: maybe(u, |u| per_head(u, 1.0))?,
        bias: maybe(u, |u| {
            let storage = u.int_in_range(0..=2)?;
            let number = |rng: &mut Rng| if rng.once_in(hidden) { f64::NEG_INFINITY } else { rng.normal() };
            let Dense { data, strides } = dense(u, shape, number)?;
            Ok(Dense { data: Bias::of(storage, &data), strides })
        })?,
        mask: maybe(u, |u| dense(u, shape, |rng| !rng.once_in(hidden)))?,
        alignment: alignment(u)?,
        left: maybe(u, reach)?,
        right: maybe(u, reach)?,
        query_lengths: maybe(u, |u| (0..shape.batch).map(|_| u.int_in_range(0..=shape.q_len)).collect())?,
        key_lengths: maybe(u, |u| lengths(u, shape))?,
        prefix_lengths: maybe(u, |u| lengths(u, shape))?,
        sinks: maybe(u, |u| {
            let mut sinks: Vec<f32> = per_head(u, 20.0)?;
            if let (true, Some(sink)) = (u.ratio(1, 4)?, sinks.first_mut()) {
                *sink = f32::NEG_INFINITY;
            }
            Ok(sinks)
        })?,
    })
}

impl Visit for &Case {
    fn visit<Q: Number, K: Number, V: Number, O: Number>(self) {
        let Case { shape, modifiers, level, layouts, stage, hostile, .. } = self;
        let mut operands =
            Operands::<Q, K, V>::new(shape, [layouts[0], layouts[1], layouts[2]], &self.numbers);
        let expected = operands.expected(shape, modifiers);
        // The first two stages show the scores of hidden keys: those stay what they are.
        let keys_show = matches!(stage, Some(Stage::Raw | Stage::Softcapped));
        for hidden in hidden(shape, &expected) {
            for column in 0..if keys_show { 0 } else { shape.head_dim } {
                let at = operands.k.place(hidden * shape.head_dim + column);
                operands.k.data[at] = K::of(hostile[0]);
            }
            for column in 0..shape.value_dim {
                let at = operands.v.place(hidden * shape.value_dim + column);
                operands.v.data[at] = V::of(hostile[1]);
            }
        }
        let mut call = operands.call(shape, modifiers, *level);
        (call.layout, call.stage) = (layouts[3], *stage);
        expected.check(&call.run::<O>(), *stage, self);
    }
}

/// The keys, as `[batch, kv_head, key]`, that no row sees.
fn hidden(shape: &Shape, expected: &Expected) -> Vec<usize> {
    let Shape { batch, kv_heads, kv_len, .. } = *shape;
    let mut seen = vec![false; batch * kv_heads * kv_len];
    for (at, &score) in expected.exact.biased.iter().enumerate() {
        let (row, key) = (at / kv_len, at % kv_len);
        seen[row / shape.shared_rows() * kv_len + key] |= score != f64::NEG_INFINITY;
    }
    (0..seen.len()).filter(|&key| !seen[key]).collect()
}

fuzz_target!(|case: Case| visit_some(case.storage, &case));
