//! Prompts: shares of the multiply-add peak of each level.

use gqa::{Attention, Level, bf16, f16};

use super::operands::Number;
use super::table;
use super::turns::{self, Bench, Case, Effort};

/// Rows, dimension, whether causal, and the goals at 16 lanes and below.
const CASES: [(usize, usize, bool, [f64; 2]); 10] = [
    (2048, 128, false, [0.90, 0.85]),
    (2048, 128, true, [0.88, 0.83]),
    (512, 128, false, [0.87, 0.83]),
    (512, 128, true, [0.82, 0.80]),
    (2048, 64, false, [0.84, 0.80]),
    (2048, 64, true, [0.82, 0.78]),
    (512, 64, true, [0.76, 0.75]),
    (2048, 256, false, [0.90, 0.85]),
    (2048, 256, true, [0.88, 0.83]),
    (512, 256, true, [0.82, 0.80]),
];

pub(crate) fn print(_: Level, effort: &Effort) {
    println!(
        "4 query heads on one KV head; operations of the visible pairs, as a share of f32 multiply-adds.\n"
    );
    table::head("prompt", &["GFLOP/s", "share", "goal"]);
    for level in Level::available().rev().filter(|&level| level != Level::SCALAR) {
        storage::<f32>(level, &CASES, effort);
        // Storage matters alike in all: the longest and the shortest of one size.
        storage::<f16>(level, &CASES[1..4], effort);
        storage::<bf16>(level, &CASES[1..4], effort);
    }
}

fn storage<T: Number>(level: Level, cases: &[(usize, usize, bool, [f64; 2])], effort: &Effort) {
    let sized = |&(rows, dim, causal, goals)| {
        let rows = effort.at_most(64, rows);
        (turns::shape([4, rows], [1, rows], dim), causal, goals)
    };
    let benches: Vec<_> = cases.iter().map(sized).map(|(shape, ..)| Bench::<T>::new(shape)).collect();
    let mut running: Vec<Case<'_>> = vec![turns::fma(level)];
    for ((shape, causal, _), bench) in cases.iter().map(sized).zip(&benches) {
        let plain = Attention::new(shape).expect("a valid shape").level(level);
        let (attention, pairs) = match causal {
            true => (plain.causal(), shape.visible_pairs_causal()),
            false => (plain, shape.q_len * shape.kv_len),
        };
        running
            .push(bench.case(attention, turns::operations((shape.q_heads * pairs) as f64, shape.head_dim)));
    }
    let rates = turns::rates(&mut running, effort);
    for ((shape, causal, goals), rate) in cases.iter().map(sized).zip(&rates[1..]) {
        let limit = if causal { "causal" } else { "full" };
        let name = format!("{level} {} d{} n{} {limit}", T::NAME, shape.head_dim, shape.q_len);
        let goal = goals[usize::from(level.lanes() < 16)];
        let share = table::percent(turns::ratio(rate, &rates[0]));
        table::row(
            &name,
            &[format!("{:.1}", turns::median(rate.iter().copied())), share, table::at_least(goal)],
        );
    }
}
