//! The derivative of a metric with respect to logits: where a backward pass begins.
//!
//! With p the probabilities of all tokens, pᵢ = e^lᵢ / Σ e^l, and so ∂pᵢ/∂lⱼ = pᵢ (δᵢⱼ − pⱼ):
//!
//! | metric | derivative with respect to the logit lⱼ |
//! |---|---|
//! | mean logit of the tokens S | nⱼ / \|S\|, where nⱼ says how often S has token j |
//! | P = Σ p of the tokens S | pⱼ (nⱼ − P) |
//! | ln P | pⱼ nⱼ / P − pⱼ |
//! | KL(clean ‖ run) | pⱼ − p_clean,ⱼ |
//! | mean of −ln p(next) at n positions | (pⱼ − [j is next]) / n, at each of them |
//!
//! The clean run is a constant, so what is subtracted for it has no derivative. A rank is a step function, and of
//! the caller's own function nothing is known: they have none.

use gpt2::Gpt2;
use gpt2::generate::LogProbs;
use tensor::Tensor;

use super::Metric;
use crate::Error;

impl Metric<'_> {
    /// Whether the metric has a derivative.
    ///
    /// # Errors
    /// [`Error::NoGradient`] for a rank, and for the caller's own function.
    pub fn check_gradient(&self) -> Result<(), Error> {
        match self {
            Self::Rank { .. } => Err(Error::NoGradient { metric: "a rank".to_owned() }),
            Self::Custom(_) => Err(Error::NoGradient { metric: "a custom metric".to_owned() }),
            _ => Ok(()),
        }
    }

    /// The derivative with respect to the logits of the next token, `(vocab_size)`, from these logits and those
    /// of the clean run; none for a loss, which is read at other positions ([`Metric::gradient_of_loss`]). It
    /// is NaN where the metric cannot be computed.
    ///
    /// # Errors
    /// As [`Metric::check_gradient`].
    ///
    /// # Panics
    /// If the metric names a token that is not there.
    pub fn gradient(&self, logits: &[f32], clean: &[f32]) -> Result<Option<Vec<f32>>, Error> {
        self.check_gradient()?;
        let mut gradient = vec![0.0; logits.len()];
        match *self {
            Self::LogitDiff { a, b } => {
                add_mean_logit(&mut gradient, a, 1.0);
                add_mean_logit(&mut gradient, b, -1.0);
            }
            Self::Logit { tokens } | Self::LogitChange { tokens } => {
                add_mean_logit(&mut gradient, tokens, 1.0);
            }
            Self::ProbDiff { a, b } => {
                add_prob(&mut gradient, LogProbs::of(logits), a, 1.0);
                add_prob(&mut gradient, LogProbs::of(logits), b, -1.0);
            }
            Self::Prob { tokens } | Self::ProbChange { tokens } => {
                add_prob(&mut gradient, LogProbs::of(logits), tokens, 1.0);
            }
            Self::LogProb { tokens } => add_log_prob(&mut gradient, LogProbs::of(logits), tokens),
            Self::Kl => {
                let (run, clean) = (LogProbs::of(logits), LogProbs::of(clean));
                for (token, gradient) in (0..).zip(&mut gradient) {
                    *gradient = (run.prob(token) - clean.prob(token)) as f32;
                }
            }
            Self::Loss { .. } | Self::Rank { .. } | Self::Custom(_) => return Ok(None),
        }
        Ok(Some(gradient))
    }

    /// The derivative of the mean loss of the `next` tokens with respect to their logits, `(n, vocab_size)`.
    ///
    /// # Panics
    /// If there is not one next token for each row of logits.
    #[track_caller]
    pub fn gradient_of_loss(logits: &Tensor, next: &[u32]) -> Tensor {
        let [n, _] = logits.dims();
        assert!(n == next.len(), "{} next tokens for logits of {:?}", next.len(), logits.shape());
        let mut gradient = Tensor::zeros(logits.shape());
        for (row, &next) in next.iter().enumerate() {
            let probs = LogProbs::of(logits.row(row));
            for (token, gradient) in (0..).zip(gradient.row_mut(row)) {
                *gradient = ((probs.prob(token) - f64::from(token == next)) / n as f64) as f32;
            }
        }
        gradient
    }

    /// The derivative with respect to a run's residual stream after the last layer norm, `(T, C)`, which is
    /// `end`. `base` is the base prompt, and `clean` the last row of the clean run's end, `(C)`.
    ///
    /// # Errors
    /// As [`Metric::check_gradient`].
    pub(crate) fn gradient_of_end(
        &self,
        model: &Gpt2,
        end: &Tensor,
        base: &[u32],
        clean: &[f32],
    ) -> Result<Tensor, Error> {
        self.check_gradient()?;
        let ([t, c], v) = (end.dims(), model.config.vocab_size);
        let first = self.first_position(t);
        let dlogits = if let Self::Loss { from, to } = *self {
            let logits = model.unembed_rows(end.view().rows(from..to)); // (n, V)
            Self::gradient_of_loss(&logits, &base[from + 1..=to])
        } else {
            let (mut logits, mut clean_logits) = (vec![0.0; v], Vec::new());
            // The derivative of logits does not depend on them.
            if self.tokens().is_none() {
                logits = model.unembed_rows(end.view().rows(t - 1..t)).into_data();
            }
            if matches!(self, Self::Kl) {
                clean_logits = model.unembed_rows(&Tensor::new(&[1, c], clean.to_vec())).into_data();
            }
            let gradient = self.gradient(&logits, &clean_logits)?;
            Tensor::new(&[1, v], gradient.unwrap_or_default())
        };
        let rows = model.unembed_backward(&dlogits); // (n, C)
        let mut dend = Tensor::zeros(&[t, c]);
        dend.data_mut()[first * c..][..rows.data().len()].copy_from_slice(rows.data());
        Ok(dend)
    }
}

/// sign · the mean logit of the tokens.
fn add_mean_logit(gradient: &mut [f32], tokens: &[u32], sign: f32) {
    for &token in tokens {
        gradient[token as usize] += sign / tokens.len() as f32;
    }
}

/// sign · P: pⱼ (nⱼ − P).
fn add_prob(gradient: &mut [f32], probs: LogProbs<'_>, tokens: &[u32], sign: f64) {
    let total: f64 = tokens.iter().map(|&token| probs.prob(token)).sum();
    for (token, gradient) in (0..).zip(gradient.iter_mut()) {
        *gradient -= (sign * probs.prob(token) * total) as f32;
    }
    for &token in tokens {
        gradient[token as usize] += (sign * probs.prob(token)) as f32;
    }
}

/// ln P: pⱼ nⱼ / P − pⱼ, also where P is too small for a float.
fn add_log_prob(gradient: &mut [f32], probs: LogProbs<'_>, tokens: &[u32]) {
    for (token, gradient) in (0..).zip(gradient.iter_mut()) {
        *gradient -= probs.prob(token) as f32;
    }
    let of_tokens = || tokens.iter().map(|&token| probs.of_token(token));
    let largest = of_tokens().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = of_tokens().map(|x| (x - largest).exp()).sum();
    for &token in tokens {
        gradient[token as usize] += ((probs.of_token(token) - largest).exp() / sum) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::loss;

    const LOGITS: [f32; 5] = [1.5, -0.5, 0.25, 2.0, -3.0];
    const CLEAN: [f32; 5] = [0.0, 1.0, -1.0, 0.5, 0.25];

    /// Every metric that has a derivative with respect to the last logits.
    const METRICS: [Metric<'static>; 13] = [
        Metric::LogitDiff { a: &[0], b: &[2] },
        Metric::LogitDiff { a: &[0, 3], b: &[2, 1, 4] },
        Metric::ProbDiff { a: &[0], b: &[3] },
        Metric::ProbDiff { a: &[0, 1], b: &[3, 4] },
        Metric::Logit { tokens: &[2] },
        Metric::Logit { tokens: &[2, 4] },
        Metric::Prob { tokens: &[3] },
        Metric::Prob { tokens: &[0, 1, 4] },
        Metric::LogProb { tokens: &[1] },
        Metric::LogProb { tokens: &[0, 4] },
        Metric::LogitChange { tokens: &[0, 1] },
        Metric::ProbChange { tokens: &[3, 2] },
        Metric::Kl,
    ];

    #[test]
    fn the_gradient_of_every_metric_is_its_slope() {
        for metric in METRICS {
            let gradient = metric.gradient(&LOGITS, &CLEAN).unwrap().unwrap();
            for j in 0..5 {
                let h = 1e-2;
                let moved = |h: f32| {
                    let mut logits = LOGITS;
                    logits[j] += h;
                    f64::from(metric.of_logits(&logits, &CLEAN).unwrap())
                };
                let slope = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                let difference = (f64::from(gradient[j]) - slope).abs();
                assert!(difference < 2e-4, "{metric:?}, {j}: {} not {slope}", gradient[j]);
            }
        }
    }

    #[test]
    fn the_gradient_of_a_loss_is_its_slope() {
        let logits = Tensor::new(&[2, 5], [LOGITS, CLEAN].concat());
        let next = [3, 1];
        let gradient = Metric::gradient_of_loss(&logits, &next);
        for i in 0..10 {
            let h = 1e-2;
            let mean = |h: f32| {
                let mut logits = logits.clone();
                logits.data_mut()[i] += h;
                f64::from(loss(logits.row(0), next[0]) + loss(logits.row(1), next[1])) / 2.0
            };
            let slope = (mean(h) - mean(-h)) / f64::from(2.0 * h);
            assert!((f64::from(gradient.data()[i]) - slope).abs() < 1e-4);
        }
    }

    #[test]
    fn a_metric_without_a_gradient_is_refused_by_name() {
        let own = |_, _: &[f32]| 0.0;
        for (metric, name) in
            [(Metric::Rank { token: 0 }, "a rank"), (Metric::Custom(&own), "a custom metric")]
        {
            let error = metric.gradient(&LOGITS, &CLEAN).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} has no gradient")), "{error}");
            assert!(error.contains("a log probability"), "{error}");
        }
    }

    #[test]
    fn the_gradient_of_what_cannot_be_computed_is_nan() {
        for metric in METRICS.iter().filter(|metric| metric.tokens().is_none()) {
            let gradient = metric.gradient(&[1.0, f32::NAN, 0.0, 0.0, 0.0], &CLEAN).unwrap().unwrap();
            assert!(gradient.iter().all(|x| x.is_nan()), "{metric:?}: {gradient:?}");
        }
    }

    #[test]
    fn a_probability_too_small_for_a_float_has_a_gradient() {
        let logits = [0.0, 400.0, 1.0, 0.0, 0.0];
        let gradient = Metric::LogProb { tokens: &[0] }.gradient(&logits, &CLEAN).unwrap().unwrap();
        assert_eq!(gradient, [1.0, -1.0, 0.0, 0.0, 0.0]);
    }
}
