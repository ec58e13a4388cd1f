//! Stands between the scripts and a program that does not yet know `--start-or-resume`. It goes when every flag is there.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::program::Workshop;

/// The program that scripts are to start.
pub(crate) fn program(shop: &Workshop) -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_carousel"));
    if shop.succeed(&["coordinator", "--help"]).contains("--start-or-resume") {
        return program;
    }
    shop.write("carousel", &SHIM.replace("PROGRAM", &program.to_string_lossy()));
    let path = shop.path("carousel");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const SHIM: &str = r#"#!/bin/bash
out=() run=
while [ $# -gt 0 ]; do
  case $1 in
    --start-or-resume) [ ! -d "$run/checkpoints" ] || out+=(--resume) ;;
    --run) run=$2 out+=("$1" "$2"); shift ;;
    *) out+=("$1") ;;
  esac
  shift
done
exec PROGRAM "${out[@]}"
"#;
