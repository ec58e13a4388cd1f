//! Named places at which this coordinator can be made to fail, for tests of what happens then. What failing means, and when,
//! is decided by the program, which installs a hook; without one, to reach a point costs one load. Nothing that is
//! computed depends on it.

use std::sync::OnceLock;

use carousel_proto::Step;

/// A place in the coordinator's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailPoint(&'static str);

impl FailPoint {
    /// Some of the workers have their lanes of a step, others not yet.
    pub(crate) const ASSIGNED: Self = Self("coordinator-assigned");
    /// The gradient of a step is whole and its clip decided; nobody has been told.
    pub(crate) const REDUCED: Self = Self("coordinator-reduced");
    /// Every worker has acknowledged; neither the journal nor anybody knows of the commit.
    pub(crate) const COMMITTED: Self = Self("coordinator-committed");
    /// The commit is in the journal; what no replica holds is not saved yet, and nobody has been told.
    pub(crate) const JOURNALLED: Self = Self("coordinator-journalled");
    /// The commit is in the journal and what no replica holds is saved; nobody has been told.
    pub(crate) const SAVED: Self = Self("coordinator-saved");
    /// Some of the workers have been told of a commit, others not yet.
    pub(crate) const HALF_TOLD: Self = Self("coordinator-half-told");
    /// Some files of a checkpoint are written, beside; it is not whole.
    pub(crate) const HALF_WRITTEN: Self = Self("coordinator-half-written");
    /// Every file of a checkpoint is written and synced; it has not its name yet.
    pub(crate) const UNNAMED: Self = Self("coordinator-unnamed");

    /// Every point.
    pub const ALL: &[Self] = &[
        Self::ASSIGNED,
        Self::REDUCED,
        Self::COMMITTED,
        Self::JOURNALLED,
        Self::SAVED,
        Self::HALF_TOLD,
        Self::HALF_WRITTEN,
        Self::UNNAMED,
    ];

    /// As it is named from outside.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }
}

/// What is called with a point's name and the step at which it was reached.
pub type Hook = fn(&'static str, Step);

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Has `hook` called at every point from now on; the first hook of a process stays.
pub fn install(hook: Hook) {
    HOOK.get_or_init(|| hook);
}

pub(crate) fn reach(point: FailPoint, step: Step) {
    if let Some(hook) = HOOK.get() {
        hook(point.0, step);
    }
}
