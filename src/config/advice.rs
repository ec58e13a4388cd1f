//! What a user is told beyond what serde says of a value that does not fit: the key that was probably meant, the section that
//! has it, and numbers in words instead of Rust's types.

use toml::{Table, Value};

use super::Config;

/// The text of an error in a file, with the lines that it points at.
pub(super) fn of_file(error: &toml::de::Error) -> String {
    let shown = error.to_string();
    shown.trim_end().replace(error.message().trim_end(), &of(error.message()))
}

/// What serde says, and what to do about it.
pub(super) fn of(message: &str) -> String {
    let message = in_words(message.trim_end());
    match meant(&message) {
        Some(meant) => format!("{message}; {meant}"),
        None => message,
    }
}

/// Rust's types, as people say them.
const WORDS: [(&str, &str); 6] = [
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected u64", "expected a whole number that is not negative"),
    ("expected usize", "expected a whole number that is not negative"),
    ("expected f32", "expected a number"),
    ("expected f64", "expected a number"),
    ("expected a boolean", "expected true or false"),
];

fn in_words(message: &str) -> String {
    let said = WORDS.iter().find_map(|(typed, words)| Some(message.strip_suffix(typed)?.to_owned() + words));
    said.unwrap_or_else(|| message.to_owned())
}

/// How other programs call what is called so here.
const ELSEWHERE: [(&str, &str); 12] = [
    ("batch_size", "train.streams"),
    ("bptt", "train.window"),
    ("clip", "train.clip_norm"),
    ("dropouti", "model.dropout_input"),
    ("emsize", "model.embedding"),
    ("hidden_size", "model.hidden"),
    ("lr", "train.learning_rate"),
    ("max_epochs", "train.epochs"),
    ("nhid", "model.hidden"),
    ("num_layers", "model.layers"),
    ("seq_length", "train.window"),
    ("wdrop", "model.weight_drop"),
];

/// The key or the name that was meant, where `unknown field` or `unknown variant` says that there is no such one.
fn meant(message: &str) -> Option<String> {
    let is_key = message.starts_with("unknown field `");
    if !is_key && !message.starts_with("unknown variant `") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let found = quoted.next()?;
    let near =
        quoted.map(|name| (strsim::jaro_winkler(found, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, name)) = near.filter(|(likeness, _)| *likeness > 0.85) {
        return Some(format!("did you mean `{name}`?"));
    }
    let here = ELSEWHERE.iter().find(|(elsewhere, _)| is_key && *elsewhere == found);
    if let Some((_, key)) = here {
        return Some(format!("it is called {key} here"));
    }
    let section = SECTIONS.iter().find(|section| is_key && knows(section, found))?;
    Some(format!("`{found}` belongs in [{section}]: {section}.{found}"))
}

const SECTIONS: [&str; 6] = ["data", "model", "train", "cluster", "output", "sample"];

/// Whether a section has a key, as reading it says.
fn knows(section: &str, key: &str) -> bool {
    let inner = Table::from_iter([(key.to_owned(), Value::Boolean(true))]);
    let read: Result<Config, _> = Table::from_iter([(section.to_owned(), Value::Table(inner))]).try_into();
    read.err().is_none_or(|error| !error.message().contains("unknown field"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_meant_is_named() {
        let of_keys =
            |found: &str| of(&format!("unknown field `{found}`, expected one of `streams`, `window`"));
        assert!(of_keys("windw").ends_with("; did you mean `window`?"));
        assert!(of_keys("hidden").ends_with("; `hidden` belongs in [model]: model.hidden"));
        assert!(of_keys("exchange").ends_with("; `exchange` belongs in [cluster]: cluster.exchange"));
        assert!(of_keys("lr").ends_with("; it is called train.learning_rate here"));
        assert!(of_keys("nothing_like_it").ends_with("`window`"));
        let kind = of("unknown variant `adm`, expected one of `sgd`, `adam`");
        assert!(kind.ends_with("; did you mean `adam`?"), "{kind}");
    }

    #[test]
    fn numbers_are_told_in_words() {
        let told = of("invalid value: integer `-7`, expected u32");
        assert_eq!(told, "invalid value: integer `-7`, expected a whole number from 0 to 4294967295");
        let read: Result<Config, toml::de::Error> = toml::from_str("[train]\nwindow = \"eleven\"\n");
        let told = of_file(&read.unwrap_err());
        assert!(
            told.contains("line 2, column 10") && told.ends_with("a whole number from 0 to 4294967295"),
            "{told}"
        );
    }
}
