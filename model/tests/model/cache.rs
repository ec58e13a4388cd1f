//! The neural cache against its equations in f64.

use crate::naive::{Naive, config, tokens};
use carousel_model::{
    CacheOptions, IGNORED_TARGET, LaneStreams, LanguageModel, ModelError, NeuralCache, Parameters, Scores,
    Window,
};

const OPTIONS: CacheOptions = CacheOptions { size: 7, theta: 1.5, lambda: 0.3 };

/// Equations 2 to 4 of the paper, sum by sum: the loss of every token but the first.
fn naive(text: &[u32], options: CacheOptions) -> Vec<f64> {
    let config = config(false);
    let naive = Naive::new(&config, &Parameters::initial(&config, 5));
    let (mut h, mut outputs, mut losses) = (vec![0.0; config.hidden], Vec::<Vec<f64>>::new(), Vec::new());
    for t in 0..text.len() - 1 {
        naive.step(text[t], &mut h);
        let vocabulary = naive.probabilities(&h)[text[t + 1] as usize];
        let first = t.saturating_sub(options.size);
        let weight = |i: usize| {
            let product: f64 = h.iter().zip(&outputs[i]).map(|(a, b)| a * b).sum();
            (options.theta * product).exp()
        };
        let total: f64 = (first..t).map(weight).sum();
        let same: f64 = (first..t).filter(|&i| text[i + 1] == text[t + 1]).map(weight).sum();
        let mixed = (1.0 - options.lambda) * vocabulary + options.lambda * same / total;
        losses.push(-(if t == 0 { vocabulary } else { mixed }).ln());
        outputs.push(h.clone());
    }
    losses
}

/// Streams side by side, in windows of `steps`; the losses of each stream. Streams may end early.
fn cached(texts: &[&[u32]], steps: usize, options: CacheOptions) -> Vec<Vec<f64>> {
    let config = config(false);
    let (mut model, parameters) =
        (LanguageModel::new(config.clone()).unwrap(), Parameters::initial(&config, 5));
    let streams = texts.len();
    let lanes = [LaneStreams { lane: 0, first_stream: 0, streams }];
    let mut cache = NeuralCache::new(options, streams, config.hidden).unwrap();
    let (mut carries, mut scores) = (vec![0.0; streams * config.carry_len()], Scores::default());
    let mut losses = vec![Vec::new(); streams];
    let longest = texts.iter().map(|text| text.len() - 1).max().unwrap();
    for first in (0..longest).step_by(steps) {
        let at = |row: usize, next: usize| {
            texts[row % streams].get(first + row / streams + next).copied().unwrap_or(IGNORED_TARGET)
        };
        let targets: Vec<u32> = (0..steps * streams).map(|row| at(row, 1)).collect();
        let inputs: Vec<u32> = (0..steps * streams).map(|row| at(row, 0).min(5)).collect();
        let (inputs, targets) = (&inputs[..], &targets[..]);
        let window = Window { seed: 0, step: 0, steps, lanes: &lanes, inputs, targets, step_tokens: 1 };
        model.score(&parameters, &window, &mut carries, &mut scores).unwrap();
        cache.mix(targets, &mut scores).unwrap();
        for row in (0..steps * streams).filter(|&row| targets[row] != IGNORED_TARGET) {
            losses[row % streams].push(scores.losses[row]);
        }
    }
    losses
}

#[test]
fn the_mixture_follows_the_paper_s_equations() {
    let text = tokens(41, 1);
    for (options, what) in [
        (OPTIONS, "a cache that forgets"),
        (CacheOptions { size: 1000, ..OPTIONS }, "a cache that holds everything"),
        (CacheOptions { size: 1, ..OPTIONS }, "a cache of one place"),
        (CacheOptions { theta: 0.0, ..OPTIONS }, "a cache of counts"),
        (CacheOptions { lambda: 0.0, ..OPTIONS }, "no cache"),
    ] {
        let (found, expected) = (&cached(&[&text], 6, options)[0], naive(&text, options));
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() < 1e-5 * expected.abs(),
                "{what}, token {at}: {found} {expected}"
            );
        }
    }
}

#[test]
fn windows_neighbours_and_threads_change_no_bit_of_a_stream() {
    let (long, short) = (tokens(41, 1), tokens(23, 9));
    let alone = cached(&[&long], 6, OPTIONS).remove(0);
    for steps in [1, 5, 40] {
        assert_eq!(cached(&[&long], steps, OPTIONS)[0], alone, "windows of {steps}");
    }
    let together = cached(&[&short, &long], 6, OPTIONS);
    assert_eq!(together[1], alone);
    assert_eq!(together[0], cached(&[&short], 6, OPTIONS)[0]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(pool.install(|| cached(&[&long], 6, OPTIONS)).remove(0), alone);
}

#[test]
fn options_and_sizes_that_do_not_fit_are_refused() {
    let refused = |options| NeuralCache::new(options, 1, 5).err();
    for (options, name) in [
        (CacheOptions { size: 0, ..OPTIONS }, "the cache's size"),
        (CacheOptions { theta: -1.0, ..OPTIONS }, "the cache's theta"),
        (CacheOptions { theta: f64::NAN, ..OPTIONS }, "the cache's theta"),
        (CacheOptions { lambda: 1.0, ..OPTIONS }, "the cache's lambda"),
    ] {
        match refused(options) {
            Some(ModelError::EvaluationOption { option, .. }) => assert_eq!(option, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let mut cache = NeuralCache::new(OPTIONS, 2, 5).unwrap();
    let mut scores = Scores { losses: vec![1.0; 4], hidden: vec![0.0; 20] };
    assert!(cache.mix(&[1, 2, 3, 4], &mut scores).is_ok());
    scores.hidden.pop();
    assert!(matches!(cache.mix(&[1, 2, 3, 4], &mut scores), Err(ModelError::Length { what: "hidden", .. })));
    assert!(matches!(cache.mix(&[1, 2, 3], &mut scores), Err(ModelError::Length { what: "targets", .. })));
}
