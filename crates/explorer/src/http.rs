//! As much of HTTP/1.1 as one page on this machine needs: one request on each connection, and its answer.
//!
//! The head is read by httparse. A connection is closed after its answer, so no second request can hide in the first
//! (request smuggling), and an answer of unknown length simply ends. Sizes and times are bounded.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The longest head of a request.
const MOST_HEAD: usize = 16 << 10;

/// The most headers of a request.
const MOST_HEADERS: usize = 64;

/// A request must have arrived after this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of a refused body is read and thrown away, so that the sender reads the refusal.
const MOST_DRAINED: usize = 32 << 20;

/// A request.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// As it was sent: with its query, not decoded.
    pub target: String,
    headers: Vec<(String, String)>,
    /// The part of the body that came together with the head.
    begun: Vec<u8>,
}

/// Why a request is not answered as it wishes.
#[derive(Debug)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// What is wrong, for people.
    pub reason: String,
}

impl Refusal {
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

impl Request {
    /// Reads the head of a request; none if the other side closed the connection or went silent.
    ///
    /// # Errors
    /// If it is too long or not HTTP.
    pub fn read(stream: &mut TcpStream) -> Result<Option<Self>, Refusal> {
        let start = Instant::now();
        let mut bytes = Vec::new();
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut parsed = httparse::Request::new(&mut headers);
            match parsed.parse(&bytes) {
                Ok(httparse::Status::Complete(length)) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
                    let header = |it: &httparse::Header<'_>| (it.name.to_ascii_lowercase(), text(it.value));
                    return Ok(Some(Self {
                        method: parsed.method.unwrap_or_default().to_owned(),
                        target: parsed.path.unwrap_or_default().to_owned(),
                        headers: parsed.headers.iter().map(header).collect(),
                        begun: bytes[length..].to_vec(),
                    }));
                }
                Ok(httparse::Status::Partial) if bytes.len() >= MOST_HEAD => {
                    return Err(Refusal::new(431, "the head of the request is too long"));
                }
                Ok(httparse::Status::Partial) => {}
                Err(error) => return Err(Refusal::new(400, format!("not a request: {error}"))),
            }
            let mut more = [0; 4096];
            match read_before(stream, &mut more, start) {
                Ok(n @ 1..) => bytes.extend(&more[..n]),
                _ => return Ok(None),
            }
        }
    }

    /// A header, which must not be there twice.
    ///
    /// # Errors
    /// If it is.
    pub fn header(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut found = self.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| &**value);
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(Refusal::new(400, format!("the header {name} is there twice"))),
        }
    }

    /// The body, of at most so many bytes.
    ///
    /// # Errors
    /// If it is longer, does not say how long it is, or does not arrive.
    pub fn body(&mut self, stream: &mut TcpStream, most: usize) -> Result<Vec<u8>, Refusal> {
        if self.header("transfer-encoding")?.is_some() {
            return Err(Refusal::new(411, "give the length of the body"));
        }
        let length = match self.header("content-length")? {
            None => 0,
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse::<usize>().unwrap_or(usize::MAX)
            }
            Some(_) => return Err(Refusal::new(400, "the length of the body is not a number")),
        };
        if length > most {
            return Err(Refusal::new(413, format!("a body of {length} bytes; at most {most} are read")));
        }
        if self.header("expect")?.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let start = Instant::now();
        let mut body = std::mem::take(&mut self.begun);
        let mut more = [0; 1 << 14];
        while body.len() < length {
            match read_before(stream, &mut more, start) {
                Ok(n @ 1..) => body.extend(&more[..n]),
                _ => return Err(Refusal::new(408, "the body did not arrive")),
            }
        }
        body.truncate(length);
        Ok(body)
    }
}

fn read_before(stream: &mut TcpStream, buffer: &mut [u8], start: Instant) -> io::Result<usize> {
    let left = PATIENCE.checked_sub(start.elapsed()).filter(|left| !left.is_zero());
    stream.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
    stream.read(buffer)
}

/// Headers of every answer. The page runs its own scripts and no others, loads and asks nothing elsewhere, and stands in
/// no other page.
const HEADERS: &str = "\
    Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n\
    Cross-Origin-Opener-Policy: same-origin\r\n\
    X-Content-Type-Options: nosniff\r\n\
    X-Frame-Options: DENY\r\n\
    Referrer-Policy: no-referrer\r\n\
    Cache-Control: no-store\r\n\
    Connection: close\r\n";

fn head(status: u16, kind: &str, length: Option<usize>) -> String {
    let phrase = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
    format!("HTTP/1.1 {status} {phrase}\r\nContent-Type: {kind}\r\n{length}{HEADERS}\r\n")
}

/// A whole answer.
pub fn answer(stream: &mut TcpStream, status: u16, kind: &str, body: &[u8]) -> io::Result<()> {
    let mut bytes = head(status, kind, Some(body.len())).into_bytes();
    bytes.extend(body);
    stream.write_all(&bytes)
}

/// The head of an answer whose end is that of the connection.
pub fn begin(stream: &mut TcpStream, kind: &str) -> io::Result<()> {
    stream.write_all(head(200, kind, None).as_bytes())
}

/// Says why a request is refused, and reads what is still being sent, so that the other side gets to read it.
pub fn refuse(stream: &mut TcpStream, refusal: &Refusal) {
    let sent = answer(stream, refusal.status, "text/plain; charset=utf-8", refusal.reason.as_bytes());
    if sent.and_then(|()| stream.shutdown(Shutdown::Write)).is_err() {
        return;
    }
    let (start, mut drained, mut sink) = (Instant::now(), 0, [0; 1 << 14]);
    while drained < MOST_DRAINED {
        match read_before(stream, &mut sink, start) {
            Ok(n @ 1..) => drained += n,
            _ => return,
        }
    }
}

/// Whether the other side has gone.
pub fn is_gone(stream: &TcpStream) -> bool {
    let mut byte = [0];
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let peeked = stream.peek(&mut byte);
    let is_gone = match peeked {
        Ok(n) => n == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    is_gone || stream.set_nonblocking(false).is_err()
}
