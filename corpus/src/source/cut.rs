//! Where a long text is cut into pieces: a function of the text alone, whatever blocks it comes in.

/// A piece ends behind the first line end at or after so many bytes,
const AT_LEAST: usize = 1 << 20;
/// but is never longer than this: a longer line is cut before its last white space in it, or between two characters.
const AT_MOST: usize = 4 << 20;

/// The search for the end of a piece in bytes that grow.
#[derive(Default)]
pub(super) struct Cut {
    /// No line end is before it, from [`AT_LEAST`] on.
    searched: usize,
}

impl Cut {
    /// Length of the first piece of `bytes`; none when more of them may decide.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let from = self.searched.max(AT_LEAST - 1);
        let until = bytes.len().min(AT_MOST);
        let line_end = bytes.get(from..until).and_then(|part| part.iter().position(|&byte| byte == b'\n'));
        self.searched = until;
        match line_end {
            Some(at) => Some(from + at + 1),
            None if bytes.len() > AT_MOST => Some(within_line(bytes)),
            None => None,
        }
    }
}

/// Where a line that is longer than a piece may be is cut: so that a word stays whole where one can.
fn within_line(bytes: &[u8]) -> usize {
    let space = bytes[AT_LEAST..=AT_MOST].iter().rposition(|byte| byte.is_ascii_whitespace());
    space.map_or_else(|| character(bytes), |at| AT_LEAST + at)
}

/// The last boundary of a character at or before [`AT_MOST`]; what is not UTF-8 is cut anywhere near.
fn character(bytes: &[u8]) -> usize {
    let continues = |at: &usize| bytes[*at] & 0xc0 == 0x80;
    (AT_MOST - 3..=AT_MOST).rev().find(|at| !continues(at)).unwrap_or(AT_MOST)
}

/// The pieces of a text that is whole.
pub(super) fn pieces(mut text: String) -> Vec<String> {
    let mut pieces = Vec::new();
    while let Some(end) = Cut::default().find(text.as_bytes()).filter(|&end| end < text.len()) {
        let rest = text.split_off(end);
        pieces.push(std::mem::replace(&mut text, rest));
    }
    pieces.push(text);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(text: &str) -> Vec<usize> {
        pieces(text.to_owned()).iter().map(String::len).collect()
    }

    #[test]
    fn a_piece_ends_behind_a_line() {
        let line = format!("{}\n", "x".repeat(AT_LEAST / 2));
        assert_eq!(cuts(&line.repeat(5)), [2 * line.len(), 2 * line.len(), line.len()]);
        assert_eq!(cuts("short"), [5]);
        assert_eq!(cuts(""), [0]);
    }

    #[test]
    fn a_line_end_at_the_last_possible_place_is_taken() {
        let text = format!("{}\nyz", "x".repeat(AT_MOST - 1));
        assert_eq!(cuts(&text), [AT_MOST, 2]);
        let text = format!("{}\nz", "x".repeat(AT_LEAST - 1));
        assert_eq!(cuts(&text), [AT_LEAST, 1]);
    }

    #[test]
    fn a_long_line_is_cut_before_a_space() {
        let text = format!("{} {}", "x".repeat(AT_LEAST + 5), "y".repeat(AT_MOST - 10));
        assert_eq!(cuts(&text), [AT_LEAST + 5, AT_MOST - 9]);
        let words = "four ".repeat(AT_MOST / 2);
        for piece in pieces(words.clone()).iter().skip(1) {
            assert!(piece.starts_with(" four"));
        }
        assert_eq!(pieces(words.clone()).concat(), words);
    }

    #[test]
    fn a_long_word_is_cut_between_characters() {
        for shift in 0..4 {
            let text = format!("{}{}", "x".repeat(shift), "🙂".repeat(AT_MOST));
            let pieces = pieces(text.clone());
            assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= AT_MOST));
            assert_eq!(pieces.concat(), text);
        }
    }
}
