//! The explorer: a page in the browser that asks this machine's model while one types.
//!
//! A [`Server`] listens on 127.0.0.1 only, sends one page, and answers the questions of that page with what
//! [`patching`] and [`lens`] compute. No request leaves the machine, and none from elsewhere is answered.
//!
//! | file | what it holds |
//! |---|---|
//! | `server.rs` | connections, and which request gets which answer |
//! | `http.rs` | as much of HTTP as that needs |
//! | `guard.rs` | who may ask: host, origin and the secret in the address |
//! | `queue.rs` | whose turn it is to compute; the newest request of a tab wins |
//! | `client.rs` | answers line by line, with progress; work stops when nobody waits for it |
//! | `ask.rs`, `metric.rs` | from what is typed to an experiment |
//! | `studies.rs`, `walk.rs` | the studies: sweep, runs, logit lens, circuits |
//! | `export.rs` | the command that computes the same, and the files that it writes |
//! | `page.rs`, `page/` | the page: plain HTML, CSS and modules of JavaScript |

mod ask;
mod client;
mod export;
mod guard;
mod http;
mod metric;
mod page;
mod queue;
mod server;
mod studies;
mod walk;

pub use export::Exporter;
pub use server::Server;
pub use studies::Bench;
