//! Many patches of one experiment, over axes such as layer × position.

use std::fmt;

use gpt2::Gpt2;
use tensor::{Tensor, matmul_transposed};

use crate::{Direction, Experiment, Logits, Metric, Patch, SiteKind, incremental, plain};

/// What one axis of a grid counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// The block, from 0.
    Layer,
    /// The position of a token, from 0.
    Pos,
    /// The attention head within its layer, from 0.
    Head,
    /// The position that attends.
    Dest,
    /// The position that is attended to.
    Src,
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Layer => "layer",
            Self::Pos => "pos",
            Self::Head => "head",
            Self::Dest => "dest",
            Self::Src => "src",
        })
    }
}

/// Numbers over axes, the last axis running fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// What each axis counts.
    pub axes: Vec<Axis>,
    /// How long each axis is.
    pub shape: Vec<usize>,
    /// The numbers, row-major.
    pub values: Vec<f32>,
}

impl Grid {
    /// The number at an index for each axis.
    ///
    /// # Panics
    /// If the index is outside of the grid.
    #[track_caller]
    pub fn at(&self, index: &[usize]) -> f32 {
        let inside =
            index.len() == self.shape.len() && index.iter().zip(&self.shape).all(|(i, n)| i < n);
        assert!(
            inside,
            "index {index:?} of a grid of shape {:?}",
            self.shape
        );
        self.values[index
            .iter()
            .zip(&self.shape)
            .fold(0, |sum, (i, n)| sum * n + i)]
    }
}

/// What came out of a sweep.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The metric of the clean run, unpatched.
    pub clean_metric: f32,
    /// The metric of the corrupted run, unpatched.
    pub corrupted_metric: f32,
    /// The metric of every patched run.
    pub grid: Grid,
    /// What the two unpatched runs end in.
    pub unpatched: Unpatched,
    /// Multiplications and additions of floats that were done, each counted as one.
    pub flops: u64,
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

/// Told, from several threads, which share of all work has been done since the last time. The shares
/// add up to at most 1.
pub type Progress<'a> = &'a (dyn Fn(f64) + Sync);

/// What the two unpatched runs end in: the last position's residual stream after the last layer norm, of
/// which logits are made.
#[derive(Clone, Debug)]
pub struct Unpatched {
    /// Of the clean run, `(C)`.
    pub clean: Vec<f32>,
    /// Of the corrupted run, `(C)`.
    pub corrupted: Vec<f32>,
}

impl Unpatched {
    /// Tells the two runs apart by the direction of the experiment.
    pub(crate) fn new(direction: Direction, source: Vec<f32>, base: Vec<f32>) -> Self {
        match direction {
            Direction::Denoising => Self {
                clean: source,
                corrupted: base,
            },
            Direction::Noising => Self {
                clean: base,
                corrupted: source,
            },
        }
    }

    /// The logits of the next token after the clean and after the corrupted run, `(vocab_size)` each.
    pub fn logits(&self, model: &Gpt2) -> [Vec<f32>; 2] {
        let rows = Tensor::new(
            &[2, self.clean.len()],
            [&self.clean[..], &self.corrupted].concat(),
        );
        let logits = matmul_transposed(&rows, model.unembedding()); // (2, V)
        [0, 1].map(|run| logits.row(run).to_vec())
    }
}

/// What an engine gives back.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The metric of every patched run, in the order of the patches.
    pub values: Vec<f32>,
    /// What the two unpatched runs end in.
    pub unpatched: Unpatched,
    /// Multiplications and additions of floats that were done, each counted as one.
    pub flops: u64,
}

/// Many patches of one experiment.
#[derive(Clone, Debug)]
pub struct Sweep<'a> {
    experiment: &'a Experiment,
    site: SiteKind,
    axes: Vec<Axis>,
}

impl<'a> Sweep<'a> {
    /// A sweep over the usual axes of a site: every layer × position, or every layer × head.
    pub fn over(experiment: &'a Experiment, site: SiteKind) -> Self {
        Self {
            experiment,
            site,
            axes: site.default_axes().to_vec(),
        }
    }

    /// The same sweep over other axes; along the axes that are not named, a patch takes in
    /// everything.
    ///
    /// # Panics
    /// If the site does not have one of these axes, or the layer is not the first.
    #[track_caller]
    pub fn by(self, axes: &[Axis]) -> Self {
        let fits = axes.first() == Some(&Axis::Layer)
            && axes.iter().all(|axis| self.site.axes().contains(axis));
        assert!(
            fits,
            "{} over {axes:?}: it has the axes {:?}",
            self.site,
            self.site.axes()
        );
        Self {
            axes: axes.to_vec(),
            ..self
        }
    }

    /// How long each axis is for this model.
    pub fn shape(&self, model: &Gpt2) -> Vec<usize> {
        let length = |axis: &Axis| match axis {
            Axis::Layer => model.config.n_layer,
            Axis::Head => model.config.n_head,
            Axis::Pos | Axis::Dest | Axis::Src => self.experiment.n_tokens(),
        };
        self.axes.iter().map(length).collect()
    }

    /// Every patch, in the order of the grid.
    pub fn patches(&self, model: &Gpt2) -> Vec<Patch> {
        let mut patches = vec![Patch::whole(self.site, 0)];
        for (&axis, length) in self.axes.iter().zip(self.shape(model)) {
            let along = |patch: Patch| (0..length).map(move |i| patch.narrowed(axis, i));
            patches = patches.into_iter().flat_map(along).collect();
        }
        patches
    }

    /// Runs every patch.
    pub fn run(
        &self,
        model: &Gpt2,
        metric: Metric,
        engine: Engine,
        progress: Progress<'_>,
    ) -> Outcome {
        let patches = self.patches(model);
        let Measured {
            values,
            unpatched,
            flops,
        } = match engine {
            Engine::Plain => plain::run(model, self.experiment, &patches, metric, progress),
            Engine::Incremental { memory } => {
                incremental::run(model, self.experiment, &patches, metric, memory, progress)
            }
        };
        let [clean, corrupted] = [&unpatched.clean, &unpatched.corrupted]
            .map(|row| Logits::for_metric(metric, model, row));
        Outcome {
            clean_metric: metric.of(&clean, &clean),
            corrupted_metric: metric.of(&corrupted, &clean),
            grid: Grid {
                axes: self.axes.clone(),
                shape: self.shape(model),
                values,
            },
            unpatched,
            flops,
        }
    }
}
