//! Named places at which this worker can be made to fail, for tests of what happens then. What failing means, and when,
//! is decided by the program, which installs a hook; without one, to reach a point costs one load. Nothing that is
//! computed depends on it.

use std::sync::OnceLock;

use carousel_proto::Step;

/// A place in a worker's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailPoint(&'static str);

impl FailPoint {
    /// Lanes came, nothing is computed yet.
    pub(crate) const ASSIGNED: Self = Self("worker-assigned");
    /// Forward and backward are done; of a star nobody has a part of it yet.
    pub(crate) const COMPUTED: Self = Self("worker-computed");
    /// Some of the partial sums are handed to the network, others are not.
    pub(crate) const HALF_SENT: Self = Self("worker-half-sent");
    /// Mesh: the slice of this worker is reduced and handed to the network, its sums are reported.
    pub(crate) const SLICE_SENT: Self = Self("worker-slice-sent");
    /// The whole reduced gradient is here, and the coordinator told so.
    pub(crate) const ACKNOWLEDGED: Self = Self("worker-acknowledged");
    /// A commit came, the weights have not moved yet.
    pub(crate) const COMMITTED: Self = Self("worker-committed");
    /// The weights have moved.
    pub(crate) const APPLIED: Self = Self("worker-applied");
    /// A part of a replica came, others may still be to come. What the coordinator sends tells its step at the end: until
    /// then it counts as step 0.
    pub(crate) const HALF_LOADED: Self = Self("worker-half-loaded");
    /// A part of this worker's replica is about to go to a newcomer.
    pub(crate) const SERVING: Self = Self("worker-serving");
    /// A copy of this worker's replica is about to go to the coordinator, for a checkpoint.
    pub(crate) const DEPOSITING: Self = Self("worker-depositing");
    /// A window of an evaluation is done.
    pub(crate) const EVALUATING: Self = Self("worker-evaluating");

    /// Every point.
    pub const ALL: &[Self] = &[
        Self::ASSIGNED,
        Self::COMPUTED,
        Self::HALF_SENT,
        Self::SLICE_SENT,
        Self::ACKNOWLEDGED,
        Self::COMMITTED,
        Self::APPLIED,
        Self::HALF_LOADED,
        Self::SERVING,
        Self::DEPOSITING,
        Self::EVALUATING,
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
