//! Attention vectors of other engines, one safetensors file a case, run on every level.
//!
//! file → [`case::Case`] → an operator's file turns it into a [`plan::Plan`], whose [`problem::Problem`]s are calls of
//! the crate → each level runs the plan → [`verdict`] compares every output.

mod case;
mod group_query_attention;
mod mask;
mod onnx_attention;
mod operand;
mod plan;
mod problem;
mod rotary;
mod scaled_dot_product_attention;
mod tensor;
mod verdict;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use case::Case;
use gqa::Level;
use plan::Plan;

/// Why something can't be run.
type Reason = String;

/// What became of the cases below a folder.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Cases that agree on every level.
    pub(crate) passed: usize,
    /// A line for each case that does not, or that can't be run.
    pub(crate) failures: Vec<String>,
}

/// Runs every `.safetensors` file at or below `root`.
pub(crate) fn run(root: &Path) -> Report {
    let mut report = Report::default();
    let mut files = Vec::new();
    if let Err(reason) = find(root, &mut files) {
        report.failures.push(format!("{}: could not be read: {reason}", root.display()));
    }
    files.sort();
    for file in files {
        match check(&file) {
            Ok(()) => report.passed += 1,
            Err(reason) => report.failures.push(reason),
        }
    }
    report
}

fn find(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            find(&entry?.path(), files)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "safetensors") {
        files.push(path.to_owned());
    } else {
        path.metadata()?;
    }
    Ok(())
}

/// Runs one file on every level; the error is the line to print.
fn check(file: &Path) -> Result<(), Reason> {
    let unnamed = |reason| format!("{}: could not run: {reason}", file.display());
    let case = std::fs::read(file)
        .map_err(|e| e.to_string())
        .and_then(|bytes| Case::read(&bytes))
        .map_err(unnamed)?;
    let name = format!("{}/{}", case.suite, case.name);
    // A bug of the runner or of the crate fails its case, not the cases after it.
    let outcome = catch_unwind(AssertUnwindSafe(|| check_levels(case)));
    match outcome.unwrap_or_else(|_| Err("could not run: panicked".into())) {
        Ok(()) => Ok(()),
        Err(reason) => Err(format!("{name}: {reason}")),
    }
}

fn check_levels(mut case: Case) -> Result<(), Reason> {
    let plan = Plan::of(&mut case).map_err(|reason| format!("could not run: {reason}"))?;
    let mut failures = Vec::new();
    for level in Level::available() {
        match plan.run(level) {
            Ok(outputs) => failures.extend(
                verdict::compare(&case, &outputs)
                    .into_iter()
                    .map(|difference| format!("{level}: {difference}")),
            ),
            Err(reason) => failures.push(format!("{level}: could not run: {reason}")),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}
