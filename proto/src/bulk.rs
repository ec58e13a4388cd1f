//! Bulk transfer: floats cut into chunks on the way out, without a copy, and put together again on the way in, never
//! beyond what was announced and allowed. It does not know what the floats mean.

use bytes::Bytes;

use crate::v1::{BulkChunk, BulkStart};

#[cfg(target_endian = "big")]
compile_error!("floats travel as the little-endian bytes they are in memory");

/// Bytes of data in one chunk; well under gRPC's customary limit of 4 MiB a message.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Why a bulk was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BulkError {
    /// A bulk began before the one under way was complete.
    #[error("a bulk began while {missing} bytes of the one before were missing")]
    Unfinished {
        /// Bytes still to come.
        missing: u64,
    },
    /// A chunk came outside of any bulk.
    #[error("a chunk of {bytes} bytes came outside of a bulk")]
    Stray {
        /// The chunk's size.
        bytes: usize,
    },
    /// The announced size is not the one this bulk must have.
    #[error("a bulk of {announced} bytes was announced where {expected} were expected")]
    WrongSize {
        /// As the sender said.
        announced: u64,
        /// As the receiver knows.
        expected: u64,
    },
    /// More bytes came than were announced, or a chunk that does not end on a float.
    #[error("a chunk of {bytes} bytes does not fit: {missing} bytes are missing, in floats of 4 bytes")]
    Misfit {
        /// The chunk's size.
        bytes: usize,
        /// Bytes still to come.
        missing: u64,
    },
}

struct Floats<T>(std::sync::Arc<T>);

impl<T: AsRef<[f32]>> AsRef<[u8]> for Floats<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self.0.as_ref().as_ref())
    }
}

/// A buffer's bytes, sharing its memory: it is free again when every slice of them is dropped.
pub fn bytes_of<T>(floats: std::sync::Arc<T>) -> Bytes
where
    T: AsRef<[f32]> + Send + Sync + 'static,
{
    Bytes::from_owner(Floats(floats))
}

/// Copies a buffer's bytes, as they came, to the floats they are.
///
/// # Panics
/// When the sizes differ.
pub fn copy_floats(bytes: &[u8], floats: &mut [f32]) {
    bytemuck::cast_slice_mut(floats).copy_from_slice(bytes);
}

/// The chunks of a buffer, sharing its memory.
pub fn chunks<T>(floats: std::sync::Arc<T>) -> impl Iterator<Item = BulkChunk>
where
    T: AsRef<[f32]> + Send + Sync + 'static,
{
    let bytes = bytes_of(floats);
    (0..bytes.len()).step_by(CHUNK_BYTES).map(move |start| {
        let end = (start + CHUNK_BYTES).min(bytes.len());
        BulkChunk { data: bytes.slice(start..end) }
    })
}

/// Puts the chunks of one bulk after the other together.
#[derive(Debug, Default)]
pub struct Assembler {
    under_way: Option<(BulkStart, Vec<f32>)>,
}

impl Assembler {
    /// Begins a bulk that must have `expected_floats`; memory is taken only now, after that check.
    /// A bulk of no floats is complete at once.
    ///
    /// # Errors
    /// When another bulk is under way or the announced size differs.
    pub fn start(
        &mut self,
        start: BulkStart,
        expected_floats: usize,
    ) -> Result<Option<(BulkStart, Vec<f32>)>, BulkError> {
        if let Some((before, floats)) = &self.under_way {
            return Err(BulkError::Unfinished { missing: before.bytes - 4 * floats.len() as u64 });
        }
        let expected = 4 * expected_floats as u64;
        if start.bytes != expected {
            return Err(BulkError::WrongSize { announced: start.bytes, expected });
        }
        if expected == 0 {
            return Ok(Some((start, Vec::new())));
        }
        self.under_way = Some((start, Vec::with_capacity(expected_floats)));
        Ok(None)
    }

    /// Adds a chunk; hands the bulk out when it is complete.
    ///
    /// # Errors
    /// When no bulk is under way or the chunk does not fit into it.
    pub fn chunk(&mut self, chunk: &BulkChunk) -> Result<Option<(BulkStart, Vec<f32>)>, BulkError> {
        let bytes = chunk.data.len();
        let Some((start, mut floats)) = self.under_way.take() else {
            return Err(BulkError::Stray { bytes });
        };
        let missing = start.bytes - 4 * floats.len() as u64;
        if bytes as u64 > missing || !bytes.is_multiple_of(4) || bytes == 0 {
            return Err(BulkError::Misfit { bytes, missing });
        }
        let whole_floats = chunk.data.chunks_exact(4);
        floats.extend(whole_floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        if bytes as u64 == missing {
            return Ok(Some((start, floats)));
        }
        self.under_way = Some((start, floats));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn start(bytes: u64) -> BulkStart {
        BulkStart { bytes, ..BulkStart::default() }
    }

    #[test]
    fn chunks_carry_little_endian_floats_without_a_gap() {
        let floats: Vec<f32> = (0..CHUNK_BYTES / 4 + 3).map(|i| i as f32).collect();
        let chunks: Vec<BulkChunk> = chunks(Arc::new(floats.clone())).collect();
        assert_eq!(chunks.iter().map(|c| c.data.len()).collect::<Vec<_>>(), [CHUNK_BYTES, 12]);
        assert_eq!(
            &chunks[0].data[4..8],
            &[0x00, 0x00, 0x80, 0x3f],
            "1.0 as IEEE 754 binary32, low byte first"
        );
        let mut assembler = Assembler::default();
        assert_eq!(assembler.start(start(4 * floats.len() as u64), floats.len()), Ok(None));
        assert_eq!(assembler.chunk(&chunks[0]), Ok(None));
        assert_eq!(assembler.chunk(&chunks[1]).unwrap().unwrap().1, floats);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut assembler = Assembler::default();
        let chunk = |n: usize| BulkChunk { data: vec![0; n].into() };
        assert_eq!(assembler.chunk(&chunk(4)), Err(BulkError::Stray { bytes: 4 }));
        assert_eq!(
            assembler.start(start(u64::MAX), 2),
            Err(BulkError::WrongSize { announced: u64::MAX, expected: 8 })
        );
        assert_eq!(assembler.start(start(8), 2), Ok(None));
        assert_eq!(assembler.start(start(8), 2), Err(BulkError::Unfinished { missing: 8 }));
        assert_eq!(assembler.chunk(&chunk(12)), Err(BulkError::Misfit { bytes: 12, missing: 8 }));
        assert_eq!(assembler.start(start(8), 2), Ok(None), "a refused bulk is dropped");
        assert_eq!(assembler.chunk(&chunk(3)), Err(BulkError::Misfit { bytes: 3, missing: 8 }));
        assert_eq!(assembler.start(start(0), 0).unwrap().unwrap().1, Vec::<f32>::new());
    }
}
