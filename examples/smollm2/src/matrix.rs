//! Weight matrices, quantised as they are stored, and their product with activations in f32.
//!
//! A product widens a few rows of weights at a time into a buffer that stays in the first-level cache and multiplies
//! them with all tokens: weights are read once, as bytes, and every product is that of the f32 weights.
//!
//! ```text
//! for each task (some tokens, or some rows if there is one token)     rayon
//!   for each ROWS rows of weights                                     widened: [ROWS][cols] f32
//!     for each TOKENS tokens
//!       sums[ROWS][TOKENS] += weights[row][i] · x[token][i]           lanes along i, sums in registers
//! ```

use gqa::f16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::Result;
use crate::gguf::TensorBytes;

/// Numbers in a block: two of the file's.
const BLOCK: usize = 64;
/// Rows and tokens of a tile: 12 sums and their operands fit the 16 registers of AVX2.
const ROWS: usize = 4;
const TOKENS: usize = 3;
/// Tokens of a task: their activations stay in the second-level cache while all weights pass by.
const TASK_TOKENS: usize = 32 * TOKENS;
/// Rows of a task where there is one token.
const TASK_ROWS: usize = 16 * ROWS;

/// `rows × cols` weights; `y = W x`.
pub struct Matrix {
    rows: usize,
    cols: usize,
    weights: Weights,
}

enum Weights {
    F32(Vec<[f32; BLOCK]>),
    /// Q4_1.
    Nibbles(Vec<Quantised<u16>>),
    /// Q8_0.
    Bytes(Vec<Quantised<u32>>),
}

trait Block: Sync {
    fn widen<S: Simd>(&self, simd: S, to: &mut [f32; BLOCK]);
}

impl Block for [f32; BLOCK] {
    #[inline(always)]
    fn widen<S: Simd>(&self, _: S, to: &mut [f32; BLOCK]) {
        *to = *self;
    }
}

/// `scale · q + minimum`, where q is a part of a word: `q + BIAS` of number `16 k + j` is part `k` of word `j`, so that one
/// load and shifts give vectors of neighbours.
struct Quantised<W> {
    words: [W; BLOCK / PARTS],
    /// Scale and minimum of each half, which is a block of the file.
    ranges: [[f32; 2]; 2],
}

/// Parts of a word.
const PARTS: usize = 4;

/// Holds `PARTS` numbers.
trait Word: Copy + Sync + Into<u32> + TryFrom<u32> {
    /// Bits of each.
    const BITS: usize = 8 * size_of::<Self>() / PARTS;
    /// What is added to them, so that they are not negative.
    const BIAS: i32;
}

impl Word for u16 {
    const BIAS: i32 = 0;
}

impl Word for u32 {
    const BIAS: i32 = 128;
}

/// 2²³, of which the low bits of an f32 count the ones.
const ONES: f32 = 8_388_608.0;

impl<W: Word> Quantised<W> {
    fn new(ranges: [[f32; 2]; 2], quants: &[[i8; BLOCK / 2]; 2]) -> Option<Self> {
        let part = |k: usize, j: usize| i32::from(quants.as_flattened()[BLOCK / PARTS * k + j]) + W::BIAS;
        let word = |j| (0..PARTS).fold(0, |word, k| word | (part(k, j) as u32) << (W::BITS * k));
        let words: Vec<W> = (0..BLOCK / PARTS).map_while(|j| word(j).try_into().ok()).collect();
        Some(Self { words: words.try_into().ok()?, ranges })
    }
}

impl<W: Word> Block for Quantised<W> {
    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, to: &mut [f32; BLOCK]) {
        let words = self.words.map(Into::into);
        let (words, to) = (S::as_simd_u32s(&words).0, S::as_mut_simd_f32s(to).0);
        let (part, ones) = (simd.splat_u32s((1 << W::BITS) - 1), simd.splat_u32s(ONES.to_bits()));
        let bias = simd.splat_f32s(ONES + W::BIAS as f32);
        for k in 0..PARTS {
            let [scale, minimum] = self.ranges[k / 2].map(|x| simd.splat_f32s(x));
            let shift = simd.splat_u32s((W::BITS * k) as u32);
            for j in 0..words.len() {
                let q = simd.and_u32s(simd.wrapping_dyn_shr_u32s(words[j], shift), part);
                let q = simd.sub_f32s(simd.transmute_f32s_u32s(simd.or_u32s(q, ones)), bias);
                to[k * words.len() + j] = simd.mul_add_e_f32s(scale, q, minimum);
            }
        }
    }
}

/// The blocks of a tensor, `BYTES` bytes each.
fn blocks<const BYTES: usize, B>(
    tensor: &TensorBytes<'_>,
    read: impl Fn(&[u8; BYTES]) -> Option<B>,
) -> Result<Vec<B>> {
    let count = tensor.rows * tensor.cols / BLOCK;
    let (bytes, _) = tensor.bytes.as_chunks::<BYTES>();
    let blocks = bytes.get(..count).ok_or("the weights file is cut off")?;
    blocks.iter().map(|block| read(block).ok_or_else(|| "a block too short".into())).collect()
}

fn single(bytes: &[u8; 2]) -> f32 {
    f16::from_le_bytes(*bytes).to_f32()
}

impl Matrix {
    /// Reads a matrix of F32, Q4_1 or Q8_0.
    pub fn read(tensor: &TensorBytes<'_>) -> Result<Self> {
        let &TensorBytes { rows, cols, storage, .. } = tensor;
        if !cols.is_multiple_of(BLOCK) {
            return Err(format!("rows of {cols} weights, which is no multiple of {BLOCK}").into());
        }
        let weights = match storage {
            0 => Weights::F32(blocks::<{ 4 * BLOCK }, _>(tensor, |bytes| {
                let mut numbers = [0.0; BLOCK];
                for (to, &bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
                    *to = f32::from_le_bytes(bytes);
                }
                Some(numbers)
            })?),
            3 => Weights::Nibbles(blocks::<40, _>(tensor, |bytes| {
                let (mut ranges, mut quants) = ([[0.0; 2]; 2], [[0; BLOCK / 2]; 2]);
                for (half, bytes) in bytes.as_chunks::<20>().0.iter().enumerate() {
                    let (scale, rest) = bytes.split_first_chunk()?;
                    let (minimum, rest) = rest.split_first_chunk()?;
                    ranges[half] = [single(scale), single(minimum)];
                    // The low halves of the bytes are the first numbers.
                    let (low, high) = quants[half].split_at_mut(BLOCK / 4);
                    for ((low, high), byte) in low.iter_mut().zip(high).zip(rest) {
                        (*low, *high) = ((byte & 15) as i8, (byte >> 4) as i8);
                    }
                }
                Quantised::new(ranges, &quants)
            })?),
            8 => Weights::Bytes(blocks::<68, _>(tensor, |bytes| {
                let (mut ranges, mut quants) = ([[0.0; 2]; 2], [[0; BLOCK / 2]; 2]);
                for (half, bytes) in bytes.as_chunks::<34>().0.iter().enumerate() {
                    let (scale, rest) = bytes.split_first_chunk()?;
                    ranges[half] = [single(scale), 0.0];
                    quants[half] = rest.first_chunk()?.map(|q: u8| q as i8);
                }
                Quantised::new(ranges, &quants)
            })?),
            _ => return Err(format!("weights of storage type {storage}; read are 0, 3 and 8").into()),
        };
        Ok(Self { rows, cols, weights })
    }

    /// Rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One row, widened.
    pub fn row(&self, row: usize) -> Vec<f32> {
        fn widened<B: Block>(blocks: &[B]) -> Vec<f32> {
            let mut to = vec![[0.0; BLOCK]; blocks.len()];
            to.iter_mut().zip(blocks).for_each(|(to, block)| block.widen(pulp::Scalar::new(), to));
            to.into_flattened()
        }
        let row = row * self.cols / BLOCK..(row + 1) * self.cols / BLOCK;
        match &self.weights {
            Weights::F32(blocks) => widened(&blocks[row]),
            Weights::Nibbles(blocks) => widened(&blocks[row]),
            Weights::Bytes(blocks) => widened(&blocks[row]),
        }
    }

    /// `x` is `[tokens][cols]`; returns `[tokens][rows]`.
    pub fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.cols * self.rows];
        match &self.weights {
            Weights::F32(blocks) => self.multiply_blocks(blocks, x, &mut out),
            Weights::Nibbles(blocks) => self.multiply_blocks(blocks, x, &mut out),
            Weights::Bytes(blocks) => self.multiply_blocks(blocks, x, &mut out),
        }
        out
    }

    fn multiply_blocks<B: Block>(&self, blocks: &[B], x: &[f32], out: &mut [f32]) {
        let (rows, cols, arch) = (self.rows, self.cols, Arch::new());
        if x.len() == cols {
            let tasks = blocks.par_chunks(TASK_ROWS * cols / BLOCK).zip(out.par_chunks_mut(TASK_ROWS));
            tasks.for_each(|(blocks, out)| arch.dispatch(Product { cols, blocks, x, out }));
        } else {
            let tasks = x.par_chunks(TASK_TOKENS * cols).zip(out.par_chunks_mut(TASK_TOKENS * rows));
            tasks.for_each(|(x, out)| arch.dispatch(Product { cols, blocks, x, out }));
        }
    }
}

/// One task: `x` is `[tokens][cols]`, `out` is `[tokens][rows]`.
struct Product<'a, B> {
    cols: usize,
    blocks: &'a [B],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<B: Block> WithSimd for Product<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { cols, blocks, x, out } = self;
        let rows = blocks.len() * BLOCK / cols;
        let mut widened = vec![[0.0; BLOCK]; ROWS * cols / BLOCK];
        for (group, blocks) in blocks.chunks(ROWS * cols / BLOCK).enumerate() {
            // Fewer rows at the end leave old ones in the buffer, whose sums nobody stores.
            for (to, block) in widened.iter_mut().zip(blocks) {
                block.widen(simd, to);
            }
            let weights = widened.as_flattened();
            let tiles = x.chunks(TOKENS * cols).zip(out.chunks_mut(TOKENS * rows));
            for (x, out) in tiles {
                if out.len() == TOKENS * rows {
                    store(&tile::<S, TOKENS>(simd, weights, x), out, group * ROWS);
                } else {
                    for (x, out) in x.chunks(cols).zip(out.chunks_mut(rows)) {
                        store(&tile::<S, 1>(simd, weights, x), out, group * ROWS);
                    }
                }
            }
        }
    }
}

/// The products of `ROWS` rows of weights and `T` tokens.
#[inline(always)]
fn tile<S: Simd, const T: usize>(simd: S, weights: &[f32], x: &[f32]) -> [[f32; ROWS]; T] {
    // `cols` is a multiple of BLOCK, and BLOCK of every vector's length: no tails.
    let (weights, x) = (S::as_simd_f32s(weights).0, S::as_simd_f32s(x).0);
    let len = x.len() / T;
    let weights: [_; ROWS] = core::array::from_fn(|row| &weights[row * len..][..len]);
    let x: [_; T] = core::array::from_fn(|token| &x[token * len..][..len]);
    let mut sums = [[simd.splat_f32s(0.0); ROWS]; T];
    for i in 0..len {
        for row in 0..ROWS {
            for token in 0..T {
                sums[token][row] = simd.mul_add_e_f32s(weights[row][i], x[token][i], sums[token][row]);
            }
        }
    }
    // Loops, since a call such as `map` that is not inlined here would leave the instruction set.
    let mut totals = [[0.0; ROWS]; T];
    for token in 0..T {
        for row in 0..ROWS {
            totals[token][row] = simd.reduce_sum_f32s(sums[token][row]);
        }
    }
    totals
}

/// Writes a tile's sums to rows `first..` of the tokens' outputs.
#[inline(always)]
fn store<const T: usize>(sums: &[[f32; ROWS]; T], out: &mut [f32], first: usize) {
    let rows = out.len() / T;
    for (out, sums) in out.chunks_mut(rows).zip(sums) {
        for (out, &sum) in out[first..].iter_mut().zip(sums) {
            *out = sum;
        }
    }
}
