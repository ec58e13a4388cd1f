//! The tests of the crate's outside, in one program: a module for each promise.

#![allow(clippy::unwrap_used, reason = "the whole program is tests: what cannot be had is a failure")]

mod corpora;
mod files;
mod hugging_face;
mod prepared;
mod roundtrips;
mod shared_texts;
mod sources;
mod streams;
mod tokenizer_files;
mod trained_bpe;
