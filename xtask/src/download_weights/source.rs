//! Where the files come from: the hub, a mirror, or a copy on the disk.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::http::{self, Token};
use super::manifest::{CONFIG, Model, WEIGHTS, WeightsFile};
use crate::failure::{Failure, Outcome};

const HUB: &str = "https://huggingface.co";

/// A place that has the files of a model.
#[derive(Debug)]
pub enum Source {
    /// The Hugging Face hub, or the mirror of it that HF_ENDPOINT names.
    Hub {
        /// The start of every address.
        endpoint: String,
        /// The repository.
        repository: &'static str,
        /// The user's key, if there is one.
        token: Option<Token>,
    },
    /// A folder of a web server.
    Web {
        /// The address of the weights.
        weights: String,
        /// The address of the configuration.
        config: String,
    },
    /// Files on the disk.
    Disk {
        /// The path of the weights.
        weights: PathBuf,
        /// The path of the configuration.
        config: PathBuf,
    },
}

impl Source {
    /// Takes what the user asked for with `--from`, or the hub.
    pub fn choose(from: Option<&str>, model: &Model) -> Outcome<Self> {
        match from {
            None => Self::hub(model),
            Some(address) if address.contains("://") => Self::web(address),
            Some(path) => Self::disk(Path::new(path)),
        }
    }

    fn hub(model: &Model) -> Outcome<Self> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
        require_web_address("HF_ENDPOINT", &endpoint)?;
        Ok(Self::Hub {
            endpoint: endpoint.trim_end_matches('/').into(),
            repository: model.repository,
            token: variable("HF_TOKEN").map(|token| Token::new(&token)).transpose()?,
        })
    }

    fn web(address: &str) -> Outcome<Self> {
        require_web_address("--from", address)?;
        let address = address.trim_end_matches('/');
        let (folder, weights) = match address.rsplit_once('/') {
            Some((folder, name)) if name.ends_with(".safetensors") => (folder, address.into()),
            _ => (address, format!("{address}/{WEIGHTS}")),
        };
        Ok(Self::Web { weights, config: format!("{folder}/{CONFIG}") })
    }

    fn disk(path: &Path) -> Outcome<Self> {
        let metadata = fs::metadata(path).map_err(|error| {
            Failure::input(format!(
                "--from {}: {error}: give a file, a folder or an address that begins with \
                 https://",
                path.display()
            ))
        })?;
        let (folder, weights) = if metadata.is_dir() {
            (path, path.join(WEIGHTS))
        } else {
            (path.parent().unwrap_or(Path::new("")), path.to_owned())
        };
        let config = folder.join(CONFIG);
        for file in [&weights, &config] {
            if !file.is_file() {
                return Err(Failure::input(format!(
                    "--from {}: {} is not there: {WEIGHTS} and {CONFIG} must be in one folder",
                    path.display(),
                    file.display()
                )));
            }
        }
        Ok(Self::Disk { weights, config })
    }

    /// The place in a few words.
    pub fn describe(&self) -> String {
        match self {
            Self::Hub { endpoint, .. } => http::shown(endpoint),
            Self::Web { weights, .. } => http::shown(weights),
            Self::Disk { weights, .. } => weights.display().to_string(),
        }
    }

    /// The key to send to the place, if it is the hub.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Hub { token, .. } => token.as_ref(),
            Self::Web { .. } | Self::Disk { .. } => None,
        }
    }

    /// Where one file is; `revision` is a commit or a branch of the hub's repository.
    pub fn locate(&self, file: &WeightsFile, revision: &str) -> Location {
        match self {
            Self::Hub { endpoint, repository, .. } => {
                let name = file.name;
                Location::Url(format!("{endpoint}/{repository}/resolve/{revision}/{name}"))
            }
            Self::Web { weights, config } => {
                Location::Url(if file.name == CONFIG { config } else { weights }.clone())
            }
            Self::Disk { weights, config } => {
                Location::Path(if file.name == CONFIG { config } else { weights }.clone())
            }
        }
    }
}

/// Where a file is.
#[derive(Debug)]
pub enum Location {
    /// On a server.
    Url(String),
    /// On the disk.
    Path(PathBuf),
}

/// Whether the user forbids the use of the network.
pub fn offline() -> bool {
    variable("HF_HUB_OFFLINE")
        .is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str()))
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    let value = env::var(name).ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn require_web_address(origin: &str, address: &str) -> Outcome {
    if http::is_web_address(address) {
        return Ok(());
    }
    Err(Failure::input(format!(
        "{origin} is {}: give an address that begins with https:// or http://, such as {HUB}",
        http::shown(address)
    )))
}
