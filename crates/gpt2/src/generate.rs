//! Generation: one token after the other, each drawn from the logits of the one before.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use tensor::{all_finite, argmax, log_sum_exp_parts};

use crate::{Error, Gpt2, Session};

/// How the next token is drawn from the logits. The settings are applied in the order of Hugging Face's
/// transformers: temperature, top-k, top-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this before the softmax. 0 takes the most likely token (*greedy*).
    pub temperature: f32,
    /// Only the k most likely tokens may be drawn.
    pub top_k: Option<usize>,
    /// Only the most likely tokens may be drawn, as few as have this probability together; the one that
    /// reaches it is among them (*nucleus sampling*, Holtzman et al. 2019, arXiv 1904.09751).
    pub top_p: Option<f32>,
    /// Equal seeds draw equal texts.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: None, top_p: None, seed: 0 };

    /// Whether tokens can be drawn with these settings.
    ///
    /// # Errors
    /// If the temperature is negative or not finite, k is 0, or p is not above 0 and at most 1.
    pub fn check(self) -> Result<(), Error> {
        let error = |setting, value: &dyn ToString, expected| {
            Err(Error::Sampling { setting, value: value.to_string(), expected })
        };
        match self {
            Self { temperature, .. } if !temperature.is_finite() || temperature < 0.0 => {
                error("temperature", &temperature, "a finite number from 0 (always the most likely token) on")
            }
            Self { top_k: Some(0), .. } => error("top-k", &0, "1 or more, or none for all tokens"),
            Self { top_p: Some(p), .. } if !(p > 0.0 && p <= 1.0) => {
                error("top-p", &p, "a probability above 0 and at most 1")
            }
            _ => Ok(()),
        }
    }

    /// The tokens that may be drawn after these finite logits, the most likely first, and their
    /// probabilities, which add up to 1.
    pub fn distribution(self, logits: &[f32]) -> Vec<(u32, f64)> {
        if self.temperature <= 0.0 || self.top_k == Some(1) {
            return vec![(argmax(logits) as u32, 1.0)];
        }
        let mut ids = rank(logits, self.top_k.unwrap_or(logits.len()));
        let logit = |id: u32| f64::from(logits[id as usize]);
        let largest = ids.first().map_or(0.0, |&id| logit(id));
        // In f64, so that a small temperature does not overflow and the sum does not lose the tail.
        let weight = |&id: &u32| ((logit(id) - largest) / f64::from(self.temperature)).exp();
        let mut weights: Vec<f64> = ids.iter().map(weight).collect();
        if let Some(p) = self.top_p.filter(|p| *p < 1.0) {
            let enough = f64::from(p) * weights.iter().sum::<f64>();
            let mut before = 0.0;
            let is_needed = |weight: &&f64| {
                let is_needed = before < enough;
                before += **weight;
                is_needed
            };
            let needed = weights.iter().take_while(is_needed).count();
            weights.truncate(needed);
            ids.truncate(needed);
        }
        let total: f64 = weights.iter().sum();
        let probs = weights.into_iter().map(|weight| weight / total);
        ids.into_iter().zip(probs).collect()
    }

    fn draw(self, logits: &[f32], rng: &mut Xoshiro256PlusPlus) -> u32 {
        match self.distribution(logits).as_slice() {
            [(only, _)] => *only,
            tokens => {
                let mut left = rng.random::<f64>();
                let drawn = tokens.iter().find(|(_, prob)| {
                    left -= prob;
                    left < 0.0
                });
                // The probabilities may add up to a little less than 1.
                drawn.or(tokens.first()).map_or(0, |(id, _)| *id)
            }
        }
    }
}

/// A text that a model continues: an endless iterator over its next tokens.
///
/// A text longer than `block_size` is read from its last `block_size` tokens; from then on each token takes
/// the time of a whole run.
#[derive(Clone, Debug)]
pub struct Writer<'m> {
    session: Session<'m>,
    block_size: usize,
    ids: Vec<u32>,
    sampling: Sampling,
    rng: Xoshiro256PlusPlus,
}

/// A token that a model has written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Written {
    /// The token.
    pub id: u32,
    /// Its log probability according to the model, without temperature, top-k and top-p.
    pub log_prob: f64,
}

impl Writer<'_> {
    fn write(&mut self) -> Result<Written, Error> {
        let window = self.ids.len().saturating_sub(self.block_size);
        let logits = self.session.next_token_logits(&self.ids[window..])?;
        check_logits(&logits, self.ids.len())?;
        let id = self.sampling.draw(&logits, &mut self.rng);
        self.ids.push(id);
        Ok(Written { id, log_prob: log_prob(&logits, id) })
    }
}

impl Iterator for Writer<'_> {
    /// An error if the logits are not finite numbers.
    type Item = Result<Written, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.write())
    }
}

impl Gpt2 {
    /// An iterator that continues `ids`, one token at a time.
    ///
    /// # Errors
    /// If the prompt is empty or holds a token that the model does not know, or as [`Sampling::check`].
    pub fn writer(&self, ids: &[u32], sampling: Sampling) -> Result<Writer<'_>, Error> {
        sampling.check()?;
        let block_size = self.config.block_size;
        self.check_prompt(&ids[ids.len().saturating_sub(block_size)..])?;
        Ok(Writer {
            session: Session::new(self),
            block_size,
            ids: ids.to_vec(),
            sampling,
            rng: Xoshiro256PlusPlus::seed_from_u64(sampling.seed),
        })
    }

    /// Continues `ids` by at most `max_new_tokens` tokens, and stops after the token `end`. Returns the
    /// prompt and the new tokens. A text longer than `block_size` is read from its last `block_size`
    /// tokens.
    ///
    /// # Errors
    /// As [`Gpt2::writer`], or if the logits are not finite numbers.
    pub fn generate(
        &self,
        ids: &[u32],
        max_new_tokens: usize,
        sampling: Sampling,
        end: Option<u32>,
    ) -> Result<Vec<u32>, Error> {
        let mut all = ids.to_vec();
        for written in self.writer(ids, sampling)?.take(max_new_tokens) {
            let id = written?.id;
            all.push(id);
            if Some(id) == end {
                break;
            }
        }
        Ok(all)
    }
}

/// Whether these logits, which follow `count` tokens, are all finite.
///
/// # Errors
/// If one of them is not finite, with its token.
pub fn check_logits(logits: &[f32], count: usize) -> Result<(), Error> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(id) => Err(Error::NotFinite { count, id: id as u32, logit: logits[id] }),
        None => Ok(()),
    }
}

/// The log probability of one token, given all logits: logit − log Σ e^logit.
pub fn log_prob(logits: &[f32], id: u32) -> f64 {
    LogProbs::of(logits).of_token(id)
}

/// The log probabilities after one row of logits, `(vocab_size)`: logit − log Σ e^logit. They are NaN unless
/// all logits are finite.
#[derive(Clone, Copy, Debug)]
pub struct LogProbs<'a> {
    logits: &'a [f32],
    max: f64,
    log_sum: f64,
}

impl<'a> LogProbs<'a> {
    /// Those of these logits.
    pub fn of(logits: &'a [f32]) -> Self {
        let [max, log_sum] = if all_finite(logits) { log_sum_exp_parts(logits) } else { [f64::NAN; 2] };
        Self { logits, max, log_sum }
    }

    /// That of one token.
    ///
    /// # Panics
    /// If the token is beyond the vocabulary.
    pub fn of_token(&self, id: u32) -> f64 {
        // The difference of large logits first: it is exact.
        (f64::from(self.logits[id as usize]) - self.max) - self.log_sum
    }

    /// Its probability.
    ///
    /// # Panics
    /// If the token is beyond the vocabulary.
    pub fn prob(&self, id: u32) -> f64 {
        self.of_token(id).exp()
    }
}

/// The ids of the `count` largest logits, the largest first; of equal ones the smaller id first. Logits that
/// are not finite ([`check_logits`]) have no order.
pub fn rank(logits: &[f32], count: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if (1..ids.len()).contains(&count) {
        ids.select_nth_unstable_by(count - 1, order);
    }
    ids.truncate(count);
    ids.sort_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::END_OF_TEXT;
    use crate::{Pretrained, no_hook};

    fn sampling(temperature: f32, top_k: Option<usize>, top_p: Option<f32>) -> Sampling {
        Sampling { temperature, top_k, top_p, seed: 7 }
    }

    #[test]
    fn ranking_puts_the_largest_first_and_equal_ones_by_id() {
        assert_eq!(rank(&[1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(rank(&[1.0, 3.0], 9), [1, 0]);
        assert_eq!(rank(&[1.0, 3.0], 0), [0_u32; 0]);
    }

    /// Probabilities .4, .3, .2, .1 of the tokens 2, 0, 3, 1.
    fn four_tokens() -> [f32; 4] {
        [3.0_f32, 1.0, 4.0, 2.0].map(f32::ln)
    }

    #[track_caller]
    fn assert_distribution(sampling: Sampling, expected: &[(u32, f64)]) {
        let got = sampling.distribution(&four_tokens());
        assert_eq!(got.len(), expected.len(), "{got:?}");
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!(got.0, expected.0);
            assert!((got.1 - expected.1).abs() < 1e-6, "{got:?}");
        }
    }

    #[test]
    fn top_p_keeps_the_token_that_reaches_it_and_no_further_one() {
        let all = [(2, 0.4), (0, 0.3), (3, 0.2), (1, 0.1)];
        assert_distribution(sampling(1.0, None, None), &all);
        assert_distribution(sampling(1.0, None, Some(1.0)), &all);
        assert_distribution(sampling(1.0, None, Some(0.01)), &[(2, 1.0)]);
        assert_distribution(sampling(1.0, None, Some(0.39)), &[(2, 1.0)]);
        let two = [(2, 4.0 / 7.0), (0, 3.0 / 7.0)];
        assert_distribution(sampling(1.0, None, Some(0.41)), &two);
        assert_distribution(sampling(1.0, None, Some(0.69)), &two);
        let three = [(2, 4.0 / 9.0), (0, 3.0 / 9.0), (3, 2.0 / 9.0)];
        assert_distribution(sampling(1.0, None, Some(0.71)), &three);
    }

    #[test]
    fn the_temperature_comes_first_then_top_k_then_top_p() {
        // At temperature ½ the probabilities are 16, 9, 4 and 1 of 30.
        let two = [(2, 16.0 / 25.0), (0, 9.0 / 25.0)];
        assert_distribution(sampling(0.5, None, Some(0.6)), &two);
        // Of the two that top-k leaves, the first has .64.
        assert_distribution(sampling(0.5, Some(2), Some(0.6)), &[(2, 1.0)]);
        assert_distribution(sampling(0.0, Some(2), Some(0.9)), &[(2, 1.0)]);
        assert_distribution(sampling(1e-30, None, None), &[(2, 1.0), (0, 0.0), (3, 0.0), (1, 0.0)]);
    }

    #[test]
    fn probabilities_add_up_to_one_whatever_the_level_of_the_logits() {
        for level in [0.0, -1e4, 1e8, 1e20, f32::MAX] {
            let logits = [level, level, -f32::MAX];
            let probs = LogProbs::of(&logits);
            assert_eq!(probs.prob(2), 0.0, "{level}");
            for id in [0, 1] {
                assert!((probs.prob(id) - 0.5).abs() < 1e-12, "{level}");
                assert_eq!(log_prob(&logits, id), probs.of_token(id));
            }
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let logits = [1.0, bad];
            let probs = LogProbs::of(&logits);
            assert!(probs.prob(0).is_nan() && probs.of_token(1).is_nan());
        }
    }

    #[test]
    fn drawing_follows_the_probabilities_and_stays_within_them() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut counts = |sampling: Sampling| {
            let mut counts = [0_i32; 4];
            (0..8000).for_each(|_| counts[sampling.draw(&four_tokens(), &mut rng) as usize] += 1);
            counts
        };
        // Five standard deviations are 225 at the most.
        for (sampling, expected) in [
            (sampling(1.0, None, None), [2400, 800, 3200, 1600]),
            (sampling(0.5, None, None), [2400, 267, 4267, 1067]),
            (sampling(1.0, Some(2), None), [3429, 0, 4571, 0]),
            (sampling(1.0, None, Some(0.8)), [2667, 0, 3556, 1778]),
            (sampling(0.0, None, None), [0, 0, 8000, 0]),
        ] {
            let got = counts(sampling);
            for (got, expected) in got.into_iter().zip(expected) {
                let may_differ = if expected % 8000 == 0 { 0 } else { 225 };
                assert!((got - expected).abs() <= may_differ, "{sampling:?}: {got}");
            }
        }
    }

    #[test]
    fn settings_that_draw_nothing_are_refused_with_their_value() {
        for (sampling, part) in [
            (sampling(-0.5, None, None), "the temperature cannot be -0.5"),
            (sampling(f32::NAN, None, None), "the temperature cannot be NaN"),
            (sampling(f32::INFINITY, None, None), "the temperature cannot be inf"),
            (sampling(1.0, Some(0), None), "the top-k cannot be 0"),
            (sampling(1.0, None, Some(0.0)), "the top-p cannot be 0"),
            (sampling(1.0, None, Some(1.5)), "the top-p cannot be 1.5"),
            (sampling(1.0, None, Some(f32::NAN)), "the top-p cannot be NaN"),
        ] {
            let error = sampling.check().unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
            let tiny = Pretrained::tiny().unwrap();
            assert!(tiny.model.writer(&[1], sampling).is_err());
        }
        assert!(sampling(0.0, Some(1), Some(1.0)).check().is_ok());
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error_and_never_a_token() {
        let mut model = Pretrained::tiny().unwrap().model;
        let mut head = model.wte.clone();
        head.row_mut(17).fill(f32::MAX);
        model.lm_head = Some(head);
        for sampling in [Sampling::GREEDY, sampling(1.0, None, None)] {
            let error = model.generate(&[373], 3, sampling, None).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("after 1 token the logit of token 17 is "), "{error}");
        }
        assert!(check_logits(&[1.0, f32::NAN], 2).is_err());
        assert!(check_logits(&[1.0, f32::NEG_INFINITY], 2).is_err());
        assert!(check_logits(&[1.0, -1e30], 2).is_ok());
    }

    #[test]
    fn a_seed_writes_the_same_text_again_and_another_seed_another() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = tiny.tokenizer.encode("Her name was").unwrap();
        let write = |seed| {
            let sampling = Sampling { seed, ..sampling(1.0, Some(40), Some(0.95)) };
            tiny.model.generate(&ids, 12, sampling, None).unwrap()
        };
        assert_eq!(write(7), write(7));
        assert!((8..20).any(|seed| write(seed) != write(7)));
    }

    #[test]
    fn a_token_comes_with_the_log_probability_of_the_plain_way() {
        let tiny = Pretrained::tiny().unwrap();
        let mut ids = tiny.tokenizer.encode("Her name was").unwrap();
        let writer = tiny.model.writer(&ids, sampling(2.0, Some(9), None)).unwrap();
        for written in writer.take(10) {
            let Written { id, log_prob } = written.unwrap();
            let logits = tiny.model.next_token_logits(&ids, &mut no_hook);
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let expected = f64::from(logits[id as usize]) - sum.ln();
            assert!((log_prob - expected).abs() < 1e-4, "{log_prob}, not {expected}");
            ids.push(id);
        }
    }

    #[test]
    fn writing_ends_after_the_token_that_ends_a_text() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = tiny.tokenizer.encode("Famous computer scientist Alan").unwrap();
        let write = |end| tiny.model.generate(&ids, 60, Sampling::GREEDY, end).unwrap();
        let ended = write(Some(END_OF_TEXT));
        assert!(ended.len() < ids.len() + 60 && ended.last() == Some(&END_OF_TEXT));
        let whole = write(None);
        assert!(whole.len() == ids.len() + 60 && whole.starts_with(&ended));
    }

    #[test]
    fn a_text_beyond_block_size_goes_on_from_its_end() {
        let tiny = Pretrained::tiny().unwrap();
        let ids: Vec<u32> = (0..200).map(|i| [373, 257, 1353][i % 3]).collect();
        let longer = tiny.model.generate(&ids, 2, Sampling::GREEDY, None).unwrap();
        assert!(longer.len() == 202 && longer[..200] == ids);
        let second = tiny.model.next_token_logits(&longer[201 - 128..201], &mut no_hook);
        assert_eq!(longer[201], argmax(&second) as u32);
    }
}
