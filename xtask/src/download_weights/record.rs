//! What is known of the files on the disk: `provenance.json`, and a `.sha256` beside each file.
//!
//! A file whose size and time of change are still those of the record is not hashed again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::manifest::Model;
use crate::disk;
use crate::failure::{Failure, Outcome};

/// The longest record that is read, in bytes: thousands of times what is written.
const LONGEST_RECORD: u64 = 4 << 20;

/// The content of `provenance.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The model's name.
    pub model: String,
    /// The repository of the hub.
    pub repository: String,
    /// The commit of the repository, if it is known.
    pub revision: Option<String>,
    /// The files that were checked.
    pub files: BTreeMap<String, CheckedFile>,
}

/// A file that was checked, and how it looked then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedFile {
    /// The length in bytes.
    pub size: u64,
    /// The SHA-256 checksum.
    pub sha256: String,
    /// Who said that this is the right checksum.
    pub checked_against: String,
    /// When the file was changed last, in nanoseconds since 1970.
    pub modified_ns: u64,
}

impl Record {
    /// A record of no file.
    pub fn new(model: &Model) -> Self {
        Self {
            model: model.name.into(),
            repository: model.repository.into(),
            revision: model.revision.map(str::to_owned),
            files: BTreeMap::new(),
        }
    }

    /// Reads the record of a folder. One that is missing, broken or of another model or commit
    /// counts as none: then the files are hashed again.
    pub fn load(folder: &Path, model: &Model) -> Self {
        files::read(&record_path(folder), LONGEST_RECORD)
            .ok()
            .and_then(|text| serde_json::from_slice::<Self>(&text).ok())
            .filter(|record| record.model == model.name)
            .filter(|record| model.revision.is_none() || record.revision.as_deref() == model.revision)
            .unwrap_or_else(|| Self::new(model))
    }

    /// Adds a file that was just found to be right, and writes the record.
    pub fn add(&mut self, folder: &Path, name: &str, sha256: String, checked_against: &str) -> Outcome {
        let path = folder.join(name);
        let (size, modified_ns) = size_and_time(&path)?;
        disk::write_atomically(
            &folder.join(format!("{name}.sha256")),
            format!("{sha256}  {name}\n").as_bytes(),
        )?;
        let file = CheckedFile { size, sha256, checked_against: checked_against.into(), modified_ns };
        self.files.insert(name.into(), file);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::run(format!("cannot write JSON: {error}")))?;
        text.push(b'\n');
        disk::write_atomically(&record_path(folder), &text)
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
    let modified = metadata.modified().ok();
    let since_1970 = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let nanoseconds = since_1970.map_or(0, |time| time.as_nanos() as u64);
    Ok((metadata.len(), nanoseconds))
}

/// The message for a file that is there and cannot be read.
pub fn read_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::run(format!("cannot read {}: {error}", path.display()))
}
