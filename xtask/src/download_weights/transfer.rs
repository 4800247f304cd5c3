//! Brings one file to the disk.
//!
//! The bytes go to a `.part` file, which a later run resumes. It is renamed to its real name only when its
//! length and its checksum are right.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Client, Trouble};
use super::manifest::CONFIG;
use super::source::Location;
use crate::checksum::{BUFFER, Checksum};
use crate::disk::{self, bytes, read_failure, write_failure};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::screen;

/// How many attempts in a row may bring almost nothing.
const ATTEMPTS: u32 = 5;

/// An attempt that brought this many bytes does not count as failed.
const GOOD_ATTEMPT: u64 = 1 << 20;

/// The longest pause that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The longest configuration that is taken if nobody says how long it is.
const LONGEST_CONFIG: u64 = 1 << 20;

/// In bytes a second: a connection that stays below this is given up.
const LEAST_SPEED: f64 = 1000.0;

const ANOTHER: &str = "choose another source with HF_ENDPOINT or --from";

/// What is known about a file.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub size: Option<u64>,
    /// The checksum, and where it comes from, in words.
    pub sha256: Option<(String, &'static str)>,
    /// The commit of the hub's repository.
    pub commit: Option<String>,
}

/// The transfer of one file into a folder.
#[derive(Debug)]
pub struct Transfer<'run> {
    pub client: &'run Client,
    /// The first pause between two attempts; each next one is twice as long.
    pub pause: Duration,
    pub folder: &'run Path,
    pub name: &'static str,
    pub known: Known,
    pub part: Part,
}

impl Transfer<'_> {
    /// Fetches or copies the file and checks it. Returns what its checksum was compared with.
    pub fn run(&mut self, location: &Location) -> Outcome<&'static str> {
        let checked = self.fill_and_check(location);
        if checked.is_err() && self.part.length == 0 {
            // A file that stays does no harm, and there is another failure to report.
            let _ = fs::remove_file(&self.part.path);
        }
        checked
    }

    fn fill_and_check(&mut self, location: &Location) -> Outcome<&'static str> {
        loop {
            match location {
                Location::Url(url) => self.download(url)?,
                Location::Path(path) => self.copy(path)?,
            }
            let why = match self.check()? {
                Ok(authority) => return Ok(authority),
                Err(why) => why,
            };
            let was_resumed = self.part.is_resumed;
            self.part.empty()?;
            if !was_resumed {
                return Err(Failure::run(format!(
                    "{why}: the file was deleted: run this again, and if the source is wrong, {ANOTHER}"
                )));
            }
            // The part may be from an earlier version of the file.
            screen::warn(&format!("{why}: the part from an earlier run cannot be used, starting again"));
        }
    }

    /// Sends requests until the file is complete.
    fn download(&mut self, url: &str) -> Outcome {
        let mut failed = 0;
        let mut was_reached = false;
        while self.known.size.is_none_or(|size| size != self.part.length) {
            let before = self.part.length;
            let trouble = match self.attempt(url) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            if self.part.length >= before + GOOD_ATTEMPT {
                failed = 0;
            }
            was_reached |= self.part.length > before;
            let (why, wait) = match trouble {
                Trouble::Passing { why, wait } => (why, wait),
                Trouble::Unreachable(why) if was_reached => (why, None),
                Trouble::Unreachable(why) => return Err(self.interrupted(why)),
                Trouble::Final(failure) => return Err(failure),
            };
            let wait = wait.unwrap_or(self.pause * 2_u32.pow(failed));
            failed += 1;
            if wait > LONGEST_WAIT {
                let seconds = wait.as_secs();
                return Err(self.interrupted(format!(
                    "{why}, and asks for a pause of {seconds} s: run the same command again after that"
                )));
            }
            if failed == ATTEMPTS {
                return Err(self.interrupted(format!(
                    "{why}, after {ATTEMPTS} attempts: run the same command again later"
                )));
            }
            screen::warn(&format!("{}: {why}: trying again in {wait:?}", self.name));
            thread::sleep(wait);
        }
        Ok(())
    }

    fn attempt(&mut self, url: &str) -> Result<(), Trouble> {
        let Some(answer) = self.client.get(url, self.part.length, &mut self.known)? else {
            if self.known.size == Some(self.part.length) {
                return Ok(());
            }
            self.part.empty()?;
            let why = "the server has nothing after the part that is here".into();
            return Err(Trouble::Passing { why, wait: Some(Duration::ZERO) });
        };
        self.require_size(answer.total, answer.body.mime_type().unwrap_or("unknown"))?;
        if answer.start == 0 && self.part.length > 0 {
            screen::warn(&format!("{}: the server cannot resume, starting again", self.name));
            self.part.empty()?;
        }
        self.receive(answer.body.into_reader())
    }

    /// A copy on the disk is read from its start, because that is quick.
    fn copy(&mut self, path: &Path) -> Outcome {
        let file = files::open(path).map_err(|error| read_failure(path, &error))?;
        let length = file.metadata().map_err(|error| read_failure(path, &error))?.len();
        self.require_size(Some(length), "a file")?;
        self.part.empty()?;
        self.receive(file).map_err(|trouble| match trouble {
            Trouble::Final(failure) => failure,
            Trouble::Passing { why, .. } | Trouble::Unreachable(why) => {
                Failure::run(format!("cannot read {}: {why}", path.display()))
            }
        })
    }

    /// Refuses a file whose checksum is not known, or whose length shows that it is a different file.
    fn require_size(&mut self, total: Option<u64>, kind: &str) -> Outcome {
        let (name, is_config) = (self.name, self.name == CONFIG);
        let problem = match (self.known.size, total) {
            _ if self.known.sha256.is_none() && !is_config => format!(
                "no checksum is known for {name}, and the source states none: give it with --sha256, or use \
                 the hub"
            ),
            (Some(known), Some(total)) if known != total => format!(
                "{name} has {total} bytes ({kind}) and not the expected {known}, so it is another file: \
                 {ANOTHER}"
            ),
            (None, Some(total)) if is_config && total > LONGEST_CONFIG => {
                format!("{name} has {total} bytes ({kind}), too many for a configuration: {ANOTHER}")
            }
            (None, None) if !is_config => {
                format!("the server does not state the length of {name}: {ANOTHER}")
            }
            (known, total) => {
                self.known.size = known.or(total);
                return Ok(());
            }
        };
        Err(Failure::run(problem))
    }

    /// Appends what arrives to the part.
    fn receive(&mut self, mut body: impl Read) -> Result<(), Trouble> {
        let passing = |why| Err(Trouble::Passing { why, wait: None });
        let most = self.known.size.unwrap_or(LONGEST_CONFIG);
        disk::require_space(self.folder, most.saturating_sub(self.part.length))?;
        if self.part.length > 0 {
            screen::warn(&format!("{}: resuming after {}", self.name, bytes(self.part.length)));
        }
        let mut progress = Progress::begin(self.name, most, self.part.length);
        let (mut since, mut counted) = (Instant::now(), 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let elapsed = since.elapsed();
            if elapsed > 2 * self.client.read_timeout {
                if (counted as f64) < LEAST_SPEED * elapsed.as_secs_f64() {
                    return passing(format!("only {counted} bytes have arrived in {elapsed:.1?}"));
                }
                (since, counted) = (Instant::now(), 0);
            }
            let length = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return passing(self.broken(error)),
            };
            counted += length;
            if self.part.length + length as u64 > most {
                self.part.empty()?;
                return Err(Failure::run(format!(
                    "{} is longer than the expected {most} bytes, so it is another file: it was deleted: \
                     {ANOTHER}",
                    self.name
                ))
                .into());
            }
            self.part.append(&buffer[..length])?;
            progress.add(length as u64);
        }
        match self.known.size {
            Some(size) if self.part.length < size => {
                passing(format!("the connection ended after {} bytes", self.part.length))
            }
            _ => Ok(()),
        }
    }

    fn broken(&self, error: io::Error) -> String {
        match ureq::Error::from(error) {
            ureq::Error::Timeout(_) => format!("nothing has arrived for {:?}", self.client.read_timeout),
            ureq::Error::Io(error) => format!("the connection broke ({error})"),
            error => format!("the connection broke ({error})"),
        }
    }

    /// Where the checksum of the part comes from, or else what is wrong with the part.
    fn check(&self) -> Outcome<Result<&'static str, String>> {
        let (name, sha256) = (self.name, self.part.checksum.hex());
        Ok(match &self.known.sha256 {
            Some((expected, authority)) if *expected == sha256 => Ok(*authority),
            Some((expected, authority)) => Err(format!(
                "{name} has the wrong content: its SHA-256 is {sha256}, and {authority} is {expected}"
            )),
            None if self.part.is_json()? => Ok("nothing: no checksum is known, but it is complete JSON"),
            None => Err(format!("{name} is not complete JSON")),
        })
    }

    /// A failure that leaves the part for the next run.
    fn interrupted(&self, why: String) -> Failure {
        let kept = match self.part.length {
            0 => String::new(),
            length => format!(" ({} have arrived and are kept; the next run resumes there)", bytes(length)),
        };
        Failure::run(format!("{}: {why}{kept}", self.name))
    }
}

/// A file that is not complete yet.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
    pub length: u64,
    /// The checksum of its bytes.
    pub checksum: Checksum,
    /// Whether its first bytes are from an earlier run.
    is_resumed: bool,
}

impl Part {
    /// Opens the part that an earlier run left, or a new one.
    pub fn open(folder: &Path, name: &str) -> Outcome<Self> {
        let path = folder.join(format!("{name}.part"));
        let file = disk::open_for_writing(&path)?;
        let mut checksum = Checksum::default();
        let length = checksum.add_all(&mut &file).map_err(|error| read_failure(&path, &error))?;
        Ok(Self { file, path, length, checksum, is_resumed: length > 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Outcome {
        self.file.write_all(bytes).map_err(|error| write_failure(&self.path, &error))?;
        self.checksum.add(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn empty(&mut self) -> Outcome {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(|error| write_failure(&self.path, &error))?;
        (self.length, self.checksum, self.is_resumed) = (0, Checksum::default(), false);
        Ok(())
    }

    fn is_json(&self) -> Outcome<bool> {
        let text =
            files::read(&self.path, LONGEST_CONFIG).map_err(|error| read_failure(&self.path, &error))?;
        Ok(serde_json::from_slice::<serde_json::Value>(&text).is_ok())
    }

    /// Gives the file its name, once its bytes are on the disk.
    pub fn publish(self, target: &Path) -> Outcome {
        self.file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, target))
            .map_err(|error| write_failure(target, &error))?;
        files::sync_folder(target);
        Ok(())
    }
}
