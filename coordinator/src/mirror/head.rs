//! The head: the one object of a run in a bucket that is ever replaced, always under a condition. It is the lease (who owns
//! the run) and the table of what is whole (checkpoints, files) at once; so who lost the lease can publish nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The head's key.
pub(crate) const HEAD: &str = "run.json";
/// A head lists names and hashes; it is never larger.
pub(crate) const MAX_HEAD_BYTES: u64 = 16 << 20;
/// The version of the layout.
pub(crate) const FORMAT: u32 = 1;

/// `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// Grows whenever somebody takes the lease; part of the names of what he writes.
    pub turn: u64,
    /// Grows with every write of the owner.
    pub beat: u64,
    /// Who owns the run; none: nobody.
    pub holder: Option<Holder>,
    /// The run's files, by their names in its folder, each in parts.
    pub files: BTreeMap<String, Vec<Part>>,
    /// The whole checkpoints, by ascending step.
    pub checkpoints: Vec<Entry>,
}

/// The owner of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its machine.
    pub host: String,
    /// Its process there.
    pub process: u32,
    /// When it took the run, by its own clock: seconds since 1970. For people; nothing is decided by it.
    pub since: u64,
    /// Tells it from everybody else.
    pub nonce: String,
    /// It may be taken for dead when it has written nothing for so long.
    pub promise_seconds: u64,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub key: String,
    pub bytes: u64,
    /// Hexadecimal.
    pub blake3: String,
}

/// A checkpoint that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub step: u64,
    /// The folder of its objects.
    pub folder: String,
    /// The state's digest.
    pub digest: String,
    /// Bits of the validation loss (f64), where one was made.
    pub valid_loss_bits: Option<u64>,
    /// The hash of its manifest.
    pub manifest_blake3: String,
}

impl Head {
    /// That of a run that nobody has begun.
    pub(crate) fn new() -> Self {
        let (files, checkpoints) = (BTreeMap::new(), Vec::new());
        Self { format: FORMAT, turn: 0, beat: 0, holder: None, files, checkpoints }
    }

    /// Whether there is a run: its configuration is up.
    pub(crate) fn has_run(&self) -> bool {
        self.files.contains_key("config.toml")
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a head of names and numbers can be written as JSON")
    }
}
