//! The tokens of a sampled softmax's step: drawn from a log-uniform (Zipf's) distribution over tokens numbered by falling frequency, until
//! enough are different; and how often each is expected among them. As TensorFlow's `log_uniform_candidate_sampler` with `unique`.
//!
//! A function of (seed, step, samples, vocabulary) alone: every worker draws the same.

use crate::philox::{self, Purpose, philox4x32};

/// The tokens drawn in a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Negatives {
    /// Ascending, all different.
    pub(super) tokens: Vec<u32>,
    /// Draws it took, repeated ones counted.
    draws: u64,
    vocabulary: usize,
}

impl Negatives {
    /// At most half of the vocabulary may be asked for, or the draws become many.
    pub(super) fn draw((seed, step): (u64, u64), samples: usize, vocabulary: usize) -> Self {
        let mut drawn = vec![0u64; vocabulary.div_ceil(64)];
        let (mut tokens, mut draws) = (Vec::with_capacity(samples), 0u64);
        while tokens.len() < samples {
            let token = log_uniform(unit(seed, step, draws), vocabulary);
            draws += 1;
            let (word, bit) = (token as usize / 64, 1u64 << (token % 64));
            if drawn[word] & bit == 0 {
                drawn[word] |= bit;
                tokens.push(token);
            }
        }
        tokens.sort_unstable();
        Self { tokens, draws, vocabulary }
    }

    /// The column of a token, if it was drawn.
    pub(super) fn column(&self, token: u32) -> Option<usize> {
        self.tokens.binary_search(&token).ok()
    }

    /// log of how often a token is expected among so many draws, counted once: 1 - (1 - p)^draws.
    pub(super) fn log_expected(&self, token: u32) -> f64 {
        let p = probability(token, self.vocabulary);
        libm::log(-libm::expm1(self.draws as f64 * libm::log1p(-p)))
    }
}

/// log((k + 2) / (k + 1)) / log(V + 1) for token k.
fn probability(token: u32, vocabulary: usize) -> f64 {
    libm::log1p(1.0 / (f64::from(token) + 1.0)) / libm::log1p(vocabulary as f64)
}

/// The token at a place in [0, 1) of the cumulative distribution.
fn log_uniform(place: f64, vocabulary: usize) -> u32 {
    let token = libm::floor(libm::exp(place * libm::log1p(vocabulary as f64))) - 1.0;
    // Rounding may lead one past the last.
    token.clamp(0.0, (vocabulary - 1) as f64) as u32
}

/// 53 bits of draw `draw` as a number in [0, 1); two draws a counter.
fn unit(seed: u64, step: u64, draw: u64) -> f64 {
    let counter = [(draw / 2) as u32, step as u32, (step >> 32) as u32, Purpose::Negatives as u32];
    let words = philox4x32(counter, philox::key(seed));
    let (high, low) = if draw.is_multiple_of(2) { (words[0], words[1]) } else { (words[2], words[3]) };
    (f64::from(high >> 5) * f64::from(1 << 26) + f64::from(low >> 6)) / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_distribution_and_the_step() {
        let (vocabulary, draws) = (50, 200_000);
        let mut counts = vec![0f64; vocabulary];
        for draw in 0..draws {
            counts[log_uniform(unit(3, 9, draw), vocabulary) as usize] += 1.0;
        }
        let total: f64 = (0..vocabulary as u32).map(|k| probability(k, vocabulary)).sum();
        assert!((total - 1.0).abs() < 1e-12, "{total}");
        for (token, count) in counts.iter().enumerate() {
            let expected = probability(token as u32, vocabulary) * draws as f64;
            assert!((count - expected).abs() < 5.0 * expected.sqrt(), "{token}: {count}, {expected}");
        }
        let of = |seed, step| Negatives::draw((seed, step), 20, vocabulary);
        assert_eq!(of(3, 9), of(3, 9));
        assert_ne!(of(3, 9).tokens, of(3, 10).tokens);
        assert_ne!(of(3, 9).tokens, of(4, 9).tokens);
        assert_ne!(of(3, 9).tokens, of(3, 9 | 1 << 32).tokens);
    }

    #[test]
    fn expected_counts_are_those_of_many_steps() {
        let (vocabulary, samples, steps) = (200, 60, 2000);
        let mut counts = vec![0f64; vocabulary];
        let mut expected = vec![0f64; vocabulary];
        for step in 0..steps {
            let negatives = Negatives::draw((1, step), samples, vocabulary);
            assert_eq!(negatives.tokens.len(), samples);
            assert!(negatives.tokens.windows(2).all(|pair| pair[0] < pair[1]));
            for token in 0..vocabulary as u32 {
                counts[token as usize] += f64::from(u8::from(negatives.column(token).is_some()));
                expected[token as usize] += libm::exp(negatives.log_expected(token));
            }
        }
        for (token, (count, expected)) in counts.iter().zip(&expected).enumerate() {
            assert!((count - expected).abs() < 5.0 * expected.sqrt() + 20.0, "{token}: {count}, {expected}");
        }
    }
}
