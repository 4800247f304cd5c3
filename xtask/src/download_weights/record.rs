//! What is known about the files on the disk: `provenance.json`, and a `.sha256` beside each file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::manifest::Model;
use crate::disk::{read_failure, write_atomically};
use crate::failure::{Failure, Outcome};

/// The longest record that is read, in bytes: thousands of times what is written.
const LONGEST_RECORD: u64 = 4 << 20;

/// The content of `provenance.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    model: String,
    repository: String,
    /// The commit of the repository, if it is known.
    pub revision: Option<String>,
    pub files: BTreeMap<String, CheckedFile>,
}

/// A file that was checked. While its size and time stay the same, it is not hashed again.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckedFile {
    pub size: u64,
    pub sha256: String,
    /// Where the right checksum came from.
    checked_against: String,
    /// When the file was last changed, in nanoseconds since 1970.
    modified_ns: u64,
}

impl Record {
    /// A record without files.
    pub fn new(model: Model) -> Self {
        Self {
            model: model.name().into(),
            repository: model.repository().into(),
            revision: model.revision().map(str::to_owned),
            files: BTreeMap::new(),
        }
    }

    /// Reads the record of a folder. One that is missing, broken or of another model or commit is ignored:
    /// then the files are hashed again.
    pub fn load(folder: &Path, model: Model) -> Self {
        files::read(&record_path(folder), LONGEST_RECORD)
            .ok()
            .and_then(|text| serde_json::from_slice::<Self>(&text).ok())
            .filter(|record| record.model == model.name())
            .filter(|record| model.revision().is_none() || record.revision.as_deref() == model.revision())
            .unwrap_or_else(|| Self::new(model))
    }

    /// Adds a file that was just found to be right, and writes the record.
    pub fn add(&mut self, folder: &Path, name: &str, sha256: String, checked_against: &str) -> Outcome {
        let (size, modified_ns) = size_and_time(&folder.join(name))?;
        let line = format!("{sha256}  {name}\n");
        write_atomically(&folder.join(format!("{name}.sha256")), line.as_bytes())?;
        let file = CheckedFile { size, sha256, checked_against: checked_against.into(), modified_ns };
        self.files.insert(name.into(), file);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::run(format!("cannot write JSON: {error}")))?;
        write_atomically(&record_path(folder), format!("{text}\n").as_bytes())
    }
}

impl CheckedFile {
    /// Whether the file still looks as it did when it was checked.
    pub fn looks_unchanged(&self, path: &Path) -> bool {
        size_and_time(path).is_ok_and(|seen| seen == (self.size, self.modified_ns))
    }
}

fn record_path(folder: &Path) -> PathBuf {
    folder.join("provenance.json")
}

fn size_and_time(path: &Path) -> Outcome<(u64, u64)> {
    let metadata = fs::metadata(path).map_err(|error| read_failure(path, &error))?;
    let since_1970 = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok((metadata.len(), since_1970.map_or(0, |time| time.as_nanos() as u64)))
}
