//! The published errors: the greatest over the grid for normal random inputs, by storage type and level, and the rule
//! that a fused pass errs at most twice as much as the same computation written plainly in the same precision.
//!
//! `cargo test --test all numerics:: -- --nocapture` prints the table.

use gqa::{Level, Shape, bf16, f16};

use crate::support::{Modifiers, Number, Operands, Rng, grid, levels, times};

/// Attention in plain f32, unfused: all scores (of scaled queries, as in FlashAttention's reference), their softmax,
/// then the weighted sum of the values.
fn plain(shape: &Shape, causal: bool, [q, k, v]: &[Vec<f64>; 3]) -> Vec<f32> {
    let narrow = |numbers: &[f64]| -> Vec<f32> { numbers.iter().map(|&x| x as f32).collect() };
    let (q, k, v) = (narrow(q), narrow(k), narrow(v));
    let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = *shape;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut out = Vec::new();
    for (index, query) in q.chunks_exact(head_dim).enumerate() {
        let head = index / q_len;
        let first = (head / q_heads * kv_heads + head % q_heads / (q_heads / kv_heads)) * kv_len;
        let seen = if causal { (index % q_len + 1 + kv_len).saturating_sub(q_len) } else { kv_len };
        let (keys, values) = (&k[first * head_dim..][..seen * head_dim], &v[first * value_dim..]);
        let scores = keys
            .chunks_exact(head_dim)
            .map(|key| query.iter().zip(key).map(|(a, b)| a * scale * b).sum::<f32>());
        let scores: Vec<_> = scores.collect();
        let maximum = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<_> = scores.iter().map(|score| (score - maximum).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let mut row = vec![0.0; value_dim];
        for (weight, value) in weights.iter().zip(values.chunks_exact(value_dim)) {
            for (out, value) in row.iter_mut().zip(value) {
                *out += weight / sum * value;
            }
        }
        out.extend(row);
    }
    out
}

/// The greatest difference.
fn error(got: impl IntoIterator<Item = f64>, exact: &[f64]) -> f64 {
    got.into_iter().zip(exact).map(|(got, exact)| (got - exact).abs()).fold(0.0, f64::max)
}

/// The greatest error of each level over the grid, with the inputs of the first type and the output of the second.
fn measured<T: Number, O: Number>(seed: u64) -> Vec<(Level, f64)> {
    let mut rng = Rng(seed);
    let mut worst: Vec<_> = levels().map(|level| (level, 0.0f64)).collect();
    for shape in grid(times(8), &mut rng) {
        let causal = rng.once_in(2);
        let modifiers = if causal { Modifiers::causal() } else { Modifiers::default() };
        let operands = Operands::<T, T, T>::random(&shape, &mut rng);
        let exact = operands.expected(&shape, &modifiers).exact.out;
        let plain = plain(&shape, causal, &operands.numbers()).into_iter().map(|x| O::of(x.into()).wide());
        let allowed = 2.0 * error(plain, &exact) + 1e-6;
        for (level, worst) in &mut worst {
            let answer = operands.call(&shape, &modifiers, *level).run::<O>();
            let error = error(answer.out.numbers(), &exact);
            assert!(error <= allowed, "{error:e} > {allowed:e}: {} at {level} {shape:?}", T::NAME);
            *worst = worst.max(error);
        }
    }
    worst
}

/// The published table: inputs and output of these types, |v| up to 5, error at most.
fn holds<T: Number, O: Number>(published: f64) {
    for (level, error) in measured::<T, O>(1) {
        println!("| {} → {} | {level} | {error:.2e} |", T::NAME, O::NAME);
        if !cfg!(miri) {
            assert!(error <= published, "{} → {} at {level}: {error:e} > {published:e}", T::NAME, O::NAME);
        }
    }
}

#[test]
fn f32_storage() {
    holds::<f32, f32>(5.5e-6);
}

#[test]
fn f16_storage() {
    holds::<f16, f16>(2.9e-3);
}

#[test]
fn bf16_storage() {
    holds::<bf16, bf16>(1.7e-2);
}

#[test]
fn f16_inputs_to_f32() {
    holds::<f16, f32>(4.0e-6);
}

#[test]
fn bf16_inputs_to_f32() {
    holds::<bf16, f32>(4.0e-6);
}
