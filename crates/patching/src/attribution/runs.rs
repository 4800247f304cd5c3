//! The two runs and the gradients that attributions are made of.

use std::collections::{HashMap, HashSet};

use gpt2::{Activations, Gpt2, Gradients, Kernel, Rules, Site, SiteKind};
use rayon::prelude::*;
use tensor::{Tensor, dot, softmax_row};

use super::Method;
use crate::ablation::{given, lasting_values};
use crate::metric::Which;
use crate::{Endpoints, Error, Experiment, Metric, Patch, Watch};

/// Activations, or gradients with respect to them.
type Sites = HashMap<Site, Tensor>;

/// The source and the base run of an experiment.
pub(super) struct Runs<'a> {
    model: &'a Gpt2,
    experiment: &'a Experiment,
    metric: Metric<'a>,
    watch: Watch<'a>,
    /// What patches would put in.
    source: Sites,
    /// What is there in the base run.
    base: Sites,
    activations: Activations,
    /// What stays in the base run, and what stands there.
    lasting: Vec<(Patch, Tensor)>,
    /// The last row of the clean run's end, `(C)`.
    clean_end: Vec<f32>,
    ends: Endpoints,
}

impl<'a> Runs<'a> {
    pub fn new(
        model: &'a Gpt2,
        experiment: &'a Experiment,
        metric: Metric<'a>,
        cells: &[Vec<Option<Patch>>],
        watch: Watch<'a>,
    ) -> Result<Self, Error> {
        let patches: Vec<Patch> = cells.iter().flatten().copied().flatten().collect();
        let wanted: HashSet<Site> = patches.iter().map(Patch::site).collect();
        let edits = experiment.lasting();
        let of_edits: HashSet<Site> = edits.iter().map(|edit| edit.patch.site()).collect();
        let mut source = Sites::new();
        let source_end = model.transformer_on(Kernel::Fast, experiment.source(), &mut |site, x| {
            watch.leave_if_stopped();
            if wanted.contains(&site) || of_edits.contains(&site) {
                source.insert(site, x.clone());
            }
        });
        let values = lasting_values(model, experiment).into_iter();
        let lasting = edits.iter().zip(values).map(|(edit, value)| {
            let value = value.unwrap_or_else(|| source[&edit.patch.site()].clone());
            (edit.patch, value)
        });
        let lasting: Vec<(Patch, Tensor)> = lasting.collect();
        source.extend(given(model, experiment, &patches, watch).into_iter().flatten());

        let is_kept = |site: Site| {
            wanted.contains(&site) || qk_layers(&wanted).any(|layer| site == layer_scores(layer))
        };
        let mut base = Sites::new();
        let activations = model.record(Kernel::Fast, experiment.base(), &mut |site, x| {
            watch.leave_if_stopped();
            edit(&lasting, site, x);
            if is_kept(site) {
                base.insert(site, x.clone());
            }
        });
        let [clean, corrupted] = experiment.direction().clean_and_corrupted(&source_end, &activations.end);
        let clean_end = clean.row(clean.n_rows() - 1).to_vec();
        let ends = ends(model, experiment, metric, [clean, corrupted]);
        Ok(Self { model, experiment, metric, watch, source, base, activations, lasting, clean_end, ends })
    }

    /// The metric of the unpatched runs.
    pub fn ends(&self) -> Endpoints {
        self.ends
    }

    /// The effect that is predicted for each cell; NaN where there is none.
    pub fn effects(&self, method: Method, cells: &[Vec<Option<Patch>>]) -> Result<Vec<Vec<f64>>, Error> {
        let constant: Vec<Patch> = self.lasting.iter().map(|(patch, _)| *patch).collect();
        let rules = Rules { constant, ..Rules::default() };
        let linear = |gradients: &Sites| self.each_cell(cells, |patch| self.linear_effect(gradients, patch));
        let n_passes = match method {
            Method::Atp | Method::Relp => 1,
            Method::AtpStar => self.model.config.n_layer,
            Method::Ig { steps } => steps,
        };
        let share = 1.0 / (n_passes + 1) as f64;
        (self.watch.progress)(share); // for the forward passes
        if !self.ends.base.is_finite() {
            return Ok(self.each_cell(cells, |_| f64::NAN));
        }
        let pass = |activations: &Activations, rules: &Rules| {
            let gradients = self.gradients(activations, rules);
            (self.watch.progress)(share);
            gradients
        };
        match method {
            Method::Atp => Ok(linear(&pass(&self.activations, &rules)?)),
            Method::Relp => Ok(linear(&pass(&self.activations, &Rules { relp: true, ..rules })?)),
            Method::Ig { steps } => {
                let mut sum = Sites::new();
                for step in 0..steps {
                    let gradients = pass(&self.between(step as f32 / steps as f32), &rules)?;
                    add(&mut sum, gradients);
                }
                sum.values_mut().for_each(|dx| dx.scale(1.0 / steps as f32));
                Ok(linear(&sum))
            }
            Method::AtpStar => {
                let fixed = self.pattern_changes(cells);
                let mut sums: Vec<Vec<f64>> = cells.iter().map(|cells| vec![0.0; cells.len()]).collect();
                for layer in 0..n_passes {
                    let rules = Rules { dropped: Some(layer), ..rules.clone() };
                    self.add_magnitudes(&pass(&self.activations, &rules)?, cells, &fixed, &mut sums);
                }
                // One layer alone has no mean: 0 / 0.
                sums.iter_mut().flatten().for_each(|sum| *sum /= n_passes as f64 - 1.0);
                Ok(sums)
            }
        }
    }

    /// Adds |effect| of every cell, with the QK fix where there is one; NaN for cells that were not asked for.
    fn add_magnitudes(
        &self,
        gradients: &Sites,
        cells: &[Vec<Option<Patch>>],
        fixed: &[Vec<Option<Vec<PatternRow>>>],
        sums: &mut [Vec<f64>],
    ) {
        for ((sums, cells), fixed) in sums.iter_mut().zip(cells).zip(fixed) {
            let of_cell = |(sum, (cell, fixed)): (&mut f64, (&Option<Patch>, &Option<Vec<PatternRow>>))| {
                let effect = match (cell, fixed) {
                    (Some(patch), Some(changed)) => self.effect_of_pattern(gradients, patch, changed),
                    (Some(patch), None) => self.linear_effect(gradients, patch),
                    (None, _) => f64::NAN,
                };
                *sum += effect.abs();
            };
            sums.par_iter_mut().zip((cells, fixed)).for_each(of_cell);
        }
    }

    /// The gradient of the metric with respect to the activations that cells need.
    fn gradients(&self, activations: &Activations, rules: &Rules) -> Result<Sites, Error> {
        let base = self.experiment.base();
        let dend = self.metric.gradient_of_end(self.model, &activations.end, base, &self.clean_end)?;
        let layers: HashSet<usize> = qk_layers(&self.base.keys().copied().collect()).collect();
        let is_wanted = |site: Site| {
            self.base.contains_key(&site) || site.kind == SiteKind::Pattern && layers.contains(&site.layer)
        };
        let mut kept = Sites::new();
        let mut keep = |site: Site, dx: &Tensor| {
            self.watch.leave_if_stopped();
            if is_wanted(site) {
                kept.insert(site, dx.clone());
            }
        };
        let to = Gradients { hook: Some(&mut keep), parameters: None };
        self.model.backward(activations, dend, rules, to);
        Ok(kept)
    }

    /// The base run with token embeddings a part of the way from the source's to its own.
    fn between(&self, share: f32) -> Activations {
        let ids = self.experiment.source();
        self.model.record(Kernel::Fast, self.experiment.base(), &mut |site, x| {
            self.watch.leave_if_stopped();
            if site.kind == SiteKind::Embed {
                for (pos, &id) in ids.iter().enumerate() {
                    let source = self.model.wte.row(id as usize);
                    for (x, source) in x.row_mut(pos).iter_mut().zip(source) {
                        *x = source + share * (*x - source);
                    }
                }
            }
            edit(&self.lasting, site, x);
        })
    }

    /// `effect` of every cell, in parallel; NaN for cells that were not asked for.
    fn each_cell(
        &self,
        cells: &[Vec<Option<Patch>>],
        effect: impl Fn(&Patch) -> f64 + Sync,
    ) -> Vec<Vec<f64>> {
        let of_cell = |cell: &Option<Patch>| cell.as_ref().map_or(f64::NAN, &effect);
        cells.iter().map(|cells| cells.par_iter().map(of_cell).collect()).collect()
    }

    /// Σ (a_source − a_base) · ∂M/∂a over a piece.
    fn linear_effect(&self, gradients: &Sites, patch: &Patch) -> f64 {
        let site = patch.site();
        let [source, base, gradient] = [&self.source, &self.base, gradients].map(|of| of[&site].data());
        let of_number = |i: usize| {
            // Scores of what lies ahead are −∞ in both runs.
            let change = if source[i] == base[i] { 0.0 } else { f64::from(source[i]) - f64::from(base[i]) };
            change * f64::from(gradient[i])
        };
        patch.pieces(gradients[&site].shape()).into_iter().flatten().map(of_number).sum()
    }

    /// For each cell of queries or keys the rows of the pattern that its patch would change, and by how much;
    /// none for the cells of other sites.
    fn pattern_changes(&self, cells: &[Vec<Option<Patch>>]) -> Vec<Vec<Option<Vec<PatternRow>>>> {
        let of_cell = |cell: &Option<Patch>| {
            let patch = cell.filter(|patch| matches!(patch.site, SiteKind::Q | SiteKind::K))?;
            self.watch.leave_if_stopped();
            Some(self.changed_pattern(&patch))
        };
        cells.iter().map(|cells| cells.par_iter().map(of_cell).collect()).collect()
    }

    /// pattern_patched − pattern_base in the rows that a patch of queries or keys changes.
    fn changed_pattern(&self, patch: &Patch) -> Vec<PatternRow> {
        let [q, k] = [SiteKind::Q, SiteKind::K].map(|kind| {
            let site = kind.at(patch.layer);
            let mut x = self.activations.get(site).cloned().unwrap_or_else(|| unreachable!("{site} is kept"));
            if kind == patch.site {
                patch.apply(&self.source[&site], &mut x);
            }
            x // (T, n_head, head_size)
        });
        let attn = &self.model.h[patch.layer].attn;
        let scores = layer_scores(patch.layer);
        let mut att = self.base[&scores].clone(); // (n_head, T, T)
        let [n_head, t, _] = att.dims();
        let changed: Vec<[usize; 2]> =
            (patch.heads(n_head)).flat_map(|head| patch.dests(t).map(move |dest| [head, dest])).collect();
        for &[head, dest] in &changed {
            let row = &mut att.row_mut(head * t + dest)[..=dest];
            for (src, score) in row.iter_mut().enumerate().skip(attn.first_seen(dest)) {
                *score = dot(q.row(dest * n_head + head), k.row(src * n_head + head)) * attn.scale;
            }
        }
        edit(&self.lasting, scores, &mut att);
        changed.iter().for_each(|[head, dest]| softmax_row(att.row_mut(head * t + dest)));
        let pattern = SiteKind::Pattern.at(patch.layer);
        edit(&self.lasting, pattern, &mut att);
        let base = self.activations.get(pattern);
        let row = |&[head, dest]: &[usize; 2]| {
            let row = head * t + dest;
            let own = base.map_or(&[][..], |base| base.row(row));
            let changes = att.row(row).iter().zip(own).map(|(patched, base)| patched - base);
            PatternRow { row, changes: changes.collect() }
        };
        changed.iter().map(row).collect()
    }

    /// Σ (pattern_patched − pattern_base) · ∂M/∂pattern
    fn effect_of_pattern(&self, gradients: &Sites, patch: &Patch, changed: &[PatternRow]) -> f64 {
        let gradient = &gradients[&SiteKind::Pattern.at(patch.layer)];
        let of_row = |changed: &PatternRow| -> f64 {
            let products = changed.changes.iter().zip(gradient.row(changed.row));
            products.map(|(change, gradient)| f64::from(*change) * f64::from(*gradient)).sum()
        };
        changed.iter().map(of_row).sum()
    }
}

/// How a row of a layer's pattern changes.
struct PatternRow {
    /// Head and attending position, as a row of `(n_head, T, T)`.
    row: usize,
    /// For each position that is attended to, `(T)`.
    changes: Vec<f32>,
}

/// What stays in the base run, put into an activation.
fn edit(lasting: &[(Patch, Tensor)], site: Site, x: &mut Tensor) {
    let here = lasting.iter().filter(|(patch, _)| patch.site() == site);
    here.for_each(|(patch, value)| patch.apply(value, x));
}

/// Adds gradients, site by site.
fn add(sum: &mut Sites, gradients: Sites) {
    for (site, dx) in gradients {
        match sum.get_mut(&site) {
            Some(sum) => sum.add_assign(&dx),
            None => drop(sum.insert(site, dx)),
        }
    }
}

/// The layers with cells of queries or keys.
fn qk_layers(sites: &HashSet<Site>) -> impl Iterator<Item = usize> {
    let of_qk = sites.iter().filter(|site| matches!(site.kind, SiteKind::Q | SiteKind::K));
    of_qk.map(|site| site.layer)
}

fn layer_scores(layer: usize) -> Site {
    SiteKind::AttnScores.at(layer)
}

/// The metric of the clean and of the corrupted run, from all rows of their ends, `(T, C)`.
fn ends(model: &Gpt2, experiment: &Experiment, metric: Metric<'_>, runs: [&Tensor; 2]) -> Endpoints {
    let from = metric.first_position(experiment.n_tokens());
    let [clean, corrupted] = runs.map(|end| {
        let [t, c] = end.dims();
        let rows = Tensor::new(&[t - from, c], end.data()[from * c..].to_vec());
        metric.read(model, &rows, experiment.base())
    });
    let of = |run, end| metric.of(run, end, &clean);
    Endpoints::new(experiment.direction(), of(Which::Clean, &clean), of(Which::Corrupted, &corrupted))
}
