//! One request to a server, with its redirects: what came back, or in words why nothing did.
//!
//! Redirects are followed here and not by the client, for two reasons: the hub states a file's
//! checksum on the redirect itself, and the user's key must not go on to another host.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RANGE,
    RETRY_AFTER,
};
use ureq::http::{HeaderValue, Response, StatusCode, Uri};
use ureq::{Agent, Body, Timeout};

use crate::checksum;
use crate::failure::{Failure, Outcome};

/// More redirects than this are a loop.
const MOST_REDIRECTS: usize = 10;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes a second: a server that sends less for long is as good as silent.
const LEAST_SPEED: f64 = 1000.0;

const ELSEWHERE: &str = "or take the files from a mirror or a copy with --from";

/// The user's key of the hub. It shows itself to servers only.
pub struct Token(HeaderValue);

impl Token {
    /// Makes the header of the key.
    pub fn new(key: &str) -> Outcome<Self> {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
            Failure::input("HF_TOKEN has a character that no key has: copy it again, or unset it")
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

/// Sends requests.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    read_timeout: Duration,
}

/// The answer to a request for the rest of a file.
#[derive(Debug)]
pub enum Answer {
    /// The bytes from `start` on: from the asked place, or from 0 if the server knows no ranges.
    Bytes {
        /// The place in the file of the first byte.
        start: u64,
        /// The length of the whole file, if the server says it.
        total: Option<u64>,
        /// What the server says that this is.
        kind: String,
        /// The bytes.
        body: BodyReader,
    },
    /// The server has no bytes from the asked place on.
    NothingThere,
}

/// What the asked server (not one that it redirects to) states of a file.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The length in bytes.
    pub size: Option<u64>,
    /// The SHA-256 checksum.
    pub sha256: Option<String>,
    /// The commit of the repository.
    pub commit: Option<String>,
}

/// Why a request gave nothing.
#[derive(Debug)]
pub enum Trouble {
    /// It may work in a moment, or after the time that the server asks for.
    Passing {
        /// What happened.
        why: String,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
    /// There is no way to the server: worth another try only if there was one before.
    Unreachable(String),
    /// It will not work.
    Final(Failure),
}

impl Client {
    /// A client that gives up when nothing comes for `read_timeout`.
    pub fn new(read_timeout: Duration) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("xtask/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(read_timeout))
            .timeout_per_write(Some(read_timeout))
            .build()
            .new_agent();
        Self { agent, read_timeout }
    }

    /// Asks for the bytes of `url` from `start` on.
    pub fn get(&self, url: &str, start: u64, token: Option<&Token>) -> Result<(Answer, Facts), Trouble> {
        let mut address = parse(url)?;
        let asked = address.clone();
        let mut facts = Facts::default();
        for _ in 0..=MOST_REDIRECTS {
            let at_home = origin(&address) == origin(&asked);
            let response = self.send(&address, start, token.filter(|_| at_home))?;
            if at_home {
                facts.add(response.headers());
            }
            if !is_redirect(response.status()) {
                let answer = self.understand(response, &address, start, token.is_some())?;
                return Ok((answer, facts));
            }
            address = redirected(&address, response.headers())?;
        }
        Err(Trouble::Final(Failure::run(format!(
            "{} leads to more than {MOST_REDIRECTS} redirects, a loop: check HF_ENDPOINT and the \
             proxy, {ELSEWHERE}",
            shown(url)
        ))))
    }

    fn send(&self, address: &Uri, start: u64, token: Option<&Token>) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(address);
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        if let Some(Token(value)) = token {
            request = request.header(AUTHORIZATION, value);
        }
        request.call().map_err(|error| self.no_answer(address, error))
    }

    fn understand(
        &self,
        response: Response<Body>,
        address: &Uri,
        start: u64,
        with_token: bool,
    ) -> Result<Answer, Trouble> {
        let headers = response.headers();
        let (start, total) = match response.status() {
            StatusCode::OK => (0, number(headers, &CONTENT_LENGTH)),
            StatusCode::PARTIAL_CONTENT => {
                content_range(headers).filter(|(first, _)| *first == start).ok_or_else(|| {
                    Trouble::Final(Failure::run(format!(
                        "{} sent another part of the file than the one asked for: {}",
                        shown_uri(address),
                        "use another mirror, or delete the .part file and run this again"
                    )))
                })?
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Answer::NothingThere),
            status => return Err(refusal(status, headers, address, with_token)),
        };
        let kind = header(headers, &CONTENT_TYPE).unwrap_or("unknown").into();
        Ok(Answer::Bytes {
            start,
            total,
            kind,
            body: BodyReader {
                inner: Box::new(response.into_body().into_reader()),
                read_timeout: self.read_timeout,
                counted: (Instant::now(), 0),
            },
        })
    }

    /// Puts into words why no answer came.
    fn no_answer(&self, address: &Uri, error: ureq::Error) -> Trouble {
        let host = address.host().unwrap_or("the server");
        let through = self.proxy_of(address);
        let check = format!("check the network, and HTTPS_PROXY if there is a proxy, {ELSEWHERE}");
        match error {
            ureq::Error::HostNotFound => Trouble::Unreachable(format!(
                "the host {host}{through} is not found: there is no network, or the name is \
                 wrong: {check}"
            )),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Trouble::Unreachable(format!("{host}{through} refuses the connection: {check}"))
            }
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) | ureq::Error::ConnectionFailed => {
                Trouble::Unreachable(format!("{host}{through} cannot be reached in time: {check}"))
            }
            ureq::Error::ConnectProxyFailed(reason) => Trouble::Unreachable(format!(
                "the proxy refuses to connect to {host} ({reason}): check HTTPS_PROXY and \
                 NO_PROXY, {ELSEWHERE}"
            )),
            ureq::Error::Timeout(_) => Trouble::Passing {
                why: format!("{host}{through} has sent no answer for {:?}", self.read_timeout),
                wait: None,
            },
            ureq::Error::Io(error) if is_break(&error) => Trouble::Passing {
                why: format!("the connection to {host}{through} broke ({error})"),
                wait: None,
            },
            // What TLS does not accept comes as invalid data.
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Trouble::Final(Failure::run(format!(
                    "no secure connection to {host}{through} ({error}): check the clock and the \
                     proxy, {ELSEWHERE}"
                )))
            }
            // Also a name that is not found: the system tells that in its own words only.
            ureq::Error::Io(error) => Trouble::Unreachable(format!(
                "{host}{through} cannot be reached ({error}): there is no network, or the name \
                 is wrong: {check}"
            )),
            error => Trouble::Final(Failure::run(format!(
                "{} cannot be asked ({error}): check the address, {ELSEWHERE}",
                shown_uri(address)
            ))),
        }
    }

    /// Names the proxy on the way to an address, without its password.
    fn proxy_of(&self, address: &Uri) -> String {
        match self.agent.config().proxy() {
            Some(proxy) if !proxy.is_no_proxy(address) => {
                format!(" (through the proxy {}:{})", proxy.host(), proxy.port())
            }
            _ => String::new(),
        }
    }
}

/// The bytes of an answer. Its errors say in words what happened.
pub struct BodyReader {
    inner: Box<dyn Read>,
    read_timeout: Duration,
    /// When the bytes were first counted that came last, and how many they are.
    counted: (Instant, usize),
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BodyReader")
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (since, bytes) = self.counted;
        let seconds = since.elapsed().as_secs_f64();
        if since.elapsed() > 2 * self.read_timeout {
            if (bytes as f64) < LEAST_SPEED * seconds {
                let why = format!("only {bytes} bytes have come in {seconds:.1} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            self.counted = (Instant::now(), 0);
        }
        let read = self.inner.read(buffer).map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            match cause {
                Some(ureq::Error::Timeout(_)) => io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("nothing has come for {:?}", self.read_timeout),
                ),
                _ => io::Error::new(error.kind(), format!("the connection broke ({error})")),
            }
        })?;
        self.counted.1 += read;
        Ok(read)
    }
}

impl Facts {
    /// Takes what a response adds to what is known.
    fn add(&mut self, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        // A file that is not stored as a large one has a git object's name here: not a SHA-256.
        let etag = text("x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let sha256 = etag.and_then(|etag| checksum::parse(etag).ok());
        let commit = text("x-repo-commit").filter(|commit| is_commit(commit));
        self.sha256 = self.sha256.take().or(sha256);
        self.commit = self.commit.take().or(commit.map(str::to_owned));
        self.size = self.size.or(text("x-linked-size").and_then(|size| size.parse().ok()));
    }
}

/// Puts into words that a server will not give the file.
fn refusal(status: StatusCode, headers: &HeaderMap, address: &Uri, with_token: bool) -> Trouble {
    let place = shown_uri(address);
    match status.as_u16() {
        401 | 403 => {
            let key = if with_token {
                "the key in HF_TOKEN is not accepted: check it, or unset it"
            } else {
                "set HF_TOKEN to a key that may read it"
            };
            Trouble::Final(Failure::run(format!(
                "{place} may not be read (HTTP {}): {key}, {ELSEWHERE}",
                status.as_u16()
            )))
        }
        404 | 410 => Trouble::Final(Failure::run(format!(
            "{place} does not exist (HTTP {}): check HF_ENDPOINT or --from",
            status.as_u16()
        ))),
        429 => Trouble::Passing {
            why: format!("{place} has had too many requests from here (HTTP 429)"),
            wait: retry_after(headers),
        },
        408 | 500..=599 => Trouble::Passing {
            why: format!("{place} has a fault of its own (HTTP {})", status.as_u16()),
            wait: retry_after(headers),
        },
        other => Trouble::Final(Failure::run(format!(
            "{place} gives an answer of no use (HTTP {other}): check HF_ENDPOINT or --from"
        ))),
    }
}

fn redirected(from: &Uri, headers: &HeaderMap) -> Result<Uri, Trouble> {
    header(headers, &LOCATION).and_then(|location| join(from, location)).ok_or_else(|| {
        Trouble::Final(Failure::run(format!(
            "{} redirects to no address: check HF_ENDPOINT or --from",
            shown_uri(from)
        )))
    })
}

/// The address that a `Location` header means.
fn join(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let address = if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    is_web_address(&address).then(|| address.parse().ok())?
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether a connection was there, and ended too early.
fn is_break(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::TimedOut
    )
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn header<'headers>(headers: &'headers HeaderMap, name: &HeaderName) -> Option<&'headers str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    header(headers, name)?.trim().parse().ok()
}

/// Reads `Content-Range: bytes FIRST-LAST/TOTAL`, where TOTAL may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let range = header(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

/// A wait in seconds; a date is not read, and the usual pause is made instead.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    number(headers, &RETRY_AFTER).map(Duration::from_secs)
}

fn parse(url: &str) -> Result<Uri, Trouble> {
    url.parse().map_err(|error| {
        Trouble::Final(Failure::input(format!(
            "{} is not an address ({error}): check HF_ENDPOINT or --from",
            shown(url)
        )))
    })
}

/// Whether a text is the address of something on a web server.
pub fn is_web_address(text: &str) -> bool {
    let is_web = |uri: Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    text.parse().is_ok_and(is_web)
}

/// Scheme, host and port: where a key may be sent.
fn origin(address: &Uri) -> (Option<&str>, Option<String>, Option<u16>) {
    let default_port = match address.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    (address.scheme_str(), address.host().map(str::to_ascii_lowercase), address.port_u16().or(default_port))
}

/// An address as it may be printed: without a password, and without a query, which may be a key.
pub fn shown(url: &str) -> String {
    url.parse().map_or_else(|_| "not an address".into(), |uri| shown_uri(&uri))
}

fn shown_uri(address: &Uri) -> String {
    let host = address.host().unwrap_or_default();
    let port = address.port_u16().map(|port| format!(":{port}"));
    let scheme = address.scheme_str().map(|scheme| format!("{scheme}://"));
    format!(
        "{}{host}{}{}",
        scheme.unwrap_or_default(),
        port.unwrap_or_default(),
        address.path().trim_end_matches('/')
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test may stop where it stands.
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_as_a_browser_reads_it() {
        let from: Uri = "https://hub:8443/a/b/c?x=1".parse().unwrap();
        for (location, address) in [
            ("http://cdn/d?key=1", "http://cdn/d?key=1"),
            ("//cdn/d", "https://cdn/d"),
            ("/d/e", "https://hub:8443/d/e"),
            ("d", "https://hub:8443/a/b/d"),
            ("/d?to=http://x#part", "https://hub:8443/d?to=http://x"),
        ] {
            assert_eq!(join(&from, location).unwrap(), address);
        }
        assert_eq!(join(&from, "file:///etc/passwd"), None);
    }

    #[test]
    fn another_port_or_scheme_is_another_origin() {
        let is_same = |one: &str, two: &str| origin(&one.parse().unwrap()) == origin(&two.parse().unwrap());
        assert!(is_same("https://hub/a", "https://HUB:443/b"));
        assert!(!is_same("https://hub/a", "http://hub/a"));
        assert!(!is_same("https://hub/a", "https://hub:8443/a"));
        assert!(!is_same("https://hub/a", "https://hub.evil/a"));
    }

    #[test]
    fn what_may_be_secret_in_an_address_is_not_shown() {
        let address = "https://user:password@hub:8443/a/?key=secret";
        assert_eq!(shown(address), "https://hub:8443/a");
    }

    #[test]
    fn a_content_range_is_read_with_and_without_a_total() {
        let read =
            |text| content_range(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]));
        assert_eq!(read("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(read("bytes 5-9/*"), Some((5, None)));
        assert_eq!(read("bytes */10"), None);
        assert_eq!(read("lines 5-9/10"), None);
    }
}
