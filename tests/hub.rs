//! A server on this machine that does what the hub does for distilgpt2, and what servers do besides: break
//! off, stall, refuse, and send the wrong bytes.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::{PATIENCE, sha256};

pub const CONFIG: &[u8] = b"{\"model_type\": \"gpt2\"}\n";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const MODEL_ON_HUB: &str =
    "/distilbert/distilgpt2/resolve/0123456789abcdef0123456789abcdef01234567/model.safetensors";
pub const CONFIG_ON_HUB: &str = "/distilbert/distilgpt2/resolve/main/config.json";
pub const MODEL_ON_CDN: &str = "/cdn/model";

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub path: String,
    /// The first byte that is requested.
    pub start: Option<usize>,
    pub authorization: Option<String>,
    /// How many requests for this path came before.
    pub nth: usize,
}

/// What to send, and what goes wrong with it.
pub struct Reply {
    head: String,
    body: Vec<u8>,
    is_chunked: bool,
    /// Send only so many bytes of the body, then do this.
    after: Option<(usize, Then)>,
}

pub enum Then {
    Close,
    Stall,
    /// Send a byte now and then.
    Trickle,
}

impl Reply {
    pub fn new(status: u16, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status} Said\r\nConnection: close\r\n");
        Self { head, body: body.to_vec(), is_chunked: false, after: None }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.head += &format!("{name}: {}\r\n", value.to_string());
        self
    }

    pub fn redirect(to: &str) -> Self {
        Self::new(302, b"").with("Location", to)
    }

    /// Adds the headers with which the hub describes a large file.
    pub fn stating(self, file: &[u8]) -> Self {
        let etag = format!("\"{}\"", sha256(file));
        self.with("X-Repo-Commit", COMMIT).with("X-Linked-Size", file.len()).with("X-Linked-Etag", etag)
    }

    /// The file, or the part of it that is requested.
    pub fn ranged(request: &Request, file: &[u8]) -> Self {
        let length = file.len();
        match request.start {
            None => Self::new(200, file),
            Some(start) if start >= length => {
                Self::new(416, b"").with("Content-Range", format!("bytes */{length}"))
            }
            Some(start) => Self::new(206, &file[start..])
                .with("Content-Range", format!("bytes {start}-{}/{length}", length - 1)),
        }
    }

    pub fn model(request: &Request) -> Self {
        Self::ranged(request, &model())
    }

    pub fn after(self, bytes: usize, then: Then) -> Self {
        Self { after: Some((bytes, then)), ..self }
    }

    pub fn chunked(self) -> Self {
        Self { is_chunked: true, ..self }
    }

    fn send(mut self, stream: &mut TcpStream) -> io::Result<()> {
        if self.is_chunked {
            self = self.with("Transfer-Encoding", "chunked");
            let size = format!("{:x}\r\n", self.body.len());
            self.body = [size.as_bytes(), &self.body, b"\r\n0\r\n\r\n"].concat();
        } else {
            let length = self.body.len();
            self = self.with("Content-Length", length);
        }
        stream.write_all(format!("{}\r\n", self.head).as_bytes())?;
        let (bytes, then) = self.after.unwrap_or((self.body.len(), Then::Close));
        stream.write_all(&self.body[..bytes])?;
        match then {
            Then::Close => {}
            Then::Stall => _ = stream.read(&mut [0])?, // until the client closes the connection
            Then::Trickle => {
                for byte in &self.body[bytes..] {
                    stream.write_all(&[*byte])?;
                    thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    }
}

pub struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers requests until the test's process ends.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), log: Arc::default() };
        let (log, answer) = (server.log.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
            }
        });
        server
    }

    /// The hub, but with one path that is answered differently.
    pub fn hub_except(
        path: &'static str,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request| if request.path == path { answer(request) } else { hub(request) })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// The first bytes that were requested of a path.
    pub fn starts(&self, path: &str) -> Vec<Option<usize>> {
        self.requests().into_iter().filter(|request| request.path == path).map(|r| r.start).collect()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = Request::default();
    for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                request.start = value.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().ok();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                request.authorization = Some(value.to_owned());
            }
            Some(_) => {}
            None => request.path = line.split(' ').nth(1).unwrap().to_owned(),
        }
    }
    {
        let mut log = log.lock().unwrap();
        request.nth = log.iter().filter(|earlier| earlier.path == request.path).count();
        log.push(request.clone());
    }
    // The client may be gone already, as some tests intend.
    let _ = answer(&request).send(&mut stream);
}

/// What the hub does for distilgpt2: it states the checksum, and redirects to its store.
pub fn hub(request: &Request) -> Reply {
    match request.path.as_str() {
        MODEL_ON_HUB => Reply::redirect(MODEL_ON_CDN).stating(&model()),
        MODEL_ON_CDN => Reply::model(request),
        CONFIG_ON_HUB => Reply::new(200, CONFIG)
            .with("X-Repo-Commit", COMMIT)
            .with("ETag", "\"0123456789abcdef0123456789abcdef01234567\""),
        _ => Reply::new(404, b"Entry not found"),
    }
}

/// The bytes that stand for the weights: long enough for several reads.
pub fn model() -> Vec<u8> {
    (0..300_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}
