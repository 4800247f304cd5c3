//! SHA-256 checksums of a model's weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::UNIX_EPOCH;

use gpt2::Pretrained;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// The longest record or index that is read, in bytes: thousands of times what is written.
const MOST_TEXT: u64 = 4 << 20;

/// What `cargo xtask download-weights` leaves beside the weights in `provenance.json`.
#[derive(Deserialize)]
struct Record {
    files: BTreeMap<String, CheckedFile>,
}

/// A file that was checked, and how it looked then.
#[derive(Deserialize)]
struct CheckedFile {
    size: u64,
    sha256: String,
    modified_ns: u64,
}

/// The index of weights in several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The checksum of each file of weights by its name, or why one cannot be computed.
type ByName = Result<BTreeMap<String, String>, String>;

/// The checksums of a model's weights. Those that are on record cost nothing. The others are computed by
/// a thread of their own while the study runs: half a gigabyte takes about as long as a small sweep.
pub struct Checksums {
    by_name: LazyLock<ByName, Box<dyn FnOnce() -> ByName + Send>>,
    /// Whether they are those of all files.
    pub are_complete: bool,
}

impl Checksums {
    /// The checksums that are on record.
    pub fn on_record(model: &Pretrained) -> Self {
        let checksums = of_model(model.path.as_deref(), &|file, name| Ok(on_record(file, name)));
        Self { by_name: LazyLock::new(Box::new(move || checksums)), are_complete: false }
    }

    /// The checksums of all files; a thread begins to compute those that are not on record.
    ///
    /// # Errors
    /// [`Failure::Other`] if no thread can be started.
    pub fn of_all(model: &Pretrained) -> Result<Self, Failure> {
        let path = model.path.clone();
        let hash = move || {
            of_model(path.as_deref(), &|file, name| match on_record(file, name) {
                Some(checksum) => Ok(Some(checksum)),
                None => of_file(file).map(Some),
            })
        };
        let thread = thread::Builder::new().name("checksums".to_owned()).spawn(hash);
        let thread = thread.map_err(|e| Failure::Other(format!("cannot start a thread: {e}")))?;
        let join = || {
            let stopped = |_| Err("the thread that computes checksums has stopped".to_owned());
            thread.join().unwrap_or_else(stopped)
        };
        Ok(Self { by_name: LazyLock::new(Box::new(join)), are_complete: true })
    }

    /// The checksum of each file of weights by its name; waits for those that are being computed.
    ///
    /// # Errors
    /// [`Failure::Other`] if a file cannot be read any more.
    pub fn by_name(&self) -> Result<BTreeMap<String, String>, Failure> {
        (*self.by_name).clone().map_err(Failure::Other)
    }
}

/// The checksum of each file of the model at `path`, of the built-in one without a path, as far as
/// `checksum` gives them.
fn of_model(path: Option<&Path>, checksum: &dyn Fn(&Path, &str) -> io::Result<Option<String>>) -> ByName {
    let Some(path) = path else {
        let built_in = [("model.safetensors", gpt2_tiny::SHA256)];
        return Ok(BTreeMap::from(built_in.map(|(name, checksum)| (name.to_owned(), checksum.to_owned()))));
    };
    let mut checksums = BTreeMap::new();
    for file in files_of(path) {
        let name = file.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let found =
            checksum(&file, &name).map_err(|e| format!("cannot read {} again: {e}", file.display()))?;
        checksums.extend(found.map(|checksum| (name, checksum)));
    }
    Ok(checksums)
}

/// The files of weights: the one that was given, or those that an index names. The model was loaded
/// from them, so the index can be read.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let is_index = path.extension().is_some_and(|extension| extension == "json");
    let index = is_index.then(|| files::read(path, MOST_TEXT).ok()).flatten();
    let index = index.and_then(|text| serde_json::from_slice::<Index>(&text).ok());
    match index {
        Some(index) => {
            let names: BTreeSet<String> = index.weight_map.into_values().collect();
            names.iter().map(|name| path.with_file_name(name)).collect()
        }
        None => vec![path.to_owned()],
    }
}

/// The checksum on record, if the file still looks as it did when it was checked.
fn on_record(file: &Path, name: &str) -> Option<String> {
    let text = files::read(&file.with_file_name("provenance.json"), MOST_TEXT).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let checked = record.files.get(name)?;
    let found = fs::metadata(file).ok()?;
    let modified = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let same = (found.len(), modified.as_nanos()) == (checked.size, checked.modified_ns.into());
    same.then(|| checked.sha256.clone())
}

fn of_file(path: &Path) -> io::Result<String> {
    let mut file = files::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
