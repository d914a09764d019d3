//! Lengths: the cost of a visible pair as prompts grow.

use gqa::{Attention, Level};

use super::table;
use super::turns::{self, Bench, Case, Effort};

/// A longer prompt may cost so much more a pair than the cheapest.
const GROWTH: f64 = 0.05;

pub(crate) fn print(level: Level, effort: &Effort) {
    println!(
        "f32, causal, one head, {level}; a pair of a row and a visible key, against the cheapest length.\n"
    );
    table::head("tokens", &["d64", "growth", "d128", "growth", "goal"]);
    let lengths: Vec<_> = (7..15).map(|power| effort.at_most(128, 1 << power)).collect();
    let columns = [64, 128].map(|dim| column(dim, &lengths, level, &effort.few_rounds()));
    for (i, length) in lengths.iter().enumerate() {
        let mut figures = Vec::new();
        for column in &columns {
            let cheapest = column.iter().copied().fold(f64::INFINITY, f64::min);
            figures.push(format!("{:.3} ns", column[i]));
            figures.push(format!("{:+.1} %", 100.0 * (column[i] / cheapest - 1.0)));
        }
        // Short prompts pay for their edges.
        figures.push(if *length >= 1024 { table::at_most(GROWTH) } else { String::new() });
        table::row(&length.to_string(), &figures);
    }
}

/// Nanoseconds of a visible pair for each length.
fn column(dim: usize, lengths: &[usize], level: Level, effort: &Effort) -> Vec<f64> {
    let shapes: Vec<_> = lengths.iter().map(|&n| turns::shape([1, n], [1, n], dim)).collect();
    let benches: Vec<_> = shapes.iter().map(|&shape| Bench::<f32>::new(shape)).collect();
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (&shape, bench) in shapes.iter().zip(&benches) {
        let attention = Attention::new(shape).expect("a valid shape").causal().level(level);
        cases.push(bench.case(attention, shape.visible_pairs_causal() as f64));
    }
    let rates = turns::rates(&mut cases, effort);
    rates.into_iter().map(|rate| 1.0 / turns::median(rate)).collect()
}
