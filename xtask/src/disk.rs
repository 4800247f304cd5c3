//! Careful use of the disk: locks, free space, files that appear only when they are whole.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use files::Part;

use crate::failure::{Failure, Outcome};

/// Locks a folder of weights for as long as this value lives, also against other processes.
///
/// The empty lock file stays: removing it would let a third process lock a file that is gone.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Makes the folder if it is missing, and locks it.
    pub fn take(folder: &Path) -> Outcome<Self> {
        fs::create_dir_all(folder).map_err(|error| write_failure(folder, &error))?;
        let path = folder.join(".lock");
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(Failure::run(format!("{} is not a regular file: delete it", path.display())));
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| write_failure(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Failure::run(format!(
                "another `cargo xtask` is writing to {}: wait until it has finished, then run \
                 this again",
                folder.display()
            ))),
            Err(TryLockError::Error(error)) => Err(write_failure(&path, &error)),
        }
    }
}

/// The message for a file or folder that cannot be written.
pub fn write_failure(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::run(format!(
            "the disk is full: cannot write {path}: make room (or choose another folder), then \
             run the same command again"
        )),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Failure::run(format!(
            "cannot write {path}: {error}: choose a folder that you may write to, or change \
                 its permissions"
        )),
        _ => {
            Failure::run(format!("cannot write {path}: {error}: choose another folder, or see what is there"))
        }
    }
}

/// Refuses to start when the disk of `folder` has less than `needed` bytes left.
pub fn require_space(folder: &Path, needed: u64) -> Outcome {
    // A file system that cannot tell is no reason to stop: a full disk shows while writing.
    let Ok(free) = fs4::available_space(folder) else {
        return Ok(());
    };
    if free < needed {
        return Err(Failure::run(format!(
            "not enough disk space in {}: {} are needed and {} are free: make room, or choose \
             another folder",
            folder.display(),
            bytes(needed),
            bytes(free)
        )));
    }
    Ok(())
}

/// A number of bytes in words: `548.1 MB`.
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

/// The name under which a file is written until it is whole.
pub fn part_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Writes a small file so that readers see the old content or the new, never a half of it.
pub fn write_atomically(path: &Path, content: &[u8]) -> Outcome {
    Part::with_bytes(path, content)
        .and_then(|part| part.publish(|_| Ok(true)))
        .map_err(|error| write_failure(path, &error))
}

/// Brings a finished file to the disk and gives it its real name.
pub fn publish(file: File, part: &Path, path: &Path) -> Outcome {
    file.sync_all()
        .and_then(|()| {
            drop(file);
            fs::rename(part, path)
        })
        .map_err(|error| write_failure(path, &error))?;
    files::sync_folder(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told() {
        let told = write_failure(Path::new("w/model.part"), &io::ErrorKind::StorageFull.into()).to_string();
        assert!(told.starts_with("the disk is full: cannot write w/model.part"), "{told}");
    }

    #[test]
    fn bytes_are_told_in_the_unit_that_fits() {
        assert_eq!(bytes(665), "665 bytes");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_960), "1.0 MB");
        assert_eq!(bytes(548_105_171), "548.1 MB");
        assert_eq!(bytes(6_431_829_964), "6.4 GB");
    }
}
