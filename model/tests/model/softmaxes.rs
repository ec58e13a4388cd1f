//! Adaptive and sampled softmax against plain sums in f64 over the model's own hidden units, and against the full softmax.

use carousel_model::{
    IGNORED_TARGET, LaneStreams, LanguageModel, ModelConfig, ModelError, Parameters, Softmax, Window,
    philox4x32,
};

const STEPS: usize = 4;
const STREAMS: usize = 6;
const LANES: [LaneStreams; 2] = [
    LaneStreams { lane: 0, first_stream: 0, streams: 4 },
    LaneStreams { lane: 1, first_stream: 4, streams: 2 },
];

fn config(vocabulary: usize, softmax: Softmax) -> ModelConfig {
    ModelConfig { vocabulary, embedding: 18, hidden: 18, init: 0.5, softmax, ..ModelConfig::default() }
}

fn adaptive(cutoffs: &[usize], head_bias: bool) -> Softmax {
    Softmax::Adaptive { cutoffs: cutoffs.to_vec(), div_value: 2.0, head_bias }
}

/// Tokens by falling frequency, so that every cluster is met and some targets are drawn.
fn tokens(kind: u32, vocabulary: usize) -> Vec<u32> {
    let token = |at: u32| {
        let place = f64::from(philox4x32([kind, at, 0, 0], [3, 4])[0]) / f64::from(u32::MAX);
        ((vocabulary as f64).powf(place) as u32 - 1).min(vocabulary as u32 - 1)
    };
    (0..(STEPS * STREAMS) as u32).map(token).collect()
}

struct Text {
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

impl Text {
    fn of(vocabulary: usize) -> Self {
        let mut targets = tokens(1, vocabulary);
        targets[5] = IGNORED_TARGET;
        targets[9] = vocabulary as u32 - 1;
        Self { inputs: tokens(0, vocabulary), targets }
    }

    fn window(&self) -> Window<'_> {
        Window {
            seed: 5,
            step: 11,
            steps: STEPS,
            lanes: &LANES,
            inputs: &self.inputs,
            targets: &self.targets,
            step_tokens: (STEPS * STREAMS - 1) as u64,
        }
    }
}

/// The log-probability of every token at every place, by generation: (T·B, V).
fn predicted(config: &ModelConfig, parameters: &Parameters, text: &Text) -> Vec<Vec<f32>> {
    let mut model = LanguageModel::new(config.clone()).unwrap();
    let mut carries = vec![0.0; STREAMS * config.carry_len()];
    let mut rows = Vec::new();
    for tokens in text.inputs.chunks(STREAMS) {
        let mut logits = vec![0.0; STREAMS * config.vocabulary];
        model.next_logits(parameters, tokens, &mut carries, &mut logits).unwrap();
        rows.extend(logits.chunks(config.vocabulary).map(<[f32]>::to_vec));
    }
    rows
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    logits.iter().map(|x| x - max - sum.ln()).collect()
}

fn product(weight: &[f32], rows: usize, x: &[f64]) -> Vec<f64> {
    let width = x.len();
    let row = |row: usize| {
        weight[row * width..(row + 1) * width].iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()
    };
    (0..rows).map(row).collect()
}

/// The decoder's input at every place, read off a full softmax whose matrix is the identity.
fn hidden(config: &ModelConfig, parameters: &Parameters, text: &Text) -> Vec<Vec<f64>> {
    let (softmax, units) = (Softmax::Full, config.hidden);
    let plain = ModelConfig { softmax, ..config.clone() };
    let mut read = Parameters::from_flat(&plain, vec![0.0; plain.parameter_layout().len()]).unwrap();
    for tensor in plain.parameter_layout().tensors {
        let place = &mut read.as_mut_slice()[tensor.offset..tensor.offset + tensor.len()];
        if !tensor.name.starts_with("decoder") {
            place.copy_from_slice(parameters.tensor(&tensor.name).unwrap());
        } else if tensor.name == "decoder.weight" {
            (0..units).for_each(|unit| place[unit * units + unit] = 1.0);
        }
    }
    let logits = predicted(&plain, &read, text);
    logits.iter().map(|row| row[..units].iter().map(|&x| f64::from(x)).collect()).collect()
}

/// With one cluster, the head alone, an adaptive softmax is the full one, bit for bit.
#[test]
fn adaptive_without_cutoffs_is_the_full_softmax() {
    let (full, adaptive) = (config(1501, Softmax::Full), config(1501, adaptive(&[], true)));
    let parameters = Parameters::initial(&full, 3);
    let same = Parameters::from_flat(&adaptive, parameters.as_slice().to_vec()).unwrap();
    let text = Text::of(1501);
    let run = |config: &ModelConfig, parameters: &Parameters| {
        let mut carries = vec![0.0; STREAMS * config.carry_len()];
        let mut model = LanguageModel::new(config.clone()).unwrap();
        let gradients = model.gradients(parameters, &text.window(), &mut carries, &[0..1, 1..2]).unwrap();
        let losses = model.evaluate(parameters, &text.window(), &mut carries).unwrap();
        (gradients, losses)
    };
    assert_eq!(run(&full, &parameters), run(&adaptive, &same));
    let names: Vec<_> = same.layout().tensors.iter().map(|t| (t.name.as_str(), &t.shape[..])).collect();
    assert_eq!(names[5..], [("head.weight", &[1501, 18][..]), ("head.bias", &[1501])]);
    let (logits, log_p) = (predicted(&full, &parameters, &text), predicted(&adaptive, &same, &text));
    for (logits, log_p) in logits.iter().zip(&log_p) {
        let expected = log_softmax(&logits.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
        assert!(log_p.iter().zip(&expected).all(|(p, e)| (f64::from(*p) - e).abs() < 1e-5));
    }
}

/// log p = log p(cluster) + log p(token in it), as `torch.nn.AdaptiveLogSoftmaxWithLoss.log_prob` computes it.
#[test]
fn adaptive_probabilities_are_those_of_the_definition() {
    for head_bias in [false, true] {
        let config = config(3000, adaptive(&[6, 50, 1700], head_bias));
        let parameters = Parameters::initial(&config, 3);
        let shape = |name: &str| parameters.layout().get(name).map(|t| t.shape.clone());
        assert_eq!(shape("head.weight"), Some(vec![9, 18]));
        assert_eq!(shape("head.bias"), head_bias.then_some(vec![9]));
        assert_eq!(shape("tail.1.0.weight"), Some(vec![4, 18]));
        assert_eq!(shape("tail.2.1.weight"), Some(vec![1300, 2]));
        let text = Text::of(3000);
        let found = predicted(&config, &parameters, &text);
        for (hidden, found) in hidden(&config, &parameters, &text).iter().zip(&found) {
            let mut head = product(parameters.tensor("head.weight").unwrap(), 9, hidden);
            if let Some(bias) = parameters.tensor("head.bias") {
                head.iter_mut().zip(bias).for_each(|(x, b)| *x += f64::from(*b));
            }
            let head = log_softmax(&head);
            let mut expected = head[..6].to_vec();
            for (tail, (tokens, width)) in [(44, 9), (1650, 4), (1300, 2)].into_iter().enumerate() {
                let weight = |part: usize| parameters.tensor(&format!("tail.{tail}.{part}.weight")).unwrap();
                let projected = product(weight(0), width, hidden);
                let inside = log_softmax(&product(weight(1), tokens, &projected));
                expected.extend(inside.iter().map(|p| p + head[6 + tail]));
            }
            assert_eq!(expected.len(), found.len());
            assert!(expected.iter().zip(found).all(|(e, f)| (e - f64::from(*f)).abs() < 2e-5));
        }
    }
}

/// Loss of training and evaluation, and what generation says of the same targets.
#[test]
fn losses_are_the_log_probabilities_of_the_targets() {
    for softmax in [Softmax::Full, adaptive(&[6, 50, 1700], true), Softmax::Sampled { samples: 1400 }] {
        let config = config(3000, softmax.clone());
        let (parameters, text) = (Parameters::initial(&config, 3), Text::of(3000));
        let mut expected = [0.0; 2];
        for (row, logits) in predicted(&config, &parameters, &text).iter().enumerate() {
            let target = text.targets[row];
            if target != IGNORED_TARGET {
                let log_p = log_softmax(&logits.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
                expected[usize::from(row % STREAMS >= 4)] -= log_p[target as usize];
            }
        }
        let mut model = LanguageModel::new(config.clone()).unwrap();
        let mut carries = vec![0.0; STREAMS * config.carry_len()];
        let losses = model.evaluate(&parameters, &text.window(), &mut carries.clone()).unwrap();
        let trained = model.gradients(&parameters, &text.window(), &mut carries, &[0..2]).unwrap().losses;
        for (loss, expected) in losses.iter().zip(expected) {
            assert!((loss.sum - expected).abs() < 2e-4, "{softmax:?}: {} {expected}", loss.sum);
        }
        let exact = !matches!(softmax, Softmax::Sampled { .. });
        assert_eq!(trained == losses, exact, "{softmax:?}: a sampled loss is another one");
    }
}

/// The sampled loss by its definition: logits less log expected counts, over the drawn tokens and the target.
#[test]
fn sampled_losses_and_rows_are_those_of_the_definition() {
    let (vocabulary, samples) = (300, 40);
    let config = config(vocabulary, Softmax::Sampled { samples });
    let (parameters, text) = (Parameters::initial(&config, 3), Text::of(vocabulary));
    let mut model = LanguageModel::new(config.clone()).unwrap();
    let mut carries = vec![0.0; STREAMS * config.carry_len()];
    let gradients = model.gradients(&parameters, &text.window(), &mut carries, &[0..2]).unwrap();
    let (drawn, draws) = drawn(vocabulary, samples);
    let rows: Vec<usize> =
        gradients.partials[0].rows.iter().map(|row| *row as usize).filter(|row| *row >= vocabulary).collect();
    let targets = text.targets.iter().filter(|&&t| t != IGNORED_TARGET).map(|&t| t as usize);
    let mut touched: Vec<usize> = drawn.iter().copied().chain(targets).map(|t| t + vocabulary).collect();
    touched.sort_unstable();
    touched.dedup();
    assert_eq!(rows, touched, "the drawn tokens' rows and the targets', no others");
    let p =
        |token: usize| ((token as f64 + 2.0) / (token as f64 + 1.0)).ln() / (vocabulary as f64 + 1.0).ln();
    let expected_count = |token: usize| 1.0 - (1.0 - p(token)).powf(draws as f64);
    let (weight, bias) =
        (parameters.tensor("decoder.weight").unwrap(), parameters.tensor("decoder.bias").unwrap());
    let mut sum = 0.0;
    for (row, hidden) in hidden(&config, &parameters, &text).iter().enumerate() {
        let target = text.targets[row];
        if target == IGNORED_TARGET {
            continue;
        }
        let target = target as usize;
        let candidates =
            std::iter::once(target).chain(drawn.iter().copied().filter(|&token| token != target));
        let logit = |token: usize| {
            let product: f64 = product(&weight[token * 18..(token + 1) * 18], 1, hidden)[0];
            product + f64::from(bias[token]) - expected_count(token).ln()
        };
        sum -= log_softmax(&candidates.map(logit).collect::<Vec<_>>())[0];
    }
    let found: f64 = gradients.losses.iter().map(|lane| lane.sum).sum();
    assert!((sum - found).abs() < 1e-4, "{sum} {found}");
    let hit = text.targets.iter().filter(|t| drawn.contains(&(**t as usize))).count();
    assert!((2..STEPS * STREAMS - 2).contains(&hit), "{hit} targets were drawn: both ways are met");
}

/// Draws again what the step drew, from the words of the documentation.
fn drawn(vocabulary: usize, samples: usize) -> (Vec<usize>, u64) {
    let (mut tokens, mut draws) = (std::collections::BTreeSet::new(), 0u64);
    while tokens.len() < samples {
        let words = philox4x32([(draws / 2) as u32, 11, 0, 24], [5, 0]);
        let pair = &words[if draws % 2 == 0 { 0..2 } else { 2..4 }];
        let unit =
            (f64::from(pair[0] >> 5) * 67_108_864.0 + f64::from(pair[1] >> 6)) / 9_007_199_254_740_992.0;
        tokens.insert((unit * (vocabulary as f64 + 1.0).ln()).exp() as usize - 1);
        draws += 1;
    }
    (tokens.into_iter().collect(), draws)
}

#[test]
fn a_softmax_that_does_not_fit_is_refused() {
    let wrong = [
        config(3000, adaptive(&[6, 50, 3000], true)),
        ModelConfig { tied: true, ..config(3000, adaptive(&[6], true)) },
        ModelConfig { embedding: 17, ..config(3000, Softmax::Sampled { samples: 3 }) },
    ];
    for config in wrong {
        assert!(matches!(LanguageModel::new(config), Err(ModelError::Softmax(_))));
    }
}
