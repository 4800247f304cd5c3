//! What the page asks for, and what becomes of it: an experiment with its metric, or the reason why there is none.

use gpt2::Pretrained;
use patching::{Axis, Direction, Experiment, Lasting, LastingValue, Patch, Scale, SiteKind};
use serde::{Deserialize, Serialize};
use visible::visible;

use crate::metric::Measure;

/// The sites that the page offers.
pub const SITES: [SiteKind; 11] = [
    SiteKind::ResidPre,
    SiteKind::ResidMid,
    SiteKind::ResidPost,
    SiteKind::AttnOut,
    SiteKind::MlpOut,
    SiteKind::Z,
    SiteKind::Q,
    SiteKind::K,
    SiteKind::V,
    SiteKind::Pattern,
    SiteKind::MlpPost,
];

/// The most edits that stay.
const MOST_EDITS: usize = 64;

/// What the page asks for, as it is typed and chosen there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub clean: String,
    pub corrupted: String,
    pub a: String,
    pub b: String,
    pub metric: String,
    pub scale: String,
    pub site: String,
    pub direction: String,
    #[serde(default)]
    pub given: Vec<Edit>,
}

/// An edit that stays.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub site: String,
    pub layer: usize,
    pub head: Option<usize>,
    pub pos: Option<usize>,
    pub value: String,
}

/// A token as the page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Token {
    pub id: u32,
    pub text: String,
}

/// The tokens of the two prompts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Rows {
    pub clean: Vec<Token>,
    pub corrupted: Vec<Token>,
    /// The positions at which they differ, of prompts with equally many.
    pub differ: Vec<usize>,
    /// How many tokens they have in common at the start, and behind these at the end.
    pub common: [usize; 2],
    /// What a user should know of them.
    pub warnings: Vec<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// For people.
    pub message: String,
    /// Which of the fields of [`Ask`] it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
}

impl Refused {
    pub fn of(field: &'static str, error: impl ToString) -> Self {
        Self { message: error.to_string(), field: Some(field) }
    }
}

impl From<patching::Error> for Refused {
    fn from(error: patching::Error) -> Self {
        Self { message: error.to_string(), field: None }
    }
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self { message, field: None }
    }
}

/// What can be computed.
#[derive(Debug)]
pub struct Question {
    pub experiment: Experiment,
    pub measure: Measure,
    pub site: SiteKind,
}

impl Edit {
    fn lasting(&self) -> Result<Lasting, Refused> {
        let value: LastingValue = self.value.parse().map_err(|error: String| Refused::of("given", error))?;
        let site = site(&self.site)?;
        let patch = Patch { head: self.head, pos: self.pos, ..Patch::whole(site, self.layer) };
        Ok(Lasting { patch, value })
    }

    /// As the command line writes it.
    pub fn typed(&self) -> String {
        let head = self.head.map(|head| format!(".{head}")).unwrap_or_default();
        let pos = self.pos.map(|pos| format!("@{pos}")).unwrap_or_default();
        format!("{}{}{head}{pos}={}", self.site, self.layer, self.value)
    }
}

fn site(name: &str) -> Result<SiteKind, Refused> {
    let site: SiteKind = name.parse().map_err(|error: String| Refused::of("site", error))?;
    match SITES.contains(&site) {
        true => Ok(site),
        false => Err(Refused::of("site", format!("the page does not offer the site {site}"))),
    }
}

impl Ask {
    /// The tokens of both prompts, as far as they can be cut.
    pub fn rows(&self, model: &Pretrained, bos: Option<u32>) -> Result<(Rows, [Vec<u32>; 2]), Refused> {
        let ids = |field: &'static str, text: &str| -> Result<Vec<u32>, Refused> {
            let cut = model.tokenizer.encode(text).map_err(|error| Refused::of(field, error))?;
            let ids: Vec<u32> = bos.into_iter().chain(cut).collect();
            model.model.check_prompt(&ids).map_err(|error| Refused::of(field, error))?;
            Ok(ids)
        };
        let (clean, corrupted) = (ids("clean", &self.clean)?, ids("corrupted", &self.corrupted)?);
        let shown = |ids: &[u32]| -> Vec<Token> {
            ids.iter().map(|&id| Token { id, text: visible(&model.tokenizer.token(id)) }).collect()
        };
        let same = |(a, b): &(&u32, &u32)| a == b;
        let front = clean.iter().zip(&corrupted).take_while(same).count();
        let back = clean[front..].iter().rev().zip(corrupted[front..].iter().rev()).take_while(same).count();
        let differ = match clean.len() == corrupted.len() {
            true => (0..clean.len()).filter(|&pos| clean[pos] != corrupted[pos]).collect(),
            false => Vec::new(),
        };
        let unknown = model.unknown_tokens(&[&clean[..], &corrupted].concat());
        let warnings = match unknown.is_empty() {
            true => Vec::new(),
            false => {
                let names: Vec<String> =
                    unknown.iter().take(8).map(|&id| report::quoted(&model.tokenizer.token(id))).collect();
                let more = if unknown.len() > 8 { ", …" } else { "" };
                let names = names.join(", ");
                vec![format!("This model was not trained on {names}{more}: it reads a blank in their place.")]
            }
        };
        let rows = Rows {
            clean: shown(&clean),
            corrupted: shown(&corrupted),
            differ,
            common: [front, back],
            warnings,
        };
        Ok((rows, [clean, corrupted]))
    }

    /// The experiment and the metric, from the prompts' ids.
    pub fn question(
        &self,
        model: &Pretrained,
        [clean, corrupted]: [Vec<u32>; 2],
    ) -> Result<Question, Refused> {
        if clean.len() != corrupted.len() {
            return Err(Refused::from(format!(
                "the clean prompt has {} tokens and the corrupted one {}; patching needs equally many: change a word \
                 for one of as many tokens",
                clean.len(),
                corrupted.len()
            )));
        }
        let direction: Direction =
            self.direction.parse().map_err(|error: String| Refused::of("direction", error))?;
        let experiment = Experiment::new(&model.model, clean, corrupted, direction)?;
        if self.given.len() > MOST_EDITS {
            return Err(Refused::of("given", format!("at most {MOST_EDITS} patches stay")));
        }
        let lasting: Vec<Lasting> = self.given.iter().map(Edit::lasting).collect::<Result<_, _>>()?;
        let experiment =
            experiment.given(&model.model, lasting).map_err(|error| Refused::of("given", error))?;
        Ok(Question { experiment, measure: self.measure(model)?, site: site(&self.site)? })
    }

    fn measure(&self, model: &Pretrained) -> Result<Measure, Refused> {
        let answer = |field: &'static str, text: &str| -> Result<(u32, String), Refused> {
            let id = model.tokenizer.to_single_token(text).map_err(|error| Refused::of(field, error))?;
            model.model.check_prompt(&[id]).map_err(|error| Refused::of(field, error))?;
            Ok((id, model.tokenizer.token(id)))
        };
        let answers = [answer("a", &self.a)?, answer("b", &self.b)?];
        if answers[0].0 == answers[1].0 {
            return Err(Refused::of("b", "the two answers are the same token: give two"));
        }
        let scale: Scale = self.scale.parse().map_err(|error: String| Refused::of("scale", error))?;
        let kind = self.metric.parse().map_err(|error: String| Refused::of("metric", error))?;
        Ok(Measure { kind, scale, answers })
    }
}

impl Question {
    /// The patch of a cell of the grid over the usual axes.
    pub fn patch(&self, model: &Pretrained, [layer, place]: [usize; 2]) -> Result<Patch, Refused> {
        let axis = self.site.default_axes()[1];
        let places = match axis {
            Axis::Head => model.model.config.n_head,
            _ => self.experiment.n_tokens(),
        };
        match layer < model.model.config.n_layer && place < places {
            true => Ok(Patch::whole(self.site, layer).narrowed(axis, place)),
            false => Err(Refused::from(format!("there is no cell at layer {layer}, {axis} {place}"))),
        }
    }
}
