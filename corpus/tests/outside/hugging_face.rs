//! Our own kinds against the `tokenizers` crate: the files we write, run by its code, give our ids and our text.

use carousel_corpus::{Tokenizer, TokenizerConfig, TokenizerKind};
use proptest::prelude::*;

const OWN: [TokenizerConfig; 3] = [TokenizerConfig::CHARS, TokenizerConfig::Bytes, TokenizerConfig::WORDS];

const TRAINING_TEXT: &str = "The quick  brown fox\n\n jumps over <unk> the lazy\tdog .\r\n<eos> \u{a0}non\u{2003}breaking \
    ##prefix {VOCABULARY} x<eos>y \"quoted\\\" e\u{301}clair 龍 🙂\u{200d}🙂 \u{85}next\u{b}v\u{feff}bom the the fox";

const TEXTS: [&str; 12] = [
    TRAINING_TEXT,
    "",
    "\n",
    "\n\n\n",
    " ",
    "the fox",
    "the fox\n",
    " the  fox \n  the\n",
    "unseen words and ünseen chäräcters 鳳 😀 \u{10ffff}",
    "<unk> <eos>\n<unk><eos> x<eos> <eos>y\n<unk>",
    "\r\n\r\r\n \u{85} \u{2028} a\u{2029}b \u{c}",
    "\u{0}\u{1}\u{7f}\u{80}\u{ff}",
];

/// Ours, and the other library's reading of the file we write.
fn both(config: &TokenizerConfig) -> (Tokenizer, tokenizers::Tokenizer) {
    let ours = Tokenizer::for_text(config, TRAINING_TEXT).unwrap();
    let theirs = ours.to_json().parse().unwrap();
    (ours, theirs)
}

fn assert_same(ours: &Tokenizer, theirs: &tokenizers::Tokenizer, text: &str) {
    let ids = ours.encode(text).unwrap();
    let their_ids = theirs.encode(text, false).unwrap();
    assert_eq!(ids, their_ids.get_ids(), "{} ids of {text:?}", ours.kind());
    assert_eq!(ids, theirs.encode(text, true).unwrap().get_ids(), "no special tokens are added");
    let their_text = theirs.decode(&ids, true).unwrap();
    assert_eq!(ours.decode(&ids), their_text, "{} text of {text:?}", ours.kind());
}

#[test]
fn ids_and_text_are_those_of_the_tokenizers_crate() {
    for config in &OWN {
        let (ours, theirs) = both(config);
        assert_eq!(ours.vocabulary(), theirs.get_vocab_size(true));
        for text in TEXTS {
            assert_same(&ours, &theirs, text);
        }
    }
}

#[test]
fn a_file_they_have_saved_is_recognised() {
    for config in &OWN {
        let (ours, theirs) = both(config);
        let saved = theirs.to_string(true).unwrap();
        assert_eq!(Tokenizer::from_json(&saved).unwrap().kind(), ours.kind());
    }
}

#[test]
fn our_file_read_again_is_the_same_tokenizer() {
    for config in &OWN {
        let (ours, _) = both(config);
        let again = Tokenizer::from_json(&ours.to_json()).unwrap();
        assert_eq!(again.kind(), ours.kind());
        assert_eq!(again.to_json(), ours.to_json());
        assert_eq!(again.identity(), ours.identity());
        for text in TEXTS {
            assert_eq!(again.encode(text).unwrap(), ours.encode(text).unwrap());
        }
    }
}

#[test]
fn our_file_run_by_their_code_through_our_type_gives_the_same_ids() {
    for config in &OWN {
        let (ours, _) = both(config);
        // A post-processor that does nothing: no longer ours, and of no other effect.
        let nothing = "\"post_processor\": {\"type\": \"Sequence\", \"processors\": []}";
        let json = ours.to_json().replace("\"post_processor\": null", nothing);
        let theirs = Tokenizer::from_json(&json).unwrap();
        assert_eq!(theirs.kind(), TokenizerKind::File);
        assert_eq!(theirs.to_json(), json);
        assert_ne!(theirs.identity(), ours.identity());
        assert_eq!(theirs.vocabulary(), ours.vocabulary());
        for text in TEXTS {
            let ids = ours.encode(text).unwrap();
            assert_eq!(theirs.encode(text).unwrap(), ids);
            assert_eq!(theirs.decode(&ids), ours.decode(&ids));
        }
    }
}

#[test]
fn the_identity_is_of_the_vocabulary() {
    let identity = |text| Tokenizer::for_text(&TokenizerConfig::WORDS, text).unwrap().identity();
    assert_eq!(identity("a b a\n"), identity("b a\na "));
    assert_ne!(identity("a b a\n"), identity("b a b\n"));
    let text = Tokenizer::for_text(&TokenizerConfig::Bytes, "").unwrap();
    assert_eq!(text.identity(), *blake3::hash(text.to_json().as_bytes()).as_bytes());
}

/// Text made of what tokenizers stumble over.
fn nasty_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "\n", " ", "\t", "\r\n", "\r", "\u{a0}", "\u{85}", "\u{2028}", "the", "fox", "unseen", "<unk>",
        "<eos>", "<", ">", "##", "e\u{301}", "🙂", "\u{200d}", "龍", "\\", "\"", ".", "'s", "\u{0}",
        "\u{fffd}",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nasty_texts_agree_too(text in nasty_text()) {
        for config in &OWN {
            let (ours, theirs) = both(config);
            assert_same(&ours, &theirs, &text);
        }
    }

    #[test]
    fn any_ids_decode_to_the_same_text(ids in prop::collection::vec(0u32..256, 0..40)) {
        for config in &OWN {
            let (ours, theirs) = both(config);
            let ids: Vec<u32> = ids.iter().map(|id| id % ours.vocabulary() as u32).collect();
            prop_assert_eq!(ours.decode(&ids), theirs.decode(&ids, true).unwrap());
        }
    }
}
