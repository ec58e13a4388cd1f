//! Sampling from a model, one token at a time, printed as it comes. Randomness is counter-based: token n of a seed is
//! the same whatever was done before.

use std::io::Write;

use carousel_model::philox4x32;

use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;

/// How to sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub tokens: u64,
    /// 0: the likeliest token.
    pub temperature: f64,
    pub seed: u64,
}

/// Keeps the sampler's numbers apart from those of training under the same seed.
const PLACE: u32 = 0x5a3b_1e00;

/// Prints the prompt and what the model writes after it.
pub(crate) fn print(model: &mut CheckpointModel, prompt: &str, settings: Settings) -> Result<(), Failure> {
    let prompt_tokens = model.tokenizer.encode(prompt)?;
    if prompt_tokens.is_empty() {
        return Err(Failure::bad_input(format!("--prompt: {prompt:?} has no token, expected at least one")));
    }
    let tokenizer = model.tokenizer.clone();
    let mut text = tokenizer.stream();
    let mut out = std::io::stdout().lock();
    let mut carries = vec![0.0; model.carry_floats];
    let mut logits = vec![0.0; model.vocabulary];
    let mut show =
        |piece: &str| out.write_all(piece.as_bytes()).and_then(|()| out.flush()).map_err(Failure::failed);
    for &token in &prompt_tokens {
        show(&text.push(token))?;
        model.model.next_logits(&model.parameters, &[token], &mut carries, &mut logits)?;
    }
    for n in 0..settings.tokens {
        let token = choose(&logits, settings, n);
        show(&text.push(token))?;
        model.model.next_logits(&model.parameters, &[token], &mut carries, &mut logits)?;
    }
    show(&text.finish())?;
    show("\n")
}

fn choose(logits: &[f32], settings: Settings, n: u64) -> u32 {
    let (likeliest, highest) = likeliest(logits);
    if settings.temperature == 0.0 {
        return likeliest;
    }
    let weight = |logit: f32| libm::exp((f64::from(logit) - f64::from(highest)) / settings.temperature);
    let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    let mut left = uniform(settings.seed, n) * total;
    for (token, &logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return token as u32;
        }
    }
    likeliest
}

/// The first of the largest logits.
fn likeliest(logits: &[f32]) -> (u32, f32) {
    let first = (0, f32::NEG_INFINITY);
    let larger = |best: (u32, f32), (token, &logit): (usize, &f32)| {
        if logit > best.1 { (token as u32, logit) } else { best }
    };
    logits.iter().enumerate().fold(first, larger)
}

/// In [0, 1), with 53 random bits.
fn uniform(seed: u64, n: u64) -> f64 {
    let random = philox4x32([n as u32, (n >> 32) as u32, 0, PLACE], [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(random[0]) << 32 | u64::from(random[1])) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_as_often_as_the_softmax_says() {
        let logits = [0.0, 2.0f32.ln(), f32::NEG_INFINITY, 5.0f32.ln()];
        let settings = Settings { tokens: 0, temperature: 1.0, seed: 7 };
        let mut counts = [0f64; 4];
        (0..80_000).for_each(|n| counts[choose(&logits, settings, n) as usize] += 1.0);
        // Probabilities 1/8, 2/8, 0, 5/8; four standard deviations of a count of 50,000 in 80,000 are 548.
        for (count, expected) in counts.iter().zip([10_000.0, 20_000.0, 0.0, 50_000.0]) {
            assert!((count - expected).abs() < 560.0, "{counts:?}");
        }
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_seeds_differ() {
        let logits = [1.0, 3.0, 3.0, 2.0];
        let at = |temperature, seed, n| choose(&logits, Settings { tokens: 0, temperature, seed }, n);
        assert!((0..50).all(|n| at(0.0, 1, n) == 1));
        let written = |seed| (0..50).map(|n| at(1.0, seed, n)).collect::<Vec<_>>();
        assert_eq!(written(1), written(1));
        assert_ne!(written(1), written(2));
    }
}
