//! What `deploy/` holds, tried with the engines it is written for. Each part says aloud what it had to skip.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod docker;
mod flags;
mod kubernetes;
