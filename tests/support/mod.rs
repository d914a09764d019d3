//! What the integration tests share.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "not an interface")]

pub mod bound;
pub mod buffer;
pub mod call;
pub mod grid;
pub mod modifiers;
pub mod number;
pub mod reference;
pub mod rng;

pub use bound::U;
pub use buffer::{Buffer, LAYOUTS, Layout};
#[cfg(not(target_family = "wasm"))]
pub use call::run_on_threads;
pub use call::{Answer, Call, Expected, Operands, random_operands};
pub use grid::{Case, cell, grid};
pub use modifiers::{Bias, Dense, Modifiers, mask_strides};
pub use number::{Number, Visit, visit_any, visit_pairs, visit_some};
pub use rng::Rng;

use gqa::{Level, Shape};

/// Every level of this machine: the body of each test runs at all of them.
///
/// Where the environment variable `GQA_EXPECT_LEVELS` lists names, these are the ones that there must be.
pub fn levels() -> impl Iterator<Item = Level> + Clone {
    if let Ok(expected) = std::env::var("GQA_EXPECT_LEVELS") {
        let mut expected: Vec<_> =
            expected.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut found: Vec<_> = Level::available().map(Level::name).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "the levels of this machine and GQA_EXPECT_LEVELS");
    }
    Level::available()
}

/// How often to repeat something: `count`, but few times in an interpreter, and one in `GQA_TEST_SHARE` where this
/// environment variable is set, for machines that are emulated.
pub fn times(count: usize) -> usize {
    let share = std::env::var("GQA_TEST_SHARE").map(|share| share.parse().expect("a number"));
    count.div_ceil(if cfg!(miri) { 100 } else { share.unwrap_or(1) })
}

/// A shape of one dim, `[q_heads, kv_heads]`.
pub fn shape(
    batch: usize,
    [q_heads, kv_heads]: [usize; 2],
    [q_len, kv_len]: [usize; 2],
    dim: usize,
) -> Shape {
    Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim: dim, value_dim: dim }
}
