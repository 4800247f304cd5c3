//! The arguments that say which number is read off a run, and the words for it.

use std::ops::Range;

use gpt2::Pretrained;
use patching::{Means, Scale};
use report::quoted;

use crate::failure::Failure;
use crate::names;

pub use report::metric::{Answers, AnswersReport, MetricKind, MetricReport, NamedMetric};

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
    #[arg(long, default_value_t, value_parser = names::metrics())]
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
            true => Err(Failure::Input(format!("{flag} is for {use_for}, not for --metric {}", kind))),
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
