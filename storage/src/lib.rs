//! Objects behind `s3://`, `gs://`, `az://`, `http://` and `https://` as blocking readers that survive a broken connection,
//! and blocking writes under conditions.
//!
//! A small facade over the `object_store` crate with a runtime of its own: callers know no async. It knows nothing of
//! text, tokens or runs, and caches nothing. Not to be called from a thread of another runtime's reactor:
//! it waits.
//!
//! ```no_run
//! use std::io::Read;
//!
//! let store = carousel_storage::Store::new()?;
//! for object in store.list("s3://bucket/texts/")? {
//!     let mut text = String::new();
//!     store.open(&object, 0..object.bytes)?.read_to_string(&mut text)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod error;
mod reader;
mod store;
mod write;

pub use error::StorageError;
pub use reader::Reader;
pub use store::{Object, Store};
pub use write::Condition;
