//! The project's chores, run as `cargo xtask CHORE`.

mod bench;
mod checksum;
mod disk;
mod download_weights;
mod failure;
mod man;
mod progress;
mod screen;
mod synth_weights;
mod train_tiny;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Fetch GPT-2's weights from the Hugging Face hub, checked, into weights/MODEL
    DownloadWeights(download_weights::Arguments),
    /// Write a seeded random GPT-2 checkpoint, for tests and measurements without a download
    SynthWeights(synth_weights::Arguments),
    /// Train the small model that ships with the project, from its seed
    TrainTiny(train_tiny::Arguments),
    /// Measure sweeps: engines, threads, prompt lengths, and PyTorch beside them
    Bench(bench::Arguments),
    /// Write the man pages of patch-cli
    Man(man::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            error.render().to_string().lines().for_each(screen::warn);
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    let outcome = match arguments.chore {
        Chore::DownloadWeights(arguments) => download_weights::run(&arguments),
        Chore::SynthWeights(arguments) => synth_weights::run(&arguments),
        Chore::TrainTiny(arguments) => train_tiny::run(&arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Man(arguments) => man::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen::warn(&format!("error: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}
