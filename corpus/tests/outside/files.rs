//! Files and folders to one text: order, joints, limits, and everything that is refused.

use std::fs;
use std::path::{Path, PathBuf};

use carousel_corpus::{CorpusError, SourceOptions, read_text};
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn read(path: &Path, include: &[&str], max_bytes: Option<u64>) -> Result<String, CorpusError> {
    let include = include.iter().map(|glob| glob.to_string()).collect();
    let options = SourceOptions { include, max_bytes, ..SourceOptions::default() };
    read_text("data.train", &[path.to_owned()], &options)
}

#[test]
fn a_folder_is_read_in_the_order_of_path_bytes() {
    let names = ["b", "a/z", "a.txt", "a/b/c", "B", "ä", "a-b"];
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, name.as_bytes())).collect();
    let folder = folder(&files);
    assert_eq!(read(folder.path(), &[], None).unwrap(), "B\na-b\na.txt\na/b/c\na/z\nb\nä");
}

#[test]
fn files_that_are_named_keep_their_order() {
    let folder = folder(&[("1", b"one"), ("2", b"two\n"), ("d/x", b"x")]);
    let paths: Vec<PathBuf> = ["2", "d", "1", "2"].iter().map(|name| folder.path().join(name)).collect();
    // A file that is named is read whatever the globs say.
    let text = read_text(
        "data.train",
        &paths,
        &SourceOptions { include: vec!["x".into()], ..SourceOptions::default() },
    )
    .unwrap();
    assert_eq!(text, "two\nx\none\ntwo\n");
}

#[test]
fn a_line_end_is_put_only_where_two_files_would_run_into_each_other() {
    let folder = folder(&[("1", b"a\n"), ("2", b""), ("3", b"b"), ("4", b""), ("5", b"c")]);
    assert_eq!(read(folder.path(), &[], None).unwrap(), "a\nb\nc");
}

#[test]
fn globs_choose_by_name_at_any_depth_or_by_path() {
    let folder = folder(&[
        ("a.rs", b"1\n"),
        ("src/b.rs", b"2\n"),
        ("src/deep/c.rs", b"3\n"),
        ("src/deep/c.txt", b"4\n"),
        ("x/src/d.rs", b"5\n"),
    ]);
    let chosen = |globs: &[&str]| read(folder.path(), globs, None).unwrap().replace('\n', "");
    assert_eq!(chosen(&[]), "12345");
    assert_eq!(chosen(&["*.rs"]), "1235");
    assert_eq!(chosen(&["src/*.rs"]), "2");
    assert_eq!(chosen(&["src/**/*.rs"]), "23");
    assert_eq!(chosen(&["**/src/**"]), "2345");
    assert_eq!(chosen(&["a.*", "*.{txt,md}"]), "14");
}

#[test]
fn max_bytes_is_the_longest_prefix_at_a_character() {
    let folder =
        folder(&[("1", "aä".as_bytes()), ("2", "龍\n".as_bytes()), ("3", "🙂".as_bytes()), ("4", b"")]);
    let whole = read(folder.path(), &[], None).unwrap();
    assert_eq!(whole, "aä\n龍\n🙂");
    for max in 1..whole.len() + 3 {
        let expected = &whole[..whole.floor_char_boundary(max)];
        assert_eq!(read(folder.path(), &[], Some(max as u64)).unwrap(), expected, "{max} bytes");
    }
    assert_eq!(read(folder.path(), &[], Some(u64::MAX)).unwrap(), whole);
}

#[test]
fn what_lies_behind_max_bytes_is_not_looked_at() {
    let folder = folder(&[("1", b"ab\xff"), ("2", b"\xff")]);
    assert_eq!(read(folder.path(), &[], Some(2)).unwrap(), "ab");
    assert!(matches!(read(folder.path(), &[], Some(3)), Err(CorpusError::NotUtf8 { offset: 2, .. })));
    let folder = self::folder(&[("1", b"a\xffbcd")]);
    assert!(matches!(read(folder.path(), &[], Some(3)), Err(CorpusError::NotUtf8 { offset: 1, .. })));
}

#[test]
fn a_limit_before_the_first_character_is_an_error() {
    let folder = folder(&[("1", "龍".as_bytes())]);
    for max_bytes in [0, 2] {
        let error = read(folder.path(), &[], Some(max_bytes)).unwrap_err();
        assert!(matches!(error, CorpusError::MaxBytesTooSmall { max_bytes: found } if found == max_bytes));
    }
}

#[test]
fn bytes_that_are_not_utf8_are_named_by_file_and_line() {
    let folder = folder(&[("good", b"x\n"), ("sub/bad.txt", b"one\ntwo\nth\xc3\x28ree\nfour")]);
    let bad = folder.path().join("sub/bad.txt");
    for path in [folder.path(), bad.as_path()] {
        let error = read(path, &[], None).unwrap_err();
        assert!(
            matches!(&error, CorpusError::NotUtf8 { path, line: 3, offset: 10, .. } if *path == bad),
            "{error:?}"
        );
        let text = error.to_string();
        assert!(text.contains("bad.txt, line 3") && text.contains("data.train"), "{text}");
    }
}

#[test]
fn a_file_that_ends_within_a_character_is_not_utf8() {
    let folder = folder(&[("1", b"ab\n\xe9\xbe")]);
    for max in [None, Some(5), Some(6)] {
        let error = read(folder.path(), &[], max).unwrap_err();
        assert!(matches!(error, CorpusError::NotUtf8 { line: 2, offset: 3, .. }), "{max:?}: {error:?}");
    }
}

#[test]
fn missing_and_empty_texts_are_named() {
    let folder = folder(&[("empty", b""), ("also/empty", b"")]);
    let missing = folder.path().join("nowhere.txt");
    let error = read(&missing, &[], None).unwrap_err();
    assert!(matches!(&error, CorpusError::NotFound { path, .. } if *path == missing), "{error:?}");
    for path in [folder.path().to_owned(), folder.path().join("empty")] {
        let error = read(&path, &[], None).unwrap_err();
        assert!(matches!(&error, CorpusError::EmptyText { paths, .. } if *paths == [path]), "{error:?}");
    }
    let error = read_text("data.valid", &[], &SourceOptions::default()).unwrap_err();
    assert!(matches!(&error, CorpusError::NothingNamed { setting } if setting == "data.valid"), "{error:?}");
}

#[test]
fn a_folder_without_a_match_names_the_globs() {
    let folder = folder(&[("a.txt", b"a")]);
    let error = read(folder.path(), &["*.rs", "*.md"], None).unwrap_err();
    assert!(
        matches!(&error, CorpusError::NoMatch { include, .. } if include == &["*.rs", "*.md"]),
        "{error:?}"
    );
    assert!(error.to_string().contains("*.md"), "{error}");
    let error = read(folder.path(), &["*.rs", "a{b"], None).unwrap_err();
    assert!(matches!(&error, CorpusError::BadGlob { pattern, .. } if pattern == "a{b"), "{error:?}");
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn links_are_followed_and_loops_are_not() {
        let outside = folder(&[("far", b"far\n")]);
        let folder = folder(&[("a/file", b"near\n"), ("b", b"b\n")]);
        symlink(outside.path(), folder.path().join("a/link")).unwrap();
        symlink(folder.path(), folder.path().join("a/loop")).unwrap();
        symlink("../b", folder.path().join("a/to-b")).unwrap();
        symlink(outside.path(), folder.path().join("c")).unwrap();
        // a/file, a/link/far, a/to-b, b, c/far: what is linked twice is no loop.
        assert_eq!(read(folder.path(), &[], None).unwrap(), "near\nfar\nb\nb\nfar\n");
    }

    #[test]
    fn a_link_to_nothing_is_an_error_where_it_is_wanted() {
        let folder = folder(&[("a.txt", b"a")]);
        symlink("gone", folder.path().join("b.txt")).unwrap();
        let error = read(folder.path(), &["*.txt"], None).unwrap_err();
        assert!(
            matches!(&error, CorpusError::Unreadable { path, .. } if path.ends_with("b.txt")),
            "{error:?}"
        );
        assert_eq!(read(folder.path(), &["a.*"], None).unwrap(), "a");
    }

    #[test]
    fn a_socket_in_a_folder_is_refused_not_waited_for() {
        let folder = folder(&[("a.txt", b"a")]);
        let _listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let error = read(folder.path(), &[], None).unwrap_err();
        assert!(matches!(&error, CorpusError::NotAFile { path, .. } if path.ends_with("s")), "{error:?}");
        assert_eq!(read(folder.path(), &["*.txt"], None).unwrap(), "a");
    }
}
