//! `cargo xtask bench`: how fast a sweep and a gradient are, beside everything that they can be compared with.
//!
//! Everything that is compared runs in turn, several times, in one process (Python in its own), and medians
//! are shown: machines are noisy, and only ratios from one run mean anything.

mod gradient;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gpt2::{Gpt2, Pretrained};
use patching::{Direction, Engine, Experiment, Metric, Patch, SiteKind, Sweep, Watch, plain};
use rayon::ThreadPool;
use serde::{Deserialize, Serialize};
use tensor::{Tensor, linear, matmul};

use crate::failure::{Failure, Outcome};
use crate::synth_weights;

/// The main job's pair, and the answers " Smith" and " Jones".
const CLEAN: [u32; 11] = [48736, 5437, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738];
const OTHER_NAME: u32 = 4176;
const METRIC: Metric<'static> = Metric::LogitDiff { a: &[4176], b: &[5437] };
/// The plain engine is timed on this many patches of a sweep, because they all take equally long.
const PLAIN_SAMPLE: usize = 8;

/// The options of `bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of a checkpoint [default: a synthetic one of GPT-2 small's size, made once]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Prompt lengths to measure
    #[arg(long, value_name = "T", value_delimiter = ',', default_values_t = [11, 32, 64, 128])]
    lengths: Vec<usize>,
    /// How often each thing is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Compare with PyTorch and transformers in this interpreter, on the first length
    #[arg(long, value_name = "PYTHON")]
    against_python: Option<PathBuf>,
    /// Measure one gradient of a metric, and nothing else
    #[arg(long)]
    only_gradient: bool,
    /// Print one JSON object on stdout instead of tables
    #[arg(long)]
    json: bool,
}

/// Everything that was measured. Speeds are in 10⁹ additions and multiplications of floats a second.
#[derive(Serialize)]
struct Report {
    model: String,
    layers: usize,
    width: usize,
    threads: usize,
    rounds: u32,
    peak_gflops: Vec<Peak>,
    sweeps: Vec<Row>,
    gradient: gradient::Gradient,
    python: Option<AgainstPython>,
}

/// The fastest matrix product of the shapes that a sweep needs.
#[derive(Serialize)]
struct Peak {
    threads: usize,
    linear: f64,
    matmul: f64,
}

/// One prompt length on some threads.
#[derive(Serialize)]
struct Row {
    tokens: usize,
    cells: usize,
    threads: usize,
    plain_seconds: f64,
    incremental_seconds: f64,
    incremental_gflop: f64,
    share_of_peak: f64,
    /// Megabytes held beyond the mapped weights while the incremental engine ran, where known.
    memory_mb: Option<f64>,
}

#[derive(Serialize)]
struct AgainstPython {
    tokens: usize,
    threads: usize,
    hooks_seconds: f64,
    batched_seconds: f64,
    ours_seconds: f64,
    largest_difference: f32,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Outcome {
    if cfg!(debug_assertions) {
        return run_optimised();
    }
    let folder = match &arguments.model {
        Some(folder) => folder.clone(),
        None => synthetic_model()?,
    };
    let model = Pretrained::from_path(&folder.display().to_string(), &folder)
        .map_err(|e| Failure::input(e.to_string()))?
        .model;
    if let Some(too_long) = arguments.lengths.iter().find(|&&t| t < 2 || t > model.config.block_size) {
        return Err(Failure::input(format!(
            "a prompt of {too_long} tokens: this model takes 2 to {}",
            model.config.block_size
        )));
    }
    let all = thread::available_parallelism().map_or(1, usize::from);
    let pools = if all > 1 { vec![pool(1)?, pool(all)?] } else { vec![pool(1)?] };

    let (all_threads, python) = (&pools[pools.len() - 1], arguments.against_python.as_deref());
    note("one gradient");
    let python_and_folder = python.map(|python| (python, &*folder));
    let gradient = gradient::measure(&model, all_threads, arguments.rounds, python_and_folder)?;
    if arguments.only_gradient {
        match arguments.json {
            true => print_json(&gradient)?,
            false => gradient::print(&gradient),
        }
        return Ok(());
    }
    note("matrix products");
    let peaks: Vec<Peak> = pools.iter().map(|pool| peak(&model, pool)).collect();
    let mut sweeps = Vec::new();
    for &tokens in &arguments.lengths {
        note(&format!("sweeps of {tokens} tokens"));
        sweeps.extend(measure_sweeps(&model, tokens, &pools, &peaks, arguments.rounds)?);
    }
    let python = match (python, arguments.lengths.first()) {
        (Some(python), Some(&tokens)) => {
            note("PyTorch");
            Some(against_python(python, &folder, &model, tokens, all_threads, arguments.rounds)?)
        }
        _ => None,
    };
    let report = Report {
        model: folder.display().to_string(),
        layers: model.config.n_layer,
        width: model.config.n_embd,
        threads: all,
        rounds: arguments.rounds,
        peak_gflops: peaks,
        sweeps,
        gradient,
        python,
    };
    if arguments.json {
        return print_json(&report);
    }
    print_tables(&report);
    Ok(())
}

fn print_json(measured: &impl Serialize) -> Outcome {
    let json = serde_json::to_string(measured).map_err(|e| Failure::run(e.to_string()))?;
    println!("{json}");
    Ok(())
}

/// Starts this chore again as an optimised program: `cargo xtask` is a debug build.
fn run_optimised() -> Outcome {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--release", "--package", "xtask", "--"])
        .args(std::env::args_os().skip(1))
        .status()
        .map_err(|e| Failure::run(format!("cannot start cargo for an optimised build: {e}")))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(2) => Err(Failure::input("the optimised program could not be used as asked")),
        _ => Err(Failure::run(format!("the optimised program failed: {status}"))),
    }
}

fn note(what: &str) {
    eprintln!("measuring {what} …");
}

/// A synthetic checkpoint of GPT-2 small's size in the build folder.
fn synthetic_model() -> Outcome<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/synthetic-gpt2");
    if !folder.join("config.json").exists() {
        synth_weights::run(&synth_weights::Arguments::gpt2_small(1, folder.clone()))?;
    }
    Ok(folder)
}

fn pool(threads: usize) -> Outcome<ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Failure::run(format!("cannot start {threads} threads: {e}")))
}

/// A pair of prompts of this length that differ at position 1: the main job's at 11 tokens.
fn experiment(model: &Gpt2, tokens: usize) -> Outcome<Experiment> {
    let vocab = model.config.vocab_size as u32;
    let clean: Vec<u32> =
        (0..tokens).map(|i| CLEAN[i % CLEAN.len()].wrapping_add((i / CLEAN.len()) as u32) % vocab).collect();
    let mut corrupted = clean.clone();
    corrupted[1] = OTHER_NAME % vocab;
    Experiment::new(model, clean, corrupted, Direction::Denoising).map_err(|e| Failure::input(e.to_string()))
}

/// The fastest product of 512 or 605 rows with the weights of a block, new weights each time.
fn peak(model: &Gpt2, pool: &ThreadPool) -> Peak {
    let speed = |multiply: &(dyn Fn(&Tensor, &Tensor, &[f32]) -> Tensor + Sync)| {
        let mut best = 0.0_f64;
        for rows in [512, 605] {
            for block in &model.h {
                for layer in [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc, &block.mlp.c_proj] {
                    let [n_in, n_out] = layer.weight.dims();
                    let x = Tensor::new(&[rows, n_in], vec![0.5; rows * n_in]);
                    let start = Instant::now();
                    std::hint::black_box(multiply(&x, &layer.weight, layer.bias.data()));
                    best = best.max((2 * rows * n_in * n_out) as f64 / start.elapsed().as_secs_f64() / 1e9);
                }
            }
        }
        best
    };
    pool.install(|| Peak {
        threads: pool.current_num_threads(),
        linear: speed(&|x, w, b| linear(x, w, b)),
        matmul: speed(&|x, w, _| matmul(x, w)),
    })
}

/// Both engines on every pool, in turn.
fn measure_sweeps(
    model: &Gpt2,
    tokens: usize,
    pools: &[ThreadPool],
    peaks: &[Peak],
    rounds: u32,
) -> Outcome<Vec<Row>> {
    let experiment = experiment(model, tokens)?;
    let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
    let patches = sweep.patches(model);
    let sample: Vec<Patch> = patches.iter().copied().step_by(patches.len().div_ceil(PLAIN_SAMPLE)).collect();
    // The two unpatched runs are part of what is timed.
    let scale = (patches.len() + 2) as f64 / (sample.len() + 2) as f64;
    let mut plain_seconds = vec![Vec::new(); pools.len()];
    let mut seconds = vec![Vec::new(); pools.len()];
    let mut memory = vec![None; pools.len()];
    let mut gflop = 0.0;
    for _ in 0..rounds {
        for (i, pool) in pools.iter().enumerate() {
            let start = Instant::now();
            pool.install(|| plain::run(model, &experiment, &sample, METRIC, Watch::NOBODY));
            plain_seconds[i].push(start.elapsed().as_secs_f64() * scale);
            let watch = MemoryWatch::start();
            let start = Instant::now();
            let outcome = pool.install(|| sweep.run(model, METRIC, Engine::default(), &|_| {}));
            seconds[i].push(start.elapsed().as_secs_f64());
            memory[i] = watch.stop().max(memory[i]);
            gflop = outcome.flops as f64 / 1e9;
        }
    }
    let rows = pools.iter().enumerate().map(|(i, pool)| {
        let incremental = median(&mut seconds[i]);
        Row {
            tokens,
            cells: patches.len(),
            threads: pool.current_num_threads(),
            plain_seconds: median(&mut plain_seconds[i]),
            incremental_seconds: incremental,
            incremental_gflop: gflop,
            share_of_peak: gflop / incremental / peaks[i].linear.max(peaks[i].matmul),
            memory_mb: memory[i].map(|kb: u64| kb as f64 / 1000.0),
        }
    });
    Ok(rows.collect())
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Watches how much memory of its own (not of mapped files) the process has.
struct MemoryWatch {
    done: std::sync::Arc<AtomicBool>,
    peak: std::sync::Arc<AtomicU64>,
    before: Option<u64>,
    thread: thread::JoinHandle<()>,
}

impl MemoryWatch {
    fn start() -> Self {
        let (done, peak) =
            (std::sync::Arc::new(AtomicBool::new(false)), std::sync::Arc::new(AtomicU64::new(0)));
        let (watched, highest) = (done.clone(), peak.clone());
        let thread = thread::spawn(move || {
            while !watched.load(Ordering::Relaxed) {
                highest.fetch_max(own_memory_kb().unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { done, peak, before: own_memory_kb(), thread }
    }

    /// The most that was held, in kB; none if the system does not report it.
    fn stop(self) -> Option<u64> {
        self.done.store(true, Ordering::Relaxed);
        // The thread only reads a file and sleeps.
        let _ = self.thread.join();
        self.before.map(|before| self.peak.load(Ordering::Relaxed).max(before))
    }
}

/// Linux's count of resident memory that no file backs, in kB.
fn own_memory_kb() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What `bench.py` answers.
#[derive(Deserialize)]
struct Answer {
    seconds: f64,
    values: Vec<f32>,
}

/// A running `bench.py`.
struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start(python: &Path, folder: &Path, experiment: &Experiment, threads: usize) -> Outcome<Self> {
        let ids = |ids: &[u32]| format!("{ids:?}");
        let Metric::LogitDiff { a: &[a], b: &[b] } = METRIC else {
            unreachable!("METRIC is the logit difference of two tokens")
        };
        let mut child = Command::new(python)
            .args(["-c", include_str!("bench.py")])
            .arg(folder)
            .args([ids(experiment.clean()), ids(experiment.corrupted())])
            .args([a.to_string(), b.to_string(), threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::input(format!("cannot start {}: {e}", python.display())))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Self { child, input, output: BufReader::new(output) }),
            _ => Err(Failure::run("Python's input and output are not connected")),
        }
    }

    fn ask(&mut self, what: &str) -> Outcome<Answer> {
        let mut line = String::new();
        writeln!(self.input, "{what}")
            .and_then(|()| self.input.flush())
            .and_then(|()| self.output.read_line(&mut line))
            .map_err(|e| Failure::run(format!("Python does not answer: {e}")))?;
        // Its threads wait busily for a while after their work: let them fall asleep.
        thread::sleep(Duration::from_millis(500));
        serde_json::from_str(&line).map_err(|_| {
            Failure::input(
                "Python ended early: the interpreter needs torch and transformers (see its message above)",
            )
        })
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It ends with its input; if it hangs, it is killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our sweep is timed before every layer of the hooked one: it takes a fraction of a second and the other
/// half a minute, so that both are measured under the same load.
fn against_python(
    python: &Path,
    folder: &Path,
    model: &Gpt2,
    tokens: usize,
    pool: &ThreadPool,
    rounds: u32,
) -> Outcome<AgainstPython> {
    let experiment = experiment(model, tokens)?;
    let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
    let threads = pool.current_num_threads();
    let mut python = Python::start(python, folder, &experiment, threads)?;
    python.ask("batched")?; // the first run of PyTorch sets things up
    let (mut hooks, mut batched, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let mut largest_difference = 0.0_f32;
    for _ in 0..rounds {
        let sweep = || sweep.run(model, METRIC, Engine::default(), &|_| {});
        let mut timed = || {
            let start = Instant::now();
            let outcome = pool.install(sweep);
            ours.push(start.elapsed().as_secs_f64());
            outcome.grid.values
        };
        let mut hooked = Answer { seconds: 0.0, values: Vec::new() };
        for layer in 0..model.config.n_layer {
            timed();
            let Answer { seconds, values } = python.ask(&format!("hooks {layer}"))?;
            hooked.seconds += seconds;
            hooked.values.extend(values);
        }
        let values = timed();
        for (seconds, answer) in [(&mut batched, python.ask("batched")?), (&mut hooks, hooked)] {
            seconds.push(answer.seconds);
            for (x, y) in values.iter().zip(&answer.values) {
                largest_difference = largest_difference.max((x - y).abs());
            }
        }
    }
    Ok(AgainstPython {
        tokens,
        threads,
        hooks_seconds: median(&mut hooks),
        batched_seconds: median(&mut batched),
        ours_seconds: median(&mut ours),
        largest_difference,
    })
}

fn print_tables(report: &Report) {
    let Report { model, layers, width, threads, rounds, .. } = report;
    println!("{model}: {layers} layers of width {width}; {threads} threads at most, medians of {rounds}\n");
    println!("fastest matrix products, GFLOP/s");
    for Peak { threads, linear, matmul } in &report.peak_gflops {
        println!("  {threads:>2} threads   ours {linear:6.1}   matrixmultiply {matmul:6.1}");
    }
    println!("\nsweep of resid_post, every layer × position (plain: from a sample of {PLAIN_SAMPLE} runs)");
    println!("tokens  cells  threads   plain s  incremental s  ratio    GFLOP  GFLOP/s  of peak  memory MB");
    for row in &report.sweeps {
        println!(
            "{:>6}  {:>5}  {:>7}  {:>8.2}  {:>13.3}  {:>5.1}  {:>7.1}  {:>7.1}  {:>5.0} %  {:>9}",
            row.tokens,
            row.cells,
            row.threads,
            row.plain_seconds,
            row.incremental_seconds,
            row.plain_seconds / row.incremental_seconds,
            row.incremental_gflop,
            row.incremental_gflop / row.incremental_seconds,
            100.0 * row.share_of_peak,
            row.memory_mb.map_or("?".to_owned(), |mb| format!("{mb:.0}")),
        );
    }
    let of_most_threads: Vec<&Row> = report.sweeps.iter().filter(|row| row.threads == *threads).collect();
    if let [first, .., last] = of_most_threads[..] {
        let exponent = (last.incremental_seconds / first.incremental_seconds).ln()
            / (last.tokens as f64 / first.tokens as f64).ln();
        println!(
            "\nFrom {} to {} tokens the cost grows with the length to the power of {exponent:.2}: each of the \
             layers × positions\nruns recomputes the rows to its right, so the square is expected, and a little \
             more for attention.",
            first.tokens, last.tokens
        );
    }
    gradient::print(&report.gradient);
    if let Some(python) = &report.python {
        println!("\nthe sweep of {} tokens beside PyTorch, {} threads each", python.tokens, python.threads);
        for (what, seconds) in [
            ("transformers, one hooked run for every patch", python.hooks_seconds),
            ("PyTorch, all runs in one batch, two logits", python.batched_seconds),
            ("this project", python.ours_seconds),
        ] {
            println!("  {what:<46} {seconds:>7.3} s  {:>6.1} times ours", seconds / python.ours_seconds);
        }
        println!("  largest difference of a value: {:e}", python.largest_difference);
    }
}
