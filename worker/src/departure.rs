//! SIGTERM for a worker. In a session the lanes are handed over at the next boundary, and the coordinator then ends the
//! session; where there is none, no further one follows. A second SIGTERM ends the process at once.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::outbox::Outbox;

/// Listens for the signal from now on; true once it has come.
pub(crate) fn watch(runtime: &Runtime) -> watch::Receiver<bool> {
    let (told, leaving) = watch::channel(false);
    runtime.spawn(async move {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            tracing::warn!("SIGTERM cannot be caught here: it will end this worker at once");
            // Whoever waits for the signal waits on.
            return told.closed().await;
        };
        terminate.recv().await;
        told.send_replace(true);
        let first = Instant::now();
        while first.elapsed() < ECHO {
            terminate.recv().await;
        }
        std::process::exit(143);
    });
    leaving
}

/// A second signal so soon is the first one again: `timeout` and its kind send one to the process and one to its group.
const ECHO: Duration = Duration::from_millis(500);

/// Hands the session's lanes over once the signal has come, also when it came before the session.
pub(crate) async fn leave(mut leaving: watch::Receiver<bool>, outbox: Outbox) {
    if leaving.wait_for(|told| *told).await.is_ok() {
        outbox.leave().await;
    }
}
