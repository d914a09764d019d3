//! Products of bf16, where a level has them: within the bound that `Attention::bf16_dot` states, whatever is seen; and
//! nothing else anywhere.

use gqa::{Alignment, Bf16Dot, Level, Stage, bf16};

use crate::support::{
    Expected, LAYOUTS, Layout, Modifiers, Number, Operands, Rng, cell, levels, random_operands, shape, times,
};

/// By a matrix unit where there is one, and without it.
const PRESENT: [Bf16Dot; 2] = [Bf16Dot::WherePresent, Bf16Dot::ByVectors];

/// Half a unit in the last place of a weight.
const ROUNDOFF: f64 = 1.0 / 256.0;

/// What it must come to: queries are rounded, then scores are as exact as in f32; weights are rounded.
fn expected(shape: &gqa::Shape, modifiers: &Modifiers, numbers: &[Vec<f64>; 3]) -> Expected {
    let [q, k, v] = numbers;
    let q = q.iter().map(|&x| bf16::from_f32(x as f32).wide()).collect();
    let mut expected = Expected::new(shape, modifiers, &[q, k.clone(), v.clone()]);
    for (row, weights) in expected.exact.softmax.chunks(shape.kv_len.max(1)).enumerate() {
        let (batch, head) = (row / shape.q_len / shape.q_heads, row / shape.q_len % shape.q_heads);
        let first = (batch * shape.kv_heads + head / shape.group()) * shape.kv_len;
        for (key, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            let values = &v[(first + key) * shape.value_dim..][..shape.value_dim];
            for (bound, value) in expected.bound.out[row * shape.value_dim..].iter_mut().zip(values) {
                // Products and sums below the least normal number count as 0.
                *bound += weight * ROUNDOFF * value.abs() + f64::from(f32::MIN_POSITIVE);
            }
        }
    }
    expected
}

fn any_modifiers(shape: &gqa::Shape, rng: &mut Rng) -> Modifiers {
    let mut modifiers = match rng.below(4) {
        0 => Modifiers::default(),
        1 => Modifiers::causal(),
        2 => Modifiers { left: Some(rng.below(70)), right: Some(rng.below(3)), ..Modifiers::default() },
        _ => Modifiers {
            key_lengths: Some((0..shape.batch).map(|_| rng.below(shape.kv_len + 1)).collect()),
            alignment: Alignment::Offset(rng.below(40) as i64),
            right: Some(rng.below(40)),
            ..Modifiers::default()
        },
    };
    let small = 0.3 * rng.unit() as f32;
    modifiers.scale = rng.once_in(2).then(|| rng.pick(&[small, 0.125, 1.0, 1.7, -0.4]));
    modifiers.softcap = rng.once_in(4).then_some(3.0);
    modifiers.sinks = rng.once_in(4).then(|| (0..shape.q_heads).map(|_| rng.normal() as f32).collect());
    modifiers
}

/// `paired`, but `plain` for the rows that have the bits of f32: those of the few-rows kernel.
fn row_by_row(shape: &gqa::Shape, [plain, paired]: [&Expected; 2], bits: [[Vec<u32>; 2]; 2]) -> Expected {
    let mut expected = paired.clone();
    let [[out, lse], [paired_out, paired_lse]] = &bits;
    for row in 0..lse.len() {
        let range = row * shape.value_dim..(row + 1) * shape.value_dim;
        if lse[row] == paired_lse[row] && out[range.clone()] == paired_out[range.clone()] {
            for (to, from) in [(&mut expected.exact, &plain.exact), (&mut expected.bound, &plain.bound)] {
                to.out[range.clone()].copy_from_slice(&from.out[range.clone()]);
                to.lse[row] = from.lse[row];
            }
        }
    }
    expected
}

fn check<Q: Number, O: Number>(rng: &mut Rng, shape: gqa::Shape) {
    let modifiers = any_modifiers(&shape, rng);
    let layouts = [rng.pick(&LAYOUTS), rng.pick(&LAYOUTS), rng.pick(&LAYOUTS)];
    let operands = Operands::<Q, bf16, bf16>::new(&shape, layouts, &random_operands(&shape, rng));
    let (plain, paired) =
        (operands.expected(&shape, &modifiers), expected(&shape, &modifiers, &operands.numbers()));
    for level in levels() {
        let mut call = operands.call(&shape, &modifiers, level);
        let single = call.run::<O>();
        for bf16_dot in PRESENT {
            call.bf16_dot = bf16_dot;
            let answer = call.run::<O>();
            let what = (shape, &modifiers, level, bf16_dot, Q::NAME, O::NAME);
            if !level.has_bf16_dot() {
                assert_eq!(answer.bits(), single.bits(), "{what:?}");
            }
            row_by_row(&shape, [&plain, &paired], [single.bits(), answer.bits()]).check(&answer, None, &what);
        }
    }
}

#[test]
fn within_the_stated_bound() {
    let mut rng = Rng(9);
    for index in 0..times(224) {
        let shape = cell(index % 4, index / 4 % 7, &mut rng);
        check_some(&mut rng, index, shape);
    }
}

fn check_some(rng: &mut Rng, index: usize, shape: gqa::Shape) {
    match index % 3 {
        0 => check::<bf16, f32>(rng, shape),
        1 => check::<f32, f32>(rng, shape),
        _ => check::<bf16, bf16>(rng, shape),
    }
}

/// Few rows, whose values a matrix unit takes in strips of 64, of which the last may begin in the one before it: whole tiles of keys
/// and queries, and parts of them.
#[test]
fn few_rows_within_the_stated_bound() {
    let mut rng = Rng(12);
    for index in 0..times(96) {
        let (rows, kv_heads) = (1 + index % 16, 1 + rng.below(3));
        let q_len = if rows.is_multiple_of(2) && rng.once_in(2) { 2 } else { 1 };
        let lens = [q_len, rng.pick(&[1, 15, 31, 32, 64, 65, 200, 383, 384, 500, 790])];
        let dims = [rng.pick(&[8, 32, 33, 64, 80, 128, 192]), rng.pick(&[63, 64, 80, 96, 112, 128, 144])];
        let [head_dim, value_dim] = dims;
        let heads = [rows / q_len * kv_heads, kv_heads];
        let shape = gqa::Shape { value_dim, ..shape(1 + rng.below(2), heads, lens, head_dim) };
        check_some(&mut rng, index, shape);
    }
}

/// Where the environment variable `GQA_EXPECT_BF16_DOT` is set, a level of this machine must have the products, where
/// `GQA_EXPECT_BF16_MATRIX` is, by a matrix unit.
#[test]
fn the_machine_has_what_is_expected_and_uses_it() {
    if std::env::var_os("GQA_EXPECT_BF16_DOT").is_some() {
        assert!(Level::detect().has_bf16_dot());
        let vendor = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let fast = vendor.contains("AuthenticAMD") || Level::detect().has_bf16_matrix();
        assert_eq!(Level::detect().gains_by_bf16_dot(), fast);
    }
    if std::env::var_os("GQA_EXPECT_BF16_MATRIX").is_some() {
        assert!(Level::detect().has_bf16_matrix());
    }
    assert!(!Level::SCALAR.has_bf16_dot());
    for q_len in [40, 1] {
        uses_what_it_has(q_len);
    }
}

/// Many rows, or few, whose products are of bf16 by a matrix unit alone.
fn uses_what_it_has(q_len: usize) {
    let shape = shape(1, [4, 2], [q_len, 100], 64);
    let (modifiers, operands) =
        (Modifiers::causal(), Operands::<bf16, bf16, bf16>::random(&shape, &mut Rng(1)));
    for level in levels() {
        let mut call = operands.call(&shape, &modifiers, level);
        let single = call.run::<f32>();
        let [mut by_matrix, mut by_vectors] = [single.bits(), single.bits()];
        for (bf16_dot, bits) in PRESENT.into_iter().zip([&mut by_matrix, &mut by_vectors]) {
            call.bf16_dot = bf16_dot;
            *bits = call.run::<f32>().bits();
            let matrix = bf16_dot == Bf16Dot::WherePresent && level.has_bf16_matrix();
            let few = q_len == 1 && !cfg!(feature = "single-tile");
            let pairs = if few { matrix } else { level.has_bf16_dot() };
            assert_eq!(*bits != single.bits(), pairs, "{level} {bf16_dot:?} {q_len}");
        }
        // Their sums have different orders.
        assert_eq!(by_matrix != by_vectors, level.has_bf16_matrix(), "{level}");
        call.bf16_dot = Bf16Dot::WhereFaster;
        let faster = if level.gains_by_bf16_dot() { by_matrix } else { single.bits() };
        assert_eq!(call.run::<f32>().bits(), faster, "{level}");
        assert!(level.has_bf16_dot() || !level.gains_by_bf16_dot() && !level.has_bf16_matrix());
    }
}

/// Odd numbers of keys are seen, and what is hidden holds NaN and infinities: nothing of it reaches the output.
#[test]
fn what_is_hidden_does_not_matter() {
    let mut rng = Rng(3);
    // Pairs of keys are copied where the dimension is odd, and for a matrix unit.
    // The last has two blocks by that.
    for (kv_len, dim, q_len) in [97, 100, 191, 193, 300]
        .into_iter()
        .flat_map(|kv_len| [9, 33, 34, 64].map(|dim| (kv_len, dim)))
        .flat_map(|(kv_len, dim)| [33, 4, 1].map(|q_len| (kv_len, dim, q_len)))
    {
        let shape = shape(1, [3, 1], [q_len, kv_len], dim);
        let modifiers = Modifiers { left: Some(20), right: Some(0), ..Modifiers::default() };
        let mut numbers = random_operands(&shape, &mut rng);
        let clean = Operands::<bf16, bf16, bf16>::new(&shape, [Layout::Bhsd; 3], &numbers);
        let unseen = (kv_len - q_len - 20) * dim;
        for operand in &mut numbers[1..] {
            operand[..unseen].iter_mut().enumerate().for_each(|(at, x)| {
                *x = if at % 2 == 0 { f64::NAN } else { f64::INFINITY };
            });
        }
        let dirty = Operands::<bf16, bf16, bf16>::new(&shape, [Layout::Bhsd; 3], &numbers);
        let expected = expected(&shape, &modifiers, &clean.numbers());
        for level in levels() {
            let mut calls = [&dirty, &clean].map(|operands| operands.call(&shape, &modifiers, level));
            for bf16_dot in PRESENT {
                calls.iter_mut().for_each(|call| call.bf16_dot = bf16_dot);
                let [answer, other] = calls.each_ref().map(|call| call.run::<f32>());
                expected.check(&answer, None, &(shape, level, bf16_dot));
                // Of few rows also the bits are the same: nothing is computed again with more exact weights.
                let few = q_len <= 4 && !cfg!(feature = "single-tile");
                assert!(!few || answer.bits() == other.bits(), "{shape:?} {level} {bf16_dot:?}");
            }
        }
    }
}

/// Whether or not scores are looked at, the output's bits are the same: of many rows and of few, and where some are hidden.
#[test]
fn looking_at_scores_changes_no_bits() {
    for (q_len, dim) in [(70, 80), (70, 64), (2, 80)] {
        let shape = shape(1, [2, 1], [q_len, 300], dim);
        let operands = Operands::<bf16, bf16, bf16>::random(&shape, &mut Rng(5));
        let modifiers = Modifiers::causal();
        let expected = expected(&shape, &modifiers, &operands.numbers());
        for (level, bf16_dot) in levels().flat_map(|level| PRESENT.map(|bf16_dot| (level, bf16_dot))) {
            let mut call = operands.call(&shape, &modifiers, level);
            call.bf16_dot = bf16_dot;
            let bits = call.run::<f32>().bits();
            for stage in [Stage::Raw, Stage::Softcapped, Stage::Biased, Stage::Softmax] {
                call.stage = Some(stage);
                let answer = call.run::<f32>();
                assert_eq!(answer.bits(), bits, "{shape:?} {level} {bf16_dot:?} {stage:?}");
            }
            call.stage = None;
            expected.check(&call.run::<f32>(), None, &(shape, level, bf16_dot));
        }
    }
}

/// A visible key has a score of -∞ and a value that is NaN, which shows: also where other keys are hidden, and whatever the scale.
#[test]
fn a_visible_score_of_minus_infinity_is_not_hidden() {
    for q_len in [33, 5] {
        shows_where_keys_are_hidden(&shape(1, [2, 1], [q_len, 64], 64));
    }
}

fn shows_where_keys_are_hidden(shape: &gqa::Shape) {
    let mut numbers = random_operands(shape, &mut Rng(4));
    numbers[0].iter_mut().for_each(|q| *q = q.abs() + 0.5);
    numbers[1][..64].fill(f64::NEG_INFINITY);
    numbers[2][..64].fill(f64::NAN);
    let operands = Operands::<bf16, bf16, bf16>::new(shape, [Layout::Bhsd; 3], &numbers);
    for (level, scale) in levels().flat_map(|level| [0.3, 1.0, 1.5].map(|scale| (level, scale))) {
        let modifiers = Modifiers { scale: Some(scale), ..Modifiers::causal() };
        let mut call = operands.call(shape, &modifiers, level);
        for bf16_dot in PRESENT {
            call.bf16_dot = bf16_dot;
            let out = call.run::<f32>().out.numbers();
            assert!(out.iter().all(|x| x.is_nan()), "{level} {bf16_dot:?} {scale}");
        }
    }
}
