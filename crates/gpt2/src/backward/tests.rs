use std::collections::HashMap;

use proptest::prelude::*;
use tensor::Activation;

use super::*;
use crate::{Config, no_hook};

const IDS: [u32; 6] = [3, 1, 4, 1, 5, 2];

/// A small model in one of the ways in which GPT-2's kin differ: three heads, another hidden layer, a head of
/// its own with a bias.
fn model(seed: u64, activation: Activation) -> Gpt2 {
    let sizes =
        Config { vocab_size: 7, block_size: 8, n_layer: 2, n_head: 3, n_embd: 12, ..Config::default() };
    let config = Config { activation_function: activation, layer_norm_epsilon: 0.05, ..sizes.of_kin(seed) };
    let mut model = Gpt2::random(config, seed);
    if seed & 8 == 8 {
        model.lm_head = Some(Gpt2::random(config, seed + 1).wte);
        model.lm_head_bias = Some(Gpt2::random(config, seed + 2).wpe.reshape(&[8 * 12]).into_data())
            .map(|x| Tensor::new(&[7], x[..7].to_vec()));
    }
    model
}

/// M = Σ g · logits over all positions, as a number to be differentiated.
fn weights(seed: u64) -> Tensor {
    let numbers = (0..6 * 7).map(|i| ((i * 37 + seed as usize * 11) % 23) as f32 / 11.5 - 1.0);
    Tensor::new(&[6, 7], numbers.collect())
}

fn number(logits: &Tensor, g: &Tensor) -> f64 {
    logits.data().iter().zip(g.data()).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum()
}

/// The gradient with respect to every activation.
fn gradients(model: &Gpt2, g: &Tensor, rules: &Rules) -> HashMap<Site, Tensor> {
    let activations = model.record(Kernel::Plain, &IDS, &mut no_hook);
    let mut kept = HashMap::new();
    let mut keep = |site, dx: &Tensor| assert!(kept.insert(site, dx.clone()).is_none(), "{site} twice");
    let to = Gradients { hook: Some(&mut keep), parameters: None };
    model.backward(&activations, model.unembed_backward(g), rules, to);
    kept
}

/// A direction of unit length in which an activation is moved, by the site: masked scores stay.
fn direction(x: &Tensor, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let numbers = x.data().iter().map(|x| if x.is_finite() { random() } else { 0.0 });
    let numbers: Vec<f32> = numbers.collect();
    let length = numbers.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
    Tensor::new(x.shape(), numbers.iter().map(|x| x / length).collect())
}

/// (M(x + h d) − M(x − h d)) / 2h, from M of ±h.
fn slope(mut number: impl FnMut(f32) -> f64) -> f64 {
    let h = 4e-3;
    (number(h) - number(-h)) / f64::from(2.0 * h)
}

fn inner(x: &Tensor, y: &Tensor) -> f64 {
    assert_eq!(x.shape(), y.shape());
    let products = x.data().iter().zip(y.data()).map(|(x, y)| f64::from(*x) * f64::from(*y));
    products.sum()
}

/// x + h d
fn moved(x: &mut Tensor, d: &Tensor, h: f32) {
    for (x, d) in x.data_mut().iter_mut().zip(d.data()).filter(|(_, d)| **d != 0.0) {
        *x += h * d;
    }
}

const ACTIVATIONS: [Activation; 16] = [
    Activation::GeluNew,
    Activation::Gelu,
    Activation::Gelu10,
    Activation::QuickGelu,
    Activation::Relu,
    Activation::Relu2,
    Activation::Relu6,
    Activation::LeakyRelu,
    Activation::Silu,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Mish,
    Activation::Laplace,
    Activation::HardSwish,
    Activation::SqrtSoftplus,
    Activation::Linear,
];

/// M of a run with this hook, and between which kinks of its activation function each neuron is: a finite
/// difference over a kink is not a slope.
fn run(model: &Gpt2, g: &Tensor, hook: &mut Hook<'_>) -> (f64, Vec<usize>) {
    use Activation::{HardSwish, LeakyRelu, Relu, Relu2, Relu6};
    let kinks: &[f32] = match model.config.activation_function {
        Relu | Relu2 | Relu6 | LeakyRelu | HardSwish => &[-3.0, 0.0, 3.0, 6.0],
        _ => &[],
    };
    let mut sides = Vec::new();
    let logits = model.forward(&IDS, &mut |site, x| {
        hook(site, x);
        if site.kind == MlpPre {
            sides.extend(x.data().iter().map(|x| kinks.iter().filter(|kink| x > kink).count()));
        }
    });
    (number(&logits, g), sides)
}

/// The finite difference of M, unless there is a kink between the two runs.
fn smooth_slope(mut run: impl FnMut(f32) -> (f64, Vec<usize>)) -> Option<f64> {
    let mut sides = Vec::new();
    let found = slope(|h| {
        let (number, of_run) = run(h);
        sides.push(of_run);
        number
    });
    (sides[0] == sides[1]).then_some(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_gradient_of_every_activation_is_its_slope(seed in 0_u64..1000, which in 0_usize..16) {
        let activation = ACTIVATIONS[which];
        let (model, g) = (model(seed, activation), weights(seed));
        let gradients = gradients(&model, &g, &Rules::default());
        prop_assert_eq!(gradients.len(), Site::all(2).count());
        for (i, site) in Site::all(2).enumerate() {
            let mut expected = 0.0;
            let found = smooth_slope(|h| {
                run(&model, &g, &mut |made, x| {
                    if made == site {
                        let d = direction(x, seed + i as u64);
                        expected = inner(&gradients[&site], &d);
                        moved(x, &d, h);
                    }
                })
            });
            let is_close = found.is_none_or(|found| (found - expected).abs() < 5e-3 * (1.0 + expected.abs()));
            prop_assert!(is_close, "{site}, {activation}: {expected}, not {found:?}");
        }
    }

    #[test]
    fn the_gradient_of_every_parameter_is_its_slope(seed in 0_u64..1000, which in 0_usize..16) {
        let activation = ACTIVATIONS[which];
        let (model, g) = (model(seed, activation), weights(seed));
        let activations = model.record(Kernel::Fast, &IDS, &mut no_hook);
        let mut gradient = model.zeros_like();
        model.unembed_backward_parameters(&g, &activations.end, &mut gradient);
        let to = Gradients { hook: None, parameters: Some(&mut gradient) };
        model.backward(&activations, model.unembed_backward(&g), &Rules::default(), to);
        for (i, (name, dx)) in gradient.parameters().into_iter().enumerate() {
            let d = direction(dx, seed + i as u64);
            let found = smooth_slope(|h| {
                let mut model = model.clone();
                moved(model.parameters_mut()[i].1, &d, h);
                run(&model, &g, &mut no_hook)
            });
            let expected = inner(dx, &d);
            let is_close = found.is_none_or(|found| (found - expected).abs() < 5e-3 * (1.0 + expected.abs()));
            prop_assert!(is_close, "{name}, {activation}: {expected}, not {found:?}");
        }
    }
}

#[test]
fn the_fast_kernel_gives_the_activations_of_the_plain_one() {
    let model = model(9, Activation::GeluNew);
    let kept = |kernel| {
        let mut kept = HashMap::new();
        let end = model.transformer_on(kernel, &IDS, &mut |site, x| drop(kept.insert(site, x.clone())));
        (kept, end)
    };
    let ((plain, plain_end), (fast, fast_end)) = (kept(Kernel::Plain), kept(Kernel::Fast));
    let close = |x: &Tensor, y: &Tensor| {
        x.data().iter().zip(y.data()).all(|(x, y)| x == y || (x - y).abs() < 1e-5 * (1.0 + x.abs()))
    };
    assert!(close(&plain_end, &fast_end));
    for (site, x) in &plain {
        match fast.get(site) {
            Some(y) => assert!(close(x, y), "{site}"),
            None => assert_eq!(site.kind, HeadResult),
        }
    }
}

#[test]
fn relp_is_the_gradient_of_a_model_with_constant_scales_and_factors() {
    let (model, g) = (model(9, Activation::GeluNew), weights(2));
    let relp = gradients(&model, &g, &Rules { relp: true, ..Rules::default() });
    let mut own = HashMap::new();
    model.forward(&IDS, &mut |site, x| drop(own.insert(site, x.clone())));
    for site in Site::all(2).filter(|site| !matches!(site.kind, Ln1Scale | Ln2Scale | LnFinalScale)) {
        let mut expected = 0.0;
        let found = slope(|h| {
            let logits = model.forward(&IDS, &mut |made, x| {
                if matches!(made.kind, Ln1Scale | Ln2Scale | LnFinalScale) {
                    x.clone_from(&own[&made]);
                }
                if made == site {
                    let d = direction(x, 7);
                    expected = inner(&relp[&site], &d);
                    moved(x, &d, h);
                }
                if made.kind == MlpPre {
                    own.insert(MlpPre.at(9), x.clone());
                }
                if made.kind == MlpPost && made != site {
                    let (pre, post) = (&own[&MlpPre.at(made.layer)], &own[&made]);
                    let product = own[&MlpPre.at(9)].data().iter().zip(pre.data().iter().zip(post.data()));
                    let product = product.map(|(x, (pre, post))| x * post / pre).collect();
                    *x = Tensor::new(post.shape(), product);
                }
            });
            number(&logits, &g)
        });
        assert!((found - expected).abs() < 2e-3 * (1.0 + expected.abs()), "{site}: {expected}, not {found}");
    }
}

#[test]
fn no_gradient_flows_through_what_is_dropped_or_constant() {
    let (model, g) = (model(1, Activation::GeluNew), weights(3));
    let truth = gradients(&model, &g, &Rules::default());
    let dropped = gradients(&model, &g, &Rules { dropped: Some(1), ..Rules::default() });
    for kind in [MlpOut, AttnOut, Z, Q, MlpPre, Ln1Scale, HeadResult] {
        assert!(dropped[&kind.at(1)].data().iter().all(|x| *x == 0.0), "{kind}");
    }
    // Only the stream goes on.
    assert_eq!(dropped[&ResidPre.at(1)], truth[&ResidPost.at(1)]);
    assert_ne!(dropped[&ResidPre.at(0)], truth[&ResidPre.at(0)]);

    let constant = vec![Patch::at_pos(ResidMid, 1, 2)];
    let edited = gradients(&model, &g, &Rules { constant, ..Rules::default() });
    assert_eq!(edited[&ResidMid.at(1)], truth[&ResidMid.at(1)]);
    assert!(edited[&AttnOut.at(1)].row(2).iter().all(|x| *x == 0.0));
    assert_eq!(edited[&AttnOut.at(1)].row(3), truth[&AttnOut.at(1)].row(3));
}

#[test]
fn logits_without_a_gradient_are_not_read_and_change_nothing() {
    let model = model(9, Activation::GeluNew);
    let mut g = Tensor::zeros(&[2, 7]);
    g.row_mut(1)[4] = 2.0;
    let expected = matmul(&g, model.unembedding());
    assert_eq!(model.unembed_backward(&g), expected);
    assert_eq!(expected.row(0), [0.0; 12]);
}

#[test]
fn the_number_of_threads_changes_no_bit_of_a_gradient() {
    let sizes =
        Config { vocab_size: 31, block_size: 8, n_layer: 1, n_head: 4, n_embd: 256, ..Config::default() };
    let (model, g) =
        (Gpt2::random(sizes, 1), Tensor::new(&[6, 31], (0..186).map(|i| (i % 7) as f32).collect()));
    let once = || gradients(&model, &g, &Rules::default());
    let expected = once();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(once), expected, "{threads} threads");
    }
}
