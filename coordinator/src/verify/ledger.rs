//! The journal as a ledger: terms grow, steps follow each other, a step that was made again came out the same, and each
//! window of each stream was committed once in each epoch. Pure: entries in, flaws out.

use std::collections::BTreeMap;

use super::Flaw;
use crate::checkpoint::StateFile;
use crate::journal::{Entry, Record};

/// What an epoch is made of, as the run's checkpoints say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Rows of the batch: every step reads one window of each.
    pub streams: u64,
    /// Steps; 0 where epochs differ.
    pub windows: u64,
    /// Targets, over all streams.
    pub tokens: u64,
}

impl Epoch {
    pub(super) fn of(state: &StateFile) -> Self {
        Self { streams: state.streams, windows: state.windows_per_epoch, tokens: state.tokens_per_epoch }
    }
}

/// The record that counts of each step.
pub(super) type Ledger = BTreeMap<u64, Record>;

/// Reads the entries in order.
pub(super) fn read(entries: &[Entry], flaws: &mut Vec<Flaw>) -> Ledger {
    let mut ledger = Ledger::new();
    let (mut term, mut last) = (0, None::<&Record>);
    for entry in entries {
        match entry {
            Entry::Term { term: found } => {
                if *found <= term {
                    flaws.push(Flaw::Term { before: term, found: *found });
                }
                term = *found;
            }
            Entry::Commit(record) => {
                check(record, term, last, flaws);
                last = Some(record);
                let before = ledger.insert(record.step, record.clone());
                if before.is_some_and(|before| !before.same_content(record)) {
                    flaws.push(Flaw::Differs { step: record.step });
                }
            }
        }
    }
    flaws.extend(missing(&ledger));
    ledger
}

/// One record against the term that has begun and the record before it. A gap is no flaw here: it may have been filled
/// by going back.
fn check(record: &Record, term: u64, last: Option<&Record>, flaws: &mut Vec<Flaw>) {
    let (step, found) = (record.step, record.term);
    if found != term {
        flaws.push(Flaw::TermOfCommit { step, begun: term, found });
    }
    if let Some(last) = last.filter(|last| last.term == found && step <= last.step) {
        flaws.push(Flaw::Repeated { before: last.step, found: step });
    }
}

fn missing(ledger: &Ledger) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut expected = 1;
    for step in ledger.keys() {
        if *step > expected {
            flaws.push(Flaw::Missing { first: expected, last: step - 1 });
        }
        expected = step + 1;
    }
    flaws
}

/// Holds what was committed against what an epoch is made of. Step n reads one window of every stream; that it read all
/// of it is seen from its targets, which are the same in every epoch and add up to those of the text.
pub(super) fn check_epochs(ledger: &Ledger, epoch: Epoch, flaws: &mut Vec<Flaw>) {
    let Some(windows) = std::num::NonZero::new(epoch.windows) else {
        return check_uneven_epochs(ledger, epoch.tokens, flaws);
    };
    let mut first_tokens = BTreeMap::new();
    let mut sums: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (step, record) in ledger {
        let (of, window) = ((step.max(&1) - 1) / windows, (step.max(&1) - 1) % windows);
        let expected = *first_tokens.entry(window).or_insert(record.tokens);
        if record.tokens != expected {
            flaws.push(Flaw::Window { step: *step, window, found: record.tokens, expected });
        }
        let (seen, tokens) = sums.entry(of).or_default();
        (*seen, *tokens) = (*seen + 1, *tokens + record.tokens);
    }
    for (of, (seen, found)) in sums {
        if seen == windows.get() && found != epoch.tokens {
            flaws.push(Flaw::Epoch { epoch: of + 1, found, expected: epoch.tokens });
        }
    }
}

/// Windows of random lengths: an epoch ends where its targets are those of the text, and no step lies across that.
fn check_uneven_epochs(ledger: &Ledger, expected: u64, flaws: &mut Vec<Flaw>) {
    let (mut epoch, mut found) = (1, 0);
    for record in ledger.values() {
        found += record.tokens;
        if found > expected {
            return flaws.push(Flaw::Epoch { epoch, found, expected });
        }
        if found == expected {
            (epoch, found) = (epoch + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(step: u64, term: u64) -> Entry {
        let record = Record {
            term,
            step,
            tokens: 7,
            loss_sum: 1.0,
            grad_norm: 1.0,
            clip_scale: 1.0,
            learning_rate: 0.1,
        };
        Entry::Commit(record)
    }

    fn term(term: u64) -> Entry {
        Entry::Term { term }
    }

    fn flaws(entries: &[Entry]) -> Vec<String> {
        let mut flaws = Vec::new();
        read(entries, &mut flaws);
        flaws.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn steps_follow_each_other_within_terms_that_grow() {
        assert_eq!(flaws(&[term(1), commit(1, 1), commit(2, 1), term(2), term(4), commit(3, 4)]), [""; 0]);
        assert_eq!(flaws(&[term(1), commit(2, 1)]), ["journal: steps 1 to 1 were never committed"]);
        assert_eq!(
            flaws(&[term(1), commit(1, 1), commit(5, 1)]),
            ["journal: steps 2 to 4 were never committed"]
        );
        assert_eq!(flaws(&[term(3), commit(1, 3), term(3)]), ["journal: term 3 begins after term 3"]);
        assert_eq!(
            flaws(&[term(3), commit(1, 2)]),
            ["journal: step 1 was committed in term 2, the term that had begun is 3"]
        );
    }

    #[test]
    fn a_step_is_made_again_only_in_a_new_term_and_comes_out_the_same() {
        let again = [term(1), commit(1, 1), commit(2, 1), term(2), commit(1, 2), commit(2, 2), commit(3, 2)];
        assert_eq!(flaws(&again), [""; 0]);
        assert_eq!(
            flaws(&[term(1), commit(1, 1), commit(1, 1)]),
            ["journal: step 1 follows step 1 in one term"]
        );
        let Entry::Commit(mut other) = commit(1, 2) else { unreachable!() };
        other.grad_norm = 1.5;
        assert_eq!(
            flaws(&[term(1), commit(1, 1), term(2), Entry::Commit(other)]),
            ["journal: step 1 was made again and came out differently"]
        );
    }

    #[test]
    fn a_gap_that_was_filled_by_going_back_is_none() {
        let filled = [term(1), commit(1, 1), commit(3, 1), term(2), commit(2, 2), commit(3, 2)];
        assert_eq!(flaws(&filled), [""; 0]);
    }

    #[test]
    fn every_window_of_every_stream_is_read_once_in_each_epoch() {
        let epoch = Epoch { streams: 3, windows: 2, tokens: 10 };
        let check = |tokens: &[u64]| {
            let record = |(step, tokens): (u64, &u64)| {
                let Entry::Commit(record) = commit(step, 1) else { unreachable!() };
                (step, Record { tokens: *tokens, ..record })
            };
            let mut flaws = Vec::new();
            check_epochs(&(1..).zip(tokens).map(record).collect(), epoch, &mut flaws);
            flaws.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check(&[7, 3, 7, 3, 7]), [""; 0]);
        assert_eq!(
            check(&[7, 3, 6, 3]),
            [
                "journal: step 3 read 6 targets in window 0, which has 7",
                "journal: epoch 2 read 9 targets, it has 10"
            ]
        );
        assert_eq!(
            check(&[7, 2]),
            ["journal: epoch 1 read 9 targets, it has 10"],
            "nothing to compare with yet"
        );
        assert_eq!(check(&[7]), [""; 0], "an epoch that is under way");
    }

    #[test]
    fn uneven_epochs_each_read_the_whole_text() {
        let epoch = Epoch { streams: 3, windows: 0, tokens: 10 };
        let check = |tokens: &[u64]| {
            let record = |(step, tokens): (u64, &u64)| {
                let Entry::Commit(record) = commit(step, 1) else { unreachable!() };
                (step, Record { tokens: *tokens, ..record })
            };
            let mut flaws = Vec::new();
            check_epochs(&(1..).zip(tokens).map(record).collect(), epoch, &mut flaws);
            flaws.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(check(&[7, 3, 4, 4, 2, 9]), [""; 0]);
        assert_eq!(check(&[7, 3, 4, 4, 3]), ["journal: epoch 2 read 11 targets, it has 10"]);
    }
}
