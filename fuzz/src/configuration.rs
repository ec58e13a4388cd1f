//! A configuration in TOML: everything but the files that it names.

use crate::{config, within_limits};

/// A whole configuration, loaded as the program does it.
pub fn configuration(data: &[u8]) {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let path = folder.path().join("run.toml");
    std::fs::write(&path, data).expect("the folder is writable");
    within_limits(|| drop(config::load(&path, &[])));
}
