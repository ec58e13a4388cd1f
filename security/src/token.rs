//! The join token: a secret that coordinator and workers share beside their certificates. It never crosses the wire: who
//! joins answers a challenge that is good for one time.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustls::crypto::ring;

/// Fewer bytes than this are guessed.
const LEAST_BYTES: usize = 16;
/// More are no token.
const MOST_BYTES: u64 = 4096;
/// A challenge that nobody answers for so long is forgotten.
const PATIENCE: Duration = Duration::from_secs(30);
/// Challenges that are open at once; the oldest goes first.
const MOST_OPEN: usize = 4096;
/// Keeps the derived key apart from every other use of the same bytes.
const CONTEXT: &str = "carousel 2026-11 join token";

/// A number that is used once.
pub type Nonce = [u8; 32];

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("{path}: {source}; expected a file with the join token, as `carousel certs` makes it")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// What is in it is no secret.
    #[error("{path}: the token has {bytes} bytes; expected {LEAST_BYTES} to {MOST_BYTES}")]
    Size {
        /// The file.
        path: PathBuf,
        /// Found, without the white space around it.
        bytes: u64,
    },
}

/// The shared secret; only a key derived from it is kept, and nothing shows it.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads the token of a file; white space around it does not count.
    ///
    /// # Errors
    /// When there is none, or one that is too short or too long.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let io = |source| TokenError::Io { path: path.into(), source };
        let bytes = std::fs::metadata(path).map_err(io)?.len();
        let size = |bytes| TokenError::Size { path: path.into(), bytes };
        if bytes > MOST_BYTES {
            return Err(size(bytes));
        }
        let text = std::fs::read(path).map_err(io)?;
        let secret = text.trim_ascii();
        if secret.len() < LEAST_BYTES {
            return Err(size(secret.len() as u64));
        }
        Ok(Self(blake3::derive_key(CONTEXT, secret)))
    }

    /// The answer to a challenge.
    #[must_use]
    pub fn answer(&self, nonce: &Nonce) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, nonce).as_bytes()
    }
}

/// Why somebody may not join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// No answer came.
    #[error("this run asks for its join token: give --token-file")]
    Missing,
    /// The challenge was never made, was answered already, or is too old.
    #[error("the challenge was answered before, or was never made")]
    Used,
    /// Another token.
    #[error("the join token is not this run's: give the --token-file that the coordinator has")]
    Wrong,
}

/// The challenges that are open.
#[derive(Debug, Default)]
pub(crate) struct Challenges(VecDeque<(Nonce, Instant)>);

impl Challenges {
    /// A challenge that nobody was given before.
    ///
    /// # Panics
    /// When the system has no random numbers.
    pub(crate) fn make(&mut self, now: Instant) -> Nonce {
        let mut nonce = [0; 32];
        ring::default_provider().secure_random.fill(&mut nonce).expect("the system has random numbers");
        self.forget(now);
        if self.0.len() >= MOST_OPEN {
            self.0.pop_front();
        }
        self.0.push_back((nonce, now));
        nonce
    }

    /// Takes an answer; whatever it is worth, its challenge is used up.
    ///
    /// # Errors
    /// When it is wrong, or its challenge is not open.
    pub(crate) fn take(
        &mut self,
        token: &Token,
        (nonce, answer): (&Nonce, &[u8; 32]),
        now: Instant,
    ) -> Result<(), JoinError> {
        self.forget(now);
        let open = self.0.iter().position(|(open, _)| open == nonce).ok_or(JoinError::Used)?;
        self.0.remove(open);
        // BLAKE3's own comparison takes the same time wherever the bytes differ.
        if blake3::Hash::from(token.answer(nonce)) == *answer { Ok(()) } else { Err(JoinError::Wrong) }
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(_, made)| now.saturating_duration_since(*made) > PATIENCE) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Result<Token, TokenError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Token::read(file.path())
    }

    #[test]
    fn an_answer_is_good_once_and_only_of_the_same_token() {
        let (own, other) = (token("correct horse battery").unwrap(), token("another secret thing").unwrap());
        let (mut challenges, now) = (Challenges::default(), Instant::now());
        let nonce = challenges.make(now);
        assert_eq!(challenges.take(&own, (&nonce, &own.answer(&nonce)), now), Ok(()));
        assert_eq!(challenges.take(&own, (&nonce, &own.answer(&nonce)), now), Err(JoinError::Used));
        let nonce = challenges.make(now);
        assert_eq!(challenges.take(&own, (&nonce, &other.answer(&nonce)), now), Err(JoinError::Wrong));
        // A wrong answer has used the challenge up: nobody tries many tokens on one.
        assert_eq!(challenges.take(&own, (&nonce, &own.answer(&nonce)), now), Err(JoinError::Used));
    }

    #[test]
    fn a_challenge_that_is_old_or_that_nobody_made_is_not_open() {
        let own = token("correct horse battery").unwrap();
        let (mut challenges, now) = (Challenges::default(), Instant::now());
        let nonce = challenges.make(now);
        let late = now + PATIENCE + Duration::from_millis(1);
        assert_eq!(challenges.take(&own, (&nonce, &own.answer(&nonce)), late), Err(JoinError::Used));
        let made_up = [7; 32];
        assert_eq!(challenges.take(&own, (&made_up, &own.answer(&made_up)), now), Err(JoinError::Used));
    }

    #[test]
    fn who_asks_for_challenges_all_day_takes_no_more_memory() {
        let (mut challenges, now) = (Challenges::default(), Instant::now());
        let first = challenges.make(now);
        for _ in 0..MOST_OPEN {
            challenges.make(now);
        }
        assert_eq!(challenges.0.len(), MOST_OPEN);
        let own = token("correct horse battery").unwrap();
        assert_eq!(challenges.take(&own, (&first, &own.answer(&first)), now), Err(JoinError::Used));
    }

    #[test]
    fn white_space_around_a_token_does_not_count_and_short_ones_are_refused() {
        let (plain, spaced) =
            (token("correct horse battery").unwrap(), token(" correct horse battery\n").unwrap());
        assert_eq!(plain.answer(&[3; 32]), spaced.answer(&[3; 32]));
        let error = token("  too short \n").unwrap_err().to_string();
        assert!(error.ends_with("the token has 9 bytes; expected 16 to 4096"), "{error}");
        assert!(matches!(token(&"x".repeat(5000)), Err(TokenError::Size { bytes: 5000, .. })));
        assert_eq!(format!("{plain:?}"), "Token");
    }
}
