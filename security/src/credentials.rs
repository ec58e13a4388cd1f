//! A role's folder: `ca.crt`, `tls.crt` and `tls.key`, as a Kubernetes TLS secret has them. They are looked at anew while
//! the process runs, so that renewed certificates count from the next connection on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};

use crate::Role;
use crate::verifier::RoleVerifier;

/// The files of a folder.
const FILES: [&str; 3] = ["ca.crt", "tls.crt", "tls.key"];
/// A certificate or key is far smaller.
const MOST_BYTES: u64 = 1 << 20;
/// The files are not looked at more often.
const PAUSE: Duration = Duration::from_secs(1);
/// gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// Certificates or a key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error(
        "{path}: {source}; expected a folder with ca.crt, tls.crt and tls.key, as `carousel certs` makes it"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file holds no certificate, or no key.
    #[error("{path}: {problem}; expected PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The files do not go together.
    #[error("{path}: {problem}")]
    Pair {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate is another role's.
    #[error("{path}: expected the {expected}'s certificate, found {found}'s")]
    Role {
        /// The file.
        path: PathBuf,
        /// Asked for.
        expected: String,
        /// In the certificate.
        found: String,
    },
}

/// A role's certificate, its key, and the authority that both sides trust.
pub struct Credentials {
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    material: Arc<Material>,
    looked: Instant,
    stamps: Stamps,
    /// The files that could not be used are told once.
    told: bool,
}

/// When the files were changed; none of one that is not there.
type Stamps = [Option<(SystemTime, u64)>; 3];

/// What was made of the files.
pub(crate) struct Material {
    pub role: Role,
    pub server: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.folder.display())
    }
}

impl Credentials {
    /// Reads a role's folder.
    ///
    /// # Errors
    /// When a file is missing, is no PEM, or does not go with the others; or the certificate is of none of `roles`.
    pub fn open(folder: &Path, roles: &[Role]) -> Result<Self, CredentialsError> {
        let stamps = stamps(folder);
        let material = Arc::new(Material::read(folder)?);
        if !roles.contains(&material.role) {
            let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
            let (path, expected) = (folder.join(FILES[1]), names.join("'s or the "));
            return Err(CredentialsError::Role { path, expected, found: material.role.to_string() });
        }
        let state = State { material, looked: Instant::now(), stamps, told: false };
        Ok(Self { folder: folder.into(), state: Mutex::new(state) })
    }

    /// The role that the certificate gives.
    #[must_use]
    pub fn role(&self) -> Role {
        self.current().role
    }

    /// What the files hold now. Files that cannot be used any more are told once, and what they held before stays.
    pub(crate) fn current(&self) -> Arc<Material> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= PAUSE {
            state.looked = Instant::now();
            let stamps = stamps(&self.folder);
            if stamps != state.stamps {
                self.renew(&mut state, stamps);
            }
        }
        state.material.clone()
    }

    fn renew(&self, state: &mut State, stamps: Stamps) {
        match Material::read(&self.folder) {
            Ok(material) if material.role == state.material.role => {
                tracing::info!("{}: renewed", self.folder.display());
                *state = State { material: Arc::new(material), looked: state.looked, stamps, told: false };
            }
            Ok(other) => {
                state.tell(format!("{}: now {}'s; the old one stays", self.folder.display(), other.role))
            }
            Err(error) => state.tell(format!("{error}; the old certificate stays")),
        }
    }
}

impl State {
    fn tell(&mut self, problem: String) {
        if !self.told {
            tracing::warn!("{problem}");
        }
        self.told = true;
    }
}

fn stamps(folder: &Path) -> Stamps {
    FILES.map(|file| {
        let metadata = std::fs::metadata(folder.join(file)).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

impl Material {
    fn read(folder: &Path) -> Result<Self, CredentialsError> {
        let [authority, certificate, key] = FILES.map(|file| folder.join(file));
        let mut roots = RootCertStore::empty();
        for root in certificates(&authority)? {
            roots.add(root).map_err(|error| pem(&authority, &error))?;
        }
        let chain = certificates(&certificate)?;
        let role = Role::of(&chain[0]).ok_or_else(|| pem(&certificate, &"the certificate names no role"))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|error| pem(&key, &error))?;
        let roots = Arc::new(roots);
        let pair = |problem: &dyn fmt::Display| CredentialsError::Pair {
            path: folder.into(),
            problem: problem.to_string(),
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build();
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| pair(&error))?
            .with_client_cert_verifier(verifier.map_err(|error| pair(&error))?)
            .with_single_cert(chain.clone(), key.clone_key());
        let mut server = server.map_err(|error| pair(&error))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { role, server: Arc::new(server), roots, chain, key })
    }

    /// For a connection to somebody of a role.
    pub(crate) fn client(&self, expected: Role) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(RoleVerifier::new(self.roots.clone(), expected)))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(client))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let io = |source| CredentialsError::Io { path: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    if bytes > MOST_BYTES {
        return Err(pem(path, &format!("{bytes} bytes are too many")));
    }
    std::fs::read(path).map_err(io)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| pem(path, &error))?;
    if found.is_empty() { Err(pem(path, &"it holds no certificate")) } else { Ok(found) }
}

fn pem(path: &Path, problem: &dyn fmt::Display) -> CredentialsError {
    CredentialsError::Pem { path: path.into(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    fn made() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        Authority::make(&folder.path().join("certs"), 30, &[]).unwrap();
        folder
    }

    #[test]
    fn each_roles_folder_opens_as_that_role_and_as_no_other() {
        let folder = made();
        for role in Role::ALL {
            let path = folder.path().join("certs").join(role.name());
            assert_eq!(Credentials::open(&path, &Role::ALL).unwrap().role(), role);
            let others: Vec<Role> = Role::ALL.into_iter().filter(|other| *other != role).collect();
            assert!(matches!(Credentials::open(&path, &others), Err(CredentialsError::Role { .. })));
        }
    }

    #[test]
    fn a_key_of_another_certificate_a_missing_file_and_no_pem_are_named() {
        let folder = made();
        let certs = folder.path().join("certs");
        let worker = certs.join("worker");
        std::fs::copy(certs.join("observer/tls.key"), worker.join("tls.key")).unwrap();
        assert!(matches!(Credentials::open(&worker, &Role::ALL), Err(CredentialsError::Pair { .. })));
        std::fs::write(worker.join("tls.crt"), "nothing").unwrap();
        let error = Credentials::open(&worker, &Role::ALL).unwrap_err().to_string();
        assert!(error.contains("tls.crt: it holds no certificate"), "{error}");
        std::fs::remove_file(worker.join("ca.crt")).unwrap();
        let error = Credentials::open(&worker, &Role::ALL).unwrap_err().to_string();
        assert!(error.contains("ca.crt: No such file"), "{error}");
    }

    #[test]
    fn renewed_files_are_seen_and_broken_ones_leave_the_old() {
        let folder = made();
        let certs = folder.path().join("certs");
        let credentials = Credentials::open(&certs.join("worker"), &[Role::Worker]).unwrap();
        let first = credentials.current().chain.clone();
        let look = || {
            credentials.state.lock().unwrap().looked -= PAUSE;
            credentials.current().chain.clone()
        };
        assert_eq!(look(), first);
        Authority::renew(&certs, 30, &[]).unwrap();
        let second = look();
        assert_ne!(second, first);
        std::fs::write(certs.join("worker/tls.crt"), "broken").unwrap();
        assert_eq!(look(), second);
    }
}
