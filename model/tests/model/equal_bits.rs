//! The promise: instruction set, threads, and the grouping of lanes and streams change no bit.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
};

use carousel_model::{
    Cell, Gradients, IGNORED_TARGET, Initialisation, Isa, LaneLoss, LaneStreams, LanguageModel, ModelConfig,
    Parameters, Partial, Regularisation, Softmax, Window, philox4x32,
};

/// Streams of each lane: uneven, seven streams in all and more.
const LANES: [usize; 5] = [3, 1, 2, 5, 1];
const STEPS: usize = 6;

fn config(cell: Cell) -> ModelConfig {
    ModelConfig {
        cell,
        vocabulary: 37,
        embedding: 19,
        hidden: 21,
        layers: 2,
        tied: false,
        dropout: 0.3,
        init: 0.3,
        ..ModelConfig::default()
    }
}

/// Everything at once: unequal widths, every mask, every penalty, another start.
fn regularised(cell: Cell) -> ModelConfig {
    let regularisation = Regularisation {
        locked_dropout: true,
        dropout_embedding: 0.2,
        dropout_input: Some(0.2),
        dropout_hidden: None,
        dropout_output: Some(0.4),
        weight_drop: 0.3,
        activation: 2.0,
        temporal_activation: 1.0,
        label_smoothing: 0.1,
    };
    let initialisation = Initialisation::Orthogonal;
    ModelConfig { regularisation, initialisation, ..config(cell) }.with_widths(&[35, 21])
}

/// Every softmax: clusters with and without rows in a lane or in all, tails of one chunk and of several, few and many samples.
fn softmaxes() -> Vec<ModelConfig> {
    let adaptive = |vocabulary, cutoffs: &[usize], div_value| {
        let softmax = Softmax::Adaptive { cutoffs: cutoffs.to_vec(), div_value, head_bias: div_value > 2.0 };
        ModelConfig { vocabulary, softmax, ..config(Cell::Lstm) }
    };
    let sampled = |vocabulary, samples| {
        let softmax = Softmax::Sampled { samples };
        ModelConfig { vocabulary, embedding: 21, softmax, ..config(Cell::Lstm) }
    };
    vec![
        adaptive(37, &[5, 14, 36], 2.0),
        adaptive(3001, &[7, 700, 2990], 2.5),
        adaptive(37, &[], 4.0),
        sampled(37, 11),
        sampled(3001, 600),
    ]
}

/// A window of these lanes of the whole, with its carries.
struct Part {
    lanes: Vec<LaneStreams>,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    carries: Vec<f32>,
}

fn word(kind: u32, stream: usize, at: usize) -> u32 {
    philox4x32([kind, stream as u32, at as u32, 0], [5, 6])[0]
}

impl Part {
    fn of(config: &ModelConfig, lanes: Range<usize>) -> Self {
        let first = |lane: usize| LANES[..lane].iter().sum();
        let lanes: Vec<_> =
            lanes.map(|lane| LaneStreams { lane, first_stream: first(lane), streams: LANES[lane] }).collect();
        let streams: Vec<usize> =
            lanes.iter().flat_map(|l| l.first_stream..l.first_stream + l.streams).collect();
        let tokens = |kind: u32| {
            let token = move |at: usize, stream: usize| word(kind, stream, at) % config.vocabulary as u32;
            (0..STEPS).flat_map(|at| streams.iter().map(move |&stream| token(at, stream))).collect::<Vec<_>>()
        };
        let ignore = |at: usize| word(3, streams[at % streams.len()], at / streams.len()).is_multiple_of(9);
        let target = |(at, token)| if ignore(at) { IGNORED_TARGET } else { token };
        let targets: Vec<u32> = tokens(1).into_iter().enumerate().map(target).collect();
        let carry = |stream: &usize| {
            let stream = *stream;
            (0..config.carry_len()).map(move |at| word(2, stream, at) as f32 / u32::MAX as f32 - 0.5)
        };
        Self { lanes, inputs: tokens(0), targets, carries: streams.iter().flat_map(carry).collect() }
    }

    fn window(&self) -> Window<'_> {
        Window {
            seed: 7,
            step: 1 << 33,
            steps: STEPS,
            lanes: &self.lanes,
            inputs: &self.inputs,
            targets: &self.targets,
            step_tokens: 70,
        }
    }
}

/// Computes with these vectors and threads: gradients, and the carries after.
fn compute(
    config: &ModelConfig,
    part: &Part,
    groups: &[Range<usize>],
    (isa, threads): (Isa, usize),
) -> (Gradients, Vec<f32>) {
    let parameters = Parameters::initial(config, 3);
    let mut model = LanguageModel::with_isa(config.clone(), isa).unwrap();
    let mut carries = part.carries.clone();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let gradients =
        pool.install(|| model.gradients(&parameters, &part.window(), &mut carries, groups)).unwrap();
    (gradients, carries)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn assert_same(what: &str, a: &(Gradients, Vec<f32>), b: &(Gradients, Vec<f32>)) {
    assert_eq!(a.0.losses, b.0.losses, "{what}: losses");
    assert_eq!(bits(&a.1), bits(&b.1), "{what}: carries");
    for (a, b) in a.0.partials.iter().zip(&b.0.partials) {
        assert_eq!(bits(&a.dense), bits(&b.dense), "{what}: dense gradient");
        assert_eq!(a.rows, b.rows, "{what}: touched rows");
        assert_eq!(bits(&a.row_values), bits(&b.row_values), "{what}: row gradients");
    }
}

#[test]
fn instruction_sets_and_threads() {
    for cell in Cell::ALL {
        let plain = [false, true].map(|tied| ModelConfig {
            tied,
            embedding: if tied { 21 } else { 19 },
            ..config(cell)
        });
        for config in plain.into_iter().chain([regularised(cell)]) {
            let part = Part::of(&config, 0..5);
            let portable = *Isa::available().last().unwrap();
            let reference = compute(&config, &part, &[0..5], (portable, 1));
            assert!(reference.0.partials[0].dense.iter().any(|&x| x != 0.0));
            for isa in Isa::available() {
                for threads in [1, 2, 3] {
                    let found = compute(&config, &part, &[0..5], (isa, threads));
                    assert_same(&format!("{cell} {} {threads} threads", isa.name()), &reference, &found);
                }
            }
        }
    }
}

#[test]
fn instruction_sets_and_threads_under_every_softmax() {
    for config in softmaxes() {
        let part = Part::of(&config, 0..5);
        let portable = *Isa::available().last().unwrap();
        let reference = compute(&config, &part, &[0..5], (portable, 1));
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                let found = compute(&config, &part, &[0..5], (isa, threads));
                let what = format!("{:?} {} {threads} threads", config.softmax, isa.name());
                assert_same(&what, &reference, &found);
            }
        }
    }
}

/// Lanes computed apart, by different workers, are the leaves of the tree that one worker folds inside.
#[test]
fn grouping_of_lanes() {
    let cells = Cell::ALL.into_iter().flat_map(|cell| [config(cell), regularised(cell)]);
    for config in cells.chain(softmaxes()) {
        let regularised = config.regularisation.locked_dropout;
        let cell = format!("{} {:?}", config.cell, config.softmax);
        let best = (Isa::available()[0], 2);
        let whole = compute(&config, &Part::of(&config, 0..5), &[0..5], best);
        let leaves: Vec<_> =
            (0..5).map(|lane| compute(&config, &Part::of(&config, lane..lane + 1), &[0..1], best)).collect();
        let losses: Vec<LaneLoss> = leaves.iter().map(|leaf| leaf.0.losses[0]).collect();
        assert_eq!(losses, whole.0.losses, "{cell}, regularised: {regularised}");
        assert!(losses.iter().map(|l| l.tokens).sum::<u64>() < 12 * STEPS as u64, "some targets are ignored");
        let carries: Vec<f32> = leaves.iter().flat_map(|leaf| leaf.1.clone()).collect();
        assert_eq!(bits(&carries), bits(&whole.1), "{cell}");
        let leaf = |i: usize| Sum::of(&leaves[i].0.partials[0]);
        let tree = leaf(0).add(leaf(1)).add(leaf(2).add(leaf(3))).add(leaf(4));
        let expected = Sum::of(&whole.0.partials[0]);
        assert_eq!(tree.bits(), expected.bits(), "{cell}: leaves");
        let (pairs, _) = compute(&config, &Part::of(&config, 0..5), &[0..2, 2..4, 4..5], best);
        let node = |i: usize| Sum::of(&pairs.partials[i]);
        assert_eq!(node(0).add(node(1)).add(node(2)).bits(), expected.bits(), "{cell}: inner nodes");
    }
}

/// A partial as a receiver adds it: dense by element, rows by token, an absent row left out.
struct Sum {
    dense: Vec<f32>,
    rows: BTreeMap<u32, Vec<f32>>,
}

impl Sum {
    fn of(partial: &Partial) -> Self {
        let width = partial.row_values.len() / partial.rows.len();
        let rows = partial.rows.iter().zip(partial.row_values.chunks(width));
        Self { dense: partial.dense.clone(), rows: rows.map(|(&row, v)| (row, v.to_vec())).collect() }
    }

    fn add(mut self, right: Self) -> Self {
        self.dense.iter_mut().zip(right.dense).for_each(|(a, b)| *a += b);
        for (row, values) in right.rows {
            match self.rows.entry(row) {
                Entry::Vacant(place) => drop(place.insert(values)),
                Entry::Occupied(mut left) => left.get_mut().iter_mut().zip(values).for_each(|(a, b)| *a += b),
            }
        }
        self
    }

    fn bits(&self) -> (Vec<u32>, Vec<(u32, Vec<u32>)>) {
        (bits(&self.dense), self.rows.iter().map(|(&row, values)| (row, bits(values))).collect())
    }
}

/// Evaluation and generation walk the same forward path.
#[test]
fn evaluation_gives_the_loss_of_training_without_dropout() {
    let config = ModelConfig { dropout: 0.0, ..config(Cell::Lstm) };
    let part = Part::of(&config, 0..5);
    let parameters = Parameters::initial(&config, 3);
    let mut model = LanguageModel::new(config.clone()).unwrap();
    let (mut trained, mut evaluated, mut stepped) =
        (part.carries.clone(), part.carries.clone(), part.carries.clone());
    let gradients = model.gradients(&parameters, &part.window(), &mut trained, &[0..5]).unwrap();
    let losses = model.evaluate(&parameters, &part.window(), &mut evaluated).unwrap();
    assert_eq!(gradients.losses, losses);
    assert_eq!(bits(&trained), bits(&evaluated));
    let mut logits = vec![0.0; 12 * config.vocabulary];
    for tokens in part.inputs.chunks(12) {
        model.next_logits(&parameters, tokens, &mut stepped, &mut logits).unwrap();
    }
    assert_eq!(bits(&stepped), bits(&trained));
    assert!(logits.iter().all(|x| x.is_finite()) && logits[0] != logits[1]);
}

/// Buffers that were given back are written over in full: what they held does not matter.
#[test]
fn recycled_buffers_leave_no_trace() {
    let tied = Cell::ALL.map(|cell| ModelConfig { tied: true, embedding: 21, ..config(cell) });
    let cells = Cell::ALL.map(config).into_iter().chain(tied).chain(Cell::ALL.map(regularised));
    for config in cells.chain(softmaxes()) {
        let what = format!("{config:?}");
        let part = Part::of(&config, 0..5);
        let parameters = Parameters::initial(&config, 3);
        let mut model = LanguageModel::new(config).unwrap();
        let mut compute = |carries: &[f32]| {
            let mut carries = carries.to_vec();
            let gradients =
                model.gradients(&parameters, &part.window(), &mut carries, &[0..2, 2..5]).unwrap();
            let mut spoiled = gradients.clone();
            spoiled.partials.iter_mut().for_each(|partial| partial.dense.fill(f32::NAN));
            model.recycle(spoiled);
            (gradients, carries)
        };
        let first = compute(&part.carries);
        let second = compute(&part.carries);
        assert_same(&what, &first, &second);
    }
}
