//! What a step costs, as pure functions of the job, the machine and the network: time, bytes, memory. The formulas and
//! where each comes from are in docs/plan.md. It measures nothing and reads no files.

use carousel_proto::LaneTree;
use carousel_proto::gradient::GradientLayout;
use carousel_security::FLOW_WINDOW_BYTES;

use super::units::{BytesPerSecond, Flops, Seconds};
use crate::config::Exchange;

/// Bytes on an Ethernet for each byte of a full TCP segment.
const ON_THE_WIRE: f64 = 1514.0 / 1448.0;
/// What the first round trip after a pause carries: ten TCP segments.
const FIRST_FLIGHT: f64 = 10.0 * 1448.0;
/// A pause after which TCP starts slowly again: its least retransmission timeout, to which the round trip is added.
const PAUSE: f64 = 0.2;
/// Assumed memory bandwidth of a worker.
const MEMORY: BytesPerSecond = BytesPerSecond(8e9);

/// What one step has to do, whoever does it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Floating-point operations of the whole step.
    pub flops: f64,
    pub parameters: usize,
    /// Buffers of the optimizer, each as long as the parameters.
    pub states: usize,
    pub layout: GradientLayout,
    /// In order: the share of the dense gradient, and the share of the computation after which it is finished.
    pub parts: Vec<(f64, f64)>,
    pub streams: usize,
    /// Time steps of a window.
    pub window: usize,
    pub accumulate: usize,
    pub lanes: u32,
    /// Floats of a stream's carry.
    pub carry: usize,
    /// Floats that a position's activations take.
    pub activations: usize,
    pub vocabulary: usize,
}

/// One worker, and the wire to it: the same for all, and for the coordinator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub flops: Flops,
    pub bandwidth: BytesPerSecond,
    /// One way.
    pub latency: Seconds,
}

/// Bytes a step through one host's wire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Traffic {
    pub sent: f64,
    pub received: f64,
}

/// A step of so many workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prediction {
    pub workers: u32,
    pub idle: u32,
    pub step: Seconds,
    pub compute: Seconds,
    /// From the end of the computation to the whole gradient.
    pub exchange: Seconds,
    /// From the whole gradient to the next step.
    pub commit: Seconds,
    pub tokens_per_second: f64,
    /// Of the worker with the most.
    pub worker: Traffic,
    pub coordinator: Traffic,
    pub worker_memory: f64,
    pub coordinator_memory: f64,
}

/// The lanes of a worker among so many of equal speed, and the nodes of the lane tree that it sums and sends.
struct Share {
    streams: f64,
    nodes: f64,
    /// Bytes of rows touched, of all its nodes.
    rows: f64,
}

/// Bytes of gradients through the busiest wire, in the direction that has more.
struct Load {
    partial: f64,
    reduced: f64,
    worker: Traffic,
    coordinator: Traffic,
    connections: f64,
}

pub(super) fn predict(job: &Job, workers: u32, exchange: Exchange, place: Place) -> Prediction {
    let shares = shares(job, workers.min(job.lanes));
    let load = match exchange {
        Exchange::Mesh => mesh(job, &shares),
        Exchange::Star => star(job, &shares),
    };
    let most = shares.iter().map(|share| share.streams).fold(0.0, f64::max);
    let compute = job.flops * most / job.streams as f64 / place.flops.0;
    let whole = compute.max(whole_at(job, &load, exchange, compute, place));
    let commit = 2.0 * place.latency.0 + update(job);
    let step = whole + commit;
    let tokens = (job.streams * job.window * job.accumulate) as f64;
    Prediction {
        workers,
        idle: workers.saturating_sub(job.lanes),
        step: Seconds(step),
        compute: Seconds(compute),
        exchange: Seconds(whole - compute),
        commit: Seconds(commit),
        tokens_per_second: tokens / step,
        worker_memory: worker_memory(job, &shares, exchange),
        coordinator_memory: coordinator_memory(job, &shares, exchange),
        worker: load.worker,
        coordinator: load.coordinator,
    }
}

/// When the last worker has the whole reduced gradient. In a mesh parts leave as they are finished; in a star all at the end.
fn whole_at(job: &Job, load: &Load, exchange: Exchange, compute: f64, place: Place) -> f64 {
    if load.partial + load.reduced == 0.0 {
        return compute;
    }
    let round_trip = 2.0 * place.latency.0;
    let window = if round_trip > 0.0 {
        f64::from(FLOW_WINDOW_BYTES) * load.connections / round_trip
    } else {
        f64::INFINITY
    };
    let rate = (place.bandwidth.0 / ON_THE_WIRE).min(window);
    let at_the_end = [(1.0, 1.0)];
    let parts: &[(f64, f64)] = if exchange == Exchange::Mesh { &job.parts } else { &at_the_end };
    let start =
        if compute > PAUSE + round_trip { slow_start(rate / load.connections, round_trip) } else { 0.0 };
    let sent = parts
        .iter()
        .fold(0.0f64, |free, &(share, ready)| free.max(ready * compute) + share * load.partial / rate);
    sent + start + load.reduced / rate + round_trip
}

/// What is lost until a connection that stood still has its rate again: its window doubles each round trip.
fn slow_start(rate: f64, round_trip: f64) -> f64 {
    let flights = std::iter::successors(Some(FIRST_FLIGHT), |flight| Some(flight * 2.0));
    flights.take_while(|flight| *flight < rate * round_trip).map(|flight| round_trip - flight / rate).sum()
}

fn shares(job: &Job, workers: u32) -> Vec<Share> {
    let (tree, each, more) = (LaneTree::new(job.lanes), job.lanes / workers, job.lanes % workers);
    let bound = |lane: u32| job.streams * lane as usize / job.lanes as usize;
    let share = |worker: u32| {
        let first = worker * each + worker.min(more);
        let lanes = first..first + each + u32::from(worker < more);
        let streams = bound(lanes.end) - bound(lanes.start);
        let nodes = tree.maximal_nodes(lanes);
        let under = |node| tree.lanes_under(node).map_or(0, |l| bound(l.end) - bound(l.start));
        let rows = nodes.iter().map(|node| row_bytes(job, under(*node))).sum();
        Share { streams: streams as f64, nodes: nodes.len() as f64, rows }
    };
    (0..workers).map(share).collect()
}

/// Of the rows that so many streams touch in a step: token and floats of each.
fn row_bytes(job: &Job, streams: usize) -> f64 {
    let touched = distinct(job.vocabulary, (streams * job.window * job.accumulate) as f64);
    // A sampled softmax touches rows of its decoder too: its most, beyond the embedding's.
    let most =
        distinct(job.vocabulary, f64::INFINITY).min((job.streams * job.window * job.accumulate) as f64);
    let decoder = (job.layout.most_rows as f64 - most).max(0.0);
    4.0 * (job.layout.width + 1) as f64 * (touched + decoder)
}

/// How many of `vocabulary` tokens are expected among so many drawn by Zipf's law.
fn distinct(vocabulary: usize, drawn: f64) -> f64 {
    let whole = (vocabulary as f64).ln_1p();
    let chance = |token: usize| (1.0 / (token as f64 + 1.0)).ln_1p() / whole;
    (0..vocabulary).map(|token| 1.0 - (1.0 - chance(token)).max(0.0).powf(drawn)).sum()
}

/// Of the whole reduced gradient. With tied weights the rows are folded in before it travels.
fn reduced_bytes(job: &Job) -> f64 {
    let rows = if job.layout.rows_fold_into.is_some() { 0.0 } else { row_bytes(job, job.streams) };
    4.0 * job.layout.dense as f64 + rows
}

/// Each worker's partial sums go to the slices' owners, and each reduced slice to everybody.
fn mesh(job: &Job, shares: &[Share]) -> Load {
    let (n, dense) = (shares.len() as f64, 4.0 * job.layout.dense as f64);
    let partial = |share: &Share| share.nodes * dense + share.rows;
    let all: f64 = shares.iter().map(partial).sum();
    let sent = |share: &Share| partial(share) * (n - 1.0) / n;
    let received = |share: &Share| (all - partial(share)) / n;
    let reduced = reduced_bytes(job) * (n - 1.0) / n;
    let most = |bytes: &dyn Fn(&Share) -> f64| shares.iter().map(bytes).fold(0.0, f64::max);
    let (sends, receives) = (most(&sent), most(&received));
    let carries = carries(job, shares);
    Load {
        partial: sends.max(receives),
        reduced,
        worker: Traffic {
            sent: sends + reduced + carries / n,
            received: receives + reduced + tokens(job) / n,
        },
        coordinator: Traffic { sent: tokens(job), received: carries },
        connections: (n - 1.0).max(1.0),
    }
}

/// Everything through the coordinator's wire.
fn star(job: &Job, shares: &[Share]) -> Load {
    let (n, dense) = (shares.len() as f64, 4.0 * job.layout.dense as f64);
    let partial = |share: &Share| share.nodes * dense + share.rows;
    let all: f64 = shares.iter().map(partial).sum();
    let (most, reduced) = (shares.iter().map(partial).fold(0.0, f64::max), reduced_bytes(job));
    let carries = carries(job, shares);
    Load {
        partial: all,
        reduced: n * reduced,
        worker: Traffic { sent: most + carries / n, received: reduced + tokens(job) / n },
        coordinator: Traffic { sent: n * reduced + tokens(job), received: all + carries },
        connections: n,
    }
}

/// Of all streams, to the coordinator with each acknowledgement.
fn carries(job: &Job, shares: &[Share]) -> f64 {
    let streams: f64 = shares.iter().map(|share| share.streams).sum();
    4.0 * job.carry as f64 * streams
}

/// Inputs and targets of all windows.
fn tokens(job: &Job) -> f64 {
    (2 * 4 * job.streams * job.window * job.accumulate) as f64
}

/// The optimizer reads weights, gradient and its state, and writes weights and state.
fn update(job: &Job) -> f64 {
    (4 * job.parameters * (3 + 2 * job.states)) as f64 / MEMORY.0
}

/// Weights twice (as they are and packed), state, own partial sums, the reduced gradient, what peers sent for the own slice.
fn worker_memory(job: &Job, shares: &[Share], exchange: Exchange) -> f64 {
    let (n, dense) = (shares.len() as f64, 4.0 * job.layout.dense as f64);
    let partial = |share: &Share| share.nodes * dense + share.rows;
    let all: f64 = shares.iter().map(partial).sum();
    let own = shares.iter().map(partial).fold(0.0, f64::max);
    let peers = if exchange == Exchange::Mesh { (all - own).max(0.0) / n } else { 0.0 };
    let streams = shares.iter().map(|share| share.streams).fold(0.0, f64::max);
    let activations = 4.0 * streams * (job.window * job.activations) as f64;
    (4 * job.parameters * (2 + job.states)) as f64 + own + reduced_bytes(job) + peers + activations
}

/// Carries of two steps; in a star the partial sums and the reduced gradient as well; a checkpoint's copy of the replica.
fn coordinator_memory(job: &Job, shares: &[Share], exchange: Exchange) -> f64 {
    let dense = 4.0 * job.layout.dense as f64;
    let all: f64 = shares.iter().map(|share| share.nodes * dense + share.rows).sum();
    let gradients = if exchange == Exchange::Star { all + reduced_bytes(job) } else { 0.0 };
    2.0 * carries(job, shares) + gradients + (4 * job.parameters * (1 + job.states)) as f64
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
