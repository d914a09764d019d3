//! `cargo run --release --manifest-path examples/smollm2/Cargo.toml -- 'Why is the sky blue?'`

use std::path::PathBuf;

use gqa::{bf16, f16};
use lexopt::Arg::{Long, Value};
use lexopt::ValueExt;
use smollm2::Result;
use smollm2::attention::{Attend, Gqa, Plain};
use smollm2::cache::Room;
use smollm2::model::{Config, Model, weights_path};

mod compare;
mod generate;
mod sampling;
mod stream;

const USAGE: &str = "\
SmolLM2-135M on the CPU, all attention by gqa

smollm2 [OPTIONS] PROMPT      answers a question, with --raw continues a text
smollm2 [OPTIONS] compare     time in attention against context length: gqa, a plain loop, candle (feature `candle`)
smollm2 [OPTIONS] stream      thousands of tokens with a bounded cache: read from a text, or generated

--cache f32|f16|bf16          storage of keys and values (f32)
--attention gqa|plain|candle  who computes attention (gqa); plain and candle have an f32 cache
--threads N                   threads (all cores)
--weights FILE                GGUF file (examples/smollm2/weights/…)
--tokens N                    tokens to generate at most (200), to stream (10000)
--temperature T               of sampling; 0 takes the likeliest token (0, for stream 1)
--seed N                      of sampling (0)
--raw                         the prompt as it is, not as a question
--slots N, --sinks N          stream: tokens that the cache holds (512), and how many first ones stay (4)
--text FILE                   stream, compare: text to read (this crate's sources)
--generate                    stream: writes the text instead of reading one
--contexts N,N,…              compare: lengths (256,512,1024,2048,4096)
--plot FILE                   compare: an SVG of the table
";

/// Storage types of the cache.
#[derive(Clone, Copy)]
enum Storage {
    F32,
    F16,
    Bf16,
}

/// Who computes attention.
#[derive(Clone, Copy)]
enum Engine {
    Gqa(Storage),
    Plain,
    #[cfg(feature = "candle")]
    Candle,
}

impl Engine {
    fn attention(self, config: &Config, room: Room) -> Result<Box<dyn Attend>> {
        Ok(match self {
            Self::Gqa(Storage::F32) => Box::new(Gqa::<f32>::new(config, room)),
            Self::Gqa(Storage::F16) => Box::new(Gqa::<f16>::new(config, room)),
            Self::Gqa(Storage::Bf16) => Box::new(Gqa::<bf16>::new(config, room)),
            Self::Plain => Box::new(Plain::new(config, room)),
            #[cfg(feature = "candle")]
            Self::Candle => Box::new(smollm2::candle::Candle::new(config, room.slots)?),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gqa(Storage::F32) => "gqa, f32 cache",
            Self::Gqa(Storage::F16) => "gqa, f16 cache",
            Self::Gqa(Storage::Bf16) => "gqa, bf16 cache",
            Self::Plain => "plain loop",
            #[cfg(feature = "candle")]
            Self::Candle => "candle flash",
        }
    }
}

/// What the command line asks for.
struct Options {
    engine: Engine,
    threads: usize,
    weights: PathBuf,
    tokens: Option<usize>,
    temperature: Option<f32>,
    seed: u64,
    raw: bool,
    room: Room,
    text: Option<PathBuf>,
    generate: bool,
    contexts: Vec<usize>,
    plot: Option<PathBuf>,
    words: Vec<String>,
}

impl Options {
    fn parse() -> Result<Option<Self>> {
        let (mut storage, mut attention) = (String::from("f32"), String::from("gqa"));
        let mut options = Self {
            engine: Engine::Plain,
            threads: 0,
            weights: weights_path(),
            tokens: None,
            temperature: None,
            seed: 0,
            raw: false,
            room: Room { slots: 512, sinks: 4 },
            text: None,
            generate: false,
            contexts: vec![256, 512, 1024, 2048, 4096],
            plot: None,
            words: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("cache") => storage = parser.value()?.string()?,
                Long("attention") => attention = parser.value()?.string()?,
                Long("threads") => options.threads = parser.value()?.parse()?,
                Long("weights") => options.weights = parser.value()?.into(),
                Long("tokens") => options.tokens = Some(parser.value()?.parse()?),
                Long("temperature") => options.temperature = Some(parser.value()?.parse()?),
                Long("seed") => options.seed = parser.value()?.parse()?,
                Long("raw") => options.raw = true,
                Long("slots") => options.room.slots = parser.value()?.parse()?,
                Long("sinks") => options.room.sinks = parser.value()?.parse()?,
                Long("text") => options.text = Some(parser.value()?.into()),
                Long("generate") => options.generate = true,
                Long("contexts") => {
                    let list = parser.value()?.string()?;
                    options.contexts =
                        list.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
                }
                Long("plot") => options.plot = Some(parser.value()?.into()),
                Long("help") => return Ok(None),
                Value(word) => options.words.push(word.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        options.engine = match (&*attention, &*storage) {
            ("gqa", "f32") => Engine::Gqa(Storage::F32),
            ("gqa", "f16") => Engine::Gqa(Storage::F16),
            ("gqa", "bf16") => Engine::Gqa(Storage::Bf16),
            ("plain", "f32") => Engine::Plain,
            #[cfg(feature = "candle")]
            ("candle", "f32") => Engine::Candle,
            _ => {
                return Err(
                    format!("no attention by {attention} with a cache of {storage} in this build").into()
                );
            }
        };
        if options.room.sinks >= options.room.slots {
            return Err("--sinks must leave some of --slots".into());
        }
        Ok(Some(options))
    }
}

fn run(options: &Options) -> Result<()> {
    let model = Model::read(&options.weights)?;
    match &*options.words.join(" ") {
        "compare" => compare::run(&model, options),
        "stream" => stream::run(&model, options),
        prompt => generate::run(&model, options, prompt),
    }
}

fn main() -> std::process::ExitCode {
    let result = Options::parse().and_then(|options| match options {
        Some(options) if !options.words.is_empty() => {
            // All work runs inside the pool, so that handing parts of it out costs little.
            rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?.install(|| run(&options))
        }
        _ => {
            print!("{USAGE}");
            Ok(())
        }
    });
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}
