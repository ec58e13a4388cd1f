//! Going on with a run: the configuration must be the run's own, but for its length and for who computes.

use std::path::Path;

use carousel_coordinator::TokenSource;
use carousel_coordinator::checkpoint::{Checkpoint, CheckpointError, RunFolder};
use carousel_corpus::{CorpusError, Tokenizer};
use toml::{Table, Value};

use crate::config::{self, Config};
use crate::failure::Failure;
use crate::import;
use crate::launch;

/// Why a run cannot be gone on with as asked.
#[derive(Debug, thiserror::Error)]
enum ResumeError {
    #[error("{run}: there is no run to go on with; start one without --resume, or give --start-or-resume")]
    None { run: String },
    #[error(
        "{run}: {key} is {found}, the run's own config.toml has {own}; --resume may only raise train.epochs or train.steps"
    )]
    Differs { run: String, key: String, found: String, own: String },
    #[error(
        "{run}: the training, validation or test text is not the one this run was made with; bring that one back, or begin a run in another folder by --run"
    )]
    Data { run: String },
    #[error(
        "{run}: the run started from model.weights, and no checkpoint of it is left to go on from; begin a run in another folder by --run"
    )]
    Weights { run: String },
    #[error(
        "{run}: the tokenizer made from the text is not the run's tokenizer.json, so the text is another; bring back the run's, or begin a run in another folder by --run"
    )]
    Tokenizer { run: String },
}

/// The latest whole checkpoint of a run, when `config` may go on with it; none when the run has not come so far.
pub(crate) fn find(folder: &Path, config: &mut Config) -> Result<Option<Checkpoint>, Failure> {
    let run = RunFolder::new(folder);
    if !run.config().exists() {
        return Err(Failure::bad_input(ResumeError::None { run: folder.display().to_string() }));
    }
    let own = config::read_resolved(&run.config())?;
    if let Some(weights) = &mut config.model.weights {
        import::identify(weights, own.model.weights.as_ref())?;
    }
    if let Some((key, found, own)) = first_difference(&table(config)?, &table(&own)?) {
        let run = folder.display().to_string();
        return Err(Failure::bad_input(ResumeError::Differs { run, key, found, own }));
    }
    let found = match run.latest() {
        Err(CheckpointError::None { .. }) if !run.has_checkpoints()? => {
            let run = folder.display().to_string();
            let from_the_seed = own.model.weights.is_none();
            return from_the_seed
                .then_some(None)
                .ok_or_else(|| Failure::bad_input(ResumeError::Weights { run }));
        }
        found => found?,
    };
    for passed_over in &found.passed_over {
        eprintln!("warning: passed over a checkpoint: {passed_over}");
    }
    Ok(Some(found.checkpoint))
}

/// Whether text and tokenizer are still the run's.
pub(crate) fn check_data(
    folder: &Path,
    checkpoint: Option<&Checkpoint>,
    tokens: &TokenSource,
    tokenizer: &Tokenizer,
) -> Result<(), Failure> {
    let run = folder.display().to_string();
    if launch::tokenizer_of(&RunFolder::new(folder))?.to_json() != tokenizer.to_json() {
        return Err(Failure::bad_input(ResumeError::Tokenizer { run }));
    }
    match checkpoint {
        Some(found) if !tokens.is_of(&found.state.data_digest).map_err(CorpusError::from)? => {
            Err(Failure::bad_input(ResumeError::Data { run }))
        }
        _ => Ok(()),
    }
}

fn table(config: &Config) -> Result<Table, Failure> {
    Table::try_from(config).map_err(Failure::failed)
}

/// The first key, in order, that differs and may not: its name, the value found and the run's own.
fn first_difference(found: &Table, own: &Table) -> Option<(String, String, String)> {
    let (mut found_keys, mut own_keys) = (Vec::new(), Vec::new());
    flatten("", found, &mut found_keys);
    flatten("", own, &mut own_keys);
    let value =
        |keys: &[(String, Value)], key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let mut names: Vec<&String> = found_keys.iter().chain(&own_keys).map(|(key, _)| key).collect();
    names.sort();
    names.dedup();
    let shown = |value: Option<Value>| value.map_or_else(|| "not set".into(), |v| v.to_string());
    names.into_iter().find_map(|key| {
        let (found, own) = (value(&found_keys, key), value(&own_keys, key));
        (!may_differ(key, found.as_ref(), own.as_ref())).then(|| (key.clone(), shown(found), shown(own)))
    })
}

/// Who computes never reaches the weights, nor does what is kept or what is printed at the end; a length may be raised.
fn may_differ(key: &str, found: Option<&Value>, own: Option<&Value>) -> bool {
    let raised = matches!(key, "train.epochs" | "train.steps")
        && matches!((found, own), (Some(Value::Integer(found)), Some(Value::Integer(own))) if found >= own);
    let elsewhere = ["cluster.", "sample.", "output."].iter().any(|section| key.starts_with(section));
    let unseen = ["train.keep_checkpoints", "data.prepared", "data.in_memory"].contains(&key);
    found == own || raised || elsewhere || unseen
}

fn flatten(prefix: &str, table: &Table, keys: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, keys),
            _ => keys.push((key, value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(change: &str) -> Option<String> {
        let own = "seed = 1\n[train]\nepochs = 5\nlanes = 4\nkeep_checkpoints = 3\nschedule = { kind = \"plateau\", divide = 4.0 }\n[cluster]\nworkers = 2\n";
        let (from, to) = change.split_once(" -> ").unwrap();
        assert!(own.contains(from));
        let found: Table = toml::from_str(&own.replace(from, to)).unwrap();
        first_difference(&found, &toml::from_str(own).unwrap())
            .map(|(key, found, own)| format!("{key}: {found} / {own}"))
    }

    #[test]
    fn only_the_length_may_grow() {
        assert_eq!(difference("epochs = 5 -> epochs = 6"), None);
        assert_eq!(difference("epochs = 5 -> epochs = 4").unwrap(), "train.epochs: 4 / 5");
        assert_eq!(difference("epochs = 5 -> steps = 500").unwrap(), "train.epochs: not set / 5");
        assert_eq!(difference("lanes = 4 -> lanes = 8").unwrap(), "train.lanes: 8 / 4");
        assert_eq!(difference("seed = 1 -> seed = 2").unwrap(), "seed: 2 / 1");
        assert_eq!(difference("divide = 4.0 -> divide = 2.0").unwrap(), "train.schedule.divide: 2.0 / 4.0");
        assert_eq!(difference("keep_checkpoints = 3 -> keep_checkpoints = 0"), None);
        assert_eq!(difference("workers = 2 -> workers = 3"), None, "who computes never reaches the weights");
    }
}
