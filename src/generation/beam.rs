//! Beam search: the likeliest text that a model can write after a prompt, as far as the beam sees. Texts of different length
//! are compared by `log p / lp(n)` with `lp(n) = ((5 + n) / 6)^alpha` over their n tokens (Wu et al., "Google's neural machine
//! translation system", 2016, section 7, equation 14, without coverage).
//!
//! No randomness: of equal candidates the one of the better beam comes first, then the lower token.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicBool, Ordering};

use carousel_corpus::Tokenizer;
use carousel_model::ModelError;

use super::choice::log_total;
use super::output::Output;
use super::stop::{Passed, StopGuard};
use super::{Ended, Prompt, Settings, WritingError, Written};
use crate::checkpoint_model::CheckpointModel;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BeamOptions {
    /// Texts that are gone on with at a time.
    pub width: usize,
    /// alpha: 0 compares log-probabilities as they are, above it longer texts gain.
    pub length_penalty: f64,
}

/// What the search asks of a model.
trait Continuations {
    /// What the model keeps of a text.
    type State: Clone;

    /// Takes a token in after each of some texts: their states move on, and the log-probabilities of what may follow come
    /// back, every text's V after the other's.
    fn read(&mut self, states: &mut [Self::State], tokens: &[u32]) -> Result<Vec<f64>, ModelError>;
}

/// A text on its way.
#[derive(Clone, Debug)]
struct Hypothesis<S> {
    tokens: Vec<u32>,
    log_probability: f64,
    state: S,
}

/// A text that has ended.
#[derive(Clone, Debug, PartialEq)]
struct Finished {
    tokens: Vec<u32>,
    log_probability: f64,
    score: f64,
    ended: Ended,
}

/// The bounds of a search.
struct Search<'a> {
    options: BeamOptions,
    /// Tokens of a text, at most.
    longest: usize,
    /// The string that ends a text, if it does.
    stop: &'a dyn Fn(&[u32]) -> Option<String>,
    interrupted: &'a AtomicBool,
}

/// Writes the `settings.samples` best texts after every prompt.
pub(super) fn write(
    model: &mut CheckpointModel,
    prompts: &[Prompt],
    (settings, options): (&Settings, BeamOptions),
    (mut output, interrupted): (Output, &AtomicBool),
) -> Result<(), WritingError> {
    let tokenizer = model.tokenizer.clone();
    let mut job = 0;
    for prompt in prompts {
        let stop = |tokens: &[u32]| match &settings.stops[..] {
            [] => None,
            stops => text_after(&tokenizer, prompt, tokens, stops).1,
        };
        let longest = usize::try_from(settings.tokens).unwrap_or(usize::MAX);
        let search = Search { options, longest, stop: &stop, interrupted };
        let mut carries = vec![vec![0.0; model.carry_floats]];
        let mut following = Vec::new();
        for &token in &prompt.tokens {
            following = model.read(&mut carries, &[token])?;
        }
        let found = search.run(model, (carries.remove(0), following))?;
        for Finished { tokens, log_probability, score, ended } in
            found.into_iter().take(settings.samples as usize)
        {
            let text = text_after(&tokenizer, prompt, &tokens, &settings.stops).0;
            output.prompt(job, &prompt.text)?;
            output.piece(job, &text)?;
            let score = Some(score);
            output.ended(job, Written { text, tokens, log_probability, score, ended })?;
            job += 1;
        }
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
    }
    output.finish()
}

/// The text of `tokens` behind a prompt, up to the string that ends it.
fn text_after(
    tokenizer: &Tokenizer,
    prompt: &Prompt,
    tokens: &[u32],
    stops: &[String],
) -> (String, Option<String>) {
    let (mut decoder, mut guard) = (tokenizer.stream(), StopGuard::new(stops));
    prompt.tokens.iter().for_each(|&token| drop(decoder.push(token)));
    let mut text: String = tokens.iter().map(|&token| decoder.push(token)).collect();
    text.push_str(&decoder.finish());
    let Passed { text: mut before, stop } = guard.push(&text);
    if stop.is_none() {
        before.push_str(&guard.finish());
    }
    (before, stop)
}

impl Continuations for CheckpointModel {
    type State = Vec<f32>;

    fn read(&mut self, states: &mut [Vec<f32>], tokens: &[u32]) -> Result<Vec<f64>, ModelError> {
        let mut carries = states.concat();
        let mut logits = vec![0.0; tokens.len() * self.vocabulary];
        self.model.next_logits(&self.parameters, tokens, &mut carries, &mut logits)?;
        for (state, carry) in states.iter_mut().zip(carries.chunks_exact(self.carry_floats)) {
            state.copy_from_slice(carry);
        }
        let of_one = |logits: &[f32]| {
            let total = log_total(logits);
            logits.iter().map(|&logit| f64::from(logit) - total).collect::<Vec<f64>>()
        };
        Ok(logits.chunks_exact(self.vocabulary).flat_map(of_one).collect())
    }
}

impl Search<'_> {
    /// The texts found, best first; at most as many as the beam is wide.
    fn run<M: Continuations>(
        &self,
        model: &mut M,
        (state, mut following): (M::State, Vec<f64>),
    ) -> Result<Vec<Finished>, ModelError> {
        let mut alive = vec![Hypothesis { tokens: Vec::new(), log_probability: 0.0, state }];
        let mut finished: Vec<Finished> = Vec::new();
        for length in 1..=self.longest {
            let grown = self.grow(&alive, &following, &mut finished);
            self.keep_the_best(&mut finished);
            if grown.is_empty() || self.is_decided(&grown, &finished) {
                alive.clear();
                break;
            }
            let (tokens, mut states): (Vec<u32>, Vec<M::State>) =
                grown.iter().map(|text| (text.tokens[text.tokens.len() - 1], text.state.clone())).unzip();
            alive = grown;
            if length < self.longest {
                following = model.read(&mut states, &tokens)?;
                alive.iter_mut().zip(states).for_each(|(text, state)| text.state = state);
            }
            if self.interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
        let is_whole = |text: &Hypothesis<M::State>| text.tokens.len() == self.longest;
        let ended =
            |text: &Hypothesis<M::State>| if is_whole(text) { Ended::Tokens } else { Ended::Interrupted };
        finished.extend(
            alive.iter().map(|text| self.finish(text.tokens.clone(), text.log_probability, ended(text))),
        );
        self.keep_the_best(&mut finished);
        Ok(finished)
    }

    /// One token more: the best texts that go on, and those that have ended on the way.
    fn grow<S: Clone>(
        &self,
        alive: &[Hypothesis<S>],
        following: &[f64],
        finished: &mut Vec<Finished>,
    ) -> Vec<Hypothesis<S>> {
        let vocabulary = following.len() / alive.len();
        let total = |at: usize| alive[at / vocabulary].log_probability + following[at];
        let mut candidates: Vec<(f64, usize)> = (0..following.len()).map(|at| (total(at), at)).collect();
        let better = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        candidates.sort_unstable_by(better);
        let mut grown = Vec::with_capacity(self.options.width);
        for (log_probability, at) in candidates {
            if grown.len() == self.options.width || log_probability == f64::NEG_INFINITY {
                break;
            }
            let parent = &alive[at / vocabulary];
            let mut tokens = parent.tokens.clone();
            tokens.push((at % vocabulary) as u32);
            match (self.stop)(&tokens) {
                Some(stop) => finished.push(self.finish(tokens, log_probability, Ended::Stop(stop))),
                None => grown.push(Hypothesis { tokens, log_probability, state: parent.state.clone() }),
            }
        }
        grown
    }

    fn finish(&self, tokens: Vec<u32>, log_probability: f64, ended: Ended) -> Finished {
        let score = log_probability / self.penalty(tokens.len());
        Finished { tokens, log_probability, score, ended }
    }

    /// lp(n).
    fn penalty(&self, length: usize) -> f64 {
        libm::pow((5.0 + length as f64) / 6.0, self.options.length_penalty)
    }

    /// Best first, and no more than the beam is wide.
    fn keep_the_best(&self, finished: &mut Vec<Finished>) {
        let better = |a: &Finished, b: &Finished| match b.score.total_cmp(&a.score) {
            Order::Equal => a.tokens.cmp(&b.tokens),
            order => order,
        };
        finished.sort_by(better);
        finished.truncate(self.options.width);
    }

    /// Whether no text that is still alive can get among the best: a log-probability only falls, and the longest text has the
    /// mildest penalty.
    fn is_decided<S>(&self, alive: &[Hypothesis<S>], finished: &[Finished]) -> bool {
        let Some(worst) = finished.get(self.options.width - 1) else { return false };
        let most = |text: &Hypothesis<S>| text.log_probability / self.penalty(self.longest);
        alive.iter().all(|text| most(text) < worst.score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A language of four tokens whose probabilities depend on the two tokens before.
    struct Toy;

    const V: usize = 4;

    fn following((before, last): (u32, u32)) -> Vec<f64> {
        let weight =
            |token: u32| f64::from((before * 7 + last * 13 + token * 29 + token * before * 5) % 17 + 1);
        let total: f64 = (0..V as u32).map(weight).sum();
        (0..V as u32).map(|token| (weight(token) / total).ln()).collect()
    }

    impl Continuations for Toy {
        type State = (u32, u32);

        fn read(&mut self, states: &mut [(u32, u32)], tokens: &[u32]) -> Result<Vec<f64>, ModelError> {
            states.iter_mut().zip(tokens).for_each(|(state, &token)| *state = (state.1, token));
            Ok(states.iter().flat_map(|&state| following(state)).collect())
        }
    }

    const START: (u32, u32) = (0, 1);

    /// "32" ends a text.
    fn stops(tokens: &[u32]) -> Option<String> {
        tokens.ends_with(&[3, 2]).then(|| "32".to_owned())
    }

    fn searched(
        width: usize,
        length_penalty: f64,
        longest: usize,
        stop: &dyn Fn(&[u32]) -> Option<String>,
    ) -> Vec<Finished> {
        let options = BeamOptions { width, length_penalty };
        let interrupted = AtomicBool::new(false);
        let search = Search { options, longest, stop, interrupted: &interrupted };
        search.run(&mut Toy, (START, following(START))).unwrap()
    }

    /// Every text there is, with its score; best first.
    fn brute_force(
        length_penalty: f64,
        longest: usize,
        stop: &dyn Fn(&[u32]) -> Option<String>,
    ) -> Vec<(Vec<u32>, f64)> {
        let mut whole = Vec::new();
        let mut begun = vec![(Vec::<u32>::new(), 0.0)];
        while let Some((tokens, log_probability)) = begun.pop() {
            let context: Vec<u32> = [START.0, START.1].iter().chain(&tokens).copied().collect();
            let probabilities = following((context[context.len() - 2], context[context.len() - 1]));
            for (token, p) in probabilities.iter().enumerate() {
                let (mut tokens, sum) = (tokens.clone(), log_probability + p);
                tokens.push(token as u32);
                if stop(&tokens).is_some() || tokens.len() == longest {
                    let penalty = ((5.0 + tokens.len() as f64) / 6.0).powf(length_penalty);
                    whole.push((tokens, sum / penalty));
                } else {
                    begun.push((tokens, sum));
                }
            }
        }
        whole.sort_by(|a, b| b.1.total_cmp(&a.1));
        whole
    }

    #[test]
    fn a_beam_as_wide_as_the_language_finds_what_brute_force_finds() {
        for (alpha, stop) in [
            (0.0, &(|_: &[u32]| None) as &dyn Fn(&[u32]) -> Option<String>),
            (0.0, &stops),
            (0.6, &stops),
            (1.5, &stops),
        ] {
            let (found, expected) = (searched(256, alpha, 5, stop), brute_force(alpha, 5, stop));
            assert_eq!(found.len(), 256.min(expected.len()));
            for (place, (found, (tokens, score))) in found.iter().zip(&expected).enumerate() {
                assert!((found.score - score).abs() < 1e-12, "place {place}: {found:?}, {tokens:?} {score}");
            }
            assert_eq!(found[0].tokens, expected[0].0, "alpha {alpha}");
        }
    }

    #[test]
    fn the_length_penalty_changes_which_text_is_best() {
        let best = |alpha| searched(64, alpha, 6, &stops).remove(0);
        let (short, long) = (best(0.0), best(3.0));
        assert!(short.tokens.len() < long.tokens.len(), "{short:?} {long:?}");
        assert_eq!(short.ended, Ended::Stop("32".into()));
        assert_eq!(long.ended, Ended::Tokens);
    }

    #[test]
    fn a_beam_of_one_takes_the_likeliest_token_each_time() {
        let found = searched(1, 0.0, 8, &|_| None);
        let (mut state, mut greedy) = (START, Vec::new());
        for _ in 0..8 {
            let following = following(state);
            let likeliest =
                (0..V).rev().max_by(|&a, &b| following[a].total_cmp(&following[b])).unwrap() as u32;
            state = (state.1, likeliest);
            greedy.push(likeliest);
        }
        assert_eq!((found.len(), &found[0].tokens), (1, &greedy));
        let wide = searched(16, 0.0, 8, &|_| None);
        assert!(wide[0].log_probability > found[0].log_probability, "greed is not the best here");
    }

    #[test]
    fn a_search_that_is_interrupted_gives_what_it_has() {
        let interrupted = AtomicBool::new(true);
        let options = BeamOptions { width: 2, length_penalty: 0.0 };
        let search = Search { options, longest: 9, stop: &|_| None, interrupted: &interrupted };
        let found = search.run(&mut Toy, (START, following(START))).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|text| text.ended == Ended::Interrupted && text.tokens.len() == 1));
    }
}
