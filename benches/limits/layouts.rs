//! Layouts: strided operands against contiguous ones.

use std::cell::RefCell;

use gqa::{Attention, Level, Shape, Strides, View, ViewMut};

use super::operands;
use super::table;
use super::turns::{self, Case, Effort};

/// Query heads on KV heads of this dimension.
const HEADS: [usize; 2] = [32, 8];
const DIM: usize = 128;

/// Where Q, K, V and the output lie: strides of each, in one memory or four.
struct Layout {
    name: &'static str,
    q: Strides,
    kv: Strides,
    /// V's first element in K's memory, or a memory of its own.
    packed: Option<[usize; 2]>,
    goal: f64,
}

pub(crate) fn print(level: Level, effort: &Effort) {
    println!(
        "f32, {} query heads on {} KV heads of {DIM}, {level}; time over that of `[head, row, dim]`.\n",
        HEADS[0], HEADS[1]
    );
    table::head("layout", &["µs", "cost", "goal"]);
    let n = effort.at_most(64, 512);
    section("prompt of 512", turns::shape([HEADS[0], n], [HEADS[1], n], DIM), level, effort);
    let n = effort.at_most(64, 4096);
    section("decoding 4,096", turns::shape([HEADS[0], 1], [HEADS[1], n], DIM), level, effort);
}

fn layouts(shape: &Shape) -> Vec<Layout> {
    let Shape { q_heads, kv_heads, q_len, kv_len, .. } = *shape;
    let rows = |head: usize, row: usize| Strides { batch: 0, head, row };
    let (q, kv) = (rows(q_len * DIM, DIM), rows(kv_len * DIM, DIM));
    let width = (q_heads + 2 * kv_heads) * DIM;
    let mut all = vec![
        Layout { name: "[head, row, dim]", q, kv, packed: None, goal: 0.0 },
        Layout {
            name: "[row, head, dim]",
            q: rows(DIM, q_heads * DIM),
            kv: rows(DIM, kv_heads * DIM),
            packed: None,
            goal: 0.05,
        },
        Layout {
            name: "rows 16 elements apart",
            q,
            kv: rows(kv_len * (DIM + 16), DIM + 16),
            packed: None,
            goal: 0.05,
        },
        Layout { name: "rows 4 KiB apart", q, kv: rows(kv_len * 1024, 1024), packed: None, goal: 0.10 },
        Layout {
            name: "rows one element off",
            q,
            kv: rows(kv_len * (DIM + 1), DIM + 1),
            packed: None,
            goal: 0.10,
        },
    ];
    if q_len == kv_len {
        let packed = Some([q_heads * DIM, (q_heads + kv_heads) * DIM]);
        all.push(Layout {
            name: "packed QKV",
            q: rows(DIM, width),
            kv: rows(DIM, width),
            packed,
            goal: 0.05,
        });
    }
    all
}

fn section(name: &str, shape: Shape, level: Level, effort: &Effort) {
    let layouts = layouts(&shape);
    let scratch = RefCell::new(Vec::new());
    let mut cases: Vec<_> = layouts.iter().map(|layout| case(layout, shape, level, &scratch)).collect();
    let rates = turns::rates(&mut cases, effort);
    for (layout, rate) in layouts.iter().zip(&rates) {
        let time = format!("{:.1}", 1e-3 / turns::median(rate.iter().copied()));
        let cost = turns::ratio(&rates[0], rate) - 1.0;
        let goal = if layout.goal > 0.0 { table::at_most(layout.goal) } else { String::new() };
        table::row(&format!("{name}: {}", layout.name), &[time, format!("{:+.1} %", 100.0 * cost), goal]);
    }
}

fn case<'a>(layout: &Layout, shape: Shape, level: Level, scratch: &'a RefCell<Vec<f32>>) -> Case<'a> {
    let reach = |strides: Strides, heads: usize, rows: usize| {
        (heads - 1) * strides.head + (rows - 1) * strides.row + DIM
    };
    let q_reach = reach(layout.q, shape.q_heads, shape.q_len);
    let kv_reach = reach(layout.kv, shape.kv_heads, shape.kv_len);
    let (q, kv, packed) = (layout.q, layout.kv, layout.packed);
    // Packed rows hold Q, K and V.
    let memory = operands::random::<f32>(q_reach + packed.map_or(0, |[_, v]| v), 1);
    let caches =
        [2, 3].map(|seed| operands::random::<f32>(if packed.is_some() { 0 } else { kv_reach }, seed));
    let mut out = vec![0.0; shape.q_heads * shape.q_len * DIM];
    let attention = Attention::new(shape).expect("a valid shape").level(level);
    Box::new(move || {
        let [k, v] = match packed {
            Some(starts) => starts.map(|start| &memory[start..]),
            None => [0, 1].map(|i| caches[i].as_slice()),
        };
        let scratch = &mut *scratch.borrow_mut();
        let out = ViewMut::bhsd(&mut out, shape.q_heads, shape.q_len, DIM);
        let mut job = attention
            .bind(View::new(&memory, q), View::new(k, kv), View::new(v, kv), out)
            .expect("operands of the shape");
        if scratch.len() < job.scratch_len() {
            scratch.resize(job.scratch_len(), 0.0);
        }
        job.run(scratch).expect("enough scratch");
        1.0
    })
}
