//! A worker's own gradient on its way into the exchange: each part goes out as soon as it is computed, while the
//! computation goes on, and its memory comes back once it has been sent.

use std::sync::Arc;

use carousel_model::{FinishedPart, LanguageModel};
use carousel_proto::{Node, Step, Term};

use crate::exchange::{Exchange, Outgoing};
use crate::failpoint::{FailPoint, reach};
use crate::peers::Peers;

#[derive(Debug, Default)]
pub(crate) struct Contribution {
    /// Runs of gradients that are being sent and added.
    lent: Vec<Arc<Vec<f32>>>,
    /// What the exchange wants of others than peers; it waits for the computation's end.
    outgoing: Vec<Outgoing>,
}

impl Contribution {
    /// Takes the memory back that nobody reads any more: the next gradient is computed into it. What is still being
    /// sent is left to its readers.
    pub(crate) fn take_back(&mut self, model: &mut LanguageModel) {
        self.lent.drain(..).filter_map(Arc::into_inner).for_each(|run| model.recycle_run(run));
    }

    /// Gives a finished part to the exchange: a run for each of the worker's nodes.
    pub(crate) fn give(
        &mut self,
        at: (Term, Step),
        nodes: &[Node],
        (exchange, peers): (&mut Exchange, &mut Peers),
        part: FinishedPart,
    ) {
        for (node, run) in nodes.iter().zip(part.groups) {
            let run = Arc::new(run);
            self.lent.push(run.clone());
            for out in exchange.contribute(*node, part.start, run) {
                match out {
                    Outgoing::Send { to, content } => peers.send(&to, at, &content),
                    other => self.outgoing.push(other),
                }
            }
        }
        reach(FailPoint::HALF_SENT, at.1);
    }

    /// What is left to be done after the last part.
    pub(crate) fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outgoing)
    }
}
