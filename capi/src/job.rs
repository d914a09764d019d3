//! From the types in a descriptor to the job of these types.

use core::ffi::CStr;

#[cfg(feature = "bf16")]
use attention::bf16;
#[cfg(feature = "f16")]
use attention::f16;
use attention::{Attention, Element, View, ViewMut};

use crate::call::{GQA_BF16, GQA_F16, GQA_F32, Modifiers, gqa_call, gqa_float_output, gqa_input, gqa_type};
use crate::error::{GQA_ERROR_ITEMS, GQA_ERROR_TYPE, GQA_ERROR_VALUE, gqa_error};
use crate::memory::{Memory, check_apart};

/// What to do with a job.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Count,
    All,
    Items { first: usize, count: usize },
}

/// A call whose modifiers have been taken in, on its way to the job of its types.
struct Binding<'a> {
    call: &'a gqa_call,
    work: Work,
    scratch: Option<Memory<f32>>,
}

/// Checks the call and does the work; returns the number of items.
///
/// # Safety
/// The memory that the call names is there, what is read has values, nobody writes it meanwhile, and nobody reads or
/// writes the scratch and the rows of the items that are run.
pub(crate) unsafe fn work(
    call: &gqa_call,
    work: Work,
    scratch: Option<Memory<f32>>,
) -> Result<usize, gqa_error> {
    let binding = Binding { call, work, scratch };
    // SAFETY: the caller's promise.
    unsafe {
        match call.q.r#type {
            GQA_F32 => binding.of_k::<f32>(),
            #[cfg(feature = "f16")]
            GQA_F16 => binding.of_k::<f16>(),
            #[cfg(feature = "bf16")]
            GQA_BF16 => binding.of_k::<bf16>(),
            other => Err(refused(c"q", other)),
        }
    }
}

/// Why there is no job of a type.
fn refused(operand: &'static CStr, r#type: gqa_type) -> gqa_error {
    let known = matches!(r#type, GQA_F32 | GQA_F16 | GQA_BF16);
    gqa_error::new(if known { GQA_ERROR_TYPE } else { GQA_ERROR_VALUE }, operand)
}

fn elements<T>(operand: &'static CStr, input: &gqa_input) -> Result<Memory<T>, gqa_error> {
    Memory::new(operand, input.data.cast(), input.len)
}

fn floats(operand: &'static CStr, output: &gqa_float_output) -> Result<Option<Memory<f32>>, gqa_error> {
    Memory::optional(operand, output.data, output.len)
}

/// Each method is as unsafe as [`work`].
impl Binding<'_> {
    unsafe fn of_k<Q: Element>(&self) -> Result<usize, gqa_error> {
        let types = (self.call.k.r#type, self.call.v.r#type);
        // SAFETY: the caller's promise.
        unsafe {
            match types {
                (GQA_F32, GQA_F32) => self.of_out::<Q, f32, f32>(),
                #[cfg(feature = "f16")]
                (GQA_F16, GQA_F16) => self.of_out::<Q, f16, f16>(),
                #[cfg(feature = "bf16")]
                (GQA_BF16, GQA_BF16) => self.of_out::<Q, bf16, bf16>(),
                #[cfg(all(feature = "mixed-kv", feature = "f16"))]
                (GQA_F32, GQA_F16) => self.of_out::<Q, f32, f16>(),
                #[cfg(all(feature = "mixed-kv", feature = "f16"))]
                (GQA_F16, GQA_F32) => self.of_out::<Q, f16, f32>(),
                #[cfg(all(feature = "mixed-kv", feature = "bf16"))]
                (GQA_F32, GQA_BF16) => self.of_out::<Q, f32, bf16>(),
                #[cfg(all(feature = "mixed-kv", feature = "bf16"))]
                (GQA_BF16, GQA_F32) => self.of_out::<Q, bf16, f32>(),
                #[cfg(all(feature = "mixed-kv", feature = "f16", feature = "bf16"))]
                (GQA_F16, GQA_BF16) => self.of_out::<Q, f16, bf16>(),
                #[cfg(all(feature = "mixed-kv", feature = "f16", feature = "bf16"))]
                (GQA_BF16, GQA_F16) => self.of_out::<Q, bf16, f16>(),
                (GQA_F32 | GQA_F16 | GQA_BF16, other) => Err(refused(c"v", other)),
                (other, _) => Err(refused(c"k", other)),
            }
        }
    }

    unsafe fn of_out<Q: Element, K: Element, V: Element>(&self) -> Result<usize, gqa_error> {
        // SAFETY: the caller's promise.
        unsafe {
            match self.call.out.r#type {
                GQA_F32 => self.bind::<Q, K, V, f32>(),
                #[cfg(feature = "f16")]
                GQA_F16 => self.bind::<Q, K, V, f16>(),
                #[cfg(feature = "bf16")]
                GQA_BF16 => self.bind::<Q, K, V, bf16>(),
                other => Err(refused(c"out", other)),
            }
        }
    }

    unsafe fn bind<Q: Element, K: Element, V: Element, O: Element>(&self) -> Result<usize, gqa_error> {
        let Self { call, work, scratch } = *self;
        let (q, k, v) =
            (elements::<Q>(c"q", &call.q)?, elements::<K>(c"k", &call.k)?, elements::<V>(c"v", &call.v)?);
        let out = Memory::<O>::new(c"out", call.out.data.cast(), call.out.len)?;
        let (lse, scores) = (floats(c"lse", &call.lse)?, floats(c"scores", &call.scores)?);
        let partials = Memory::<f32>::optional(c"partials", call.partials.data, call.partials.len)?;
        let modifiers = Modifiers::of(call)?;
        let [query_lengths, key_lengths, prefix_lengths, alibi_slopes, sinks, bias, mask] =
            modifiers.places();
        check_apart(
            &[
                Some(out.place()),
                lse.map(|memory| memory.place()),
                scores.map(|memory| memory.place()),
                partials.map(|memory| memory.place()),
                scratch.map(|memory| memory.place()),
            ],
            &[
                Some(q.place()),
                Some(k.place()),
                Some(v.place()),
                query_lengths,
                key_lengths,
                prefix_lengths,
                alibi_slopes,
                sinks,
                bias,
                mask,
            ],
        )?;
        // SAFETY: the caller's promise; nothing that is written overlaps anything else.
        unsafe {
            let attention: Attention<'_> = call.attention(&modifiers)?;
            let mut job = attention.bind(
                View::new(q.read(), call.q.strides.into()),
                View::new(k.read(), call.k.strides.into()),
                View::new(v.read(), call.v.strides.into()),
                ViewMut::from_raw(out.share(), call.out.strides.into()),
            )?;
            if let Some(lse) = lse {
                job = job.lse(ViewMut::from_raw(lse.share(), call.lse.strides.into()))?;
            }
            if let Some(scores) = scores {
                let scores = ViewMut::from_raw(scores.share(), call.scores.strides.into());
                job = job.inspect(call.stage()?, scores)?;
            }
            if call.threads > 0 {
                job = job.threads(call.threads);
            }
            #[cfg(target_has_atomic = "ptr")]
            if let Some(partials) = partials {
                job = match work {
                    Work::Items { .. } => job.split_kv_raw(partials.share())?,
                    // Makes them ready.
                    Work::Count | Work::All => job.split_kv(partials.own())?,
                };
            }
            let scratch = scratch.map_or(&mut [][..], |scratch| scratch.own());
            let items = job.items();
            let total = items.len();
            match work {
                Work::Count => {}
                Work::All => job.run(scratch)?,
                Work::Items { first, count } => {
                    if first.checked_add(count).is_none_or(|end| end > total) {
                        let error = gqa_error::new(GQA_ERROR_ITEMS, c"count");
                        return Err(gqa_error { index: first, needed: total, had: count, ..error });
                    }
                    for mut item in items.split_at(first).1.split_at(count).0 {
                        item.run(scratch)?;
                    }
                }
            }
            Ok(total)
        }
    }
}
