//! A run's name for itself: 16 bytes in the run's folder. A worker that comes back with a replica says of which run it is. It
//! never reaches the weights.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use carousel_proto::digest::Digest;

/// The id of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId([u8; 16]);

impl RunId {
    /// An id that no other run has: from what it is made of, when and by whom.
    pub(crate) fn new(config_toml: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let made = format!("{config_toml}\n{}\n{}", now.as_nanos(), std::process::id());
        Self(*Digest::of_bytes(made.as_bytes()).as_bytes().first_chunk().expect("a digest has 32 bytes"))
    }

    /// Reads the id of a run that was made before.
    ///
    /// # Errors
    /// When the file cannot be read or is no id.
    pub(crate) fn read(path: &Path) -> std::io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let digits = text.trim_end();
        let bytes =
            (0..16).map(|i| digits.get(2 * i..2 * i + 2).and_then(|d| u8::from_str_radix(d, 16).ok()));
        let bytes: Option<Vec<u8>> = bytes.collect();
        let id = bytes.filter(|_| digits.len() == 32).and_then(|bytes| bytes.try_into().ok());
        let wrong = || std::io::Error::other(format!("expected 32 hexadecimal digits, found {digits:.40?}"));
        id.map(Self).ok_or_else(wrong)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As [`RunId::read`] reads it.
    pub(crate) fn to_text(self) -> String {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        digits + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        let id = RunId::new("seed = 1");
        fs::write(&path, id.to_text()).unwrap();
        assert_eq!(RunId::read(&path).unwrap(), id);
        for wrong in ["", "abc", "zz112233445566778899aabbccddeeff", "00112233445566778899aabbccddeeff00"] {
            fs::write(&path, wrong).unwrap();
            assert!(RunId::read(&path).unwrap_err().to_string().contains("32 hexadecimal digits"), "{wrong}");
        }
    }
}
