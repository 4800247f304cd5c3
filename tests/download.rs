//! `cargo xtask download-weights` against a server on this machine.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::hub::{
    COMMIT, CONFIG, CONFIG_ON_HUB, MODEL_ON_CDN, MODEL_ON_HUB, Reply, Request, Server, Then, hub, model,
};
use crate::{PATIENCE, fail, names_in, sha256, succeed, xtask};

const PINNED_CONFIG: &str = "0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4";

/// A port that programs are never given, so that nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

/// A folder to download into, and the command that does it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with the start of an earlier download.
    fn with_part(part: &[u8]) -> Self {
        let place = Self::new();
        fs::write(place.path("model.safetensors.part"), part).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, model: &str) -> Command {
        let mut command = xtask();
        command.args(["download-weights", model, "--dir"]).arg(self.0.path());
        command.args(["--read-timeout", "5000", "--retry-pause", "10"]);
        command
    }

    fn fetch(&self, hub: &Server) -> Command {
        let mut command = self.command("distilgpt2");
        command.env("HF_ENDPOINT", hub.url(""));
        command
    }

    fn from(&self, source: impl AsRef<Path>) -> Command {
        let mut command = self.command("distilgpt2");
        command.arg("--from").arg(source.as_ref());
        command
    }

    fn names(&self) -> Vec<String> {
        names_in(self.0.path())
    }

    #[track_caller]
    fn assert_complete(&self) {
        assert_eq!(fs::read(self.path("model.safetensors")).unwrap(), model());
        assert_eq!(fs::read(self.path("config.json")).unwrap(), CONFIG);
        let [config, weights] = ["config.json.sha256", "model.safetensors.sha256"];
        let all = [".lock", "config.json", config, "model.safetensors", weights, "provenance.json"];
        assert_eq!(self.names(), all);
    }

    #[track_caller]
    fn assert_no_model(&self) {
        assert!(!self.path("model.safetensors").exists());
        assert!(!self.path("model.safetensors.part").exists());
    }

    /// Downloads the model in spite of what the server does with `path`.
    #[track_caller]
    fn completes(
        self,
        path: &'static str,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        words: &[&str],
    ) -> Server {
        let server = Server::hub_except(path, answer);
        let told = succeed(self.fetch(&server).args(["--read-timeout", "400"]));
        self.assert_complete();
        words.iter().for_each(|word| assert!(told.contains(word), "{word:?} is not in: {told}"));
        server
    }
}

// ---- What works ----------------------------------------------------------------------------

#[test]
fn a_download_is_checked_and_recorded() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let told = succeed(&mut place.fetch(&hub));
    place.assert_complete();
    for words in [
        &hub.url(CONFIG_ON_HUB),
        &hub.url(MODEL_ON_HUB),
        &format!("SHA-256 {}", sha256(&model())),
        "checked against the checksum that the server states",
        "no checksum is known, but it is complete JSON",
        "distilgpt2 is ready in",
    ] {
        assert!(told.contains(words), "{words:?} is not in: {told}");
    }
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

    // A copy with another time is hashed, and is still right.
    fs::write(place.path("model.safetensors"), model()).unwrap();
    let told = succeed(&mut place.fetch(&hub));
    assert!(told.contains("matches the checksum of the first download"), "{told}");
    succeed(place.fetch(&hub).env("HF_HUB_OFFLINE", "1"));
    assert_eq!(hub.requests().len(), before);

    fs::write(place.path("model.safetensors"), "damaged").unwrap();
    let told = succeed(&mut place.fetch(&hub));
    assert!(told.contains("is damaged, fetching it again"), "{told}");
    place.assert_complete();
    let before = hub.requests().len();
    succeed(place.fetch(&hub).arg("--force"));
    assert_eq!(hub.requests().len(), before + 3, "--force fetches both files");
    place.assert_complete();
}

#[test]
fn check_hashes_again_without_the_network() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let check = || {
        let mut command = place.command("distilgpt2");
        command.arg("--check").env("HF_ENDPOINT", NOBODY);
        command
    };
    fail(&mut check(), 1, &["no checksum is known", "run `cargo xtask"]);
    succeed(&mut place.fetch(&hub));
    assert!(succeed(&mut check()).contains(&sha256(&model())));

    let mut wrong = model();
    wrong[123_456] ^= 1;
    fs::write(place.path("model.safetensors"), &wrong).unwrap();
    fail(&mut check(), 1, &[&sha256(&wrong), &sha256(&model()), "is wrong", "--force"]);
    fs::remove_file(place.path("model.safetensors")).unwrap();
    fail(&mut check(), 1, &["model.safetensors does not exist"]);
}

#[test]
fn a_foreign_file_is_replaced_only_by_force() {
    let (place, hub) = (Place::new(), Server::start(hub));
    fs::write(place.path("model.safetensors"), "mine").unwrap();
    fail(&mut place.fetch(&hub), 2, &["no checksum is known for it", "--dir", "--force"]);
    assert_eq!(fs::read(place.path("model.safetensors")).unwrap(), b"mine");
    succeed(place.fetch(&hub).arg("--force"));
    place.assert_complete();

    let place = Place::new();
    fs::write(place.path("config.json"), "mine").unwrap();
    let words = [PINNED_CONFIG, "pinned in this program", &sha256(b"mine")];
    fail(&mut place.command("gpt2"), 2, &words);
    assert_eq!(fs::read(place.path("config.json")).unwrap(), b"mine");
}

#[test]
fn a_token_goes_to_the_hub_and_nowhere_else() {
    let store = Server::start(Reply::model);
    let elsewhere = store.url("/signed?key=secret-query");
    let hub = Server::hub_except(MODEL_ON_HUB, move |_| Reply::redirect(&elsewhere).stating(&model()));
    let place = Place::new();
    let told = succeed(place.fetch(&hub).env("HF_TOKEN", "hf_secret"));
    place.assert_complete();
    assert!(hub.requests().iter().all(|r| r.authorization.as_deref() == Some("Bearer hf_secret")));
    assert_eq!(store.requests().len(), 1);
    assert_eq!(store.requests()[0].authorization, None);
    assert!(!told.contains("secret"), "{told}");
}

// ---- What breaks and recovers --------------------------------------------------------------

#[test]
fn an_interrupted_body_is_resumed() {
    let answer = |request: &Request| match request.nth {
        0 => Reply::model(request).after(100_000, Then::Close),
        1 => Reply::model(request).after(50_000, Then::Close),
        _ => Reply::model(request),
    };
    let words = ["the connection broke", "resuming after 150.0 kB"];
    let hub = Place::new().completes(MODEL_ON_CDN, answer, &words);
    assert_eq!(hub.starts(MODEL_ON_CDN), [None, Some(100_000), Some(150_000)]);
}

#[test]
fn a_body_that_is_cut_or_stalls_is_requested_again() {
    let cut = |request: &Request| match request.nth {
        0 => Reply::new(200, &model()).after(100_000, Then::Close),
        _ => Reply::new(200, &model()),
    };
    Place::new().completes(MODEL_ON_CDN, cut, &["cannot resume, starting again"]);
    let stall = |request: &Request| match request.nth {
        0 => Reply::model(request).after(100_000, Then::Stall),
        _ => Reply::model(request),
    };
    Place::new().completes(MODEL_ON_CDN, stall, &["nothing has arrived for 400ms"]);
}

#[test]
fn a_server_that_stalls_or_trickles_is_given_up() {
    let given_up = |then: fn() -> Then, words: &[&str]| {
        let hub = Server::hub_except(MODEL_ON_CDN, move |request| {
            Reply::model(request).after(if request.nth == 0 { 100_000 } else { 0 }, then())
        });
        let place = Place::new();
        let mut command = place.fetch(&hub);
        fail(command.args(["--read-timeout", "200"]), 1, &["after 5 attempts", "are kept"]);
        let told = fail(command.args(["--read-timeout", "200"]), 1, words);
        assert!(told.contains("run the same command again"), "{told}");
        assert!(!place.path("model.safetensors").exists());
        fs::read(place.path("model.safetensors.part")).unwrap()
    };
    let part = given_up(|| Then::Stall, &["100.0 kB have arrived", "nothing has arrived for 200ms"]);
    assert_eq!(part, model()[..100_000]);
    let part = given_up(|| Then::Trickle, &["bytes have arrived in "]);
    assert!(part.len() > 100_000 && model().starts_with(&part));
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let place = Place::new();
    let mut command = place.command("distilgpt2");
    command.env("HF_ENDPOINT", silent).args(["--read-timeout", "200"]);
    fail(&mut command, 1, &["no answer from 127.0.0.1 for 200ms", "5 attempts"]);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_download_that_is_stopped_resumes_with_its_part() {
    let slow = Server::hub_except(MODEL_ON_CDN, |request| Reply::model(request).after(200_000, Then::Stall));
    for signal in ["-INT", "-TERM", "-KILL"] {
        let place = Place::new();
        let mut child = place.fetch(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let part = place.path("model.safetensors.part");
        let length = || fs::metadata(&part).map_or(0, |metadata| metadata.len());
        let began = Instant::now();
        while length() < 200_000 && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        if cfg!(unix) {
            let id = child.id().to_string();
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        } else {
            child.kill().unwrap();
        }
        child.wait().unwrap();
        assert_eq!(length(), 200_000);
        assert!(!place.path("model.safetensors").exists());

        let hub = place.completes(MODEL_ON_CDN, Reply::model, &["resuming after 200.0 kB"]);
        assert_eq!(hub.starts(MODEL_ON_CDN), [Some(200_000)]);
    }
}

#[test]
fn a_part_that_does_not_fit_is_dropped() {
    let wrong = Place::with_part(&[7; 1000]);
    wrong.completes(MODEL_ON_CDN, Reply::model, &["cannot be used, starting again"]);
    let long = Place::with_part(&vec![7; 400_000]);
    let hub = long.completes(MODEL_ON_CDN, Reply::model, &["has nothing after the part"]);
    assert_eq!(hub.starts(MODEL_ON_CDN), [Some(400_000), None], "416, then everything");
    let complete = Place::with_part(&model());
    let hub = complete.completes(MODEL_ON_CDN, Reply::model, &[]);
    assert_eq!(hub.starts(MODEL_ON_CDN), [Some(300_000)], "a complete part is only checked");
}

#[test]
fn a_failing_server_is_asked_again() {
    let answer = |request: &Request| match request.nth {
        0 => Reply::new(500, b""),
        1 => Reply::new(503, b"").with("Retry-After", 0),
        2 => Reply::new(200, CONFIG).after(0, Then::Close),
        _ => hub(request),
    };
    Place::new().completes(CONFIG_ON_HUB, answer, &["HTTP 500", "HTTP 503"]);

    let broken = Server::hub_except(CONFIG_ON_HUB, |_| Reply::new(502, b""));
    let place = Place::new();
    fail(&mut place.fetch(&broken), 1, &["HTTP 502", "5 attempts"]);
    assert_eq!(broken.requests().len(), 5);
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_pause_that_the_server_asks_for_is_made() {
    let began = Instant::now();
    let answer = |request: &Request| match request.nth {
        0 => Reply::new(429, b"").with("Retry-After", 1),
        _ => hub(request),
    };
    Place::new().completes(CONFIG_ON_HUB, answer, &["HTTP 429"]);
    assert!(began.elapsed() >= Duration::from_secs(1));
}

// ---- What is wrong and is refused ----------------------------------------------------------

/// What a server does wrong: the path, the answer, and what the message says.
type Wrong = (&'static str, fn(&Request) -> Reply, &'static [&'static str]);

#[test]
fn a_wrong_answer_is_refused_and_explained() {
    let cases: [Wrong; 12] = [
        (CONFIG_ON_HUB, |_| Reply::new(401, b""), &[CONFIG_ON_HUB, "HTTP 401", "set HF_TOKEN"]),
        (CONFIG_ON_HUB, |_| Reply::new(404, b""), &[CONFIG_ON_HUB, "HTTP 404", "does not exist"]),
        (CONFIG_ON_HUB, |_| Reply::new(418, b""), &[CONFIG_ON_HUB, "HTTP 418", "check HF_ENDPOINT"]),
        (
            CONFIG_ON_HUB,
            |_| Reply::new(429, b"").with("Retry-After", 3600),
            &["HTTP 429", "asks for a pause of 3600 s", "after that"],
        ),
        (CONFIG_ON_HUB, |_| Reply::redirect("ftp://127.0.0.1/x"), &["not a web address"]),
        (CONFIG_ON_HUB, |_| Reply::new(200, b"{\"half\": "), &["not complete JSON", "was deleted"]),
        (
            CONFIG_ON_HUB,
            |_| Reply::new(200, &[b' '; 2_000_000]),
            &["2000000 bytes", "too many for a configuration"],
        ),
        (MODEL_ON_HUB, Reply::model, &["no checksum is known", "--sha256"]),
        (
            MODEL_ON_HUB,
            |_| Reply::redirect("http://localhost:1/x").stating(&model()),
            &["localhost cannot be reached"], // and not the hub
        ),
        (MODEL_ON_CDN, |_| Reply::new(200, &[0; 299_999]), &["299999 bytes", "expected 300000"]),
        (MODEL_ON_CDN, |_| Reply::new(200, &[7; 300_000]), &["the wrong content", "was deleted"]),
        (
            MODEL_ON_CDN,
            |_| Reply::new(200, &[7; 300_001]).chunked(),
            &["longer than the expected 300000 bytes", "was deleted"],
        ),
    ];
    for (path, answer, words) in cases {
        let (place, hub) = (Place::new(), Server::hub_except(path, answer));
        fail(&mut place.fetch(&hub), 1, words);
        assert_eq!(hub.starts(path), [None], "not worth another try");
        assert!(!place.names().iter().any(|name| name.starts_with("model.")), "{words:?}");
    }
    let hub = Server::hub_except(CONFIG_ON_HUB, |_| Reply::new(403, b""));
    let words = ["HTTP 403", "HF_TOKEN is not accepted"];
    fail(Place::new().fetch(&hub).env("HF_TOKEN", "hf_x"), 1, &words);
}

#[test]
fn a_pin_counts_more_than_what_the_server_states() {
    let place = Place::new();
    let gpt2_from = |server: &Server| {
        let mut command = place.command("gpt2");
        command.env("HF_ENDPOINT", server.url(""));
        command
    };
    let page = b"<html>Please log in to this network</html>";
    let portal = Server::start(|_| Reply::new(200, page).with("Content-Type", "text/html"));
    fail(&mut gpt2_from(&portal), 1, &["42 bytes (text/html)", "expected 665"]);

    let wrong = [b' '; 665];
    let hub = Server::start(move |request| Reply::ranged(request, &wrong).stating(&wrong));
    let words = [PINNED_CONFIG, &sha256(&wrong), "pinned in this program is"];
    fail(&mut gpt2_from(&hub), 1, &words);
    assert_eq!(place.names(), [".lock"]);
    assert_eq!(
        hub.requests()[0].path,
        "/openai-community/gpt2/resolve/607a30d783dfa663caf39e06633721c8d4cfcd7e/config.json"
    );
}

#[test]
fn a_body_without_a_length_is_taken_if_it_is_right() {
    Place::new().completes(MODEL_ON_CDN, |_| Reply::new(200, &model()).chunked(), &[]);
}

#[test]
fn another_range_than_the_requested_one_is_refused() {
    let hub = Server::hub_except(MODEL_ON_CDN, |_| {
        Reply::new(206, &model()[5..]).with("Content-Range", "bytes 5-299999/300000")
    });
    let place = Place::with_part(&model()[..1000]);
    fail(&mut place.fetch(&hub), 1, &["another part of the file", ".part"]);
    assert!(!place.path("model.safetensors").exists());
}

#[test]
fn a_checksum_can_be_given() {
    let hub = Server::hub_except(MODEL_ON_HUB, Reply::model);
    let place = Place::new();
    succeed(place.fetch(&hub).args(["--sha256", &sha256(&model()).to_uppercase()]));
    place.assert_complete();
    let place = Place::new();
    let wrong = "1".repeat(64);
    fail(place.fetch(&hub).args(["--sha256", &wrong]), 1, &[&wrong, &sha256(&model())]);
    place.assert_no_model();
}

#[test]
fn a_redirect_loop_ends() {
    let hub = Server::hub_except(CONFIG_ON_HUB, |_| Reply::redirect(CONFIG_ON_HUB));
    fail(&mut Place::new().fetch(&hub), 1, &["more than 10 redirects"]);
    assert_eq!(hub.requests().len(), 11);
}

#[test]
fn a_missing_network_is_reported_as_one() {
    let place = Place::new();
    // No name server is asked for a name with a part this long.
    let long = format!("http://{}.invalid", "x".repeat(64));
    for (address, host) in [(NOBODY, "127.0.0.1 cannot be reached"), (&long, ".invalid cannot be reached")] {
        let words = [host, "check the network", "--from"];
        fail(place.command("distilgpt2").env("HF_ENDPOINT", address), 1, &words);
    }
    assert_eq!(place.names(), [".lock"]);
}

#[test]
fn a_server_without_tls_is_reported_as_one() {
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
    fail(command.env("HF_ENDPOINT", address), 1, &["no secure connection to 127.0.0.1"]);
    server.join().unwrap();
}

#[test]
fn a_proxy_is_used_and_named_and_no_proxy_is_obeyed() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let mut command = place.fetch(&hub);
    command.env("HTTPS_PROXY", NOBODY.replace("//", "//user:password@"));
    let told = fail(&mut command, 1, &["through the proxy 127.0.0.1"]);
    assert!(!told.contains("password"), "{told}");
    assert_eq!(hub.requests().len(), 0);
    succeed(command.env("NO_PROXY", "127.0.0.1").stdout(Stdio::piped()));
    place.assert_complete();
}

#[test]
fn offline_means_no_request() {
    let (place, hub) = (Place::new(), Server::start(hub));
    let words = ["HF_HUB_OFFLINE forbids", "--from"];
    fail(place.fetch(&hub).env("HF_HUB_OFFLINE", "1"), 1, &words);
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

#[test]
fn a_copy_on_the_disk_is_checked_and_taken() {
    let copy = copy_on_disk();
    let right = sha256(&model());
    for source in [copy.path().to_owned(), copy.path().join("model.safetensors")] {
        let place = Place::new();
        succeed(place.from(source).args(["--sha256", &right]).env("HF_HUB_OFFLINE", "1"));
        place.assert_complete();
    }

    let place = Place::new();
    fail(&mut place.from(&copy), 1, &["no checksum is known"]);
    let place = Place::new();
    let mut command = place.command("gpt2");
    let words = ["config.json has 23 bytes", "expected 665"];
    fail(command.arg("--from").arg(copy.path()), 1, &words);
    assert_eq!(place.names(), [".lock"]);

    fs::remove_file(copy.path().join("config.json")).unwrap();
    fail(&mut place.from(&copy), 2, &["config.json is missing"]);
}

#[test]
fn a_mirror_is_checked_and_gets_no_token() {
    let mirror = Server::start(|request| match request.path.as_str() {
        "/mirror/model.safetensors" => Reply::model(request),
        "/mirror/config.json" => Reply::new(200, CONFIG),
        _ => Reply::new(404, b""),
    });
    for address in ["/mirror/", "/mirror/model.safetensors"] {
        let place = Place::new();
        let mut command = place.from(mirror.url(address));
        succeed(command.env("HF_TOKEN", "hf_secret").args(["--sha256", &sha256(&model())]));
        place.assert_complete();
    }
    assert!(mirror.requests().iter().all(|request| request.authorization.is_none()));
}

// ---- The disk ------------------------------------------------------------------------------

#[cfg(unix)]
#[test]
fn links_and_pipes_are_refused() {
    let hub = Server::start(hub);
    let mkfifo = |path: PathBuf| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    for name in ["model.safetensors.part", ".lock"] {
        let place = Place::new();
        mkfifo(place.path(name));
        fail(&mut place.fetch(&hub), 1, &[name, "is not a regular file"]);
    }
    let place = Place::new();
    fs::write(place.path("thesis"), "years of work").unwrap();
    std::os::unix::fs::symlink(place.path("thesis"), place.path("model.safetensors.part")).unwrap();
    fail(&mut place.fetch(&hub), 1, &["model.safetensors.part is not a regular file"]);
    assert_eq!(fs::read(place.path("thesis")).unwrap(), b"years of work");

    let copy = copy_on_disk();
    fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    mkfifo(copy.path().join("model.safetensors"));
    fail(&mut Place::new().from(&copy), 2, &["model.safetensors is missing or not a regular file"]);

    // A record like that is ignored.
    let pipe = Place::new();
    mkfifo(pipe.path("provenance.json"));
    pipe.completes(MODEL_ON_CDN, Reply::model, &[]);
    let endless = Place::new();
    File::create(endless.path("provenance.json")).unwrap().set_len(2 << 30).unwrap();
    endless.completes(MODEL_ON_CDN, Reply::model, &[]);
}

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
    // The store states no length, so that of the hub counts.
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
fn a_folder_that_cannot_be_written_is_reported() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let to = |folder: &Path| {
        let mut command = xtask();
        command.args(["download-weights", "--dir"]).arg(folder);
        command
    };
    fail(&mut to(&place.path("file/weights")), 1, &["cannot write", "choose another folder"]);
    if cfg!(target_os = "linux") {
        // Not even the administrator can make a folder there.
        let words = ["cannot write /sys/weights", "a folder that you may write to"];
        fail(&mut to(Path::new("/sys/weights")), 1, &words);
    }
}
