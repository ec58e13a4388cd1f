//! Training of a unigram language model over pieces of bytes (Kudo 2018, "Subword Regularization"; pruning and M-step as in
//! SentencePiece): from many candidate pieces, expectation maximisation and pruning in turn, until as many are left as
//! the vocabulary holds. Every sum has a fixed order, whatever the threads, and logarithms are libm's: the same text
//! gives the same bits everywhere. It encodes nothing: what comes out is a `tokenizer.json`.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use rayon::prelude::*;

use super::counts::Counted;
use super::{Subwords, json};

/// Bytes of a piece at most.
const LONGEST: usize = 16;
/// It is trained on so many of the most frequent words, which bounds memory and time.
const WORDS: usize = 500_000;
/// Candidates for each piece of the vocabulary.
const CANDIDATES: usize = 16;
/// Parts in which words are worked on, whatever the number of threads: their sums are added in order.
const PARTS: usize = 16;
/// Share of the pieces that a round leaves.
const SHRINK: f64 = 0.75;
/// A piece that is expected less often is dropped.
const LEAST_EXPECTED: f64 = 0.5;

/// A piece and the logarithm of its probability.
type Scored = (Vec<u8>, f64);

/// The `tokenizer.json` for the counted words of a text.
pub(super) fn train(counted: Counted, config: &Subwords) -> String {
    let words = most_frequent(counted);
    // One place is for the token that ends a document.
    let wanted = config.vocabulary - 1;
    let mut model = Model::new(candidates(&words, wanted, config.min_count));
    let enough = wanted + wanted / 10;
    loop {
        for _ in 0..2 {
            let expected = model.expected(&words);
            model = model.maximised(&expected);
        }
        if model.pieces.len() <= enough {
            break;
        }
        let target = enough.max((model.pieces.len() as f64 * SHRINK) as usize);
        model = model.pruned(&words, target);
    }
    let mut pieces = model.pieces;
    pieces.sort_by(by_score);
    let mut room = wanted.saturating_sub(256);
    pieces.retain(|(piece, _)| {
        let stays = piece.len() == 1 || room > 0;
        room -= usize::from(stays && piece.len() > 1);
        stays
    });
    json::unigram(pieces.iter().map(|(piece, score)| (piece.as_slice(), *score)))
}

/// The highest score first; equal ones by their bytes.
fn by_score(a: &Scored, b: &Scored) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0))
}

fn most_frequent(mut counted: Counted) -> Vec<(Vec<u8>, f64)> {
    counted.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
    counted.truncate(WORDS);
    counted.into_iter().map(|(word, count)| (word.as_bytes().to_vec(), count as f64)).collect()
}

/// All bytes, and the parts of words that cover most of the text, each with its share of that.
fn candidates(words: &[(Vec<u8>, f64)], wanted: usize, min_count: u64) -> Vec<Scored> {
    let mut counts: HashMap<&[u8], f64, FixedState> = HashMap::with_hasher(FixedState::with_seed(1));
    for (word, count) in words {
        for start in 0..word.len() {
            for end in start + 1..=word.len().min(start + LONGEST) {
                *counts.entry(&word[start..end]).or_default() += count;
            }
        }
    }
    let single =
        (0..=u8::MAX).map(|byte| (vec![byte], counts.get(&[byte][..]).copied().unwrap_or(0.0).max(1.0)));
    let longer = counts.iter().filter(|(piece, count)| piece.len() > 1 && **count >= min_count as f64);
    let mut longer: Vec<Scored> =
        longer.map(|(piece, count)| (piece.to_vec(), count * piece.len() as f64)).collect();
    longer.sort_unstable_by(by_score);
    longer.truncate(wanted * CANDIDATES);
    let mut pieces: Vec<Scored> = single.chain(longer).collect();
    let sum: f64 = pieces.iter().map(|(_, share)| share).sum();
    pieces.iter_mut().for_each(|(_, share)| *share = libm::log(*share / sum));
    pieces
}

/// Pieces, every single byte among them.
struct Model {
    pieces: Vec<Scored>,
    ids: HashMap<Vec<u8>, u32, FixedState>,
}

impl Model {
    fn new(pieces: Vec<Scored>) -> Self {
        let mut ids = HashMap::with_capacity_and_hasher(pieces.len(), FixedState::with_seed(2));
        ids.extend(pieces.iter().map(|(piece, _)| piece.clone()).zip(0..));
        Model { pieces, ids }
    }

    /// The pieces that end at `end`, and where each begins.
    fn ending(&self, word: &[u8], end: usize) -> impl Iterator<Item = (usize, u32)> {
        let starts = end.saturating_sub(LONGEST)..end;
        starts.filter_map(move |start| self.ids.get(&word[start..end]).map(|&id| (start, id)))
    }

    fn score(&self, id: u32) -> f64 {
        self.pieces[id as usize].1
    }

    /// Sums over words, each part by itself and the parts in order. `add` has one word and its part's sums.
    fn sums(&self, words: &[(Vec<u8>, f64)], add: impl Fn(&[u8], f64, &mut [f64]) + Sync) -> Vec<f64> {
        let part = |words: &[(Vec<u8>, f64)]| {
            let mut sums = vec![0.0; self.pieces.len()];
            words.iter().for_each(|(word, count)| add(word, *count, &mut sums));
            sums
        };
        let parts: Vec<Vec<f64>> = words.par_chunks(words.len().div_ceil(PARTS).max(1)).map(part).collect();
        let mut sums = vec![0.0; self.pieces.len()];
        for part in parts {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        sums
    }

    /// How often each piece is expected in the words, over all ways to cut them (E-step: forward and backward).
    fn expected(&self, words: &[(Vec<u8>, f64)]) -> Vec<f64> {
        self.sums(words, |word, count, sums| self.add_expected(word, count, sums))
    }

    fn add_expected(&self, word: &[u8], count: f64, sums: &mut [f64]) {
        let mut forward = vec![f64::NEG_INFINITY; word.len() + 1];
        forward[0] = 0.0;
        for end in 1..=word.len() {
            for (start, id) in self.ending(word, end) {
                forward[end] = log_add(forward[end], forward[start] + self.score(id));
            }
        }
        let mut backward = vec![f64::NEG_INFINITY; word.len() + 1];
        backward[word.len()] = 0.0;
        let whole = forward[word.len()];
        for end in (1..=word.len()).rev() {
            for (start, id) in self.ending(word, end) {
                let behind = backward[end] + self.score(id);
                sums[id as usize] += count * libm::exp(forward[start] + behind - whole);
                backward[start] = log_add(backward[start], behind);
            }
        }
    }

    /// The model that makes what was expected likely, with a prior for few pieces (M-step).
    fn maximised(&self, expected: &[f64]) -> Self {
        let stays = |piece: &[u8], count: f64| piece.len() == 1 || count >= LEAST_EXPECTED;
        let kept: Vec<(&Vec<u8>, f64)> = self
            .pieces
            .iter()
            .zip(expected)
            .filter(|((piece, _), count)| stays(piece, **count))
            .map(|((piece, _), count)| (piece, count.max(LEAST_EXPECTED)))
            .collect();
        let whole = digamma(kept.iter().map(|(_, count)| count).sum());
        Self::new(kept.into_iter().map(|(piece, count)| (piece.clone(), digamma(count) - whole)).collect())
    }

    /// Without the pieces whose loss makes the text least less likely, until `target` are left.
    fn pruned(&self, words: &[(Vec<u8>, f64)], target: usize) -> Self {
        let used = self.sums(words, |word, count, sums| {
            self.best_cut(word, None).into_iter().for_each(|id| sums[id as usize] += count);
        });
        let sum: f64 = used.iter().sum();
        let loss = |id: usize| -> f64 {
            let (piece, _) = &self.pieces[id];
            if piece.len() == 1 {
                return f64::INFINITY;
            }
            if used[id] == 0.0 {
                return 0.0;
            }
            let instead = self.best_cut(piece, Some(id as u32));
            let sum_then = libm::log(sum + used[id] * (instead.len() as f64 - 1.0));
            let then: f64 =
                instead.iter().map(|&other| libm::log(used[other as usize] + used[id]) - sum_then).sum();
            used[id] / sum * (libm::log(used[id]) - libm::log(sum) - then)
        };
        let mut ranked: Vec<(Scored, f64)> =
            (0..self.pieces.len()).into_par_iter().map(|id| (self.pieces[id].clone(), loss(id))).collect();
        ranked.sort_by(|(a, a_loss), (b, b_loss)| b_loss.total_cmp(a_loss).then_with(|| a.0.cmp(&b.0)));
        ranked.truncate(target.max(256));
        Self::new(ranked.into_iter().map(|(piece, _)| piece).collect())
    }

    /// The most likely way to cut `word` (Viterbi), without one piece; of equally likely ones that with the longest last
    /// piece.
    fn best_cut(&self, word: &[u8], without: Option<u32>) -> Vec<u32> {
        let mut best = vec![(f64::NEG_INFINITY, 0, 0u32); word.len() + 1];
        best[0].0 = 0.0;
        for end in 1..=word.len() {
            for (start, id) in self.ending(word, end).filter(|(_, id)| Some(*id) != without) {
                let score = best[start].0 + self.score(id);
                if score > best[end].0 {
                    best[end] = (score, start, id);
                }
            }
        }
        let (mut cut, mut at) = (Vec::new(), word.len());
        while at > 0 {
            cut.push(best[at].2);
            at = best[at].1;
        }
        cut
    }
}

/// log(exp(a) + exp(b)).
fn log_add(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY { large } else { large + libm::log1p(libm::exp(small - large)) }
}

/// The derivative of log gamma, for x > 0: recurrence up to 7, then the asymptotic series.
fn digamma(mut x: f64) -> f64 {
    let mut result = 0.0;
    while x < 7.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    let x = x - 0.5;
    let (x2, x4) = (1.0 / (x * x), 1.0 / (x * x * x * x));
    result + libm::log(x) + x2 / 24.0 - 7.0 / 960.0 * x4 + 31.0 / 8064.0 * x4 * x2 - 127.0 / 30720.0 * x4 * x4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy() -> Model {
        let pieces = [("a", 0.4), ("b", 0.3), ("ab", 0.2), ("ba", 0.06), ("aba", 0.04)];
        Model::new(pieces.map(|(piece, p): (&str, f64)| (piece.into(), p.ln())).to_vec())
    }

    /// Every way to cut a word, as ids.
    fn cuts(model: &Model, word: &[u8]) -> Vec<Vec<u32>> {
        if word.is_empty() {
            return vec![vec![]];
        }
        let firsts = (1..=word.len()).filter_map(|end| model.ids.get(&word[..end]).map(|&id| (end, id)));
        let with = |(end, id): (usize, u32)| {
            cuts(model, &word[end..])
                .into_iter()
                .map(move |rest| [vec![id], rest].concat())
                .collect::<Vec<_>>()
        };
        firsts.flat_map(with).collect()
    }

    #[test]
    fn expectations_are_those_over_every_cut() {
        let model = toy();
        for word in [&b"ab"[..], b"aba", b"abab", b"bbaab"] {
            let ways = cuts(&model, word);
            let likelihood = |way: &Vec<u32>| way.iter().map(|&id| model.score(id)).sum::<f64>().exp();
            let whole: f64 = ways.iter().map(likelihood).sum();
            let expected = model.expected(&[(word.to_vec(), 3.0)]);
            for id in 0..5u32 {
                let times = |way: &Vec<u32>| way.iter().filter(|&&other| other == id).count() as f64;
                let by_hand: f64 = ways.iter().map(|way| 3.0 * times(way) * likelihood(way) / whole).sum();
                assert!((expected[id as usize] - by_hand).abs() < 1e-12, "{word:?} {id}");
            }
        }
    }

    #[test]
    fn the_best_cut_is_the_likeliest_of_all() {
        let model = toy();
        for (word, without) in [(&b"aba"[..], None), (b"aba", Some(4)), (b"abbaab", None), (b"ab", Some(2))] {
            let ways =
                cuts(&model, word).into_iter().filter(|way| without.is_none_or(|id| !way.contains(&id)));
            let score = |way: &Vec<u32>| way.iter().map(|&id| model.score(id)).sum::<f64>();
            let best = ways.map(|way| score(&way)).fold(f64::NEG_INFINITY, f64::max);
            assert!((score(&model.best_cut(word, without)) - best).abs() < 1e-12, "{word:?}");
        }
    }

    #[test]
    fn digamma_is_the_slope_of_log_gamma() {
        for x in [0.5, 1.0, 2.5, 7.0, 1000.0] {
            let slope = (libm::lgamma(x + 1e-5) - libm::lgamma(x - 1e-5)) / 2e-5;
            assert!((digamma(x) - slope).abs() < 1e-6 * slope.abs().max(1.0), "{x}");
        }
    }
}
