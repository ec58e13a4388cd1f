//! Digests: BLAKE3 over the canonical bytes of a state. Two parties that hold the same bits print the same line.
//!
//! Replica digest: for each section in order (the parameters, then each optimizer state) its name, its number of floats
//! and its little-endian bytes. State digest: a fixed label, the step, the schedule's state, the replica digest, and the
//! digest of the carries of every stream. Nothing else (no time, no term, no worker) is in them.

use std::fmt;

use crate::Step;

/// A BLAKE3 hash, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Bytes that are not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a digest has 32 bytes (64 hexadecimal digits), found {found}")]
pub struct NotADigest {
    /// What was found instead.
    pub found: String,
}

impl Digest {
    /// The digest's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of plain bytes, as for a file.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<Self, NotADigest> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| NotADigest { found: format!("{text:?}") })?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// The digest of bytes that come in parts.
#[derive(Debug, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Of no bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = NotADigest;

    fn try_from(bytes: &[u8]) -> Result<Self, NotADigest> {
        let bytes = bytes.try_into().map_err(|_| NotADigest { found: format!("{} bytes", bytes.len()) })?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The digest of a replica: its flat parameters and optimizer states, each under its name, in order.
#[must_use]
pub fn replica_digest<'a>(sections: impl IntoIterator<Item = (&'a str, &'a [f32])>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"carousel replica 1\n");
    for (name, floats) in sections {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&(floats.len() as u64).to_le_bytes());
        hasher.update(bytemuck::cast_slice(floats));
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The digest of the whole state after a step: what a checkpoint holds and what two equal runs share.
#[must_use]
pub fn state_digest(step: Step, schedule: &[u8], replica: &Digest, carries: &[f32]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"carousel state 1\n");
    hasher.update(&step.0.to_le_bytes());
    hasher.update(&(schedule.len() as u64).to_le_bytes());
    hasher.update(schedule);
    hasher.update(replica.as_bytes());
    hasher.update(bytemuck::cast_slice(carries));
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trip() {
        let digest = Digest::of_bytes(b"carousel");
        assert_eq!(Digest::from_hex(&digest.to_string()), Ok(digest));
        assert_eq!(Digest::from_hex("12").unwrap_err().found, "\"12\"");
        assert!(Digest::try_from(&[0u8; 31][..]).is_err());
    }

    #[test]
    fn every_part_of_the_state_counts() {
        let replica = replica_digest([("parameters", &[1.0f32, 2.0][..])]);
        let base = state_digest(Step(3), b"s", &replica, &[0.5]);
        assert_ne!(base, state_digest(Step(4), b"s", &replica, &[0.5]));
        assert_ne!(base, state_digest(Step(3), b"t", &replica, &[0.5]));
        assert_ne!(base, state_digest(Step(3), b"s", &replica, &[-0.5]));
        let other = replica_digest([("parameters", &[1.0f32, -2.0][..])]);
        assert_ne!(base, state_digest(Step(3), b"s", &other, &[0.5]));
        assert_ne!(
            replica_digest([("a", &[1.0f32][..]), ("b", &[][..])]),
            replica_digest([("a", &[][..]), ("b", &[1.0][..])])
        );
    }
}
