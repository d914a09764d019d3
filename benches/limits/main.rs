//! How near the kernels come to what the machine can do, and what each feature costs: a table for each section.
//!
//! `cargo bench --bench limits` prints all; `cargo bench --bench limits -- prompts decode` some. The sections are in
//! [`SECTIONS`]; each takes less than a minute. `--level NAME` chooses the instruction set where a section does not
//! compare them, `--test` runs everything once on small sizes.
//!
//! Cases of a table take turns, the machine's multiply-adds and reads among them, and a share is the median of the turns'
//! ratios: neighbours on the machine slow both. Times are a thread's CPU time. The goals are the project's own.

#[path = "../../examples/support/clock.rs"]
mod clock;
mod decode;
mod layouts;
mod lengths;
#[path = "../../examples/support/memory.rs"]
mod memory;
mod modifiers;
#[path = "../support/operands.rs"]
#[allow(dead_code, reason = "the bench compares nothing with f64")]
mod operands;
#[path = "../../examples/peer/pool.rs"]
mod pool;
mod prompts;
#[path = "../../examples/support/roof.rs"]
#[allow(dead_code, reason = "the bench takes its own medians")]
mod roof;
mod rows;
mod table;
mod threads;
mod turns;

use std::process::ExitCode;

use gqa::Level;
use turns::Effort;

type Section = (&'static str, fn(Level, &Effort));

const SECTIONS: [Section; 7] = [
    ("prompts", prompts::print),
    ("decode", decode::print),
    ("modifiers", modifiers::print),
    ("layouts", layouts::print),
    ("rows", rows::print),
    ("lengths", lengths::print),
    ("threads", threads::print),
];

fn main() -> ExitCode {
    let (mut level, mut effort, mut chosen) = (Level::detect(), Effort::FULL, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {}
            "--test" => effort = Effort::SMOKE,
            "--level" => match words.next().and_then(|name| Level::named(&name)) {
                Some(named) => level = named,
                None => {
                    let here: Vec<_> = Level::available().map(Level::name).collect();
                    eprintln!("--level: one of {}", here.join(", "));
                    return ExitCode::from(2);
                }
            },
            name => chosen.push(name.to_owned()),
        }
    }
    for (name, print) in SECTIONS {
        if chosen.is_empty() || chosen.iter().any(|word| word == name) {
            println!("\n## {name}\n");
            print(level, &effort);
        }
    }
    ExitCode::SUCCESS
}
