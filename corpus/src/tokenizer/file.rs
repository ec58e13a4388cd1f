//! Any tokenizer that a Hugging Face `tokenizer.json` describes, run by their `tokenizers` crate. Only here is that
//! crate known.

use std::collections::HashMap;

use serde_json::Value;

use crate::CorpusError;

/// Text is handed over in pieces of whole lines of at least this many bytes (a longer line stays whole): the cut
/// depends on the text alone, so the tokens do not depend on the number of threads.
const PIECE_BYTES: usize = 1 << 20;
/// Ids at or above this are refused: they would be rows of the embedding.
pub const MAX_VOCABULARY: u64 = 1 << 24;

/// A tokenizer and the text of the file it came from.
#[derive(Clone)]
pub(super) struct FileTokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    vocabulary: usize,
    unknown: Option<u32>,
}

impl FileTokenizer {
    /// From the text of a file and that text parsed.
    pub(super) fn parse(json: &str, value: &Value) -> Result<Self, String> {
        if let Some(dropout) = value["model"]["dropout"].as_f64().filter(|&dropout| dropout != 0.0) {
            return Err(format!("model.dropout = {dropout}: its tokens are random; expected null"));
        }
        let mut inner: tokenizers::Tokenizer =
            json.parse().map_err(|error: tokenizers::Error| error.to_string())?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        let vocabulary = vocabulary(&inner.get_vocab(true))?;
        let unknown = unknown(&value["model"], &inner);
        Ok(FileTokenizer { inner, json: json.to_owned(), vocabulary, unknown })
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, CorpusError> {
        let encodings = self.inner.encode_batch_fast(pieces(text, PIECE_BYTES), false);
        let encodings = encodings.map_err(|error| CorpusError::Encode { reason: error.to_string() })?;
        Ok(encodings.iter().flat_map(|encoding| encoding.get_ids()).copied().collect())
    }

    /// Numbers that are no token are left out; special tokens are shown.
    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        self.inner.decode(tokens, false).unwrap_or_else(|_| char::REPLACEMENT_CHARACTER.to_string())
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The token of this text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// The token of what it does not know, where its model names one.
    pub(super) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The text of the file.
    pub(super) fn json(&self) -> &str {
        &self.json
    }
}

/// One more than the largest id: a vocabulary may have holes.
fn vocabulary(ids: &HashMap<String, u32>) -> Result<usize, String> {
    let largest = ids.values().max().ok_or("the vocabulary is empty")?;
    let size = u64::from(*largest) + 1;
    if size > MAX_VOCABULARY {
        return Err(format!("the id {largest} of a token; expected ids below {MAX_VOCABULARY}"));
    }
    Ok(size as usize)
}

/// BPE, WordPiece and WordLevel name it by its text, Unigram by its number.
fn unknown(model: &Value, inner: &tokenizers::Tokenizer) -> Option<u32> {
    let by_number = model["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok());
    model["unk_token"].as_str().and_then(|text| inner.token_to_id(text)).or(by_number)
}

/// Cuts `text` behind the first line end at or after every `at_least` bytes.
fn pieces(text: &str, at_least: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line_end =
            rest.as_bytes().iter().skip(at_least.saturating_sub(1)).position(|&byte| byte == b'\n');
        let (piece, tail) = rest.split_at(line_end.map_or(rest.len(), |end| end + at_least));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_are_whole_lines_and_nothing_is_lost() {
        assert_eq!(pieces("ab\ncd\nef", 3), ["ab\n", "cd\n", "ef"]);
        assert_eq!(pieces("ab\ncd\nef\n", 4), ["ab\ncd\n", "ef\n"]);
        assert_eq!(pieces("ab\n\n\ncd", 3), ["ab\n", "\n\ncd"]);
        assert_eq!(pieces("ÄÖÜ\nß", 1), ["ÄÖÜ\n", "ß"]);
        assert_eq!(pieces("no line end", 3), ["no line end"]);
        assert!(pieces("", 3).is_empty());
    }
}
