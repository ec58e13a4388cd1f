//! A file that only grows, by whole entries. A full disk tears nothing and loses nothing while memory lasts: what cannot
//! be written waits, in order, and is written before whatever comes after it. What an entry means is its owner's.

use std::collections::VecDeque;
use std::io;

use crate::storage::Storage;

/// At most so many bytes wait in memory.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// A growing file.
#[derive(Debug)]
pub(crate) struct AppendFile {
    storage: Box<dyn Storage>,
    /// Where the last whole entry ends.
    end: u64,
    /// Whether something torn may lie beyond `end`.
    torn: bool,
    /// Entries that are not in the file yet, oldest first.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    max_waiting_bytes: usize,
    /// Whether the owner has been told that the file takes nothing.
    failing: bool,
    lost: u64,
}

/// What became of an append.
#[derive(Debug)]
pub(crate) enum Appended {
    /// It is in the file.
    Whole,
    /// The file has begun to refuse; the entry waits in memory.
    Fails(io::Error),
    /// The file still refuses; the entry waits.
    Waits,
    /// The file refuses and memory is used up; the entry is lost.
    Lost,
    /// The file takes entries again, and those that waited are in it.
    Recovered {
        /// Entries that were lost meanwhile.
        lost: u64,
    },
}

impl AppendFile {
    /// A file whose last whole entry ends at `end`.
    pub(crate) fn new(storage: impl Storage + 'static, end: u64) -> Self {
        Self {
            storage: Box::new(storage),
            end,
            torn: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            max_waiting_bytes: MAX_WAITING_BYTES,
            failing: false,
            lost: 0,
        }
    }

    /// Appends an entry after those that wait.
    pub(crate) fn append(&mut self, entry: Vec<u8>) -> Appended {
        let mut before = Appended::Whole;
        if !self.has_memory_for(&entry) {
            before = self.retry();
        }
        if !self.has_memory_for(&entry) {
            self.lost += 1;
            return if matches!(before, Appended::Fails(_)) { before } else { Appended::Lost };
        }
        self.waiting_bytes += entry.len();
        self.waiting.push_back(entry);
        match self.retry() {
            Appended::Whole => before,
            now => now,
        }
    }

    fn has_memory_for(&self, entry: &[u8]) -> bool {
        self.waiting_bytes + entry.len() <= self.max_waiting_bytes
    }

    /// Writes what waits, as far as it fits.
    pub(crate) fn retry(&mut self) -> Appended {
        match self.write_waiting() {
            Ok(()) if std::mem::take(&mut self.failing) => {
                Appended::Recovered { lost: std::mem::take(&mut self.lost) }
            }
            Ok(()) => Appended::Whole,
            Err(_) if self.failing => Appended::Waits,
            Err(problem) => {
                self.failing = true;
                Appended::Fails(problem)
            }
        }
    }

    /// Whether every entry is in the file.
    pub(crate) fn is_whole(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what lies beyond `end`, which is where an entry ends, and of what waits all but what `stays`.
    pub(crate) fn go_back(&mut self, end: u64, stays: impl Fn(&[u8]) -> bool) {
        self.waiting.retain(|entry| stays(entry));
        self.waiting_bytes = self.waiting.iter().map(Vec::len).sum();
        (self.end, self.torn) = (end, true);
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        self.cut_torn()?;
        while let Some(entry) = self.waiting.front() {
            let written = self.storage.write_at(entry, self.end);
            let bytes = entry.len();
            if let Err(problem) = written {
                self.torn = true;
                // When cutting fails too, the next attempt begins with it: nothing is written behind something torn.
                let cut = self.cut_torn();
                return cut.and(Err(problem));
            }
            self.end += bytes as u64;
            self.waiting_bytes -= bytes;
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn cut_torn(&mut self) -> io::Result<()> {
        if self.torn {
            self.storage.set_length(self.end)?;
            self.torn = false;
        }
        Ok(())
    }
}

#[cfg(test)]
impl AppendFile {
    /// The same with another bound.
    pub(crate) fn with_memory(self, max_waiting_bytes: usize) -> Self {
        Self { max_waiting_bytes, ..self }
    }
}

/// What is worth telling of a file, once each time it changes.
#[derive(Debug)]
pub(crate) struct News {
    /// The file, as it is called in the run's folder.
    pub file: &'static str,
    /// What has changed.
    pub change: Change,
}

/// What has changed with a file.
#[derive(Debug)]
pub(crate) enum Change {
    /// It takes nothing any more.
    Fails(io::Error),
    /// It takes what belongs in it again.
    Recovered {
        /// Entries that were lost meanwhile.
        lost: u64,
    },
}

impl News {
    /// What an append to `file` tells, if anything.
    pub(crate) fn of(file: &'static str, appended: Appended) -> Option<Self> {
        let change = match appended {
            Appended::Whole | Appended::Waits | Appended::Lost => return None,
            Appended::Fails(problem) => Change::Fails(problem),
            Appended::Recovered { lost } => Change::Recovered { lost },
        };
        Some(Self { file, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fake::Disk;

    fn file(disk: &Disk) -> AppendFile {
        AppendFile::new(disk.clone(), 0)
    }

    fn text(disk: &Disk) -> String {
        disk.with(|d| String::from_utf8(d.bytes.clone()).unwrap())
    }

    #[test]
    fn a_full_disk_tears_nothing_and_what_waited_comes_in_order() {
        let disk = Disk::new();
        let mut file = file(&disk);
        assert!(matches!(file.append(b"one\n".to_vec()), Appended::Whole));
        disk.leave_room_for(2);
        assert!(
            matches!(file.append(b"two\n".to_vec()), Appended::Fails(e) if e.kind() == io::ErrorKind::StorageFull)
        );
        assert_eq!(text(&disk), "one\n", "half an entry is cut off again");
        assert!(matches!(file.append(b"three\n".to_vec()), Appended::Waits), "said once");
        assert!(!file.is_whole());
        disk.leave_room_for(usize::MAX - 99);
        assert!(matches!(file.append(b"four\n".to_vec()), Appended::Recovered { lost: 0 }));
        assert_eq!(text(&disk), "one\ntwo\nthree\nfour\n");
        assert!(file.is_whole() && file.waiting_bytes == 0);
        assert!(matches!(file.append(b"five\n".to_vec()), Appended::Whole));
    }

    #[test]
    fn what_fits_is_written_while_the_rest_waits() {
        let disk = Disk::new();
        let mut file = file(&disk);
        disk.leave_room_for(0);
        file.append(b"one\n".to_vec());
        file.append(b"two\n".to_vec());
        disk.leave_room_for(5);
        assert!(matches!(file.retry(), Appended::Waits));
        assert_eq!(text(&disk), "one\n");
        disk.leave_room_for(4);
        assert!(matches!(file.retry(), Appended::Recovered { lost: 0 }));
        assert_eq!(text(&disk), "one\ntwo\n");
    }

    #[test]
    fn nothing_is_written_behind_something_torn() {
        let disk = Disk::new();
        let mut file = file(&disk);
        disk.leave_room_for(2);
        disk.with(|d| d.stuck = true);
        assert!(
            matches!(file.append(b"one\n".to_vec()), Appended::Fails(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem)
        );
        disk.leave_room_for(99);
        assert!(matches!(file.append(b"two\n".to_vec()), Appended::Waits));
        assert_eq!(text(&disk), "on", "the torn part is still there, and nothing behind it");
        disk.with(|d| d.stuck = false);
        assert!(matches!(file.append(b"three\n".to_vec()), Appended::Recovered { .. }));
        assert_eq!(text(&disk), "one\ntwo\nthree\n");
    }

    #[test]
    fn memory_is_bounded_and_what_was_lost_is_counted() {
        let disk = Disk::new();
        let mut file = file(&disk).with_memory(8);
        disk.leave_room_for(0);
        let said: Vec<Appended> = (0..4).map(|n| file.append(format!("{n}..\n").into_bytes())).collect();
        assert!(
            matches!(said[..], [Appended::Fails(_), Appended::Waits, Appended::Lost, Appended::Lost]),
            "{said:?}"
        );
        disk.leave_room_for(99);
        assert!(matches!(file.append(b"4..\n".to_vec()), Appended::Recovered { lost: 2 }));
        assert_eq!(text(&disk), "0..\n1..\n4..\n");
    }
    #[test]
    fn going_back_forgets_what_lies_beyond_also_of_what_waits() {
        let disk = Disk::new();
        let mut file = file(&disk);
        file.append(b"1\n".to_vec());
        file.append(b"2\n".to_vec());
        disk.leave_room_for(0);
        file.append(b"3\n".to_vec());
        file.append(b"4\n".to_vec());
        file.go_back(2, |entry| entry == b"3\n");
        disk.leave_room_for(99);
        assert!(matches!(file.append(b"5\n".to_vec()), Appended::Recovered { lost: 0 }));
        assert_eq!(text(&disk), "1\n3\n5\n");
    }
}
