//! The tests of the public interface, in one program: what they share is compiled once, and the kernels are most of it.
//! `cargo test --test all bits::` runs one of these.

mod allocation;
mod bf16_dot;
mod bits;
mod conformance;
mod errors;
mod grid;
mod miri;
mod modifiers;
mod numerics;
mod properties;
mod rooms;
#[path = "../support/mod.rs"]
mod support;
