//! Reading files that may be anything, and writing files that appear whole.
//!
//! - [`open`] and [`read`] take regular files only, and never more than a bound.
//! - A [`Part`] is a file under a temporary name that becomes its target in one step, or disappears.
//!
//! This is the only crate that decides how a file is opened for reading, or gets its name.

pub mod encoding;
mod part;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

pub use part::{Part, publish_all, sync_folder};

/// Opens a regular file for reading.
///
/// Opening a pipe would wait until something writes to it, and a device has no end.
///
/// # Errors
/// If there is no such file, if it is not a regular file, or if it cannot be opened. The error does not
/// name the path.
pub fn open(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    let refuse = |reason| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    if found.is_dir() {
        refuse("it is a folder")
    } else if !found.is_file() {
        refuse("it is not a regular file")
    } else {
        File::open(path)
    }
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; if it has more bytes ([`io::ErrorKind::FileTooLarge`]); or if it cannot be read.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let reason = format!("it has more than {most} bytes, the most that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("more than 4 bytes"));
    }

    #[test]
    fn a_folder_and_a_device_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 1).unwrap_err().to_string(), "it is a folder");
        #[cfg(unix)]
        assert_eq!(read(Path::new("/dev/zero"), 1).unwrap_err().to_string(), "it is not a regular file");
    }
}
