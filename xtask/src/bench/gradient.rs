//! How fast one gradient of a metric is: a forward and a backward pass that give it for every activation.

use std::path::Path;
use std::time::Instant;

use gpt2::{Activations, Gpt2, Gradients, Kernel, Rules, SiteKind, no_hook};
use rayon::ThreadPool;
use serde::Serialize;
use tensor::Tensor;

use super::{METRIC, Python, experiment, median};
use crate::failure::Outcome;

/// The length of the prompt.
const TOKENS: usize = 15;
/// It takes a fraction of a second, so that more rounds are affordable.
const ROUNDS: u32 = 3;

/// What was measured of one gradient.
#[derive(Serialize)]
pub struct Gradient {
    tokens: usize,
    threads: usize,
    forward_seconds: f64,
    backward_seconds: f64,
    python: Option<BesidePython>,
}

#[derive(Serialize)]
struct BesidePython {
    /// Autograd with frozen weights, which keeps the gradient of every block's output.
    seconds: f64,
    /// The largest difference of the gradient with respect to the embeddings, beside the largest of its numbers.
    largest_difference: f32,
}

/// Times a gradient, in turn with PyTorch if there is an interpreter.
pub fn measure(
    model: &Gpt2,
    pool: &ThreadPool,
    rounds: u32,
    python: Option<(&Path, &Path)>,
) -> Outcome<Gradient> {
    let experiment = experiment(model, TOKENS)?;
    let threads = pool.current_num_threads();
    let mut python = match python {
        Some((python, folder)) => Some(Python::start(python, folder, &experiment, threads)?),
        None => None,
    };
    if let Some(python) = &mut python {
        python.ask("gradient")?; // the first run of PyTorch sets things up
    }
    let (mut forward, mut backward, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let mut largest_difference = 0.0_f32;
    for _ in 0..rounds * ROUNDS {
        let (seconds, ours) = pool.install(|| one_gradient(model, experiment.corrupted()));
        forward.push(seconds[0]);
        backward.push(seconds[1]);
        if let Some(python) = &mut python {
            let answer = python.ask("gradient")?;
            theirs.push(answer.seconds);
            largest_difference = largest_difference.max(difference(&ours, &answer.values));
        }
    }
    let python = python.map(|_| BesidePython { seconds: median(&mut theirs), largest_difference });
    let (forward_seconds, backward_seconds) = (median(&mut forward), median(&mut backward));
    Ok(Gradient { tokens: TOKENS, threads, forward_seconds, backward_seconds, python })
}

/// The seconds of the two passes, and the gradient with respect to the embeddings. As attribution does, each
/// gradient that is wanted is copied: here those of all residual streams.
fn one_gradient(model: &Gpt2, ids: &[u32]) -> ([f64; 2], Vec<f32>) {
    let start = Instant::now();
    let activations = model.record(Kernel::Fast, ids, &mut no_hook);
    let forward = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut kept = Vec::new();
    let mut keep = |site: gpt2::Site, dx: &Tensor| {
        if matches!(site.kind, SiteKind::ResidPost | SiteKind::Embed) {
            kept.push(dx.clone());
        }
    };
    let to = Gradients { hook: Some(&mut keep), parameters: None };
    model.backward(&activations, start_of_metric(model, &activations), &Rules::default(), to);
    let backward = start.elapsed().as_secs_f64();
    ([forward, backward], kept.pop().map(Tensor::into_data).unwrap_or_default())
}

/// The gradient of the metric with respect to the end of a run. (Its derivative does not depend on the logits, so
/// none are computed: nor are they in attribution, or beside it in Python.)
fn start_of_metric(model: &Gpt2, activations: &Activations) -> Tensor {
    let last = activations.end.n_rows() - 1;
    let logits = vec![0.0; model.config.vocab_size];
    let mut dend = Tensor::zeros(activations.end.shape());
    if let Ok(Some(dlogits)) = METRIC.gradient(&logits, &[]) {
        let dlogits = Tensor::new(&[1, dlogits.len()], dlogits);
        dend.row_mut(last).copy_from_slice(model.unembed_backward(&dlogits).row(0));
    }
    dend
}

fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    let largest = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(f32::abs).fold(0.0, f32::max);
    largest(&mut ours.iter().zip(theirs).map(|(x, y)| x - y)) / largest(&mut theirs.iter().copied())
}

/// Prints it.
pub fn print(gradient: &Gradient) {
    let Gradient { tokens, threads, forward_seconds, backward_seconds, python } = gradient;
    let ours = forward_seconds + backward_seconds;
    println!("\none gradient of a metric, {tokens} tokens, {threads} threads");
    println!(
        "  this project: forward {forward_seconds:.4} s, backward {backward_seconds:.4} s, together {ours:.4} s"
    );
    if let Some(BesidePython { seconds, largest_difference }) = python {
        println!("  PyTorch autograd, weights frozen: {seconds:.4} s, {:.2} times ours", seconds / ours);
        println!("  largest difference: {largest_difference:e} of the largest number");
    }
}
