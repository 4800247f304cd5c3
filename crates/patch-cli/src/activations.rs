//! `patch-cli activations`: every activation of a run in a few numbers (the listing of
//! TransformerLens's `run_with_cache`).

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;

use gpt2::{Site, SiteKind};
use lens::ActivationCache;
use lens::cache::{Summary, run_with_cache_of};
use serde::Serialize;
use tensor::Tensor;
use unicode_width::UnicodeWidthStr;
use wildmatch::WildMatch;

use crate::common::ModelArgs;
use crate::computation::computation;
use crate::export::{AxisLabels, ExportArgs, Grid, Study, named};
use crate::failure::Failure;
use crate::processing::{ProcessArgs, Studied};
use crate::screen;
use report::{Prompt, pad, pad_left};
use visible::visible_path;

/// Arguments of `activations`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Text to run
    text: String,

    /// Only the activations whose names match, such as 'blocks.*.hook_resid_post' (* is anything, ?
    /// one character), or resid_post for those of all layers; can be given several times
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,

    /// Write the numbers of these activations: FILE.safetensors, or FILE.npy of one. (The logits, the
    /// largest of all, are written only if a pattern of --only matches them)
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
Norm is √ Σ x². Shapes are positions × width, positions × heads × width of a head, or, of scores and
patterns, heads × attending × attended positions; the −∞ of masked scores are left out of the numbers.
Last come the logits of the token after each position, positions × vocabulary, under the name logits.

Examples:
  patch-cli activations 'Michelle Jones was'
  patch-cli activations 'Michelle Jones was' --only 'blocks.*.hook_resid_post' --save stream.safetensors
  patch-cli activations 'Michelle Jones was' --only blocks.5.attn.hook_pattern --save pattern.npy
  patch-cli activations 'Michelle Jones was' --only logits --save logits.npy";

/// The name of the logits, which are not a site of the forward pass: TransformerLens returns them beside
/// its cache.
const LOGITS: &str = "logits";

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    processing: &'a [&'static str],
    bos: bool,
    #[serde(flatten)]
    prompt: &'a Prompt,
    activations: Vec<Row>,
}

/// One activation; the −∞ of masked scores are left out of all numbers.
#[derive(Serialize)]
struct Row {
    name: String,
    shape: Vec<usize>,
    sum: f64,
    mean: f64,
    norm: f64,
    min: f32,
    max: f32,
}

impl From<Summary> for Row {
    fn from(summary: Summary) -> Self {
        let Summary { name, shape, sum, mean, norm, min, max } = summary;
        Self { name, shape, sum, mean, norm, min, max }
    }
}

/// Runs the text and lists its activations.
pub fn run(args: &Args) -> Result<(), Failure> {
    let studied = (args.process).load_for_study(&args.model, args.save.is_some())?;
    let model = &studied.pretrained;
    let prompt = args.model.prompt(model, &args.text)?;
    let chosen = args.chosen(model.model.config.n_layer)?;
    args.model.warn_of_unknown_tokens(model, &prompt.ids);

    let with_logits = args.only.is_empty() || args.saves_logits();
    // Before the run, which may be long: whether the file can be written.
    let grids = chosen.len() + usize::from(args.saves_logits());
    let exports = args.exports()?.prepare(grids)?;
    let mut cache = run_with_cache_of(studied.model(), &prompt.ids, |site| {
        chosen.contains(&site) || (with_logits && site == SiteKind::LnFinalNormalized.at(0))
    })?;
    let logits = with_logits.then(|| studied.model().unembed(&cache[SiteKind::LnFinalNormalized.at(0)]));
    cache.retain(|site| chosen.contains(&site));
    let summaries = cache.summaries().into_iter();
    let of_logits = logits.iter().map(|x| Summary::of(LOGITS, x));
    let rows: Vec<Row> = summaries.chain(of_logits).map(Row::from).collect();
    if args.save.is_some() {
        let logits = logits.filter(|_| args.saves_logits());
        exports.write(&args.study(&studied, &prompt, &cache, logits)?)?;
    }
    let bos = args.model.bos(model)?;
    if args.model.json {
        let report = Report {
            model: &model.name,
            processing: &studied.processing,
            bos: bos.is_some(),
            prompt: &prompt,
            activations: rows,
        };
        return screen::print_json(&report);
    }
    let mut out = screen::stdout();
    writeln!(out, "{}\n{}", prompt.row(), prompt.id_row())?;
    writeln!(out, "{}\n", args.model.bos_in_words(model, bos))?;
    write_table(&mut out, &rows)?;
    for path in exports.paths() {
        writeln!(out, "\nwrote {}", visible_path(path))?;
    }
    if args.save.is_some() && args.only.is_empty() {
        writeln!(out, "(without the logits, which --only logits saves)")?;
    }
    Ok(())
}

impl Args {
    /// The file to write, by its name's end.
    fn exports(&self) -> Result<ExportArgs, Failure> {
        let none = || ExportArgs { csv: None, npy: None, safetensors: None };
        let Some(path) = &self.save else {
            return Ok(none());
        };
        let file = Some(path.clone());
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(end) if end.eq_ignore_ascii_case("npy") => Ok(ExportArgs { npy: file, ..none() }),
            Some(end) if end.eq_ignore_ascii_case("safetensors") => {
                Ok(ExportArgs { safetensors: file, ..none() })
            }
            _ => Err(Failure::Input(format!(
                "--save {}: give a name that ends in .safetensors, or in .npy for one activation",
                path.display()
            ))),
        }
    }

    /// The activations as grids with their names.
    fn study(
        &self,
        studied: &Studied,
        prompt: &Prompt,
        cache: &ActivationCache,
        logits: Option<Tensor>,
    ) -> Result<Study, Failure> {
        let grids = cache.iter().map(|(site, x)| Grid {
            name: site.to_string(),
            axes: axes(site, x, prompt),
            values: x.data().to_vec(),
            ..Grid::default()
        });
        let logits = logits.map(|x| {
            let vocabulary = 0..x.row_len() as u32;
            let token = |id: u32| studied.pretrained.tokenizer.token(id);
            Grid {
                name: LOGITS.to_owned(),
                axes: vec![
                    AxisLabels::new("pos", prompt.tokens.iter().cloned()),
                    AxisLabels::new("token", vocabulary.map(token)),
                ],
                values: x.into_data(),
                ..Grid::default()
            }
        });
        let prompts = [("prompt", prompt.text.as_str())];
        Ok(Study {
            provenance: studied.provenance(named(&prompts), computation([]))?,
            numbers_sha256: None,
            title: "Activations".to_owned(),
            subtitle: vec![format!("prompt: {}", prompt.text), format!("model: {}", studied.label())],
            grids: grids.chain(logits).collect(),
        })
    }

    /// Whether the logits were asked for by name.
    fn saves_logits(&self) -> bool {
        (self.only.iter()).any(|pattern| WildMatch::new(pattern).matches(LOGITS))
    }

    /// The sites whose names were asked for, in the order of the run: all, if none were.
    fn chosen(&self, n_layer: usize) -> Result<Vec<Site>, Failure> {
        if self.only.is_empty() {
            return Ok(Site::all(n_layer).collect());
        }
        let mut chosen = HashSet::new();
        for text in &self.only {
            let pattern = WildMatch::new(text);
            let matching = matching(&pattern, n_layer);
            if matching.is_empty() && !pattern.matches(LOGITS) {
                return Err(Failure::Input(format!(
                    "no activation is called \"{text}\": their names are like hook_embed, \
                     blocks.0.hook_resid_pre, blocks.0.attn.hook_z, ln_final.hook_scale and logits, with \
                     the layers 0 to {}, or resid_pre and z for those of all layers; `patch-cli activations \
                     TEXT` lists all of them",
                    n_layer.saturating_sub(1)
                )));
            }
            chosen.extend(matching);
        }
        Ok(Site::all(n_layer).filter(|site| chosen.contains(site)).collect())
    }
}

/// The sites whose whole names match a pattern; if there are none, those whose names do so behind some dot,
/// where `hook_` may be left out: `attn.hook_z`, `hook_z` and `z` are the z of every layer.
fn matching(pattern: &WildMatch, n_layer: usize) -> Vec<Site> {
    let whole = |site: &Site| pattern.matches(&site.to_string());
    let end = |site: &Site| {
        let name = site.to_string();
        let dots = name.match_indices('.').map(|(dot, _)| dot + 1);
        let mut ends = dots.chain([0]).map(|start| &name[start..]);
        ends.any(|end| pattern.matches(end) || pattern.matches(&end.replacen("hook_", "", 1)))
    };
    let found: Vec<Site> = Site::all(n_layer).filter(whole).collect();
    match found.is_empty() {
        true => Site::all(n_layer).filter(end).collect(),
        false => found,
    }
}

/// What each axis of an activation counts.
fn axes(site: Site, x: &Tensor, prompt: &Prompt) -> Vec<AxisLabels> {
    let tokens = |name: &str| AxisLabels::new(name, prompt.tokens.iter().cloned());
    let indices = |axis: usize, name: &str| AxisLabels::indices(name, x.shape()[axis]);
    match (site.kind, x.shape().len()) {
        (SiteKind::AttnScores | SiteKind::Pattern, _) => {
            vec![indices(0, "head"), tokens("dest"), tokens("src")]
        }
        (_, 3) => vec![tokens("pos"), indices(1, "head"), indices(2, "dim")],
        _ => vec![tokens("pos"), indices(1, "dim")],
    }
}

fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let shapes: Vec<String> = (rows.iter())
        .map(|row| {
            let axes: Vec<String> = row.shape.iter().map(usize::to_string).collect();
            axes.join(" × ")
        })
        .collect();
    let widest = |texts: &mut dyn Iterator<Item = &str>| texts.map(|t| t.width()).max();
    let name_width = widest(&mut rows.iter().map(|row| row.name.as_str()).chain(["name"]));
    let shape_width = widest(&mut shapes.iter().map(String::as_str).chain(["shape"]));
    let [name_width, shape_width] = [name_width, shape_width].map(|width| width.unwrap_or(0));
    writeln!(
        out,
        "{}  {}  {:>11}  {:>9}  {:>10}  {:>9}  {:>9}",
        pad("name", name_width),
        pad_left("shape", shape_width),
        "sum",
        "mean",
        "norm",
        "min",
        "max"
    )?;
    for (row, shape) in rows.iter().zip(&shapes) {
        let Row { name, sum, mean, norm, min, max, .. } = row;
        writeln!(
            out,
            "{}  {}  {sum:>11.3}  {mean:>9.4}  {norm:>10.3}  {min:>9.3}  {max:>9.3}",
            pad(name, name_width),
            pad_left(shape, shape_width)
        )?;
    }
    Ok(())
}
