//! The C functions against the crate: the same bits for every field of a call, and a status for every mistake.

use core::ffi::{CStr, c_void};
use core::ptr;
use std::vec;
use std::vec::Vec;

use attention::{
    Alignment, Attention, Bf16Dot, Element, Job, Level, MaskStrides, Operand, Shape, Stage, View, ViewMut,
};
use attention::{bf16, f16};

use super::*;

const SHAPE: Shape =
    Shape { batch: 2, q_heads: 6, kv_heads: 2, q_len: 5, kv_len: 19, head_dim: 24, value_dim: 20 };

/// A storage type and its number.
trait Number: Element + PartialEq + core::fmt::Debug {
    const TYPE: gqa_type;
    fn of(x: f32) -> Self;
}

impl Number for f32 {
    const TYPE: gqa_type = GQA_F32;
    fn of(x: f32) -> Self {
        x
    }
}

impl Number for f16 {
    const TYPE: gqa_type = GQA_F16;
    fn of(x: f32) -> Self {
        f16::from_f32(x)
    }
}

impl Number for bf16 {
    const TYPE: gqa_type = GQA_BF16;
    fn of(x: f32) -> Self {
        bf16::from_f32(x)
    }
}

fn numbers<T: Number>(len: usize, seed: usize) -> Vec<T> {
    (0..len).map(|i| T::of(((i * 37 + seed * 101) % 61) as f32 / 15.0 - 2.0)).collect()
}

/// A call of these sizes, and nothing else.
fn of_shape(shape: &Shape) -> gqa_call {
    let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim } = *shape;
    // SAFETY: all zeros are a call, as C may make it.
    let mut call: gqa_call = unsafe { core::mem::zeroed() };
    call.struct_size = size_of::<gqa_call>();
    (call.batch, call.q_heads, call.kv_heads) = (batch, q_heads, kv_heads);
    (call.q_len, call.kv_len, call.head_dim, call.value_dim) = (q_len, kv_len, head_dim, value_dim);
    call
}

/// Operands with room for `SHAPE`, Q and the output [batch, row, head, dim], K and V [batch, head, row, dim].
struct Operands<Q, K, V, O> {
    q: Vec<Q>,
    k: Vec<K>,
    v: Vec<V>,
    out: Vec<O>,
    lse: Vec<f32>,
    scores: Vec<f32>,
    slopes: Vec<f32>,
    sinks: Vec<f32>,
    bias: Vec<f16>,
    mask: Vec<bool>,
    query_lengths: Vec<usize>,
    key_lengths: Vec<usize>,
    prefix_lengths: Vec<usize>,
}

impl<Q: Number, K: Number, V: Number, O: Number> Operands<Q, K, V, O> {
    fn new() -> Self {
        let Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim } = SHAPE;
        Self {
            q: numbers(batch * q_heads * q_len * head_dim, 1),
            k: numbers(batch * kv_heads * kv_len * head_dim, 2),
            v: numbers(batch * kv_heads * kv_len * value_dim, 3),
            out: numbers(batch * q_heads * q_len * value_dim, 4),
            lse: numbers(batch * q_heads * q_len, 5),
            scores: numbers(batch * q_heads * q_len * kv_len, 6),
            slopes: (0..q_heads).map(|head| attention::alibi_slope(head, q_heads)).collect(),
            sinks: numbers(q_heads, 7),
            bias: numbers(batch * kv_len, 8),
            mask: (0..q_len * kv_len).map(|i| i % 7 != 3).collect(),
            query_lengths: vec![q_len - 2, q_len],
            key_lengths: vec![kv_len, kv_len - 4],
            prefix_lengths: vec![2, 0],
        }
    }

    fn call(&mut self) -> gqa_call {
        let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = SHAPE;
        let mut call = of_shape(&SHAPE);
        call.q = input(&self.q, gqa_strides_bshd(q_heads, q_len, head_dim));
        call.k = input(&self.k, gqa_strides_bhsd(kv_heads, kv_len, head_dim));
        call.v = input(&self.v, gqa_strides_bhsd(kv_heads, kv_len, value_dim));
        call.out = output(&mut self.out, gqa_strides_bshd(q_heads, q_len, value_dim));
        call
    }

    /// The same call with every optional part.
    fn full_call(&mut self) -> gqa_call {
        let Shape { q_heads, q_len, kv_len, .. } = SHAPE;
        let mut call = self.call();
        call.lse = float_output(&mut self.lse, gqa_strides_bhsd(q_heads, q_len, 1));
        call.scores = float_output(&mut self.scores, gqa_strides_bhsd(q_heads, q_len, kv_len));
        call.stage = GQA_STAGE_SOFTMAX;
        call.flags = GQA_SCALE | GQA_LEFT_WINDOW | GQA_RIGHT_WINDOW;
        (call.scale, call.softcap, call.left_window, call.right_window) = (0.25, 20.0, 11, 1);
        (call.alignment, call.offset) = (GQA_OFFSET, 12);
        call.query_lengths = gqa_lengths { data: self.query_lengths.as_ptr(), len: self.query_lengths.len() };
        call.key_lengths = gqa_lengths { data: self.key_lengths.as_ptr(), len: self.key_lengths.len() };
        call.prefix_lengths =
            gqa_lengths { data: self.prefix_lengths.as_ptr(), len: self.prefix_lengths.len() };
        call.alibi_slopes = gqa_numbers { data: self.slopes.as_ptr(), len: self.slopes.len() };
        call.sinks = gqa_numbers { data: self.sinks.as_ptr(), len: self.sinks.len() };
        let strides = gqa_mask_strides { batch: kv_len, head: 0, row: 0, key: 1 };
        call.bias =
            gqa_bias { data: self.bias.as_ptr().cast(), len: self.bias.len(), r#type: GQA_F16, strides };
        let strides = gqa_mask_strides { batch: 0, head: 0, row: kv_len, key: 1 };
        call.mask = gqa_mask { data: self.mask.as_ptr(), len: self.mask.len(), strides };
        call
    }

    /// What `full_call` computes, by the crate.
    fn full_run(&mut self, level: Level) {
        let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = SHAPE;
        let mut job: Job<'_, Q, K, V, O> = Attention::new(SHAPE)
            .unwrap()
            .level(level)
            .scale(0.25)
            .softcap(20.0)
            .left_window(11)
            .right_window(1)
            .align(Alignment::Offset(12))
            .query_lengths(&self.query_lengths)
            .key_lengths(&self.key_lengths)
            .prefix_lengths(&self.prefix_lengths)
            .alibi(&self.slopes)
            .sinks(&self.sinks)
            .bias(&self.bias[..], MaskStrides::keys(kv_len))
            .mask(&self.mask[..], MaskStrides::rows(kv_len))
            .bind(
                View::bshd(&self.q, q_heads, q_len, head_dim),
                View::bhsd(&self.k, kv_heads, kv_len, head_dim),
                View::bhsd(&self.v, kv_heads, kv_len, value_dim),
                ViewMut::bshd(&mut self.out, q_heads, q_len, value_dim),
            )
            .unwrap()
            .lse(ViewMut::bhsd(&mut self.lse, q_heads, q_len, 1))
            .unwrap()
            .inspect(Stage::Softmax, ViewMut::bhsd(&mut self.scores, q_heads, q_len, kv_len))
            .unwrap();
        job.run(&mut vec![0.0; job.scratch_len()]).unwrap();
    }
}

fn input<T: Number>(data: &[T], strides: gqa_strides) -> gqa_input {
    gqa_input { data: data.as_ptr().cast(), len: data.len(), r#type: T::TYPE, strides }
}

fn output<T: Number>(data: &mut [T], strides: gqa_strides) -> gqa_output {
    gqa_output { data: data.as_mut_ptr().cast(), len: data.len(), r#type: T::TYPE, strides }
}

fn float_output(data: &mut [f32], strides: gqa_strides) -> gqa_float_output {
    gqa_float_output { data: data.as_mut_ptr(), len: data.len(), strides }
}

/// The numbers of the levels of this machine, with the crate's own.
fn levels() -> impl Iterator<Item = (gqa_level, Level)> {
    (GQA_LEVEL_SCALAR..=GQA_LEVEL_RELAXED_SIMD).filter(|&level| gqa_level_is_available(level)).map(|number| {
        // SAFETY: the name of a level ends with a NUL and lives for ever.
        let name = unsafe { CStr::from_ptr(gqa_level_name(number)) };
        (number, Level::named(name.to_str().unwrap()).unwrap())
    })
}

fn scratch_of(call: &gqa_call) -> Vec<f32> {
    let mut len = 0;
    // SAFETY: the pointers are those of living variables.
    assert_eq!(unsafe { gqa_scratch_len(call, &mut len, ptr::null_mut()) }, GQA_OK);
    vec![0.0; len]
}

fn run(call: &gqa_call) -> Result<(), gqa_error> {
    let mut scratch = scratch_of(call);
    run_with(call, scratch.as_mut_ptr(), scratch.len())
}

fn run_with(call: *const gqa_call, scratch: *mut f32, len: usize) -> Result<(), gqa_error> {
    let mut error = gqa_error::new(GQA_OK, c"");
    // SAFETY: the tests' pointers are NULL, refused before they are followed, or those of living variables.
    match unsafe { gqa_run(call, scratch, len, &mut error) } {
        GQA_OK => Ok(()),
        status => {
            assert_eq!(status, error.status);
            Err(error)
        }
    }
}

/// The status and the operand of the error that a call ends with.
fn refused(result: Result<(), gqa_error>) -> (gqa_status, &'static str) {
    let error = result.unwrap_err();
    // SAFETY: an operand is never NULL and lives for ever.
    (error.status, unsafe { CStr::from_ptr(error.operand) }.to_str().unwrap())
}

fn agree<Q: Number, K: Number, V: Number, O: Number>() {
    for (number, level) in levels() {
        let (mut got, mut want) = (Operands::<Q, K, V, O>::new(), Operands::<Q, K, V, O>::new());
        let mut call = got.full_call();
        call.level = number;
        run(&call).unwrap();
        want.full_run(level);
        assert_eq!(got.out, want.out, "{level}");
        assert_eq!(got.lse, want.lse, "{level}");
        assert_eq!(got.scores, want.scores, "{level}");
    }
}

#[test]
fn every_field_means_what_it_means_in_rust() {
    agree::<f32, f32, f32, f32>();
    agree::<bf16, f16, f16, f32>();
    agree::<f32, bf16, bf16, f16>();
}

/// GQA_BF16_DOT is what `Bf16Dot::WhereFaster` is, and changes nothing for floats.
#[test]
fn products_of_bf16_are_where_the_crate_has_them() {
    for (number, level) in levels() {
        let mut got = Operands::<bf16, bf16, bf16, f32>::new();
        let mut want = Operands::<bf16, bf16, bf16, f32>::new();
        let mut call = got.call();
        (call.level, call.flags) = (number, GQA_BF16_DOT);
        run(&call).unwrap();
        let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = SHAPE;
        let mut job: Job<'_, bf16, bf16, bf16, f32> = Attention::new(SHAPE)
            .unwrap()
            .level(level)
            .bf16_dot(Bf16Dot::WhereFaster)
            .bind(
                View::bshd(&want.q, q_heads, q_len, head_dim),
                View::bhsd(&want.k, kv_heads, kv_len, head_dim),
                View::bhsd(&want.v, kv_heads, kv_len, value_dim),
                ViewMut::bshd(&mut want.out, q_heads, q_len, value_dim),
            )
            .unwrap();
        job.run(&mut vec![0.0; job.scratch_len()]).unwrap();
        assert_eq!(got.out, want.out);

        let outputs = [0, GQA_BF16_DOT].map(|flags| {
            let mut operands = Operands::<f32, f32, f32, f32>::new();
            let mut call = operands.call();
            (call.level, call.flags) = (number, flags);
            run(&call).unwrap();
            operands.out
        });
        assert_eq!(outputs[0], outputs[1]);
    }
}

#[test]
fn zeros_are_the_defaults() {
    let mut operands = Operands::<f32, f32, f32, f32>::new();
    run(&operands.call()).unwrap();
    let Shape { q_heads, kv_heads, q_len, kv_len, head_dim, value_dim, .. } = SHAPE;
    let mut out = vec![0.0f32; operands.out.len()];
    let mut job = Attention::new(SHAPE)
        .unwrap()
        .bind(
            View::bshd(&operands.q, q_heads, q_len, head_dim),
            View::bhsd(&operands.k, kv_heads, kv_len, head_dim),
            View::bhsd(&operands.v, kv_heads, kv_len, value_dim),
            ViewMut::bshd(&mut out, q_heads, q_len, value_dim),
        )
        .unwrap();
    job.run(&mut vec![0.0; job.scratch_len()]).unwrap();
    assert_eq!(operands.out, out);
}

/// Fewer threads have fewer and greater items of a cache whose heads lie beside each other, with shared keys too; the bits stay the same.
#[test]
fn few_threads_have_few_items() {
    let shape =
        Shape { batch: 1, q_heads: 8, kv_heads: 4, q_len: 1, kv_len: 1200, head_dim: 64, value_dim: 32 };
    let (q, k, v) =
        (numbers::<f32>(8 * 64, 1), numbers::<f32>(4 * 1200 * 64, 2), numbers::<f32>(4 * 1200 * 32, 3));
    for (level, _) in levels() {
        let of_threads = |threads, shares| {
            let mut out = [f32::NAN; 8 * 32];
            let mut partials = vec![f32::NAN; if shares { shape.partials_len() } else { 0 }];
            let mut call = of_shape(&shape);
            call.level = level;
            call.q = input(&q, gqa_strides_bhsd(8, 1, 64));
            call.k = input(&k, gqa_strides { batch: 0, head: 64, row: 4 * 64 });
            call.v = input(&v, gqa_strides { batch: 0, head: 32, row: 4 * 32 });
            call.out = output(&mut out, gqa_strides_bhsd(8, 1, 32));
            call.threads = threads;
            if shares {
                call.partials = gqa_floats { data: partials.as_mut_ptr(), len: partials.len() };
            }
            let (mut count, mut scratch) = (0, scratch_of(&call));
            // SAFETY: the pointers are those of living variables.
            unsafe {
                assert_eq!(gqa_item_count(&call, &mut count, ptr::null_mut()), GQA_OK);
                let (scratch, len) = (scratch.as_mut_ptr(), scratch.len());
                assert_eq!(gqa_run_items(&call, 0, count, scratch, len, ptr::null_mut()), GQA_OK);
            }
            (count, out)
        };
        let splits = level != GQA_LEVEL_SCALAR && !cfg!(feature = "single-tile");
        let together = splits && cfg!(any(target_arch = "x86", target_arch = "x86_64"));
        let (_, want) = of_threads(0, false);
        for (threads, [alone, shared]) in [(0, [4, 8]), (1, [1, 2]), (2, [4, 4]), (64, [4, 8])] {
            let alone = if together { alone } else { 4 };
            let shared = match (splits, together) {
                (_, true) => shared,
                (true, false) => 8,
                (false, false) => 4,
            };
            let what = format!("{threads} threads at {level}");
            assert_eq!(of_threads(threads, false), (alone, want), "{what}");
            assert_eq!(of_threads(threads, true), (shared, want), "{what}, shared keys");
        }
    }
}

/// Three threads share keys, twice in the same memory; the bits are those of one thread.
#[test]
fn shared_keys_add_up_to_a_run() {
    let shape =
        Shape { batch: 2, q_heads: 6, kv_heads: 1, q_len: 1, kv_len: 2000, head_dim: 9, value_dim: 7 };
    let (q, k, v) =
        (numbers::<f32>(2 * 6 * 9, 1), numbers::<f32>(2 * 2000 * 9, 2), numbers::<f32>(2 * 2000 * 7, 3));
    for (level, _) in levels() {
        let mut outs = [[0.0f32; 2 * 6 * 7]; 2];
        let mut partials = Vec::new();
        for (shared, out) in [false, true, true].into_iter().zip([0, 1, 1]) {
            let out = &mut outs[out];
            out.fill(f32::NAN);
            let mut call = of_shape(&shape);
            call.level = level;
            call.q = input(&q, gqa_strides_bhsd(6, 1, 9));
            call.k = input(&k, gqa_strides_bhsd(1, 2000, 9));
            call.v = input(&v, gqa_strides_bhsd(1, 2000, 7));
            call.out = output(out, gqa_strides_bhsd(6, 1, 7));
            if !shared {
                run(&call).unwrap();
                continue;
            }
            let (mut len, mut count) = (0, 0);
            // SAFETY: the pointers are those of living variables.
            unsafe {
                assert_eq!(gqa_partials_len(&call, &mut len, ptr::null_mut()), GQA_OK);
                partials.resize(len, f32::NAN);
                if len > 0 {
                    call.partials = gqa_floats { data: partials.as_mut_ptr(), len: len - 1 };
                    assert_eq!(gqa_item_count(&call, &mut count, ptr::null_mut()), GQA_ERROR_TOO_SHORT);
                    call.partials.len = len;
                }
                assert_eq!(gqa_item_count(&call, &mut count, ptr::null_mut()), GQA_OK);
            }
            let split = level != GQA_LEVEL_SCALAR && !cfg!(feature = "single-tile");
            assert!(if split { count == 6 && len > 0 } else { count <= 4 });
            /// For threads: what the pointers in it lead to is lent to all of them.
            struct Shared<'a>(&'a gqa_call);
            // SAFETY: as above.
            unsafe impl Sync for Shared<'_> {}
            let (shared, next) = (&Shared(&call), &core::sync::atomic::AtomicUsize::new(0));
            std::thread::scope(|threads| {
                for _ in 0..3 {
                    threads.spawn(move || {
                        let Shared(call) = shared;
                        let mut scratch = scratch_of(call);
                        loop {
                            let item = next.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
                            if item >= count {
                                break;
                            }
                            let (scratch, len) = (scratch.as_mut_ptr(), scratch.len());
                            // SAFETY: each item is run once, with a scratch of the thread's own.
                            let status =
                                unsafe { gqa_run_items(*call, item, 1, scratch, len, ptr::null_mut()) };
                            assert_eq!(status, GQA_OK);
                        }
                    });
                }
            });
            assert_eq!(outs[1], outs[0]);
        }
    }
}

#[test]
fn items_add_up_to_a_run() {
    for (level, _) in levels() {
        let (mut whole, mut parts) =
            (Operands::<f32, f32, f32, f32>::new(), Operands::<f32, f32, f32, f32>::new());
        let mut call = whole.full_call();
        call.level = level;
        run(&call).unwrap();
        let mut call = parts.full_call();
        call.level = level;
        let (mut count, mut error) = (0, gqa_error::new(GQA_OK, c""));
        let mut scratch = scratch_of(&call);
        // SAFETY: the pointers are those of living variables.
        unsafe {
            assert_eq!(gqa_item_count(&call, &mut count, &mut error), GQA_OK);
            assert!(count >= 4);
            for first in (0..count).rev() {
                let (scratch, len) = (scratch.as_mut_ptr(), scratch.len());
                assert_eq!(gqa_run_items(&call, first, 1, scratch, len, &mut error), GQA_OK);
            }
            let (scratch, len) = (scratch.as_mut_ptr(), scratch.len());
            assert_eq!(gqa_run_items(&call, count, 0, scratch, len, &mut error), GQA_OK);
            for (first, more) in [(count, 1), (0, count + 1), (usize::MAX, 2), (1, usize::MAX)] {
                assert_eq!(gqa_run_items(&call, first, more, scratch, len, &mut error), GQA_ERROR_ITEMS);
                assert_eq!(error.needed, count);
            }
        }
        assert_eq!(whole.out, parts.out);
        assert_eq!(whole.lse, parts.lse);
        assert_eq!(whole.scores, parts.scores);
    }
}

/// That a change of a full call is refused so, and that nothing is written.
fn refuses(status: gqa_status, operand: &str, change: impl FnOnce(&mut gqa_call)) {
    let mut operands = Operands::<f32, f32, f32, f32>::new();
    let mut call = operands.full_call();
    change(&mut call);
    let mut scratch = vec![0.0; 1 << 16];
    assert_eq!(refused(run_with(&call, scratch.as_mut_ptr(), scratch.len())), (status, operand));
    let untouched = Operands::<f32, f32, f32, f32>::new();
    assert_eq!(operands.out, untouched.out);
    assert_eq!(operands.lse, untouched.lse);
    assert_eq!(operands.scores, untouched.scores);
}

#[test]
fn what_is_not_there_is_refused() {
    refuses(GQA_ERROR_NULL, "q", |call| call.q.data = ptr::null());
    refuses(GQA_ERROR_NULL, "k", |call| call.k.data = ptr::null());
    refuses(GQA_ERROR_NULL, "v", |call| call.v.data = ptr::null());
    refuses(GQA_ERROR_NULL, "out", |call| call.out.data = ptr::null_mut());
    refuses(GQA_ERROR_NULL, "lse", |call| call.lse.data = ptr::null_mut());
    refuses(GQA_ERROR_NULL, "scores", |call| call.scores.data = ptr::null_mut());
    refuses(GQA_ERROR_NULL, "query_lengths", |call| call.query_lengths.data = ptr::null());
    refuses(GQA_ERROR_NULL, "key_lengths", |call| call.key_lengths.data = ptr::null());
    refuses(GQA_ERROR_NULL, "prefix_lengths", |call| call.prefix_lengths.data = ptr::null());
    refuses(GQA_ERROR_NULL, "alibi_slopes", |call| call.alibi_slopes.data = ptr::null());
    refuses(GQA_ERROR_NULL, "sinks", |call| call.sinks.data = ptr::null());
    refuses(GQA_ERROR_NULL, "bias", |call| call.bias.data = ptr::null());
    refuses(GQA_ERROR_NULL, "mask", |call| call.mask.data = ptr::null());
    let mut operands = Operands::<f32, f32, f32, f32>::new();
    let call = operands.call();
    assert_eq!(refused(run_with(&call, ptr::null_mut(), 1)), (GQA_ERROR_NULL, "scratch"));
    assert_eq!(refused(run_with(&call, ptr::null_mut(), 0)), (GQA_ERROR_TOO_SHORT, "scratch"));
    assert_eq!(refused(run_with(ptr::null(), ptr::null_mut(), 0)), (GQA_ERROR_NULL, "call"));
    // SAFETY: the pointers are NULL or those of living variables.
    unsafe {
        assert_eq!(gqa_scratch_len(&call, ptr::null_mut(), ptr::null_mut()), GQA_ERROR_NULL);
        assert_eq!(gqa_item_count(&call, ptr::null_mut(), ptr::null_mut()), GQA_ERROR_NULL);
    }
}

#[test]
fn what_is_not_aligned_is_refused() {
    refuses(GQA_ERROR_UNALIGNED, "q", |call| call.q.data = call.q.data.wrapping_byte_add(2));
    refuses(GQA_ERROR_UNALIGNED, "out", |call| call.out.data = call.out.data.wrapping_byte_add(1));
    refuses(GQA_ERROR_UNALIGNED, "lse", |call| call.lse.data = call.lse.data.wrapping_byte_add(2));
    refuses(GQA_ERROR_UNALIGNED, "bias", |call| call.bias.data = call.bias.data.wrapping_byte_add(1));
    let mut operands = Operands::<f32, f32, f32, f32>::new();
    let call = operands.call();
    let mut scratch = scratch_of(&call);
    let odd = scratch.as_mut_ptr().wrapping_byte_add(1);
    assert_eq!(refused(run_with(&call, odd, scratch.len() - 1)), (GQA_ERROR_UNALIGNED, "scratch"));
    let odd = ptr::from_ref(&call).wrapping_byte_add(4);
    assert_eq!(refused(run_with(odd, ptr::null_mut(), 0)), (GQA_ERROR_UNALIGNED, "call"));
}

#[test]
fn written_memory_is_nobody_elses() {
    refuses(GQA_ERROR_ALIASED, "out", |call| call.out.data = call.q.data.cast_mut());
    // Also where only the last byte is shared, and where what is shared lies between the rows.
    refuses(GQA_ERROR_ALIASED, "out", |call| {
        call.v.data = call.out.data.wrapping_byte_add(call.out.len * 4 - 4)
    });
    refuses(GQA_ERROR_ALIASED, "out", |call| call.lse.data = call.out.data.cast());
    refuses(GQA_ERROR_ALIASED, "lse", |call| call.scores.data = call.lse.data);
    refuses(GQA_ERROR_ALIASED, "lse", |call| call.sinks.data = call.lse.data);
    refuses(GQA_ERROR_ALIASED, "scores", |call| call.mask.data = call.scores.data.cast());
    let mut operands = Operands::<f32, f32, f32, f32>::new();
    let call = operands.call();
    let (out, len) = (operands.out.as_mut_ptr(), operands.out.len());
    assert_eq!(refused(run_with(&call, out, len)), (GQA_ERROR_ALIASED, "out"));
    let (k, len) = (operands.k.as_mut_ptr(), operands.k.len());
    assert_eq!(refused(run_with(&call, k, len)), (GQA_ERROR_ALIASED, "scratch"));
    // Inputs may overlap: V as a view of K.
    let mut call = operands.call();
    call.v = gqa_input { strides: call.k.strides, ..call.k };
    run(&call).unwrap();
}

#[test]
fn unknown_values_are_refused() {
    refuses(GQA_ERROR_STRUCT_SIZE, "struct_size", |call| call.struct_size -= 8);
    refuses(GQA_ERROR_STRUCT_SIZE, "struct_size", |call| call.struct_size += 8);
    refuses(GQA_ERROR_VALUE, "q", |call| call.q.r#type = 3);
    refuses(GQA_ERROR_VALUE, "k", |call| call.k.r#type = 3);
    refuses(GQA_ERROR_VALUE, "v", |call| call.v.r#type = u32::MAX);
    refuses(GQA_ERROR_VALUE, "out", |call| call.out.r#type = 3);
    refuses(GQA_ERROR_VALUE, "bias", |call| call.bias.r#type = 3);
    refuses(GQA_ERROR_VALUE, "flags", |call| call.flags |= 32);
    refuses(GQA_ERROR_VALUE, "alignment", |call| call.alignment = 3);
    refuses(GQA_ERROR_VALUE, "stage", |call| call.stage = 4);
    refuses(GQA_ERROR_LEVEL, "level", |call| call.level = 7);
    #[cfg(not(feature = "mixed-kv"))]
    refuses(GQA_ERROR_TYPE, "v", |call| call.v.r#type = GQA_BF16);
}

#[test]
fn the_crates_errors_have_their_statuses() {
    refuses(GQA_ERROR_ZERO, "head_dim", |call| call.head_dim = 0);
    refuses(GQA_ERROR_HEADS, "kv_heads", |call| call.kv_heads = 4);
    refuses(GQA_ERROR_OVERFLOW, "q", |call| call.q.strides.batch = usize::MAX);
    refuses(GQA_ERROR_OVERFLOW, "k", |call| call.k.len = usize::MAX / 2);
    refuses(GQA_ERROR_TOO_SHORT, "k", |call| call.k.len -= 1);
    refuses(GQA_ERROR_TOO_SHORT, "scores", |call| call.scores.len = 0);
    refuses(GQA_ERROR_WRONG_COUNT, "sinks", |call| call.sinks.len = 5);
    refuses(GQA_ERROR_TOO_LONG, "query_lengths", |call| call.query_lengths.data = [1, 6].as_ptr());
    refuses(GQA_ERROR_TOO_LONG, "key_lengths", |call| call.key_lengths.data = [1, 20].as_ptr());
    refuses(GQA_ERROR_OVERLAP, "out", |call| call.out.strides.row = 1);
    refuses(GQA_ERROR_DOMAIN, "softcap", |call| call.softcap = -1.0);
    refuses(GQA_ERROR_DOMAIN, "scale", |call| call.scale = f32::NAN);
}

#[test]
fn details_are_told() {
    let mut operands = Operands::<f32, f32, f32, f32>::new();
    let mut call = operands.full_call();
    call.sinks.data = [0.0, 1.0, f32::INFINITY, 3.0, 4.0, 5.0].as_ptr();
    let error = run(&call).unwrap_err();
    assert_eq!((error.index, error.number), (2, f32::INFINITY));
    let mut call = operands.full_call();
    call.k.len -= 7;
    let error = run(&call).unwrap_err();
    assert_eq!((error.needed, error.had), (2 * 2 * 19 * 24, 2 * 2 * 19 * 24 - 7));
}

#[test]
fn statuses_have_messages_and_operands_their_names() {
    let message = |status| {
        // SAFETY: a message is never NULL and lives for ever.
        unsafe { CStr::from_ptr(gqa_message(status)) }.to_str().unwrap()
    };
    let unknown = message(-1);
    assert!((GQA_OK..=GQA_ERROR_DOMAIN).all(|status| message(status) != unknown));
    assert_eq!(message(GQA_ERROR_DOMAIN + 1), unknown);
    use Operand::*;
    let sizes = [Batch, QHeads, KvHeads, QLen, KvLen, HeadDim, ValueDim];
    let arrays = [Query, Key, Value, Output, Lse, Scores, Bias, Mask, Scratch, Partials];
    let modifiers = [QueryLengths, KeyLengths, PrefixLengths, AlibiSlopes, Sinks, Scale, Softcap];
    for operand in sizes.into_iter().chain(arrays).chain(modifiers) {
        assert_eq!(name(operand).to_str(), Ok(operand.to_string().as_str()));
    }
    // SAFETY: a version is never NULL and lives for ever.
    assert_eq!(unsafe { CStr::from_ptr(gqa_version()) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}

#[test]
fn levels_have_names() {
    assert!(gqa_level_is_available(GQA_LEVEL_SCALAR) && gqa_level_is_available(gqa_level_best()));
    assert_eq!(levels().map(|(_, level)| level).collect::<Vec<_>>(), Level::available().collect::<Vec<_>>());
    assert!(gqa_level_name(7).is_null());
    assert_eq!(gqa_level_name(GQA_LEVEL_BEST), gqa_level_name(gqa_level_best()));
}

#[test]
fn a_call_without_elements_needs_no_memory() {
    let mut operands = Operands::<f32, f32, f32, f32>::new();
    let mut call = operands.call();
    call.batch = 0;
    for input in [&mut call.q, &mut call.k, &mut call.v] {
        (input.data, input.len) = (ptr::null::<c_void>(), 0);
    }
    (call.out.data, call.out.len) = (ptr::null_mut(), 0);
    run(&call).unwrap();
}
