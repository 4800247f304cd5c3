//! GPT-2, from top to bottom.
//!
//! The classes and their order are those of minGPT's `model.py`, and the fields have the names that
//! the parameters have in the checkpoint (`h.3.attn.c_attn.weight` is `h[3].attn.c_attn.weight`).
//! Everything is exact `f32`; there is no dropout and no gradient, and one prompt runs at a time.
//!
//! In the comments on shapes, `T` is the number of tokens, `C` is `n_embd`, `V` is `vocab_size`,
//! and `head_size` is `C / n_head`. A linear layer multiplies from the right, `y = x W + b`, with
//! `W` stored `(in, out)` as in GPT-2's own files.
//!
//! The residual stream `x` is the backbone: every block reads it through a layer norm and *adds* to
//! it, attention first, then the MLP.
//!
//! `hook(site, &mut activation)` stands wherever an activation has been made. What the hook leaves
//! in it is what the rest of the model goes on with.

use tensor::{Activation, Tensor, View, layer_norm_scale, matmul, matmul_into, scale_and_shift, softmax};

use crate::{Checkpoint, Config, Error, Site};

/// What the forward pass calls with every activation as it is made: to look at it or to change it.
pub type Hook<'a> = dyn FnMut(Site, &mut Tensor) + 'a;

/// A hook that does nothing.
pub fn no_hook(_: Site, _: &mut Tensor) {}

/// Layer norm with a weight and a bias: (x − mean) / √(var + ε) · weight + bias.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `(C)`
    pub weight: Tensor,
    /// `(C)`
    pub bias: Tensor,
    /// ε, 1e-5 in every GPT-2.
    pub epsilon: f32,
}

impl LayerNorm {
    /// Normalises each row of `x`, `(T, C)`. The two sites name the scale and the result.
    pub fn forward(&self, x: &Tensor, sites: [Site; 2], hook: &mut Hook<'_>) -> Tensor {
        let mut scale = layer_norm_scale(x, self.epsilon); // (T, 1)
        hook(sites[0], &mut scale);
        let mut x = scale_and_shift(x, &scale, &self.weight, &self.bias); // (T, C)
        hook(sites[1], &mut x);
        x
    }
}

/// A linear layer y = x W + b (`Conv1D` in GPT-2's own code).
#[derive(Clone, Debug)]
pub struct Linear {
    /// `(in, out)`
    pub weight: Tensor,
    /// `(out)`
    pub bias: Tensor,
}

impl Linear {
    /// `(T, in)` to `(T, out)`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut y = matmul(x, &self.weight);
        y.add_to_rows(&self.bias);
        y
    }
}

/// Multi-head attention in which a token sees itself and what stands to its left.
#[derive(Clone, Debug)]
pub struct CausalSelfAttention {
    /// Queries, keys and values of all heads at once: `(C, 3C)`.
    pub c_attn: Linear,
    /// From the heads back to the residual stream: `(C, C)`; rows `h · head_size…` are head h's.
    pub c_proj: Linear,
    /// How many heads there are.
    pub n_head: usize,
    /// What scores are multiplied by: 1/√head_size in OpenAI's GPT-2 ([`Config::score_scale`]).
    pub scale: f32,
}

impl CausalSelfAttention {
    /// What attention adds to the residual stream, `(T, C)`, from its normalised rows `x`, `(T, C)`.
    pub fn forward(&self, layer: usize, x: &Tensor, hook: &mut Hook<'_>) -> Tensor {
        let [t, c] = x.dims();
        let (n_head, head_size) = (self.n_head, c / self.n_head);

        // Each token asks (q), offers (k) and carries (v); one matrix makes all three.
        let [q, k, v] = self.c_attn.forward(x).split_columns(); // (T, 3C) → 3 × (T, C)
        let [mut q, mut k, mut v] = [q, k, v].map(|m| m.reshape(&[t, n_head, head_size]));
        hook(Site::Q(layer), &mut q);
        hook(Site::K(layer), &mut k);
        hook(Site::V(layer), &mut v);

        // How well does each query match each key?  att = q kᵀ / √head_size
        let mut att = Tensor::zeros(&[n_head, t, t]); // (n_head, T, T): head, destination, source
        for h in 0..n_head {
            matmul_into(q.at_middle(h), k.at_middle(h).t(), att.at_mut(h));
        }
        att.scale(self.scale);
        for h in 0..n_head {
            for dest in 0..t {
                att.row_mut(h * t + dest)[dest + 1..].fill(f32::NEG_INFINITY); // no look ahead
            }
        }
        hook(Site::AttnScores(layer), &mut att);
        softmax(&mut att);
        hook(Site::Pattern(layer), &mut att);

        // Each head gathers the values it attends to.  z = att v
        let mut z = Tensor::zeros(&[t, n_head, head_size]); // (T, n_head, head_size)
        for h in 0..n_head {
            matmul_into(att.at(h), v.at_middle(h), z.at_middle_mut(h));
        }
        hook(Site::Z(layer), &mut z);

        // Each head writes to the stream through its own rows of c_proj, and the heads add up: with
        // all heads side by side in z, (T, C), this is z W + b.
        let w = self.c_proj.weight.view();
        let mut result = Tensor::zeros(&[t, n_head, c]); // (T, n_head, C)
        for h in 0..n_head {
            matmul_into(z.at_middle(h), w.rows(h * head_size..(h + 1) * head_size), result.at_middle_mut(h));
        }
        hook(Site::Result(layer), &mut result);
        let mut y = Tensor::zeros(&[t, c]); // (T, C)
        for pos in 0..t {
            for h in 0..n_head {
                for (y, r) in y.row_mut(pos).iter_mut().zip(result.row(pos * n_head + h)) {
                    *y += r;
                }
            }
        }
        y.add_to_rows(&self.c_proj.bias);
        y
    }
}

/// The feed-forward network of a block, each token by itself.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `(C, 4C)` (`(C, n_inner)` where the config says so)
    pub c_fc: Linear,
    /// `(4C, C)`
    pub c_proj: Linear,
    /// `gelu_new` in OpenAI's GPT-2.
    pub activation: Activation,
}

impl Mlp {
    /// What the MLP adds to the residual stream, `(T, C)`, from its normalised rows `x`, `(T, C)`.
    pub fn forward(&self, layer: usize, x: &Tensor, hook: &mut Hook<'_>) -> Tensor {
        let mut hidden = self.c_fc.forward(x); // (T, 4C)
        hook(Site::MlpPre(layer), &mut hidden);
        self.activation.apply(&mut hidden); // ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
        hook(Site::MlpPost(layer), &mut hidden);
        self.c_proj.forward(&hidden) // (T, C)
    }
}

/// A transformer block: attention, then the MLP, each added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    /// Before attention.
    pub ln_1: LayerNorm,
    /// Moves information between tokens.
    pub attn: CausalSelfAttention,
    /// Before the MLP.
    pub ln_2: LayerNorm,
    /// Works on each token by itself.
    pub mlp: Mlp,
}

impl Block {
    /// The residual stream after this block, `(T, C)`, from the one before it.
    pub fn forward(&self, layer: usize, mut x: Tensor, hook: &mut Hook<'_>) -> Tensor {
        hook(Site::ResidPre(layer), &mut x);
        let normalized = self.ln_1.forward(&x, [Site::Ln1Scale(layer), Site::Ln1Normalized(layer)], hook);
        let mut attn_out = self.attn.forward(layer, &normalized, hook);
        hook(Site::AttnOut(layer), &mut attn_out);
        x.add_assign(&attn_out); // x = x + attn(ln_1(x))
        hook(Site::ResidMid(layer), &mut x);
        let normalized = self.ln_2.forward(&x, [Site::Ln2Scale(layer), Site::Ln2Normalized(layer)], hook);
        let mut mlp_out = self.mlp.forward(layer, &normalized, hook);
        hook(Site::MlpOut(layer), &mut mlp_out);
        x.add_assign(&mlp_out); // x = x + mlp(ln_2(x))
        hook(Site::ResidPost(layer), &mut x);
        x
    }
}

/// The whole model.
#[derive(Clone, Debug)]
pub struct Gpt2 {
    /// Its sizes.
    pub config: Config,
    /// Token embeddings, `(V, C)`.
    pub wte: Tensor,
    /// Position embeddings, `(block_size, C)`.
    pub wpe: Tensor,
    /// The blocks.
    pub h: Vec<Block>,
    /// The last layer norm.
    pub ln_f: LayerNorm,
    /// From the residual stream to logits, `(V, C)`; `None` where it is tied: the token embeddings.
    pub lm_head: Option<Tensor>,
    /// Added to every row of logits, `(V)`; `None` in a GPT-2 as it is saved. Folding `ln_f` into the
    /// unembedding makes one (`lens::processing`).
    pub lm_head_bias: Option<Tensor>,
}

impl Gpt2 {
    /// The logits of the token after each position, `(T, V)`, for a prompt of token ids.
    ///
    /// # Panics
    /// If there is no token, more than `block_size`, or one that the model does not know:
    /// [`Gpt2::check_prompt`] says so as an error.
    pub fn forward(&self, ids: &[u32], hook: &mut Hook<'_>) -> Tensor {
        let x = self.transformer(ids, hook); // (T, C)
        self.unembed(&x) // (T, V)
    }

    /// The logits of the token after the last position, `(V)`. Of a whole [`Gpt2::forward`] this
    /// leaves out only the other rows of the logits.
    ///
    /// # Panics
    /// As [`Gpt2::forward`].
    pub fn next_token_logits(&self, ids: &[u32], hook: &mut Hook<'_>) -> Vec<f32> {
        let x = self.transformer(ids, hook); // (T, C)
        let last = x.view().rows(ids.len() - 1..ids.len()); // (1, C)
        self.unembed_rows(last).into_data() // (V)
    }

    /// Everything but the logits: the residual stream after all blocks, normalised, `(T, C)`.
    ///
    /// # Panics
    /// As [`Gpt2::forward`].
    pub fn transformer(&self, ids: &[u32], hook: &mut Hook<'_>) -> Tensor {
        if let Err(error) = self.check_prompt(ids) {
            panic!("{error}");
        }
        let gather = |table: &Tensor, rows: &mut dyn Iterator<Item = usize>| {
            let data = rows.flat_map(|i| table.row(i)).copied().collect();
            Tensor::new(&[ids.len(), self.config.n_embd], data)
        };
        let mut x = gather(&self.wte, &mut ids.iter().map(|&id| id as usize)); // (T, C)
        hook(Site::Embed, &mut x);
        let mut pos_embed = gather(&self.wpe, &mut (0..ids.len())); // (T, C)
        hook(Site::PosEmbed, &mut pos_embed);
        x.add_assign(&pos_embed);
        for (layer, block) in self.h.iter().enumerate() {
            x = block.forward(layer, x, hook); // (T, C)
        }
        self.ln_f.forward(&x, [Site::LnFinalScale, Site::LnFinalNormalized], hook)
    }

    /// The logits, `(N, V)`, of rows that `ln_f` has normalised, `(N, C)`.
    ///
    /// # Panics
    /// If the rows are not `n_embd` long.
    #[track_caller]
    pub fn unembed<'a>(&self, x: impl Into<View<'a>>) -> Tensor {
        let mut logits = matmul(x, self.unembedding().view().t()); // (N, V)
        if let Some(bias) = &self.lm_head_bias {
            logits.add_to_rows(bias);
        }
        logits
    }

    /// The matrix from the residual stream to logits, `(V, C)`: `lm_head`, or the token embeddings
    /// where the two are tied.
    pub fn unembedding(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// Whether the model can read this prompt.
    ///
    /// # Errors
    /// If there is no token, more than `block_size`, or one that the model does not know.
    pub fn check_prompt(&self, ids: &[u32]) -> Result<(), Error> {
        let Config { vocab_size, block_size: limit, .. } = self.config;
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            _ if ids.is_empty() => Err(Error::EmptyPrompt { limit }),
            _ if ids.len() > limit => Err(Error::PromptTooLong { count: ids.len(), limit }),
            Some(&id) => Err(Error::NoSuchToken { id, vocab_size }),
            None => Ok(()),
        }
    }

    /// Takes the parameters out of a checkpoint. Every tensor must be there with the shape that
    /// `config` says, and nothing else may be.
    ///
    /// # Errors
    /// If a tensor is missing, left over, of another shape or type, or not finite, or if the head is not
    /// what `config` says of it.
    pub fn from_checkpoint(config: Config, mut checkpoint: Checkpoint) -> Result<Self, Error> {
        let (c, inner) = (config.n_embd, config.inner_size());
        checkpoint.adapt(&config)?;
        let layer_norm = |checkpoint: &mut Checkpoint, name: &str| {
            Ok::<_, Error>(LayerNorm {
                weight: checkpoint.take(&format!("{name}.weight"), &[c])?,
                bias: checkpoint.take_bias(name, c)?,
                epsilon: config.layer_norm_epsilon,
            })
        };
        let linear = |checkpoint: &mut Checkpoint, name: &str, n_in: usize, n_out: usize| {
            Ok::<_, Error>(Linear {
                weight: checkpoint.take_linear(&format!("{name}.weight"), [n_in, n_out])?,
                bias: checkpoint.take_bias(name, n_out)?,
            })
        };

        let wte = checkpoint.take("wte.weight", &[config.vocab_size, c])?;
        let wpe = checkpoint.take("wpe.weight", &[config.block_size, c])?;
        let mut h = Vec::new();
        for layer in 0..config.n_layer {
            let name = |part: &str| format!("h.{layer}.{part}");
            h.push(Block {
                ln_1: layer_norm(&mut checkpoint, &name("ln_1"))?,
                attn: CausalSelfAttention {
                    c_attn: linear(&mut checkpoint, &name("attn.c_attn"), c, 3 * c)?,
                    c_proj: linear(&mut checkpoint, &name("attn.c_proj"), c, c)?,
                    n_head: config.n_head,
                    scale: config.score_scale(layer),
                },
                ln_2: layer_norm(&mut checkpoint, &name("ln_2"))?,
                mlp: Mlp {
                    c_fc: linear(&mut checkpoint, &name("mlp.c_fc"), c, inner)?,
                    c_proj: linear(&mut checkpoint, &name("mlp.c_proj"), inner, c)?,
                    activation: config.activation_function,
                },
            });
        }
        let ln_f = layer_norm(&mut checkpoint, "ln_f")?;
        let lm_head = match checkpoint.contains("lm_head.weight") {
            true => Some(checkpoint.take("lm_head.weight", &[config.vocab_size, c])?),
            false => None,
        };
        checkpoint.finish()?;
        Ok(Self { config, wte, wpe, h, ln_f, lm_head, lm_head_bias: None })
    }
}
