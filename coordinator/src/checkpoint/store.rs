//! The folder of a run and the checkpoints in it: where they lie, which is the latest whole one, and how a new one gets
//! there without ever being half there.

use std::fs;
use std::path::{Path, PathBuf};

use carousel_proto::digest::Digest;

use super::write::{Context, sync_folder, write_files};
use super::{Checkpoint, CheckpointError, STATE_FILE, Snapshot};

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// A whole checkpoint, and what was passed over on the way to it.
#[derive(Debug)]
pub struct Found {
    /// The latest whole checkpoint.
    pub checkpoint: Checkpoint,
    /// Later ones that could not be used, and why.
    pub passed_over: Vec<CheckpointError>,
}

impl RunFolder {
    /// Names a run's folder; nothing is touched.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// The run's id.
    #[must_use]
    pub fn id(&self) -> PathBuf {
        self.path.join("id")
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal.bin")
    }

    fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The run a path belongs to: a run's folder itself, or that of one of its checkpoints (or of `latest`).
    ///
    /// # Errors
    /// When the path is neither.
    pub fn containing(path: &Path) -> Result<Self, CheckpointError> {
        let real = fs::canonicalize(path).map_err(CheckpointError::io(path))?;
        let run = real
            .ancestors()
            .take(3)
            .find(|p| p.join("config.toml").is_file() && p.join("checkpoints").is_dir());
        run.map(Self::new).ok_or_else(|| CheckpointError::None {
            path: path.into(),
            problem: "neither a run (a folder with config.toml and checkpoints/) nor a checkpoint in one"
                .into(),
        })
    }

    /// Opens a checkpoint by its own folder, or the latest whole one of a run's folder.
    ///
    /// # Errors
    /// When there is none, or the named one is not whole.
    pub fn open_any(path: &Path) -> Result<Found, CheckpointError> {
        if path.join(STATE_FILE).exists() {
            return Ok(Found { checkpoint: Checkpoint::open(path)?, passed_over: Vec::new() });
        }
        Self::new(path).latest()
    }

    /// The latest whole checkpoint: of those in the folder, the one of the highest step that passes every check.
    ///
    /// # Errors
    /// When there is none.
    pub fn latest(&self) -> Result<Found, CheckpointError> {
        let mut passed_over = Vec::new();
        for folder in self.by_descending_step()? {
            match Checkpoint::open(&folder) {
                Ok(checkpoint) => return Ok(Found { checkpoint, passed_over }),
                Err(error) => passed_over.push(error),
            }
        }
        let mut problem = "no whole checkpoint (expected checkpoints/step-*)".to_owned();
        passed_over.iter().for_each(|e| problem.push_str(&format!("; passed over {e}")));
        Err(CheckpointError::None { path: self.path.clone(), problem })
    }

    pub(crate) fn by_ascending_step(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut folders = self.by_descending_step()?;
        folders.reverse();
        Ok(folders)
    }

    fn by_descending_step(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let folder = self.checkpoints();
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        for entry in fs::read_dir(&folder).map_err(CheckpointError::io(&folder))? {
            let path = entry.map_err(CheckpointError::io(&folder))?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if let Some(step) = name.strip_prefix("step-").and_then(|s| s.parse::<u64>().ok()) {
                steps.push((step, path));
            }
        }
        steps.sort();
        Ok(steps.into_iter().rev().map(|(_, path)| path).collect())
    }

    /// Writes a checkpoint beside the others, renames it into place, and points `latest` at it.
    ///
    /// # Errors
    /// When something cannot be written; what was there before is untouched.
    pub fn write(&self, snapshot: &Snapshot, context: Context) -> Result<(PathBuf, Digest), CheckpointError> {
        let folder = self.checkpoints();
        let name = format!("step-{:08}", snapshot.step);
        let beside = folder.join(format!(".{name}.new"));
        remove_if_there(&beside)?;
        fs::create_dir_all(&beside).map_err(CheckpointError::io(&beside))?;
        let digest = write_files(&beside, snapshot, context)?;
        let place = folder.join(&name);
        // A folder of this step is left from a run that went on from an earlier checkpoint: the same bits, or damaged.
        remove_if_there(&place)?;
        fs::rename(&beside, &place).map_err(CheckpointError::io(&place))?;
        self.point_latest_at(&name)?;
        sync_folder(&folder)?;
        Ok((place, digest))
    }

    fn point_latest_at(&self, name: &str) -> Result<(), CheckpointError> {
        let folder = self.checkpoints();
        let beside = folder.join(".latest.new");
        let link = || {
            if beside.is_symlink() {
                fs::remove_file(&beside)?;
            }
            std::os::unix::fs::symlink(name, &beside)?;
            fs::rename(&beside, folder.join("latest"))
        };
        link().map_err(CheckpointError::io(&beside))
    }
}

fn remove_if_there(folder: &Path) -> Result<(), CheckpointError> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(CheckpointError::io(folder)) } else { Ok(()) }
}

#[cfg(test)]
impl RunFolder {
    pub(crate) fn checkpoints_for_tests(&self) -> PathBuf {
        self.checkpoints()
    }
}
