//! Ending a text at a string, wherever tokens begin and end. What might be the beginning of such a string is held back until
//! it is known.

/// The watch over one text.
#[derive(Clone, Debug)]
pub(super) struct StopGuard<'a> {
    stops: &'a [String],
    held: String,
}

/// What may be shown now, and the string that has ended the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub text: String,
    pub stop: Option<String>,
}

impl<'a> StopGuard<'a> {
    /// None of `stops` is empty.
    pub(super) fn new(stops: &'a [String]) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece of the text. Of several strings the one that begins first ends it, of those that begin together
    /// the one that was named first.
    pub(super) fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let places = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, stop)));
        if let Some((at, stop)) = places.min_by_key(|(at, _)| *at) {
            let stop = Some(stop.clone());
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stop };
        }
        let begun = self.held.char_indices().map(|(at, _)| at).find(|&at| self.may_become_a_stop(at));
        let held = self.held.split_off(begun.unwrap_or(self.held.len()));
        Passed { text: std::mem::replace(&mut self.held, held), stop: None }
    }

    /// What is still held back: it has become none.
    pub(super) fn finish(self) -> String {
        self.held
    }

    fn may_become_a_stop(&self, at: usize) -> bool {
        self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of pieces, one after another, and what ended it.
    fn through(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut guard = StopGuard::new(&stops);
        let mut shown = Vec::new();
        for piece in pieces {
            let Passed { text, stop } = guard.push(piece);
            shown.push(text);
            if stop.is_some() {
                return (shown, stop);
            }
        }
        shown.push(guard.finish());
        (shown, None)
    }

    #[test]
    fn a_stop_is_found_across_the_borders_of_pieces() {
        assert_eq!(through(&["end"], &["the e", "n", "d of"]).0, ["the ", "", ""]);
        assert_eq!(through(&["end"], &["the e", "n", "d of"]).1, Some("end".into()));
        assert_eq!(through(&["end"], &["bend"]), (vec!["b".into()], Some("end".into())));
    }

    #[test]
    fn what_only_looked_like_a_stop_is_shown_after_all() {
        assert_eq!(
            through(&["end"], &["e", "n", "try"]),
            (vec!["".into(), "".into(), "entry".into(), "".into()], None)
        );
        assert_eq!(through(&["aab"], &["a", "a", "a", "b"]).0.concat(), "a");
        assert_eq!(through(&["end"], &["the e"]).0, ["the ", "e"], "held back to the end");
    }

    #[test]
    fn the_first_to_begin_ends_the_text_and_of_equals_the_first_named() {
        assert_eq!(through(&["z", "yz"], &["x", "yz"]).1, Some("yz".into()));
        assert_eq!(through(&["ab", "abc"], &["abc"]).1, Some("ab".into()));
        assert_eq!(through(&[], &["anything"]).0, ["anything", ""]);
    }

    #[test]
    fn characters_of_several_bytes_are_never_cut() {
        assert_eq!(through(&["。x"], &["水", "。", "月"]).0, ["水", "", "。月", ""]);
        assert_eq!(through(&["。"], &["水。月"]), (vec!["水".into()], Some("。".into())));
    }
}
