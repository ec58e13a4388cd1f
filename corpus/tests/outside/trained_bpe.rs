//! Our trainer of byte pair encodings against the one of the `tokenizers` crate, and through our own type.

use std::collections::HashMap;

use carousel_corpus::{Limits, Subwords, Tokenizer, TokenizerConfig};
use proptest::prelude::*;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerImpl};

const TEXT: &str = "It's the low lower lowest of the low,  and they'll say: newer \n\n  newest, 1234 12 times!\n\
                    \tünseen Übung 龍龍 e\u{301}e\u{301} \u{a0}\u{a0}x  y\r\n<eos> we're we've I'm I'd 'tis ''' -- -- \u{2003} end ";

fn ours(text: &str, vocabulary: usize) -> Tokenizer {
    let subwords = Subwords { vocabulary, min_count: 1, ..Subwords::default() };
    Tokenizer::for_text(&TokenizerConfig::Bpe(subwords), text).unwrap()
}

/// Vocabulary and merges as the other trainer gives them.
fn theirs(text: &str, vocabulary: usize) -> Value {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(1)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from("<eos>", true)])
        .build();
    let mut tokenizer: TokenizerImpl<
        BPE,
        tokenizers::NormalizerWrapper,
        ByteLevel,
        tokenizers::PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    > = TokenizerImpl::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.train(&mut trainer, std::iter::once(text.to_owned())).unwrap();
    serde_json::from_str::<Value>(&tokenizer.to_string(false).unwrap()).unwrap()["model"].take()
}

fn assert_same(text: &str, vocabulary: usize) {
    let model: Value = serde_json::from_str(&ours(text, vocabulary).to_json()).unwrap();
    let theirs = theirs(text, vocabulary);
    assert_eq!(model["model"]["merges"], theirs["merges"], "{text:?}");
    let ids = |vocab: &Value| -> HashMap<String, u64> { serde_json::from_value(vocab.clone()).unwrap() };
    assert_eq!(ids(&model["model"]["vocab"]), ids(&theirs["vocab"]), "{text:?}");
}

#[test]
fn merges_and_ids_are_those_of_the_tokenizers_crate() {
    // Without the word that they would make a token of a text, and we do not.
    let text = TEXT.replace("<eos>", "<e>");
    for vocabulary in [257, 260, 300, 1000] {
        assert_same(&text, vocabulary);
    }
    let longer: String =
        (0..400u32).map(|n| format!("{} times {} is {}\n", n, n % 13, n * (n % 13))).collect();
    assert_same(&longer, 500);
}

proptest! {
    #[test]
    fn so_they_are_for_any_text(text in "[ab 1'lsé\n\u{a0}]{0,60}") {
        assert_same(&text, 290);
    }
}

#[test]
fn a_trained_tokenizer_gives_the_text_back_and_knows_its_end() {
    let tokenizer = ours(TEXT, 320);
    assert_eq!(tokenizer.vocabulary(), 320);
    assert_eq!((tokenizer.mark("<eos>"), tokenizer.unknown()), (Some(0), None));
    for text in [TEXT, "", "other text, with 🙂 in it\n", "<eos>"] {
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&tokens), text);
        assert!(!tokens.contains(&0), "no text makes the end of a document");
    }
    assert!(tokenizer.encode(TEXT).unwrap().len() < TEXT.len() / 2);
    assert_eq!(Tokenizer::from_json(&tokenizer.to_json()).unwrap().identity(), tokenizer.identity());
}

#[test]
fn a_unigram_model_is_the_same_for_any_number_of_threads_and_gives_the_text_back() {
    let text: String =
        (0..3000u32).map(|n| format!("{n} times {} is what we'd call {}\n", n % 31, n * 7)).collect();
    let config = TokenizerConfig::Unigram(Subwords { vocabulary: 400, ..Subwords::default() });
    let trained = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Tokenizer::for_text(&config, &text).unwrap())
    };
    let tokenizer = trained(1);
    for threads in [2, 3, 8] {
        assert_eq!(trained(threads).to_json(), tokenizer.to_json(), "{threads} threads");
    }
    assert_eq!((tokenizer.vocabulary(), tokenizer.mark("<eos>")), (400, Some(0)));
    for text in [&text, TEXT, "", "<eos>"] {
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&tokens), text);
        assert!(!tokens.contains(&0), "no text makes the end of a document");
    }
    assert!(tokenizer.encode(&text).unwrap().len() * 2 < text.len());
}

#[test]
fn a_vocabulary_is_smaller_where_the_text_gives_no_more() {
    assert_eq!(ours("ab ab ab", 1000).vocabulary(), 257 + 2, "ab, and ab behind a space");
    let subwords = Subwords { min_count: 3, ..Subwords::default() };
    let rare = Tokenizer::for_text(&TokenizerConfig::Bpe(subwords), "ab ab ab").unwrap();
    assert_eq!(rare.vocabulary(), 257 + 1);
}

#[test]
fn a_tokenizer_is_written_as_the_configuration_has_it() {
    let limits = Limits { min_count: 3, max_vocab: Some(9), ..Limits::default() };
    assert_eq!(
        TokenizerConfig::Words(limits).to_string(),
        "{ kind = \"words\", min_count = 3, max_vocab = 9 }"
    );
    assert_eq!(TokenizerConfig::Bpe(Subwords::default()).to_string(), "bpe");
    let small = Subwords { vocabulary: 300, ..Subwords::default() };
    assert!(TokenizerConfig::Bpe(small).to_string().starts_with("{ kind = \"bpe\", vocabulary = 300, "));
}
