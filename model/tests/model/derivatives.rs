//! Gradients against differences of the loss, at odd sizes: every cell, tied weights, dropout, ignored targets.

use carousel_model::{
    Cell, IGNORED_TARGET, LaneStreams, LanguageModel, ModelConfig, Parameters, Softmax, Window, philox4x32,
};

const STEPS: usize = 5;
const LANES: [LaneStreams; 2] = [
    LaneStreams { lane: 4, first_stream: 9, streams: 2 },
    LaneStreams { lane: 5, first_stream: 11, streams: 1 },
];

struct Case {
    config: ModelConfig,
    model: LanguageModel,
    carries: Vec<f32>,
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

fn unit(kind: u32, at: usize) -> f32 {
    (philox4x32([kind, at as u32, 0, 0], [1, 9])[0] >> 8) as f32 / (1 << 23) as f32 - 1.0
}

impl Case {
    fn new(config: ModelConfig) -> Self {
        let tokens = |kind: u32| {
            let token = |at: usize| philox4x32([kind, at as u32, 0, 0], [3, 4])[0] % config.vocabulary as u32;
            (0..3 * STEPS).map(token).collect::<Vec<_>>()
        };
        let mut targets = tokens(1);
        targets[4] = IGNORED_TARGET;
        Self {
            model: LanguageModel::new(config.clone()).unwrap(),
            carries: (0..3 * config.carry_len()).map(|at| unit(7, at) * 0.5).collect(),
            inputs: tokens(0),
            targets,
            config,
        }
    }

    /// Mean loss, and the whole gradient in the layout of the parameters.
    fn compute(&mut self, parameters: &Parameters) -> (f64, Vec<f32>) {
        let window = Window {
            seed: 3,
            step: 2,
            steps: STEPS,
            lanes: &LANES,
            inputs: &self.inputs,
            targets: &self.targets,
            step_tokens: 14,
        };
        let mut carries = self.carries.clone();
        let gradients = self.model.gradients(parameters, &window, &mut carries, &[0..2]).unwrap();
        assert_eq!(gradients.losses.iter().map(|lane| lane.tokens).sum::<u64>(), 14);
        let layout = self.config.gradient_layout();
        let mut flat = vec![0.0; parameters.as_slice().len()];
        let partial = &gradients.partials[0];
        flat[layout.dense_offset..].copy_from_slice(&partial.dense);
        for (&row, values) in partial.rows.iter().zip(partial.row_values.chunks_exact(layout.row_width)) {
            let at = row as usize * layout.row_width;
            flat[at..].iter_mut().zip(values).for_each(|(a, b)| *a += b);
        }
        (gradients.losses.iter().map(|lane| lane.sum).sum::<f64>() / 14.0, flat)
    }

    /// The slope of the loss along a random direction in one tensor, measured and computed.
    fn slopes(&mut self, parameters: &Parameters, tensor: usize, gradient: &[f32]) -> (f64, f64) {
        let spec = parameters.layout().tensors[tensor].clone();
        let range = spec.offset..spec.offset + spec.len();
        // Towards the gradient, and somewhat aside: a direction on which the slope is not small.
        let norm =
            gradient[range.clone()].iter().map(|g| g * g).sum::<f32>().sqrt() / (spec.len() as f32).sqrt();
        let direction: Vec<f32> =
            range.clone().map(|at| gradient[at] / norm.max(1e-12) + 0.5 * unit(tensor as u32, at)).collect();
        let computed =
            gradient[range.clone()].iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        // A rectifier's slope jumps where a unit turns on: stay near, and pay with the loss's rounding.
        let step = if self.config.cell == Cell::RnnRelu { 5e-4 } else { 4e-3 };
        let mut at = |step: f32| {
            let mut moved = parameters.clone();
            let values = &mut moved.as_mut_slice()[range.clone()];
            values.iter_mut().zip(&direction).for_each(|(w, d)| *w += step * d);
            self.compute(&moved).0
        };
        // Two central differences, combined so that the third derivative drops out.
        let central = |h: f32, at: &mut dyn FnMut(f32) -> f64| (at(h) - at(-h)) / (2.0 * f64::from(h));
        let (near, far) = (central(step, &mut at), central(2.0 * step, &mut at));
        ((4.0 * near - far) / 3.0, computed)
    }
}

#[test]
fn gradients_are_slopes() {
    for cell in Cell::ALL {
        for (tied, dropout) in [(false, 0.0), (true, 0.4)] {
            let embedding = if tied { 17 } else { 5 };
            let config = ModelConfig {
                cell,
                vocabulary: 19,
                embedding,
                hidden: 17,
                layers: 2,
                tied,
                dropout,
                init: 0.4,
                ..ModelConfig::default()
            };
            // With this seed no rectifier is so near its kink that a step crosses it.
            let parameters = Parameters::initial(&config, 2);
            check(Case::new(config), &parameters);
        }
    }
}

#[test]
fn gradients_are_slopes_under_every_softmax() {
    let adaptive = |cutoffs: &[usize], head_bias| Softmax::Adaptive {
        cutoffs: cutoffs.to_vec(),
        div_value: 2.0,
        head_bias,
    };
    let softmaxes = [
        adaptive(&[4], true),
        adaptive(&[3, 11], false),
        adaptive(&[], true),
        Softmax::Sampled { samples: 5 },
    ];
    for softmax in softmaxes {
        let embedding = if matches!(softmax, Softmax::Sampled { .. }) { 17 } else { 5 };
        let config = ModelConfig {
            vocabulary: 19,
            embedding,
            hidden: 17,
            dropout: 0.4,
            init: 0.4,
            softmax,
            ..ModelConfig::default()
        };
        let parameters = Parameters::initial(&config, 2);
        check(Case::new(config), &parameters);
    }
}

fn check(mut case: Case, parameters: &Parameters) {
    let ModelConfig { cell, tied, softmax, .. } = case.config.clone();
    let (_, gradient) = case.compute(parameters);
    for tensor in 0..parameters.layout().tensors.len() {
        let name = &parameters.layout().tensors[tensor].name;
        let (measured, computed) = case.slopes(parameters, tensor, &gradient);
        let off = (measured - computed).abs();
        let relative = if cell == Cell::RnnRelu { 1e-2 } else { 2e-3 };
        assert!(
            off <= relative * computed.abs() + 2e-5,
            "{cell}, tied {tied}, {softmax:?}: {name}: {measured} measured, {computed} computed"
        );
        assert!(computed != 0.0, "{softmax:?}: {name} has a gradient");
    }
}
