//! gzip and zstd, as their own programs write them, whole and damaged.

use std::fs;
use std::io::Write;

use carousel_corpus::{CorpusError, SourceOptions};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{fixture, folder, text};

/// Where the second member of each file begins.
fn boundary(name: &str, bytes: &[u8]) -> usize {
    let magic: &[u8] = if name == "text.gz" { &[0x1f, 0x8b, 8] } else { &[0x28, 0xb5, 0x2f, 0xfd] };
    let starts: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(magic)).collect();
    *starts.last().unwrap()
}

fn expected() -> String {
    (0..1500).map(|i| format!("line {i} of the text\n")).collect()
}

#[test]
fn every_member_is_read_whatever_the_name_says() {
    for name in ["text.gz", "text.zst"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let folder = folder(&[(name, &bytes), ("unnamed", &bytes)]);
        for name in [name, "unnamed"] {
            assert_eq!(
                text(folder.path().join(name), &SourceOptions::default()).unwrap(),
                expected(),
                "{name}"
            );
        }
    }
}

#[test]
fn compressed_json_lines_are_json_lines() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"{\"text\": \"a\"}\n{\"text\": 1}\n").unwrap();
    let folder = folder(&[("x.jsonl.gz", &encoder.finish().unwrap())]);
    let error = text(folder.path(), &SourceOptions::default()).unwrap_err();
    assert!(matches!(error, CorpusError::BadLine { line: 2, .. }), "{error:?}");
}

#[test]
fn a_file_that_is_cut_off_is_never_a_shorter_text() {
    for name in ["text.gz", "text.zst"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let whole = boundary(name, &bytes);
        // In front of byte 5 nothing says that it is compressed, but the name.
        for length in
            (1..bytes.len()).filter(|&length| length != whole && (length != 11 || name == "text.gz"))
        {
            let folder = folder(&[(name, &bytes[..length])]);
            let error = text(folder.path(), &SourceOptions::default()).unwrap_err();
            assert!(matches!(&error, CorpusError::Damaged { .. }), "{name}, {length} bytes: {error:?}");
            if length > 16 {
                assert!(error.to_string().contains("is cut off"), "{name}, {length} bytes: {error}");
            }
        }
    }
}

#[test]
fn a_file_with_a_wrong_byte_is_never_another_text() {
    for name in ["text.gz", "text.zst"] {
        let bytes = fs::read(fixture(name)).unwrap();
        let mut refused = 0;
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x55;
            let folder = folder(&[(name, &wrong)]);
            match text(folder.path(), &SourceOptions::default()) {
                Ok(text) => assert_eq!(text, expected(), "{name}, byte {at}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused * 10 > bytes.len() * 9, "{name}: only {refused} of {} were noticed", bytes.len());
    }
}

#[test]
fn a_name_that_promises_what_is_not_there_is_an_error() {
    for name in ["x.gz", "x.txt.zst", "x.GZIP"] {
        let folder = folder(&[(name, b"plain\n")]);
        let error = text(folder.path(), &SourceOptions::default()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("the content does not begin like that"), "{error}");
    }
}

#[test]
fn bad_utf8_is_named_by_its_place_in_the_text() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&b"good line\n".repeat(200_000)).unwrap();
    encoder.write_all(b"\xff").unwrap();
    let folder = folder(&[("x.gz", &encoder.finish().unwrap())]);
    let error = text(folder.path(), &SourceOptions::default()).unwrap_err();
    assert!(matches!(error, CorpusError::NotUtf8 { line: 200_001, offset: 2_000_000, .. }), "{error:?}");
}
