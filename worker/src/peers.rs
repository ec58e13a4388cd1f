//! The network side of the mesh: serves this worker's Exchange service and keeps one stream to each peer it sends to.
//! It does not know what a step is; a peer that cannot be reached is the coordinator's to notice.

pub(crate) mod hostile;
mod local;
mod messages;
mod receiver;
mod replica;
mod wire;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, OnceLock};

use carousel_proto::{Step, Term, WorkerId};
use carousel_security::{Allowed, Connector, Door, Incoming, Role};
use carousel_security::{FLOW_WINDOW_BYTES, MOST_HEADER_BYTES, MOST_RESETS, MOST_STREAMS};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Server;
use tonic::transport::{Endpoint, Uri};

use crate::exchange::{Peer, PeerContent};
use crate::session::Mail;
use crate::session::generated::replica_server::ReplicaServer;

/// The largest HTTP/2 frame: a whole segment, so that it is read in one piece.
const FRAME_BYTES: u32 = 1 << 20;
/// Connections that are served at once: a run has far fewer workers on one machine's line.
const PLACES: usize = 4096;

/// The most bytes a peer's bulk may have: a whole gradient of the run. Unset until the run is known.
pub(crate) type MostBytes = Arc<OnceLock<u64>>;

/// Where other workers reach this one: the local address by which it reaches the coordinator, on a free port.
pub(crate) fn bind(coordinator: &Uri) -> std::io::Result<std::net::TcpListener> {
    let host = coordinator.host().unwrap_or("localhost").trim_matches(['[', ']']);
    let port = coordinator.port_u16().unwrap_or(80);
    let remote = (host, port).to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = UdpSocket::bind(any)?;
    // Connecting a datagram socket sends nothing; it only chooses the route, and with it the local address.
    probe.connect(remote)?;
    std::net::TcpListener::bind((probe.local_addr()?.ip(), 0))
}

/// Serves peers until the task is aborted.
pub(crate) fn serve(
    runtime: &Handle,
    listener: std::net::TcpListener,
    mail: mpsc::Sender<Mail>,
    (door, most_bytes): (Door, MostBytes),
) -> std::io::Result<tokio::task::AbortHandle> {
    let _entered = runtime.enter();
    let local = local::listen(&listener.local_addr()?.to_string());
    let incoming = Incoming::new(listener, door, PLACES)?;
    let router = |allowed: Allowed| {
        let (mail, most_bytes) = (mail.clone(), most_bytes.clone());
        Server::builder()
            .initial_stream_window_size(FLOW_WINDOW_BYTES)
            .initial_connection_window_size(FLOW_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_concurrent_streams(MOST_STREAMS)
            .http2_max_header_list_size(MOST_HEADER_BYTES)
            .http2_max_pending_accept_reset_streams(Some(MOST_RESETS))
            .add_service(InterceptedService::new(
                ReplicaServer::new(replica::Server { mail: mail.clone() }),
                allowed,
            ))
            .add_service(receiver::Receiver { mail, most_bytes, allowed })
    };
    // Workers alone talk to a worker. At a local socket the system has said whose process is at the other end.
    let workers = router(Allowed::roles(&[Role::Worker])).serve_with_incoming(incoming);
    let own = router(Allowed::whoever_is_there()).serve_with_incoming(local);
    let task = runtime.spawn(async move {
        if let Err(error) = tokio::try_join!(workers, own) {
            tracing::error!("the exchange service ended: {error}");
        }
    });
    Ok(task.abort_handle())
}

type Outbox = mpsc::UnboundedSender<bytes::Bytes>;

/// The streams to other workers. What waits to be sent shares its memory and is at most a step's, so that two workers
/// that send to each other never wait for each other.
pub(crate) struct Peers {
    own: WorkerId,
    runtime: Handle,
    door: Door,
    outboxes: BTreeMap<(WorkerId, String), Outbox>,
    sent_bytes: u64,
}

impl Peers {
    pub(crate) fn new(own: WorkerId, runtime: Handle, door: Door) -> Self {
        Self { own, runtime, door, outboxes: BTreeMap::new(), sent_bytes: 0 }
    }

    pub(crate) fn send(&mut self, to: &Peer, at: (Term, Step), content: &PeerContent) {
        let outbox = self.outbox(to);
        for frame in wire::frames(at, content) {
            self.sent_bytes += frame.len() as u64;
            if outbox.send(frame).is_err() {
                // The stream broke; the next message opens another, and the coordinator notices what is missing.
                self.outboxes.remove(&(to.worker, to.address.clone()));
                return;
            }
        }
    }

    /// How other workers are reached.
    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Bytes that were handed to streams so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    fn outbox(&mut self, to: &Peer) -> Outbox {
        let key = (to.worker, to.address.clone());
        if let Some(outbox) = self.outboxes.get(&key).filter(|outbox| !outbox.is_closed()) {
            return outbox.clone();
        }
        let (outbox, frames) = mpsc::unbounded_channel();
        outbox.send(wire::hello(self.own)).expect("the receiver is held here");
        self.runtime.spawn(push(to.clone(), self.door.clone(), frames));
        self.outboxes.insert(key, outbox.clone());
        outbox
    }
}

async fn push(to: Peer, door: Door, frames: mpsc::UnboundedReceiver<bytes::Bytes>) {
    let connector = Connector::new(door, Role::Worker);
    let pushed = async {
        let endpoint = Endpoint::from_shared(format!("http://{}", to.address))?;
        let endpoint = endpoint
            .tcp_nodelay(true)
            .initial_stream_window_size(FLOW_WINDOW_BYTES)
            .initial_connection_window_size(FLOW_WINDOW_BYTES);
        let channel = match endpoint.connect_with_connector(local::Connector::to(&to.address)).await {
            Ok(channel) => channel,
            Err(_) => endpoint.connect_with_connector(connector.clone()).await?,
        };
        wire::push(channel, frames).await
    };
    let Err(error) = pushed.await else { return };
    match connector.fault() {
        Some(fault) => tracing::warn!("no stream to {} at {}: {fault}", to.worker, to.address),
        None => tracing::info!("the stream to {} at {} broke: {error}", to.worker, to.address),
    }
}
