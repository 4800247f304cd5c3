//! The incremental engine: all patched runs together, and only what can change.
//!
//! [`gpt2::walk`] says why that is exact, and how the runs step through the layers. This module decides
//! which patches need work, cuts them into chunks and (in `ends`) evaluates the metric of every run.

mod ends;

use std::collections::HashMap;

use gpt2::model::Mlp;
use gpt2::walk::{self, BASE, Edit, Fork, Plan, SOURCE, Value, Walk};
use gpt2::{Gpt2, Site, SiteKind};
use tensor::Tensor;

use crate::ablation::{given, lasting_values};
use crate::metric::{End, LOGIT_ROWS, Which};
use crate::{Experiment, Lasting, Measured, Metric, Patch, Unpatched, Watch};

pub(crate) use self::ends::Ends;

/// The most rows of width C that are held for each row of the walk: the residual stream before
/// and after attention, its normalised form, q, k, v, z, attention's output, and a packed copy.
const HELD: usize = 9;
/// The most rows that walk together: more are not faster.
const MOST_ROWS: usize = 4096;
/// The most multiplications and additions in one of the MLP's two layers for all rows that walk together. A
/// sweep can be stopped between attention and MLP, and that has to take effect within half a second.
const MOST_FLOPS: usize = 20_000_000_000;

/// The metric of each patched run, in the order of `patches`, and of the two unpatched runs. The patches
/// are processed in chunks, so that about `memory` bytes are held beyond the weights (but at least as much
/// as one patched run needs).
pub fn run(
    model: &Gpt2,
    experiment: &Experiment,
    patches: &[Patch],
    metric: Metric<'_>,
    memory: usize,
    watch: Watch<'_>,
) -> Measured {
    let mut measured = Measured::nothing(patches.len());
    let patches: Vec<Patch> = patches.iter().map(as_z).collect();
    let Some(given) = watch.unless_stopped(|| given(model, experiment, &patches, watch)) else {
        return measured;
    };
    let t = experiment.n_tokens();
    // To the left of the first difference source and base are the same run.
    let first_change = match (&given, experiment.lasting()) {
        (None, []) => experiment.differing_positions()[0],
        _ => 0,
    };
    let [pending, unchanged] = pending(&patches, first_change);
    let rows_of = |p: &Pending| t - p.patch.dests(t).start.max(first_change);
    let chunks = cut(&pending, rows_together(model, t, memory), rows_of);
    let work_of = |p: &Pending| (rows_of(p) * (model.config.n_layer - p.patch.layer)) as f64;
    let all_work: f64 = pending.iter().map(work_of).sum();

    let values = lasting_values(model, experiment);
    let lasting = lasting_edits(experiment, &values);

    // The two unpatched runs step along with every chunk; their ends are kept from the first one.
    let mut ends_of_prompts = None;
    for chunk in chunks {
        let forks: Vec<Fork<'_>> = chunk.iter().map(|p| fork_of(p.patch, given.as_ref())).collect();
        let plan = Plan {
            source: given.is_none().then_some(experiment.source()),
            forks: &forks,
            lasting: &lasting,
            first_read: metric.first_position(t),
            between: &|| watch.leave_if_stopped(),
            ..Plan::of(experiment.base())
        };
        let walked = watch.unless_stopped(|| {
            let mut walk = Walk::new(model, plan);
            walk.run(|layer| {
                let under_way = chunk.iter().take_while(|p| p.patch.layer <= layer);
                (watch.progress)(under_way.map(rows_of).sum::<usize>() as f64 / all_work.max(1.0));
            });
            walk.ends()
        });
        let Some(ends) = walked else { break };
        measured.flops += ends.flops;
        let unpatched = || set_unpatched(&mut measured, model, experiment, metric, &ends);
        let [base, clean] = ends_of_prompts.get_or_insert_with(unpatched);
        let cells: Vec<usize> = chunk.iter().map(|p| p.cell).collect();
        let ends = Ends { ends: &ends, cells: &cells, prompt: experiment.base() };
        // A run that does not differ from the base has the base's value.
        let differing = ends.cells();
        let unchanged = unchanged.iter().map(|p| p.cell).chain(cells.iter().copied());
        for cell in unchanged.filter(|cell| !differing.contains(cell)) {
            let value = &mut measured.values[cell];
            value.get_or_insert_with(|| metric.of(Which::Patched(cell), base, clean));
        }
        ends.measure(model, metric, clean, &mut measured.values, watch);
    }
    measured
}

/// The base run with one patch: what is given in its place, or what the source run has there.
fn fork_of<'a>(patch: Patch, given: Option<&'a HashMap<Site, Tensor>>) -> Fork<'a> {
    let value = given.map_or(Value::Source, |given| Value::Activation(&given[&patch.site()]));
    Fork { edits: vec![Edit { patch, value }] }
}

/// What a head writes is linear in z and has no bias, so patching its result is patching its z.
fn as_z(patch: &Patch) -> Patch {
    match patch.site {
        SiteKind::Result => Patch { site: SiteKind::Z, ..*patch },
        _ => *patch,
    }
}

fn lasting_edits<'a>(experiment: &Experiment, values: &'a [Option<Tensor>]) -> Vec<Edit<'a>> {
    let edit = |(lasting, value): (&Lasting, &'a Option<Tensor>)| Edit {
        patch: lasting.patch,
        value: value.as_ref().map_or(Value::Source, Value::Activation),
    };
    experiment.lasting().iter().zip(values).map(edit).collect()
}

/// Takes the metric and the last rows of the two unpatched runs. Returns the ends of base and clean run.
fn set_unpatched(
    measured: &mut Measured,
    model: &Gpt2,
    experiment: &Experiment,
    metric: Metric<'_>,
    ends: &walk::Ends,
) -> [End<'static>; 2] {
    let [source, base] = [SOURCE, BASE].map(|run| {
        let rows = ends.of_run(run);
        (metric.read(model, &rows, experiment.base()), rows)
    });
    let [clean, corrupted] = experiment.direction().clean_and_corrupted(source, base.clone());
    let last = |rows: &Tensor| rows.row(rows.n_rows() - 1).to_vec();
    measured.clean = metric.of(Which::Clean, &clean.0, &clean.0);
    measured.corrupted = metric.of(Which::Corrupted, &corrupted.0, &clean.0);
    measured.unpatched = Some(Unpatched { clean: last(&clean.1), corrupted: last(&corrupted.1) });
    [base.0, clean.0]
}

/// The patches that need work, by layer, and those that change nothing because they end before the first
/// position at which source and base differ.
fn pending(patches: &[Patch], first_change: usize) -> [Vec<Pending>; 2] {
    let patches = patches.iter().enumerate().map(|(cell, &patch)| Pending { cell, patch });
    let (mut pending, unchanged): (Vec<Pending>, Vec<Pending>) = patches.partition(|p| {
        let pos = p.patch.pos.or(p.patch.dest);
        pos.is_none_or(|pos| pos >= first_change)
    });
    pending.sort_by_key(|p| p.patch.layer);
    [pending, unchanged]
}

/// How many rows walk together.
pub(crate) fn rows_together(model: &Gpt2, t: usize, memory: usize) -> usize {
    let (c, inner) = (model.config.n_embd, model.config.inner_size());
    let floats = memory / size_of::<f32>();
    let fixed =
        Mlp::ROWS_TOGETHER * (3 * inner + 2 * c) + LOGIT_ROWS * model.config.vocab_size + 2 * t * HELD * c;
    let in_memory = floats.saturating_sub(fixed) / (HELD * c);
    in_memory.min(MOST_ROWS).min(MOST_FLOPS / (2 * c * inner))
}

/// A patch, and which value it is for.
#[derive(Clone, Copy)]
struct Pending {
    cell: usize,
    patch: Patch,
}

/// Cuts the patches into chunks of at most `limit` rows, but of at least one patch. The last may be
/// empty: the two unpatched runs are wanted all the same.
fn cut(pending: &[Pending], limit: usize, rows_of: impl Fn(&Pending) -> usize) -> Vec<&[Pending]> {
    let mut chunks = Vec::new();
    let mut left = pending;
    loop {
        let mut rows = 0;
        let fits = |p: &&Pending| {
            rows += rows_of(p);
            rows <= limit
        };
        let n = left.iter().take_while(fits).count().max(1).min(left.len());
        let (chunk, rest) = left.split_at(n);
        chunks.push(chunk);
        left = rest;
        if left.is_empty() {
            return chunks;
        }
    }
}

#[cfg(test)]
mod tests {
    use gpt2::Config;
    use proptest::prelude::*;
    use tensor::Tensor;

    use super::*;
    use crate::{
        Ablation, Axis, Direction, Engine, Lasting, LastingValue, Outcome, SiteKind, Subset, Sweep, plain,
    };

    /// A random small model, a random pair of prompts and a direction.
    fn random_experiment() -> impl Strategy<Value = (Gpt2, Experiment)> {
        let sizes = (1..5_usize, 1..4_usize, 1..10_usize, 2..30_usize, any::<u64>());
        let model = sizes.prop_map(|(n_layer, n_head, head_size, vocab_size, seed)| {
            let n_embd = n_head * head_size;
            let sizes = Config { vocab_size, block_size: 12, n_layer, n_head, n_embd, ..Config::default() };
            let mut model = Gpt2::random(sizes.of_kin(seed), seed);
            // Half of them have the bias of processed weights.
            let bias = (0..vocab_size).map(|i| (i as f32).sin()).collect();
            model.lm_head_bias = (seed & 16 == 0).then(|| Tensor::new(&[vocab_size], bias));
            model
        });
        (model, 1..=12_usize).prop_flat_map(|(model, t)| {
            let token = 0..model.config.vocab_size as u32;
            let prompt = prop::collection::vec(token.clone(), t);
            // Few changes are as likely as many.
            let changes = prop::collection::vec((0..t, token), 1..=t);
            let direction = prop::sample::select(Direction::ALL.to_vec());
            (prompt, changes, direction).prop_filter_map(
                "equal prompts",
                move |(clean, changes, direction)| {
                    let mut corrupted = clean.clone();
                    changes.iter().for_each(|&(pos, token)| corrupted[pos] = token);
                    let experiment = Experiment::new(&model, clean, corrupted, direction).ok()?;
                    Some((model.clone(), experiment))
                },
            )
        })
    }

    /// Every site over every set of axes that it has; of many neurons the first and the last.
    fn all_sweeps<'a>(model: &Gpt2, experiment: &'a Experiment) -> Vec<Sweep<'a>> {
        let mut sweeps = Vec::new();
        for site in SiteKind::PATCHABLE {
            let (_, rest) = site.axes().split_at(1);
            for subset in 0..1_u32 << rest.len() {
                let chosen = rest.iter().enumerate().filter(|(i, _)| subset & (1 << i) != 0);
                let axes: Vec<Axis> =
                    [Axis::Layer].into_iter().chain(chosen.map(|(_, axis)| *axis)).collect();
                let sweep = Sweep::over(experiment, site).by(&axes);
                let neurons = axes.contains(&Axis::Neuron).then(|| vec![0, model.config.inner_size() - 1]);
                sweeps.push(sweep.only(model, Subset { neurons, ..Subset::default() }).unwrap());
            }
        }
        sweeps
    }

    /// Metrics that read some logits, all of them, and those of several positions.
    fn metrics(experiment: &Experiment) -> Vec<Metric<'static>> {
        let mut metrics = vec![Metric::LogitDiff { a: &[0], b: &[1] }, Metric::ProbDiff { a: &[1], b: &[0] }];
        let t = experiment.n_tokens();
        if t > 1 {
            metrics.push(Metric::Loss { from: (t - 1) / 2, to: t - 1 });
        }
        metrics
    }

    fn difference_of_engines(model: &Gpt2, sweep: &Sweep<'_>, metric: Metric<'_>) -> f32 {
        let run = |engine| sweep.run(model, metric, engine, &|_| {});
        let (fast, slow) = (run(Engine::default()), run(Engine::Plain));
        let unpatched =
            [(fast.clean_metric, slow.clean_metric), (fast.corrupted_metric, slow.corrupted_metric)];
        let patched = fast.grid.values.into_iter().zip(slow.grid.values);
        let differences = patched.chain(unpatched).map(|(x, y)| (x - y).abs());
        // `max` alone would pass over NaN.
        differences.fold(0.0, |largest, x| if x > largest || x.is_nan() { x } else { largest })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_equals_the_plain_engine_at_every_site_over_all_axes(
            (model, experiment) in random_experiment(),
            metric in any::<prop::sample::Index>(),
        ) {
            let metric = *metric.get(&metrics(&experiment));
            let mut largest = 0.0_f32;
            for sweep in all_sweeps(&model, &experiment) {
                largest = largest.max(difference_of_engines(&model, &sweep, metric));
            }
            println!("largest difference {largest:e}");
            prop_assert!(largest < 3e-4, "largest difference {largest:e}");
        }

        #[test]
        fn it_equals_the_plain_engine_in_every_ablation(
            (model, experiment) in random_experiment(),
            ablation in any::<prop::sample::Index>(),
        ) {
            let (base, other) = (experiment.base().to_vec(), experiment.source().to_vec());
            let ablations = [
                Ablation::Zero,
                Ablation::Mean,
                Ablation::MeanOf(vec![other.clone(), other[..1].to_vec()]),
                Ablation::Position(base.len() / 2),
            ];
            let ablation = ablation.get(&ablations).clone();
            let zero = ablation == Ablation::Zero;
            let experiment = Experiment::ablation(&model, base, ablation).unwrap();
            let mut largest = 0.0_f32;
            for sweep in all_sweeps(&model, &experiment) {
                if !sweep.site().is_of_pairs() || zero {
                    let metric = Metric::LogitDiff { a: &[0], b: &[1] };
                    largest = largest.max(difference_of_engines(&model, &sweep, metric));
                }
            }
            println!("largest difference {largest:e}");
            prop_assert!(largest < 3e-4, "largest difference {largest:e}");
        }

        #[test]
        fn neither_threads_nor_memory_change_a_bit(
            (model, experiment) in random_experiment(),
            metric in any::<prop::sample::Index>(),
            threads in 1..5_usize,
        ) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let metric = *metric.get(&metrics(&experiment));
            for sweep in all_sweeps(&model, &experiment) {
                let run = |memory| sweep.run(&model, metric, Engine::Incremental { memory }, &|_| {}).grid;
                let all_at_once = run(1 << 30);
                // With no memory at all every patch is a chunk of its own.
                prop_assert_eq!(&run(0), &all_at_once);
                prop_assert_eq!(&pool.install(|| run(1 << 30)), &all_at_once);
            }
        }

        #[test]
        fn the_order_of_the_patches_changes_nothing((model, experiment) in random_experiment(), turn in 0..1000_usize) {
            let metric = Metric::LogitDiff { a: &[0], b: &[1] };
            let mut patches: Vec<Patch> = all_sweeps(&model, &experiment).iter().flat_map(|s| s.patches(&model)).collect();
            let run = |patches: &[Patch]| run(&model, &experiment, patches, metric, 1 << 30, Watch::NOBODY).values;
            let mut values = run(&patches);
            let n = patches.len();
            patches.rotate_left(turn % n);
            patches.reverse();
            values.rotate_left(turn % n);
            values.reverse();
            prop_assert_eq!(run(&patches), values);
        }

        #[test]
        fn patching_the_whole_residual_stream_gives_the_source((model, experiment) in random_experiment()) {
            let metric = Metric::LogitDiff { a: &[0], b: &[1] };
            let layers = 0..model.config.n_layer;
            let whole = |site: SiteKind| layers.clone().map(move |layer| Patch::whole(site, layer));
            let patches: Vec<Patch> =
                [SiteKind::ResidPre, SiteKind::ResidMid, SiteKind::ResidPost].into_iter().flat_map(whole).collect();
            let Measured { values, clean, corrupted, .. } =
                run(&model, &experiment, &patches, metric, 0, Watch::NOBODY);
            let source = match experiment.direction() {
                Direction::Denoising => clean,
                Direction::Noising => corrupted,
            };
            prop_assert!(values.iter().all(|value| *value == Some(source)));
        }

        #[test]
        fn patching_an_activation_with_itself_changes_no_bit(
            (model, experiment) in random_experiment(),
            at: prop::sample::Index,
        ) {
            let unchanged = |sweep: Sweep<'_>, engine: Engine, base: fn(&Outcome) -> f32| {
                let outcome = sweep.run(&model, Metric::LogitDiff { a: &[0], b: &[1] }, engine, &|_| {});
                let base = base(&outcome).to_bits();
                let mut values = outcome.grid.values.iter();
                let unchanged = values.all(|value| value.to_bits() == base);
                prop_assert!(unchanged, "{engine:?}, {}: {:?}", sweep.site(), outcome.grid);
                Ok(())
            };
            let by_position = |sweep: &Sweep<'_>| {
                sweep.axes().contains(&Axis::Pos) || sweep.axes().contains(&Axis::Dest)
            };
            let at_positions = |positions: Vec<usize>| {
                Subset { positions: Some(positions), ..Subset::default() }
            };

            // What stands at a position is put at that position (which a pattern does not have).
            let base = experiment.base().to_vec();
            let pos = at.index(base.len());
            let itself = Experiment::ablation(&model, base, Ablation::Position(pos)).unwrap();
            for sweep in all_sweeps(&model, &itself).into_iter().filter(by_position) {
                if !sweep.site().is_of_pairs() {
                    let sweep = sweep.only(&model, at_positions(vec![pos])).unwrap();
                    unchanged(sweep, Engine::Plain, |outcome| outcome.clean_metric)?;
                }
            }

            // Before their first difference the two runs have the same activations; and at every
            // position with the same token what the first layer makes of one row alone is the same.
            let base = match experiment.direction() {
                Direction::Denoising => |outcome: &Outcome| outcome.corrupted_metric,
                Direction::Noising => |outcome: &Outcome| outcome.clean_metric,
            };
            let differing = experiment.differing_positions();
            let before: Vec<usize> = (0..differing[0]).collect();
            let alike: Vec<usize> =
                (0..experiment.n_tokens()).filter(|pos| !differing.contains(pos)).collect();
            for engine in [Engine::default(), Engine::Plain] {
                for sweep in all_sweeps(&model, &experiment).into_iter().filter(by_position) {
                    let of_one_row = matches!(
                        sweep.site(),
                        SiteKind::ResidPre | SiteKind::Q | SiteKind::K | SiteKind::V
                    );
                    if of_one_row && !alike.is_empty() {
                        let first = Subset { layers: Some(vec![0]), ..at_positions(alike.clone()) };
                        unchanged(sweep.clone().only(&model, first).unwrap(), engine, base)?;
                    }
                    if !before.is_empty() {
                        let sweep = sweep.only(&model, at_positions(before.clone())).unwrap();
                        unchanged(sweep, engine, base)?;
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn it_equals_the_plain_engine_given_edits_that_stay(
            (model, experiment) in random_experiment(),
            edits in prop::collection::vec(any::<[prop::sample::Index; 6]>(), 1..4),
        ) {
            let t = experiment.n_tokens();
            let lasting = |[site, layer, head, pos, neuron, value]: [prop::sample::Index; 6]| {
                let site = *site.get(&SiteKind::PATCHABLE);
                let some = |axis: Axis, index: prop::sample::Index, n: usize| {
                    // One place along an axis, or all of them.
                    let index = index.index(2 * n);
                    (site.axes().contains(&axis) && index < n).then_some(index)
                };
                let patch = Patch {
                    site,
                    layer: if site.is_in_block() { layer.index(model.config.n_layer) } else { 0 },
                    head: some(Axis::Head, head, model.config.n_head),
                    pos: some(Axis::Pos, pos, t),
                    neuron: some(Axis::Neuron, neuron, model.config.inner_size()),
                    dest: some(Axis::Dest, pos, t),
                    src: some(Axis::Src, neuron, t),
                };
                let values = if site.is_of_pairs() { &[LastingValue::Source, LastingValue::Zero][..] } else { &[LastingValue::Source, LastingValue::Zero, LastingValue::Mean] };
                Lasting { patch, value: *value.get(values) }
            };
            let given = experiment.clone().given(&model, edits.into_iter().map(lasting).collect()).unwrap();
            let metric = Metric::LogitDiff { a: &[0], b: &[1] };
            let mut largest = 0.0_f32;
            for sweep in all_sweeps(&model, &given) {
                largest = largest.max(difference_of_engines(&model, &sweep, metric));
            }
            println!("largest difference {largest:e}");
            prop_assert!(largest < 3e-4, "largest difference {largest:e}, given {:?}", given.lasting());
        }
    }

    #[test]
    fn nothing_is_computed_that_is_the_base_s_or_the_source_s() {
        let sizes =
            Config { vocab_size: 9, block_size: 8, n_layer: 3, n_head: 2, n_embd: 8, ..Config::default() };
        let model = Gpt2::random(sizes, 1);
        let experiment =
            Experiment::new(&model, vec![1, 2, 3, 4, 5], vec![1, 2, 6, 4, 5], Direction::Denoising).unwrap();
        let metric = Metric::LogitDiff { a: &[0], b: &[1] };
        let flops =
            |patches: &[Patch]| run(&model, &experiment, patches, metric, 1 << 30, Watch::NOBODY).flops;
        let at_pos = |layer, pos| Patch::at_pos(SiteKind::ResidPre, layer, pos);
        let nothing = flops(&[]);
        // To the left of the first difference both are one run.
        assert_eq!(flops(&[at_pos(0, 0), at_pos(2, 1)]), nothing);
        // With the whole residual stream of the source, a run is the source.
        assert_eq!(flops(&[Patch::whole(SiteKind::ResidPre, 1)]), nothing);
        assert_eq!(flops(&[Patch::whole(SiteKind::ResidMid, 0)]), nothing);
        // With its row at the first difference, what follows is computed, but not that row.
        let [first, second] = [2, 3].map(|pos| flops(&[at_pos(1, pos)]));
        assert!(nothing < first && first < second, "{nothing} {first} {second}");
        // And the whole sweep is far less than a forward pass for every patch.
        let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
        let patches = sweep.patches(&model);
        assert!(flops(&patches) < plain::run(&model, &experiment, &patches, metric, Watch::NOBODY).flops / 5);
    }

    #[test]
    fn the_shares_of_progress_add_up_to_one() {
        let sizes =
            Config { vocab_size: 9, block_size: 8, n_layer: 3, n_head: 2, n_embd: 8, ..Config::default() };
        let model = Gpt2::random(sizes, 2);
        let experiment = Experiment::new(&model, vec![1, 2, 3], vec![1, 4, 3], Direction::Noising).unwrap();
        for engine in [Engine::default(), Engine::Incremental { memory: 0 }, Engine::Plain] {
            let done = std::sync::Mutex::new(0.0);
            let metric = Metric::LogitDiff { a: &[0], b: &[1] };
            Sweep::over(&experiment, SiteKind::ResidPre).run(&model, metric, engine, &|share| {
                *done.lock().unwrap() += share;
            });
            assert!((*done.lock().unwrap() - 1.0).abs() < 1e-9, "{engine:?}: {done:?}");
        }
    }
}
