//! States that come back, and every way in which a slot may be wrong.

use super::*;
use crate::storage::fake::Disk;

/// Not a whole number of blocks.
const FLOATS: usize = 1500;

fn committed(step: u64) -> Committed<'static> {
    let record = Record {
        term: 4,
        step,
        tokens: 70,
        loss_sum: 3.5,
        grad_norm: 0.25,
        clip_scale: 0.5,
        learning_rate: 0.1,
    };
    let carries: Vec<f32> = (0..FLOATS).map(|i| i as f32 - step as f32).collect();
    Committed {
        term: 5,
        step,
        record: Some(record),
        schedule: ScheduleState { best_valid_loss: Some(1.5), divisions: 2, ..ScheduleState::new() },
        validation: Some(1.75),
        step_ms: (0..256).map(|n| u32::MAX - n).collect(),
        carries: carries.into(),
    }
}

/// A file with these steps saved one after the other, and what it holds.
fn saved(steps: &[u64]) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("committed.bin");
    let mut file = CommittedFile::create(&path, FLOATS).unwrap();
    steps.iter().for_each(|&step| file.save(&committed(step)).unwrap());
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

fn last_step(path: &Path) -> Option<u64> {
    CommittedFile::open(path, FLOATS).unwrap().1.map(|c| c.step)
}

#[test]
fn the_last_state_comes_back_bit_for_bit() {
    let (_folder, path, _) = saved(&[]);
    assert_eq!(CommittedFile::open(&path, FLOATS).unwrap().1, None, "nothing has been saved");
    for steps in [&[7][..], &[7, 8], &[7, 8, 9]] {
        let (_folder, path, _) = saved(steps);
        let last = committed(*steps.last().unwrap());
        assert_eq!(CommittedFile::open(&path, FLOATS).unwrap().1.as_ref(), Some(&last));
        assert_eq!(CommittedFile::read(&path).unwrap(), Some(last));
    }
}

#[test]
fn a_run_that_went_back_is_where_it_was_saved_last_not_furthest() {
    let (_folder, path, _) = saved(&[57, 21]);
    assert_eq!(last_step(&path), Some(21));
}

#[test]
fn a_save_never_touches_the_newest_whole_slot_also_after_a_restart() {
    let (_folder, path, before) = saved(&[1, 2, 3]);
    let (mut file, _) = CommittedFile::open(&path, FLOATS).unwrap();
    file.save(&committed(4)).unwrap();
    let after = fs::read(&path).unwrap();
    let half = before.len() / 2;
    assert_eq!(before[..half], after[..half], "step 3 stands in slot 0");
    assert_ne!(before[half..], after[half..]);
    assert_eq!(last_step(&path), Some(4));
}

#[test]
fn a_half_written_slot_leaves_the_one_before() {
    let (_folder, path, second) = saved(&[1, 2]);
    let (_other, _, third) = saved(&[1, 2, 3]);
    // The third save goes to slot 0, and is cut short at each of these bytes.
    for cut in [1, 8, 20, 45, 70, 4095, 4096, 5000, 10_000] {
        let torn = [&third[..cut], &second[cut..]].concat();
        fs::write(&path, torn).unwrap();
        assert_eq!(last_step(&path), Some(2), "cut at {cut}");
    }
    fs::write(&path, &third).unwrap();
    assert_eq!(last_step(&path), Some(3));
}

#[test]
fn a_first_save_that_was_cut_short_is_no_save() {
    let (_folder, path, mut bytes) = saved(&[1]);
    bytes[4000..8000].fill(0xff);
    fs::write(&path, bytes).unwrap();
    assert_eq!(last_step(&path), None);
}

#[test]
fn every_flipped_bit_is_found_and_two_of_them_are_damage() {
    let (_folder, path, bytes) = saved(&[1, 2]);
    let half = bytes.len() / 2;
    for at in [0, 9, 41, 50, 58, 61, 100, 4090, 4096, half - 1] {
        let mut spoiled = bytes.clone();
        spoiled[half + at] ^= 4;
        fs::write(&path, &spoiled).unwrap();
        assert_eq!(last_step(&path), Some(1), "byte {at} of the newer slot");
    }
    let mut spoiled = bytes.clone();
    spoiled[0] ^= 1;
    spoiled[half + 99] ^= 1;
    fs::write(&path, &spoiled).unwrap();
    let error = CommittedFile::open(&path, FLOATS).unwrap_err();
    let expected = [SlotFault::Magic, SlotFault::Hash];
    assert!(matches!(error, CommittedError::Damaged { slots, .. } if slots == expected), "{error}");
}

#[test]
fn a_slot_that_has_its_hash_is_still_not_trusted() {
    let (_folder, _, bytes) = saved(&[1]);
    let slot = &bytes[..bytes.len() / 2];
    let spoiled = |at: usize, with: &[u8]| {
        let mut slot = slot.to_vec();
        slot[at..at + with.len()].copy_from_slice(with);
        let hash = Digest::of_bytes(&slot[HASHED..]);
        slot[MAGIC.len()..HASHED].copy_from_slice(hash.as_bytes());
        read_slot(&slot, 0).map(|whole| whole.committed.step)
    };
    assert_eq!(spoiled(HASHED, &[9]), Ok(1), "another sequence is as good");
    assert_eq!(spoiled(HASHED + 8, &u64::MAX.to_le_bytes()), Err(SlotFault::Content), "floats beyond memory");
    assert_eq!(
        spoiled(HASHED + 8, &9999u64.to_le_bytes()),
        Err(SlotFault::Content),
        "floats beyond the slot"
    );
    assert_eq!(
        spoiled(HASHED + 16, &u32::MAX.to_le_bytes()),
        Err(SlotFault::Content),
        "a head beyond its block"
    );
    assert_eq!(spoiled(HASHED + 16, &1u32.to_le_bytes()), Err(SlotFault::Content), "half a head");
    assert_eq!(
        spoiled(HASHED + 16, &4000u32.to_le_bytes()),
        Err(SlotFault::Content),
        "zeros behind the head"
    );
}

#[test]
fn another_length_is_refused_before_anything_is_read() {
    let (_folder, path, bytes) = saved(&[1]);
    let error = CommittedFile::open(&path, FLOATS + 1000).unwrap_err().to_string();
    assert!(error.ends_with("found 24576 bytes, expected 32768"), "{error}");
    for length in [0, 1, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(matches!(CommittedFile::open(&path, FLOATS), Err(CommittedError::Size { .. })));
        assert!(matches!(CommittedFile::read(&path), Err(CommittedError::Size { .. })), "{length}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(CommittedFile::open(&path, FLOATS), Err(CommittedError::Io { .. })));
}

#[test]
fn all_the_room_it_will_ever_need_is_taken_at_once() {
    use std::os::unix::fs::MetadataExt;
    let (_folder, path, _) = saved(&[]);
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 >= metadata.len(), "{} blocks of 512", metadata.blocks());
    let (_folder, path, _) = saved(&[1, 2, 3]);
    assert_eq!(fs::metadata(&path).unwrap().len(), metadata.len());
}

#[test]
fn a_save_that_fails_leaves_the_state_before_and_is_made_again_in_the_same_place() {
    let disk = Disk::new();
    let (_folder, path, bytes) = saved(&[1, 2]);
    disk.with(|d| d.bytes = bytes);
    let (file, _) = CommittedFile::open(&path, FLOATS).unwrap();
    let mut file = CommittedFile { storage: Box::new(disk.clone()), ..file };
    disk.with(|d| d.broken_after = Some(5000));
    let error = file.save(&committed(3)).unwrap_err();
    assert!(matches!(error, CommittedError::Io { .. }), "{error}");
    let last =
        |disk: &Disk| disk.with(|d| newest(&d.bytes, &path).unwrap().map(|whole| whole.committed.step));
    assert_eq!(last(&disk), Some(2), "slot 0 is half written");
    disk.with(|d| d.broken_after = None);
    file.save(&committed(4)).unwrap();
    assert_eq!(last(&disk), Some(4));
}
