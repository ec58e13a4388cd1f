//! The replica of a committed step, pulled from healthy peers in parallel: each hands out the next part that is missing, so
//! that a fast peer gives more. A peer that fails or is silent is left; its parts go to the others. What came is checked by
//! its digest, by the coordinator.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carousel_proto::MAX_MESSAGE_BYTES;
use carousel_proto::Step;
use carousel_proto::v1::PullRequest;
use carousel_security::{Connector, Door, FLOW_WINDOW_BYTES, Role};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::failpoint::{FailPoint, reach};
use crate::session::generated::replica_client::ReplicaClient;

/// Floats of a part: 1 MiB.
const PART: usize = 1 << 18;
/// Peers that are asked, and requests under way to each: more than that does not make a newcomer's line wider.
const MOST_PEERS: usize = 4;
const STREAMS: usize = 2;
/// A peer that answers no request for so long is left.
const PATIENCE: Duration = Duration::from_millis(800);
/// The coordinator hears this often that the newcomer is alive, whether its peers are or not.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);

/// How much is pulled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub sections: usize,
    /// Of each section.
    pub floats: usize,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error("there is no peer to pull from")]
    NoPeer,
    #[error("{missing} of {parts} parts are missing; the last peer failed with: {problem}")]
    Missing { missing: usize, parts: usize, problem: String },
}

#[derive(Clone, Copy, Debug)]
struct Part {
    section: usize,
    first: usize,
    floats: usize,
}

type Parts = Arc<Mutex<VecDeque<Part>>>;

fn next(parts: &Parts) -> Option<Part> {
    parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn put_back(parts: &Parts, part: Part) {
    parts.lock().unwrap_or_else(PoisonError::into_inner).push_front(part);
}

/// Pulls the whole replica; `sign_of_life` is called all the while.
pub(crate) async fn pull(
    (peers, door): (&[String], &Door),
    step: Step,
    size: Size,
    sign_of_life: impl Fn(),
) -> Result<Vec<Vec<f32>>, PullError> {
    if peers.is_empty() {
        return Err(PullError::NoPeer);
    }
    let parts = parts_of(size);
    let (total, mut missing) = (parts.len(), parts.len());
    let parts: Parts = Arc::new(Mutex::new(parts));
    let mut sections = vec![vec![0.0; size.floats]; size.sections];
    let (sender, mut arrived) = tokio::sync::mpsc::channel(2 * MOST_PEERS * STREAMS);
    let mut tasks = JoinSet::new();
    for peer in peers.iter().take(MOST_PEERS) {
        for _ in 0..STREAMS {
            let from = (peer.clone(), door.clone());
            tasks.spawn(pull_from(from, step, parts.clone(), sender.clone()));
        }
    }
    drop(sender);
    let mut alive = tokio::time::interval(SIGN_OF_LIFE);
    loop {
        let (part, data) = tokio::select! {
            _ = alive.tick() => { sign_of_life(); continue }
            arrived = arrived.recv() => match arrived { Some(arrived) => arrived, None => break },
        };
        let Part { section, first, floats } = part;
        let to: &mut [f32] = &mut sections[section][first..first + floats];
        bytemuck::cast_slice_mut(to).copy_from_slice(&data);
        missing -= 1;
        reach(FailPoint::HALF_LOADED, step);
    }
    let mut problem = String::new();
    while let Some(ended) = tasks.join_next().await {
        if let Ok(Err(status)) = ended {
            problem = status.message().into();
        }
    }
    if missing > 0 { Err(PullError::Missing { missing, parts: total, problem }) } else { Ok(sections) }
}

fn parts_of(size: Size) -> VecDeque<Part> {
    let of_section = |section| {
        let part = move |first| Part { section, first, floats: PART.min(size.floats - first) };
        (0..size.floats).step_by(PART).map(part)
    };
    (0..size.sections).flat_map(of_section).collect()
}

/// Asks one peer for part after part, until none is missing or it fails.
async fn pull_from(
    (peer, door): (String, Door),
    step: Step,
    parts: Parts,
    arrived: tokio::sync::mpsc::Sender<(Part, bytes::Bytes)>,
) -> Result<(), Status> {
    let mut client = connect(&peer, door).await?;
    while let Some(part) = next(&parts) {
        let Part { section, first, floats } = part;
        let request =
            PullRequest { step: step.0, section: section as u32, first: first as u64, floats: floats as u32 };
        let reply = tokio::time::timeout(PATIENCE, client.pull(request)).await;
        let reply = reply.unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not answer")));
        match reply.map(|reply| reply.into_inner().data) {
            Ok(data) if data.len() == 4 * floats => {
                if arrived.send((part, data)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(data) => {
                put_back(&parts, part);
                let (found, expected) = (data.len(), 4 * floats);
                return Err(Status::data_loss(format!("{found} bytes came, expected {expected}")));
            }
            Err(status) => {
                put_back(&parts, part);
                return Err(status);
            }
        }
    }
    Ok(())
}

async fn connect(peer: &str, door: Door) -> Result<ReplicaClient<Channel>, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{peer}"));
    let endpoint = endpoint.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .connect_timeout(PATIENCE)
        .initial_stream_window_size(FLOW_WINDOW_BYTES)
        .initial_connection_window_size(FLOW_WINDOW_BYTES);
    let connected = endpoint.connect_with_connector(Connector::new(door, Role::Worker)).await;
    let channel = connected.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(ReplicaClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}
