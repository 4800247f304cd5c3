//! `cargo xtask man`: the man pages of `patch-cli`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::disk;
use crate::failure::{Failure, Outcome};
use crate::screen;

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder for the pages
    #[arg(long, value_name = "DIR", default_value = "target/man")]
    out: PathBuf,
}

/// Has `patch-cli` write its pages: it knows its own options, and xtask need not be built with it.
pub fn run(arguments: &Arguments) -> Outcome {
    let folder = &arguments.out;
    fs::create_dir_all(folder).map_err(|error| disk::write_failure(folder, &error))?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--package", "patch-cli", "--", "man"])
        .arg(folder)
        .status()
        .map_err(|error| Failure::run(format!("cannot run cargo: {error}")))?;
    if !status.success() {
        return Err(Failure::run(format!("patch-cli man failed: {status}")));
    }
    screen::say(&format!("read them with: man {}/patch-cli.1", folder.display()));
    Ok(())
}
