//! What comes back: text through tokens, tokens through text, and the streaming decoder against the whole one.

use carousel_corpus::{Tokenizer, TokenizerConfig};
use proptest::prelude::*;

fn tokenizer(config: TokenizerConfig, text: &str) -> Tokenizer {
    Tokenizer::for_text(&config, text).unwrap()
}

fn streamed(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.stream();
    let mut pieces: Vec<String> = tokens.iter().map(|&token| stream.push(token)).collect();
    pieces.push(stream.finish());
    pieces
}

#[test]
fn chars_are_ordered_by_code_point_after_unk() {
    let chars = tokenizer(TokenizerConfig::CHARS, "bab\nä龍a");
    assert_eq!(chars.vocabulary(), 6);
    assert_eq!(chars.encode("\nabä龍").unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(chars.encode("xa\u{10ffff}").unwrap(), [0, 2, 0]);
    assert_eq!(chars.decode(&[2, 0, 3, 6, u32::MAX]), "a\u{FFFD}b\u{FFFD}\u{FFFD}");
}

#[test]
fn words_are_ordered_by_falling_count_then_text() {
    let words = tokenizer(TokenizerConfig::WORDS, "b c c\na b c\n<unk>");
    // c 3; <eos> 2 and b 2; <unk> 1 and a 1.
    assert_eq!(words.encode("c \n b <unk> a z <eos>").unwrap(), [0, 1, 2, 3, 4, 3, 1]);
    assert_eq!(words.vocabulary(), 5);
    assert_eq!(words.decode(&[1, 2, 4, 1, 1, 0, 5, 3]), "\nb a\n\nc \u{FFFD} <unk>");
}

#[test]
fn special_words_are_there_even_when_the_text_has_none() {
    let words = tokenizer(TokenizerConfig::WORDS, "one two");
    assert_eq!(words.vocabulary(), 4);
    assert_eq!(words.encode("three\n").unwrap(), [3, 2]);
    assert_eq!(tokenizer(TokenizerConfig::WORDS, "").vocabulary(), 2);
    assert_eq!(tokenizer(TokenizerConfig::CHARS, "").vocabulary(), 1);
}

#[test]
fn a_last_line_without_line_end_has_no_eos() {
    let words = tokenizer(TokenizerConfig::WORDS, "a b\na b");
    assert_eq!(words.encode("a b\na b").unwrap().len(), 5);
    assert_eq!(words.encode("a b\na b\n").unwrap().len(), 6);
}

#[test]
fn words_come_with_their_space_and_the_prompt_counts() {
    let words = tokenizer(TokenizerConfig::WORDS, "a b\n");
    let tokens = words.encode("a b\nb a\n\na").unwrap();
    assert_eq!(streamed(&words, &tokens), ["a", " b", "\n", "b", " a", "\n", "\n", "a", ""]);
}

#[test]
fn an_incomplete_character_is_held_back() {
    let bytes = tokenizer(TokenizerConfig::Bytes, "");
    assert_eq!(streamed(&bytes, &[0xE9, 0xBE, 0x8D, 0x41]), ["", "", "龍", "A", ""]);
    // Broken off by a letter, by another beginning, by the end, and by what is no byte at all.
    assert_eq!(streamed(&bytes, &[0xE9, 0xBE, 0x41]), ["", "", "\u{FFFD}A", ""]);
    assert_eq!(streamed(&bytes, &[0xE9, 0xC3, 0xA4]), ["", "\u{FFFD}", "ä", ""]);
    assert_eq!(streamed(&bytes, &[0xF0, 0x9F]), ["", "", "\u{FFFD}"]);
    assert_eq!(streamed(&bytes, &[0xC3, 256, u32::MAX]), ["", "\u{FFFD}\u{FFFD}", "\u{FFFD}", ""]);
}

proptest! {
    #[test]
    fn bytes_give_back_any_text(text in any::<String>()) {
        let bytes = tokenizer(TokenizerConfig::Bytes, "");
        let tokens = bytes.encode(&text).unwrap();
        prop_assert_eq!(tokens.len(), text.len());
        prop_assert_eq!(bytes.decode(&tokens), text);
    }

    #[test]
    fn chars_give_back_the_text_they_were_made_for(text in any::<String>()) {
        let chars = tokenizer(TokenizerConfig::CHARS, &text);
        let tokens = chars.encode(&text).unwrap();
        prop_assert!(tokens.iter().all(|&token| token != 0 && (token as usize) < chars.vocabulary()));
        prop_assert_eq!(chars.decode(&tokens), text);
    }

    #[test]
    fn words_give_back_their_tokens(text in "([ab<>]{1,2}|<eos>|<unk>|\n| |\t){0,30}") {
        let words = tokenizer(TokenizerConfig::WORDS, &text);
        let tokens = words.encode(&text).unwrap();
        prop_assert_eq!(words.encode(&words.decode(&tokens)).unwrap(), tokens);
    }

    #[test]
    fn encoding_goes_on_at_a_line_end(first in "([a-c]|\n| ){0,20}\n", second in "([a-c]|\n| ){0,20}") {
        for config in [TokenizerConfig::CHARS, TokenizerConfig::Bytes, TokenizerConfig::WORDS] {
            let tokenizer = tokenizer(config, &first);
            let mut tokens = tokenizer.encode(&first).unwrap();
            tokens.extend(tokenizer.encode(&second).unwrap());
            prop_assert_eq!(tokenizer.encode(&(first.clone() + &second)).unwrap(), tokens);
        }
    }

    #[test]
    fn the_stream_says_what_decode_says(tokens in prop::collection::vec(0u32..300, 0..60)) {
        for config in [TokenizerConfig::CHARS, TokenizerConfig::Bytes, TokenizerConfig::WORDS] {
            let tokenizer = tokenizer(config, "ab a龍 c\n<unk>");
            prop_assert_eq!(streamed(&tokenizer, &tokens).concat(), tokenizer.decode(&tokens));
        }
    }
}
