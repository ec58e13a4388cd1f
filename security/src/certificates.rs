//! A private authority, the certificates of the roles, and the join token, as files. Whoever has the authority's key can
//! make more of them: it stays where it was made.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::ring;
use time::{Duration, OffsetDateTime};

use crate::Role;

/// How the authority calls itself.
const AUTHORITY: &str = "Carousel cluster authority";
/// The authority outlives the certificates that it makes; a new one is a new cluster.
const AUTHORITY_DAYS: i64 = 3650;
/// The machines' clocks may differ by so much.
const CLOCKS: Duration = Duration::minutes(10);

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file or folder.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// There is something already.
    #[error("{path} exists; give --renew for new certificates of the same authority, or name another folder")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A name that is none.
    #[error("--name {name:?}: expected a DNS name or an IP address")]
    Name {
        /// As given.
        name: String,
    },
    /// The authority's files cannot be used, or a certificate could not be made.
    #[error("{path}: {source}")]
    Make {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: rcgen::Error,
    },
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// A role's folder each.
    pub roles: Vec<(Role, PathBuf)>,
    /// When the roles' certificates end: seconds since 1970.
    pub expires: i64,
}

/// The authority in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    key: KeyPair,
    certificate: String,
}

impl Authority {
    /// Makes a folder with an authority, a certificate for each role, good for `days`, and a join token. `names`: further
    /// names in the certificates, for programs that look at them; Carousel does not.
    ///
    /// # Errors
    /// When the folder is there, or cannot be written: then nothing is left of it.
    pub fn make(folder: &Path, days: u32, names: &[String]) -> Result<Made, CertificatesError> {
        let names = names.iter().map(|name| name_of(name)).collect::<Result<Vec<_>, _>>()?;
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(|source| io(parent, source))?;
        }
        create_folder(folder).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => CertificatesError::Exists { path: folder.into() },
            _ => io(folder, source),
        })?;
        let fill = || {
            let authority = Self::found(folder)?;
            write(&folder.join("token"), token().as_bytes())?;
            authority.certify(days, &names)
        };
        fill().inspect_err(|_| {
            if let Err(error) = fs::remove_dir_all(folder) {
                tracing::warn!("{}: {error}", folder.display());
            }
        })
    }

    /// Makes new certificates in a folder that [`Authority::make`] made; the authority and the token stay.
    ///
    /// # Errors
    /// When the authority's files are not there, or nothing can be written: then the old certificates are whole.
    pub fn renew(folder: &Path, days: u32, names: &[String]) -> Result<Made, CertificatesError> {
        let names = names.iter().map(|name| name_of(name)).collect::<Result<Vec<_>, _>>()?;
        let path = folder.join("ca/ca.key");
        let key = fs::read_to_string(&path).map_err(|source| io(&path, source))?;
        let key = KeyPair::from_pem(&key).map_err(|source| CertificatesError::Make { path, source })?;
        let path = folder.join("ca/ca.crt");
        let certificate = fs::read_to_string(&path).map_err(|source| io(&path, source))?;
        Self { folder: folder.into(), key, certificate }.certify(days, &names)
    }

    fn found(folder: &Path) -> Result<Self, CertificatesError> {
        let path = folder.join("ca");
        create_folder(&path).map_err(|source| io(&path, source))?;
        let make = |source| CertificatesError::Make { path: path.clone(), source };
        let key = KeyPair::generate().map_err(make)?;
        let mut params = authority();
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - CLOCKS, now + Duration::days(AUTHORITY_DAYS));
        let certificate = params.self_signed(&key).map_err(make)?.pem();
        write(&path.join("ca.key"), key.serialize_pem().as_bytes())?;
        write(&path.join("ca.crt"), certificate.as_bytes())?;
        Ok(Self { folder: folder.into(), key, certificate })
    }

    fn certify(&self, days: u32, names: &[SanType]) -> Result<Made, CertificatesError> {
        let now = OffsetDateTime::now_utc();
        let expires = now + Duration::days(i64::from(days));
        let issuer = Issuer::new(authority(), &self.key);
        let mut roles = Vec::new();
        for role in Role::ALL {
            let folder = self.folder.join(role.name());
            let make = |source| CertificatesError::Make { path: folder.clone(), source };
            let key = KeyPair::generate().map_err(make)?;
            let mut params = of_role(role, names).map_err(make)?;
            (params.not_before, params.not_after) = (now - CLOCKS, expires);
            let certificate = params.signed_by(&key, &issuer).map_err(make)?.pem();
            replace(&folder, [&self.certificate, &certificate, &key.serialize_pem()])?;
            roles.push((role, folder));
        }
        Ok(Made { roles, expires: expires.unix_timestamp() })
    }
}

/// What the authority's certificate says, and so what those that it signs name as their issuer.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Every role may be at either end of a connection: workers serve each other, and a coordinator asks itself for its health.
fn of_role(role: Role, names: &[SanType]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("carousel {role}"));
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(role.uri())?)];
    params.subject_alt_names.extend(names.iter().cloned());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn name_of(name: &str) -> Result<SanType, CertificatesError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*');
    let none = || CertificatesError::Name { name: name.into() };
    if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
        return Err(none());
    }
    Ia5String::try_from(name).map(SanType::DnsName).map_err(|_| none())
}

/// 32 random bytes in hexadecimal.
fn token() -> String {
    let mut bytes = [0u8; 32];
    ring::default_provider().secure_random.fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
}

fn create_folder(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Writes a file that only its owner reads.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CertificatesError> {
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| io(path, source))
}

/// Puts a role's files in place. The key and its certificate change one after the other: who reads between the two finds
/// that they do not go together, keeps what it had, and looks again.
fn replace(folder: &Path, contents: [&str; 3]) -> Result<(), CertificatesError> {
    if !folder.is_dir() {
        create_folder(folder).map_err(|source| io(folder, source))?;
    }
    let names = ["ca.crt", "tls.crt", "tls.key"];
    let beside = names.map(|name| folder.join(format!("{name}.new")));
    for (path, content) in beside.iter().zip(contents) {
        write(path, content.as_bytes())?;
    }
    for (path, name) in beside.iter().zip(names) {
        fs::rename(path, folder.join(name)).map_err(|source| io(path, source))?;
    }
    Ok(())
}

fn io(path: &Path, source: std::io::Error) -> CertificatesError {
    CertificatesError::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_reads_what_was_made_and_nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        let made = Authority::make(&certs, 30, &["coordinator.example".into(), "192.0.2.1".into()]).unwrap();
        assert_eq!(made.roles.len(), 4);
        for file in ["token", "ca/ca.key", "worker/tls.key", "operator/tls.key"] {
            let mode = fs::metadata(certs.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }
        assert!(matches!(Authority::make(&certs, 30, &[]), Err(CertificatesError::Exists { .. })));
        let token = fs::read(certs.join("token")).unwrap();
        Authority::renew(&certs, 30, &[]).unwrap();
        assert_eq!(fs::read(certs.join("token")).unwrap(), token);
        assert!(!certs.join("worker/tls.key.new").exists());
    }

    #[test]
    fn a_name_that_is_none_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        let error = Authority::make(&certs, 30, &["two words".into()]).unwrap_err().to_string();
        assert_eq!(error, r#"--name "two words": expected a DNS name or an IP address"#);
        assert!(!certs.exists());
    }

    #[test]
    fn two_tokens_differ() {
        assert_ne!(token(), token());
        assert_eq!(token().len(), 65);
    }
}
