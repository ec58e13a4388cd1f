//! The continuous cache of Grave, Joulin, Usunier, "Improving neural language models with a continuous cache", ICLR 2017: what
//! came lately comes again. It adds to a trained model and changes nothing of it.
//!
//! With `h_i` the last layer's output after token `i` and `x_i` the tokens (equations 2 to 4):
//! `p_cache(w) ~ sum over the last N places i < t of [w = x_(i+1)] exp(theta h_t . h_i)`, and
//! `p(w) = (1 - lambda) p_vocabulary(w) + lambda p_cache(w)`. Before the first place there is no cache: `p = p_vocabulary`.
//!
//! All in f64. A product `h_t . h_i` is eight sums by index mod 8 added by a fixed tree; the sum over places goes from the
//! oldest to the newest. So the bits are a function of the arguments alone.

use rayon::prelude::*;

use crate::{IGNORED_TARGET, ModelError, Scores};

/// How the cache is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheOptions {
    /// Places remembered (N), at least 1.
    pub size: usize,
    /// Sharpness (theta), finite and at least 0.
    pub theta: f64,
    /// Share of the cache in the mixture (lambda), in [0, 1).
    pub lambda: f64,
}

impl CacheOptions {
    fn check(&self) -> Result<(), ModelError> {
        let check = |holds: bool, option, found, expected| {
            if holds { Ok(()) } else { Err(ModelError::EvaluationOption { option, found, expected }) }
        };
        check(self.size > 0, "the cache's size", 0.0, "at least 1")?;
        let theta = self.theta.is_finite() && self.theta >= 0.0;
        check(theta, "the cache's theta", self.theta, "a finite number that is not negative")?;
        let lambda = (0.0..1.0).contains(&self.lambda);
        check(lambda, "the cache's lambda", self.lambda, "at least 0 and below 1")
    }
}

/// The caches of B streams.
#[derive(Debug, Clone)]
pub struct NeuralCache {
    options: CacheOptions,
    width: usize,
    streams: Vec<Places>,
}

/// What one stream remembers, oldest first: (places, H) outputs, and the token that followed each.
#[derive(Debug, Clone, Default)]
struct Places {
    hidden: Vec<f64>,
    next: Vec<u32>,
}

impl NeuralCache {
    /// Empty caches of `streams` streams for outputs of `width` units (H).
    ///
    /// # Errors
    /// Options out of range.
    pub fn new(options: CacheOptions, streams: usize, width: usize) -> Result<Self, ModelError> {
        options.check()?;
        Ok(Self { options, width, streams: vec![Places::default(); streams] })
    }

    /// Replaces the losses of a window, nats, by those of the mixture, and remembers the window. `targets` (T, B) are those
    /// that were scored. Works on the current rayon pool.
    ///
    /// # Errors
    /// Sizes that do not go together; nothing is changed then.
    pub fn mix(&mut self, targets: &[u32], scores: &mut Scores) -> Result<(), ModelError> {
        use crate::window::check_length;
        let streams = self.streams.len();
        let steps = targets.len() / streams.max(1);
        check_length("targets", steps * streams, targets.len())?;
        check_length("losses", targets.len(), scores.losses.len())?;
        check_length("hidden", targets.len() * self.width, scores.hidden.len())?;
        for (stream, places) in self.streams.iter_mut().enumerate() {
            let before = places.next.len();
            for row in (stream..targets.len()).step_by(streams) {
                let hidden = &scores.hidden[row * self.width..(row + 1) * self.width];
                places.hidden.extend(hidden.iter().map(|&x| f64::from(x)));
                places.next.push(targets[row]);
            }
            let (options, width) = (self.options, self.width);
            let losses = &scores.losses;
            let mixed: Vec<f64> = (0..steps)
                .into_par_iter()
                .map(|step| places.loss(options, width, before + step, losses[step * streams + stream]))
                .collect();
            for (step, loss) in mixed.into_iter().enumerate() {
                scores.losses[step * streams + stream] = loss;
            }
            places.forget_all_but(options.size, width);
        }
        Ok(())
    }
}

impl Places {
    /// The loss of the token after place `at`, given that of the vocabulary alone.
    fn loss(&self, options: CacheOptions, width: usize, at: usize, vocabulary: f64) -> f64 {
        let target = self.next[at];
        let first = at.saturating_sub(options.size);
        if target == IGNORED_TARGET || first == at {
            return vocabulary;
        }
        let here = &self.hidden[at * width..(at + 1) * width];
        let earlier = self.hidden[first * width..at * width].chunks_exact(width);
        let scores: Vec<f64> = earlier.map(|there| options.theta * product(here, there)).collect();
        let highest = scores.iter().fold(f64::NEG_INFINITY, |highest, &score| highest.max(score));
        let (mut total, mut same) = (0.0, 0.0);
        for (score, &next) in scores.iter().zip(&self.next[first..at]) {
            let weight = libm::exp(score - highest);
            total += weight;
            same += if next == target { weight } else { 0.0 };
        }
        let p = (1.0 - options.lambda) * libm::exp(-vocabulary) + options.lambda * (same / total);
        // A vocabulary's probability below what a double holds leaves its logarithm as it was.
        if p > 0.0 { -libm::log(p) } else { vocabulary - libm::log1p(-options.lambda) }
    }

    fn forget_all_but(&mut self, size: usize, width: usize) {
        let old = self.next.len().saturating_sub(size);
        self.next.drain(..old);
        self.hidden.drain(..old * width);
    }
}

/// `a . b` in eight sums by index mod 8, then halves folded onto each other.
fn product(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    for half in [4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}
