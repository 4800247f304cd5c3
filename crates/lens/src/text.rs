//! How well a text is predicted, token by token.
//!
//! Each token but the first has a log probability given those before it. The mean of the negative ones is
//! the text's *loss* in nats, what GPT-2 was trained to make small (`labels = ids` of Hugging Face's
//! transformers, TransformerLens's `return_type="loss"`), and e^loss is its *perplexity*.

use gpt2::generate::{check_logits, log_prob};
use gpt2::{Gpt2, no_hook};
use rayon::prelude::*;
use tensor::{Tensor, argmax};

use crate::Error;

/// Rows of logits that are held at once: 26 MB of GPT-2's.
const ROWS: usize = 128;

/// How well one token is predicted by those before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Its log probability.
    pub log_prob: f64,
    /// The number of tokens before it, the most likely first (of equal logits the smaller id first).
    pub rank: usize,
    /// The most likely token in its place.
    pub likeliest: u32,
    /// The log probability of that one.
    pub likeliest_log_prob: f64,
}

/// The scores of each token but the first, T − 1.
///
/// # Errors
/// If the model cannot read the text, or its logits are not finite numbers.
pub fn score_text(model: &Gpt2, ids: &[u32]) -> Result<Vec<TokenScore>, Error> {
    model.check_prompt(ids)?;
    score_rows(model, &model.transformer(ids, &mut no_hook), ids)
}

/// [`score_text`] of a finished run: `x`, `(T, C)`, is the output of `ln_f`
/// ([`gpt2::SiteKind::LnFinalNormalized`]). The unembedding is applied to some rows at a time.
///
/// # Errors
/// If the logits are not finite numbers.
///
/// # Panics
/// If there is no token, or not a row for each.
pub fn score_rows(model: &Gpt2, x: &Tensor, ids: &[u32]) -> Result<Vec<TokenScore>, Error> {
    assert_eq!(x.n_rows(), ids.len(), "rows of a text");
    let mut scores = Vec::new();
    for (chunk, next) in ids[1..].chunks(ROWS).enumerate() {
        let first = chunk * ROWS;
        let logits = model.unembed(x.view().rows(first..first + next.len())); // (rows, V)
        let rows = next.par_iter().enumerate();
        let of_rows = rows.map(|(i, &id)| {
            check_logits(logits.row(i), first + i + 1)?;
            Ok(score(logits.row(i), id))
        });
        scores.extend(of_rows.collect::<Result<Vec<_>, Error>>()?);
    }
    Ok(scores)
}

fn score(logits: &[f32], id: u32) -> TokenScore {
    let logit = logits[id as usize];
    let is_before = |(other, x): &(usize, &f32)| **x > logit || (**x == logit && *other < id as usize);
    let likeliest = argmax(logits);
    let likeliest_log_prob = log_prob(logits, likeliest as u32);
    TokenScore {
        // log Σ e^logit is the same for both.
        log_prob: likeliest_log_prob + f64::from(logit) - f64::from(logits[likeliest]),
        rank: logits.iter().enumerate().filter(is_before).count(),
        likeliest: likeliest as u32,
        likeliest_log_prob,
    }
}

/// The mean negative log probability in nats; `None` if there are no scores.
pub fn loss(scores: &[TokenScore]) -> Option<f64> {
    let sum: f64 = scores.iter().map(|score| score.log_prob).sum();
    (!scores.is_empty()).then(|| -sum / scores.len() as f64)
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;

    use super::*;
    use crate::processing::{Flags, process};

    #[test]
    fn scores_in_pieces_are_those_of_all_logits_at_once() {
        let mut tiny = Pretrained::tiny().unwrap().model;
        // More positions than rows are held at once.
        tiny.config.block_size = ROWS + 20;
        tiny.wpe = Tensor::new(&[ROWS + 20, 64], tiny.wpe.data().repeat(2)[..(ROWS + 20) * 64].to_vec());
        let ids: Vec<u32> = (0..ROWS + 20).map(|i| [373, 257, 1353, 5437][i % 4]).collect();
        let logits = tiny.forward(&ids, &mut no_hook);
        let scores = score_text(&tiny, &ids).unwrap();
        assert_eq!(scores.len(), ids.len() - 1);
        for (pos, got) in scores.iter().enumerate() {
            assert_eq!(*got, score(logits.row(pos), ids[pos + 1]));
        }
    }

    #[test]
    fn a_score_counts_the_tokens_before_and_names_the_first() {
        let logits = [1.0_f32, 3.0, 4.0, 3.0].map(f32::ln);
        let got = score(&logits, 3);
        assert_eq!((got.rank, got.likeliest), (2, 2));
        assert!((got.log_prob - (3.0_f64 / 11.0).ln()).abs() < 1e-6);
        assert!((got.likeliest_log_prob - (4.0_f64 / 11.0).ln()).abs() < 1e-6);
    }

    #[test]
    fn one_token_has_no_loss() {
        let tiny = Pretrained::tiny().unwrap().model;
        assert_eq!(loss(&score_text(&tiny, &[373]).unwrap()), None);
        let two = score_text(&tiny, &[373, 257]).unwrap();
        assert_eq!(loss(&two), Some(-two[0].log_prob));
        assert!(score_text(&tiny, &[]).is_err());
    }

    #[test]
    fn processed_weights_predict_as_well() {
        let tiny = Pretrained::tiny().unwrap().model;
        let ids = [48736, 5437, 373, 257, 1353, 12, 1662];
        let raw = score_text(&tiny, &ids).unwrap();
        let processed = score_text(&process(&tiny, Flags::DEFAULT), &ids).unwrap();
        for (raw, processed) in raw.iter().zip(&processed) {
            assert!((raw.log_prob - processed.log_prob).abs() < 1e-4);
            assert_eq!((raw.rank, raw.likeliest), (processed.rank, processed.likeliest));
        }
    }

    #[test]
    fn logits_that_overflow_are_an_error_with_their_place() {
        let mut tiny = Pretrained::tiny().unwrap().model;
        let mut head = tiny.wte.clone();
        head.row_mut(17).fill(f32::MAX);
        tiny.lm_head = Some(head);
        let error = score_text(&tiny, &[373, 257]).unwrap_err().to_string();
        assert!(error.starts_with("after 1 token the logit of token 17 is"), "{error}");
    }
}
