//! The command that computes what the page shows, and the files that this very command writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::ask::{Ask, Edit, Refused};
use crate::queue::Turn;

/// How often it is looked whether the command is done.
const INTERVAL: Duration = Duration::from_millis(10);

/// A form of file.
#[derive(Clone, Copy)]
pub enum Form {
    Png,
    Svg,
    Csv,
    Json,
    Html,
}

impl Form {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "png" => Self::Png,
            "svg" => Self::Svg,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "html" => Self::Html,
            _ => return None,
        })
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Svg => "image/svg+xml",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
            // Not shown in the browser, only saved: a page would have the rights of this one.
            Self::Html => "application/octet-stream",
        }
    }
}

/// Runs the program itself.
pub struct Exporter {
    /// Where it is.
    pub program: PathBuf,
    /// The arguments that name the model.
    pub model: Vec<String>,
}

impl Exporter {
    /// The arguments of the sweep that the page shows.
    pub fn arguments(&self, ask: &Ask) -> Vec<String> {
        let mut arguments = vec!["sweep".to_owned()];
        let mut add = |flag: &str, values: &[&str]| {
            arguments.push(flag.to_owned());
            arguments.extend(values.iter().map(|value| (*value).to_owned()));
        };
        add("--clean", &[&ask.clean]);
        add("--corrupted", &[&ask.corrupted]);
        add("--logit-diff", &[&ask.a, &ask.b]);
        add("--site", &[&ask.site]);
        for (flag, value, default) in [
            ("--metric", &ask.metric, "logit_diff"),
            ("--as", &ask.scale, "value"),
            ("--direction", &ask.direction, "denoising"),
        ] {
            if value != default {
                add(flag, &[value]);
            }
        }
        if !ask.given.is_empty() {
            let given: Vec<String> = ask.given.iter().map(Edit::typed).collect();
            add("--given", &[&given.join(",")]);
        }
        arguments.extend(self.model.iter().cloned());
        arguments
    }

    /// The same as it is typed in a POSIX shell.
    pub fn typed(&self, ask: &Ask) -> String {
        let plain = |c: char| c.is_alphanumeric() || "-_./,:=@".contains(c);
        let quoted = |argument: String| match argument.chars().all(plain) && !argument.is_empty() {
            true => argument,
            false => format!("'{}'", argument.replace('\'', r"'\''")),
        };
        let arguments = self.arguments(ask).into_iter().map(quoted);
        ["patch-cli".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
    }

    /// What the command writes in this form; none if it was stopped.
    pub fn export(&self, ask: &Ask, form: Form, turn: &Turn<'_>) -> Result<Option<Vec<u8>>, Refused> {
        let failed = |error: io::Error| Refused::from(format!("the export failed: {error}"));
        let folder = Folder::new().map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(self.arguments(ask)).current_dir(&folder.0).stdin(Stdio::null());
        let file = match form {
            Form::Png => "picture.png",
            Form::Svg => "picture.svg",
            Form::Csv => "numbers.csv",
            Form::Json => "numbers.json",
            Form::Html => "page.html",
        };
        match form {
            Form::Png | Form::Svg => command.args(["--out", file]),
            Form::Csv => command.args(["--csv", file]),
            Form::Json => command.arg("--json"),
            Form::Html => command.args(["--html", file]),
        };
        let out = |name: &str| fs::File::create(folder.0.join(name));
        let stdout = if matches!(form, Form::Json) { file } else { "stdout" };
        command.stdout(out(stdout).map_err(failed)?).stderr(out("stderr").map_err(failed)?);
        let mut child = command.spawn().map_err(failed)?;
        let Some(status) = wait(&mut child, turn).map_err(failed)? else { return Ok(None) };
        if !status {
            let reason = fs::read_to_string(folder.0.join("stderr")).unwrap_or_default();
            return Err(Refused::from(reason.trim().trim_start_matches("error: ").to_owned()));
        }
        fs::read(folder.0.join(file)).map(Some).map_err(failed)
    }
}

/// Whether it succeeded; none if it was stopped.
fn wait(child: &mut Child, turn: &Turn<'_>) -> io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if turn.stop.load(Ordering::Relaxed) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(INTERVAL);
    }
}

/// A folder of our own, removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!(
            "patch-cli-explore-{}-{}-{:016x}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed),
            u64::from_ne_bytes(random)
        );
        let path = std::env::temp_dir().join(name);
        create(&path)?;
        Ok(Self(path))
    }
}

/// Fails if it is there; nobody else may look into it.
fn create(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the system's folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
