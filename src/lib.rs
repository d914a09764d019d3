//! Grouped-query attention for CPUs.
#![no_std]
#![deny(missing_docs, unreachable_pub)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "std", test))]
extern crate std;

mod attention;
mod element;
mod error;
mod isa;
mod job;
mod kernel;
mod math;
mod panel;
mod score;
mod shape;
mod tiling;
mod view;

pub use attention::{Attention, grouped_query_attention};
pub use element::Element;
pub use error::{Error, Operand};
pub use half::{bf16, f16};
pub use isa::Level;
pub use job::{Item, Items, Job};
pub use score::alibi::alibi_slope;
pub use score::block::Stage;
pub use score::dense::{BiasData, MaskStrides};
pub use score::visibility::Alignment;
pub use shape::Shape;
pub use tiling::KvStorage;
pub use view::{Strides, View, ViewMut};
