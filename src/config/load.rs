//! From a file and `--set` options to a resolved configuration: absolute paths, nothing left to the environment.

use std::path::{Path, PathBuf};

use carousel_corpus::{expand, read_whole};
use toml::{Table, Value};

use super::{Config, ConfigError, OneOrMany, TokenizerChoice, validate};

/// A larger configuration is none: even one that names ten thousand files has less.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a configuration, applies `--set` options in order, checks it and makes its paths absolute. Relative paths are
/// relative to the working directory.
pub(crate) fn load(path: &Path, sets: &[String]) -> Result<Config, ConfigError> {
    let text = text_of(path)?;
    let in_file = |source| ConfigError::Toml { path: path.into(), source: Box::new(source) };
    // The file by itself first: its errors carry line and column, which a table no longer knows.
    let mut config: Config = toml::from_str(&text).map_err(in_file)?;
    let mut table: Table = toml::from_str(&text).map_err(in_file)?;
    for given in sets {
        set(&mut table, given)?;
        config = table.clone().try_into().map_err(|error: toml::de::Error| ConfigError::Set {
            given: given.clone(),
            problem: super::advice::of(error.message()),
        })?;
    }
    validate(&config)?;
    resolve_paths(&mut config)?;
    Ok(config)
}

/// Reads the resolved configuration that is kept with a run.
pub(crate) fn read_resolved(path: &Path) -> Result<Config, ConfigError> {
    let text = text_of(path)?;
    toml::from_str(&text).map_err(|source| ConfigError::Toml { path: path.into(), source: Box::new(source) })
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    read_whole(path, MOST_BYTES).map_err(|source| ConfigError::Unreadable { path: path.into(), source })
}

/// Applies one `section.key=value`. The value is TOML where it parses as such, else a string.
fn set(table: &mut Table, given: &str) -> Result<(), ConfigError> {
    let syntax = || ConfigError::SetSyntax { given: given.into() };
    let (key, value) = given.split_once('=').ok_or_else(syntax)?;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(syntax)?;
    let mut section = table;
    for part in parts {
        let inner = section.entry(part).or_insert_with(|| Value::Table(Table::new()));
        // `train.schedule.divide` after `schedule = "plateau"`: the name becomes the table it stands for.
        if let Value::String(name) = inner {
            *inner = Value::Table(Table::from_iter([("kind".to_owned(), Value::String(name.clone()))]));
        }
        let problem =
            || ConfigError::Set { given: given.into(), problem: format!("{part} is not a section") };
        section = inner.as_table_mut().ok_or_else(problem)?;
    }
    // A length given here takes the place of the file's, in whichever unit that was.
    if key.trim() == "train.steps" {
        section.remove("epochs");
    } else if key.trim() == "train.epochs" {
        section.remove("steps");
    }
    section.insert(last.to_owned(), parse_value(value.trim()));
    Ok(())
}

fn parse_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut t| t.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn resolve_paths(config: &mut Config) -> Result<(), ConfigError> {
    let data = &mut config.data;
    for paths in [&mut data.train, &mut data.valid, &mut data.test] {
        let resolved: Result<Vec<String>, ConfigError> = paths.0.iter().map(|path| absolute(path)).collect();
        *paths = OneOrMany(resolved?);
    }
    if let Some(path) = data.tokenizer.path() {
        data.tokenizer = TokenizerChoice::named(&absolute(path)?);
    }
    if let Some(folder) = &data.prepared {
        data.prepared = Some(absolute(folder)?);
    }
    if config.cluster.tokens != crate::token_files::COORDINATOR {
        config.cluster.tokens = absolute(&config.cluster.tokens)?;
    }
    for place in [&mut config.output.run, &mut config.output.scratch].into_iter().flatten() {
        *place = absolute(place)?;
    }
    if let Some(weights) = &mut config.model.weights {
        weights.path = absolute(&weights.path)?;
    }
    Ok(())
}

fn absolute(path: &str) -> Result<String, ConfigError> {
    let expanded: PathBuf = expand(path)?;
    if let Some(url) = expanded.to_str().filter(|text| carousel_corpus::is_url(text)) {
        return Ok(url.to_owned());
    }
    let absolute = std::path::absolute(&expanded);
    let absolute = absolute.map_err(|source| ConfigError::Unreadable { path: expanded, source })?;
    Ok(absolute.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use carousel_coordinator::Schedule;

    use crate::config::{KindOr, Optimizer, optimizer::Sgd};

    fn load_text(text: &str, sets: &[&str]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        fs::write(&path, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        load(&path, &sets).map_err(|error| error.to_string())
    }

    const MINIMAL: &str = "[data]\ntrain = \"/text\"\n[train]\nepochs = 2\n";

    #[test]
    fn a_file_that_is_too_large_for_a_configuration_is_refused() {
        let told = load_text(&"#".repeat(MOST_BYTES as usize + 1), &[]).unwrap_err();
        assert!(
            told.ends_with(
                "found 1048577 bytes, expected at most 1048576; expected a configuration, a TOML file"
            ),
            "{told}"
        );
    }

    #[test]
    fn a_minimal_file_gets_defaults_and_options_override() {
        let config =
            load_text(MINIMAL, &["train.window=8", "model.cell=lstm", "train.optimizer=sgd"]).unwrap();
        assert_eq!((config.train.window, config.train.streams, config.train.epochs), (8, 32, Some(2)));
        assert_eq!(config.train.optimizer, KindOr(Optimizer::Sgd(Sgd::default())));
        assert_eq!(config.data.train.0, ["/text"]);
    }

    #[test]
    fn names_and_tables_and_their_parts_can_be_set() {
        let text = format!("{MINIMAL}schedule = \"constant\"\n");
        let config =
            load_text(&text, &["train.schedule={kind = \"cosine\", warmup = 5}", "train.schedule.floor=0.5"]);
        assert_eq!(config.unwrap().train.schedule.0, Schedule::Cosine { warmup: 5, floor: 0.5 });
        let config = load_text(&text, &["train.optimizer=adam", "train.optimizer.beta1=0.5"]).unwrap();
        assert!(matches!(config.train.optimizer.0, Optimizer::Adam(adam) if adam.beta1 == 0.5));
    }

    #[test]
    fn a_length_on_the_command_line_replaces_the_file_s() {
        let train = load_text(MINIMAL, &["train.steps=7"]).unwrap().train;
        assert_eq!((train.steps, train.epochs), (Some(7), None));
    }

    #[test]
    fn errors_name_line_key_finding_and_expectation() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("[data]\ntrian = \"x\"\n", &[], &["run.toml", "line 2", "unknown field `trian`", "`train`"]),
            ("[train]\nwindow = \"x\"\n", &[], &["line 2", "invalid type", "expected a whole number from 0"]),
            ("[train\n", &[], &["line 1"]),
            (MINIMAL, &["train.lr=1"], &["--set train.lr=1", "unknown field `lr`", "learning_rate"]),
            (MINIMAL, &["window"], &["--set window", "expected section.key=value"]),
            (MINIMAL, &["train.optimizer=adamm"], &["unknown variant `adamm`", "`sgd`"]),
            (MINIMAL, &["seed.x=1"], &["unknown field", "seed"]),
            (MINIMAL, &["cluster.exchange=ring"], &["ring", "`mesh`", "`star`"]),
            ("[data]\ntrain = 3\n", &[], &["a path or a list of paths"]),
        ];
        for (text, sets, parts) in cases {
            let error = load_text(text, sets).unwrap_err();
            for part in *parts {
                assert!(
                    error.contains(part) || *part == "unknown field" && error.contains("invalid type"),
                    "{error:?} lacks {part:?}"
                );
            }
        }
    }

    #[test]
    fn a_resolved_file_reads_back_as_it_was() {
        let config = load_text(
            MINIMAL,
            &["train.schedule={kind=\"zaremba\", after=4, divide=2.0}", "sample.prompt=fn "],
        );
        let config = config.unwrap();
        let text = toml::to_string_pretty(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }
}
