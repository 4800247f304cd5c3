//! The names of the activations that the forward pass hands to a hook.

use std::fmt;

/// One activation of the forward pass. Each variant but the first two and the last two carries its
/// layer.
///
/// `T` is the number of tokens and `C` is `n_embd`. [`fmt::Display`] writes TransformerLens's
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// Token embeddings, `(T, C)`: `hook_embed`.
    Embed,
    /// Position embeddings, `(T, C)`: `hook_pos_embed`.
    PosEmbed,
    /// The residual stream as it enters a block, `(T, C)`: `blocks.L.hook_resid_pre`.
    ResidPre(usize),
    /// √(var + ε) of `ln_1`, `(T, 1)`: `blocks.L.ln1.hook_scale`.
    Ln1Scale(usize),
    /// What `ln_1` gives, `(T, C)`: `blocks.L.ln1.hook_normalized`.
    Ln1Normalized(usize),
    /// Queries, `(T, n_head, head_size)`: `blocks.L.attn.hook_q`.
    Q(usize),
    /// Keys, `(T, n_head, head_size)`: `blocks.L.attn.hook_k`.
    K(usize),
    /// Values, `(T, n_head, head_size)`: `blocks.L.attn.hook_v`.
    V(usize),
    /// q·k / √head_size, −∞ above the diagonal, `(n_head, T, T)`: `blocks.L.attn.hook_attn_scores`.
    AttnScores(usize),
    /// Their softmax, `(n_head, T, T)` as head, destination, source: `blocks.L.attn.hook_pattern`.
    Pattern(usize),
    /// The values each head has gathered, `(T, n_head, head_size)`: `blocks.L.attn.hook_z`.
    Z(usize),
    /// What each head writes to the residual stream, without the bias, `(T, n_head, C)`:
    /// `blocks.L.attn.hook_result`.
    Result(usize),
    /// What attention writes: the heads' sum and the bias, `(T, C)`: `blocks.L.hook_attn_out`.
    AttnOut(usize),
    /// The residual stream between attention and MLP, `(T, C)`: `blocks.L.hook_resid_mid`.
    ResidMid(usize),
    /// √(var + ε) of `ln_2`, `(T, 1)`: `blocks.L.ln2.hook_scale`.
    Ln2Scale(usize),
    /// What `ln_2` gives, `(T, C)`: `blocks.L.ln2.hook_normalized`.
    Ln2Normalized(usize),
    /// The MLP's hidden layer before GELU, `(T, 4C)`: `blocks.L.mlp.hook_pre`.
    MlpPre(usize),
    /// The MLP's hidden layer after GELU, `(T, 4C)`: `blocks.L.mlp.hook_post`.
    MlpPost(usize),
    /// What the MLP writes to the residual stream, `(T, C)`: `blocks.L.hook_mlp_out`.
    MlpOut(usize),
    /// The residual stream as it leaves a block, `(T, C)`: `blocks.L.hook_resid_post`.
    ResidPost(usize),
    /// √(var + ε) of `ln_f`, `(T, 1)`: `ln_final.hook_scale`.
    LnFinalScale,
    /// What `ln_f` gives, `(T, C)`: `ln_final.hook_normalized`.
    LnFinalNormalized,
}

impl Site {
    /// The sites of one block, in the order in which the forward pass reaches them.
    const BLOCK: [fn(usize) -> Site; 18] = [
        Site::ResidPre,
        Site::Ln1Scale,
        Site::Ln1Normalized,
        Site::Q,
        Site::K,
        Site::V,
        Site::AttnScores,
        Site::Pattern,
        Site::Z,
        Site::Result,
        Site::AttnOut,
        Site::ResidMid,
        Site::Ln2Scale,
        Site::Ln2Normalized,
        Site::MlpPre,
        Site::MlpPost,
        Site::MlpOut,
        Site::ResidPost,
    ];

    /// Every site of a model of `n_layer` blocks, in the order in which the forward pass reaches
    /// them.
    pub fn all(n_layer: usize) -> impl Iterator<Item = Site> {
        let blocks = (0..n_layer).flat_map(|layer| Self::BLOCK.map(|site| site(layer)));
        [Site::Embed, Site::PosEmbed]
            .into_iter()
            .chain(blocks)
            .chain([Site::LnFinalScale, Site::LnFinalNormalized])
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layer, name) = match *self {
            Site::Embed => return f.write_str("hook_embed"),
            Site::PosEmbed => return f.write_str("hook_pos_embed"),
            Site::ResidPre(layer) => (layer, "hook_resid_pre"),
            Site::Ln1Scale(layer) => (layer, "ln1.hook_scale"),
            Site::Ln1Normalized(layer) => (layer, "ln1.hook_normalized"),
            Site::Q(layer) => (layer, "attn.hook_q"),
            Site::K(layer) => (layer, "attn.hook_k"),
            Site::V(layer) => (layer, "attn.hook_v"),
            Site::AttnScores(layer) => (layer, "attn.hook_attn_scores"),
            Site::Pattern(layer) => (layer, "attn.hook_pattern"),
            Site::Z(layer) => (layer, "attn.hook_z"),
            Site::Result(layer) => (layer, "attn.hook_result"),
            Site::AttnOut(layer) => (layer, "hook_attn_out"),
            Site::ResidMid(layer) => (layer, "hook_resid_mid"),
            Site::Ln2Scale(layer) => (layer, "ln2.hook_scale"),
            Site::Ln2Normalized(layer) => (layer, "ln2.hook_normalized"),
            Site::MlpPre(layer) => (layer, "mlp.hook_pre"),
            Site::MlpPost(layer) => (layer, "mlp.hook_post"),
            Site::MlpOut(layer) => (layer, "hook_mlp_out"),
            Site::ResidPost(layer) => (layer, "hook_resid_post"),
            Site::LnFinalScale => return f.write_str("ln_final.hook_scale"),
            Site::LnFinalNormalized => return f.write_str("ln_final.hook_normalized"),
        };
        write!(f, "blocks.{layer}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_has_a_name_of_its_own() {
        let names: std::collections::HashSet<String> = Site::all(3).map(|site| site.to_string()).collect();
        assert_eq!(names.len(), 2 + 3 * 18 + 2);
        assert!(names.contains("blocks.2.attn.hook_z") && names.contains("ln_final.hook_scale"));
    }
}
