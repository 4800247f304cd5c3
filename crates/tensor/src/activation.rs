//! The functions that stand between the two layers of an MLP, each applied to every number by itself.

use std::fmt;
use std::str::FromStr;

use multiversion::multiversion;
use rayon::prelude::*;

use crate::ops::NUMBERS_WORTH_A_THREAD;
use crate::{Tensor, exp};

/// An activation function. As text it has the name that it has in transformers' `ACT2FN`, of which several
/// may mean the same function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GELU in the tanh form that GPT-2 was trained with: ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
    /// (Hendrycks & Gimpel 2016, arXiv 1606.08415).
    #[default]
    GeluNew,
    /// GELU: x Φ(x), where Φ is the distribution function of the standard normal distribution.
    Gelu,
    /// GELU, cut off at −10 and 10.
    Gelu10,
    /// x σ(1.702 x), where σ is the logistic function.
    QuickGelu,
    /// max(x, 0)
    Relu,
    /// max(x, 0)²
    Relu2,
    /// min(max(x, 0), 6)
    Relu6,
    /// x where it is positive, else x / 100
    LeakyRelu,
    /// x σ(x), also called swish.
    Silu,
    /// σ(x) = 1 / (1 + e^−x)
    Sigmoid,
    /// tanh x
    Tanh,
    /// x tanh(ln(1 + e^x)) (Misra 2019, arXiv 1908.08681)
    Mish,
    /// Φ((x − √½) / 0.282095) (Ma et al. 2022, arXiv 2209.10655)
    Laplace,
    /// x min(max(x + 3, 0), 6) / 6
    HardSwish,
    /// √ln(1 + e^x)
    SqrtSoftplus,
    /// x itself
    Linear,
}

/// The name of each function, the one that is printed first.
const NAMES: [(Activation, &[&str]); 16] = [
    (
        Activation::GeluNew,
        &["gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"],
    ),
    (Activation::Gelu, &["gelu", "gelu_python"]),
    (Activation::Gelu10, &["gelu_10"]),
    (Activation::QuickGelu, &["quick_gelu"]),
    (Activation::Relu, &["relu"]),
    (Activation::Relu2, &["relu2"]),
    (Activation::Relu6, &["relu6"]),
    (Activation::LeakyRelu, &["leaky_relu"]),
    (Activation::Silu, &["silu", "swish"]),
    (Activation::Sigmoid, &["sigmoid"]),
    (Activation::Tanh, &["tanh"]),
    (Activation::Mish, &["mish"]),
    (Activation::Laplace, &["laplace"]),
    (Activation::HardSwish, &["hardswish"]),
    (Activation::SqrtSoftplus, &["sqrtsoftplus"]),
    (Activation::Linear, &["linear"]),
];

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(known, _)| known == self);
        f.pad(name.map_or("", |(_, names)| names[0]))
    }
}

impl FromStr for Activation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(_, names)| names.contains(&text));
        found.map(|(activation, _)| *activation).ok_or_else(|| {
            let all: Vec<&str> = NAMES.iter().map(|(_, names)| names[0]).collect();
            format!("there is no activation function \"{text}\"; computed here are {}", all.join(", "))
        })
    }
}

impl Activation {
    /// Applies the function to every number, in place.
    pub fn apply(self, x: &mut Tensor) {
        x.data_mut().par_chunks_mut(NUMBERS_WORTH_A_THREAD).for_each(|numbers| apply(self, numbers));
    }

    /// The backward pass: `dy`, the gradient with respect to f(x), becomes that with respect to `x`,
    /// dx = f′(x) dy. Where a function has a kink, its slope there is PyTorch's.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn backward(self, x: &Tensor, dy: &mut Tensor) {
        each_piece(x, dy, |x, dy| multiply_by_slope(self, x, dy));
    }

    /// [`Activation::backward`] with f(x) / x in the place of f′(x), as if the function multiplied its input
    /// by a constant (RelP, Jafari et al. 2025, arXiv 2508.21258). At 0 it is the limit, f′(0) where f(0) = 0;
    /// elsewhere (σ(0) = ½) it is not finite.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn backward_as_factor(self, x: &Tensor, dy: &mut Tensor) {
        let mut y = x.clone();
        self.apply(&mut y);
        for ((dy, y), x) in dy.data_mut().iter_mut().zip(y.data()).zip(x.data()) {
            // (Nearer to 0 than this, the quotient of two rounded numbers says nothing.)
            if x.abs() < 1e-12 && y.abs() < 1e-9 {
                let mut slope = [1.0];
                multiply_by_slope(self, &[0.0], &mut slope);
                *dy *= slope[0];
            } else {
                *dy *= y / x;
            }
        }
    }
}

/// Calls `f` with pieces of x and dy that lie at the same places, in parallel.
#[track_caller]
fn each_piece(x: &Tensor, dy: &mut Tensor, f: impl Fn(&[f32], &mut [f32]) + Sync) {
    assert!(x.shape() == dy.shape(), "a gradient of {:?} for numbers of {:?}", dy.shape(), x.shape());
    let pieces = dy.data_mut().par_chunks_mut(NUMBERS_WORTH_A_THREAD);
    pieces.zip(x.data().par_chunks(NUMBERS_WORTH_A_THREAD)).for_each(|(dy, x)| f(x, dy));
}

/// dy ← f′(x) dy. As in [`apply`], the match stands outside of the loops.
#[multiversion(targets = "simd")]
fn multiply_by_slope(activation: Activation, x: &[f32], dy: &mut [f32]) {
    match activation {
        Activation::GeluNew => each_of(x, dy, gelu_new_slope),
        Activation::Gelu => each_of(x, dy, gelu_slope),
        Activation::Gelu10 => each_of(x, dy, |x| if x < 10.0 { gelu_slope(x) } else { 0.0 }),
        // f = x σ(1.702 x): f′ = σ + 1.702 x σ (1 − σ)
        Activation::QuickGelu => each_of(x, dy, |x| {
            let s = sigmoid(1.702 * x);
            s + 1.702 * (x * s * (1.0 - s))
        }),
        Activation::Relu => each_of(x, dy, |x| if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::Relu2 => each_of(x, dy, |x| 2.0 * relu(x)),
        Activation::Relu6 => each_of(x, dy, |x| if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 }),
        Activation::LeakyRelu => each_of(x, dy, |x| if x > 0.0 { 1.0 } else { 0.01 }),
        // f = x σ: f′ = σ + x σ (1 − σ)
        Activation::Silu => each_of(x, dy, |x| {
            let s = sigmoid(x);
            s + x * s * (1.0 - s)
        }),
        // f = σ: f′ = σ (1 − σ)
        Activation::Sigmoid => each_of(x, dy, |x| sigmoid(x) * sigmoid(-x)),
        // f = tanh x: f′ = 1 − tanh² x
        Activation::Tanh => each_of(x, dy, |x| 1.0 - x.tanh() * x.tanh()),
        // f = x t with t = tanh(ln(1 + e^x)): f′ = t + x (1 − t²) σ
        Activation::Mish => each_of(x, dy, |x| {
            let t = softplus(x).tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }),
        // f = Φ((x − √½) / s): f′ = φ((x − √½) / s) / s
        Activation::Laplace => {
            each_of(x, dy, |x| normal_density((x - std::f32::consts::FRAC_1_SQRT_2) / 0.282_095) / 0.282_095);
        }
        Activation::HardSwish => each_of(x, dy, hard_swish_slope),
        // f = √s with s = ln(1 + e^x): f′ = σ / (2 √s); far to the left s is e^x
        Activation::SqrtSoftplus => each_of(x, dy, |x| match x < -20.0 {
            true => 0.5 * exp(0.5 * x),
            false => 0.5 * sigmoid(x) / softplus(x).sqrt(),
        }),
        Activation::Linear => {}
    }
}

#[inline(always)]
fn each_of(x: &[f32], dy: &mut [f32], slope: impl Fn(f32) -> f32) {
    for (dy, x) in dy.iter_mut().zip(x) {
        *dy *= slope(*x);
    }
}

/// The match stands outside of the loops, so that each of them becomes vector instructions.
#[multiversion(targets = "simd")]
fn apply(activation: Activation, numbers: &mut [f32]) {
    match activation {
        Activation::GeluNew => each(numbers, gelu_new),
        Activation::Gelu => each(numbers, gelu),
        Activation::Gelu10 => each(numbers, |x| gelu(x).clamp(-10.0, 10.0)),
        Activation::QuickGelu => each(numbers, |x| x / (1.0 + exp(-1.702 * x))),
        Activation::Relu => each(numbers, relu),
        Activation::Relu2 => each(numbers, |x| relu(x) * relu(x)),
        Activation::Relu6 => each(numbers, |x| x.clamp(0.0, 6.0)),
        Activation::LeakyRelu => each(numbers, |x| if x > 0.0 { x } else { 0.01 * x }),
        Activation::Silu => each(numbers, |x| x / (1.0 + exp(-x))),
        Activation::Sigmoid => each(numbers, |x| 1.0 / (1.0 + exp(-x))),
        Activation::Tanh => each(numbers, f32::tanh),
        Activation::Mish => each(numbers, |x| x * softplus(x).tanh()),
        Activation::Laplace => each(numbers, laplace),
        Activation::HardSwish => each(numbers, |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
        Activation::SqrtSoftplus => each(numbers, |x| softplus(x).sqrt()),
        Activation::Linear => {}
    }
}

#[inline(always)]
fn each(numbers: &mut [f32], f: impl Fn(f32) -> f32) {
    for number in numbers {
        *number = f(*number);
    }
}

/// Computed as x / (1 + e^(−2u)) with u = √(2/π) (x + 0.044715 x³), which is the same.
#[inline(always)]
fn gelu_new(x: f32) -> f32 {
    /// 2 √(2/π)
    const TWICE_ROOT: f32 = 1.595_769;
    x / (1.0 + exp(-TWICE_ROOT * (x + 0.044715 * x * x * x)))
}

/// f = x σ(v) with v = 2 √(2/π) (x + 0.044715 x³): f′ = σ + x σ (1 − σ) v′.
#[inline(always)]
fn gelu_new_slope(x: f32) -> f32 {
    /// 2 √(2/π)
    const TWICE_ROOT: f32 = 1.595_769;
    // Beyond these σ is 0 or 1, and x² might overflow. (A comparison with NaN is false: NaN stays.)
    let x = if x < -20.0 { -20.0 } else { x };
    let x = if x > 20.0 { 20.0 } else { x };
    let s = sigmoid(TWICE_ROOT * (x + 0.044715 * x * x * x));
    s + x * s * (1.0 - s) * (TWICE_ROOT * (1.0 + 3.0 * 0.044715 * x * x))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal_cdf(x)
}

/// f = x Φ(x): f′ = Φ(x) + x φ(x).
#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    normal_cdf(x) + x * normal_density(x)
}

/// f = x (x + 3) / 6 between −3 and 3: f′ = (2 x + 3) / 6.
#[inline(always)]
fn hard_swish_slope(x: f32) -> f32 {
    if x <= -3.0 {
        0.0
    } else if x >= 3.0 {
        1.0
    } else {
        (2.0 * x + 3.0) / 6.0
    }
}

/// σ(x) = 1 / (1 + e^−x)
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// φ(x) = e^(−x² / 2) / √(2π)
#[inline(always)]
fn normal_density(x: f32) -> f32 {
    /// 1 / √(2π)
    const HEIGHT: f32 = 0.398_942_3;
    HEIGHT * exp(-0.5 * x * x)
}

/// The mean is √½, to as many digits as the paper and PyTorch's users have it.
#[inline(always)]
fn laplace(x: f32) -> f32 {
    normal_cdf((x - std::f32::consts::FRAC_1_SQRT_2) / 0.282_095)
}

/// NaN stays NaN, unlike with `f32::max`.
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// ln(1 + e^x), without overflow.
#[inline(always)]
fn softplus(x: f32) -> f32 {
    relu(x) + exp(-x.abs()).ln_1p()
}

/// Φ(x) = ½ erfc(−x / √2), with a relative error below 10⁻⁶ while the result is a normal number.
///
/// erfc(z) = t e^(−z² + p(t)) with t = 1 / (1 + z/2), where p is a Chebyshev fit with a relative error of
/// 1.2 · 10⁻⁷ for every z ≥ 0 (Press et al., *Numerical Recipes in C*, 2nd edition, §6.2).
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    const P: [f32; 10] = [
        0.170_872_77,
        -0.822_152_2,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = P[0];
    for coefficient in &P[1..] {
        p = p * t + coefficient;
    }
    let tail = 0.5 * t * exp(-z * z + p);
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(activation: Activation, numbers: &[f32]) -> Vec<f32> {
        let mut x = Tensor::new(&[numbers.len()], numbers.to_vec());
        activation.apply(&mut x);
        x.into_data()
    }

    /// Φ(x) by Simpson's rule over the density, from 0.
    fn exact_cdf(x: f64) -> f64 {
        let n = 2000;
        let h = x / n as f64;
        let density = |i: usize| (-(i as f64 * h).powi(2) / 2.0).exp();
        let weight = |i: usize| [2.0, 4.0][i % 2];
        let inner: f64 = (1..n).map(|i| weight(i) * density(i)).sum();
        let area = (density(0) + inner + density(n)) * h / 3.0;
        0.5 + area / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn every_function_is_its_formula() {
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        let gelu_new = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + u.tanh())
        };
        let gelu = |x: f64| x * exact_cdf(x);
        type Exact<'a> = &'a dyn Fn(f64) -> f64;
        let formulas: [(Activation, Exact<'_>); 16] = [
            (Activation::GeluNew, &gelu_new),
            (Activation::Gelu, &gelu),
            (Activation::Gelu10, &|x| gelu(x).clamp(-10.0, 10.0)),
            (Activation::QuickGelu, &|x| x * sigma(1.702 * x)),
            (Activation::Relu, &|x| x.max(0.0)),
            (Activation::Relu2, &|x| x.max(0.0).powi(2)),
            (Activation::Relu6, &|x| x.clamp(0.0, 6.0)),
            (Activation::LeakyRelu, &|x| x.max(0.01 * x)),
            (Activation::Silu, &|x| x * sigma(x)),
            (Activation::Sigmoid, &sigma),
            (Activation::Tanh, &f64::tanh),
            (Activation::Mish, &|x| x * softplus(x).tanh()),
            (Activation::Laplace, &|x| exact_cdf((x - 0.5_f64.sqrt()) / 0.282095)),
            (Activation::HardSwish, &|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
            (Activation::SqrtSoftplus, &|x| softplus(x).sqrt()),
            (Activation::Linear, &|x| x),
        ];
        let numbers: Vec<f32> = (-1200..=1200).map(|i| i as f32 / 100.0).collect();
        for (activation, exact) in formulas {
            for (x, got) in numbers.iter().zip(applied(activation, &numbers)) {
                let exact = exact(f64::from(*x));
                assert!(
                    (f64::from(got) - exact).abs() <= 2e-6 * exact.abs() + 1e-8,
                    "{activation}({x}) = {got}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn every_slope_is_that_of_its_function() {
        let kinks = [-3.0, 0.0, 3.0, 6.0, 10.0];
        let numbers: Vec<f32> = (-1200..=1200).map(|i| i as f32 / 100.0 + 0.003).collect();
        let x = Tensor::new(&[numbers.len()], numbers.clone());
        for (activation, _) in NAMES {
            let mut slopes = Tensor::new(&[numbers.len()], vec![1.0; numbers.len()]);
            activation.backward(&x, &mut slopes);
            let h = 0.02;
            let ends = [h, -h].map(|h| numbers.iter().map(|x| x + h).collect::<Vec<f32>>());
            let [above, below] = ends.map(|x| applied(activation, &x));
            for (i, (x, slope)) in numbers.iter().zip(slopes.data()).enumerate() {
                if kinks.iter().any(|kink| (x - kink).abs() < 2.0 * h) {
                    continue;
                }
                let expected = (above[i] - below[i]) / (2.0 * h);
                let tolerance = 1e-3 * (1.0 + expected.abs());
                assert!((slope - expected).abs() < tolerance, "{activation}′({x}) = {slope}, not {expected}");
            }
        }
    }

    #[test]
    fn slopes_at_the_ends_of_the_numbers_are_finite() {
        let ends = [f32::MIN, -1e10, -200.0, -0.0, 200.0, 1e10, f32::MAX];
        for (activation, _) in NAMES.into_iter().filter(|(it, _)| *it != Activation::Relu2) {
            let mut slopes = Tensor::new(&[7], vec![1.0; 7]);
            activation.backward(&Tensor::new(&[7], ends.to_vec()), &mut slopes);
            assert!(slopes.data().iter().all(|x| x.is_finite()), "{activation}: {slopes:?}");
        }
    }

    #[test]
    fn as_a_factor_a_function_is_its_value_over_its_input() {
        let x = [-2.0, 0.0, 1e-20, 0.5, 3.0];
        for (activation, _) in NAMES {
            let y = applied(activation, &x);
            let mut factors = Tensor::new(&[5], vec![2.0; 5]);
            activation.backward_as_factor(&Tensor::new(&[5], x.to_vec()), &mut factors);
            for i in [0, 3, 4] {
                assert_eq!(factors.data()[i], 2.0 * (y[i] / x[i]), "{activation}({})", x[i]);
            }
            let at_zero = factors.data()[1];
            assert_eq!(at_zero.is_finite(), y[1] == 0.0, "{activation}: {at_zero}");
        }
        let mut factor = Tensor::new(&[1], vec![1.0]);
        Activation::GeluNew.backward_as_factor(&Tensor::zeros(&[1]), &mut factor);
        assert_eq!(factor.data(), [0.5]);
    }

    #[test]
    fn the_tail_of_gelu_is_not_lost() {
        // x Φ(x) of −5 and −8, from tables of erfc.
        let got = applied(Activation::Gelu, &[-5.0, -8.0]);
        for (got, exact) in got.iter().zip([-1.433_257_8e-6, -4.976_8e-15]) {
            assert!((got / exact - 1.0).abs() < 1e-4, "{got}, not {exact}");
        }
    }

    #[test]
    fn the_ends_of_the_numbers_stay_numbers() {
        for (activation, _) in NAMES {
            let got = applied(activation, &[f32::MIN, f32::NAN]);
            assert!(got[0].is_finite() && got[1].is_nan(), "{activation}: {got:?}");
        }
        let got = applied(Activation::GeluNew, &[f32::MIN, f32::MAX]);
        assert_eq!(got, [0.0, f32::MAX]);
    }

    #[test]
    fn gelu_new_is_what_pytorch_says() {
        // torch.nn.functional.gelu(x, approximate="tanh")
        let x = [-10.0, -3.0, -1.0, 0.0, 0.5, 2.0, 10.0];
        let expected = [0.0, -0.003_637_39, -0.158_808_01, 0.0, 0.345_714, 1.954_597_7, 10.0];
        for (got, expected) in applied(Activation::GeluNew, &x).iter().zip(expected) {
            assert!((got - expected).abs() <= 1e-6, "{got}, not {expected}");
        }
    }

    #[test]
    fn every_name_is_read_and_the_first_is_printed() {
        for (activation, names) in NAMES {
            assert_eq!(activation.to_string(), names[0]);
            for name in names {
                assert_eq!(name.parse(), Ok(activation), "{name}");
            }
        }
        let error = "prelu".parse::<Activation>().unwrap_err();
        assert!(error.contains("\"prelu\"; computed here are gelu_new,"), "{error}");
    }
}
