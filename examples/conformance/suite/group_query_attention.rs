//! onnxruntime's operator `com.microsoft.GroupQueryAttention`, as its CPU provider computes it.

use core::ops::Range;
use std::rc::Rc;

use gqa::{Alignment, Stage};

use super::Reason;
use super::case::Case;
use super::mask::Mask;
use super::operand::Operand;
use super::plan::{Output, Plan, Source};
use super::problem::Problem;
use super::rotary::Rotary;
use super::tensor::Tensor;

/// One sequence of the batch.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    /// Keys before this call.
    past: usize,
    /// Rows of this call that are no padding.
    new: usize,
}

impl Sequence {
    fn total(&self) -> usize {
        self.past + self.new
    }
}

/// Where the rows of a call stand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rows {
    /// A prompt: the first row at the first key.
    AtFirstKey,
    /// The last row at the last key.
    AtLastKey,
    /// Each sequence has another number of rows (`query_seqlens`).
    OfEachSequence,
}

/// A cache of a window's size, which moves its rows up when it is full.
#[derive(Clone, Copy, Debug)]
struct SlidingCache {
    capacity: usize,
    window: usize,
}

impl SlidingCache {
    /// The most recent positions that are kept after `total` tokens.
    fn resident(&self, total: usize) -> usize {
        let step = self.capacity - self.window + 1;
        total - step * total.saturating_sub(self.capacity).div_ceil(step)
    }
}

/// What the problems share.
struct Call {
    q: Operand,
    k: Operand,
    v: Operand,
    past: Option<(Operand, Operand)>,
    sequences: Vec<Sequence>,
    total: usize,
    shares_buffer: bool,
    causal: bool,
    window: Option<usize>,
    scale: Option<f32>,
    softcap: Option<f32>,
    bias: Option<Mask>,
    sinks: Option<Vec<f32>>,
    /// Rows may be padding, or the caches' unused rows may be anything: only what is valid is specified.
    padded: bool,
}

pub(crate) fn plan(case: &mut Case) -> Result<Plan, Reason> {
    let q_heads = case.count("num_heads")?.ok_or("no num_heads")?;
    let kv_heads = case.count("kv_num_heads")?.ok_or("no kv_num_heads")?;
    let (q, k, v) = operands(case, q_heads, kv_heads)?;
    let [batch, _, q_len, _] = q.dims;
    let total =
        *case.required("total_sequence_length")?.counts(1)?.first().ok_or("no total_sequence_length")?;
    let last = case.required("seqlens_k")?.counts(batch)?;
    let chunks = case.input("query_seqlens").map(|chunks| chunks.counts(batch)).transpose()?;
    let chunked = chunks.is_some();
    let chunks = chunks.unwrap_or_else(|| last.iter().map(|&last| q_len.min(last + 1)).collect());
    let sequence = |(last, new): (usize, usize)| match (last + 1).checked_sub(new) {
        Some(past) if new <= q_len && last < total => Ok(Sequence { past, new }),
        _ => Err(format!("{new} of {} keys are new, of at most {q_len} and {total}", last + 1)),
    };
    let sequences: Vec<_> = last.into_iter().zip(chunks).map(sequence).collect::<Result<_, _>>()?;
    let past = match (case.input("past_key"), case.input("past_value")) {
        (Some(k), Some(v)) => Some((Operand::bhsd(k)?, Operand::bhsd(v)?)),
        (None, None) => None,
        _ => return Err("past_key and past_value go together".into()),
    };

    let rows = match (chunked, q_len == total) {
        (true, _) => Rows::OfEachSequence,
        (false, true) => Rows::AtFirstKey,
        (false, false) => Rows::AtLastKey,
    };
    let (q, k) = rotate(case, (q, k), &sequences, rows)?;
    let padded = chunked || sequences.iter().any(|sequence| sequence.new < q_len);
    let call = Call {
        past,
        total,
        padded,
        shares_buffer: case.shares_buffer,
        causal: case.integer("causal")?.unwrap_or(1) != 0,
        window: case.window("local_window_size")?,
        scale: case.number("scale")?.filter(|&scale| scale != 0.0),
        softcap: case.softcap()?,
        bias: case
            .input("attention_bias")
            .map(|bias| Mask::broadcast(bias, [batch, q_heads, q_len, total]))
            .transpose()?,
        sinks: sinks(case, q_heads)?,
        q,
        k,
        v,
        sequences,
    };
    if case.flag("sliding_window_cache")? {
        return call.sliding();
    }
    let stage = match case.integer("qk_output")?.unwrap_or(0) {
        0 => None,
        1 => Some(Stage::Biased),
        2 => Some(Stage::Softmax),
        mode => return Err(format!("qk_output {mode} is not known")),
    };
    call.whole(rows, stage)
}

/// Q, K and V: three inputs, or columns of one.
fn operands(case: &mut Case, q_heads: usize, kv_heads: usize) -> Result<(Operand, Operand, Operand), Reason> {
    let query = case.required("query")?;
    match (case.input("key"), case.input("value")) {
        (Some(k), Some(v)) => {
            let (q, k, v) =
                (Operand::bshd(query, q_heads)?, Operand::bshd(k, kv_heads)?, Operand::bshd(v, kv_heads)?);
            // No rows at all: everything is in the cache already.
            if k.dims != v.dims || ![0, q.dims[2]].contains(&k.dims[2]) || k.dims[0] != q.dims[0] {
                return Err(format!("key {:?} and value {:?} do not fit query {:?}", k.dims, v.dims, q.dims));
            }
            Ok((q, k, v))
        }
        (None, None) => {
            let [_, _, columns] = query.dims()?;
            let dim = columns / (q_heads + 2 * kv_heads);
            let query = Rc::new(query);
            let part = |first: usize, heads| Operand::columns(&query, first * dim, heads, dim);
            Ok((part(0, q_heads)?, part(q_heads, kv_heads)?, part(q_heads + kv_heads, kv_heads)?))
        }
        _ => Err("key and value go together".into()),
    }
}

/// Q and the new rows of K, rotated if the case says so.
fn rotate(
    case: &mut Case,
    (q, k): (Operand, Operand),
    sequences: &[Sequence],
    rows: Rows,
) -> Result<(Operand, Operand), Reason> {
    let interleaved = case.flag("rotary_interleaved")?;
    let caches = (case.input("cos_cache"), case.input("sin_cache"));
    let [batch, _, q_len, _] = q.dims;
    let ids = case.input("position_ids").map(|ids| ids.counts(batch * q_len)).transpose()?;
    if !case.flag("do_rotary")? {
        return Ok((q, k));
    }
    let (Some(cos), Some(sin)) = caches else {
        return Err("do_rotary without cos_cache and sin_cache".into());
    };
    let rotary = Rotary::new(cos, sin, interleaved)?;
    let position = |batch: usize, row: usize| match &ids {
        // A padding row may be anywhere.
        _ if row >= sequences[batch].new => 0,
        // A first prompt counts on from the first id.
        Some(ids) if rows == Rows::AtFirstKey => ids[0] + row,
        Some(ids) => ids[batch * q_len + row],
        None => sequences[batch].past + row,
    };
    Ok((rotary.rotate(&q, position)?, rotary.rotate(&k, position)?))
}

/// The sink of each head; smooth softmax is a sink of 0.
fn sinks(case: &mut Case, q_heads: usize) -> Result<Option<Vec<f32>>, Reason> {
    let smooth = case.flag("smooth_softmax")?.then(|| vec![0.0; q_heads]);
    Ok(case.input("head_sink").map(|sinks| sinks.floats()).or(smooth))
}

impl Call {
    /// A cache that holds every key: one call for the batch, or one for each sequence if their rows stand elsewhere.
    fn whole(self, rows: Rows, stage: Option<Stage>) -> Result<Plan, Reason> {
        let (past_k, past_v) = self.past.as_ref().map(|(k, v)| (k, v)).unzip();
        let cache = |new, past| self.present(new, past).and_then(Operand::bhsd);
        let (present_k, present_v) = (cache(&self.k, past_k)?, cache(&self.v, past_v)?);
        let (k, v) = (present_k.first_rows(self.total)?, present_v.first_rows(self.total)?);
        let lengths: Vec<_> = self.sequences.iter().map(Sequence::total).collect();
        let mut problems = Vec::new();
        if rows == Rows::OfEachSequence {
            for (batch, sequence) in self.sequences.iter().enumerate() {
                let mut problem = Problem::new(self.q.sequence(batch), k.sequence(batch), v.sequence(batch))?;
                problem.alignment = Alignment::Offset(sequence.past as i64);
                problem.key_lengths = Some(vec![sequence.total()]);
                problem.mask = self.bias.as_ref().map(|bias| bias.sequence(batch, 0));
                problems.push(problem);
            }
        } else {
            let mut problem = Problem::new(self.q.clone(), k, v)?;
            problem.alignment =
                if rows == Rows::AtFirstKey { Alignment::TopLeft } else { Alignment::BottomRight };
            problem.key_lengths = Some(lengths.clone());
            problem.mask = self.bias.clone();
            problems.push(problem);
        }
        for problem in &mut problems {
            problem.inspect = stage;
        }
        let seen = (stage == Some(Stage::Biased)).then(|| self.seen());
        let presents = [present_k.to_tensor(), present_v.to_tensor()];
        let limits = self.padded.then_some(lengths);
        let mut plan = self.finish(problems, presents, limits);
        if stage.is_some() {
            let rows = plan.outputs[0].specified.as_ref().map(|(_, rows)| (2, rows.clone()));
            plan.outputs.push(Output { name: "output_qk", source: Source::Scores(seen), specified: rows });
        }
        Ok(plan)
    }

    /// A cache of the window's size: each sequence attends to what the cache held and to its new rows.
    fn sliding(self) -> Result<Plan, Reason> {
        let (Some((past_k, past_v)), Some(window)) = (&self.past, self.window) else {
            return Err("a sliding cache needs past_key, past_value and local_window_size".into());
        };
        let cache = SlidingCache { capacity: past_k.dims[2], window };
        if window == 0 || cache.capacity < window {
            return Err(format!("a cache of {} rows for a window of {window}", cache.capacity));
        }
        let mut problems = Vec::new();
        let mut presents = [past_k, past_v].map(|past| past.zeros_like(past.dims));
        for (batch, sequence) in self.sequences.iter().enumerate() {
            let resident = cache.resident(sequence.past);
            let first = sequence.past - resident;
            let kept = cache.resident(sequence.total());
            let stage = |past: &Operand, new: &Operand, present: &mut Tensor| {
                let new = new.sequence(batch).first_rows(sequence.new)?;
                let staged = new.after(&past.sequence(batch).first_rows(resident)?)?;
                staged.copy_rows([0, sequence.total() - kept - first], (present, [batch, 0]), kept);
                Ok::<_, Reason>(staged)
            };
            let [present_k, present_v] = &mut presents;
            let (k, v) = (stage(past_k, &self.k, present_k)?, stage(past_v, &self.v, present_v)?);
            let mut problem = Problem::new(self.q.sequence(batch), k, v)?;
            problem.alignment = Alignment::Offset(resident as i64);
            problem.mask = self.bias.as_ref().map(|bias| bias.sequence(batch, first));
            problems.push(problem);
        }
        let limits = self.sequences.iter().map(|sequence| cache.resident(sequence.total())).collect();
        Ok(self.finish(problems, presents, Some(limits)))
    }

    /// The past cache with the new rows: the same buffer with its other rows untouched, or a new one with zeros there.
    fn present(&self, new: &Operand, past: Option<&Operand>) -> Result<Tensor, Reason> {
        let [batch, heads, new_rows, dim] = new.dims;
        let past_rows = past.map_or(0, |past| past.dims[2]);
        let rows = past_rows.max(self.total);
        if past.is_some_and(|past| past.dims != [batch, heads, past_rows, dim]) {
            return Err(format!("a past cache does not fit {:?}", new.dims));
        }
        let mut present = match past {
            Some(past) if self.shares_buffer && rows == past_rows => past.to_tensor(),
            _ => new.zeros_like([batch, heads, rows, dim]),
        };
        for (b, sequence) in self.sequences.iter().enumerate() {
            match past {
                Some(past) if sequence.past <= past_rows => {
                    past.copy_rows([b, 0], (&mut present, [b, 0]), sequence.past)
                }
                None if sequence.past == 0 => {}
                _ => return Err(format!("the past cache has {past_rows} rows of {}", sequence.past)),
            }
            new.copy_rows([b, 0], (&mut present, [b, sequence.past]), sequence.new.min(new_rows));
        }
        Ok(present)
    }

    /// The keys of each row, sequence after sequence, that no limit hides.
    fn seen(&self) -> Vec<Range<usize>> {
        let row = |sequence: &Sequence, row: usize| {
            let end =
                if self.causal { (sequence.past + row + 1).min(sequence.total()) } else { sequence.total() };
            let start = self.window.map_or(0, |window| (sequence.past + row + 1).saturating_sub(window));
            start..end
        };
        let rows = 0..self.q.dims[2];
        self.sequences.iter().flat_map(|sequence| rows.clone().map(move |i| row(sequence, i))).collect()
    }

    /// Sets what all problems have in common. `limits`: the rows of the caches that are specified, if not all are.
    fn finish(self, mut problems: Vec<Problem>, presents: [Tensor; 2], limits: Option<Vec<usize>>) -> Plan {
        for problem in &mut problems {
            problem.heads_inside = true;
            problem.scale = self.scale;
            problem.softcap = self.softcap;
            problem.sinks.clone_from(&self.sinks);
            problem.right_window = self.causal.then_some(0);
            match self.window {
                // Not even the own key.
                Some(0) => problem.key_lengths = Some(vec![0; problem.scores()[0]]),
                // The crate does not count the own key.
                window => problem.left_window = window.map(|keys| keys - 1),
            }
        }
        let rows = self.padded.then(|| (1, self.sequences.iter().map(|sequence| sequence.new).collect()));
        let caches = limits.map(|limits| (2, limits));
        let [k, v] = presents;
        let outputs = vec![
            Output { name: "output", source: Source::Out, specified: rows },
            Output { name: "present_key", source: Source::Given(k), specified: caches.clone() },
            Output { name: "present_value", source: Source::Given(v), specified: caches },
        ];
        Plan { problems, outputs }
    }
}
