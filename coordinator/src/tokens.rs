//! The token service: hands out windows of the splits. It is read-only and shared by every session.

use carousel_corpus::{PlanError, Span, StreamPlan, TokenFileError, Tokens};
use carousel_proto::digest::{Digest, Hasher};
use carousel_proto::v1::{self, Split, WindowReply, WindowRequest};

/// No window of random length is so many times as long as the configured one: its deviation is not above that.
const MOST_WINDOWS: usize = 5;

/// One split: its tokens and their cut.
#[derive(Clone, Debug)]
pub struct SplitTokens {
    tokens: Tokens,
    plan: StreamPlan,
}

/// The tokens of a run.
#[derive(Clone, Debug)]
pub struct TokenSource {
    train: SplitTokens,
    valid: Option<SplitTokens>,
    test: Option<SplitTokens>,
}

/// The tokens of each split, not yet cut.
#[derive(Clone, Debug)]
pub struct Splits {
    /// To train on.
    pub train: Tokens,
    /// To validate with.
    pub valid: Option<Tokens>,
    /// To test with at the end.
    pub test: Option<Tokens>,
}

/// The three sizes of the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Streams of all lanes together.
    pub streams: usize,
    /// Steps of a window.
    pub window: usize,
    /// Lanes.
    pub lanes: usize,
}

/// Why the tokens could not be cut.
#[derive(Debug, thiserror::Error)]
#[error("{split} text: {source}")]
pub struct CutError {
    /// Which split.
    pub split: &'static str,
    /// What is wrong with it.
    pub source: PlanError,
}

/// A request for windows that are not there, or not to be had.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The token file could not be read.
    #[error(transparent)]
    Read(#[from] TokenFileError),
    /// No such split in this run.
    #[error("this run has no tokens for split {0}")]
    Split(i32),
    /// No such window.
    #[error("window {found}, the split has {windows}")]
    Window {
        /// As asked.
        found: u64,
        /// As there are.
        windows: u64,
    },
    /// No such span of time steps, or a longer one than any window of the run.
    #[error("time steps {start} and {steps} of them: the split has {time_steps}, a window 1 to {most}")]
    Span {
        /// The first one asked for.
        start: u64,
        /// How many.
        steps: u32,
        /// As there are, of each stream.
        time_steps: u64,
        /// What a window has at most.
        most: usize,
    },
    /// No such lanes.
    #[error("lanes {first}..{end}, the run has {lanes}")]
    Lanes {
        /// The first one asked for.
        first: u32,
        /// The end of those asked for.
        end: u64,
        /// As there are.
        lanes: usize,
    },
}

impl TokenSource {
    /// Cuts the splits: windows of the training text for every stream, and an evaluation of the other texts that
    /// leaves no target out.
    ///
    /// # Errors
    /// When a text is too short or the sizes do not go together.
    pub fn new(splits: Splits, cut: Cut) -> Result<Self, CutError> {
        let Cut { streams, window, lanes } = cut;
        let plan = StreamPlan::training(splits.train.len(), streams, window, lanes)
            .map_err(|source| CutError { split: "training", source })?;
        let train = SplitTokens { tokens: splits.train, plan };
        let evaluated = |tokens: Option<Tokens>, split| {
            let cut = |tokens: Tokens| {
                let plan = StreamPlan::evaluation(tokens.len(), streams, window, lanes)
                    .map_err(|source| CutError { split, source })?;
                Ok(SplitTokens { tokens, plan })
            };
            tokens.map(cut).transpose()
        };
        Ok(Self {
            train,
            valid: evaluated(splits.valid, "validation")?,
            test: evaluated(splits.test, "test")?,
        })
    }

    /// A split, if the run has it.
    #[must_use]
    pub fn split(&self, split: Split) -> Option<&SplitTokens> {
        match split {
            Split::Train => Some(&self.train),
            Split::Valid => self.valid.as_ref(),
            Split::Test => self.test.as_ref(),
            Split::Unspecified => None,
        }
    }

    /// Whether answering a request may wait for a disk.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        self.splits().any(|split| split.is_some_and(|split| split.tokens.are_on_disk()))
    }

    /// Training, validation, test.
    fn splits(&self) -> impl Iterator<Item = Option<&SplitTokens>> {
        [Some(&self.train), self.valid.as_ref(), self.test.as_ref()].into_iter()
    }

    /// The digest of every token, so that a run is only gone on with on the same data: of the tokens themselves, and of
    /// token files, which may be large, of their hashes. What goes into a checkpoint.
    #[must_use]
    pub fn digest(&self) -> Digest {
        if self.is_on_disk() {
            return self.digest_of_hashes();
        }
        self.digest_of_tokens().expect("tokens in memory can be read")
    }

    /// Whether `digest`, as a checkpoint has it, is of these tokens: in memory or in a file, then or now.
    ///
    /// # Errors
    /// When a token file cannot be read.
    pub fn is_of(&self, digest: &str) -> Result<bool, TokenFileError> {
        Ok(self.digest_of_hashes().to_string() == digest || self.digest_of_tokens()?.to_string() == digest)
    }

    /// BLAKE3 of the number of tokens and the tokens of each split, as they are read.
    fn digest_of_tokens(&self) -> Result<Digest, TokenFileError> {
        let mut hasher = Hasher::new();
        for split in self.splits() {
            hasher.update(&split.map_or(0, |split| split.tokens.len() as u64).to_le_bytes());
            if let Some(split) = split {
                split.tokens.for_each_bytes(|bytes| hasher.update(bytes))?;
            }
        }
        Ok(hasher.finish())
    }

    /// BLAKE3 of a label, and of the number of tokens of each split, their hash and the order they are read in.
    fn digest_of_hashes(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(b"carousel tokens 1\n");
        for tokens in self.splits().map(|split| split.map(|split| &split.tokens)) {
            hasher.update(&tokens.map_or(0, |tokens| tokens.len() as u64).to_le_bytes());
            hasher.update(&tokens.map_or([0; 32], Tokens::stored_hash));
            hasher.update(&tokens.and_then(Tokens::order_hash).unwrap_or_default());
        }
        hasher.finish()
    }

    /// Answers a worker's request.
    ///
    /// # Errors
    /// When it asks for what is not there.
    pub fn windows(&self, request: &WindowRequest) -> Result<WindowReply, WindowError> {
        let split = self.split(request.split()).ok_or(WindowError::Split(request.split))?;
        let span = split.span(request)?;
        let lanes = split.plan.lanes();
        let end = u64::from(request.first_lane) + u64::from(request.lanes);
        if end > lanes as u64 {
            return Err(WindowError::Lanes { first: request.first_lane, end, lanes });
        }
        Ok(split.reply(span, request.first_lane as usize..end as usize)?)
    }
}

impl SplitTokens {
    /// Windows of one pass.
    #[must_use]
    pub fn windows(&self) -> u64 {
        self.plan.windows()
    }

    /// The cut of the split.
    pub(crate) fn plan(&self) -> &StreamPlan {
        &self.plan
    }

    /// Targets in one window, over all streams.
    #[must_use]
    pub fn tokens_in_window(&self, window: u64) -> u64 {
        self.plan.tokens_in_window(window)
    }

    /// The window asked for: a span of the split, or the one of an index.
    fn span(&self, request: &WindowRequest) -> Result<Span, WindowError> {
        let Some(v1::WindowSpan { start, steps }) = request.span else {
            let (found, windows) = (request.window, self.plan.windows());
            return if found < windows {
                Ok(self.plan.span(found))
            } else {
                Err(WindowError::Window { found, windows })
            };
        };
        let (most, time_steps) = (MOST_WINDOWS * self.plan.window(), self.plan.time_steps());
        let inside = start.checked_add(u64::from(steps)).is_some_and(|end| end <= time_steps);
        let fits = inside && steps > 0 && steps as usize <= most;
        fits.then_some(Span { start, steps }).ok_or(WindowError::Span { start, steps, time_steps, most })
    }

    /// The lanes' blocks side by side: time-major (time steps, streams of the lanes).
    fn reply(&self, span: Span, lanes: std::ops::Range<usize>) -> Result<WindowReply, TokenFileError> {
        let streams: usize = lanes.clone().map(|lane| self.plan.lane_streams(lane).len()).sum();
        let steps = span.steps as usize;
        let mut reply = WindowReply { inputs: vec![0; steps * streams], targets: vec![0; steps * streams] };
        let (mut inputs, mut targets, mut column) = (Vec::new(), Vec::new(), 0);
        for lane in lanes {
            self.plan.fill_from(&self.tokens, span, lane, &mut inputs, &mut targets)?;
            let width = self.plan.lane_streams(lane).len();
            for step in 0..steps {
                let (from, to) = (step * width..(step + 1) * width, step * streams + column);
                reply.inputs[to..to + width].copy_from_slice(&inputs[from.clone()]);
                reply.targets[to..to + width].copy_from_slice(&targets[from]);
            }
            column += width;
        }
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use carousel_corpus::DocumentOrder;

    use super::*;

    fn splits(valid: Option<Vec<u32>>, test: Option<Vec<u32>>) -> Splits {
        let train: Vec<u32> = (0..13).collect();
        Splits { train: train.into(), valid: valid.map(Tokens::from), test: test.map(Tokens::from) }
    }

    fn source() -> TokenSource {
        let splits = splits(Some((100..106).collect()), None);
        TokenSource::new(splits, Cut { streams: 3, window: 2, lanes: 2 }).unwrap()
    }

    fn request(split: Split, window: u64, first_lane: u32, lanes: u32) -> WindowRequest {
        WindowRequest { split: split.into(), window, first_lane, lanes, span: None }
    }

    #[test]
    fn lanes_stand_side_by_side_time_major() {
        // Streams 0, 1, 2 read 0.., 4.., 8..; lane 0 holds stream 0, lane 1 streams 1 and 2.
        let reply = source().windows(&request(Split::Train, 1, 0, 2)).unwrap();
        assert_eq!(reply.inputs, [2, 6, 10, 3, 7, 11]);
        assert_eq!(reply.targets, [3, 7, 11, 4, 8, 12]);
        assert_eq!(source().windows(&request(Split::Train, 1, 1, 1)).unwrap().inputs, [6, 10, 7, 11]);
    }

    #[test]
    fn evaluation_ignores_what_is_beyond_a_stream() {
        let reply = source().windows(&request(Split::Valid, 0, 0, 2)).unwrap();
        assert_eq!(
            reply.targets.iter().filter(|&&t| t != u32::MAX).count(),
            5,
            "every target but the first token"
        );
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let source = source();
        let refused = |request| source.windows(&request).unwrap_err().to_string();
        assert_eq!(refused(request(Split::Test, 0, 0, 1)), WindowError::Split(3).to_string());
        let window = WindowError::Window { found: 2, windows: 2 };
        assert_eq!(refused(request(Split::Train, 2, 0, 1)), window.to_string());
        let spanning = |start, steps| {
            let span = Some(v1::WindowSpan { start, steps });
            WindowRequest { span, ..request(Split::Train, 0, 0, 1) }
        };
        assert_eq!(source.windows(&spanning(1, 3)).unwrap().inputs, [1, 2, 3]);
        for (start, steps) in [(1, 4), (0, 0), (u64::MAX, 1), (0, 11)] {
            let expected = WindowError::Span { start, steps, time_steps: 4, most: 10 };
            assert_eq!(refused(spanning(start, steps)), expected.to_string());
        }
        let overflow = WindowError::Lanes { first: 1, end: 1 << 32, lanes: 2 };
        assert_eq!(refused(request(Split::Train, 0, 1, u32::MAX)), overflow.to_string());
        assert_eq!(source.windows(&request(Split::Train, 0, 2, 0)).unwrap().inputs, [0u32; 0]);
    }

    #[test]
    fn other_data_has_another_digest() {
        let splits = splits(None, Some((100..106).collect()));
        let other = TokenSource::new(splits, Cut { streams: 3, window: 2, lanes: 2 }).unwrap();
        assert_ne!(source().digest(), other.digest());
        assert!(!source().is_of(&other.digest().to_string()).unwrap());
    }

    #[test]
    fn the_digest_of_tokens_in_memory_is_that_of_their_bytes() {
        let mut bytes = Vec::new();
        for tokens in [(0..13).collect::<Vec<u32>>(), (100..106).collect(), Vec::new()] {
            bytes.extend((tokens.len() as u64).to_le_bytes());
            bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        }
        let source = source();
        assert_eq!(source.digest(), Digest::of_bytes(&bytes), "checkpoints that are there stay valid");
        for digest in [source.digest(), source.digest_of_hashes()] {
            assert!(source.is_of(&digest.to_string()).unwrap());
        }
    }

    #[test]
    fn another_order_of_documents_is_other_data() {
        let ordered = |random: u64| {
            let splits = splits(None, None);
            let order = DocumentOrder::shuffled(&[6, 13], |_| random);
            let splits = Splits { train: splits.train.in_order(order), ..splits };
            TokenSource::new(splits, Cut { streams: 3, window: 2, lanes: 2 }).unwrap()
        };
        let (kept, swapped) = (ordered(u64::MAX), ordered(0));
        assert_ne!(kept.digest(), swapped.digest());
        assert_ne!(kept.digest_of_hashes(), swapped.digest_of_hashes());
        let first = request(Split::Train, 0, 0, 1);
        assert_eq!(swapped.windows(&first).unwrap().inputs, [6, 7]);
        assert_eq!(kept.windows(&first).unwrap().inputs, [0, 1]);
    }
}
