//! Attention inside a real model, at every level of this machine: `cargo run --release --example quickstart`.
//!
//! Q, K, V and the output of layers of SmolLM2-135M lie in `tests/vectors/smollm2`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use gqa::{Attention, Element, Level, Shape, View, ViewMut, bf16, f16};
use safetensors::SafeTensors;

#[path = "support/clock.rs"]
mod clock;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/roof.rs"]
mod roof;

/// One layer, `[heads, rows, dim]` each.
struct Layer {
    shape: Shape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
}

impl Layer {
    fn read(file: &Path) -> Result<Self, Box<dyn Error>> {
        let bytes = std::fs::read(file)?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let numbers = |name: &str| -> Result<Vec<f32>, Box<dyn Error>> {
            Ok(tensors
                .tensor(name)?
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect())
        };
        let dims = |name: &str| -> Result<[usize; 4], Box<dyn Error>> {
            Ok(tensors.tensor(name)?.shape().try_into()?)
        };
        let ([batch, q_heads, q_len, head_dim], [_, kv_heads, kv_len, value_dim]) =
            (dims("in.query")?, dims("in.value")?);
        Ok(Self {
            shape: Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim },
            q: numbers("in.query")?,
            k: numbers("in.key")?,
            v: numbers("in.value")?,
            out: numbers("out.output")?,
        })
    }

    /// The greatest error against the model's own output, and the median time of a call in seconds.
    fn run<T: Storage>(&self, level: Level) -> Result<(f32, f64), gqa::Error> {
        let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = self.shape;
        let store = |numbers: &[f32]| -> Vec<T> { numbers.iter().map(|&x| T::from_f32(x)).collect() };
        let (q, k, v) = (store(&self.q), store(&self.k), store(&self.v));
        let mut out = store(&vec![0.0; self.out.len()]);
        let mut job = Attention::new(self.shape)?.causal().level(level).bind(
            View::bhsd(&q, q_heads, q_len, head_dim),
            View::bhsd(&k, kv_heads, kv_len, head_dim),
            View::bhsd(&v, kv_heads, kv_len, value_dim),
            ViewMut::bhsd(&mut out, q_heads, q_len, value_dim),
        )?;
        let mut scratch = vec![0.0; job.scratch_len()];
        job.run(&mut scratch)?;
        let time = median(|| job.run(&mut scratch).is_ok());
        let error =
            out.iter().zip(&self.out).map(|(got, want)| (got.to_f32() - want).abs()).fold(0.0, f32::max);
        Ok((error, time))
    }

    /// With each key and value so many times: for a row that sees all of them the output stays the same.
    fn repeated(&self, times: usize) -> Self {
        let repeat = |numbers: &[f32], dim: usize| -> Vec<f32> {
            numbers.chunks(self.shape.kv_len * dim).flat_map(|head| head.repeat(times)).collect()
        };
        Self {
            shape: Shape { kv_len: self.shape.kv_len * times, ..self.shape },
            q: self.q.clone(),
            k: repeat(&self.k, self.shape.head_dim),
            v: repeat(&self.v, self.shape.value_dim),
            out: self.out.clone(),
        }
    }

    fn flops(&self) -> f64 {
        let Shape { batch, q_heads, head_dim, .. } = self.shape;
        (4 * batch * q_heads * head_dim * self.shape.visible_pairs_causal()) as f64
    }

    /// Bytes of K and V, with as many heads as given.
    fn kv_bytes(&self, heads: usize, element: usize) -> usize {
        let Shape { batch, kv_len, head_dim, value_dim, .. } = self.shape;
        batch * heads * kv_len * (head_dim + value_dim) * element
    }
}

/// The median time of a call in seconds.
fn median(mut call: impl FnMut() -> bool) -> f64 {
    let start = clock::thread_time();
    let mut samples = Vec::new();
    // Several calls make a sample, so that it lasts longer than looking at the clock.
    let once = clock::time(|| assert!(call(), "the first call succeeded"));
    let calls = 1 + 100_000 / (once.as_nanos() as u32).clamp(1, 100_000);
    while clock::thread_time() - start < Duration::from_millis(100) {
        let time = clock::time(|| assert!((0..calls).all(|_| call()), "the first call succeeded"));
        samples.push(time.as_secs_f64() / f64::from(calls));
    }
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(once.as_secs_f64())
}

/// A storage type of the crate, with its name.
trait Storage: Element {
    const NAME: &str;
}

impl Storage for f32 {
    const NAME: &str = "f32";
}

impl Storage for f16 {
    const NAME: &str = "f16";
}

impl Storage for bf16 {
    const NAME: &str = "bf16";
}

/// What limits a call: arithmetic, or reading K and V.
#[derive(Clone, Copy, PartialEq)]
enum Limit {
    Arithmetic,
    Reading,
}

/// The lines of one storage type, a level each.
fn lines<T: Storage>(name: &str, limit: Limit, layer: &Layer) -> Result<(), gqa::Error> {
    let mut scalar = None;
    for level in Level::available() {
        let (error, time) = layer.run::<T>(level)?;
        let faster = *scalar.get_or_insert(time) / time;
        let kv_bytes = layer.kv_bytes(layer.shape.kv_heads, size_of::<T>());
        let (work, roof, unit) = match limit {
            Limit::Arithmetic => (layer.flops(), roof::fma_gflops(level), "GFLOP/s"),
            Limit::Reading => (kv_bytes as f64, roof::read_gbs(level, kv_bytes), "GB/s"),
        };
        let (rate, time) = (work / time / 1e9, time * 1e6);
        let (storage, share) = (T::NAME, 100.0 * rate / roof);
        println!(
            "{name:12} {storage:7} {level:12} {error:9.1e} {time:9.1} {faster:8.1}x {rate:9.1} {roof:9.1} {unit:8} {share:3.0} %"
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/smollm2");
    let prefill = Layer::read(&folder.join("prefill_layer14.safetensors"))?;
    let decode = Layer::read(&folder.join("decode15_layer29.safetensors"))?;
    let long = decode.repeated(64);
    let Shape { q_heads, kv_heads, head_dim, .. } = decode.shape;
    println!(
        "Attention inside SmolLM2-135M ({q_heads} query heads share {kv_heads} KV heads of {head_dim}) on one thread, \
         at every level of\nthis machine, compared with what the model itself computed: a prompt, then one token on a cache.\n"
    );
    println!(
        "tokens       storage level        max error   time/µs  speed-up      rate      roof          share"
    );
    let prompt = format!("prompt {}", prefill.shape.q_len);
    let cache = |layer: &Layer| format!("cache {}", layer.shape.kv_len);
    for (name, limit, layer) in [
        (prompt, Limit::Arithmetic, &prefill),
        (cache(&decode), Limit::Reading, &decode),
        (cache(&long), Limit::Reading, &long),
    ] {
        lines::<f32>(&name, limit, layer)?;
        lines::<f16>(&name, limit, layer)?;
        lines::<bf16>(&name, limit, layer)?;
    }
    let (grouped, multi) = (decode.kv_bytes(kv_heads, 2) as f64, decode.kv_bytes(q_heads, 2) as f64);
    println!(
        "\nRoof, measured just now: multiply-adds in registers at that level for a prompt; reading, from the caches, \
         a buffer\nas large as K and V for a cache. The cache of {} tokens is that of {}, 64 times over.\n\
         Errors of f16 and bf16 are those of storing Q, K, V and the output so; the arithmetic is f32.\n\
         A layer's cache of {} tokens takes {:.1} KiB in f16, with a KV head for each query head it would take {:.1} KiB.",
        long.shape.kv_len,
        decode.shape.kv_len,
        decode.shape.kv_len,
        grouped / 1024.0,
        multi / 1024.0,
    );
    Ok(())
}
