//! Few rows and many: the time of a query row as `q_len` grows across the switch between the kernels.

use gqa::{Attention, Level};

use super::table;
use super::turns::{self, Bench, Case, Effort};

/// No count of rows may cost more a row than a smaller one, but for this.
const STEP: f64 = 0.10;

pub(crate) fn print(level: Level, effort: &Effort) {
    println!(
        "f32, one KV head of 128 and 1,024 keys, {level}; a row of one query head, and the step from the cheapest"
    );
    println!("row so far.\n");
    table::head("query rows", &["group 1", "step", "group 4", "step", "goal"]);
    let keys = effort.at_most(64, 1024);
    let most = effort.at_most(4, 32);
    let columns = [1, 4].map(|group| column(group, most, keys, level, effort));
    let mut cheapest = [f64::INFINITY; 2];
    for rows in 1..=most {
        let mut figures = Vec::new();
        for (column, cheapest) in columns.iter().zip(&mut cheapest) {
            let time = column[rows - 1];
            let step =
                if rows > 1 { format!("{:+.1} %", 100.0 * (time / *cheapest - 1.0)) } else { String::new() };
            *cheapest = cheapest.min(time);
            figures.extend([format!("{:.2} µs", time / 1e3), step]);
        }
        figures.push(table::at_most(STEP));
        table::row(&rows.to_string(), &figures);
    }
}

/// Nanoseconds of a row for each number of rows.
fn column(group: usize, most: usize, keys: usize, level: Level, effort: &Effort) -> Vec<f64> {
    let shapes: Vec<_> = (1..=most).map(|rows| turns::shape([group, rows], [1, keys], 128)).collect();
    let benches: Vec<_> = shapes.iter().map(|&shape| Bench::<f32>::new(shape)).collect();
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (&shape, bench) in shapes.iter().zip(&benches) {
        let attention = Attention::new(shape).expect("a valid shape").level(level);
        cases.push(bench.case(attention, (group * shape.q_len) as f64));
    }
    let rates = turns::rates(&mut cases, effort);
    rates.into_iter().map(|rate| 1.0 / turns::median(rate)).collect()
}
