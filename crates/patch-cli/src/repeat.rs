//! `patch-cli repeat`: random tokens twice over, and the heads that notice ([`lens::heads`]).

use std::io::{self, Write};
use std::path::PathBuf;

use lens::heads::{RepeatStudy, RepeatedTokens, repeat_study};
use lens::transplant::mlp_transplant;
use serde::Serialize;
use tensor::Tensor;

use crate::common::ModelArgs;
use crate::export::{AxisLabels, Draw, Form, Grid, Highlight, Study};
use crate::failure::Failure;
use crate::processing::{ProcessArgs, Studied};
use crate::report::{highest_heads, pad};
use crate::running::progress_bar;
use crate::screen;
use crate::study::{StudyArgs, Vocab, grid_of_heads};

/// Arguments of `repeat`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// How many random tokens there are before they are repeated
    #[arg(long, value_name = "N", default_value_t = 50)]
    seq_len: usize,

    /// How many such sequences to average over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,

    /// What is drawn: equal seeds draw equal tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The tokens to draw from [default: known where the model has a list of them, else all]
    #[arg(long, value_enum)]
    vocab: Option<Vocab>,

    /// Also replace each MLP's output at each position of the second copy by that of the first, and
    /// measure how much worse the second copy is predicted (of the first sequence; 20 s for GPT-2
    /// small)
    #[arg(long)]
    transplant: bool,

    /// How many heads to name of each kind
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// Where to put a picture of each token's log probability
    #[arg(long, value_name = "FILE")]
    out_curve: Option<PathBuf>,

    /// Where to put a picture of the transplant; it is then done
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
Random tokens have no meaning and no grammar: who predicts the second copy must have looked up the
first. A head does that by looking at what came after the same token the last time (induction), for
which other heads have moved each token to the position after it (previous token).

Examples:
  patch-cli repeat
  patch-cli repeat --seq-len 30 --batch 8 --out heads.png --out-curve curve.png
  patch-cli repeat --transplant --out-transplant mlp.png";

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    processing: &'a [&'static str],
    bos: bool,
    seq_len: usize,
    seed: u64,
    vocab: &'a str,
    /// The token ids of each sequence.
    ids: Vec<&'a [u32]>,
    /// Of the first and of the second copy.
    mean_log_prob: [f32; 2],
    accuracy: [f32; 2],
    #[serde(flatten)]
    study: &'a Study,
}

/// Runs the repeated sequences and says how well they are predicted and which heads look where.
pub fn run(args: &Args) -> Result<(), Failure> {
    let with_transplant = args.transplant || args.out_transplant.is_some();
    let outputs = args
        .study
        .prepare(&[&args.out_curve, &args.out_transplant], CURVE + 1 + usize::from(with_transplant))?;
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

    let study = args.study(&studied, &vocab, &prompts, &repeat, transplant.as_ref())?;
    let scores = || study.part(0..CURVE).figure();
    let curve = || study.part(CURVE..CURVE + 1).figure();
    let transplanted = || study.part(CURVE + 1..study.grids.len()).figure();
    outputs.write(&study, &[&scores, &curve, &transplanted])?;

    if args.model.json {
        let report = Report {
            model: &studied.pretrained.name,
            processing: &studied.processing,
            bos: bos.is_some(),
            seq_len: args.seq_len,
            seed: args.seed,
            vocab: &vocab,
            ids: prompts.iter().map(|prompt| prompt.ids.as_slice()).collect(),
            mean_log_prob: repeat.mean_log_prob,
            accuracy: repeat.accuracy,
            study: &study,
        };
        return screen::print_json(&report);
    }
    let mut out = screen::stdout();
    let words = args.model.bos_in_words(&studied.pretrained, bos);
    let drawn = format!("twice over, {words}\ndrawn from {vocab}");
    args.write_words(&mut out, &studied, &drawn, &repeat, transplant.as_ref())?;
    outputs.show(&mut out, study.part(0..1).figure()?)?;
    outputs.say(&mut out)?;
    Ok(())
}

/// The place of the log probabilities among the grids: behind the five scores, before the
/// transplant.
const CURVE: usize = 5;

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

    fn write_words(
        &self,
        out: &mut impl Write,
        studied: &Studied,
        drawn: &str,
        study: &RepeatStudy,
        transplant: Option<&Tensor>,
    ) -> io::Result<()> {
        let s = if self.batch == 1 { "" } else { "s" };
        writeln!(
            out,
            "{}: {} sequence{s} of {} random tokens (seed {}), {drawn}\n",
            studied.label(),
            self.batch,
            self.seq_len,
            self.seed
        )?;
        let [first, second] = study.mean_log_prob;
        writeln!(out, "{:<22}{:>10}  {:>11}", "", "first copy", "second copy")?;
        writeln!(out, "mean log probability  {first:>10.4}  {second:>11.4}")?;
        let [first, second] = study.accuracy;
        writeln!(out, "accuracy              {first:>10.4}  {second:>11.4}")?;
        writeln!(out, "\nstrongest heads")?;
        for (name, grid) in study.scores.all() {
            writeln!(out, "{}  {}", pad(name, 9), highest_heads(grid, self.top))?;
        }
        let Some(grid) = transplant else {
            return Ok(());
        };
        let layer_mean = |layer: usize| {
            let row = grid.row(layer);
            row.iter().sum::<f32>() / row.len() as f32
        };
        writeln!(
            out,
            "\nMLP outputs of the second copy replaced by the first's: change of the second copy's loss\n\
             layer  mean over positions  largest"
        )?;
        for layer in 0..grid.n_rows() {
            let larger = |a: f32, b: f32| if a.is_nan() || b <= a { a } else { b };
            let largest = (grid.row(layer).iter().copied()).fold(f32::NEG_INFINITY, larger);
            writeln!(out, "{layer:>5}  {:>+19.4}  {largest:>+7.4}", layer_mean(layer))?;
        }
        Ok(())
    }
}
