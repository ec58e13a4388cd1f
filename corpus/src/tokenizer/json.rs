//! Our own kinds as Hugging Face `tokenizer.json` files, and their recognition. The files are written for the
//! `tokenizers` library, which gives the same ids by its own code; ours is only faster.

use serde_json::Value;

use super::{chars, words};
use crate::EOS;

/// A file that [`chars()`], [`bytes()`] or [`words()`] could have written, with the text of every id in order.
#[derive(Debug, PartialEq)]
pub(super) enum Own {
    Chars {
        /// From id 1 on.
        chars: Vec<char>,
        /// Whether `<eos>` is behind them.
        eos: bool,
    },
    Bytes {
        /// Whether `<eos>` is behind them.
        eos: bool,
    },
    /// Among them `<eos>` and `<unk>`.
    Words(Vec<String>),
}

/// BPE without merges splits into characters.
const CHARS: &str = r#"{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [],
  "normalizer": null,
  "pre_tokenizer": null,
  "post_processor": null,
  "decoder": {
    "type": "Sequence",
    "decoders": [
      {"type": "Replace", "pattern": {"String": "<unk>"}, "content": "\ufffd"},
      {"type": "Fuse"}
    ]
  },
  "model": {
    "type": "BPE",
    "dropout": null,
    "unk_token": "<unk>",
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {VOCABULARY},
    "merges": []
  }
}
"#;

/// The byte-level alphabet of GPT-2, without its merges and without its split into words.
const BYTES: &str = r#"{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
  "post_processor": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
  "model": {
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {VOCABULARY},
    "merges": []
  }
}
"#;

/// GPT-2's form: a byte-level alphabet, split as its pattern says.
const BPE: &str = r#"{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "model": {
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {VOCABULARY},
    "merges": [
{MERGES}
    ]
  }
}
"#;

/// Over the byte-level alphabet, split as GPT-2 does.
const UNIGRAM: &str = r#"{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [],
  "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
  "model": {
    "type": "Unigram",
    "unk_id": null,
    "byte_fallback": false,
    "vocab": [
{VOCABULARY}
    ]
  }
}
"#;

/// In the decoder, WordPiece puts a space before each word but the first (no word begins with a line end, its
/// mark for going on without one); the rest turns `<eos>` with the spaces around it into a line end.
const WORDS: &str = r#"{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [],
  "normalizer": {"type": "Replace", "pattern": {"String": "\n"}, "content": " <eos> "},
  "pre_tokenizer": {"type": "WhitespaceSplit"},
  "post_processor": null,
  "decoder": {
    "type": "Sequence",
    "decoders": [
      {"type": "WordPiece", "prefix": "\n", "cleanup": false},
      {"type": "Replace", "pattern": {"Regex": "^ ?<eos>$"}, "content": "\n"},
      {"type": "Fuse"},
      {"type": "Replace", "pattern": {"String": "\n "}, "content": "\n"}
    ]
  },
  "model": {
    "type": "WordLevel",
    "vocab": {VOCABULARY},
    "unk_token": "<unk>"
  }
}
"#;

pub(super) fn chars(tokens: impl Iterator<Item = String>) -> String {
    with_vocabulary(CHARS, tokens)
}

pub(super) fn bytes(eos: bool) -> String {
    let eos = eos.then(|| EOS.to_owned());
    with_vocabulary(BYTES, byte_alphabet().into_iter().map(String::from).chain(eos))
}

pub(super) fn words(tokens: impl Iterator<Item = String>) -> String {
    with_vocabulary(WORDS, tokens)
}

/// A byte-level BPE with these merges, each of two texts. `<eos>` is in its vocabulary and is made by no merge.
pub(super) fn bpe(
    tokens: impl Iterator<Item = String>,
    merges: impl Iterator<Item = (String, String)>,
) -> String {
    let merge = |(first, second)| format!("      [{}, {}]", Value::String(first), Value::String(second));
    let merges: Vec<String> = merges.map(merge).collect();
    // The merges first: a vocabulary may have any text in it.
    with_vocabulary(&BPE.replacen("{MERGES}", &merges.join(",\n"), 1), tokens)
}

/// A unigram model of these pieces of bytes and the logarithms of their probabilities, behind `<eos>`, which the split
/// keeps out of every piece of text.
pub(super) fn unigram<'a>(pieces: impl Iterator<Item = (&'a [u8], f64)>) -> String {
    let alphabet = byte_alphabet();
    let text = |piece: &[u8]| piece.iter().map(|&byte| alphabet[usize::from(byte)]).collect::<String>();
    let line =
        |(text, score): (String, f64)| format!("      [{}, {}]", Value::String(text), Value::from(score));
    let all = std::iter::once((EOS.to_owned(), 0.0));
    let lines: Vec<String> = all.chain(pieces.map(|(piece, score)| (text(piece), score))).map(line).collect();
    UNIGRAM.replacen("{VOCABULARY}", &lines.join(",\n"), 1)
}

/// Which of our own kinds a parsed file is, if its every field is what we would have written.
pub(super) fn recognise(file: &Value) -> Option<Own> {
    let tokens = vocabulary(&file["model"]["vocab"])?;
    let same = |json: String| serde_json::from_str(&json).is_ok_and(|written: Value| written == *file);
    let special = |word: &str| tokens.iter().any(|token| token == word);
    if special(EOS) && special(words::UNK) && same(words(tokens.iter().cloned())) {
        return Some(Own::Words(tokens));
    }
    if let Some(eos) = [false, true].into_iter().find(|&eos| same(bytes(eos))) {
        return Some(Own::Bytes { eos });
    }
    let (first, mut rest) = tokens.split_first()?;
    let eos = rest.last().is_some_and(|last| last == EOS);
    rest = &rest[..rest.len() - usize::from(eos)];
    let letters: Option<Vec<char>> = rest.iter().map(|token| only_char(token)).collect();
    let own = first == chars::UNK && same(chars(tokens.iter().cloned()));
    own.then_some(Own::Chars { chars: letters?, eos })
}

/// The text of every id in order, when the ids are 0, 1, 2, ...
fn vocabulary(vocab: &Value) -> Option<Vec<String>> {
    let vocab = vocab.as_object()?;
    let mut tokens = vec![None; vocab.len()];
    for (token, id) in vocab {
        *tokens.get_mut(usize::try_from(id.as_u64()?).ok()?)? = Some(token.clone());
    }
    tokens.into_iter().collect()
}

fn only_char(token: &str) -> Option<char> {
    let mut chars = token.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// The template with one line for each token. Written as text, so that the bytes depend on nothing else.
fn with_vocabulary(template: &str, tokens: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> =
        tokens.enumerate().map(|(id, token)| format!("      {}: {id}", Value::String(token))).collect();
    template.replacen("{VOCABULARY}", &format!("{{\n{}\n    }}", lines.join(",\n")), 1)
}

/// The printable character that stands for each byte: itself if it is printable Latin-1, else one from U+0100 on.
pub(super) fn byte_alphabet() -> [char; 256] {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut substitutes = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte if printable(byte) => char::from(byte),
        _ => substitutes.next().expect("the range has no end"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Value {
        serde_json::from_str(json).unwrap()
    }

    fn tokens(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn what_is_written_is_recognised() {
        let letters = tokens(&["<unk>", "\n", "\"", "\\", "z", "a", "龍"]);
        let own = recognise(&parsed(&chars(letters.into_iter())));
        assert_eq!(own, Some(Own::Chars { chars: vec!['\n', '"', '\\', 'z', 'a', '龍'], eos: false }));
        for eos in [false, true] {
            assert_eq!(recognise(&parsed(&bytes(eos))), Some(Own::Bytes { eos }));
        }
        let ended = tokens(&["<unk>", "a", "<eos>"]);
        let own = recognise(&parsed(&chars(ended.into_iter())));
        assert_eq!(own, Some(Own::Chars { chars: vec!['a'], eos: true }));
        let list = tokens(&["the", "<eos>", "<unk>", "{VOCABULARY}", "\"x\""]);
        assert_eq!(recognise(&parsed(&words(list.clone().into_iter()))), Some(Own::Words(list)));
    }

    #[test]
    fn a_file_that_differs_anywhere_is_not_ours() {
        let list = || tokens(&["<unk>", "a", "b", "<eos>"]).into_iter();
        for (json, from, to) in [
            (chars(list()), "\"fuse_unk\": false", "\"fuse_unk\": true"),
            (chars(list()), "\"normalizer\": null", "\"normalizer\": {\"type\": \"Lowercase\"}"),
            (chars(list()), "\"a\": 1", "\"ab\": 1"),
            (chars(list()), "\"a\": 1", "\"a\": 7"),
            (bytes(false), "\"use_regex\": false", "\"use_regex\": true"),
            (bytes(false), "\"!\": 33", "\"é\": 33"),
            (words(list()), "\"<unk>\": 0", "\"<UNK>\": 0"),
            (words(list()), "WhitespaceSplit", "Whitespace"),
        ] {
            let changed = json.replace(from, to);
            assert_ne!(changed, json, "{from}");
            let own = recognise(&parsed(&changed));
            assert_eq!(own, None, "{from} -> {to}");
        }
    }
}
