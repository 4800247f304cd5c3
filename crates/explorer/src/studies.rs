//! The studies behind the page: each takes a question and sends what the libraries say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use gpt2::generate::check_logits;
use gpt2::{Pretrained, Site, SiteKind};
use patching::observe::{Run, observe};
use patching::{
    Direction, Endpoints, Engine, Grid, Method, Metric, Outcome, Progress, Subset, Sweep, Watch, attribute,
};
use report::{Candidate, top};
use serde::Serialize;
use tensor::Tensor;
use visible::visible;

use crate::ask::{Question, Refused};
use crate::client::Client;
use crate::queue::Turn;

/// How much an engine holds at the most, beyond the weights.
const MEMORY: usize = 256 << 20;

/// The engine of everything here.
pub const ENGINE: Engine = Engine::Incremental { memory: MEMORY };

/// How many next tokens are listed: after a prompt, and after each of its positions.
const TOP: usize = 10;
const TOP_EVERYWHERE: usize = 3;

/// Rows whose logits are held together.
const LOGIT_ROWS: usize = 64;

/// The most points of a logit lens (layers and positions): each costs an unembedding.
const MOST_POINTS: usize = 8192;

/// The longest prompt whose patterns are sent: their numbers grow with its square.
const MOST_TOKENS_OF_PATTERN: usize = 256;

/// A sweep that is expected to take longer than this, in seconds, is predicted first, and sent in parts.
const LONG: f64 = 1.0;
const PARTS: usize = 4;

/// A model, and how fast it has been.
pub struct Bench {
    /// The model.
    pub model: Pretrained,
    /// How many picoseconds a cell took for each token, in the last sweep; 0 before the first.
    pace: AtomicU64,
}

/// What is known while a question is answered.
pub struct Job<'a> {
    pub client: &'a Client,
    pub turn: &'a Turn<'a>,
    pub progress: Progress<'a>,
}

impl Job<'_> {
    pub fn watch(&self) -> Watch<'_> {
        Watch { progress: self.progress, stop: &self.turn.stop }
    }
}

/// What a run says next, and what the metric is there.
#[derive(Serialize)]
struct Seen {
    top: Vec<Candidate>,
    /// At every position the most likely next tokens.
    every: Vec<Vec<Candidate>>,
    /// The metric, as it is.
    metric: Option<f32>,
    /// A head's pattern, row after row up to the diagonal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<Vec<f32>>,
}

/// The most likely next tokens after the two unpatched runs.
#[derive(Serialize)]
struct Next {
    clean: Vec<Candidate>,
    corrupted: Vec<Candidate>,
}

/// The runs that were looked at, by their names, and the cell and head that they were asked for with.
#[derive(Serialize)]
struct Looked {
    seen: BTreeMap<&'static str, Seen>,
    cell: Option<[usize; 2]>,
    head: Option<[usize; 2]>,
}

/// A logit lens: for every point and position the most likely token with its probability, and those of the answers.
#[derive(Serialize)]
struct Lens<'a> {
    run: &'static str,
    points: &'a [String],
    tokens: Vec<String>,
    probs: &'a [f32],
    answer_probs: &'a [f32],
    answers: [String; 2],
    n_tokens: usize,
}

/// A grid as the page draws it.
#[derive(Serialize)]
struct Shown<'a> {
    site: String,
    /// What its columns are: "pos" or "head". Its rows are layers.
    axis: String,
    shape: Vec<usize>,
    values: &'a [f32],
    missing: usize,
    /// The metric of the unpatched runs, as it is.
    clean_metric: f32,
    corrupted_metric: f32,
    /// The same on the scale of the values.
    unpatched: [f32; 2],
    base: &'static str,
    label: String,
    low: String,
    high: String,
    center: Option<f32>,
    seconds: Option<f64>,
}

impl<'a> Shown<'a> {
    fn of(question: &Question, grid: &'a Grid, ends: Endpoints) -> Result<Self, Refused> {
        let measure = &question.measure;
        let mut unpatched = [ends.clean, ends.corrupted];
        measure.scale.apply(&mut unpatched, ends)?;
        let [low, high] = measure.ends_in_words();
        Ok(Self {
            site: question.site.to_string(),
            axis: grid.axes[1].to_string(),
            shape: grid.shape(),
            values: &grid.values,
            missing: 0,
            clean_metric: ends.clean,
            corrupted_metric: ends.corrupted,
            unpatched,
            base: base_name(question.experiment.direction()),
            label: measure.label(),
            low,
            high,
            center: measure.center(),
            seconds: None,
        })
    }
}

impl Bench {
    /// A model that was not used yet.
    pub fn new(model: Pretrained) -> Self {
        Self { model, pace: AtomicU64::new(0) }
    }

    /// Every patched run, and before it, if that takes long or is asked for, what is predicted.
    pub fn sweep(&self, question: &Question, preview: bool, job: &Job<'_>) -> Result<(), Refused> {
        let Question { experiment, measure, site } = question;
        let model = &self.model.model;
        let sweep = Sweep::over(experiment, *site).stopped_by(&job.turn.stop);
        let size = (sweep.patches(model).len() * experiment.n_tokens()) as u64;
        let is_long = preview || self.pace.load(Ordering::Relaxed) as f64 * size as f64 * 1e-12 > LONG;
        if is_long {
            self.predict(question, &sweep, job);
        }
        let start = Instant::now();
        let outcome = match is_long {
            true => self.in_parts(question, &sweep, job)?,
            false => sweep.run(model, measure.metric(), ENGINE, job.progress),
        };
        if !outcome.complete {
            return Ok(()); // It is said that it was stopped.
        }
        let elapsed = start.elapsed();
        self.pace.store(elapsed.as_nanos() as u64 * 1000 / size.max(1), Ordering::Relaxed);
        let ends = outcome.ends(experiment.direction());
        experiment.check_ends(model, ends)?;
        let mut grid = outcome.grid.clone();
        measure.scale.apply(&mut grid.values, ends)?;
        let shown = Shown { seconds: Some(elapsed.as_secs_f64()), ..Shown::of(question, &grid, ends)? };
        job.client.send("grid", &Shown { missing: outcome.missing, ..shown });
        self.say_next(&outcome, experiment.n_tokens(), job)
    }

    /// A long sweep, some layers at a time, the last and cheapest ones first. What is done is sent; the bits of a cell
    /// do not depend on what is run beside it.
    fn in_parts(&self, question: &Question, sweep: &Sweep<'_>, job: &Job<'_>) -> Result<Outcome, Refused> {
        let (model, metric) = (&self.model.model, question.measure.metric());
        let layers: Vec<usize> = (0..model.config.n_layer).collect();
        let parts = layers.chunks(layers.len().div_ceil(PARTS));
        let share = 1.0 / parts.len() as f64;
        let progress = |more: f64| (job.progress)(more * share);
        let mut whole: Option<Outcome> = None;
        for layers in parts.rev() {
            let subset = Subset { layers: Some(layers.to_vec()), ..Subset::default() };
            let part = sweep.clone().only(model, subset)?.run(model, metric, ENGINE, &progress);
            if !part.complete {
                return Ok(part);
            }
            let per_layer = part.grid.values.len() / layers.len();
            let all = whole.get_or_insert_with(|| {
                let values = vec![f32::NAN; model.config.n_layer * per_layer];
                let grid = Grid { places: sweep.places(model), values, ..part.grid.clone() };
                Outcome { grid, missing: 0, ..part.clone() }
            });
            all.missing += part.missing;
            all.grid.values[layers[0] * per_layer..][..part.grid.values.len()]
                .copy_from_slice(&part.grid.values);
            let (mut grid, ends) = (all.grid.clone(), all.ends(question.experiment.direction()));
            question.measure.scale.apply(&mut grid.values, ends)?;
            job.client.send("part", &Shown::of(question, &grid, ends)?);
        }
        whole.ok_or_else(|| Refused::from("this model has no layers".to_owned()))
    }

    /// The next tokens after the two unpatched runs.
    fn say_next(&self, outcome: &Outcome, n_tokens: usize, job: &Job<'_>) -> Result<(), Refused> {
        let Some(unpatched) = &outcome.unpatched else { return Ok(()) };
        let [clean, corrupted] = unpatched.logits(&self.model.model);
        for logits in [&clean, &corrupted] {
            check_logits(logits, n_tokens).map_err(|error| error.to_string())?;
        }
        let [clean, corrupted] = [clean, corrupted].map(|logits| self.candidates(&logits, TOP));
        job.client.send("next", &Next { clean, corrupted });
        Ok(())
    }

    /// Sends the prediction of a sweep, if the metric has a gradient.
    fn predict(&self, question: &Question, sweep: &Sweep<'_>, job: &Job<'_>) {
        let metric = question.measure.metric();
        let sweep = std::slice::from_ref(sweep);
        let Ok(predicted) = attribute(&self.model.model, sweep, metric, Method::Atp, &|_| {}) else { return };
        let Some(grid) =
            predicted.first().filter(|it| it.complete).and_then(|it| it.on(question.measure.scale).ok())
        else {
            return;
        };
        if let Ok(shown) = Shown::of(question, &grid, predicted[0].ends()) {
            job.client.send("preview", &shown);
        }
    }

    fn candidates(&self, logits: &[f32], count: usize) -> Vec<Candidate> {
        let readable = |it: Candidate| Candidate { token: visible(&it.token), ..it };
        top(&self.model, logits, count).into_iter().map(readable).collect()
    }

    /// The clean, the corrupted and perhaps a patched run: what each says next, everywhere, and where a head attends.
    pub fn look(
        &self,
        question: &Question,
        cell: Option<[usize; 2]>,
        head: Option<[usize; 2]>,
        job: &Job<'_>,
    ) -> Result<(), Refused> {
        let experiment = &question.experiment;
        let patch = cell.map(|cell| question.patch(&self.model, cell)).transpose()?;
        let (clean, corrupted) = match experiment.direction() {
            Direction::Denoising => (Run::Source, Run::Base),
            Direction::Noising => (Run::Base, Run::Source),
        };
        let runs =
            [("clean", Some(clean)), ("corrupted", Some(corrupted)), ("patched", patch.map(Run::Patched))];
        let mut clean_logits = None;
        let mut seen = BTreeMap::new();
        for (name, run) in runs {
            let Some(run) = run else { continue };
            let Some(it) = self.see(question, run, head, &mut clean_logits, job)? else { return Ok(()) };
            seen.insert(name, it);
            (job.progress)(1.0 / 3.0);
        }
        job.client.send("looked", &Looked { seen, cell, head });
        Ok(())
    }

    /// One run; none if it was stopped. `clean` is filled by the first one.
    fn see(
        &self,
        question: &Question,
        run: Run,
        head: Option<[usize; 2]>,
        clean: &mut Option<Vec<f32>>,
        job: &Job<'_>,
    ) -> Result<Option<Seen>, Refused> {
        let (model, t) = (&self.model.model, question.experiment.n_tokens());
        let config = &model.config;
        let head = head.filter(|[layer, head]| {
            *layer < config.n_layer && *head < config.n_head && t <= MOST_TOKENS_OF_PATTERN
        });
        let mut pattern = None;
        let mut keep = |site: Site, x: &Tensor| {
            if let Some([layer, head]) = head.filter(|[layer, _]| site == SiteKind::Pattern.at(*layer)) {
                debug_assert_eq!(layer, site.layer);
                let row = |dest: usize| x.row(head * t + dest)[..=dest].to_vec();
                pattern = Some((0..t).flat_map(row).collect());
            }
        };
        let Some(rows) = observe(model, &question.experiment, run, &mut keep, job.watch()) else {
            return Ok(None);
        };
        let mut every = Vec::new();
        let mut last = Vec::new();
        for start in (0..t).step_by(LOGIT_ROWS) {
            if job.turn.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let logits = model.unembed(rows.view().rows(start..(start + LOGIT_ROWS).min(t)));
            for i in 0..logits.n_rows() {
                check_logits(logits.row(i), start + i + 1).map_err(|error| error.to_string())?;
                every.push(self.candidates(logits.row(i), TOP_EVERYWHERE));
            }
            last = logits.row(logits.n_rows() - 1).to_vec();
        }
        let clean = clean.get_or_insert_with(|| last.clone());
        let metric: Metric<'_> = question.measure.metric();
        let metric = metric.of_logits(&last, clean).filter(|value| value.is_finite());
        Ok(Some(Seen { top: self.candidates(&last, TOP), every, metric, pattern }))
    }

    /// The logit lens of the base run, without the edits that stay.
    pub fn lens(&self, question: &Question, job: &Job<'_>) -> Result<(), Refused> {
        let (model, ids) = (&self.model.model, question.experiment.base());
        let points = (2 * model.config.n_layer + 1) * ids.len();
        if points > MOST_POINTS {
            return Err(Refused::from(format!(
                "the logit lens of {} tokens has {points} points; the page shows at most {MOST_POINTS}",
                ids.len()
            )));
        }
        let answers = question.measure.answers.each_ref().map(|(id, _)| *id);
        let lens = lens::logit_lens::logit_lens(model, ids, &answers).map_err(|error| error.to_string())?;
        let tokens: Vec<String> =
            lens.top_token.iter().map(|&id| visible(&self.model.tokenizer.token(id))).collect();
        job.client.send(
            "lens",
            &Lens {
                run: base_name(question.experiment.direction()),
                points: &lens.labels,
                tokens,
                probs: lens.top_prob.data(),
                answer_probs: lens.answer_probs.data(),
                answers: question.measure.answers.each_ref().map(|(_, text)| visible(text)),
                n_tokens: ids.len(),
            },
        );
        Ok(())
    }

    /// The single tokens that a text may become, those of smaller ids, which are the more frequent ones, first.
    pub fn completions(&self, text: &str) -> Vec<String> {
        const MOST: usize = 12;
        const MOST_BYTES: usize = 64;
        if text.is_empty() || text.len() > MOST_BYTES {
            return Vec::new();
        }
        let tokenizer = &self.model.tokenizer;
        let spaced = format!(" {text}");
        let begins = |id: &u32| {
            let bytes = tokenizer.bytes(*id);
            bytes.starts_with(text.as_bytes()) || bytes.starts_with(spaced.as_bytes())
        };
        let count = tokenizer.n_tokens().min(self.model.model.config.vocab_size);
        let readable = |id: u32| String::from_utf8(tokenizer.bytes(id)).ok();
        let known = |id: &u32| self.model.known_tokens.as_ref().is_none_or(|known| known.contains(id));
        (0..count as u32).filter(known).filter(begins).filter_map(readable).take(MOST).collect()
    }
}

/// The run that is patched.
pub fn base_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Denoising => "corrupted",
        Direction::Noising => "clean",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_single_tokens_with_or_without_a_space() {
        let bench = Bench::new(Pretrained::tiny().unwrap());
        let found = bench.completions("Smi");
        assert!(found.contains(&" Smith".to_owned()), "{found:?}");
        for text in &found {
            assert_eq!(bench.model.tokenizer.encode(text).unwrap().len(), 1, "{text}");
        }
        assert!(bench.completions("").is_empty() && bench.completions(&"a".repeat(65)).is_empty());
    }
}
