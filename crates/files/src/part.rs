//! Files that appear whole.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file under a temporary name, until it is published under its own.
///
/// Its temporary name, `NAME.PID-N.part`, is in the target's folder and was free: an existing file is never
/// used. The file is locked for as long as this value lives, so an unlocked one was left by a killed
/// process, and [`Part::create`] removes it. A part that is dropped before it is published is removed.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    is_published: bool,
}

/// Temporary names are tried up to this number.
const MOST_NAMES: u32 = 10_000;

impl Part {
    /// An empty file that can become `target`. Parts that killed processes left for the same target are
    /// removed.
    ///
    /// # Errors
    /// If the folder is missing or cannot be written to.
    pub fn create(target: &Path) -> io::Result<Self> {
        remove_stale(target);
        for n in 0..MOST_NAMES {
            let path = temporary(target, n);
            let file = match File::options().read(true).write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created?,
            };
            // A file system without locks is used without them. Before the lock was taken, another process
            // may have removed the file as stale.
            let taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            if !taken && fs::symlink_metadata(&path).is_ok() {
                return Ok(Self { file, path, target: target.to_owned(), is_published: false });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{MOST_NAMES} temporary files beside it are in use"),
        ))
    }

    /// A part with these bytes, which are on the disk.
    ///
    /// # Errors
    /// As [`Part::create`], and if the bytes cannot be written.
    pub fn with_bytes(target: &Path, bytes: &[u8]) -> io::Result<Self> {
        let mut part = Self::create(target)?;
        part.write_all(bytes)?;
        part.file.sync_all()?;
        Ok(part)
    }

    /// The path that it will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file its name. An existing file of this name is replaced if `may_replace` allows it; it is
    /// called directly before.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if a file has the name and may not be replaced; or if the file
    /// cannot be flushed to the disk or renamed. The target is then as it was.
    pub fn publish(mut self, may_replace: impl Fn(&Path) -> io::Result<bool>) -> io::Result<()> {
        self.give_name(&may_replace)
    }

    fn give_name(&mut self, may_replace: &dyn Fn(&Path) -> io::Result<bool>) -> io::Result<()> {
        self.file.sync_all()?;
        match fs::symlink_metadata(&self.target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.give_free_name()?,
            _ if may_replace(&self.target)? => fs::rename(&self.path, &self.target)?,
            _ => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        self.is_published = true;
        sync_folder(&self.target);
        Ok(())
    }

    /// A link fails if a file has appeared in the meantime; a rename would replace it.
    fn give_free_name(&self) -> io::Result<()> {
        match fs::hard_link(&self.path, &self.target) {
            Ok(()) => fs::remove_file(&self.path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // Not every file system has links.
            Err(_) => fs::rename(&self.path, &self.target),
        }
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_published {
            // Best effort: the error that matters has been reported.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Gives several files their names, in this order: all of them or, if one fails, none.
///
/// # Errors
/// The path that could not be published, and why ([`Part::publish`]). The targets are then as they were,
/// as far as the file system allows.
pub fn publish_all(
    parts: Vec<Part>,
    may_replace: impl Fn(&Path) -> io::Result<bool>,
) -> Result<(), (PathBuf, io::Error)> {
    let mut done: Vec<Before> = Vec::new();
    for mut part in parts {
        let before = Before::of(&part.target);
        if let Err(error) = part.give_name(&may_replace) {
            before.forget();
            done.into_iter().rev().for_each(Before::restore);
            return Err((part.target.clone(), error));
        }
        done.push(before);
    }
    done.into_iter().for_each(Before::forget);
    Ok(())
}

/// The file at a path before another was published there.
struct Before {
    target: PathBuf,
    existed: bool,
    /// A second name of the file that was there.
    link: Option<PathBuf>,
}

impl Before {
    fn of(target: &Path) -> Self {
        let link = |n| {
            let link = temporary(target, n);
            fs::hard_link(target, &link).map(|()| link)
        };
        let existed = fs::symlink_metadata(target).is_ok();
        let taken = |link: &io::Result<PathBuf>| matches!(link, Err(error) if error.kind() == io::ErrorKind::AlreadyExists);
        let link = (0..MOST_NAMES).filter(|_| existed).map(link).find(|link| !taken(link));
        Self { target: target.to_owned(), existed, link: link.and_then(Result::ok) }
    }

    fn restore(self) {
        // Best effort: the error that matters is the one that led here.
        let _ = match (&self.link, self.existed) {
            (Some(link), _) => fs::rename(link, &self.target),
            (None, false) => fs::remove_file(&self.target),
            (None, true) => Ok(()),
        };
    }

    fn forget(self) {
        if let Some(link) = &self.link {
            let _ = fs::remove_file(link);
        }
    }
}

/// Flushes the folder of a file to the disk, without which its name can be lost in a crash. Not every
/// system can do that, so an error is ignored.
pub fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
        let _ = folder.sync_all();
    }
}

fn temporary(target: &Path, n: u32) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{n}.part", std::process::id()));
    target.with_file_name(name)
}

/// Removes the parts that killed processes left for this target: those that are not locked.
fn remove_stale(target: &Path) {
    let folder = target.parent().filter(|folder| *folder != Path::new(""));
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else {
        return; // Creating the file will say why.
    };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_part_of(&entry.file_name().to_string_lossy(), target) {
            continue;
        }
        if let Ok(file) = File::options().write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a name is `NAME.PID-N.part` of this target.
fn is_part_of(name: &str, target: &Path) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let target = target.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(&*target)
        .and_then(|rest| rest.strip_prefix('.')?.strip_suffix(".part")?.split_once('-'))
        .is_some_and(|(pid, n)| is_number(pid) && is_number(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_part_appears_whole_or_disappears() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.png");
        drop(Part::with_bytes(&target, b"half").unwrap());
        assert_eq!(names(folder.path()).len(), 0);
        Part::with_bytes(&target, b"whole").unwrap().publish(|_| Ok(false)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.png");
        let part = Part::with_bytes(&target, b"ours").unwrap();
        fs::write(&target, "theirs").unwrap();
        let error = part.publish(|_| Ok(false)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        Part::with_bytes(&target, b"ours").unwrap().publish(|_| Ok(true)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"ours");
        assert_eq!(names(folder.path()), ["a.png"]);
    }

    #[test]
    fn parts_that_killed_processes_left_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.png");
        let left = temporary(&target, 0); // by a process that had our number
        fs::write(&left, "half").unwrap();
        for other in ["b.png.1-0.part", "a.png.1.part", "a.png.x-0.part", "a.png.1-0.part.bak"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let alive = Part::create(&target).unwrap();
        let second = Part::create(&target).unwrap();
        assert_ne!(alive.path, second.path, "a file that is in use is kept");
        assert_eq!(fs::read(&alive.path).unwrap(), b"");
        drop((alive, second));
        assert_eq!(
            names(folder.path()),
            ["a.png.1-0.part.bak", "a.png.1.part", "a.png.x-0.part", "b.png.1-0.part"]
        );
    }

    #[test]
    fn several_files_are_published_all_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, refused] = ["old", "new", "refused"].map(|name| folder.path().join(name));
        fs::write(&old, "before").unwrap();
        fs::write(&refused, "theirs").unwrap();
        let parts = |targets: &[&Path]| {
            targets.iter().map(|target| Part::with_bytes(target, b"ours").unwrap()).collect()
        };
        let may_replace = |path: &Path| Ok(path.ends_with("old"));
        let (path, error) = publish_all(parts(&[&old, &new, &refused]), may_replace).unwrap_err();
        assert_eq!((path.as_path(), error.kind()), (refused.as_path(), io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read(&old).unwrap(), b"before");
        assert_eq!(names(folder.path()), ["old", "refused"]);
        publish_all(parts(&[&old, &new]), may_replace).unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"ours");
        assert_eq!(names(folder.path()), ["new", "old", "refused"]);
    }

    #[test]
    fn the_path_may_have_no_folder() {
        assert_eq!(temporary(Path::new("a"), 3), PathBuf::from(format!("a.{}-3.part", std::process::id())));
        sync_folder(Path::new("a"));
        remove_stale(Path::new("surely_nothing_is_called_like_this"));
    }
}
