//! Connections, and which request gets which answer.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use crate::ask::{Ask, Question, Refused};
use crate::client::Client;
use crate::export::{Exporter, Form};
use crate::guard::Guard;
use crate::http::{self, Refusal, Request};
use crate::queue::{EXPORT, Queue, SWEEP};
use crate::studies::{Bench, Job};
use crate::{page, walk};

/// More connections at once are turned away.
const MOST_CONNECTIONS: usize = 64;

/// The longest question: two prompts, and the edges of a circuit.
const MOST_BODY: usize = 4 << 20;

/// The longest file of a circuit: GPT-2 medium's, twice.
const MOST_FILE: usize = 9 << 20;

/// How often it is looked whether the server is to end.
const INTERVAL: Duration = Duration::from_millis(50);

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    guard: Guard,
    bench: Bench,
    /// The token in front of every prompt.
    bos: Option<u32>,
    exporter: Exporter,
    queue: Queue,
    connections: AtomicUsize,
    /// Long bodies are read one at a time.
    long: Mutex<()>,
}

/// What a request of the page says. What is not needed may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    tab: String,
    /// Its number among the requests of the tab.
    #[serde(default)]
    number: u64,
    ask: Option<Ask>,
    /// A cell of the grid: layer, and position or head.
    cell: Option<[usize; 2]>,
    /// A head: layer and number.
    head: Option<[usize; 2]>,
    reader: Option<String>,
    #[serde(default)]
    edges: Vec<walk::Known>,
    text: Option<String>,
    form: Option<String>,
    /// Whether a prediction is wanted in any case.
    #[serde(default)]
    preview: bool,
}

impl Server {
    /// Listens on a port of 127.0.0.1; 0 is any that is free.
    ///
    /// # Errors
    /// If the port is not free, or the system has no random numbers.
    pub fn bind(bench: Bench, bos: Option<u32>, exporter: Exporter, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let guard = Guard::new(listener.local_addr()?.port())?;
        let (queue, connections, long) = Default::default();
        Ok(Self { listener, guard, bench, bos, exporter, queue, connections, long })
    }

    /// Where the page is, with the token.
    pub fn address(&self) -> String {
        self.guard.address()
    }

    /// Answers requests until `stop` is set.
    ///
    /// # Errors
    /// If the system does not let it listen any more.
    pub fn run(&self, stop: &AtomicBool) -> io::Result<()> {
        let address = self.listener.local_addr()?;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(INTERVAL);
                }
                self.queue.close();
                // Wakes the loop below.
                let _ = TcpStream::connect(address);
            });
            loop {
                let accepted = self.listener.accept();
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                // A connection that was given up before it was accepted, or too many open files: both pass.
                let Ok((stream, _)) = accepted else {
                    thread::sleep(INTERVAL);
                    continue;
                };
                if self.connections.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
                    turn_away(stream);
                    self.connections.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let spawned = thread::Builder::new().spawn_scoped(scope, || {
                    let _leaves = Leaves(&self.connections);
                    self.serve(stream);
                });
                if spawned.is_err() {
                    self.connections.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })
    }

    fn serve(&self, mut stream: TcpStream) {
        // An answer is sent when it is there, and nobody is waited for without end.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(Duration::from_secs(30)));
        let answered = match Request::read(&mut stream) {
            Ok(Some(request)) => self.answer(request, &mut stream),
            Ok(None) => Ok(()),
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = answered {
            http::refuse(&mut stream, &refusal);
        }
    }

    fn answer(&self, mut request: Request, stream: &mut TcpStream) -> Result<(), Refusal> {
        let path = self.guard.admit(&request)?.to_owned();
        match (&*request.method, path.strip_prefix("api/")) {
            ("GET", None) => {
                let (kind, body) = page::file(&path, self)?;
                // Whoever has gone misses nothing.
                let _ = http::answer(stream, 200, kind, &body);
                Ok(())
            }
            ("POST", Some(name)) => {
                let kind = request.header("content-type")?.unwrap_or_default();
                if kind.split(';').next().unwrap_or_default().trim() != "application/json" {
                    return Err(Refusal::new(415, "send application/json"));
                }
                let body = self.body(&mut request, stream, name)?;
                let asked: Asked = serde_json::from_slice(&body)
                    .map_err(|error| Refusal::new(400, format!("not a question: {error}")))?;
                drop(body);
                let stream = stream.try_clone().map_err(|error| Refusal::new(503, error.to_string()))?;
                self.study(name, &asked, stream)
            }
            _ => Err(Refusal::new(405, "this is not how this is asked for")),
        }
    }

    fn body(&self, request: &mut Request, stream: &mut TcpStream, name: &str) -> Result<Vec<u8>, Refusal> {
        const SHORT: usize = 1 << 18;
        match request.body(stream, SHORT) {
            Err(refusal) if refusal.status == 413 => {
                let _one = self.long.lock();
                request.body(stream, if name == "load" { MOST_FILE } else { MOST_BODY })
            }
            read => read,
        }
    }

    /// Answers a question, line by line.
    fn study(&self, name: &str, asked: &Asked, stream: TcpStream) -> Result<(), Refusal> {
        if name == EXPORT {
            return self.export(asked, stream);
        }
        let kind = match name {
            SWEEP => SWEEP,
            "look" => "look",
            "lens" => "lens",
            "walk" => "walk",
            "worth" => "worth",
            "complete" | "save" | "load" => "",
            _ => return Err(Refusal::new(404, "there is nothing of this name")),
        };
        let Ok(client) = Client::begin(stream) else { return Ok(()) };
        let answered = match kind {
            "" => self.at_once(name, asked, &client),
            _ => self.in_turn(kind, asked, &client),
        };
        if let Err(refused) = answered {
            client.send("refused", &refused);
        }
        Ok(())
    }

    /// What needs no turn.
    fn at_once(&self, name: &str, asked: &Asked, client: &Client) -> Result<(), Refused> {
        let text = asked.text.as_deref().unwrap_or_default();
        let model = &self.bench.model;
        match name {
            "complete" => client.send("completions", &self.bench.completions(text)),
            "save" => client.send("file", &walk::save(model, &asked.edges)?),
            _ => client.send("edges", &walk::load(model, text)?),
        }
        Ok(())
    }

    /// What computes: it waits for its turn, and may be stopped.
    fn in_turn(&self, kind: &'static str, asked: &Asked, client: &Client) -> Result<(), Refused> {
        let turn = self.queue.enter(&asked.tab, kind, asked.number);
        let question = self.question(asked, (kind == SWEEP).then_some(client))?;
        let mut answered = Ok(());
        client.work(&turn, |progress| {
            let job = Job { client, turn: &turn, progress };
            let model = &self.bench.model;
            answered = match kind {
                SWEEP => self.bench.sweep(&question, asked.preview, &job),
                "look" => self.bench.look(&question, asked.cell, asked.head, &job),
                "lens" => self.bench.lens(&question, &job),
                "walk" => {
                    let reader = asked.reader.as_deref().unwrap_or("logits");
                    walk::into_reader(model, &question, reader, &job)
                }
                _ => walk::worth(model, &question, &asked.edges, &job),
            };
        });
        answered
    }

    /// The question, of which `client` is told the tokens and the command first.
    fn question(&self, asked: &Asked, client: Option<&Client>) -> Result<Question, Refused> {
        let ask = asked.ask.as_ref().ok_or_else(|| Refused::from("there is no question".to_owned()))?;
        let (rows, ids) = ask.rows(&self.bench.model, self.bos)?;
        if let Some(client) = client {
            client.send("rows", &rows);
        }
        let question = ask.question(&self.bench.model, ids)?;
        if let Some(client) = client {
            client.send("command", &self.exporter.typed(ask));
        }
        Ok(question)
    }

    /// A file, as the command writes it.
    fn export(&self, asked: &Asked, mut stream: TcpStream) -> Result<(), Refusal> {
        let unwanted = |refused: Refused| Refusal::new(400, refused.message);
        let form = asked.form.as_deref().and_then(Form::named);
        let form = form.ok_or_else(|| Refusal::new(400, "give a form: png, svg, csv, json or html"))?;
        self.question(asked, None).map_err(unwanted)?;
        let Some(ask) = &asked.ask else { return Ok(()) };
        let turn = self.queue.enter(&asked.tab, EXPORT, asked.number);
        if !turn.wait() {
            return Err(Refusal::new(503, "stopped"));
        }
        match self.exporter.export(ask, form, &turn).map_err(unwanted)? {
            Some(bytes) => {
                let _ = http::answer(&mut stream, 200, form.content_type(), &bytes);
                Ok(())
            }
            None => Err(Refusal::new(503, "stopped")),
        }
    }

    /// The model.
    pub(crate) fn bench(&self) -> &Bench {
        &self.bench
    }
}

/// One connection fewer, when this is dropped.
struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says without waiting for anything that there are too many.
fn turn_away(mut stream: TcpStream) {
    let _ = stream.set_nonblocking(true);
    let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(busy.as_bytes());
}
