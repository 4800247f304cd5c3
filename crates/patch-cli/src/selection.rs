//! The arguments that say which activations are patched or ablated, and along which axes.

use std::str::FromStr;

use clap::builder::{PossibleValue, TypedValueParser};
use gpt2::Tokenizer;
use patching::{Axis, Error, Experiment, Head, SiteKind, Subset, Sweep};
use visible::visible_line;

use crate::failure::Failure;
use crate::names::parsed;
use crate::place::Span;

pub use report::axis_labels;

/// Arguments of every subcommand that sweeps over activations.
#[derive(Clone, clap::Args)]
pub struct SelectionArgs {
    /// The activation, by position: resid_pre, resid_mid, resid_post, attn_out, mlp_pre, mlp_post, mlp_out, embed,
    /// pos_embed; by head: z, result, q, k, v, attn_scores, pattern; or several: heads, blocks [default:
    /// resid_post; of ablate: z]
    #[arg(long, value_name = "SITE", value_parser = sites(), hide_possible_values = true, ignore_case = true)]
    pub site: Option<Sites>,

    /// Heads at each position: layer × position × head (of pattern: layer × head × destination)
    #[arg(long)]
    pub by_pos: bool,

    /// Patterns by the position that attends: layer × head × destination
    #[arg(long, conflicts_with = "by_pos")]
    pub by_dest: bool,

    /// Patterns by both positions: layer × head × destination × source
    #[arg(long, conflicts_with_all = ["by_pos", "by_dest"])]
    pub by_dest_src: bool,

    /// The MLP's hidden layer (mlp_pre, mlp_post) by neuron: layer × neuron
    #[arg(long, conflicts_with_all = ["by_pos", "by_dest", "by_dest_src"])]
    pub by_neuron: bool,

    /// Only these layers, such as 5..8 (ends before 8), 5..=7 or 0,3,11; from the end -1 (the last) or
    /// -3.. (the last three)
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    pub layers: Option<Vec<Span>>,

    /// Only these positions, by number or by token: 1,10 or 3..6 or ' Jones'; from the end -1 (or end, the
    /// last) or -3..
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    pub positions: Option<Vec<String>>,

    /// Only these heads, as layer.head: 9.9,10.0 (or L9H9, a9.h9)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub heads: Option<Vec<Head>>,

    /// Only these neurons, of --by-neuron: 0,17 or 100..200
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    pub neurons: Option<Vec<Span>>,
}

/// One kind of site, or several in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sites {
    One(SiteKind),
    Heads,
    Blocks,
}

impl Sites {
    fn kinds(self) -> Vec<SiteKind> {
        use SiteKind::*;
        match self {
            Self::One(kind) => vec![kind],
            Self::Heads => vec![Z, Q, K, V, Pattern],
            Self::Blocks => vec![ResidPre, AttnOut, MlpOut],
        }
    }
}

impl FromStr for Sites {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "heads" => Ok(Self::Heads),
            "blocks" => Ok(Self::Blocks),
            _ => text
                .parse()
                .map(Self::One)
                .map_err(|error: String| format!("{error}; or heads or blocks for several")),
        }
    }
}

/// Reads the name of a site, also as TransformerLens spells it (`hook_z`), or of several.
fn sites() -> impl TypedValueParser<Value = Sites> {
    let kinds = SiteKind::PATCHABLE.map(|site| {
        let name = site.to_string();
        PossibleValue::new(name.clone()).alias(format!("hook_{name}"))
    });
    let several = ["heads", "blocks"].map(PossibleValue::new);
    parsed(kinds.into_iter().chain(several))
}

impl SelectionArgs {
    /// The same selection, of another kind of site if none is given.
    pub fn with_default(&self, kind: SiteKind) -> Self {
        Self { site: self.site.or(Some(Sites::One(kind))), ..self.clone() }
    }

    /// The kinds of site, in the order in which they are shown.
    pub fn kinds(&self) -> Vec<SiteKind> {
        let site = self.site.unwrap_or(Sites::One(SiteKind::ResidPost));
        site.kinds()
    }

    /// The axes of a sweep of one kind.
    fn axes(&self, kind: SiteKind) -> Result<&'static [Axis], Failure> {
        use Axis::{Dest, Head, Layer, Neuron, Pos, Src};
        let flags = [
            (self.by_pos, "--by-pos"),
            (self.by_dest, "--by-dest"),
            (self.by_dest_src, "--by-dest-src"),
            (self.by_neuron, "--by-neuron"),
        ];
        let Some((_, flag)) = flags.into_iter().find(|(given, _)| *given) else {
            return Ok(kind.default_axes());
        };
        match (kind.axes(), flag) {
            ([Layer, Pos] | [_, _, Neuron], "--by-pos") => Ok(kind.default_axes()),
            ([_, _, Head], "--by-pos") => Ok(&[Layer, Pos, Head]),
            ([_, _, Neuron], "--by-neuron") => Ok(&[Layer, Neuron]),
            (_, "--by-neuron") => Err(Failure::Input(format!(
                "--by-neuron is for --site mlp_pre and mlp_post: {kind} has no neurons"
            ))),
            ([_, _, _, _], "--by-pos" | "--by-dest") => Ok(&[Layer, Head, Dest]),
            ([_, _, _, _], _) => Ok(&[Layer, Head, Dest, Src]),
            _ => Err(Failure::Input(format!(
                "{flag} is for --site pattern and attn_scores: {kind} has no destination and source"
            ))),
        }
    }

    /// The sweeps over this experiment, one for each kind of site.
    pub fn sweeps<'a>(
        &self,
        model: &gpt2::Gpt2,
        tokenizer: &Tokenizer,
        experiment: &'a Experiment,
    ) -> Result<Vec<Sweep<'a>>, Failure> {
        let subset = Subset {
            layers: self.layers(model)?,
            positions: self.positions(tokenizer, experiment)?,
            heads: self.heads.clone(),
            neurons: self.neurons(model)?,
        };
        let of_kind = |kind: SiteKind| {
            let sweep = Sweep::over(experiment, kind).by(self.axes(kind)?);
            if subset == Subset::default() {
                return Ok(sweep);
            }
            let by_head = !sweep.axes().contains(&Axis::Pos);
            sweep.only(model, subset.clone()).map_err(|error| match error {
                Error::NoSuchAxis { asked: Axis::Pos, .. } if by_head => Failure::Input(format!(
                    "--positions: {error}; add --by-pos to patch heads position by position"
                )),
                error => Failure::from(error),
            })
        };
        self.kinds().into_iter().map(of_kind).collect()
    }

    /// The layers that were asked for.
    fn layers(&self, model: &gpt2::Gpt2) -> Result<Option<Vec<usize>>, Failure> {
        let Some(spans) = &self.layers else {
            return Ok(None);
        };
        let mut layers = Vec::new();
        for span in spans {
            let range = span.of(model.config.n_layer, "layer");
            layers.extend(range.map_err(|failure| failure.at("--layers"))?);
        }
        Ok(Some(layers))
    }

    /// The neurons that were asked for.
    fn neurons(&self, model: &gpt2::Gpt2) -> Result<Option<Vec<usize>>, Failure> {
        let of = |span: &Span| span.of(model.config.inner_size(), "neuron");
        let ranges = self.neurons.as_ref().map(|spans| spans.iter().map(of).collect::<Result<Vec<_>, _>>());
        let ranges = ranges.transpose().map_err(|failure| failure.at("--neurons"))?;
        Ok(ranges.map(|ranges| ranges.into_iter().flatten().collect()))
    }

    /// The positions that were asked for; a token means every place where one of the prompts has it.
    fn positions(
        &self,
        tokenizer: &Tokenizer,
        experiment: &Experiment,
    ) -> Result<Option<Vec<usize>>, Failure> {
        let Some(asked) = &self.positions else {
            return Ok(None);
        };
        let prompts = [experiment.clean(), experiment.corrupted()].map(|ids| tokenizer.tokens(ids));
        let mut positions = Vec::new();
        for asked in asked {
            if let Ok(span) = asked.parse::<Span>() {
                let range = span.of(experiment.n_tokens(), "position");
                positions.extend(range.map_err(|failure| failure.at("--positions"))?);
                continue;
            }
            let spaced = format!(" {asked}");
            let before = positions.len();
            for (pos, (clean, corrupted)) in prompts[0].iter().zip(&prompts[1]).enumerate() {
                if [clean, corrupted].into_iter().any(|token| token == asked || *token == spaced) {
                    positions.push(pos);
                }
            }
            if positions.len() == before {
                let row: Vec<String> = prompts[0].iter().map(|token| visible_line(token)).collect();
                return Err(Failure::Input(format!(
                    "--positions: neither a number nor a token of the prompts: \"{}\"; the clean prompt's \
                     tokens are {}",
                    visible_line(asked),
                    row.join("/")
                )));
            }
        }
        Ok(Some(positions))
    }
}

/// The sites by their names.
pub fn sites_in_words(kinds: &[SiteKind]) -> String {
    kinds.iter().map(SiteKind::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_sites_have_a_name_together() {
        assert_eq!("heads".parse(), Ok(Sites::Heads));
        assert_eq!("mlp_out".parse(), Ok(Sites::One(SiteKind::MlpOut)));
        let error = "head".parse::<Sites>().unwrap_err();
        assert!(error.contains("resid_pre") && error.contains("heads or blocks"), "{error}");
        assert_eq!(Sites::Heads.kinds().len(), 5);
        assert_eq!(Sites::Blocks.kinds().len(), 3);
    }

    #[test]
    fn every_site_is_read_in_both_spellings() {
        let command = clap::Command::new("x").arg(clap::Arg::new("site").value_parser(sites()));
        for expected in SiteKind::PATCHABLE {
            for name in [expected.to_string(), format!("hook_{expected}")] {
                let matches = command.clone().get_matches_from(["x", &name]);
                assert_eq!(matches.get_one("site"), Some(&Sites::One(expected)));
            }
        }
    }
}
