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

/// Numbers in a block.
const BLOCK: usize = 32;
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
    Quantised(Vec<Quantised>),
}

/// `scale · q + minimum`: Q8_0 with q from -128 to 127 and no minimum, Q4_1 with q from 0 to 15, a byte each.
struct Quantised {
    scale: f32,
    minimum: f32,
    quants: [i8; BLOCK],
}

trait Block: Sync {
    fn widen(&self, to: &mut [f32; BLOCK]);
}

impl Block for [f32; BLOCK] {
    #[inline(always)]
    fn widen(&self, to: &mut [f32; BLOCK]) {
        *to = *self;
    }
}

impl Block for Quantised {
    #[inline(always)]
    fn widen(&self, to: &mut [f32; BLOCK]) {
        for (to, quant) in to.iter_mut().zip(self.quants) {
            *to = self.scale * f32::from(quant) + self.minimum;
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

fn half(bytes: &[u8; 2]) -> f32 {
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
            3 => Weights::Quantised(blocks::<20, _>(tensor, |bytes| {
                let (scale, rest) = bytes.split_first_chunk()?;
                let (minimum, rest) = rest.split_first_chunk()?;
                // The low halves are the block's first numbers.
                let packed = rest.first_chunk::<{ BLOCK / 2 }>()?;
                let quants = [packed.map(|q| (q & 15) as i8), packed.map(|q| (q >> 4) as i8)];
                let quants = *quants.as_flattened().first_chunk()?;
                Some(Quantised { scale: half(scale), minimum: half(minimum), quants })
            })?),
            8 => Weights::Quantised(blocks::<34, _>(tensor, |bytes| {
                let (scale, rest) = bytes.split_first_chunk()?;
                let quants = rest.first_chunk::<BLOCK>()?.map(|q| q as i8);
                Some(Quantised { scale: half(scale), minimum: 0.0, quants })
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
            to.iter_mut().zip(blocks).for_each(|(to, block)| block.widen(to));
            to.into_flattened()
        }
        let row = row * self.cols / BLOCK..(row + 1) * self.cols / BLOCK;
        match &self.weights {
            Weights::F32(blocks) => widened(&blocks[row]),
            Weights::Quantised(blocks) => widened(&blocks[row]),
        }
    }

    /// `x` is `[tokens][cols]`; returns `[tokens][rows]`.
    pub fn multiply(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.cols * self.rows];
        match &self.weights {
            Weights::F32(blocks) => self.multiply_blocks(blocks, x, &mut out),
            Weights::Quantised(blocks) => self.multiply_blocks(blocks, x, &mut out),
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
                // A block at a time: LLVM would gather the numbers of several blocks into vectors, which is slower.
                core::hint::black_box(block).widen(to);
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
