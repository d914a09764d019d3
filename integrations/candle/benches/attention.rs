//! Attention by this crate, by candle's flash attention and by matrix products, in turns.
//!
//! `cargo bench` prints the median of each and how many times as long as gqa's it takes. Everybody gets the layout that
//! he reads in place, and candle's thread pool (`RAYON_NUM_THREADS`). Candle's vectors are chosen when it is compiled, so
//! `RUSTFLAGS="-C target-cpu=native"` is fair to it. With `--test` each runs once on short calls.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor, WithDType};
use candle_nn::attention::{AttnMask, flash_attn};
use gqa_candle::{Options, attention};

#[path = "../tests/support/mod.rs"]
mod support;

use support::{distance, normal};

/// Rows times keys that candle's flash attention is given in f16 and bf16.
const MOST_NARROW: usize = 1 << 18;
/// What a contender's turns may take together, but for the first three.
const BUDGET: Duration = Duration::from_secs(2);
/// Turns at most.
const TURNS: usize = 100;

/// A causal call of one sequence.
struct Call {
    name: &'static str,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    q_len: usize,
    kv_len: usize,
}

const LLAMA: Call = Call { name: "Llama 3 8B", heads: 32, kv_heads: 8, dim: 128, q_len: 1, kv_len: 1 };
const SMOL: Call = Call { name: "SmolLM2-135M", heads: 9, kv_heads: 3, dim: 64, q_len: 1, kv_len: 1 };

const CALLS: [Call; 8] = [
    Call { q_len: 512, kv_len: 512, ..LLAMA },
    Call { q_len: 2048, kv_len: 2048, ..LLAMA },
    Call { kv_len: 512, ..LLAMA },
    Call { kv_len: 4096, ..LLAMA },
    Call { q_len: 512, kv_len: 512, ..SMOL },
    Call { q_len: 2048, kv_len: 2048, ..SMOL },
    Call { kv_len: 512, ..SMOL },
    Call { kv_len: 4096, ..SMOL },
];

/// Who computes, and the time of each of his turns.
struct Contender<'a> {
    name: String,
    run: Box<dyn Fn() -> Result<Tensor> + Sync + 'a>,
    times: Vec<Duration>,
}

impl<'a> Contender<'a> {
    fn new(name: String, run: impl Fn() -> Result<Tensor> + Sync + 'a) -> Self {
        Self { name, run: Box::new(run), times: Vec::new() }
    }

    fn turn(&mut self) -> Result<Tensor> {
        let start = Instant::now();
        let out = (self.run)()?;
        self.times.push(start.elapsed());
        Ok(out)
    }

    fn median(&mut self) -> f64 {
        self.times.sort();
        self.times[self.times.len() / 2].as_secs_f64()
    }
}

/// gqa and candle's flash attention with q, k and v of one type.
fn fused<'a, T: WithDType + num_traits::Float>(
    call: &'a Call,
    [q, k, v]: [&Tensor; 3],
) -> Result<[Contender<'a>; 2]> {
    let name = T::DTYPE.as_str();
    let typed = |tensor: &Tensor| tensor.to_dtype(T::DTYPE);
    let rows_outside = |tensor: &Tensor| tensor.to_dtype(T::DTYPE)?.transpose(1, 2)?.contiguous();
    let (ours, theirs) =
        ([typed(q)?, typed(k)?, typed(v)?], [rows_outside(q)?, rows_outside(k)?, rows_outside(v)?]);
    Ok([
        Contender::new(format!("gqa, {name}"), move || {
            let [q, k, v] = &ours;
            attention(q, k, v, &Options::new().causal())
        }),
        Contender::new(format!("candle flash, {name}"), move || {
            let [q, k, v] = &theirs;
            let mask = AttnMask::causal_with_offset(call.kv_len - call.q_len);
            flash_attn::<T>(q, k, v, 1.0 / (call.dim as f32).sqrt(), mask, None, None)
        }),
    ])
}

/// Matrix product, softmax, matrix product, for each KV head with all query heads that share it, so that nothing is
/// repeated.
fn products<'a>(call: &'a Call, [q, k, v]: [&'a Tensor; 3]) -> Result<Contender<'a>> {
    let &Call { heads, kv_heads, dim, q_len, kv_len, .. } = call;
    let hidden = |row: usize, key: usize| if key + q_len <= row + kv_len { 0.0 } else { f32::NEG_INFINITY };
    let mask = (0..q_len).flat_map(|row| (0..kv_len).map(move |key| hidden(row, key)));
    let mask = Tensor::from_iter(mask, &Device::Cpu)?.reshape((q_len, kv_len))?;
    let group = heads / kv_heads;
    Ok(Contender::new(String::from("matrix products, f32"), move || {
        let q = (q.reshape((1, kv_heads, group * q_len, dim))? * (1.0 / (dim as f64).sqrt()))?;
        let mut scores = q.matmul(&k.t()?)?;
        if q_len > 1 {
            scores = scores.reshape((kv_heads, group, q_len, kv_len))?.broadcast_add(&mask)?;
            scores = scores.reshape((1, kv_heads, group * q_len, kv_len))?;
        }
        candle_nn::ops::softmax_last_dim(&scores)?.matmul(v)?.reshape((1, heads, q_len, dim))
    }))
}

fn run(call: &Call, once: bool) -> Result<()> {
    let &Call { heads, kv_heads, dim, q_len, kv_len, .. } = call;
    let q = normal([1, heads, q_len, dim], 1, DType::F32);
    let (k, v) = (
        normal([1, kv_heads, kv_len, dim], 2, DType::F32),
        normal([1, kv_heads, kv_len, dim], 3, DType::F32),
    );
    let operands = [&q, &k, &v];
    let mut contenders = Vec::from(fused::<f32>(call, operands)?);
    contenders.push(products(call, operands)?);
    for [ours, theirs] in [fused::<half::f16>(call, operands)?, fused::<half::bf16>(call, operands)?] {
        contenders.push(ours);
        // Candle's loops over narrow types take minutes for long prompts.
        if q_len * kv_len <= MOST_NARROW {
            contenders.push(theirs);
        }
    }

    let expected = contenders[0].turn()?;
    for contender in &mut contenders {
        let distance = distance(&contender.turn()?, &expected);
        assert!(distance < 0.05, "{}: {distance}", contender.name);
        contender.times.clear();
    }
    for turn in 0..if once { 1 } else { TURNS } {
        for contender in &mut contenders {
            if turn < 3 || contender.times.iter().sum::<Duration>() < BUDGET {
                contender.turn()?;
            }
        }
    }
    println!("\n{}, {heads} heads on {kv_heads} of {dim}: {q_len} rows, {kv_len} keys, causal", call.name);
    let base = contenders[0].median();
    for contender in &mut contenders {
        let median = contender.median();
        let turns = contender.times.len();
        println!("  {:22} {:10.3} ms {:7.2} x {turns:4} turns", contender.name, median * 1e3, median / base);
    }
    Ok(())
}

fn main() -> Result<()> {
    let once = std::env::args().any(|argument| argument == "--test");
    println!("{} threads", candle_core::utils::get_num_threads());
    for call in CALLS.iter().filter(|call| !once || call.q_len * call.kv_len <= 512) {
        Device::Cpu.with_context(|| run(call, once))?;
    }
    Ok(())
}
