//! The backward pass of [`crate::model`], class by class: read the two side by side.
//!
//! Let M be a number that is computed from the logits. The backward pass goes through the model in reverse, from
//! the gradient of M with respect to what a step gave, `dy`, to the gradient with respect to what it was given,
//! `dx`; `dx` has the shape of `x`. It needs some activations of the forward pass ([`Activations`]), and gives
//!
//! - the gradient with respect to every activation ([`crate::site`]) to a hook, and
//! - if asked, the gradient of every parameter, added to a model of zeros ([`Gpt2::zeros_like`]).
//!
//! Where an activation is used twice the two gradients add up: the residual stream goes on, and is read by a
//! layer norm; the token embeddings are looked up, and (if tied) make the logits.
//!
//! The formulas of the single steps stand beside their forward passes in [`tensor`].
//! `docs/gradients.md` derives them.

use std::collections::HashMap;

use tensor::{
    Tensor, layer_norm_scale_backward, linear_backward, linear_backward_parameters, matmul, matmul_add_into,
    matmul_into, scale_and_shift_backward, scale_and_shift_backward_parameters, softmax_backward,
};

use crate::SiteKind::{
    AttnOut, AttnScores, Embed, K, Ln1Normalized, Ln1Scale, Ln2Normalized, Ln2Scale, LnFinalNormalized,
    LnFinalScale, MlpOut, MlpPost, MlpPre, Pattern, PosEmbed, Q, ResidMid, ResidPost, ResidPre,
    Result as HeadResult, V, Z,
};
use crate::graph::Reader;
use crate::model::{Block, CausalSelfAttention, LayerNorm, Linear, Mlp};
use crate::{Gpt2, Head, Hook, Kernel, Patch, Site, SiteKind};

/// What the backward pass calls with the gradient with respect to every activation, last to first.
pub type GradientHook<'a> = dyn FnMut(Site, &Tensor) + 'a;

/// What the backward pass needs of a forward pass.
#[derive(Clone, Debug)]
pub struct Activations {
    /// The prompt.
    pub ids: Vec<u32>,
    /// The residual stream after the last layer norm, `(T, C)`, of which logits are made.
    pub end: Tensor,
    kept: HashMap<Site, Tensor>,
}

impl Activations {
    /// An activation of the run, if the backward pass needs it.
    pub fn get(&self, site: Site) -> Option<&Tensor> {
        self.kept.get(&site)
    }

    #[track_caller]
    fn at(&self, site: Site) -> &Tensor {
        self.get(site).unwrap_or_else(|| panic!("no {site} among the activations of a run"))
    }
}

/// In what a backward pass differs from the true one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// RelP (Jafari et al. 2025, arXiv 2508.21258): the scale of every layer norm is a constant, and an
    /// activation function multiplies its input x by the constant f(x) / x.
    pub relp: bool,
    /// GradDrop (Kramár et al. 2024, arXiv 2403.00745): no gradient flows through what this layer writes to the
    /// residual stream, `attn_out` and `mlp_out`.
    pub dropped: Option<usize>,
    /// Pieces that were put into the run: no gradient flows on from them to what was there before.
    pub constant: Vec<Patch>,
}

/// What becomes of the gradients.
#[derive(Default)]
pub struct Gradients<'a> {
    /// Called with the gradient with respect to every activation.
    pub hook: Option<&'a mut GradientHook<'a>>,
    /// The gradient of every parameter is added to its own here.
    pub parameters: Option<&'a mut Gpt2>,
}

/// A backward pass under way.
struct Pass<'a, 'f> {
    activations: &'a Activations,
    rules: &'a Rules,
    hook: Option<&'a mut GradientHook<'f>>,
    layer: usize,
}

impl<'a> Pass<'a, '_> {
    /// An activation of this layer, from the forward pass.
    fn kept(&self, kind: SiteKind) -> &'a Tensor {
        self.activations.at(kind.at(self.layer))
    }

    /// The gradient with respect to an activation is complete.
    fn at(&mut self, kind: SiteKind, dx: &mut Tensor) {
        let site = kind.at(self.layer);
        if let Some(hook) = &mut self.hook {
            hook(site, dx);
        }
        self.rules.constant.iter().filter(|patch| patch.site() == site).for_each(|patch| patch.clear(dx));
    }

    /// The gradient with respect to what this layer adds to the residual stream, from that of the sum.
    fn written(&mut self, kind: SiteKind, dx: &Tensor) -> Tensor {
        let mut dy = match self.rules.dropped == Some(self.layer) {
            true => Tensor::zeros(dx.shape()),
            false => dx.clone(),
        };
        self.at(kind, &mut dy);
        dy
    }
}

impl LayerNorm {
    /// With respect to `x` and its scale, which are the activations `kinds`: `(T, C)` from `(T, C)`.
    fn backward(
        &self,
        dy: &Tensor,
        kinds: [SiteKind; 2],
        pass: &mut Pass<'_, '_>,
        gradient: Option<&mut Self>,
    ) -> Tensor {
        let [x, scale] = kinds.map(|kind| pass.kept(kind)); // (T, C), (T, 1)
        if let Some(Self { weight, bias, .. }) = gradient {
            scale_and_shift_backward_parameters(dy, x, scale, [weight, bias]);
        }
        let [mut dx, mut dscale] = scale_and_shift_backward(dy, x, scale, &self.weight); // (T, C), (T, 1)
        pass.at(kinds[1], &mut dscale);
        if !pass.rules.relp {
            layer_norm_scale_backward(&dscale, x, scale, &mut dx);
        }
        dx
    }
}

impl Linear {
    /// dX = dY Wᵀ, `(T, in)` from `(T, out)`; for the parameters, `x` `(T, in)` is what the layer was given.
    fn backward(&self, dy: &Tensor, x: &Tensor, gradient: Option<&mut Self>) -> Tensor {
        if let Some(Self { weight, bias }) = gradient {
            linear_backward_parameters(dy, x, weight, bias);
        }
        linear_backward(dy, &self.weight)
    }
}

impl CausalSelfAttention {
    /// With respect to the normalised rows, `(T, C)`, from the gradient with respect to what attention adds to
    /// the residual stream, `(T, C)`.
    fn backward(&self, dy: &Tensor, pass: &mut Pass<'_, '_>, gradient: Option<&mut Self>) -> Tensor {
        let [t, c] = dy.dims();
        let heads = [t, self.n_head, c / self.n_head];
        let [q, k, v, z] = [Q, K, V, Z].map(|kind| pass.kept(kind)); // (T, n_head, head_size)
        let att = pass.kept(Pattern); // (n_head, T, T)
        let (of_c_attn, of_c_proj) = gradient.map(|it| (&mut it.c_attn, &mut it.c_proj)).unzip();

        if pass.hook.is_some() {
            pass.at(HeadResult, &mut for_every_head(dy, self.n_head)); // (T, n_head, C)
        }
        let z = z.clone().reshape(&[t, c]);
        let mut dz = self.c_proj.backward(dy, &z, of_c_proj).reshape(&heads); // z W_O: dy W_Oᵀ
        pass.at(Z, &mut dz); // (T, n_head, head_size)

        // z = att v: datt = dz vᵀ and dv = attᵀ dz
        let mut datt = Tensor::zeros(att.shape()); // (n_head, T, T)
        let mut dv = Tensor::zeros(&heads);
        for h in 0..self.n_head {
            matmul_into(dz.at_middle(h), v.at_middle(h).t(), datt.at_mut(h));
            matmul_into(att.at(h).t(), dz.at_middle(h), dv.at_middle_mut(h));
        }
        pass.at(Pattern, &mut datt);
        softmax_backward(att, &mut datt); // 0 above the diagonal, where att is 0
        pass.at(AttnScores, &mut datt);
        datt.scale(self.scale);

        // att = scale q kᵀ: dq = scale datt k and dk = scale dattᵀ q
        let [mut dq, mut dk] = [Tensor::zeros(&heads), Tensor::zeros(&heads)];
        for h in 0..self.n_head {
            matmul_into(datt.at(h), k.at_middle(h), dq.at_middle_mut(h));
            matmul_into(datt.at(h).t(), q.at_middle(h), dk.at_middle_mut(h));
        }
        pass.at(V, &mut dv);
        pass.at(K, &mut dk);
        pass.at(Q, &mut dq);
        let [dq, dk, dv] = [dq, dk, dv].map(|m| m.reshape(&[t, c]));
        let dqkv = Tensor::join_columns([&dq, &dk, &dv]); // 3 × (T, C) → (T, 3C)
        self.c_attn.backward(&dqkv, pass.kept(Ln1Normalized), of_c_attn) // (T, C)
    }
}

/// What all heads write is added up, so each has the gradient of the sum, `(T, C)`: `(T, n_head, C)`.
fn for_every_head(dy: &Tensor, n_head: usize) -> Tensor {
    let [t, c] = dy.dims();
    let mut result = Vec::with_capacity(t * n_head * c);
    (0..t * n_head).for_each(|row| result.extend_from_slice(dy.row(row / n_head)));
    Tensor::new(&[t, n_head, c], result)
}

impl Mlp {
    /// With respect to the normalised rows, `(T, C)`, from the gradient with respect to what the MLP adds to the
    /// residual stream, `(T, C)`.
    fn backward(&self, dy: &Tensor, pass: &mut Pass<'_, '_>, gradient: Option<&mut Self>) -> Tensor {
        let [pre, post] = [MlpPre, MlpPost].map(|kind| pass.kept(kind)); // (T, 4C)
        let (of_c_fc, of_c_proj) = gradient.map(|it| (&mut it.c_fc, &mut it.c_proj)).unzip();
        let mut dhidden = self.c_proj.backward(dy, post, of_c_proj); // (T, 4C)
        pass.at(MlpPost, &mut dhidden);
        match pass.rules.relp {
            false => self.activation.backward(pre, &mut dhidden),
            true => self.activation.backward_as_factor(pre, &mut dhidden),
        }
        pass.at(MlpPre, &mut dhidden);
        self.c_fc.backward(&dhidden, pass.kept(Ln2Normalized), of_c_fc) // (T, C)
    }
}

impl Block {
    /// With respect to the residual stream before this block, `(T, C)`, from the gradient with respect to the one
    /// after it.
    fn backward(&self, mut dx: Tensor, pass: &mut Pass<'_, '_>, gradient: Option<&mut Self>) -> Tensor {
        let (mut ln_1, mut attn, mut ln_2, mut mlp) = (None, None, None, None);
        if let Some(it) = gradient {
            (ln_1, attn) = (Some(&mut it.ln_1), Some(&mut it.attn));
            (ln_2, mlp) = (Some(&mut it.ln_2), Some(&mut it.mlp));
        }
        pass.at(ResidPost, &mut dx);
        let mlp_out = pass.written(MlpOut, &dx); // (T, C)
        let mut normalized = self.mlp.backward(&mlp_out, pass, mlp.take()); // (T, C)
        pass.at(Ln2Normalized, &mut normalized);
        // x = x + mlp(ln_2(x)): along the stream, and through what was written
        dx.add_assign(&self.ln_2.backward(&normalized, [ResidMid, Ln2Scale], pass, ln_2.take()));

        pass.at(ResidMid, &mut dx);
        let attn_out = pass.written(AttnOut, &dx);
        let mut normalized = self.attn.backward(&attn_out, pass, attn.take());
        pass.at(Ln1Normalized, &mut normalized);
        // x = x + attn(ln_1(x))
        dx.add_assign(&self.ln_1.backward(&normalized, [ResidPre, Ln1Scale], pass, ln_1.take()));
        pass.at(ResidPre, &mut dx);
        dx
    }
}

impl Gpt2 {
    /// A forward pass whose activations are kept for the backward pass. `hook` may change them first.
    ///
    /// # Panics
    /// As [`Gpt2::forward`].
    pub fn record(&self, kernel: Kernel, ids: &[u32], hook: &mut Hook<'_>) -> Activations {
        let last = self.h.len().saturating_sub(1);
        let is_needed = |site: Site| match site.kind {
            Embed | PosEmbed | AttnScores | HeadResult | AttnOut | MlpOut => false,
            ResidPost => site.layer == last,
            _ => true,
        };
        let mut kept = HashMap::new();
        let end = self.transformer_on(kernel, ids, &mut |site, x| {
            hook(site, x);
            if is_needed(site) {
                kept.insert(site, x.clone());
            }
        });
        Activations { ids: ids.to_vec(), end, kept }
    }

    /// The gradients of a number, given that with respect to [`Activations::end`], `(T, C)`, which
    /// [`Gpt2::unembed_backward`] makes of that with respect to logits.
    ///
    /// # Panics
    /// If `dend` does not have the shape of the end, or the activations are not those of this model.
    #[track_caller]
    pub fn backward(&self, activations: &Activations, dend: Tensor, rules: &Rules, to: Gradients<'_>) {
        let (mut dx, shape) = (dend, activations.end.shape()); // (T, C)
        assert!(dx.shape() == shape, "a gradient of {:?} for an end of {shape:?}", dx.shape());
        let Gradients { hook, mut parameters } = to;
        let mut pass = Pass { activations, rules, hook, layer: 0 };
        pass.at(LnFinalNormalized, &mut dx);
        let last = self.h.len().saturating_sub(1);
        dx = self.backward_ln_f(&dx, last, &mut pass, parameters.as_deref_mut().map(|it| &mut it.ln_f));
        for (layer, block) in self.h.iter().enumerate().rev() {
            pass.layer = layer;
            dx = block.backward(dx, &mut pass, parameters.as_deref_mut().map(|it| &mut it.h[layer]));
        }
        // x = embed + pos_embed
        let mut pos_embed = dx.clone(); // (T, C)
        pass.at(PosEmbed, &mut pos_embed);
        pass.at(Embed, &mut dx);
        if let Some(Self { wte, wpe, .. }) = parameters {
            for (pos, &id) in activations.ids.iter().enumerate() {
                add(wte.row_mut(id as usize), dx.row(pos));
                add(wpe.row_mut(pos), pos_embed.row(pos));
            }
        }
    }

    /// The gradient with respect to the residual stream as one reader alone reads it, `(T, C)`, from that with
    /// respect to what it makes of it: queries, keys or values of a head, `(T, head_size)`; or what its layer norm
    /// gives to an MLP or to the unembedding, `(T, C)`.
    ///
    /// # Panics
    /// If the shapes do not fit, or the activations are not those of this model.
    #[track_caller]
    pub fn reader_backward(&self, activations: &Activations, reader: Reader, dmade: &Tensor) -> Tensor {
        let last = self.h.len().saturating_sub(1);
        let (norm, x, scale, layer) = match reader {
            Reader::Head(Head { layer, .. }, _) => (&self.h[layer].ln_1, ResidPre, Ln1Scale, layer),
            Reader::Mlp(layer) => (&self.h[layer].ln_2, ResidMid, Ln2Scale, layer),
            Reader::Logits => (&self.ln_f, ResidPost, LnFinalScale, last),
        };
        let rules = Rules::default();
        let mut pass = Pass { activations, rules: &rules, hook: None, layer };
        match reader {
            Reader::Head(..) => {
                let dnormalized = matmul(dmade, self.head_input(reader).0.t()); // (T, C)
                norm.backward(&dnormalized, [x, scale], &mut pass, None)
            }
            _ => norm.backward(dmade, [x, scale], &mut pass, None),
        }
    }

    /// The last layer norm reads the residual stream after the last block.
    fn backward_ln_f(
        &self,
        dy: &Tensor,
        last: usize,
        pass: &mut Pass<'_, '_>,
        gradient: Option<&mut LayerNorm>,
    ) -> Tensor {
        pass.layer = last;
        self.ln_f.backward(dy, [ResidPost, LnFinalScale], pass, gradient)
    }

    /// With respect to rows that `ln_f` has normalised, `(N, C)`, from the gradient with respect to their
    /// logits, `(N, V)`: logits = x Uᵀ + b, so dx = dlogits U.
    ///
    /// Only tokens with a gradient other than 0 are read: two, for a difference of two logits.
    ///
    /// # Panics
    /// If the rows are not `vocab_size` long.
    #[track_caller]
    pub fn unembed_backward(&self, dlogits: &Tensor) -> Tensor {
        let ([n, v], unembedding) = (dlogits.dims(), self.unembedding());
        assert!(v == unembedding.n_rows(), "{:?} for logits of {:?}", dlogits.shape(), unembedding.shape());
        let has_gradient = |&token: &usize| (0..n).any(|row| dlogits.row(row)[token] != 0.0);
        let tokens: Vec<usize> = (0..v).filter(has_gradient).collect();
        if tokens.len() > v / 4 {
            return matmul(dlogits, unembedding);
        }
        let columns = (0..n).flat_map(|row| tokens.iter().map(move |&token| dlogits.row(row)[token]));
        let rows = tokens.iter().flat_map(|&token| unembedding.row(token)).copied();
        let columns = Tensor::new(&[n, tokens.len()], columns.collect());
        matmul(&columns, &Tensor::new(&[tokens.len(), self.config.n_embd], rows.collect()))
    }

    /// Adds the gradients of the unembedding and its bias to theirs in `gradient`, where a tied unembedding is
    /// `wte`: dU += dlogitsᵀ x and db += Σ dlogits over the rows. `x` `(N, C)` is what the logits were made of.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    #[track_caller]
    pub fn unembed_backward_parameters(&self, dlogits: &Tensor, x: &Tensor, gradient: &mut Self) {
        let unembedding = match &mut gradient.lm_head {
            Some(lm_head) => lm_head,
            None => &mut gradient.wte,
        };
        matmul_add_into(dlogits.view().t(), x, unembedding.view_mut());
        if let Some(bias) = &mut gradient.lm_head_bias {
            dlogits.add_rows_to(bias);
        }
    }
}

fn add(sum: &mut [f32], x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

/// The example of the page that derives these formulas.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/gradients.md")]
struct Derivation;

#[cfg(test)]
mod tests;
