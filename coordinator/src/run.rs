//! A run from its first file to its last: opens the folder, serves the sessions, lets the driver work.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use carousel_proto::digest::Digest;
use carousel_proto::v1::Split;
use carousel_proto::{Step, Term};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::server::{Server, TcpIncoming};

use crate::checkpoint::{CheckpointError, RunFolder};
use crate::driver::{Driver, Parts, Records, StartState, start_state};
use crate::intake::{Limits, cuts_agree};
use crate::journal::{Contents, Journal, JournalError, Record};
use crate::metrics::Metrics;
use crate::observer::Observer;
use crate::options::{Run, Start};
use crate::plan::RunPlan;
use crate::protocol::{self, Ending, Machine};
use crate::run_id::RunId;
use crate::server::{Notice, Service, TrainingServer};

/// Bulk is one BulkStart with the touched rows and chunks of 1 MiB; nothing is larger.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// HTTP/2's own default, 64 KiB, would have every megabyte wait for 16 round trips.
const FLOW_WINDOW_BYTES: u32 = 8 << 20;
/// A silent connection is asked for a sign of life this often, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(10);

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
    notices: (mpsc::Sender<Notice>, mpsc::Receiver<Notice>),
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
    pub fn new(run: Run, listener: TcpListener) -> Result<Self, RunError> {
        let opened = open(&run)?;
        Ok(Self { run, opened, listener, notices: mpsc::channel(64) })
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
    pub fn run(self, observer: &mut dyn Observer) -> Result<Summary, RunError> {
        let ((sender, mut receiver), opened) = (self.notices, self.opened);
        let limits = Arc::new(limits(&self.run));
        let tokens = Arc::new(self.run.tokens);
        let service = Service {
            notices: sender.clone(),
            tokens: tokens.clone(),
            limits: limits.clone(),
            next_worker: AtomicU64::new(1),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|source| listen_error(&self.listener, source))?;
        let (quit, quitting) = oneshot::channel();
        let serving = {
            let _entered = runtime.enter();
            serve(self.listener, service, quitting)?
        };
        runtime.spawn(pass_signals_on(sender));
        let parts = Parts {
            runtime: runtime.handle().clone(),
            machine: opened.machine,
            training: self.run.training,
            settings: self.run.settings,
            limits,
            tokens,
            state: opened.state,
            records: opened.records,
            run_id: opened.run_id,
            observer,
        };
        let result = Driver::new(parts).run(&mut receiver);
        drop((quit, receiver));
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), serving).await.ok() });
        result
    }
}

fn limits(run: &Run) -> Limits {
    let settings = &run.settings;
    let layout = run.layout.clone();
    Limits { layout, streams: settings.streams, window: settings.window, lanes: settings.lanes }
}

fn listen_error(listener: &TcpListener, source: std::io::Error) -> RunError {
    let address = listener.local_addr().map_or_else(|_| "?".into(), |a: SocketAddr| a.to_string());
    RunError::Listen { address, source }
}

fn serve(
    listener: TcpListener,
    service: Service,
    quitting: oneshot::Receiver<()>,
) -> Result<tokio::task::JoinHandle<()>, RunError> {
    let clone = listener.try_clone().and_then(|l| l.set_nonblocking(true).map(|()| l));
    let incoming = clone.and_then(tokio::net::TcpListener::from_std);
    let incoming = TcpIncoming::from(incoming.map_err(|source| listen_error(&listener, source))?);
    let training = TrainingServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(FLOW_WINDOW_BYTES)
        .initial_connection_window_size(FLOW_WINDOW_BYTES)
        .add_service(training)
        .serve_with_incoming_shutdown(incoming.with_nodelay(Some(true)), async {
            quitting.await.unwrap_or_default()
        });
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
    let mut asked = false;
    loop {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        let again = Notice::Abort { reason: "interrupted twice: ended without a checkpoint".into() };
        if notices.send(if asked { again } else { Notice::Stop }).await.is_err() {
            return;
        }
        asked = true;
    }
}

struct Opened {
    machine: Machine,
    state: StartState,
    records: Records,
    run_id: RunId,
}

/// Makes or opens the run's folder; of a new run nothing is left behind when that fails.
fn open(run: &Run) -> Result<Opened, RunError> {
    let folder = RunFolder::new(&run.folder);
    let train = run.tokens.split(Split::Train).expect("every run has training tokens");
    let plan = RunPlan {
        lanes: run.settings.lanes,
        windows_per_epoch: train.windows(),
        length: run.training.length,
        evaluate_every: run.training.evaluate_every,
        checkpoint_every: run.training.checkpoint_every,
        digest_every: run.training.digest_every,
        has_valid: run.tokens.split(Split::Valid).is_some(),
        has_test: run.tokens.split(Split::Test).is_some(),
    };
    assert!(cuts_agree(train.plan()), "corpus and wire contract cut streams into lanes alike");
    let (step, journal, contents) = match &run.start {
        Start::New { config_toml, tokenizer_json } => {
            create_folder(&folder, config_toml, tokenizer_json)?;
            (0, Journal::create(&folder.journal())?, Contents::default())
        }
        Start::Resume { checkpoint, config_toml } => {
            replace(&folder.config(), config_toml)?;
            let step = checkpoint.state.step;
            let (journal, contents) = Journal::reopen(&folder.journal(), step)?;
            (step, journal, contents)
        }
    };
    if contents.damaged_bytes > 0 {
        tracing::warn!(
            "{}: passed over a damaged tail of {} bytes",
            folder.journal().display(),
            contents.damaged_bytes
        );
    }
    let term = Term(contents.records.last().map_or(0, |r| r.term) + 1);
    let checkpoint = match &run.start {
        Start::New { .. } => None,
        Start::Resume { checkpoint, .. } => Some(&**checkpoint),
    };
    let (origin, state) = start_state(checkpoint, &limits(run));
    let summary = Summary {
        ending: Ending::Complete,
        step,
        checkpoint: match &run.start {
            Start::New { .. } => None,
            Start::Resume { checkpoint, .. } => Some((checkpoint.path.clone(), checkpoint.digest())),
        },
        valid: None,
        test: None,
    };
    let metrics = Metrics::open(folder.path(), step).map_err(RunError::Metrics)?;
    let run_id = run_id(&folder)?;
    let records = Records {
        folder,
        plan: plan.clone(),
        layout: run.layout.clone(),
        data_digest: run.tokens.digest(),
        journal,
        earlier: contents.records.into_iter().filter(|r| r.step > step).map(|r| (r.step, r)).collect(),
        metrics,
        last_commit: Instant::now(),
        summary,
    };
    let start = protocol::Start {
        exchange: run.exchange,
        workers_to_start: run.workers,
        term,
        step: Step(step),
        origin,
        recent_steps: Vec::new(),
    };
    Ok(Opened { machine: Machine::new(plan, start), state, records, run_id })
}

fn create_folder(folder: &RunFolder, config_toml: &str, tokenizer_json: &str) -> Result<(), RunError> {
    let path = folder.path();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Io { path, source }
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    fs::create_dir(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => RunError::Exists { path: path.into() },
        _ => RunError::Io { path: path.into(), source },
    })?;
    let fill = || {
        fs::create_dir(path.join("checkpoints")).map_err(io(path))?;
        replace(&folder.tokenizer(), tokenizer_json)?;
        replace(&folder.id(), &RunId::new(config_toml).to_text())?;
        replace(&folder.config(), config_toml)
    };
    fill().inspect_err(|_| {
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!("{}: {error}", path.display());
        }
    })
}

fn run_id(folder: &RunFolder) -> Result<RunId, RunError> {
    RunId::read(&folder.id()).map_err(|source| RunError::Io { path: folder.id(), source })
}

/// Writes a small file durably: beside, fsync, rename.
fn replace(path: &Path, text: &str) -> Result<(), RunError> {
    let beside = path.with_extension("new");
    let write = || {
        fs::write(&beside, text)?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| RunError::Io { path: path.into(), source })
}
