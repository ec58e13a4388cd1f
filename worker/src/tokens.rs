//! Fetches windows from the coordinator's token service, one ahead of the computation.

use std::ops::Range;

use carousel_proto::v1::{Split, WindowReply, WindowRequest, WindowSpan};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::transport::Channel;

use crate::session::TrainingClient;

type Reply = Result<WindowReply, Status>;

#[derive(Debug)]
pub(crate) struct TokenClient {
    client: TrainingClient<Channel>,
    runtime: Handle,
    ahead: Option<(WindowRequest, oneshot::Receiver<Reply>)>,
}

impl TokenClient {
    pub(crate) fn new(client: TrainingClient<Channel>, runtime: Handle) -> Self {
        Self { client, runtime, ahead: None }
    }

    /// The connection, for what else goes beside the session.
    pub(crate) fn client(&self) -> TrainingClient<Channel> {
        self.client.clone()
    }

    /// The window of these lanes, which was fetched ahead if it was named then; waits for it.
    pub(crate) fn window(&mut self, split: Split, span: WindowSpan, lanes: &Range<u32>) -> Reply {
        let request = request(split, span, lanes);
        let receiver = match self.ahead.take() {
            Some((ahead, receiver)) if ahead == request => receiver,
            _ => self.start(request),
        };
        receiver.blocking_recv().unwrap_or_else(|_| Err(Status::unavailable("the runtime is gone")))
    }

    /// Begins to fetch a window that will be wanted next.
    pub(crate) fn fetch_ahead(&mut self, split: Split, span: WindowSpan, lanes: &Range<u32>) {
        let request = request(split, span, lanes);
        self.ahead = Some((request, self.start(request)));
    }

    fn start(&self, request: WindowRequest) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        let mut client = self.client.clone();
        self.runtime.spawn(async move {
            let reply = client.fetch_windows(request).await.map(tonic::Response::into_inner);
            // Nobody waits any more when the lanes have moved meanwhile.
            sender.send(reply).unwrap_or_default();
        });
        receiver
    }
}

fn request(split: Split, span: WindowSpan, lanes: &Range<u32>) -> WindowRequest {
    let (first_lane, lanes) = (lanes.start, lanes.len() as u32);
    WindowRequest { split: split.into(), window: 0, first_lane, lanes, span: Some(span) }
}
