//! Joining: the challenge, and the metadata of a session that answers it. Both ends of it, so that they agree.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use crate::token::Challenges;
use crate::{JoinError, Nonce, Peer, Token};

/// Metadata of a session: a challenge's nonce, then its answer.
const KEY: &str = "carousel-join-bin";

/// The coordinator's end. Without a token everybody joins.
#[derive(Debug, Default)]
pub struct Gate {
    token: Option<Token>,
    challenges: Mutex<Challenges>,
}

impl Gate {
    /// Lets in who has the token.
    #[must_use]
    pub fn new(token: Option<Token>) -> Self {
        Self { token, challenges: Mutex::default() }
    }

    /// What a client must answer; none where no token is asked for.
    pub fn challenge(&self) -> Option<Nonce> {
        let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        self.token.is_some().then(|| challenges.make(Instant::now()))
    }

    /// Lets a session in, and with it what else comes on its connection.
    ///
    /// # Errors
    /// When it does not answer an open challenge.
    pub fn join<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let peer = Peer::of(request)?;
        let Some(token) = &self.token else { return Ok(()) };
        let answer = || {
            let bytes = request.metadata().get_bin(KEY).ok_or(JoinError::Missing)?.to_bytes();
            let bytes: [u8; 64] = bytes.ok().and_then(|b| b[..].try_into().ok()).ok_or(JoinError::Wrong)?;
            let (nonce, answer) = bytes.split_first_chunk::<32>().ok_or(JoinError::Wrong)?;
            let answer = answer.first_chunk().ok_or(JoinError::Wrong)?;
            let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
            challenges.take(token, (nonce, answer), Instant::now())
        };
        answer().map(|()| peer.join()).map_err(|error| {
            tracing::warn!("{} was refused: {error}", peer.address);
            status(error)
        })
    }

    /// Lets in what comes beside a session.
    ///
    /// # Errors
    /// When no session on the same connection has joined.
    pub fn beside<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let peer = Peer::of(request)?;
        if self.token.is_none() || peer.has_joined() { Ok(()) } else { Err(status(JoinError::Missing)) }
    }
}

/// A challenge that was used may be followed by another; with the wrong token nothing ever comes of it.
fn status(error: JoinError) -> Status {
    match error {
        JoinError::Used => Status::aborted(error.to_string()),
        JoinError::Missing | JoinError::Wrong => Status::unauthenticated(error.to_string()),
    }
}

impl Token {
    /// Puts the answer to a challenge into a session's request.
    ///
    /// # Errors
    /// When the challenge is none.
    pub fn answer_in<T>(&self, request: &mut Request<T>, challenge: &[u8]) -> Result<(), Status> {
        let nonce: &Nonce = challenge.try_into().map_err(|_| {
            Status::invalid_argument(format!("a challenge of {} bytes, expected 32", challenge.len()))
        })?;
        let value = [&nonce[..], &self.answer(nonce)].concat();
        request.metadata_mut().insert_bin(KEY, MetadataValue::from_bytes(&value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Token::read(file.path()).unwrap()
    }

    fn request() -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Peer::new(([127, 0, 0, 1], 1).into(), None, false));
        request
    }

    fn code(result: Result<(), Status>) -> tonic::Code {
        result.map_or_else(|status| status.code(), |()| tonic::Code::Ok)
    }

    #[test]
    fn a_session_joins_once_with_an_answer_and_then_its_connection_is_in() {
        let own = token("correct horse battery");
        let gate = Gate::new(Some(own.clone()));
        let mut session = request();
        assert_eq!(code(gate.join(&session)), tonic::Code::Unauthenticated);
        own.answer_in(&mut session, &gate.challenge().unwrap()).unwrap();
        assert_eq!(code(gate.beside(&session)), tonic::Code::Unauthenticated);
        assert_eq!(code(gate.join(&session)), tonic::Code::Ok);
        assert_eq!(code(gate.beside(&session)), tonic::Code::Ok);
        // The same bytes again, from elsewhere.
        let mut replayed = request();
        *replayed.metadata_mut() = session.metadata().clone();
        assert_eq!(code(gate.join(&replayed)), tonic::Code::Aborted);
        assert_eq!(code(gate.beside(&replayed)), tonic::Code::Unauthenticated);
    }

    #[test]
    fn another_token_and_bytes_that_are_no_answer_are_refused_for_good() {
        let gate = Gate::new(Some(token("correct horse battery")));
        let mut wrong = request();
        token("another secret thing").answer_in(&mut wrong, &gate.challenge().unwrap()).unwrap();
        assert_eq!(code(gate.join(&wrong)), tonic::Code::Unauthenticated);
        for length in [0, 32, 63, 65] {
            let mut odd = request();
            odd.metadata_mut().insert_bin(KEY, MetadataValue::from_bytes(&vec![1; length]));
            assert_eq!(code(gate.join(&odd)), tonic::Code::Unauthenticated, "{length} bytes");
        }
    }

    #[test]
    fn without_a_token_nobody_is_asked() {
        let gate = Gate::default();
        assert!(gate.challenge().is_none());
        assert_eq!(code(gate.join(&request())), tonic::Code::Ok);
        assert_eq!(code(gate.beside(&request())), tonic::Code::Ok);
    }
}
