//! `patch-cli explore`: the server from outside, used and misused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::util::{Folder, numbers};

/// A server that runs in a folder, and ends when this goes out of scope.
pub struct Explorer {
    child: Child,
    /// Where the page is.
    pub address: String,
}

/// An answer: its status, its head in lower case, and its body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Explorer {
    pub fn start(folder: &Folder, args: &[&str]) -> Self {
        let mut command = folder.command();
        command.args(["explore", "--no-open"]).args(args).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with("http://127.0.0.1:"), "{address}");
        Self { child, address: address.trim().to_owned() }
    }

    pub fn tiny(folder: &Folder) -> Self {
        Self::start(folder, &["--model", "tiny"])
    }

    /// `127.0.0.1:PORT`.
    fn host(&self) -> &str {
        self.address["http://".len()..].split('/').next().unwrap()
    }

    /// `/TOKEN/`.
    fn path(&self) -> &str {
        &self.address["http://".len() + self.host().len()..]
    }

    /// Sends bytes, and reads all that comes back.
    pub fn raw(&self, request: &[u8]) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(self.host())?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        // A refusal may come before all has been sent.
        let _ = stream.write_all(request);
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
        let Some(end) = end else {
            return Err(read.err().unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into()));
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head, body: bytes[end + 4..].to_vec() })
    }

    /// A request with these headers beside the length.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        self.raw(&[head.as_bytes(), body].concat()).unwrap()
    }

    /// As the page asks.
    pub fn post(&self, name: &str, body: &Value) -> Answer {
        let headers = [("Host", self.host()), ("Content-Type", "application/json")];
        self.request("POST", &format!("{}api/{name}", self.path()), &headers, body.to_string().as_bytes())
    }

    /// The lines of an answer.
    #[track_caller]
    pub fn ask(&self, name: &str, body: &Value) -> Vec<Value> {
        let answer = self.post(name, body);
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 200, "{body}");
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The line of an answer that has this name.
    #[track_caller]
    pub fn line(&self, name: &str, body: &Value, wanted: &str) -> Value {
        let lines = self.ask(name, body);
        let found = lines.iter().find(|line| !line[wanted].is_null());
        found.unwrap_or_else(|| panic!("no {wanted} in {lines:?}"))[wanted].clone()
    }

    /// How it ends if it gets a signal.
    fn ended_by(mut self, signal: &str) -> Option<i32> {
        let kill = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it goes on after the signal");
    }

    /// Prints its memory, before and after 200 requests.
    #[cfg(target_os = "linux")]
    pub fn print_memory(&self) {
        let before = self.memory() >> 20;
        for i in 0..200_u32 {
            let mut asked = main_job(json!({"site": (if i.is_multiple_of(2) { "resid_post" } else { "z" })}));
            asked["tab"] = json!(i.to_string());
            self.line("sweep", &asked, "grid");
        }
        println!("{before} MB beyond the mapped weights, after 200 sweeps {} MB", self.memory() >> 20);
    }

    /// How many bytes of memory it holds.
    #[cfg(target_os = "linux")]
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The main job, with some of it changed.
pub fn main_job(changes: Value) -> Value {
    let mut ask = json!({
        "clean": "Michelle Jones was a top-notch student. Michelle",
        "corrupted": "Michelle Smith was a top-notch student. Michelle",
        "a": " Smith", "b": " Jones",
        "metric": "logit_diff", "scale": "value", "site": "resid_post", "direction": "denoising",
    });
    for (name, value) in changes.as_object().unwrap() {
        ask[name] = value.clone();
    }
    json!({"tab": "test", "ask": ask})
}

#[test]
fn the_numbers_of_every_metric_are_those_of_json() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    for (site, metric, scale, direction) in [
        ("resid_post", "logit_diff", "value", "denoising"),
        ("resid_mid", "prob_diff", "value", "noising"),
        ("z", "logit", "change", "denoising"),
        ("attn_out", "prob", "normalized", "denoising"),
        ("mlp_out", "log_prob", "value", "noising"),
        ("pattern", "rank", "value", "denoising"),
        ("q", "logit_change", "value", "noising"),
        ("resid_pre", "prob_change", "value", "denoising"),
        ("mlp_post", "kl", "value", "denoising"),
        ("v", "logit_diff", "normalized", "noising"),
    ] {
        let changes = json!({"site": site, "metric": metric, "scale": scale, "direction": direction});
        let grid = explorer.line("sweep", &main_job(changes), "grid");
        let args = ["--json", "--site", site, "--metric", metric, "--as", scale, "--direction", direction];
        let json = folder.tiny(&args).success().json();
        assert_eq!(grid["values"], json["grids"][0]["values"], "{site} {metric} {scale} {direction}");
        assert_eq!(grid["label"], json["grids"][0]["value_label"]);
        // Normalised, the command line's are 1 and 0.
        let shown = if scale == "normalized" { &grid["unpatched"] } else { &grid };
        for (i, end) in ["clean_metric", "corrupted_metric"].into_iter().enumerate() {
            let ours = if scale == "normalized" { &shown[i] } else { &shown[end] };
            assert_eq!(*ours, json[end], "{site} {metric}");
        }
    }
}

#[test]
fn patches_that_stay_and_the_prediction_are_those_of_json() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let given = json!([
        {"site": "z", "layer": 8, "head": 3, "pos": null, "value": "zero"},
        {"site": "resid_post", "layer": 2, "head": null, "pos": 3, "value": "source"},
    ]);
    let grid = explorer.line("sweep", &main_job(json!({"given": given, "site": "z"})), "grid");
    let args = ["--site", "z", "--given", "z8.3=zero,resid_post2@3=source", "--json"];
    let json = folder.tiny(&args).success().json();
    assert_eq!(grid["values"], json["grids"][0]["values"]);

    let mut asked = main_job(json!({}));
    asked["preview"] = json!(true);
    let lines = explorer.ask("sweep", &asked);
    let at = |name: &str| lines.iter().position(|line| !line[name].is_null()).unwrap();
    assert!(at("preview") < at("grid"));
    // Then the layers, the last ones first, with the bits that the whole sweep has.
    let parts: Vec<&Value> = lines.iter().map(|line| &line["part"]).filter(|part| !part.is_null()).collect();
    assert_eq!(parts.len(), 4);
    assert!(parts[0]["values"][98].is_null() && !parts[0]["values"][99].is_null());
    let json = folder.tiny(&["--json"]).success().json();
    assert_eq!(lines[at("grid")]["grid"]["values"], json["grids"][0]["values"]);
    assert_eq!(parts[3]["values"], json["grids"][0]["values"]);
    let json = folder.tiny(&["attribute", "--as", "value", "--json"]).success().json();
    assert_eq!(lines[at("preview")]["preview"]["values"], json["grids"][0]["values"]);
}

#[test]
fn the_command_and_the_exports_are_what_the_page_shows() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let given = json!([{"site": "z", "layer": 8, "head": 3, "pos": null, "value": "mean"}]);
    let changes = json!({
        "clean": "It's $HOME -- `Jones`", "corrupted": "It's $HOME -- `Smith`", "given": given,
        "metric": "prob_diff", "scale": "change", "direction": "noising",
    });
    let mut asked = main_job(changes);
    let values = explorer.line("sweep", &asked, "grid")["values"].clone();
    let command = explorer.line("sweep", &asked, "command");
    let command = command.as_str().unwrap().strip_prefix("patch-cli").unwrap().to_owned();
    let mut shell = Command::new("sh");
    let program = folder.command().get_program().to_owned();
    shell.current_dir(folder.path()).env("HOME", folder.path());
    let run = shell.args(["-c", &format!("\"$0\"{command} --json")]).arg(program).output().unwrap();
    let typed: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(typed["grids"][0]["values"], values);

    for (form, begins) in [
        ("png", &b"\x89PNG"[..]),
        ("svg", b"<?xml"),
        ("csv", b""),
        ("json", b"{"),
        ("html", b"<!doctype html>"),
    ] {
        asked["form"] = json!(form);
        let answer = explorer.post("export", &asked);
        assert_eq!(answer.status, 200, "{form}: {}", String::from_utf8_lossy(&answer.body));
        assert!(answer.body.starts_with(begins), "{form}");
        if form == "json" {
            let exported: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(exported["grids"][0]["values"], values);
        }
        if form == "csv" {
            let first = values[0].to_string();
            assert!(String::from_utf8(answer.body).unwrap().contains(&first));
        }
    }
    asked["form"] = json!("exe");
    assert_eq!(explorer.post("export", &asked).status, 400);
}

#[test]
fn a_walk_has_the_exact_effects_and_pins_their_worth() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let mut asked = main_job(json!({"direction": "noising"}));
    asked["reader"] = json!("logits");
    let walk = explorer.line("walk", &asked, "walk");
    let graph = ["circuit", "--method", "exact", "--direction", "noising", "--graph", "exact.json", "--json"];
    folder.tiny(&graph).success();
    let file = std::fs::read_to_string(folder.file("exact.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let edges = walk["edges"].as_array().unwrap();
    assert_eq!(edges.len(), 61);
    for edge in edges {
        let exact = file["edges"][edge["name"].as_str().unwrap()]["score"].as_f64().unwrap();
        // The edges run together are others: equal to within rounding.
        assert!((edge["effect"].as_f64().unwrap() - exact).abs() < 2e-4, "{edge} {exact}");
    }
    let sizes: Vec<f64> = edges.iter().map(|edge| edge["effect"].as_f64().unwrap().abs()).collect();
    assert!(sizes.iter().rev().is_sorted());

    // A circuit of all edges into the logits, saved, judged by the command line, and loaded again.
    let known: Vec<Value> = edges
        .iter()
        .map(|edge| json!({"name": edge["name"], "score": edge["effect"], "pinned": true}))
        .collect();
    asked["edges"] = json!(known);
    let worth = explorer.line("worth", &asked, "worth");
    let saved = explorer.line("save", &asked, "file");
    std::fs::write(folder.file("pinned.json"), saved.as_str().unwrap()).unwrap();
    let from = ["circuit", "--from", "pinned.json", "--direction", "noising", "--judge", "--json"];
    let judged = folder.tiny(&[&from[..], &["--threshold", "-1e30"]].concat()).success().json();
    assert_eq!((&worth["edges"], &worth["of"]), (&json!(61), &json!(4555)));
    assert_eq!(judged["clean_metric"], walk["clean_metric"]);
    asked["text"] = saved;
    assert_eq!(explorer.line("load", &asked, "edges").as_array().unwrap().len(), 61);
    asked["text"] = json!("{}");
    let refused = explorer.line("load", &asked, "refused");
    assert!(refused["message"].as_str().unwrap().contains("not a circuit"), "{refused}");
}

#[test]
fn requests_of_others_are_refused() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let (host, path) = (explorer.host(), explorer.path());
    let page = |headers: &[(&str, &str)], path: &str| explorer.request("GET", path, headers, b"");
    let own = page(&[("Host", host)], path);
    assert_eq!(own.status, 200);
    assert!(
        own.head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
        "{}",
        own.head
    );
    assert!(!own.head.contains("unsafe") && !own.head.contains("access-control"), "{}", own.head);
    let wrong = format!("/{}/", "0".repeat(32));
    for (headers, path) in [
        (&[("Host", "attacker.example")][..], path),
        (&[("Host", "127.0.0.1")], path),
        (&[], path),
        (&[("Host", host)], "/"),
        (&[("Host", host)], "/favicon.ico"),
        (&[("Host", host)], &wrong),
        (&[("Host", host), ("Origin", "http://attacker.example")], path),
        (&[("Host", host), ("Origin", "null")], path),
        (&[("Host", host), ("Sec-Fetch-Site", "cross-site")], path),
        (&[("Host", host), ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Dest", "script")], path),
    ] {
        let answer = page(headers, path);
        assert_eq!(answer.status, 403, "{headers:?} {path}");
        assert!(!String::from_utf8_lossy(&answer.body).contains(path.trim_matches('/')) || path == "/");
    }
    assert_eq!(page(&[("Host", host), ("Host", "b")], path).status, 400);
    // What a form, or a script of another page, would send.
    let api = format!("{path}api/sweep");
    let body = main_job(json!({})).to_string();
    for (method, headers, status) in [
        ("POST", &[("Host", host), ("Content-Type", "text/plain")][..], 415),
        ("POST", &[("Host", host)], 415),
        ("OPTIONS", &[("Host", host), ("Origin", "http://attacker.example")], 403),
        ("OPTIONS", &[("Host", host)], 405),
        ("PUT", &[("Host", host), ("Content-Type", "application/json")], 405),
        ("GET", &[("Host", host)], 405),
    ] {
        let answer = explorer.request(method, &api, headers, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {headers:?}");
        assert!(!answer.head.contains("access-control"));
    }
    for name in ["../Cargo.toml", "nothing.js", "api"] {
        assert_eq!(page(&[("Host", host)], &format!("{path}{name}")).status, 404, "{name}");
    }
}

#[test]
fn what_is_not_a_request_is_refused_and_harms_nobody() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let (host, path) = (explorer.host().to_owned(), explorer.path().to_owned());
    // Ten megabytes, in one piece and in chunks.
    let long = vec![b' '; 10 << 20];
    let headers = [("Host", &*host), ("Content-Type", "application/json")];
    for name in ["sweep", "load"] {
        assert_eq!(explorer.request("POST", &format!("{path}api/{name}"), &headers, &long).status, 413);
    }
    let head = format!("POST {path}api/sweep HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let negative = format!("{head}Content-Length: -5\r\n\r\n");
    let twice = format!("{head}Content-Length: 2\r\nContent-Length: 4\r\n\r\n{{}}");
    let many = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", "X: y\r\n".repeat(1000));
    let endless = format!("GET /{} HTTP/1.1\r\n", "a".repeat(1 << 17));
    for (request, statuses) in [
        (chunked.as_bytes(), &[411][..]),
        (negative.as_bytes(), &[400]),
        (twice.as_bytes(), &[400]),
        (many.as_bytes(), &[400, 431]),
        (endless.as_bytes(), &[431]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", &[400]),
    ] {
        let answer = explorer.raw(request).unwrap();
        assert!(statuses.contains(&answer.status), "{} for {statuses:?}", answer.status);
    }
    for body in ["", "[]", "{\"tab\": 1}", "{\"tab\": \"a\", \"more\": 1}", &"[".repeat(100_000)] {
        let answer = explorer.request("POST", &format!("{path}api/sweep"), &headers, body.as_bytes());
        assert_eq!(answer.status, 400);
    }
    let question = explorer.line("sweep", &json!({"tab": "a"}), "refused");
    assert!(question["message"].as_str().unwrap().contains("no question"), "{question}");
    assert_eq!(explorer.post("nothing", &json!({"tab": "a"})).status, 404);
    assert!(!explorer.line("sweep", &main_job(json!({})), "grid").is_null());
}

#[test]
fn what_cannot_be_computed_is_said_of_the_field() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let long = "word ".repeat(20_000);
    for (changes, field, words) in [
        (json!({"clean": long}), "clean", "128"),
        (json!({"corrupted": ""}), "corrupted", "empty"),
        (json!({"a": " Smithson"}), "a", "token"),
        (json!({"b": " Smith"}), "b", "same"),
        (json!({"metric": "x"}), "metric", "logit_diff"),
        (json!({"site": "ln1_scale"}), "site", "ln1_scale"),
        (json!({"direction": "up"}), "direction", "noising"),
        (json!({"scale": "x"}), "scale", "normalized"),
        (
            json!({"given": [{"site": "z", "layer": 99, "head": 1, "pos": null, "value": "zero"}]}),
            "given",
            "99",
        ),
        (json!({"clean": "One two"}), "", "equally many"),
        (json!({"clean": "Michelle Smith was a top-notch student. Michelle"}), "", "same"),
    ] {
        let refused = explorer.line("sweep", &main_job(changes.clone()), "refused");
        assert_eq!(refused["field"].as_str().unwrap_or_default(), field, "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(words), "{refused}");
    }
    let mut asked = main_job(json!({}));
    for (kind, part, value) in [("look", "cell", json!([12, 0])), ("walk", "reader", json!("a99.h0<q>"))] {
        asked[part] = value;
        assert!(!explorer.line(kind, &asked, "refused").is_null(), "{kind}");
    }
}

#[test]
fn a_thousand_requests_at_once_leave_it_as_it_was() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let (answered, turned_away) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for i in 0..1000 {
            let (explorer, answered, turned_away) = (&explorer, &answered, &turned_away);
            std::thread::Builder::new()
                .stack_size(128 << 10)
                .spawn_scoped(scope, move || {
                    let mut body = main_job(json!({}));
                    body["tab"] = json!((i % 7).to_string());
                    let body = body.to_string();
                    let request = format!(
                        "POST {}api/sweep HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        explorer.path(),
                        explorer.host(),
                        body.len()
                    );
                    match explorer.raw(request.as_bytes()) {
                        Ok(answer) if answer.status == 200 => answered.fetch_add(1, Ordering::Relaxed),
                        _ => turned_away.fetch_add(1, Ordering::Relaxed),
                    };
                })
                .unwrap();
        }
    });
    let (answered, turned_away) = (answered.into_inner(), turned_away.into_inner());
    println!("{answered} answered, {turned_away} turned away");
    assert!(answered >= 1);
    assert_eq!(explorer.line("sweep", &main_job(json!({})), "grid")["values"].as_array().unwrap().len(), 132);
}

#[test]
fn the_newest_request_of_a_tab_wins_and_tabs_wait() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    // Prompts of 120 tokens take long enough to be overtaken.
    let prompt = |name: &str| format!("{name}{}", " the".repeat(118));
    let slow = json!({"clean": prompt("Michelle Jones"), "corrupted": prompt("Michelle Smith"), "site": "resid_pre"});
    let of_tab = |tab: &str, changes: &Value| {
        let mut asked = main_job(changes.clone());
        asked["tab"] = json!(tab);
        asked
    };
    let has = |lines: &[Value], name: &str| lines.iter().any(|line| !line[name].is_null());
    let (explorer, of_tab, slow) = (&explorer, &of_tab, &slow);
    std::thread::scope(|scope| {
        let first = scope.spawn(move || explorer.ask("sweep", &of_tab("a", slow)));
        std::thread::sleep(Duration::from_millis(30));
        let other = scope.spawn(move || explorer.ask("sweep", &of_tab("b", slow)));
        std::thread::sleep(Duration::from_millis(30));
        let second = explorer.ask("sweep", &of_tab("a", &json!({})));
        assert!(has(&second, "grid"), "{second:?}");
        let first = first.join().unwrap();
        // Either it was done before it was overtaken, or it says that it was stopped.
        assert!(has(&first, "stopped") != has(&first, "grid"), "{first:?}");
        assert!(has(&other.join().unwrap(), "grid"));
    });
}

#[test]
fn whoever_goes_away_is_not_computed_for() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let start = Instant::now();
    let prompt = |name: &str| format!("{name}{}", " the".repeat(118));
    for i in 0..20 {
        let mut asked =
            main_job(json!({"clean": prompt("Michelle Jones"), "corrupted": prompt("Michelle Smith")}));
        asked["tab"] = json!(i.to_string());
        let body = asked.to_string();
        let mut stream = TcpStream::connect(explorer.host()).unwrap();
        let head = format!(
            "POST {}api/sweep HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            explorer.path(),
            explorer.host(),
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    }
    assert!(!explorer.line("sweep", &main_job(json!({})), "grid").is_null());
    println!("{:?} after twenty that were left", start.elapsed());
}

#[test]
fn signals_end_it_cleanly_also_while_it_computes() {
    for signal in ["INT", "TERM"] {
        let folder = Folder::new();
        let explorer = Explorer::tiny(&folder);
        assert_eq!(explorer.ended_by(signal), Some(0));
        let explorer = Explorer::tiny(&folder);
        let (host, path) = (explorer.host().to_owned(), explorer.path().to_owned());
        let prompt = |name: &str| format!("{name}{}", " the".repeat(118));
        let asked =
            main_job(json!({"clean": prompt("Michelle Jones"), "corrupted": prompt("Michelle Smith")}));
        let body = asked.to_string();
        let mut stream = TcpStream::connect(&host).unwrap();
        write!(
            stream,
            "POST {path}api/sweep HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(explorer.ended_by(signal), Some(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_after_two_hundred_requests() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let ask = |i: usize| {
        let mut asked = main_job(json!({"site": (if i.is_multiple_of(2) { "resid_post" } else { "z" })}));
        asked["tab"] = json!(i.to_string());
        explorer.line("sweep", &asked, "grid");
        asked["cell"] = json!([i % 12, i % 4]);
        asked["head"] = json!([0, 0]);
        explorer.line("look", &asked, "looked");
    };
    (0..20).for_each(ask);
    let before = explorer.memory();
    (20..220).for_each(ask);
    let after = explorer.memory();
    println!("{} MB, after 200 sweeps and looks {} MB", before >> 20, after >> 20);
    assert!(after < before + (64 << 20), "{before} {after}");
}

#[test]
fn an_unreadable_port_and_flags_without_meaning_are_refused() {
    let folder = Folder::new();
    let explorer = Explorer::tiny(&folder);
    let port = explorer.host().split(':').nth(1).unwrap().to_owned();
    folder.tiny(&["explore", "--no-open", "--port", &port]).failure(1, &["cannot listen on 127.0.0.1"]);
    folder.tiny(&["explore", "--no-open", "--json"]).failure(2, &["--json"]);
    // The lens is of the base run, with the answers' probabilities.
    let lens = explorer.line("lens", &main_job(json!({})), "lens");
    assert_eq!(numbers(&lens["probs"]).len(), 25 * 11);
    assert_eq!(lens["points"][24], "final_post");
}
