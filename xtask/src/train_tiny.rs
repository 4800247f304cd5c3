//! `train-tiny`: the tiny model that ships, from its seed (`training::recipe` says how).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use figures::{Draw as _, FigureOptions};
use gpt2::Pretrained;
use signal_hook::{consts, flag};
use training::checkpoint::{self, Numbers};
use training::curve::loss_curve;
use training::recipe::{Recipe, Training};
use training::scores::Scores;

use crate::disk::{self, FolderLock};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::screen;

/// After so many steps, how far the training has come is written.
const STEPS_A_SAVE: usize = 250;
/// The loss that is shown is a mean over about so many steps.
const STEPS_A_MEAN: f32 = 50.0;

/// The options of `train-tiny`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder gets model.safetensors (F16), config.json, known_tokens.json and loss.png. Ctrl-C writes how far the
training has come to training.safetensors, from where --resume continues with the same bits.")]
pub struct Arguments {
    /// The folder to write to; patch-cli reads it with --model DIR
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Equal seeds give equal models
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many batches to train on
    #[arg(long, value_name = "N", default_value_t = 6000, value_parser = at_least_one)]
    steps: usize,
    /// Continue a training that was interrupted; its seed and steps are those that it began with
    #[arg(long, conflicts_with_all = ["seed", "steps"])]
    resume: bool,
    /// Train nothing: print what the model in DIR has learned
    #[arg(long, conflicts_with_all = ["seed", "steps", "resume"])]
    scores: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("give at least 1 step".to_owned()),
        Ok(steps) => Ok(steps),
        Err(error) => Err(error.to_string()),
    }
}

/// Trains the model, or says what one has learned.
pub fn run(arguments: &Arguments) -> Outcome {
    let folder = &arguments.out;
    if arguments.scores {
        return print_scores(folder);
    }
    let _lock = FolderLock::take(folder)?;
    let state = folder.join("training.safetensors");
    let mut training = begin(arguments, &state)?;
    train(&mut training, &state)?;
    draw(&training, folder)?;
    let (model, known) = (training.model(), training.known_tokens());
    checkpoint::save(&model, Numbers::F16, Some(known), folder)
        .map_err(|error| Failure::run(error.to_string()))?;
    // The model is there: the state is not needed any more.
    std::fs::remove_file(&state).map_err(|error| disk::write_failure(&state, &error))?;
    screen::say(&format!("the model is in {}", folder.display()));
    print_scores(folder)
}

/// A training that begins, or continues.
fn begin(arguments: &Arguments, state: &Path) -> Outcome<Training> {
    let folder = arguments.out.display();
    if arguments.out.join("model.safetensors").exists() {
        return Err(Failure::input(format!(
            "there is a model in {folder}, and train-tiny replaces none: choose another folder with --out"
        )));
    }
    match (arguments.resume, state.exists()) {
        (true, true) => Training::resume(state).map_err(|error| Failure::input(error.to_string())),
        (true, false) => Err(Failure::input(format!(
            "there is no training.safetensors in {folder} to continue from: leave out --resume"
        ))),
        (false, true) => Err(Failure::input(format!(
            "a training was interrupted in {folder}: continue it with --resume, or choose another folder with \
             --out"
        ))),
        (false, false) => Ok(Training::begin(Recipe::new(arguments.seed, arguments.steps))),
    }
}

/// Does the steps that are left; a signal writes the state and ends the program.
fn train(training: &mut Training, state: &Path) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [consts::SIGINT, consts::SIGTERM] {
        // In this order: the first signal finds the flag unset, and sets it; a second one ends the program.
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| Failure::run(format!("cannot listen for Ctrl-C: {error}")))?;
    }
    let save = |training: &Training| training.save(state).map_err(|error| Failure::run(error.to_string()));
    save(training)?;
    let mut progress =
        Progress::of_steps("training", training.recipe.steps as u64, training.steps_done() as u64);
    let mut mean_loss = training.losses.last().copied();
    while !training.is_done() {
        if stop.load(Ordering::Relaxed) {
            drop(progress);
            save(training)?;
            return Err(Failure::interrupted(format!(
                "stopped after {} of {} steps: continue with --resume",
                training.steps_done(),
                training.recipe.steps
            )));
        }
        let step = training.step();
        let mean = mean_loss.map_or(step.loss, |mean| mean + (step.loss - mean) / STEPS_A_MEAN);
        mean_loss = Some(mean);
        progress.add_step(&format!("loss {mean:.3}"));
        if training.steps_done().is_multiple_of(STEPS_A_SAVE) {
            save(training)?;
        }
    }
    Ok(())
}

/// Writes the loss over the steps as a picture.
fn draw(training: &Training, folder: &Path) -> Outcome {
    let options = FigureOptions::default();
    let figure = loss_curve(training).figure().map_err(|error| Failure::run(error.to_string()))?;
    let path = folder.join("loss.png");
    let bytes = figures::render_png(&figures::scene(&figure, &options), &options.fonts, options.scale, &[]);
    let bytes = bytes.map_err(|error| Failure::run(error.to_string()))?;
    disk::write_atomically(&path, &bytes)
}

/// What the model in a folder has learned, beside the one that ships.
fn print_scores(folder: &Path) -> Outcome {
    let load =
        |model: Result<Pretrained, gpt2::Error>| model.map_err(|error| Failure::input(error.to_string()));
    let [trained, shipped] = [Pretrained::from_path("trained", folder), Pretrained::tiny()].map(load);
    let scores = |model: Pretrained| Scores::of(&model).map_err(|error| Failure::run(error.to_string()));
    let [trained, shipped] = [scores(trained?)?, scores(shipped?)?];
    screen::say(&format!("{:52} {:>16} {:>16}", "what it has learned", "this model", "the shipped one"));
    for (row, shipped) in trained.rows().iter().zip(shipped.rows()) {
        screen::say(&format!("{:52} {:>16} {:>16}", row.name, row.value, shipped.value));
    }
    Ok(())
}
