//! `patch-cli`: activation patching of GPT-2 from the command line.
//!
//! Every subcommand is one file: its arguments, what it does, what it prints. `patch-cli` alone is
//! `patch-cli sweep`, and that alone is the main job.

mod ablate;
mod activations;
mod attention;
mod attribute;
mod circuit;
mod common;
mod completions;
mod compose;
mod computation;
mod dashes;
mod detect;
mod diff;
mod explore;
mod export;
mod failure;
mod figure;
mod generate;
mod given;
mod input;
mod ioi;
mod lens;
mod man;
mod metric;
mod models;
mod names;
mod output;
mod page;
mod pairs;
mod path;
mod place;
mod plot;
mod predict;
mod processing;
mod repeat;
mod running;
mod screen;
mod selection;
mod study;
mod sweep;
mod tokens;
mod verify;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::failure::Failure;

/// Activation patching of GPT-2: which activation carries an answer?
#[derive(Parser)]
#[command(
    version,
    about = ABOUT,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sweep: sweep::Args,
}

#[derive(Subcommand)]
enum Command {
    /// Patch each activation in turn and draw the heatmap (the default)
    #[command(after_help = SWEEP_EXAMPLES)]
    Sweep(Box<sweep::Args>),
    /// Replace each activation in turn by zeros, a mean or another activation
    Ablate(Box<ablate::Args>),
    /// Predict a sweep from one backward pass (attribution patching)
    Attribute(Box<attribute::Args>),
    /// Find the edges between heads and MLPs that carry an answer, and judge them
    Circuit(Box<circuit::Args>),
    /// Patch paths from heads to later heads, or to the logits
    Path(Box<path::Args>),
    /// Show how texts are split into tokens
    Tokens(tokens::Args),
    /// Show the most likely next tokens
    Predict(predict::Args),
    /// Let the model continue a text
    Generate(generate::Args),
    /// List every activation of a run by name, and save them
    Activations(activations::Args),
    /// Repeat random tokens and find induction heads
    Repeat(repeat::Args),
    /// Show attention patterns
    Attention(attention::Args),
    /// Find previous-token, duplicate-token and induction heads
    Detect(detect::Args),
    /// Logit lens and direct logit attribution
    Lens(lens::Args),
    /// Find which heads read what other heads wrote
    Compose(compose::Args),
    /// Predict indirect objects and find the heads that name them
    Ioi(ioi::Args),
    /// Open a live page in the browser: type two prompts, see every patched run, click, patch, ask again
    Explore(explore::Args),
    /// Draw an export (--json, --csv, --npy or --safetensors) again
    Plot(plot::Args),
    /// Compare two exports number by number
    Diff(diff::Args),
    /// List the known models and where they are
    Models(models::Args),
    /// Check a model: invariants that always hold, and published numbers of GPT-2 small
    Verify(verify::Args),
    /// Print a script that completes commands in a shell
    Completions(completions::Args),
    /// Write a man page for each subcommand
    #[command(hide = true)]
    Man(man::Args),
}

const ABOUT: &str = "\
Activation patching of GPT-2: which activation carries an answer? Without arguments it patches every \
layer and position of the pair \"Michelle Jones …\" / \"Michelle Smith …\" and draws the heatmap.";
const EXAMPLES: &str = "\
Examples:
  patch-cli
  patch-cli --clean 'John and Mary met, and John gave the bag to' \\
            --corrupted 'John and Mary met, and Mary gave the bag to' \\
            --logit-diff ' John' ' Mary' --out bag.png
  patch-cli predict 'Famous computer scientist Alan' --answer ' Turing'

All options: patch-cli sweep --help";

const SWEEP_EXAMPLES: &str = "\
Examples:
  patch-cli sweep --site heads --out heads.png
  patch-cli sweep --site z --by-pos --heads 8.1,9.1 --metric normalized
  patch-cli sweep --prompt-set ioi --count 20 --site z --csv ioi.csv
  patch-cli sweep --direction noising --html page.html";

/// The options that the help of `patch-cli` alone shows, so that it fits a screen.
const SHOWN: [&str; 9] =
    ["clean", "corrupted", "logit_diff", "site", "out", "model", "json", "help", "version"];

/// The whole command line, with all subcommands and options.
fn full_command() -> clap::Command {
    Cli::command()
}

/// The command line as its help shows it.
fn command() -> clap::Command {
    full_command().mut_args(|arg| {
        let is_shown = SHOWN.contains(&arg.get_id().as_str());
        arg.hide(!is_shown)
    })
}

fn main() -> ExitCode {
    let start = Instant::now();
    let mut command = command();
    let args = dashes::texts_behind_escape(&command, std::env::args_os().collect());
    let parsed = command.try_get_matches_from_mut(args).and_then(|matches| {
        computation::remember(&command, &matches);
        Cli::from_arg_matches(&matches)
    });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return screen::clap_says(&error),
    };
    let result = match cli.command.unwrap_or(Command::Sweep(Box::new(cli.sweep))) {
        Command::Sweep(args) => sweep::run(&args, start),
        Command::Ablate(args) => ablate::run(&args, start),
        Command::Attribute(args) => attribute::run(&args, start),
        Command::Circuit(args) => circuit::run(&args, start),
        Command::Path(args) => path::run(&args, start),
        Command::Tokens(args) => tokens::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Activations(args) => activations::run(&args),
        Command::Repeat(args) => repeat::run(&args),
        Command::Attention(args) => attention::run(&args),
        Command::Detect(args) => detect::run(&args),
        Command::Lens(args) => lens::run(&args),
        Command::Compose(args) => compose::run(&args),
        Command::Ioi(args) => ioi::run(&args),
        Command::Explore(args) => explore::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    result.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}
