//! Attention over a cache: by gqa, and by a plain loop.

use std::time::{Duration, Instant};

use gqa::{Attention, Element, Shape, View, ViewMut};
use rayon::prelude::*;

use crate::Result;
use crate::cache::{Cache, Room};
use crate::model::{CHUNK, Config};

/// A cache, and causal attention over it.
pub trait Attend {
    /// Takes the rotated keys and the values of tokens `position..`, `[token][kv_head][head_dim]` each.
    fn append(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) -> Result<()>;

    /// Attention of the queries of tokens `position..`, which have been appended: `[token][head][head_dim]` to the same.
    /// Returns the time that it took, without moving queries and outputs into and out of another library's tensors.
    fn attend(&mut self, layer: usize, position: usize, q: &[f32], out: &mut [f32]) -> Result<Duration>;

    /// How many tokens from `position` on may be appended before they attend: as many as replace none that the first of
    /// them must see. At least 1.
    fn at_once(&self, position: usize) -> usize;

    /// Bytes that keys and values take.
    fn bytes(&self) -> usize;
}

/// The sizes of a call for the tokens `position..` with the queries `q`.
pub(crate) fn shape(config: &Config, position: usize, q: &[f32], cached: impl Fn(usize) -> usize) -> Shape {
    let q_len = q.len() / (config.heads * config.head_dim);
    sizes(config, q_len, cached(position + q_len - 1))
}

fn sizes(config: &Config, q_len: usize, kv_len: usize) -> Shape {
    let &Config { heads, kv_heads, head_dim, .. } = config;
    Shape { batch: 1, q_heads: heads, kv_heads, q_len, kv_len, head_dim, value_dim: head_dim }
}

/// Attention by gqa, which reads the cache where it lies.
pub struct Gqa<T> {
    config: Config,
    cache: Cache<T>,
    /// For each thread.
    scratch: Vec<Vec<f32>>,
    /// For threads that share keys.
    partials: Vec<f32>,
}

/// Multiply-adds below which waking another thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 18;

impl<T: Element> Gqa<T> {
    /// With an empty cache.
    pub fn new(config: &Config, room: Room) -> Self {
        let scratch_len = sizes(config, CHUNK, room.slots).scratch_len();
        let scratch = vec![vec![0.0; scratch_len]; rayon::current_num_threads()];
        Self { config: config.clone(), cache: Cache::new(config, room), scratch, partials: Vec::new() }
    }
}

impl<T: Element> Attend for Gqa<T> {
    fn append(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) -> Result<()> {
        self.cache.append(layer, position, k, v);
        Ok(())
    }

    fn attend(&mut self, layer: usize, position: usize, q: &[f32], out: &mut [f32]) -> Result<Duration> {
        let start = Instant::now();
        let Self { config, cache, scratch, partials } = self;
        let shape = shape(config, position, q, |last| cache.len(last));
        let Shape { q_heads, q_len, head_dim, .. } = shape;
        let (k, v) = cache.views(layer);
        let job = Attention::new(shape)?.causal().bind(
            View::bshd(q, q_heads, q_len, head_dim),
            k,
            v,
            ViewMut::bshd(out, q_heads, q_len, head_dim),
        )?;
        let threads = if shape.multiply_adds() < WORTH_A_THREAD { 1 } else { scratch.len() };
        let mut job = job.threads(threads);
        if threads > 1 {
            partials.resize(job.partials_len().max(partials.len()), 0.0);
            job = job.split_kv(partials)?;
        }
        let queue = job.items().queue();
        scratch[..threads].par_iter_mut().try_for_each(|scratch| {
            while let Some(mut item) = queue.pop() {
                item.run(scratch)?;
            }
            Ok::<_, gqa::Error>(())
        })?;
        Ok(start.elapsed())
    }

    fn at_once(&self, position: usize) -> usize {
        self.cache.at_once(position)
    }

    fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// Attention as one would write it down, a thread for each row and head.
pub struct Plain {
    config: Config,
    cache: Cache<f32>,
}

impl Plain {
    /// With an empty cache.
    pub fn new(config: &Config, room: Room) -> Self {
        Self { config: config.clone(), cache: Cache::new(config, room) }
    }
}

impl Attend for Plain {
    fn append(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) -> Result<()> {
        self.cache.append(layer, position, k, v);
        Ok(())
    }

    fn attend(&mut self, layer: usize, position: usize, q: &[f32], out: &mut [f32]) -> Result<Duration> {
        let start = Instant::now();
        let shape = shape(&self.config, position, q, |last| self.cache.len(last));
        let Shape { q_heads, head_dim, .. } = shape;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let rows = out.par_chunks_mut(head_dim).zip(q.par_chunks(head_dim)).enumerate();
        rows.for_each(|(row, (out, q))| {
            let (kv_head, visible) =
                (row % q_heads / shape.group(), self.cache.len(position + row / q_heads));
            let rows = || (0..visible).map(|slot| self.cache.rows(layer, kv_head, slot));
            let dot = |k: &[f32]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>();
            let scores: Vec<f32> = rows().map(|(k, _)| scale * dot(k)).collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|score| (score - max).exp()).collect();
            let sum: f32 = weights.iter().sum();
            out.fill(0.0);
            for (weight, (_, v)) in weights.iter().zip(rows()) {
                for (out, v) in out.iter_mut().zip(v) {
                    *out += weight / sum * v;
                }
            }
        });
        Ok(start.elapsed())
    }

    fn at_once(&self, position: usize) -> usize {
        self.cache.at_once(position)
    }

    fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}
