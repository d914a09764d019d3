//! The engine against transformers: hidden states, logits and greedy tokens in `golden/smollm2.safetensors`.

use std::path::Path;

use gqa::{Element, bf16, f16};
use safetensors::SafeTensors;
use smollm2::Result;
use smollm2::attention::{Attend, Gqa, Plain};
use smollm2::cache::Room;
use smollm2::model::{Model, Sequence, weights_path};

struct Golden {
    prompt_ids: Vec<u32>,
    /// What each layer got for the last token, and the normed output of the last layer.
    hidden: Vec<f32>,
    logits: Vec<f32>,
    greedy_ids: Vec<u32>,
}

impl Golden {
    fn read() -> Result<Self> {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/smollm2.safetensors"))?;
        let tensors = SafeTensors::deserialize(&bytes)?;
        let words =
            |name: &str| -> Result<Vec<[u8; 4]>> { Ok(tensors.tensor(name)?.data().as_chunks().0.to_vec()) };
        let numbers = |name: &str| -> Result<Vec<f32>> {
            Ok(words(name)?.into_iter().map(f32::from_le_bytes).collect())
        };
        let ids = |name: &str| -> Result<Vec<u32>> {
            Ok(words(name)?.into_iter().map(u32::from_le_bytes).collect())
        };
        Ok(Self {
            prompt_ids: ids("prompt_ids")?,
            hidden: numbers("last_hidden_by_layer")?,
            logits: numbers("last_logits")?,
            greedy_ids: ids("greedy_ids")?,
        })
    }
}

fn greatest_error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max)
}

fn greatest(logits: &[f32]) -> u32 {
    logits.iter().zip(0..).max_by(|(a, _), (b, _)| a.total_cmp(b)).map_or(0, |(_, id)| id)
}

/// Errors of the logits and hidden states, and how many greedy tokens agree before the first that does not.
fn compare(name: &str, model: &Model, attention: impl Attend + 'static) -> Result<(f32, f32, usize)> {
    let golden = Golden::read()?;
    let mut sequence = Sequence::new(model, Box::new(attention));
    let hidden = model.config.hidden;
    let mut last_rows = Vec::new();
    let last = sequence.forward(&golden.prompt_ids, |layer, x| {
        if layer < model.config.layers {
            last_rows.extend_from_slice(&x[x.len() - hidden..]);
        }
    })?;
    last_rows.extend_from_slice(&last);
    let hidden_error = greatest_error(&last_rows, &golden.hidden);
    let mut logits = sequence.logits(last);
    let logit_error = greatest_error(&logits, &golden.logits);
    let mut ids = Vec::new();
    for _ in 0..golden.greedy_ids.len() {
        ids.push(greatest(&logits));
        logits = sequence.feed(&ids[ids.len() - 1..], |_| ())?;
    }
    let agree = ids.iter().zip(&golden.greedy_ids).take_while(|(got, want)| got == want).count();
    println!(
        "{name:12} greatest error of a logit {logit_error:.1e}, of a hidden state {hidden_error:.1e}; \
         {agree} of {} greedy tokens agree",
        ids.len()
    );
    Ok((logit_error, hidden_error, agree))
}

fn stored<T: Element>(name: &str, model: &Model) -> Result<(f32, f32, usize)> {
    compare(name, model, Gqa::<T>::new(&model.config, Room::whole(64)))
}

#[test]
fn hidden_states_logits_and_tokens_are_those_of_transformers() -> Result<()> {
    let model = Model::read(&weights_path())?;
    let plain = Plain::new(&model.config, Room::whole(64));
    for (logit, hidden, agree) in [stored::<f32>("f32 cache", &model)?, compare("plain loop", &model, plain)?]
    {
        assert!(logit < 1e-3 && hidden < 1e-3, "beyond the rounding of f32");
        assert_eq!(agree, 16);
    }
    // Twice what was seen. Greedy tokens may come to differ where two are nearly as likely; here none does.
    for ((logit, _, agree), bound) in
        [(stored::<f16>("f16 cache", &model)?, 0.016), (stored::<bf16>("bf16 cache", &model)?, 0.08)]
    {
        assert!(logit < bound, "beyond the rounding of the cache");
        assert_eq!(agree, 16);
    }
    Ok(())
}
