//! `download-weights`: GPT-2's weights from the Hugging Face hub, into `weights/MODEL`.
//!
//! What is fetched is a commit and checksums that are pinned here, for gpt2. For the other sizes
//! it is the newest commit, and the checksum is the one that the hub states. The record beside
//! the files says which. This file decides what there is to do; the folder of the same name has
//! the manifest, the sources, the requests, the transfer and the record.

mod http;
mod manifest;
mod record;
mod source;
mod transfer;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::http::Client;
use self::manifest::{Model, ModelName, WEIGHTS, WeightsFile};
use self::record::{Record, read_failure};
use self::source::{Location, Source};
use self::transfer::{Authority, Expected, Transfer};
use crate::checksum;
use crate::disk::{FolderLock, bytes};
use crate::failure::{Failure, Outcome};
use crate::screen;

/// The options of `download-weights`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Environment: HF_ENDPOINT (a mirror of the hub), HF_TOKEN (a key, sent to the hub only), \
HF_HUB_OFFLINE=1 (no network), HTTPS_PROXY, ALL_PROXY and NO_PROXY.

A download that broke off goes on where it was when the same command is run again.")]
pub struct Arguments {
    /// The model to fetch
    #[arg(value_enum, default_value = "gpt2")]
    model: ModelName,
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
    /// Give up waiting for data after this many seconds
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        default_value = "30",
        value_parser = seconds,
        overrides_with = "read_timeout"
    )]
    read_timeout: Duration,
    /// The first pause between two attempts, in seconds
    #[arg(long, hide = true, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    retry_pause: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.001..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "give a number of seconds from 0.001 to 3600".into())
}

/// Fetches what is missing, or checks what is there.
pub fn run(arguments: &Arguments) -> Outcome {
    let model = arguments.model.model();
    require_no_other_pin(&model, arguments.sha256.as_deref())?;
    let folder = arguments.dir.clone().unwrap_or_else(|| weights_folder(model.name));
    if arguments.check {
        return check(&model, &folder, arguments.sha256.as_deref());
    }
    let source = Source::choose(arguments.from.as_deref(), &model)?;
    let _lock = FolderLock::take(&folder)?;
    let mut job = Job {
        arguments,
        client: Client::new(arguments.read_timeout),
        record: if arguments.force { Record::new(&model) } else { Record::load(&folder, &model) },
        model,
        folder,
        source,
    };
    for file in &model.files {
        job.provide(file)?;
    }
    screen::say(&format!("{} is ready in {}", model.name, short(&job.folder)));
    Ok(())
}

/// One run of the command.
struct Job<'run> {
    arguments: &'run Arguments,
    client: Client,
    model: Model,
    folder: PathBuf,
    source: Source,
    record: Record,
}

impl Job<'_> {
    /// Sees to it that one file is there and right.
    fn provide(&mut self, file: &WeightsFile) -> Outcome {
        let expected = expected(file, self.arguments.sha256.as_deref(), &self.record);
        let path = self.folder.join(file.name);
        if !self.arguments.force {
            match look(&path, file, &expected, &self.record)? {
                Found::Nothing => {}
                Found::Checked => {
                    screen::say(&format!("{}: is there, and was checked before", file.name));
                    return Ok(());
                }
                Found::Right(sha256, authority) => {
                    self.record.add(&self.folder, file.name, sha256, authority.words())?;
                    screen::say(&format!("{}: is there, and matches {}", file.name, authority.words()));
                    return Ok(());
                }
                Found::Damaged => screen::warn(&format!("{}: is damaged, fetching it again", file.name)),
                Found::Foreign(sha256) => {
                    return Err(self.foreign(&path, &sha256, &expected));
                }
            }
        }
        self.bring(file, expected)
    }

    fn bring(&mut self, file: &WeightsFile, expected: Expected) -> Outcome {
        let revision = self.record.revision.as_deref().unwrap_or("main");
        let location = self.source.locate(file, revision);
        if matches!(location, Location::Url(_)) && source::offline() {
            return Err(Failure::run(format!(
                "{} is not in {}, and HF_HUB_OFFLINE forbids to fetch it: unset that, or take a \
                 copy on the disk with --from",
                file.name,
                short(&self.folder)
            )));
        }
        screen::warn(&format!(
            "{}: fetching {} at {revision} from {}",
            file.name,
            self.model.repository,
            self.source.describe()
        ));
        let transfer = Transfer {
            client: &self.client,
            token: self.source.token(),
            pause: self.arguments.retry_pause,
            name: file.name,
            folder: &self.folder,
        };
        let arrived = transfer.bring(&location, expected)?;
        // From here on every file is of the commit that the first one came from.
        self.record.revision = self.record.revision.take().or(arrived.commit);
        let words = arrived.authority.words();
        screen::say(&format!(
            "{}: {}, SHA-256 {}, checked against {words}",
            file.name,
            bytes(arrived.size),
            arrived.sha256
        ));
        self.record.add(&self.folder, file.name, arrived.sha256, words)
    }

    fn foreign(&self, path: &Path, sha256: &str, expected: &Expected) -> Failure {
        let reason = match &expected.sha256 {
            Some((right, authority)) => format!(
                "is not the one of {}: its SHA-256 is {sha256}, and {} is {right}",
                self.model.repository,
                authority.words()
            ),
            None => "was not put there by this command, and nothing says what it should be".into(),
        };
        Failure::input(format!(
            "{} {reason}: move it away, choose another folder with --dir, or replace it with \
             --force",
            short(path)
        ))
    }
}

/// Hashes the files that are there.
fn check(model: &Model, folder: &Path, sha256: Option<&str>) -> Outcome {
    let record = Record::load(folder, model);
    let fetch = format!("run `cargo xtask download-weights {}`", model.name);
    for file in &model.files {
        let path = folder.join(file.name);
        let Some((right, authority)) = expected(file, sha256, &record).sha256 else {
            return Err(Failure::run(format!(
                "{} cannot be checked, for no checksum is known: {fetch}",
                short(&path)
            )));
        };
        if !exists(&path)? {
            let path = short(&path);
            return Err(Failure::run(format!("{path} is not there: {fetch}")));
        }
        let found = checksum::of_file(&path).map_err(|error| read_failure(&path, &error))?;
        let words = authority.words();
        if found != right {
            return Err(Failure::run(format!(
                "{} is wrong: its SHA-256 is {found}, and {words} is {right}: {fetch} --force",
                short(&path)
            )));
        }
        screen::say(&format!("{}: SHA-256 {found} matches {words}", file.name));
    }
    Ok(())
}

/// What is in the place of a file.
enum Found {
    Nothing,
    /// The file that was checked before, to all appearance.
    Checked,
    /// A file with this checksum, which is the right one.
    Right(String, Authority),
    /// A file of an earlier download that has changed since.
    Damaged,
    /// Something else, with this checksum.
    Foreign(String),
}

fn look(path: &Path, file: &WeightsFile, expected: &Expected, record: &Record) -> Outcome<Found> {
    if !exists(path)? {
        return Ok(Found::Nothing);
    }
    let recorded = record.files.get(file.name);
    let right = expected.sha256.as_ref();
    if let (Some(recorded), Some((right, _))) = (recorded, right)
        && recorded.sha256 == *right
        && recorded.looks_unchanged(path)
    {
        return Ok(Found::Checked);
    }
    let found = checksum::of_file(path).map_err(|error| read_failure(path, &error))?;
    Ok(match right {
        Some((right, authority)) if *right == found => Found::Right(found, *authority),
        Some((right, _)) if recorded.is_some_and(|recorded| recorded.sha256 == *right) => Found::Damaged,
        _ => Found::Foreign(found),
    })
}

/// What is known of a file before anybody is asked.
fn expected(file: &WeightsFile, sha256: Option<&str>, record: &Record) -> Expected {
    if let Some(pin) = file.pin {
        return Expected { size: Some(pin.size), sha256: Some((pin.sha256.into(), Authority::Pinned)) };
    }
    if let Some(sha256) = sha256.filter(|_| file.name == WEIGHTS) {
        return Expected { size: None, sha256: Some((sha256.into(), Authority::User)) };
    }
    record.files.get(file.name).map_or_else(Expected::default, |recorded| Expected {
        size: Some(recorded.size),
        sha256: Some((recorded.sha256.clone(), Authority::Record)),
    })
}

/// A pin is not for the command line to change.
fn require_no_other_pin(model: &Model, sha256: Option<&str>) -> Outcome {
    let weights = model.files.iter().find(|file| file.name == WEIGHTS);
    let pin = weights.and_then(|file| file.pin);
    match (pin, sha256) {
        (Some(pin), Some(sha256)) if pin.sha256 != sha256 => Err(Failure::input(format!(
            "{} is pinned to the SHA-256 {}, and --sha256 cannot change that: leave it out",
            model.name, pin.sha256
        ))),
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> Outcome<bool> {
    path.try_exists().map_err(|error| read_failure(path, &error))
}

/// `weights/MODEL` in the workspace, wherever the command is run.
fn weights_folder(model: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).join("weights").join(model)
}

/// A path as it is seen from the current folder.
fn short(path: &Path) -> String {
    let here = env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    match below {
        Some(below) if !below.as_os_str().is_empty() => below.display().to_string(),
        _ => path.display().to_string(),
    }
}
