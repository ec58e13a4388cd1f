//! A run from its first file to its last: opens the folder, serves the sessions, lets the driver work.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use carousel_proto::MAX_MESSAGE_BYTES;
use carousel_proto::digest::Digest;
use carousel_security::{Allowed, Door, Gate, Incoming, Role, Token};
use carousel_security::{FLOW_WINDOW_BYTES, KEEPALIVE, MOST_HEADER_BYTES, MOST_RESETS, MOST_STREAMS};
use tokio::sync::{mpsc, oneshot};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Server;

use crate::admission::Admission;
use crate::append::Change;
use crate::board::{Board, Noting};
use crate::checkpoint::{CheckpointError, Saved};
use crate::committed::CommittedError;
use crate::driver::{Books, Driver, Parts, Records};
use crate::intake::Limits;
use crate::journal::{JournalError, Record};
use crate::mirror::{Mirror, MirrorError, Nudge, Told};
use crate::observer::Observer;
use crate::open::{Opened, open};
use crate::operations::{Desk, MAX_REQUEST_BYTES, OperationsServer};
use crate::options::Run;
use crate::protocol::Ending;
use crate::server::{Notice, Service, TrainingServer};

/// Connections that are served at once: a thousand workers have two or three each. What they may have together is in
/// `admission`.
const PLACES: usize = 8192;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A file of the run could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The committed state that no replica holds.
    #[error(transparent)]
    Committed(#[from] CommittedError),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(#[source] std::io::Error),
    /// Another process works in the folder, or it is a new run's and already there.
    #[error("{path} exists; go on with it by --resume, or name another folder by --run")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Something in a step was NaN or infinite.
    #[error("step {step}: {parameter} is not finite; the last good checkpoint is {}", told(.checkpoint))]
    NonFinite {
        /// The step.
        step: u64,
        /// What.
        parameter: String,
        /// The last checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// A step that was made again came out otherwise: the promise is broken somewhere.
    #[error("step {step} came out differently from the time before: journal {before:?}, now {now:?}")]
    Replay {
        /// The step.
        step: u64,
        /// As journalled.
        before: Box<Record>,
        /// As computed now.
        now: Box<Record>,
    },
    /// The bucket that the run is kept in.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Its owner ended it.
    #[error("{reason}")]
    Aborted {
        /// Why.
        reason: String,
    },
    /// The network side could not be started.
    #[error("listening on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

fn told(checkpoint: &Option<PathBuf>) -> String {
    checkpoint
        .as_ref()
        .map_or_else(|| "none (none was written yet)".into(), |path| path.display().to_string())
}

/// The mean loss over a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluated {
    /// Targets.
    pub tokens: u64,
    /// Nats a token.
    pub loss: f64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// In which way.
    pub ending: Ending,
    /// The last committed step.
    pub step: u64,
    /// The last checkpoint and its digest.
    pub checkpoint: Option<(PathBuf, Digest)>,
    /// The last validation of this process.
    pub valid: Option<Evaluated>,
    /// The test figures.
    pub test: Option<Evaluated>,
}

/// A run about to be made: its folder is there, its port is open, nobody has been asked to work yet.
pub struct Coordinator {
    run: Run,
    opened: Opened,
    listener: TcpListener,
    metrics: Option<TcpListener>,
    notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
    locks: Locks,
}

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    /// How connections are let in.
    pub door: Door,
    /// What a worker must have beside.
    pub join_token: Option<Token>,
}

/// A way to end a run from another thread.
#[derive(Clone, Debug)]
pub struct Control(mpsc::Sender<Notice>);

impl Control {
    /// Ends the run with an error; without effect when it is over.
    pub fn abort(&self, reason: String) {
        if self.0.blocking_send(Notice::Abort { reason }).is_err() {
            tracing::debug!("aborted a run that was over");
        }
    }
}

impl Coordinator {
    /// Makes or opens the run's folder; the run will be served on `listener`.
    ///
    /// # Errors
    /// When the folder cannot be made or its files cannot be opened; of a new run nothing is left behind then.
    pub fn new(run: Run, listener: TcpListener, locks: Locks) -> Result<Self, RunError> {
        let opened = open(&run, &limits(&run))?;
        Ok(Self { run, opened, listener, metrics: None, notices: mpsc::channel(64), locks })
    }

    /// Also serves the run's figures for Prometheus, as plain HTTP.
    #[must_use]
    pub fn with_metrics(self, listener: Option<TcpListener>) -> Self {
        Self { metrics: listener, ..self }
    }

    /// A handle for other threads.
    #[must_use]
    pub fn control(&self) -> Control {
        Control(self.notices.0.clone())
    }

    /// Makes the run. Ctrl-C and SIGTERM end it in good order, a second one at once.
    ///
    /// # Errors
    /// When it cannot be served or does not end in good order.
    pub fn run(mut self, observer: &mut dyn Observer) -> Result<Summary, RunError> {
        let ((sender, mut receiver), opened) = (self.notices, self.opened);
        let (keep, folder) = (self.run.training.keep_checkpoints, opened.books.folder.clone());
        let mut mirror = self.run.mirror.take();
        let told = sender.clone();
        let started =
            mirror.as_mut().map(|mirror| mirror.start(folder, keep, move |what| pass_on(&told, what)));
        let nudge = started.transpose()?;
        let board = Arc::new(board(&self.run, &opened));
        let run_id = opened.run_id;
        let (mut records, saved) = records(opened.books, nudge);
        records.go_back(opened.machine.step())?;
        let limits = Arc::new(limits(&self.run));
        let tokens = Arc::new(self.run.tokens);
        let service = Service {
            notices: sender.clone(),
            tokens: tokens.clone(),
            limits: limits.clone(),
            next_worker: AtomicU64::new(1),
            gate: Gate::new(self.locks.join_token),
            admission: Admission::new(),
        };
        let desk = Desk::new(sender.clone(), board.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|source| listen_error(&self.listener, source))?;
        let (quit, quitting) = oneshot::channel();
        let serving = {
            let _entered = runtime.enter();
            if let Some(listener) = self.metrics {
                let refused = |source| RunError::Listen { address: "--metrics".into(), source };
                crate::scrape::serve(listener, board.clone()).map_err(refused)?;
            }
            serve((self.listener, self.locks.door), (service, desk), quitting)?
        };
        runtime.spawn(pass_signals_on(sender));
        let mut noting = Noting { board: &board, told: observer };
        let parts = Parts {
            runtime: runtime.handle().clone(),
            machine: opened.machine,
            training: self.run.training,
            settings: self.run.settings,
            limits,
            tokens,
            state: opened.state,
            records,
            run_id,
            saved,
            observer: &mut noting,
            board: board.clone(),
        };
        let result = Driver::new(parts).run(&mut receiver);
        let result = with_the_mirror(result, mirror);
        drop((quit, receiver));
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), serving).await.ok() });
        result
    }
}

/// The picture of a run that nobody has worked on yet.
fn board(run: &Run, opened: &Opened) -> Board {
    let steps = (opened.machine.step().0, run.calendar().2);
    let board =
        Board::new(run.folder.display().to_string(), opened.run_id.to_text().trim_end().into(), steps);
    board.set_checkpoint(opened.books.last_checkpoint(opened.machine.saved_step()));
    board
}

/// The run's files at work, and what becomes of its checkpoints; each good one is brought up.
fn records(books: Books, nudge: Option<Nudge>) -> (Records, mpsc::UnboundedReceiver<Saved>) {
    let (sender, saved) = mpsc::unbounded_channel();
    let records = Records::new(books, move |saved: Saved| {
        if let Some(nudge) = nudge.as_ref().filter(|_| saved.result.is_ok()) {
            nudge.publish();
        }
        if sender.send(saved).is_err() {
            tracing::debug!("a checkpoint was made after the run was over");
        }
    });
    (records, saved)
}

/// Brings the run's end up; a run that belongs to somebody else has no good end.
fn with_the_mirror(result: Result<Summary, RunError>, mirror: Option<Mirror>) -> Result<Summary, RunError> {
    let Some(mirror) = mirror else { return result };
    match (result, mirror.take_lost()) {
        (_, Some(lost)) => Err(lost.into()),
        (Ok(summary), None) => Ok(mirror.finish().map(|()| summary)?),
        (Err(error), None) => Err(error),
    }
}

fn pass_on(notices: &mpsc::Sender<Notice>, told: Told) {
    let notice = match told {
        Told::Fails(problem) => Notice::Mirrored(Change::Fails(std::io::Error::other(problem))),
        Told::Recovered => Notice::Mirrored(Change::Recovered { lost: 0 }),
        Told::Lost(reason) => Notice::Abort { reason },
    };
    if notices.blocking_send(notice).is_err() {
        tracing::debug!("the bucket said something after the run was over");
    }
}

fn limits(run: &Run) -> Limits {
    let settings = &run.settings;
    let layout = run.layout.clone();
    Limits { layout, streams: settings.streams, lanes: settings.lanes }
}

fn listen_error(listener: &TcpListener, source: std::io::Error) -> RunError {
    let address = listener.local_addr().map_or_else(|_| "?".into(), |a: SocketAddr| a.to_string());
    RunError::Listen { address, source }
}

fn serve(
    (listener, door): (TcpListener, Door),
    (service, desk): (Service, Desk),
    quitting: oneshot::Receiver<()>,
) -> Result<tokio::task::JoinHandle<()>, RunError> {
    let incoming = listener.try_clone().and_then(|listener| Incoming::new(listener, door, PLACES));
    let incoming = incoming.map_err(|source| listen_error(&listener, source))?;
    let training = TrainingServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let operations = OperationsServer::new(desk).max_decoding_message_size(MAX_REQUEST_BYTES);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(Some(MOST_STREAMS))
        .http2_max_header_list_size(Some(MOST_HEADER_BYTES))
        .http2_max_pending_accept_reset_streams(Some(MOST_RESETS))
        .initial_stream_window_size(FLOW_WINDOW_BYTES)
        .initial_connection_window_size(FLOW_WINDOW_BYTES)
        .add_service(InterceptedService::new(training, Allowed::roles(&[Role::Worker])))
        // Which role may call which of them is each method's own matter.
        .add_service(operations)
        .serve_with_incoming_shutdown(incoming, async { quitting.await.unwrap_or_default() });
    Ok(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!("the server ended: {error}");
        }
    }))
}

async fn pass_signals_on(notices: mpsc::Sender<Notice>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return tracing::warn!("signals cannot be caught here: Ctrl-C will not write a checkpoint");
    };
    let mut first = None;
    loop {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        let notice = match first.map(|first: Instant| first.elapsed()) {
            None => Notice::Stop,
            Some(since) if since < ECHO => continue,
            Some(_) => Notice::Abort { reason: "interrupted twice: ended without a checkpoint".into() },
        };
        first = first.or(Some(Instant::now()));
        if notices.send(notice).await.is_err() {
            return;
        }
    }
}

/// A second signal so soon is the first one again: `timeout` and its kind send one to the process and one to its group.
const ECHO: Duration = Duration::from_millis(500);
