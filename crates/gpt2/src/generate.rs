//! Writing on: one token after the other, each drawn from the logits of the one before.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::tokenizer::END_OF_TEXT;
use crate::{Error, Gpt2, no_hook};

/// How the next token is drawn from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this before the softmax. 0 takes the most likely token (*greedy*).
    pub temperature: f32,
    /// Only the k most likely tokens may be drawn.
    pub top_k: Option<usize>,
    /// Equal seeds draw equal texts.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: None,
        seed: 0,
    };
}

impl Gpt2 {
    /// Goes on after `ids` for at most `max_new_tokens` tokens, and stops after `<|endoftext|>`.
    /// Returns the prompt and what was written. A text longer than `block_size` is read from its
    /// last `block_size` tokens.
    ///
    /// # Errors
    /// If the prompt is empty or holds a token that the model does not know.
    pub fn generate(
        &self,
        ids: &[u32],
        max_new_tokens: usize,
        sampling: Sampling,
    ) -> Result<Vec<u32>, Error> {
        let window = |ids: &[u32]| ids.len().saturating_sub(self.config.block_size);
        self.check_prompt(&ids[window(ids)..])?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(sampling.seed);
        let mut ids = ids.to_vec();
        for _ in 0..max_new_tokens {
            let logits = self.next_token_logits(&ids[window(&ids)..], &mut no_hook);
            let next = draw(&logits, sampling, &mut rng);
            ids.push(next);
            if next == END_OF_TEXT {
                break;
            }
        }
        Ok(ids)
    }
}

fn draw(logits: &[f32], sampling: Sampling, rng: &mut Xoshiro256PlusPlus) -> u32 {
    if sampling.temperature <= 0.0 || sampling.top_k == Some(1) {
        return tensor::argmax(logits) as u32;
    }
    let ranked = rank(logits, sampling.top_k.unwrap_or(logits.len()));
    let max = logits[ranked[0] as usize];
    // In f64, so that a small temperature does not overflow and the sum does not lose the tail.
    let weight =
        |id: &u32| (f64::from(logits[*id as usize] - max) / f64::from(sampling.temperature)).exp();
    let mut left = rng.random::<f64>() * ranked.iter().map(weight).sum::<f64>();
    for id in &ranked {
        left -= weight(id);
        if left < 0.0 {
            return *id;
        }
    }
    ranked[0]
}

/// The ids of the `count` largest logits, the largest first; of equal ones the smaller id first.
pub fn rank(logits: &[f32], count: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| {
        logits[*b as usize]
            .total_cmp(&logits[*a as usize])
            .then(a.cmp(b))
    };
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
    use crate::Pretrained;

    #[test]
    fn ranking_puts_the_largest_first_and_equal_ones_by_id() {
        assert_eq!(rank(&[1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(rank(&[1.0, 3.0], 9), [1, 0]);
        assert_eq!(rank(&[1.0, 3.0], 0), [0_u32; 0]);
    }

    #[test]
    fn drawing_follows_the_probabilities_and_stays_within_top_k() {
        let logits = [1.0_f32.ln(), 3.0_f32.ln(), 4.0_f32.ln(), -1e9];
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut counts = |top_k| {
            let sampling = Sampling {
                temperature: 1.0,
                top_k,
                seed: 0,
            };
            let mut counts = [0_i32; 4];
            (0..8000).for_each(|_| counts[draw(&logits, sampling, &mut rng) as usize] += 1);
            counts
        };
        let all = counts(None);
        for (count, expected) in all.into_iter().zip([1000, 3000, 4000, 0]) {
            assert!((count - expected).abs() <= 150, "{all:?}");
        }
        let two = counts(Some(2));
        assert!(two[0] == 0 && (two[1] - 3429).abs() < 200, "{two:?}");
    }

    #[test]
    fn a_seed_writes_the_same_text_again_and_another_seed_another() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = tiny.tokenizer.encode("Her name was").unwrap();
        let write = |seed| {
            let sampling = Sampling {
                temperature: 1.0,
                top_k: Some(40),
                seed,
            };
            tiny.model.generate(&ids, 12, sampling).unwrap()
        };
        assert_eq!(write(7), write(7));
        assert!((8..20).any(|seed| write(seed) != write(7)));
    }

    #[test]
    fn a_text_beyond_block_size_goes_on_from_its_end() {
        let tiny = Pretrained::tiny().unwrap();
        let ids: Vec<u32> = (0..200).map(|i| [373, 257, 1353][i % 3]).collect();
        let longer = tiny.model.generate(&ids, 2, Sampling::GREEDY).unwrap();
        assert!(longer.len() > 200 && longer[..200] == ids);
    }
}
