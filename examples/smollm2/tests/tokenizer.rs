//! The tokenizer against Hugging Face's `tokenizers`: texts and ids in `golden/tokenizer.json`.

use std::path::Path;

use smollm2::Result;
use smollm2::model::{Model, weights_path};

#[test]
fn ids_are_those_of_tokenizers_and_decode_to_the_text() -> Result<()> {
    let tokenizer = Model::read(&weights_path())?.tokenizer;
    let golden = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tokenizer.json"))?;
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&golden)?;
    for case in &cases {
        let (Some(text), Some(ids)) = (case["text"].as_str(), case["ids"].as_array()) else {
            return Err("a case has a text and ids".into());
        };
        let got = tokenizer.encode(text)?;
        let want: Vec<_> = ids.iter().filter_map(serde_json::Value::as_u64).collect();
        assert_eq!(got.iter().copied().map(u64::from).collect::<Vec<_>>(), want, "{text:?}");
        assert_eq!(tokenizer.decode(&got), text);
    }
    assert!(cases.len() > 5);
    Ok(())
}
