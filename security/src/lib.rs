//! Who may talk to whom in a cluster: certificates that carry a role, mutual TLS for every connection, a join token that
//! never crosses the wire, and the limits of a door that strangers knock at. It knows nothing of runs, models or
//! messages: coordinator and worker ask it for connections, and each service asks it who is at the other end.
//!
//! Without credentials the same doors are open and unlocked: one code path for both.

mod certificates;
mod connector;
mod cord;
mod credentials;
mod incoming;
mod join;
mod limits;
mod peer;
mod role;
mod token;
mod verifier;

pub use certificates::{Authority, CertificatesError, Made};
pub use connector::{Connector, Io, Watched, root_cause};
pub use credentials::{Credentials, CredentialsError};
pub use incoming::{Connection, Door, Incoming};
pub use join::Gate;
pub use limits::{FLOW_WINDOW_BYTES, KEEPALIVE, MOST_HEADER_BYTES, MOST_RESETS, MOST_STREAMS};
pub use peer::{Allowed, Forbidden, Peer};
pub use role::Role;
pub use token::{JoinError, Nonce, Token, TokenError};
