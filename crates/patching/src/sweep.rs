//! Many patches of one experiment, over axes such as layer × position.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use gpt2::Gpt2;

use crate::engine::{Progress, Unpatched, Watch};
use crate::metric::Which;
use crate::{
    Axis, Direction, Endpoints, Error, Experiment, Head, Metric, Patch, Scale, SiteKind, incremental, plain,
};

/// Numbers over axes, the last axis running fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// What each axis counts.
    pub axes: Vec<Axis>,
    /// The places along each axis, in ascending order: all of them, or those of a [`Subset`].
    pub places: Vec<Vec<usize>>,
    /// The numbers, row-major. A cell that was not asked for, was not reached before the sweep was stopped, or
    /// whose metric cannot be computed ([`Metric`]) is NaN.
    pub values: Vec<f32>,
}

impl Grid {
    /// How many places there are along each axis.
    pub fn shape(&self) -> Vec<usize> {
        self.places.iter().map(Vec::len).collect()
    }

    /// The number at a place on each axis, such as a layer and a position.
    ///
    /// # Panics
    /// If the grid does not have it.
    #[track_caller]
    pub fn at(&self, place: &[usize]) -> f32 {
        let mut index = 0;
        let along = self.places.iter().zip(place);
        let found = place.len() == self.axes.len()
            && along.into_iter().all(|(places, place)| {
                let i = places.binary_search(place);
                index = index * places.len() + i.unwrap_or_default();
                i.is_ok()
            });
        assert!(found, "{place:?} of a grid over {:?} at {:?}", self.axes, self.places);
        self.values[index]
    }
}

/// The part of a sweep that is wanted; along what is not named, all of it. The places may come in
/// any order, and twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    /// Layers.
    pub layers: Option<Vec<usize>>,
    /// Positions; of a pattern, those that attend.
    pub positions: Option<Vec<usize>>,
    /// Heads.
    pub heads: Option<Vec<Head>>,
    /// Neurons.
    pub neurons: Option<Vec<usize>>,
}

/// What came out of a sweep.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The metric of the clean run, unpatched; NaN if the sweep was stopped before that.
    pub clean_metric: f32,
    /// The metric of the corrupted run, unpatched; likewise.
    pub corrupted_metric: f32,
    /// The metric of every patched run; NaN for those that were not reached before the sweep was stopped.
    pub grid: Grid,
    /// How many patched runs were run and have no finite metric, so that their cells are NaN.
    pub missing: usize,
    /// Whether every patched run was run.
    pub complete: bool,
    /// What the two unpatched runs end in; none if the sweep was stopped before that.
    pub unpatched: Option<Unpatched>,
    /// Multiplications and additions of floats that were done, each counted as one.
    pub flops: u64,
}

impl Outcome {
    /// The metric of the unpatched runs; `direction` is the experiment's.
    pub fn ends(&self, direction: Direction) -> Endpoints {
        Endpoints::new(direction, self.clean_metric, self.corrupted_metric)
    }

    /// The mean of sweeps over the same cells, whose base run is the same: what resampling from several prompts
    /// does on average. The unpatched runs are those of the first; `None` of no sweeps.
    ///
    /// # Panics
    /// If the grids differ in shape.
    pub fn mean(outcomes: &[Self]) -> Option<Self> {
        let (first, share) = (outcomes.first()?, 1.0 / outcomes.len() as f32);
        let mut mean = first.clone();
        mean.grid.values.fill(0.0);
        mean.corrupted_metric = outcomes.iter().map(|it| share * it.corrupted_metric).sum();
        mean.missing = outcomes.iter().map(|it| it.missing).sum();
        mean.complete = outcomes.iter().all(|it| it.complete);
        mean.flops = outcomes.iter().map(|it| it.flops).sum();
        for outcome in outcomes {
            let (of_mean, of_this) = (&mut mean.grid.values, &outcome.grid.values);
            assert!(
                of_mean.len() == of_this.len(),
                "a mean of {} and {} cells",
                of_mean.len(),
                of_this.len()
            );
            of_mean.iter_mut().zip(of_this).for_each(|(sum, value)| *sum += share * value);
        }
        Some(mean)
    }

    /// The grid on the scale on which the clean run is 1 and the corrupted run 0:
    /// `(patched − corrupted) / (clean − corrupted)` (TransformerLens's usual normalisation).
    ///
    /// # Errors
    /// As [`crate::normalized_unit`].
    pub fn normalized(&self) -> Result<Grid, Error> {
        let mut grid = self.grid.clone();
        let ends = self.ends(Direction::Denoising); // the base does not matter
        Scale::Normalized.apply(&mut grid.values, ends)?;
        Ok(grid)
    }
}

/// Which engine runs a sweep. They agree to within rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Only what can change, all patched runs together: [`incremental`].
    Incremental {
        /// How many bytes to hold at the most, beyond the weights (more, if a single run takes more).
        memory: usize,
    },
    /// A whole forward pass for every patch: [`plain`].
    Plain,
}

impl Default for Engine {
    /// The incremental engine with 1 GiB.
    fn default() -> Self {
        Self::Incremental { memory: 1 << 30 }
    }
}

impl Engine {
    /// Both, the incremental one with 1 GiB.
    pub const ALL: [Self; 2] = [Self::Incremental { memory: 1 << 30 }, Self::Plain];

    /// The same engine, which holds this many bytes at the most if it holds any.
    pub fn with_memory(self, memory: usize) -> Self {
        match self {
            Self::Incremental { .. } => Self::Incremental { memory },
            Self::Plain => Self::Plain,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Incremental { .. } => "incremental",
            Self::Plain => "plain",
        })
    }
}

impl FromStr for Engine {
    type Err = String;

    /// `incremental` has 1 GiB.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|engine| engine.to_string() == text);
        found.ok_or_else(|| format!("there is no engine \"{text}\"; give incremental or plain"))
    }
}

/// Many patches of one experiment.
#[derive(Clone, Debug)]
pub struct Sweep<'a> {
    experiment: &'a Experiment,
    site: SiteKind,
    axes: Vec<Axis>,
    subset: Subset,
    known: Vec<f32>,
    stop: &'a AtomicBool,
}

impl<'a> Sweep<'a> {
    /// A sweep over the usual axes of a site: every layer × position, or every layer × head.
    pub fn over(experiment: &'a Experiment, site: SiteKind) -> Self {
        Self {
            experiment,
            site,
            axes: site.default_axes().to_vec(),
            subset: Subset::default(),
            known: Vec::new(),
            stop: Watch::NOBODY.stop,
        }
    }

    /// The same sweep over other axes; along the axes that are not named, a patch takes in
    /// everything.
    ///
    /// # Panics
    /// If the site does not have one of these axes, or the layer is not the first.
    #[track_caller]
    pub fn by(self, axes: &[Axis]) -> Self {
        let fits =
            axes.first() == Some(&Axis::Layer) && axes.iter().all(|axis| self.site.axes().contains(axis));
        assert!(fits, "{} over {axes:?}: it has the axes {:?}", self.site, self.site.axes());
        Self { axes: axes.to_vec(), ..self }
    }

    /// Only a part of the sweep.
    ///
    /// # Errors
    /// If the sweep does not run along an axis that the subset names, if the model or the prompts have
    /// no such place, or if nothing is left.
    pub fn only(self, model: &Gpt2, subset: Subset) -> Result<Self, Error> {
        let Subset { layers, positions, heads, neurons } = &subset;
        let check = |axis: Axis, places: &[usize]| {
            let length = self.length(axis, model);
            match places.iter().find(|place| **place >= length) {
                Some(&index) => Err(Error::OutOfRange { axis, index, length }),
                None => Ok(()),
            }
        };
        let missing = |asked: Axis| Error::NoSuchAxis { site: self.site, asked, axes: self.axes.clone() };
        if let Some(layers) = layers {
            check(Axis::Layer, layers)?;
        }
        if let Some(positions) = positions {
            let axis = [Axis::Pos, Axis::Dest].into_iter().find(|axis| self.axes.contains(axis));
            let axis = axis.ok_or_else(|| missing(Axis::Pos))?;
            check(axis, positions)?;
        }
        if let Some(neurons) = neurons {
            if !self.axes.contains(&Axis::Neuron) {
                return Err(missing(Axis::Neuron));
            }
            check(Axis::Neuron, neurons)?;
        }
        if let Some(heads) = heads {
            if !self.axes.contains(&Axis::Head) {
                return Err(missing(Axis::Head));
            }
            for head in heads {
                check(Axis::Layer, &[head.layer])?;
                check(Axis::Head, &[head.head])?;
            }
        }
        let only = Self { subset, ..self };
        match only.cells(model).iter().any(Option::is_some) {
            true => Ok(only),
            false => Err(Error::EmptySubset),
        }
    }

    /// The same sweep, some of whose values are known from an earlier run: one for every cell of the
    /// grid, NaN for those that are still to be run. (A run whose metric cannot be computed is run once
    /// more, and NaN again.)
    ///
    /// # Panics
    /// In [`Sweep::run`], if there are not as many as the grid has cells.
    pub fn knowing(self, known: Vec<f32>) -> Self {
        Self { known, ..self }
    }

    /// The same sweep, which ends before its time once `stop` is set. What was not reached is NaN.
    pub fn stopped_by(self, stop: &'a AtomicBool) -> Self {
        Self { stop, ..self }
    }

    /// The experiment.
    pub fn experiment(&self) -> &'a Experiment {
        self.experiment
    }

    /// What ends it before its time.
    pub(crate) fn stop(&self) -> &'a AtomicBool {
        self.stop
    }

    /// What is patched.
    pub fn site(&self) -> SiteKind {
        self.site
    }

    /// The axes along which it runs.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// How many places an axis has in all.
    fn length(&self, axis: Axis, model: &Gpt2) -> usize {
        match axis {
            Axis::Layer if !self.site.is_in_block() => 1,
            Axis::Layer => model.config.n_layer,
            Axis::Head => model.config.n_head,
            Axis::Neuron => model.config.inner_size(),
            Axis::Pos | Axis::Dest | Axis::Src => self.experiment.n_tokens(),
        }
    }

    /// The places along each axis.
    pub fn places(&self, model: &Gpt2) -> Vec<Vec<usize>> {
        let Subset { layers, positions, heads, neurons } = &self.subset;
        let wanted = |axis: Axis, place: usize| match axis {
            Axis::Layer => {
                layers.as_ref().is_none_or(|layers| layers.contains(&place))
                    && heads.as_ref().is_none_or(|heads| heads.iter().any(|head| head.layer == place))
            }
            Axis::Head => heads.as_ref().is_none_or(|heads| heads.iter().any(|head| head.head == place)),
            Axis::Pos | Axis::Dest => positions.as_ref().is_none_or(|wanted| wanted.contains(&place)),
            Axis::Neuron => neurons.as_ref().is_none_or(|wanted| wanted.contains(&place)),
            Axis::Src => true,
        };
        let along =
            |&axis: &Axis| (0..self.length(axis, model)).filter(|&place| wanted(axis, place)).collect();
        self.axes.iter().map(along).collect()
    }

    /// The patch of every cell of the grid; none for a head that was not asked for.
    pub(crate) fn cells(&self, model: &Gpt2) -> Vec<Option<Patch>> {
        let mut patches = vec![Patch::whole(self.site, 0)];
        for (&axis, places) in self.axes.iter().zip(self.places(model)) {
            let along = |patch: Patch| places.iter().map(move |&i| patch.narrowed(axis, i));
            patches = patches.into_iter().flat_map(along).collect();
        }
        let asked_for = |patch: &Patch| match (&self.subset.heads, patch.head) {
            (Some(heads), Some(head)) => heads.contains(&Head { layer: patch.layer, head }),
            _ => true,
        };
        patches.into_iter().map(|patch| asked_for(&patch).then_some(patch)).collect()
    }

    /// Every patch, in the order of the grid.
    pub fn patches(&self, model: &Gpt2) -> Vec<Patch> {
        self.cells(model).into_iter().flatten().collect()
    }

    /// Runs every patch.
    ///
    /// # Panics
    /// If the metric names a token or a position that is not there, or if a pattern is ablated by
    /// anything but zeros: its rows attend to different numbers of positions, so neither one of them nor
    /// their mean can stand for another.
    pub fn run(&self, model: &Gpt2, metric: Metric<'_>, engine: Engine, progress: Progress<'_>) -> Outcome {
        let cells = self.cells(model);
        let mut values = match self.known.len() {
            0 => vec![f32::NAN; cells.len()],
            n => {
                assert!(n == cells.len(), "{n} known values for {} cells", cells.len());
                self.known.clone()
            }
        };
        let pending = |(cell, patch): (usize, &Option<Patch>)| {
            let patch = (*patch)?;
            values[cell].is_nan().then_some((cell, patch))
        };
        let (at, patches): (Vec<usize>, Vec<Patch>) = cells.iter().enumerate().filter_map(pending).unzip();

        // A custom metric is told the cell, the engines count the patches.
        let by_cell;
        let metric = match metric {
            Metric::Custom(f) => {
                by_cell = |which: Which, logits: &[f32]| match which {
                    Which::Patched(i) => f(Which::Patched(at[i]), logits),
                    unpatched => f(unpatched, logits),
                };
                Metric::Custom(&by_cell)
            }
            other => other,
        };
        let watch = Watch { progress, stop: self.stop };
        let measured = match engine {
            Engine::Plain => plain::run(model, self.experiment, &patches, metric, watch),
            Engine::Incremental { memory } => {
                incremental::run(model, self.experiment, &patches, metric, memory, watch)
            }
        };
        for (cell, value) in at.iter().zip(&measured.values) {
            values[*cell] = value.unwrap_or(f32::NAN);
        }
        Outcome {
            missing: measured.values.iter().flatten().filter(|value| value.is_nan()).count(),
            clean_metric: measured.clean,
            corrupted_metric: measured.corrupted,
            grid: Grid { axes: self.axes.clone(), places: self.places(model), values },
            complete: measured.unpatched.is_some() && measured.values.iter().all(Option::is_some),
            unpatched: measured.unpatched,
            flops: measured.flops,
        }
    }
}

#[cfg(test)]
mod tests {
    use gpt2::Config;

    use super::*;

    fn model() -> Gpt2 {
        let sizes =
            Config { vocab_size: 9, block_size: 8, n_layer: 3, n_head: 2, n_embd: 8, ..Config::default() };
        Gpt2::random(sizes, 3)
    }

    fn experiment(model: &Gpt2) -> Experiment {
        Experiment::new(model, vec![1, 2, 3, 4], vec![1, 5, 3, 4], Direction::Denoising).unwrap()
    }

    /// A model whose logit of token 8 overflows where one number of the last row is larger than 1.
    fn overflowing() -> Gpt2 {
        let mut model = model();
        let mut head = model.wte.clone();
        head.row_mut(8).fill(0.0);
        head.row_mut(8)[0] = f32::MAX;
        model.lm_head = Some(head);
        model
    }

    #[test]
    fn runs_whose_logits_overflow_are_nan_on_both_engines() {
        let model = overflowing();
        let token = [8];
        let (mut missing, mut finite) = (0, 0);
        for (clean, corrupted) in [(1, 5), (2, 6), (3, 7), (4, 8)] {
            let [clean, corrupted] = [clean, corrupted].map(|id| vec![id, 2, 3, id]);
            let experiment = Experiment::new(&model, clean, corrupted, Direction::Denoising).unwrap();
            let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
            for metric in [
                Metric::Kl,
                Metric::Rank { token: 1 },
                Metric::Loss { from: 1, to: 3 },
                Metric::LogProb { tokens: &[1] },
                Metric::Logit { tokens: &token },
            ] {
                let run = |engine| sweep.run(&model, metric, engine, &|_| {});
                let [fast, plain] = [Engine::default(), Engine::Plain].map(run);
                for (x, y) in fast.grid.values.iter().zip(&plain.grid.values) {
                    assert_eq!((x.is_nan(), x.is_finite()), (y.is_nan(), !y.is_nan()));
                }
                let nan = fast.grid.values.iter().filter(|x| x.is_nan()).count();
                assert_eq!((fast.missing, plain.missing), (nan, nan));
                // What is known to be missing is run again, once, and nothing else.
                let again = sweep.clone().knowing(fast.grid.values.clone());
                let again = again.run(&model, metric, Engine::default(), &|_| {});
                assert!(again.complete && again.missing == nan);
                let same = |(x, y): (&f32, &f32)| x == y || x.is_nan() && y.is_nan();
                assert!(again.grid.values.iter().zip(&fast.grid.values).all(same));
                missing += nan;
                finite += fast.grid.values.len() - nan;

                let ends = fast.ends(Direction::Denoising);
                let checked = experiment.check_ends(&model, ends);
                let are_finite = ends.clean.is_finite() && ends.corrupted.is_finite();
                assert_eq!(checked.is_ok(), are_finite);
                if let Err(error) = checked {
                    let error = error.to_string();
                    assert!(error.contains(" the logit of token 8 is "), "{error}");
                }
            }
        }
        assert!(missing > 20 && finite > 20, "{missing} {finite}");
    }

    fn heads(names: &[&str]) -> Vec<Head> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    const METRIC: Metric<'static> = Metric::LogitDiff { a: &[0], b: &[1] };

    fn run(sweep: &Sweep<'_>, model: &Gpt2) -> Outcome {
        sweep.run(model, METRIC, Engine::default(), &|_| {})
    }

    #[test]
    fn a_subset_has_the_values_of_the_whole_sweep_and_no_others() {
        let model = model();
        let experiment = experiment(&model);
        let sweep = Sweep::over(&experiment, SiteKind::Z).by(&[Axis::Layer, Axis::Pos, Axis::Head]);
        let whole = run(&sweep, &model).grid;
        let subset =
            Subset { positions: Some(vec![3, 1]), heads: Some(heads(&["2.1", "0.0"])), ..Subset::default() };
        let part = run(&sweep.only(&model, subset).unwrap(), &model).grid;
        assert_eq!(part.places, [vec![0, 2], vec![1, 3], vec![0, 1]]);
        for pos in [1, 3] {
            for (layer, head) in [(0, 0), (2, 1)] {
                let place = [layer, pos, head];
                assert_eq!(part.at(&place), whole.at(&place), "{place:?}");
            }
            assert!(part.at(&[0, pos, 1]).is_nan() && part.at(&[2, pos, 0]).is_nan());
        }
    }

    #[test]
    fn a_subset_that_is_not_there_is_refused_with_the_range() {
        let model = model();
        let experiment = experiment(&model);
        let refused = |site, subset| {
            let sweep = Sweep::over(&experiment, site).only(&model, subset);
            sweep.unwrap_err().to_string()
        };
        let layers = |layers: &[usize]| Subset { layers: Some(layers.to_vec()), ..Subset::default() };
        let of_heads = |names: &[&str]| Subset { heads: Some(heads(names)), ..Subset::default() };
        let positions = Subset { positions: Some(vec![4]), ..Subset::default() };
        let error = refused(SiteKind::Z, layers(&[1, 3]));
        assert_eq!(error, "there is no layer 3: they run from 0 to 2");
        let error = refused(SiteKind::Z, of_heads(&["0.2"]));
        assert_eq!(error, "there is no head 2: they run from 0 to 1");
        let error = refused(SiteKind::ResidPre, positions.clone());
        assert_eq!(error, "there is no pos 4: they run from 0 to 3");
        let error = refused(SiteKind::Z, positions);
        assert_eq!(error, "a sweep of z over layer × head has no pos to choose from");
        let error = refused(SiteKind::MlpOut, of_heads(&["0.0"]));
        assert_eq!(error, "a sweep of mlp_out over layer × pos has no head to choose from");
        assert!(refused(SiteKind::Z, layers(&[])).contains("nothing to patch"));
    }

    #[test]
    fn a_stopped_sweep_goes_on_from_what_it_knows() {
        let model = model();
        let experiment = experiment(&model);
        let sweep = Sweep::over(&experiment, SiteKind::ResidPre);
        let whole = run(&sweep, &model);
        assert!(whole.complete);
        let stop = AtomicBool::new(true);
        for engine in [Engine::default(), Engine::Plain] {
            let stopped = sweep.clone().stopped_by(&stop);
            let stopped = stopped.run(&model, METRIC, engine, &|_| {});
            assert!(!stopped.complete, "{engine:?}");
            assert!(stopped.clean_metric.is_nan() && stopped.unpatched.is_none());
        }
        // Some values known, and one of them wrong, so as to see that it was not run again.
        let mut known = whole.grid.values.clone();
        known[3..].fill(f32::NAN);
        known[1] = 77.0;
        let rest = run(&sweep.clone().knowing(known), &model).grid.values;
        assert_eq!(rest[1], 77.0);
        assert_eq!(rest[0], whole.grid.values[0]);
        assert_eq!(rest[2..], whole.grid.values[2..]);
    }

    #[test]
    fn a_custom_metric_sees_every_run_once_and_knows_its_cell() {
        let model = model();
        let experiment = experiment(&model);
        let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
        let expected = run(&sweep, &model).grid;
        for engine in [Engine::default(), Engine::Plain] {
            let seen = std::sync::Mutex::new(Vec::new());
            let own = |which: Which, logits: &[f32]| {
                seen.lock().unwrap().push(which);
                logits[0] - logits[1]
            };
            let subset = Subset { layers: Some(vec![2]), ..Subset::default() };
            let part = sweep.clone().only(&model, subset).unwrap();
            let grid = part.run(&model, Metric::Custom(&own), engine, &|_| {}).grid;
            for (value, expected) in grid.values.iter().zip(&expected.values[8..]) {
                assert!((value - expected).abs() < 1e-5);
            }
            let mut seen = seen.into_inner().unwrap();
            seen.sort_by_key(|which| format!("{which:?}"));
            let patched = (0..4).map(Which::Patched);
            let all: Vec<Which> = [Which::Clean, Which::Corrupted].into_iter().chain(patched).collect();
            assert_eq!(seen, all, "{engine:?}");
        }
    }

    #[test]
    fn the_normalised_grid_is_one_where_the_run_is_clean_and_zero_where_it_is_corrupted() {
        let model = model();
        let experiment = experiment(&model);
        let mut outcome = run(&Sweep::over(&experiment, SiteKind::ResidPost), &model);
        let grid = outcome.normalized().unwrap();
        assert_eq!(grid.at(&[2, 3]), 1.0);
        assert_eq!(grid.at(&[0, 0]), 0.0);
        outcome.clean_metric = outcome.corrupted_metric;
        let error = outcome.normalized().unwrap_err().to_string();
        assert!(error.contains("too close to each other"), "{error}");
    }
}
