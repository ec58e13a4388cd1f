//! Files of a run and of its data. Those that are opened by their path lie in a folder of the input's own.

use std::fs;
use std::path::Path;

use carousel_coordinator::checkpoint::Checkpoint;
use carousel_corpus::{Prepared, TokenFile, Tokenizer};
use carousel_proto::digest::Digest;
use serde_json::{Value, json};

use crate::within_limits;

/// A journal.
pub fn journal(data: &[u8]) {
    within_limits(|| carousel_coordinator::hostile::journal(data));
}

/// The committed state that no replica holds.
pub fn committed(data: &[u8]) {
    within_limits(|| carousel_coordinator::hostile::committed(data));
}

/// A `tokenizer.json`; one that is accepted encodes a line and decodes what came of it.
pub fn tokenizer(data: &[u8]) {
    let Ok(json) = std::str::from_utf8(data) else { return };
    within_limits(|| {
        let Ok(tokenizer) = Tokenizer::from_json(json) else { return };
        if let Ok(tokens) = tokenizer.encode("To be, or not to be: \u{e4}\u{df}\u{1f600}\n") {
            tokenizer.decode(&tokens);
        }
    });
}

/// A file of tokens: opened, and each token read where that succeeds.
pub fn token_file(data: &[u8]) {
    in_a_folder(|folder| {
        let path = folder.join("train.safetensors");
        fs::write(&path, data).expect("the folder is writable");
        within_limits(|| {
            if let Ok(file) = TokenFile::open(&path) {
                let (mut tokens, all) = (Vec::new(), carousel_corpus::Tokens::from(file));
                drop(all.read(0..all.len(), &mut tokens));
            }
        });
    });
}

/// The manifest of a folder of token files.
pub fn prepared(data: &[u8]) {
    in_a_folder(|folder| {
        fs::write(folder.join("prepared.json"), data).expect("the folder is writable");
        within_limits(|| {
            if let Ok(Some(prepared)) = Prepared::find(folder) {
                prepared.figures();
            }
        });
    });
}

/// A checkpoint: the lengths of three of its files (u32, little endian), then `state.json`, model, optimizer and carries.
/// The state is told the hashes of the others as they are, so that damage comes further than the hash.
pub fn checkpoint(data: &[u8]) {
    let Some((lengths, mut rest)) = data.split_first_chunk::<12>() else { return };
    let mut parts = Vec::new();
    for length in lengths.chunks_exact(4) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let Some((part, after)) = rest.split_at_checked(length) else { return };
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    let names = ["model.safetensors", "optimizer.safetensors", "carries.safetensors"];
    in_a_folder(|folder| {
        let files: Vec<_> = names.into_iter().zip(parts[1..].iter().copied()).collect();
        for (name, bytes) in &files {
            fs::write(folder.join(name), bytes).expect("the folder is writable");
        }
        fs::write(folder.join("state.json"), with_hashes(parts[0], &files)).expect("the folder is writable");
        within_limits(|| drop(Checkpoint::open(folder)));
    });
}

fn with_hashes(state: &[u8], files: &[(&str, &[u8])]) -> Vec<u8> {
    let Ok(Value::Object(mut state)) = serde_json::from_slice(state) else { return state.to_vec() };
    let hashes = files.iter().map(|(name, bytes)| {
        let hash = Digest::of_bytes(bytes).to_string();
        ((*name).to_owned(), json!({ "bytes": bytes.len(), "blake3": hash }))
    });
    state.insert("files".into(), Value::Object(hashes.collect()));
    Value::Object(state).to_string().into_bytes()
}

fn in_a_folder(work: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    work(folder.path());
}
