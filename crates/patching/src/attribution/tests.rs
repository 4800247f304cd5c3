use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use gpt2::{Config, Hook, Site};
use tensor::Tensor;

use super::*;
use crate::prompts::{self, Bootstrap, Pair, Part};
use crate::{Ablation, Axis, Engine, Experiment, Head, Lasting, LastingValue, Subset};

const METRIC: Metric<'static> = Metric::LogitDiff { a: &[0], b: &[1, 3] };
const CLEAN: [u32; 4] = [1, 2, 3, 4];
const CORRUPTED: [u32; 4] = [1, 5, 3, 6];

fn model() -> Gpt2 {
    let sizes =
        Config { vocab_size: 9, block_size: 8, n_layer: 3, n_head: 3, n_embd: 12, ..Config::default() };
    Gpt2::random(Config { layer_norm_epsilon: 0.05, ..sizes }, 3)
}

fn experiment(model: &Gpt2) -> Experiment {
    Experiment::new(model, CLEAN.to_vec(), CORRUPTED.to_vec(), Direction::Denoising).unwrap()
}

fn attributed(sweep: &Sweep<'_>, model: &Gpt2, metric: Metric<'_>, method: Method) -> Attributed {
    attribute(model, std::slice::from_ref(sweep), metric, method, &|_| {}).unwrap().remove(0)
}

/// Every activation of a run with this hook.
fn cache(model: &Gpt2, ids: &[u32], hook: &mut Hook<'_>) -> HashMap<Site, Tensor> {
    let mut kept = HashMap::new();
    model.transformer(ids, &mut |site, x| {
        hook(site, x);
        kept.insert(site, x.clone());
    });
    kept
}

fn metric_of(model: &Gpt2, ids: &[u32], hook: &mut Hook<'_>) -> f64 {
    let logits = model.next_token_logits(ids, hook);
    f64::from(METRIC.of_logits(&logits, &logits).unwrap())
}

/// The slope of the metric as the piece moves from what the base run has there to `to`: what a linear effect is,
/// by hooked forward passes. `hook` is called first.
fn slope(model: &Gpt2, patch: &Patch, to: &Tensor, hook: &dyn Fn(Site, &mut Tensor), ids: &[u32]) -> f64 {
    let h = 2e-3;
    let moved = |h: f32| {
        metric_of(model, ids, &mut |site, x| {
            hook(site, x);
            if site == patch.site() {
                for i in patch.pieces(x.shape()).into_iter().flatten() {
                    let (from, to) = (x.data()[i], to.data()[i]);
                    x.data_mut()[i] = if from == to { from } else { from + h * (to - from) };
                }
            }
        })
    };
    (moved(h) - moved(-h)) / f64::from(2.0 * h)
}

#[track_caller]
fn assert_close(got: f32, expected: f64, what: &str) {
    assert!(
        (f64::from(got) - expected).abs() < 1e-2 * (1.0 + expected.abs()),
        "{what}: {got}, not {expected}"
    );
}

fn axes_of(site: SiteKind) -> Vec<Vec<Axis>> {
    vec![site.default_axes().to_vec(), site.axes().to_vec(), vec![Axis::Layer]]
}

#[test]
fn atp_is_the_slope_of_every_cell_of_every_site() {
    let model = model();
    for direction in Direction::ALL {
        let experiment = Experiment::new(&model, CLEAN.to_vec(), CORRUPTED.to_vec(), direction).unwrap();
        let source = cache(&model, experiment.source(), &mut |_, _| {});
        let mut sweeps = Vec::new();
        for site in SiteKind::PATCHABLE {
            sweeps.extend(axes_of(site).iter().map(|axes| Sweep::over(&experiment, site).by(axes)));
        }
        // One pass for all of them.
        let all = attribute(&model, &sweeps, METRIC, Method::Atp, &|_| {}).unwrap();
        for (sweep, got) in sweeps.iter().zip(all) {
            let exact = sweep.run(&model, METRIC, Engine::default(), &|_| {});
            assert_eq!((&got.changes.axes, &got.changes.places), (&exact.grid.axes, &exact.grid.places));
            assert_close(got.clean_metric, f64::from(exact.clean_metric), "clean");
            assert_close(got.corrupted_metric, f64::from(exact.corrupted_metric), "corrupted");
            assert!(got.complete && got.missing == 0);
            for (patch, change) in sweep.patches(&model).iter().zip(&got.changes.values) {
                let expected = slope(&model, patch, &source[&patch.site()], &|_, _| {}, experiment.base());
                assert_close(*change, expected, &format!("{patch:?}"));
            }
        }
    }
}

#[test]
fn atp_star_is_its_definition() {
    let model = model();
    let experiment = experiment(&model);
    let source = cache(&model, experiment.source(), &mut |_, _| {});
    let base = cache(&model, experiment.base(), &mut |_, _| {});
    // What layer ℓ writes stays as in the base run: no effect goes through it.
    let without = |layer: usize| {
        let base = &base;
        move |site: Site, x: &mut Tensor| {
            if site.layer == layer && matches!(site.kind, SiteKind::AttnOut | SiteKind::MlpOut) {
                x.clone_from(&base[&site]);
            }
        }
    };
    for site in [SiteKind::Q, SiteKind::K, SiteKind::V, SiteKind::ResidMid, SiteKind::Pattern] {
        for axes in [site.default_axes(), site.axes()] {
            let sweep = Sweep::over(&experiment, site).by(axes);
            let got = attributed(&sweep, &model, METRIC, Method::AtpStar);
            for (patch, effect) in sweep.patches(&model).iter().zip(&got.changes.values) {
                let of_layer = |layer: usize| match site {
                    SiteKind::Q | SiteKind::K => {
                        let patched = cache(&model, experiment.base(), &mut |made, x| {
                            if made == patch.site() {
                                patch.apply(&source[&made], x);
                            }
                        });
                        let pattern = Patch::whole(SiteKind::Pattern, patch.layer);
                        let to = &patched[&pattern.site()];
                        slope(&model, &pattern, to, &without(layer), experiment.base())
                    }
                    _ => slope(&model, patch, &source[&patch.site()], &without(layer), experiment.base()),
                };
                let expected = (0..3).map(|layer| of_layer(layer).abs()).sum::<f64>() / 2.0;
                assert_close(*effect, expected, &format!("{patch:?}"));
            }
        }
    }
}

#[test]
fn integrated_gradients_are_the_mean_of_slopes_between_the_prompts() {
    let model = model();
    let experiment = experiment(&model);
    let source = cache(&model, experiment.source(), &mut |_, _| {});
    let base = cache(&model, experiment.base(), &mut |_, _| {});
    let steps = 3;
    for site in [SiteKind::Z, SiteKind::ResidPost, SiteKind::Embed, SiteKind::MlpPost] {
        let sweep = Sweep::over(&experiment, site);
        let got = attributed(&sweep, &model, METRIC, Method::Ig { steps });
        for (patch, change) in sweep.patches(&model).iter().zip(&got.changes.values) {
            let difference = {
                let mut x = source[&patch.site()].clone();
                x.data_mut().iter_mut().zip(base[&patch.site()].data()).for_each(|(x, base)| *x -= base);
                x
            };
            let at_step = |step: usize| {
                let mut own = HashMap::new();
                let embed = SiteKind::Embed.at(0);
                let to_step = |made: Site, x: &mut Tensor| {
                    if made == embed {
                        let share = step as f32 / steps as f32;
                        let ends = source[&embed].data().iter().zip(base[&embed].data());
                        let data = ends.map(|(source, base)| source + share * (base - source)).collect();
                        *x = Tensor::new(x.shape(), data);
                    }
                };
                model.transformer(experiment.base(), &mut |made, x| {
                    to_step(made, x);
                    own.insert(made, x.clone());
                });
                // From where the run of this step is, along the difference of the two prompts.
                let mut to = own[&patch.site()].clone();
                to.add_assign(&difference);
                let hook = |made: Site, x: &mut Tensor| {
                    if made == embed {
                        x.clone_from(&own[&embed]);
                    }
                };
                slope(&model, patch, &to, &hook, experiment.base())
            };
            let expected = (0..steps).map(at_step).sum::<f64>() / steps as f64;
            assert_close(*change, expected, &format!("{patch:?}"));
        }
    }
}

#[test]
fn what_stays_in_the_base_run_passes_no_effect_on() {
    let model = model();
    let edits = [
        (Patch::at_pos(SiteKind::ResidMid, 1, 3), LastingValue::Source),
        (Patch::whole(SiteKind::Z, 2).narrowed(Axis::Head, 1), LastingValue::Zero),
        (Patch::whole(SiteKind::Pattern, 1).narrowed(Axis::Head, 0), LastingValue::Zero),
    ];
    let given = edits.map(|(patch, value)| Lasting { patch, value }).to_vec();
    let experiment = experiment(&model).given(&model, given).unwrap();
    let source = cache(&model, experiment.source(), &mut |_, _| {});
    let edit = |site: Site, x: &mut Tensor| {
        for (patch, value) in edits.iter().filter(|(patch, _)| patch.site() == site) {
            match value {
                LastingValue::Source => patch.apply(&source[&site], x),
                _ => patch.clear(x),
            }
        }
    };
    for site in [SiteKind::ResidPre, SiteKind::Q, SiteKind::Z, SiteKind::ResidMid] {
        let sweep = Sweep::over(&experiment, site);
        let got = attributed(&sweep, &model, METRIC, Method::Atp);
        for (patch, change) in sweep.patches(&model).iter().zip(&got.changes.values) {
            // A patch of the same activation stands after what stays, and before everything later.
            let expected = slope(&model, patch, &source[&patch.site()], &edit, experiment.base());
            assert_close(*change, expected, &format!("{patch:?}"));
        }
        let exact = sweep.run(&model, METRIC, Engine::Plain, &|_| {});
        assert_close(got.corrupted_metric, f64::from(exact.corrupted_metric), "the edited base run");
    }
    // With the QK fix, a pattern that stays has no effect.
    let sweep = Sweep::over(&experiment, SiteKind::Q);
    let star = attributed(&sweep, &model, METRIC, Method::AtpStar);
    assert_eq!(star.changes.at(&[1, 0]), 0.0);
    assert!(star.changes.at(&[1, 1]) > 0.0);
}

#[test]
fn an_ablation_is_predicted_and_has_no_path() {
    let model = model();
    let experiment = Experiment::ablation(&model, CLEAN.to_vec(), Ablation::Zero).unwrap();
    let sweep = Sweep::over(&experiment, SiteKind::Z);
    let got = attributed(&sweep, &model, METRIC, Method::Atp);
    for (patch, change) in sweep.patches(&model).iter().zip(&got.changes.values) {
        let zeros = Tensor::zeros(&[4, 3, 4]);
        assert_close(*change, slope(&model, patch, &zeros, &|_, _| {}, &CLEAN), &format!("{patch:?}"));
    }
    let refused = attribute(&model, &[sweep], METRIC, Method::Ig { steps: 2 }, &|_| {});
    assert!(refused.unwrap_err().to_string().contains("has one prompt"));
}

#[test]
fn cells_that_were_not_asked_for_are_nan_and_rank_is_refused() {
    let model = model();
    let experiment = experiment(&model);
    let heads = vec![Head { layer: 0, head: 1 }, Head { layer: 2, head: 0 }];
    let subset = Subset { heads: Some(heads), ..Subset::default() };
    let sweep = Sweep::over(&experiment, SiteKind::V).only(&model, subset).unwrap();
    for method in Method::ALL {
        let got = attributed(&sweep, &model, METRIC, method);
        assert_eq!(got.changes.places, [vec![0, 2], vec![0, 1]]);
        assert!(got.changes.at(&[0, 0]).is_nan() && got.changes.at(&[0, 1]).is_finite(), "{method}");
        assert_eq!(got.missing, 0);
        assert_eq!(method.to_string().parse(), Ok(method));
    }
    let error = attribute(&model, &[sweep], Metric::Rank { token: 1 }, Method::Atp, &|_| {});
    assert!(error.unwrap_err().to_string().starts_with("a rank has no gradient"));
    assert!("x".parse::<Method>().unwrap_err().contains("atp, relp, atp-star or ig"));
}

#[test]
fn a_stopped_attribution_has_no_numbers() {
    let model = model();
    let experiment = experiment(&model);
    let stop = AtomicBool::new(true);
    let sweep = Sweep::over(&experiment, SiteKind::V).stopped_by(&stop);
    for method in Method::ALL {
        let got = attributed(&sweep, &model, METRIC, method);
        assert!(!got.complete && got.clean_metric.is_nan());
        assert!(got.changes.values.iter().all(|x| x.is_nan()));
    }
}

#[test]
fn what_cannot_be_computed_is_nan() {
    let mut model = model();
    let mut head = model.wte.clone();
    head.row_mut(8).fill(f32::MAX);
    model.lm_head = Some(head);
    let experiment = experiment(&model);
    for metric in [Metric::Kl, Metric::Logit { tokens: &[8] }, Metric::Loss { from: 1, to: 3 }] {
        let got = attributed(&Sweep::over(&experiment, SiteKind::Z), &model, metric, Method::Atp);
        assert!(got.ends().base.is_nan());
        assert!(got.changes.values.iter().all(|x| x.is_nan()), "{metric:?}: {:?}", got.changes);
        assert_eq!(got.missing, got.changes.values.len());
    }
}

#[test]
fn every_metric_is_followed_to_the_activations() {
    let model = model();
    let experiment = experiment(&model);
    for metric in [
        Metric::ProbDiff { a: &[0, 2], b: &[1] },
        Metric::LogProb { tokens: &[3] },
        Metric::Kl,
        Metric::Loss { from: 0, to: 3 },
    ] {
        // To first order a small step of the sweep's own runs has the predicted change.
        let sweep = Sweep::over(&experiment, SiteKind::ResidMid);
        let got = attributed(&sweep, &model, metric, Method::Atp);
        let source = cache(&model, experiment.source(), &mut |_, _| {});
        let clean = model.next_token_logits(experiment.clean(), &mut |_, _| {});
        let value = |patch: &Patch, h: f32| -> f64 {
            let logits = model.forward(experiment.base(), &mut |site, x| {
                if site == patch.site() {
                    for i in patch.pieces(&[4, 12]).into_iter().flatten() {
                        let from = x.data()[i];
                        x.data_mut()[i] = from + h * (source[&site].data()[i] - from);
                    }
                }
            });
            match metric {
                Metric::Loss { from, to } => {
                    let loss = |pos: usize| crate::metric::loss(logits.row(pos), experiment.base()[pos + 1]);
                    (from..to).map(|pos| f64::from(loss(pos))).sum::<f64>() / (to - from) as f64
                }
                _ => f64::from(metric.of_logits(logits.row(3), &clean).unwrap()),
            }
        };
        for (patch, change) in sweep.patches(&model).iter().zip(&got.changes.values) {
            let h = 1e-2;
            let expected = (value(patch, h) - value(patch, -h)) / f64::from(2.0 * h);
            assert_close(*change, expected, &format!("{metric:?}, {patch:?}"));
        }
    }
}

#[test]
fn over_pairs_there_is_a_mean_of_changes_and_of_magnitudes() {
    let model = model();
    let pair = |line, direction| {
        let experiment = Experiment::new(&model, CLEAN.to_vec(), CORRUPTED.to_vec(), direction).unwrap();
        Pair { line, experiment, a: vec![0], b: vec![1] }
    };
    let pairs = [pair(1, Direction::Denoising), pair(2, Direction::Noising)];
    let of_pairs = pairs
        .each_ref()
        .map(|pair| attributed(&Sweep::over(&pair.experiment, SiteKind::Z), &model, METRIC, Method::Relp));
    let mean = |grids: [Grid; 2]| {
        let parts = [0, 1].map(|i| Part::new(&pairs[i], &grids[i]).with_ends(of_pairs[i].ends()));
        prompts::average(&parts, None, Bootstrap::default()).unwrap()
    };
    let changes = mean(of_pairs.each_ref().map(|it| it.changes.clone()));
    let magnitudes = mean(of_pairs.each_ref().map(Attributed::magnitudes));
    let [first, second] = [&of_pairs[0].changes.values, &of_pairs[1].changes.values];
    for (i, (x, y)) in first.iter().zip(second).enumerate() {
        assert!((changes.mean.values[i] - (x + y) / 2.0).abs() < 1e-6);
        assert!((magnitudes.mean.values[i] - (x.abs() + y.abs()) / 2.0).abs() < 1e-6);
        assert!(magnitudes.low.values[i] <= magnitudes.mean.values[i]);
    }
}

#[test]
fn scales_are_those_of_the_sweep() {
    let model = model();
    let experiment = experiment(&model);
    let sweep = Sweep::over(&experiment, SiteKind::Z);
    let got = attributed(&sweep, &model, METRIC, Method::Atp);
    let Endpoints { clean, corrupted, base } = got.ends();
    let change = got.changes.values[4];
    let on = |scale| got.on(scale).unwrap().values[4];
    assert_eq!((base, on(Scale::Change)), (corrupted, change));
    assert_eq!(on(Scale::Value), base + change);
    assert!((on(Scale::Normalized) - change / (clean - corrupted)).abs() < 1e-5);
    assert!((on(Scale::NormalizedChange) - change / (clean - corrupted)).abs() < 1e-5);
    let star = attributed(&sweep, &model, METRIC, Method::AtpStar);
    assert!(star.on(Scale::NormalizedChange).is_ok());
    for scale in [Scale::Value, Scale::Normalized] {
        assert!(star.on(scale).unwrap_err().to_string().contains("magnitudes"));
    }
}
