//! Files that the user gives, read whole: any file may be named, so it is looked at before it is read.

use std::path::Path;

use crate::failure::Failure;

pub use grids::MAX_BYTES;

/// [`grids::read_file`]: the bytes of an ordinary file of at most `most` bytes.
///
/// # Errors
/// [`Failure::Input`] with the path and the reason.
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    Ok(grids::read_file(path, most)?)
}

/// As [`read_file`], of text.
///
/// # Errors
/// [`Failure::Input`] with the path and the reason, such as the first byte that is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String, Failure> {
    String::from_utf8(read_file(path, most)?).map_err(|error| {
        Failure::Input(format!(
            "cannot read {}: it is no text in UTF-8 (byte {} cannot stand there)",
            path.display(),
            error.utf8_error().valid_up_to()
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_an_ordinary_file_of_a_bounded_length_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, b"12\xff4").unwrap();
        assert_eq!(read_file(&path, 4).unwrap(), b"12\xff4");
        let message = |result: Result<Vec<u8>, Failure>| match result {
            Err(Failure::Input(message)) => message,
            other => panic!("{other:?}"),
        };
        let text = |most| read_text(&path, most).map(String::into_bytes);
        for (result, part) in [
            (read_file(&path, 3), "a.txt: it has more than 3 bytes"),
            (text(4), "a.txt: it is no text in UTF-8 (byte 2"),
            (read_file(folder.path(), 4), "it is a folder"),
            (read_file(&folder.path().join("b"), 4), "b: No such file"),
            #[cfg(unix)]
            (
                read_file(Path::new("/dev/zero"), 4),
                "/dev/zero: it is no ordinary file",
            ),
        ] {
            let message = message(result);
            assert!(message.contains(part), "{message}");
        }
    }
}
