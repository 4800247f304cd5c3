//! GPT-2, from top to bottom.
//!
//! The classes and their order are those of minGPT's `model.py`, and the fields have the names that
//! the parameters have in the checkpoint (`h.3.attn.c_attn.weight` is `h[3].attn.c_attn.weight`).
//! Everything is exact `f32`; there is no dropout, and one prompt runs at a time. The backward pass is in
//! [`crate::backward`], to be read beside this file.
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

use crate::SiteKind::{
    AttnOut, AttnScores, Embed, K, Ln1Normalized, Ln1Scale, Ln2Normalized, Ln2Scale, LnFinalNormalized,
    LnFinalScale, MlpOut, MlpPost, MlpPre, Pattern, PosEmbed, Q, ResidMid, ResidPost, ResidPre,
    Result as HeadResult, V, Z,
};
use crate::{Checkpoint, Config, Error, Site, SiteKind};

/// What the forward pass calls with every activation as it is made: to look at it or to change it.
pub type Hook<'a> = dyn FnMut(Site, &mut Tensor) + 'a;

/// A hook that does nothing.
pub fn no_hook(_: Site, _: &mut Tensor) {}

/// What linear layers are multiplied with. The two agree to within rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// [`tensor::matmul()`]: the model as it is to be read, which the tests hold everything else to.
    #[default]
    Plain,
    /// [`tensor::linear()`], which is faster. What each head writes (`result`) is not made: its sum is.
    Fast,
}

/// A hook, and the layer whose activations it is called with.
pub struct Hooks<'h, 'f> {
    /// The hook.
    pub hook: &'h mut Hook<'f>,
    /// The layer.
    pub layer: usize,
    /// What linear layers are multiplied with.
    pub kernel: Kernel,
}

impl Hooks<'_, '_> {
    /// Calls the hook with an activation of this layer.
    pub fn at(&mut self, kind: SiteKind, x: &mut Tensor) {
        (self.hook)(kind.at(self.layer), x);
    }

    /// A linear layer of rows, `(T, in)` to `(T, out)`.
    fn linear(&self, layer: &Linear, x: &Tensor) -> Tensor {
        match self.kernel {
            Kernel::Plain => layer.forward(x),
            Kernel::Fast => layer.forward_rows(x),
        }
    }
}

/// Makes or finds a parameter of this name and shape.
type Source<'a> = dyn FnMut(&str, &[usize]) -> Result<Tensor, Error> + 'a;

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
    fn new(name: &str, config: &Config, source: &mut Source<'_>) -> Result<Self, Error> {
        Ok(Self {
            weight: source(&format!("{name}.weight"), &[config.n_embd])?,
            bias: source(&format!("{name}.bias"), &[config.n_embd])?,
            epsilon: config.layer_norm_epsilon,
        })
    }

    /// √(var + ε) of each row of `x`, `(T, C)`: `(T, 1)`.
    pub fn scale(&self, x: &Tensor) -> Tensor {
        layer_norm_scale(x, self.epsilon)
    }

    /// Each row of `x`, `(T, C)`, centred, divided by its `scale`, `(T, 1)`, weighted and shifted.
    pub fn forward(&self, x: &Tensor, scale: &Tensor) -> Tensor {
        scale_and_shift(x, scale, &self.weight, &self.bias)
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
    fn new(name: &str, shape: [usize; 2], source: &mut Source<'_>) -> Result<Self, Error> {
        Ok(Self {
            weight: source(&format!("{name}.weight"), &shape)?,
            bias: source(&format!("{name}.bias"), &shape[1..])?,
        })
    }

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
    /// How many tokens a token sees, itself included; none for all up to it ([`Config::window`]).
    pub window: Option<usize>,
}

impl CausalSelfAttention {
    fn new(name: &str, layer: usize, config: &Config, source: &mut Source<'_>) -> Result<Self, Error> {
        let c = config.n_embd;
        Ok(Self {
            c_attn: Linear::new(&format!("{name}.c_attn"), [c, 3 * c], source)?,
            c_proj: Linear::new(&format!("{name}.c_proj"), [c, c], source)?,
            n_head: config.n_head,
            scale: config.score_scale(layer),
            window: config.window(layer),
        })
    }

    /// No token looks ahead, nor further back than its window: these scores, `(n_head, T, T)`, become −∞.
    fn mask_unseen(&self, att: &mut Tensor) {
        let [n_head, t, _] = att.dims();
        for row in 0..n_head * t {
            let dest = row % t;
            att.row_mut(row)[dest + 1..].fill(f32::NEG_INFINITY);
            att.row_mut(row)[..self.first_seen(dest)].fill(f32::NEG_INFINITY);
        }
    }

    /// The first position that a position sees.
    pub fn first_seen(&self, dest: usize) -> usize {
        self.window.map_or(0, |window| (dest + 1).saturating_sub(window))
    }

    /// What attention adds to the residual stream, `(T, C)`, from its normalised rows `x`, `(T, C)`.
    pub fn forward(&self, x: &Tensor, hooks: &mut Hooks<'_, '_>) -> Tensor {
        let [t, c] = x.dims();
        // Each token asks (q), offers (k) and carries (v); one matrix makes all three.
        let qkv = hooks.linear(&self.c_attn, x).split_columns(); // (T, 3C) → 3 × (T, C)
        let [mut q, mut k, mut v] = qkv.map(|m| m.reshape(&[t, self.n_head, c / self.n_head]));
        hooks.at(Q, &mut q); // (T, n_head, head_size)
        hooks.at(K, &mut k);
        hooks.at(V, &mut v);

        let mut att = scores(&q, &k); // q kᵀ, (n_head, T, T): head, destination, source
        att.scale(self.scale);
        self.mask_unseen(&mut att);
        hooks.at(AttnScores, &mut att);
        softmax(&mut att);
        hooks.at(Pattern, &mut att);
        let mut z = mix(&att, &v); // att v, (T, n_head, head_size)
        hooks.at(Z, &mut z);

        if hooks.kernel == Kernel::Fast {
            return self.c_proj.forward_rows(&z.reshape(&[t, c])); // all heads side by side, (T, C)
        }
        let mut result = project_heads(&z, &self.c_proj.weight); // z W_O, (T, n_head, C)
        hooks.at(HeadResult, &mut result);
        let mut y = sum_heads(&result); // (T, C)
        y.add_to_rows(&self.c_proj.bias);
        y
    }
}

/// How well each query matches each key: q kᵀ in every head, `(n_head, T, T)`, from `(T, n_head, head_size)`.
fn scores(q: &Tensor, k: &Tensor) -> Tensor {
    let [t, n_head, _] = q.dims();
    let mut att = Tensor::zeros(&[n_head, t, t]);
    for h in 0..n_head {
        matmul_into(q.at_middle(h), k.at_middle(h).t(), att.at_mut(h));
    }
    att
}

/// Each head gathers the values that it attends to: att v, `(T, n_head, head_size)`.
fn mix(att: &Tensor, v: &Tensor) -> Tensor {
    let mut z = Tensor::zeros(v.shape());
    for h in 0..v.shape()[1] {
        matmul_into(att.at(h), v.at_middle(h), z.at_middle_mut(h));
    }
    z
}

/// Each head writes through its own rows of `w`, `(C, C)`: `(T, n_head, C)` from z, `(T, n_head, head_size)`.
fn project_heads(z: &Tensor, w: &Tensor) -> Tensor {
    let [t, n_head, head_size] = z.dims();
    let mut result = Tensor::zeros(&[t, n_head, w.row_len()]);
    for h in 0..n_head {
        let rows = w.view().rows(h * head_size..(h + 1) * head_size);
        matmul_into(z.at_middle(h), rows, result.at_middle_mut(h));
    }
    result
}

/// The heads add up: `(T, C)` from `(T, n_head, C)`. With all heads side by side in z, `(T, C)`, this is z W.
fn sum_heads(result: &Tensor) -> Tensor {
    let [t, n_head, c] = result.dims();
    let mut y = Tensor::zeros(&[t, c]);
    for row in 0..t * n_head {
        for (y, r) in y.row_mut(row / n_head).iter_mut().zip(result.row(row)) {
            *y += r;
        }
    }
    y
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
    fn new(name: &str, config: &Config, source: &mut Source<'_>) -> Result<Self, Error> {
        let (c, inner) = (config.n_embd, config.inner_size());
        Ok(Self {
            c_fc: Linear::new(&format!("{name}.c_fc"), [c, inner], source)?,
            c_proj: Linear::new(&format!("{name}.c_proj"), [inner, c], source)?,
            activation: config.activation_function,
        })
    }

    /// What the MLP adds to the residual stream, `(T, C)`, from its normalised rows `x`, `(T, C)`.
    pub fn forward(&self, x: &Tensor, hooks: &mut Hooks<'_, '_>) -> Tensor {
        let mut hidden = hooks.linear(&self.c_fc, x); // (T, 4C)
        hooks.at(MlpPre, &mut hidden);
        self.activation.apply(&mut hidden); // ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
        hooks.at(MlpPost, &mut hidden);
        hooks.linear(&self.c_proj, &hidden) // (T, C)
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
    fn new(layer: usize, config: &Config, source: &mut Source<'_>) -> Result<Self, Error> {
        let name = |part: &str| format!("h.{layer}.{part}");
        Ok(Self {
            ln_1: LayerNorm::new(&name("ln_1"), config, source)?,
            attn: CausalSelfAttention::new(&name("attn"), layer, config, source)?,
            ln_2: LayerNorm::new(&name("ln_2"), config, source)?,
            mlp: Mlp::new(&name("mlp"), config, source)?,
        })
    }

    /// The residual stream after this block, `(T, C)`, from the one before it.
    pub fn forward(&self, mut x: Tensor, hooks: &mut Hooks<'_, '_>) -> Tensor {
        hooks.at(ResidPre, &mut x);
        let mut scale = self.ln_1.scale(&x); // (T, 1)
        hooks.at(Ln1Scale, &mut scale);
        let mut normalized = self.ln_1.forward(&x, &scale); // (T, C)
        hooks.at(Ln1Normalized, &mut normalized);
        let mut attn_out = self.attn.forward(&normalized, hooks); // (T, C)
        hooks.at(AttnOut, &mut attn_out);
        x.add_assign(&attn_out); // x = x + attn(ln_1(x))

        hooks.at(ResidMid, &mut x);
        let mut scale = self.ln_2.scale(&x);
        hooks.at(Ln2Scale, &mut scale);
        let mut normalized = self.ln_2.forward(&x, &scale);
        hooks.at(Ln2Normalized, &mut normalized);
        let mut mlp_out = self.mlp.forward(&normalized, hooks); // (T, C)
        hooks.at(MlpOut, &mut mlp_out);
        x.add_assign(&mlp_out); // x = x + mlp(ln_2(x))
        hooks.at(ResidPost, &mut x);
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
    /// A model whose parameters come from `source`, which is told each one's name and shape.
    pub(crate) fn new(config: Config, source: &mut Source<'_>) -> Result<Self, Error> {
        let c = config.n_embd;
        Ok(Self {
            config,
            wte: source("wte.weight", &[config.vocab_size, c])?,
            wpe: source("wpe.weight", &[config.block_size, c])?,
            h: (0..config.n_layer)
                .map(|layer| Block::new(layer, &config, source))
                .collect::<Result<_, _>>()?,
            ln_f: LayerNorm::new("ln_f", &config, source)?,
            lm_head: None,
            lm_head_bias: None,
        })
    }

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
        self.transformer_on(Kernel::Plain, ids, hook)
    }

    /// The same with a choice of what linear layers are multiplied with.
    ///
    /// # Panics
    /// As [`Gpt2::forward`].
    pub fn transformer_on(&self, kernel: Kernel, ids: &[u32], hook: &mut Hook<'_>) -> Tensor {
        if let Err(error) = self.check_prompt(ids) {
            panic!("{error}");
        }
        let c = self.config.n_embd;
        let rows: Vec<&[f32]> = ids.iter().map(|&id| self.wte.row(id as usize)).collect();
        let mut x = Tensor::new(&[ids.len(), c], rows.concat()); // (T, C)
        hook(Embed.at(0), &mut x);
        let rows: Vec<&[f32]> = (0..ids.len()).map(|pos| self.wpe.row(pos)).collect();
        let mut pos_embed = Tensor::new(&[ids.len(), c], rows.concat()); // (T, C)
        hook(PosEmbed.at(0), &mut pos_embed);
        x.add_assign(&pos_embed);
        for (layer, block) in self.h.iter().enumerate() {
            x = block.forward(x, &mut Hooks { hook, layer, kernel }); // (T, C)
        }
        let mut scale = self.ln_f.scale(&x); // (T, 1)
        hook(LnFinalScale.at(0), &mut scale);
        let mut normalized = self.ln_f.forward(&x, &scale); // (T, C)
        hook(LnFinalNormalized.at(0), &mut normalized);
        normalized
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
        checkpoint.adapt(&config)?;
        let mut model = Self::new(config, &mut |name, shape| checkpoint.take_parameter(name, shape))?;
        if checkpoint.contains("lm_head.weight") {
            let shape = [config.vocab_size, config.n_embd];
            model.lm_head = Some(checkpoint.take("lm_head.weight", &shape)?);
        }
        checkpoint.finish()?;
        Ok(model)
    }
}
