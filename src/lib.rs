//! Grouped-query attention (GQA; multi-head and multi-query are its ends) for CPUs: one fused pass over flat
//! slices, no allocation, no threads of its own, the instruction set chosen at run time.
//!
//! ```
//! use gqa::{Attention, Shape, View, ViewMut, f16};
//!
//! // 9 query heads on 3 KV heads; 4 new tokens against a cache of 20, causal, K and V stored as f16.
//! let shape = Shape { batch: 1, q_heads: 9, kv_heads: 3, q_len: 4, kv_len: 20, head_dim: 64, value_dim: 64 };
//! let q = vec![0.25f32; 9 * 4 * 64];
//! // A cache with room for 128 tokens, [token, head, dim], of which the call reads the first 20.
//! let k_cache = vec![f16::from_f32(0.5); 128 * 3 * 64];
//! let v_cache = vec![f16::from_f32(2.0); 128 * 3 * 64];
//! let mut out = vec![0.0f32; 4 * 9 * 64];
//! let mut scratch = vec![0.0f32; shape.scratch_len()];
//!
//! Attention::new(shape)?
//!     .causal()
//!     .bind(
//!         View::bhsd(&q, 9, 4, 64),
//!         View::bshd(&k_cache, 3, 128, 64),
//!         View::bshd(&v_cache, 3, 128, 64),
//!         ViewMut::bshd(&mut out, 9, 4, 64),
//!     )?
//!     .run(&mut scratch)?;
//! assert!(out.iter().all(|x| (x - 2.0).abs() < 1e-6));
//! # Ok::<(), gqa::Error>(())
//! ```
//!
//! - [`grouped_query_attention`] is the defining formula in one call; [`Attention`] is the builder for all else.
//! - [`Shape`], [`View`], [`ViewMut`] and [`Strides`] say what lies where; any strides with contiguous rows.
//! - [`Job`] is a checked call: [`Job::run`] on one thread, or [`Job::items`] on any thread pool.
//! - [`Level`] is an instruction set as a value: the best of the machine by default. [`Bf16Dot`] is when to multiply in bf16.
//! - [`Element`] is what Q, K, V and the output may be stored as: f32, [`struct@f16`] or [`bf16`], each its own.
//!
//! # Numerics
//! Arithmetic is f32, whatever the storage, unless [`Attention::bf16_dot`] allows for bf16. A row that sees no key is exactly 0, its log-sum-exp -∞. A hidden key
//! never influences a row, even if it holds NaN; a visible NaN shows. A row's bits do not depend on what else is in the
//! call, on the order of work items, or on threads. The error bounds are in the README.
//!
//! # Features
//! `std` (default): detection by the standard library on x86. Without it the crate detects by CPUID and XGETBV, and
//! needs neither `std` nor `alloc`. `single-level` leaves all but the best level out of wasm modules, `single-tile` all
//! but one kernel with one tile everywhere: less code, and on short calls less speed.
#![no_std]
#![deny(missing_docs, unreachable_pub)]

#[cfg(any(feature = "std", test))]
extern crate std;

mod ahead;
mod attention;
mod element;
mod error;
mod extra;
mod isa;
mod job;
mod kernel;
mod math;
mod panel;
mod place;
mod score;
mod shape;
mod tiling;
mod view;

pub use attention::{Attention, Bf16Dot, grouped_query_attention};
pub use element::Element;
pub use error::{Error, Operand};
pub use half::{bf16, f16};
pub use isa::Level;
#[cfg(target_has_atomic = "ptr")]
pub use job::Queue;
pub use job::{Item, Items, Job};
pub use score::alibi::alibi_slope;
pub use score::block::Stage;
pub use score::dense::{BiasData, MaskData, MaskStrides};
pub use score::visibility::Alignment;
pub use shape::Shape;
pub use tiling::KvStorage;
pub use view::{Strides, View, ViewMut};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
