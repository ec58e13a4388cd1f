//! A text as work: pieces of a source gathered and cut to batches of about 1 MiB, on either side of the cut between
//! training and validation text. Where a batch ends depends on the text alone. It tokenizes nothing.

use std::collections::VecDeque;

use crate::{CorpusError, Documents, Piece};

/// A batch ends behind the first line end at or after so many bytes;
const AT_LEAST: usize = 1 << 20;
/// without one, with the first piece of the source that makes it so long.
const LONG_LINE: usize = 4 << 20;

/// A part of a text that is worked on by one thread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// In order; with documents joined, one.
    pub parts: Vec<Part>,
    /// Whether it lies behind the cut.
    pub behind_cut: bool,
    /// Stored bytes of the source that were read when it was complete.
    pub consumed: u64,
}

/// Text without the end of a document, but perhaps at its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub text: String,
    /// Only with documents apart.
    pub ends_document: bool,
}

impl Batch {
    /// Bytes of its text.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.text.len()).sum()
    }
}

/// What tells a text from any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub bytes: u64,
    pub documents: u64,
    /// BLAKE3 of the text, documents joined.
    pub text: blake3::Hash,
    /// BLAKE3 of the positions in the text at which documents end, each as eight bytes, the lowest first.
    pub ends: blake3::Hash,
}

/// The batches of a text.
pub(crate) struct Batches<I> {
    pieces: I,
    apart: bool,
    /// Bytes of text before the cut, which moves forward to a character's boundary or a document's beginning.
    cut: u64,
    pending: Batch,
    /// No line end is before it in the pending text, from [`AT_LEAST`] on.
    searched: usize,
    ready: VecDeque<Batch>,
    /// Bytes of text so far, and where the document they end in begins.
    position: u64,
    document: u64,
    documents: u64,
    text: blake3::Hasher,
    ends: blake3::Hasher,
    consumed: u64,
    finished: bool,
}

impl<I: Iterator<Item = Result<Piece, CorpusError>>> Batches<I> {
    /// Of `pieces`, with what is behind the first `cut` bytes marked so.
    pub(crate) fn new(pieces: I, documents: Documents, cut: Option<u64>) -> Self {
        Batches {
            pieces,
            apart: documents == Documents::Apart,
            cut: cut.unwrap_or(u64::MAX),
            pending: empty(),
            searched: 0,
            ready: VecDeque::new(),
            position: 0,
            document: 0,
            documents: 0,
            text: blake3::Hasher::new(),
            ends: blake3::Hasher::new(),
            consumed: 0,
            finished: false,
        }
    }

    /// Of what was read so far.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            bytes: self.position,
            documents: self.documents,
            text: self.text.finalize(),
            ends: self.ends.finalize(),
        }
    }

    fn take(&mut self, mut piece: Piece) {
        self.text.update(piece.text.as_bytes());
        let (start, consumed) = (self.position, piece.consumed);
        self.consumed = consumed;
        self.position += piece.text.len() as u64;
        let ends_document = piece.ends_document;
        match self.apart {
            true => self.take_apart(piece),
            false => {
                let rest = self.split_at_cut(start, &mut piece.text);
                self.take_joined(piece.text, rest.is_none() && start >= self.cut, consumed);
                if let Some(rest) = rest {
                    self.take_joined(rest, true, consumed);
                }
            }
        }
        if ends_document {
            self.documents += 1;
            self.document = self.position;
            self.ends.update(&self.position.to_le_bytes());
        }
    }

    /// Takes what is behind the cut from `text`, which begins at `start`; none when the cut is not within it.
    fn split_at_cut(&self, start: u64, text: &mut String) -> Option<String> {
        let at = self.cut.checked_sub(start).filter(|&at| at > 0 && at < text.len() as u64)? as usize;
        let at = (at..text.len()).find(|&at| text.is_char_boundary(at))?;
        Some(text.split_off(at))
    }

    fn take_joined(&mut self, text: String, behind_cut: bool, consumed: u64) {
        self.side(behind_cut, consumed);
        match self.pending.parts.first_mut() {
            Some(part) => part.text.push_str(&text),
            None => self.pending.parts.push(Part { text, ends_document: false }),
        }
        while let Some(end) = self.line_end() {
            let rest = self.pending.parts[0].text.split_off(end);
            self.flush(consumed);
            if !rest.is_empty() {
                self.pending.parts.push(Part { text: rest, ends_document: false });
            }
        }
        if self.pending.bytes() >= LONG_LINE {
            self.flush(consumed);
        }
    }

    /// Behind the first line end that may end the pending text.
    fn line_end(&mut self) -> Option<usize> {
        let bytes = self.pending.parts.first()?.text.as_bytes();
        let from = self.searched.max(AT_LEAST - 1);
        let found = bytes.get(from..)?.iter().position(|&byte| byte == b'\n');
        self.searched = bytes.len();
        found.map(|at| from + at + 1)
    }

    fn take_apart(&mut self, piece: Piece) {
        let Piece { mut text, ends_document, joined, consumed } = piece;
        if joined {
            text.pop();
        }
        self.side(self.document >= self.cut, consumed);
        self.pending.parts.push(Part { text, ends_document });
        if self.pending.bytes() >= AT_LEAST {
            self.flush(consumed);
        }
    }

    /// What comes next lies on this side of the cut.
    fn side(&mut self, behind_cut: bool, consumed: u64) {
        if self.pending.behind_cut != behind_cut {
            self.flush(consumed);
            self.pending.behind_cut = behind_cut;
        }
    }

    /// The pending text is a batch.
    fn flush(&mut self, consumed: u64) {
        let next = Batch { behind_cut: self.pending.behind_cut, ..empty() };
        let batch = std::mem::replace(&mut self.pending, next);
        self.searched = 0;
        if !batch.parts.is_empty() {
            self.ready.push_back(Batch { consumed, ..batch });
        }
    }
}

fn empty() -> Batch {
    Batch { parts: Vec::new(), behind_cut: false, consumed: 0 }
}

impl<I: Iterator<Item = Result<Piece, CorpusError>>> Iterator for Batches<I> {
    type Item = Result<Batch, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.finished {
            match self.pieces.next() {
                Some(Ok(piece)) => self.take(piece),
                Some(Err(error)) => {
                    self.finished = true;
                    return Some(Err(error));
                }
                None => {
                    self.flush(self.consumed);
                    self.finished = true;
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, ends_document: bool, joined: bool) -> Piece {
        Piece { text: text.into(), ends_document, joined, consumed: 0 }
    }

    /// The text of each batch before and behind the cut, `|` at the end of a document.
    fn shown(pieces: &[Piece], documents: Documents, cut: Option<u64>) -> [Vec<String>; 2] {
        let mut sides = [Vec::new(), Vec::new()];
        for batch in Batches::new(pieces.iter().cloned().map(Ok), documents, cut) {
            let batch = batch.unwrap();
            let part = |part: &Part| format!("{}{}", part.text, if part.ends_document { "|" } else { "" });
            sides[usize::from(batch.behind_cut)].push(batch.parts.iter().map(part).collect());
        }
        sides
    }

    #[test]
    fn joined_documents_are_one_text_whatever_pieces_it_comes_in() {
        let line = "x".repeat(AT_LEAST / 2) + "\n";
        let text = line.repeat(5) + "end";
        let whole = shown(&[piece(&text, true, false)], Documents::Joined, None);
        assert_eq!(
            whole[0].iter().map(String::len).collect::<Vec<_>>(),
            [2, 2, 1].map(|n| n * line.len() + if n == 1 { 3 } else { 0 })
        );
        for size in [7, 65_536, AT_LEAST, AT_LEAST + 1] {
            let pieces: Vec<Piece> = text
                .as_bytes()
                .chunks(size)
                .map(|bytes| piece(std::str::from_utf8(bytes).unwrap(), true, false))
                .collect();
            assert_eq!(shown(&pieces, Documents::Joined, None), whole, "pieces of {size}");
        }
    }

    #[test]
    fn the_cut_moves_forward_to_a_character() {
        for (cut, before, behind) in
            [(2, "ab", "龍龍"), (3, "ab龍", "龍"), (5, "ab龍", "龍"), (6, "ab龍龍", "")]
        {
            for pieces in [&["ab龍龍"][..], &["ab", "龍龍"], &["ab龍", "龍"], &["a", "b", "龍", "龍"]]
            {
                let pieces: Vec<Piece> = pieces.iter().map(|text| piece(text, true, false)).collect();
                let sides = shown(&pieces, Documents::Joined, Some(cut)).map(|side| side.concat());
                assert_eq!(sides, [before, behind], "{cut} of {pieces:?}");
            }
        }
    }

    #[test]
    fn documents_apart_lose_their_joints_and_stay_whole_at_the_cut() {
        let pieces = [
            piece("a\n", true, true),
            piece("b", false, false),
            piece("\n", true, false),
            piece("c", true, false),
        ];
        for (cut, before, behind) in [
            (1, "a|", "b\n|c|"),
            (2, "a|", "b\n|c|"),
            (3, "a|b\n|", "c|"),
            (4, "a|b\n|", "c|"),
            (5, "a|b\n|c|", ""),
        ] {
            let sides = shown(&pieces, Documents::Apart, Some(cut)).map(|side| side.concat());
            assert_eq!(sides, [before, behind], "cut at {cut}");
        }
    }

    #[test]
    fn the_fingerprint_is_of_text_and_documents() {
        let fingerprint = |pieces: &[Piece]| {
            let mut batches = Batches::new(pieces.iter().cloned().map(Ok), Documents::Joined, Some(1));
            assert!(batches.by_ref().all(|batch| batch.is_ok()));
            batches.fingerprint()
        };
        let one = fingerprint(&[piece("ab", false, false), piece("c", true, false)]);
        assert_eq!(one, fingerprint(&[piece("abc", true, false)]));
        assert_eq!(one.text, blake3::hash(b"abc"));
        let two = fingerprint(&[piece("ab", true, false), piece("c", true, false)]);
        assert!(two.text == one.text && two.ends != one.ends);
        assert_eq!((two.bytes, two.documents), (3, 2));
    }
}
