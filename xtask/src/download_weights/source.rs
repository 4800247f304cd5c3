//! Where the files come from: the hub, another server, or a copy on the disk.

use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use super::http::{is_web_address, shown};
use super::manifest::{CONFIG, Model, WEIGHTS};
use crate::failure::{Failure, Outcome};

const HUB: &str = "https://huggingface.co";

/// Where a file is.
#[derive(Debug)]
pub enum Location {
    Url(String),
    Path(PathBuf),
}

impl Location {
    /// The place of a file: the one that `from` (`--from`) names, or the hub, or the mirror of it in
    /// `HF_ENDPOINT`. `revision` is a commit or a branch on the hub.
    pub fn of(name: &str, model: Model, revision: &str, from: Option<&str>) -> Outcome<Self> {
        match from {
            None => {
                let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
                require_web_address("HF_ENDPOINT", &endpoint)?;
                let endpoint = endpoint.trim_end_matches('/');
                Ok(Self::Url(format!("{endpoint}/{}/resolve/{revision}/{name}", model.repository())))
            }
            Some(address) if address.contains("://") => {
                require_web_address("--from", address)?;
                let address = address.trim_end_matches('/');
                Ok(Self::Url(match address.rsplit_once('/') {
                    Some((_, file)) if file.ends_with(".safetensors") && name == WEIGHTS => address.into(),
                    Some((folder, file)) if file.ends_with(".safetensors") => format!("{folder}/{name}"),
                    _ => format!("{address}/{name}"),
                }))
            }
            Some(path) => on_disk(name, Path::new(path)).map(Self::Path),
        }
    }
}

fn on_disk(name: &str, from: &Path) -> Outcome<PathBuf> {
    let metadata = fs::metadata(from).map_err(|error| {
        Failure::input(format!(
            "--from {}: {error}: give a file, a folder or an address that begins with https://",
            from.display()
        ))
    })?;
    let path = match name {
        _ if metadata.is_dir() => from.join(name),
        WEIGHTS => from.to_owned(),
        _ => from.with_file_name(name),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::input(format!(
        "--from {}: {} is missing or not a regular file: {WEIGHTS} and {CONFIG} must be in one folder",
        from.display(),
        path.display()
    )))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(&shown(url)),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// Whether the user forbids the use of the network.
pub fn is_offline() -> bool {
    let value = variable("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// An environment variable that is set and not blank.
pub fn variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn require_web_address(origin: &str, address: &str) -> Outcome {
    if is_web_address(address) {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{origin} is {}: give an address that begins with https:// or http://, such as {HUB}",
        shown(address)
    )))
}
