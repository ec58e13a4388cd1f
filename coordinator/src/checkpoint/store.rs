//! The folder of a run and the checkpoints in it: where they lie, which is the latest whole one, and how a new one gets
//! there without ever being half there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use carousel_proto::digest::Digest;

use super::keep::{Standing, best, outlived};
use super::read::{has_its_hashes, read_state};
use super::write::{Context, sync_folder, write_files};
use super::{Checkpoint, CheckpointError, STATE_FILE, Snapshot, crash};

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

    /// The committed state that no replica holds.
    #[must_use]
    pub fn committed(&self) -> PathBuf {
        self.path.join("committed.bin")
    }

    /// The folder of the checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
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

    /// Whether there is a checkpoint, whole or not.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn has_checkpoints(&self) -> Result<bool, CheckpointError> {
        Ok(!self.steps()?.is_empty())
    }

    /// The latest whole checkpoint: of those in the folder, the one of the highest step that passes every check.
    ///
    /// # Errors
    /// When there is none.
    pub fn latest(&self) -> Result<Found, CheckpointError> {
        let mut passed_over = Vec::new();
        for (_, folder) in self.steps()?.into_iter().rev() {
            match Checkpoint::open(&folder) {
                Ok(checkpoint) => return Ok(Found { checkpoint, passed_over }),
                Err(error) => passed_over.push(error),
            }
        }
        let mut problem = match self.path.is_dir() {
            true => "no whole checkpoint (expected checkpoints/step-*)".to_owned(),
            false => {
                "no such folder (expected a run's, with checkpoints/step-* in it, or a checkpoint's)".into()
            }
        };
        passed_over.iter().for_each(|e| problem.push_str(&format!("; passed over {e}")));
        if !passed_over.is_empty() {
            problem.push_str("; put back a copy of one, or begin a run in another folder");
        }
        Err(CheckpointError::None { path: self.path.clone(), problem })
    }

    pub(crate) fn by_ascending_step(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        Ok(self.steps()?.into_iter().map(|(_, path)| path).collect())
    }

    /// The checkpoints' steps and folders, oldest first.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        let folder = self.checkpoints();
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        for entry in fs::read_dir(&folder).map_err(CheckpointError::io(&folder))? {
            let path = entry.map_err(CheckpointError::io(&folder))?.path();
            steps.extend(step_of(&path).map(|step| (step, path)));
        }
        steps.sort();
        Ok(steps)
    }

    /// Writes a checkpoint beside the others, renames it into place, points `latest` at it, and `best` at the best there
    /// is. Whoever dies in between leaves whole checkpoints under their names, and links to whole ones.
    ///
    /// # Errors
    /// When something cannot be written; what was there before is untouched.
    pub fn write(
        &self,
        snapshot: &Snapshot,
        context: &Context,
    ) -> Result<(PathBuf, Digest), CheckpointError> {
        let folder = self.checkpoints();
        clear_leftovers(&folder)?;
        let name = name_of(snapshot.step);
        let beside = folder.join(format!(".{name}{NEW}"));
        fs::create_dir_all(&folder).map_err(CheckpointError::io(&folder))?;
        fs::create_dir(&beside).map_err(CheckpointError::io(&beside))?;
        crash::point()?;
        // Half a checkpoint would only take the last room of a full disk.
        let digest = write_files(&beside, snapshot, context).inspect_err(|_| remove_quietly(&beside))?;
        crash::point()?;
        // A folder of this step is left from a run that went on from an earlier checkpoint: the same bits, or damaged.
        self.set_aside(snapshot.step)?;
        let place = folder.join(&name);
        fs::rename(&beside, &place).map_err(CheckpointError::io(&place))?;
        crash::point()?;
        point_link(&folder, LATEST, snapshot.step)?;
        crash::point()?;
        self.point_best()?;
        sync_folder(&folder)?;
        Ok((place, digest))
    }

    /// Removes what is older than the `keep` newest whole checkpoints, but never the best nor the one just written; with
    /// 0 nothing. `whole` are the steps known to be whole already; it grows.
    ///
    /// # Errors
    /// When a folder cannot be read or removed; the rest stays for the next time.
    pub(crate) fn keep(
        &self,
        keep: u64,
        written: u64,
        whole: &mut BTreeSet<u64>,
    ) -> Result<(), CheckpointError> {
        whole.insert(written);
        let steps: Vec<u64> = self.steps()?.into_iter().map(|(step, _)| step).collect();
        let is_whole =
            |step| whole.contains(&step) || (has_its_hashes(&self.place(step)) && whole.insert(step));
        for step in outlived(&steps, keep, (written, self.linked(BEST)), is_whole) {
            crash::point()?;
            self.set_aside(step)?;
        }
        crash::point()?;
        clear_leftovers(&self.checkpoints())
    }

    /// The step a link names; `None` when there is no such link.
    pub(crate) fn linked(&self, link: &str) -> Option<u64> {
        fs::read_link(self.checkpoints().join(link)).ok().as_deref().and_then(step_of)
    }

    /// The checkpoints whose `state.json` can be read, oldest first.
    pub(crate) fn standing(&self) -> Result<Vec<Standing>, CheckpointError> {
        let steps = self.steps()?;
        let read = |(step, path): &(u64, PathBuf)| {
            let state = read_state(path).ok()?;
            Some(Standing { step: *step, valid_loss: state.valid_loss })
        };
        Ok(steps.iter().filter_map(read).collect())
    }

    pub(crate) fn place(&self, step: u64) -> PathBuf {
        self.checkpoints().join(name_of(step))
    }

    /// Takes a checkpoint out of sight with one rename, so that no half removed one is ever seen. No link names it then.
    fn set_aside(&self, step: u64) -> Result<(), CheckpointError> {
        let (folder, place) = (self.checkpoints(), self.place(step));
        if !place.exists() {
            return Ok(());
        }
        if self.linked(LATEST) == Some(step) {
            match self.steps()?.into_iter().rev().find(|(other, _)| *other != step) {
                Some((other, _)) => point_link(&folder, LATEST, other)?,
                None => remove_link(&folder.join(LATEST))?,
            }
        }
        if self.linked(BEST) == Some(step) {
            remove_link(&folder.join(BEST))?;
        }
        crash::point()?;
        let aside = folder.join(format!(".{}{OLD}", name_of(step)));
        fs::rename(&place, &aside).map_err(CheckpointError::io(&place))?;
        crash::point()
    }

    fn point_best(&self) -> Result<(), CheckpointError> {
        match best(&self.standing()?) {
            Some(step) if self.linked(BEST) != Some(step) => point_link(&self.checkpoints(), BEST, step),
            _ => Ok(()),
        }
    }
}

/// The newest checkpoint's link.
pub(crate) const LATEST: &str = "latest";
/// The link to the checkpoint of the lowest validation loss.
pub(crate) const BEST: &str = "best";
/// How the hidden name of a checkpoint ends that is being written, or removed.
const NEW: &str = ".new";
const OLD: &str = ".old";

fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Points a link at a checkpoint in one move: there is never no link.
pub(crate) fn point_link(folder: &Path, link: &str, step: u64) -> Result<(), CheckpointError> {
    let beside = folder.join(format!(".{link}{NEW}"));
    let point = || {
        if beside.is_symlink() {
            fs::remove_file(&beside)?;
        }
        std::os::unix::fs::symlink(name_of(step), &beside)?;
        fs::rename(&beside, folder.join(link))
    };
    point().map_err(CheckpointError::io(&beside))
}

fn remove_link(link: &Path) -> Result<(), CheckpointError> {
    fs::remove_file(link).map_err(CheckpointError::io(link))
}

/// Removes what could not be made; that this fails as well is only told.
pub(crate) fn remove_quietly(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!("{}: {error}", folder.display());
    }
}

/// Removes what somebody who died was writing or removing.
fn clear_leftovers(folder: &Path) -> Result<(), CheckpointError> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(CheckpointError::io(folder))? {
        let path = entry.map_err(CheckpointError::io(folder))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ours = name.starts_with(".step-") && (name.ends_with(NEW) || name.ends_with(OLD));
        if ours && path.is_dir() {
            fs::remove_dir_all(&path).map_err(CheckpointError::io(&path))?;
        }
    }
    Ok(())
}
