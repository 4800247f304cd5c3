//! Computes what the page of an experiment shows: every patched run's metrics and most likely next
//! tokens, and where the heads of the unpatched runs attend.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use gpt2::generate::{LogProbs, rank};
use gpt2::{Config, Pretrained};
use patching::{Direction, Engine, Experiment, Metric, Outcome, Progress, Scale, SiteKind, Sweep, Which};
use tensor::{Tensor, all_finite};
use visible::{visible, visible_line};

use crate::export::Provenance;
use crate::failure::Failure;
use crate::metric::{Answers, MetricKind, NamedMetric};
use crate::output::{MAKER, Output};
use crate::running::{Interrupt, progress_bar};
use figures::page::{self as shown, Attention, Grid, Page, Prompt, Runs, Tokens, Top};

/// How many of a run's next tokens the page lists.
const TOP: usize = 10;

/// Patterns of more numbers than this are left out: the page would take megabytes, for GPT-2 small
/// from 118 tokens on.
const MOST_WEIGHTS: usize = 2_000_000;

/// A run's most likely next tokens: id, logit, probability.
type Next = Vec<(u32, f32, f32)>;

/// Arguments of a subcommand that can make a page.
#[derive(clap::Args)]
pub struct PageArgs {
    /// Write a page to explore in a browser: every cell's numbers and next tokens, and where every head
    /// attends
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompts", "prompt_set"])]
    html: Option<PathBuf>,

    /// The sites on the page beside those of --site, each over all layers and positions or heads
    #[arg(
        long,
        value_name = "SITES",
        requires = "html",
        value_delimiter = ',',
        default_value = "attn_out,mlp_out,z"
    )]
    html_sites: Vec<SiteKind>,
}

impl PageArgs {
    /// Whether a page is asked for.
    pub fn is_wanted(&self) -> bool {
        self.html.is_some()
    }

    /// Checks, before any work is done, that the page can be put where it is asked for.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason; [`Failure::Input`] if the name is not that of a
    /// page, and might be that of the picture.
    pub fn prepare(&self) -> Result<Option<Output>, Failure> {
        self.html.as_deref().map(page_output).transpose()
    }

    /// The sites on the page: those that are swept anyway, and the others that were asked for, each
    /// once.
    pub fn sites(&self, swept: &[SiteKind]) -> Vec<SiteKind> {
        let mut sites = Vec::new();
        for &site in swept.iter().chain(&self.html_sites) {
            if !sites.contains(&site) {
                sites.push(site);
            }
        }
        sites
    }
}

/// Runs the sweeps of a page, and keeps what it shows of every patched run.
pub struct Recorder<'a> {
    model: &'a Pretrained,
    experiment: &'a Experiment,
    /// The metric that was asked for, and those that its tokens allow as well.
    metrics: Vec<NamedMetric>,
    engine: Engine,
    /// Once it is set, there will be no page.
    stop: &'a Interrupt,
    /// What has been recorded.
    measured: Mutex<Vec<(SiteKind, Measured)>>,
    /// The logits of the clean and of the corrupted run.
    logits: [OnceLock<Vec<f32>>; 2],
}

impl<'a> Recorder<'a> {
    /// A recorder that has seen no run yet.
    pub fn new(
        model: &'a Pretrained,
        experiment: &'a Experiment,
        metric: &NamedMetric,
        engine: Engine,
        stop: &'a Interrupt,
    ) -> Self {
        Self {
            model,
            experiment,
            metrics: related(metric),
            engine,
            stop,
            measured: Mutex::default(),
            logits: Default::default(),
        }
    }

    fn stopped(&self) -> Failure {
        self.stop.stopped("stopped before the page of --html was done: it was not written".to_owned())
    }

    /// The run that is patched, by its name and its place among the two.
    fn base(&self) -> (&'static str, usize) {
        match self.experiment.direction() {
            Direction::Denoising => ("corrupted", 1),
            Direction::Noising => ("clean", 0),
        }
    }

    /// Runs a sweep as [`Sweep::run`] does, with the metric that was asked for. If it is over all places of a
    /// page, what the page shows of its runs is kept.
    pub fn run(&self, sweep: &Sweep<'_>, progress: Progress<'_>) -> Outcome {
        let (whole, site) = (Sweep::over(self.experiment, sweep.site()), sweep.site());
        let model = &self.model.model;
        if sweep.axes() != whole.axes() || sweep.places(model) != whole.places(model) {
            return sweep.run(model, self.metrics[0].metric(), self.engine, progress);
        }
        let (mut outcome, cells) = self.patched_runs(sweep, progress);
        let ends = || Some([0, 1].map(|run| self.metric_of(&self.metrics[0], run)));
        match ends() {
            Some([Some(clean), Some(corrupted)]) => {
                let reached =
                    |(value, cell): (&f32, &Cell)| if value.is_nan() { f32::NAN } else { cell.values[0] };
                let values = outcome.grid.values.iter().zip(&cells).map(reached).collect();
                let is_missing = |(value, cell): (&f32, &Cell)| !value.is_nan() && cell.values[0].is_nan();
                outcome.missing = outcome.grid.values.iter().zip(&cells).filter(|it| is_missing(*it)).count();
                outcome.grid.values = values;
                (outcome.clean_metric, outcome.corrupted_metric) = (clean, corrupted);
            }
            // What cannot be read off the logits is swept for itself.
            _ if outcome.complete => {
                outcome = sweep.run(model, self.metrics[0].metric(), self.engine, progress)
            }
            _ => {}
        }
        // A poisoned lock would mean that a thread panicked, which ends the program anyway.
        if let Ok(mut measured) = self.measured.lock() {
            measured.push((site, Measured { outcome: outcome.clone(), cells }));
        }
        outcome
    }

    /// A metric of the clean (0) or the corrupted (1) run; none if it cannot be read off the logits.
    fn metric_of(&self, metric: &NamedMetric, run: usize) -> Option<f32> {
        metric.metric().of_logits(self.logits[run].get()?, self.logits[0].get()?)
    }

    /// Every patched run of a sweep, in the order of its grid, with an outcome whose values only say which cells
    /// were reached. A metric that cannot be read off the logits is NaN.
    fn patched_runs(&self, sweep: &Sweep<'_>, progress: Progress<'_>) -> (Outcome, Vec<Cell>) {
        let model = &self.model.model;
        let (_, base_run) = self.base();
        let read = |logits: &[f32]| {
            let clean = self.logits[0].get().map_or(logits, Vec::as_slice);
            let value = |named: &NamedMetric| named.metric().of_logits(logits, clean);
            Cell {
                values: self.metrics.iter().map(|named| value(named).unwrap_or(f32::NAN)).collect(),
                next: next(logits),
            }
        };
        let cells = Mutex::new(vec![None; sweep.patches(model).len()]);
        // A metric that sees all logits of every run, and keeps what the page shows of them. The unpatched runs
        // come first.
        let keep = |run: Which, logits: &[f32]| {
            match run {
                Which::Clean => drop(self.logits[0].get_or_init(|| logits.to_vec())),
                Which::Corrupted => drop(self.logits[1].get_or_init(|| logits.to_vec())),
                Which::Patched(at) if self.logits[base_run].get().is_none_or(|base| logits != *base) => {
                    let cell = read(logits);
                    if let Ok(mut cells) = cells.lock() {
                        cells[at] = Some(cell);
                    }
                }
                Which::Patched(_) => {}
            }
            0.0
        };
        let outcome = sweep.run(model, Metric::Custom(&keep), self.engine, progress);
        // Patches that change nothing, such as those left of the first differing token, are read once.
        let unchanged = self.logits[base_run].get().map(|base| read(base)).unwrap_or_default();
        let cells = cells.into_inner().unwrap_or_default();
        (outcome, cells.into_iter().map(|cell| cell.unwrap_or_else(|| unchanged.clone())).collect())
    }

    /// The page with these sites, each over its usual axes. Those that have not been swept yet are swept now.
    ///
    /// # Errors
    /// [`Failure::Stopped`] if it was stopped; [`Failure::Input`] if the metric cannot be shown because the
    /// two unpatched runs do not differ in it.
    pub fn page(&self, sites: &[SiteKind], provenance: &Provenance) -> Result<Page, Failure> {
        let (base, base_run) = self.base();
        let model = &self.model.model;
        let is_known = |site: SiteKind| {
            self.measured.lock().is_ok_and(|measured| measured.iter().any(|(known, _)| *known == site))
        };
        let new: Vec<Sweep<'_>> = (sites.iter())
            .filter(|site| !is_known(**site))
            .map(|&site| Sweep::over(self.experiment, site).stopped_by(self.stop.flag()))
            .collect();
        let n_cells = new.iter().map(|sweep| sweep.patches(model).len());
        let (bar, progress) = progress_bar(new.len(), n_cells.sum());
        for sweep in &new {
            if !self.run(sweep, &progress).complete {
                return Err(self.stopped());
            }
        }
        bar.finish_and_clear();

        let mut table = Table::new(self.model);
        let unpatched =
            [0, 1].map(|run| self.logits[run].get().map(|logits| next(logits)).unwrap_or_default());
        let mut of_runs: Vec<Option<[f32; 2]>> = vec![None; self.metrics.len()];
        let mut grids = Vec::new();
        let measured = self.measured.lock().map_err(|_| self.stopped())?;
        for &site in sites {
            let Some((_, measured)) = measured.iter().find(|(known, _)| *known == site) else { continue };
            let shown = self.shown(site, measured)?;
            // Whether a metric can be shown is a matter of the unpatched runs: the same for every site.
            of_runs = shown.iter().map(|shown| Some(shown.as_ref()?.1)).collect();
            let places = &measured.outcome.grid.places;
            let top = |cell: &Cell| (cell.next != unpatched[base_run]).then(|| table.top(&cell.next));
            grids.push(Grid {
                site: site.to_string(),
                columns: site.default_axes()[1].to_string(),
                shape: [places[0].len(), places[1].len()],
                top: measured.cells.iter().map(top).collect(),
                values: shown.into_iter().flatten().map(|(values, _)| values).collect(),
            });
        }
        let metrics = (self.metrics.iter().zip(of_runs))
            .filter_map(|(metric, of_runs)| {
                let of_runs: [f32; 2] = of_runs?;
                Some(table.metric(metric, of_runs, base, of_runs[base_run]))
            })
            .collect();
        let (clean, corrupted) = (self.experiment.clean(), self.experiment.corrupted());
        let [top_clean, top_corrupted] = &unpatched;
        Ok(Page {
            provenance: self.provenance_rows(provenance),
            base,
            prompts: Runs { clean: table.prompt(clean), corrupted: table.prompt(corrupted) },
            top: Runs { clean: table.top(top_clean), corrupted: table.top(top_corrupted) },
            metrics,
            grids,
            attention: self.attention(),
            tokens: table.tokens,
        })
    }

    /// For each metric the values of a site and those of the unpatched runs, as they are shown; none if the metric
    /// cannot be shown.
    fn shown(&self, site: SiteKind, measured: &Measured) -> Result<Vec<Option<Shown>>, Failure> {
        let direction = self.experiment.direction();
        let mut all = Vec::new();
        for (i, named) in self.metrics.iter().enumerate() {
            let outcome = match [0, 1].map(|run| self.metric_of(named, run)) {
                _ if i == 0 => measured.outcome.clone(),
                [Some(clean_metric), Some(corrupted_metric)] => {
                    let values = measured.cells.iter().map(|cell| cell.values[i]).collect();
                    let grid = patching::Grid { values, ..measured.outcome.grid.clone() };
                    Outcome { clean_metric, corrupted_metric, grid, ..measured.outcome.clone() }
                }
                _ => {
                    let sweep = Sweep::over(self.experiment, site).stopped_by(self.stop.flag());
                    sweep.run(&self.model.model, named.metric(), self.engine, &|_| {})
                }
            };
            if !outcome.complete {
                return Err(self.stopped());
            }
            let checked = self.experiment.check_ends(&self.model.model, outcome.ends(direction));
            match checked.map_err(Failure::from).and_then(|()| Ok(named.shown(&outcome, direction)?)) {
                Err(failure) if i == 0 => return Err(failure), // It was asked for by name.
                values => all.push(values.ok()),
            }
        }
        Ok(all)
    }

    /// Where the heads of the unpatched runs attend, unless it is too much to show.
    fn attention(&self) -> Option<Attention> {
        let config = &self.model.model.config;
        let clean = patterns(self.model, self.experiment.clean())?;
        let corrupted = patterns(self.model, self.experiment.corrupted())?;
        let patterns = Runs { clean, corrupted };
        Some(Attention { n_layer: config.n_layer, n_head: config.n_head, patterns })
    }

    /// What made this page, as names with their values.
    fn provenance_rows(&self, provenance: &Provenance) -> Vec<(String, String)> {
        let mut rows = made_by(provenance, &self.model.model.config);
        rows.push((
            "direction",
            match self.experiment.direction() {
                Direction::Denoising => "denoising: clean activations into the corrupted run",
                Direction::Noising => "noising: corrupted activations into the clean run",
            }
            .to_owned(),
        ));
        for (name, ids) in
            [("clean ids", self.experiment.clean()), ("corrupted ids", self.experiment.corrupted())]
        {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            rows.push((name, ids.join(" ")));
        }
        rows.into_iter().map(|(name, value)| (name.to_owned(), visible_line(&value))).collect()
    }
}

/// Checks that a page can be put there.
///
/// # Errors
/// [`Failure::Other`] with the path and the reason; [`Failure::Input`] if the name is not that of a page, and might be
/// that of the picture.
pub fn page_output(path: &Path) -> Result<Output, Failure> {
    let output = Output::prepare(path)?;
    match output.has_extension("html") || output.has_extension("htm") {
        true => Ok(output),
        false => Err(Failure::Input(format!("--html {}: give a name that ends in .html", path.display()))),
    }
}

/// What made a page, as names with their values: program, command and model.
pub fn made_by(provenance: &Provenance, config: &Config) -> Vec<(&'static str, String)> {
    let Config { n_layer, n_head, n_embd, .. } = config;
    let model = format!("{}: {n_layer} layers, {n_head} heads, width {n_embd}", provenance.model);
    let rows = [("software", MAKER.to_owned()), ("command", typed(&provenance.command)), ("model", model)];
    let checksums =
        provenance.model_checksum.iter().map(|(file, checksum)| ("SHA-256", format!("{file} {checksum}")));
    rows.into_iter().chain(checksums).collect()
}

/// The values of a metric, and those of the clean and of the corrupted run.
type Shown = (Vec<f32>, [f32; 2]);

/// What the patched runs of one site came to.
struct Measured {
    /// With the values of the metric that was asked for.
    outcome: Outcome,
    cells: Vec<Cell>,
}

/// The metrics that are known once the tokens of one of them are: itself first, then the others.
fn related(asked: &NamedMetric) -> Vec<NamedMetric> {
    use MetricKind::{LogitChange, LogitDiff, Normalized, ProbChange, ProbDiff};
    let mut all = vec![asked.clone()];
    let about_one = |answers: &Answers| {
        let metric = asked.about(answers);
        [LogitChange, ProbChange].map(|kind| metric.with_kind(kind))
    };
    match (asked.a.ids.is_empty(), asked.b.ids.is_empty()) {
        (false, false) => {
            all.extend([LogitDiff, Normalized, ProbDiff].map(|kind| asked.with_kind(kind)));
            all.extend(about_one(&asked.b));
        }
        (false, true) => all.extend(about_one(&asked.a)),
        _ => {}
    }
    let is_asked = |other: &NamedMetric| other.label() == asked.label();
    let again = all.iter().skip(1).position(is_asked);
    if let Some(i) = again {
        all.remove(1 + i);
    }
    all
}

/// What is kept of one patched run.
#[derive(Clone, Default)]
struct Cell {
    /// Its metrics.
    values: Vec<f32>,
    /// Its most likely next tokens.
    next: Next,
}

/// The patterns of all heads in an unpatched run, unless they are too many or not finite numbers.
fn patterns(model: &Pretrained, ids: &[u32]) -> Option<Vec<Vec<u16>>> {
    let config = &model.model.config;
    let t = ids.len();
    // Of both runs: twice the numbers on and below the diagonals.
    if config.n_layer * config.n_head * t * (t + 1) > MOST_WEIGHTS {
        return None;
    }
    let mut patterns = Vec::new();
    let mut finite = true;
    model.model.transformer(ids, &mut |site, x| {
        if matches!(site.kind, SiteKind::Pattern) {
            finite &= all_finite(x.data());
            patterns.extend((0..config.n_head).map(|head| lower_triangle(x, head)));
        }
    });
    finite.then_some(patterns)
}

/// One head's pattern up to the diagonal, in ten-thousandths, from `(n_head, T, T)`.
fn lower_triangle(pattern: &Tensor, head: usize) -> Vec<u16> {
    let t = pattern.shape()[1];
    let row = |dest: usize| &pattern.row(head * t + dest)[..=dest];
    (0..t).flat_map(row).map(|weight| (weight * 1e4).round() as u16).collect()
}

/// The most likely next tokens; none if the logits are not finite numbers.
fn next(logits: &[f32]) -> Next {
    if !all_finite(logits) {
        return Next::new();
    }
    let probs = LogProbs::of(logits);
    rank(logits, TOP).into_iter().map(|id| (id, logits[id as usize], probs.prob(id) as f32)).collect()
}

/// Arguments as they can be typed in a POSIX shell.
fn typed(arguments: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./,:=".contains(c);
    let quoted = arguments.iter().map(|argument| match argument.chars().all(plain) && !argument.is_empty() {
        true => argument.clone(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    });
    ["patch-cli".to_owned()].into_iter().chain(quoted).collect::<Vec<_>>().join(" ")
}

/// The page's tokens, each given a number when it is first met.
struct Table<'a> {
    model: &'a Pretrained,
    numbers: HashMap<u32, usize>,
    tokens: Tokens,
}

impl<'a> Table<'a> {
    fn new(model: &'a Pretrained) -> Self {
        Self { model, numbers: HashMap::new(), tokens: Tokens::default() }
    }

    fn token(&mut self, id: u32) -> usize {
        let Tokens { ids, texts } = &mut self.tokens;
        *self.numbers.entry(id).or_insert_with(|| {
            ids.push(id);
            texts.push(visible(&self.model.tokenizer.token(id)));
            ids.len() - 1
        })
    }

    fn prompt(&mut self, ids: &[u32]) -> Prompt {
        Prompt {
            text: visible_line(&self.model.tokenizer.decode(ids)),
            tokens: ids.iter().map(|&id| self.token(id)).collect(),
        }
    }

    /// Next tokens for the page: logits to four digits after the point, probabilities to six.
    fn top(&mut self, next: &Next) -> Top {
        let round = |x: f32, digits: f64| (f64::from(x) * digits).round() / digits;
        Top(next
            .iter()
            .map(|&(id, logit, prob)| (self.token(id), round(logit, 1e4), round(prob, 1e6)))
            .collect())
    }

    /// A metric with the words for it; `values` are those of the clean and of the corrupted run.
    fn metric(
        &mut self,
        metric: &NamedMetric,
        [clean, corrupted]: [f32; 2],
        base: &str,
        base_value: f32,
    ) -> shown::Metric {
        let beside = |what: &str| [format!("below {what}"), format!("above {what}")];
        let [low, high] = match metric.kind {
            _ if metric.scale != Scale::Value => beside(&format!("the {base} run")),
            MetricKind::LogitDiff | MetricKind::ProbDiff => {
                [&metric.b, &metric.a].map(|answers| format!("favours {}", answers.in_words()))
            }
            MetricKind::LogitChange | MetricKind::ProbChange => beside("the clean run"),
            _ => beside(&format!("the {base} run")),
        };
        let [high_token, low_token] = [&metric.a, &metric.b].map(|answers| {
            let first = answers.ids.first();
            first.map(|&id| self.token(id))
        });
        shown::Metric {
            label: metric.label(),
            low,
            high,
            low_token,
            high_token,
            center: metric.center().unwrap_or(base_value),
            unpatched: Runs { clean, corrupted },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::Ordering;

    use clap::Parser as _;

    use super::*;
    use crate::metric::MetricArgs;

    const SMITH: u32 = 4176;
    const JONES: u32 = 5437;

    /// A metric as the command line has it, of prompts of five tokens.
    fn named(arguments: &[&str]) -> NamedMetric {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            metric: MetricArgs,
        }
        let cli = Cli::parse_from(["x"].iter().chain(arguments));
        let tiny = Pretrained::tiny().unwrap();
        let answers = [SMITH, JONES].map(|id| Answers::of_ids(&tiny.tokenizer, &[id]));
        let named = cli.metric.named(&tiny, 5, answers.each_ref(), Scale::Value);
        named.unwrap()
    }

    fn logit_diff() -> NamedMetric {
        named(&[])
    }

    /// The page of a short pair on the tiny model.
    fn page_of(metric: &NamedMetric, direction: Direction, engine: Engine) -> Page {
        let tiny = Pretrained::tiny().unwrap();
        let [clean, corrupted] = ["Michelle Jones was. Michelle", "Michelle Smith was. Michelle"]
            .map(|text| tiny.tokenizer.encode(text).unwrap());
        let experiment = Experiment::new(&tiny.model, clean, corrupted, direction).unwrap();
        let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
        let outcome = sweep.run(&tiny.model, metric.metric(), engine, &|_| {});
        let stop = Interrupt::default();
        let recorder = Recorder::new(&tiny, &experiment, metric, engine, &stop);
        let recorded = recorder.run(&sweep, &|_| {});
        assert_eq!(recorded.grid.values, outcome.grid.values, "{:?}", metric.kind);
        assert_eq!(recorded.ends(direction), outcome.ends(direction));
        // What has been swept is not swept for the page again.
        stop.flag().store(true, Ordering::Relaxed);
        assert!(recorder.page(&[SiteKind::ResidPost], &Provenance::default()).is_ok());
        stop.flag().store(false, Ordering::Relaxed);
        let page = recorder.page(&[SiteKind::ResidPost, SiteKind::Z], &Provenance::default()).unwrap();
        let (values, [clean, corrupted]) = metric.shown(&outcome, direction).unwrap();
        assert_eq!(page.grids[0].values[0], values, "{:?}", metric.kind);
        let unpatched = &page.metrics[0].unpatched;
        assert_eq!((unpatched.clean, unpatched.corrupted), (clean, corrupted));
        assert!(page.grids.iter().all(|grid| grid.values.len() == page.metrics.len()));
        page
    }

    #[test]
    fn the_asked_metric_comes_first_with_the_bits_that_the_sweep_has() {
        for (arguments, n_metrics) in [
            (&["--metric", "logit_diff"][..], 5),
            (&["--metric", "normalized"], 5),
            (&["--metric", "prob_diff"], 5),
            (&["--as", "change"], 5),
            (&["--metric", "prob_diff", "--a", " Smith", "--b", "#5437", "--b", "#257"], 5),
            (&["--metric", "rank"], 3),
            (&["--metric", "prob_change"], 2),
            (&["--metric", "kl"], 1),
            (&["--metric", "loss", "--loss-at", "1..4"], 1),
        ] {
            let page = page_of(&named(arguments), Direction::Denoising, Engine::default());
            let labels: HashSet<&str> = page.metrics.iter().map(|m| &*m.label).collect();
            assert_eq!(labels.len(), n_metrics, "{labels:?}");
        }
        page_of(&logit_diff(), Direction::Noising, Engine::Plain);
    }

    #[test]
    fn a_metric_that_cannot_be_normalised_is_left_out_and_a_stop_leaves_no_page() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = |text| tiny.tokenizer.encode(text).unwrap();
        let (clean, corrupted) = (ids("Michelle Jones was"), ids("Michelle Smith was"));
        let experiment = Experiment::new(&tiny.model, clean, corrupted, Direction::Denoising).unwrap();
        // Unpatched runs that end alike, whatever the prompts are.
        let row = vec![1.0; tiny.model.config.vocab_size];
        let (metric, stop) = (logit_diff(), Interrupt::default());
        let recorder = |metric: &NamedMetric| {
            let recorder = Recorder::new(&tiny, &experiment, metric, Engine::default(), &stop);
            for logits in &recorder.logits {
                logits.set(row.clone()).unwrap();
            }
            recorder
        };
        let sites = [SiteKind::ResidPost, SiteKind::Z];
        let explored = recorder(&metric).page(&sites, &Provenance::default()).unwrap();
        assert_eq!(explored.metrics.len(), 4);
        assert!(explored.grids.iter().all(|grid| grid.values.len() == 4));
        let refused = recorder(&named(&["--metric", "normalized"])).page(&sites, &Provenance::default());
        assert!(matches!(refused, Err(Failure::Input(_))), "{refused:?}");
        stop.flag().store(true, Ordering::Relaxed);
        let stopped = recorder(&metric).page(&sites, &Provenance::default());
        assert!(matches!(stopped, Err(Failure::Stopped { .. })), "{stopped:?}");
    }

    #[test]
    fn a_patch_that_changes_nothing_takes_its_next_tokens_from_the_base_run() {
        for engine in [Engine::default(), Engine::Plain] {
            let page = page_of(&logit_diff(), Direction::Denoising, engine);
            let (grid, heads) = (&page.grids[0], &page.grids[1]);
            assert_eq!((grid.shape, heads.shape), ([12, 5], [12, 4]));
            for (cell, top) in grid.top.iter().enumerate() {
                // The prompts differ at position 1; the last layer is read at the last position.
                let changes = cell % 5 == 4 || (cell % 5 > 0 && cell / 5 < 11);
                assert_eq!(top.is_some(), changes, "cell {cell}");
            }
            // The last position after the last layer is all that the clean run's next token is read from.
            assert_eq!(grid.top[59].as_ref(), Some(&page.top.clean));
            let first = page.top.clean.0[0];
            assert_eq!(page.tokens.ids[first.0], JONES);
            assert_eq!(page.tokens.texts[first.0], "␣Jones");
        }
    }

    #[test]
    fn patterns_are_left_out_where_they_would_be_too_many() {
        let tiny = Pretrained::tiny().unwrap();
        let all = patterns(&tiny, &[373; 128]).unwrap();
        assert_eq!((all.len(), all[0].len()), (48, 128 * 129 / 2));
        let row = |dest: usize| &all[7][dest * (dest + 1) / 2..(dest + 1) * (dest + 2) / 2];
        for dest in [0, 1, 9] {
            let sum: u32 = row(dest).iter().map(|&weight| u32::from(weight)).sum();
            assert!(sum.abs_diff(10_000) <= 5, "{:?}", row(dest));
        }
        let mut many_heads = tiny;
        many_heads.model.config.n_layer = 200;
        assert!(patterns(&many_heads, &[373; 128]).is_none());
    }

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        let arguments = ["--clean", "it's $HOME", "", "a_b/c.png"].map(str::to_owned);
        assert_eq!(typed(&arguments), r"patch-cli --clean 'it'\''s $HOME' '' a_b/c.png");
    }
}
