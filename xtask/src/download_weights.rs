//! `download-weights`: GPT-2's weights from the Hugging Face hub, into `weights/MODEL`.
//!
//! For gpt2 the commit and the checksums are pinned here. Of the other sizes the newest commit is fetched,
//! and checked against the checksum that the hub states. The record beside the files says which.

mod http;
mod manifest;
mod record;
mod source;
mod transfer;

use std::env;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::http::Client;
use self::manifest::{CONFIG, Model, WEIGHTS};
use self::record::Record;
use self::source::Location;
use self::transfer::{Known, Part, Transfer};
use crate::checksum;
use crate::disk::{FolderLock, bytes, read_failure};
use crate::failure::{Failure, Outcome};
use crate::screen;

/// The options of `download-weights`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Environment: HF_ENDPOINT (a mirror of the hub), HF_TOKEN (a token, sent to the hub only), \
HF_HUB_OFFLINE=1 (no network), HTTPS_PROXY, ALL_PROXY and NO_PROXY.

The same command resumes a download that was interrupted.")]
pub struct Arguments {
    /// The model to fetch
    #[arg(value_enum, default_value = "gpt2")]
    model: Model,
    /// Take the files from here instead: an address, a folder, or a .safetensors file with
    /// config.json beside it
    #[arg(long, value_name = "FILE|DIR|URL")]
    from: Option<String>,
    /// Put the files here instead of weights/MODEL
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The checksum of model.safetensors, if neither this program nor the source knows it
    #[arg(long, value_name = "HEX", value_parser = checksum::parse)]
    sha256: Option<String>,
    /// Only hash the files that are there, and say whether they are right
    #[arg(long, conflicts_with_all = ["from", "force"])]
    check: bool,
    /// Fetch again, and replace files that are there
    #[arg(long)]
    force: bool,
    /// Give up waiting for data after this many milliseconds
    #[arg(long, hide = true, value_name = "MS", default_value = "30000", overrides_with = "read_timeout")]
    read_timeout: NonZeroU32,
    /// The first pause between two attempts, in milliseconds
    #[arg(long, hide = true, value_name = "MS", default_value = "1000")]
    retry_pause: u32,
}

/// Fetches what is missing, or checks what is there.
pub fn run(arguments: &Arguments) -> Outcome {
    let model = arguments.model;
    if let (Some((_, pin)), Some(sha256)) = (model.pin(WEIGHTS), &arguments.sha256)
        && pin != sha256
    {
        return Err(Failure::input(format!(
            "{} is pinned to the SHA-256 {pin}, which --sha256 cannot change: leave it out",
            model.name()
        )));
    }
    let folder = arguments.dir.clone().unwrap_or_else(|| weights_folder(model.name()));
    if arguments.check {
        let record = Record::load(&folder, model);
        return [CONFIG, WEIGHTS].iter().try_for_each(|name| check(arguments, &folder, name, &record));
    }
    let from = arguments.from.as_deref();
    for name in [CONFIG, WEIGHTS] {
        Location::of(name, model, "main", from)?; // so that nothing is touched if there is none
    }
    let token = source::variable("HF_TOKEN").filter(|_| from.is_none());
    let client = Client::new(milliseconds(arguments.read_timeout.get()), token)?;
    let _lock = FolderLock::take(&folder)?;
    let record = if arguments.force { Record::new(model) } else { Record::load(&folder, model) };
    let mut download = Download { arguments, client, folder, record };
    download.provide(CONFIG)?;
    download.provide(WEIGHTS)?;
    screen::say(&format!("{} is ready in {}", model.name(), short(&download.folder)));
    Ok(())
}

/// One run of the command.
struct Download<'run> {
    arguments: &'run Arguments,
    client: Client,
    folder: PathBuf,
    record: Record,
}

impl Download<'_> {
    /// Fetches a file unless the right one is there.
    fn provide(&mut self, name: &'static str) -> Outcome {
        let known = known(self.arguments, name, &self.record);
        let path = self.folder.join(name);
        if self.arguments.force || !exists(&path)? {
            return self.fetch(name, known);
        }
        let right = known.sha256.as_ref().map(|(sha256, _)| sha256);
        let recorded = self.record.files.get(name).filter(|file| Some(&file.sha256) == right);
        if recorded.is_some_and(|file| file.looks_unchanged(&path)) {
            screen::say(&format!("{name}: is there, and was checked before"));
            return Ok(());
        }
        let was_right = recorded.is_some();
        let found = checksum::of_file(&path).map_err(|error| read_failure(&path, &error))?;
        let reason = match &known.sha256 {
            Some((right, authority)) if *right == found => {
                screen::say(&format!("{name}: is there, and matches {authority}"));
                return self.record.add(&self.folder, name, found, authority);
            }
            _ if was_right => {
                screen::warn(&format!("{name}: is damaged, fetching it again"));
                return self.fetch(name, known);
            }
            Some((right, authority)) => {
                let repository = self.arguments.model.repository();
                format!("is not that of {repository}: its SHA-256 is {found}, and {authority} is {right}")
            }
            None => "was not put there by this command, and no checksum is known for it".into(),
        };
        Err(Failure::input(format!(
            "{} {reason}: move it away, choose another folder with --dir, or replace it with --force",
            short(&path)
        )))
    }

    fn fetch(&mut self, name: &'static str, known: Known) -> Outcome {
        let revision = self.record.revision.as_deref().unwrap_or("main");
        let location = Location::of(name, self.arguments.model, revision, self.arguments.from.as_deref())?;
        if matches!(location, Location::Url(_)) && source::is_offline() {
            return Err(Failure::run(format!(
                "{name} is not in {}, and HF_HUB_OFFLINE forbids downloads: unset it, or take a copy on the \
                 disk with --from",
                short(&self.folder)
            )));
        }
        screen::warn(&format!("{name}: fetching {location}"));
        let (client, folder) = (&self.client, &*self.folder);
        let (pause, part) = (milliseconds(self.arguments.retry_pause), Part::open(folder, name)?);
        let mut transfer = Transfer { client, pause, folder, name, known, part };
        let authority = transfer.run(&location)?;
        let Transfer { known, part, .. } = transfer;
        let (length, sha256) = (bytes(part.length), part.checksum.hex());
        part.publish(&folder.join(name))?;
        // The other file must come from the same commit.
        self.record.revision = self.record.revision.take().or(known.commit);
        screen::say(&format!("{name}: {length}, SHA-256 {sha256}, checked against {authority}"));
        self.record.add(folder, name, sha256, authority)
    }
}

/// Hashes a file that is there.
fn check(arguments: &Arguments, folder: &Path, name: &str, record: &Record) -> Outcome {
    let path = folder.join(name);
    let shown = short(&path);
    let fetch = format!("run `cargo xtask download-weights {}`", arguments.model.name());
    let Some((right, authority)) = known(arguments, name, record).sha256 else {
        return Err(Failure::run(format!(
            "{shown} cannot be checked, because no checksum is known: {fetch}"
        )));
    };
    if !exists(&path)? {
        return Err(Failure::run(format!("{shown} does not exist: {fetch}")));
    }
    let found = checksum::of_file(&path).map_err(|error| read_failure(&path, &error))?;
    if found != right {
        return Err(Failure::run(format!(
            "{shown} is wrong: its SHA-256 is {found}, and {authority} is {right}: {fetch} --force"
        )));
    }
    screen::say(&format!("{name}: SHA-256 {found} matches {authority}"));
    Ok(())
}

/// What is known about a file before a server is asked.
fn known(arguments: &Arguments, name: &str, record: &Record) -> Known {
    let known = |size, sha256: &str, authority| Known {
        size,
        sha256: Some((sha256.into(), authority)),
        commit: None,
    };
    if let Some((size, sha256)) = arguments.model.pin(name) {
        known(Some(size), sha256, "the checksum pinned in this program")
    } else if let Some(sha256) = arguments.sha256.as_deref().filter(|_| name == WEIGHTS) {
        known(None, sha256, "the checksum given with --sha256")
    } else if let Some(file) = record.files.get(name) {
        known(Some(file.size), &file.sha256, "the checksum of the first download")
    } else {
        Known::default()
    }
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}

fn exists(path: &Path) -> Outcome<bool> {
    path.try_exists().map_err(|error| read_failure(path, &error))
}

/// `weights/MODEL` in the workspace, wherever the command is run.
fn weights_folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("weights").join(model)
}

/// A path relative to the current folder, if it is below it.
fn short(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    let below = path.strip_prefix(here).ok().filter(|below| *below != Path::new(""));
    below.unwrap_or(path).display().to_string()
}
