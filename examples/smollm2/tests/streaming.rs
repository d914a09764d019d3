//! The ring with sinks against its definition: cached keys without rotation, positions counted within the cache.

use std::time::Duration;

use smollm2::Result;
use smollm2::attention::{Attend, Gqa};
use smollm2::cache::Room;
use smollm2::model::{Config, Model, Sequence, weights_path};

/// A key without rotation, and a value.
#[derive(Clone)]
struct Token {
    key: Vec<f64>,
    value: Vec<f64>,
}

/// One token at a time, in f64, all keys rotated anew for each query.
struct Definition {
    config: Config,
    room: Room,
    /// Of each layer.
    tokens: Vec<Vec<Token>>,
}

impl Definition {
    fn rotated(&self, row: &[f64], position: f64) -> Vec<f64> {
        let dim = self.config.head_dim;
        let pair = |i: usize| {
            let angle = position * self.config.rope_base.powf(-((i % dim - i % 2) as f64) / dim as f64);
            let (even, odd) = (row[i - i % 2], row[i - i % 2 + 1]);
            if i.is_multiple_of(2) {
                even * angle.cos() - odd * angle.sin()
            } else {
                even * angle.sin() + odd * angle.cos()
            }
        };
        (0..row.len()).map(pair).collect()
    }
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().copied().map(f64::from).collect()
}

impl Attend for Definition {
    fn append(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) -> Result<()> {
        let key = self.rotated(&wide(k), -(position as f64));
        let tokens = &mut self.tokens[layer];
        tokens.push(Token { key, value: wide(v) });
        if tokens.len() > self.room.slots {
            tokens.remove(self.room.sinks);
        }
        Ok(())
    }

    fn attend(&mut self, layer: usize, position: usize, q: &[f32], out: &mut [f32]) -> Result<Duration> {
        let &Config { heads, kv_heads, head_dim, .. } = &self.config;
        let tokens = &self.tokens[layer];
        let q = self.rotated(&self.rotated(&wide(q), -(position as f64)), (tokens.len() - 1) as f64);
        let keys: Vec<_> =
            tokens.iter().enumerate().map(|(at, token)| self.rotated(&token.key, at as f64)).collect();
        for head in 0..heads {
            let part = head / (heads / kv_heads) * head_dim..(head / (heads / kv_heads) + 1) * head_dim;
            let q = &q[head * head_dim..][..head_dim];
            let dot = |k: &[f64]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (head_dim as f64).sqrt();
            let weights: Vec<f64> = keys.iter().map(|k| dot(&k[part.clone()]).exp()).collect();
            for (c, out) in out[head * head_dim..][..head_dim].iter_mut().enumerate() {
                let sum: f64 = weights
                    .iter()
                    .zip(tokens)
                    .map(|(weight, token)| weight * token.value[part.start + c])
                    .sum();
                *out = (sum / weights.iter().sum::<f64>()) as f32;
            }
        }
        Ok(Duration::ZERO)
    }

    fn at_once(&self, _: usize) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        0
    }
}

fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max)
}

#[test]
fn a_full_cache_gives_what_positions_within_it_give() -> Result<()> {
    let model = Model::read(&weights_path())?;
    let config = &model.config;
    let text = "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, \
                fifteen, sixteen, seventeen, eighteen, nineteen, twenty, twenty-one, twenty-two, twenty-three.";
    let tokens = model.tokenizer.encode(text)?;
    for room in [Room { slots: 16, sinks: 4 }, Room { slots: 9, sinks: 0 }, Room { slots: 3, sinks: 2 }] {
        let definition = Definition { config: config.clone(), room, tokens: vec![Vec::new(); config.layers] };
        let mut want = Sequence::new(&model, Box::new(definition));
        let mut got = Sequence::new(&model, Box::new(Gqa::<f32>::new(config, room)));
        let (mut greatest, mut last) = (0f32, Vec::new());
        for token in tokens.chunks(1) {
            let (want, got) = (want.feed(token, |_| ())?, got.feed(token, |_| ())?);
            greatest = distance(&got, &want).max(greatest);
            last = want;
        }
        // A prompt longer than the cache.
        let whole = Sequence::new(&model, Box::new(Gqa::<f32>::new(config, room))).feed(&tokens, |_| ())?;
        greatest = distance(&whole, &last).max(greatest);
        println!("{room:?}, {} tokens: greatest error of a logit {greatest:.1e}", tokens.len());
        assert!(tokens.len() > 3 * room.slots && greatest < 1e-3);
    }
    Ok(())
}
