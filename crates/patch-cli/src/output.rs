//! Files that are written whole or not at all.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use files::Part;

use crate::failure::Failure;

/// The first word of `Software` in the files that we write, by which we know our own again.
pub const SOFTWARE: &str = "patch-cli";

/// What the metadata of a file say of its maker: our name and version.
pub const MAKER: &str = concat!("patch-cli ", env!("CARGO_PKG_VERSION"));

/// A file that is going to be written.
pub struct Output {
    path: PathBuf,
    /// The file that says whether `path` is ours: itself, or its words beside it.
    signed: PathBuf,
}

impl Output {
    /// Checks, before any work is done, that a file can be put there. One of ours from an earlier run
    /// may be replaced; any other file stays as it is.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason.
    pub fn prepare(path: &Path) -> Result<Self, Failure> {
        Self::prepare_beside(path, path)
    }

    /// As [`Output::prepare`], for a picture, whose name has to end in `.png` or `.svg`.
    ///
    /// # Errors
    /// [`Failure::Other`] if it cannot be put there; [`Failure::Input`] if the name ends otherwise.
    pub fn picture(path: &Path) -> Result<Self, Failure> {
        let output = Self::prepare(path)?;
        match output.has_extension("png") || output.has_extension("svg") {
            true => Ok(output),
            false => Err(Failure::Input(format!(
                "a picture is written as PNG or SVG: give a name that ends in .png or .svg instead of {}",
                path.display()
            ))),
        }
    }

    /// As [`Output::prepare`], for a file that cannot say itself that it is ours: `signed`, the file
    /// beside it, says so.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason.
    pub fn prepare_beside(path: &Path, signed: &Path) -> Result<Self, Failure> {
        let output = Self { path: path.to_owned(), signed: signed.to_owned() };
        output.is_replaceable()?;
        // Writing may fail for many reasons: a missing folder, permissions, a full disk. Try.
        Part::create(path).map_err(|error| output.failure(&error))?;
        Ok(output)
    }

    /// Whether there is a file of ours, which may be replaced; false if there is none.
    ///
    /// # Errors
    /// [`Failure::Other`] if there is anything else.
    fn is_replaceable(&self) -> Result<bool, Failure> {
        let refuse = |reason: &str| Err(self.failure(&io::Error::other(reason)));
        match fs::metadata(&self.path) {
            Ok(found) if found.is_dir() => refuse("it is a folder"),
            Ok(found) if !found.is_file() => {
                refuse("it is not a regular file, and could not be replaced as a whole")
            }
            Ok(_) => match is_ours(&self.signed) {
                Ok(true) => Ok(true),
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failure(&error)),
                _ => refuse(
                    "it exists, and is not a file that patch-cli made; move it away, or give another path",
                ),
            },
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failure(&error)),
            Err(_) if fs::symlink_metadata(&self.path).is_ok() => {
                refuse("it is a symbolic link to a file that does not exist")
            }
            Err(_) => Ok(false),
        }
    }

    /// Writes a file that appears whole or not at all.
    ///
    /// # Errors
    /// As [`write_together`].
    pub fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        write_together(&[(self, bytes)])
    }

    /// Whether the file's name ends in `.` and this, in upper or lower case.
    pub fn has_extension(&self, extension: &str) -> bool {
        let found = self.path.extension().and_then(|found| found.to_str());
        found.is_some_and(|found| found.eq_ignore_ascii_case(extension))
    }

    fn failure(&self, error: &io::Error) -> Failure {
        unwritable(&self.path, error)
    }

    /// The path as the user gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Other(format!("cannot write {}: {error}", path.display()))
}

/// Writes files that belong together, in this order: all of them or, if one cannot be written, none. What
/// has appeared at their paths since they were prepared is kept, unless it is ours.
///
/// # Errors
/// [`Failure::Other`] with the path and the reason.
pub fn write_together(files: &[(&Output, &[u8])]) -> Result<(), Failure> {
    /// Other processes may be writing the same files: then these are ours, and are replaced.
    const TRIES: usize = 100;
    let mut result = Ok(());
    for _ in 0..TRIES {
        // Before the first is written: its words beside a table make the table ours.
        let mut replaceable = Vec::new();
        for (output, _) in files {
            if output.is_replaceable()? {
                replaceable.push(output.path());
            }
        }
        let mut parts = Vec::new();
        for (output, bytes) in files {
            parts.push(Part::with_bytes(&output.path, bytes).map_err(|error| output.failure(&error))?);
        }
        result = files::publish_all(parts, |path| Ok(replaceable.contains(&path)));
        match &result {
            Err((_, error)) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            _ => break,
        }
    }
    result.map_err(|(path, error)| unwritable(&path, &error))
}

/// How our files begin that are not PNG: SVG, HTML, JSON, man pages.
const BEGINNINGS: [&str; 4] = [
    ".\\\" Software: patch-cli ",
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- Software: patch-cli ",
    "<!doctype html>\n<!-- Software: patch-cli ",
    "{\"provenance\":{\"software\":\"patch-cli\",",
];

/// Whether a file says that we made it: a PNG in its text `Software`, a safetensors file in its
/// metadata, other files in how they begin.
fn is_ours(path: &Path) -> io::Result<bool> {
    // A PNG has its texts before the image data, and ours before all other texts.
    let mut file = files::open(path)?;
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(1024).read_to_end(&mut start)?;
    let holds = |bytes: &[u8], mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
    if start.starts_with(b"\x89PNG") {
        return Ok(holds(&start, &format!("tEXtSoftware\0{SOFTWARE}")));
    }
    if let Some((length, header)) = start.split_first_chunk::<8>()
        && header.starts_with(b"{\"__metadata__\":{")
    {
        let length = u64::from_le_bytes(*length).min(MOST_HEADER);
        let mut header = header.to_vec();
        file.take(length).read_to_end(&mut header)?;
        return Ok(holds(&header, "\"software\":\"patch-cli\""));
    }
    Ok(BEGINNINGS.iter().any(|beginning| start.starts_with(beginning.as_bytes())))
}

/// How much of a safetensors header is searched.
const MOST_HEADER: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<u8> {
        let metadata = [("Software".to_owned(), MAKER.to_owned())];
        figures::encode_png(&image::RgbImage::new(3, 2), 1.0, &metadata).unwrap()
    }

    fn message(result: Result<Output, Failure>) -> String {
        match result {
            Err(Failure::Other(message)) => message,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn our_own_picture_is_replaced_and_nothing_else_is_left_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        for _ in 0..2 {
            Output::prepare(&path).unwrap().write(&ours()).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), ours());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("thesis.png");
        fs::write(&path, b"\x89PNG years of work").unwrap();
        assert!(message(Output::prepare(&path)).contains("thesis.png: it exists, and is not a file"));
        assert_eq!(fs::read(&path).unwrap(), b"\x89PNG years of work");
    }

    #[test]
    fn a_folder_and_a_missing_folder_are_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        assert!(message(Output::prepare(folder.path())).ends_with("it is a folder"));
        let path = folder.path().join("none/a.png");
        assert!(message(Output::prepare(&path)).contains("none/a.png: No such file"));
    }

    #[test]
    fn a_file_that_appears_during_the_work_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("thesis.png");
        let output = Output::prepare(&path).unwrap();
        fs::write(&path, "years of work").unwrap();
        let error = output.write(&ours()).unwrap_err();
        assert!(matches!(&error, Failure::Other(reason) if reason.contains("is not a file that patch-cli")));
        assert_eq!(fs::read(&path).unwrap(), b"years of work");
        // One of ours may have come from another process that does the same.
        fs::write(&path, ours()).unwrap();
        output.write(&ours()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_table_that_appears_is_not_ours_because_our_words_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let (table, words) = (folder.path().join("a.csv"), folder.path().join("a.csv.json"));
        let outputs = [Output::prepare(&words).unwrap(), Output::prepare_beside(&table, &words).unwrap()];
        fs::write(&table, "theirs").unwrap();
        let text = b"{\"provenance\":{\"software\":\"patch-cli\",\"version\":\"0\"}}";
        let written = write_together(&[(&outputs[0], text), (&outputs[1], b"ours")]);
        assert!(written.is_err() && !words.exists());
        assert_eq!(fs::read(&table).unwrap(), b"theirs");
    }
}
