//! One run of an experiment, to be looked at: its activations as they are made, and what it ends in.
//!
//! A sweep keeps one number of each run. Here is the whole run, as the [`plain`](crate::plain) engine makes it: a
//! forward pass with a hook that overwrites activations, and shows them once they are as the run goes on.

use std::collections::HashMap;

use gpt2::{Gpt2, Site};
use tensor::Tensor;

use crate::ablation::lasting_values;
use crate::{Experiment, Patch, Watch};

/// A run of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The source run, as it is.
    Source,
    /// The base run, with the edits that stay ([`Experiment::given`]).
    Base,
    /// The base run in which, after the edits that stay, one activation is that of the source run.
    Patched(Patch),
}

/// Runs one run, and shows every activation to `see`. The result is the residual stream after the last layer norm,
/// `(T, C)`, from which [`Gpt2::unembed_rows`] makes logits; none if it was stopped.
///
/// # Panics
/// If the experiment is an ablation, which has no source run.
pub fn observe(
    model: &Gpt2,
    experiment: &Experiment,
    run: Run,
    see: &mut dyn FnMut(Site, &Tensor),
    watch: Watch<'_>,
) -> Option<Tensor> {
    assert!(experiment.replaced_by().is_none(), "an ablation has no source run");
    watch.unless_stopped(|| {
        let patch = match run {
            Run::Source => {
                return model.transformer(experiment.source(), &mut |site, x| {
                    watch.leave_if_stopped();
                    see(site, x);
                });
            }
            Run::Base => None,
            Run::Patched(patch) => Some(patch),
        };
        let lasting = experiment.lasting();
        let wanted = lasting.iter().map(|it| it.patch).chain(patch).map(|patch| patch.site());
        let mut source: HashMap<Site, Tensor> = wanted.map(|site| (site, Tensor::zeros(&[0]))).collect();
        if !source.is_empty() {
            model.transformer(experiment.source(), &mut |site, x| {
                watch.leave_if_stopped();
                source.entry(site).and_modify(|kept| kept.clone_from(x));
            });
        }
        let values = lasting_values(model, experiment);
        model.transformer(experiment.base(), &mut |site, x| {
            watch.leave_if_stopped();
            for (edit, value) in lasting.iter().zip(&values).filter(|(it, _)| it.patch.site() == site) {
                edit.patch.apply(value.as_ref().unwrap_or(&source[&site]), x);
            }
            if let Some(patch) = patch.filter(|patch| patch.site() == site) {
                patch.apply(&source[&site], x);
            }
            see(site, x);
        })
    })
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;

    use super::*;
    use crate::{Direction, Engine, Lasting, LastingValue, Metric, SiteKind, Subset, Sweep};

    #[test]
    fn an_observed_run_ends_where_the_sweep_says() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = |text| tiny.tokenizer.encode(text).unwrap();
        let (clean, corrupted) = (ids("Michelle Jones was. Michelle"), ids("Michelle Smith was. Michelle"));
        let experiment = Experiment::new(&tiny.model, clean, corrupted, Direction::Noising).unwrap();
        let lasting = vec![Lasting {
            patch: Patch { head: Some(1), ..Patch::whole(SiteKind::Z, 5) },
            value: LastingValue::Zero,
        }];
        for experiment in [experiment.clone(), experiment.given(&tiny.model, lasting).unwrap()] {
            let metric = Metric::LogitDiff { a: &[4176], b: &[5437] };
            let of = |run: Run| {
                let mut patterns = 0;
                let mut see =
                    |site: Site, _: &Tensor| patterns += usize::from(site.kind == SiteKind::Pattern);
                let rows = observe(&tiny.model, &experiment, run, &mut see, Watch::NOBODY).unwrap();
                assert_eq!(patterns, tiny.model.config.n_layer);
                let logits = tiny.model.unembed_rows(&rows);
                let last = logits.row(logits.n_rows() - 1);
                metric.of_logits(last, last).unwrap()
            };
            let subset = Subset { layers: Some(vec![6]), positions: Some(vec![1]), ..Subset::default() };
            let sweep = Sweep::over(&experiment, SiteKind::ResidPost).only(&tiny.model, subset).unwrap();
            let outcome = sweep.run(&tiny.model, metric, Engine::Plain, &|_| {});
            assert_eq!(of(Run::Base), outcome.clean_metric);
            assert_eq!(of(Run::Source), outcome.corrupted_metric);
            let patched = of(Run::Patched(Patch::at_pos(SiteKind::ResidPost, 6, 1)));
            assert!((patched - outcome.grid.values[0]).abs() < 1e-5);
        }
    }
}
