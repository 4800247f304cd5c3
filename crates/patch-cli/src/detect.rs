//! `patch-cli detect`: which heads of a run are of a kind ([`lens::heads`]; TransformerLens's
//! `detect_head`).

use crate::export::Grid;
use crate::study::{PICTURE, StudyArgs, grid_of_heads};
use lens::heads::{DetectOptions, ErrorMeasure, HeadKind, detect};
use report::{highest_heads, pad};
use tensor::Tensor;

use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::processing::ProcessArgs;

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

    /// Number of heads to list of each kind
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

    let bos = args.model.bos(model)?;
    let mut report = studied.report()?;
    report.fact("bos", bos.is_some())?;
    report.prompt(&prompt)?;
    report.fact("error_measure", args.error_measure.to_string())?;
    report.fact("exclude_bos", args.exclude_bos)?;
    report.fact("exclude_current_token", args.exclude_current_token)?;
    report.line(format!("{}\n{}", prompt.row(), prompt.id_row()));
    report.line(format!("{}\n", args.model.bos_in_words(model, bos)));
    for (kind, scores) in &found {
        let name = pad(&kind.to_string(), 20);
        report.line(format!("{name}  {}", highest_heads(scores, args.top)));
    }
    report.study = Some(study);
    report.draw(PICTURE, &[]);
    report.show(PICTURE);
    outputs.finish(&report, args.model.json)
}

impl Args {
    /// The kinds that were asked for, each once; all, if none were.
    fn kinds(&self) -> Vec<HeadKind> {
        let asked = |kind: &HeadKind| self.kind.is_empty() || self.kind.contains(kind);
        HeadKind::ALL.into_iter().filter(asked).collect()
    }
}
