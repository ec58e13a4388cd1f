//! What a certificate makes of its holder: a role, read from a URI among its names. What a role may do, each service says.

use std::fmt;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// What the holder of a certificate is, and so what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Owns a run. Workers and operators talk to it alone.
    Coordinator,
    /// Computes; talks to its coordinator and to other workers.
    Worker,
    /// Looks at a run, drains workers, asks for checkpoints, stops.
    Operator,
    /// Looks at a run.
    Observer,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Coordinator, Self::Worker, Self::Operator, Self::Observer];

    /// Its name, which is also its folder's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
            Self::Operator => "operator",
            Self::Observer => "observer",
        }
    }

    /// The URI among a certificate's alternative names that gives the role.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Coordinator => "carousel:role:coordinator",
            Self::Worker => "carousel:role:worker",
            Self::Operator => "carousel:role:operator",
            Self::Observer => "carousel:role:observer",
        }
    }

    /// The role that a certificate gives; none where it names no role, or several.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let mut roles = certificate
            .valid_uri_names()
            .filter_map(|uri| Self::ALL.into_iter().find(|role| role.uri() == uri));
        let first = roles.next()?;
        roles.all(|other| other == first).then_some(first)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
