//! The lease on a run: claimed, renewed, changed and released, each by one conditional put of the head. No two clocks are
//! compared: a holder is judged by whether the head changes while one watches. No threads here.

use std::time::Duration;

use super::error::MirrorError;
use super::head::{FORMAT, HEAD, Head, Holder, MAX_HEAD_BYTES};
use super::store::{Store, StoreError};

/// Between two looks at somebody else's lease.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A put that is answered with "changed" although the head is still ours is tried so often.
const TRIES: u32 = 4;

/// A lease that is held, as far as its holder knows.
#[derive(Debug)]
pub(crate) struct Lease {
    pub head: Head,
    tag: String,
}

/// Reads the head and its tag.
pub(crate) fn read(store: &dyn Store) -> Result<Option<(Head, String)>, MirrorError> {
    let Some((bytes, tag)) = store.get(HEAD, MAX_HEAD_BYTES).map_err(|source| wrong(store, source))? else {
        return Ok(None);
    };
    let damaged = |found: String| MirrorError::Damaged {
        address: store.address().into(),
        key: HEAD.into(),
        found,
        expected: format!("the head of a run, format {FORMAT}"),
    };
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if head.format != FORMAT {
        return Err(damaged(format!("format {}", head.format)));
    }
    Ok(Some((head, tag)))
}

/// Takes the lease: at once when it is free, else when the holder has changed nothing for as long as it promised.
/// `wait` sleeps for at least as long as it is told.
pub(crate) fn claim(
    store: &dyn Store,
    holder: Holder,
    wait: &mut dyn FnMut(Duration),
) -> Result<Lease, MirrorError> {
    let found = read(store)?;
    if let Some((Head { holder: Some(other), .. }, tag)) = &found {
        watch(store, other, tag, wait)?;
    }
    let tag = found.as_ref().map(|(_, tag)| tag.clone());
    let mut head = found.map_or_else(Head::new, |(head, _)| head);
    head.turn += 1;
    head.beat += 1;
    head.holder = Some(holder);
    match store.put_if(HEAD, &head.to_bytes(), tag.as_deref()) {
        Ok(tag) => Ok(Lease { head, tag }),
        Err(StoreError::Conflict) => match read(store)? {
            // The answer to our own put was lost, and it was sent again.
            Some((now, tag)) if now == head => Ok(Lease { head, tag }),
            now => Err(overtaken(store, now.map(|(head, _)| head))),
        },
        Err(source) => Err(wrong(store, source)),
    }
}

/// Comes back when the holder has been silent for as long as it promised.
fn watch(
    store: &dyn Store,
    holder: &Holder,
    tag: &str,
    wait: &mut dyn FnMut(Duration),
) -> Result<(), MirrorError> {
    let promise = Duration::from_secs(holder.promise_seconds);
    let mut watched = Duration::ZERO;
    while watched < promise {
        wait(LOOK_EVERY);
        watched += LOOK_EVERY;
        match read(store)? {
            Some((_, now)) if now == tag => {}
            now => return Err(overtaken(store, now.map(|(head, _)| head))),
        }
    }
    Ok(())
}

fn overtaken(store: &dyn Store, now: Option<Head>) -> MirrorError {
    let address = store.address().to_owned();
    match now.and_then(|head| head.holder) {
        Some(holder) => MirrorError::Held { address, holder: holder.into() },
        None => MirrorError::Lost { address, by: "nobody: the run was just released; try again".into() },
    }
}

impl Lease {
    /// Changes the head, if it is still ours. What `change` does counts only when this succeeds.
    pub(crate) fn update(
        &mut self,
        store: &dyn Store,
        change: impl FnOnce(&mut Head),
    ) -> Result<(), MirrorError> {
        let mut next = self.head.clone();
        change(&mut next);
        next.beat += 1;
        let bytes = next.to_bytes();
        for _ in 0..TRIES {
            match store.put_if(HEAD, &bytes, Some(&self.tag)) {
                Ok(tag) => {
                    (self.head, self.tag) = (next, tag);
                    return Ok(());
                }
                Err(StoreError::Conflict) => {}
                Err(source) => return Err(wrong(store, source)),
            }
            let now = self.still_ours(store)?;
            self.tag = now.1;
            if now.0 == next {
                self.head = next;
                return Ok(());
            }
        }
        Err(wrong(store, StoreError::Failed("the head changes under every put".into())))
    }

    /// The head as it is, if its holder is this one. An earlier put of ours may have gone through unanswered.
    fn still_ours(&self, store: &dyn Store) -> Result<(Head, String), MirrorError> {
        let address = store.address().to_owned();
        let by = match read(store)? {
            Some((head, tag)) if self.owner() == owner_of(&head) => return Ok((head, tag)),
            Some((Head { holder: Some(other), .. }, _)) => {
                format!("process {} on {}", other.process, other.host)
            }
            Some(_) => "another coordinator, which has ended".into(),
            None => "somebody who removed it".into(),
        };
        Err(MirrorError::Lost { address, by })
    }

    fn owner(&self) -> (u64, Option<&str>) {
        owner_of(&self.head)
    }
}

fn owner_of(head: &Head) -> (u64, Option<&str>) {
    (head.turn, head.holder.as_ref().map(|holder| holder.nonce.as_str()))
}

pub(crate) fn wrong(store: &dyn Store, source: StoreError) -> MirrorError {
    MirrorError::Store { address: store.address().into(), source }
}
