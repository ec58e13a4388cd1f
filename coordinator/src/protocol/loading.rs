//! How workers come to hold the replica of the committed step: from the seed, from the coordinator, from their peers, or
//! because they never lost it. Only replicas with the run's digest become active.

use std::collections::BTreeMap;

use carousel_proto::digest::Digest;
use carousel_proto::{Step, WorkerId};

use super::{Action, Exchange, ExpelReason, LoadSource, Machine, Member, Phase, Standing};

impl Machine {
    /// Whether a worker that has joined still holds the committed replica, or needs but the last commit for it.
    pub(super) fn brings_the_replica(&self, member: &Member) -> bool {
        self.source_of_its_own(member).is_some()
    }

    fn source_of_its_own(&self, member: &Member) -> Option<LoadSource> {
        let held = member.held?;
        match member.standing {
            Standing::New if held.step == self.step => Some(LoadSource::Held { commit: false }),
            Standing::New if held.step.next() == self.step && held.gradient == Some(self.step) => {
                Some(LoadSource::Held { commit: true })
            }
            _ => None,
        }
    }

    /// Tells every newcomer where its replica comes from. Those that bring one go first: the others then load from them.
    pub(super) fn admit_newcomers(&mut self, actions: &mut Vec<Action>) {
        let sources: Vec<(WorkerId, LoadSource)> = self
            .standing(Standing::New)
            .filter_map(|worker| Some((worker, self.source_for(worker)?)))
            .collect();
        if sources.is_empty() {
            return self.fetch_replica(actions);
        }
        self.phase = Phase::Loading { digests: BTreeMap::new() };
        self.waiting_since = self.now;
        for (worker, source) in sources {
            let member = self.members.get_mut(&worker).expect("a newcomer is a member");
            (member.standing, member.heard) = (Standing::Loading, self.now);
            member.held = None;
            actions.push(Action::Load { worker, step: self.step, source });
        }
        self.ask_for_the_reference(actions);
    }

    /// `None`: not yet; somebody else must load first, or the coordinator must fetch the replica.
    fn source_for(&self, worker: WorkerId) -> Option<LoadSource> {
        let own = self.source_of_its_own(&self.members[&worker]);
        let peers = self.exchange == Exchange::Mesh
            && self.active().next().is_some()
            && !self.relayed.contains(&worker);
        match own {
            Some(own) => Some(own),
            None if peers => Some(LoadSource::Peers { workers: self.active().collect() }),
            None => self.replica_at_hand.then_some(LoadSource::Coordinator),
        }
    }

    /// Newcomers are measured against a worker that was here before them.
    pub(super) fn ask_for_the_reference(&self, actions: &mut Vec<Action>) {
        if self.reference.is_none() {
            actions.extend(self.active().next().map(|worker| Action::AskDigest { worker, step: self.step }));
        }
    }

    pub(super) fn ready(&mut self, worker: WorkerId, step: Step, digest: Digest, actions: &mut Vec<Action>) {
        let loading = self.members.get(&worker).is_some_and(|member| member.standing == Standing::Loading);
        match &mut self.phase {
            Phase::Loading { digests } if loading && step == self.step => {
                digests.insert(worker, digest);
                self.loading_progressed(actions);
            }
            _ => self.expel(worker, ExpelReason::UnexpectedReplica { step }, actions),
        }
    }

    /// A newcomer's peers did not give it the replica: the coordinator will.
    pub(super) fn load_failed(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        if member.standing == Standing::Loading {
            member.standing = Standing::New;
            self.relayed.insert(worker);
            self.loading_progressed(actions);
        }
    }

    /// When everybody has loaded, those whose replica is the run's become active.
    pub(super) fn loading_progressed(&mut self, actions: &mut Vec<Action>) {
        let Phase::Loading { digests } = &self.phase else { return };
        let still_loading = self.standing(Standing::Loading).any(|worker| !digests.contains_key(&worker));
        if still_loading || (self.reference.is_none() && self.active().next().is_some()) {
            return;
        }
        let digests: BTreeMap<WorkerId, Digest> =
            digests.iter().filter(|(w, _)| self.members.contains_key(w)).map(|(w, d)| (*w, *d)).collect();
        if let Some(expected) = self.reference.or_else(|| majority(&digests)) {
            self.reference = Some(expected);
            self.judge(&digests, expected, actions);
        }
        self.advance(actions);
    }

    fn judge(&mut self, digests: &BTreeMap<WorkerId, Digest>, expected: Digest, actions: &mut Vec<Action>) {
        let step = self.step;
        for (&worker, &found) in digests {
            if found == expected {
                self.members.get_mut(&worker).expect("who has loaded is a member").standing =
                    Standing::Active;
            } else {
                let reason = ExpelReason::DigestDiffers { step, expected, found };
                actions.push(Action::Expel { worker, reason });
                self.forget(worker);
            }
        }
        self.enter_new_term();
    }

    /// Waits for the replica of the committed step to come to the coordinator.
    pub(super) fn fetch_replica(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::FetchingReplica;
        self.waiting_since = self.now;
        self.ask_for_a_replica(actions);
    }

    /// Asks a worker for its replica, unless that of this step is on its way. One of an older step is given up.
    pub(super) fn ask_for_a_replica(&mut self, actions: &mut Vec<Action>) {
        if self.fetching.is_some_and(|(_, step)| step == self.step) {
            return;
        }
        let worker = self.active().next().expect("a replica that is not at hand is held by an active worker");
        if self.fetching.is_some() {
            self.saving.source_lost();
        }
        self.fetching = Some((worker, self.step));
        actions.push(Action::FetchReplica { worker, step: self.step });
    }

    pub(super) fn replica_received(
        &mut self,
        worker: WorkerId,
        step: Step,
        digest: Digest,
        actions: &mut Vec<Action>,
    ) {
        if self.fetching != Some((worker, step)) {
            return;
        }
        self.fetching = None;
        self.save_what_was_awaited(step, actions);
        if step == self.step {
            self.reference = Some(digest);
            self.replica_at_hand = true;
        }
        if matches!(self.phase, Phase::FetchingReplica) {
            self.advance(actions);
        }
    }

    /// The driver has gone back to a checkpoint, or with no digest to the seed.
    pub(super) fn rolled_back(&mut self, step: Step, digest: Option<Digest>, actions: &mut Vec<Action>) {
        if self.phase != Phase::RollingBack {
            return;
        }
        self.step = step;
        self.reference = digest;
        self.replica_at_hand = true;
        self.tasks.clear();
        self.saving.rolled_back(digest.map(|_| step));
        self.enter_new_term();
        self.phase = Phase::Gathering;
        self.advance(actions);
    }
}

/// The digest most workers have; of equally frequent ones, that of the worker that has been here longest.
pub(super) fn majority(digests: &BTreeMap<WorkerId, Digest>) -> Option<Digest> {
    let votes = |digest: &Digest| digests.values().filter(|other| *other == digest).count();
    // `max_by_key` takes the last of the largest: reversed, that is the first to have joined.
    digests.values().rev().max_by_key(|digest| votes(digest)).copied()
}
