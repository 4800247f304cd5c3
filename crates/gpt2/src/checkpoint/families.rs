//! The names of other families' parameters, and how they are laid out: each is read as the parameter of a GPT-2 that
//! does the same.
//!
//! | family | what differs in its files |
//! |---|---|
//! | GPT-Neo | queries, keys and values apart, without biases; weights `(out, in)` |
//! | OPT | queries, keys and values apart; weights `(out, in)`; two rows of `wpe` in front that no position has |

/// Pieces of names, and what they are called here.
type Names = &'static [(&'static str, &'static str)];

const GPT_NEO: Names = &[
    (".attn.attention.q_proj.", ".attn.q_proj."),
    (".attn.attention.k_proj.", ".attn.k_proj."),
    (".attn.attention.v_proj.", ".attn.v_proj."),
    (".attn.attention.out_proj.", ".attn.c_proj."),
    // The causal mask, which some files store.
    (".attn.attention.bias", ".attn.bias"),
    (".attn.attention.masked_bias", ".attn.masked_bias"),
];

const OPT: Names = &[
    ("decoder.embed_tokens.", "wte."),
    ("decoder.embed_positions.", "wpe."),
    ("decoder.final_layer_norm.", "ln_f."),
    ("decoder.layers.", "h."),
    (".self_attn_layer_norm.", ".ln_1."),
    (".self_attn.q_proj.", ".attn.q_proj."),
    (".self_attn.k_proj.", ".attn.k_proj."),
    (".self_attn.v_proj.", ".attn.v_proj."),
    (".self_attn.out_proj.", ".attn.c_proj."),
    (".fc1.", ".mlp.c_fc."),
    (".fc2.", ".mlp.c_proj."),
    (".final_layer_norm.", ".ln_2."),
];

/// The name that a parameter of any family goes by: GPT-2's, or `h.N.attn.q_proj` and its siblings where GPT-2 has them
/// in one.
pub(super) fn own_name(name: &str) -> String {
    let names = if name.starts_with("decoder.") { OPT } else { GPT_NEO };
    names.iter().fold(name.to_owned(), |name, (theirs, ours)| name.replacen(theirs, ours, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_other_families_get_gpt2s_names() {
        for (theirs, ours) in [
            ("decoder.layers.3.self_attn.out_proj.bias", "h.3.attn.c_proj.bias"),
            ("decoder.layers.11.final_layer_norm.weight", "h.11.ln_2.weight"),
            ("decoder.final_layer_norm.weight", "ln_f.weight"),
            ("decoder.embed_positions.weight", "wpe.weight"),
            ("h.0.attn.attention.k_proj.weight", "h.0.attn.k_proj.weight"),
            ("h.0.attn.attention.out_proj.weight", "h.0.attn.c_proj.weight"),
            ("h.0.mlp.c_fc.weight", "h.0.mlp.c_fc.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(own_name(theirs), ours);
        }
    }
}
