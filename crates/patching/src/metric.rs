//! The number that is read off a run's end.

use std::borrow::Cow;
use std::fmt;

use gpt2::Gpt2;
use rayon::prelude::*;
use tensor::{Tensor, log_sum_exp};

/// Rows whose logits of all tokens are held together.
pub(crate) const LOGIT_ROWS: usize = 64;

/// How far a run has moved: one number from the logits of the next token (or, for [`Metric::Loss`],
/// from those at several positions).
///
/// A number that cannot be computed, because the model's logits are not finite, is NaN, whatever the metric:
/// it is never shown as a number, and a mean with it is NaN.
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
    /// once for every run, from several threads.
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
    ) -> Vec<f32> {
        if let Some(tokens) = self.tokens() {
            let of_run = |(run, row): &(usize, &[f32])| {
                let end = End::of_tokens(model, &tokens, row);
                self.of(Which::Patched(*run), &end, clean)
            };
            return runs.par_iter().map(of_run).collect();
        }
        let of_some = |runs: &[(usize, &[f32])]| -> Vec<f32> {
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

    /// The metric of a run, given what it reads of it and of the clean run. What is not a finite number is
    /// NaN.
    #[track_caller]
    pub(crate) fn of(&self, run: Which, end: &End<'_>, clean: &End<'_>) -> f32 {
        let number = match *self {
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
        };
        if number.is_finite() { number } else { f32::NAN }
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
        let total = log_sum_exp(self.all());
        let of_token = |&token: &u32| (f64::from(self.logit(token)) - total).exp();
        tokens.iter().map(of_token).sum::<f64>() as f32
    }

    /// Its logarithm: also where the sum is too small for a float.
    #[track_caller]
    fn log_prob(&self, tokens: &[u32]) -> f32 {
        let logits: Vec<f32> = tokens.iter().map(|&token| self.logit(token)).collect();
        (log_sum_exp(&logits) - log_sum_exp(self.all())) as f32
    }

    /// Of equal logits the first token comes first, as in [`gpt2::generate::rank`]. Logits of which some are
    /// not finite have no order: NaN.
    #[track_caller]
    fn rank(&self, token: u32) -> f32 {
        let (logits, own) = (self.all(), self.logit(token));
        if logits.iter().any(|logit| !logit.is_finite()) {
            return f32::NAN;
        }
        let (before, after) = logits.split_at(token as usize);
        let count = before.iter().filter(|logit| **logit >= own).count()
            + after.iter().filter(|logit| **logit > own).count();
        count as f32
    }
}

/// −ln p(token) of one row of logits, `(vocab_size)`.
pub(crate) fn loss(logits: &[f32], token: u32) -> f32 {
    (log_sum_exp(logits) - f64::from(logits[token as usize])) as f32
}

pub(crate) fn mean(numbers: impl ExactSizeIterator<Item = f32>) -> f32 {
    let n = numbers.len();
    numbers.sum::<f32>() / n as f32
}

/// KL(p ‖ q) of two distributions given as logits.
fn divergence(p: &[f32], q: &[f32]) -> f32 {
    let (p_total, q_total) = (log_sum_exp(p), log_sum_exp(q));
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p) - p_total, f64::from(*q) - q_total);
        p.exp() * (p - q)
    };
    let sum: f64 = p.iter().zip(q).map(term).sum();
    // It cannot be negative but by rounding. (`f64::max` would make 0 of NaN.)
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
        let p = |logits: &[f32], i: usize| {
            logits[i].exp() / logits.iter().map(|x| x.exp()).sum::<f32>()
        };
        let kl: f32 = (0..3)
            .map(|i| p(&clean, i) * (p(&clean, i) / p(&logits, i)).ln())
            .sum();
        let own = |run: Which, logits: &[f32]| {
            assert_eq!(run, Which::Patched(3));
            logits.iter().sum()
        };
        for (metric, expected) in [
            (Metric::LogitDiff { a: &[0], b: &[2] }, 1.0),
            (
                Metric::ProbDiff { a: &[0], b: &[2] },
                p(&logits, 0) - p(&logits, 2),
            ),
            (Metric::Logit { tokens: &[2] }, 2.0),
            (Metric::Prob { tokens: &[2] }, p(&logits, 2)),
            (Metric::LogProb { tokens: &[2] }, p(&logits, 2).ln()),
            (Metric::Rank { token: 0 }, 0.0),
            (Metric::Rank { token: 1 }, 2.0),
            (Metric::LogitChange { tokens: &[0] }, 3.0),
            (
                Metric::ProbChange { tokens: &[0] },
                p(&logits, 0) - p(&clean, 0),
            ),
            // Sets of tokens.
            (
                Metric::LogitDiff {
                    a: &[0, 2],
                    b: &[1],
                },
                1.5,
            ),
            (
                Metric::ProbDiff {
                    a: &[0, 2],
                    b: &[1],
                },
                p(&logits, 0) + p(&logits, 2) - p(&logits, 1),
            ),
            (Metric::Logit { tokens: &[1, 2] }, 1.5),
            (Metric::LogitChange { tokens: &[0, 2] }, 1.5),
            (
                Metric::Prob { tokens: &[1, 2] },
                p(&logits, 1) + p(&logits, 2),
            ),
            (
                Metric::LogProb { tokens: &[1, 2] },
                (p(&logits, 1) + p(&logits, 2)).ln(),
            ),
            (Metric::ProbChange { tokens: &[0, 1, 2] }, 0.0),
            (Metric::Kl, kl),
            (Metric::Custom(&own), 6.0),
        ] {
            let got = value(metric, &logits, &clean);
            assert!(
                (got - expected).abs() < 1e-6,
                "{metric:?}: {got} instead of {expected}"
            );
        }
    }

    #[test]
    fn a_run_does_not_diverge_from_itself() {
        assert_eq!(
            value(Metric::Kl, &[0.3, -5.0, 80.0], &[0.3, -5.0, 80.0]),
            0.0
        );
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
