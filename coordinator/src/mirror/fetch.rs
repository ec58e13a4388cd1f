//! A run fetched from its bucket into a folder: only what the head names, every length and hash checked.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use carousel_proto::digest::Digest;

use super::error::MirrorError;
use super::head::{Entry, Head, Part};
use super::lease::wrong;
use super::publish::{FILES, MANIFEST, Manifest};
use super::store::Store;
use crate::checkpoint::keep::{Standing, best};
use crate::checkpoint::{BEST, CARRIES_FILE, LATEST, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, point_link};

/// A manifest lists four files.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
const CHECKPOINT_FILES: [&str; 4] = [STATE_FILE, MODEL_FILE, OPTIMIZER_FILE, CARRIES_FILE];

/// Fetches the run that `head` tells of into `folder`, which is made: its files, its newest checkpoint and its best.
pub(crate) fn fetch(store: &dyn Store, head: &Head, folder: &Path) -> Result<(), MirrorError> {
    let checkpoints = folder.join("checkpoints");
    fs::create_dir_all(&checkpoints).map_err(MirrorError::io(&checkpoints))?;
    for name in FILES {
        if let Some(parts) = head.files.get(name) {
            file(store, parts, &folder.join(name))?;
        }
    }
    let standing: Vec<Standing> = head.checkpoints.iter().map(standing).collect();
    let best = best(&standing);
    let newest = head.checkpoints.last().map(|entry| entry.step);
    for entry in head.checkpoints.iter().filter(|e| Some(e.step) == newest || Some(e.step) == best) {
        checkpoint(store, entry, &checkpoints.join(format!("step-{:08}", entry.step)))?;
    }
    let links = [(LATEST, newest), (BEST, best)];
    for (link, step) in links.into_iter().filter_map(|(link, step)| step.map(|step| (link, step))) {
        point_link(&checkpoints, link, step).map_err(|error| MirrorError::Io {
            path: checkpoints.join(link),
            source: std::io::Error::other(error),
        })?;
    }
    Ok(())
}

fn standing(entry: &Entry) -> Standing {
    Standing { step: entry.step, valid_loss: entry.valid_loss_bits.map(f64::from_bits) }
}

fn file(store: &dyn Store, parts: &[Part], path: &Path) -> Result<(), MirrorError> {
    let mut file = File::create(path).map_err(MirrorError::io(path))?;
    for part in parts {
        let bytes = get(store, &part.key, (part.bytes, &part.blake3))?;
        file.write_all(&bytes).map_err(MirrorError::io(path))?;
    }
    file.sync_all().map_err(MirrorError::io(path))
}

fn checkpoint(store: &dyn Store, entry: &Entry, folder: &Path) -> Result<(), MirrorError> {
    let key = format!("{}/{MANIFEST}", entry.folder);
    let bytes = get(store, &key, (MAX_MANIFEST_BYTES, &entry.manifest_blake3))?;
    let damaged = |found: String, expected: &str| damaged(store, &key, found, expected);
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string(), "a manifest"))?;
    fs::create_dir(folder).map_err(MirrorError::io(folder))?;
    for name in CHECKPOINT_FILES {
        let expected = manifest.files.get(name).ok_or_else(|| damaged(format!("no {name}"), "one"))?;
        let (key, path) = (format!("{}/{name}", entry.folder), folder.join(name));
        store.get_file(&key, expected.bytes, &path).map_err(|source| wrong(store, source))?;
        let found = hash_of(&path).map_err(MirrorError::io(&path))?;
        if found != expected.blake3 {
            return Err(self::damaged(store, &key, format!("BLAKE3 {found}"), &expected.blake3));
        }
    }
    Ok(())
}

fn get(store: &dyn Store, key: &str, (most, blake3): (u64, &str)) -> Result<Vec<u8>, MirrorError> {
    let found = store.get(key, most).map_err(|source| wrong(store, source))?;
    let (bytes, _) = found.ok_or_else(|| damaged(store, key, "nothing".into(), "an object"))?;
    let found = Digest::of_bytes(&bytes).to_string();
    if found != blake3 {
        return Err(damaged(store, key, format!("BLAKE3 {found}"), blake3));
    }
    Ok(bytes)
}

fn hash_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        };
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn damaged(store: &dyn Store, key: &str, found: String, expected: &str) -> MirrorError {
    let (address, key) = (store.address().to_owned(), key.to_owned());
    MirrorError::Damaged { address, key, found, expected: expected.into() }
}
