//! The arguments that say which number is read off a run, and the words for it.

use std::ops::Range;

use clap::ValueEnum;
use gpt2::Pretrained;
use patching::{Metric, Outcome};
use serde::Serialize;

use crate::failure::Failure;
use crate::report::quoted;

/// Arguments of every subcommand that measures runs.
#[derive(Clone, clap::Args)]
pub struct MetricArgs {
    /// The two tokens to compare: logit(A) − logit(B) [default: ' Smith' ' Jones']
    #[arg(long, value_names = ["A", "B"], num_args = 2, allow_hyphen_values = true)]
    pub logit_diff: Option<Vec<String>>,

    /// The number to read off the last logits
    #[arg(long, value_enum, default_value_t)]
    pub metric: MetricKind,

    /// The token of the metrics about one token [default: B of --logit-diff]
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub token: Option<String>,

    /// The positions of --metric loss, such as 3..9 [default: all that have a next token]
    #[arg(long, value_name = "FROM..TO", value_parser = parse_range)]
    pub loss_at: Option<Range<usize>>,
}

/// The names of the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum MetricKind {
    /// logit(A) − logit(B)
    #[default]
    LogitDiff,
    /// logit(A) − logit(B) on a scale where the clean run is 1 and the corrupted one 0
    Normalized,
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
    /// Whether it is about one token.
    fn about_a_token(self) -> bool {
        use MetricKind::*;
        matches!(
            self,
            Logit | Prob | LogProb | Rank | LogitChange | ProbChange
        )
    }

    /// Whether it compares two tokens.
    fn about_two_tokens(self) -> bool {
        use MetricKind::*;
        matches!(self, LogitDiff | Normalized | ProbDiff)
    }
}

/// A metric with the words for it.
pub struct NamedMetric {
    pub kind: MetricKind,
    pub metric: Metric<'static>,
    /// The token that counts positively.
    pub a: Option<String>,
    /// The token that counts negatively, for a difference.
    pub b: Option<String>,
}

/// How JSON names a metric.
#[derive(Clone, Serialize)]
pub struct MetricReport {
    pub kind: MetricKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_at: Option<[usize; 2]>,
}

impl MetricArgs {
    /// The metric for prompts of `n_tokens` tokens. `answers` are the two tokens to compare if none are
    /// given.
    pub fn named(
        &self,
        model: &Pretrained,
        n_tokens: usize,
        answers: Option<[&str; 2]>,
    ) -> Result<NamedMetric, Failure> {
        let kind = self.metric;
        let refuse = |given: bool, flag: &str, use_for: &str| match given {
            true => Err(Failure::Input(format!(
                "{flag} is for {use_for}, not for --metric {}",
                kind.name()
            ))),
            false => Ok(()),
        };
        refuse(
            self.token.is_some() && !kind.about_a_token(),
            "--token",
            "the metrics about one token (logit, prob, log_prob, rank, logit_change, prob_change)",
        )?;
        refuse(
            self.loss_at.is_some() && kind != MetricKind::Loss,
            "--loss-at",
            "--metric loss",
        )?;
        let id = |text: &str| -> Result<u32, Failure> {
            let id = model.tokenizer.to_single_token(text)?;
            model.model.check_prompt(&[id])?;
            Ok(id)
        };
        let pair = match (self.logit_diff.as_deref(), answers) {
            (Some([a, b]), _) => Some([a.clone(), b.clone()]),
            (_, answers) => answers.map(|pair| pair.map(str::to_owned)),
        };
        let named = |metric, a, b| NamedMetric { kind, metric, a, b };
        if kind.about_two_tokens() {
            let Some([a_text, b_text]) = pair else {
                return Err(Failure::Input(
                    "these prompts need the two tokens that the metric compares: --logit-diff ' A' ' B'"
                        .to_owned(),
                ));
            };
            let (a, b) = (id(&a_text)?, id(&b_text)?);
            if a == b {
                return Err(Failure::Input(format!(
                    "--logit-diff compares {} with itself: give two tokens",
                    quoted(&a_text)
                )));
            }
            let metric = match kind {
                MetricKind::ProbDiff => Metric::ProbDiff { a, b },
                _ => Metric::LogitDiff { a, b },
            };
            return Ok(named(metric, Some(a_text), Some(b_text)));
        }
        if kind.about_a_token() {
            let given = self.token.clone();
            let Some(text) = given.or(pair.map(|[_, b]| b)) else {
                return Err(Failure::Input(
                    "these prompts need the token that the metric is about: --token ' Jones'"
                        .to_owned(),
                ));
            };
            let token = id(&text)?;
            let metric = match kind {
                MetricKind::Logit => Metric::Logit { token },
                MetricKind::Prob => Metric::Prob { token },
                MetricKind::LogProb => Metric::LogProb { token },
                MetricKind::Rank => Metric::Rank { token },
                MetricKind::ProbChange => Metric::ProbChange { token },
                _ => Metric::LogitChange { token },
            };
            return Ok(named(metric, Some(text), None));
        }
        if kind == MetricKind::Kl {
            return Ok(named(Metric::Kl, None, None));
        }
        let last = n_tokens.saturating_sub(1);
        let Range { start, end } = self.loss_at.clone().unwrap_or(0..last);
        if start >= end || end > last {
            return Err(Failure::Input(format!(
                "--loss-at {start}..{end}: the {n_tokens} tokens have a next token at 0..{last} (the end is \
                 not part of the range)"
            )));
        }
        let metric = Metric::Loss {
            from: start,
            to: end,
        };
        Ok(named(metric, None, None))
    }
}

impl MetricKind {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

impl NamedMetric {
    /// The tokens that it is about.
    pub fn tokens(&self) -> Vec<u32> {
        match self.metric {
            Metric::LogitDiff { a, b } | Metric::ProbDiff { a, b } => vec![a, b],
            Metric::Logit { token }
            | Metric::Prob { token }
            | Metric::LogProb { token }
            | Metric::Rank { token }
            | Metric::LogitChange { token }
            | Metric::ProbChange { token } => vec![token],
            Metric::Kl | Metric::Loss { .. } | Metric::Custom(_) => vec![],
        }
    }

    /// The metric in words and signs.
    pub fn label(&self) -> String {
        let quoted = |token: &Option<String>| token.as_deref().map(quoted).unwrap_or_default();
        let (a, b) = (quoted(&self.a), quoted(&self.b));
        match self.kind {
            MetricKind::LogitDiff => format!("logit({a}) − logit({b})"),
            MetricKind::Normalized => {
                format!("logit({a}) − logit({b}), clean = 1 and corrupted = 0")
            }
            MetricKind::ProbDiff => format!("p({a}) − p({b})"),
            MetricKind::Logit => format!("logit({a})"),
            MetricKind::Prob => format!("p({a})"),
            MetricKind::LogProb => format!("ln p({a})"),
            MetricKind::Rank => format!("rank of {a}"),
            MetricKind::LogitChange => format!("logit({a}) − its logit in the clean run"),
            MetricKind::ProbChange => format!("p({a}) − its probability in the clean run"),
            MetricKind::Kl => "KL divergence from the clean run, nats".to_owned(),
            MetricKind::Loss => match self.metric {
                Metric::Loss { from, to } => format!("mean loss at positions {from}..{to}, nats"),
                _ => "mean loss, nats".to_owned(),
            },
        }
    }

    /// The metric in words and signs, where every pair of prompts has its own tokens.
    pub fn general_label(&self) -> String {
        let general = Self {
            a: self.a.as_ref().map(|_| "a".to_owned()),
            b: self.b.as_ref().map(|_| "b".to_owned()),
            ..*self
        };
        general.label().replace('"', "")
    }

    /// The value that gets the middle colour, if there is one that means "no difference".
    pub fn center(&self) -> Option<f32> {
        use MetricKind::*;
        match self.kind {
            LogitDiff | Normalized | ProbDiff | LogitChange | ProbChange => Some(0.0),
            _ => None,
        }
    }

    /// The values as they are shown, and those of the clean and the corrupted run.
    pub fn shown(&self, outcome: &Outcome) -> Result<(Vec<f32>, [f32; 2]), Failure> {
        match self.kind {
            MetricKind::Normalized => Ok((outcome.normalized()?.values, [1.0, 0.0])),
            _ => Ok((
                outcome.grid.values.clone(),
                [outcome.clean_metric, outcome.corrupted_metric],
            )),
        }
    }

    /// Which colour means what.
    pub fn colors(&self) -> Option<String> {
        let quoted = |token: &Option<String>| token.as_deref().map(quoted).unwrap_or_default();
        let (a, b) = (quoted(&self.a), quoted(&self.b));
        match self.kind {
            MetricKind::LogitDiff | MetricKind::ProbDiff => Some(format!(
                "Blue: the patched run favours {a}; red: it favours {b}."
            )),
            MetricKind::LogitChange | MetricKind::ProbChange => Some(format!(
                "Blue: {a} is more likely than in the clean run; red: less likely."
            )),
            MetricKind::Normalized => {
                Some("1: the patch makes the run as good as clean; 0: it does nothing.".to_owned())
            }
            _ => None,
        }
    }

    /// How JSON names it.
    pub fn report(&self) -> MetricReport {
        MetricReport {
            kind: self.kind,
            a: self.a.clone(),
            b: self.b.clone(),
            loss_at: match self.metric {
                Metric::Loss { from, to } => Some([from, to]),
                _ => None,
            },
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
            assert!(
                parse_range(wrong).unwrap_err().contains("not a range"),
                "{wrong}"
            );
        }
        assert!(parse_range("4..4").unwrap_err().contains("empty"));
    }
}
