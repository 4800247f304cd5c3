//! Attribution: what a sweep would give, predicted from one backward pass.
//!
//! A sweep runs the model once for every cell of its grid. To first order in the difference of an activation a,
//! all of these runs follow from the gradient of the metric M in the base run:
//!
//! ```text
//! M(a_source) − M(a_base) ≈ (a_source − a_base) · ∂M/∂a
//! ```
//!
//! One forward pass of each prompt and one backward pass give the gradient with respect to every activation, so
//! the grids of all sites follow at once. Where M bends between the two, the prediction is wrong: hold it to
//! the sweep itself ([`Agreement`]).
//!
//! | [`Method`] | what is predicted | from |
//! |---|---|---|
//! | `atp` | Σ (a_source − a_base) · ∂M/∂a over the cell's components | Nanda 2023, *Attribution patching*; Syed et al. 2023, arXiv 2310.10348 |
//! | `relp` | the same with the gradient of [`gpt2::Rules::relp`] | Jafari et al. 2025, arXiv 2508.21258 |
//! | `atp-star` | the *magnitude* of the same, with the QK fix and GradDrop | Kramár et al. 2024, arXiv 2403.00745 |
//! | `ig` | `atp` with the gradient averaged over m runs between the two prompts | Hanna et al. 2024, arXiv 2403.17806 |
//!
//! **QK fix.** A softmax that has settled on one token has no slope, so queries and keys seem not to matter. For
//! these two sites the pattern is computed exactly with the patched query or key, and only what follows it is
//! linear: Σ (pattern_patched − pattern_base) · ∂M/∂pattern.
//!
//! **GradDrop.** A direct effect and an indirect one may cancel in the gradient, and not in the model. So the
//! effect is computed once for every layer ℓ, with no gradient through what ℓ writes to the residual stream;
//! Σ |effect_ℓ| / (L − 1) is given. (Of L passes, one leaves out the layer of the activation itself.)
//!
//! **Integrated gradients.** The token embeddings of run k are source + k/m (base − source), k = 0 … m − 1; the
//! positions are those of the prompts.
//!
//! A head's `result` is linear in its z, so its cells have the values of those of z.

mod agreement;
mod runs;

use std::fmt;
use std::str::FromStr;

use gpt2::{Gpt2, SiteKind};

pub use self::agreement::{Agreement, errors, farthest, largest};
use self::runs::Runs;
use crate::metric::finite_or_nan;
use crate::{Direction, Endpoints, Error, Grid, Metric, Outcome, Patch, Progress, Scale, Sweep, Watch};

/// How effects are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// The gradient in the base run.
    #[default]
    Atp,
    /// The gradient in the base run, of a model with constant layer norms and activation functions.
    Relp,
    /// Magnitudes, with the QK fix and GradDrop.
    AtpStar,
    /// The gradient averaged over some runs between source and base.
    Ig {
        /// How many runs, at least 1.
        steps: usize,
    },
}

impl Method {
    /// Every method, integrated gradients with five steps.
    pub const ALL: [Self; 4] = [Self::Atp, Self::Relp, Self::AtpStar, Self::Ig { steps: 5 }];

    /// What this method predicts of exact changes: themselves, or, of `atp-star`, their magnitudes.
    pub fn predicts(self, exact: &[f32]) -> Vec<f32> {
        match self {
            Self::AtpStar => exact.iter().map(|change| change.abs()).collect(),
            Self::Atp | Self::Relp | Self::Ig { .. } => exact.to_vec(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Atp => "atp",
            Self::Relp => "relp",
            Self::AtpStar => "atp-star",
            Self::Ig { .. } => "ig",
        })
    }
}

impl FromStr for Method {
    type Err = String;

    /// `ig` has five steps.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|method| method.to_string() == text);
        found.ok_or_else(|| format!("there is no method \"{text}\"; give atp, relp, atp-star or ig"))
    }
}

/// What was predicted for the cells of a sweep.
#[derive(Clone, Debug)]
pub struct Attributed {
    /// How.
    pub method: Method,
    /// The metric of the clean run, unpatched; NaN if it was stopped before that.
    pub clean_metric: f32,
    /// The metric of the corrupted run, unpatched; likewise.
    pub corrupted_metric: f32,
    /// For each cell of the sweep how far the metric of its run would move from the base run's
    /// ([`Scale::Change`]); of `atp-star`, a magnitude. NaN in cells that were not asked for, or that cannot be
    /// computed.
    pub changes: Grid,
    /// How many cells cannot be computed.
    pub missing: usize,
    /// Whether it was not stopped.
    pub complete: bool,
    direction: Direction,
}

impl Attributed {
    /// The metric of the unpatched runs.
    pub fn ends(&self) -> Endpoints {
        Endpoints::new(self.direction, self.clean_metric, self.corrupted_metric)
    }

    /// The metric that the patched runs would have, as in the grid of the sweep: the base run's and the change.
    ///
    /// # Errors
    /// [`Error::OnlyMagnitudes`] of `atp-star`.
    pub fn values(&self) -> Result<Grid, Error> {
        if self.method == Method::AtpStar {
            return Err(Error::OnlyMagnitudes);
        }
        let mut grid = self.changes.clone();
        let base = self.ends().base;
        grid.values.iter_mut().for_each(|change| *change = finite_or_nan(*change + base));
        Ok(grid)
    }

    /// The grid on a scale.
    ///
    /// # Errors
    /// As [`Scale::apply`]; and of `atp-star`, if the scale is not one of changes.
    pub fn on(&self, scale: Scale) -> Result<Grid, Error> {
        match scale {
            Scale::Change => Ok(self.changes.clone()),
            Scale::NormalizedChange => {
                let mut grid = self.changes.clone();
                scale.apply(&mut grid.values, Endpoints { base: 0.0, ..self.ends() })?;
                Ok(grid)
            }
            Scale::Value | Scale::Normalized => {
                let mut grid = self.values()?;
                scale.apply(&mut grid.values, self.ends())?;
                Ok(grid)
            }
        }
    }

    /// The magnitudes of the changes. Over many pairs their mean ([`crate::prompts::average()`]) shows cells whose
    /// effects have different signs in different pairs, which cancel in the mean of the changes (Kramár et
    /// al., section 2).
    pub fn magnitudes(&self) -> Grid {
        let mut grid = self.changes.clone();
        grid.values.iter_mut().for_each(|change| *change = change.abs());
        grid
    }

    /// The exact numbers of the `count` cells with the largest predictions: `run` is given the sweep that they were
    /// predicted for, with these cells alone. The others are NaN.
    pub fn verify_top<'a>(
        &self,
        count: usize,
        sweep: Sweep<'a>,
        run: impl FnOnce(Sweep<'a>) -> Outcome,
    ) -> Outcome {
        let chosen = largest(&self.changes.values, count);
        // What is known is not run; it is taken out again below.
        let mut known = vec![0.0; self.changes.values.len()];
        chosen.iter().for_each(|&cell| known[cell] = f32::NAN);
        let is_left_out: Vec<bool> = known.iter().map(|value| !value.is_nan()).collect();
        let mut outcome = run(sweep.knowing(known));
        for (value, is_left_out) in outcome.grid.values.iter_mut().zip(is_left_out) {
            if is_left_out {
                *value = f32::NAN;
            }
        }
        outcome
    }
}

/// Predicts the grids of some sweeps of one experiment: their sites and cells. The gradient is computed once for
/// all of them; a sweep's known values are not used, and the first sweep's stop ends all.
///
/// # Errors
/// If the metric has no gradient, or the method is integrated gradients and the experiment is an ablation.
///
/// # Panics
/// If the sweeps are not of one experiment; otherwise as [`Sweep::run`].
pub fn attribute(
    model: &Gpt2,
    sweeps: &[Sweep<'_>],
    metric: Metric<'_>,
    method: Method,
    progress: Progress<'_>,
) -> Result<Vec<Attributed>, Error> {
    metric.check_gradient()?;
    let Some(first) = sweeps.first() else {
        return Ok(Vec::new());
    };
    let experiment = first.experiment();
    assert!(
        sweeps.iter().all(|sweep| std::ptr::eq(sweep.experiment(), experiment)),
        "sweeps of several experiments have no gradient in common"
    );
    if matches!(method, Method::Ig { .. }) && experiment.replaced_by().is_some() {
        return Err(Error::NoPath);
    }
    let cells: Vec<Vec<Option<Patch>>> = sweeps.iter().map(|sweep| cells(sweep, model)).collect();
    let watch = Watch { progress, stop: first.stop() };
    let predicted = watch.unless_stopped(|| {
        let runs = Runs::new(model, experiment, metric, &cells, watch)?;
        let effects = runs.effects(method, &cells)?;
        Ok((runs.ends(), effects))
    });
    let (ends, effects) = match predicted {
        Some(predicted) => {
            let (ends, effects) = predicted?;
            (Some(ends), effects)
        }
        None => (None, cells.iter().map(|cells| vec![f64::NAN; cells.len()]).collect()),
    };
    let attributed = |((sweep, cells), effects): ((&Sweep<'_>, &Vec<Option<Patch>>), Vec<f64>)| {
        let values: Vec<f32> = effects.iter().map(|effect| finite_or_nan(*effect as f32)).collect();
        let is_missing = |(cell, value): &(&Option<Patch>, &f32)| cell.is_some() && value.is_nan();
        Attributed {
            method,
            clean_metric: ends.map_or(f32::NAN, |ends| ends.clean),
            corrupted_metric: ends.map_or(f32::NAN, |ends| ends.corrupted),
            missing: ends.map_or(0, |_| cells.iter().zip(&values).filter(is_missing).count()),
            changes: Grid { axes: sweep.axes().to_vec(), places: sweep.places(model), values },
            complete: ends.is_some(),
            direction: experiment.direction(),
        }
    };
    Ok(sweeps.iter().zip(&cells).zip(effects).map(attributed).collect())
}

/// The patches of a sweep's cells; what a head writes is linear in z.
fn cells(sweep: &Sweep<'_>, model: &Gpt2) -> Vec<Option<Patch>> {
    let of_z = |patch: Patch| match patch.site {
        SiteKind::Result => Patch { site: SiteKind::Z, ..patch },
        _ => patch,
    };
    sweep.cells(model).into_iter().map(|cell| cell.map(of_z)).collect()
}

#[cfg(test)]
mod tests;
