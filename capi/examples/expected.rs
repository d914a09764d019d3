//! What the C examples must print, by the crate itself:
//! `cargo run --release --example expected -- tests/vectors/smollm2/prefill_layer00.safetensors`.

use std::error::Error;

use attention::{Attention, Level, Shape, Strides, View, ViewMut};
use safetensors::SafeTensors;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::fs::read(std::env::args().nth(1).ok_or("usage: expected FILE")?)?;
    let tensors = SafeTensors::deserialize(&file)?;
    let numbers = |name: &str| -> Result<Vec<f32>, Box<dyn Error>> {
        let bytes = tensors.tensor(name)?.data().as_chunks().0;
        Ok(bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    };
    let (q, k, v) = (numbers("in.query")?, numbers("in.key")?, numbers("in.value")?);
    let want = numbers("out.output")?;
    let [batch, q_heads, q_len, head_dim] = tensors.tensor("in.query")?.shape().try_into()?;
    let [_, kv_heads, kv_len, value_dim] = tensors.tensor("in.value")?.shape().try_into()?;
    let shape = Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim };

    for level in Level::available() {
        let mut out = vec![0.0f32; want.len()];
        let mut scratch = vec![0.0; shape.scratch_len()];
        Attention::new(shape)?
            .causal()
            .level(level)
            .bind(
                View::bhsd(&q, q_heads, q_len, head_dim),
                View::bhsd(&k, kv_heads, kv_len, head_dim),
                View::bhsd(&v, kv_heads, kv_len, value_dim),
                ViewMut::bhsd(&mut out, q_heads, q_len, value_dim),
            )?
            .run(&mut scratch)?;
        report("prefill", level, &out, &want);
    }
    for level in Level::available() {
        let mut out = vec![0.0f32; want.len()];
        for token in 0..q_len {
            let shape = Shape { q_len: 1, kv_len: token + 1, ..shape };
            let mut scratch = vec![0.0; shape.scratch_len()];
            let row = |dim| Strides { batch: 0, head: q_len * dim, row: 0 };
            Attention::new(shape)?
                .level(level)
                .bind(
                    View::new(&q[token * head_dim..], row(head_dim)),
                    View::bhsd(&k, kv_heads, kv_len, head_dim),
                    View::bhsd(&v, kv_heads, kv_len, value_dim),
                    ViewMut::new(&mut out[token * value_dim..], row(value_dim)),
                )?
                .run(&mut scratch)?;
        }
        report("decode", level, &out, &want);
    }
    Ok(())
}

fn report(what: &str, level: Level, got: &[f32], want: &[f32]) {
    let error = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
    let bytes = got.iter().flat_map(|x| x.to_ne_bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    // As C writes an exponent, with two digits.
    let error = format!("{error:.1e}").replace("e-", "e-0");
    println!("{what} {level}: error {error}, bits {hash:016x}");
}
