//! Attention by its definition, in f64, key by key: what the crate is judged by. Shares no arithmetic with it.

use gqa::{Alignment, Shape};

/// The modifiers of a call; dense ones are expanded to `[batch, q_head, row, key]`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Factor of `q·k`; `1/√head_dim` if there is none.
    pub scale: Option<f64>,
    /// `s ↦ cap · tanh(s / cap)`.
    pub softcap: Option<f64>,
    /// A slope for each query head: adds `-slope · |position - key|`.
    pub alibi: Option<Vec<f32>>,
    /// Added; -∞ hides the key.
    pub bias: Option<Vec<f64>>,
    /// False hides the key.
    pub mask: Option<Vec<bool>>,
    /// Where query row 0 stands.
    pub alignment: Alignment,
    /// Keys seen before the own position.
    pub left: Option<usize>,
    /// Keys seen after the own position.
    pub right: Option<usize>,
    /// Query rows of each sequence; the others see no key.
    pub query_lengths: Option<Vec<usize>>,
    /// Keys of each sequence.
    pub key_lengths: Option<Vec<usize>>,
    /// Keys that every row of a sequence sees.
    pub prefix_lengths: Option<Vec<usize>>,
    /// A logit in the denominator for each query head.
    pub sinks: Option<Vec<f32>>,
}

/// Everything that can be asked of a call, contiguous: `out` is `[batch, q_head, row, value_dim]`, `lse`
/// `[batch, q_head, row]`, the stages of the scores `[batch, q_head, row, key]`.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// The output.
    pub out: Vec<f64>,
    /// The logarithm of the softmax's denominator.
    pub lse: Vec<f64>,
    /// `scale · q·k`.
    pub raw: Vec<f64>,
    /// After the softcap.
    pub softcapped: Vec<f64>,
    /// After ALiBi and bias; -∞ for a hidden key.
    pub biased: Vec<f64>,
    /// The weights.
    pub softmax: Vec<f64>,
}

impl Options {
    /// The key position of a query row.
    pub fn position(&self, shape: &Shape, batch: usize, row: usize) -> i128 {
        let offset = match self.alignment {
            Alignment::TopLeft => 0,
            Alignment::BottomRight => self.length(shape, batch) as i128 - self.rows(shape, batch) as i128,
            Alignment::Offset(offset) => i128::from(offset),
        };
        row as i128 + offset
    }

    /// The query rows of a sequence.
    fn rows(&self, shape: &Shape, batch: usize) -> usize {
        self.query_lengths.as_ref().map_or(shape.q_len, |lengths| lengths[batch])
    }

    /// The keys of a sequence.
    fn length(&self, shape: &Shape, batch: usize) -> usize {
        self.key_lengths.as_ref().map_or(shape.kv_len, |lengths| lengths[batch])
    }

    /// Whether causal limits, windows, lengths and prefixes let a row see a key.
    pub fn sees(&self, shape: &Shape, batch: usize, row: usize, key: usize) -> bool {
        let (position, at) = (self.position(shape, batch, row), key as i128);
        let near = self.left.is_none_or(|keys| at >= position - keys as i128)
            && self.right.is_none_or(|keys| at <= position + keys as i128);
        let prefix = self.prefix_lengths.as_ref().is_some_and(|lengths| key < lengths[batch]);
        row < self.rows(shape, batch) && key < self.length(shape, batch) && (near || prefix)
    }

    /// The factor of `q·k`.
    pub fn factor(&self, shape: &Shape) -> f64 {
        self.scale.unwrap_or(1.0 / (shape.head_dim as f64).sqrt())
    }
}

/// Attention of contiguous `[batch, head, row, dim]` operands.
pub fn attention(shape: &Shape, q: &[f64], k: &[f64], v: &[f64], options: &Options) -> Outputs {
    let mut outputs = Outputs::default();
    let group = shape.q_heads / shape.kv_heads;
    for batch in 0..shape.batch {
        for head in 0..shape.q_heads {
            let kv = (batch * shape.kv_heads + head / group) * shape.kv_len;
            for row in 0..shape.q_len {
                let index = (batch * shape.q_heads + head) * shape.q_len + row;
                let query = &q[index * shape.head_dim..][..shape.head_dim];
                let keys = &k[kv * shape.head_dim..][..shape.kv_len * shape.head_dim];
                let values = &v[kv * shape.value_dim..][..shape.kv_len * shape.value_dim];
                let of = Row { shape, options, batch, head, row, index };
                of.attend(query, keys, values, &mut outputs);
            }
        }
    }
    outputs
}

/// One query row.
struct Row<'a> {
    shape: &'a Shape,
    options: &'a Options,
    batch: usize,
    head: usize,
    row: usize,
    /// Among all rows of the call.
    index: usize,
}

impl Row<'_> {
    fn attend(&self, query: &[f64], keys: &[f64], values: &[f64], outputs: &mut Outputs) {
        let Row { shape, options, .. } = self;
        let mut scores = Vec::with_capacity(shape.kv_len);
        for (key, of_key) in keys.chunks_exact(shape.head_dim).enumerate() {
            let mut score = 0.0;
            for (a, b) in query.iter().zip(of_key) {
                score += a * b;
            }
            score *= options.factor(shape);
            outputs.raw.push(score);
            if let Some(cap) = options.softcap {
                score = cap * (score / cap).tanh();
            }
            outputs.softcapped.push(score);
            scores.push(self.modified(score, key));
        }
        outputs.biased.extend(&scores);

        let mut out = vec![0.0; shape.value_dim];
        let visible = |score: &&f64| **score != f64::NEG_INFINITY;
        if scores.iter().any(|score| visible(&score)) {
            let sink = options.sinks.as_ref().map_or(f64::NEG_INFINITY, |sinks| sinks[self.head].into());
            let maximum = scores.iter().fold(sink, |a, &b| if b > a || b.is_nan() { b } else { a });
            let mut denominator = (sink - maximum).exp();
            for score in scores.iter().filter(visible) {
                denominator += (score - maximum).exp();
            }
            for (score, of_key) in scores.iter().zip(values.chunks_exact(shape.value_dim)) {
                if visible(&score) {
                    let weight = (score - maximum).exp() / denominator;
                    outputs.softmax.push(weight);
                    for (out, value) in out.iter_mut().zip(of_key) {
                        *out += weight * value;
                    }
                } else {
                    outputs.softmax.push(0.0);
                }
            }
            outputs.lse.push(maximum + denominator.ln());
        } else {
            outputs.softmax.extend(scores.iter().map(|_| 0.0));
            outputs.lse.push(f64::NEG_INFINITY);
        }
        outputs.out.extend(out);
    }

    /// A score after ALiBi, bias, mask and visibility.
    fn modified(&self, score: f64, key: usize) -> f64 {
        let Row { shape, options, batch, head, row, index } = *self;
        let at = index * shape.kv_len + key;
        let bias = options.bias.as_ref().map_or(0.0, |bias| bias[at]);
        let masked = options.mask.as_ref().is_some_and(|mask| !mask[at]);
        if masked || bias == f64::NEG_INFINITY || !options.sees(shape, batch, row, key) {
            return f64::NEG_INFINITY;
        }
        let distance = (options.position(shape, batch, row) - key as i128).abs() as f64;
        let slope = options.alibi.as_ref().map_or(0.0, |slopes| slopes[head].into());
        score - slope * distance + bias
    }
}
