//! From logits to a token. Randomness is counter-based: token n of sample s of a seed is the same whatever was done before
//! and whatever is written beside it.
//!
//! In this order: the repetition penalty (Keskar et al., "CTRL", 2019, section 4.1), the temperature, the k likeliest
//! (Fan, Lewis, Dauphin 2018), the nucleus (Holtzman et al., "The curious case of neural text degeneration", 2020).

use carousel_model::philox4x32;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// Logits are divided by it; 0: always the likeliest token.
    pub temperature: f64,
    /// Only so many of the likeliest; 0: all.
    pub top_k: u64,
    /// Only the fewest of the likeliest whose probabilities reach this sum; 1: all.
    pub top_p: f64,
    /// Tokens that are there already: a logit above 0 is divided by it, one below multiplied; 1: none.
    pub repetition_penalty: f64,
    /// How many of the last tokens count for that; 0: all, those of the prompt too.
    pub repetition_window: u64,
}

impl Default for Choice {
    /// As the model says.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, repetition_window: 0 }
    }
}

/// A value that makes no sense, under its name on the command line and in a configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub option: &'static str,
    pub key: &'static str,
    pub found: f64,
    pub expected: &'static str,
}

/// Keeps these numbers apart from those of training under the same seed.
const PLACE: u32 = 0x5a3b_1e00;

/// In [0, 1), with 53 random bits: for token `n` of sample `sample`.
pub(crate) fn uniform(seed: u64, sample: u32, n: u64) -> f64 {
    let counter = [n as u32, (n >> 32) as u32, sample, PLACE];
    let random = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(random[0]) << 32 | u64::from(random[1])) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// ln of the softmax of `logits` at `token`: of the model's own distribution.
pub(crate) fn log_probability(logits: &[f32], token: u32) -> f64 {
    f64::from(logits[token as usize]) - log_total(logits)
}

/// ln of the sum of the exponentials.
pub(crate) fn log_total(logits: &[f32]) -> f64 {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |highest, &logit| highest.max(logit));
    let highest = f64::from(highest);
    let total: f64 = logits.iter().map(|&logit| libm::exp(f64::from(logit) - highest)).sum();
    highest + libm::log(total)
}

impl Choice {
    /// The first value out of its range.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let problem = |option, key, found, expected| Some(Problem { option, key, found, expected });
        if !not_negative(self.temperature) {
            let expected = "a finite number that is not negative";
            return problem("--temperature", "sample.temperature", self.temperature, expected);
        }
        if !(positive(self.top_p) && self.top_p <= 1.0) {
            return problem("--top-p", "sample.top_p", self.top_p, "above 0 and at most 1");
        }
        if !positive(self.repetition_penalty) {
            let found = self.repetition_penalty;
            let expected = "a finite number above 0 (1: none; 1.2: as in the paper)";
            return problem("--repetition-penalty", "sample.repetition_penalty", found, expected);
        }
        None
    }

    /// The token that follows `history`; `uniform` in [0, 1) decides.
    pub(crate) fn choose(&self, logits: &[f32], history: &[u32], uniform: f64) -> u32 {
        let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        self.penalise(&mut scores, history);
        let (likeliest, highest) = likeliest(&scores);
        if self.temperature == 0.0 {
            return likeliest;
        }
        let mut candidates: Vec<(u32, f64)> = (0..)
            .zip(&scores)
            .map(|(token, score)| (token, libm::exp((score - highest) / self.temperature)))
            .collect();
        self.keep_the_likeliest(&mut candidates);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = uniform * total;
        for (token, weight) in candidates {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        likeliest
    }

    fn penalise(&self, scores: &mut [f64], history: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let counted = match self.repetition_window {
            0 => history.len(),
            window => history.len().min(usize::try_from(window).unwrap_or(usize::MAX)),
        };
        let mut seen = history[history.len() - counted..].to_vec();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            let score = &mut scores[token as usize];
            *score = if *score > 0.0 {
                *score / self.repetition_penalty
            } else {
                *score * self.repetition_penalty
            };
        }
    }

    /// Of equally likely tokens the first stay. In the order of the tokens before and after.
    fn keep_the_likeliest(&self, candidates: &mut Vec<(u32, f64)>) {
        let k = usize::try_from(self.top_k).unwrap_or(usize::MAX);
        let cuts_k = (1..candidates.len()).contains(&k);
        if !cuts_k && self.top_p == 1.0 {
            return;
        }
        let likelier = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if cuts_k {
            candidates.select_nth_unstable_by(k - 1, likelier);
            candidates.truncate(k);
        }
        candidates.sort_unstable_by(likelier);
        let needed = self.top_p * candidates.iter().map(|(_, weight)| weight).sum::<f64>();
        let mut sum = 0.0;
        let nucleus = candidates.iter().take_while(|(_, weight)| {
            let before = sum;
            sum += weight;
            before < needed
        });
        let kept = if self.top_p < 1.0 { nucleus.count().max(1) } else { candidates.len() };
        candidates.truncate(kept);
        candidates.sort_unstable_by_key(|(token, _)| *token);
    }
}

/// The first of the largest.
fn likeliest(scores: &[f64]) -> (u32, f64) {
    let first = (0, f64::NEG_INFINITY);
    let larger = |best: (u32, f64), (token, &score): (usize, &f64)| {
        if score > best.1 { (token as u32, score) } else { best }
    };
    scores.iter().enumerate().fold(first, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Choice =
        Choice { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, repetition_window: 0 };

    /// How often each token comes in so many draws.
    fn counts(choice: Choice, logits: &[f32], history: &[u32], draws: u64) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        (0..draws).for_each(|n| counts[choice.choose(logits, history, uniform(7, 0, n)) as usize] += 1.0);
        counts
    }

    /// Within four standard deviations of what the probabilities say; never where they are zero.
    fn follow(choice: Choice, logits: &[f32], history: &[u32], probabilities: &[f64]) {
        let draws = 80_000.0;
        let counts = counts(choice, logits, history, draws as u64);
        for (token, (count, p)) in counts.iter().zip(probabilities).enumerate() {
            let allowed = 4.0 * (draws * p * (1.0 - p)).sqrt();
            assert!(
                (count - draws * p).abs() <= allowed,
                "{choice:?}: token {token} of {counts:?}, {probabilities:?}"
            );
        }
    }

    fn logits(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    #[test]
    fn tokens_come_as_often_as_the_softmax_says() {
        let logits = [0.0, 2.0f32.ln(), f32::NEG_INFINITY, 5.0f32.ln()];
        follow(PLAIN, &logits, &[], &[0.125, 0.25, 0.0, 0.625]);
        let squared = [1.0 / 30.0, 4.0 / 30.0, 0.0, 25.0 / 30.0];
        follow(Choice { temperature: 0.5, ..PLAIN }, &logits, &[], &squared);
    }

    #[test]
    fn top_k_draws_from_the_k_likeliest_alone_and_of_equals_the_first() {
        let logits = logits(&[0.1, 0.3, 0.15, 0.3, 0.15]);
        let top = |k| Choice { top_k: k, ..PLAIN };
        follow(top(2), &logits, &[], &[0.0, 0.5, 0.0, 0.5, 0.0]);
        follow(top(3), &logits, &[], &[0.0, 0.4, 0.2, 0.4, 0.0]);
        follow(top(1), &logits, &[], &[0.0, 1.0, 0.0, 0.0, 0.0]);
        for all in [5, 6, u64::MAX] {
            follow(top(all), &logits, &[], &[0.1, 0.3, 0.15, 0.3, 0.15]);
        }
    }

    #[test]
    fn the_nucleus_is_the_fewest_tokens_that_reach_p() {
        let logits = logits(&[0.1, 0.4, 0.2, 0.3]);
        let top = |p| Choice { top_p: p, ..PLAIN };
        follow(top(0.39), &logits, &[], &[0.0, 1.0, 0.0, 0.0]);
        follow(top(0.5), &logits, &[], &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        follow(top(0.85), &logits, &[], &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
        follow(top(0.95), &logits, &[], &[0.1, 0.4, 0.2, 0.3]);
        follow(top(1e-9), &logits, &[], &[0.0, 1.0, 0.0, 0.0]);
        // After the cut to three, 0.4 of 0.9 and 0.3 of 0.9 reach 0.7 of it; after a temperature the probabilities are others.
        follow(Choice { top_k: 3, ..top(0.7) }, &logits, &[], &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        follow(Choice { temperature: 0.25, ..top(0.7) }, &logits, &[], &[0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn the_penalty_divides_logits_above_zero_and_multiplies_those_below() {
        let logits = [2.0, 1.0, -1.0, 0.0];
        let choice = Choice { repetition_penalty: 2.0, ..PLAIN };
        let softmax = |scores: [f64; 4]| {
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            scores.map(|s| s.exp() / total)
        };
        follow(choice, &logits, &[0, 2, 0], &softmax([1.0, 1.0, -2.0, 0.0]));
        follow(choice, &logits, &[], &softmax([2.0, 1.0, -1.0, 0.0]));
        // Only the last two tokens count.
        let window = Choice { repetition_window: 2, ..choice };
        follow(window, &logits, &[0, 2, 1], &softmax([2.0, 0.5, -2.0, 0.0]));
        let greedy = Choice { temperature: 0.0, ..choice };
        assert_eq!(greedy.choose(&[2.0, 1.5], &[0], 0.0), 1, "the likeliest that has not been");
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_seeds_and_samples_differ() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        let at = |temperature, seed, sample, n| {
            Choice { temperature, ..PLAIN }.choose(&logits, &[], uniform(seed, sample, n))
        };
        assert!((0..50).all(|n| at(0.0, 1, 0, n) == 1));
        let written = |seed, sample| (0..50).map(|n| at(1.0, seed, sample, n)).collect::<Vec<_>>();
        assert_eq!(written(1, 0), written(1, 0));
        assert_ne!(written(1, 0), written(2, 0));
        assert_ne!(written(1, 0), written(1, 1));
    }

    #[test]
    fn a_log_probability_is_that_of_the_softmax() {
        let logits = [1.0, -2.0, 300.0, 299.0];
        assert!((log_probability(&logits, 2) + (1.0 + (-1.0f64).exp()).ln()).abs() < 1e-12);
    }

    #[test]
    fn values_out_of_range_are_named() {
        let of = |choice: Choice| choice.problem().map(|problem| problem.option);
        assert_eq!(of(PLAIN), None);
        assert_eq!(of(Choice { temperature: -0.1, ..PLAIN }), Some("--temperature"));
        assert_eq!(of(Choice { temperature: f64::NAN, ..PLAIN }), Some("--temperature"));
        for top_p in [0.0, 1.1, -1.0, f64::NAN] {
            assert_eq!(of(Choice { top_p, ..PLAIN }), Some("--top-p"));
        }
        for repetition_penalty in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(of(Choice { repetition_penalty, ..PLAIN }), Some("--repetition-penalty"));
        }
    }
}
