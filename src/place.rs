//! Where a run is: in a folder, or in a bucket with a scratch folder that the coordinator works in. Reading commands get a
//! copy of what is in the bucket.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carousel_coordinator::RunError;
use carousel_coordinator::checkpoint::RunFolder;
use carousel_coordinator::mirror::{self, Holder, Mirror, MirrorError, Store, StoreError};
use carousel_proto::digest::Digest;

use crate::bucket;
use crate::config::{Config, Output};
use crate::failure::Failure;

/// How a run is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Where nothing is yet.
    New,
    /// Where it stands.
    Resume,
    /// Where it stands, or new where there is none.
    Either,
}

/// Where a run is made.
#[derive(Debug)]
pub(crate) struct Place {
    /// The folder that the coordinator works in.
    pub folder: PathBuf,
    /// Whether a run there is gone on with.
    pub resume: bool,
    bucket: Option<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    store: Arc<dyn Store>,
    output: Output,
    mirror: Option<Mirror>,
}

/// Finds the place; `given` is --run. Of a run in a bucket that is gone on with, takes the lease and fetches it.
pub(crate) fn find(
    given: Option<&Path>,
    default: PathBuf,
    (config, begin): (&Config, Begin),
) -> Result<Place, Failure> {
    let named = given.map(Path::to_path_buf).or_else(|| config.output.run.clone().map(PathBuf::from));
    let path = named.unwrap_or(default);
    let Some(address) = address(&path) else { return in_folder(path, begin) };
    let store = bucket::store(&address)?;
    let there = mirror::has_run(&*store).map_err(refused)?;
    let folder = scratch(&config.output, &address)?.join("run");
    let mut bucket = Bucket { store, output: config.output.clone(), mirror: None };
    let resume = begin == Begin::Resume || (begin == Begin::Either && there);
    if !resume {
        if there {
            return Err(refused(MirrorError::Exists { address }));
        }
        check_free(&folder, begin)?;
        return Ok(Place { folder, resume, bucket: Some(bucket) });
    }
    let mirror = bucket.claim()?;
    if !mirror.restore(&folder).map_err(refused)? {
        return Err(refused(MirrorError::NoRun { address }));
    }
    bucket.mirror = Some(mirror);
    Ok(Place { folder, resume, bucket: Some(bucket) })
}

fn in_folder(folder: PathBuf, begin: Begin) -> Result<Place, Failure> {
    let is_begun = || RunFolder::new(&folder).is_begun();
    let resume = begin == Begin::Resume || (begin == Begin::Either && is_begun());
    if !resume {
        check_free(&folder, begin)?;
    }
    Ok(Place { folder, resume, bucket: None })
}

/// A new run needs a place where nothing is; one that may be started again takes over what a start left that was cut short.
fn check_free(folder: &Path, begin: Begin) -> Result<(), Failure> {
    let taken_over = begin == Begin::Either && RunFolder::new(folder).is_half_made();
    if folder.exists() && !taken_over {
        return Err(RunError::Exists { path: folder.into() }.into());
    }
    Ok(())
}

impl Place {
    /// Takes the run in its bucket, if it is in one and not ours yet: when all else has been checked.
    pub(crate) fn claim(self) -> Result<Option<Mirror>, Failure> {
        let Some(mut bucket) = self.bucket else { return Ok(None) };
        match bucket.mirror.take() {
            Some(mirror) => Ok(Some(mirror)),
            None => bucket.claim().map(Some),
        }
    }
}

impl Bucket {
    fn claim(&self) -> Result<Mirror, Failure> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let host = carousel_worker::host_name();
        let process = std::process::id();
        let boot = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let made = format!("{host} {process} {} {boot}", now.as_nanos());
        let holder = Holder {
            host,
            process,
            since: now.as_secs(),
            nonce: Digest::of_bytes(made.as_bytes()).to_string(),
            promise_seconds: self.output.lease_seconds,
        };
        let patience = Duration::from_secs(self.output.patience_seconds);
        Mirror::claim(self.store.clone(), holder, patience).map_err(refused)
    }
}

/// A run for reading; the folder goes with it.
pub(crate) struct Copy {
    pub path: PathBuf,
    fetched: Option<tempfile::TempDir>,
}

impl Copy {
    /// Whether it comes from a bucket.
    pub(crate) fn is_fetched(&self) -> bool {
        self.fetched.is_some()
    }
}

/// The run or checkpoint at a path; of an address, a copy of the run there in a temporary folder.
pub(crate) fn copy(path: &Path) -> Result<Copy, Failure> {
    let Some(address) = address(path) else { return Ok(Copy { path: path.into(), fetched: None }) };
    let store = bucket::store(&address)?;
    let folder = tempfile::tempdir().map_err(Failure::failed)?;
    let path = folder.path().join("run");
    mirror::fetch_copy(&*store, &path).map_err(refused)?;
    Ok(Copy { path, fetched: Some(folder) })
}

fn address(path: &Path) -> Option<String> {
    path.to_str()
        .filter(|text| carousel_corpus::is_url(text))
        .map(|text| text.trim_end_matches('/').to_owned())
}

/// The scratch folder of an address, made for this user alone.
fn scratch(output: &Output, address: &str) -> Result<PathBuf, Failure> {
    let hash = Digest::of_bytes(address.as_bytes()).to_string();
    let name = format!("carousel-{}", &hash[..16]);
    let folder = output.scratch.clone().map_or_else(|| std::env::temp_dir().join(name), PathBuf::from);
    let wrong = |error: std::io::Error| Failure::bad_input(format!("{}: {error}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(wrong)?;
    let owner = |path: &Path| fs::symlink_metadata(path).map(|found| found.uid());
    if owner(&folder).map_err(wrong)? != owner(Path::new("/proc/self")).map_err(wrong)? {
        let expected = "a folder of this user; name another by output.scratch";
        return Err(Failure::bad_input(format!(
            "{}: belongs to somebody else, expected {expected}",
            folder.display()
        )));
    }
    Ok(folder)
}

/// What the user can put right is bad input; a bucket that was not reached is a failure.
fn refused(error: MirrorError) -> Failure {
    match error {
        MirrorError::Store { source: StoreError::Failed(_), .. } | MirrorError::Io { .. } => {
            Failure::failed(error)
        }
        _ => Failure::bad_input(error),
    }
}
