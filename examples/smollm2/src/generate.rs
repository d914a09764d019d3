//! Answers a question, or continues a text.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

use smollm2::Result;
use smollm2::cache::Room;
use smollm2::model::{Model, Sequence};

use crate::Options;
use crate::sampling::Sampler;

/// Streams the answer to standard output, and figures to standard error.
pub fn run(model: &Model, options: &Options, prompt: &str) -> Result<()> {
    let tokenizer = &model.tokenizer;
    let prompt = if options.raw { tokenizer.encode(prompt)? } else { tokenizer.encode_chat(prompt)? };
    let most = options.tokens.unwrap_or(200);
    let room = Room::whole(prompt.len() + most);
    if room.slots > model.config.context {
        return Err(format!("prompt and answer exceed the model's {} tokens", model.config.context).into());
    }
    let mut sequence = Sequence::new(model, options.engine.attention(&model.config, room)?);
    let mut sampler = Sampler::new(options.temperature.unwrap_or(0.0), options.seed);

    let start = Instant::now();
    let terminal = stderr().is_terminal();
    let progress = |taken| {
        if terminal {
            eprint!("\rprompt  {taken} of {} tokens", prompt.len());
        }
    };
    progress(0);
    let mut logits = sequence.feed(&prompt, progress)?;
    // The figures take the place of the progress.
    let clear = if terminal { "\r\x1b[K" } else { "" };
    eprintln!("{clear}{}\n", figures("prompt", prompt.len(), start.elapsed(), sequence.attention_time()));

    let start = Instant::now();
    let attention_before = sequence.attention_time();
    let mut answered = 0;
    // Bytes of a character that is not whole yet.
    let mut bytes = Vec::new();
    for _ in 0..most {
        let token = sampler.next(&logits);
        if token == tokenizer.end() {
            break;
        }
        bytes.extend_from_slice(tokenizer.bytes(token));
        let whole = match str::from_utf8(&bytes) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => bytes.len(),
        };
        print!("{}", String::from_utf8_lossy(&bytes[..whole]));
        bytes.drain(..whole);
        stdout().flush()?;
        logits = sequence.feed(&[token], |_| ())?;
        answered += 1;
    }
    println!();
    let attention = sequence.attention_time() - attention_before;
    eprintln!("\n{}", figures("answer", answered, start.elapsed(), attention));
    let (megabytes, slots) = (sequence.cache_bytes() as f64 / 1e6, room.slots);
    eprintln!("cache   {megabytes:.1} MB for {slots} tokens, {}", options.engine.name());
    Ok(())
}

fn figures(what: &str, tokens: usize, time: Duration, attention: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (rate, share) = (tokens as f64 / seconds, 100.0 * attention.as_secs_f64() / seconds);
    format!(
        "{what}  {tokens} tokens in {seconds:.2} s: {rate:.0} tokens/s, {share:.0} % of the time in attention"
    )
}
