//! Text to tokens to streams: what a run trains on, and in which order it is read.
//!
//! ```text
//! DataConfig --Source--> text --Tokenizer--> Vec<u32> --StreamPlan--> (T, B) blocks of each lane and window
//! ```
//!
//! This crate knows no model, no network and no other crate of the workspace: what is behind a URL comes through
//! [`Storage`], which the program gives it. It is synchronous, and everything it returns is a function of the bytes it has read and of the configuration:
//! no clock, no hash order, no number of threads.
//!
//! ```
//! use carousel_corpus::{StreamPlan, Tokenizer, TokenizerConfig};
//!
//! let text = "to be or not to be\n";
//! let tokenizer = Tokenizer::for_text(&TokenizerConfig::WORDS, text)?;
//! let tokens = tokenizer.encode(text)?;
//! assert_eq!(tokens.len(), 7); // six words and the line end
//!
//! let plan = StreamPlan::training(tokens.len(), 2, 3, 1)?; // 2 streams, windows of 3 steps, 1 lane
//! let (mut inputs, mut targets) = (Vec::new(), Vec::new());
//! plan.fill(&tokens, 0, 0, &mut inputs, &mut targets);
//! assert_eq!(inputs.len(), 3 * 2); // (T, B), time-major
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batches;
mod config;
mod corpus;
mod error;
mod expand;
mod folder;
mod order;
mod philox;
mod prepared;
mod read_at;
mod source;
mod streams;
mod text;
mod token_file;
mod tokenize;
mod tokenizer;
mod tokens;
mod whole;
mod windows;

pub use config::{DataConfig, Documents, EOS};
pub use corpus::{Corpus, Split};
pub use error::CorpusError;
pub use expand::expand;
pub use order::DocumentOrder;
pub use prepared::{Made, Opened, Prepared, PreparedError, SplitFigures};
pub use source::{
    FileStamp, Format, LocalOnly, Object, Piece, Source, SourceOptions, Storage, StorageError, is_url,
};
pub use streams::{IGNORED, PlanError, StreamPlan};
pub use text::read_text;
pub use token_file::{TokenFile, TokenFileError, TokenFileInfo};
pub use tokenize::{Progress, Stage, Watch};
pub use tokenizer::{
    DecodeStream, Limits, MAX_VOCABULARY, Subwords, Tokenizer, TokenizerConfig, TokenizerKind,
};
pub use tokens::Tokens;
pub use whole::read_whole;
pub use windows::{RandomWindow, Span, WindowLengths};
