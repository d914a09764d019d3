//! The crate as a process that a benchmark can drive: `cargo run --release --example peer -- [FLAGS]`.
//!
//! Lines on standard input, an answer to each on standard output, until the input ends:
//!
//! ```text
//! load DIR threads=1 b=1 hq=32 hkv=8 sq=512 skv=512 d=64 causal=1 dtype=f16
//!              -> ok [note] | unsupported REASON      reads DIR/{q,k,v}.bin: (b, heads, seq, d), little endian
//! run N        -> ns T1 T2 … TN                       the time of each of N calls
//! out FILE     -> ok                                  writes the last output, f32 (b, hq, sq, d)
//! free         -> ok                                  drops the workload
//! ```
//!
//! `--level NAME` chooses the instruction set. `--roof` prints what one thread of the machine can do
//! as a line of JSON, reads by the bytes that are read again and again, and ends.
//! `--bf16-dot` asks for products of bf16, where the operands are stored so and the level gains by them.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Instant;

use gqa::Level;

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/memory.rs"]
mod memory;
mod pool;
#[path = "../support/roof.rs"]
mod roof;
mod workload;

use pool::Pool;
use workload::{Request, Workload};

struct Flags {
    level: Level,
    roof: bool,
    bf16_dot: bool,
}

impl Flags {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self { level: Level::detect(), roof: false, bf16_dot: false };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--roof" => flags.roof = true,
                "--bf16-dot" => flags.bf16_dot = true,
                "--level" => {
                    let name = words.next().ok_or("--level needs a name")?;
                    flags.level = Level::named(&name).ok_or_else(|| {
                        let here: Vec<_> = Level::available().map(Level::name).collect();
                        format!("no level {name} on this machine, which has {}", here.join(", "))
                    })?;
                }
                other => return Err(format!("no flag {other}: --level NAME, --roof, --bf16-dot")),
            }
        }
        Ok(flags)
    }
}

/// A workload, and the threads that it asked for.
struct Server {
    flags: Flags,
    loaded: Option<Box<dyn Workload>>,
    pool: Pool,
}

impl Server {
    fn answer(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["load", request @ ..] => self.load(request),
            ["run", count] => self.run(count.parse().map_err(|_| format!("{count} is no count"))?),
            ["out", file] => {
                let loaded = self.loaded.as_ref().ok_or("nothing is loaded")?;
                let bytes: Vec<u8> = loaded.output().into_iter().flat_map(f32::to_le_bytes).collect();
                std::fs::write(file, bytes).map_err(|e| format!("{file}: {e}"))?;
                Ok("ok".into())
            }
            ["free"] => {
                self.loaded = None;
                Ok("ok".into())
            }
            _ => Err(format!("command {line}")),
        }
    }

    fn load(&mut self, words: &[&str]) -> Result<String, String> {
        self.loaded = None;
        let request = Request::parse(words)?;
        let Flags { level, bf16_dot, .. } = self.flags;
        self.loaded = Some(request.load(level, bf16_dot)?);
        if self.pool.threads() != request.threads {
            self.pool = Pool::new(request.threads);
        }
        let arithmetic = if !bf16_dot || !level.gains_by_bf16_dot() {
            "f32"
        } else if level.has_bf16_matrix() {
            "bf16"
        } else {
            "prompts in bf16"
        };
        Ok(format!("ok {level}, {arithmetic} arithmetic, (b, heads, seq, d) as given"))
    }

    fn run(&mut self, count: usize) -> Result<String, String> {
        let loaded = self.loaded.as_mut().ok_or("nothing is loaded")?;
        let mut answer = String::from("ns");
        for _ in 0..count {
            let start = Instant::now();
            loaded.run(&mut self.pool).map_err(|e| e.to_string())?;
            answer += &format!(" {}", start.elapsed().as_nanos());
        }
        Ok(answer)
    }
}

fn print_roof(level: Level) {
    let fma = roof::fma_gflops(level);
    let bf16 = roof::fma_bf16_gflops().map_or("null".into(), |rate| format!("{rate:.1}"));
    let reads = [1 << 19, 1 << 21, 1 << 23, 1 << 25, 1 << 27, 1 << 29].map(|bytes| {
        let rate = roof::read_gbs(level, bytes);
        format!(r#""{bytes}": {rate:.1}"#)
    });
    println!(
        r#"{{"level": "{level}", "fma_f32_gflops": {fma:.1}, "fma_bf16_gflops": {bf16}, "read_gbs": {{{}}}}}"#,
        reads.join(", ")
    );
}

fn main() -> ExitCode {
    let flags = match Flags::parse(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    if flags.roof {
        print_roof(flags.level);
        return ExitCode::SUCCESS;
    }
    let mut server = Server { flags, loaded: None, pool: Pool::new(1) };
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
        let answer = server.answer(&line).unwrap_or_else(|reason| format!("unsupported {reason}"));
        if writeln!(output, "{answer}").and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}
