//! From a checked configuration to a run the coordinator can make: reads the text, builds the tokenizer, cuts the
//! streams, finds the checkpoint to go on from. Nothing is written here.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use carousel_coordinator::checkpoint::RunFolder;
use carousel_coordinator::{
    Coordinator, Cut, Ending, Exchange, Locks, ReplicaLayout, Run, RunError, Sections, Splits, Start,
    Summary, TensorShape, TokenSource,
};
use carousel_corpus::{DataConfig, EOS, SourceOptions, Tokenizer};
use carousel_model::{ModelConfig, Optimizer, ParameterLayout};
use carousel_proto::gradient::GradientLayout;
use carousel_proto::v1::{self, RunSettings};

use crate::config::{self, Config};
use crate::failure::Failure;
use crate::import;
use crate::learning;
use crate::place::{self, Begin};
use crate::prepare::{self, RunTokens};
use crate::resume;
use crate::token_files;

/// Which run, as the command line says.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// The configuration, a TOML file
    #[arg(value_name = "CONFIG.toml")]
    pub config: PathBuf,
    /// The run's folder, or its address as s3://bucket/prefix [default: output.run, or runs/ and the configuration's name]
    #[arg(long, value_name = "DIR_OR_URL")]
    pub run: Option<PathBuf>,
    /// Go on with the run in the folder, from its latest whole checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Start the run, or go on with it when it is there
    #[arg(long, conflicts_with = "resume")]
    pub start_or_resume: bool,
    /// Set a key of the configuration, as train.epochs=3; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub sets: Vec<String>,
}

impl RunArguments {
    fn begin(&self) -> Begin {
        match (self.resume, self.start_or_resume) {
            (true, _) => Begin::Resume,
            (_, true) => Begin::Either,
            _ => Begin::New,
        }
    }
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
    let default = default_folder(&arguments.config);
    let place = place::find(arguments.run.as_deref(), default, (&config, arguments.begin()))?;
    let folder = place.folder.clone();
    let found = if place.resume { Some(resume::find(&folder, &mut config)?) } else { None };
    let tokens = prepare::tokens_of(&config, &arguments.config, |line| println!("{line}"))?;
    let token_files = token_files::of_run(&config, &tokens)?;
    let RunTokens { tokenizer, train, valid, test, folder: prepared } = tokens;
    // Kept with the run, so that an evaluation finds it.
    config.data.prepared = prepared.map(|folder| folder.to_string_lossy().into_owned());
    let model = model_config(&config, tokenizer.vocabulary())?;
    let tokens = TokenSource::new(Splits { train, valid, test }, cut_of(&config))?;
    let replica = if found.is_none() { replica_of_file(&mut config, &model)? } else { None };
    let config_toml = toml::to_string_pretty(&config).map_err(Failure::failed)?;
    let start = match found {
        None => Start::New { config_toml, tokenizer_json: tokenizer.to_json(), replica },
        Some(checkpoint) => {
            resume::check_data(&folder, checkpoint.as_ref(), &tokens, &tokenizer)?;
            Start::Resume { checkpoint: checkpoint.map(Box::new), config_toml }
        }
    };
    let mut run = run_of(&config, &model, tokens, (folder, start))?;
    run.settings.token_files = token_files;
    run.mirror = place.claim()?;
    Ok(Prepared { config, run: Run { workers_outlive, ..run } })
}

/// The replica that a new run starts from, where it is not the seed's.
fn replica_of_file(config: &mut Config, model: &ModelConfig) -> Result<Option<Sections>, Failure> {
    let optimizer = config.train.optimizer.0.for_model();
    let make = |layout: &ParameterLayout| Ok(Optimizer::new(optimizer, layout)?);
    let weights = config.model.weights.as_mut();
    weights.map(|weights| import::replica(weights, model, make)).transpose()
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
    let start = Start::New { config_toml, tokenizer_json: "{}".into(), replica: None };
    let run = run_of(&config, &model, tokens, (folder, start))?;
    Ok(Prepared { config, run })
}

/// A run of checked parts, as the configuration says.
pub(crate) fn run_of(
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
        training: learning::training(config),
        exchange: match config.cluster.exchange {
            config::Exchange::Mesh => Exchange::Mesh,
            config::Exchange::Star => Exchange::Star,
        },
        workers: config.cluster.workers as usize,
        workers_outlive: false,
        mirror: None,
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

/// Where a run's figures are served for Prometheus.
#[derive(Debug, clap::Args)]
pub(crate) struct MetricsArguments {
    /// Serve GET /metrics (for Prometheus) and GET /healthz, as plain HTTP
    #[arg(long, value_name = "ADDR:PORT", value_parser = crate::security::socket_address)]
    metrics: Option<SocketAddr>,
    /// Serve them beyond this machine too: everybody who reaches the port can read them
    #[arg(long, requires = "metrics")]
    insecure_metrics: bool,
}

impl MetricsArguments {
    /// Opens the port, if one is asked for.
    pub(crate) fn listen(&self) -> Result<Option<TcpListener>, Failure> {
        let Some(address) = self.metrics else { return Ok(None) };
        let expected = "a loopback address, or --insecure-metrics: it is plain HTTP, readable by everybody";
        Failure::unless(address.ip().is_loopback() || self.insecure_metrics, "--metrics", address, expected)?;
        let listener = listen(address)?;
        println!("metrics     http://{}/metrics", listener.local_addr().map_err(Failure::failed)?);
        Ok(Some(listener))
    }
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
    let found = &config.data.format;
    let unknown =
        |expected: String| Failure::bad_input(format!("data.format: found {found:?}, expected {expected}"));
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
        format: found.parse().map_err(unknown)?,
        field: config.data.field.clone(),
        storage: crate::storage::storage(),
    })
}

/// How a text is read that is named on the command line: the format by its name, whatever the run's own text is.
pub(crate) fn text_options(config: &Config) -> SourceOptions {
    let (field, storage) = (config.data.field.clone(), crate::storage::storage());
    SourceOptions { field, storage, ..SourceOptions::default() }
}

/// The model of a configuration over so many tokens.
pub(crate) fn model_config(config: &Config, vocabulary: usize) -> Result<ModelConfig, Failure> {
    let model = &config.model;
    let made = ModelConfig {
        cell: model.cell.parse()?,
        vocabulary,
        embedding: model.embedding as usize,
        layers: model.layers as usize,
        tied: model.tied,
        dropout: model.dropout,
        init: model.init.0.range(),
        initialisation: model.init.0.rule(),
        forget_bias: model.forget_bias,
        regularisation: model.regularisation(),
        softmax: model.softmax.0.of_model(),
        ..ModelConfig::default()
    }
    .with_widths(&model.hidden.widths());
    made.validate()?;
    Ok(made)
}

/// The sizes of the cut.
pub(crate) fn cut_of(config: &Config) -> Cut {
    let train = &config.train;
    Cut { streams: train.streams as usize, window: train.window as usize, lanes: train.lanes as usize }
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
        hidden_below: model.hidden_below.iter().map(|&width| width as u64).collect(),
        regularisation: Some(regularisation(&model.regularisation)),
        initialisation: model.initialisation.to_string(),
        forget_bias: model.forget_bias,
        softmax: config::softmax_on_the_wire(&model.softmax),
    };
    RunSettings {
        seed: config.seed,
        model: Some(model),
        optimizer: Some(carousel_worker::optimizer_settings(config.train.optimizer.0.for_model())),
        streams: config.train.streams,
        window: config.train.window,
        lanes: config.train.lanes,
        clip_value: config.train.clip_value,
        longest_window: learning::window_lengths(config).longest(),
        accumulate: config.train.accumulate,
        token_files: None,
    }
}

fn regularisation(of: &carousel_model::Regularisation) -> v1::Regularisation {
    v1::Regularisation {
        locked_dropout: of.locked_dropout,
        dropout_embedding: of.dropout_embedding,
        dropout_input: of.dropout_input,
        dropout_hidden: of.dropout_hidden,
        dropout_output: of.dropout_output,
        weight_drop: of.weight_drop,
        activation: of.activation,
        temporal_activation: of.temporal_activation,
        label_smoothing: of.label_smoothing,
    }
}

/// The model's gradient as the exchange knows it; no step touches more rows.
pub(crate) fn gradient_layout(config: &Config, model: &ModelConfig) -> GradientLayout {
    let gradient = model.gradient_layout();
    let positions = config.train.streams as usize * learning::window_lengths(config).longest() as usize;
    GradientLayout {
        dense: gradient.dense_len,
        dense_offset: gradient.dense_offset,
        rows: gradient.rows,
        width: gradient.row_width,
        most_rows: model.most_touched_rows(positions, config.train.accumulate as usize),
        rows_fold_into: gradient.rows_fold_into,
    }
}

/// Names and shapes for a coordinator that knows no model.
fn replica_layout(config: &Config, model: &ModelConfig) -> Result<ReplicaLayout, Failure> {
    let parameters = model.parameter_layout();
    let states = Optimizer::new(config.train.optimizer.0.for_model(), &parameters)?;
    let shape = |name: &str, shape: Vec<usize>| TensorShape { name: name.into(), shape };
    let carry = model.carry_tensors();
    Ok(ReplicaLayout {
        parameters: parameters.tensors.iter().map(|t| shape(&t.name, t.shape.clone())).collect(),
        optimizer_state: states.state().iter().map(|(name, _)| (*name).into()).collect(),
        carry: carry.iter().map(|t| shape(&t.name, vec![t.layers, t.hidden])).collect(),
        gradient: gradient_layout(config, model),
    })
}

/// A coordinator for a prepared run. Its folder is made here, before any process is started.
pub(crate) fn coordinator(run: Run, listener: TcpListener, locks: Locks) -> Result<Coordinator, Failure> {
    Coordinator::new(run, listener, locks).map_err(|error| match error {
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
