//! The losses of an evaluation as they come in. Added in lane order: the figure is the same for any number of workers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use carousel_proto::v1::Split;
use carousel_proto::{Term, WorkerId};

use crate::intake::LaneLoss;
use crate::protocol::Scope;

pub(super) struct Evaluation {
    lanes: u32,
    at: (Term, Split),
    scope: Scope,
    assigned: BTreeMap<WorkerId, Range<u32>>,
    losses: BTreeMap<u32, LaneLoss>,
    began: Instant,
}

impl Evaluation {
    pub(super) fn new(lanes: u32) -> Self {
        Self {
            lanes,
            at: (Term(0), Split::Unspecified),
            scope: Scope::Scheduled,
            assigned: BTreeMap::new(),
            losses: BTreeMap::new(),
            began: Instant::now(),
        }
    }

    pub(super) fn begin(&mut self, term: Term, scope: Scope, split: Split) {
        if (self.at, self.scope) != ((term, split), scope) || self.losses.len() == self.lanes as usize {
            *self = Self { at: (term, split), scope, ..Self::new(self.lanes) };
        }
    }

    pub(super) fn assign(&mut self, worker: WorkerId, lanes: Range<u32>) {
        self.assigned.insert(worker, lanes);
    }

    pub(super) fn lanes_of(&self, worker: WorkerId) -> Range<u32> {
        self.assigned.get(&worker).cloned().unwrap_or(0..0)
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether the report belongs to this evaluation.
    pub(super) fn report(
        &mut self,
        at: (Term, Split),
        lanes: &Range<u32>,
        losses: &[LaneLoss],
    ) -> Result<bool, String> {
        if at != self.at {
            return Ok(false);
        }
        if !losses.iter().map(|l| l.lane).eq(lanes.clone()) {
            return Err(format!("it evaluated other lanes than its own, {lanes:?}"));
        }
        self.losses.extend(losses.iter().map(|l| (l.lane, *l)));
        Ok(true)
    }

    /// Targets, and their mean loss in nats.
    pub(super) fn mean(&self) -> (u64, f64) {
        let tokens: u64 = self.losses.values().map(|l| l.tokens).sum();
        let sum: f64 = self.losses.values().map(|l| l.sum).sum();
        (tokens, sum / tokens as f64)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}
