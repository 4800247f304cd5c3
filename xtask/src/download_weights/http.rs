//! One request to a server, with its redirects.
//!
//! Redirects are followed here and not by ureq: the hub states a file's checksum in the redirect itself,
//! and an error must name the host that failed, which may be the one behind the redirect.

use std::io;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Response, Uri};
use ureq::{Agent, Body, Timeout};

use super::transfer::Known;
use crate::checksum;
use crate::failure::{Failure, Outcome};

const MOST_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const ELSEWHERE: &str = "or take the files from a mirror or a copy with --from";

/// Sends requests.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    token: Option<HeaderValue>,
    pub read_timeout: Duration,
}

/// The bytes of a file from `start` on: from the requested position, or from 0 if the server cannot resume.
#[derive(Debug)]
pub struct Answer {
    pub start: u64,
    /// The length of the whole file, if the server states it.
    pub total: Option<u64>,
    pub body: Body,
}

/// Why a request failed.
#[derive(Debug)]
pub enum Trouble {
    /// It may work later: after `wait`, if the server asks for a pause.
    Passing { why: String, wait: Option<Duration> },
    /// The server cannot be reached: worth another attempt only if it could be before.
    Unreachable(String),
    /// It will not work.
    Final(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

impl Client {
    /// A client that gives up when nothing arrives for `read_timeout`, and sends `token` to the first host
    /// only.
    pub fn new(read_timeout: Duration, token: Option<String>) -> Outcome<Self> {
        let header = |token| HeaderValue::try_from(format!("Bearer {token}"));
        let mut token = token.map(header).transpose().map_err(|_| {
            Failure::input("HF_TOKEN contains a character that no token has: copy it again, or unset it")
        })?;
        token.iter_mut().for_each(|token| token.set_sensitive(true));
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
        Ok(Self { agent, token, read_timeout })
    }

    /// Requests the bytes of `url` from `start` on; none if the file ends there. What the first host states
    /// about the file is added to `known`.
    pub fn get(&self, url: &str, start: u64, known: &mut Known) -> Result<Option<Answer>, Trouble> {
        let first: Uri = url.parse().map_err(|error| {
            Failure::input(format!("{} is not an address ({error}): check HF_ENDPOINT or --from", shown(url)))
        })?;
        let mut address = first.clone();
        for _ in 0..=MOST_REDIRECTS {
            let is_first_host =
                (address.scheme(), address.authority()) == (first.scheme(), first.authority());
            let mut request = self.agent.get(&address);
            if start > 0 {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_first_host) {
                request = request.header(AUTHORIZATION, token);
            }
            let response = request.call().map_err(|error| self.no_answer(&address, error))?;
            if is_first_host {
                known.add(response.headers());
            }
            if !response.status().is_redirection() {
                return self.answer(response, &address, start);
            }
            let location = text(response.headers(), &LOCATION);
            address = location.and_then(|location| join(&address, location)).ok_or_else(|| {
                Failure::run(format!(
                    "{} redirects to something that is not a web address: check HF_ENDPOINT or --from",
                    shown_uri(&address)
                ))
            })?;
        }
        Err(Failure::run(format!(
            "{} leads to more than {MOST_REDIRECTS} redirects: check HF_ENDPOINT and the proxy, {ELSEWHERE}",
            shown(url)
        ))
        .into())
    }

    fn answer(&self, response: Response<Body>, address: &Uri, start: u64) -> Result<Option<Answer>, Trouble> {
        let headers = response.headers();
        let (start, total) = match response.status().as_u16() {
            200 => (0, response.body().content_length()),
            206 => content_range(headers).filter(|(first, _)| *first == start).ok_or_else(|| {
                Failure::run(format!(
                    "{} sent another part of the file than the one requested: use another mirror, or delete \
                     the .part file and run this again",
                    shown_uri(address)
                ))
            })?,
            416 => return Ok(None),
            status => return Err(self.refusal(status, headers, address)),
        };
        Ok(Some(Answer { start, total, body: response.into_body() }))
    }

    fn refusal(&self, status: u16, headers: &HeaderMap, address: &Uri) -> Trouble {
        let said = format!("{} answers HTTP {status}", shown_uri(address));
        let advice = match status {
            // A wait may be given as a date too: then the usual pause is made.
            408 | 429 | 500..=599 => {
                let wait = number(headers, &RETRY_AFTER).map(Duration::from_secs);
                return Trouble::Passing { why: said, wait };
            }
            401 | 403 if self.token.is_some() => {
                format!("the token in HF_TOKEN is not accepted: check it, or unset it, {ELSEWHERE}")
            }
            401 | 403 => format!("set HF_TOKEN to a token that may read it, {ELSEWHERE}"),
            404 | 410 => "it does not exist: check HF_ENDPOINT or --from".into(),
            _ => "check HF_ENDPOINT or --from".into(),
        };
        Failure::run(format!("{said}: {advice}")).into()
    }

    /// Says why no answer came.
    fn no_answer(&self, address: &Uri, error: ureq::Error) -> Trouble {
        // The proxy without its password.
        let proxy = self.agent.config().proxy().filter(|proxy| !proxy.is_no_proxy(address));
        let proxy = proxy.map(|proxy| format!(" (through the proxy {}:{})", proxy.host(), proxy.port()));
        let host = format!("{}{}", address.host().unwrap_or("the server"), proxy.unwrap_or_default());
        match error {
            // What TLS does not accept is reported as invalid data.
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Failure::run(format!(
                "no secure connection to {host} ({error}): check the clock and the proxy, {ELSEWHERE}"
            ))
            .into(),
            ureq::Error::Io(error) if is_break(&error) => {
                Trouble::Passing { why: format!("the connection to {host} broke ({error})"), wait: None }
            }
            ureq::Error::Io(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => Trouble::Unreachable(format!(
                "{host} cannot be reached ({error}): check the network and the address, and HTTPS_PROXY and \
                 NO_PROXY if there is a proxy, {ELSEWHERE}"
            )),
            ureq::Error::Timeout(_) => Trouble::Passing {
                why: format!("no answer from {host} for {:?}", self.read_timeout),
                wait: None,
            },
            error => Failure::run(format!(
                "the request for {} failed ({error}): check the address, {ELSEWHERE}",
                shown_uri(address)
            ))
            .into(),
        }
    }
}

impl Known {
    /// Adds what the hub states about a file.
    fn add(&mut self, headers: &HeaderMap) {
        let text = |name| headers.get(name)?.to_str().ok();
        let is_commit = |text: &&str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.commit = self.commit.take().or(text("x-repo-commit").filter(is_commit).map(str::to_owned));
        // For a small file this is the name of a git object and not a SHA-256.
        let etag = text("x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        if let (None, Some(Ok(sha256))) = (&self.sha256, etag.map(checksum::parse)) {
            self.sha256 = Some((sha256, "the checksum that the server states"));
            self.size = self.size.or(text("x-linked-size").and_then(|size| size.parse().ok()));
        }
    }
}

/// Whether there was a connection, and it ended too early.
fn is_break(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    [BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof].contains(&error.kind())
}

/// The address that a `Location` header means.
fn join(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let address = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.contains("://") {
        location.to_owned()
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    address.parse().ok().filter(|_| is_web_address(&address))
}

fn text<'headers>(headers: &'headers HeaderMap, name: &HeaderName) -> Option<&'headers str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// Reads `Content-Range: bytes FIRST-LAST/TOTAL`, where TOTAL may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = text(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Whether a text is the address of something on a web server.
pub fn is_web_address(text: &str) -> bool {
    text.parse().is_ok_and(|uri: Uri| matches!(uri.scheme_str(), Some("http" | "https")))
}

/// An address without its password, and without its query, which may contain a secret too.
pub fn shown(url: &str) -> String {
    url.parse().map_or_else(|_| "not an address".into(), |uri| shown_uri(&uri))
}

fn shown_uri(address: &Uri) -> String {
    let scheme = address.scheme_str().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    let port = address.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}{}{port}{}", address.host().unwrap_or_default(), address.path().trim_end_matches('/'))
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
    fn secrets_in_an_address_are_not_shown() {
        assert_eq!(shown("https://user:password@hub:8443/a/?key=secret"), "https://hub:8443/a");
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
