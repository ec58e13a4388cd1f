//! Bytes as tokens: no vocabulary to learn, nothing unknown.

pub(super) const VOCABULARY: usize = 256;

pub(super) fn encode(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// What is not UTF-8 becomes U+FFFD, as in [`String::from_utf8_lossy`]; a number that is no byte does too.
pub(super) fn decode(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().map(|&token| to_byte(token)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte of a token. 0xFF, which UTF-8 never uses, stands for a number that is no byte.
pub(super) fn to_byte(token: u32) -> u8 {
    u8::try_from(token).unwrap_or(0xFF)
}
