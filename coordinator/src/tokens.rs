//! The token service: hands out windows of the splits. It is read-only and shared by every session.

use carousel_corpus::{PlanError, Span, StreamPlan};
use carousel_proto::digest::Digest;
use carousel_proto::v1::{self, Split, WindowReply, WindowRequest};

/// No window of random length is so many times as long as the configured one: its deviation is not above that.
const MOST_WINDOWS: usize = 5;

/// One split: its tokens and their cut.
#[derive(Clone, Debug)]
pub struct SplitTokens {
    tokens: Vec<u32>,
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
#[derive(Clone, Debug, Default)]
pub struct Splits {
    /// To train on.
    pub train: Vec<u32>,
    /// To validate with.
    pub valid: Option<Vec<u32>>,
    /// To test with at the end.
    pub test: Option<Vec<u32>>,
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

/// A request for windows that are not there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WindowError {
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
        let evaluated = |tokens: Option<Vec<u32>>, split| {
            let cut = |tokens: Vec<u32>| {
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

    /// The digest of every token, so that a run is only gone on with on the same data.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        for split in [Some(&self.train), self.valid.as_ref(), self.test.as_ref()] {
            let tokens = split.map_or(&[][..], |s| &s.tokens);
            bytes.extend((tokens.len() as u64).to_le_bytes());
            bytes.extend_from_slice(bytemuck::cast_slice(tokens));
        }
        Digest::of_bytes(&bytes)
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
        Ok(split.reply(span, request.first_lane as usize..end as usize))
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
    fn reply(&self, span: Span, lanes: std::ops::Range<usize>) -> WindowReply {
        let streams: usize = lanes.clone().map(|lane| self.plan.lane_streams(lane).len()).sum();
        let steps = span.steps as usize;
        let mut reply = WindowReply { inputs: vec![0; steps * streams], targets: vec![0; steps * streams] };
        let (mut inputs, mut targets, mut column) = (Vec::new(), Vec::new(), 0);
        for lane in lanes {
            self.plan.fill_span(&self.tokens, span, lane, &mut inputs, &mut targets);
            let width = self.plan.lane_streams(lane).len();
            for step in 0..steps {
                let (from, to) = (step * width..(step + 1) * width, step * streams + column);
                reply.inputs[to..to + width].copy_from_slice(&inputs[from.clone()]);
                reply.targets[to..to + width].copy_from_slice(&targets[from]);
            }
            column += width;
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> TokenSource {
        let splits = Splits { train: (0..13).collect(), valid: Some((100..106).collect()), test: None };
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
        assert_eq!(source.windows(&request(Split::Test, 0, 0, 1)), Err(WindowError::Split(3)));
        assert_eq!(
            source.windows(&request(Split::Train, 2, 0, 1)),
            Err(WindowError::Window { found: 2, windows: 2 })
        );
        let spanning = |start, steps| {
            let span = Some(v1::WindowSpan { start, steps });
            source.windows(&WindowRequest { span, ..request(Split::Train, 0, 0, 1) })
        };
        assert_eq!(spanning(1, 3).unwrap().inputs, [1, 2, 3]);
        for (start, steps) in [(1, 4), (0, 0), (u64::MAX, 1), (0, 11)] {
            let refused = WindowError::Span { start, steps, time_steps: 4, most: 10 };
            assert_eq!(spanning(start, steps), Err(refused));
        }
        let overflow = source.windows(&request(Split::Train, 0, 1, u32::MAX));
        assert_eq!(overflow, Err(WindowError::Lanes { first: 1, end: 1 << 32, lanes: 2 }));
        assert_eq!(source.windows(&request(Split::Train, 0, 2, 0)).unwrap().inputs, [0u32; 0]);
    }

    #[test]
    fn other_data_has_another_digest() {
        let splits = Splits { train: (0..13).collect(), valid: None, test: Some((100..106).collect()) };
        let other = TokenSource::new(splits, Cut { streams: 3, window: 2, lanes: 2 }).unwrap();
        assert_ne!(source().digest(), other.digest());
    }
}
