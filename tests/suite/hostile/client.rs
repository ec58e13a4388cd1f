//! A client that speaks gRPC as a worker does, and says what it likes.

use carousel_proto::PROTOCOL_VERSION;
use carousel_proto::v1::{FromCoordinator, FromWorker, Hello, from_worker::Message};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// A Hello that is fine.
pub(super) fn hello() -> Hello {
    Hello { protocol: PROTOCOL_VERSION, host: "elsewhere".into(), ..Hello::default() }
}

/// A connection with a runtime of its own.
pub(super) struct Client {
    runtime: Runtime,
    channel: Channel,
}

/// A session that has begun.
pub(super) struct Session {
    client: Client,
    sender: mpsc::Sender<FromWorker>,
    inbound: Streaming<FromCoordinator>,
}

type Begun = (mpsc::Sender<FromWorker>, Streaming<FromCoordinator>);

impl Client {
    pub(super) fn connect(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self { runtime, channel }
    }

    fn begin(&self, first: Option<Message>, header: usize) -> Result<Begun, Status> {
        self.runtime.block_on(async {
            let (sender, messages) = mpsc::channel(4);
            if let Some(message) = first {
                sender.send(FromWorker { message: Some(message) }).await.unwrap();
            }
            let mut request = Request::new(ReceiverStream::new(messages));
            if header > 0 {
                request.metadata_mut().insert("x-long", "x".repeat(header).parse().unwrap());
            }
            let mut client = tonic::client::Grpc::new(self.channel.clone());
            client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let path = PathAndQuery::from_static("/carousel.v1.Training/Session");
            let codec = tonic_prost::ProstCodec::<FromWorker, FromCoordinator>::default();
            let answer = client.streaming(request, path, codec).await?;
            Ok((sender, answer.into_inner()))
        })
    }

    /// Begins a session with this message.
    pub(super) fn session(self, first: Message) -> Result<Session, Status> {
        let (sender, inbound) = self.begin(Some(first), 0)?;
        Ok(Session { client: self, sender, inbound })
    }

    /// Begins a session and says nothing in it.
    pub(super) fn session_without_a_word(self) -> Result<Begun, Status> {
        self.begin(None, 0)
    }

    /// What a session comes to that has a header of so many bytes: HTTP's own refusals are found when it is read.
    pub(super) fn session_with_a_header_of(self, bytes: usize) -> Result<Option<FromCoordinator>, Status> {
        let (_sender, mut inbound) = self.begin(Some(Message::Hello(hello())), bytes)?;
        self.runtime.block_on(inbound.message())
    }
}

impl Session {
    pub(super) fn say(&self, message: Message) {
        let sent = self.client.runtime.block_on(self.sender.send(FromWorker { message: Some(message) }));
        sent.unwrap();
    }

    /// Reads and says nothing more, until the coordinator ends the session.
    pub(super) fn read_out(self) -> Vec<FromCoordinator> {
        let Self { client, mut inbound, sender } = self;
        let messages = client.runtime.block_on(async {
            let mut messages = Vec::new();
            while let Some(Ok(message)) = inbound.next().await {
                messages.push(message);
            }
            messages
        });
        drop(sender);
        messages
    }
}
