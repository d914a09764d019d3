//! Thousands of tokens through a cache of a few hundred: how well the model does, window by window.

use std::collections::HashSet;
use std::time::Instant;

use smollm2::Result;
use smollm2::model::{Model, Sequence};

use crate::Options;
use crate::compare::text;
use crate::sampling::{Sampler, surprise};

/// Tokens of a line of the table.
const WINDOW: usize = 1000;
/// How the generated text begins.
const BEGINNING: &str = "The history of the city begins at the river.";
/// Of sampling; at lower ones a model of this size repeats itself, with any attention.
const TEMPERATURE: f32 = 1.0;
/// Last tokens that are made less likely, and by how much.
const REMEMBERED: usize = 256;
const PENALTY: f32 = 1.1;

/// Prints the table, and the text that was generated at the end of each window.
pub fn run(model: &Model, options: &Options) -> Result<()> {
    let tokenizer = &model.tokenizer;
    let count = options.tokens.unwrap_or(10_000);
    let given = if options.generate { None } else { Some(tokenizer.encode(&text(options)?)?) };
    let mut tokens = match &given {
        Some(given) => given[..1].to_vec(),
        None => tokenizer.encode(BEGINNING)?,
    };
    let mut sampler = Sampler::new(options.temperature.unwrap_or(TEMPERATURE), options.seed);
    let mut sequence = Sequence::new(model, options.engine.attention(&model.config, options.room)?);

    println!(
        "{}, {} slots, of which the first {} tokens keep theirs",
        options.engine.name(),
        options.room.slots,
        options.room.sinks
    );
    println!("  tokens  perplexity  distinct 4-grams  tokens/s  attention  cache/MB  process/MB");
    let mut logits = sequence.feed(&tokens, |_| ())?;
    let mut window = Window::begin(&sequence, tokens.len());
    while tokens.len() < count {
        let next = match &given {
            Some(given) => match given.get(tokens.len()) {
                Some(&token) => token,
                None => return Err(format!("the text has {} tokens only", given.len()).into()),
            },
            None => {
                // The text goes on for ever.
                logits[tokenizer.end() as usize] = f32::NEG_INFINITY;
                sampler.next(&penalised(&logits, &tokens[tokens.len().saturating_sub(REMEMBERED)..]))
            }
        };
        window.surprise += surprise(&logits, next);
        tokens.push(next);
        logits = sequence.feed(&[next], |_| ())?;
        if tokens.len() % WINDOW == 0 {
            window.print(&sequence, &tokens);
            if given.is_none() {
                println!("          …{}", tokenizer.decode(&tokens[tokens.len() - 30..]).replace('\n', " "));
            }
            window = Window::begin(&sequence, tokens.len());
        }
    }
    Ok(())
}

/// Logits with those of some tokens lowered (Keskar et al., arXiv 1909.05858).
fn penalised(logits: &[f32], tokens: &[u32]) -> Vec<f32> {
    let mut penalised = logits.to_vec();
    for token in tokens.iter().map(|&token| token as usize) {
        penalised[token] =
            if logits[token] > 0.0 { logits[token] / PENALTY } else { logits[token] * PENALTY };
    }
    penalised
}

/// The state at the beginning of a window, and the sum of its tokens' surprises.
struct Window {
    first: usize,
    start: Instant,
    attention: f64,
    surprise: f64,
}

impl Window {
    fn begin(sequence: &Sequence<'_>, first: usize) -> Self {
        let attention = sequence.attention_time().as_secs_f64();
        Self { first, start: Instant::now(), attention, surprise: 0.0 }
    }

    fn print(&self, sequence: &Sequence<'_>, tokens: &[u32]) {
        let seconds = self.start.elapsed().as_secs_f64();
        let window = &tokens[self.first..];
        let count = window.len() as f64;
        let distinct = window.windows(4).collect::<HashSet<_>>().len() as f64 / (count - 3.0);
        println!(
            "{:8} {:11.2} {:15.1} % {:9.1} {:8.1} % {:9.1} {:>11}",
            tokens.len(),
            (self.surprise / count).exp(),
            100.0 * distinct,
            count / seconds,
            100.0 * (sequence.attention_time().as_secs_f64() - self.attention) / seconds,
            sequence.cache_bytes() as f64 / 1e6,
            process_megabytes()
                .map_or_else(|| String::from("unknown"), |megabytes| format!("{megabytes:.1}")),
        );
    }
}

/// Memory of this process, where the system tells.
fn process_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0 / 1e6)
}
