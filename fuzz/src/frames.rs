//! gRPC's framing: a byte of compression, four of the length, the message. What is torn at the end is left out.

pub(crate) fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let Some((frame, rest)) = rest.split_at_checked(length) else { break };
        frames.push(frame);
        bytes = rest;
    }
    frames
}
