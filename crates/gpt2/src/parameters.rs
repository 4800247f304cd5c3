//! The parameters by name, and models whose parameters are random.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tensor::{Activation, Tensor};

use crate::model::{Block, CausalSelfAttention, LayerNorm, Linear, Mlp};
use crate::{Config, Gpt2, LocalAttention};

/// Something that has parameters with names.
trait Parameters {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(String, &'a Tensor));
    fn visit_mut<'a>(&'a mut self, name: &str, f: &mut dyn FnMut(String, &'a mut Tensor));
}

impl Parameters for Tensor {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(String, &'a Tensor)) {
        f(full_name(name), self);
    }

    fn visit_mut<'a>(&'a mut self, name: &str, f: &mut dyn FnMut(String, &'a mut Tensor)) {
        f(full_name(name), self);
    }
}

impl Parameters for Option<Tensor> {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(String, &'a Tensor)) {
        self.iter().for_each(|x| x.visit(name, f));
    }

    fn visit_mut<'a>(&'a mut self, name: &str, f: &mut dyn FnMut(String, &'a mut Tensor)) {
        self.iter_mut().for_each(|x| x.visit_mut(name, f));
    }
}

impl Parameters for Vec<Block> {
    fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(String, &'a Tensor)) {
        self.iter().enumerate().for_each(|(i, block)| block.visit(&format!("{name}.{i}"), f));
    }

    fn visit_mut<'a>(&'a mut self, name: &str, f: &mut dyn FnMut(String, &'a mut Tensor)) {
        self.iter_mut().enumerate().for_each(|(i, block)| block.visit_mut(&format!("{name}.{i}"), f));
    }
}

/// The fields of each class that are or hold parameters, in their order in a checkpoint.
macro_rules! parameters {
    ($($class:ident { $($field:ident),* })*) => {$(
        impl Parameters for $class {
            fn visit<'a>(&'a self, name: &str, f: &mut dyn FnMut(String, &'a Tensor)) {
                $(self.$field.visit(&join(name, stringify!($field)), f);)*
            }

            fn visit_mut<'a>(&'a mut self, name: &str, f: &mut dyn FnMut(String, &'a mut Tensor)) {
                $(self.$field.visit_mut(&join(name, stringify!($field)), f);)*
            }
        }
    )*};
}

parameters! {
    LayerNorm { weight, bias }
    Linear { weight, bias }
    CausalSelfAttention { c_attn, c_proj }
    Mlp { c_fc, c_proj }
    Block { ln_1, attn, ln_2, mlp }
    Gpt2 { wte, wpe, h, ln_f, lm_head, lm_head_bias }
}

fn join(name: &str, field: &str) -> String {
    if name.is_empty() { field.to_owned() } else { format!("{name}.{field}") }
}

/// Tables that are a class of their own in PyTorch have their name there.
fn full_name(name: &str) -> String {
    match name {
        "wte" | "wpe" | "lm_head" => format!("{name}.weight"),
        "lm_head_bias" => "lm_head.bias".to_owned(),
        _ => name.to_owned(),
    }
}

impl Gpt2 {
    /// Every parameter with its name in a checkpoint: `h.3.attn.c_attn.weight`. A tied `lm_head` is `wte`.
    pub fn parameters(&self) -> Vec<(String, &Tensor)> {
        let mut all = Vec::new();
        self.visit("", &mut |name, x| all.push((name, x)));
        all
    }

    /// The same, to be changed.
    pub fn parameters_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let mut all = Vec::new();
        self.visit_mut("", &mut |name, x| all.push((name, x)));
        all
    }

    /// A model of the same shapes whose every parameter is 0: where gradients are added up.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        for (_, x) in zeros.parameters_mut() {
            *x = Tensor::zeros(x.shape());
        }
        zeros
    }

    /// A model whose every parameter is random and none is trivial, so that a mistake with any of them
    /// shows. Equal seeds give equal models.
    pub fn random(config: Config, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let model = Self::new(config, &mut |name, shape| {
            // Uniform around a mean, with this standard deviation.
            let (mean, deviation) = match (name, shape) {
                ("wte.weight", _) => (0.0, 0.5),
                ("wpe.weight", _) => (0.0, 0.3),
                // Rows of unit variance stay rows of about unit variance.
                (_, [n_in, _]) => (0.0, 1.0 / (*n_in as f32).sqrt()),
                (name, _) if name.ends_with(".bias") => (0.0, 0.2),
                _ => (1.0, 0.2), // a layer norm's weight
            };
            let number = || mean + deviation * 3.0_f32.sqrt() * (2.0 * rng.random::<f32>() - 1.0);
            let n: usize = shape.iter().product();
            Ok(Tensor::new(shape, std::iter::repeat_with(number).take(n).collect()))
        });
        model.unwrap_or_else(|error| unreachable!("random numbers are always there: {error}"))
    }
}

impl Config {
    /// The same sizes in one of the ways in which GPT-2's kin differ from OpenAI's (a hidden layer of
    /// another width, other activation functions and scales, local attention), by the seed; every fourth is OpenAI's.
    pub fn of_kin(self, seed: u64) -> Self {
        let activations = [Activation::GeluNew, Activation::Gelu, Activation::Silu, Activation::QuickGelu];
        Self {
            n_inner: (seed & 1 == 1).then_some(3 * self.n_embd + 1),
            activation_function: activations[(seed >> 2 & 3) as usize],
            scale_attn_weights: seed & 6 != 2,
            scale_attn_by_inverse_layer_idx: seed & 2 == 2,
            local_attention: (seed & 5 == 5)
                .then(|| LocalAttention::new(2 + (seed >> 3 & 1) as usize, [0, 2])),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_the_names_under_which_they_are_made() {
        let sizes =
            Config { vocab_size: 5, block_size: 3, n_layer: 2, n_head: 1, n_embd: 4, ..Config::default() };
        let mut made = Vec::new();
        let model = Gpt2::new(sizes, &mut |name, shape| {
            made.push((name.to_owned(), shape.to_vec()));
            Ok(Tensor::zeros(shape))
        });
        let mut model = model.unwrap();
        let listed: Vec<_> =
            model.parameters().iter().map(|(n, x)| (n.clone(), x.shape().to_vec())).collect();
        assert_eq!(listed, made);
        let count: usize = model.parameters().iter().map(|(_, x)| x.data().len()).sum();
        assert_eq!(count, sizes.n_parameters());
        model.lm_head = Some(model.wte.clone());
        let names: Vec<String> = model.parameters_mut().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.last().unwrap(), "lm_head.weight");
    }
}
