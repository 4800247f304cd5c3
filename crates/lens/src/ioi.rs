//! Indirect object identification: "When John and Mary went to the shops, John gave the bag to" …
//!
//! The answer is the name that occurs once (Wang et al. 2022, arXiv 2211.00593). The table is
//! that of TransformerLens's Exploratory Analysis Demo: four sentences, each in both roles, so that
//! neither name is favoured by itself. How surely the model answers is the logit difference
//! `logit(correct) − logit(incorrect)` after the last token, and its mean over the eight prompts.
//! [`mean_attribution`] takes that mean apart: which component wrote how much of it?

use gpt2::generate::check_logits;
use gpt2::{Gpt2, Tokenizer, no_hook};
use rayon::prelude::*;

use crate::attribution::{Attribution, direct_logit_attribution};
use crate::{Error, answers};

/// The prompts, with the correct and the incorrect answer.
pub const PROMPTS: [[&str; 3]; 8] = [
    ["When John and Mary went to the shops, John gave the bag to", " Mary", " John"],
    ["When John and Mary went to the shops, Mary gave the bag to", " John", " Mary"],
    ["When Tom and James went to the park, James gave the ball to", " Tom", " James"],
    ["When Tom and James went to the park, Tom gave the ball to", " James", " Tom"],
    ["When Dan and Sid went to the shops, Sid gave an apple to", " Dan", " Sid"],
    ["When Dan and Sid went to the shops, Dan gave an apple to", " Sid", " Dan"],
    ["After Martin and Amy went to the park, Amy gave a drink to", " Martin", " Amy"],
    ["After Martin and Amy went to the park, Martin gave a drink to", " Amy", " Martin"],
];

/// One prompt of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The prompt.
    pub prompt: &'static str,
    /// Its tokens, with `<|endoftext|>` in front if that was asked for.
    pub ids: Vec<u32>,
    /// The name that stands in the prompt once.
    pub correct: &'static str,
    /// The name that stands there twice.
    pub incorrect: &'static str,
    /// The tokens of the two answers.
    pub answers: [u32; 2],
    /// logit(correct) − logit(incorrect)
    pub logit_diff: f32,
}

/// The table.
#[derive(Clone, Debug)]
pub struct Table {
    /// The prompts in order; two and two have the same names.
    pub rows: Vec<Row>,
    /// The mean of their logit differences.
    pub mean: f32,
}

/// Runs the eight prompts, with `bos` in front if there is one: the tutorial has
/// `<|endoftext|>`.
///
/// # Errors
/// If the model does not have GPT-2's vocabulary, or not enough positions, or if its logits are not finite
/// numbers.
pub fn table(model: &Gpt2, tokenizer: &Tokenizer, bos: Option<u32>) -> Result<Table, Error> {
    let rows: Vec<Row> = PROMPTS
        .into_par_iter()
        .map(|[prompt, correct, incorrect]| {
            let mut ids = Vec::from_iter(bos);
            ids.extend(tokenizer.encode(prompt)?);
            let pair = [tokenizer.to_single_token(correct)?, tokenizer.to_single_token(incorrect)?];
            model.check_prompt(&ids)?;
            answers::check(model, &pair)?;
            let logits = model.next_token_logits(&ids, &mut no_hook);
            check_logits(&logits, ids.len())?;
            let [a, b] = pair.map(|id| logits[id as usize]);
            Ok(Row { prompt, ids, correct, incorrect, answers: pair, logit_diff: a - b })
        })
        .collect::<Result<_, Error>>()?;
    let mean = rows.iter().map(|row| row.logit_diff).sum::<f32>() / rows.len() as f32;
    Ok(Table { rows, mean })
}

/// The direct logit attribution of each prompt's logit difference, in the mean over the table: its
/// `logit_diff` is [`Table::mean`]. The demo has it for processed weights, where what a head writes
/// for every prompt alike, `b_V W_O`, counts as the layer's bias.
///
/// # Errors
/// As [`direct_logit_attribution`].
pub fn mean_attribution(model: &Gpt2, table: &Table) -> Result<Attribution, Error> {
    let all: Vec<Attribution> = (table.rows.par_iter())
        .map(|Row { ids, answers, .. }| {
            direct_logit_attribution(model, ids, ids.len() - 1, answers[0], answers[1])
        })
        .collect::<Result<_, Error>>()?;
    Attribution::mean(&all).ok_or(Error::UnevenBatch { counts: Vec::new() })
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;

    use super::*;

    #[test]
    fn the_mean_attribution_adds_up_to_the_mean_logit_difference() {
        let tiny = Pretrained::tiny().unwrap();
        let table = table(&tiny.model, &tiny.tokenizer, Some(50256)).unwrap();
        let mean = mean_attribution(&tiny.model, &table).unwrap();
        assert!((mean.logit_diff - table.mean).abs() < 1e-4);
        assert!((mean.sum() - table.mean).abs() < 1e-3);
        let heads: f32 = mean.heads.row(7).iter().sum();
        assert!((heads + mean.attn_bias[7] - mean.attn_out[7]).abs() < 1e-4);
    }
}
