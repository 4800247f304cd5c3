//! The page: its files as they are sent, and what its script reads first.

use patching::{Axis, Scale};
use serde::Serialize;
use visible::visible_line;

use crate::ask::SITES;
use crate::http::Refusal;
use crate::metric::Kind;
use crate::server::Server;

const PAGE: &str = include_str!("page/index.html");

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The files beside the page: name, type, contents.
const FILES: [(&str, &str, &str); 14] = [
    ("common.js", SCRIPT, figures::page::COMMON_SCRIPT),
    ("common.css", STYLE, figures::page::COMMON_STYLE),
    ("explorer.css", STYLE, include_str!("page/explorer.css")),
    ("api.js", SCRIPT, include_str!("page/api.js")),
    ("circuit.js", SCRIPT, include_str!("page/circuit.js")),
    ("fields.js", SCRIPT, include_str!("page/fields.js")),
    ("grid.js", SCRIPT, include_str!("page/grid.js")),
    ("lens.js", SCRIPT, include_str!("page/lens.js")),
    ("look.js", SCRIPT, include_str!("page/look.js")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("share.js", SCRIPT, include_str!("page/share.js")),
    ("state.js", SCRIPT, include_str!("page/state.js")),
    ("tokens.js", SCRIPT, include_str!("page/tokens.js")),
    ("tour.js", SCRIPT, include_str!("page/tour.js")),
];

/// What the script reads first.
#[derive(Serialize)]
struct Data {
    model: String,
    n_layer: usize,
    n_head: usize,
    sites: Vec<Site>,
    metrics: Vec<Named>,
    scales: [String; 3],
    /// What is shown where the address says nothing: the main job.
    start: Start,
}

#[derive(Serialize)]
struct Site {
    name: String,
    /// What the columns of its grid are: "pos" or "head".
    axis: String,
    /// Whether a place of it may be edited for good.
    head: bool,
}

#[derive(Serialize)]
struct Named {
    name: String,
    label: String,
}

#[derive(Serialize)]
struct Start {
    clean: &'static str,
    corrupted: &'static str,
    a: &'static str,
    b: &'static str,
}

/// The main job.
const START: Start = Start {
    clean: "Michelle Jones was a top-notch student. Michelle",
    corrupted: "Michelle Smith was a top-notch student. Michelle",
    a: " Smith",
    b: " Jones",
};

/// A file of the page, with its type.
pub fn file(path: &str, server: &Server) -> Result<(&'static str, Vec<u8>), Refusal> {
    if path.is_empty() {
        let data = data(server).map_err(|error| Refusal::new(500, error.to_string()))?;
        return Ok(("text/html; charset=utf-8", PAGE.replacen("{{data}}", &data, 1).into_bytes()));
    }
    let found = FILES.iter().find(|(name, ..)| *name == path);
    let (_, kind, text) = found.ok_or_else(|| Refusal::new(404, "there is no file of this name"))?;
    Ok((kind, text.as_bytes().to_vec()))
}

fn data(server: &Server) -> Result<String, serde_json::Error> {
    let model = &server.bench().model;
    let config = &model.model.config;
    let site = |site: patching::SiteKind| Site {
        name: site.to_string(),
        axis: site.default_axes()[1].to_string(),
        head: site.axes().contains(&Axis::Head),
    };
    figures::page::data(&Data {
        model: visible_line(&model.name),
        n_layer: config.n_layer,
        n_head: config.n_head,
        sites: SITES.into_iter().map(site).collect(),
        metrics: Kind::ALL
            .into_iter()
            .map(|kind| Named { name: kind.to_string(), label: kind.formula("A", "B") })
            .collect(),
        scales: [Scale::Value, Scale::Change, Scale::Normalized].map(|scale| scale.to_string()),
        start: START,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_all_its_files_stay_below_300_kilobytes() {
        let bytes = PAGE.len() + FILES.iter().map(|(.., text)| text.len()).sum::<usize>();
        assert!(bytes < 300_000, "{bytes} bytes");
        for (name, kind, text) in FILES {
            assert!(text.lines().count() < 400, "{name} is long");
            // Whatever it needs it has itself.
            assert!(!text.contains("https://") && !text.contains("innerHTML"), "{name} {kind}");
        }
    }
}
