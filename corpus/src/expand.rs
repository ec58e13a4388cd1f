//! `~` and `${VAR}` in paths that a configuration names. Not a shell: no quoting, no `$VAR`, no wildcards.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::CorpusError;

/// The path that `text` means: a leading `~/` (or `~` alone) is `$HOME`, `${VAR}` is that variable of the
/// environment, and `${VAR:-default}` is `default`, expanded in its turn, where `VAR` is unset or empty.
///
/// `${CARGO_HOME:-~/.cargo}/registry/src` is where cargo keeps the sources of dependencies.
///
/// # Errors
/// [`CorpusError::UnsetVariable`] for a variable without value or default (`HOME` for `~`),
/// [`CorpusError::BadVariable`] for a `${` that is not closed or names no variable.
pub fn expand(text: &str) -> Result<PathBuf, CorpusError> {
    let environment = |name: &str| std::env::var_os(name);
    Expansion { whole: text, environment: &environment }.expand(text).map(PathBuf::from)
}

struct Expansion<'a> {
    /// The path as it was written, for messages.
    whole: &'a str,
    environment: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Expansion<'_> {
    fn expand(&self, text: &str) -> Result<OsString, CorpusError> {
        let mut result = OsString::new();
        let mut rest = text;
        if let Some(tail) = text.strip_prefix('~').filter(|tail| tail.is_empty() || tail.starts_with('/')) {
            result.push(self.variable("HOME")?);
            rest = tail;
        }
        while let Some(start) = rest.find("${") {
            result.push(&rest[..start]);
            let end = closing_brace(&rest[start..]).ok_or_else(|| self.bad(&rest[start..]))? + start;
            result.push(self.substitute(&rest[start..=end])?);
            rest = &rest[end + 1..];
        }
        result.push(OsStr::new(rest));
        Ok(result)
    }

    /// The value of one `${...}`.
    fn substitute(&self, reference: &str) -> Result<OsString, CorpusError> {
        let inside = &reference[2..reference.len() - 1];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(self.bad(reference));
        }
        let Some(default) = default else { return self.variable(name) };
        match (self.environment)(name).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value),
            None => self.expand(default),
        }
    }

    fn variable(&self, name: &str) -> Result<OsString, CorpusError> {
        (self.environment)(name)
            .ok_or_else(|| CorpusError::UnsetVariable { text: self.whole.into(), name: name.into() })
    }

    fn bad(&self, found: &str) -> CorpusError {
        CorpusError::BadVariable { text: self.whole.into(), found: found.into() }
    }
}

/// Position of the `}` that closes the `${` at the start of `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    for at in 0..bytes.len() {
        match bytes[at] {
            b'{' if at > 0 && bytes[at - 1] == b'$' => depth += 1,
            b'}' if depth == 1 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, CorpusError> {
        let environment = |name: &str| match name {
            "HOME" => Some("/home/ada".into()),
            "DATA" => Some("/data".into()),
            "EMPTY" => Some("".into()),
            _ => None,
        };
        let path = Expansion { whole: text, environment: &environment }.expand(text)?;
        Ok(path.into_string().unwrap())
    }

    #[test]
    fn a_path_without_marks_stays_as_it_is() {
        for text in ["", "a/b.txt", "/a b/~/c", "a~/b", "~ada/b", "$DATA/x", "a}b{c"] {
            assert_eq!(expanded(text).unwrap(), text);
        }
    }

    #[test]
    fn tilde_is_home() {
        assert_eq!(expanded("~").unwrap(), "/home/ada");
        assert_eq!(expanded("~/text").unwrap(), "/home/ada/text");
    }

    #[test]
    fn variables_and_defaults() {
        assert_eq!(expanded("${DATA}/a/${DATA}").unwrap(), "/data/a//data");
        assert_eq!(
            expanded("${CARGO_HOME:-~/.cargo}/registry/src").unwrap(),
            "/home/ada/.cargo/registry/src"
        );
        assert_eq!(expanded("${DATA:-~/.cargo}/registry").unwrap(), "/data/registry");
        assert_eq!(expanded("${A:-${B:-${DATA}/b}}/c").unwrap(), "/data/b/c");
        assert_eq!(expanded("x${EMPTY}y").unwrap(), "xy");
        assert_eq!(expanded("${EMPTY:-full}").unwrap(), "full");
        assert_eq!(expanded("${NONE:-}end").unwrap(), "end");
    }

    #[test]
    fn an_unset_variable_is_named() {
        let error = expanded("${DATA}/${CORPUS}/x").unwrap_err();
        assert!(matches!(&error, CorpusError::UnsetVariable { name, .. } if name == "CORPUS"), "{error}");
        assert!(error.to_string().contains("${CORPUS:-default}"), "{error}");
    }

    #[test]
    fn half_a_reference_is_refused() {
        for text in ["${DATA", "a/${}", "${A B}", "${A-b}", "x/${N:-${M}"] {
            assert!(matches!(expanded(text), Err(CorpusError::BadVariable { .. })), "{text}");
        }
    }

    #[test]
    fn the_environment_is_that_of_the_process() {
        let home = std::env::var_os("PATH").unwrap();
        assert_eq!(expand("${PATH}").unwrap().as_os_str(), home);
    }
}
