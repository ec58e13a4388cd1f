//! Zstandard frames, one after another, checked against their checksums.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::compression::Damage;

/// A reader of the content of every frame. A frame that wants a window of more than 128 MiB is refused.
pub(super) struct Zstd<R> {
    source: Watched<BufReader<R>>,
    decoder: FrameDecoder,
    within_frame: bool,
}

impl<R: Read> Zstd<R> {
    pub(super) fn new(source: BufReader<R>) -> Self {
        let source = Watched { inner: source, failure: None, ended: false };
        Zstd { source, decoder: FrameDecoder::new(), within_frame: false }
    }

    /// Goes to the next frame with content; whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.source.inner.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.within_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => self.skip(u64::from(length))?,
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
        if skipped == length { Ok(()) } else { Err(cut_off()) }
    }

    /// Compares what was decoded with the checksum, where the frame has one.
    fn end(&mut self) -> io::Result<()> {
        self.within_frame = false;
        match self.decoder.get_checksum_from_data() {
            Some(expected) if self.decoder.get_calculated_checksum() != Some(expected) => {
                Err(io::Error::other(Damage("the zstd stream is damaged: its checksum differs".into())))
            }
            _ => Ok(()),
        }
    }

    /// Why decoding failed: a failure to read comes first, then a stream that is too short.
    fn failure(&mut self, error: &FrameDecoderError) -> io::Error {
        match self.source.failure.take() {
            Some(failure) => failure,
            None if self.source.ended => cut_off(),
            None => io::Error::other(Damage(format!("the zstd stream is damaged: {error}"))),
        }
    }
}

fn cut_off() -> io::Error {
    io::Error::other(Damage("the zstd stream is cut off".into()))
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within_frame && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let decoded =
                    self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                decoded.map_err(|error| self.failure(&error))?;
            }
            if self.decoder.can_collect() > 0 || buffer.is_empty() {
                return self.decoder.read(buffer);
            }
            self.end()?;
        }
    }
}

/// A reader that remembers how it failed: the decoder keeps only the text of it.
struct Watched<R> {
    inner: R,
    failure: Option<io::Error>,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        match read {
            Ok(read) => {
                self.ended |= read == 0 && !buffer.is_empty();
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let placeholder = io::Error::from(error.kind());
                self.failure = Some(error);
                Err(placeholder)
            }
        }
    }
}
