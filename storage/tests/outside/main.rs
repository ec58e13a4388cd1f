//! Objects over loopback connections: a small web server with faults, and a real S3 server where there is one.

#![allow(clippy::unwrap_used, reason = "the whole program is tests: what cannot be had is a failure")]

mod s3;
mod server;
mod web;
