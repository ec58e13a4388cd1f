//! Who is at the other end of a connection, for the services behind a door.

use std::net::SocketAddr;

use crate::Role;

/// The other end. tonic puts it into the extensions of every request of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from; none for a local socket.
    pub address: Option<SocketAddr>,
    /// Its certificate's role; none where the door is not locked.
    pub role: Option<Role>,
    /// Whether the door asks for certificates.
    pub locked: bool,
}

/// A certificate that is good, but not for this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this needs the certificate of {expected}, the one that came is {found}'s")]
pub struct Forbidden {
    expected: String,
    found: String,
}

impl Peer {
    /// Whether the other end has one of these roles. Where nothing is locked everybody is everything.
    ///
    /// # Errors
    /// When its certificate is of another role.
    pub fn allow(&self, roles: &[Role]) -> Result<(), Forbidden> {
        if !self.locked || self.role.is_some_and(|role| roles.contains(&role)) {
            return Ok(());
        }
        let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        let found = self.role.map_or("nobody", Role::name).into();
        Err(Forbidden { expected: format!("the {}", names.join(" or the ")), found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_is_said_and_nothing_else() {
        let peer = |role, locked| Peer { address: None, role, locked };
        for role in Role::ALL {
            for allowed in Role::ALL {
                assert_eq!(peer(Some(role), true).allow(&[allowed]).is_ok(), role == allowed);
                assert!(peer(None, false).allow(&[allowed]).is_ok());
            }
        }
        let refused = peer(Some(Role::Observer), true).allow(&[Role::Worker, Role::Operator]).unwrap_err();
        let expected =
            "this needs the certificate of the worker or the operator, the one that came is observer's";
        assert_eq!(refused.to_string(), expected);
        assert!(peer(None, true).allow(&Role::ALL).is_err());
    }
}
