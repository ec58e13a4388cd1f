//! Bringing a run's folder up: first the objects, under names that nobody has used, then the head that names them, then
//! what the head does not name any more is removed. Who dies in between leaves the state before or the state after.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carousel_proto::digest::Digest;
use serde::{Deserialize, Serialize};

use super::error::MirrorError;
use super::head::{Entry, Head, Part};
use super::lease::{Lease, wrong};
use super::store::Store;
use crate::checkpoint::keep::{Standing, best, outlived};
use crate::checkpoint::{BEST, FileHash, LATEST, RunFolder, STATE_FILE, read_state};

/// The files of a run that are kept in the bucket, beside its checkpoints.
pub(crate) const FILES: [&str; 5] = ["config.toml", "tokenizer.json", "id", "journal.bin", "metrics.jsonl"];
/// A file goes up in parts of this size: one that grows sends its last part again, not all of it.
const PART_BYTES: usize = 4 << 20;
/// The last object of a checkpoint.
pub(crate) const MANIFEST: &str = "manifest.json";

/// What a checkpoint's objects must be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub files: BTreeMap<String, FileHash>,
}

/// A lease that the renewing and the publishing thread share.
pub(crate) type Shared = Mutex<Lease>;

pub(crate) fn lock(lease: &Shared) -> MutexGuard<'_, Lease> {
    lease.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings up what the folder has and the bucket has not; keeps the `keep` newest checkpoints and the best, 0: all.
pub(crate) fn publish(
    store: &dyn Store,
    lease: &Shared,
    folder: &RunFolder,
    keep: u64,
) -> Result<(), MirrorError> {
    let before = lock(lease).head.clone();
    // Checkpoints first: the journal that is read afterwards reaches their steps.
    let checkpoints = checkpoints(store, &before, folder, keep)?;
    let files = files(store, &before, folder)?;
    if files == before.files && checkpoints == before.checkpoints {
        return Ok(());
    }
    let (next, now) = ((files, checkpoints), lease);
    lock(now).update(store, |head| (head.files, head.checkpoints) = next.clone())?;
    remove_old(store, &before, &next)
}

fn checkpoints(
    store: &dyn Store,
    head: &Head,
    folder: &RunFolder,
    keep: u64,
) -> Result<Vec<Entry>, MirrorError> {
    let mut entries = head.checkpoints.clone();
    let latest = folder.linked(LATEST);
    for step in [folder.linked(BEST), latest].into_iter().flatten() {
        let path = folder.place(step);
        let state = read_state(&path)
            .map_err(|error| MirrorError::Io { path: path.clone(), source: std::io::Error::other(error) })?;
        if !entries.iter().any(|entry| entry.step == step && entry.digest == state.digest) {
            let entry = checkpoint(store, head.turn, &path, &state)?;
            entries.retain(|other| other.step != step);
            entries.push(entry);
        }
    }
    entries.sort_by_key(|entry| entry.step);
    let standing: Vec<Standing> = entries
        .iter()
        .map(|e| Standing { step: e.step, valid_loss: e.valid_loss_bits.map(f64::from_bits) })
        .collect();
    if let Some(latest) = latest {
        let steps: Vec<u64> = entries.iter().map(|entry| entry.step).collect();
        let gone = outlived(&steps, keep, (latest, best(&standing)), |_| true);
        entries.retain(|entry| !gone.contains(&entry.step));
    }
    Ok(entries)
}

/// Brings up a checkpoint, its manifest last. The names have the turn in them: another coordinator's are never touched.
fn checkpoint(
    store: &dyn Store,
    turn: u64,
    path: &Path,
    state: &crate::checkpoint::StateFile,
) -> Result<Entry, MirrorError> {
    let folder = format!("checkpoints/step-{:08}.turn-{turn}", state.step);
    let mut files = state.files.clone();
    let bytes = fs::read(path.join(STATE_FILE)).map_err(MirrorError::io(path.join(STATE_FILE)))?;
    files.insert(STATE_FILE.into(), hash(&bytes));
    for name in files.keys() {
        let key = format!("{folder}/{name}");
        store.put_file(&key, &path.join(name)).map_err(|source| wrong(store, source))?;
    }
    let manifest = serde_json::to_vec_pretty(&Manifest { files }).expect("names and hashes are JSON");
    store.put(&format!("{folder}/{MANIFEST}"), &manifest).map_err(|source| wrong(store, source))?;
    Ok(Entry {
        step: state.step,
        folder,
        digest: state.digest.clone(),
        valid_loss_bits: state.valid_loss.map(f64::to_bits),
        manifest_blake3: Digest::of_bytes(&manifest).to_string(),
    })
}

fn hash(bytes: &[u8]) -> FileHash {
    FileHash { bytes: bytes.len() as u64, blake3: Digest::of_bytes(bytes).to_string() }
}

fn files(
    store: &dyn Store,
    head: &Head,
    folder: &RunFolder,
) -> Result<BTreeMap<String, Vec<Part>>, MirrorError> {
    let mut files = BTreeMap::new();
    for name in FILES {
        let path = folder.path().join(name);
        let content = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            content => content.map_err(MirrorError::io(&path))?,
        };
        let known = head.files.get(name).map_or(&[][..], Vec::as_slice);
        let mut parts = Vec::new();
        for (at, bytes) in content.chunks(PART_BYTES).enumerate() {
            parts.push(part(store, known.get(at), (name, at, head.turn), bytes)?);
        }
        files.insert(name.to_owned(), parts);
    }
    Ok(files)
}

/// A part as it is in the bucket; sent when that one is not the same.
fn part(
    store: &dyn Store,
    known: Option<&Part>,
    (name, at, turn): (&str, usize, u64),
    bytes: &[u8],
) -> Result<Part, MirrorError> {
    let FileHash { bytes: length, blake3 } = hash(bytes);
    if let Some(same) = known.filter(|part| part.blake3 == blake3) {
        return Ok(same.clone());
    }
    let key = format!("files/{name}.{at:04}.turn-{turn}.{}", &blake3[..16]);
    store.put(&key, bytes).map_err(|source| wrong(store, source))?;
    Ok(Part { key, bytes: length, blake3 })
}

/// Removes what `before` named and the head does not any more. What cannot be removed stays, and harms nobody.
fn remove_old(
    store: &dyn Store,
    before: &Head,
    (files, checkpoints): &(BTreeMap<String, Vec<Part>>, Vec<Entry>),
) -> Result<(), MirrorError> {
    let kept: Vec<&str> = files.values().flatten().map(|part| part.key.as_str()).collect();
    let parts = before.files.values().flatten().map(|part| part.key.clone());
    let mut gone: Vec<String> = parts.filter(|key| !kept.contains(&key.as_str())).collect();
    for entry in &before.checkpoints {
        if !checkpoints.iter().any(|kept| kept.folder == entry.folder) {
            let names =
                [MANIFEST, "state.json", "model.safetensors", "optimizer.safetensors", "carries.safetensors"];
            gone.extend(names.map(|name| format!("{}/{name}", entry.folder)));
        }
    }
    for key in gone {
        if let Err(error) = store.delete(&key) {
            tracing::warn!("{}/{key} stays: {error}", store.address());
        }
    }
    Ok(())
}
