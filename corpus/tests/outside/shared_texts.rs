//! Published counts of real texts. The texts lie beside the project and are not part of it.

use std::io::Write;
use std::path::PathBuf;

use carousel_corpus::{Corpus, DataConfig, Tokenizer, TokenizerConfig};

/// A folder of the texts beside the project; none, said aloud, where it is absent.
fn shared(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.is_dir() {
        return Some(path);
    }
    let in_ci = std::env::var("CI").is_ok_and(|value| !value.is_empty());
    assert!(!in_ci, "CI must have {}", path.display());
    // Not eprintln!, which the test harness hides when a test passes.
    let message = format!("SKIPPED: there is no {}\n", path.display());
    std::io::stderr().write_all(message.as_bytes()).unwrap();
    None
}

#[test]
fn wikitext_2_has_its_published_counts() {
    let Some(folder) = shared("wikitext-2") else { return };
    let config = DataConfig {
        train: vec![folder.join("wiki.train.tokens")],
        valid: vec![folder.join("wiki.valid.tokens")],
        test: vec![folder.join("wiki.test.tokens")],
        tokenizer: TokenizerConfig::WORDS,
        ..DataConfig::default()
    };
    let corpus = Corpus::load(&config).unwrap();
    let counts = (corpus.train.len(), corpus.valid.unwrap().len(), corpus.test.unwrap().len());
    assert_eq!(counts, (2_088_628, 217_646, 245_569));
    assert_eq!(corpus.tokenizer.vocabulary(), 33_278);
}

#[test]
fn wikitext_2_by_the_tokenizers_crate_has_the_same_ids() {
    let Some(folder) = shared("wikitext-2") else { return };
    let text = std::fs::read_to_string(folder.join("wiki.valid.tokens")).unwrap();
    let words = Tokenizer::for_text(&TokenizerConfig::WORDS, &text[..500_000]).unwrap();
    let theirs: tokenizers::Tokenizer = words.to_json().parse().unwrap();
    assert_eq!(words.encode(&text).unwrap(), theirs.encode_fast(text, false).unwrap().get_ids());
}

#[test]
fn tiny_shakespeare_has_65_characters() {
    let Some(folder) = shared("tinyshakespeare") else { return };
    let config = DataConfig { train: vec![folder.join("input.txt")], ..DataConfig::default() };
    let corpus = Corpus::load(&config).unwrap();
    assert_eq!((corpus.train.len(), corpus.tokenizer.vocabulary()), (1_115_394, 65 + 1));
}
