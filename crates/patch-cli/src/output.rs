//! Files that are written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The first word of `Software` in the files that we write, by which we know our own again.
pub const SOFTWARE: &str = "patch-cli";

/// What the metadata of a file say of its maker: our name and version.
pub const MAKER: &str = concat!("patch-cli ", env!("CARGO_PKG_VERSION"));

/// A file that is going to be written.
pub struct Output {
    path: PathBuf,
}

/// A file that is on disk as a whole, but not yet under its name.
pub struct Staged<'a> {
    output: &'a Output,
    /// None when it has got its name.
    part: Option<PathBuf>,
}

impl Output {
    /// Checks, before any work is done, that a file can be put there. One of ours from an earlier run
    /// may be replaced; any other file stays as it is.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason.
    pub fn prepare(path: &Path) -> Result<Self, Failure> {
        Self::prepare_beside(path, None)
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
                "a picture is written as PNG or SVG: give a name that ends in .png or .svg instead of \
                 {}",
                path.display()
            ))),
        }
    }

    /// As [`Output::prepare`], for a file that cannot say itself that it is ours: `sidecar`, the file
    /// beside it, says so.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason.
    pub fn prepare_beside(path: &Path, sidecar: Option<&Path>) -> Result<Self, Failure> {
        let fail = |reason: String| Failure::Other(format!("cannot write {}: {reason}", path.display()));
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(fail("it is a folder".to_owned())),
            Ok(found) if found.is_file() => {
                let signed = sidecar.unwrap_or(path);
                let ours = match is_ours(signed) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    answer => answer.map_err(|e| fail(e.to_string()))?,
                };
                if !ours {
                    return Err(fail(format!(
                        "it exists, and is not a file that {SOFTWARE} made; move it away, or give \
                         another path"
                    )));
                }
            }
            Ok(_) => {
                return Err(fail("it is no ordinary file, and could not be replaced whole".to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error.to_string())),
        }
        let output = Self { path: path.to_owned() };
        // Writing may fail for many reasons: a missing folder, permissions, a full disk. Try.
        let part = output.part();
        create(&part).map_err(|e| fail(e.to_string()))?;
        fs::remove_file(&part).map_err(|e| fail(e.to_string()))?;
        Ok(output)
    }

    /// Writes the bytes under a temporary name beside the path, and renames the file when all of it
    /// is on disk.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason; nothing is left then.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.stage(bytes)?.commit()
    }

    /// Writes the bytes under a temporary name, for files that should appear together.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason; nothing is left then.
    pub fn stage(&self, bytes: &[u8]) -> Result<Staged<'_>, Failure> {
        let staged = Staged { output: self, part: Some(self.part()) };
        create(&self.part())
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .map_err(|error| self.failure(&error))?;
        Ok(staged)
    }

    /// Whether the file's name ends in `.` and this, in upper or lower case.
    pub fn has_extension(&self, extension: &str) -> bool {
        let found = self.path.extension().and_then(|found| found.to_str());
        found.is_some_and(|found| found.eq_ignore_ascii_case(extension))
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::Other(format!("cannot write {}: {error}", self.path.display()))
    }

    /// The path as the user gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The temporary name: in the same folder, and of this process alone.
    fn part(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        self.path.with_file_name(name)
    }
}

impl Staged<'_> {
    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason; the file is removed then.
    pub fn commit(mut self) -> Result<(), Failure> {
        if let Some(part) = &self.part {
            fs::rename(part, &self.output.path).map_err(|error| self.output.failure(&error))?;
        }
        self.part = None;
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Best effort: the error that matters has been reported.
            let _ = fs::remove_file(part);
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
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
    let mut file = File::open(path)?;
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
        crate::render::encode_png(&image::RgbImage::new(3, 2), 1.0, &metadata).unwrap()
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
}
