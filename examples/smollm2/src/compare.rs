//! Time in attention against the length of the context, for each way to compute it.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use smollm2::Result;
use smollm2::cache::Room;
use smollm2::model::{Model, Sequence};

use crate::{Engine, Options, Storage};

/// Tokens that are decoded at each length; engines take turns, and the median counts.
const DECODED: usize = 15;

/// An engine, its sequence and what was measured.
struct Contender<'m> {
    engine: Engine,
    sequence: Sequence<'m>,
    /// The prompt so far: attention, and all.
    prompt: (Duration, Duration),
    /// A decoded token: attention, and all.
    decoded: Vec<(Duration, Duration)>,
    /// Tokens a second of attention alone at each length.
    rates: Vec<f64>,
}

impl Contender<'_> {
    /// Takes tokens and returns the time in attention, and that of all.
    fn feed(&mut self, tokens: &[u32]) -> Result<(Duration, Duration)> {
        let (attention, start) = (self.sequence.attention_time(), Instant::now());
        self.sequence.feed(tokens, |_| ())?;
        Ok((self.sequence.attention_time() - attention, start.elapsed()))
    }
}

/// The engines of this build.
const ENGINES: &[Engine] = &[
    Engine::Plain,
    #[cfg(feature = "candle")]
    Engine::Candle,
    Engine::Gqa(Storage::F32),
    Engine::Gqa(Storage::F16),
    Engine::Gqa(Storage::Bf16),
];

/// Prints the table and writes the plot.
pub fn run(model: &Model, options: &Options) -> Result<()> {
    let tokens = model.tokenizer.encode(&text(options)?)?;
    let room = Room::whole(options.contexts.iter().max().copied().unwrap_or(0) + DECODED);
    let tokens =
        tokens.get(..room.slots).ok_or_else(|| format!("the text has {} tokens only", tokens.len()))?;
    let contender = |&engine: &Engine| -> Result<Contender<'_>> {
        let sequence = Sequence::new(model, engine.attention(&model.config, room)?);
        Ok(Contender { engine, sequence, prompt: Default::default(), decoded: Vec::new(), rates: Vec::new() })
    };
    let mut contenders = ENGINES.iter().map(contender).collect::<Result<Vec<_>>>()?;
    println!("                            prompt so far                      a token more");
    println!(
        "context  attention         attention/s    all/s  attention/ms  all/ms  tokens/s of attention  of all"
    );
    let mut at = 0;
    for &context in &options.contexts {
        let prompt =
            tokens.get(at..context).ok_or("--contexts must grow by more than what is decoded at each")?;
        for contender in &mut contenders {
            let (attention, all) = contender.feed(prompt)?;
            contender.prompt = (contender.prompt.0 + attention, contender.prompt.1 + all);
            contender.decoded.clear();
        }
        at = context + DECODED;
        for token in tokens[context..at].chunks(1) {
            for contender in &mut contenders {
                let times = contender.feed(token)?;
                contender.decoded.push(times);
            }
        }
        for contender in &mut contenders {
            contender.decoded.sort();
            let (attention, all) = contender.decoded[DECODED / 2];
            let (attention, all) = (attention.as_secs_f64(), all.as_secs_f64());
            contender.rates.push(1.0 / attention);
            println!(
                "{context:7}  {:17} {:11.2} {:8.2} {:13.2} {:7.1} {:22.0} {:7.1}",
                contender.engine.name(),
                contender.prompt.0.as_secs_f64(),
                contender.prompt.1.as_secs_f64(),
                attention * 1e3,
                all * 1e3,
                1.0 / attention,
                1.0 / all,
            );
        }
    }
    if let Some(path) = &options.plot {
        let lines: Vec<_> = contenders.iter().map(|it| (it.engine.name(), it.rates.as_slice())).collect();
        std::fs::write(path, plot(&options.contexts, &lines))?;
    }
    Ok(())
}

/// The text that is read: `--text`, or the sources of gqa.
pub fn text(options: &Options) -> Result<String> {
    if let Some(path) = &options.text {
        return Ok(std::fs::read_to_string(path)?);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut files = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path| {
            path.as_ref().is_ok_and(|path| path.extension().is_some_and(|extension| extension == "rs"))
        })
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    files.iter().map(|path| Ok(std::fs::read_to_string(path)?)).collect()
}

/// Tokens a second of attention alone against the context, both logarithmic, as SVG.
fn plot(contexts: &[usize], lines: &[(&str, &[f64])]) -> String {
    const COLOURS: [&str; 5] = ["#888888", "#d95f02", "#1b6ca8", "#2a9d5c", "#7b4fa3"];
    let (left, top, width, height) = (70.0, 40.0, 480.0, 300.0);
    let rates = || lines.iter().flat_map(|(_, rates)| rates.iter().copied());
    let low = 10f64.powf(rates().fold(f64::INFINITY, f64::min).log10().floor());
    let high = 10f64.powf(rates().fold(0.0, f64::max).log10().ceil());
    let (first, last) = (contexts[0] as f64, contexts[contexts.len() - 1] as f64);
    let x = |context: f64| left + width * (context / first).ln() / (last / first).ln().max(1e-9);
    let y = |rate: f64| top + height * (high / rate).ln() / (high / low).ln();
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 400\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"400\" fill=\"white\"/>\n\
         <text x=\"70\" y=\"22\" font-size=\"15\">Decoding with SmolLM2-135M: attention alone, tokens/s</text>\n",
    );
    // Writing to a String can't fail.
    let mut label = |text: String, x: f64, y: f64, anchor: &str| {
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
    };
    for &context in contexts {
        label(context.to_string(), x(context as f64), top + height + 20.0, "middle");
    }
    label(String::from("tokens in the cache"), left + width / 2.0, top + height + 42.0, "middle");
    let mut rate = low;
    let mut grid = String::new();
    while rate <= high * 1.01 {
        label(format!("{rate:.0}"), left - 8.0, y(rate) + 4.0, "end");
        let _ =
            writeln!(grid, "<path d=\"M{left} {0:.1}h{width}\" stroke=\"#dddddd\" fill=\"none\"/>", y(rate));
        rate *= 10.0;
    }
    // Names beside the lines' ends, apart from each other.
    let mut ends: Vec<_> =
        lines.iter().zip(COLOURS).map(|(line, colour)| (y(line.1[line.1.len() - 1]), line, colour)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = 0.0;
    svg += &grid;
    for (end, (name, rates), colour) in ends {
        let points: Vec<_> = contexts
            .iter()
            .zip(*rates)
            .map(|(&context, &rate)| format!("{:.1},{:.1}", x(context as f64), y(rate)))
            .collect();
        lowest = f64::max(end + 4.0, lowest + 17.0);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" stroke=\"{colour}\" stroke-width=\"2.5\" fill=\"none\"/>\n\
             <text x=\"{:.1}\" y=\"{lowest:.1}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            left + width + 10.0
        );
    }
    svg + "</svg>\n"
}
