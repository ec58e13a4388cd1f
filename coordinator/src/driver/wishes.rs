//! What operators want: granted or refused between two events, and answered when it has come true. The protocol decides
//! when that is; who waits for it is known here alone.

use std::collections::BTreeSet;

use carousel_proto::v1::{DrainReply, LastCheckpoint};
use carousel_proto::{Step, WorkerId};

use super::Driver;
use crate::board::Turn;
use crate::operations::{Answer, Refusal, Wish};
use crate::protocol::{Event, Presence, Stage};

/// Operators that wait.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    drains: Vec<Drain>,
    /// The step that a checkpoint must have come to, or further.
    checkpoints: Vec<(Step, Answer<LastCheckpoint>)>,
}

#[derive(Debug)]
struct Drain {
    workers: Vec<WorkerId>,
    answer: Answer<DrainReply>,
}

/// Who waits no longer does not want to know.
fn tell<T>(answer: Answer<T>, told: Result<T, Refusal>) {
    if answer.send(told).is_err() {
        tracing::debug!("an operator has gone before the answer");
    }
}

impl Driver<'_> {
    pub(super) fn take_wish(&mut self, wish: Wish) {
        match wish {
            Wish::Drain { worker, even_the_last, answer } => match self.chosen(&worker, even_the_last) {
                Ok(workers) => {
                    self.events
                        .extend(workers.iter().map(|worker| Event::DrainRequested { worker: *worker }));
                    self.wishes.drains.push(Drain { workers, answer });
                }
                Err(refusal) => tell(answer, Err(refusal)),
            },
            Wish::Checkpoint { answer } => self.want_checkpoint(answer),
        }
    }

    /// The workers that are meant: by number, or all of a host. Never everybody, unless that is wanted.
    fn chosen(&self, asked: &str, even_the_last: bool) -> Result<Vec<WorkerId>, Refusal> {
        let number = asked.parse::<u64>().ok().map(WorkerId);
        let here: Vec<(WorkerId, &str)> = self.roster.hosts().collect();
        let chosen: Vec<WorkerId> = here
            .iter()
            .filter(|(worker, host)| Some(*worker) == number || *host == asked)
            .map(|(w, _)| *w)
            .collect();
        let asked = || asked.chars().take(64).collect();
        if chosen.is_empty() {
            let present =
                here.iter().take(20).map(|(worker, host)| format!("{} on {host}", worker.0)).collect();
            return Err(Refusal::UnknownWorker { asked: asked(), present });
        }
        let stays = |(worker, presence)| presence != Presence::Leaving && !chosen.contains(&worker);
        if !even_the_last && !self.machine.present().any(stays) {
            return Err(Refusal::LastWorker { asked: asked() });
        }
        Ok(chosen)
    }

    fn want_checkpoint(&mut self, answer: Answer<LastCheckpoint>) {
        let step = self.machine.step();
        let reason = match self.machine.stage() {
            _ if self.machine.saved_step() == Some(step) => return tell(answer, Ok(self.there(step))),
            Stage::Waiting { .. } | Stage::RollingBack => {
                "no worker holds the state of the run at this moment"
            }
            _ => {
                self.events.push_back(Event::CheckpointRequested);
                return self.wishes.checkpoints.push((step.max(Step(1)), answer));
            }
        };
        tell(answer, Err(Refusal::NothingToSave(reason)));
    }

    /// The checkpoint that is there already.
    fn there(&self, step: Step) -> LastCheckpoint {
        self.records.last_saved(step.0).unwrap_or_default()
    }

    /// A checkpoint was made, or not.
    pub(super) fn grant_checkpoints(&mut self, step: Step, result: &Result<LastCheckpoint, String>) {
        let waiting = std::mem::take(&mut self.wishes.checkpoints);
        let (ripe, waiting) = waiting.into_iter().partition(|(wanted, _)| *wanted <= step);
        self.wishes.checkpoints = waiting;
        let ripe: Vec<(Step, Answer<LastCheckpoint>)> = ripe;
        for (_, answer) in ripe {
            let unsaved = |problem| Refusal::Unsaved { step: step.0, problem };
            tell(answer, result.clone().map_err(unsaved));
        }
    }

    /// What was wanted of a state that is lost will not come.
    pub(super) fn disappoint(&mut self) {
        for (_, answer) in std::mem::take(&mut self.wishes.checkpoints) {
            tell(answer, Err(Refusal::WentBack));
        }
    }

    /// Answers for workers that have gone meanwhile.
    pub(super) fn grant_drains(&mut self) {
        if self.wishes.drains.is_empty() {
            return;
        }
        let step = self.machine.step().0;
        for drain in std::mem::take(&mut self.wishes.drains) {
            if drain.workers.iter().any(|worker| self.roster.knows(*worker)) {
                self.wishes.drains.push(drain);
                continue;
            }
            let worker_ids = drain.workers.iter().map(|worker| worker.0).collect();
            tell(drain.answer, Ok(DrainReply { worker_ids, step }));
        }
    }

    /// Whether a worker goes because an operator wants it to.
    pub(super) fn is_drained(&self, worker: WorkerId) -> bool {
        let drained: BTreeSet<&WorkerId> =
            self.wishes.drains.iter().flat_map(|drain| &drain.workers).collect();
        drained.contains(&worker)
    }

    /// Shows where the run stands.
    pub(super) fn show(&self) {
        let shown =
            |(worker, presence)| (worker, presence, self.roster.lanes(worker), self.roster.took(worker));
        self.board.turn(Turn {
            stage: self.machine.stage(),
            step: self.machine.step().0,
            term: self.machine.term().0,
            workers: &mut self.machine.present().map(shown),
        });
    }
}
