//! `carousel prepare`: the texts of a configuration become token files, which every run of it reads instead. Also where
//! a run finds out which of the two it is to read.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use carousel_corpus::{
    Corpus, CorpusError, DataConfig, DocumentOrder, Documents, Opened, Prepared, PreparedError, Progress,
    Source, Split, Stage, TokenFileError, Tokenizer, Tokens,
};
use carousel_model::philox4x32;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::bucket;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::launch;

/// Turn the texts of a configuration into token files that its runs read
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  carousel prepare examples/rust-source.toml\n  carousel train examples/rust-source.toml"
)]
pub(crate) struct Arguments {
    /// The configuration, a TOML file
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Set a key of the configuration, as data.tokenizer=words; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// The folder to make, or its address as s3://bucket/prefix [default: data.prepared, or prepared/ and the
    /// configuration's name]
    #[arg(long, value_name = "DIR_OR_URL")]
    out: Option<PathBuf>,
    /// Threads that work [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = config::load(&arguments.config, &arguments.sets)?;
    let folder = arguments.out.clone().unwrap_or_else(|| folder_of(&config, &arguments.config));
    let data = launch::data_config(&config)?;
    let mut bar = Bar::new();
    if address(&folder).is_some() {
        // What refuses addresses does it before anything is read.
        bucket::store(&folder.to_string_lossy())?;
    }
    if fits(&folder, &data, &mut bar)? {
        bar.finish();
        println!("prepared    {} fits already: nothing to do", folder.display());
        return Ok(());
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.map_or(cores, NonZero::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::failed)?;
    pool.install(|| make(&folder, &data, &mut bar)).map(|_| ())
}

/// Makes the folder and says what came of it.
fn make(folder: &Path, data: &DataConfig, bar: &mut Bar) -> Result<Prepared, Failure> {
    let Some(address) = address(folder) else { return make_here(folder, data, bar) };
    let here = tempfile::tempdir().map_err(Failure::failed)?;
    let made = make_here(&here.path().join("prepared"), data, bar)?;
    send(&made, address)?;
    println!("sent        {address}");
    let found = Prepared::find_in(folder, &*data.storage).map_err(CorpusError::from)?;
    found.ok_or_else(|| Failure::failed(format!("{address}: what was sent there is not there any more")))
}

fn make_here(folder: &Path, data: &DataConfig, bar: &mut Bar) -> Result<Prepared, Failure> {
    let begun = Instant::now();
    let made = Prepared::make(folder, data, &mut |progress| bar.show(progress));
    bar.finish();
    let prepared = made.map_err(failure)?.prepared;
    print(&prepared, data.documents, begun.elapsed());
    Ok(prepared)
}

/// Copies a folder into a bucket. The manifest goes first where one is and comes last: without it nothing is prepared there, so
/// that whatever ends this on the way leaves nothing that could be taken for whole.
fn send(prepared: &Prepared, address: &str) -> Result<(), Failure> {
    let store = bucket::store(address)?;
    let files = prepared.files();
    let manifest = files.last().expect("a prepared folder has a manifest");
    store.delete(manifest).map_err(Failure::failed)?;
    files
        .iter()
        .try_for_each(|file| store.put_file(file, &prepared.folder().join(file)))
        .map_err(Failure::failed)
}

/// Of a folder that is none: where it is in a bucket.
fn address(folder: &Path) -> Option<&str> {
    folder.to_str().filter(|text| carousel_corpus::is_url(text))
}

/// Whether the training text is too large to be held as tokens. One of unknown length is not.
fn is_large(config: &Config, data: &DataConfig) -> Result<bool, Failure> {
    let options = data.source_options(Split::Train);
    let source = Source::open(Split::Train.setting(), data.paths(Split::Train), &options)?;
    Ok(source.total_bytes().is_some_and(|bytes| bytes > config.data.in_memory))
}

/// The folder of a configuration's prepared tokens.
fn folder_of(config: &Config, path: &Path) -> PathBuf {
    let named = config.data.prepared.as_ref().map(PathBuf::from);
    named.unwrap_or_else(|| Path::new("prepared").join(path.file_stem().unwrap_or("run".as_ref())))
}

/// Whether a sound folder is there that needs nothing.
fn fits(folder: &Path, data: &DataConfig, bar: &mut Bar) -> Result<bool, Failure> {
    let Some(prepared) = Prepared::find_in(folder, &*data.storage).map_err(CorpusError::from)? else {
        return Ok(false);
    };
    match prepared.open(data, false, &mut |progress| bar.show(progress)) {
        Ok(_) => Ok(true),
        Err(CorpusError::Prepared(error)) if error.is_misfit() => Ok(false),
        // A damaged file is made again.
        Err(CorpusError::TokenFile(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the disk refuses is no mistake of the user's.
fn failure(error: CorpusError) -> Failure {
    match error {
        CorpusError::Prepared(PreparedError::Io { .. })
        | CorpusError::TokenFile(TokenFileError::Io { .. }) => Failure::failed(error),
        error => error.into(),
    }
}

fn print(prepared: &Prepared, documents: Documents, took: Duration) {
    let mut bytes = 0;
    for split in prepared.figures() {
        bytes += split.bytes;
        let share = 100.0 * split.unknown as f64 / split.tokens.max(1) as f64;
        // Joined documents are not told apart: a part that was cut off has no number of its own.
        let of = match documents {
            Documents::Apart => format!(" of {} documents", split.documents),
            Documents::Joined => String::new(),
        };
        let (name, tokens, bytes) = (&split.split, split.tokens, split.bytes);
        println!("{name:<11} {tokens} tokens{of}, {bytes} bytes of text; {share:.2} % <unk>");
    }
    println!("vocabulary  {}", prepared.vocabulary());
    if prepared.forgotten_to() > 0 {
        println!(
            "            more words than data.tokenizer.max_counted: those that came up to {} times until then \
             were forgotten on the way",
            prepared.forgotten_to()
        );
    }
    let seconds = took.as_secs_f64();
    println!("took        {seconds:.2} s, {:.1} MB/s", bytes as f64 / 1e6 / seconds);
    println!("prepared    {}", prepared.folder().display());
}

/// The tokens of a run, wherever they come from.
#[derive(Debug)]
pub(crate) struct RunTokens {
    pub tokenizer: Tokenizer,
    pub train: Tokens,
    pub valid: Option<Tokens>,
    pub test: Option<Tokens>,
    /// The prepared folder they are in; none when they were made in memory.
    pub folder: Option<PathBuf>,
}

/// Reads a configuration's tokens: from the folder that was prepared for it, if there is one, and from its text
/// otherwise. `path`: the configuration's own, for the folder's name. `say` hears which it is.
///
/// # Errors
/// When there is a folder that does not fit, or one is named in the configuration and is not there.
pub(crate) fn tokens_of(config: &Config, path: &Path, say: fn(String)) -> Result<RunTokens, Failure> {
    let data = launch::data_config(config)?;
    let folder = folder_of(config, path);
    let named = config.data.prepared.is_some();
    let mut bar = Bar::new();
    let prepared = match Prepared::find_in(&folder, &*data.storage).map_err(CorpusError::from)? {
        Some(prepared) => prepared,
        None if named => return Err(missing(&folder, path)),
        None if !is_large(config, &data)? => return from_text(config, &data),
        None => {
            say(format!(
                "text        is larger than data.in_memory, {} bytes: preparing it",
                config.data.in_memory
            ));
            make(&folder, &data, &mut bar)?
        }
    };
    let opened = prepared.open(&data, named, &mut |progress| bar.show(progress));
    bar.finish();
    let opened = opened.map_err(|error| match error {
        CorpusError::Prepared(error) if error.is_misfit() => misfit(&error, path),
        other => other.into(),
    })?;
    for split in &opened.absent {
        say(format!(
            "text        {} is not here; its tokens are used as they were prepared",
            split.setting()
        ));
    }
    say(format!("tokens      {} fits and is used", folder.display()));
    from_files(config, opened, folder)
}

/// The tokens of a run that is there and has this tokenizer: from the folder it was trained from, if that still is.
///
/// # Errors
/// When the folder does not fit the text any more, or the text not the tokenizer; those of reading it.
pub(crate) fn tokens_of_run(config: &Config, tokenizer: &Tokenizer) -> Result<RunTokens, Failure> {
    let tokens = match config.data.prepared.as_ref().map(Path::new) {
        Some(folder) if folder.exists() || address(folder).is_some() => {
            tokens_of(config, Path::new("CONFIG.toml"), |line| eprintln!("{line}"))?
        }
        Some(folder) => {
            eprintln!("note: {} is not there any more; reading the text", folder.display());
            from_text(config, &launch::data_config(config)?)?
        }
        None => from_text(config, &launch::data_config(config)?)?,
    };
    // Of another text the tokens would mean something else.
    if tokens.tokenizer.identity() == tokenizer.identity() {
        return Ok(tokens);
    }
    Err(Failure::bad_input(format!(
        "data.train: found a text whose vocabulary has {} tokens, expected the one the run's tokenizer.json was made from, \
         with {}; --text FILE evaluates another text",
        tokens.tokenizer.vocabulary(),
        tokenizer.vocabulary()
    )))
}

fn missing(folder: &Path, path: &Path) -> Failure {
    let (folder, path) = (folder.display(), path.display());
    Failure::bad_input(format!(
        "data.prepared: there is no folder {folder}; make it with: carousel prepare {path}"
    ))
}

fn misfit(error: &PreparedError, path: &Path) -> Failure {
    let path = path.display();
    Failure::bad_input(format!("{error}; make it anew with: carousel prepare {path}"))
}

fn from_text(config: &Config, data: &DataConfig) -> Result<RunTokens, Failure> {
    let corpus = Corpus::load(data)?;
    let ends = corpus.train_documents;
    Ok(RunTokens {
        tokenizer: corpus.tokenizer,
        train: ordered(config, corpus.train.into(), ends.as_deref()),
        valid: corpus.valid.map(Tokens::from),
        test: corpus.test.map(Tokens::from),
        folder: None,
    })
}

fn from_files(config: &Config, opened: Opened, folder: PathBuf) -> Result<RunTokens, Failure> {
    let ends = opened.train.document_ends().map(<[u64]>::to_vec);
    Ok(RunTokens {
        tokenizer: opened.tokenizer,
        train: ordered(config, opened.train.into(), ends.as_deref()),
        valid: opened.valid.map(Tokens::from),
        test: opened.test.map(Tokens::from),
        folder: Some(match address(&folder) {
            Some(_) => folder,
            None => std::path::absolute(folder).map_err(Failure::failed)?,
        }),
    })
}

/// Keeps the order of documents apart from what else is drawn under a seed.
const PLACE: u32 = 0x0d0c_5000;

/// The training text with its documents, when they are apart, in the order that the seed decides.
fn ordered(config: &Config, train: Tokens, ends: Option<&[u64]>) -> Tokens {
    shuffled(config.seed, train, ends.filter(|_| config.data.documents == config::Documents::Apart))
}

/// The training text with the documents that end there, if any are told apart, in the order that the seed decides.
pub(crate) fn shuffled(seed: u64, train: Tokens, ends: Option<&[u64]>) -> Tokens {
    let Some(ends) = ends else { return train };
    let key = [seed as u32, (seed >> 32) as u32];
    let random = |draw: u64| {
        let words = philox4x32([draw as u32, (draw >> 32) as u32, 0, PLACE], key);
        u64::from(words[0]) << 32 | u64::from(words[1])
    };
    train.in_order(DocumentOrder::shuffled(ends, random))
}

/// A progress bar on a terminal; nothing elsewhere.
struct Bar {
    bar: ProgressBar,
    stage: Option<(Stage, &'static str)>,
}

impl Bar {
    fn new() -> Self {
        Self { bar: ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()), stage: None }
    }

    fn show(&mut self, progress: Progress) {
        let stage = (progress.stage, progress.split.name());
        if self.stage != Some(stage) {
            self.stage = Some(stage);
            self.begin(progress);
        }
        self.bar.set_position(progress.done);
    }

    fn begin(&mut self, progress: Progress) {
        let doing = match progress.stage {
            Stage::Measure => "measuring",
            Stage::Count => "counting",
            Stage::Encode => "encoding",
            Stage::Compare => "comparing",
        };
        let template = match progress.total {
            Some(_) => "{msg} {bar:24} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
            None => "{msg} {spinner} {bytes}  {bytes_per_sec}",
        };
        self.bar.reset();
        self.bar.set_style(ProgressStyle::with_template(template).expect("the templates are constants"));
        self.bar.set_length(progress.total.unwrap_or(0));
        self.bar.set_message(format!("{doing} {}", progress.split.name()));
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
