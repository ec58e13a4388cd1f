//! Pieces, documents, and where both end.

use carousel_corpus::{CorpusError, SourceOptions, read_text};

use super::{documents, folder, pieces, text};

const LARGEST: usize = 4 << 20;

fn by_default() -> SourceOptions {
    SourceOptions::default()
}

#[test]
fn pieces_joined_are_the_text_and_none_is_large() {
    let lines: String = (0..400_000).map(|i| format!("line {i} of a text\n")).collect();
    let long = "word ".repeat(2 << 20);
    let folder = folder(&[("1", lines.as_bytes()), ("2", long.as_bytes()), ("3", b"end")]);
    let found = pieces(folder.path(), &by_default()).unwrap();
    assert!(found.len() > 8 && found.iter().all(|piece| piece.text.len() <= LARGEST), "{}", found.len());
    assert!(found[..4].iter().all(|piece| piece.text.ends_with('\n')), "a piece of lines ends behind one");
    let joined: String = found.iter().map(|piece| piece.text.as_str()).collect();
    assert!(joined == format!("{lines}{long}\nend"));
    assert!(documents(&found) == [lines, long, "end".into()]);
}

#[test]
fn a_document_that_ends_where_a_piece_does_has_no_empty_piece_behind_it() {
    let whole = format!("{}\n", "x".repeat((1 << 20) - 1));
    let folder = folder(&[("1", whole.as_bytes()), ("2", whole.as_bytes())]);
    let found = pieces(folder.path(), &by_default()).unwrap();
    assert_eq!(
        found.iter().map(|p| (p.text.len(), p.ends_document)).collect::<Vec<_>>(),
        [(1 << 20, true); 2]
    );
}

#[test]
fn the_line_end_between_documents_is_marked_as_put_there() {
    let folder = folder(&[("1", b"own\n"), ("2", b"none"), ("3", b""), ("4", b"last")]);
    let found = pieces(folder.path(), &by_default()).unwrap();
    let parts: Vec<(&str, bool)> = found.iter().map(|piece| (piece.text.as_str(), piece.joined)).collect();
    assert_eq!(parts, [("own\n", false), ("none\n", true), ("last", false)]);
}

#[test]
fn bytes_consumed_grow_to_the_total() {
    let folder = folder(&[("1", b"12345\n"), ("2", &[b'x'; 3 << 20])]);
    let source = carousel_corpus::Source::open("data.train", &[folder.path().into()], &by_default()).unwrap();
    let total = source.total_bytes().unwrap();
    assert_eq!(total, 6 + (3 << 20));
    let consumed: Vec<u64> = source.map(|piece| piece.unwrap().consumed).collect();
    assert!(consumed.is_sorted() && consumed[0] >= 6, "{consumed:?}");
    assert_eq!(consumed.last(), Some(&total));
}

#[test]
fn bad_utf8_far_into_a_file_is_named_by_line_and_byte() {
    let mut bytes = b"0123456789\n".repeat(300_000);
    bytes.extend_from_slice(b"ab\xff");
    let folder = folder(&[("x", &bytes)]);
    let error = text(folder.path(), &by_default()).unwrap_err();
    assert!(matches!(error, CorpusError::NotUtf8 { line: 300_001, offset: 3_300_002, .. }), "{error:?}");
}

#[test]
fn a_limit_within_a_long_text_is_exact() {
    let words = "ä b\n".repeat(1 << 20);
    let folder = folder(&[("1", words.as_bytes()), ("2", b"\xff")]);
    for max in [1, 2, 3, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_001, words.len()] {
        let options = SourceOptions { max_bytes: Some(max as u64), ..by_default() };
        if max == 1 {
            assert!(matches!(
                text(folder.path(), &options),
                Err(CorpusError::MaxBytesTooSmall { max_bytes: 1 })
            ));
            continue;
        }
        let found = pieces(folder.path(), &options).unwrap();
        let joined: String = found.iter().map(|piece| piece.text.as_str()).collect();
        assert!(joined == words[..words.floor_char_boundary(max)], "{max}");
        assert!(found.last().unwrap().ends_document);
    }
}

#[test]
fn after_an_error_nothing_comes() {
    let folder = folder(&[("1", b"good\n"), ("2", b"\xff"), ("3", b"good\n")]);
    let mut source =
        carousel_corpus::Source::open("data.train", &[folder.path().into()], &by_default()).unwrap();
    assert!(source.next().unwrap().is_ok() && source.next().unwrap().is_err());
    assert!(source.next().is_none() && source.next().is_none());
}

#[test]
fn a_path_may_be_a_pattern() {
    let folder = folder(&[("a.txt", b"1\n"), ("b.txt", b"2\n"), ("c.md", b"3\n"), ("d[1].txt", b"4\n")]);
    let read = |name: &str| read_text("data.train", &[folder.path().join(name)], &by_default());
    assert_eq!(read("[ab].txt").unwrap(), "1\n2\n");
    assert_eq!(read("{b,c}*").unwrap(), "2\n3\n");
    // A file of exactly this name is that file.
    assert_eq!(read("d[1].txt").unwrap(), "4\n");
    let error = read("*.rs").unwrap_err();
    assert!(matches!(&error, CorpusError::NoMatch { include, .. } if include == &["*.rs"]), "{error:?}");
}
