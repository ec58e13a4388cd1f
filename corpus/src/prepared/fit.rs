//! Does a prepared folder fit a configuration and the text it names? If so it is opened, and every byte of it that
//! will be used is checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use blake3::Hash;

use super::manifest::{self, TextRecord, named, selection_keys, token_keys};
use super::{Prepared, PreparedError, TOKENIZER_FILE};
use crate::batches::Batches;
use crate::{
    CorpusError, DataConfig, Documents, FileStamp, Progress, Source, Split, Stage, Storage, TokenFile,
    TokenFileError, Tokenizer, TokenizerConfig, Watch,
};

/// A prepared folder that fits, with its tokens ready to be read.
#[derive(Debug)]
pub struct Opened {
    /// What made the tokens.
    pub tokenizer: Tokenizer,
    /// The training text.
    pub train: TokenFile,
    /// The validation text, when the configuration has one.
    pub valid: Option<TokenFile>,
    /// The test text, when the configuration has one.
    pub test: Option<TokenFile>,
    /// Splits whose text is not here to compare with.
    pub absent: Vec<Split>,
}

impl Prepared {
    /// Whether it was made of the same text with the same keys. First by names, lengths and dates of the files; if
    /// these differ, by the text itself, which is then read once. With `text_may_be_absent`, a text of which no file is
    /// there any more is believed to be the one: such splits are returned.
    ///
    /// # Errors
    /// [`CorpusError::Prepared`] with what is different; what reading the text ends with.
    pub fn check(
        &self,
        config: &DataConfig,
        text_may_be_absent: bool,
        watch: Watch<'_>,
    ) -> Result<Vec<Split>, CorpusError> {
        self.check_keys(&self.manifest.tokens, &token_keys(config))?;
        self.check_tokenizer(config)?;
        let mut absent = Vec::new();
        for split in [Split::Train, Split::Valid, Split::Test] {
            let record = self.manifest.texts.get(split.name());
            match (record, config.paths(split).is_empty()) {
                (None, true) => {}
                (None, false) => return Err(self.split(split, "nothing", "a text")),
                (Some(_), true) => return Err(self.split(split, "a text", "none")),
                (Some(record), false) => {
                    match self.check_text(config, split, record, &mut *watch) {
                        Err(CorpusError::NotFound { .. }) if text_may_be_absent => absent.push(split),
                        checked => checked?,
                    };
                }
            }
        }
        Ok(absent)
    }

    /// Opens it after [`Prepared::check`].
    ///
    /// # Errors
    /// The same; and [`CorpusError::TokenFile`] for a file that is not what was written.
    pub fn open(
        &self,
        config: &DataConfig,
        text_may_be_absent: bool,
        watch: Watch<'_>,
    ) -> Result<Opened, CorpusError> {
        let absent = self.check(config, text_may_be_absent, watch)?;
        let storage = &config.storage;
        let tokenizer = Tokenizer::from_file_in(&self.folder.join(TOKENIZER_FILE), &**storage)?;
        let file = |split: Split| self.token_file(split, &tokenizer, storage);
        let train = file(Split::Train)?.ok_or_else(|| self.split(Split::Train, "nothing", "a text"))?;
        let (valid, test) = (file(Split::Valid)?, file(Split::Test)?);
        Ok(Opened { tokenizer, train, valid, test, absent })
    }

    fn token_file(
        &self,
        split: Split,
        tokenizer: &Tokenizer,
        storage: &Arc<dyn Storage>,
    ) -> Result<Option<TokenFile>, CorpusError> {
        let Some(figures) = self.manifest.splits.get(split.name()) else { return Ok(None) };
        let path = self.folder.join(split.file_name());
        let file = TokenFile::open_with(&path, storage)?;
        let expected = Hash::from_bytes(tokenizer.identity());
        if file.info().tokenizer != expected {
            let (found, expected) = (file.info().tokenizer.to_string(), expected.to_string());
            return Err(TokenFileError::Tokenizer { path, found, expected }.into());
        }
        if file.tokens() != figures.tokens || file.info().split != split.name() {
            let reason = format!(
                "{} tokens of {}, expected {} of {} as in {}",
                file.tokens(),
                file.info().split,
                figures.tokens,
                split.name(),
                manifest::FILE
            );
            return Err(TokenFileError::Malformed { path, reason }.into());
        }
        Ok(Some(file))
    }

    fn check_keys(
        &self,
        made: &BTreeMap<String, String>,
        found: &BTreeMap<String, String>,
    ) -> Result<(), PreparedError> {
        let keys: std::collections::BTreeSet<&String> = made.keys().chain(found.keys()).collect();
        let value = |keys: &BTreeMap<String, String>, key| keys.get(key).cloned().unwrap_or("not set".into());
        match keys.into_iter().find(|&key| made.get(key) != found.get(key)) {
            None => Ok(()),
            Some(key) => Err(PreparedError::Key {
                folder: self.folder.clone(),
                key: key.clone(),
                made: value(made, key),
                found: value(found, key),
            }),
        }
    }

    /// A tokenizer that comes from a file must be the same file's.
    fn check_tokenizer(&self, config: &DataConfig) -> Result<(), CorpusError> {
        let TokenizerConfig::File(path) = &config.tokenizer else { return Ok(()) };
        let found = Hash::from_bytes(Tokenizer::from_file(path)?.identity()).to_string();
        if found == self.manifest.tokenizer_blake3 {
            return Ok(());
        }
        Err(PreparedError::Key {
            folder: self.folder.clone(),
            key: "data.tokenizer".into(),
            made: format!("a file with the hash {}", self.manifest.tokenizer_blake3),
            found: format!("{} with the hash {found}", path.display()),
        }
        .into())
    }

    fn check_text(
        &self,
        config: &DataConfig,
        split: Split,
        record: &TextRecord,
        watch: Watch<'_>,
    ) -> Result<(), CorpusError> {
        let options = config.source_options(split);
        let source = Source::open(split.setting(), config.paths(split), &options)?;
        let (files, total) = (source.files(), source.total_bytes());
        let same_selection = self.manifest.selection == selection_keys(config);
        let certain = |file: &FileStamp| file.bytes.is_some() && file.version.is_some();
        if same_selection && files == record.files && files.iter().all(certain) {
            return Ok(());
        }
        let mut batches = Batches::new(source, Documents::Joined, None);
        for batch in batches.by_ref() {
            let done = batch?.consumed;
            watch(Progress { stage: Stage::Compare, split, done: done.min(total.unwrap_or(done)), total });
        }
        let text = batches.fingerprint();
        if record.is_of(&text, config.documents) {
            return Ok(());
        }
        // If the keys differ, that is the reason; else some file is another one.
        self.check_keys(&self.manifest.selection, &selection_keys(config))?;
        let what = difference(split, record, &files, text.bytes);
        Err(PreparedError::Text { folder: self.folder.clone(), what }.into())
    }

    fn split(&self, split: Split, made: &'static str, found: &'static str) -> CorpusError {
        PreparedError::Split { folder: self.folder.clone(), split: split.setting(), made, found }.into()
    }
}

/// The first file that is another one, in words.
fn difference(split: Split, record: &TextRecord, files: &[FileStamp], bytes: u64) -> String {
    let setting = split.setting();
    let changed = files.iter().zip(&record.files).find(|(found, made)| found != made);
    match changed {
        Some((found, made)) if found.path == made.path => {
            format!("{setting}: {} has changed ({bytes} bytes of text, {} then)", found.path, record.bytes)
        }
        Some((found, made)) => format!("{setting}: {} where {} was read", found.path, made.path),
        None => format!("{setting}: {} files, {} were read", files.len(), record.files.len()),
    }
}

impl Split {
    /// The name of its token file.
    pub(super) fn file_name(self) -> String {
        format!("{}.safetensors", self.name())
    }
}

/// Whether the splits of a configuration are all named.
pub(super) fn stamps(config: &DataConfig) -> Result<BTreeMap<&'static str, Vec<FileStamp>>, CorpusError> {
    let stamp = |split: Split| {
        let source = Source::open(split.setting(), config.paths(split), &config.source_options(split))?;
        Ok((split.name(), source.files()))
    };
    named(config).map(stamp).collect()
}
