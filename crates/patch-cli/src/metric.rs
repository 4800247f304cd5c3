//! The arguments that say which number is read off a run, and the words for it.

use std::ops::Range;

use clap::ValueEnum;
use gpt2::{Pretrained, Tokenizer};
use patching::{Direction, Endpoints, Means, Metric, Outcome, Scale};
use serde::Serialize;

use crate::failure::Failure;
use crate::names;
use report::{quoted, signed};

/// Arguments of every subcommand that measures runs.
#[derive(Clone, clap::Args)]
pub struct MetricArgs {
    /// The two tokens to compare: logit(A) − logit(B) [default: ' Smith' ' Jones']
    #[arg(long, value_names = ["A", "B"], num_args = 2, allow_hyphen_values = true)]
    pub logit_diff: Option<Vec<String>>,

    /// A token of the positive set; may be repeated. The logit of a set is the
    /// mean of its tokens' logits, its probability the sum of their probabilities
    #[arg(long, value_name = "TOKEN", conflicts_with = "logit_diff", allow_hyphen_values = true)]
    pub a: Vec<String>,

    /// A token of the negative set; may be repeated
    #[arg(long, value_name = "TOKEN", conflicts_with = "logit_diff", allow_hyphen_values = true)]
    pub b: Vec<String>,

    /// The number computed from the last logits
    #[arg(long, value_enum, default_value_t)]
    pub metric: MetricKind,

    /// The token of the metrics of a single answer; several form a set [default: B of --logit-diff]
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub token: Vec<String>,

    /// The positions of --metric loss, such as 3..9 [default: all positions with a next token]
    #[arg(long, value_name = "FROM..TO", value_parser = parse_range)]
    pub loss_at: Option<Range<usize>>,

    /// Scale of the numbers: the metric's value; its change from the base run; normalized, so that the clean
    /// run is 1 and the corrupted run 0 [default: value; for path: change]
    #[arg(long = "as", value_name = "SCALE", value_parser = names::scales())]
    pub given_as: Option<(Scale, Means)>,
}

/// The names of the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
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

impl MetricKind {
    /// Whether it is about one answer.
    fn about_a_token(self) -> bool {
        use MetricKind::*;
        matches!(self, Logit | Prob | LogProb | Rank | LogitChange | ProbChange)
    }

    /// Whether it is put on the scale of the unpatched runs.
    fn is_normalized(self) -> bool {
        matches!(self, Self::Normalized | Self::NormalizedByPair)
    }

    /// Whether it compares two answers.
    fn about_two_tokens(self) -> bool {
        use MetricKind::*;
        matches!(self, LogitDiff | Normalized | NormalizedByPair | ProbDiff)
    }
}

/// Tokens that count alike, each as a text too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub ids: Vec<u32>,
    pub texts: Vec<String>,
}

/// A metric with the words for it.
#[derive(Clone, Debug)]
pub struct NamedMetric {
    pub kind: MetricKind,
    /// The tokens that count positively, or that it is about.
    pub a: Answers,
    /// The tokens that count negatively, of a difference.
    pub b: Answers,
    /// The positions of a loss.
    loss_at: Range<usize>,
    /// How its numbers are given.
    pub scale: Scale,
    /// How they are over many pairs.
    pub means: Means,
}

/// How JSON names a metric.
#[derive(Clone, Serialize)]
pub struct MetricReport {
    pub kind: MetricKind,
    /// value, change, normalized or normalized change.
    pub scale: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<AnswersReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<AnswersReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_at: Option<[usize; 2]>,
}

/// How JSON names answers: one as a text, several as a list of texts.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub enum AnswersReport {
    One(String),
    Several(Vec<String>),
}

impl Answers {
    /// Tokens by their ids.
    pub fn of_ids(tokenizer: &Tokenizer, ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), texts: tokenizer.tokens(ids) }
    }

    /// Tokens as they are typed, which the model must know.
    fn of_texts(model: &Pretrained, texts: &[String]) -> Result<Self, Failure> {
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

impl MetricArgs {
    /// Whether the answers are given here, and not by each pair of prompts.
    pub fn has_answers(&self) -> bool {
        self.logit_diff.is_some() || !self.a.is_empty() || !self.b.is_empty()
    }

    /// How the numbers are given; `default` is how they are if nothing else is asked for.
    fn scale(&self, default: Scale) -> (Scale, Means) {
        let (scale, means) = self.given_as.unwrap_or((default, Means::OnOneScale));
        let means = match self.metric {
            MetricKind::NormalizedByPair => Means::OfScaled,
            _ => means,
        };
        let scale = match (self.metric.is_normalized(), scale) {
            (false, scale) => scale,
            (true, Scale::Change | Scale::NormalizedChange) => Scale::NormalizedChange,
            (true, Scale::Value | Scale::Normalized) => Scale::Normalized,
        };
        (scale, means)
    }

    /// Refuses options that this metric has no use for.
    fn check(&self) -> Result<(), Failure> {
        let kind = self.metric;
        let refuse = |given: bool, flag: &str, use_for: &str| match given {
            true => Err(Failure::Input(format!("{flag} is for {use_for}, not for --metric {}", kind.name()))),
            false => Ok(()),
        };
        refuse(
            !self.token.is_empty() && !kind.about_a_token(),
            "--token",
            "the metrics about one token (logit, prob, log_prob, rank, logit_change, prob_change)",
        )?;
        refuse(self.loss_at.is_some() && kind != MetricKind::Loss, "--loss-at", "--metric loss")
    }

    /// The metric for prompts of `n_tokens` tokens, on the scale `default` if no other is asked for.
    /// `answers` are the tokens to compare if none are given.
    pub fn named(
        &self,
        model: &Pretrained,
        n_tokens: usize,
        answers: [&Answers; 2],
        default: Scale,
    ) -> Result<NamedMetric, Failure> {
        self.check()?;
        let kind = self.metric;
        let (scale, means) = self.scale(default);
        let [a, b] = match (self.logit_diff.as_deref(), self.has_answers()) {
            (Some([a, b]), _) => [a, b].map(|text| Answers::of_texts(model, std::slice::from_ref(text))),
            (_, true) => [&self.a, &self.b].map(|texts| Answers::of_texts(model, texts)),
            _ => answers.map(|answers| Ok(answers.clone())),
        };
        let none =
            NamedMetric { kind, a: Answers::default(), b: Answers::default(), loss_at: 0..0, scale, means };
        if kind.about_two_tokens() {
            let (a, b) = (a?, b?);
            compared(&a, &b)?;
            return Ok(NamedMetric { a, b, ..none });
        }
        if kind.about_a_token() {
            let about = match self.token.is_empty() {
                true => b?,
                false => Answers::of_texts(model, &self.token)?,
            };
            match about.ids.len() {
                0 => {
                    return Err(Failure::Input(
                        "these prompts need the token that the metric is about: --token ' Jones'".to_owned(),
                    ));
                }
                n if n > 1 && kind == MetricKind::Rank => {
                    return Err(Failure::Input(format!(
                        "--metric rank is of one token, and here are {n}: {}; give one with --token, or \
                         use --metric prob or logit",
                        about.in_words()
                    )));
                }
                _ => {}
            }
            return Ok(NamedMetric { a: about, ..none });
        }
        if kind == MetricKind::Kl {
            return Ok(none);
        }
        let last = n_tokens.saturating_sub(1);
        let loss_at = self.loss_at.clone().unwrap_or(0..last);
        let Range { start, end } = loss_at;
        if start >= end || end > last {
            return Err(Failure::Input(format!(
                "--loss-at {start}..{end}: the {n_tokens} tokens have a next token at 0..{last} (the end is \
                 not part of the range)"
            )));
        }
        Ok(NamedMetric { loss_at, ..none })
    }
}

/// Refuses two sides that cannot be compared.
fn compared(a: &Answers, b: &Answers) -> Result<(), Failure> {
    if a.ids.is_empty() || b.ids.is_empty() {
        return Err(Failure::Input(
            "these prompts need the tokens that the metric compares, on both sides: --logit-diff ' A' ' B'"
                .to_owned(),
        ));
    }
    let Some(both) = a.ids.iter().position(|id| b.ids.contains(id)) else {
        return Ok(());
    };
    let token = quoted(&a.texts[both]);
    Err(Failure::Input(match (a.ids.len(), b.ids.len()) {
        (1, 1) => format!("--logit-diff compares {token} with itself: give two tokens"),
        _ => format!("the metric would compare {token} with itself: it is on both sides"),
    }))
}

impl MetricKind {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
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
    pub fn shown(&self, outcome: &Outcome, direction: Direction) -> Result<(Vec<f32>, [f32; 2]), Failure> {
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

/// `3..9` or `3..=8`.
pub fn parse_range(text: &str) -> Result<Range<usize>, String> {
    let wrong = || format!("\"{text}\" is not a range such as 3..9 (which ends before 9) or 3..=8");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
    let (start, end) = match end.strip_prefix('=') {
        Some(end) => (number(start)?, number(end)?.saturating_add(1)),
        None => (number(start)?, number(end)?),
    };
    match start < end {
        true => Ok(start..end),
        false => Err(format!("\"{text}\" is an empty range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_with_and_without_their_end() {
        assert_eq!(parse_range("3..9"), Ok(3..9));
        assert_eq!(parse_range("3..=8"), Ok(3..9));
        for wrong in ["3", "..", "a..b", "-1..2", "3..", "3...4"] {
            assert!(parse_range(wrong).unwrap_err().contains("not a range"), "{wrong}");
        }
        assert!(parse_range("4..4").unwrap_err().contains("empty"));
    }
}
