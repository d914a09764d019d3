//! Instructions of key calls, counted by valgrind: a change of the code shows where times are too noisy.
//!
//! `cargo bench --bench instructions` compares with `benches/instructions.toml`; with `-- --check` it fails when a count is
//! off by more than 2 % either way, `-- --write` renews the file. Counted is one `Job::run`, without what
//! comes before. valgrind knows no AVX-512, so the levels are scalar and AVX2. With `--test` each call runs once, uncounted.

#[path = "../examples/support/memory.rs"]
mod memory;
#[path = "support/operands.rs"]
#[allow(dead_code, reason = "nothing is compared here")]
mod operands;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use gqa::{Attention, Level, MaskStrides, Shape, alibi_slope, bf16, f16};
use operands::{Number, Operands};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.toml");
const LEVELS: [&str; 2] = ["avx2", "scalar"];
/// How far a count may be off.
const TOLERANCE: f64 = 0.02;
/// The function whose instructions count, as valgrind finds it.
const COUNTED: &str = "*counted_call*";

/// What is counted, and nothing else.
#[inline(never)]
fn counted_call(call: &mut dyn FnMut()) {
    call();
}

/// Query heads and rows, KV heads and keys, and the dimension.
fn shape([q_heads, q_len]: [usize; 2], [kv_heads, kv_len]: [usize; 2], dim: usize) -> Shape {
    Shape { batch: 1, q_heads, kv_heads, q_len, kv_len, head_dim: dim, value_dim: dim }
}

/// A name, and the call at a level.
type Case = (&'static str, fn(Level));

const CASES: [Case; 11] = [
    ("prompt_f32_d128", |level| plain::<f32>(level, shape([4, 128], [1, 128], 128))),
    ("prompt_f16_d128", |level| plain::<f16>(level, shape([4, 128], [1, 128], 128))),
    ("prompt_bf16_d128", |level| plain::<bf16>(level, shape([4, 128], [1, 128], 128))),
    ("prompt_f32_d64", |level| plain::<f32>(level, shape([3, 128], [1, 128], 64))),
    ("prompt_f32_d80_odd", |level| plain::<f32>(level, shape([3, 37], [1, 101], 80))),
    ("prompt_f32_modifiers", modifiers),
    ("prompt_f32_tiny", |level| plain::<f32>(level, shape([4, 3], [2, 16], 32))),
    ("decode_f32_group4", |level| plain::<f32>(level, shape([4, 1], [1, 512], 128))),
    ("decode_f16_group4", |level| plain::<f16>(level, shape([4, 1], [1, 512], 128))),
    ("decode_f32_group8", |level| plain::<f32>(level, shape([8, 1], [1, 512], 128))),
    ("decode_f16_group8", |level| plain::<f16>(level, shape([8, 1], [1, 512], 128))),
];

fn plain<T: Number>(level: Level, shape: Shape) {
    run::<T>(level, shape, |attention| attention.causal());
}

/// A window, ALiBi, a softcap and a mask together.
fn modifiers(level: Level) {
    let shape = shape([4, 96], [1, 96], 64);
    let slopes: Vec<_> = (0..4).map(|head| alibi_slope(head, 4)).collect();
    let mask: Vec<_> = (0..96 * 96).map(|i| i % 7 != 3).collect();
    run::<f32>(level, shape, |attention| {
        let limited = attention.causal().left_window(40);
        limited.softcap(30.0).alibi(&slopes).mask(&mask[..], MaskStrides::rows(96))
    });
}

fn run<'a, T: Number>(level: Level, shape: Shape, with: impl FnOnce(Attention<'a>) -> Attention<'a>) {
    let mut operands = Operands::<T>::new(shape);
    let attention = with(Attention::new(shape).expect("a valid shape").level(level));
    let mut job = operands.bind(&attention).expect("operands of the shape");
    let mut scratch = vec![0.0; job.scratch_len()];
    counted_call(&mut || job.run(&mut scratch).expect("enough scratch"));
}

/// The instructions of one case, in a process of its own under valgrind.
fn count(level: &str, case: &str) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(program)
        .args(["--one", level, case])
        .output()
        .map_err(|e| format!("valgrind: {e} (apt-get install valgrind)"))?;
    let report = String::from_utf8_lossy(&output.stderr);
    let collected = report.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(count) if output.status.success() && count > 0 => Ok(count),
        _ => Err(format!("{level} {case}: valgrind counted nothing:\n{report}")),
    }
}

/// Counts by level and case.
type Counts = BTreeMap<(String, String), u64>;

fn parse(text: &str) -> Counts {
    let (mut level, mut counts) = ("", Counts::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            level = name.trim_end_matches(']');
            continue;
        }
        let entry = line.split_once(" = ").and_then(|(case, count)| Some((case, count.parse().ok()?)));
        if let Some((case, count)) = entry {
            counts.insert((level.into(), case.into()), count);
        }
    }
    counts
}

fn written(counts: &Counts) -> String {
    let mut text = String::from(
        "# Instructions of one `Job::run`, by callgrind; checked to 2 % in CI. The cases are in instructions.rs.\n\
         # Renewed by: cargo bench --bench instructions -- --write\n",
    );
    for level in LEVELS {
        text += &format!("\n[{level}]\n");
        for (case, _) in CASES {
            if let Some(count) = counts.get(&(level.into(), case.into())) {
                text += &format!("{case} = {count}\n");
            }
        }
    }
    text
}

/// Prints each count beside the file's; whether all agree.
fn agree(counts: &Counts, file: &Counts) -> bool {
    let mut agree = true;
    for ((level, case), &count) in counts {
        let name = format!("{level:<7}{case:<22}");
        match file.get(&(level.clone(), case.clone())) {
            Some(&before) => {
                let change = count as f64 / before as f64 - 1.0;
                let off = change.abs() > TOLERANCE;
                agree &= !off;
                println!("{name}{count:>10}{:>+8.2} %{}", 100.0 * change, if off { "  OFF" } else { "" });
            }
            None => {
                agree = false;
                println!("{name}{count:>10}  not in the file");
            }
        }
    }
    agree
}

fn count_all(levels: &[&str]) -> Result<Counts, String> {
    let mut counts = Counts::new();
    for &level in levels {
        for (case, _) in CASES {
            counts.insert((level.into(), case.into()), count(level, case)?);
        }
    }
    Ok(counts)
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let here: Vec<_> = LEVELS.into_iter().filter(|level| Level::named(level).is_some()).collect();
    if let ["--one", level, case] = words[..] {
        let level = Level::named(level).expect("a level of this machine");
        CASES.iter().filter(|(name, _)| *name == case).for_each(|(_, call)| call(level));
        return ExitCode::SUCCESS;
    }
    if words.contains(&"--test") {
        for level in here.iter().filter_map(|level| Level::named(level)) {
            CASES.iter().for_each(|(_, call)| call(level));
        }
        return ExitCode::SUCCESS;
    }
    // Without either word this is one of the benches, which report.
    let strict = words.contains(&"--check") || words.contains(&"--write");
    let failure = if strict { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    let counts = match count_all(&here) {
        Ok(counts) => counts,
        Err(reason) => {
            eprintln!("{reason}");
            return failure;
        }
    };
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    if agree(&counts, &parse(&file)) && !words.contains(&"--write") {
        return ExitCode::SUCCESS;
    }
    if words.contains(&"--write") {
        // Levels that this machine lacks keep their counts.
        let mut all = parse(&file);
        all.extend(counts);
        if let Err(e) = std::fs::write(FILE, written(&all)) {
            eprintln!("{FILE}: {e}");
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "\nCounts differ from benches/instructions.toml by more than 2 %. If that is meant, or the compiler is another,\n\
         renew the file: cargo bench --bench instructions -- --write"
    );
    failure
}
