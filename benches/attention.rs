//! SIMD against scalar: every level of this machine on model-shaped prefill and decode calls.
//!
//! `cargo bench` runs all; `cargo bench -- decode/f16` those whose name holds the words. Names are
//! `phase/storage/heads/length/level`. Prefill counts floating-point operations (shown as elements), decode the
//! bytes of K and V. Before a call is timed its output is compared with a definition in f64.

#[path = "../tests/support/reference.rs"]
#[allow(dead_code, reason = "the benches look at the output alone")]
mod reference;

#[path = "../examples/support/memory.rs"]
mod memory;
#[path = "support/operands.rs"]
mod operands;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use gqa::{Alignment, Attention, Level, Shape, bf16, f16};
use operands::{Number, Operands};

/// Binds the call and runs it.
fn run<T: Number>(operands: &mut Operands<T>, level: Level, scratch: &mut Vec<f32>) {
    let attention = Attention::new(operands.shape).expect("a valid shape").causal().level(level);
    let mut job = operands.bind(&attention).expect("operands of the shape");
    scratch.resize(job.scratch_len(), 0.0);
    job.run(scratch).expect("enough scratch");
}

/// Compares a row of each query head with the definition.
fn check<T: Number>(operands: &Operands<T>) {
    let Operands { shape, q, k, v, out } = operands;
    let Shape { q_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
    for head in 0..q_heads {
        let row = (head * 31 + 7) % q_len;
        let wide = |x: &[T]| x.iter().map(|x| x.to_f64()).collect::<Vec<_>>();
        let one = Shape { batch: 1, q_heads: 1, kv_heads: 1, q_len: 1, ..*shape };
        let kv_head = head / shape.group();
        let q = wide(&q[(head * q_len + row) * head_dim..][..head_dim]);
        let k = wide(&k[kv_head * kv_len * head_dim..][..kv_len * head_dim]);
        let v = wide(&v[kv_head * kv_len * value_dim..][..kv_len * value_dim]);
        let position = kv_len as i64 - q_len as i64 + row as i64;
        let options = reference::Options {
            alignment: Alignment::Offset(position),
            right: Some(0),
            ..reference::Options::default()
        };
        let want = reference::attention(&one, &q, &k, &v, &options).out;
        for (got, want) in out[(head * q_len + row) * value_dim..].iter().zip(want) {
            let error = (got.to_f64() - want).abs();
            assert!(error <= 1e-5 + T::ROUNDING * want.abs(), "off by {error} at head {head}, row {row}");
        }
    }
}

/// Times one shape in one storage type at every level.
fn shape<T: Number>(criterion: &mut Criterion, phase: &str, shape: Shape) {
    let mut operands = Operands::<T>::new(shape);
    let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = shape;
    let heads = format!("hq{q_heads}-hkv{kv_heads}-d{head_dim}");
    let (length, throughput) = if q_len > 1 {
        let pairs = (q_heads * shape.visible_pairs_causal()) as u64;
        (format!("s{q_len}-causal"), Throughput::Elements(2 * pairs * (head_dim + value_dim) as u64))
    } else {
        let elements = kv_heads * kv_len * (head_dim + value_dim);
        (format!("kv{kv_len}"), Throughput::Bytes((elements * size_of::<T>()) as u64))
    };
    let mut group = criterion.benchmark_group(format!("{phase}/{}/{heads}/{length}", T::NAME));
    group.throughput(throughput).sampling_mode(SamplingMode::Flat);
    let mut scratch = Vec::new();
    for level in Level::available() {
        group.bench_function(BenchmarkId::from_parameter(level), |bencher| {
            operands.out.fill(T::default());
            run(&mut operands, level, &mut scratch);
            check(&operands);
            bencher.iter(|| run(black_box(&mut operands), level, &mut scratch));
        });
    }
    group.finish();
}

fn every_storage(
    criterion: &mut Criterion,
    phase: &str,
    (q_heads, kv_heads, dim): (usize, usize, usize),
    len: (usize, usize),
) {
    let (q_len, kv_len) = len;
    let size = Shape { batch: 1, q_heads, kv_heads, q_len, kv_len, head_dim: dim, value_dim: dim };
    shape::<f32>(criterion, phase, size);
    shape::<f16>(criterion, phase, size);
    shape::<bf16>(criterion, phase, size);
}

/// One KV head's worth, or two, of a model: rates do not depend on the number of heads.
fn prefill(criterion: &mut Criterion) {
    every_storage(criterion, "prefill", (8, 2, 128), (512, 512));
    every_storage(criterion, "prefill", (4, 1, 64), (512, 512));
    every_storage(criterion, "prefill", (9, 3, 64), (128, 128));
}

/// Whole models: what a token costs.
fn decode(criterion: &mut Criterion) {
    every_storage(criterion, "decode", (32, 8, 128), (1, 512));
    every_storage(criterion, "decode", (32, 8, 128), (1, 4096));
    every_storage(criterion, "decode", (9, 3, 64), (1, 2048));
    every_storage(criterion, "decode", (16, 1, 128), (1, 4096));
}

/// What a call costs before it computes anything: its builder, with the level detected, and its checks.
fn bind(criterion: &mut Criterion) {
    let shape =
        Shape { batch: 1, q_heads: 9, kv_heads: 3, q_len: 1, kv_len: 512, head_dim: 64, value_dim: 64 };
    let mut operands = Operands::<f32>::new(shape);
    let mut scratch = Vec::new();
    criterion.bench_function("bind/f32/hq9-hkv3-d64/kv512", |bencher| {
        bencher.iter(|| {
            let attention = Attention::new(black_box(shape)).expect("a valid shape").causal();
            black_box(operands.bind(&attention).expect("operands of the shape"));
        });
    });
    criterion.bench_function("bind/f32/hq9-hkv3-d64/kv512/and-run", |bencher| {
        bencher.iter(|| run(black_box(&mut operands), Level::detect(), &mut scratch));
    });
}

fn brief() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = brief(); targets = prefill, decode, bind }
criterion_main!(benches);
