//! Who is at the other end of a connection, for the services behind a door: which role it has, and whether it has joined.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic::service::Interceptor;
use tonic::{Extensions, Request, Status};

use crate::Role;
use crate::cord::Cord;

/// The other end. tonic puts it into the extensions of every request of the connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Its certificate's role; none where the door is not locked.
    pub role: Option<Role>,
    /// Whether the door asks for certificates.
    pub locked: bool,
    /// Whether it has shown the join token on this connection; its clones know as well.
    joined: Arc<AtomicBool>,
    cord: Cord,
}

/// A certificate that is good, but not for this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this needs the certificate of {expected}, the one that came is {found}'s; give the right folder by --tls"
)]
pub struct Forbidden {
    expected: String,
    found: String,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, role: Option<Role>, locked: bool) -> Self {
        Self { address, role, locked, joined: Arc::default(), cord: Cord::default() }
    }

    /// Whoever sent a request.
    ///
    /// # Errors
    /// When the request came through no door: then nobody is let in.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Self::among(request.extensions())
    }

    fn among(extensions: &Extensions) -> Result<Self, Status> {
        let peer = extensions.get::<Self>().cloned();
        peer.ok_or_else(|| Status::permission_denied("nobody knows who is at the other end"))
    }

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

    /// It has shown the join token: what else comes on this connection is its.
    pub fn join(&self) {
        self.joined.store(true, Ordering::Relaxed);
    }

    /// Ends the connection at once, whatever is on its way.
    pub fn hang_up(&self) {
        self.cord.cut();
    }

    pub(crate) fn cord(&self) -> &Cord {
        &self.cord
    }

    /// Whether [`Peer::join`] was called for this connection.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }
}

/// Who may call a service: an interceptor for `InterceptedService::new(service, Allowed::roles(&[Role::Worker]))`.
#[derive(Clone, Copy, Debug)]
pub struct Allowed(Option<&'static [Role]>);

impl Allowed {
    /// These roles, and everybody where nothing is locked.
    #[must_use]
    pub const fn roles(roles: &'static [Role]) -> Self {
        Self(Some(roles))
    }

    /// Whoever is there: the connection itself was checked in another way.
    #[must_use]
    pub const fn whoever_is_there() -> Self {
        Self(None)
    }

    /// The check for one method.
    ///
    /// # Errors
    /// When the caller's certificate is of another role.
    pub fn check<T>(self, request: &Request<T>) -> Result<(), Status> {
        self.check_among(request.extensions())
    }

    /// As [`Allowed::check`], for a service that takes requests as HTTP brings them.
    ///
    /// # Errors
    /// When the caller's certificate is of another role.
    pub fn check_among(self, extensions: &Extensions) -> Result<(), Status> {
        let Some(roles) = self.0 else { return Ok(()) };
        let peer = Peer::among(extensions)?;
        peer.allow(roles).map_err(|forbidden| {
            tracing::warn!("{} was refused: {forbidden}", peer.address);
            Status::permission_denied(forbidden.to_string())
        })
    }
}

impl Interceptor for Allowed {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(&request).map(|()| request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_is_said_and_nothing_else() {
        let peer = |role, locked| Peer::new(([127, 0, 0, 1], 1).into(), role, locked);
        for role in Role::ALL {
            for allowed in Role::ALL {
                assert_eq!(peer(Some(role), true).allow(&[allowed]).is_ok(), role == allowed);
                assert!(peer(None, false).allow(&[allowed]).is_ok());
            }
        }
        let refused = peer(Some(Role::Observer), true).allow(&[Role::Worker, Role::Operator]).unwrap_err();
        let expected =
            "this needs the certificate of the worker or the operator, the one that came is observer's";
        assert!(refused.to_string().starts_with(expected), "{refused}");
        assert!(peer(None, true).allow(&Role::ALL).is_err());
    }

    #[test]
    fn a_request_that_came_through_no_door_is_refused_and_a_role_by_its_name() {
        let workers = Allowed::roles(&[Role::Worker]);
        let mut request = Request::new(());
        assert_eq!(workers.check(&request).unwrap_err().code(), tonic::Code::PermissionDenied);
        assert!(Allowed::whoever_is_there().check(&request).is_ok());
        for role in Role::ALL {
            request.extensions_mut().insert(Peer::new(([127, 0, 0, 1], 1).into(), Some(role), true));
            assert_eq!(workers.check(&request).is_ok(), role == Role::Worker, "{role}");
        }
    }

    #[test]
    fn what_is_learnt_of_a_connection_is_known_to_all_its_requests() {
        let connection = Peer::new(([127, 0, 0, 1], 1).into(), None, false);
        let (one, other) = (connection.clone(), connection.clone());
        assert!(!other.has_joined());
        one.join();
        assert!(other.has_joined());
        assert!(!Peer::new(connection.address, None, false).has_joined());
    }
}
