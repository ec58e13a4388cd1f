//! The three texts of a run: where each comes from, how validation is cut, and whose words are the vocabulary.

use std::fs;
use std::path::PathBuf;

use carousel_corpus::{Corpus, CorpusError, DataConfig, Split, TokenizerConfig};
use tempfile::TempDir;

struct Texts {
    folder: TempDir,
}

impl Texts {
    fn new() -> Self {
        Texts { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> Vec<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        vec![path]
    }
}

#[test]
fn three_files_and_the_vocabulary_of_the_first() {
    let texts = Texts::new();
    let config = DataConfig {
        train: texts.file("train", "b a\na\n"),
        valid: texts.file("valid", "a c\n"),
        test: texts.file("test", "b\n"),
        valid_fraction: 0.5, // not used: a file is named
        tokenizer: TokenizerConfig::WORDS,
        ..DataConfig::default()
    };
    let corpus = Corpus::load(&config).unwrap();
    // <eos> and a twice each, b once, <unk> never.
    assert_eq!(corpus.tokenizer.vocabulary(), 4);
    assert_eq!(corpus.train, [2, 1, 0, 1, 0]);
    assert_eq!(corpus.split(Split::Valid), Some(&[1, 3, 0][..]));
    assert_eq!(corpus.split(Split::Test), Some(&[2, 0][..]));
}

#[test]
fn no_file_and_no_fraction_is_no_validation() {
    let texts = Texts::new();
    let corpus =
        Corpus::load(&DataConfig { train: texts.file("train", "abc"), ..DataConfig::default() }).unwrap();
    assert_eq!(corpus.train, [1, 2, 3]);
    assert_eq!((corpus.valid, corpus.test), (None, None));
}

#[test]
fn the_validation_part_is_the_end_of_the_training_text() {
    let texts = Texts::new();
    let mut train = texts.file("1", "aaaaaaaa");
    train.extend(texts.file("2", "aaaaaaxyz"));
    let config = DataConfig { train, valid_fraction: 0.2, ..DataConfig::default() };
    let corpus = Corpus::load(&config).unwrap();
    // 18 bytes with the line end between the files; the last 3 (0.2 of 18, rounded down) are validation.
    assert_eq!(corpus.train.len(), 15);
    // x, y and z are not in the training text.
    assert_eq!(corpus.valid.unwrap(), [0, 0, 0]);
    assert_eq!(corpus.tokenizer.vocabulary(), 3);
}

#[test]
fn the_cut_moves_forward_to_a_character() {
    let texts = Texts::new();
    for (text, train, valid) in [("ab龍龍", "ab龍", "龍"), ("龍a龍", "龍a", "龍"), ("abcd", "ab", "cd")]
    {
        let config = DataConfig {
            train: texts.file("train", text),
            valid_fraction: 0.5,
            tokenizer: TokenizerConfig::Bytes,
            ..DataConfig::default()
        };
        let corpus = Corpus::load(&config).unwrap();
        assert_eq!(corpus.tokenizer.decode(&corpus.train), train);
        assert_eq!(corpus.tokenizer.decode(&corpus.valid.unwrap()), valid);
    }
}

#[test]
fn max_bytes_limits_the_training_text_before_the_cut() {
    let texts = Texts::new();
    let config = DataConfig {
        train: texts.file("train", "abcdefghij"),
        test: texts.file("test", "abcdefghij"),
        max_bytes: Some(8),
        valid_fraction: 0.25,
        tokenizer: TokenizerConfig::Bytes,
        ..DataConfig::default()
    };
    let corpus = Corpus::load(&config).unwrap();
    assert_eq!((corpus.train.len(), corpus.valid.unwrap().len(), corpus.test.unwrap().len()), (6, 2, 10));
}

#[test]
fn fractions_out_of_range_are_refused_before_anything_is_read() {
    for valid_fraction in [1.0, -0.1, f64::NAN, f64::INFINITY] {
        let config = DataConfig { train: vec!["/nowhere".into()], valid_fraction, ..DataConfig::default() };
        let error = Corpus::load(&config).unwrap_err();
        assert!(matches!(error, CorpusError::ValidFractionOutOfRange { .. }), "{error:?}");
        assert!(error.to_string().contains("data.valid_fraction"), "{error}");
    }
}

#[test]
fn a_cut_that_leaves_nothing_is_refused() {
    let texts = Texts::new();
    for (text, valid_fraction) in [("abc", 0.1), ("龍", 0.5), ("a", 0.999)] {
        let config = DataConfig { train: texts.file("train", text), valid_fraction, ..DataConfig::default() };
        let error = Corpus::load(&config).unwrap_err();
        assert!(matches!(error, CorpusError::ValidFractionTooSmall { .. }), "{text}: {error:?}");
    }
}

#[test]
fn errors_name_the_setting() {
    let texts = Texts::new();
    let (text, empty) = (texts.file("train", "abc"), texts.file("empty", ""));
    let base = DataConfig { train: text, ..DataConfig::default() };
    let nowhere = vec![PathBuf::from("/nowhere/at/all")];
    for (config, setting) in [
        (DataConfig { train: empty.clone(), ..base.clone() }, "data.train"),
        (DataConfig { train: vec![], ..base.clone() }, "data.train"),
        (DataConfig { valid: empty, ..base.clone() }, "data.valid"),
        (DataConfig { test: nowhere.clone(), ..base.clone() }, "data.test"),
        (
            DataConfig { tokenizer: TokenizerConfig::File(nowhere[0].clone()), ..base.clone() },
            "data.tokenizer",
        ),
    ] {
        let text = Corpus::load(&config).unwrap_err().to_string();
        assert!(text.starts_with(setting), "{text:?} does not start with {setting}");
    }
}

#[test]
fn the_setting_tokenizer_is_a_kind_or_a_path() {
    for kind in ["chars", "bytes", "words", "./chars", "a/tokenizer.json"] {
        let config: TokenizerConfig = kind.parse().unwrap();
        assert_eq!(config.to_string(), kind);
        assert_eq!(matches!(config, TokenizerConfig::File(_)), kind.contains('/'));
    }
}
