//! `--given`: edits that stay in the base run and in every patched run.

use std::fmt;
use std::str::FromStr;

use gpt2::Gpt2;
use patching::{Axis, Experiment, Lasting, LastingValue, Patch, SiteKind};

use crate::failure::Failure;
use crate::place::Place;

/// An edit as it is typed: `z9.9`, `mlp_out8=zero`, `resid_post3@-1=source`.
#[derive(Clone, Debug)]
pub struct Given {
    /// As it was typed.
    text: String,
    /// The piece without its position.
    patch: Patch,
    pos: Option<Place>,
    value: LastingValue,
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "\"{text}\" is not an edit: write SITE, its layer and perhaps .HEAD, then perhaps @POSITION and \
                 =source, =zero or =mean, for example z9.9, mlp_out8=zero or resid_post3@-1"
            )
        };
        let (place, value) = match text.split_once('=') {
            Some((place, value)) => (place, value.parse()?),
            None => (text, LastingValue::default()),
        };
        let (piece, pos) = match place.split_once('@') {
            Some((piece, pos)) => (piece, Some(pos.parse::<Place>().map_err(|_| expected())?)),
            None => (place, None),
        };
        let numbers = piece.trim_start_matches(|c: char| !c.is_ascii_digit());
        let name = &piece[..piece.len() - numbers.len()];
        let site: SiteKind = name.parse()?;
        if site.axes().is_empty() || pos.is_some() && !site.axes().contains(&Axis::Pos) {
            return Err(expected());
        }
        let number = |text: &str| text.parse::<usize>().map_err(|_| expected());
        let mut patch = Patch::whole(site, 0);
        match (numbers.split_once('.'), site.axes()) {
            (None, _) if numbers.is_empty() && !site.is_in_block() => {}
            (None, _) => patch.layer = number(numbers)?,
            (Some((layer, rest)), [.., Axis::Neuron]) => {
                (patch.layer, patch.neuron) = (number(layer)?, Some(number(rest)?));
            }
            (Some((layer, rest)), axes) if axes.contains(&Axis::Head) => {
                (patch.layer, patch.head) = (number(layer)?, Some(number(rest)?));
            }
            _ => return Err(expected()),
        }
        Ok(Self { text: text.to_owned(), patch, pos, value })
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An experiment given these edits.
///
/// # Errors
/// [`Failure::Input`] if the model or the prompts do not have such a place.
pub fn given(experiment: Experiment, edits: &[Given], model: &Gpt2) -> Result<Experiment, Failure> {
    let t = experiment.n_tokens();
    let lasting = |edit: &Given| {
        let pos = edit.pos.map(|pos| pos.of(t, "position")).transpose()?;
        Ok(Lasting { patch: Patch { pos, ..edit.patch }, value: edit.value })
    };
    let at = |failure: Failure| failure.at("--given");
    let lasting: Result<Vec<Lasting>, Failure> = edits.iter().map(lasting).collect();
    experiment.given(model, lasting.map_err(at)?).map_err(|error| at(error.into()))
}

/// The edits in words.
pub fn in_words(edits: &[Given]) -> String {
    let edits: Vec<String> = edits.iter().map(Given::to_string).collect();
    edits.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_read_as_it_is_typed() {
        let read = |text: &str| text.parse::<Given>().unwrap();
        let head = read("z9.8@-1=zero");
        assert_eq!(head.patch, Patch { head: Some(8), ..Patch::whole(SiteKind::Z, 9) });
        assert!(head.pos.is_some() && head.value == LastingValue::Zero);
        assert_eq!(read("mlp_post3.17").patch.neuron, Some(17));
        assert_eq!(read("resid_post11").patch, Patch::whole(SiteKind::ResidPost, 11));
        assert_eq!(read("embed@2").patch, Patch::whole(SiteKind::Embed, 0));
        assert_eq!(read("hook_z9.8=mean").value, LastingValue::Mean);
        for text in ["", "z", "z9.8.7", "9.8", "z9=none", "mlp_out3.1", "pattern3@1", "z9@x", "ln1_scale3"] {
            assert!(text.parse::<Given>().is_err(), "{text}");
        }
    }
}
