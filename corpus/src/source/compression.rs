//! gzip and zstd, as streams. Which one, the first bytes of a file say: neither begins like UTF-8.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use super::input::Input;
use super::zstd::Zstd;
use crate::CorpusError;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// Ends of names that promise a compression.
pub(super) const SUFFIXES: [(&str, Compression); 4] = [
    (".gz", Compression::Gzip),
    (".gzip", Compression::Gzip),
    (".zst", Compression::Zstd),
    (".zstd", Compression::Zstd),
];

const BUFFER: usize = 128 << 10;

/// A compressed stream that does not decompress. Travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damage(pub String);

/// The bytes of `input`, decompressed where they are compressed.
///
/// # Errors
/// Those of opening it; [`CorpusError::Damaged`] for a name that promises what the first bytes do not hold.
pub(super) fn unpacked(input: &Input) -> Result<Box<dyn Read + Send>, CorpusError> {
    let mut bytes = input.bytes()?;
    let mut start = Vec::new();
    let read = bytes.by_ref().take(4).read_to_end(&mut start);
    read.map_err(|source| input.unreadable(source))?;
    let found = of(&start);
    let path = input.path().to_string_lossy().to_ascii_lowercase();
    let promised = SUFFIXES.iter().find(|(suffix, _)| path.ends_with(suffix));
    if let (None, Some((suffix, _))) = (found, promised) {
        return Err(
            input.damaged(format!("the name ends with {suffix}, the content does not begin like that"))
        );
    }
    let whole = Cursor::new(start).chain(bytes);
    let buffered = BufReader::with_capacity(BUFFER, whole);
    Ok(match found {
        None => Box::new(buffered),
        Some(Compression::Gzip) => Box::new(Gzip(MultiGzDecoder::new(buffered))),
        Some(Compression::Zstd) => Box::new(Zstd::new(buffered)),
    })
}

fn of(start: &[u8]) -> Option<Compression> {
    match start {
        [0x1f, 0x8b, ..] => Some(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd] => Some(Compression::Zstd),
        // A frame to be skipped, as pzstd writes first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Some(Compression::Zstd),
        _ => None,
    }
}

/// Every member of a gzip file, with errors that say what it is.
struct Gzip<R>(MultiGzDecoder<R>);

impl<R: io::BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other(Damage("the gzip stream is cut off".into())),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                io::Error::other(Damage(format!("the gzip stream is damaged: {error}")))
            }
            _ => error,
        })
    }
}
