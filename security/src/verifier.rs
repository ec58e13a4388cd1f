//! How a client judges the server's certificate: signed by the cluster's own authority, in date, and of the expected role.
//!
//! Names do not count: workers have none that last, and every certificate of the authority is the cluster's. What must
//! not happen is that one role passes for another, and that is what is checked.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::Role;

/// Accepts one role's certificates of one authority.
#[derive(Debug)]
pub(crate) struct RoleVerifier {
    roots: Arc<RootCertStore>,
    expected: Role,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RoleVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, expected: Role) -> Self {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Self { roots, expected, algorithms }
    }
}

impl ServerCertVerifier for RoleVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match Role::of(certificate) {
            Some(role) if role == self.expected => Ok(ServerCertVerified::assertion()),
            found => {
                let found = found.map_or("nobody", Role::name);
                Err(Error::General(format!("expected the {}'s certificate, found {found}'s", self.expected)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
