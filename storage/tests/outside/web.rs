//! Objects of a web server: whole, in parts, over connections that break, and gone.

use std::io::Read;

use carousel_storage::{StorageError, Store};

use crate::server::Server;

fn content() -> Vec<u8> {
    (0..200_000u32).flat_map(u32::to_le_bytes).collect()
}

/// All that a reader gives, or the storage's error inside its own.
fn read(mut reader: impl Read) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(error.downcast::<StorageError>().unwrap()),
    }
}

#[test]
fn an_object_is_found_and_read_whole_and_in_parts() {
    let server = Server::start(&content());
    let store = Store::new().unwrap();
    let object = store.find(&server.url).unwrap().unwrap();
    assert_eq!((object.bytes, object.tag.as_deref()), (800_000, Some("\"one\"")));
    assert!(read(store.open(&object, 0..u64::MAX).unwrap()).unwrap() == content());
    for (start, end) in [(0, 10), (5, 799_999), (799_990, u64::MAX), (800_000, u64::MAX), (7, 7)] {
        let found = read(store.open(&object, start..end).unwrap()).unwrap();
        assert!(found == content()[start as usize..end.min(800_000) as usize], "{start}..{end}");
    }
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    for tag in [Some("\"one\"".to_owned()), Some("W/\"one\"".to_owned()), None] {
        let server = Server::start(&content());
        server.set(|state| (state.tag, state.cut_after, state.cuts) = (tag.clone(), Some(300_000), 2));
        let store = Store::new().unwrap();
        let object = store.find(&server.url).unwrap().unwrap();
        assert!(read(store.open(&object, 0..u64::MAX).unwrap()).unwrap() == content(), "{tag:?}");
        let gets = server.gets();
        let ranges: Vec<&str> = gets.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(ranges[0], "whole", "{tag:?}");
        assert!(
            ranges.len() == 3 && ranges[1..].iter().all(|range| range.starts_with("bytes=")),
            "{ranges:?}"
        );
    }
}

#[test]
fn a_connection_that_always_breaks_is_an_error_with_the_place() {
    let server = Server::start(&content());
    let store = Store::new().unwrap();
    let object = store.find(&server.url).unwrap().unwrap();
    // One answer gives something, all others end with their head.
    server.set(|state| (state.tag, state.cut_after, state.cuts) = (None, Some(1000), 1));
    let reader = store.open(&object, 0..u64::MAX).unwrap();
    server.set(|state| (state.cut_after, state.cuts) = (Some(0), usize::MAX));
    let error = read(reader).unwrap_err();
    let StorageError::Broken { at, bytes: 800_000, failures: 6, .. } = error else { panic!("{error:?}") };
    assert_eq!(at, 1000);
    assert!(error.to_string().contains("byte 1000 of 800000"), "{error}");
}

#[test]
fn a_server_without_ranges_is_read_whole_and_never_from_the_wrong_place() {
    let server = Server::start(&content());
    server.set(|state| state.ranges = false);
    let store = Store::new().unwrap();
    let object = store.find(&server.url).unwrap().unwrap();
    assert!(read(store.open(&object, 0..u64::MAX).unwrap()).unwrap() == content());
    server.set(|state| (state.tag, state.cut_after, state.cuts) = (None, Some(1000), 1));
    let object = carousel_storage::Object { tag: None, ..object };
    assert!(read(store.open(&object, 0..u64::MAX).unwrap()).is_err(), "nothing can be taken up");
    assert!(store.open(&object, 5..10).is_err());
}

#[test]
fn an_object_that_vanished_or_changed_after_it_was_found_is_told() {
    let server = Server::start(&content());
    let store = Store::new().unwrap();
    let object = store.find(&server.url).unwrap().unwrap();
    server.set(|state| state.status = 404);
    assert!(matches!(store.open(&object, 0..u64::MAX), Err(StorageError::Vanished)));
    assert_eq!(store.find(&server.url).unwrap(), None);
    server.set(|state| (state.status, state.tag) = (200, Some("\"two\"".into())));
    assert!(matches!(store.open(&object, 0..u64::MAX), Err(StorageError::Changed)));
    // Without tags, a length that differs tells it.
    server.set(|state| (state.tag, state.content) = (None, b"short".to_vec()));
    let untagged = carousel_storage::Object { tag: None, ..object };
    assert!(matches!(store.open(&untagged, 0..u64::MAX), Err(StorageError::Changed)));
}

#[test]
fn an_object_that_changes_under_a_broken_connection_is_told() {
    for (known, then) in [(Some("\"one\""), Some("\"two\"")), (Some("W/\"one\""), Some("W/\"two\""))] {
        let server = Server::start(&content());
        server.set(|state| (state.tag, state.cut_after, state.cuts) = (known.map(Into::into), Some(1000), 1));
        let store = Store::new().unwrap();
        let object = store.find(&server.url).unwrap().unwrap();
        let reader = store.open(&object, 0..u64::MAX).unwrap();
        server.set(|state| state.tag = then.map(Into::into));
        let error = read(reader).unwrap_err();
        assert!(matches!(error, StorageError::Changed), "{known:?}: {error:?}");
    }
}

#[test]
fn a_server_that_wants_a_login_or_does_not_list_is_told() {
    let server = Server::start(b"x");
    let store = Store::new().unwrap();
    for status in [401, 403] {
        server.set(|state| state.status = status);
        let error = store.find(&server.url).unwrap_err();
        assert!(matches!(error, StorageError::Denied { .. }), "{status}: {error:?}");
    }
    server.set(|state| state.status = 405);
    let folder = server.url.replace("text.txt", "");
    let error = store.list(&folder).unwrap_err();
    assert!(matches!(error, StorageError::NoListing { .. }), "{error:?}");
    assert!(error.to_string().contains("name each file by its own address"), "{error}");
}

#[test]
fn nobody_at_the_address_is_an_error_and_not_a_missing_object() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Store::new().unwrap().find(&format!("http://127.0.0.1:{port}/x")).unwrap_err();
    assert!(matches!(error, StorageError::Failed { .. }), "{error:?}");
}
