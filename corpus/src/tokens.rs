//! The tokens of a text, wherever they are: in memory or in a token file, in the order in which they are read.

use std::ops::Range;

use crate::{DocumentOrder, IGNORED, Span, StreamPlan, TokenFile, TokenFileError};

/// Tokens that can be read in any place.
#[derive(Debug, Clone)]
pub struct Tokens {
    store: Store,
    order: Option<DocumentOrder>,
}

#[derive(Debug, Clone)]
enum Store {
    Memory(Vec<u32>),
    File(TokenFile),
}

/// Tokens that are read at a time where all of them are: 1 MiB of them.
const CHUNK: usize = 1 << 18;

impl From<Vec<u32>> for Tokens {
    fn from(tokens: Vec<u32>) -> Self {
        Tokens { store: Store::Memory(tokens), order: None }
    }
}

impl From<TokenFile> for Tokens {
    fn from(file: TokenFile) -> Self {
        Tokens { store: Store::File(file), order: None }
    }
}

impl Tokens {
    /// The same tokens, with their documents in another order.
    ///
    /// # Panics
    /// When the documents are not all of the tokens.
    #[must_use]
    pub fn in_order(self, order: DocumentOrder) -> Self {
        assert_eq!(order.tokens(), self.len() as u64, "the documents are those of these tokens");
        Tokens { order: Some(order), ..self }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match &self.store {
            Store::Memory(tokens) => tokens.len(),
            Store::File(file) => file.tokens() as usize,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether reading may wait for a disk.
    pub fn are_on_disk(&self) -> bool {
        matches!(self.store, Store::File(_))
    }

    /// Puts the tokens of `range` in place of what `into` holds.
    ///
    /// # Errors
    /// When a token file cannot be read there, as when it was cut short after it was opened.
    ///
    /// # Panics
    /// When `range` goes beyond the text.
    pub fn read(&self, range: Range<usize>, into: &mut Vec<u32>) -> Result<(), TokenFileError> {
        into.clear();
        let range = range.start as u64..range.end as u64;
        match &self.order {
            None => self.append(range, into),
            Some(order) => order.stored(range).try_for_each(|part| self.append(part, into)),
        }
    }

    fn append(&self, stored: Range<u64>, into: &mut Vec<u32>) -> Result<(), TokenFileError> {
        match &self.store {
            Store::Memory(tokens) => {
                into.extend_from_slice(&tokens[stored.start as usize..stored.end as usize]);
                Ok(())
            }
            Store::File(file) => file.append(stored, into),
        }
    }

    /// All tokens in the order in which they are read, some at a time, as four bytes each, the lowest first.
    ///
    /// # Errors
    /// As for [`Tokens::read`].
    pub fn for_each_bytes(&self, mut take: impl FnMut(&[u8])) -> Result<(), TokenFileError> {
        let (mut tokens, mut bytes) = (Vec::new(), Vec::new());
        for start in (0..self.len()).step_by(CHUNK) {
            self.read(start..self.len().min(start + CHUNK), &mut tokens)?;
            bytes.clear();
            bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
            take(&bytes);
        }
        Ok(())
    }

    /// BLAKE3 of all stored tokens, each as four bytes, the lowest first, in the order in which they are stored; of a token
    /// file, what it says and what was found when it was opened.
    pub fn stored_hash(&self) -> [u8; 32] {
        match &self.store {
            Store::File(file) => *file.hash().as_bytes(),
            Store::Memory(tokens) => {
                let mut hasher = blake3::Hasher::new();
                for tokens in tokens.chunks(CHUNK) {
                    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
                    hasher.update(&bytes);
                }
                *hasher.finalize().as_bytes()
            }
        }
    }
}

impl Tokens {
    /// BLAKE3 of the order of the documents; none where they are read as they are stored.
    pub fn order_hash(&self) -> Option<[u8; 32]> {
        self.order.as_ref().map(DocumentOrder::hash)
    }
}

impl StreamPlan {
    /// As [`StreamPlan::fill_span`], from wherever the tokens are.
    ///
    /// # Errors
    /// As for [`Tokens::read`].
    pub fn fill_from(
        &self,
        tokens: &Tokens,
        span: Span,
        lane: usize,
        inputs: &mut Vec<u32>,
        targets: &mut Vec<u32>,
    ) -> Result<(), TokenFileError> {
        if let (Store::Memory(tokens), None) = (&tokens.store, &tokens.order) {
            self.fill_span(tokens, span, lane, inputs, targets);
            return Ok(());
        }
        assert_eq!(tokens.len(), self.tokens(), "the tokens are not those the plan was made for");
        assert!(span.start + u64::from(span.steps) <= self.time_steps(), "{span:?} of {}", self.time_steps());
        let (start, steps) = (span.start as usize, span.steps as usize);
        let width = self.lane_streams(lane).len();
        inputs.clear();
        targets.clear();
        inputs.resize(steps * width, 0);
        targets.resize(steps * width, IGNORED);
        let mut run = Vec::new();
        for (column, stream) in self.lane_streams(lane).enumerate() {
            let of_stream = self.stream_inputs(stream);
            let from = of_stream.start + start;
            let until = of_stream.end.min(from + steps);
            if from < until {
                tokens.read(from..until + 1, &mut run)?;
                for (t, pair) in run.windows(2).enumerate() {
                    inputs[t * width + column] = pair[0];
                    targets[t * width + column] = pair[1];
                }
            }
        }
        Ok(())
    }
}
