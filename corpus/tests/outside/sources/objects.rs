//! Objects behind URLs, over a storage that is made up: what is listed, in which order, and what can go wrong.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::sync::Arc;

use carousel_corpus::{CorpusError, Object, SourceOptions, Storage, StorageError};

use super::text;

/// Objects by URL. Those whose text is `vanishes` and `breaks` do so when they are read.
struct Shelf(BTreeMap<String, Vec<u8>>);

pub(super) fn shelf(objects: &[(&str, &[u8])]) -> SourceOptions {
    let objects = objects.iter().map(|(url, bytes)| ((*url).to_owned(), bytes.to_vec())).collect();
    SourceOptions { storage: Arc::new(Shelf(objects)), ..SourceOptions::default() }
}

impl Shelf {
    fn object(url: &str, bytes: &[u8]) -> Object {
        Object { url: url.into(), bytes: Some(bytes.len() as u64), version: None }
    }
}

impl Storage for Shelf {
    fn find(&self, url: &str) -> Result<Option<Object>, StorageError> {
        Ok(self.0.get(url).map(|bytes| Self::object(url, bytes)))
    }

    fn list(&self, folder: &str) -> Result<Vec<Object>, StorageError> {
        assert!(folder.ends_with('/'), "{folder}");
        let below = self.0.iter().rev().filter(|(url, _)| url.starts_with(folder));
        Ok(below.map(|(url, bytes)| Self::object(url, bytes)).collect())
    }

    fn open(&self, object: &Object, range: Range<u64>) -> Result<Box<dyn Read + Send>, StorageError> {
        let bytes = &self.0[&object.url];
        match bytes.as_slice() {
            b"vanishes" => Err(StorageError::Gone { what: "vanished" }),
            b"breaks" => {
                let breaks = StorageError::Failed { source: "the connection broke".into() };
                Ok(Box::new(Cursor::new(b"bre".to_vec()).chain(Failing(Some(breaks)))))
            }
            bytes => {
                let end = (range.end.min(bytes.len() as u64)) as usize;
                Ok(Box::new(Cursor::new(bytes[range.start as usize..end].to_vec())))
            }
        }
    }
}

struct Failing(Option<StorageError>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().map_or_else(|| io::ErrorKind::BrokenPipe.into(), io::Error::other))
    }
}

#[test]
fn an_object_a_folder_and_a_pattern_are_read_in_the_order_of_keys() {
    let options = shelf(&[
        ("s3://b/t/b.txt", b"b\n"),
        ("s3://b/t/a/z.txt", b"z\n"),
        ("s3://b/t/a.md", b"md\n"),
        ("s3://b/t/", b""),
        ("s3://b/tt.txt", b"tt\n"),
    ]);
    for (url, expected) in [
        ("s3://b/tt.txt", "tt\n"),
        ("s3://b/t/", "md\nz\nb\n"),
        ("s3://b/t", "md\nz\nb\n"),
        ("s3://b/t/*.txt", "b\n"),
        ("s3://b/**/*.txt", "z\nb\ntt\n"),
        ("s3://b/t/{a,b}*", "md\nb\n"),
    ] {
        assert_eq!(text(url, &options).unwrap(), expected, "{url}");
    }
    let only_md = SourceOptions { include: vec!["*.md".into()], ..options };
    assert_eq!(text("s3://b/t/", &only_md).unwrap(), "md\n");
}

#[test]
fn what_is_not_there_is_named() {
    let options = shelf(&[("s3://b/t/b.txt", b"b\n")]);
    for url in ["s3://b/nowhere", "https://host/nowhere"] {
        let error = text(url, &options).unwrap_err();
        assert!(
            matches!(&error, CorpusError::NotFound { path, .. } if path.to_str() == Some(url)),
            "{error:?}"
        );
    }
    let error = text("s3://b/t/*.md", &options).unwrap_err();
    assert!(matches!(&error, CorpusError::NoMatch { include, .. } if include == &["*.md"]), "{error:?}");
}

#[test]
fn an_object_that_vanished_after_it_was_listed_is_named() {
    let options = shelf(&[("s3://b/1", b"there\n"), ("s3://b/2", b"vanishes")]);
    let error = text("s3://b/", &options).unwrap_err();
    let CorpusError::Storage { url, source: StorageError::Gone { what: "vanished" }, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(url, "s3://b/2");
    assert!(error.to_string().contains("has vanished since"), "{error}");
}

#[test]
fn a_connection_that_stays_broken_is_an_error_not_the_end_of_the_text() {
    let options = shelf(&[("s3://b/1", b"breaks")]);
    let error = text("s3://b/1", &options).unwrap_err();
    assert!(matches!(&error, CorpusError::Storage { url, .. } if url == "s3://b/1"), "{error:?}");
    assert!(error.to_string().contains("the connection broke"), "{error}");
}

#[test]
fn a_url_in_a_program_that_reads_local_files_names_the_feature() {
    for url in ["s3://b/x", "gs://b/x/", "az://c/*.txt", "http://h/x", "https://h/x"] {
        let error = text(url, &SourceOptions::default()).unwrap_err().to_string();
        assert!(
            error.contains("cargo build --release --features cloud") && error.contains("data.train"),
            "{error}"
        );
    }
    let error = text("ftp://host/x", &SourceOptions::default()).unwrap_err().to_string();
    assert!(error.contains("\"ftp\"") && error.contains("s3://"), "{error}");
}
