//! PyTorch's `scaled_dot_product_attention`, and attention as it stands inside models: SmolLM2, MiniLM, the definition.

use gqa::Alignment;

use super::Reason;
use super::case::Case;
use super::mask::Mask;
use super::operand::Operand;
use super::plan::{Output, Plan, Source};
use super::problem::Problem;

pub(crate) fn plan(case: &mut Case) -> Result<Plan, Reason> {
    let names = if case.suite == "seed" { ["Q", "K", "V"] } else { ["query", "key", "value"] };
    let mut operand = |name| Operand::bhsd(case.required(name)?);
    let [q, k, v] = [operand(names[0])?, operand(names[1])?, operand(names[2])?];
    let ([_, q_heads, ..], [_, kv_heads, ..]) = (q.dims, k.dims);
    let mut problem = Problem::new(q, k, v)?;
    if case.count("num_groups")?.is_some_and(|groups| groups != kv_heads) {
        return Err(format!("num_groups is not the {kv_heads} heads of K"));
    }
    if !case.flag("enable_gqa")? && case.suite == "torch_sdpa" && q_heads != kv_heads {
        return Err(format!("{q_heads} and {kv_heads} heads without enable_gqa"));
    }
    if case.number("dropout_p")?.is_some_and(|p| p != 0.0) {
        return Err("dropout is not known".into());
    }
    problem.scale = case.number("scale")?;
    if case.flag("is_causal")? {
        (problem.right_window, problem.alignment) = (Some(0), Alignment::TopLeft);
    }
    if case.flag("causal_lower_right")? {
        (problem.right_window, problem.alignment) = (Some(0), Alignment::BottomRight);
    }
    let scores = problem.scores();
    problem.mask = case.input("attn_mask").map(|mask| Mask::broadcast(mask, scores)).transpose()?;
    Ok(Plan { problems: vec![problem], outputs: vec![Output::new("output", Source::Out)] })
}
