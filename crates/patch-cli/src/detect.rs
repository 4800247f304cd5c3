//! `patch-cli detect`: which heads of a run are of a kind ([`lens::heads`]; TransformerLens's
//! `detect_head`).

use std::io::Write;

use lens::heads::{DetectOptions, ErrorMeasure, HeadKind, detect};
use serde::Serialize;
use tensor::Tensor;

use crate::common::ModelArgs;
use crate::export::{Draw, Grid, Study};
use crate::failure::Failure;
use crate::processing::ProcessArgs;
use crate::report::{Prompt, highest_heads, pad};
use crate::screen;
use crate::study::{StudyArgs, grid_of_heads};

/// Arguments of `detect`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Text to run; for duplicate_token_head and induction_head it must repeat something
    text: String,

    /// The kinds of heads to look for: previous_token_head, duplicate_token_head, induction_head
    /// [default: all]
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    kind: Vec<HeadKind>,

    /// How a pattern is compared with what such a head should look at: mul (the share of the
    /// attention that goes there) or abs (1 minus the mean absolute difference)
    #[arg(long, default_value_t)]
    error_measure: ErrorMeasure,

    /// Leave out attention to the first token
    #[arg(long)]
    exclude_bos: bool,

    /// Leave out attention of a token to itself
    #[arg(long)]
    exclude_current_token: bool,

    /// How many heads to name of each kind
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    study: StudyArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
Examples:
  patch-cli detect 'Michelle Jones and Tom Hart. Michelle Jones and Tom Hart.' --out kinds.png
  patch-cli detect 'one two three one two three' --kind induction_head --exclude-bos --bos";

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    processing: &'a [&'static str],
    bos: bool,
    #[serde(flatten)]
    prompt: &'a Prompt,
    error_measure: String,
    exclude_bos: bool,
    exclude_current_token: bool,
    #[serde(flatten)]
    study: &'a Study,
}

/// Scores every head for every kind.
pub fn run(args: &Args) -> Result<(), Failure> {
    let kinds = args.kinds();
    let outputs = args.study.prepare(&[], kinds.len())?;
    let studied = (args.process).load_for_study(&args.model, args.study.export.is_wanted())?;
    let model = &studied.pretrained;
    let prompt = args.model.prompt(model, &args.text)?;
    args.model.warn_of_unknown_tokens(model, &prompt.ids);
    let options = DetectOptions {
        error_measure: args.error_measure,
        exclude_bos: args.exclude_bos,
        exclude_current_token: args.exclude_current_token,
    };
    let mut found: Vec<(HeadKind, Tensor)> = Vec::new();
    for kind in kinds {
        found.push((kind, detect(studied.model(), &prompt.ids, kind, options)?));
    }
    let grids = found.iter().map(|(kind, scores)| Grid {
        value_label: match args.error_measure {
            ErrorMeasure::Mul => "share of the attention".to_owned(),
            ErrorMeasure::Abs => "1 − mean absolute difference".to_owned(),
        },
        ..grid_of_heads(&kind.to_string(), "", scores)
    });
    let prompts = [("prompt", args.text.as_str())];
    let title = "How much each head is of a kind";
    let study = studied.study(title, &[], &prompts, grids.collect())?;
    outputs.write(&study, &[&|| study.figure()])?;

    let bos = args.model.bos(model)?;
    if args.model.json {
        let report = Report {
            model: &model.name,
            processing: &studied.processing,
            bos: bos.is_some(),
            prompt: &prompt,
            error_measure: args.error_measure.to_string(),
            exclude_bos: args.exclude_bos,
            exclude_current_token: args.exclude_current_token,
            study: &study,
        };
        return screen::print_json(&report);
    }
    let mut out = screen::stdout();
    writeln!(out, "{}\n{}", prompt.row(), prompt.id_row())?;
    writeln!(out, "{}\n", args.model.bos_in_words(model, bos))?;
    for (kind, scores) in &found {
        let name = pad(&kind.to_string(), 20);
        writeln!(out, "{name}  {}", highest_heads(scores, args.top))?;
    }
    outputs.show(&mut out, study.figure()?)?;
    outputs.say(&mut out)?;
    Ok(())
}

impl Args {
    /// The kinds that were asked for, each once; all, if none were.
    fn kinds(&self) -> Vec<HeadKind> {
        let asked = |kind: &HeadKind| self.kind.is_empty() || self.kind.contains(kind);
        HeadKind::ALL.into_iter().filter(asked).collect()
    }
}
