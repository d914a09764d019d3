//! One attention problem, ready to be run again and again.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use gqa::{Attention, Bf16Dot, Element, Error, Level, Shape, View, ViewMut, bf16, f16};

use super::memory;
use super::pool::Pool;

/// What a `load` line asks for.
pub(crate) struct Request {
    folder: String,
    pub(crate) shape: Shape,
    causal: bool,
    pub(crate) dtype: String,
    pub(crate) threads: usize,
}

impl Request {
    /// `DIR threads=1 b=1 hq=32 hkv=8 sq=512 skv=512 d=64 causal=1 dtype=f16`
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (folder, words) = words.split_first().ok_or("no folder")?;
        let text = |key: &str| {
            let found = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            found.ok_or_else(|| format!("no {key}"))
        };
        let number = |key: &str| text(key)?.parse::<usize>().map_err(|_| format!("{key} is no number"));
        let dim = number("d")?;
        let shape = Shape {
            batch: number("b")?,
            q_heads: number("hq")?,
            kv_heads: number("hkv")?,
            q_len: number("sq")?,
            kv_len: number("skv")?,
            head_dim: dim,
            value_dim: dim,
        };
        let threads = number("threads")?;
        if !(1..=256).contains(&threads) {
            return Err(format!("threads: needed 1 to 256, had {threads}"));
        }
        let causal = match text("causal")? {
            "0" => false,
            "1" => true,
            other => return Err(format!("causal: needed 0 or 1, had {other}")),
        };
        Ok(Self { folder: (*folder).into(), shape, causal, dtype: text("dtype")?.into(), threads })
    }

    pub(crate) fn load(&self, level: Level, bf16_dot: bool) -> Result<Box<dyn Workload>, String> {
        match self.dtype.as_str() {
            "f32" => Ok(Box::new(Loaded::<f32>::new(self, level, bf16_dot)?)),
            "f16" => Ok(Box::new(Loaded::<f16>::new(self, level, bf16_dot)?)),
            "bf16" => Ok(Box::new(Loaded::<bf16>::new(self, level, bf16_dot)?)),
            other => Err(format!("dtype {other}")),
        }
    }

    /// The tensor `name`, `[batch, heads, rows, dim]`.
    fn read<T: Number>(&self, name: &str, heads: usize, rows: usize) -> Result<Aligned<T>, String> {
        let path = format!("{}/{name}.bin", self.folder);
        let Shape { batch, head_dim, .. } = self.shape;
        let len = [batch, heads, rows, head_dim].iter().try_fold(1usize, |len, &size| len.checked_mul(size));
        let bytes = std::fs::read(&path).map_err(|e| format!("{path}: {e}"))?;
        match len {
            Some(len) if len.checked_mul(size_of::<T>()) == Some(bytes.len()) => {
                Ok(Aligned::new(len, bytes.chunks_exact(size_of::<T>()).map(T::from_le)))
            }
            _ => Err(format!("{path}: {} bytes do not fit the sizes", bytes.len())),
        }
    }
}

/// A storage type of the crate, as the files hold it.
trait Number: Element {
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($type:ident) => {
        impl Number for $type {
            fn from_le(bytes: &[u8]) -> Self {
                bytes.try_into().map_or($type::NAN, $type::from_le_bytes)
            }
        }
    };
}
number!(f32);
number!(f16);
number!(bf16);

/// Numbers from a cache line's boundary on, as an engine would place its cache: no vector lies in two lines.
struct Aligned<T> {
    numbers: Vec<T>,
    first: usize,
}

impl<T: Number> Aligned<T> {
    const LINE: usize = 64;

    fn new(len: usize, from: impl Iterator<Item = T>) -> Self {
        let mut numbers = memory::huge_pages::<T>(len + Self::LINE / size_of::<T>());
        let first = numbers.as_ptr().align_offset(Self::LINE).min(Self::LINE / size_of::<T>());
        numbers.resize(first, T::from_le(&[0; 4][..size_of::<T>()]));
        numbers.extend(from);
        Self { numbers, first }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.numbers[self.first..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.first..]
    }
}

/// A problem of any storage type.
pub(crate) trait Workload {
    /// Binds the call and runs it on the pool's threads.
    fn run(&mut self, pool: &mut Pool) -> Result<(), Error>;
    /// The last output, `[batch, heads, rows, dim]`.
    fn output(&self) -> Vec<f32>;
}

struct Loaded<T> {
    attention: Attention<'static>,
    q: Aligned<T>,
    k: Aligned<T>,
    v: Aligned<T>,
    out: Aligned<T>,
    /// One for each thread.
    scratches: Vec<Mutex<Vec<f32>>>,
    /// For threads that share keys.
    partials: Vec<f32>,
}

impl<T: Number> Loaded<T> {
    fn new(request: &Request, level: Level, bf16_dot: bool) -> Result<Self, String> {
        let shape = request.shape;
        let mut attention = Attention::new(shape).map_err(|e| e.to_string())?.level(level);
        if request.causal {
            attention = attention.causal();
        }
        if bf16_dot {
            attention = attention.bf16_dot(Bf16Dot::WhereFaster);
        }
        let q: Aligned<T> = request.read("q", shape.q_heads, shape.q_len)?;
        let mut loaded = Self {
            attention,
            out: Aligned::new(q.len(), q.iter().copied()),
            q,
            k: request.read("k", shape.kv_heads, shape.kv_len)?,
            v: request.read("v", shape.kv_heads, shape.kv_len)?,
            scratches: Vec::new(),
            partials: Vec::new(),
        };
        let job = loaded.bind().map_err(|e| e.to_string())?;
        let (scratch_len, partials_len) = (job.scratch_len(), job.partials_len());
        loaded.scratches = (0..request.threads).map(|_| Mutex::new(vec![0.0; scratch_len])).collect();
        loaded.partials = vec![0.0; partials_len];
        Ok(loaded)
    }

    fn bind(&mut self) -> Result<gqa::Job<'_, T, T, T, T>, Error> {
        let Self { attention, q, k, v, out, .. } = self;
        bind(attention, (q, k, v), out)
    }
}

fn bind<'a, T: Element>(
    attention: &Attention<'static>,
    (q, k, v): (&'a [T], &'a [T], &'a [T]),
    out: &'a mut [T],
) -> Result<gqa::Job<'a, T, T, T, T>, Error> {
    let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *attention.shape();
    attention.bind(
        View::bhsd(q, q_heads, q_len, head_dim),
        View::bhsd(k, kv_heads, kv_len, head_dim),
        View::bhsd(v, kv_heads, kv_len, value_dim),
        ViewMut::bhsd(out, q_heads, q_len, value_dim),
    )
}

impl<T: Number> Workload for Loaded<T> {
    fn run(&mut self, pool: &mut Pool) -> Result<(), Error> {
        let Self { attention, q, k, v, out, scratches, partials } = self;
        pool.run_job(bind(attention, (q, k, v), out)?, scratches, partials)
    }

    fn output(&self) -> Vec<f32> {
        self.out.iter().map(|&x| x.to_f32()).collect()
    }
}
