//! Byte-level byte-pair encoding, from the vocabulary and merges of the weights file.

use std::collections::HashMap;

use fancy_regex::Regex;

use crate::Result;
use crate::gguf::Gguf;

/// Words as GPT-2 cuts them.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Text to token ids and back.
pub struct Tokenizer {
    words: Regex,
    /// The bytes of each token.
    vocabulary: Vec<Vec<u8>>,
    /// The token of each byte.
    bytes: Vec<u32>,
    /// Which neighbours merge: (rank, merged token).
    merges: HashMap<(u32, u32), (usize, u32)>,
    start: u32,
    end: u32,
}

/// GPT-2 writes bytes that are not printable as the characters from U+0100 on, in order.
fn byte_letters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others =
        (0..=u8::MAX).filter(|&byte| !printable(byte)).zip('\u{100}'..).map(|(byte, char)| (char, byte));
    (0..=u8::MAX).filter(|&byte| printable(byte)).map(|byte| (char::from(byte), byte)).chain(others).collect()
}

impl Tokenizer {
    /// From the metadata of the weights.
    pub fn read(file: &Gguf) -> Result<Self> {
        let letters = byte_letters();
        let texts = file.texts("tokenizer.ggml.tokens")?;
        let ids: HashMap<&str, u32> = texts.iter().copied().zip(0..).collect();
        let id = |text: &str| ids.get(text).copied().ok_or_else(|| format!("no token {text}"));
        let vocabulary = texts
            .iter()
            .map(|text| text.chars().filter_map(|char| letters.get(&char).copied()).collect())
            .collect();
        // Bytes that no UTF-8 holds have no token.
        let mut bytes = vec![u32::try_from(file.integer("tokenizer.ggml.unknown_token_id")?)?; 256];
        for (letter, &byte) in &letters {
            if let Ok(id) = id(&letter.to_string()) {
                bytes[usize::from(byte)] = id;
            }
        }
        let mut merges = HashMap::new();
        for (rank, merge) in file.texts("tokenizer.ggml.merges")?.iter().enumerate() {
            let (left, right) = merge.split_once(' ').ok_or("a merge of one token")?;
            merges.insert((id(left)?, id(right)?), (rank, id(&format!("{left}{right}"))?));
        }
        let (start, end) = (id("<|im_start|>")?, id("<|im_end|>")?);
        Ok(Self { words: Regex::new(WORDS)?, vocabulary, bytes, merges, start, end })
    }

    /// The token that ends an answer.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The bytes of a token, which may end inside a character.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.vocabulary.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// The text of tokens.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| self.bytes(token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        // Digits stand alone; what lies between them is cut into words.
        for piece in text.split_inclusive(char::is_numeric) {
            let digit = piece.char_indices().next_back().filter(|(_, char)| char.is_numeric());
            let (piece, digit) = piece.split_at(digit.map_or(piece.len(), |(at, _)| at));
            for word in self.words.find_iter(piece) {
                self.merge(word?.as_str(), &mut tokens);
            }
            self.merge(digit, &mut tokens);
        }
        Ok(tokens)
    }

    /// A question as the model was taught to be asked.
    pub fn encode_chat(&self, question: &str) -> Result<Vec<u32>> {
        let message = |role: &str, text: &str| -> Result<Vec<u32>> {
            let text = self.encode(&format!("{role}\n{text}"))?;
            Ok([&[self.start], &*text, &[self.end], &*self.encode("\n")?].concat())
        };
        let system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
        let answer = [&[self.start], &*self.encode("assistant\n")?].concat();
        Ok([message("system", system)?, message("user", question)?, answer].concat())
    }

    /// Appends the tokens of a word: its bytes, merged pair by pair, the lowest rank first.
    fn merge(&self, word: &str, tokens: &mut Vec<u32>) {
        let mut word: Vec<u32> = word.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        let pairs = |word: &[u32]| {
            word.windows(2)
                .enumerate()
                .filter_map(|(at, pair)| {
                    self.merges.get(&(pair[0], pair[1])).map(|&(rank, merged)| (rank, at, merged))
                })
                .min()
        };
        while let Some((_, at, merged)) = pairs(&word) {
            word.splice(at..at + 2, [merged]);
        }
        tokens.append(&mut word);
    }
}
