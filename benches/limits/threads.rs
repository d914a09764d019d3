//! Threads: two against one, by the clock on the wall.

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use gqa::{Attention, Level, Shape};

use super::operands::Operands;
use super::pool::Pool;
use super::table;
use super::turns::{self, Case, Effort};

/// A name, the shape, and the goal.
fn shapes(effort: &Effort) -> [(&'static str, Shape, f64); 7] {
    let n = |n| effort.at_most(64, n);
    [
        ("prompt of 128", turns::shape([8, n(128)], [2, n(128)], 128), 1.7),
        ("prompt of 512", turns::shape([8, n(512)], [2, n(512)], 128), 1.9),
        ("prompt of 2,048", turns::shape([8, n(2048)], [2, n(2048)], 128), 1.95),
        ("decoding 4,096", turns::shape([32, 1], [8, n(4096)], 128), 1.8),
        ("decoding 32,768", turns::shape([32, 1], [8, n(32768)], 128), 1.8),
        ("4,096, one KV head", turns::shape([8, 1], [1, n(4096)], 128), 1.8),
        ("32,768, one KV head", turns::shape([8, 1], [1, n(32768)], 128), 1.8),
    ]
}

pub(crate) fn print(level: Level, effort: &Effort) {
    println!("f32, causal, {level}; reading memory bounds what a second thread can add to decoding.\n");
    table::head("call", &["one, µs", "two, µs", "faster", "goal"]);
    for (name, shape, goal) in shapes(effort) {
        let mut cases = [case(1, shape, level), case(2, shape, level)];
        let rates = turns::rates_by(wall, &mut cases, effort);
        let time = |rates: &[f64]| format!("{:.1}", 1e-3 / turns::median(rates.iter().copied()));
        let faster = format!("{:.2}×", turns::ratio(&rates[1], &rates[0]));
        table::row(name, &[time(&rates[0]), time(&rates[1]), faster, format!("≥ {goal:.2}×")]);
    }
}

fn wall() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

fn case(threads: usize, shape: Shape, level: Level) -> Case<'static> {
    let mut operands = Operands::<f32>::new(shape);
    let attention = Attention::new(shape).expect("a valid shape").causal().level(level);
    let job = operands.bind(&attention).expect("operands of the shape");
    let (len, mut partials) = (job.scratch_len(), vec![0.0; job.partials_len()]);
    let scratches: Vec<_> = (0..threads).map(|_| Mutex::new(vec![0.0; len])).collect();
    let mut pool = Pool::new(threads);
    Box::new(move || {
        let job = operands.bind(&attention).expect("operands of the shape");
        pool.run_job(job, &scratches, &mut partials).expect("enough memory");
        1.0
    })
}
