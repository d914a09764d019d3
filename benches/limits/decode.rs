//! Decoding: one query against caches that lie in the second-level cache, the last one, or memory.

use std::cell::RefCell;

use gqa::{Attention, Element, Level, Shape, View, ViewMut, bf16, f16};

use super::operands::{self, Number};
use super::roof::Reading;
use super::table;
use super::turns::{self, Case, Effort};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Query heads that share a KV head; the dimension. Models have groups of 4 and dimensions of 128 most often.
const CASES: [(usize, usize); 13] = [
    (1, 128),
    (2, 128),
    (3, 128),
    (4, 128),
    (5, 128),
    (7, 128),
    (8, 128),
    (16, 128),
    (4, 64),
    (4, 80),
    (4, 96),
    (4, 112),
    (4, 256),
];

/// A name, the bytes of K and V, the KV heads, and the goal.
const PLACES: [(&str, usize, usize, f64); 3] =
    [("near", 512 << 10, 1, 0.60), ("last", 8 << 20, 8, 0.80), ("memory", 256 << 20, 8, 0.90)];

pub(crate) fn print(level: Level, effort: &Effort) {
    println!(
        "K and V of 512 KiB (near), 8 MiB (last cache) and 256 MiB (memory), {level}; the share is of reading as much"
    );
    println!("from start to end, or of the multiply-add peak where that is less (*).\n");
    let places = PLACES.iter().flat_map(|(name, ..)| [*name, "GB/s", "goal"]).collect::<Vec<_>>();
    table::head("cache", &places);
    storage::<f32>(level, effort);
    storage::<f16>(level, effort);
    storage::<bf16>(level, effort);
}

/// All cases of a storage type at one place share the memory: K in its first half, V in the second.
fn storage<T: Number>(level: Level, effort: &Effort) {
    let mut figures = vec![Vec::new(); CASES.len()];
    for (_, bytes, kv_heads, goal) in PLACES {
        let bytes = effort.at_most(64 << 10, bytes);
        // From a cache line's boundary on, as an engine places its cache.
        let memory = operands::random::<T>((bytes + LINE) / size_of::<T>(), 1);
        let first = memory.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
        let memory = &memory[first..][..bytes / size_of::<T>()];
        let reading = Reading::new(level, bytes);
        let scratch = RefCell::new(Vec::new());
        let shapes = CASES.map(|(group, dim)| {
            let keys = bytes / size_of::<T>() / 2 / kv_heads / dim;
            turns::shape([group * kv_heads, 1], [kv_heads, keys], dim)
        });
        let mut cases: Vec<Case<'_>> = vec![turns::fma(level), Box::new(|| reading.burst())];
        cases.extend(shapes.iter().map(|shape| case(level, shape, memory, &scratch)));
        let rates = turns::rates(&mut cases, effort);
        for ((shape, rate), figures) in shapes.iter().zip(&rates[2..]).zip(&mut figures) {
            // Operations by a byte of K and V.
            let intensity = turns::operations(shape.group() as f64, shape.head_dim)
                / (2 * shape.head_dim * size_of::<T>()) as f64;
            let limits: Vec<_> =
                rates[0].iter().zip(&rates[1]).map(|(fma, read)| (fma / intensity).min(*read)).collect();
            let by_fma = turns::ratio(&limits, &rates[1]) < 0.999;
            let mark = if by_fma { "*" } else { "" };
            figures.push(format!("{}{mark}", table::percent(turns::ratio(rate, &limits))));
            figures.push(format!("{:.1}", turns::median(rate.iter().copied())));
            figures.push(table::at_least(goal));
        }
    }
    for ((group, dim), figures) in CASES.iter().zip(&figures) {
        table::row(&format!("{} group {group} d{dim}", T::NAME), figures);
    }
}

fn case<'a, T: Number + Element>(
    level: Level,
    shape: &Shape,
    memory: &'a [T],
    scratch: &'a RefCell<Vec<f32>>,
) -> Case<'a> {
    let Shape { q_heads, kv_heads, kv_len, head_dim, .. } = *shape;
    let len = kv_heads * kv_len * head_dim;
    let (k, v) = memory.split_at(memory.len() / 2);
    let q = operands::random::<T>(q_heads * head_dim, 2);
    let mut out = q.clone();
    let attention = Attention::new(*shape).expect("a valid shape").level(level);
    Box::new(move || {
        let scratch = &mut *scratch.borrow_mut();
        let q = View::bhsd(&q, q_heads, 1, head_dim);
        let k = View::bhsd(&k[..len], kv_heads, kv_len, head_dim);
        let v = View::bhsd(&v[..len], kv_heads, kv_len, head_dim);
        let mut job = attention
            .bind(q, k, v, ViewMut::bhsd(&mut out, q_heads, 1, head_dim))
            .expect("operands of the shape");
        if scratch.len() < job.scratch_len() {
            scratch.resize(job.scratch_len(), 0.0);
        }
        job.run(scratch).expect("enough scratch");
        (2 * len * size_of::<T>()) as f64
    })
}
