//! How much a coordinator does at once for all its clients together, and how fast sessions may begin: HTTP/2's own limits
//! hold for each connection alone. Who may come at all is decided before; a worker that is refused here tries again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use carousel_security::Peer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tonic::Status;

/// Sessions that are open: of a thousand workers, and of as many that were cut off and come back before they are missed.
const MOST_SESSIONS: usize = 4096;
/// A worker makes a new connection for each session.
const SESSIONS_OF_A_CONNECTION: usize = 1;
/// A copy of a replica takes its memory here; one that was given up may still be on its way when another is asked for.
const DEPOSITS_OF_A_CONNECTION: usize = 2;
/// Sessions that may begin at once: a thousand workers that are started together, twice.
const BURST: u32 = 2048;
/// Beyond that one may begin this often. Each is journalled, told to the user, and looked at by the protocol.
const INTERVAL: Duration = Duration::from_micros(1_000_000 / 64);
/// Requests for windows that are under way: each of a thousand workers has the window of its step and the next.
const MOST_REQUESTS: usize = 4096;
/// Of these, how many are answered at once: each may wait for a disk, on a thread.
const MOST_READS: usize = 32;

/// What is open.
#[derive(Debug)]
pub(crate) struct Admission {
    began: Instant,
    pace: Mutex<Pace>,
    sessions: Arc<Semaphore>,
    of_connections: Arc<Tally>,
    deposits: Arc<Tally>,
    requests: Semaphore,
    reads: Semaphore,
}

/// A session's place, or a deposit's; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _counted: Counted,
    _place: Option<OwnedSemaphorePermit>,
}

/// A request's place.
pub(crate) struct Turn<'a> {
    _request: SemaphorePermit<'a>,
    _read: SemaphorePermit<'a>,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            pace: Mutex::default(),
            sessions: Arc::new(Semaphore::new(MOST_SESSIONS)),
            of_connections: Arc::default(),
            deposits: Arc::default(),
            requests: Semaphore::new(MOST_REQUESTS),
            reads: Semaphore::new(MOST_READS),
        }
    }

    /// A place for a session.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, when the connection has one, too many are open, or too many have just begun.
    pub(crate) fn session(&self, peer: &Peer) -> Result<Place, Status> {
        let counted = Tally::add(&self.of_connections, peer.address, SESSIONS_OF_A_CONNECTION);
        let counted = counted.ok_or_else(|| exhausted("this connection has a session: make another one"))?;
        let place = self.sessions.clone().try_acquire_owned();
        let place = place.map_err(|_| exhausted(&format!("{MOST_SESSIONS} sessions are open")))?;
        if !self.pace.lock().unwrap_or_else(PoisonError::into_inner).allow(self.began.elapsed()) {
            return Err(exhausted("too many sessions began just now"));
        }
        Ok(Place { _counted: counted, _place: Some(place) })
    }

    /// A place for a replica's copy.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, when the connection has too many.
    pub(crate) fn deposit(&self, peer: &Peer) -> Result<Place, Status> {
        let counted = Tally::add(&self.deposits, peer.address, DEPOSITS_OF_A_CONNECTION);
        let most = DEPOSITS_OF_A_CONNECTION;
        let counted =
            counted.ok_or_else(|| exhausted(&format!("this connection sends {most} copies already")))?;
        Ok(Place { _counted: counted, _place: None })
    }

    /// Waits for a turn to read windows.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, when too many wait.
    pub(crate) async fn request(&self) -> Result<Turn<'_>, Status> {
        let request = self.requests.try_acquire();
        let request =
            request.map_err(|_| exhausted(&format!("{MOST_REQUESTS} requests for windows are under way")))?;
        let read = self.reads.acquire().await.expect("it is never closed");
        Ok(Turn { _request: request, _read: read })
    }
}

fn exhausted(why: &str) -> Status {
    Status::resource_exhausted(format!("{why}; try again later"))
}

/// When the next session were to begin if each took its interval; a burst of them may begin before their time.
#[derive(Debug, Default)]
struct Pace {
    next: Duration,
}

impl Pace {
    /// Whether one more may begin `now`, a time since some beginning.
    fn allow(&mut self, now: Duration) -> bool {
        let burst = INTERVAL * BURST;
        let next = self.next.max(now);
        let allowed = next + INTERVAL <= now + burst;
        if allowed {
            self.next = next + INTERVAL;
        }
        allowed
    }
}

/// How many of something each connection has. No two open connections come from the same address and port.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<SocketAddr, usize>>);

#[derive(Debug)]
struct Counted {
    tally: Arc<Tally>,
    address: SocketAddr,
}

impl Tally {
    fn add(tally: &Arc<Self>, address: SocketAddr, most: usize) -> Option<Counted> {
        let mut counts = tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(&address).is_some_and(|count| *count >= most) {
            return None;
        }
        *counts.entry(address).or_default() += 1;
        Some(Counted { tally: tally.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.tally.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get_mut(&self.address).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_begin_and_then_one_an_interval() {
        let mut pace = Pace::default();
        let began = Duration::from_secs(5);
        let count = |pace: &mut Pace, now| (0..3000).filter(|_| pace.allow(now)).count();
        assert_eq!(count(&mut pace, began), BURST as usize);
        assert_eq!(count(&mut pace, began + INTERVAL / 2), 0);
        assert_eq!(count(&mut pace, began + INTERVAL), 1);
        assert_eq!(count(&mut pace, began + INTERVAL * 11), 10);
        assert_eq!(count(&mut pace, began + INTERVAL * 1_000_000), BURST as usize, "no more is saved up");
    }

    #[test]
    fn what_a_connection_has_is_counted_for_it_alone_and_given_back() {
        let tally = Arc::new(Tally::default());
        let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let first = Tally::add(&tally, one, 2).unwrap();
        let second = Tally::add(&tally, one, 2).unwrap();
        assert!(Tally::add(&tally, one, 2).is_none());
        assert!(Tally::add(&tally, other, 2).is_some());
        drop(first);
        assert!(Tally::add(&tally, one, 2).is_some());
        drop(second);
        assert!(tally.0.lock().unwrap().is_empty(), "nothing is kept of who has gone");
    }

    #[tokio::test]
    async fn requests_wait_for_their_turn_and_too_many_are_refused() {
        let admission = Admission::new();
        let mut turns = Vec::new();
        for _ in 0..MOST_READS {
            turns.push(admission.request().await.unwrap());
        }
        let waiting = tokio::time::timeout(Duration::from_millis(20), admission.request()).await;
        assert!(waiting.is_err(), "every turn is taken");
        turns.pop();
        turns.push(admission.request().await.unwrap());
        let all = admission.requests.try_acquire_many((MOST_REQUESTS - MOST_READS) as u32).unwrap();
        let refused = admission.request().await.err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().starts_with("4096 requests for windows"), "{refused}");
        drop(all);
        turns.pop();
        assert!(admission.request().await.is_ok());
    }
}
