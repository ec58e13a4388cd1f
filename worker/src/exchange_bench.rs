//! One of the processes of an all-reduce that measures the exchange: the state machine, the streams and the thread that
//! training has, with numbers made up in the place of a gradient.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carousel_proto::gradient::GradientLayout;
use carousel_proto::{LaneTree, Step, Term, WorkerId};
use carousel_security::Door;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::exchange::{Exchange, Outgoing, Peer};
use crate::peers::{self, Peers};
use crate::session::{Mail, WAITING_MESSAGES};

/// How long a process waits for the others before it gives up: nobody is left behind when one fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeBenchError {
    /// The machine gives no socket or no thread.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A peer broke the exchange.
    #[error("the exchange failed: {0}")]
    Exchange(String),
    /// The sum that came out is another one.
    #[error("float {at} of the sum is {found}, expected {expected}")]
    Wrong {
        /// Which float.
        at: usize,
        /// As came out.
        found: f32,
        /// The sum in the order of the processes.
        expected: f32,
    },
}

/// A process of the all-reduce.
pub struct ExchangeMember {
    /// Carries the streams as long as it lives.
    runtime: Runtime,
    address: SocketAddr,
    place: u32,
    floats: usize,
    all: Vec<Peer>,
    exchange: Option<Exchange>,
    peers: Peers,
    messages: mpsc::Receiver<Mail>,
    own: Arc<Vec<f32>>,
    step: u64,
}

impl ExchangeMember {
    /// The process in this place, for a gradient of so many floats; it listens on the loopback interface.
    ///
    /// # Errors
    /// When the machine gives no socket or no thread.
    pub fn new(place: u32, floats: usize) -> Result<Self, ExchangeBenchError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let (mail, messages) = mpsc::channel(WAITING_MESSAGES);
        let most_bytes = peers::MostBytes::default();
        most_bytes.get_or_init(|| 4 * floats as u64);
        peers::serve(runtime.handle(), listener, mail, (Door::Open, most_bytes))?;
        let peers = Peers::new(WorkerId(place.into()), runtime.handle().clone(), Door::Open);
        let own = Arc::new((0..floats).map(|at| value(place, at)).collect());
        Ok(Self {
            runtime,
            address,
            place,
            floats,
            all: Vec::new(),
            exchange: None,
            peers,
            messages,
            own,
            step: 0,
        })
    }

    /// Where the others reach this process.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names all processes, in the order of their places.
    pub fn join<'a>(&mut self, addresses: impl Iterator<Item = &'a str>) {
        let peer = |(place, address): (u32, &str)| Peer {
            worker: WorkerId(place.into()),
            address: address.into(),
            lanes: place..place + 1,
        };
        self.all = (0..).zip(addresses).map(peer).collect();
        let layout = GradientLayout { dense: self.floats, width: 1, ..GradientLayout::default() };
        self.exchange = Some(Exchange::new(layout, self.all.len() as u32));
    }

    /// One round; gives the time until the whole sum is here. The first round's sum is checked, float by float.
    ///
    /// # Errors
    /// When a peer breaks the exchange, or the sum is wrong.
    ///
    /// # Panics
    /// Before [`Self::join`].
    pub fn all_reduce(&mut self) -> Result<Duration, ExchangeBenchError> {
        let mut exchange = self.exchange.take().expect("the other processes are known");
        self.step += 1;
        let at = (Term(1), Step(self.step));
        let lanes = LaneTree::new(self.all.len() as u32);
        let node = lanes.maximal_nodes(self.place..self.place + 1)[0];
        let failed = |error: &dyn std::fmt::Display| ExchangeBenchError::Exchange(error.to_string());
        let began = Instant::now();
        let own = WorkerId(self.place.into());
        let mut outgoing = exchange.begin(at, self.all.clone(), own).map_err(|e| failed(&e))?;
        outgoing.extend(exchange.contribute(node, 0, self.own.clone()));
        outgoing.extend(exchange.contribute_rows(node, &[], &[]));
        let sum = loop {
            if let Some(whole) = self.send(at, outgoing) {
                break whole;
            }
            let next = async { tokio::time::timeout(PATIENCE, self.messages.recv()).await };
            let Ok(Some(Mail::Peer { worker, at, content })) = self.runtime.block_on(next) else {
                return Err(failed(&format!("nothing came for {PATIENCE:?}")));
            };
            outgoing = exchange.receive(at, worker, content).map_err(|e| failed(&e))?;
        };
        let took = began.elapsed();
        if self.step == 1 {
            self.check(&sum)?;
        }
        exchange.recycle(sum);
        self.exchange = Some(exchange);
        Ok(took)
    }

    /// Sends what is to be sent; gives the whole sum when it is here.
    fn send(&mut self, at: (Term, Step), outgoing: Vec<Outgoing>) -> Option<Vec<f32>> {
        let mut whole = None;
        for out in outgoing {
            match out {
                Outgoing::Send { to, content } => self.peers.send(&to, at, &content),
                Outgoing::Report { .. } => {}
                Outgoing::Whole(gradient) => whole = Some(gradient.floats),
            }
        }
        whole
    }

    fn check(&self, sum: &[f32]) -> Result<(), ExchangeBenchError> {
        // Values are small whole numbers: their sum is exact in any order.
        let places = self.all.len() as u32;
        for (at, &found) in sum.iter().enumerate() {
            let expected = (0..places).map(|place| value(place, at)).sum();
            if found != expected {
                return Err(ExchangeBenchError::Wrong { at, found, expected });
            }
        }
        Ok(())
    }

    /// Bytes this process has handed to its streams.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.peers.sent_bytes()
    }
}

fn value(place: u32, at: usize) -> f32 {
    ((at as u32 ^ place.wrapping_mul(0x9e37)) % 1021) as f32
}
