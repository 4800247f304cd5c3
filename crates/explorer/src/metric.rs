//! The numbers that the page offers, by the names that the command line has for them.

use std::fmt;
use std::str::FromStr;

use patching::{Metric, Scale};
use report::quoted;

/// What is read off the last logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    LogitDiff,
    ProbDiff,
    Logit,
    Prob,
    LogProb,
    Rank,
    LogitChange,
    ProbChange,
    Kl,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::LogitDiff,
        Self::ProbDiff,
        Self::Logit,
        Self::Prob,
        Self::LogProb,
        Self::Rank,
        Self::LogitChange,
        Self::ProbChange,
        Self::Kl,
    ];

    /// What it is, for answers a and b. (A metric of one answer is about b, as on the command line.)
    pub fn formula(self, a: &str, b: &str) -> String {
        match self {
            Self::LogitDiff => format!("logit({a}) − logit({b})"),
            Self::ProbDiff => format!("p({a}) − p({b})"),
            Self::Logit => format!("logit({b})"),
            Self::Prob => format!("p({b})"),
            Self::LogProb => format!("ln p({b})"),
            Self::Rank => format!("rank of {b}"),
            Self::LogitChange => format!("logit({b}) − its logit in the clean run"),
            Self::ProbChange => format!("p({b}) − its probability in the clean run"),
            Self::Kl => "KL divergence from the clean run, nats".to_owned(),
        }
    }

    /// Whether 0 means that nothing is favoured, or nothing changed.
    fn has_zero(self) -> bool {
        matches!(self, Self::LogitDiff | Self::ProbDiff | Self::LogitChange | Self::ProbChange)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LogitDiff => "logit_diff",
            Self::ProbDiff => "prob_diff",
            Self::Logit => "logit",
            Self::Prob => "prob",
            Self::LogProb => "log_prob",
            Self::Rank => "rank",
            Self::LogitChange => "logit_change",
            Self::ProbChange => "prob_change",
            Self::Kl => "kl",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        found.ok_or_else(|| {
            let all = Self::ALL.map(|kind| kind.to_string()).join(", ");
            format!("there is no metric \"{text}\"; give one of {all}")
        })
    }
}

/// A metric of two answers on a scale.
#[derive(Clone, Debug)]
pub struct Measure {
    pub kind: Kind,
    pub scale: Scale,
    /// The answers, each with its text.
    pub answers: [(u32, String); 2],
}

impl Measure {
    pub fn metric(&self) -> Metric<'_> {
        let [a, b] = [0, 1].map(|i| std::slice::from_ref(&self.answers[i].0));
        match self.kind {
            Kind::LogitDiff => Metric::LogitDiff { a, b },
            Kind::ProbDiff => Metric::ProbDiff { a, b },
            Kind::Logit => Metric::Logit { tokens: b },
            Kind::Prob => Metric::Prob { tokens: b },
            Kind::LogProb => Metric::LogProb { tokens: b },
            Kind::Rank => Metric::Rank { token: self.answers[1].0 },
            Kind::LogitChange => Metric::LogitChange { tokens: b },
            Kind::ProbChange => Metric::ProbChange { tokens: b },
            Kind::Kl => Metric::Kl,
        }
    }

    pub fn label(&self) -> String {
        let [a, b] = self.answers.each_ref().map(|(_, text)| quoted(text));
        let formula = self.kind.formula(&a, &b);
        match self.scale {
            Scale::Value => formula,
            Scale::Change => format!("change of {formula}"),
            Scale::Normalized => format!("{formula}, clean = 1 and corrupted = 0"),
            Scale::NormalizedChange => format!("change of {formula}, clean = 1 and corrupted = 0"),
        }
    }

    /// What a low and a high number say.
    pub fn ends_in_words(&self) -> [String; 2] {
        match (self.scale, self.kind) {
            (Scale::Normalized, _) => {
                ["as corrupted, or beyond".to_owned(), "as clean, or beyond".to_owned()]
            }
            (Scale::Value, Kind::LogitDiff | Kind::ProbDiff) => {
                [1, 0].map(|answer: usize| format!("favours {}", quoted(&self.answers[answer].1)))
            }
            (Scale::Value, Kind::LogitChange | Kind::ProbChange) => {
                ["below the clean run", "above the clean run"].map(str::to_owned)
            }
            _ => ["below the base run", "above the base run"].map(str::to_owned),
        }
    }

    /// The number that gets the middle colour, where it is not that of the base run.
    pub fn center(&self) -> Option<f32> {
        (self.scale != Scale::Value || self.kind.has_zero()).then_some(0.0)
    }
}
