//! `patch-cli lens`: what the residual stream says on its way up ([`lens::logit_lens`](mod@lens::logit_lens)), and
//! which component wrote the answer into it ([`lens::attribution`]).

use crate::study::{PICTURE, StudyArgs, grid_of_heads};
use report::{Prompt, Report, largest_heads, quoted};
use std::path::PathBuf;

use lens::attribution::{Attribution, direct_logit_attribution};
use lens::logit_lens::{LogitLens, logit_lens};
use serde::Serialize;
use tensor::Tensor;

use crate::common::ModelArgs;
use crate::export::{AxisLabels, Form, Grid, Highlight, Study};
use crate::failure::Failure;
use crate::place::Place;
use crate::processing::{ProcessArgs, Studied};

/// Arguments of `lens`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Text to run
    text: String,

    /// The two tokens to compare, as logit(A) − logit(B): adds the attribution
    #[arg(long, value_names = ["A", "B"], num_args = 2, allow_hyphen_values = true)]
    answers: Option<Vec<String>>,

    /// The position whose next token is attributed, from 0, or from the end: -1 is the last [default: -1]
    #[arg(long, value_name = "N", requires = "answers", allow_hyphen_values = true)]
    pos: Option<Place>,

    /// Number of heads to list
    #[arg(long, value_name = "K", default_value_t = 8)]
    top: usize,

    /// Picture of each head's share
    #[arg(long, value_name = "FILE", requires = "answers")]
    out_heads: Option<PathBuf>,

    /// Picture of each component's share
    #[arg(long, value_name = "FILE", requires = "answers")]
    out_components: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    study: StudyArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
Every block adds to the residual stream, so ln_f and the unembedding can read it at any point: that is
the logit lens. Logits are linear in the last row but for the division by ln_f's scale; with that scale
held fixed, each component has its share of logit(A) − logit(B), and the shares add up to it. What a
component does through later ones is not in its share: that is what patching is for.

Examples:
  patch-cli lens 'Famous computer scientist Alan'
  patch-cli lens 'Michelle Jones was a top-notch student. Michelle' --answers ' Jones' ' Smith' \\
            --out lens.png --out-heads heads.png --out-components components.png";

/// Shares in logit(A) − logit(B).
#[derive(Serialize)]
struct AttributionReport {
    pos: usize,
    /// Of each component, in the order in which they write.
    components: Vec<Share>,
    /// Of each attention layer's bias: with those of its heads (the grid `heads`), all of its
    /// `attn_out`.
    attn_bias: Vec<f32>,
    /// What they add up to.
    sum: f32,
    /// What the model says.
    logit_diff: f32,
}

#[derive(Serialize)]
struct Share {
    component: String,
    share: f32,
}

/// The two answers and what is attributed to whom.
struct Compared<'a> {
    names: [&'a str; 2],
    pos: usize,
    parts: Attribution,
}

/// Reads every point of the residual stream, and takes the answers' difference apart.
pub fn run(args: &Args) -> Result<(), Failure> {
    let count = if args.answers.is_some() { 7 } else { 1 };
    let others = [("heads", &args.out_heads), ("components", &args.out_components)];
    let outputs = args.study.prepare(&others, count)?;
    let studied = (args.process).load_for_study(&args.model, args.study.export.is_wanted())?;
    let model = &studied.pretrained;
    let prompt = args.model.prompt(model, &args.text)?;
    let ids = &prompt.ids;
    let names: Option<[&str; 2]> = match args.answers.as_deref() {
        Some([a, b]) => Some([a, b]),
        _ => None,
    };
    let answers = match names {
        Some([a, b]) => args.answer_ids(&studied, [a, b])?.to_vec(),
        None => Vec::new(),
    };
    let all: Vec<u32> = ids.iter().chain(&answers).copied().collect();
    args.model.warn_of_unknown_tokens(model, &all);

    let lens = logit_lens(studied.model(), ids, &answers)?;
    let pos = args.pos.unwrap_or(Place::END).of(ids.len(), "position");
    let pos = pos.map_err(|failure| failure.at("--pos"))?;
    let compared = match (names, answers.as_slice()) {
        (Some(names), &[a, b]) => {
            Some(Compared { names, pos, parts: direct_logit_attribution(studied.model(), ids, pos, a, b)? })
        }
        _ => None,
    };
    let top_tokens: Vec<Vec<String>> = (lens.top_token.chunks(ids.len()))
        .zip(lens.top_prob.data().chunks(ids.len()))
        .map(|(row, probs)| {
            let tokens = model.tokenizer.tokens(row).into_iter().zip(probs);
            // Logits that are not finite numbers have no most likely token.
            tokens.map(|(token, prob)| if prob.is_nan() { String::new() } else { token }).collect()
        })
        .collect();

    let bos = args.model.bos(model)?;
    let mut report = studied.report()?;
    report.fact("bos", bos.is_some())?;
    report.prompt(&prompt)?;
    report.fact("points", &lens.labels)?;
    report.fact("top_tokens", &top_tokens)?;
    report.fact("answers", names)?;
    report.fact("attribution", compared.as_ref().map(AttributionReport::from))?;
    report.line(format!("{}\n{}", prompt.row(), prompt.id_row()));
    report.line(format!("{}\n", args.model.bos_in_words(model, bos)));
    say_top_tokens(&mut report, &prompt, &lens, &top_tokens);
    if let Some(compared) = &compared {
        say_points(&mut report, &prompt, &lens, &top_tokens, compared);
        report.line(args.attribution_in_words(compared));
        report.show("heads");
    }
    report.study = Some(args.study(&studied, &prompt, &lens, &top_tokens, compared.as_ref())?);
    report.draw(PICTURE, &[if compared.is_some() { "logit_diff" } else { "top_prob" }]);
    report.draw("heads", &["heads"]);
    report.draw("components", &["components"]);
    outputs.finish(&report, args.model.json)
}

impl From<&Compared<'_>> for AttributionReport {
    fn from(compared: &Compared<'_>) -> Self {
        let components = compared.parts.components().into_iter();
        Self {
            pos: compared.pos,
            components: components.map(|(component, share)| Share { component, share }).collect(),
            attn_bias: compared.parts.attn_bias.clone(),
            sum: compared.parts.sum(),
            logit_diff: compared.parts.logit_diff,
        }
    }
}

impl Args {
    fn answer_ids(&self, studied: &Studied, answers: [&str; 2]) -> Result<[u32; 2], Failure> {
        let tokenizer = &studied.pretrained.tokenizer;
        let [a, b] = answers;
        let ids = [tokenizer.to_single_token(a)?, tokenizer.to_single_token(b)?];
        if ids[0] == ids[1] {
            return Err(Failure::Input(format!(
                "--answers compares {} with itself: give two tokens",
                quoted(a)
            )));
        }
        Ok(ids)
    }

    fn study(
        &self,
        studied: &Studied,
        prompt: &Prompt,
        lens: &LogitLens,
        top_tokens: &[Vec<String>],
        compared: Option<&Compared<'_>>,
    ) -> Result<Study, Failure> {
        let points = || AxisLabels::new("point", lens.labels.iter().cloned());
        let everywhere = |name: &str, title: String, values: Vec<f32>| Grid {
            name: name.to_owned(),
            title,
            axes: vec![points(), AxisLabels::new("pos", prompt.tokens.iter().cloned())],
            values,
            ..Grid::default()
        };
        let texts: Vec<String> = top_tokens.concat();
        let mut grids = vec![Grid {
            value_label: "probability of the most likely token".to_owned(),
            legend: vec!["In each cell: the token that is most likely to come next there.".to_owned()],
            texts: texts.clone(),
            ..everywhere(
                "top_prob",
                "Logit lens: how sure the residual stream is of its next token".to_owned(),
                lens.top_prob.data().to_vec(),
            )
        }];
        if let Some(compared) = compared {
            let Compared { names, pos, parts } = compared;
            let label = compared.label();
            let [a, b] = names.map(quoted);
            let at = |values: &Tensor, answer: usize| -> Vec<f32> {
                (0..values.n_rows()).map(|row| values.row(row)[answer]).collect()
            };
            grids.push(Grid {
                value_label: label.clone(),
                center: Some(0.0),
                highlight: Some(Highlight {
                    axis: "pos".to_owned(),
                    indices: vec![*pos],
                    label: "the position of the attribution".to_owned(),
                }),
                legend: vec![format!(
                    "Blue: the stream favours {a}; red: {b}. In each cell: the most likely next token."
                )],
                texts,
                ..everywhere("logit_diff", format!("Logit lens: {label}"), lens.logit_diff(0, 1).into_data())
            });
            for (answer, name) in names.iter().enumerate() {
                grids.push(Grid {
                    value_label: "probability".to_owned(),
                    ..everywhere(
                        ["prob_a", "prob_b"][answer],
                        format!("Logit lens: the probability of {}", quoted(name)),
                        at(&lens.answer_probs, answer),
                    )
                });
            }
            let line = |name: &str, title: String, axis: AxisLabels, values: Vec<f32>| Grid {
                name: name.to_owned(),
                title,
                form: Form::Lines,
                axes: vec![axis],
                values,
                value_label: label.clone(),
                center: Some(0.0),
                ..Grid::default()
            };
            let place = format!("after position {pos}, {}", quoted(&prompt.tokens[*pos]));
            grids.push(line(
                "accumulated",
                format!("What each point of the residual stream says of {label} {place}, with ln_f's last scale and without its bias"),
                points(),
                parts.accumulated.clone(),
            ));
            let (components, shares) = parts.components().into_iter().unzip();
            let components: Vec<String> = components;
            grids.push(line(
                "components",
                format!("What each component writes of {label} {place}"),
                AxisLabels::new("component", components),
                shares,
            ));
            grids.push(Grid {
                value_label: format!("share in {label}"),
                center: Some(0.0),
                legend: vec![format!("Blue: the head favours {a}; red: {b}.")],
                ..grid_of_heads("heads", &format!("What each head writes of {label} {place}"), &parts.heads)
            });
        }
        let prompts = [("prompt", prompt.text.as_str())];
        studied.study("Logit lens", &[], &prompts, grids)
    }

    /// Who wrote how much of the difference, and that it is all of it.
    fn attribution_in_words(&self, compared: &Compared<'_>) -> String {
        let Compared { parts, .. } = compared;
        let row = |name: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("  {cell:>9}")).collect();
            format!("{name:<10}{cells}")
        };
        let share = |x: f32| [signed(x)];
        let mut lines = vec![
            format!("\nshares of the components in {}", compared.label()),
            row("embed", &share(parts.embed)),
            row("pos_embed", &share(parts.pos_embed)),
            row("layer", &["attn_out", "= heads", "+ bias", "mlp_out"].map(str::to_owned)),
        ];
        for (layer, attn) in parts.attn_out.iter().enumerate() {
            let heads: f32 = parts.heads.row(layer).iter().sum();
            let cells = [*attn, heads, parts.attn_bias[layer], parts.mlp_out[layer]].map(signed);
            lines.push(row(&layer.to_string(), &cells));
        }
        lines.push(row("ln_f bias", &share(parts.ln_f_bias)));
        let sum = row("sum", &share(parts.sum()));
        lines.push(format!("{sum}  (the model's logit difference: {})", signed(parts.logit_diff)));
        lines.push(format!("\nheads with the largest shares\n{}", largest_heads(&parts.heads, self.top)));
        lines.join("\n")
    }
}

impl Compared<'_> {
    fn label(&self) -> String {
        let [a, b] = self.names.map(quoted);
        format!("logit({a}) − logit({b})")
    }
}

/// The most likely next token at every point and position.
fn say_top_tokens(report: &mut Report, prompt: &Prompt, lens: &LogitLens, top_tokens: &[Vec<String>]) {
    report.line("logit lens: the most likely next token and its probability");
    let tokens = prompt.tokens.iter().map(|token| quoted(token));
    let mut rows = vec![("point".to_owned(), tokens.collect())];
    for (point, label) in lens.labels.iter().enumerate() {
        let cells = top_tokens[point].iter().zip(lens.top_prob.row(point));
        let cells = cells.map(|(token, prob)| format!("{} {prob:.2}", quoted(token)));
        rows.push((label.clone(), cells.collect()));
    }
    report.columns(rows);
}

/// What every point says at the position of interest.
fn say_points(
    report: &mut Report,
    prompt: &Prompt,
    lens: &LogitLens,
    top_tokens: &[Vec<String>],
    compared: &Compared<'_>,
) {
    let Compared { pos, parts, .. } = compared;
    report.line(format!(
        "\nafter position {pos}, {}: {}\n(lens: each point with its own layer norm; accumulated: with the last \
         point's scale and without ln_f's bias, whose share is {})",
        quoted(&prompt.tokens[*pos]),
        compared.label(),
        signed(parts.ln_f_bias)
    ));
    let diff = lens.logit_diff(0, 1);
    let head = ["lens", "accumulated", "most likely"].map(str::to_owned).to_vec();
    let mut rows = vec![("point".to_owned(), head)];
    for (point, label) in lens.labels.iter().enumerate() {
        let top = format!("{} {:.4}", quoted(&top_tokens[point][*pos]), lens.top_prob.row(point)[*pos]);
        let [lens, accumulated] = [diff.row(point)[*pos], parts.accumulated[point]].map(signed);
        rows.push((label.clone(), vec![lens, accumulated, top]));
    }
    report.columns(rows);
}

fn signed(x: f32) -> String {
    format!("{x:+.4}")
}
