//! Sessions over real connections, with the test in the driver's place: who does not read, who stays, who comes twice.

use carousel_proto::v1::{AskDigest, BulkChunk, Shutdown, from_coordinator};
use carousel_security::{Door, Incoming};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Server;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::replica::{ReplicaLayout, TensorShape};
use crate::tokens::{Cut, Splits};

const SOON: Duration = Duration::from_secs(5);

fn limits() -> Limits {
    let parameters = vec![TensorShape { name: "w".into(), shape: vec![300_000] }];
    let layout = ReplicaLayout { parameters, ..ReplicaLayout::default() };
    Limits { layout, streams: 2, lanes: 1 }
}

/// A coordinator without a driver.
fn serve() -> (Endpoint, mpsc::Receiver<Notice>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = Incoming::new(listener, Door::Open, 8).unwrap();
    let (notices, told) = mpsc::channel(64);
    let splits = Splits { train: (0..100).collect::<Vec<u32>>().into(), valid: None, test: None };
    let tokens = TokenSource::new(splits, Cut { streams: 2, window: 4, lanes: 1 }).unwrap();
    let service = Service {
        notices,
        tokens: Arc::new(tokens),
        limits: Arc::new(limits()),
        next_worker: AtomicU64::new(1),
        gate: Gate::new(None),
        admission: Admission::new(),
    };
    let server = Server::builder().add_service(TrainingServer::new(service));
    tokio::spawn(server.serve_with_incoming(incoming));
    (Endpoint::from_shared(format!("http://{address}")).unwrap(), told)
}

/// A session's two directions.
type Ends = (mpsc::Sender<FromWorker>, Streaming<FromCoordinator>);

async fn join(channel: &Channel) -> Result<Ends, Status> {
    let hello = Hello { protocol: PROTOCOL_VERSION, host: "here".into(), ..Hello::default() };
    let (sender, messages) = mpsc::channel(4);
    let hello = FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    sender.send(hello).await.unwrap();
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/carousel.v1.Training/Session");
    let codec = tonic_prost::ProstCodec::<FromWorker, FromCoordinator>::default();
    let answer = client.streaming(Request::new(ReceiverStream::new(messages)), path, codec).await?;
    Ok((sender, answer.into_inner()))
}

async fn joined(told: &mut mpsc::Receiver<Notice>) -> Outbox {
    match timeout(SOON, told.recv()).await.unwrap() {
        Some(Notice::Joined { outbox, .. }) => outbox,
        other => panic!("expected Joined, found {other:?}"),
    }
}

async fn gone(told: &mut mpsc::Receiver<Notice>) -> String {
    match timeout(2 * PARTING, told.recv()).await.unwrap() {
        Some(Notice::Gone { reason, .. }) => reason,
        other => panic!("expected Gone, found {other:?}"),
    }
}

fn message(message: from_coordinator::Message) -> FromCoordinator {
    FromCoordinator { message: Some(message) }
}

fn chunk() -> FromCoordinator {
    message(from_coordinator::Message::BulkChunk(BulkChunk { data: vec![7; 1 << 20].into() }))
}

/// Reads to the end of a session; gives the number of messages and how it ended.
async fn read_out(session: &mut Streaming<FromCoordinator>) -> (usize, Option<Status>) {
    let mut messages = 0;
    loop {
        match timeout(SOON, session.next()).await.expect("it ends") {
            Some(Ok(_)) => messages += 1,
            Some(Err(status)) => return (messages, Some(status)),
            None => return (messages, None),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_gone_when_too_much_waits_and_its_connection_is_closed() {
    let (endpoint, mut told) = serve();
    let channel = endpoint.connect().await.unwrap();
    let (_sender, mut session) = join(&channel).await.unwrap();
    let outbox = joined(&mut told).await;
    let most = most_waiting(&limits());
    let enough = most / (1 << 20) + 8;
    for _ in 0..enough {
        outbox.send(chunk());
    }
    let reason = gone(&mut told).await;
    assert!(reason.starts_with("it does not read: "), "{reason}");
    assert!(reason.ends_with(&format!("at most {most} may")), "{reason}");
    let (messages, status) = read_out(&mut session).await;
    assert!(status.is_some(), "the connection broke");
    assert!(messages < enough, "{messages} of {enough} were on their way");
    assert_eq!(join(&endpoint.connect().await.unwrap()).await.err().map(|s| s.to_string()), None);
}

fn shutdown() -> FromCoordinator {
    let shutdown = Shutdown { reason: "too late".into(), ..Shutdown::default() };
    message(from_coordinator::Message::Shutdown(shutdown))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_dismissed_hears_why_and_can_take_its_leave() {
    let (endpoint, mut told) = serve();
    let (sender, mut session) = join(&endpoint.connect().await.unwrap()).await.unwrap();
    let outbox = joined(&mut told).await;
    outbox.send(message(from_coordinator::Message::AskDigest(AskDigest {})));
    outbox.send(chunk());
    assert!(session.next().await.unwrap().is_ok());
    outbox.dismiss(shutdown());
    let mut last = None;
    while let Some(message) = timeout(SOON, session.next()).await.unwrap() {
        last = Some(message.unwrap());
    }
    assert_eq!(last, Some(shutdown()));
    drop(sender);
    assert_eq!(timeout(SOON, gone(&mut told)).await.unwrap(), "it left");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_dismissed_and_stays_without_reading_is_cut_off() {
    let (endpoint, mut told) = serve();
    let (_sender, mut session) = join(&endpoint.connect().await.unwrap()).await.unwrap();
    let outbox = joined(&mut told).await;
    // More than HTTP/2 takes before it is read.
    (0..3).for_each(|_| outbox.send(chunk()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    outbox.dismiss(shutdown());
    assert_eq!(gone(&mut told).await, "it was still here 10 s after it was dismissed");
    let (messages, status) = read_out(&mut session).await;
    assert!(status.is_some(), "the connection broke, after {messages} messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_one_session_at_a_time() {
    let (endpoint, mut told) = serve();
    let channel = endpoint.connect().await.unwrap();
    let (sender, session) = join(&channel).await.unwrap();
    let outbox = joined(&mut told).await;
    let refused = join(&channel).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert!(refused.message().starts_with("this connection has a session"), "{refused}");
    drop((sender, session));
    assert!(gone(&mut told).await.starts_with("it left"));
    drop(outbox);
    // Its place is free when the stream has ended; that is told to nobody.
    for _ in 0..100 {
        if join(&channel).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the place was never free again");
}
