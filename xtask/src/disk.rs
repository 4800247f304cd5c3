//! Careful use of the disk: locks, free space, files that appear whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::failure::{Failure, Outcome};

/// A lock on a folder of weights, for as long as this value lives.
///
/// The empty lock file stays: if it were removed, a third process could lock a new one while a second
/// still waits for the old one.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Creates the folder if it is missing, and locks it.
    pub fn take(folder: &Path) -> Outcome<Self> {
        fs::create_dir_all(folder).map_err(|error| write_failure(folder, &error))?;
        let path = folder.join(".lock");
        let file = open_for_writing(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Failure::run(format!(
                "another `cargo xtask` is writing to {}: wait until it has finished, then run this again",
                folder.display()
            ))),
            Err(TryLockError::Error(error)) => Err(write_failure(&path, &error)),
        }
    }
}

/// Opens a file of ours as it is, or creates it. Writing to a link would change another file, and opening a
/// pipe would wait.
pub fn open_for_writing(path: &Path) -> Outcome<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Failure::run(format!(
            "{} is not a regular file: delete it, then run this again",
            path.display()
        )));
    }
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    options.open(path).map_err(|error| write_failure(path, &error))
}

/// The message for a file that is there and cannot be read.
pub fn read_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::run(format!("cannot read {}: {error}", path.display()))
}

/// The message for a file or folder that cannot be written.
pub fn write_failure(path: &Path, error: &io::Error) -> Failure {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let advice = match error.kind() {
        StorageFull | QuotaExceeded => {
            "the disk is full: make room or choose another folder, then run the same command again"
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "choose a folder that you may write to, or change its permissions"
        }
        _ => "choose another folder, or see what is there",
    };
    Failure::run(format!("cannot write {}: {error}: {advice}", path.display()))
}

/// Refuses to start when the disk of `folder` has less than `needed` bytes left.
pub fn require_space(folder: &Path, needed: u64) -> Outcome {
    match fs4::available_space(folder) {
        Ok(free) if free < needed => Err(Failure::run(format!(
            "not enough disk space in {}: {} are needed and {} are free: make room, or choose another folder",
            folder.display(),
            bytes(needed),
            bytes(free)
        ))),
        // Where the free space is not known, a full disk shows while writing.
        _ => Ok(()),
    }
}

/// A number of bytes with its unit: `548.1 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Writes a small file so that readers see the old content or the new, never a part of it.
pub fn write_atomically(path: &Path, content: &[u8]) -> Outcome {
    files::Part::with_bytes(path, content)
        .and_then(|part| part.publish(|_| Ok(true)))
        .map_err(|error| write_failure(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_reported_as_one() {
        let failure = write_failure(Path::new("w/model.part"), &io::ErrorKind::StorageFull.into());
        let message = failure.to_string();
        assert!(message.starts_with("cannot write w/model.part"), "{message}");
        assert!(message.contains("the disk is full"), "{message}");
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(bytes(665), "665 bytes");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_960), "1.0 MB");
        assert_eq!(bytes(548_105_171), "548.1 MB");
        assert_eq!(bytes(6_431_829_964), "6.4 GB");
    }
}
