//! What the run's files need of a disk, and no more: bytes at a place, and a length. A trait, so that tests can put a disk
//! without room in its place. It knows no formats and decides nothing.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file that can be written at any place.
pub(crate) trait Storage: Debug + Send {
    /// Writes `bytes` from `offset` on. After an error any part of them may be there.
    ///
    /// # Errors
    /// When not all could be written.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file to `bytes`, or grows it to them.
    ///
    /// # Errors
    /// When the length stays as it was.
    fn set_length(&mut self, bytes: u64) -> io::Result<()>;
}

impl Storage for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_length(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// A disk of a test's own: it runs full when the test says so, and tears what does not fit.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// What is on the disk, and how much more fits.
    #[derive(Debug)]
    pub(crate) struct Contents {
        pub bytes: Vec<u8>,
        /// The length that the file may reach.
        pub room: usize,
        /// Whether cutting the file fails too.
        pub stuck: bool,
        /// After how many bytes each write breaks off, room or not.
        pub broken_after: Option<usize>,
    }

    /// A file on a fake disk; clones are the same file.
    #[derive(Clone, Debug)]
    pub(crate) struct Disk(Arc<Mutex<Contents>>);

    impl Disk {
        /// An empty file on a disk with all room.
        pub(crate) fn new() -> Self {
            let contents = Contents { bytes: Vec::new(), room: usize::MAX, stuck: false, broken_after: None };
            Self(Arc::new(Mutex::new(contents)))
        }

        /// Looks at the disk, or changes it.
        pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Contents) -> T) -> T {
            f(&mut self.0.lock().unwrap())
        }

        /// Leaves room for `bytes` more.
        pub(crate) fn leave_room_for(&self, bytes: usize) {
            self.with(|disk| disk.room = disk.bytes.len() + bytes);
        }
    }

    impl Storage for Disk {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.with(|disk| {
                let offset = offset as usize;
                let end = (offset + bytes.len()).min(disk.room.max(disk.bytes.len()));
                let end = end.min(offset + disk.broken_after.unwrap_or(bytes.len()));
                let fits = end.saturating_sub(offset);
                if disk.bytes.len() < end {
                    disk.bytes.resize(end, 0);
                }
                disk.bytes[offset..offset + fits].copy_from_slice(&bytes[..fits]);
                if fits == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
            })
        }

        fn set_length(&mut self, bytes: u64) -> io::Result<()> {
            self.with(|disk| {
                if disk.stuck {
                    return Err(io::ErrorKind::ReadOnlyFilesystem.into());
                }
                disk.bytes.resize(bytes as usize, 0);
                Ok(())
            })
        }
    }
}
