//! Bytes as tokens: no vocabulary to learn, nothing unknown.

use crate::EOS;

/// Bytes; the id behind them is `<eos>`, the end of a document, in a vocabulary that has it.
pub(super) const BYTES: usize = 256;

pub(super) fn encode(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// What is not UTF-8 becomes U+FFFD, as in [`String::from_utf8_lossy`]; a number that is no token does too.
pub(super) fn decode(tokens: &[u32], eos: bool) -> String {
    let mut bytes = Vec::with_capacity(tokens.len());
    tokens.iter().for_each(|&token| push(token, eos, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Adds the bytes of a token. 0xFF, which UTF-8 never uses, stands for a number that is no token.
pub(super) fn push(token: u32, eos: bool, bytes: &mut Vec<u8>) {
    match u8::try_from(token) {
        Ok(byte) => bytes.push(byte),
        Err(_) if eos && token as usize == BYTES => bytes.extend(EOS.bytes()),
        Err(_) => bytes.push(0xFF),
    }
}
