//! From logits to the next token.

/// Likeliest tokens among which to draw.
const CANDIDATES: usize = 40;

/// Draws tokens; always the same ones for a seed.
pub struct Sampler {
    temperature: f32,
    state: u64,
}

impl Sampler {
    /// Temperature 0 takes the likeliest token.
    pub fn new(temperature: f32, seed: u64) -> Self {
        Self { temperature, state: seed }
    }

    /// The next token.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        let mut order: Vec<u32> = (0..).take(logits.len()).collect();
        let descending = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]);
        let count = if self.temperature > 0.0 { CANDIDATES.min(logits.len()) } else { 1 };
        let (candidates, _, _) = order.select_nth_unstable_by(count, descending);
        candidates.sort_unstable_by(descending);
        let weight = |&token: &u32| {
            ((logits[token as usize] - logits[candidates[0] as usize]) / self.temperature.max(1e-6)).exp()
        };
        let weights: Vec<f32> = candidates.iter().map(weight).collect();
        let mut left = self.uniform() * weights.iter().sum::<f32>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        candidates[drawn.unwrap_or(0)]
    }

    /// From 0 to 1 (SplitMix64).
    fn uniform(&mut self) -> f32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ bits >> 31) >> 40) as f32 / (1 << 24) as f32
    }
}

/// How surprising a token is: `-ln` of its probability.
pub fn surprise(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    sum.ln() - f64::from(logits[token as usize] - max)
}
