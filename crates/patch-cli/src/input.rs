//! Files that the user gives, read whole: any file may be named, so it is looked at before it is read.

use std::path::Path;

use crate::failure::Failure;

/// [`grids::read_file`]: the bytes of an ordinary file of at most `most` bytes.
///
/// # Errors
/// [`Failure::Input`] with the path and the reason.
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    Ok(grids::read_file(path, most)?)
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
        for (result, part) in [
            (read_file(&path, 3), "a.txt: it has more than 3 bytes"),
            (read_file(folder.path(), 4), "it is a folder"),
            (read_file(&folder.path().join("b"), 4), "b: No such file"),
            #[cfg(unix)]
            (read_file(Path::new("/dev/zero"), 4), "/dev/zero: it is not a regular file"),
        ] {
            let message = message(result);
            assert!(message.contains(part), "{message}");
        }
    }
}
