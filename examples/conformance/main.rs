//! Runs attention vectors of other engines on every level of this machine:
//! `cargo run --release --example conformance -- DIR…` (`tests/vectors` without arguments).
//!
//! A line for each failing case, then `N passed, M failed`; success only if nothing failed and something passed.
use std::path::PathBuf;
use std::process::ExitCode;

mod suite;

fn main() -> ExitCode {
    let mut roots: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if roots.is_empty() {
        roots.push([env!("CARGO_MANIFEST_DIR"), "tests", "vectors"].iter().collect());
    }
    let (mut passed, mut failed) = (0, 0);
    for root in &roots {
        let report = suite::run(root);
        passed += report.passed;
        failed += report.failures.len();
        for failure in report.failures {
            println!("{failure}");
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
