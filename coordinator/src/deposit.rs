//! A copy of a replica on its way in, beside the session of the worker that sends it. Bytes from the network: every
//! section must have the run's size before memory is taken for it, and the whole its digest. Whether the copy is wanted is
//! the protocol's question.

use std::sync::Arc;

use carousel_proto::bulk::{Assembler, BulkError};
use carousel_proto::digest::{Digest, NotADigest};
use carousel_proto::v1::{Bulk, BulkStart, DepositHello, FromDepositor, from_depositor::Message};
use carousel_proto::{PROTOCOL_VERSION, Step, WorkerId};

use crate::replica::{ReplicaLayout, Sections, digest_of};

/// A whole replica.
#[derive(Debug)]
pub(crate) struct Deposit {
    pub worker: WorkerId,
    pub step: Step,
    pub sections: Sections,
    pub digest: Digest,
}

/// Why a deposit was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum DepositError {
    #[error("expected DepositHello of protocol {PROTOCOL_VERSION} as the first message")]
    Hello,
    #[error("expected section {expected} of the replica, or its end after the last; found {found}")]
    Order { expected: usize, found: String },
    #[error(transparent)]
    Bulk(#[from] BulkError),
    #[error(transparent)]
    Digest(#[from] NotADigest),
    #[error("a replica of {0} was announced, the end is of {1}")]
    Step(Step, Step),
    #[error("the replica arrived with digest {found}, its worker said {said}")]
    Differs { found: Digest, said: Digest },
}

/// Puts one deposit together.
#[derive(Debug)]
pub(crate) struct Depositor {
    pub worker: WorkerId,
    step: Step,
    assembler: Assembler,
    sections: Sections,
}

impl Depositor {
    pub(crate) fn new(first: Option<FromDepositor>) -> Result<Self, DepositError> {
        match first.and_then(|m| m.message) {
            Some(Message::Hello(DepositHello { protocol: PROTOCOL_VERSION, worker_id, step })) => Ok(Self {
                worker: WorkerId(worker_id),
                step: Step(step),
                assembler: Assembler::default(),
                sections: Vec::new(),
            }),
            _ => Err(DepositError::Hello),
        }
    }

    /// Takes a message in; with the last one the digest that the replica must have.
    pub(crate) fn accept(
        &mut self,
        message: FromDepositor,
        layout: &ReplicaLayout,
    ) -> Result<Option<Digest>, DepositError> {
        let whole = match message.message {
            Some(Message::BulkStart(start)) => {
                self.is_next(&start, layout)?;
                self.assembler.start(start, layout.parameter_floats())?
            }
            Some(Message::BulkChunk(chunk)) => self.assembler.chunk(&chunk)?,
            Some(Message::Sent(sent)) if self.sections.len() == layout.sections().count() => {
                if Step(sent.step) != self.step {
                    return Err(DepositError::Step(self.step, Step(sent.step)));
                }
                return Ok(Some(Digest::try_from(&sent.replica_digest[..])?));
            }
            _ => return Err(self.out_of_order("another message".into())),
        };
        self.sections.extend(whole.map(|(_, floats)| Arc::new(floats)));
        Ok(None)
    }

    fn is_next(&self, start: &BulkStart, layout: &ReplicaLayout) -> Result<(), DepositError> {
        let expected = self.sections.len();
        let fits = start.kind() == Bulk::Replica
            && start.index as usize == expected
            && expected < layout.sections().count()
            && start.step == self.step.0;
        let found = || format!("section {} of kind {} at step {}", start.index, start.kind, start.step);
        if fits { Ok(()) } else { Err(self.out_of_order(found())) }
    }

    fn out_of_order(&self, found: String) -> DepositError {
        DepositError::Order { expected: self.sections.len(), found }
    }

    /// The replica, when its digest is what its worker said. Takes a while: not on a reactor's thread.
    pub(crate) fn finish(self, said: Digest, layout: &ReplicaLayout) -> Result<Deposit, DepositError> {
        let found = digest_of(layout, &self.sections);
        if found != said {
            return Err(DepositError::Differs { found, said });
        }
        let Self { worker, step, sections, .. } = self;
        Ok(Deposit { worker, step, sections, digest: said })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::TensorShape;
    use carousel_proto::v1::{BulkChunk, ReplicaSent};

    fn layout() -> ReplicaLayout {
        let parameters = vec![TensorShape { name: "w".into(), shape: vec![3] }];
        ReplicaLayout { parameters, optimizer_state: vec!["m".into()], ..ReplicaLayout::default() }
    }

    fn message(message: Message) -> FromDepositor {
        FromDepositor { message: Some(message) }
    }

    fn begun() -> Depositor {
        let hello = DepositHello { protocol: PROTOCOL_VERSION, worker_id: 4, step: 9 };
        Depositor::new(Some(message(Message::Hello(hello)))).unwrap()
    }

    fn section(index: u32, floats: u64) -> FromDepositor {
        let kind = Bulk::Replica.into();
        message(Message::BulkStart(BulkStart {
            kind,
            step: 9,
            index,
            bytes: 4 * floats,
            ..BulkStart::default()
        }))
    }

    fn chunk(floats: &[f32]) -> FromDepositor {
        let data = floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>().into();
        message(Message::BulkChunk(BulkChunk { data }))
    }

    fn sent(step: u64, digest: Digest) -> FromDepositor {
        let replica_digest = digest.as_bytes().to_vec().into();
        message(Message::Sent(ReplicaSent { step, replica_digest }))
    }

    fn whole() -> Depositor {
        let mut depositor = begun();
        for (index, floats) in [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].iter().enumerate() {
            assert_eq!(depositor.accept(section(index as u32, 3), &layout()), Ok(None));
            assert_eq!(depositor.accept(chunk(floats), &layout()), Ok(None));
        }
        depositor
    }

    #[test]
    fn a_whole_replica_with_its_digest_is_taken() {
        let sections: Sections = vec![vec![1.0, 2.0, 3.0].into(), vec![4.0, 5.0, 6.0].into()];
        let digest = digest_of(&layout(), &sections);
        let mut depositor = whole();
        assert_eq!(depositor.accept(sent(9, digest), &layout()), Ok(Some(digest)));
        let deposit = depositor.finish(digest, &layout()).unwrap();
        assert_eq!((deposit.worker, deposit.step, deposit.sections), (WorkerId(4), Step(9), sections));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let other = Digest::of_bytes(b"another");
        assert_eq!(Depositor::new(None).unwrap_err(), DepositError::Hello);
        assert_eq!(Depositor::new(Some(section(0, 3))).unwrap_err(), DepositError::Hello);
        let wrong = BulkError::WrongSize { announced: 4 << 40, expected: 12 };
        assert_eq!(begun().accept(section(0, 1 << 40), &layout()), Err(DepositError::Bulk(wrong)));
        for early in [section(1, 3), sent(9, other)] {
            let refused = begun().accept(early, &layout());
            assert!(matches!(refused, Err(DepositError::Order { expected: 0, .. })), "{refused:?}");
        }
        let refused = whole().accept(section(2, 3), &layout());
        assert!(matches!(refused, Err(DepositError::Order { expected: 2, .. })), "{refused:?}");
        assert_eq!(whole().accept(sent(8, other), &layout()), Err(DepositError::Step(Step(9), Step(8))));
        assert!(matches!(whole().finish(other, &layout()), Err(DepositError::Differs { .. })));
    }
}
