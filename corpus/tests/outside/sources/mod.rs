//! Text as a stream: pieces, documents, formats, and places that are no local folder.

mod compressed;
mod json_lines;
mod memory;
mod objects;
mod parquet;
mod pieces;

use std::fs;
use std::path::PathBuf;

use carousel_corpus::{CorpusError, Piece, Source, SourceOptions};
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// A file of `corpus/tests/data`; its maker is beside it.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn pieces(path: impl Into<PathBuf>, options: &SourceOptions) -> Result<Vec<Piece>, CorpusError> {
    Source::open("data.train", &[path.into()], options)?.collect()
}

fn text(path: impl Into<PathBuf>, options: &SourceOptions) -> Result<String, CorpusError> {
    Ok(pieces(path, options)?.into_iter().map(|piece| piece.text).collect())
}

/// The documents, as pieces say where they end; without the line ends that were put between them.
fn documents(pieces: &[Piece]) -> Vec<String> {
    let mut documents = vec![String::new()];
    for piece in pieces {
        let own = piece.text.len() - usize::from(piece.joined);
        documents.last_mut().unwrap().push_str(&piece.text[..own]);
        if piece.ends_document {
            documents.push(String::new());
        }
    }
    assert_eq!(documents.pop().as_deref(), Some(""), "the last piece ends a document");
    documents
}
