//! Lease and publishing over a store in memory: every turn-taking of two coordinators, and a death before every put.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::head::{HEAD, Head, Holder};
use super::lease::{Lease, claim, read};
use super::publish::publish;
use super::*;
use crate::checkpoint::Found;

/// What is in the store, and the tags' counter.
#[derive(Debug, Default)]
struct Objects {
    all: BTreeMap<String, (Vec<u8>, u64)>,
    puts: u64,
}

/// A client of the store: writes as long as it may.
#[derive(Clone, Debug, Default)]
struct Memory {
    objects: Arc<Mutex<Objects>>,
    /// Writes that are left; then it is dead.
    left: Arc<Mutex<Option<u64>>>,
    /// Whether the head's next put goes through without an answer, and is sent again.
    doubled: Arc<Mutex<bool>>,
}

impl Memory {
    fn other_client(&self) -> Self {
        Self { objects: self.objects.clone(), ..Self::default() }
    }

    fn live(&self) -> Result<(), StoreError> {
        match &mut *self.left.lock().unwrap() {
            Some(0) => Err(StoreError::Failed("dead".into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Store for Memory {
    fn address(&self) -> &str {
        "s3://b/run"
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.live()?;
        let mut objects = self.objects.lock().unwrap();
        objects.puts += 1;
        let tag = objects.puts;
        objects.all.insert(key.into(), (bytes.to_vec(), tag));
        Ok(())
    }

    fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        self.put(key, &std::fs::read(path).unwrap())
    }

    fn put_if(&self, key: &str, bytes: &[u8], tag: Option<&str>) -> Result<String, StoreError> {
        self.live()?;
        let put = || {
            let mut objects = self.objects.lock().unwrap();
            if objects.all.get(key).map(|(_, tag)| tag.to_string()).as_deref() != tag {
                return Err(StoreError::Conflict);
            }
            objects.puts += 1;
            let tag = objects.puts;
            objects.all.insert(key.into(), (bytes.to_vec(), tag));
            Ok(tag.to_string())
        };
        let first = put()?;
        if std::mem::take(&mut *self.doubled.lock().unwrap()) { put() } else { Ok(first) }
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        let found = self.objects.lock().unwrap().all.get(key).cloned();
        assert!(found.as_ref().is_none_or(|(bytes, _)| bytes.len() as u64 <= limit));
        Ok(found.map(|(bytes, tag)| (bytes, tag.to_string())))
    }

    fn get_file(&self, key: &str, bytes: u64, to: &Path) -> Result<(), StoreError> {
        let (found, _) = self.get(key, bytes)?.ok_or(StoreError::Refused("nothing".into()))?;
        std::fs::write(to, found).map_err(|error| StoreError::Failed(error.into()))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.live()?;
        self.objects.lock().unwrap().all.remove(key);
        Ok(())
    }
}

fn holder(nonce: &str) -> Holder {
    Holder { host: "h".into(), process: 7, since: 0, nonce: nonce.into(), promise_seconds: 4 }
}

fn take(store: &Memory, nonce: &str) -> Result<Lease, MirrorError> {
    claim(store, holder(nonce), &mut |_| {})
}

#[test]
fn a_holder_that_renews_is_left_alone_and_one_that_is_silent_is_overtaken() {
    let store = Memory::default();
    let mut first = take(&store, "a").unwrap();
    for looks in 1..=4 {
        let mut waits = 0;
        let refused = claim(&store, holder("b"), &mut |_| {
            waits += 1;
            if waits == looks {
                first.update(&store, |_| {}).unwrap();
            }
        });
        assert!(matches!(refused, Err(MirrorError::Held { .. })), "renewed at look {looks}");
    }
    let second = take(&store, "b").unwrap();
    assert_eq!((first.head.turn, second.head.turn), (1, 2));
    let lost = first.update(&store, |head| head.files.clear()).unwrap_err();
    assert!(lost.to_string().contains("taken over by process 7 on h"), "{lost}");
    assert_eq!(read(&store).unwrap().unwrap().0, second.head, "the first wrote nothing");
}

#[test]
fn a_put_that_went_through_without_an_answer_is_known_again() {
    let store = Memory::default();
    *store.doubled.lock().unwrap() = true;
    let mut lease = take(&store, "a").unwrap();
    *store.doubled.lock().unwrap() = true;
    lease.update(&store, |head| head.format = 1).unwrap();
    assert!(!*store.doubled.lock().unwrap(), "the fault must have fired");
    lease.update(&store, |head| head.holder = None).unwrap();
    assert_eq!(read(&store).unwrap().unwrap().0.holder, None);
}

#[test]
fn of_two_that_claim_at_once_one_gets_it_whoever_looks_first() {
    for released in [false, true] {
        let store = Memory::default();
        if released {
            take(&store, "before").unwrap().update(&store, |head| head.holder = None).unwrap();
        } else {
            drop(take(&store, "before").unwrap());
        }
        // The second claims between the first one's look and its put: at any of the first one's looks.
        let mut looks = 0;
        let first = claim(&store, holder("a"), &mut |_| {
            looks += 1;
            if looks == 4 {
                take(&store, "b").unwrap();
            }
        });
        assert_eq!(first.is_ok(), released, "with a free lease nobody looks");
    }
}

/// A run's folder with these checkpoints, as a coordinator leaves it.
fn run(steps: &[u64]) -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path().join("run"));
    std::fs::create_dir_all(run.checkpoints()).unwrap();
    std::fs::write(run.config(), "seed = 1\n").unwrap();
    steps.iter().for_each(|step| add(&run, *step));
    (folder, run)
}

fn add(run: &RunFolder, step: u64) {
    crate::checkpoint::tests::write(run, step);
    std::fs::write(run.journal(), vec![7; step as usize]).unwrap();
}

fn fetched(store: &Memory) -> Result<Found, MirrorError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    fetch_copy(store, &path)?;
    let found = RunFolder::new(&path).latest().unwrap();
    let journal = std::fs::read(path.join("journal.bin")).unwrap();
    assert!(journal.len() as u64 >= found.checkpoint.state.step, "no checkpoint is ahead of its journal");
    Ok(found)
}

#[test]
fn a_death_before_any_write_leaves_the_old_checkpoint_or_the_new_one() {
    let mut seen = Vec::new();
    for left in 0.. {
        let (store, (_folder, run)) = (Memory::default(), run(&[20]));
        let lease = Mutex::new(take(&store, "a").unwrap());
        publish(&store, &lease, &run, 1).unwrap();
        add(&run, 40);
        *store.left.lock().unwrap() = Some(left);
        let done = publish(&store, &lease, &run, 1).is_ok();
        seen.push(fetched(&store).unwrap().checkpoint.state.step);
        if done && *store.left.lock().unwrap() != Some(0) {
            break;
        }
    }
    assert!(seen.is_sorted() && seen[0] == 20 && seen.last() == Some(&40), "{seen:?}");
    // Five objects of the checkpoint and one of the journal come before the head.
    assert_eq!(seen.iter().filter(|step| **step == 20).count(), 7, "{seen:?}");
}

#[test]
fn who_is_overtaken_at_any_write_publishes_nothing_and_harms_nothing() {
    for left in 0..7 {
        let (store, (_folder, run)) = (Memory::default(), run(&[20]));
        let lease = Mutex::new(take(&store, "a").unwrap());
        publish(&store, &lease, &run, 1).unwrap();
        add(&run, 40);
        *store.left.lock().unwrap() = Some(left);
        publish(&store, &lease, &run, 1).unwrap_err();
        // Suspended there; another one goes on from the bucket and comes further.
        let successor = store.other_client();
        let (theirs, (_other, further)) = (Mutex::new(take(&successor, "b").unwrap()), self::run(&[60]));
        publish(&successor, &theirs, &further, 1).unwrap();
        let before: Head = read(&store).unwrap().unwrap().0;
        *store.left.lock().unwrap() = None;
        let lost = publish(&store, &lease, &run, 1).unwrap_err();
        assert!(matches!(lost, MirrorError::Lost { .. }), "after {left}: {lost}");
        assert_eq!(read(&store).unwrap().unwrap().0, before, "after {left}");
        assert_eq!(fetched(&store).unwrap().checkpoint.state.step, 60, "after {left}");
    }
}

#[test]
fn a_damaged_object_is_named() {
    let (store, (_folder, run)) = (Memory::default(), run(&[20]));
    let lease = Mutex::new(take(&store, "a").unwrap());
    publish(&store, &lease, &run, 1).unwrap();
    let keys: Vec<String> = store.objects.lock().unwrap().all.keys().cloned().collect();
    for key in keys.iter().filter(|key| *key != HEAD) {
        let sound = store.get(key, u64::MAX).unwrap().unwrap().0;
        let mut torn = sound.clone();
        *torn.last_mut().unwrap() ^= 1;
        store.put(key, &torn).unwrap();
        let error = fetched(&store).unwrap_err().to_string();
        assert!(error.contains(key.as_str()), "{key}: {error}");
        store.put(key, &sound).unwrap();
    }
    fetched(&store).unwrap();
}
