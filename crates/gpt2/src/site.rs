//! The names of the activations that the forward pass hands to a hook: each is listed here, once.

use std::fmt;
use std::str::FromStr;

/// The kinds of activation, in the order in which the forward pass makes them.
///
/// In the shapes `T` is the number of tokens and `C` is `n_embd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SiteKind {
    /// Token embeddings, `(T, C)`.
    Embed,
    /// Position embeddings, `(T, C)`.
    PosEmbed,
    /// The residual stream as it enters a block, `(T, C)`.
    ResidPre,
    /// √(var + ε) of `ln_1`, `(T, 1)`.
    Ln1Scale,
    /// What `ln_1` gives, `(T, C)`.
    Ln1Normalized,
    /// Queries, `(T, n_head, head_size)`.
    Q,
    /// Keys, `(T, n_head, head_size)`.
    K,
    /// Values, `(T, n_head, head_size)`.
    V,
    /// q·k / √head_size, −∞ above the diagonal, `(n_head, T, T)` as head, destination, source.
    AttnScores,
    /// Their softmax, `(n_head, T, T)`.
    Pattern,
    /// The values that each head has gathered, `(T, n_head, head_size)`.
    Z,
    /// What each head writes to the residual stream, without the bias, `(T, n_head, C)`.
    Result,
    /// What attention writes: the heads' sum and the bias, `(T, C)`.
    AttnOut,
    /// The residual stream between attention and MLP, `(T, C)`.
    ResidMid,
    /// √(var + ε) of `ln_2`, `(T, 1)`.
    Ln2Scale,
    /// What `ln_2` gives, `(T, C)`.
    Ln2Normalized,
    /// The MLP's hidden layer before its activation function, `(T, 4C)`.
    MlpPre,
    /// The MLP's hidden layer after its activation function, `(T, 4C)`.
    MlpPost,
    /// What the MLP writes to the residual stream, `(T, C)`.
    MlpOut,
    /// The residual stream as it leaves a block, `(T, C)`.
    ResidPost,
    /// √(var + ε) of `ln_f`, `(T, 1)`.
    LnFinalScale,
    /// What `ln_f` gives, `(T, C)`.
    LnFinalNormalized,
}

use SiteKind as S;

/// For each kind its short name and TransformerLens's; `blocks.` and the layer stand in front of those
/// that begin with a dot.
const NAMES: [(SiteKind, &str, &str); 22] = [
    (S::Embed, "embed", "hook_embed"),
    (S::PosEmbed, "pos_embed", "hook_pos_embed"),
    (S::ResidPre, "resid_pre", ".hook_resid_pre"),
    (S::Ln1Scale, "ln1_scale", ".ln1.hook_scale"),
    (S::Ln1Normalized, "ln1_normalized", ".ln1.hook_normalized"),
    (S::Q, "q", ".attn.hook_q"),
    (S::K, "k", ".attn.hook_k"),
    (S::V, "v", ".attn.hook_v"),
    (S::AttnScores, "attn_scores", ".attn.hook_attn_scores"),
    (S::Pattern, "pattern", ".attn.hook_pattern"),
    (S::Z, "z", ".attn.hook_z"),
    (S::Result, "result", ".attn.hook_result"),
    (S::AttnOut, "attn_out", ".hook_attn_out"),
    (S::ResidMid, "resid_mid", ".hook_resid_mid"),
    (S::Ln2Scale, "ln2_scale", ".ln2.hook_scale"),
    (S::Ln2Normalized, "ln2_normalized", ".ln2.hook_normalized"),
    (S::MlpPre, "mlp_pre", ".mlp.hook_pre"),
    (S::MlpPost, "mlp_post", ".mlp.hook_post"),
    (S::MlpOut, "mlp_out", ".hook_mlp_out"),
    (S::ResidPost, "resid_post", ".hook_resid_post"),
    (S::LnFinalScale, "ln_final_scale", "ln_final.hook_scale"),
    (S::LnFinalNormalized, "ln_final_normalized", "ln_final.hook_normalized"),
];

/// Other names that TransformerLens's `get_act_name` knows.
const ALIASES: [(&str, SiteKind); 10] = [
    ("query", S::Q),
    ("key", S::K),
    ("value", S::V),
    ("attn", S::Pattern),
    ("attn_logits", S::AttnScores),
    ("pre", S::MlpPre),
    ("post", S::MlpPost),
    ("scale_final", S::LnFinalScale),
    ("normalized_final", S::LnFinalNormalized),
    ("head_result", S::Result),
];

impl SiteKind {
    /// All kinds, in the order in which the forward pass makes them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(kind, ..)| kind)
    }

    /// The site of this kind in one layer; of a kind that is not a block's, the layer is passed over.
    pub const fn at(self, layer: usize) -> Site {
        let layer = if self.is_in_block() { layer } else { 0 };
        Site { kind: self, layer }
    }

    /// Whether each block has one.
    pub const fn is_in_block(self) -> bool {
        !matches!(self, Self::Embed | Self::PosEmbed | Self::LnFinalScale | Self::LnFinalNormalized)
    }

    fn row(self) -> (SiteKind, &'static str, &'static str) {
        NAMES[self as usize]
    }
}

impl fmt::Display for SiteKind {
    /// The short name: `resid_pre`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().1)
    }
}

impl FromStr for SiteKind {
    type Err = String;

    /// A short name, or one of TransformerLens's without its layer (`hook_z`, `attn.hook_z`, `query`).
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let full = format!(".{lower}");
        let short = lower.strip_prefix("hook_").unwrap_or(&lower);
        let alias = ALIASES.into_iter().find(|(name, _)| *name == short).map(|(_, kind)| kind);
        let named =
            NAMES.into_iter().find(|(_, name, of_tl)| *name == short || *of_tl == lower || *of_tl == full);
        named.map(|(kind, ..)| kind).or(alias).ok_or_else(|| {
            let all: Vec<String> = Self::all().map(|kind| kind.to_string()).collect();
            format!("there is no site \"{text}\"; give one of {}", all.join(", "))
        })
    }
}

/// One activation of the forward pass.
///
/// As text it has TransformerLens's name, `blocks.3.attn.hook_z`; the short forms of its `get_act_name`,
/// `z3`, are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// What kind of activation.
    pub kind: SiteKind,
    /// The layer, from 0; 0 for an activation that is not a block's.
    pub layer: usize,
}

impl Site {
    /// Every site of a model of `n_layer` blocks, in the order in which the forward pass reaches them.
    pub fn all(n_layer: usize) -> impl Iterator<Item = Site> {
        let outside = |range: std::ops::Range<usize>| NAMES[range].iter().map(|(kind, ..)| kind.at(0));
        let blocks = (0..n_layer).flat_map(|layer| NAMES[2..20].iter().map(move |(kind, ..)| kind.at(layer)));
        outside(0..2).chain(blocks).chain(outside(20..22))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.row().2 {
            name if self.kind.is_in_block() => write!(f, "blocks.{}{name}", self.layer),
            name => f.write_str(name),
        }
    }
}

impl FromStr for Site {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("there is no site \"{text}\"; write blocks.3.attn.hook_z, or z3");
        let (name, layer) = match text.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
            Some((layer, name)) => (name, Some(layer)),
            None => {
                let digits = text.len() - text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
                let (name, layer) = text.split_at(text.len() - digits);
                (name, (digits > 0).then_some(layer))
            }
        };
        let kind: SiteKind = name.parse().map_err(|_| unknown())?;
        match layer {
            Some(layer) if kind.is_in_block() => Ok(kind.at(layer.parse().map_err(|_| unknown())?)),
            None if !kind.is_in_block() => Ok(kind.at(0)),
            _ => Err(unknown()),
        }
    }
}

/// A head by its layer and its number there, both from 0. As text it is `5.1`: head 1 of layer 5. `L5H1`
/// (TransformerLens) and `a5.h1` (circuits) are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head {
    /// The layer.
    pub layer: usize,
    /// The head within its layer.
    pub head: usize,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.layer, self.head))
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().ok(),
            false => None,
        };
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_prefix(['l', 'a']).unwrap_or(&lower);
        let parts = [".h", ".", "h"].iter().find_map(|between| lower.split_once(between));
        match parts.map(|(layer, head)| (digits(layer), digits(head))) {
            Some((Some(layer), Some(head))) => Ok(Self { layer, head }),
            _ => Err(format!(
                "invalid head \"{text}\": expected LAYER.HEAD, such as 5.1 for head 1 of layer 5"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_has_a_name_of_its_own_and_is_read_by_it() {
        let names: std::collections::HashSet<String> = Site::all(3).map(|site| site.to_string()).collect();
        assert_eq!(names.len(), 2 + 3 * 18 + 2);
        assert!(names.contains("blocks.2.attn.hook_z") && names.contains("ln_final.hook_scale"));
        for site in Site::all(12) {
            assert_eq!(site.to_string().parse(), Ok(site));
            let short = match site.kind.is_in_block() {
                true => format!("{}{}", site.kind, site.layer),
                false => site.kind.to_string(),
            };
            assert_eq!(short.parse(), Ok(site), "{short}");
        }
        for (i, (kind, ..)) in NAMES.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
        }
    }

    #[test]
    fn names_of_other_tools_are_read_and_strange_ones_refused() {
        for (text, site) in [
            ("k6", S::K.at(6)),
            ("query2", S::Q.at(2)),
            ("pre11", S::MlpPre.at(11)),
            ("blocks.0.hook_resid_pre", S::ResidPre.at(0)),
            ("hook_embed", S::Embed.at(0)),
        ] {
            assert_eq!(text.parse(), Ok(site));
        }
        for text in ["", "z", "embed3", "blocks.x.attn.hook_z", "blocks.1", "blocks.1.hook_embed", "7"] {
            assert!(text.parse::<Site>().is_err(), "{text}");
        }
        assert_eq!("hook_z".parse(), Ok(S::Z));
        let error = "resid".parse::<SiteKind>().unwrap_err();
        assert!(error.contains("\"resid\"; give one of embed, pos_embed, resid_pre"), "{error}");
    }

    #[test]
    fn heads_are_read_in_the_spellings_of_other_tools() {
        let head = Head { layer: 9, head: 11 };
        for text in ["9.11", "L9H11", "l9h11", "a9.h11", "A9.H11", "9h11", "L9.11"] {
            assert_eq!(text.parse(), Ok(head), "{text}");
        }
        assert_eq!(head.to_string(), "9.11");
        for text in ["", "9", "L9", "9.", ".1", "h1", "9.-1", "+9.1", "m9", "9.1.2", "aL9H1", "９.1"] {
            let error = text.parse::<Head>().unwrap_err();
            assert!(error.contains("expected LAYER.HEAD"), "{text}: {error}");
        }
    }
}
