//! Gradients against differences of the loss, at odd sizes: every cell, tied weights, every regulariser, unequal widths, ignored targets.

use carousel_model::{
    Cell, GivenMasks, IGNORED_TARGET, LaneStreams, LanguageModel, ModelConfig, Parameters, Regularisation,
    Softmax, Window, philox4x32,
};

const STEPS: usize = 5;
const LANES: [LaneStreams; 2] = [
    LaneStreams { lane: 4, first_stream: 9, streams: 2 },
    LaneStreams { lane: 5, first_stream: 11, streams: 1 },
];

struct Case {
    config: ModelConfig,
    /// (B, H) what the last layer's output is multiplied by; empty: nothing.
    output_mask: Vec<f32>,
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
            output_mask: Vec::new(),
        }
    }

    /// With this mask on the last layer's output.
    fn with_output_mask(mut self, mask: Vec<f32>) -> Self {
        let units = [vec![Vec::new(); self.config.layers], vec![mask.clone()]].concat();
        self.model = self.model.with_masks(GivenMasks { units, ..GivenMasks::default() });
        Self { output_mask: mask, ..self }
    }

    /// What is minimised beside the mean cross-entropy: the penalties, and what label smoothing adds, from outputs and logits of one
    /// step after another. (Logits know no mask: not both at once.)
    fn beside(&mut self, parameters: &Parameters) -> f64 {
        let Regularisation { activation, temporal_activation, label_smoothing, .. } =
            self.config.regularisation;
        let (width, v) = (self.config.hidden, self.config.vocabulary);
        let top = (0..self.config.layers - 1).map(|layer| self.config.width(layer)).sum::<usize>();
        let (mut carries, mut logits, mut before) = (self.carries.clone(), vec![0.0; 3 * v], Vec::new());
        let (mut squares, mut changes, mut smoothed) = (0.0, 0.0, 0.0);
        for (step, tokens) in self.inputs.chunks(3).enumerate() {
            self.model.next_logits(parameters, tokens, &mut carries, &mut logits).unwrap();
            let output = |stream: usize| &carries[stream * self.config.carry_len() + top..][..width];
            let outputs: Vec<f64> = (0..3).flat_map(output).map(|&h| f64::from(h)).collect();
            for stream in 0..3 {
                let target = self.targets[3 * step + stream];
                if target == IGNORED_TARGET {
                    continue;
                }
                for (unit, output) in outputs.iter().enumerate().skip(stream * width).take(width) {
                    let mask = self.output_mask.get(unit).map_or(1.0, |&m| f64::from(m));
                    squares += (mask * output).powi(2);
                    changes += before.get(unit).map_or(0.0, |before: &f64| (output - before).powi(2));
                }
                let logits: Vec<f64> = logits[stream * v..][..v].iter().map(|&z| f64::from(z)).collect();
                smoothed += logits[target as usize] - logits.iter().sum::<f64>() / v as f64;
            }
            before = outputs;
        }
        let count = 14.0 * width as f64;
        let changes = changes / (count * (STEPS - 1) as f64 / STEPS as f64);
        f64::from(activation) * squares / count
            + f64::from(temporal_activation) * changes
            + f64::from(label_smoothing) * smoothed / 14.0
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
        let computed: f64 =
            gradient[range.clone()].iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        // A rectifier's slope jumps where a unit turns on: stay near, and pay with the loss's rounding.
        let step = if self.config.cell == Cell::RnnRelu { 5e-4 } else { 2e-3 };
        // Where the loss is steep it is curved too: nearer again, and its rounding weighs less.
        let step = step / (computed as f32 / 4.0).max(1.0);
        let mut at = |step: f32| {
            let mut moved = parameters.clone();
            let values = &mut moved.as_mut_slice()[range.clone()];
            values.iter_mut().zip(&direction).for_each(|(w, d)| *w += step * d);
            self.compute(&moved).0 + self.beside(&moved)
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
            assert_slopes(&format!("{cell}, tied {tied}"), Case::new(config));
        }
    }
}

fn assert_slopes(what: &str, mut case: Case) {
    // With this seed no rectifier is so near its kink that a step crosses it.
    let parameters = Parameters::initial(&case.config, 2);
    let (_, gradient) = case.compute(&parameters);
    for tensor in 0..parameters.layout().tensors.len() {
        let name = &parameters.layout().tensors[tensor].name;
        let (measured, computed) = case.slopes(&parameters, tensor, &gradient);
        let off = (measured - computed).abs();
        let relative = if case.config.cell == Cell::RnnRelu { 1e-2 } else { 2e-3 };
        assert!(
            off <= relative * computed.abs() + 2e-5,
            "{what}: {name}: {measured} measured, {computed} computed"
        );
        assert!(computed != 0.0, "{what}: {name} has a gradient");
    }
}

fn regularised(cell: Cell, regularisation: Regularisation) -> ModelConfig {
    ModelConfig {
        cell,
        vocabulary: 19,
        embedding: 5,
        hidden: 17,
        layers: 2,
        init: 0.3,
        regularisation,
        ..ModelConfig::default()
    }
}

/// Masks are the same at every point, so that the dropped model has slopes like any other.
#[test]
fn gradients_are_slopes_of_what_is_left_after_dropping() {
    let none = Regularisation::default();
    let all = Regularisation {
        locked_dropout: true,
        dropout_embedding: 0.3,
        dropout_input: Some(0.2),
        dropout_hidden: Some(0.4),
        dropout_output: Some(0.3),
        weight_drop: 0.4,
        ..none
    };
    for (what, regularisation) in [
        ("embedding", Regularisation { dropout_embedding: 0.4, ..none }),
        ("input", Regularisation { dropout_input: Some(0.4), ..none }),
        ("hidden", Regularisation { dropout_hidden: Some(0.4), ..none }),
        ("output", Regularisation { dropout_output: Some(0.4), ..none }),
        ("locked", Regularisation { dropout_output: None, weight_drop: 0.0, ..all }),
        ("weights", Regularisation { weight_drop: 0.4, ..none }),
        ("all", all),
    ] {
        for cell in [Cell::Lstm, Cell::Gru, Cell::LstmNoForget] {
            let config = regularised(cell, regularisation);
            assert_slopes(&format!("{what}, {cell}"), Case::new(config));
        }
        let tied = ModelConfig { embedding: 17, tied: true, ..regularised(Cell::Lstm, regularisation) };
        assert_slopes(&format!("{what}, tied"), Case::new(tied));
    }
}

#[test]
fn gradients_are_slopes_with_layers_of_unequal_width() {
    for cell in Cell::ALL.into_iter().filter(|&cell| cell != Cell::RnnRelu) {
        for tied in [false, true] {
            let regularisation = Regularisation { weight_drop: 0.3, ..Regularisation::default() };
            let config = ModelConfig {
                layers: 3,
                embedding: if tied { 17 } else { 5 },
                tied,
                dropout: 0.2,
                ..regularised(cell, regularisation)
            };
            assert_slopes(&format!("{cell}, tied {tied}"), Case::new(config.with_widths(&[23, 9, 17])));
        }
    }
}

#[test]
fn penalties_and_smoothed_targets_have_their_slopes() {
    let none = Regularisation::default();
    for (what, regularisation) in [
        ("activation", Regularisation { activation: 2.0, ..none }),
        ("temporal activation", Regularisation { temporal_activation: 3.0, ..none }),
        ("label smoothing", Regularisation { label_smoothing: 0.3, ..none }),
        ("all", Regularisation { activation: 2.0, temporal_activation: 1.0, label_smoothing: 0.1, ..none }),
    ] {
        for cell in [Cell::Lstm, Cell::Gru] {
            let config = regularised(cell, regularisation).with_widths(&[9, 17]);
            let plain = Case::new(config.without_regularisation()).compute(&Parameters::initial(&config, 2));
            let with = Case::new(config.clone()).compute(&Parameters::initial(&config, 2));
            assert_eq!(plain.0, with.0, "{what}: the reported loss stays the cross-entropy");
            assert_ne!(plain.1, with.1, "{what}: the gradient does not");
            assert_slopes(&format!("{what}, {cell}"), Case::new(config));
        }
    }
    let penalised = Regularisation { activation: 2.0, temporal_activation: 1.0, ..none };
    let mask: Vec<f32> = (0..3 * 17).map(|unit| if unit % 3 == 0 { 0.0 } else { 1.5 }).collect();
    let case = Case::new(regularised(Cell::Lstm, penalised)).with_output_mask(mask);
    assert_slopes("alpha after dropout, beta before", case);
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
        assert_slopes(&format!("{:?}", config.softmax), Case::new(config));
    }
}
