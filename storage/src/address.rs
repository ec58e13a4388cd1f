//! URLs: which store, and which key in it. Keys of buckets are taken as they are; those of web servers are
//! percent-encoded, as in a browser.

use object_store::path::Path;
use url::Url;

use crate::StorageError;

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Google,
    Azure,
    Web,
}

impl Kind {
    fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Kind::S3),
            "gs" => Some(Kind::Google),
            "az" | "azure" | "abfs" | "abfss" => Some(Kind::Azure),
            "http" | "https" => Some(Kind::Web),
            _ => None,
        }
    }

    /// Where credentials come from.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Kind::S3 => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_ENDPOINT for another server than Amazon's, \
                 AWS_SKIP_SIGNATURE=true for a public bucket)"
            }
            Kind::Google => {
                "set GOOGLE_SERVICE_ACCOUNT to a key file (GOOGLE_SKIP_SIGNATURE=true for a public bucket)"
            }
            Kind::Azure => {
                "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
            }
            Kind::Web => "the server wants a login, which an address cannot give",
        }
    }
}

/// A URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) kind: Kind,
    /// `s3://bucket`; of a web server `https://host/` with the query of the URL, where a signature would be.
    pub(crate) root: String,
    /// The key, as the store wants it.
    pub(crate) path: Path,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, StorageError> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let kind = Kind::of(scheme).ok_or_else(|| StorageError::UnknownScheme { scheme: scheme.into() })?;
        if kind == Kind::Web { Self::web(url) } else { Self::bucket(kind, scheme, rest) }
    }

    fn bucket(kind: Kind, scheme: &str, rest: &str) -> Result<Self, StorageError> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(StorageError::BadUrl { reason: format!("no bucket behind {scheme}://") });
        }
        let path = Path::parse(key).map_err(bad)?;
        Ok(Address { kind, root: format!("{scheme}://{bucket}"), path })
    }

    fn web(url: &str) -> Result<Self, StorageError> {
        let mut parsed = Url::parse(url).map_err(bad)?;
        let path = Path::from_url_path(parsed.path()).map_err(bad)?;
        parsed.set_path("/");
        parsed.set_fragment(None);
        Ok(Address { kind: Kind::Web, root: parsed.into(), path })
    }

    /// The URL of another object of the same store.
    pub(crate) fn url_of(&self, path: &Path) -> String {
        match self.kind {
            Kind::Web => Url::parse(&self.root).map_or_else(
                |_| path.to_string(),
                |mut url| {
                    url.set_path(path.as_ref());
                    url.into()
                },
            ),
            _ => format!("{}/{path}", self.root),
        }
    }
}

fn bad(error: impl std::fmt::Display) -> StorageError {
    StorageError::BadUrl { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, String) {
        let address = Address::parse(url).unwrap();
        (address.root, address.path.to_string())
    }

    #[test]
    fn a_bucket_and_a_key_are_taken_as_they_are() {
        assert_eq!(parts("s3://b/x y/ä%20.txt"), ("s3://b".into(), "x y/ä%20.txt".into()));
        assert_eq!(parts("gs://b/x/"), ("gs://b".into(), "x".into()));
        assert_eq!(parts("az://container"), ("az://container".into(), String::new()));
    }

    #[test]
    fn an_address_of_the_web_is_decoded_and_keeps_its_query() {
        let expected = ("https://host:8/?sign=a%2Fb".into(), "x y/z.txt".into());
        assert_eq!(parts("https://host:8/x%20y/z.txt?sign=a%2Fb#top"), expected);
    }

    #[test]
    fn the_url_of_a_path_reads_back() {
        for url in ["s3://b/x y/z", "https://host:8/x%20y/z.txt"] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.url_of(&address.path), url);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let unknown = Address::parse("ftp://host/x").unwrap_err().to_string();
        assert!(unknown.contains("\"ftp\"") && unknown.contains("s3://"), "{unknown}");
        for url in ["s3://", "gs:///x", "https://", "s3://b/a//b", "http://host:port/x"] {
            assert!(matches!(Address::parse(url), Err(StorageError::BadUrl { .. })), "{url}");
        }
    }
}
