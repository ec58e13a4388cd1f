//! JSON lines: which text they are, and everything a line can be instead.

use carousel_corpus::{CorpusError, Format, SourceOptions};

use super::{documents, folder, pieces, text};

fn with_field(field: &str) -> SourceOptions {
    SourceOptions { field: field.into(), ..SourceOptions::default() }
}

#[test]
fn a_line_is_a_document() {
    let lines = br#"{"id": 1, "text": "one\ntwo\n", "meta": {"text": "no"}}

{"text":"\u00e4\ud83d\ude42","tags":["x"]}
{"text": ""}
  {"text": null}
{"text": "\u0022last\u0022"}"#;
    let folder = folder(&[("x.jsonl", lines)]);
    let found = pieces(folder.path(), &with_field("text")).unwrap();
    assert_eq!(documents(&found), ["one\ntwo\n", "ä🙂", "\"last\""]);
    assert_eq!(text(folder.path(), &with_field("text")).unwrap(), "one\ntwo\nä🙂\n\"last\"");
}

#[test]
fn the_field_is_the_one_of_the_configuration() {
    let folder = folder(&[("x.ndjson", b"{\"text\": \"no\", \"body\": \"yes\"}\n")]);
    assert_eq!(text(folder.path(), &with_field("body")).unwrap(), "yes");
}

#[test]
fn the_format_of_the_configuration_comes_before_the_name() {
    let folder = folder(&[("x.txt", b"{\"text\": \"yes\"}")]);
    let as_lines = SourceOptions { format: Format::JsonLines, ..SourceOptions::default() };
    assert_eq!(text(folder.path(), &as_lines).unwrap(), "yes");
    let named = self::folder(&[("x.jsonl", b"{\"text\": \"yes\"}")]);
    let as_text = SourceOptions { format: Format::Text, ..SourceOptions::default() };
    assert_eq!(text(named.path(), &as_text).unwrap(), "{\"text\": \"yes\"}");
}

#[test]
fn a_line_that_cannot_be_used_is_named_with_what_was_found() {
    let cases: &[(&str, &str)] = &[
        ("{\"text\": \"x\"", "not a JSON object: EOF while parsing an object (column"),
        ("{\"text\": 'x'}", "not a JSON object: expected value (column 10)"),
        ("[\"text\"]", "not a JSON object: invalid type: sequence, expected an object"),
        ("\"text\"", "expected an object"),
        ("{\"text\": \"x\"} {}", "trailing characters"),
        ("{\"text\": \"\\ud800\"}", "not a JSON object"),
        ("{\"text\": 3}", "\"text\" is a number, expected a string"),
        ("{\"text\": [\"x\"]}", "\"text\" is a list, expected a string"),
        ("{\"text\": {}}", "\"text\" is an object, expected a string"),
        ("{\"id\": 1, \"body\": \"x\"}", "no field \"text\" (data.field), only \"id\", \"body\""),
        ("{}", "no field \"text\" (data.field), only an empty object"),
    ];
    for (line, expected) in cases {
        let content = format!("{{\"text\": \"good\"}}\n\n{line}\n{{\"text\": \"good\"}}\n");
        let folder = folder(&[("bad.jsonl", content.as_bytes())]);
        let error = text(folder.path(), &with_field("text")).unwrap_err();
        assert!(matches!(&error, CorpusError::BadLine { line: 3, .. }), "{line}: {error:?}");
        let message = error.to_string();
        assert!(message.contains("data.train") && message.contains("bad.jsonl, line 3: "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_line_that_is_not_utf8_is_named_by_line_and_byte() {
    let folder = folder(&[("x.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n")]);
    let error = text(folder.path(), &with_field("text")).unwrap_err();
    assert!(matches!(error, CorpusError::NotUtf8 { line: 2, offset: 24, .. }), "{error:?}");
}

#[test]
fn a_line_too_long_to_hold_is_refused() {
    let line = format!("{{\"text\": \"{}\"}}", "x".repeat(65 << 20));
    let folder = folder(&[("x.jsonl", line.as_bytes())]);
    let error = text(folder.path(), &with_field("text")).unwrap_err();
    assert!(error.to_string().contains("line 1: a line of more than 67108864 bytes"), "{error}");
}

#[test]
fn a_long_document_comes_in_pieces() {
    let long = "word and word\n".repeat(500_000);
    let lines = format!("{}\n{{\"text\":\"short\"}}\n", serde_json::json!({ "text": long }));
    let folder = folder(&[("x.jsonl", lines.as_bytes())]);
    let found = pieces(folder.path(), &with_field("text")).unwrap();
    assert!(found.len() > 5 && found.iter().all(|piece| piece.text.len() <= 4 << 20));
    assert!(documents(&found) == [long, "short".to_owned()]);
}

#[test]
fn a_limit_counts_text_not_lines() {
    let folder = folder(&[("x.jsonl", b"{\"text\": \"abc\"}\n{\"text\": \"d\\u00e4\"}\nbroken")]);
    let limited = |max| text(folder.path(), &SourceOptions { max_bytes: Some(max), ..with_field("text") });
    let cases = [(2, "ab"), (3, "abc"), (4, "abc\n"), (5, "abc\nd"), (6, "abc\nd"), (7, "abc\ndä")];
    for (max, expected) in cases {
        assert_eq!(limited(max).unwrap(), expected, "{max}");
    }
    // With room for more, the next line is read.
    assert!(matches!(limited(8), Err(CorpusError::BadLine { line: 3, .. })));
}
