//! SmolLM2-135M on the CPU: a small engine of the Llama architecture whose attention is gqa's.
//!
//! Start reading at [`model`]; [`attention`] is where gqa is called.

pub mod attention;
pub mod cache;
#[cfg(feature = "candle")]
pub mod candle;
pub mod gguf;
pub mod matrix;
pub mod model;
pub mod rope;
pub mod tokenizer;

/// Whatever went wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// Of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;
