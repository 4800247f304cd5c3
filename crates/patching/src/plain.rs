//! The plain engine: a whole forward pass for every patch.
//!
//! It does nothing clever, so it is the one to read, and every faster way is compared with it. Three steps:
//!
//! 1. Run the source prompt and keep its activations (a hook that clones).
//! 2. Run the base prompt as it is, to compare with.
//! 3. For every patch, run the base prompt once more with a hook that overwrites one activation.
//!
//! The runs of step 3 do not depend on each other: rayon spreads them over the threads.

use std::collections::HashMap;

use gpt2::{Gpt2, Hook, Site};
use rayon::prelude::*;
use tensor::Tensor;

use crate::ablation::{given, lasting_values};
use crate::metric::Which;
use crate::{Experiment, Measured, Metric, Patch, Unpatched, Watch};

/// The metric of each patched run, in the order of `patches`, and of the two unpatched runs.
pub fn run(
    model: &Gpt2,
    experiment: &Experiment,
    patches: &[Patch],
    metric: Metric<'_>,
    watch: Watch<'_>,
) -> Measured {
    let measured = watch.unless_stopped(|| measured(model, experiment, patches, metric, watch));
    measured.unwrap_or_else(|| Measured::nothing(patches.len()))
}

/// Activations by site, as far as they have been seen.
type Cache = HashMap<Site, Option<Tensor>>;

fn measured(
    model: &Gpt2,
    experiment: &Experiment,
    patches: &[Patch],
    metric: Metric<'_>,
    watch: Watch<'_>,
) -> Measured {
    let from = metric.first_position(experiment.n_tokens());

    // 1. Run the source prompt, and keep the activations that some patch needs.
    let lasting = experiment.lasting();
    let wanted = patches.iter().chain(lasting.iter().map(|lasting| &lasting.patch));
    let mut cache: Cache = wanted.map(|patch| (patch.site(), None)).collect();
    let source = end(model, experiment.source(), from, &mut |site, x| {
        watch.leave_if_stopped();
        cache.entry(site).and_modify(|kept| *kept = Some(x.clone()));
    });
    // Edits that apply to the base run and to all that follow.
    let values = lasting_values(model, experiment);
    let source_cache = cache.clone();
    let edit_for_good = |site: Site, x: &mut Tensor| {
        for (lasting, value) in lasting.iter().zip(&values).filter(|(it, _)| it.patch.site() == site) {
            if let Some(value) = value.as_ref().or(source_cache[&site].as_ref()) {
                lasting.patch.apply(value, x);
            }
        }
    };
    // (An ablation does not use the source's activations.)
    for (site, x) in given(model, experiment, patches, watch).into_iter().flatten() {
        cache.insert(site, Some(x));
    }

    // 2. The base run as it is.
    let base = end(model, experiment.base(), from, &mut |site, x| edit_for_good(site, x));
    let [clean, corrupted] = experiment.direction().clean_and_corrupted(source, base);
    let read = |rows: &Tensor| metric.read(model, rows, experiment.base());
    let clean_end = read(&clean);
    // (A custom metric is asked about these first.)
    let clean_metric = metric.of(Which::Clean, &clean_end, &clean_end);
    let corrupted_metric = metric.of(Which::Corrupted, &read(&corrupted), &clean_end);

    // 3. The base run with one activation replaced, for every patch.
    let patched_metric = |(i, patch): (usize, &Patch)| {
        let rows = end(model, experiment.base(), from, &mut |site, x| {
            watch.leave_if_stopped();
            edit_for_good(site, x);
            if site == patch.site()
                && let Some(source) = &cache[&site]
            {
                patch.apply(source, x);
            }
        });
        (watch.progress)(1.0 / patches.len() as f64);
        metric.of(Which::Patched(i), &read(&rows), &clean_end)
    };
    let unless_stopped = |patch| watch.unless_stopped(|| patched_metric(patch));
    let values = patches.par_iter().enumerate().map(unless_stopped).collect();
    let flops = (2 + patches.len() as u64) * flops_of_a_run(model, experiment.n_tokens());
    let last = |rows: &Tensor| rows.row(rows.n_rows() - 1).to_vec();
    let unpatched = Some(Unpatched { clean: last(&clean), corrupted: last(&corrupted) });
    Measured { values, clean: clean_metric, corrupted: corrupted_metric, unpatched, flops }
}

/// The residual stream after the last layer norm from a position on, `(n, C)`: the input of the
/// unembedding.
fn end(model: &Gpt2, ids: &[u32], from: usize, hook: &mut Hook<'_>) -> Tensor {
    let x = model.transformer(ids, hook); // (T, C)
    let rows: Vec<f32> = (from..ids.len()).flat_map(|pos| x.row(pos)).copied().collect();
    Tensor::new(&[ids.len() - from, x.row_len()], rows)
}

/// Multiplications and additions of one forward pass without logits: those of the linear layers and of
/// attention (which is computed above the diagonal too).
fn flops_of_a_run(model: &Gpt2, t: usize) -> u64 {
    let (t, c) = (t as u64, model.config.n_embd as u64);
    let inner = model.config.inner_size() as u64;
    let block = 2 * t * (4 * c * c + 2 * c * inner) + 4 * t * t * c;
    model.config.n_layer as u64 * block
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;

    use super::*;
    use crate::{Direction, Engine, SiteKind, Sweep};

    fn tiny_experiment(tiny: &Pretrained, direction: Direction) -> Experiment {
        let ids = |text| tiny.tokenizer.encode(text).unwrap();
        Experiment::new(
            &tiny.model,
            ids("When John and Mary went to the shops, John gave the bag to"),
            ids("When John and Mary went to the shops, Mary gave the bag to"),
            direction,
        )
        .unwrap()
    }

    #[test]
    fn patching_a_run_with_its_own_activations_changes_no_bit() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = tiny.tokenizer.encode("Her name was Alex Hart. When Alex").unwrap();
        let mut cache = HashMap::new();
        let logits = tiny.model.forward(&ids, &mut |site, x| drop(cache.insert(site, x.clone())));
        for kind in SiteKind::PATCHABLE {
            for layer in [0, 5, 11] {
                let patch = Patch::whole(kind, layer);
                let patched = tiny.model.forward(&ids, &mut |site, x| {
                    if site == patch.site() {
                        patch.apply(&cache[&site], x);
                    }
                });
                assert_eq!(patched, logits, "{kind} of layer {layer}");
            }
        }
    }

    #[test]
    fn patching_the_whole_residual_stream_gives_the_sources_logits() {
        let tiny = Pretrained::tiny().unwrap();
        let experiment = tiny_experiment(&tiny, Direction::Denoising);
        let metric = Metric::LogitDiff { a: &[1757], b: &[5335] };
        let patches: Vec<Patch> = [SiteKind::ResidPre, SiteKind::ResidMid, SiteKind::ResidPost]
            .into_iter()
            .flat_map(|site| (0..12).map(move |layer| Patch::whole(site, layer)))
            .collect();
        let Measured { values, clean, .. } = run(&tiny.model, &experiment, &patches, metric, Watch::NOBODY);
        assert!(values.iter().all(|value| *value == Some(clean)), "{values:?} instead of {clean}");
    }

    #[test]
    fn both_directions_meet_at_the_ends() {
        // Before the prompts differ nothing changes; at the last position of the last layer all does.
        let tiny = Pretrained::tiny().unwrap();
        let metric = Metric::LogitDiff { a: &[1757], b: &[5335] };
        for direction in Direction::ALL {
            let experiment = tiny_experiment(&tiny, direction);
            let outcome = Sweep::over(&experiment, SiteKind::ResidPost).run(
                &tiny.model,
                metric,
                Engine::Plain,
                &|_| {},
            );
            let (base, source) = match direction {
                Direction::Denoising => (outcome.corrupted_metric, outcome.clean_metric),
                Direction::Noising => (outcome.clean_metric, outcome.corrupted_metric),
            };
            assert_eq!(experiment.differing_positions(), [9]);
            assert!((0..12).all(|layer| (0..9).all(|pos| outcome.grid.at(&[layer, pos]) == base)));
            assert_eq!(outcome.grid.at(&[11, 13]), source);
        }
    }
}
