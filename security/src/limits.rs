//! What HTTP/2 may take on one connection, the same for coordinator and worker. What all connections may have together, and
//! how large a message may be, is not its matter.

use std::time::Duration;

/// HTTP/2's own default, 64 KiB, would have every megabyte wait for 16 round trips.
pub const FLOW_WINDOW_BYTES: u32 = 8 << 20;
/// A worker has its session, a deposit and a few requests for windows under way; a peer pushes on one stream, and pulls parts
/// of a replica on a few. What is beyond waits at the client's side.
pub const MOST_STREAMS: u32 = 64;
/// No call of the contract has more than a challenge and its answer.
pub const MOST_HEADER_BYTES: u32 = 16 << 10;
/// Streams that a client has opened and given up before they were looked at; with more it is cut off.
pub const MOST_RESETS: usize = 20;
/// A silent connection is asked for a sign of life this often, and given up after as long again.
pub const KEEPALIVE: Duration = Duration::from_secs(10);
