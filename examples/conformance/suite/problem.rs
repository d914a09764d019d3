//! One call of the crate.

use gqa::{Alignment, Attention, Level, Shape, Stage, Strides, ViewMut, bf16, f16};

use super::Reason;
use super::mask::Mask;
use super::operand::Operand;
use super::tensor::{Data, Float, Tensor};

/// Operands and modifiers; the fields are the methods of [`Attention`].
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    shape: Shape,
    q: Operand,
    k: Operand,
    v: Operand,
    pub(crate) scale: Option<f32>,
    pub(crate) softcap: Option<f32>,
    pub(crate) alignment: Alignment,
    pub(crate) left_window: Option<usize>,
    pub(crate) right_window: Option<usize>,
    pub(crate) key_lengths: Option<Vec<usize>>,
    pub(crate) mask: Option<Mask>,
    pub(crate) sinks: Option<Vec<f32>>,
    pub(crate) inspect: Option<Stage>,
    /// Whether the output is `[batch, rows, heads · dim]`, not `[batch, heads, rows, dim]`.
    pub(crate) heads_inside: bool,
}

/// What a call wrote.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) out: Tensor,
    /// `[batch, q_heads, q_len, kv_len]`, if inspected.
    pub(crate) scores: Option<Tensor>,
}

impl Problem {
    pub(crate) fn new(q: Operand, k: Operand, v: Operand) -> Result<Self, Reason> {
        let ([batch, q_heads, q_len, head_dim], [_, kv_heads, kv_len, value_dim]) = (q.dims, v.dims);
        if k.dims != [batch, kv_heads, kv_len, head_dim] || v.dims[0] != batch {
            return Err(format!("q {:?}, k {:?} and v {:?} do not fit", q.dims, k.dims, v.dims));
        }
        // The crate takes mixed types as they are, but each mixture is one more kernel to compile. f32 holds them all.
        let [q, k, v] =
            if q.has_type_of(&k) && k.has_type_of(&v) { [q, k, v] } else { [q, k, v].map(|x| x.widened()) };
        Ok(Self {
            shape: Shape { batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim },
            q,
            k,
            v,
            scale: None,
            softcap: None,
            alignment: Alignment::default(),
            left_window: None,
            right_window: None,
            key_lengths: None,
            mask: None,
            sinks: None,
            inspect: None,
            heads_inside: false,
        })
    }

    /// `[batch, q_heads, q_len, kv_len]`.
    pub(crate) fn scores(&self) -> [usize; 4] {
        let Shape { batch, q_heads, q_len, kv_len, .. } = self.shape;
        [batch, q_heads, q_len, kv_len]
    }

    pub(crate) fn run(&self, level: Level) -> Result<Answer, Reason> {
        let tried = [self.run_as::<f32>(level), self.run_as::<f16>(level), self.run_as::<bf16>(level)];
        tried.into_iter().flatten().next().unwrap_or_else(|| Err("q, k and v must be floats".into()))
    }

    /// `None` if the operands have another type.
    fn run_as<T: Float>(&self, level: Level) -> Option<Result<Answer, Reason>> {
        let (q, k, v) = (self.q.view::<T>()?, self.k.view::<T>()?, self.v.view::<T>()?);
        let Shape { batch, q_heads, q_len, kv_len, value_dim, .. } = self.shape;
        let (dims, strides) = if self.heads_inside {
            (vec![batch, q_len, q_heads * value_dim], Strides::bshd(q_heads, q_len, value_dim))
        } else {
            (vec![batch, q_heads, q_len, value_dim], Strides::bhsd(q_heads, q_len, value_dim))
        };
        // What is never written shows.
        let mut out = vec![T::from_f32(f32::NAN); dims.iter().product()];
        let mut scores = vec![f32::NAN; self.inspect.map_or(0, |_| self.scores().iter().product())];
        let done = (|| {
            let mut job =
                self.attention(level)?.bind(q, k, v, ViewMut::new(&mut out, strides)).map_err(reason)?;
            if let Some(stage) = self.inspect {
                job =
                    job.inspect(stage, ViewMut::bhsd(&mut scores, q_heads, q_len, kv_len)).map_err(reason)?;
            }
            let mut scratch = vec![0.0; job.scratch_len()];
            job.run(&mut scratch).map_err(reason)
        })();
        Some(done.map(|()| Answer {
            out: Tensor { shape: dims, data: T::data(out) },
            scores: self.inspect.map(|_| Tensor { shape: self.scores().to_vec(), data: Data::F32(scores) }),
        }))
    }

    fn attention(&self, level: Level) -> Result<Attention<'_>, Reason> {
        let mut attention = Attention::new(self.shape).map_err(reason)?.level(level).align(self.alignment);
        if let Some(scale) = self.scale {
            attention = attention.scale(scale);
        }
        if let Some(cap) = self.softcap {
            attention = attention.softcap(cap);
        }
        if let Some(keys) = self.left_window {
            attention = attention.left_window(keys);
        }
        if let Some(keys) = self.right_window {
            attention = attention.right_window(keys);
        }
        if let Some(lengths) = &self.key_lengths {
            attention = attention.key_lengths(lengths);
        }
        if let Some(sinks) = &self.sinks {
            attention = attention.sinks(sinks);
        }
        self.mask.as_ref().map_or(Ok(attention), |mask| mask.apply(attention))
    }
}

fn reason(error: gqa::Error) -> Reason {
    error.to_string()
}
