//! Models with random weights, for tests and benchmarks.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tensor::{Activation, Tensor};

use crate::model::{Block, CausalSelfAttention, LayerNorm, Linear, Mlp};
use crate::{Config, Gpt2};

impl Config {
    /// The same sizes in one of the ways in which GPT-2's kin differ from OpenAI's (a hidden layer of
    /// another width, other activation functions and scales), by the seed; every fourth is OpenAI's.
    pub fn of_kin(self, seed: u64) -> Self {
        let activations = [Activation::GeluNew, Activation::Gelu, Activation::Silu, Activation::QuickGelu];
        Self {
            n_inner: (seed & 1 == 1).then_some(3 * self.n_embd + 1),
            activation_function: activations[(seed >> 2 & 3) as usize],
            scale_attn_weights: seed & 6 != 2,
            scale_attn_by_inverse_layer_idx: seed & 2 == 2,
            ..self
        }
    }
}

impl Gpt2 {
    /// A model whose every parameter is random and none is trivial, so that a mistake with any of them
    /// shows. Equal seeds give equal models.
    pub fn random(config: Config, seed: u64) -> Self {
        let (c, inner) = (config.n_embd, config.inner_size());
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        // Uniform around a mean, with this standard deviation.
        let mut tensor = |shape: &[usize], mean: f32, deviation: f32| {
            let n: usize = shape.iter().product();
            let number = || mean + deviation * 3.0_f32.sqrt() * (2.0 * rng.random::<f32>() - 1.0);
            Tensor::new(shape, std::iter::repeat_with(number).take(n).collect())
        };
        let layer_norm = |tensor: &mut dyn FnMut(&[usize], f32, f32) -> Tensor| LayerNorm {
            weight: tensor(&[c], 1.0, 0.2),
            bias: tensor(&[c], 0.0, 0.2),
            epsilon: config.layer_norm_epsilon,
        };
        let linear =
            |tensor: &mut dyn FnMut(&[usize], f32, f32) -> Tensor, n_in: usize, n_out: usize| Linear {
                // Rows of unit variance stay rows of about unit variance.
                weight: tensor(&[n_in, n_out], 0.0, 1.0 / (n_in as f32).sqrt()),
                bias: tensor(&[n_out], 0.0, 0.2),
            };
        Self {
            config,
            wte: tensor(&[config.vocab_size, c], 0.0, 0.5),
            wpe: tensor(&[config.block_size, c], 0.0, 0.3),
            h: (0..config.n_layer)
                .map(|layer| Block {
                    ln_1: layer_norm(&mut tensor),
                    attn: CausalSelfAttention {
                        c_attn: linear(&mut tensor, c, 3 * c),
                        c_proj: linear(&mut tensor, c, c),
                        n_head: config.n_head,
                        scale: config.score_scale(layer),
                    },
                    ln_2: layer_norm(&mut tensor),
                    mlp: Mlp {
                        c_fc: linear(&mut tensor, c, inner),
                        c_proj: linear(&mut tensor, inner, c),
                        activation: config.activation_function,
                    },
                })
                .collect(),
            ln_f: layer_norm(&mut tensor),
            lm_head: None,
            lm_head_bias: None,
        }
    }
}
