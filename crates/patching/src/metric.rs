//! The number that is read off the logits of the token after the last position.

use gpt2::Gpt2;
use tensor::{View, dot, matmul_transposed, widest};

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

/// The last position's logits of one run: all of them, or only those that a metric asked for.
#[derive(Clone, Debug)]
pub enum Logits {
    /// The logits of every token, `(vocab_size)`.
    All(Vec<f32>),
    /// The logits of [`Metric::tokens`], each with its token.
    Of(Vec<(u32, f32)>),
}

impl Logits {
    /// What a metric asks for, from the last position's residual stream after the last layer norm,
    /// `(C)`.
    pub(crate) fn for_metric(metric: Metric, model: &Gpt2, row: &[f32]) -> Self {
        let unembedding = model.unembedding();
        match metric.tokens() {
            Some(tokens) => {
                let logit = |token: u32| widest(|| dot(row, unembedding.row(token as usize)));
                Self::Of(
                    tokens
                        .into_iter()
                        .map(|token| (token, logit(token)))
                        .collect(),
                )
            }
            None => {
                let row = View::new(row, 1, row.len(), row.len(), 1);
                Self::All(matmul_transposed(row, unembedding).into_data())
            }
        }
    }

    /// The logit of one token.
    ///
    /// # Panics
    /// If it is not there.
    #[track_caller]
    fn of(&self, token: u32) -> f32 {
        match self {
            Self::All(logits) => logits[token as usize],
            Self::Of(logits) => match logits.iter().find(|(known, _)| *known == token) {
                Some((_, logit)) => *logit,
                None => panic!("the logit of token {token} where only {logits:?} are known"),
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
            Self::Of(logits) => panic!("a probability from {logits:?} alone"),
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

    /// The metric of one run, given the clean run's logits.
    ///
    /// # Panics
    /// If either lacks a token that [`Metric::tokens`] names, or a token is beyond the vocabulary.
    #[track_caller]
    pub fn of(&self, logits: &Logits, clean: &Logits) -> f32 {
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

    fn all(logits: &[f32]) -> Logits {
        Logits::All(logits.to_vec())
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
            let got = metric.of(&all(&logits), &all(&[0.0, 1.0, 2.0]));
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
            let named = |logits: &[f32]| {
                let tokens = metric.tokens().unwrap();
                Logits::Of(tokens.iter().map(|&t| (t, logits[t as usize])).collect())
            };
            let clean = [0.0, 1.0, 2.0];
            assert_eq!(
                metric.of(&named(&logits), &named(&clean)),
                metric.of(&all(&logits), &all(&clean))
            );
        }
    }
}
