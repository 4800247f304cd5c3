//! Metrics with their words: what is read off a run, how it is shown, and what its colours mean.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use gpt2::{Pretrained, Tokenizer};
use patching::{Direction, Endpoints, Means, Metric, Outcome, Scale};
use serde::Serialize;

use crate::words::{quoted, signed};

/// The names of the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// logit(A) − logit(B)
    #[default]
    LogitDiff,
    /// logit(A) − logit(B) on a scale where the clean run is 1 and the corrupted one 0; over many pairs
    /// the means are put on one scale
    Normalized,
    /// The same, but over many pairs the mean of each pair on its own scale
    NormalizedByPair,
    /// p(A) − p(B)
    ProbDiff,
    /// logit(TOKEN)
    Logit,
    /// p(TOKEN)
    Prob,
    /// ln p(TOKEN)
    LogProb,
    /// How many tokens are more likely than TOKEN: 0 for the most likely
    Rank,
    /// logit(TOKEN) minus the clean run's
    LogitChange,
    /// p(TOKEN) minus the clean run's
    ProbChange,
    /// Divergence from the clean run's distribution of the next token, in nats
    Kl,
    /// Mean −ln p(next token of the base prompt) over --loss-at
    Loss,
}

/// Tokens that count alike, each as a text too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Their ids.
    pub ids: Vec<u32>,
    /// Each as a text.
    pub texts: Vec<String>,
}

/// A metric with the words for it.
#[derive(Clone, Debug)]
pub struct NamedMetric {
    /// Which one.
    pub kind: MetricKind,
    /// The tokens that count positively, or that it is about.
    pub a: Answers,
    /// The tokens that count negatively, of a difference.
    pub b: Answers,
    /// The positions of a loss.
    pub loss_at: Range<usize>,
    /// How its numbers are given.
    pub scale: Scale,
    /// How they are over many pairs.
    pub means: Means,
}

/// How JSON names a metric.
#[derive(Clone, Serialize)]
pub struct MetricReport {
    /// Which one.
    pub kind: MetricKind,
    /// value, change, normalized or normalized change.
    pub scale: String,
    /// The tokens that count positively, or that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<AnswersReport>,
    /// The tokens that count negatively.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<AnswersReport>,
    /// The positions of a loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_at: Option<[usize; 2]>,
}

/// How JSON names answers: one as a text, several as a list of texts.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub enum AnswersReport {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl MetricKind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(kind, _)| kind)
    }

    /// Whether it is about one answer.
    pub fn about_a_token(self) -> bool {
        use MetricKind::*;
        matches!(self, Logit | Prob | LogProb | Rank | LogitChange | ProbChange)
    }

    /// Whether it is put on the scale of the unpatched runs.
    pub fn is_normalized(self) -> bool {
        matches!(self, Self::Normalized | Self::NormalizedByPair)
    }

    /// Whether it compares two answers.
    pub fn about_two_tokens(self) -> bool {
        use MetricKind::*;
        matches!(self, LogitDiff | Normalized | NormalizedByPair | ProbDiff)
    }
}

impl Answers {
    /// Tokens by their ids.
    pub fn of_ids(tokenizer: &Tokenizer, ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), texts: tokenizer.tokens(ids) }
    }

    /// Tokens as they are typed, which the model must know.
    ///
    /// # Errors
    /// If a text is not exactly one token, or the model does not know it.
    pub fn of_texts(model: &Pretrained, texts: &[String]) -> Result<Self, gpt2::Error> {
        let mut ids = Vec::new();
        for text in texts {
            let id = model.tokenizer.to_single_token(text)?;
            model.model.check_prompt(&[id])?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(Self::of_ids(&model.tokenizer, &ids))
    }

    /// The tokens in quotes; of many the first few.
    pub fn in_words(&self) -> String {
        const SHOWN: usize = 4;
        let quoted: Vec<String> = self.texts.iter().take(SHOWN).map(|text| quoted(text)).collect();
        match self.texts.len() {
            0 | 1 => quoted.concat(),
            n if n <= SHOWN => format!("{{{}}}", quoted.join(", ")),
            n => format!("{{{}, … {n} tokens}}", quoted.join(", ")),
        }
    }

    /// How JSON names them; none if there are none.
    pub fn report(&self) -> Option<AnswersReport> {
        match &self.texts[..] {
            [] => None,
            [one] => Some(AnswersReport::One(one.clone())),
            several => Some(AnswersReport::Several(several.to_vec())),
        }
    }
}

impl NamedMetric {
    /// The metric.
    pub fn metric(&self) -> Metric<'_> {
        use MetricKind::*;
        let (a, b) = (&self.a.ids[..], &self.b.ids[..]);
        match self.kind {
            LogitDiff | Normalized | NormalizedByPair => Metric::LogitDiff { a, b },
            ProbDiff => Metric::ProbDiff { a, b },
            Logit => Metric::Logit { tokens: a },
            Prob => Metric::Prob { tokens: a },
            LogProb => Metric::LogProb { tokens: a },
            Rank => Metric::Rank { token: a[0] },
            LogitChange => Metric::LogitChange { tokens: a },
            ProbChange => Metric::ProbChange { tokens: a },
            Kl => Metric::Kl,
            Loss => Metric::Loss { from: self.loss_at.start, to: self.loss_at.end },
        }
    }

    /// The tokens that it is about.
    pub fn tokens(&self) -> Vec<u32> {
        [&self.a.ids[..], &self.b.ids].concat()
    }

    /// The same answers in another metric.
    pub fn with_kind(&self, kind: MetricKind) -> Self {
        let scale = match (kind.is_normalized(), self.scale) {
            (true, _) => Scale::Normalized,
            (false, Scale::Normalized | Scale::NormalizedChange) => Scale::Value,
            (false, scale) => scale,
        };
        Self { kind, scale, ..self.clone() }
    }

    /// The same about other answers, on one side only.
    pub fn about(&self, answers: &Answers) -> Self {
        Self { a: answers.clone(), b: Answers::default(), ..self.clone() }
    }

    /// The same on another scale.
    pub fn on_scale(&self, scale: Scale) -> Self {
        Self { scale, ..self.clone() }
    }

    /// The metric in words and signs, on the scale on which it is given.
    pub fn label(&self) -> String {
        self.label_of(&self.a.in_words(), &self.b.in_words())
    }

    /// The metric in words and signs, where every pair of prompts has its own tokens.
    pub fn general_label(&self) -> String {
        self.label_of("a", "b")
    }

    fn label_of(&self, a: &str, b: &str) -> String {
        use MetricKind::*;
        let metric = match self.kind {
            LogitDiff | Normalized | NormalizedByPair => format!("logit({a}) − logit({b})"),
            ProbDiff => format!("p({a}) − p({b})"),
            Logit => format!("logit({a})"),
            Prob => format!("p({a})"),
            LogProb => format!("ln p({a})"),
            Rank => format!("rank of {a}"),
            LogitChange => format!("logit({a}) − its logit in the clean run"),
            ProbChange => format!("p({a}) − its probability in the clean run"),
            Kl => "KL divergence from the clean run, nats".to_owned(),
            Loss => {
                let Range { start, end } = self.loss_at;
                format!("mean loss at positions {start}..{end}, nats")
            }
        };
        match self.scale {
            Scale::Value => metric,
            Scale::Change => format!("change of {metric}"),
            Scale::Normalized => format!("{metric}, clean = 1 and corrupted = 0"),
            Scale::NormalizedChange => format!("change of {metric}, clean = 1 and corrupted = 0"),
        }
    }

    /// What a title says of the scale.
    pub fn scale_in_words(&self) -> &'static str {
        match self.scale {
            Scale::Value => "values",
            Scale::Change => "changes",
            Scale::Normalized => "normalized",
            Scale::NormalizedChange => "normalized changes",
        }
    }

    /// The value that gets the middle colour, if there is one that means "no difference".
    pub fn center(&self) -> Option<f32> {
        use MetricKind::*;
        let has_zero = matches!(
            self.kind,
            LogitDiff | Normalized | NormalizedByPair | ProbDiff | LogitChange | ProbChange
        );
        (has_zero || self.scale != Scale::Value).then_some(0.0)
    }

    /// The middle colour for these values, and what it means. It is 0 where that means "no difference"; but if
    /// all values lie far from 0 on one side, which would make one colour of the figure, it is the value
    /// of the unpatched base run, `base`.
    pub fn middle(&self, values: &[f32], unpatched: f32, base: &str) -> (Option<f32>, Option<String>) {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (low, high) =
            (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
        let nearest = low.abs().min(high.abs());
        let is_one_sided = low * high > 0.0 && 2.0 * nearest > low.abs().max(high.abs());
        match self.center() {
            Some(0.0) if self.scale == Scale::Value && is_one_sided && unpatched.is_finite() => {
                let words = format!(
                    "Middle colour: the {base} run's {}; blue: the patch raises the metric; red: it lowers it.",
                    signed(unpatched)
                );
                (Some(unpatched), Some(words))
            }
            center => (center, self.colors(base)),
        }
    }

    /// The metric of the clean and of the corrupted run, as they are shown.
    pub fn shown_unpatched(&self, ends: Endpoints) -> [f32; 2] {
        match self.scale.is_normalized() {
            true => [1.0, 0.0],
            false => [ends.clean, ends.corrupted],
        }
    }

    /// The values of a sweep on the scale on which they are given, and those of the unpatched runs.
    ///
    /// # Errors
    /// As [`Scale::apply`].
    pub fn shown(
        &self,
        outcome: &Outcome,
        direction: Direction,
    ) -> Result<(Vec<f32>, [f32; 2]), patching::Error> {
        let ends = outcome.ends(direction);
        let mut values = outcome.grid.values.clone();
        self.scale.apply(&mut values, ends)?;
        Ok((values, self.shown_unpatched(ends)))
    }

    /// Which colour means what. `base` is the run that is patched.
    pub fn colors(&self, base: &str) -> Option<String> {
        let (a, b) = (self.a.in_words(), self.b.in_words());
        match (self.scale, self.kind) {
            (Scale::Change | Scale::NormalizedChange, _) => {
                Some(format!("Blue: the {base} run's metric rises; red: it falls."))
            }
            (Scale::Normalized, _) => {
                Some("1: the patch makes the run as good as clean; 0: as corrupted.".to_owned())
            }
            (Scale::Value, MetricKind::LogitDiff | MetricKind::ProbDiff) => {
                Some(format!("Blue: the patched run favours {a}; red: it favours {b}."))
            }
            (Scale::Value, MetricKind::LogitChange | MetricKind::ProbChange) => {
                Some(format!("Blue: {a} is more likely than in the clean run; red: less likely."))
            }
            _ => None,
        }
    }

    /// What of it determines numbers, beside the tokens.
    pub fn computation(&self) -> String {
        let Range { start, end } = self.loss_at;
        let at = match self.kind {
            MetricKind::Loss => format!(" at {start}..{end}"),
            _ => String::new(),
        };
        format!("{:?}{at}, {}, means {:?}", self.kind, self.scale, self.means)
    }

    /// How JSON names it.
    pub fn report(&self) -> MetricReport {
        let Range { start, end } = self.loss_at;
        MetricReport {
            kind: self.kind,
            scale: self.scale.to_string(),
            a: self.a.report(),
            b: self.b.report(),
            loss_at: (self.kind == MetricKind::Loss).then_some([start, end]),
        }
    }
}

/// All metrics with their names.
const NAMES: [(MetricKind, &str); 12] = [
    (MetricKind::LogitDiff, "logit_diff"),
    (MetricKind::Normalized, "normalized"),
    (MetricKind::NormalizedByPair, "normalized_by_pair"),
    (MetricKind::ProbDiff, "prob_diff"),
    (MetricKind::Logit, "logit"),
    (MetricKind::Prob, "prob"),
    (MetricKind::LogProb, "log_prob"),
    (MetricKind::Rank, "rank"),
    (MetricKind::LogitChange, "logit_change"),
    (MetricKind::ProbChange, "prob_change"),
    (MetricKind::Kl, "kl"),
    (MetricKind::Loss, "loss"),
];

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.into_iter().find(|(kind, _)| kind == self);
        f.pad(found.map_or("", |(_, name)| name))
    }
}

impl FromStr for MetricKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.into_iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| kind).ok_or_else(|| {
            let names = NAMES.map(|(_, name)| name).join(", ");
            format!("there is no metric \"{text}\"; give one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_the_names_that_json_has() {
        for kind in MetricKind::all() {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert!("x".parse::<MetricKind>().unwrap_err().contains("give one of logit_diff, normalized,"));
    }
}
