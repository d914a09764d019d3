//! The vectors of other engines in `tests/vectors`, on every level of this machine.

#[path = "../../examples/conformance/suite/mod.rs"]
mod suite;

use std::path::PathBuf;

fn agrees(name: &str, cases: usize) {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "vectors", name].iter().collect();
    let report = suite::run(&folder);
    assert!(report.failures.is_empty(), "{}", report.failures.join("\n"));
    assert_eq!(report.passed, cases, "cases in {}", folder.display());
}

#[test]
fn seed() {
    agrees("seed", 5);
}

#[test]
fn onnx() {
    agrees("onnx", 65);
}

#[test]
fn ort_gqa() {
    agrees("ort_gqa", 87);
}

#[test]
fn torch_sdpa() {
    agrees("torch_sdpa", 46);
}

#[test]
fn smollm2() {
    agrees("smollm2", 7);
}

#[test]
fn minilm() {
    agrees("minilm", 2);
}
