//! Tokenizers that come as a `tokenizer.json`: run as they are, except for what would make a run wrong.

use std::fs;

use carousel_corpus::{CorpusError, Tokenizer, TokenizerConfig, TokenizerKind};

/// A byte-level BPE of GPT-2's form: `h e l l o` and ` wor` merged, an end token, and a template that would add it.
const BPE: &str = r#"{
  "version": "1.0",
  "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
  "padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 9, "pad_type_id": 0, "pad_token": "<end>"},
  "added_tokens": [{"id": 9, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<end>": {"id": "<end>", "ids": [9], "tokens": ["<end>"]}}},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
    "vocab": {"h": 0, "e": 1, "l": 2, "o": 3, "Ġ": 4, "w": 5, "r": 6, "he": 7, "llo": 8, "<end>": 9, "ll": 10, "Ċ": 11, "ð": 12, "Ł": 13, "Ļ": 14, "Ĥ": 15, "Ġw": 20},
    "merges": [["h", "e"], ["l", "l"], ["ll", "o"], ["Ġ", "w"]]}
}"#;

/// Pieces with a mark for the space before them, as SentencePiece writes them.
const MARKED: &str = r#"{
  "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
  "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
  "post_processor": null,
  "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
  "model": {"type": "WordLevel", "vocab": {"▁a": 0, "▁b": 1, "b": 2}, "unk_token": "<unk>"}
}"#;

fn reason(json: &str) -> String {
    match Tokenizer::from_json(json) {
        Err(CorpusError::BadTokenizer { path: None, reason }) => reason,
        other => panic!("expected a bad tokenizer, found {other:?}"),
    }
}

#[test]
fn a_file_is_run_without_truncation_padding_or_added_tokens() {
    let bpe = Tokenizer::from_json(BPE).unwrap();
    assert_eq!(bpe.kind(), TokenizerKind::File);
    let tokens = bpe.encode("hello worello<end>\nhello").unwrap();
    assert_eq!(tokens, [7, 8, 20, 3, 6, 1, 8, 9, 11, 7, 8]);
    assert_eq!(bpe.decode(&tokens), "hello worello<end>\nhello");
    assert!(bpe.encode("").unwrap().is_empty());
    assert_eq!(bpe.to_json(), BPE);
}

#[test]
fn the_vocabulary_covers_the_largest_id_and_no_number_panics() {
    let bpe = Tokenizer::from_json(BPE).unwrap();
    assert_eq!(bpe.vocabulary(), 21);
    assert_eq!(bpe.decode(&[7, 19, 21, u32::MAX, 8]), "hello");
}

#[test]
fn a_text_of_many_pieces_has_the_tokens_of_the_whole() {
    let bpe = Tokenizer::from_json(BPE).unwrap();
    let mut whole: tokenizers::Tokenizer = BPE.parse().unwrap();
    whole.with_padding(None);
    whole.with_truncation(None).unwrap();
    let text = "hello hello hello worello\nwe whole \n  rol\n".repeat(60_000);
    assert!(text.len() > 2 << 20, "more than two pieces");
    assert_eq!(bpe.encode(&text).unwrap(), whole.encode_fast(text, false).unwrap().get_ids());
}

#[test]
fn a_character_of_several_tokens_is_shown_when_it_is_complete() {
    let bpe = Tokenizer::from_json(BPE).unwrap();
    let tokens = bpe.encode("hello🙂 wo🙂").unwrap();
    assert_eq!(tokens, [7, 8, 12, 13, 14, 15, 20, 3, 12, 13, 14, 15]);
    let mut stream = bpe.stream();
    let shown: Vec<String> = tokens.iter().map(|&token| stream.push(token)).collect();
    assert_eq!(shown, ["he", "llo", "", "", "", "🙂", " w", "o", "", "", "", "🙂"]);
    assert_eq!((stream.push(12), stream.finish()), (String::new(), "\u{FFFD}".to_owned()));
}

#[test]
fn the_stream_keeps_the_spaces_a_decoder_would_strip() {
    let marked = Tokenizer::from_json(MARKED).unwrap();
    let mut stream = marked.stream();
    assert_eq!([0, 1, 2, 0].map(|token| stream.push(token)), ["a", " b", "b", " a"]);
    assert_eq!((stream.finish(), marked.decode(&[0, 1, 2, 0])), (String::new(), "a bb a".to_owned()));
}

#[test]
fn a_text_the_file_has_no_token_for_is_an_error() {
    let marked = Tokenizer::from_json(MARKED).unwrap();
    assert_eq!(marked.encode("a b").unwrap(), [0, 1]);
    assert!(matches!(marked.encode("a c"), Err(CorpusError::Encode { .. })));
}

#[test]
fn random_tokens_are_refused() {
    let json = BPE.replace("\"dropout\": null", "\"dropout\": 0.1");
    assert!(reason(&json).contains("model.dropout = 0.1"), "{}", reason(&json));
    assert!(Tokenizer::from_json(&BPE.replace("\"dropout\": null", "\"dropout\": 0.0")).is_ok());
}

#[test]
fn what_is_no_tokenizer_says_what_is_wrong() {
    assert!(reason("").contains("line 1"), "{}", reason(""));
    assert!(reason(&BPE[..900]).contains("line"), "{}", reason(&BPE[..900]));
    for json in ["[]", "{}", "7", "null", "{\"model\": {\"vocab\": 3}}", "{\"version\": \"1.0\"}"] {
        assert!(!reason(json).is_empty(), "{json}");
    }
    let empty = MARKED.replace("{\"▁a\": 0, \"▁b\": 1, \"b\": 2}", "{}");
    assert!(reason(&empty).contains("empty"), "{}", reason(&empty));
    let huge = MARKED.replace("\"b\": 2", "\"b\": 4294967295");
    assert!(reason(&huge).contains("4294967295"), "{}", reason(&huge));
}

#[test]
fn a_file_is_named_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let load = || Tokenizer::for_text(&TokenizerConfig::File(path.clone()), "not used").unwrap_err();
    assert!(matches!(load(), CorpusError::NotFound { path: found, .. } if found == path));
    fs::write(&path, "{\n \"model\": 3,\n").unwrap();
    let text = load().to_string();
    assert!(text.contains("tokenizer.json") && text.contains("line 3"), "{text}");
    fs::write(&path, b"\xff").unwrap();
    assert!(matches!(load(), CorpusError::BadTokenizer { path: Some(found), .. } if found == path));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(load(), CorpusError::Unreadable { path: found, .. } if found == path));
}
