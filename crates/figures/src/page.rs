//! The page of one experiment, and that of a circuit ([`CircuitPage`]): a single HTML file that can be
//! explored in a browser, offline.
//!
//! [`Page`] is plain data. [`render_page`] puts it, as JSON, into a fixed page whose script draws it. What
//! comes from a user (prompts, tokens, names) is never markup: in the file it stands inside the JSON,
//! where every `<` is written `\u003c`, and the script puts it on the page as text. Should a mistake
//! let markup through all the same, the page's content security policy stops it: only the page's own
//! script and style, which it names by their hashes, may run, and nothing may be fetched from anywhere.

mod circuit;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

pub use self::circuit::{CircuitPage, render_circuit_page};

/// What the script of any page needs first: helpers, tables that can be sorted, light and dark, the tooltip. It reads
/// the element "data" ([`data`]).
pub const COMMON_SCRIPT: &str = include_str!("page/common.js");
/// What pages look like.
pub const COMMON_STYLE: &str = include_str!("page/page.css");

const TEMPLATE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = concat!(include_str!("page/common.js"), include_str!("page/page.js"));

/// Everything that a page shows.
#[derive(Debug, Serialize)]
pub struct Page {
    /// What made it: names with their values, in the order of reading.
    pub provenance: Vec<(String, String)>,
    /// The run that is patched: "clean" or "corrupted". The source is the other.
    pub base: &'static str,
    /// Every token that the page shows, once.
    pub tokens: Tokens,
    /// The clean and the corrupted prompt, of equally many tokens.
    pub prompts: Runs<Prompt>,
    /// The numbers that are read off each run.
    pub metrics: Vec<Metric>,
    /// One grid of patched runs for each site.
    pub grids: Vec<Grid>,
    /// The most likely next tokens of the unpatched runs.
    pub top: Runs<Top>,
    /// Where the heads attend in the unpatched runs; none if that would make the page too large.
    pub attention: Option<Attention>,
}

/// The same thing of both unpatched runs.
#[derive(Debug, Serialize)]
pub struct Runs<T> {
    /// Of the clean run.
    pub clean: T,
    /// Of the corrupted run.
    pub corrupted: T,
}

/// A table of tokens: everywhere else in a [`Page`] a token is an index into it.
#[derive(Debug, Default, Serialize)]
pub struct Tokens {
    /// Their ids.
    pub ids: Vec<u32>,
    /// Their texts as people can read them ([`visible`]).
    pub texts: Vec<String>,
}

/// A prompt.
#[derive(Debug, Serialize)]
pub struct Prompt {
    /// Its text, with everything invisible but spaces escaped.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<usize>,
}

/// A number that is read off the last logits of a run.
#[derive(Debug, Serialize)]
pub struct Metric {
    /// What it is, for example `logit(" Smith") − logit(" Jones")`.
    pub label: String,
    /// What a low value (red) says of a run, for example `favours " Jones"`.
    pub low: String,
    /// What a high value (blue) says of a run.
    pub high: String,
    /// The token that makes it low, if there is one.
    pub low_token: Option<usize>,
    /// The token that makes it high.
    pub high_token: Option<usize>,
    /// The value between red and blue.
    pub center: f32,
    /// The metric of the unpatched runs.
    pub unpatched: Runs<f32>,
}

/// The patched runs of one site.
#[derive(Debug, Serialize)]
pub struct Grid {
    /// The site, for example "resid_post".
    pub site: String,
    /// What the columns are: "pos" or "head". The rows are layers.
    pub columns: String,
    /// How many rows and columns there are.
    pub shape: [usize; 2],
    /// For each metric the value of every cell, row after row.
    pub values: Vec<Vec<f32>>,
    /// For each cell the patched run's most likely next tokens; none where they are the base run's.
    pub top: Vec<Option<Top>>,
}

/// The most likely next tokens of a run, the most likely first: token, logit, probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Top(pub Vec<(usize, f64, f64)>);

/// Where every head attends.
#[derive(Debug, Serialize)]
pub struct Attention {
    /// How many layers there are.
    pub n_layer: usize,
    /// How many heads each layer has.
    pub n_head: usize,
    /// For each layer and head, the heads of a layer together, the pattern's rows up to the diagonal
    /// one after the other: one number for the first token, two for the second…; ten-thousandths.
    pub patterns: Runs<Vec<Vec<u16>>>,
}

/// The page as an HTML file. `software` is the name and version of the program that makes it, which the file
/// names in its first lines.
///
/// # Errors
/// If a number cannot be written as JSON.
pub fn render_page(page: &Page, software: &str) -> Result<String, serde_json::Error> {
    let data = data(page)?;
    let (script_hash, style_hash) = (hash(SCRIPT), hash(STYLE));
    Ok(filled(
        TEMPLATE,
        &[
            ("data", &data),
            ("script", SCRIPT),
            ("script_hash", &script_hash),
            ("software", software), // by this, where it stands, the page is known as ours
            ("style", STYLE),
            ("style_hash", &style_hash),
        ],
    ))
}

/// What a page shows, as JSON inside a script element.
///
/// # Errors
/// If a number cannot be written as JSON.
pub fn data(page: &impl Serialize) -> Result<String, serde_json::Error> {
    // A script element ends at "</script" wherever it stands, also inside a JSON string.
    Ok(serde_json::to_string(page)?.replace('<', "\\u003c"))
}

/// A template with all its places filled: in one pass, so that a prompt that says {{script}} stays what it is.
fn filled(template: &str, places: &[(&str, &str)]) -> String {
    let length: usize = places.iter().map(|(_, text)| text.len()).sum();
    let mut html = String::with_capacity(template.len() + length);
    for (i, piece) in template.split("{{").enumerate() {
        let rest = match piece.split_once("}}") {
            Some((name, rest)) if i > 0 => {
                let place = places.iter().find(|(place, _)| *place == name);
                html += place.unwrap_or_else(|| panic!("the page has an unknown place {{{{{name}}}}}")).1;
                rest
            }
            _ => piece,
        };
        html += rest;
    }
    html
}

/// A script or style as a content security policy names it.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of the main job on a model of GPT-2 small's size, as large as it can become: four sites,
    /// no two cells alike, and attention spread over all tokens.
    fn large_page(prompt: &str) -> Page {
        const N_LAYER: usize = 12;
        const N_TOKENS: usize = 11;
        let top = |cell: usize| {
            let next = |i: usize| {
                let x = (cell * 10 + i) as f64;
                (i, -(x * 10.0 + 1000.1234), 0.123_456)
            };
            Top((0..10).map(next).collect())
        };
        let both = || Runs { clean: top(0), corrupted: top(1) };
        let metric = || Metric {
            label: format!("logit({prompt}) − logit(b)"),
            low: "favours b".to_owned(),
            high: "favours a".to_owned(),
            low_token: Some(0),
            high_token: Some(1),
            center: 0.0,
            unpatched: Runs { clean: -10.827_942, corrupted: 12.571_512 },
        };
        let grid = |columns: &str, n: usize| Grid {
            site: "resid_post".to_owned(),
            columns: columns.to_owned(),
            shape: [N_LAYER, n],
            values: vec![vec![-12.571_512; N_LAYER * n]; 4],
            top: (0..N_LAYER * n).map(|cell| Some(top(cell))).collect(),
        };
        let patterns = || {
            let row = |dest: usize| vec![10_000 / (dest as u16 + 1) + 1; dest + 1];
            vec![(0..N_TOKENS).flat_map(row).collect(); N_LAYER * 12]
        };
        let prompt_of = || Prompt { text: prompt.to_owned(), tokens: (0..N_TOKENS).collect() };
        Page {
            provenance: vec![("command".to_owned(), prompt.to_owned())],
            base: "corrupted",
            tokens: Tokens { ids: (0..500).collect(), texts: vec![prompt.to_owned(); 500] },
            prompts: Runs { clean: prompt_of(), corrupted: prompt_of() },
            metrics: (0..4).map(|_| metric()).collect(),
            grids: vec![
                grid("pos", N_TOKENS),
                grid("pos", N_TOKENS),
                grid("pos", N_TOKENS),
                grid("head", 12),
            ],
            top: both(),
            attention: Some(Attention {
                n_layer: N_LAYER,
                n_head: 12,
                patterns: Runs { clean: patterns(), corrupted: patterns() },
            }),
        }
    }

    /// The data in a page, read again.
    pub fn data_of(html: &str) -> serde_json::Value {
        let start = r#"<script id="data" type="application/json">"#;
        let (_, rest) = html.split_once(start).unwrap();
        let (data, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn the_main_job_of_gpt2_small_stays_far_below_two_megabytes() {
        let html = render_page(&large_page(" Michelle"), "test 0").unwrap();
        assert!(html.len() < 600_000, "{} bytes", html.len());
    }

    #[test]
    fn no_text_ends_the_data_or_is_taken_for_a_place_of_the_template() {
        for text in
            ["</script><img src=x onerror=alert(1)>", "<!--<script>", "{{script}} }} {{", "\"\\\u{2028}\u{0}"]
        {
            let html = render_page(&large_page(text), "test 0").unwrap();
            assert_eq!(data_of(&html)["prompts"]["clean"]["text"], text);
            assert_eq!(html.matches("</script").count(), 2);
            assert_eq!(html.matches(SCRIPT).count(), 1);
            assert_eq!(html.matches(STYLE).count(), 1);
        }
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_and_nothing_else() {
        let html = render_page(&large_page("a"), "test 0").unwrap();
        // The hash of the empty text, as the standard's examples have it.
        assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        let policy = format!(
            "content=\"default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; \
             base-uri 'none'; form-action 'none'\"",
            hash(SCRIPT),
            hash(STYLE)
        );
        assert!(html.contains(&policy), "{policy}");
        // They stand on the page byte for byte, or the browser would refuse them.
        assert!(html.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(html.contains(&format!("<style>{STYLE}</style>")));
    }
}
