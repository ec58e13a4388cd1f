//! Sampled softmax: in training a row's target is told from the step's drawn tokens alone, with logits corrected by the log of how often
//! each is expected among them. Jean et al. 2015, section 3; see [`super::Softmax::Sampled`]. Elsewhere it is the full softmax.
//!
//! Column j is the j-th drawn token. A row whose target was drawn finds it there, which is what removing accidental hits comes to; every
//! other row brings its target's logit along. The decoder's gradient is rows: those of the drawn tokens, which every group touches, one
//! chain a lane over all its rows; and those of other targets, touched as the embedding's are.

use std::ops::Range;

use super::{
    Aim, Model, Runs, decoder,
    full::{FullSoftmax, Targets},
    negatives::Negatives,
    place, scale, split, targets,
};
use crate::{
    IGNORED_TARGET, Window, embedding,
    kernels::{
        Context, Decoder, Lanes, Outputs, PackedRight, Panels, Source, TargetRow, View, add_target_weights,
        gather, large_vec, multiply_rows, target_products,
    },
};

/// Floats of logits that an evaluation holds at a time.
const LOGITS: usize = 1 << 26;

/// What the head keeps of a window. T·B rows, S drawn tokens.
pub(super) struct Sampled {
    samples: usize,
    softmax: FullSoftmax,
    drawn: Drawn,
    own: Own,
    /// The drawn tokens' rows of each group of lanes.
    touched: Vec<(Range<usize>, Vec<f32>)>,
    /// (T·B) losses of an evaluation; none in training.
    evaluated: Vec<f64>,
    aim: Aim,
}

/// The drawn tokens as a layer of their own.
#[derive(Default)]
struct Drawn {
    negatives: Negatives,
    /// (S, H) their weights, and (S) their biases, corrected.
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// (T·B) the column of each target; ignored where it was not drawn.
    columns: Vec<u32>,
}

/// The targets that were not drawn, and their rows.
#[derive(Default)]
struct Own {
    pairs: Vec<TargetRow>,
    /// (T·B) their corrected logits.
    logits: Vec<Option<f32>>,
    /// (T·B) those targets; ignored elsewhere.
    tokens: Vec<u32>,
    /// (T·B, H) the hidden units; after `backward` their products with the logit's gradient.
    hidden: Panels,
    /// (T·B, 1) that gradient; 0 elsewhere.
    gradient: Panels,
}

impl Sampled {
    pub(super) fn new(samples: usize) -> Self {
        Self {
            samples,
            softmax: FullSoftmax::default(),
            drawn: Drawn::default(),
            own: Own::default(),
            touched: Vec::new(),
            evaluated: Vec::new(),
            aim: Aim::Predict,
        }
    }

    pub(super) fn forward(
        &mut self,
        ctx: Context<'_>,
        model: Model<'_>,
        (window, aim): (&Window<'_>, Aim),
        hidden: View<'_>,
    ) {
        self.aim = aim;
        match aim {
            Aim::Predict => self.softmax.forward(ctx, decoder(model), hidden, hidden.row_count()),
            Aim::Evaluate => self.evaluate(ctx, model, window, hidden),
            Aim::Train => {
                self.drawn.draw(ctx, decoder(model), (window.seed, window.step), self.samples);
                self.drawn.place(window.targets);
                self.softmax.forward(ctx, self.drawn.decoder(), hidden, hidden.row_count());
                self.own.forward(ctx, decoder(model), (&self.drawn, window.targets), hidden);
            }
        }
    }

    /// The full softmax, some rows at a time.
    fn evaluate(&mut self, ctx: Context<'_>, model: Model<'_>, window: &Window<'_>, hidden: View<'_>) {
        let (rows, decoder) = (hidden.row_count(), decoder(model));
        let most = (LOGITS / decoder.bias.len()).clamp(1, rows);
        self.evaluated.clear();
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            self.softmax.forward(ctx, decoder, hidden.rows(first, count), most);
            let columns = &window.targets[first..first + count];
            self.softmax.row_losses(ctx, Targets { columns, ..targets(window, 0.0) });
            self.evaluated.extend(self.softmax.losses().iter().map(|row| row.loss));
        }
    }

    pub(super) fn losses(&mut self, ctx: Context<'_>, window: &Window<'_>, losses: &mut [f64]) {
        match self.aim {
            Aim::Predict => losses.fill(0.0),
            Aim::Evaluate => losses.copy_from_slice(&self.evaluated),
            Aim::Train => {
                let targets = Targets { columns: &self.drawn.columns, scale: scale(window), smoothing: 0.0 };
                self.softmax.row_losses_with_own(ctx, &self.own.logits, targets);
                losses.iter_mut().zip(self.softmax.losses()).for_each(|(loss, row)| *loss = row.loss);
            }
        }
    }

    pub(super) fn copy_logits(&self, row: usize, logits: &mut [f32]) {
        self.softmax.logits().get_row(row, logits);
    }

    pub(super) fn backward(
        &mut self,
        ctx: Context<'_>,
        model: Model<'_>,
        (window, lanes): (&Window<'_>, Lanes<'_>),
        (hidden, gradient): (&PackedRight, &mut Panels),
        runs: Runs<'_, '_>,
    ) {
        let (samples, units) = (self.drawn.bias.len(), model.0.hidden);
        let room = |floats: usize| lanes.groups.iter().map(move |_| large_vec(floats));
        let mut weights: Vec<Vec<f32>> = room(samples * units).collect();
        let mut biases: Vec<Vec<f32>> = room(samples).collect();
        let outputs = (
            Outputs::new(weights.iter_mut().map(|run| &mut run[..]), units),
            Some(Outputs::new(biases.iter_mut().map(|run| &mut run[..]), samples)),
        );
        let targets = Targets { columns: &self.drawn.columns, scale: scale(window), smoothing: 0.0 };
        self.softmax.backward(ctx, self.drawn.decoder(), (targets, lanes), (hidden, gradient), outputs);
        self.own.backward(ctx, decoder(model), (&self.softmax, targets.scale), gradient);
        let bias = split(runs, &[place(model.1, "decoder.bias")]).remove(0);
        for ((run, biases), group) in bias.into_iter().zip(&biases).zip(lanes.groups) {
            ctx.team.run_pieces(run, 1 << 16, |_, _, piece| piece.fill(0.0));
            self.drawn.negatives.tokens.iter().zip(biases).for_each(|(&at, &sum)| run[at as usize] = sum);
            let (tokens, sums) = self.own.row_gradients(&self.own.gradient, 1, (window, group));
            tokens.iter().zip(sums).for_each(|(&at, sum)| run[at as usize] = sum);
        }
        self.touched.clear();
        self.touched.extend(lanes.groups.iter().cloned().zip(weights));
    }

    /// Appends the touched rows of a group: token + V, ascending.
    pub(super) fn append_rows(
        &self,
        (window, group): (&Window<'_>, &Range<usize>),
        (vocabulary, units): (usize, usize),
        (rows, values): (&mut Vec<u32>, &mut Vec<f32>),
    ) {
        let found = self.touched.iter().find(|(touched, _)| touched == group);
        let (_, drawn) = found.expect("every group of the window went backward");
        let (tokens, own) = self.own.row_gradients(&self.own.hidden, units, (window, group));
        values.reserve(drawn.len() + own.len());
        let mut own = tokens.into_iter().zip(own.chunks_exact(units)).peekable();
        for (&token, row) in self.drawn.negatives.tokens.iter().zip(drawn.chunks_exact(units)) {
            while let Some((before, row)) = own.next_if(|(before, _)| *before < token) {
                rows.push(before + vocabulary as u32);
                values.extend_from_slice(row);
            }
            rows.push(token + vocabulary as u32);
            values.extend_from_slice(row);
        }
        for (token, row) in own {
            rows.push(token + vocabulary as u32);
            values.extend_from_slice(row);
        }
    }
}

impl Drawn {
    fn decoder(&self) -> Decoder<'_> {
        let row = self.weight.len() / self.bias.len().max(1);
        Decoder { weight: Source { values: &self.weight, row }, bias: &self.bias }
    }

    /// Draws the step's tokens and copies their weights.
    fn draw(&mut self, ctx: Context<'_>, decoder: Decoder<'_>, at: (u64, u64), samples: usize) {
        let (units, all) = (decoder.weight.row, decoder.weight.values);
        self.negatives = Negatives::draw(at, samples, decoder.bias.len());
        let tokens = &self.negatives.tokens;
        self.weight.resize(samples * units, 0.0);
        ctx.team.run_pieces(&mut self.weight, units, |_, column, row| {
            row.copy_from_slice(&all[tokens[column] as usize * units..][..units]);
        });
        self.bias.clear();
        let bias = |&token: &u32| corrected(decoder, &self.negatives, token);
        self.bias.extend(tokens.iter().map(bias));
    }

    fn place(&mut self, targets: &[u32]) {
        let column = |&target: &u32| self.negatives.column(target).map_or(IGNORED_TARGET, |at| at as u32);
        self.columns.clear();
        self.columns.extend(targets.iter().map(column));
    }
}

/// A token's bias, less the log of how often it is expected among the drawn ones.
fn corrected(decoder: Decoder<'_>, negatives: &Negatives, token: u32) -> f32 {
    (f64::from(decoder.bias[token as usize]) - negatives.log_expected(token)) as f32
}

impl Own {
    fn forward(
        &mut self,
        ctx: Context<'_>,
        decoder: Decoder<'_>,
        (drawn, targets): (&Drawn, &[u32]),
        hidden: View<'_>,
    ) {
        let own = |row: &usize| targets[*row] != IGNORED_TARGET && drawn.columns[*row] == IGNORED_TARGET;
        self.pairs.clear();
        let pair = |row: usize| TargetRow { row, target: targets[row] as usize };
        self.pairs.extend((0..targets.len()).filter(own).map(pair));
        let mut products = vec![0.0; self.pairs.len()];
        target_products(ctx, hidden, decoder.weight, &self.pairs, &mut products);
        self.logits.clear();
        self.logits.resize(targets.len(), None);
        self.tokens.clear();
        self.tokens.resize(targets.len(), IGNORED_TARGET);
        for (pair, product) in self.pairs.iter().zip(products) {
            let token = pair.target as u32;
            self.tokens[pair.row] = token;
            self.logits[pair.row] = Some(product + corrected(decoder, &drawn.negatives, token));
        }
        let rows: Vec<usize> = (0..targets.len()).collect();
        self.hidden.shape(rows.len(), hidden.columns());
        gather(ctx.team, hidden, &rows, &mut self.hidden);
    }

    /// The gradients of the rows' own logits; through them, that of the hidden units, and the products that the rows' weights add up.
    fn backward(
        &mut self,
        ctx: Context<'_>,
        decoder: Decoder<'_>,
        (softmax, scale): (&FullSoftmax, f64),
        gradient: &mut Panels,
    ) {
        let mut factors = vec![0.0; self.logits.len()];
        for ((factor, logit), row) in factors.iter_mut().zip(&self.logits).zip(softmax.losses()) {
            *factor = logit.map_or(0.0, |logit| row.own_gradient(logit, scale));
        }
        add_target_weights(ctx, (&self.pairs, &factors), decoder.weight, gradient);
        multiply_rows(ctx.team, &factors, &mut self.hidden);
        self.gradient.shape(factors.len(), 1);
        factors.iter().enumerate().for_each(|(row, factor)| self.gradient.set_row(row, &[*factor]));
    }

    /// As the embedding's: a chain a lane over the rows with this target, lanes without one absent.
    fn row_gradients(
        &self,
        of: &Panels,
        width: usize,
        (window, group): (&Window<'_>, &Range<usize>),
    ) -> (Vec<u32>, Vec<f32>) {
        embedding::row_gradients(of, width, &self.tokens, window.lanes, group.clone())
    }
}
