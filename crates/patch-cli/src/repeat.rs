//! `patch-cli repeat`: random tokens twice over, and the heads that notice ([`lens::heads`]).

use crate::study::{PICTURE, StudyArgs, Vocab, grid_of_heads};
use report::{Report, highest_heads, pad};
use std::path::PathBuf;

use lens::heads::{RepeatStudy, RepeatedTokens, repeat_study};
use lens::transplant::mlp_transplant;
use tensor::Tensor;

use crate::common::ModelArgs;
use crate::export::{AxisLabels, Form, Grid, Highlight, Study};
use crate::failure::Failure;
use crate::processing::{ProcessArgs, Studied};
use crate::running::progress_bar;

/// Arguments of `repeat`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Number of random tokens before the repetition
    #[arg(long, value_name = "N", default_value_t = 50)]
    seq_len: usize,

    /// Number of sequences to average over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,

    /// Seed of the random tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Tokens to draw from [default: known where the model has a list of them, else all]
    #[arg(long, value_enum)]
    vocab: Option<Vocab>,

    /// Also replace each MLP's output at each position of the second copy by that of the first, and
    /// measure how much worse the second copy is predicted (of the first sequence; 20 s for GPT-2
    /// small)
    #[arg(long)]
    transplant: bool,

    /// Number of heads to list of each kind
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// Picture of each token's log probability
    #[arg(long, value_name = "FILE")]
    out_curve: Option<PathBuf>,

    /// Picture of the transplant (implies --transplant)
    #[arg(long, value_name = "FILE")]
    out_transplant: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    study: StudyArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
Random tokens have no meaning and no grammar, so a model can predict the second copy only by looking up the
first. A head does that by looking at what came after the same token the last time (induction), for
which other heads have moved each token to the position after it (previous token).

Examples:
  patch-cli repeat
  patch-cli repeat --seq-len 30 --batch 8 --out heads.png --out-curve curve.png
  patch-cli repeat --transplant --out-transplant mlp.png";

/// Runs the repeated sequences and says how well they are predicted and which heads look where.
pub fn run(args: &Args) -> Result<(), Failure> {
    let with_transplant = args.transplant || args.out_transplant.is_some();
    let others = [("curve", &args.out_curve), ("transplant", &args.out_transplant)];
    let outputs = args.study.prepare(&others, 6 + usize::from(with_transplant))?;
    let studied = (args.process).load_for_study(&args.model, args.study.export.is_wanted())?;
    let bos = args.model.bos_by_default(&studied.pretrained, true)?;
    let (candidates, vocab) = Vocab::tokens(args.vocab, &studied.pretrained)?;
    let prompts = RepeatedTokens::draw(
        studied.model(),
        &candidates,
        args.seq_len,
        bos,
        args.batch as usize,
        args.seed,
    )?;
    let ids: Vec<u32> = prompts.iter().flat_map(|p| &p.ids).copied().collect();
    args.model.warn_of_unknown_tokens(&studied.pretrained, &ids);
    let repeat = repeat_study(studied.model(), &prompts)?;
    let transplant = match with_transplant {
        true => {
            let cells = studied.model().config.n_layer * args.seq_len;
            let (bar, progress) = progress_bar(1, cells);
            let grid = mlp_transplant(studied.model(), &prompts[0], &progress);
            bar.finish_and_clear();
            Some(grid?)
        }
        false => None,
    };

    let mut report = studied.report()?;
    report.fact("bos", bos.is_some())?;
    report.fact("seq_len", args.seq_len)?;
    report.fact("seed", args.seed)?;
    report.fact("vocab", &vocab)?;
    report.fact("ids", prompts.iter().map(|prompt| prompt.ids.as_slice()).collect::<Vec<_>>())?;
    report.fact("mean_log_prob", repeat.mean_log_prob)?;
    report.fact("accuracy", repeat.accuracy)?;
    let words = args.model.bos_in_words(&studied.pretrained, bos);
    let drawn = format!("twice over, {words}\ndrawn from {vocab}");
    args.say(&mut report, &studied, &drawn, &repeat);
    if let Some(transplant) = &transplant {
        report.line(table_of_transplant(transplant));
    }
    report.study = Some(args.study(&studied, &vocab, &prompts, &repeat, transplant.as_ref())?);
    let scores = repeat.scores.all().map(|(name, _)| name);
    report.draw(PICTURE, &scores);
    report.draw("induction", &scores[..1]);
    report.draw("curve", &["log_probs"]);
    report.draw("transplant", &["mlp_transplant"]);
    report.show("induction");
    outputs.finish(&report, args.model.json)
}

impl Args {
    /// The five scores by head, the log probability of each token and, if it was done, the
    /// transplant.
    fn study(
        &self,
        studied: &Studied,
        vocab: &str,
        prompts: &[RepeatedTokens],
        repeat: &RepeatStudy,
        transplant: Option<&Tensor>,
    ) -> Result<Study, Failure> {
        let legend = "induction: attention to what came after the token the last time; duplicate: to the \
                      same token, the last time; previous: to the token to the left; current: to the \
                      token itself; first: to the first token.";
        let mut grids: Vec<Grid> = (repeat.scores.all().into_iter())
            .map(|(name, scores)| Grid {
                value_label: "mean attention".to_owned(),
                legend: vec![legend.to_owned()],
                ..grid_of_heads(name, name, scores)
            })
            .collect();
        // The tokens of several sequences differ: then there are only numbers.
        let RepeatedTokens { ids, seq_len } = &prompts[0];
        let tokenizer = &studied.pretrained.tokenizer;
        let labels = |name: &str, ids: &[u32]| match prompts.len() {
            1 => AxisLabels::new(name, tokenizer.tokens(ids)),
            _ => AxisLabels::indices(name, ids.len()),
        };
        let second = ids.len() - seq_len;
        grids.push(Grid {
            name: "log_probs".to_owned(),
            title: "Log probability of each token, given those before it".to_owned(),
            form: Form::Lines,
            axes: vec![labels("pos", ids)],
            // Nothing comes before the first token.
            values: [&[f32::NAN], repeat.log_probs.as_slice()].concat(),
            value_label: "log probability".to_owned(),
            highlight: Some(Highlight {
                axis: "pos".to_owned(),
                indices: vec![second],
                label: "the repetition begins".to_owned(),
            }),
            ..Grid::default()
        });
        if let Some(changes) = transplant {
            grids.push(Grid {
                name: "mlp_transplant".to_owned(),
                title: "MLP outputs replaced by those of the same token in the first copy".to_owned(),
                axes: vec![
                    AxisLabels::indices("layer", changes.n_rows()),
                    AxisLabels::new("token of the second copy", tokenizer.tokens(&ids[second..])),
                ],
                values: changes.data().to_vec(),
                value_label: "change of the second copy's mean loss".to_owned(),
                center: Some(0.0),
                legend: vec![
                    "Blue: with the other output the second copy is predicted worse; pale: it makes \
                     no difference."
                        .to_owned(),
                ],
                ..Grid::default()
            });
        }
        let about = format!(
            "{} random tokens (seed {}) of {vocab}, twice over; sequences: {}",
            self.seq_len, self.seed, self.batch
        );
        studied.study("Heads on repeated random tokens", &[about], &[], grids)
    }

    /// How well both copies are predicted, and the strongest heads.
    fn say(&self, report: &mut Report, studied: &Studied, drawn: &str, study: &RepeatStudy) {
        let s = if self.batch == 1 { "" } else { "s" };
        report.line(format!(
            "{}: {} sequence{s} of {} random tokens (seed {}), {drawn}\n",
            studied.label(),
            self.batch,
            self.seq_len,
            self.seed
        ));
        let [first, second] = study.mean_log_prob;
        report.line(format!("{:<22}{:>10}  {:>11}", "", "first copy", "second copy"));
        report.line(format!("mean log probability  {first:>10.4}  {second:>11.4}"));
        let [first, second] = study.accuracy;
        report.line(format!("accuracy              {first:>10.4}  {second:>11.4}"));
        report.line("\nstrongest heads");
        for (name, grid) in study.scores.all() {
            report.line(format!("{}  {}", pad(name, 9), highest_heads(grid, self.top)));
        }
    }
}

fn table_of_transplant(grid: &Tensor) -> String {
    let mut table =
        "\nMLP outputs of the second copy replaced by the first's: change of the second copy's loss\n\
                     layer  mean over positions  largest"
            .to_owned();
    for layer in 0..grid.n_rows() {
        let row = grid.row(layer);
        let mean = row.iter().sum::<f32>() / row.len() as f32;
        let larger = |a: f32, b: f32| if a.is_nan() || b <= a { a } else { b };
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, larger);
        table += &format!("\n{layer:>5}  {mean:>+19.4}  {largest:>+7.4}");
    }
    table
}
