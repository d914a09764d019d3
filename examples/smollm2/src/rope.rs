//! Rotary position embedding (Su et al., arXiv 2104.09864). GGUF orders the rows of the query and key weights so that
//! neighbouring numbers make a pair.

use crate::model::Config;

/// The angle by which each pair of a head turns from one position to the next.
pub struct Rope {
    angles: Vec<f64>,
}

impl Rope {
    /// `base^(-2i / head_dim)` for pair `i`.
    pub fn new(config: &Config) -> Self {
        let pairs = config.head_dim / 2;
        Self { angles: (0..pairs).map(|i| config.rope_base.powf(-(i as f64) / pairs as f64)).collect() }
    }

    /// The turns at positions `first..first + count`.
    pub fn turns(&self, first: usize, count: usize) -> Turns {
        let turn = |position: usize| {
            self.angles.iter().map(move |angle| {
                let (sin, cos) = (angle * position as f64).sin_cos();
                (sin as f32, cos as f32)
            })
        };
        Turns { pairs: self.angles.len(), turns: (first..first + count).flat_map(turn).collect() }
    }
}

/// Sine and cosine of each pair at some positions.
pub struct Turns {
    pairs: usize,
    turns: Vec<(f32, f32)>,
}

impl Turns {
    /// Rotates queries or keys, `[position][head][head_dim]`.
    pub fn apply(&self, rows: &mut [f32]) {
        let width = rows.len() * self.pairs / self.turns.len();
        for (row, turns) in rows.chunks_mut(width).zip(self.turns.chunks(self.pairs)) {
            for head in row.as_chunks_mut::<2>().0.chunks_mut(self.pairs) {
                for ([x, y], (sin, cos)) in head.iter_mut().zip(turns) {
                    (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
                }
            }
        }
    }
}
