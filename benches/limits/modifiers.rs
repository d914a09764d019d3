//! Modifiers: what each costs over plain attention, for each visible pair of a row and a key.

use gqa::{Attention, Level, MaskStrides, Shape, alibi_slope};

use super::table;
use super::turns::{self, Bench, Case, Effort};

const HEADS: usize = 4;

/// A name, the attention, the visible pairs of a head, and the goal.
type Modified<'a> = (&'static str, Attention<'a>, usize, f64);

pub(crate) fn print(level: Level, effort: &Effort) {
    println!("f32, {HEADS} query heads on one KV head of 128, {level}.\n");
    table::head("modifier", &["ns a pair", "cost", "goal"]);
    let n = effort.at_most(64, 1024);
    section("prompt of 1,024", turns::shape([HEADS, n], [1, n], 128), level, effort);
    let n = effort.at_most(64, 4096);
    section("decoding 4,096", turns::shape([HEADS, 1], [1, n], 128), level, effort);
}

fn section(name: &str, shape: Shape, level: Level, effort: &Effort) {
    let Shape { q_len, kv_len, .. } = shape;
    let slopes: Vec<_> = (0..HEADS).map(|head| alibi_slope(head, HEADS)).collect();
    let gentle: Vec<_> = slopes.iter().map(|slope| slope / 1000.0).collect();
    let sinks = [0.5; HEADS];
    let lengths = [kv_len * 3 / 4];
    let bias: Vec<_> = (0..q_len * kv_len).map(|i| (i % 13) as f32 / 13.0).collect();
    let mask: Vec<_> = (0..q_len * kv_len).map(|i| i % 7 != 3).collect();
    let plain = || Attention::new(shape).expect("a valid shape").level(level);
    let (all, causal) = (q_len * kv_len, shape.visible_pairs_causal());
    let window = kv_len / 4;
    // Rows see themselves and `window` keys before.
    let windowed = (kv_len - q_len..kv_len).map(|position| position.min(window) + 1).sum();
    let modified: Vec<Modified<'_>> = vec![
        ("plain", plain(), all, 0.0),
        ("causal", plain().causal(), causal, 0.05),
        ("causal, window of a quarter", plain().causal().left_window(window), windowed, 0.05),
        ("key length of three quarters", plain().key_lengths(&lengths), q_len * lengths[0], 0.03),
        ("sinks", plain().sinks(&sinks), all, 0.01),
        ("ALiBi, keys on both sides", plain().alibi(&slopes), all, 0.05),
        ("causal, ALiBi", plain().causal().alibi(&slopes), causal, 0.09),
        ("ALiBi, slopes a thousandth", plain().alibi(&gentle), all, 0.05),
        ("softcap", plain().softcap(30.0), all, 0.08),
        ("bias in f32", plain().bias(bias.as_slice(), MaskStrides::rows(kv_len)), all, 0.12),
        ("mask, a seventh hidden, all pairs", plain().mask(&mask[..], MaskStrides::rows(kv_len)), all, 0.08),
    ];
    let bench = Bench::<f32>::new(shape);
    let mut cases: Vec<Case<'_>> = modified
        .iter()
        .map(|(_, attention, pairs, _)| bench.case(*attention, (HEADS * pairs) as f64))
        .collect();
    let rates = turns::rates(&mut cases, effort);
    for ((modifier, .., goal), rate) in modified.iter().zip(&rates) {
        let pair = format!("{:.3}", 1.0 / turns::median(rate.iter().copied()));
        // Less work in the same time is a lower rate.
        let cost = turns::ratio(&rates[0], rate) - 1.0;
        let figures = match *modifier {
            "plain" => [pair, String::new(), String::new()],
            _ => [pair, format!("{:+.1} %", 100.0 * cost), table::at_most(*goal)],
        };
        table::row(&format!("{name}: {modifier}"), &figures);
    }
}
