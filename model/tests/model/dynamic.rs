//! Dynamic evaluation against its equations in f64.

use crate::naive::{Naive, config, tokens};
use carousel_model::{
    DynamicEvaluation, DynamicRule, GradientStatistics, IGNORED_TARGET, LaneStreams, LanguageModel,
    ModelConfig, ModelError, Parameters, Window,
};

const SEGMENT: usize = 4;
const RATE: f32 = 0.05;
const DECAY: f32 = 0.1;

/// Segments of one stream.
fn segments(text: &[u32]) -> Vec<&[u32]> {
    (0..(text.len() - 1).div_ceil(SEGMENT))
        .map(|at| &text[at * SEGMENT..text.len().min((at + 1) * SEGMENT + 1)])
        .collect()
}

const ONE: [LaneStreams; 1] = [LaneStreams { lane: 0, first_stream: 0, streams: 1 }];

fn window(segment: &[u32]) -> Window<'_> {
    let steps = segment.len() - 1;
    Window {
        seed: 0,
        step: 0,
        steps,
        lanes: &ONE,
        inputs: &segment[..steps],
        targets: &segment[1..],
        step_tokens: steps as u64,
    }
}

struct Subject {
    config: ModelConfig,
    model: LanguageModel,
    parameters: Parameters,
}

impl Subject {
    fn new(tied: bool) -> Self {
        let config = config(tied);
        let parameters = Parameters::initial(&config, 5);
        Self { model: LanguageModel::new(config.clone()).unwrap(), config, parameters }
    }

    fn statistics(&mut self, text: &[u32]) -> GradientStatistics {
        let mut statistics = GradientStatistics::new(self.parameters.as_slice().len());
        let mut carries = vec![0.0; self.config.carry_len()];
        for segment in segments(text) {
            statistics.add(&mut self.model, &self.parameters, &window(segment), &mut carries).unwrap();
        }
        statistics
    }

    /// The loss of each segment.
    fn evaluated(&mut self, rule: DynamicRule<'_>, decay: f32, text: &[u32]) -> Vec<f64> {
        let mut dynamic = DynamicEvaluation::new(self.parameters.clone(), rule, (RATE, decay)).unwrap();
        let mut carries = vec![0.0; self.config.carry_len()];
        let mut segment = |segment: &&[u32]| {
            dynamic.segment(&mut self.model, &window(segment), &mut carries).unwrap()[0].sum
        };
        segments(text).iter().map(&mut segment).collect()
    }
}

fn close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (found - expected).abs();
        assert!(off < 2e-5 * expected.abs(), "{what}, segment {at}: {found}, expected {expected}");
    }
}

/// The equations: `w += lambda n (t - w) - eta g / scale`, with n and the scale by element.
fn naive(subject: &Subject, text: &[u32], decay: f64, (norms, scales): (&[f64], &[f64])) -> Vec<f64> {
    let mut naive = Naive::new(&subject.config, &subject.parameters);
    let trained = naive.weights.clone();
    let mut h = vec![0.0; subject.config.hidden];
    let mut losses = Vec::new();
    for segment in segments(text) {
        let gradient = naive.gradient(segment, &h);
        losses.push(naive.loss(segment, &mut h));
        for (at, w) in naive.weights.iter_mut().enumerate() {
            let back = (decay * norms[at]).min(1.0) * (trained[at] - *w);
            *w += back - f64::from(RATE) * gradient[at] / scales[at];
        }
    }
    losses
}

#[test]
fn stochastic_gradient_descent_with_decay_follows_its_equation() {
    for tied in [false, true] {
        let (mut subject, text) = (Subject::new(tied), tokens(38, 1));
        let ones = vec![1.0; subject.parameters.as_slice().len()];
        for decay in [0.0, DECAY] {
            let expected = naive(&subject, &text, f64::from(decay), (&ones, &ones));
            let found = subject.evaluated(DynamicRule::Sgd, decay, &text);
            close(&format!("tied {tied}, decay {decay}"), &found, &expected);
        }
        let still = naive(&subject, &text, 1.0, (&ones, &vec![f64::INFINITY; ones.len()]));
        let found = subject.evaluated(DynamicRule::Sgd, 0.0, &text);
        let moved = found.iter().zip(&still).skip(1).all(|(a, b)| (a - b).abs() > 1e-4 * b);
        assert!(moved, "the weights have moved after the first segment: {found:?}, {still:?}");
    }
}

#[test]
fn the_rms_rule_with_statistics_of_the_training_text_follows_its_equations() {
    for tied in [false, true] {
        let (mut subject, training, text) = (Subject::new(tied), tokens(61, 2), tokens(38, 1));
        let mut naive_model = Naive::new(&subject.config, &subject.parameters);
        let mut h = vec![0.0; subject.config.hidden];
        let mut squares = vec![0.0; naive_model.weights.len()];
        for segment in segments(&training) {
            let gradient = naive_model.gradient(segment, &h);
            squares.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += g * g);
            naive_model.loss(segment, &mut h);
        }
        let count = segments(&training).len() as f64;
        let roots: Vec<f64> = squares.iter().map(|sum| (sum / count).sqrt()).collect();
        let mean = roots.iter().sum::<f64>() / roots.len() as f64;
        let epsilon = 0.25f32;
        let norms: Vec<f64> = roots.iter().map(|root| root / mean).collect();
        let scales: Vec<f64> = roots.iter().map(|root| root + f64::from(epsilon)).collect();
        assert!(norms.iter().any(|norm| 0.5 * norm > 1.0), "the bound on the decay matters");
        let statistics = subject.statistics(&training);
        assert_eq!(statistics.windows(), count as u64);
        for decay in [DECAY, 0.5] {
            let expected = naive(&subject, &text, f64::from(decay), (&norms, &scales));
            let rule = DynamicRule::Rms { statistics: &statistics, epsilon };
            let found = subject.evaluated(rule, decay, &text);
            close(&format!("tied {tied}, decay {decay}"), &found, &expected);
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let text = tokens(38, 1);
    let losses = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut subject = Subject::new(false);
            let statistics = subject.statistics(&text);
            subject.evaluated(DynamicRule::Rms { statistics: &statistics, epsilon: 0.1 }, DECAY, &text)
        })
    };
    assert_eq!(losses(1), losses(2));
    assert_eq!(losses(1), losses(3));
}

#[test]
fn options_out_of_range_are_refused() {
    let subject = Subject::new(false);
    let new = |rule: DynamicRule<'_>, rate, decay| {
        DynamicEvaluation::new(subject.parameters.clone(), rule, (rate, decay)).err()
    };
    let named = |error: Option<ModelError>, name: &str| match error {
        Some(ModelError::EvaluationOption { option, .. }) => assert_eq!(option, name),
        other => panic!("{name}: {other:?}"),
    };
    named(new(DynamicRule::Sgd, 0.0, 0.0), "the dynamic rate");
    named(new(DynamicRule::Sgd, f32::NAN, 0.0), "the dynamic rate");
    named(new(DynamicRule::Sgd, 0.1, 1.5), "the dynamic decay");
    let none = GradientStatistics::new(subject.parameters.as_slice().len());
    let rms = |statistics, epsilon| DynamicRule::Rms { statistics, epsilon };
    named(new(rms(&none, 0.0), 0.1, 0.0), "the dynamic epsilon");
    named(new(rms(&none, 0.1), 0.1, 0.0), "windows of the gradient statistics");
    let foreign = GradientStatistics::new(3);
    assert!(matches!(new(rms(&foreign, 0.1), 0.1, 0.0), Some(ModelError::Length { found: 3, .. })));
    assert_eq!(new(DynamicRule::Sgd, 0.1, 0.1), None);
}

#[test]
fn scores_are_the_losses_of_an_evaluation_place_by_place() {
    let mut subject = Subject::new(false);
    let text = tokens(13, 3);
    let mut targets: Vec<u32> = text[1..].to_vec();
    targets[7] = IGNORED_TARGET;
    let lanes = [LaneStreams { lane: 0, first_stream: 0, streams: 2 }];
    let window = Window {
        seed: 0,
        step: 0,
        steps: 6,
        lanes: &lanes,
        inputs: &text[..12],
        targets: &targets,
        step_tokens: 11,
    };
    let (model, parameters) = (&mut subject.model, &subject.parameters);
    let mut carries = vec![0.1; 2 * subject.config.carry_len()];
    let mut scored = carries.clone();
    let evaluated = model.evaluate(parameters, &window, &mut carries).unwrap();
    let mut scores = carousel_model::Scores::default();
    model.score(parameters, &window, &mut scored, &mut scores).unwrap();
    assert_eq!(scored, carries);
    assert_eq!(scores.losses.iter().sum::<f64>(), evaluated[0].sum);
    assert_eq!(scores.losses[7], 0.0);
    let width = subject.config.hidden;
    let last = &scores.hidden[10 * width..];
    assert_eq!(last, &carries[..], "the last step's outputs are the carries of a network without cell state");
    let naive = Naive::new(&subject.config, &subject.parameters);
    let mut h = vec![0.1f32 as f64; width];
    for (step, row) in (0..12).step_by(2).enumerate() {
        naive.step(text[row], &mut h);
        let found = &scores.hidden[row * width..(row + 1) * width];
        let near = found.iter().zip(&h).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-5);
        assert!(near, "step {step} of the first stream: {found:?}, expected {h:?}");
    }
}
