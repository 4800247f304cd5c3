//! The number that is read off a run's end.
//!
//! # Numbers that cannot be computed
//!
//! A metric is a finite number, or NaN. It is NaN if a logit that it depends on is not finite: one of its
//! own tokens' or, for probabilities, ranks, divergences and losses, that of any token; of the clean run as
//! well, if the run is compared with it. It is also NaN if the result is too large for an `f32`. So neither
//! 0 nor ∞ ever stands for a number that could not be computed.
//!
//! What is computed from NaN is NaN: a cell of a grid, a value on a [`Scale`](crate::Scale), a mean over
//! pairs and the ends of its interval ([`prompts::average()`](crate::prompts::average())). If the metric of an
//! unpatched run is NaN there is nothing to compare with: [`Experiment::check_ends`](crate::Experiment::check_ends)
//! says why.

mod gradient;

use std::borrow::Cow;
use std::fmt;

use gpt2::Gpt2;
use gpt2::generate::{LogProbs, log_prob};
use rayon::prelude::*;
use tensor::{Tensor, all_finite};

use crate::Watch;

/// Rows whose logits of all tokens are held together.
pub(crate) const LOGIT_ROWS: usize = 64;

/// How far a run has moved: one number from the logits of the next token (or, for [`Metric::Loss`],
/// from those at several positions). NaN if it cannot be computed.
///
/// An answer may be a set of tokens, such as all years after one: its logit is the mean of the tokens'
/// logits, its probability the sum of their probabilities.
#[derive(Clone, Copy)]
pub enum Metric<'a> {
    /// `logit(a) − logit(b)`. Adding a constant to all logits changes nothing, as it changes none of
    /// the probabilities: the usual choice.
    LogitDiff {
        /// The tokens that count positively.
        a: &'a [u32],
        /// The tokens that count negatively.
        b: &'a [u32],
    },
    /// `p(a) − p(b)`.
    ProbDiff {
        /// The tokens that count positively.
        a: &'a [u32],
        /// The tokens that count negatively.
        b: &'a [u32],
    },
    /// `logit(tokens)`.
    Logit {
        /// The tokens.
        tokens: &'a [u32],
    },
    /// `p(tokens)`.
    Prob {
        /// The tokens.
        tokens: &'a [u32],
    },
    /// `ln p(tokens)`.
    LogProb {
        /// The tokens.
        tokens: &'a [u32],
    },
    /// How many tokens are more likely than this one: 0 for the most likely.
    Rank {
        /// The token.
        token: u32,
    },
    /// `logit(tokens)` minus the clean run's.
    LogitChange {
        /// The tokens.
        tokens: &'a [u32],
    },
    /// `p(tokens)` minus the clean run's.
    ProbChange {
        /// The tokens.
        tokens: &'a [u32],
    },
    /// The Kullback–Leibler divergence from the clean run's distribution of the next token,
    /// Σ p_clean (ln p_clean − ln p), in nats: 0 where the two agree.
    Kl,
    /// The mean loss −ln p(next token) in nats at the positions `from..to`, where the next token is the
    /// base prompt's own.
    Loss {
        /// The first position.
        from: usize,
        /// The position after the last; the prompt's last position has no next token.
        to: usize,
    },
    /// Any number that can be computed from all logits of the next token, `(vocab_size)`. It is asked
    /// once for every run, from several threads; about the two unpatched runs first.
    Custom(&'a (dyn Fn(Which, &[f32]) -> f32 + Sync)),
}

/// Which run a custom metric is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// The clean prompt's, unpatched.
    Clean,
    /// The corrupted prompt's, unpatched.
    Corrupted,
    /// The patched run of one cell of the grid, by its place in [`Grid::values`](crate::Grid::values).
    Patched(usize),
}

/// What a metric reads of a run.
#[derive(Clone, Debug)]
pub(crate) enum End<'a> {
    /// The logits of some tokens.
    Of(Vec<(u32, f32)>),
    /// The logits of every token, `(vocab_size)`.
    All(Cow<'a, [f32]>),
    /// The mean loss.
    Loss(f32),
}

impl fmt::Debug for Metric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogitDiff { a, b } => write!(f, "logit({a:?}) − logit({b:?})"),
            Self::ProbDiff { a, b } => write!(f, "p({a:?}) − p({b:?})"),
            Self::Logit { tokens } => write!(f, "logit({tokens:?})"),
            Self::Prob { tokens } => write!(f, "p({tokens:?})"),
            Self::LogProb { tokens } => write!(f, "ln p({tokens:?})"),
            Self::Rank { token } => write!(f, "rank({token})"),
            Self::LogitChange { tokens } => {
                write!(f, "logit({tokens:?}) − clean logit({tokens:?})")
            }
            Self::ProbChange { tokens } => write!(f, "p({tokens:?}) − clean p({tokens:?})"),
            Self::Kl => write!(f, "KL(clean ‖ run)"),
            Self::Loss { from, to } => write!(f, "mean loss at {from}..{to}"),
            Self::Custom(_) => write!(f, "a metric of the caller's"),
        }
    }
}

impl Metric<'_> {
    /// The tokens whose logits at the last position are all that the metric needs, or `None` if it
    /// needs those of every token.
    pub fn tokens(&self) -> Option<Vec<u32>> {
        match *self {
            Self::LogitDiff { a, b } => Some([a, b].concat()),
            Self::Logit { tokens } | Self::LogitChange { tokens } => Some(tokens.to_vec()),
            _ => None,
        }
    }

    /// The first position of a prompt of `t` tokens whose logits the metric reads.
    ///
    /// # Panics
    /// If a loss is asked for at no position, or at one that has no next token.
    #[track_caller]
    pub(crate) fn first_position(&self, t: usize) -> usize {
        match *self {
            Self::Loss { from, to } => {
                assert!(
                    from < to && to < t,
                    "the loss at {from}..{to} of {t} tokens: the last has no next token"
                );
                from
            }
            _ => t - 1,
        }
    }

    /// What the metric reads of one run: `rows` are its residual stream after the last layer norm from
    /// [`Metric::first_position`] on, `(n, C)`; `base` is the base prompt.
    pub(crate) fn read(&self, model: &Gpt2, rows: &Tensor, base: &[u32]) -> End<'static> {
        let last = rows.n_rows() - 1;
        match (*self, self.tokens()) {
            (Self::Loss { from, to }, _) => {
                let logits = model.unembed_rows(rows.view().rows(0..to - from));
                let loss = |pos: usize| loss(logits.row(pos - from), base[pos + 1]);
                End::Loss(mean((from..to).map(loss)))
            }
            (_, Some(tokens)) => End::of_tokens(model, &tokens, rows.row(last)),
            _ => {
                let last = rows.view().rows(last..last + 1);
                End::All(model.unembed_rows(last).into_data().into())
            }
        }
    }

    /// The metric of many patched runs. Each is given by its number and the row `(C)` of its last position
    /// after the last layer norm, which is all that is read of it, so the metric must not be a loss.
    pub(crate) fn of_rows(
        &self,
        model: &Gpt2,
        runs: &[(usize, &[f32])],
        clean: &End<'_>,
        watch: Watch<'_>,
    ) -> Vec<f32> {
        if let Some(tokens) = self.tokens() {
            let of_run = |(run, row): &(usize, &[f32])| {
                let end = End::of_tokens(model, &tokens, row);
                self.of(Which::Patched(*run), &end, clean)
            };
            return runs.par_iter().map(of_run).collect();
        }
        let of_some = |runs: &[(usize, &[f32])]| -> Vec<f32> {
            watch.leave_if_stopped();
            let rows = runs.iter().flat_map(|(_, row)| *row).copied().collect();
            let rows = Tensor::new(&[runs.len(), model.config.n_embd], rows);
            // The unembedding is read once for all of them.
            let logits = model.unembed_rows(&rows);
            let of_run = |(i, (run, _)): (usize, &(usize, &[f32]))| {
                self.of(Which::Patched(*run), &End::All(logits.row(i).into()), clean)
            };
            runs.par_iter().enumerate().map(of_run).collect()
        };
        runs.chunks(LOGIT_ROWS).flat_map(of_some).collect()
    }

    /// The metric of a patched run from all logits of its next token, `(vocab_size)`, and from the clean
    /// run's; none for a loss, which is read at other positions, and for a metric of the caller's, which
    /// asks for the run as well.
    pub fn of_logits(&self, logits: &[f32], clean: &[f32]) -> Option<f32> {
        match self {
            Self::Loss { .. } | Self::Custom(_) => None,
            _ => {
                let [run, clean] = [logits, clean].map(|logits| End::All(logits.into()));
                Some(self.of(Which::Patched(0), &run, &clean))
            }
        }
    }

    /// The metric of a run, given what it reads of it and of the clean run: finite, or NaN.
    #[track_caller]
    pub(crate) fn of(&self, run: Which, end: &End<'_>, clean: &End<'_>) -> f32 {
        finite_or_nan(self.computed(run, end, clean))
    }

    #[track_caller]
    fn computed(&self, run: Which, end: &End<'_>, clean: &End<'_>) -> f32 {
        match *self {
            Self::LogitDiff { a, b } => end.mean_logit(a) - end.mean_logit(b),
            Self::ProbDiff { a, b } => end.prob(a) - end.prob(b),
            Self::Logit { tokens } => end.mean_logit(tokens),
            Self::Prob { tokens } => end.prob(tokens),
            Self::LogProb { tokens } => end.log_prob(tokens),
            Self::Rank { token } => end.rank(token),
            Self::LogitChange { tokens } => end.mean_logit(tokens) - clean.mean_logit(tokens),
            Self::ProbChange { tokens } => end.prob(tokens) - clean.prob(tokens),
            Self::Kl => divergence(clean.all(), end.all()),
            Self::Loss { .. } => match end {
                End::Loss(loss) => *loss,
                _ => panic!("a loss from {end:?}"),
            },
            Self::Custom(f) => f(run, end.all()),
        }
    }
}

impl End<'_> {
    /// The logits of some tokens, from the last position's row `(C)`: the same bits as among those of all
    /// tokens.
    pub(crate) fn of_tokens(model: &Gpt2, tokens: &[u32], row: &[f32]) -> Self {
        let logits = model.unembed_tokens(row, tokens);
        Self::Of(tokens.iter().copied().zip(logits).collect())
    }

    #[track_caller]
    fn logit(&self, token: u32) -> f32 {
        match self {
            Self::All(logits) => logits[token as usize],
            Self::Of(logits) => match logits.iter().find(|(known, _)| *known == token) {
                Some((_, logit)) => *logit,
                None => panic!("the logit of token {token} is not among {logits:?}"),
            },
            Self::Loss(_) => panic!("a logit from a loss"),
        }
    }

    #[track_caller]
    fn all(&self) -> &[f32] {
        match self {
            Self::All(logits) => logits,
            _ => panic!("all logits from {self:?}"),
        }
    }

    /// The mean of the tokens' logits.
    #[track_caller]
    fn mean_logit(&self, tokens: &[u32]) -> f32 {
        mean(tokens.iter().map(|&token| self.logit(token)))
    }

    /// The sum of the tokens' probabilities.
    #[track_caller]
    fn prob(&self, tokens: &[u32]) -> f32 {
        let all = LogProbs::of(self.all());
        tokens.iter().map(|&token| all.prob(token)).sum::<f64>() as f32
    }

    /// Its logarithm: also where the sum is too small for a float.
    #[track_caller]
    fn log_prob(&self, tokens: &[u32]) -> f32 {
        let all = LogProbs::of(self.all());
        let of_tokens = || tokens.iter().map(|&token| all.of_token(token));
        let largest = of_tokens().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = of_tokens().map(|x| (x - largest).exp()).sum();
        (largest + sum.ln()) as f32
    }

    /// Of equal logits the first token comes first, as in [`gpt2::generate::rank`]. NaN if a logit is not
    /// finite: its place among the others is unknown.
    #[track_caller]
    fn rank(&self, token: u32) -> f32 {
        let (logits, own) = (self.all(), self.logit(token));
        if !all_finite(logits) {
            return f32::NAN;
        }
        let (before, after) = logits.split_at(token as usize);
        let rank = before.iter().filter(|logit| **logit >= own).count()
            + after.iter().filter(|logit| **logit > own).count();
        rank as f32
    }
}

pub(crate) fn finite_or_nan(value: f32) -> f32 {
    if value.is_finite() { value } else { f32::NAN }
}

/// −ln p(token) of one row of logits, `(vocab_size)`.
pub(crate) fn loss(logits: &[f32], token: u32) -> f32 {
    -log_prob(logits, token) as f32
}

/// The mean, with the sum in f64 so that large numbers do not overflow.
pub(crate) fn mean(numbers: impl ExactSizeIterator<Item = f32>) -> f32 {
    let n = numbers.len();
    (numbers.map(f64::from).sum::<f64>() / n as f64) as f32
}

/// KL(p ‖ q) of two distributions given as logits.
fn divergence(p: &[f32], q: &[f32]) -> f32 {
    let tokens = 0..p.len() as u32;
    let (p, q) = (LogProbs::of(p), LogProbs::of(q));
    let term = |token| p.prob(token) * (p.of_token(token) - q.of_token(token));
    let sum: f64 = tokens.map(term).sum();
    // It cannot be negative but by rounding. (`max` would turn NaN into 0.)
    if sum < 0.0 { 0.0 } else { sum as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metric: Metric<'_>, logits: &[f32], clean: &[f32]) -> f32 {
        let [logits, clean] = [logits, clean].map(|logits| End::All(logits.into()));
        metric.of(Which::Patched(3), &logits, &clean)
    }

    #[test]
    fn each_metric_is_its_formula() {
        let (logits, clean) = ([3.0_f32, 1.0, 2.0], [0.0_f32, 1.0, 2.0]);
        let p = |logits: &[f32], i: usize| logits[i].exp() / logits.iter().map(|x| x.exp()).sum::<f32>();
        let kl: f32 = (0..3).map(|i| p(&clean, i) * (p(&clean, i) / p(&logits, i)).ln()).sum();
        let own = |run: Which, logits: &[f32]| {
            assert_eq!(run, Which::Patched(3));
            logits.iter().sum()
        };
        for (metric, expected) in [
            (Metric::LogitDiff { a: &[0], b: &[2] }, 1.0),
            (Metric::ProbDiff { a: &[0], b: &[2] }, p(&logits, 0) - p(&logits, 2)),
            (Metric::Logit { tokens: &[2] }, 2.0),
            (Metric::Prob { tokens: &[2] }, p(&logits, 2)),
            (Metric::LogProb { tokens: &[2] }, p(&logits, 2).ln()),
            (Metric::Rank { token: 0 }, 0.0),
            (Metric::Rank { token: 1 }, 2.0),
            (Metric::LogitChange { tokens: &[0] }, 3.0),
            (Metric::ProbChange { tokens: &[0] }, p(&logits, 0) - p(&clean, 0)),
            // Sets of tokens.
            (Metric::LogitDiff { a: &[0, 2], b: &[1] }, 1.5),
            (Metric::ProbDiff { a: &[0, 2], b: &[1] }, p(&logits, 0) + p(&logits, 2) - p(&logits, 1)),
            (Metric::Logit { tokens: &[1, 2] }, 1.5),
            (Metric::LogitChange { tokens: &[0, 2] }, 1.5),
            (Metric::Prob { tokens: &[1, 2] }, p(&logits, 1) + p(&logits, 2)),
            (Metric::LogProb { tokens: &[1, 2] }, (p(&logits, 1) + p(&logits, 2)).ln()),
            (Metric::ProbChange { tokens: &[0, 1, 2] }, 0.0),
            (Metric::Kl, kl),
            (Metric::Custom(&own), 6.0),
        ] {
            let got = value(metric, &logits, &clean);
            assert!((got - expected).abs() < 1e-6, "{metric:?}: {got} instead of {expected}");
        }
    }

    #[test]
    fn a_run_does_not_diverge_from_itself() {
        assert_eq!(value(Metric::Kl, &[0.3, -5.0, 80.0], &[0.3, -5.0, 80.0]), 0.0);
    }

    /// Every metric that reads one token, a set, or all.
    const KINDS: [Metric<'static>; 12] = [
        Metric::LogitDiff { a: &[0], b: &[1] },
        Metric::LogitDiff { a: &[0, 2], b: &[1] },
        Metric::ProbDiff { a: &[0], b: &[1] },
        Metric::Logit { tokens: &[0] },
        Metric::Logit { tokens: &[0, 1] },
        Metric::Prob { tokens: &[0] },
        Metric::LogProb { tokens: &[0, 1] },
        Metric::Rank { token: 0 },
        Metric::LogitChange { tokens: &[0] },
        Metric::ProbChange { tokens: &[0, 2] },
        Metric::Kl,
        Metric::Custom(&|_, logits| logits[0] * 2.0),
    ];

    #[test]
    fn a_metric_of_logits_that_are_not_finite_is_nan() {
        let finite = [1.0, 2.0, 3.0, 4.0];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for metric in KINDS {
                let own = value(metric, &[bad, 2.0, 3.0, 4.0], &finite);
                let all = value(metric, &[bad; 4], &[bad; 4]);
                assert!(own.is_nan() && all.is_nan(), "{metric:?} with {bad}");
                // A token that only probabilities and ranks depend on.
                let other = value(metric, &[1.0, 2.0, 3.0, bad], &finite);
                let reads_all = metric.tokens().is_none() && !matches!(metric, Metric::Custom(_));
                assert_eq!(other.is_nan(), reads_all, "{metric:?} with {bad}");
                let clean = value(metric, &finite, &[bad, 2.0, 3.0, 4.0]);
                let compares =
                    matches!(metric, Metric::Kl | Metric::LogitChange { .. } | Metric::ProbChange { .. });
                assert_eq!(clean.is_nan(), compares, "{metric:?} against {bad}");
            }
            let losses = [0, 1].map(|token| loss(&[1.0, bad, 2.0], token));
            let metric = Metric::Loss { from: 0, to: 1 };
            for value in losses {
                let end = End::Loss(value);
                assert!(metric.of(Which::Clean, &end, &end).is_nan());
            }
        }
    }

    #[test]
    fn only_what_is_too_large_for_a_float_is_nan() {
        let logits = [f32::MAX, f32::MIN, f32::MAX, 0.0];
        let of = |metric| value(metric, &logits, &logits);
        assert!(of(Metric::LogitDiff { a: &[0], b: &[1] }).is_nan());
        assert!(of(Metric::LogProb { tokens: &[1] }).is_nan());
        assert_eq!(of(Metric::LogProb { tokens: &[0] }), 0.5_f32.ln());
        assert_eq!(of(Metric::LogProb { tokens: &[0, 2] }), 0.0);
        assert_eq!(of(Metric::Logit { tokens: &[0, 2] }), f32::MAX);
        assert_eq!(of(Metric::Prob { tokens: &[0] }), 0.5);
        assert_eq!(of(Metric::Prob { tokens: &[1] }), 0.0);
        assert_eq!(of(Metric::Rank { token: 1 }), 3.0);
        assert_eq!(of(Metric::Kl), 0.0);
    }

    #[test]
    fn of_equally_likely_tokens_the_first_ranks_first() {
        let ranks = [0, 1, 2].map(|token| value(Metric::Rank { token }, &[1.0, 1.0, 1.0], &[0.0]));
        assert_eq!(ranks, [0.0, 1.0, 2.0]);
    }

    #[test]
    fn the_named_logits_give_the_same_bits_as_all_of_them() {
        let (logits, clean) = ([0.1_f32, 0.7, -0.3], [0.0, 1.0, 2.0]);
        for metric in [
            Metric::LogitDiff { a: &[2], b: &[1] },
            Metric::Logit { tokens: &[0] },
            Metric::LogitChange { tokens: &[1] },
        ] {
            let named = |logits: &[f32]| {
                let tokens = metric.tokens().unwrap();
                End::Of(tokens.iter().map(|&t| (t, logits[t as usize])).collect())
            };
            assert_eq!(
                metric.of(Which::Clean, &named(&logits), &named(&clean)),
                value_of_clean(metric, &logits, &clean)
            );
        }
    }

    fn value_of_clean(metric: Metric<'_>, logits: &[f32], clean: &[f32]) -> f32 {
        let [logits, clean] = [logits, clean].map(|logits| End::All(logits.into()));
        metric.of(Which::Clean, &logits, &clean)
    }

    #[test]
    #[should_panic(expected = "the loss at 2..4 of 4 tokens: the last has no next token")]
    fn a_loss_at_the_last_position_is_a_mistake() {
        Metric::Loss { from: 2, to: 4 }.first_position(4);
    }
}
