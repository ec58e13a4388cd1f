//! From a checked configuration to a run the coordinator can make: reads the text, builds the tokenizer, cuts the
//! streams, finds the checkpoint to go on from. Nothing is written here.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use carousel_coordinator::checkpoint::RunFolder;
use carousel_coordinator::{
    Coordinator, Cut, Ending, Exchange, Length, ReplicaLayout, Run, RunError, Schedule, Splits, Start,
    Summary, TensorShape, TokenSource, Training,
};
use carousel_corpus::{DataConfig, EOS, Tokenizer};
use carousel_model::{ModelConfig, Optimizer, OptimizerConfig};
use carousel_proto::gradient::GradientLayout;
use carousel_proto::v1::{self, RunSettings, optimizer_settings::Kind};

use crate::config::{self, Config, ScheduleConfig};
use crate::failure::Failure;
use crate::prepare::{self, RunTokens};
use crate::resume;

/// Which run, as the command line says.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// The configuration, a TOML file
    #[arg(value_name = "CONFIG.toml")]
    pub config: PathBuf,
    /// The run's folder [default: runs/ and the configuration's name]
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Go on with the run in the folder, from its latest whole checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Set a key of the configuration, as train.epochs=3; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Everything a run needs, read and checked.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub config: Config,
    pub run: Run,
}

/// Reads and checks everything; `extra` are further `--set` options. `workers_outlive`: as in [`Run`].
pub(crate) fn prepare(
    arguments: &RunArguments,
    extra: &[String],
    workers_outlive: bool,
) -> Result<Prepared, Failure> {
    let sets: Vec<String> = arguments.sets.iter().chain(extra).cloned().collect();
    let mut config = config::load(&arguments.config, &sets)?;
    let folder = arguments.run.clone().unwrap_or_else(|| default_folder(&arguments.config));
    let found = if arguments.resume { Some(resume::find(&folder, &config)?) } else { None };
    if found.is_none() && folder.exists() {
        return Err(RunError::Exists { path: folder }.into());
    }
    let RunTokens { tokenizer, train, valid, test, folder: prepared } =
        prepare::tokens_of(&config, &arguments.config)?;
    // Kept with the run, so that an evaluation finds it.
    config.data.prepared = prepared.map(|folder| folder.to_string_lossy().into_owned());
    let model = model_config(&config, tokenizer.vocabulary())?;
    let tokens = TokenSource::new(Splits { train, valid, test }, cut_of(&config))?;
    let config_toml = toml::to_string_pretty(&config).map_err(Failure::failed)?;
    let start = match found {
        None => Start::New { config_toml, tokenizer_json: tokenizer.to_json() },
        Some(checkpoint) => {
            resume::check_data(&folder, checkpoint.as_ref(), &tokens, &tokenizer)?;
            Start::Resume { checkpoint: checkpoint.map(Box::new), config_toml }
        }
    };
    let run = run_of(&config, &model, tokens, (folder, start))?;
    Ok(Prepared { config, run: Run { workers_outlive, ..run } })
}

/// A run over made-up tokens, in a new folder.
pub(crate) fn synthetic(
    config: Config,
    vocabulary: usize,
    train: Vec<u32>,
    folder: PathBuf,
) -> Result<Prepared, Failure> {
    let model = model_config(&config, vocabulary)?;
    let tokens = TokenSource::new(Splits { train: train.into(), valid: None, test: None }, cut_of(&config))?;
    let config_toml = toml::to_string_pretty(&config).map_err(Failure::failed)?;
    let start = Start::New { config_toml, tokenizer_json: "{}".into() };
    let run = run_of(&config, &model, tokens, (folder, start))?;
    Ok(Prepared { config, run })
}

fn run_of(
    config: &Config,
    model: &ModelConfig,
    tokens: TokenSource,
    (folder, start): (PathBuf, Start),
) -> Result<Run, Failure> {
    Ok(Run {
        folder,
        start,
        settings: run_settings(config, model),
        layout: replica_layout(config, model)?,
        tokens,
        training: training(config),
        exchange: match config.cluster.exchange {
            config::Exchange::Mesh => Exchange::Mesh,
            config::Exchange::Star => Exchange::Star,
        },
        workers: config.cluster.workers as usize,
        workers_outlive: false,
    })
}

fn default_folder(config: &Path) -> PathBuf {
    Path::new("runs").join(config.file_stem().unwrap_or("run".as_ref()))
}

/// Opens the port before anything else is done, so that a taken one leaves nothing behind.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listen = TcpListener::bind(address);
    listen.map_err(|source| RunError::Listen { address: address.to_string(), source }.into())
}

/// What the user is told at the end, and the exit code.
pub(crate) fn conclude(result: Result<Summary, RunError>, folder: &Path) -> Result<(), Failure> {
    let summary = result?;
    if let Some((_, digest)) = &summary.checkpoint {
        println!("digest      {digest}");
    }
    match summary.ending {
        Ending::Interrupted => Err(Failure::Interrupted { step: summary.step }),
        _ => {
            println!("run         {} is complete: {} steps", folder.display(), summary.step);
            Ok(())
        }
    }
}

/// The text part of the configuration, as the corpus wants it.
pub(crate) fn data_config(config: &Config) -> Result<DataConfig, Failure> {
    let paths = |paths: &config::OneOrMany| paths.0.iter().map(PathBuf::from).collect();
    Ok(DataConfig {
        train: paths(&config.data.train),
        valid: paths(&config.data.valid),
        test: paths(&config.data.test),
        include: config.data.include.clone(),
        max_bytes: config.data.max_bytes,
        valid_fraction: config.data.valid_fraction,
        tokenizer: config.data.tokenizer.resolve()?,
        documents: config.data.documents.into(),
        eos: config.data.eos.clone().unwrap_or_else(|| EOS.into()),
        ..DataConfig::default()
    })
}

/// The model of a configuration over so many tokens.
pub(crate) fn model_config(config: &Config, vocabulary: usize) -> Result<ModelConfig, Failure> {
    let model = &config.model;
    let made = ModelConfig {
        cell: model.cell.parse()?,
        vocabulary,
        embedding: model.embedding as usize,
        hidden: model.hidden as usize,
        layers: model.layers as usize,
        tied: model.tied,
        dropout: model.dropout,
        init: model.init,
    };
    made.validate()?;
    Ok(made)
}

/// The sizes of the cut.
pub(crate) fn cut_of(config: &Config) -> Cut {
    let train = &config.train;
    Cut { streams: train.streams as usize, window: train.window as usize, lanes: train.lanes as usize }
}

fn training(config: &Config) -> Training {
    let train = &config.train;
    let length = match (train.epochs, train.steps) {
        (Some(epochs), _) => Length::Epochs(epochs),
        (None, steps) => Length::Steps(steps.expect("a validated configuration has epochs or steps")),
    };
    let schedule = match train.schedule.0 {
        ScheduleConfig::Constant => Schedule::Constant,
        ScheduleConfig::Cosine { warmup, floor } => Schedule::Cosine { warmup, floor },
        ScheduleConfig::Zaremba { after, divide } => Schedule::Zaremba { after, divide },
        ScheduleConfig::Plateau { divide } => Schedule::Plateau { divide },
    };
    Training {
        length,
        learning_rate: train.learning_rate,
        schedule,
        clip_norm: (train.clip_norm > 0.0).then_some(train.clip_norm),
        evaluate_every: train.evaluate_every,
        checkpoint_every: train.checkpoint_every,
        keep_checkpoints: train.keep_checkpoints,
        digest_every: (config.cluster.digest_every > 0).then_some(config.cluster.digest_every),
    }
}

fn optimizer(config: &Config) -> (OptimizerConfig, Kind) {
    match &config.train.optimizer.0 {
        config::Optimizer::Sgd => (OptimizerConfig::Sgd, Kind::Sgd(v1::Sgd {})),
        config::Optimizer::Adam(config::Adam { beta1, beta2, epsilon }) => {
            let (beta1, beta2, epsilon) = (*beta1, *beta2, *epsilon);
            (OptimizerConfig::Adam { beta1, beta2, epsilon }, Kind::Adam(v1::Adam { beta1, beta2, epsilon }))
        }
    }
}

fn run_settings(config: &Config, model: &ModelConfig) -> RunSettings {
    let model = v1::ModelSettings {
        cell: model.cell.to_string(),
        vocabulary: model.vocabulary as u64,
        embedding: model.embedding as u64,
        hidden: model.hidden as u64,
        layers: model.layers as u64,
        tied: model.tied,
        dropout: model.dropout,
        init: model.init,
    };
    RunSettings {
        seed: config.seed,
        model: Some(model),
        optimizer: Some(v1::OptimizerSettings { kind: Some(optimizer(config).1) }),
        streams: config.train.streams,
        window: config.train.window,
        lanes: config.train.lanes,
    }
}

/// Names and shapes for a coordinator that knows no model.
fn replica_layout(config: &Config, model: &ModelConfig) -> Result<ReplicaLayout, Failure> {
    let parameters = model.parameter_layout();
    let gradient = model.gradient_layout();
    let states = Optimizer::new(optimizer(config).0, &parameters)?;
    let shape = |name: &str, shape: Vec<usize>| TensorShape { name: name.into(), shape };
    let carry = model.carry_tensors();
    Ok(ReplicaLayout {
        parameters: parameters.tensors.iter().map(|t| shape(&t.name, t.shape.clone())).collect(),
        optimizer_state: states.state().iter().map(|(name, _)| (*name).into()).collect(),
        carry: carry.iter().map(|t| shape(t.name, vec![t.layers, t.hidden])).collect(),
        gradient: GradientLayout {
            dense: gradient.dense_len,
            dense_offset: gradient.dense_offset,
            rows: model.vocabulary,
            width: gradient.row_width,
            rows_fold_into: gradient.rows_fold_into,
        },
    })
}

/// A coordinator for a prepared run. Its folder is made here, before any process is started.
pub(crate) fn coordinator(run: Run, listener: TcpListener) -> Result<Coordinator, Failure> {
    Coordinator::new(run, listener).map_err(|error| match error {
        RunError::Io { .. } => Failure::bad_input(error),
        _ => error.into(),
    })
}

/// The folder of a run as a user would name it again.
pub(crate) fn folder_of(run: &Run) -> RunFolder {
    RunFolder::new(&run.folder)
}

/// The tokenizer that is kept with a run.
pub(crate) fn tokenizer_of(folder: &RunFolder) -> Result<Tokenizer, Failure> {
    Ok(Tokenizer::from_file(&folder.tokenizer())?)
}
