//! The standard operator `Attention` of ONNX, opsets 23 to 25.

use gqa::{Alignment, Stage};

use super::Reason;
use super::case::Case;
use super::mask::Mask;
use super::operand::Operand;
use super::plan::{Output, Plan, Source};
use super::problem::Problem;

pub(crate) fn plan(case: &mut Case) -> Result<Plan, Reason> {
    let (q_heads, kv_heads) = (case.count("q_num_heads")?, case.count("kv_num_heads")?);
    let (q, heads_inside) = operand(case, "Q", q_heads)?;
    let (new_k, _) = operand(case, "K", kv_heads)?;
    let (new_v, _) = operand(case, "V", kv_heads)?;
    let past = (case.input("past_key"), case.input("past_value"));
    let past_len = past.0.as_ref().map(|past| past.shape.get(2).copied().unwrap_or(0));
    let (k, v) = match past {
        (Some(k), Some(v)) => (new_k.after(&Operand::bhsd(k)?)?, new_v.after(&Operand::bhsd(v)?)?),
        (None, None) => (new_k, new_v),
        _ => return Err("past_key and past_value go together".into()),
    };
    let mut outputs = vec![Output::new("Y", Source::Out)];
    for (name, cache) in [("present_key", &k), ("present_value", &v)] {
        if case.outputs.contains_key(name) {
            outputs.push(Output::new(name, Source::Given(cache.to_tensor())));
        }
    }

    let kv_len = k.dims[2];
    let mut problem = Problem::new(q, k, v)?;
    problem.heads_inside = heads_inside;
    problem.scale = case.number("scale")?;
    problem.softcap = case.softcap()?;
    problem.left_window = case.window("left_window_size")?;
    problem.right_window = case.window("right_window_size")?;
    if case.flag("is_causal")? {
        problem.right_window = Some(0);
    }
    problem.alignment = Alignment::Offset(past_len.unwrap_or(0) as i64);
    if let Some(lengths) = case.input("nonpad_kv_seqlen") {
        if past_len.is_some() {
            return Err("nonpad_kv_seqlen and past_key exclude each other".into());
        }
        // Row 0 stands at `length - q_len`.
        problem.alignment = Alignment::BottomRight;
        problem.key_lengths = Some(lengths.counts(problem.scores()[0])?);
    }
    if let Some(mask) = case.input("attn_mask") {
        problem.mask = Some(Mask::broadcast(Mask::pad(mask, kv_len)?, problem.scores())?);
    }
    // Float, half, double or bfloat16: the crate's softmax is in f32 always.
    if let Some(precision) =
        case.integer("softmax_precision")?.filter(|precision| ![1, 10, 11, 16].contains(precision))
    {
        return Err(format!("softmax_precision {precision} is not known"));
    }
    let stage = match case.integer("qk_matmul_output_mode")?.unwrap_or(0) {
        0 => Stage::Raw,
        1 => Stage::Softcapped,
        2 => Stage::Biased,
        3 => Stage::Softmax,
        mode => return Err(format!("qk_matmul_output_mode {mode} is not known")),
    };
    if case.outputs.contains_key("qk_matmul_output") {
        problem.inspect = Some(stage);
        outputs.push(Output::new("qk_matmul_output", Source::Scores(None)));
    }
    Ok(Plan { problems: vec![problem], outputs })
}

/// `[batch, heads, rows, dim]`, or `[batch, rows, heads · dim]`, which is told too.
fn operand(case: &mut Case, name: &str, heads: Option<usize>) -> Result<(Operand, bool), Reason> {
    let tensor = case.required(name)?;
    match (tensor.shape.len(), heads) {
        (4, _) => {
            let operand = Operand::bhsd(tensor)?;
            match heads {
                Some(heads) if heads != operand.dims[1] => Err(format!("{name} has not {heads} heads")),
                _ => Ok((operand, false)),
            }
        }
        (3, Some(heads)) => Ok((Operand::bshd(tensor, heads)?, true)),
        (3, None) => Err(format!("{name} of rank 3 needs numbers of heads")),
        (rank, _) => Err(format!("{name}: needed rank 3 or 4, had {rank}")),
    }
}
