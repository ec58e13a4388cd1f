//! `--tls`, `--token-file` and `--insecure`: what a process shows to others, and what it asks of them. The locks
//! themselves are `carousel_security`'s.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carousel_coordinator::Locks;
use carousel_security::{Credentials, Door, Role, Token};

use crate::failure::Failure;

/// How a process is locked.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Locks")]
pub(crate) struct SecurityArguments {
    /// This process's certificates: a folder with ca.crt, tls.crt and tls.key, of those that `carousel certs` makes
    #[arg(long, value_name = "DIR", env = "CAROUSEL_TLS")]
    tls: Option<PathBuf>,
    /// The join token that coordinator and workers share
    #[arg(long, value_name = "FILE", env = "CAROUSEL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Talk beyond this machine without TLS: whoever reaches the port sees and changes everything
    #[arg(long, conflicts_with = "tls")]
    insecure: bool,
}

/// What who looks after a run shows to its coordinator.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Certificates {
    /// Certificates to show: a folder with ca.crt, tls.crt and tls.key, an operator's; for status any role's
    #[arg(long, value_name = "DIR", env = "CAROUSEL_TLS")]
    tls: Option<PathBuf>,
}

impl Certificates {
    pub(crate) fn door(&self) -> Result<Door, Failure> {
        door(self.tls.as_deref(), &Role::ALL)
    }
}

fn door(tls: Option<&Path>, roles: &[Role]) -> Result<Door, Failure> {
    let Some(folder) = tls else { return Ok(Door::Open) };
    let credentials = Credentials::open(folder, roles);
    let credentials = credentials.map_err(|error| Failure::bad_input(format!("--tls: {error}")))?;
    Ok(Door::Locked(Arc::new(credentials)))
}

impl SecurityArguments {
    /// The door of a process of one of `roles`.
    pub(crate) fn door(&self, roles: &[Role]) -> Result<Door, Failure> {
        door(self.tls.as_deref(), roles)
    }

    pub(crate) fn token(&self) -> Result<Option<Token>, Failure> {
        let token = self.token_file.as_deref().map(Token::read).transpose();
        token.map_err(|error| Failure::bad_input(format!("--token-file: {error}")))
    }

    /// The locks of a coordinator that listens at an address.
    pub(crate) fn locks(&self, listen: SocketAddr) -> Result<Locks, Failure> {
        let door = self.door(&[Role::Coordinator])?;
        self.check_reach(is_here(listen.ip()), &door, format_args!("--listen {listen}"))?;
        Ok(Locks { door, join_token: self.token()? })
    }

    /// Refuses to go beyond this machine unlocked, unless that is asked for; then it says so.
    pub(crate) fn check_reach(
        &self,
        here: bool,
        door: &Door,
        option: std::fmt::Arguments<'_>,
    ) -> Result<(), Failure> {
        if here || door.is_locked() {
            return Ok(());
        }
        if !self.insecure {
            return Err(Failure::bad_input(format!(
                "{option}: other machines would reach this one without TLS; expected --tls DIR (`carousel certs` makes \
                 one), or --insecure where nobody else is on the network"
            )));
        }
        eprintln!("insecure    {option}: no TLS; whoever reaches this port sees and changes everything");
        Ok(())
    }
}

/// Where to listen, as a user gives it.
pub(crate) fn socket_address(given: &str) -> Result<SocketAddr, String> {
    let expected = "expected an IP address and a port, as 127.0.0.1:7700, or 0.0.0.0:7700 for every network";
    given.parse().map_err(|_| expected.into())
}

/// How an address behind a door begins.
pub(crate) fn scheme(door: &Door) -> &'static str {
    if door.is_locked() { "https" } else { "http" }
}

/// Whether only this machine reaches an address.
fn is_here(address: IpAddr) -> bool {
    address.is_loopback()
}

/// A coordinator's address as a user gives it, as the worker takes it, and whether it is on this machine. Names are not
/// asked for: one that leads here today leads elsewhere tomorrow.
pub(crate) fn coordinator_address(given: &str, locked: bool) -> Result<(String, bool), Failure> {
    let (scheme, rest) = given.split_once("://").unwrap_or(("", given));
    let refuse = |expected: &str| {
        let (option, found) = ("--coordinator", format!("{given:?}"));
        Err(Failure::bad_input(format!("{option} {found}: expected {expected}")))
    };
    match (scheme, locked) {
        ("https", false) => return refuse("--tls DIR with an https address"),
        ("http", true) => return refuse("an https address, or none of both, with --tls"),
        ("" | "http" | "https", _) => {}
        _ => return refuse("HOST:PORT, http://HOST:PORT or https://HOST:PORT"),
    }
    let Some((host, port)) = rest.trim_end_matches('/').rsplit_once(':') else {
        return refuse("HOST:PORT, http://HOST:PORT or https://HOST:PORT");
    };
    if host.is_empty() || port.parse::<u16>().is_err() {
        return refuse("HOST:PORT, http://HOST:PORT or https://HOST:PORT");
    }
    let bare = host.trim_matches(['[', ']']);
    let here = bare == "localhost" || bare.parse().is_ok_and(is_here);
    // The door decides whether there is TLS; tonic only wants an address.
    Ok((format!("http://{host}:{port}"), here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_users_write_them() {
        let of = |given: &str, locked| coordinator_address(given, locked).map_err(|error| error.to_string());
        for given in ["127.0.0.1:7700", "http://127.0.0.1:7700", "http://127.0.0.1:7700/"] {
            assert_eq!(of(given, false).unwrap(), ("http://127.0.0.1:7700".into(), true));
        }
        assert_eq!(of("https://[::1]:7700", true).unwrap(), ("http://[::1]:7700".into(), true));
        assert_eq!(of("train-0.train:7700", true).unwrap(), ("http://train-0.train:7700".into(), false));
        assert!(of("https://host:7700", false).unwrap_err().contains("--tls DIR"));
        assert!(of("http://host:7700", true).unwrap_err().contains("https"));
        for wrong in ["host", "host:port", ":7700", "ftp://host:7700", "not an address"] {
            assert!(of(wrong, false).unwrap_err().contains("expected HOST:PORT"), "{wrong}");
        }
    }
}
