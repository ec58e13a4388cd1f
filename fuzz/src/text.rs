//! Text to train on, from objects that a server says it has: plain, JSON lines, gzip, Zstandard.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use carousel_corpus::{Object, Source, SourceOptions, Storage, StorageError};

use crate::within_limits;

/// Text behind a URL whose ending, and with it the format, the first byte chooses.
pub fn text_source(data: &[u8]) {
    let Some((kind, content)) = data.split_first() else { return };
    let endings = ["txt", "jsonl", "txt.gz", "jsonl.gz", "txt.zst", "jsonl.zst"];
    let ending = endings[usize::from(*kind) % endings.len()];
    let object = Object {
        url: format!("s3://bucket/text.{ending}"),
        bytes: Some(content.len() as u64),
        version: None,
    };
    let paths = [PathBuf::from(&object.url)];
    let storage: Arc<dyn Storage> = Arc::new(OneObject { object, content: content.into() });
    // A compressed text may be a thousand times as long as its bytes; what matters here is how it is read.
    let options = SourceOptions { max_bytes: Some(1 << 22), storage, ..SourceOptions::default() };
    within_limits(|| {
        if let Ok(source) = Source::open("data.train", &paths, &options) {
            source.take_while(Result::is_ok).for_each(drop);
        }
    });
}

struct OneObject {
    object: Object,
    content: Arc<[u8]>,
}

impl Storage for OneObject {
    fn find(&self, _: &str) -> Result<Option<Object>, StorageError> {
        Ok(Some(self.object.clone()))
    }

    fn list(&self, _: &str) -> Result<Vec<Object>, StorageError> {
        Ok(vec![self.object.clone()])
    }

    fn open(&self, _: &Object, range: Range<u64>) -> Result<Box<dyn Read + Send>, StorageError> {
        let length = self.content.len() as u64;
        let (start, end) = (range.start.min(length), range.end.min(length));
        let mut reader = Cursor::new(self.content.clone());
        reader.set_position(start);
        Ok(Box::new(reader.take(end.saturating_sub(start))))
    }
}
