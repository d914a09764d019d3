//! What a case asks for, in terms of the crate.

use gqa::Level;

use super::Reason;
use super::case::Case;
use super::problem::Problem;
use super::tensor::{Data, Tensor};
use super::{group_query_attention, onnx_attention, scaled_dot_product_attention};

/// Calls, each of one or more sequences, and where the outputs come from.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Their answers follow each other along the batch.
    pub(crate) problems: Vec<Problem>,
    pub(crate) outputs: Vec<Output>,
}

/// An output of the operator.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) name: &'static str,
    pub(crate) source: Source,
    /// The rows that the operator specifies, of each sequence: an axis, and how many places of it.
    pub(crate) specified: Option<(usize, Vec<usize>)>,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// What attention writes.
    Out,
    /// The score matrix; scores beyond each row's range of keys become 0 if there are ranges, row after row.
    Scores(Option<Vec<core::ops::Range<usize>>>),
    /// Data that attention only reads, such as a cache.
    Given(Tensor),
}

/// An output as a level computed it.
#[derive(Debug)]
pub(crate) struct Computed<'a> {
    pub(crate) output: &'a Output,
    pub(crate) tensor: Tensor,
}

impl Output {
    pub(crate) fn new(name: &'static str, source: Source) -> Self {
        Self { name, source, specified: None }
    }
}

impl Plan {
    pub(crate) fn of(case: &mut Case) -> Result<Self, Reason> {
        let plan = match case.suite.as_str() {
            "onnx" => onnx_attention::plan(case)?,
            "ort_gqa" => group_query_attention::plan(case)?,
            "torch_sdpa" | "smollm2" | "minilm" | "seed" => scaled_dot_product_attention::plan(case)?,
            other => return Err(format!("suite {other} is not known")),
        };
        case.is_understood()?;
        let known = |name: &String| plan.outputs.iter().any(|output| output.name == name);
        if let Some(name) = case.outputs.keys().find(|name| !known(name)) {
            return Err(format!("output {name} is not known"));
        }
        if case.outputs.is_empty() {
            return Err("no outputs to compare".into());
        }
        Ok(plan)
    }

    pub(crate) fn run(&self, level: Level) -> Result<Vec<Computed<'_>>, Reason> {
        let (mut outs, mut scores) = (Vec::new(), Vec::new());
        for problem in &self.problems {
            let answer = problem.run(level)?;
            outs.push(answer.out);
            scores.extend(answer.scores);
        }
        let (out, scores) = (join(outs), join(scores));
        let tensor = |output: &Output| {
            let tensor = match &output.source {
                Source::Out => out.clone(),
                Source::Scores(None) => scores.clone(),
                Source::Scores(Some(seen)) => scores.clone().map(|scores| clear_unseen(scores, seen)),
                Source::Given(tensor) => Some(tensor.clone()),
            };
            tensor.ok_or_else(|| format!("{} was not computed", output.name))
        };
        self.outputs.iter().map(|output| Ok(Computed { output, tensor: tensor(output)? })).collect()
    }
}

/// Tensors one after the other along the first axis.
fn join(tensors: Vec<Tensor>) -> Option<Tensor> {
    let mut tensors = tensors.into_iter();
    let mut all = tensors.next()?;
    for tensor in tensors {
        all.shape[0] += tensor.shape[0];
        match (&mut all.data, tensor.data) {
            (Data::F32(all), Data::F32(more)) => all.extend(more),
            (Data::F16(all), Data::F16(more)) => all.extend(more),
            (Data::Bf16(all), Data::Bf16(more)) => all.extend(more),
            _ => unreachable!("answers have one type"),
        }
    }
    Some(all)
}

/// Sets the scores of the keys outside of `seen[batch · q_len + row]` to 0.
fn clear_unseen(mut scores: Tensor, seen: &[core::ops::Range<usize>]) -> Tensor {
    let &[_, heads, rows, keys] = scores.shape.as_slice() else { unreachable!("scores have rank 4") };
    for index in 0..scores.len() {
        let (row, key) = (index / keys, index % keys);
        if !seen[row / (heads * rows) * rows + row % rows].contains(&key) {
            scores.set(index, 0.0);
        }
    }
    scores
}
