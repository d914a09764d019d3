//! Every combination of the storage types of Q, K, V and the output, at every level.
//!
//! In release builds only, since compiling 81 copies of the kernels takes minutes. Other builds have the pairs of
//! types in `all/grid.rs`: how one operand is stored meets at most one other in any place of the crate.
#![cfg(not(debug_assertions))]

mod support;

use support::{Case, Rng, cell, times, visit_any};

#[test]
fn every_storage_combination() {
    let (mut rng, mut worst) = (Rng(1), 0.0);
    for storage in 0..times(3 * 81) {
        let (axis, index) = (rng.below(4), rng.below(7));
        let shape = cell(axis, index, &mut rng);
        visit_any(storage, Case { shape, rng: &mut rng, worst: &mut worst });
    }
    println!("greatest error in parts of the bound: {worst:.3}");
    // The bound holds for any numbers; random ones, whose roundings differ in size, stay far below it.
    assert!(worst <= 0.4, "{worst} of the bound");
}
