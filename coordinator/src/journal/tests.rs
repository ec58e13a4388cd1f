//! Journals that come back, and every way in which they may not be whole.

use super::*;
use crate::storage::fake::Disk;

fn record(step: u64) -> Record {
    Record { term: 1, step, tokens: 10, loss_sum: 3.5, grad_norm: 0.25, clip_scale: 1.0, learning_rate: 0.1 }
}

fn commit(step: u64) -> Entry {
    Entry::Commit(record(step))
}

/// A journal with term 1 and some commits, closed again.
fn written(steps: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.bin");
    let mut journal = Journal::create(&path).unwrap();
    journal.append(&Entry::Term { term: 1 }).unwrap();
    for step in 1..=steps {
        journal.append(&commit(step)).unwrap();
    }
    journal.syncer().sync().unwrap();
    (folder, path)
}

/// A journal on a disk of the test's own.
fn on_disk(disk: &Disk) -> Journal {
    let path = PathBuf::from("journal.bin");
    disk.with(|d| d.bytes = header().to_vec());
    let sync = JournalSync { path: path.clone(), file: None };
    Journal { path, file: AppendFile::new(disk.clone(), HEADER_BYTES as u64), sync }
}

fn steps(contents: &Contents) -> Vec<u64> {
    contents.commits().map(|r| r.step).collect()
}

#[test]
fn what_was_decided_comes_back_in_order() {
    let (_folder, path) = written(2);
    let (mut journal, contents) = Journal::open(&path).unwrap();
    assert_eq!(contents.entries, [Entry::Term { term: 1 }, commit(1), commit(2)]);
    assert_eq!(contents.damaged_bytes, 0);
    journal.append(&commit(3)).unwrap();
    assert_eq!(steps(&Journal::read(&path).unwrap()), [1, 2, 3], "appended behind what was there");
}

#[test]
fn the_highest_term_counts_also_without_a_commit() {
    let (_folder, path) = written(2);
    let (mut journal, contents) = Journal::open(&path).unwrap();
    assert_eq!(contents.term(), 1);
    journal.append(&Entry::Term { term: 7 }).unwrap();
    assert_eq!(Journal::read(&path).unwrap().term(), 7);
    assert_eq!(Contents::default().term(), 0);
}

#[test]
fn of_a_step_made_again_the_later_record_counts_and_none_is_forgotten() {
    let (_folder, path) = written(3);
    let (mut journal, _) = Journal::open(&path).unwrap();
    journal.append(&Entry::Term { term: 2 }).unwrap();
    journal.append(&Entry::Commit(Record { term: 2, ..record(2) })).unwrap();
    let records = Journal::read(&path).unwrap().records();
    let seen: Vec<(u64, u64)> = records.into_iter().map(|(step, r)| (step, r.term)).collect();
    assert_eq!(seen, [(1, 1), (2, 2), (3, 1)]);
}

#[test]
fn a_torn_or_damaged_tail_is_passed_over_and_cut_off() {
    let (_folder, path) = written(3);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for spoiled in [&whole[..whole.len() - 1], &flipped] {
        std::fs::write(&path, spoiled).unwrap();
        let (mut journal, contents) = Journal::open(&path).unwrap();
        assert_eq!(steps(&contents), [1, 2]);
        assert!(contents.damaged_bytes > 0);
        journal.append(&commit(3)).unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            whole,
            "what is appended stands behind the last whole entry"
        );
    }
}

#[test]
fn another_file_or_version_is_refused_by_name() {
    let (_folder, path) = written(1);
    let error = Journal::create(&path).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "a run's journal is never overwritten: {error}");
    std::fs::write(&path, b"{}").unwrap();
    let error = Journal::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::NotAJournal { found, .. } if found == b"{}"));
    std::fs::write(&path, b"CRSLJRN\x01").unwrap();
    let error = Journal::open(&path).unwrap_err();
    assert!(error.to_string().ends_with("version 1, this program reads version 2"), "{error}");
}

#[test]
fn a_second_coordinator_is_refused_until_the_first_is_gone() {
    let (_folder, path) = written(1);
    let (journal, _) = Journal::open(&path).unwrap();
    let error = Journal::open(&path).unwrap_err();
    assert!(error.to_string().ends_with("another coordinator works on this run"), "{error}");
    assert_eq!(steps(&Journal::read(&path).unwrap()), [1], "reading needs no lock");
    let syncer = journal.syncer();
    drop(journal);
    assert!(matches!(Journal::open(&path), Err(JournalError::Locked { .. })), "its checkpoint is under way");
    drop(syncer);
    Journal::open(&path).unwrap();
}

#[test]
fn a_new_run_s_journal_is_locked_from_its_creation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.bin");
    let _journal = Journal::create(&path).unwrap();
    assert!(matches!(Journal::open(&path), Err(JournalError::Locked { .. })));
}

#[test]
fn a_full_disk_is_told_once_and_nothing_is_lost_or_torn() {
    let disk = Disk::new();
    let mut journal = on_disk(&disk);
    let whole = |disk: &Disk| disk.with(|d| scan(body_of(&d.bytes, Path::new("x")).unwrap()).0);
    journal.append(&commit(1)).unwrap();
    disk.leave_room_for(20);
    let told = journal.append(&commit(2)).unwrap();
    assert!(matches!(told, Journalled::Fails(e) if e.kind() == io::ErrorKind::StorageFull));
    assert!(matches!(journal.append(&commit(3)).unwrap(), Journalled::AsBefore));
    assert!(!journal.is_whole());
    let contents = whole(&disk);
    assert_eq!((steps(&contents), contents.damaged_bytes), (vec![1], 0), "nothing torn is left");
    disk.leave_room_for(1000);
    assert!(matches!(journal.append(&commit(4)).unwrap(), Journalled::Recovered));
    assert_eq!(steps(&whole(&disk)), [1, 2, 3, 4]);
    assert!(journal.is_whole());
}

#[test]
fn a_decision_that_memory_cannot_hold_is_an_error_not_a_gap() {
    let disk = Disk::new();
    let mut journal = on_disk(&disk);
    journal.file = AppendFile::new(disk.clone(), HEADER_BYTES as u64).with_memory(100);
    disk.leave_room_for(0);
    let first = (1..9).map(|step| journal.append(&commit(step))).position(|appended| appended.is_err());
    assert_eq!(first, Some(2), "two records of some 40 bytes can wait");
    let error = journal.append(&commit(9)).unwrap_err();
    assert!(matches!(error, JournalError::Overflow { .. }), "{error}");
}

#[test]
fn a_huge_length_is_damage_not_memory() {
    let mut bytes = u32::MAX.to_le_bytes().to_vec();
    bytes.extend([0; 64]);
    assert!(read_entry(&bytes).is_none());
}

#[test]
fn the_term_is_no_content() {
    assert!(record(1).same_content(&Record { term: 9, ..record(1) }));
    assert!(!record(1).same_content(&Record { grad_norm: 0.5, ..record(1) }));
}
