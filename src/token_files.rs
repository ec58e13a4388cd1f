//! Workers that read token files by themselves: where the files are goes out with a run's settings, what is in them is known by
//! their hashes, and a worker answers its own requests as the coordinator would.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use carousel_coordinator::{Cut, Splits, TokenSource};
use carousel_corpus::{TokenFile, Tokens};
use carousel_proto::v1::{self, RunSettings, WindowReply, WindowRequest};
use carousel_worker::{Opened, TokenOpener, WindowReader};

use crate::config::{Config, Documents};
use crate::failure::Failure;
use crate::prepare::{self, RunTokens};

/// `cluster.tokens` where workers ask the coordinator.
pub(crate) const COORDINATOR: &str = "coordinator";

/// What a run's workers are told; nothing where they ask the coordinator.
///
/// # Errors
/// When the workers are to read token files and the run has none.
pub(crate) fn of_run(config: &Config, tokens: &RunTokens) -> Result<Option<v1::TokenFiles>, Failure> {
    if config.cluster.tokens == COORDINATOR {
        return Ok(None);
    }
    if tokens.folder.is_none() {
        return Err(Failure::bad_input(format!(
            "cluster.tokens: found {:?}, but this run has no token files; make them with carousel prepare, and put the \
             folder where every worker can read it",
            config.cluster.tokens
        )));
    }
    let hash = |tokens: Option<&Tokens>| tokens.map_or_else(Vec::new, |t| t.stored_hash().to_vec()).into();
    Ok(Some(v1::TokenFiles {
        folder: config.cluster.tokens.clone(),
        train: hash(Some(&tokens.train)),
        valid: hash(tokens.valid.as_ref()),
        test: hash(tokens.test.as_ref()),
        shuffled: config.data.documents == Documents::Apart,
    }))
}

/// What opens token files for a worker.
pub(crate) fn opener() -> TokenOpener {
    TokenOpener::new(open)
}

fn open(settings: &RunSettings) -> Opened {
    let files = settings.token_files.as_ref().ok_or("the settings name none")?;
    let train =
        file(files, "train", &files.train)?.ok_or("the settings have no hash of the training text")?;
    let ends = train.document_ends().filter(|_| files.shuffled).map(<[u64]>::to_vec);
    let splits = Splits {
        train: prepare::shuffled(settings.seed, train.into(), ends.as_deref()),
        valid: file(files, "valid", &files.valid)?.map(Tokens::from),
        test: file(files, "test", &files.test)?.map(Tokens::from),
    };
    let (streams, window, lanes) =
        (settings.streams as usize, settings.window as usize, settings.lanes as usize);
    Ok(Arc::new(Own(TokenSource::new(splits, Cut { streams, window, lanes })?)))
}

/// The file of a split, with the tokens that the coordinator's has; none where the hash is empty.
fn file(
    files: &v1::TokenFiles,
    split: &str,
    hash: &[u8],
) -> Result<Option<TokenFile>, Box<dyn Error + Send + Sync>> {
    if hash.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(format!("{}/{split}.safetensors", files.folder.trim_end_matches('/')));
    tracing::info!("reading {} once, to check it", path.display());
    let file = TokenFile::open_with(&path, &crate::storage::storage())?;
    if file.hash().as_bytes() != hash {
        let found = file.hash();
        return Err(format!("{}: its tokens have the hash {found}, not that of the coordinator's: it is of another text or tokenizer", path.display()).into());
    }
    Ok(Some(file))
}

/// The tokens of a run, in a worker.
struct Own(TokenSource);

impl WindowReader for Own {
    fn read(&self, request: &WindowRequest) -> Result<WindowReply, Box<dyn Error + Send + Sync>> {
        Ok(self.0.windows(request)?)
    }
}
