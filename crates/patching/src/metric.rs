//! The number that is read off the logits of the token after the last position.

use crate::Direction;

/// How far a run has moved: one number from the logits of the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// `logit(a) − logit(b)`. Adding a constant to all logits changes nothing, as it changes none of
    /// the probabilities: the usual choice.
    LogitDiff {
        /// The token that counts positively.
        a: u32,
        /// The token that counts negatively.
        b: u32,
    },
    /// `p(a) − p(b)`.
    ProbDiff {
        /// The token that counts positively.
        a: u32,
        /// The token that counts negatively.
        b: u32,
    },
    /// `logit(token)` minus the clean run's.
    LogitChange {
        /// The token.
        token: u32,
    },
    /// `p(token)` minus the clean run's.
    ProbChange {
        /// The token.
        token: u32,
    },
}

/// The last position's logits of the two unpatched runs, of all tokens.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Of the clean run, `(vocab_size)`.
    pub clean: Vec<f32>,
    /// Of the corrupted run, `(vocab_size)`.
    pub corrupted: Vec<f32>,
}

impl Reference {
    /// The logits of the two runs, told apart by the direction of the experiment.
    pub(crate) fn new(direction: Direction, source: Vec<f32>, base: Vec<f32>) -> Self {
        match direction {
            Direction::Denoising => Self {
                clean: source,
                corrupted: base,
            },
            Direction::Noising => Self {
                clean: base,
                corrupted: source,
            },
        }
    }

    /// The logits of the run that is patched.
    pub(crate) fn base(&self, direction: Direction) -> &[f32] {
        match direction {
            Direction::Denoising => &self.corrupted,
            Direction::Noising => &self.clean,
        }
    }
}

/// The last position's logits of one run: all of them, or only those that a metric asked for.
#[derive(Clone, Copy, Debug)]
pub enum Logits<'a> {
    /// The logits of every token, `(vocab_size)`.
    All(&'a [f32]),
    /// The logits of [`Metric::tokens`], in that order.
    Of(&'a [u32], &'a [f32]),
}

impl Logits<'_> {
    /// The logit of one token.
    ///
    /// # Panics
    /// If it is not there.
    #[track_caller]
    fn of(&self, token: u32) -> f32 {
        match self {
            Self::All(logits) => logits[token as usize],
            Self::Of(tokens, logits) => match tokens.iter().position(|t| *t == token) {
                Some(i) => logits[i],
                None => panic!("logit of token {token} where only those of {tokens:?} are known"),
            },
        }
    }

    /// The probability of one token.
    ///
    /// # Panics
    /// If not all logits are known.
    #[track_caller]
    fn prob(&self, token: u32) -> f32 {
        match self {
            Self::All(logits) => (self.of(token) - tensor::log_sum_exp(logits)).exp(),
            Self::Of(tokens, _) => panic!("a probability from the logits of {tokens:?} alone"),
        }
    }
}

impl Metric {
    /// The tokens whose logits are all that the metric needs, or `None` if it needs those of every
    /// token.
    pub fn tokens(&self) -> Option<Vec<u32>> {
        match *self {
            Self::LogitDiff { a, b } => Some(vec![a, b]),
            Self::LogitChange { token } => Some(vec![token]),
            Self::ProbDiff { .. } | Self::ProbChange { .. } => None,
        }
    }

    /// The metric of one run, given the unpatched runs.
    ///
    /// # Panics
    /// If `logits` lacks a token that [`Metric::tokens`] names, or a token is beyond the vocabulary.
    #[track_caller]
    pub fn of(&self, logits: Logits<'_>, reference: &Reference) -> f32 {
        let clean = Logits::All(&reference.clean);
        match *self {
            Self::LogitDiff { a, b } => logits.of(a) - logits.of(b),
            Self::ProbDiff { a, b } => logits.prob(a) - logits.prob(b),
            Self::LogitChange { token } => logits.of(token) - clean.of(token),
            Self::ProbChange { token } => logits.prob(token) - clean.prob(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> Reference {
        Reference {
            clean: vec![0.0, 1.0, 2.0],
            corrupted: vec![5.0, 5.0, 5.0],
        }
    }

    #[test]
    fn each_metric_is_its_formula() {
        let logits = [3.0_f32, 1.0, 2.0];
        let p = |logits: &[f32], i: usize| {
            logits[i].exp() / logits.iter().map(|x| x.exp()).sum::<f32>()
        };
        for (metric, expected) in [
            (Metric::LogitDiff { a: 0, b: 2 }, 1.0),
            (Metric::LogitChange { token: 0 }, 3.0),
            (
                Metric::ProbDiff { a: 0, b: 2 },
                p(&logits, 0) - p(&logits, 2),
            ),
            (
                Metric::ProbChange { token: 0 },
                p(&logits, 0) - p(&[0.0, 1.0, 2.0], 0),
            ),
        ] {
            let got = metric.of(Logits::All(&logits), &reference());
            assert!(
                (got - expected).abs() < 1e-6,
                "{metric:?}: {got} instead of {expected}"
            );
        }
    }

    #[test]
    fn the_named_logits_give_the_same_bits_as_all_of_them() {
        let logits = [0.1_f32, 0.7, -0.3];
        for metric in [
            Metric::LogitDiff { a: 2, b: 1 },
            Metric::LogitChange { token: 1 },
        ] {
            let tokens = metric.tokens().unwrap();
            let named: Vec<f32> = tokens.iter().map(|&t| logits[t as usize]).collect();
            assert_eq!(
                metric.of(Logits::Of(&tokens, &named), &reference()),
                metric.of(Logits::All(&logits), &reference())
            );
        }
    }
}
