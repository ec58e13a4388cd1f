//! Fetches windows one ahead of the computation: from the coordinator's token service, or from token files that the run's
//! settings name and the program opens. This crate knows no file: it only asks.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use carousel_proto::v1::{RunSettings, Split, WindowReply, WindowRequest, WindowSpan};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::transport::Channel;

use crate::session::TrainingClient;

type Reply = Result<WindowReply, Status>;

/// Windows of a run, read without the coordinator. Blocking; called from threads that may wait.
pub trait WindowReader: Send + Sync {
    /// What the coordinator's token service would answer.
    ///
    /// # Errors
    /// When the tokens cannot be read, or are not there. The worker ends with it: it never asks the coordinator instead.
    fn read(&self, request: &WindowRequest) -> Result<WindowReply, Box<dyn Error + Send + Sync>>;
}

/// The reader of a run's token files, or why there is none.
pub type Opened = Result<Arc<dyn WindowReader>, Box<dyn Error + Send + Sync>>;

/// Opens the token files that a run's settings name.
#[derive(Clone)]
pub struct TokenOpener(Arc<dyn Fn(&RunSettings) -> Opened + Send + Sync>);

impl TokenOpener {
    /// `open` is called once for a run, with settings that name token files; it checks their hashes.
    pub fn new(open: impl Fn(&RunSettings) -> Opened + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    /// The reader of a run, when its settings name token files.
    pub(crate) fn open(
        &self,
        settings: &RunSettings,
    ) -> Result<Option<Arc<dyn WindowReader>>, Box<dyn Error + Send + Sync>> {
        settings.token_files.is_some().then(|| (self.0)(settings)).transpose()
    }
}

impl fmt::Debug for TokenOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenOpener")
    }
}

pub(crate) struct TokenClient {
    client: TrainingClient<Channel>,
    runtime: Handle,
    /// In place of the coordinator.
    reader: Option<Arc<dyn WindowReader>>,
    ahead: Option<(WindowRequest, oneshot::Receiver<Reply>)>,
}

impl TokenClient {
    pub(crate) fn new(client: TrainingClient<Channel>, runtime: Handle) -> Self {
        Self { client, runtime, reader: None, ahead: None }
    }

    /// From now on windows come from `reader`, where there is one.
    pub(crate) fn read_from(&mut self, reader: Option<Arc<dyn WindowReader>>) {
        self.reader = reader;
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
        if let Some(reader) = self.reader.clone() {
            self.runtime.spawn_blocking(move || {
                let reply = reader.read(&request).map_err(|error| Status::data_loss(error.to_string()));
                sender.send(reply).unwrap_or_default();
            });
            return receiver;
        }
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
