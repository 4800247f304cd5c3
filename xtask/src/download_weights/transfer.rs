//! Brings one file to the disk, whatever breaks on the way, and lets only the right bytes through.
//!
//! The bytes go to a `.part` file, which a later run goes on with. It gets its real name when
//! its length and its checksum are right, and not before.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::http::{Answer, Client, Facts, Token, Trouble};
use super::manifest::CONFIG;
use super::record::read_failure;
use super::source::Location;
use crate::checksum::{BUFFER, Checksum};
use crate::disk::{self, bytes};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::screen;

/// How many attempts in a row may bring almost nothing.
const ATTEMPTS: u32 = 5;

/// An attempt that brought this much was a good one: it does not count as failed.
const GOOD_ATTEMPT: u64 = 1 << 20;

/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// No configuration is this long, also when nobody says how long it is.
const LONGEST_CONFIG: u64 = 1 << 20;

/// What is known of the file that is to come.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// The length in bytes.
    pub size: Option<u64>,
    /// The checksum, and who says it.
    pub sha256: Option<(String, Authority)>,
}

/// Who says what the right checksum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The manifest of this program.
    Pinned,
    /// The server that has the file.
    Server,
    /// The user, with `--sha256`.
    User,
    /// The record of an earlier download.
    Record,
    /// Nobody: the file was only seen to be whole.
    Nobody,
}

impl Authority {
    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Pinned => "the checksum pinned in this program",
            Self::Server => "the checksum that the server states",
            Self::User => "the checksum given with --sha256",
            Self::Record => "the checksum of the first download",
            Self::Nobody => "nothing: no checksum is known, it was only seen to be whole JSON",
        }
    }
}

/// A file that has arrived and is right.
#[derive(Debug)]
pub struct Arrived {
    /// The length in bytes.
    pub size: u64,
    /// The checksum.
    pub sha256: String,
    /// What the checksum was compared with.
    pub authority: Authority,
    /// The commit that the server says the file is of.
    pub commit: Option<String>,
}

/// Brings one file into a folder.
#[derive(Debug)]
pub struct Transfer<'run> {
    /// Sends the requests.
    pub client: &'run Client,
    /// The user's key of the hub.
    pub token: Option<&'run Token>,
    /// The first pause between two attempts; each next one is twice as long.
    pub pause: Duration,
    /// The name of the file.
    pub name: &'static str,
    /// The folder to bring it into.
    pub folder: &'run Path,
}

impl Transfer<'_> {
    /// Fetches or copies the file, checks it, and gives it its name.
    pub fn bring(&self, location: &Location, expected: Expected) -> Outcome<Arrived> {
        let mut part = Part::open(&self.folder.join(self.name))?;
        let mut state = State { expected, commit: None };
        match self.fill_and_check(location, &mut part, &mut state) {
            Ok((sha256, authority)) => {
                let size = part.length;
                part.publish()?;
                Ok(Arrived { size, sha256, authority, commit: state.commit })
            }
            Err(failure) => {
                part.remove_if_empty();
                Err(failure)
            }
        }
    }

    /// Returns the checksum of the right bytes, and who says that it is right.
    fn fill_and_check(
        &self,
        location: &Location,
        part: &mut Part,
        state: &mut State,
    ) -> Outcome<(String, Authority)> {
        loop {
            match location {
                Location::Url(url) => self.download(url, part, state)?,
                Location::Path(path) => self.copy(path, part, state)?,
            }
            match state.verdict(self.name, part)? {
                Verdict::Right(sha256, authority) => return Ok((sha256, authority)),
                // An earlier run may have fetched another version: one fresh start is fair.
                Verdict::Wrong(why) if part.is_resumed => {
                    screen::warn(&format!(
                        "{why}: the part from an earlier run is of no use, starting again"
                    ));
                    part.empty()?;
                }
                Verdict::Wrong(why) => {
                    part.empty()?;
                    return Err(Failure::run(format!(
                        "{why}: these bytes were deleted: run this again, and if the source is \
                         wrong, choose another with HF_ENDPOINT or --from"
                    )));
                }
            }
        }
    }

    /// Asks the server until every byte is here.
    fn download(&self, url: &str, part: &mut Part, state: &mut State) -> Outcome {
        let mut failed = 0;
        let mut reached = false;
        loop {
            if let Some(size) = state.expected.size {
                if part.length > size {
                    part.empty()?;
                }
                if part.length == size {
                    return Ok(());
                }
            }
            let before = part.length;
            let attempt = self.attempt(url, part, state);
            if part.length >= before + GOOD_ATTEMPT {
                failed = 0;
            }
            reached |= part.length > before;
            let (why, wait) = match attempt {
                Ok(()) => return Ok(()),
                Err(Trouble::Passing { why, wait }) => (why, wait),
                Err(Trouble::Unreachable(why)) if reached => (why, None),
                Err(Trouble::Unreachable(why)) => return Err(Failure::run(self.kept(why, part))),
                Err(Trouble::Final(failure)) => return Err(failure),
            };
            failed += 1;
            let wait = wait.unwrap_or(self.pause * 2_u32.pow(failed - 1));
            if wait > LONGEST_WAIT {
                return Err(Failure::run(self.kept(
                    format!(
                        "{why}, and asks for a wait of {} s: run the same command again after \
                         that",
                        wait.as_secs()
                    ),
                    part,
                )));
            }
            if failed == ATTEMPTS {
                return Err(Failure::run(self.kept(
                    format!("{why}, also after {ATTEMPTS} attempts: run the same command again later"),
                    part,
                )));
            }
            screen::warn(&format!("{}: {why}: trying again in {wait:?}", self.name));
            thread::sleep(wait);
        }
    }

    /// One request, and what it brings.
    fn attempt(&self, url: &str, part: &mut Part, state: &mut State) -> Result<(), Trouble> {
        let (answer, facts) = self.client.get(url, part.length, self.token)?;
        state.learn(facts);
        match answer {
            Answer::NothingThere => {
                // All is here if the length is right. If not, these bytes are of no use.
                if state.expected.size != Some(part.length) {
                    part.empty().map_err(Trouble::Final)?;
                    return Err(Trouble::Passing {
                        why: "the server has nothing after the part that is here".into(),
                        wait: Some(Duration::ZERO),
                    });
                }
                Ok(())
            }
            Answer::Bytes { start, total, kind, body } => {
                state.require_size(self.name, total, &kind).map_err(Trouble::Final)?;
                if start == 0 && part.length > 0 {
                    screen::warn(&format!("{}: the server cannot resume, starting again", self.name));
                    part.empty().map_err(Trouble::Final)?;
                }
                self.receive(body, part, state)
            }
        }
    }

    /// A copy on the disk is read from its start: it is quick.
    fn copy(&self, path: &Path, part: &mut Part, state: &mut State) -> Outcome {
        let file = files::open(path).map_err(|error| read_failure(path, &error))?;
        let length = file.metadata().map_err(|error| read_failure(path, &error))?.len();
        state.require_size(self.name, Some(length), "a file")?;
        part.empty()?;
        self.receive(file, part, state).map_err(|trouble| match trouble {
            Trouble::Final(failure) => failure,
            Trouble::Passing { why, .. } | Trouble::Unreachable(why) => {
                Failure::run(format!("cannot read {}: {why}", path.display()))
            }
        })
    }

    /// Appends what comes to the part.
    fn receive(&self, mut body: impl Read, part: &mut Part, state: &mut State) -> Result<(), Trouble> {
        let most = state.expected.size.unwrap_or(LONGEST_CONFIG);
        disk::require_space(self.folder, most.saturating_sub(part.length)).map_err(Trouble::Final)?;
        if part.length > 0 {
            screen::warn(&format!("{}: going on after the first {}", self.name, bytes(part.length)));
        }
        let mut progress = Progress::begin(self.name, most, part.length);
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Trouble::Passing { why: error.to_string(), wait: None });
                }
            };
            if part.length + length as u64 > most {
                part.empty().map_err(Trouble::Final)?;
                return Err(Trouble::Final(Failure::run(format!(
                    "{} is longer than the expected {most} bytes, so it is another file: these \
                     bytes were deleted: choose another source with HF_ENDPOINT or --from",
                    self.name
                ))));
            }
            part.append(&buffer[..length]).map_err(Trouble::Final)?;
            progress.add(length as u64);
        }
        match state.expected.size {
            Some(size) if part.length < size => Err(Trouble::Passing {
                why: format!("the connection ended after {} bytes", part.length),
                wait: None,
            }),
            _ => Ok(()),
        }
    }

    /// Adds to a message that what has arrived is not lost.
    fn kept(&self, why: String, part: &Part) -> String {
        if part.length == 0 {
            return format!("{}: {why}", self.name);
        }
        format!(
            "{}: {why} (the {} that have arrived are kept, and the next run goes on from there)",
            self.name,
            bytes(part.length)
        )
    }
}

/// What is known of a file, and grows with the answers.
struct State {
    expected: Expected,
    commit: Option<String>,
}

enum Verdict {
    Right(String, Authority),
    Wrong(String),
}

impl State {
    /// Takes what the server states, where nothing better is known.
    fn learn(&mut self, facts: Facts) {
        let stated = facts.sha256.map(|sha256| (sha256, Authority::Server));
        // A length belongs to the checksum that was stated with it.
        if self.expected.sha256.is_none() && stated.is_some() {
            self.expected.sha256 = stated;
            self.expected.size = self.expected.size.or(facts.size);
        }
        self.commit = self.commit.take().or(facts.commit);
    }

    /// Refuses a file whose length shows already that it is another.
    fn require_size(&mut self, name: &str, total: Option<u64>, kind: &str) -> Outcome {
        if self.expected.sha256.is_none() && name != CONFIG {
            return Err(Failure::run(format!(
                "no checksum is known for {name}, and the source states none: give it with \
                 --sha256, or use the hub"
            )));
        }
        match (self.expected.size, total) {
            (Some(expected), Some(total)) if expected != total => Err(Failure::run(format!(
                "{name} has {total} bytes ({kind}) and not the expected {expected}, so it is \
                 another file: choose another source with HF_ENDPOINT or --from"
            ))),
            (None, Some(total)) if name == CONFIG && total > LONGEST_CONFIG => Err(Failure::run(format!(
                "{name} has {total} bytes ({kind}), too many for a configuration: choose \
                     another source with HF_ENDPOINT or --from"
            ))),
            (None, None) if name != CONFIG => Err(Failure::run(format!(
                "the server does not say how long {name} is: choose another with HF_ENDPOINT or \
                 --from"
            ))),
            (expected, total) => {
                self.expected.size = expected.or(total);
                Ok(())
            }
        }
    }

    fn verdict(&self, name: &str, part: &Part) -> Outcome<Verdict> {
        let sha256 = part.checksum.hex();
        Ok(match &self.expected.sha256 {
            Some((expected, authority)) if *expected == sha256 => Verdict::Right(sha256, *authority),
            Some((expected, authority)) => Verdict::Wrong(format!(
                "{name} has the wrong content: its SHA-256 is {sha256}, and {} is {expected}",
                authority.words()
            )),
            None if part.is_json()? => Verdict::Right(sha256, Authority::Nobody),
            None => Verdict::Wrong(format!("{name} is not whole JSON")),
        })
    }
}

/// A file that is not whole yet, with the checksum of what it has.
struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
    length: u64,
    checksum: Checksum,
    /// Whether its first bytes are of an earlier run.
    is_resumed: bool,
}

impl Part {
    /// Opens what an earlier run left, or nothing.
    fn open(target: &Path) -> Outcome<Self> {
        let path = disk::part_path(target);
        // A link would be written through, and a pipe waited at.
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(Failure::run(format!(
                "{} is not a regular file: delete it, then run this again",
                path.display()
            )));
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| disk::write_failure(&path, &error))?;
        let mut checksum = Checksum::default();
        let length = file
            .metadata()
            .and_then(|metadata| checksum.add_all(&mut (&file).take(metadata.len())))
            .map_err(|error| read_failure(&path, &error))?;
        Ok(Self { file, path, target: target.to_owned(), length, checksum, is_resumed: length > 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Outcome {
        self.file.write_all(bytes).map_err(|error| disk::write_failure(&self.path, &error))?;
        self.checksum.add(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn empty(&mut self) -> Outcome {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|error| disk::write_failure(&self.path, &error))?;
        self.checksum = Checksum::default();
        self.length = 0;
        self.is_resumed = false;
        Ok(())
    }

    fn is_json(&self) -> Outcome<bool> {
        let text =
            files::read(&self.path, LONGEST_CONFIG).map_err(|error| read_failure(&self.path, &error))?;
        Ok(serde_json::from_slice::<serde_json::Value>(&text).is_ok())
    }

    fn remove_if_empty(&self) {
        if self.length == 0 {
            // A file that stays does no harm, and there is a failure to tell of already.
            let _ = fs::remove_file(&self.path);
        }
    }

    fn publish(self) -> Outcome {
        disk::publish(self.file, &self.path, &self.target)
    }
}
