//! Who may ask: only the page that this server has sent, in the browser of whoever started it.
//!
//! Any page in the browser can send requests to 127.0.0.1, and a name that an attacker owns can be made to mean it (DNS
//! rebinding). So every path begins with a secret, the host must be this server by its number, and a browser that says
//! where a request comes from must say: from here.

use std::fmt::Write as _;
use std::io;

use crate::http::{Refusal, Request};

/// What a request must know.
pub struct Guard {
    port: u16,
    secret: String,
}

impl Guard {
    /// With a new secret of 128 random bits.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(port: u16) -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let mut secret = String::new();
        for byte in bytes {
            // (Writing into a string cannot fail.)
            let _ = write!(secret, "{byte:02x}");
        }
        Ok(Self { port, secret })
    }

    /// Where the page is.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/{}/", self.port, self.secret)
    }

    /// The path behind the secret.
    ///
    /// # Errors
    /// With the reason, which says nothing of the secret.
    pub fn admit<'a>(&self, request: &'a Request) -> Result<&'a str, Refusal> {
        let forbidden = |reason: &str| Err(Refusal::new(403, reason));
        let host = request.header("host")?.unwrap_or_default();
        if !["127.0.0.1", "localhost"].iter().any(|name| host == format!("{name}:{}", self.port)) {
            return forbidden("the header Host does not name this server");
        }
        if request.header("origin")?.is_some_and(|origin| origin != format!("http://{host}")) {
            return forbidden("the request comes from another origin");
        }
        // Somebody may follow a link to the page, from a note, say; nothing else comes from another site.
        let is_followed = request.method == "GET"
            && request.header("sec-fetch-dest")?.is_some_and(|dest| dest == "document");
        let site = request.header("sec-fetch-site")?;
        if site.is_some_and(|site| site != "same-origin" && site != "none") && !is_followed {
            return forbidden("the request comes from another site");
        }
        let path = request.target.strip_prefix('/').unwrap_or_default();
        match path.split_once('/') {
            Some((secret, rest)) if is_same(secret, &self.secret) => {
                Ok(rest.split('?').next().unwrap_or_default())
            }
            _ => forbidden("the address lacks the token that patch-cli explore has printed"),
        }
    }
}

/// Compares in a time that does not depend on where the texts differ.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
