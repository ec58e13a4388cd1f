//! A copy of the replica on its way to the coordinator, for a checkpoint: beside the session, while steps go on.

use std::sync::Arc;

use carousel_proto::bulk::chunks;
use carousel_proto::digest::{Digest, replica_digest};
use carousel_proto::v1::{
    Bulk, BulkStart, DepositHello, FromDepositor, ReplicaSent, from_depositor::Message,
};
use carousel_proto::{PROTOCOL_VERSION, Step, WorkerId};
use tonic::transport::Channel;

use crate::session::TrainingClient;

/// Sections with their names, in order.
pub(crate) type Copied = Vec<(&'static str, Arc<Vec<f32>>)>;

/// Sends a copy. One that does not arrive is asked for again: the coordinator notices.
pub(crate) async fn deposit(
    mut client: TrainingClient<Channel>,
    (own, step): (WorkerId, Step),
    sections: Copied,
) {
    let hashed = sections.clone();
    let digest = tokio::task::spawn_blocking(move || {
        replica_digest(hashed.iter().map(|(name, floats)| (*name, floats.as_slice())))
    });
    let Ok(digest) = digest.await else { return };
    let messages = messages((own, step), sections, digest);
    if let Err(status) = client.deposit(tokio_stream::iter(messages)).await {
        tracing::info!("the copy of {step} did not reach the coordinator: {}", status.message());
    }
}

/// The chunks share the copy's memory.
fn messages((own, step): (WorkerId, Step), sections: Copied, digest: Digest) -> Vec<FromDepositor> {
    let hello = DepositHello { protocol: PROTOCOL_VERSION, worker_id: own.0, step: step.0 };
    let mut messages = vec![Message::Hello(hello)];
    for (index, (_, floats)) in sections.into_iter().enumerate() {
        let (kind, index, bytes) = (Bulk::Replica.into(), index as u32, 4 * floats.len() as u64);
        messages.push(Message::BulkStart(BulkStart {
            kind,
            step: step.0,
            index,
            bytes,
            ..BulkStart::default()
        }));
        messages.extend(chunks(floats).map(Message::BulkChunk));
    }
    let replica_digest = digest.as_bytes().to_vec().into();
    messages.push(Message::Sent(ReplicaSent { step: step.0, replica_digest }));
    messages.into_iter().map(|message| FromDepositor { message: Some(message) }).collect()
}
