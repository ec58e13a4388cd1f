//! What travels in the simulation: the wire contract's messages, with hashes where floats would be.

use std::ops::Range;
use std::time::Duration;

use carousel_coordinator::protocol::Scope;
use carousel_proto::{Step, Term, WorkerId};

/// A worker's place: the process behind it may be another after a restart.
pub(crate) type NodeId = usize;

#[derive(Clone, Debug)]
pub(crate) enum LoadFrom {
    Seed,
    Coordinator(u64),
    Peers(Vec<NodeId>),
    Held,
}

#[derive(Clone, Debug)]
pub(crate) enum Carry {
    Keep,
    Zero,
    Given(Vec<u64>),
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub worker: WorkerId,
    pub node: NodeId,
    pub lanes: Range<u32>,
}

#[derive(Clone, Debug)]
pub(crate) enum ToWorker {
    Load { step: Step, from: LoadFrom },
    Assign { term: Term, step: Step, lanes: Range<u32>, carry: Carry, peers: Vec<Peer> },
    Reduced { term: Term, step: Step, gradient: u64 },
    Commit { step: Step },
    Evaluate { term: Term, scope: Scope },
    SendReplica { step: Step },
    AskDigest,
    Shutdown { rejoin: bool, discard: bool },
}

#[derive(Clone, Debug)]
pub(crate) enum ToCoordinator {
    Hello { held: Option<(Step, Option<Step>)> },
    Ready { step: Step, replica: u64 },
    LoadFailed,
    Report { term: Term, step: Step, gradients: Vec<(u32, u64)>, took: Duration },
    Sliced { term: Term, step: Step, gradient: u64 },
    Acknowledge { term: Term, step: Step, carries: Vec<(u32, u64)> },
    Evaluated { term: Term, scope: Scope },
    Deposit { step: Step, replica: u64 },
    Digest { step: Step, replica: u64 },
    Leave,
}

#[derive(Clone, Debug)]
pub(crate) enum ToPeer {
    /// Gradients of the sender's lanes.
    Partial {
        at: (Term, Step),
        from: WorkerId,
        gradients: Vec<(u32, u64)>,
    },
    /// The sender's slice, reduced: it stands for the gradient that it is a slice of.
    Reduced {
        at: (Term, Step),
        from: WorkerId,
        gradient: u64,
    },
    Pull {
        step: Step,
        to: NodeId,
    },
    Pulled {
        step: Step,
        replica: Option<u64>,
    },
}
