//! `cargo xtask download-weights`, run as a user runs it, against a server on this machine that
//! does what servers do: redirect, resume, break off, stall, refuse, and send the wrong bytes.

#![allow(clippy::unwrap_used)] // A test may stop where it stands.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const CONFIG: &[u8] = b"{\"model_type\": \"gpt2\"}\n";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const MODEL_ON_HUB: &str =
    "/distilbert/distilgpt2/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors";
const CONFIG_ON_HUB: &str = "/distilbert/distilgpt2/resolve/main/config.json";
const MODEL_ON_CDN: &str = "/cdn/model";

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(10);

// ---- The server ----------------------------------------------------------------------------

#[derive(Clone, Debug)]
struct Request {
    path: String,
    headers: HashMap<String, String>,
    /// How many requests for this path came before.
    nth: usize,
}

impl Request {
    fn range_start(&self) -> Option<usize> {
        let range = self.headers.get("range")?;
        let start = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        Some(start.parse().unwrap())
    }
}

/// What to send, and what goes wrong with it.
#[derive(Clone, Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Send only so many bytes of the body, then do this.
    after: Option<(usize, Then)>,
    chunked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Close,
    Stall,
    /// A byte now and then.
    Trickle,
}

impl Reply {
    fn new(status: u16, body: &[u8]) -> Self {
        Self { status, headers: Vec::new(), body: body.to_vec(), after: None, chunked: false }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    fn redirect(to: impl ToString) -> Self {
        Self::new(302, b"").with("Location", to)
    }

    fn cut_after(mut self, bytes: usize) -> Self {
        self.after = Some((bytes, Then::Close));
        self
    }

    fn stall_after(mut self, bytes: usize) -> Self {
        self.after = Some((bytes, Then::Stall));
        self
    }

    fn trickle_after(mut self, bytes: usize) -> Self {
        self.after = Some((bytes, Then::Trickle));
        self
    }

    fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The whole file or the part that the request asks for.
    fn ranged(request: &Request, file: &[u8]) -> Self {
        match request.range_start() {
            None => Self::new(200, file),
            Some(start) if start >= file.len() => {
                Self::new(416, b"").with("Content-Range", format!("bytes */{}", file.len()))
            }
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
                Self::new(206, &file[start..]).with("Content-Range", range)
            }
        }
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut body = self.body.clone();
        if self.chunked {
            head += "Transfer-Encoding: chunked\r\n\r\n";
            let size = format!("{:x}\r\n", body.len());
            body = [size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        } else {
            head += &format!("Content-Length: {}\r\n\r\n", body.len());
        }
        stream.write_all(head.as_bytes())?;
        let Some((bytes, then)) = self.after else {
            return stream.write_all(&body);
        };
        stream.write_all(&body[..bytes])?;
        if matches!(then, Then::Trickle) {
            for byte in &body[bytes..] {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(50));
            }
        }
        if matches!(then, Then::Stall) {
            // Until the client has had enough.
            stream.set_read_timeout(Some(PATIENCE))?;
            let _ = stream.read(&mut [0]);
        }
        Ok(())
    }
}

struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            Self { address: listener.local_addr().unwrap(), log: Arc::default(), stopped: Arc::default() };
        let (log, stopped) = (server.log.clone(), server.stopped.clone());
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    fn requests_for(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &(impl Fn(&Request) -> Reply + ?Sized)) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) if text.len() < 10_000 => text.push(byte[0]),
            _ => return,
        }
    }
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let request = {
        let mut log = log.lock().unwrap();
        let nth = log.iter().filter(|earlier| earlier.path == path).count();
        let request = Request { path, headers, nth };
        log.push(request.clone());
        request
    };
    // The client may be gone already: that is what some tests are about.
    let _ = answer(&request).send(&mut stream);
}

/// The bytes that stand for the weights: long enough for several reads.
fn model() -> Vec<u8> {
    (0..300_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What the hub does for distilgpt2: it states the checksum, and redirects to its store.
fn hub(request: &Request) -> Reply {
    match request.path.as_str() {
        MODEL_ON_HUB => stated(Reply::redirect(MODEL_ON_CDN), &model()),
        MODEL_ON_CDN => Reply::ranged(request, &model()),
        CONFIG_ON_HUB => Reply::new(200, CONFIG)
            .with("X-Repo-Commit", COMMIT)
            .with("ETag", "\"0123456789abcdef0123456789abcdef01234567\""),
        _ => Reply::new(404, b"Entry not found"),
    }
}

/// Adds the headers with which the hub describes a large file.
fn stated(reply: Reply, file: &[u8]) -> Reply {
    reply
        .with("X-Repo-Commit", COMMIT)
        .with("X-Linked-Size", file.len())
        .with("X-Linked-Etag", format!("\"{}\"", sha256(file)))
}

/// The hub, but with one address that behaves differently.
fn hub_except(path: &'static str, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| if request.path == path { answer(request) } else { hub(request) })
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

// ---- The client ----------------------------------------------------------------------------

/// A folder to download into, and the command that does it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, model: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        for name in ["HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.args(["download-weights", model, "--dir"]).arg(self.folder.path()).args([
            "--read-timeout",
            "5",
            "--retry-pause",
            "0.01",
        ]);
        command
    }

    fn fetch(&self, hub: &Server) -> Command {
        let mut command = self.command("distilgpt2");
        command.env("HF_ENDPOINT", hub.url(""));
        command
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn assert_complete(&self) {
        assert_eq!(fs::read(self.path("model.safetensors")).unwrap(), model());
        assert_eq!(fs::read(self.path("config.json")).unwrap(), CONFIG);
        assert_eq!(
            self.names(),
            [
                ".lock",
                "config.json",
                "config.json.sha256",
                "model.safetensors",
                "model.safetensors.sha256",
                "provenance.json"
            ]
        );
    }

    fn assert_no_model(&self) {
        assert!(!self.path("model.safetensors").exists());
        assert!(!self.path("model.safetensors.part").exists());
    }
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    told(&output)
}

fn fail(command: &mut Command, code: i32, words: &[&str]) -> String {
    let output = command.output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
    assert_eq!(told.matches("error: ").count(), 1, "{told}");
    told
}

fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// An address of this machine that nobody listens at: a port that programs are never given.
fn nobody() -> String {
    "http://127.0.0.1:1".into()
}

// ---- What goes right -----------------------------------------------------------------------

#[test]
fn a_download_is_checked_and_recorded() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let told = succeed(&mut place.fetch(&hub));
    place.assert_complete();
    assert!(told.contains("distilbert/distilgpt2 at main"), "{told}");
    assert!(told.contains(&format!("SHA-256 {}", sha256(&model()))));
    assert!(told.contains("checked against the checksum that the server states"));
    assert!(told.contains("no checksum is known, it was only seen to be whole JSON"));
    assert!(told.contains("distilgpt2 is ready in"));
    assert!(!told.contains('\x1b'), "plain text where there is no terminal");

    let record: Value = serde_json::from_slice(&fs::read(place.path("provenance.json")).unwrap()).unwrap();
    assert_eq!(record["repository"], "distilbert/distilgpt2");
    assert_eq!(record["revision"], COMMIT);
    assert_eq!(record["files"]["model.safetensors"]["size"], 300_000);
    let line = fs::read_to_string(place.path("model.safetensors.sha256")).unwrap();
    assert_eq!(line, format!("{}  model.safetensors\n", sha256(&model())));
}

#[test]
fn files_that_are_there_and_right_are_not_fetched_again() {
    let (place, hub) = (Place::new(), Server::start(hub));
    succeed(&mut place.fetch(&hub));
    let before = hub.requests().len();
    let told = succeed(&mut place.fetch(&hub));
    assert!(told.contains("is there, and was checked before"), "{told}");
    assert_eq!(hub.requests().len(), before);

    // A copy with another time is hashed, and is still right.
    fs::write(place.path("model.safetensors"), model()).unwrap();
    let told = succeed(&mut place.fetch(&hub));
    assert!(told.contains("matches the checksum of the first download"));
    assert_eq!(hub.requests().len(), before);
    succeed(place.fetch(&hub).env("HF_HUB_OFFLINE", "1"));

    succeed(place.fetch(&hub).arg("--force"));
    assert!(hub.requests().len() > before, "--force fetches");
    place.assert_complete();
}

#[test]
fn check_hashes_again_without_the_network() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let check = || {
        let mut command = place.command("distilgpt2");
        command.arg("--check").env("HF_ENDPOINT", nobody());
        command
    };
    fail(&mut check(), 1, &["no checksum is known", "run `cargo xtask"]);
    succeed(&mut place.fetch(&hub));
    assert!(succeed(&mut check()).contains(&sha256(&model())));

    let mut wrong = model();
    wrong[123_456] ^= 1;
    fs::write(place.path("model.safetensors"), &wrong).unwrap();
    let words = [&*sha256(&wrong), &*sha256(&model()), "is wrong", "--force"];
    fail(&mut check(), 1, &words);
    fs::remove_file(place.path("model.safetensors")).unwrap();
    fail(&mut check(), 1, &["model.safetensors is not there"]);
}

#[test]
fn a_file_that_was_damaged_is_fetched_again() {
    let (place, hub) = (Place::new(), Server::start(hub));
    succeed(&mut place.fetch(&hub));
    fs::write(place.path("model.safetensors"), "damaged").unwrap();
    let told = succeed(&mut place.fetch(&hub));
    assert!(told.contains("is damaged, fetching it again"), "{told}");
    place.assert_complete();
}

#[test]
fn a_file_of_somebody_else_is_replaced_only_by_force() {
    let (place, hub) = (Place::new(), Server::start(hub));
    fs::write(place.path("model.safetensors"), "mine").unwrap();
    let words = ["nothing says what it should be", "--dir", "--force"];
    fail(&mut place.fetch(&hub), 2, &words);
    assert_eq!(fs::read(place.path("model.safetensors")).unwrap(), b"mine");
    succeed(place.fetch(&hub).arg("--force"));
    place.assert_complete();

    let place = Place::new();
    fs::write(place.path("config.json"), "mine").unwrap();
    let words = ["0daed7749b4f02b8", "pinned in this program", &sha256(b"mine")];
    fail(&mut place.command("gpt2"), 2, &words);
    assert_eq!(fs::read(place.path("config.json")).unwrap(), b"mine");
}

#[test]
fn a_key_goes_to_the_hub_and_nowhere_else() {
    let store = Server::start(|request| Reply::ranged(request, &model()));
    let elsewhere = store.url("/signed?key=secret-query");
    let hub = hub_except(MODEL_ON_HUB, move |_| stated(Reply::redirect(&elsewhere), &model()));
    let place = Place::new();
    let told = succeed(place.fetch(&hub).env("HF_TOKEN", "hf_secret"));
    place.assert_complete();
    for request in hub.requests() {
        assert_eq!(request.headers["authorization"], "Bearer hf_secret");
    }
    for request in store.requests() {
        assert!(!request.headers.contains_key("authorization"));
    }
    assert_eq!(store.requests().len(), 1);
    assert!(!told.contains("secret"), "{told}");
}

// ---- What breaks and is mended -------------------------------------------------------------

#[test]
fn a_body_that_is_cut_is_resumed_where_it_was() {
    let hub = hub_except(MODEL_ON_CDN, |request| match request.nth {
        0 => Reply::ranged(request, &model()).cut_after(100_000),
        1 => Reply::ranged(request, &model()).cut_after(50_000),
        _ => Reply::ranged(request, &model()),
    });
    let place = Place::new();
    let told = succeed(&mut place.fetch(&hub));
    place.assert_complete();
    let starts: Vec<_> = hub.requests_for(MODEL_ON_CDN).iter().map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(100_000), Some(150_000)]);
    assert!(told.contains("the connection broke"), "{told}");
    assert!(told.contains("going on after the first 150.0 kB"), "{told}");
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let hub = hub_except(MODEL_ON_CDN, |request| match request.nth {
        0 => Reply::new(200, &model()).cut_after(100_000),
        _ => Reply::new(200, &model()),
    });
    let place = Place::new();
    let told = succeed(&mut place.fetch(&hub));
    place.assert_complete();
    assert!(told.contains("cannot resume, starting again"), "{told}");
}

#[test]
fn a_body_that_stalls_is_asked_for_again() {
    let hub = hub_except(MODEL_ON_CDN, |request| match request.nth {
        0 => Reply::ranged(request, &model()).stall_after(100_000),
        _ => Reply::ranged(request, &model()),
    });
    let place = Place::new();
    let told = succeed(place.fetch(&hub).args(["--read-timeout", "0.4"]));
    place.assert_complete();
    assert!(told.contains("nothing has come for 400ms"), "{told}");
}

#[test]
fn a_body_that_always_stalls_is_given_up_and_its_part_is_kept() {
    let hub = hub_except(MODEL_ON_CDN, |request| {
        let reply = Reply::ranged(request, &model());
        let sent = if request.nth == 0 { 100_000 } else { 0 };
        reply.stall_after(sent)
    });
    let place = Place::new();
    fail(
        place.fetch(&hub).args(["--read-timeout", "0.2"]),
        1,
        &["after 5 attempts", "100.0 kB", "kept", "run the same command"],
    );
    let part = fs::read(place.path("model.safetensors.part")).unwrap();
    assert_eq!(part, model()[..100_000]);
    assert!(!place.path("model.safetensors").exists());
}

#[test]
fn a_server_that_sends_a_byte_now_and_then_is_given_up() {
    let hub = hub_except(MODEL_ON_CDN, |request| {
        let reply = Reply::ranged(request, &model());
        reply.trickle_after(if request.nth == 0 { 100_000 } else { 0 })
    });
    let place = Place::new();
    let told = fail(place.fetch(&hub).args(["--read-timeout", "0.2"]), 1, &["after 5 attempts", "kept"]);
    assert!(told.contains(" bytes have come in 0."), "{told}");
    assert!(fs::metadata(place.path("model.safetensors.part")).unwrap().len() > 100_000);
}

/// A command that must end soon: a pipe would be waited at for ever.
#[cfg(unix)]
fn fail_soon(command: &mut Command, code: i32, words: &[&str]) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs");
        }
        thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", told(&output));
    words.iter().for_each(|word| assert!(told(&output).contains(word), "{}", told(&output)));
}

#[cfg(unix)]
#[test]
fn what_is_not_a_regular_file_is_neither_waited_at_nor_written_through() {
    let hub = hub_except("/nowhere", |_| Reply::new(404, b""));
    let mkfifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    for name in ["model.safetensors.part", ".lock"] {
        let place = Place::new();
        mkfifo(&place.path(name));
        fail_soon(&mut place.fetch(&hub), 1, &[name, "is not a regular file"]);
    }
    let place = Place::new();
    fs::write(place.path("thesis"), "years of work").unwrap();
    std::os::unix::fs::symlink(place.path("thesis"), place.path("model.safetensors.part")).unwrap();
    fail_soon(&mut place.fetch(&hub), 1, &["model.safetensors.part is not a regular file"]);
    assert_eq!(fs::read(place.path("thesis")).unwrap(), b"years of work");
    // A copy that is a pipe is no copy.
    let copies = tempfile::tempdir().unwrap();
    mkfifo(&copies.path().join("model.safetensors"));
    fs::write(copies.path().join("config.json"), CONFIG).unwrap();
    let place = Place::new();
    fail_soon(
        place.command("distilgpt2").arg("--from").arg(copies.path()),
        2,
        &["model.safetensors is not there"],
    );
}

#[cfg(unix)]
#[test]
fn a_record_that_is_a_pipe_or_endless_counts_as_none() {
    let hub = hub_except("/nowhere", |_| Reply::new(404, b""));
    let place = Place::new();
    let record = place.path("provenance.json");
    assert!(Command::new("mkfifo").arg(&record).status().unwrap().success());
    succeed(&mut place.fetch(&hub));
    place.assert_complete();
    let place = Place::new();
    fs::File::create(place.path("provenance.json")).unwrap().set_len(2 << 30).unwrap();
    succeed(&mut place.fetch(&hub));
    place.assert_complete();
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let place = Place::new();
    let mut command = place.command("distilgpt2");
    command.env("HF_ENDPOINT", silent).args(["--read-timeout", "0.2"]);
    fail(&mut command, 1, &["has sent no answer for 200ms", "5 attempts"]);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_download_that_is_killed_goes_on_with_its_part() {
    let slow = hub_except(MODEL_ON_CDN, |request| Reply::ranged(request, &model()).stall_after(200_000));
    let place = Place::new();
    let mut child = place.fetch(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let part = place.path("model.safetensors.part");
    let length = || fs::metadata(&part).map_or(0, |metadata| metadata.len());
    let began = Instant::now();
    while length() < 200_000 && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(length(), 200_000);
    child.kill().unwrap(); // SIGKILL: it can tidy nothing.
    child.wait().unwrap();
    assert!(!place.path("model.safetensors").exists());

    let hub = Server::start(hub);
    let told = succeed(&mut place.fetch(&hub));
    place.assert_complete();
    assert!(told.contains("going on after the first 200.0 kB"), "{told}");
    let requests = hub.requests_for(MODEL_ON_CDN);
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].range_start(), Some(200_000));
}

#[test]
fn a_part_of_another_version_is_dropped() {
    let (place, hub) = (Place::new(), Server::start(hub));
    fs::write(place.path("model.safetensors.part"), vec![7; 1000]).unwrap();
    let told = succeed(&mut place.fetch(&hub));
    place.assert_complete();
    assert!(told.contains("is of no use, starting again"), "{told}");
}

#[test]
fn a_part_that_was_whole_already_is_only_checked() {
    let (place, hub) = (Place::new(), Server::start(hub));
    fs::write(place.path("model.safetensors.part"), model()).unwrap();
    succeed(&mut place.fetch(&hub));
    place.assert_complete();
}

#[test]
fn a_part_that_is_too_long_is_dropped() {
    let (place, hub) = (Place::new(), Server::start(hub));
    fs::write(place.path("model.safetensors.part"), vec![7; 400_000]).unwrap();
    succeed(&mut place.fetch(&hub));
    place.assert_complete();
    assert_eq!(hub.requests_for(MODEL_ON_CDN).len(), 2, "416, then all");
}

#[test]
fn a_server_with_a_fault_is_asked_again() {
    let hub = hub_except(CONFIG_ON_HUB, |request| match request.nth {
        0 => Reply::new(500, b""),
        1 => Reply::new(503, b"").with("Retry-After", 0),
        2 => Reply::new(200, CONFIG).cut_after(0),
        _ => hub(request),
    });
    let place = Place::new();
    let told = succeed(&mut place.fetch(&hub));
    place.assert_complete();
    assert!(told.contains("HTTP 500"), "{told}");

    let broken = hub_except(CONFIG_ON_HUB, |_| Reply::new(502, b""));
    let place = Place::new();
    fail(&mut place.fetch(&broken), 1, &["HTTP 502", "5 attempts"]);
    assert_eq!(broken.requests().len(), 5);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_wait_that_the_server_asks_for_is_kept_unless_it_is_long() {
    let hub = hub_except(CONFIG_ON_HUB, |request| match request.nth {
        0 => Reply::new(429, b"").with("Retry-After", 1),
        _ => hub(request),
    });
    let place = Place::new();
    let began = Instant::now();
    let told = succeed(&mut place.fetch(&hub));
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(told.contains("HTTP 429"), "{told}");
    place.assert_complete();

    let busy = hub_except(CONFIG_ON_HUB, |_| Reply::new(429, b"").with("Retry-After", 3600));
    let place = Place::new();
    let words = ["HTTP 429", "asks for a wait of 3600 s", "after that"];
    fail(&mut place.fetch(&busy), 1, &words);
    assert_eq!(busy.requests().len(), 1);
}

// ---- What is wrong and is refused ----------------------------------------------------------

#[test]
fn wrong_bytes_are_refused_and_deleted() {
    let mut wrong = model();
    wrong[200_000] ^= 1;
    let words = [sha256(&wrong), sha256(&model()), "were deleted".into()];
    let hub = hub_except(MODEL_ON_CDN, move |request| Reply::ranged(request, &wrong));
    let place = Place::new();
    fail(&mut place.fetch(&hub), 1, &words.each_ref().map(String::as_str));
    place.assert_no_model();
}

#[test]
fn wrong_bytes_of_a_pinned_model_are_refused_whatever_the_server_states() {
    let wrong = vec![b' '; 665];
    let stated_wrong = wrong.clone();
    let hub = Server::start(move |request| stated(Reply::ranged(request, &stated_wrong), &stated_wrong));
    let place = Place::new();
    let mut command = place.command("gpt2");
    command.env("HF_ENDPOINT", hub.url(""));
    let pin = "0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4";
    let words = [pin, &*sha256(&wrong), "pinned in this program is"];
    fail(&mut command, 1, &words);
    assert_eq!(place.names(), [".lock"]);
    assert_eq!(
        hub.requests()[0].path,
        "/openai-community/gpt2/resolve/607a30d783dfa663caf39e06633721c8d4cfcd7e/config.json"
    );
}

#[test]
fn a_file_of_another_length_is_refused_before_it_is_read() {
    let page = b"<html>Please log in to this network</html>";
    let portal = Server::start(|_| Reply::new(200, page).with("Content-Type", "text/html"));
    let place = Place::new();
    let mut command = place.command("gpt2");
    command.env("HF_ENDPOINT", portal.url(""));
    fail(&mut command, 1, &["42 bytes (text/html)", "expected 665"]);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_body_that_is_too_long_is_refused_and_deleted() {
    let hub = hub_except(MODEL_ON_CDN, |_| Reply::new(200, &[model(), vec![1]].concat()).chunked());
    let place = Place::new();
    let words = ["longer than the expected 300000 bytes", "deleted"];
    fail(&mut place.fetch(&hub), 1, &words);
    place.assert_no_model();
}

#[test]
fn a_body_without_a_length_is_taken_if_it_is_right() {
    let hub = hub_except(MODEL_ON_CDN, |_| Reply::new(200, &model()).chunked());
    let place = Place::new();
    succeed(&mut place.fetch(&hub));
    place.assert_complete();
}

#[test]
fn another_range_than_the_one_asked_for_is_refused() {
    let hub = hub_except(MODEL_ON_CDN, |_| {
        Reply::new(206, &model()[5..]).with("Content-Range", "bytes 5-299999/300000")
    });
    let place = Place::new();
    fs::write(place.path("model.safetensors.part"), &model()[..1000]).unwrap();
    let words = ["another part of the file", ".part"];
    fail(&mut place.fetch(&hub), 1, &words);
    assert!(!place.path("model.safetensors").exists());
}

#[test]
fn a_model_without_any_checksum_is_refused() {
    let hub = hub_except(MODEL_ON_HUB, |request| Reply::ranged(request, &model()));
    let place = Place::new();
    fail(&mut place.fetch(&hub), 1, &["no checksum is known", "--sha256"]);
    place.assert_no_model();
    let right = sha256(&model()).to_uppercase();
    succeed(place.fetch(&hub).args(["--sha256", &right]));
    place.assert_complete();
}

#[test]
fn a_configuration_that_is_no_json_is_refused() {
    let hub = hub_except(CONFIG_ON_HUB, |_| Reply::new(200, b"{\"half\": "));
    let place = Place::new();
    fail(&mut place.fetch(&hub), 1, &["config.json is not whole JSON"]);
    assert_eq!(place.names(), [".lock"]);

    let long = hub_except(CONFIG_ON_HUB, |_| Reply::new(200, &vec![b' '; 2_000_000]));
    let words = ["2000000 bytes", "too many for a configuration"];
    fail(&mut place.fetch(&long), 1, &words);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_refusal_of_the_server_says_what_to_do() {
    for (status, token, words) in [
        (401, None, ["HTTP 401", "set HF_TOKEN"]),
        (403, Some("hf_x"), ["HTTP 403", "HF_TOKEN is not accepted"]),
        (404, None, ["HTTP 404", "does not exist"]),
        (418, None, ["HTTP 418", "check HF_ENDPOINT"]),
    ] {
        let hub = Server::start(move |_| Reply::new(status, b""));
        let place = Place::new();
        let mut command = place.fetch(&hub);
        if let Some(token) = token {
            command.env("HF_TOKEN", token);
        }
        let told = fail(&mut command, 1, &words);
        assert!(told.contains(CONFIG_ON_HUB), "{told}");
        assert_eq!(hub.requests().len(), 1, "not worth another try");
        assert_eq!(place.names(), [".lock"]);
    }
}

#[test]
fn a_redirect_loop_ends() {
    let hub = hub_except(CONFIG_ON_HUB, |_| Reply::redirect(CONFIG_ON_HUB));
    let place = Place::new();
    fail(&mut place.fetch(&hub), 1, &["redirects, a loop"]);
    assert!(hub.requests().len() <= 11);

    let hub = hub_except(CONFIG_ON_HUB, |_| Reply::redirect("ftp://127.0.0.1/x"));
    fail(&mut place.fetch(&hub), 1, &["redirects to no address"]);
}

#[test]
fn no_network_is_told_in_words() {
    let place = Place::new();
    let to = |address: &str| {
        let mut command = place.command("distilgpt2");
        command.env("HF_ENDPOINT", address);
        command
    };
    let advice = ["check the network", "--from"];
    fail(&mut to(&nobody()), 1, &["refuses the connection"]);
    fail(&mut to(&nobody()), 1, &advice);
    // No name server is asked for a name with a part this long.
    let long = format!("http://{}.invalid", "x".repeat(64));
    fail(&mut to(&long), 1, &["cannot be reached", "there is no network"]);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_server_that_speaks_no_tls_is_told_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Plain\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while stream.read(&mut [0; 1000]).is_ok_and(|length| length > 0) {}
    });
    let place = Place::new();
    let mut command = place.command("distilgpt2");
    command.env("HF_ENDPOINT", address);
    fail(&mut command, 1, &["no secure connection to 127.0.0.1"]);
    server.join().unwrap();
}

#[test]
fn a_proxy_is_used_and_named_and_no_proxy_is_obeyed() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let mut command = place.fetch(&hub);
    let proxy = nobody();
    command.env("HTTPS_PROXY", proxy.replace("//", "//user:password@"));
    let told = fail(&mut command, 1, &["through the proxy 127.0.0.1"]);
    assert!(!told.contains("password"), "{told}");
    assert_eq!(hub.requests().len(), 0);
    succeed(command.env("NO_PROXY", "127.0.0.1"));
    place.assert_complete();
}

#[test]
fn offline_means_no_request() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let mut command = place.fetch(&hub);
    command.env("HF_HUB_OFFLINE", "1");
    fail(&mut command, 1, &["HF_HUB_OFFLINE forbids", "--from"]);
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn input_that_makes_no_sense_is_refused_with_code_2() {
    let place = Place::new();
    let gpt2 = || place.command("gpt2");
    fail(&mut place.command("gpt5"), 2, &["gpt5", "gpt2-medium"]);
    fail(gpt2().env("HF_ENDPOINT", "huggingface.co"), 2, &["https://"]);
    fail(gpt2().args(["--from", "ftp://x/y"]), 2, &["ftp://x/y", "https://"]);
    fail(gpt2().args(["--from", "/no/such"]), 2, &["/no/such", "give a file"]);
    fail(gpt2().args(["--sha256", "12"]), 2, &["64 hexadecimal digits"]);
    let other = "0".repeat(64);
    fail(gpt2().args(["--sha256", &other]), 2, &["248dfc3911869ec4", "pinned"]);
    let told = fail(gpt2().env("HF_TOKEN", "hf_x\ny"), 2, &["HF_TOKEN"]);
    assert!(!told.contains("hf_x"), "{told}");
    assert!(place.names().is_empty(), "nothing is touched");
}

// ---- Other sources -------------------------------------------------------------------------

/// A folder with the two files.
fn copy_on_disk() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.safetensors"), model()).unwrap();
    fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    folder
}

fn from(place: &Place, source: &Path) -> Command {
    let mut command = place.command("distilgpt2");
    command.arg("--from").arg(source);
    command
}

#[test]
fn a_copy_on_the_disk_is_checked_and_taken() {
    let copy = copy_on_disk();
    let right = sha256(&model());
    for source in [copy.path().to_owned(), copy.path().join("model.safetensors")] {
        let place = Place::new();
        let mut command = from(&place, &source);
        succeed(command.args(["--sha256", &right]).env("HF_HUB_OFFLINE", "1"));
        place.assert_complete();
    }

    let place = Place::new();
    fail(&mut from(&place, copy.path()), 1, &["no checksum is known"]);
    let wrong = "1".repeat(64);
    let mut command = from(&place, copy.path());
    fail(command.args(["--sha256", &wrong]), 1, &[&wrong, &right]);
    place.assert_no_model();

    fs::remove_file(copy.path().join("config.json")).unwrap();
    fail(&mut from(&place, copy.path()), 2, &["config.json is not there"]);
}

#[test]
fn a_copy_that_is_not_the_pinned_model_is_refused() {
    let (copy, place) = (copy_on_disk(), Place::new());
    let mut command = place.command("gpt2");
    command.arg("--from").arg(copy.path());
    fail(&mut command, 1, &["config.json has 23 bytes", "expected 665"]);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_mirror_is_checked_and_gets_no_key() {
    let mirror = Server::start(|request| match request.path.as_str() {
        "/mirror/model.safetensors" => Reply::ranged(request, &model()),
        "/mirror/config.json" => Reply::new(200, CONFIG),
        _ => Reply::new(404, b""),
    });
    for address in ["/mirror/", "/mirror/model.safetensors"] {
        let place = Place::new();
        let mut command = from(&place, Path::new(&mirror.url(address)));
        command.env("HF_TOKEN", "hf_secret");
        succeed(command.args(["--sha256", &sha256(&model())]));
        place.assert_complete();
    }
    for request in mirror.requests() {
        assert!(!request.headers.contains_key("authorization"));
    }
}

// ---- The disk ------------------------------------------------------------------------------

#[test]
fn two_downloads_do_not_meet() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let lock = File::create(place.path(".lock")).unwrap();
    lock.lock().unwrap();
    fail(&mut place.fetch(&hub), 1, &["another `cargo xtask`", "wait"]);
    assert_eq!(hub.requests().len(), 0);
    drop(lock);
    succeed(&mut place.fetch(&hub));
}

#[test]
fn a_file_that_does_not_fit_on_the_disk_is_not_begun() {
    // The store does not say a length, so that of the hub counts.
    let hub = Server::start(|request| match request.path.as_str() {
        MODEL_ON_CDN => Reply::new(200, &model()).chunked(),
        MODEL_ON_HUB => Reply::redirect(MODEL_ON_CDN)
            .with("X-Linked-Size", 10_u64.pow(18))
            .with("X-Linked-Etag", sha256(&model())),
        _ => hub(request),
    });
    let place = Place::new();
    let words = ["not enough disk space", "1000000.0 TB are needed", "make room"];
    fail(&mut place.fetch(&hub), 1, &words);
    place.assert_no_model();
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["download-weights", "--dir"]);
    command.arg(place.path("file").join("weights"));
    fail(&mut command, 1, &["cannot write", "choose another folder"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_may_not_be_written_is_told() {
    // Not even the administrator can make a folder there.
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["download-weights", "--dir", "/sys/weights"]);
    let words = ["cannot write /sys/weights", "a folder that you may write to"];
    fail(&mut command, 1, &words);
}
