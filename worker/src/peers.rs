//! The network side of the mesh: serves this worker's Exchange service and keeps one stream to each peer it sends to.
//! It does not know what a step is; a peer that cannot be reached is the coordinator's to notice.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, OnceLock};

use carousel_proto::bulk::{Assembler, chunks};
use carousel_proto::gradient::Gradient;
use carousel_proto::v1::{Bulk, BulkStart, FromPeer, PeerHello, PushEnd, from_peer::Message};
use carousel_proto::{Node, PROTOCOL_VERSION, Step, Term, WorkerId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::transport::{Endpoint, Uri};
use tonic::{Request, Response, Status, Streaming};

use crate::exchange::{Peer, PeerContent};
use crate::session::{
    FLOW_WINDOW_BYTES, MAX_MESSAGE_BYTES, Mail,
    generated::{exchange_client::ExchangeClient, exchange_server},
};

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
    most_bytes: MostBytes,
) -> std::io::Result<tokio::task::AbortHandle> {
    listener.set_nonblocking(true)?;
    let _entered = runtime.enter();
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let service = exchange_server::ExchangeServer::new(Service { mail, most_bytes });
    let server = Server::builder()
        .initial_stream_window_size(FLOW_WINDOW_BYTES)
        .initial_connection_window_size(FLOW_WINDOW_BYTES)
        .add_service(service.max_decoding_message_size(MAX_MESSAGE_BYTES))
        .serve_with_incoming(incoming);
    let task = runtime.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!("the exchange service ended: {error}");
        }
    });
    Ok(task.abort_handle())
}

struct Service {
    mail: mpsc::Sender<Mail>,
    most_bytes: MostBytes,
}

#[tonic::async_trait]
impl exchange_server::Exchange for Service {
    async fn push(&self, request: Request<Streaming<FromPeer>>) -> Result<Response<PushEnd>, Status> {
        let mut inbound = request.into_inner();
        let first = inbound.next().await.transpose()?.and_then(|m| m.message);
        let Some(Message::Hello(PeerHello { protocol: PROTOCOL_VERSION, worker_id })) = first else {
            let expected = format!("expected PeerHello of protocol {PROTOCOL_VERSION} as the first message");
            return Err(Status::failed_precondition(expected));
        };
        let most_bytes = *self.most_bytes.get().ok_or_else(|| Status::unavailable("no run yet"))?;
        let mut assembler = Assembler::default();
        while let Some(message) = inbound.next().await.transpose()? {
            if let Some((at, content)) = accept(&mut assembler, message, most_bytes)? {
                let mail = Mail::Peer { worker: WorkerId(worker_id), at, content };
                self.mail.send(mail).await.map_err(|_| Status::unavailable("the session is over"))?;
            }
        }
        Ok(Response::new(PushEnd {}))
    }
}

/// What a peer sent, and for which step.
type Dated = ((Term, Step), PeerContent);

/// Sizes against the step are the exchange's to check; here only that a bulk is what it says.
fn accept(assembler: &mut Assembler, message: FromPeer, most_bytes: u64) -> Result<Option<Dated>, Status> {
    let whole = match message.message {
        Some(Message::BulkStart(start)) if start.bytes <= most_bytes => {
            let floats = usize::try_from(start.bytes / 4).map_err(|_| Status::out_of_range("too large"))?;
            assembler.start(start, floats)
        }
        Some(Message::BulkChunk(chunk)) => assembler.chunk(&chunk),
        _ => return Err(Status::invalid_argument("expected a bulk of a possible size")),
    };
    let whole = whole.map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(whole.map(|(start, floats)| {
        let (at, node) =
            ((Term(start.term), Step(start.step)), Node { level: start.level, index: start.index });
        let gradient = Gradient { rows: start.rows.clone(), floats };
        let content = match start.kind() {
            Bulk::Partial => PeerContent::Partial { node, gradient },
            _ => PeerContent::Reduced { gradient },
        };
        (at, content)
    }))
}

type Outbox = mpsc::UnboundedSender<FromPeer>;

/// The streams to other workers. What waits to be sent shares its memory and is at most a step's, so that two workers
/// that send to each other never wait for each other.
pub(crate) struct Peers {
    own: WorkerId,
    runtime: Handle,
    outboxes: BTreeMap<(WorkerId, String), Outbox>,
}

impl Peers {
    pub(crate) fn new(own: WorkerId, runtime: Handle) -> Self {
        Self { own, runtime, outboxes: BTreeMap::new() }
    }

    pub(crate) fn send(&mut self, to: &Peer, start: BulkStart, gradient: &Arc<Gradient>) {
        let bytes = 4 * gradient.floats.len() as u64;
        let outbox = self.outbox(to);
        let start = Message::BulkStart(BulkStart { bytes, rows: gradient.rows.clone(), ..start });
        let messages = std::iter::once(start).chain(chunks(gradient.clone()).map(Message::BulkChunk));
        for message in messages {
            if outbox.send(FromPeer { message: Some(message) }).is_err() {
                // The stream broke; the next message opens another, and the coordinator notices what is missing.
                self.outboxes.remove(&(to.worker, to.address.clone()));
                return;
            }
        }
    }

    fn outbox(&mut self, to: &Peer) -> Outbox {
        let key = (to.worker, to.address.clone());
        if let Some(outbox) = self.outboxes.get(&key).filter(|outbox| !outbox.is_closed()) {
            return outbox.clone();
        }
        let (outbox, messages) = mpsc::unbounded_channel();
        let hello = Message::Hello(PeerHello { protocol: PROTOCOL_VERSION, worker_id: self.own.0 });
        outbox.send(FromPeer { message: Some(hello) }).expect("the receiver is held here");
        self.runtime.spawn(push(to.clone(), messages));
        self.outboxes.insert(key, outbox.clone());
        outbox
    }
}

async fn push(to: Peer, messages: mpsc::UnboundedReceiver<FromPeer>) {
    let pushed = async {
        let endpoint = Endpoint::from_shared(format!("http://{}", to.address))?;
        let endpoint = endpoint
            .tcp_nodelay(true)
            .initial_stream_window_size(FLOW_WINDOW_BYTES)
            .initial_connection_window_size(FLOW_WINDOW_BYTES);
        let mut client = ExchangeClient::new(endpoint.connect().await?);
        let end = client.push(UnboundedReceiverStream::new(messages)).await?;
        Ok::<PushEnd, Box<dyn std::error::Error + Send + Sync>>(end.into_inner())
    };
    if let Err(error) = pushed.await {
        tracing::info!("the stream to {} at {} broke: {error}", to.worker, to.address);
    }
}
