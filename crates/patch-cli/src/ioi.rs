//! `patch-cli ioi`: indirect object identification, the table of the tutorial and what lies behind
//! its mean ([`lens::ioi`]).

use crate::study::{PICTURE, StudyArgs, grid_of_heads};
use gpt2::Gpt2;
use lens::attribution::Attribution;
use lens::ioi::{Row, Table, mean_attribution, table};
use patching::prompts::{Pair, mean_sweep};
use patching::{Direction, Experiment, Scale, SiteKind};
use serde::Serialize;
use tensor::Tensor;
use unicode_width::UnicodeWidthStr;

use crate::common::ModelArgs;
use crate::export::{AxisLabels, Form, Grid, NamedText, Study};
use crate::failure::Failure;
use crate::processing::{ProcessArgs, Studied};
use crate::running::progress_bar;
use report::{largest_heads, pad, quoted};

/// Arguments of `ioi`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The activation of each head to patch from a prompt into its pair: z, q, k, v or pattern
    #[arg(long, default_value_t = SiteKind::Z, value_parser = parse_site)]
    site: SiteKind,

    /// Scale of the sweep: the mean logit difference (value); its change from that of the pair (change); or
    /// normalized, 0 for the pair and 1 for the prompt [default: normalized]
    #[arg(long = "as", value_name = "SCALE", default_value_t = Scale::Normalized, hide_default_value = true)]
    given_as: Scale,

    /// Skip the sweep
    #[arg(long)]
    no_sweep: bool,

    /// Number of heads to list
    #[arg(long, value_name = "K", default_value_t = 8)]
    top: usize,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    study: StudyArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
\"When John and Mary went to the shops, John gave the bag to\" … \" Mary\": the name that stands there
once. The sweep patches each head from a prompt into the one with the names exchanged.

Examples:
  patch-cli ioi
  patch-cli ioi --process --site pattern --out heads.png";

#[derive(Serialize)]
struct PromptReport<'a> {
    prompt: &'a str,
    ids: &'a [u32],
    correct: &'a str,
    incorrect: &'a str,
    logit_diff: f32,
}

/// Prints the table, takes its mean apart, and patches every head.
pub fn run(args: &Args) -> Result<(), Failure> {
    let outputs = args.study.prepare(&[], 4 - usize::from(args.no_sweep))?;
    let studied = (args.process).load_for_study(&args.model, args.study.export.is_wanted())?;
    let model = &studied.pretrained;
    let bos = args.model.bos_by_default(model, true)?;
    let table = table(studied.model(), &model.tokenizer, bos)?;
    let ids: Vec<u32> =
        (table.rows.iter()).flat_map(|row| row.ids.iter().chain(&row.answers)).copied().collect();
    args.model.warn_of_unknown_tokens(model, &ids);
    let attribution = mean_attribution(studied.model(), &table)?;
    let sweep = match args.no_sweep {
        true => None,
        false => Some(sweep_by_head(studied.model(), &table, args.site, args.given_as)?),
    };

    let mut report = studied.report()?;
    report.fact("bos", bos.is_some())?;
    report.fact("prompts", table.rows.iter().map(PromptReport::from).collect::<Vec<_>>())?;
    report.fact("mean_logit_diff", table.mean)?;
    report.line(format!("{}, {}\n", studied.label(), args.model.bos_in_words(model, bos)));
    report.line(table_of_prompts(&table));
    report.line(args.heads_in_words(&attribution, sweep.as_ref()));
    report.study = Some(args.study(&studied, &table, &attribution, sweep.as_ref())?);
    report.draw(PICTURE, &["attribution", &args.sweep_name()]);
    report.show(PICTURE);
    outputs.finish(&report, args.model.json)
}

impl<'a> From<&'a Row> for PromptReport<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            prompt: row.prompt,
            ids: &row.ids,
            correct: row.correct,
            incorrect: row.incorrect,
            logit_diff: row.logit_diff,
        }
    }
}

impl Args {
    fn sweep_name(&self) -> String {
        format!("sweep_{}", self.site)
    }

    /// What a title says of the scale.
    fn scale_in_words(&self) -> &'static str {
        match self.given_as {
            Scale::Value => "values",
            Scale::Change => "changes",
            _ => "normalized",
        }
    }

    /// The logit differences, the components' shares in their mean, the heads', and the sweep.
    fn study(
        &self,
        studied: &Studied,
        table: &Table,
        attribution: &Attribution,
        sweep: Option<&Tensor>,
    ) -> Result<Study, Failure> {
        let line = |name: &str, title: &str, axis: AxisLabels, values: Vec<f32>| Grid {
            name: name.to_owned(),
            title: title.to_owned(),
            form: Form::Lines,
            axes: vec![axis],
            values,
            value_label: "logit(correct) − logit(incorrect)".to_owned(),
            center: Some(0.0),
            ..Grid::default()
        };
        let prompts = table.rows.iter().map(|row| row.prompt.to_owned());
        let (components, shares) = attribution.components().into_iter().unzip();
        let components: Vec<String> = components;
        let mut grids = vec![
            line(
                "logit_diff",
                "Logit difference of each prompt",
                AxisLabels::new("prompt", prompts),
                table.rows.iter().map(|row| row.logit_diff).collect(),
            ),
            line(
                "components",
                "What each component writes of the mean logit difference",
                AxisLabels::new("component", components),
                shares,
            ),
            Grid {
                value_label: "share in the mean logit difference".to_owned(),
                center: Some(0.0),
                legend: vec!["Blue: the head speaks for the correct name; red: against it.".to_owned()],
                ..grid_of_heads(
                    "attribution",
                    "What each head writes of the mean logit difference",
                    &attribution.heads,
                )
            },
        ];
        if let Some(sweep) = sweep {
            let title = format!(
                "Each head's {} patched into the prompt of the pair ({})",
                self.site,
                self.scale_in_words()
            );
            grids.push(Grid {
                value_label: match self.given_as.is_normalized() {
                    true => "0: as the pair; 1: as the prompt".to_owned(),
                    false => format!("mean logit difference, {}", self.given_as),
                },
                center: Some(0.0),
                ..grid_of_heads(&self.sweep_name(), &title, sweep)
            });
        }
        let about = "eight prompts in pairs of exchanged names".to_owned();
        let title = "Indirect objects: which heads name them?";
        let mut study = studied.study(title, &[about], &[], grids)?;
        let rows = table.rows.iter().enumerate();
        study.provenance.prompts = rows
            .map(|(i, row)| NamedText { name: format!("prompt {i}"), text: row.prompt.to_owned() })
            .collect();
        Ok(study)
    }

    fn heads_in_words(&self, attribution: &Attribution, sweep: Option<&Tensor>) -> String {
        let shares = format!(
            "\nheads with the largest shares in the mean logit difference (direct logit attribution)\n{}",
            largest_heads(&attribution.heads, self.top)
        );
        let Some(sweep) = sweep else {
            return shares;
        };
        let scale = match self.given_as {
            Scale::Value => "the mean logit difference",
            Scale::Change => "the change of the mean logit difference from that of the pair",
            _ => "0: the mean logit difference stays that of the pair; 1: it becomes that of the prompt",
        };
        format!(
            "{shares}\n\nheads whose {}, patched from each prompt into its pair with the other name, changes most\n\
             ({scale})\n{}",
            self.site,
            largest_heads(sweep, self.top)
        )
    }
}

fn table_of_prompts(table: &Table) -> String {
    let width = table.rows.iter().map(|row| row.prompt.width()).max();
    let width = width.unwrap_or(0);
    let head = format!("{}  {:<11}{:<11}{:>10}", pad("prompt", width), "correct", "incorrect", "logit diff");
    let row = |row: &Row| {
        let [correct, incorrect] = [row.correct, row.incorrect].map(|answer| pad(&quoted(answer), 11));
        format!("{}  {correct}{incorrect}{:>+10.4}", pad(row.prompt, width), row.logit_diff)
    };
    let mean = format!("{}{:>+10.4}", pad("mean", width + 24), table.mean);
    [head].into_iter().chain(table.rows.iter().map(row)).chain([mean]).collect::<Vec<_>>().join("\n")
}

/// Every head's site patched, at all positions, from each prompt (clean) into its pair (corrupted),
/// `(n_layer, n_head)`: the mean logit difference of the clean prompts' answers, on a scale on which, if it
/// is normalised, it is 0 in the corrupted runs and 1 in the clean ones (TransformerLens's `ioi_metric`).
///
/// # Errors
/// If the scale is normalised, and the means of the unpatched runs are too close to each other.
fn sweep_by_head(model: &Gpt2, table: &Table, site: SiteKind, scale: Scale) -> Result<Tensor, Failure> {
    // Two and two have the same names, in exchanged roles.
    let pair = |(i, row): (usize, &Row)| {
        let (clean, corrupted) = (row.ids.clone(), table.rows[i ^ 1].ids.clone());
        let experiment = Experiment::new(model, clean, corrupted, Direction::Denoising)?;
        Ok(Pair { line: i + 1, experiment, a: vec![row.answers[0]], b: vec![row.answers[1]] })
    };
    let pairs = table.rows.iter().enumerate().map(pair).collect::<Result<Vec<Pair>, Failure>>()?;
    let [n_layer, n_head] = [model.config.n_layer, model.config.n_head];
    let (bar, progress) = progress_bar(pairs.len(), pairs.len() * n_layer * n_head);
    let means = mean_sweep(model, &pairs, site, scale, &progress)?;
    bar.finish_and_clear();
    Ok(Tensor::new(&[n_layer, n_head], means.values))
}

/// A site that has heads.
fn parse_site(text: &str) -> Result<SiteKind, String> {
    let by_head = [SiteKind::Z, SiteKind::Q, SiteKind::K, SiteKind::V, SiteKind::Pattern];
    let found = text.parse().ok().filter(|site| by_head.contains(site));
    found.ok_or_else(|| format!("\"{text}\" is not an activation of a head; give z, q, k, v or pattern"))
}
