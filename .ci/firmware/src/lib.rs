//! A library without `std` and without an allocator that computes attention: it would not compile if the crate,
//! in any storage type or with any modifier, brought in either.
#![no_std]

use gqa::{Attention, Element, Error, Level, MaskStrides, Shape, Stage, View, ViewMut, bf16, f16};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

const SHAPE: Shape =
    Shape { batch: 1, q_heads: 4, kv_heads: 2, q_len: 8, kv_len: 16, head_dim: 16, value_dim: 16 };

/// One call with every modifier: q, k and v contiguous, out too.
fn attend<Q: Element, K: Element, V: Element, O: Element>(
    (q, k, v): (&[Q], &[K], &[V]),
    out: &mut [O],
    numbers: &mut [f32],
    scratch: &mut [f32],
) -> Result<(), Error> {
    let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = SHAPE;
    let slopes =
        [gqa::alibi_slope(0, 4), gqa::alibi_slope(1, 4), gqa::alibi_slope(2, 4), gqa::alibi_slope(3, 4)];
    let (lse, scores) = numbers.split_at_mut_checked(q_heads * q_len).unwrap_or_default();
    Attention::new(SHAPE)?
        .level(Level::detect())
        .causal()
        .softcap(30.0)
        .alibi(&slopes)
        .sinks(&[0.0, 1.0, 2.0, f32::NEG_INFINITY])
        .mask(&[true; 16], MaskStrides::keys(kv_len))
        .bias(&[f16::ONE; 16][..], MaskStrides::keys(kv_len))
        .key_lengths(&[12])
        .prefix_lengths(&[2])
        .left_window(7)
        .bind(
            View::bhsd(q, q_heads, q_len, head_dim),
            View::bhsd(k, kv_heads, kv_len, head_dim),
            View::bhsd(v, kv_heads, kv_len, value_dim),
            ViewMut::bhsd(out, q_heads, q_len, value_dim),
        )?
        .lse(ViewMut::bhsd(lse, q_heads, q_len, 1))?
        .inspect(Stage::Softmax, ViewMut::bhsd(scores, q_heads, q_len, kv_len))?
        .run(scratch)
}

macro_rules! export {
    ($($name:ident: $Q:ty, $K:ty, $V:ty, $O:ty;)*) => {$(
        #[unsafe(no_mangle)]
        fn $name(
            inputs: (&[$Q], &[$K], &[$V]),
            out: &mut [$O],
            numbers: &mut [f32],
            scratch: &mut [f32],
        ) -> bool {
            attend(inputs, out, numbers, scratch).is_ok()
        }
    )*};
}

export! {
    attend_f32: f32, f32, f32, f32;
    attend_f16: f16, f16, f16, f16;
    attend_bf16: bf16, bf16, bf16, bf16;
    attend_mixed: f32, bf16, f16, f32;
}
