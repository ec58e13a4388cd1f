//! Objects found, listed and opened. Keeps a client for each bucket.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};
use tokio_stream::StreamExt;

use crate::StorageError;
use crate::address::{Address, Kind};
use crate::reader::{Origin, Reader};

/// An object as it was when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub url: String,
    /// Its length.
    pub bytes: u64,
    /// The entity tag of its content; none where the server has none.
    pub tag: Option<String>,
}

/// The way to every object. Credentials and servers come from the environment, under the names of `object_store`:
/// `AWS_*`, `GOOGLE_*`, `AZURE_*`.
#[derive(Debug)]
pub struct Store {
    runtime: Runtime,
    /// By [`Address::root`].
    clients: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

impl Store {
    /// A store that has opened nothing yet.
    ///
    /// # Errors
    /// [`StorageError::Failed`] when the system has no thread left for it.
    pub fn new() -> Result<Self, StorageError> {
        // Somebody else may have chosen already; any choice will do.
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("the process has a TLS provider already");
        }
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("storage").enable_all().build();
        let runtime = runtime.map_err(|source| StorageError::Failed { source: source.into() })?;
        Ok(Store { runtime, clients: Mutex::default() })
    }

    /// The object of exactly this URL; none when there is no such object.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn find(&self, url: &str) -> Result<Option<Object>, StorageError> {
        let address = Address::parse(url)?;
        let client = self.client(&address)?;
        match self.runtime.block_on(client.head(&address.path)) {
            Ok(meta) => Ok(Some(object(url.to_owned(), meta))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError::of(error, address.kind.hint(), false)),
        }
    }

    /// Every object below `folder`, at any depth.
    ///
    /// # Errors
    /// [`StorageError`]. No object there is no error.
    pub fn list(&self, folder: &str) -> Result<Vec<Object>, StorageError> {
        let address = Address::parse(folder)?;
        let client = self.client(&address)?;
        let listed = self.runtime.block_on(client.list(Some(&address.path)).collect::<Vec<_>>());
        let listed: Result<Vec<ObjectMeta>, Error> = listed.into_iter().collect();
        let objects = |metas: Vec<ObjectMeta>| {
            metas.into_iter().map(|meta| object(address.url_of(&meta.location), meta))
        };
        match listed {
            Ok(metas) => Ok(objects(metas).collect()),
            Err(source) if address.kind == Kind::Web => {
                Err(StorageError::NoListing { source: source.into() })
            }
            Err(source) => Err(StorageError::of(source, address.kind.hint(), false)),
        }
    }

    /// The bytes of `range` of `object`, as far as it goes. A connection that breaks is taken up where it broke.
    ///
    /// # Errors
    /// [`StorageError`], here and inside the [`std::io::Error`]s of the reader.
    pub fn open(&self, object: &Object, range: Range<u64>) -> Result<Reader, StorageError> {
        let address = Address::parse(&object.url)?;
        let client = self.client(&address)?;
        let range = range.start.min(object.bytes)..range.end.min(object.bytes);
        let origin = Origin { client, address, bytes: object.bytes, tag: object.tag.clone() };
        Reader::open(self.runtime.handle(), origin, range)
    }

    /// A URL taken apart, and the way to its bucket.
    pub(crate) fn place(&self, url: &str) -> Result<(Address, Arc<dyn ObjectStore>), StorageError> {
        let address = Address::parse(url)?;
        let client = self.client(&address)?;
        Ok((address, client))
    }

    pub(crate) fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    fn client(&self, address: &Address) -> Result<Arc<dyn ObjectStore>, StorageError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address.root) {
            return Ok(client.clone());
        }
        let client = build(address).map_err(|error| StorageError::of(error, address.kind.hint(), false))?;
        clients.insert(address.root.clone(), client.clone());
        Ok(client)
    }
}

fn object(url: String, meta: ObjectMeta) -> Object {
    Object { url, bytes: meta.size, tag: meta.e_tag }
}

fn build(address: &Address) -> Result<Arc<dyn ObjectStore>, Error> {
    let (root, retry) = (address.root.as_str(), retry());
    Ok(match address.kind {
        Kind::S3 => Arc::new(AmazonS3Builder::from_env().with_url(root).with_retry(retry).build()?),
        Kind::Google => {
            Arc::new(GoogleCloudStorageBuilder::from_env().with_url(root).with_retry(retry).build()?)
        }
        Kind::Azure => Arc::new(MicrosoftAzureBuilder::from_env().with_url(root).with_retry(retry).build()?),
        Kind::Web => {
            let options = ClientOptions::new().with_allow_http(root.starts_with("http://"));
            let builder = HttpBuilder::new().with_url(root).with_client_options(options);
            Arc::new(builder.with_retry(retry).build()?)
        }
    })
}

/// Patient enough for a server that restarts, not so patient that a wrong name seems to hang.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: 6, retry_timeout: Duration::from_secs(60) }
}
