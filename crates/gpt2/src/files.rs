//! Files beside the weights, and names that come out of files.

use std::fs::File;
use std::io;
use std::path::Path;

use ::files::encoding::{other_encoding, without_mark};

use crate::Error;

/// The longest file of text that is read, and the longest header of a safetensors file: many times what
/// GPT-2 XL needs, and short enough that reading a hostile one does no harm.
pub(crate) const MAX_TEXT_BYTES: u64 = 4 << 20;

/// A small text file: `config.json`, an index, a list of tokens.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    read_text_up_to(path, MAX_TEXT_BYTES)
}

/// A text file of at most `limit` bytes, without the mark that some editors put in front of UTF-8.
pub(crate) fn read_text_up_to(path: &Path, limit: u64) -> Result<String, Error> {
    let fail = |error: io::Error| Error::io(path, error);
    let bytes = ::files::read(path, limit).map_err(fail)?;
    let broken = |reason: String| fail(io::Error::new(io::ErrorKind::InvalidData, reason));
    if let Some(reason) = other_encoding(&bytes) {
        return Err(broken(reason));
    }
    let text = std::str::from_utf8(without_mark(&bytes)).map_err(|error| {
        let at = error.valid_up_to();
        broken(format!("the text is not UTF-8 from its byte {at} on; save it as UTF-8"))
    })?;
    Ok(text.to_owned())
}

/// Opens a regular file.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    ::files::open(path).map_err(|error| Error::io(path, error))
}

/// Whether a name names a file or folder *in* a folder, on every system: no separator, no `..`, no
/// drive.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_plain_name_cannot_leave_its_folder() {
        for name in ["a", "model-00001-of-00002.safetensors", "..a", "é"] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/a", "../a", "..\\a", "C:a", "a\0", "a/"] {
            assert!(!is_plain_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_text_is_utf_8_with_or_without_a_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_text(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xef\xbb\xbf{}"), Ok("{}".to_owned()));
        for (bytes, part) in [
            (&b"\xff\xfe{\0}\0"[..], "config.json: it is written in UTF-16; save it as UTF-8"),
            (b"{\0}\0", "it is written in UTF-16"),
            (b"{\"a\": \"\xe9\"}", "not UTF-8 from its byte 7 on"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_file_beyond_all_measure_and_what_is_no_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("config.json");
        fs::write(&long, vec![b' '; MAX_TEXT_BYTES as usize + 1]).unwrap();
        for (path, message) in [
            (long.as_path(), "config.json: it has more than 4194304 bytes"),
            (folder.path(), "it is a folder"),
            #[cfg(unix)]
            (Path::new("/dev/zero"), "/dev/zero: it is not a regular file"),
        ] {
            let error = read_text(path).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
