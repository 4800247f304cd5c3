//! What heads look at: scores of their attention patterns.
//!
//! # Repeated random tokens
//!
//! `<|endoftext|>` and `seq_len` random tokens twice over have no meaning and no grammar, so a model that
//! predicts the second copy must have looked up the first: that is *induction* (Olsson et al. 2022, arXiv
//! 2209.11895). A head's scores are means over stripes of its pattern, `pattern[dest, src]`:
//!
//! | score | src | it looks at |
//! |---|---|---|
//! | induction | dest − seq_len + 1 | what came after this token the last time |
//! | duplicate | dest − seq_len | the same token, the last time |
//! | previous | dest − 1 | the token to the left |
//! | current | dest | itself |
//! | first | 0 | the beginning, where heads attend that have nothing else to attend to |
//!
//! A mean goes over every dest whose src is there (TransformerLens's Main Demo; ARENA 1.2).
//!
//! # Any text
//!
//! [`detect`] is TransformerLens's `detect_head`: how much does a pattern agree with one that is
//! drawn from the tokens themselves?

use std::fmt;
use std::str::FromStr;

use gpt2::{Gpt2, SiteKind};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use tensor::{Tensor, View};

use crate::Error;
use crate::cache::run_with_cache_of;
use crate::text::score_rows;

/// A sequence of tokens, repeated once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepeatedTokens {
    /// All tokens: perhaps one that opens a text, then the sequence, then the sequence again.
    pub ids: Vec<u32>,
    /// The sequence's length.
    pub seq_len: usize,
}

impl RepeatedTokens {
    /// A sequence twice, with `bos` in front if there is one.
    pub fn new(sequence: &[u32], bos: Option<u32>) -> Self {
        Self { ids: [bos.as_slice(), sequence, sequence].concat(), seq_len: sequence.len() }
    }

    /// `batch` sequences of `seq_len` tokens drawn from `candidates`, each twice. Equal seeds draw
    /// equal tokens.
    ///
    /// # Errors
    /// If there are no candidates, or the model cannot read so many tokens.
    pub fn draw(
        model: &Gpt2,
        candidates: &[u32],
        seq_len: usize,
        bos: Option<u32>,
        batch: usize,
        seed: u64,
    ) -> Result<Vec<Self>, Error> {
        let block_size = model.config.block_size;
        let limit = block_size.saturating_sub(bos.iter().len()) / 2;
        if seq_len == 0 || seq_len > limit {
            return Err(Error::SeqLen { seq_len, limit });
        }
        if candidates.is_empty() {
            return Err(Error::NoTokens);
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut token = || candidates[rng.random_range(0..candidates.len())];
        Ok((0..batch)
            .map(|_| {
                let sequence: Vec<u32> = (0..seq_len).map(|_| token()).collect();
                Self::new(&sequence, bos)
            })
            .collect())
    }

    /// How many predictions are of tokens of the first copy; the other `seq_len` are of the second copy.
    pub fn first_half(&self) -> usize {
        self.ids.len() - 1 - self.seq_len
    }
}

/// How well one model does on repeated tokens, and which heads look where; means over the batch.
#[derive(Clone, Debug)]
pub struct RepeatStudy {
    /// The log probability of each token but the first, given those before it: T − 1.
    pub log_probs: Vec<f32>,
    /// Of the first and of the second copy, the mean log probability of a token.
    pub mean_log_prob: [f32; 2],
    /// Of the first and of the second copy, the share of the tokens that were the most likely one.
    pub accuracy: [f32; 2],
    /// What each head looks at.
    pub scores: HeadScores,
}

/// The stripe means of every head's pattern, each `(n_layer, n_head)`. The module says what they
/// are.
#[derive(Clone, Debug)]
pub struct HeadScores {
    /// src = dest − seq_len + 1
    pub induction: Tensor,
    /// src = dest − seq_len
    pub duplicate: Tensor,
    /// src = dest − 1
    pub previous: Tensor,
    /// src = dest
    pub current: Tensor,
    /// src = 0
    pub first: Tensor,
}

impl HeadScores {
    /// The grids with their names.
    pub fn all(&self) -> [(&'static str, &Tensor); 5] {
        [
            ("induction", &self.induction),
            ("duplicate", &self.duplicate),
            ("previous", &self.previous),
            ("current", &self.current),
            ("first", &self.first),
        ]
    }
}

/// Runs prompts of repeated tokens, all equally long.
///
/// # Errors
/// If there is no prompt, they are of different lengths, the model cannot read one, or its logits are not
/// finite numbers.
pub fn repeat_study(model: &Gpt2, prompts: &[RepeatedTokens]) -> Result<RepeatStudy, Error> {
    let Some(RepeatedTokens { ids, seq_len }) = prompts.first() else {
        return Err(Error::UnevenBatch { counts: Vec::new() });
    };
    let same = |other: &RepeatedTokens| (other.ids.len(), other.seq_len) == (ids.len(), *seq_len);
    if !prompts.iter().all(same) {
        let counts = prompts.iter().map(|prompt| prompt.ids.len()).collect();
        return Err(Error::UnevenBatch { counts });
    }
    for prompt in prompts {
        model.check_prompt(&prompt.ids)?;
    }
    let runs: Vec<Run> = prompts.par_iter().map(|prompt| run(model, prompt)).collect::<Result<_, _>>()?;

    let n = runs.len() as f32;
    let mean_of = |row: fn(&Run) -> &[f32]| -> Vec<f32> {
        let mut sum = vec![0.0; row(&runs[0]).len()];
        for run in &runs {
            sum.iter_mut().zip(row(run)).for_each(|(sum, x)| *sum += x);
        }
        sum.iter().map(|sum| sum / n).collect()
    };
    let log_probs = mean_of(|run| &run.log_probs);
    let hits = mean_of(|run| &run.hits);
    let (first, second) = (0..prompts[0].first_half(), prompts[0].first_half()..ids.len() - 1);
    let halves = |row: &[f32]| [mean(&row[first.clone()]), mean(&row[second.clone()])];

    let config = &model.config;
    let stripes = mean_of(|run| &run.stripes); // (n_layer, n_head, 5)
    let grid = |stripe: usize| {
        let column = stripes.iter().copied().skip(stripe).step_by(5);
        Tensor::new(&[config.n_layer, config.n_head], column.collect())
    };
    Ok(RepeatStudy {
        mean_log_prob: halves(&log_probs),
        accuracy: halves(&hits),
        log_probs,
        scores: HeadScores {
            induction: grid(0),
            duplicate: grid(1),
            previous: grid(2),
            current: grid(3),
            first: grid(4),
        },
    })
}

/// What is kept of one run.
struct Run {
    /// T − 1
    log_probs: Vec<f32>,
    /// 1 where the most likely token was the right one, else 0: T − 1.
    hits: Vec<f32>,
    /// `(n_layer, n_head, 5)`: the stripes in the order of [`HeadScores`].
    stripes: Vec<f32>,
}

fn run(model: &Gpt2, prompt: &RepeatedTokens) -> Result<Run, Error> {
    let RepeatedTokens { ids, seq_len } = prompt;
    let mut stripes = Vec::new();
    let normalized = model.transformer(ids, &mut |site, x| {
        if site.kind == SiteKind::Pattern {
            for head in 0..x.shape()[0] {
                let pattern = x.at(head); // (T, T)
                let seq_len = *seq_len as isize;
                let offsets = [1 - seq_len, -seq_len, -1, 0];
                stripes.extend(offsets.map(|offset| stripe_mean(pattern, offset)));
                let first: Vec<f32> = (0..ids.len()).map(|dest| pattern.get(dest, 0)).collect();
                stripes.push(mean(&first));
            }
        }
    });
    let scores = score_rows(model, &normalized, ids)?;
    Ok(Run {
        log_probs: scores.iter().map(|score| score.log_prob as f32).collect(),
        hits: (scores.iter().zip(&ids[1..]))
            .map(|(score, id)| f32::from(u8::from(score.likeliest == *id)))
            .collect(),
        stripes,
    })
}

/// The mean of `pattern[dest, dest + offset]` over every dest for which that is there, of a pattern
/// `(T, T)`; NaN if there is none. `offset` is negative to the left.
pub fn stripe_mean(pattern: View<'_>, offset: isize) -> f32 {
    let [t, _] = pattern.shape();
    let stripe: Vec<f32> = (0..t)
        .filter_map(|dest| {
            let src = dest.checked_add_signed(offset)?;
            (src < t).then(|| pattern.get(dest, src))
        })
        .collect();
    mean(&stripe)
}

/// The mean, NaN of nothing.
fn mean(row: &[f32]) -> f32 {
    let sum: f64 = row.iter().map(|x| f64::from(*x)).sum();
    (sum / row.len() as f64) as f32
}

/// The `count` heads of a grid `(n_layer, n_head)` with the highest scores, the highest first, as
/// layer, head and score; none whose score is missing (NaN).
pub fn strongest(grid: &Tensor, count: usize) -> Vec<(usize, usize, f32)> {
    let n_head = grid.row_len();
    let mut heads: Vec<(usize, usize, f32)> = (grid.data().iter().enumerate())
        .filter(|(_, score)| !score.is_nan())
        .map(|(i, score)| (i / n_head, i % n_head, *score))
        .collect();
    heads.retain(|(.., score)| !score.is_nan());
    heads.sort_by(|x, y| y.2.total_cmp(&x.2));
    heads.truncate(count);
    heads
}

/// What kind of head [`detect`] looks for: where it should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadKind {
    /// At the token to the left.
    PreviousToken,
    /// At earlier occurrences of the token.
    DuplicateToken,
    /// At the tokens after earlier occurrences of the token.
    Induction,
}

impl HeadKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::PreviousToken, Self::DuplicateToken, Self::Induction];

    /// 1 where such a head should look and 0 elsewhere, `(T, T)` as destination and source.
    pub fn detection_pattern(self, ids: &[u32]) -> Tensor {
        let t = ids.len();
        let mut pattern = Tensor::zeros(&[t, t]);
        for dest in 0..t {
            for src in 0..=dest {
                let looks = match self {
                    Self::PreviousToken => src + 1 == dest,
                    Self::DuplicateToken => src < dest && ids[src] == ids[dest],
                    Self::Induction => src > 0 && ids[src - 1] == ids[dest],
                };
                pattern.row_mut(dest)[src] = f32::from(u8::from(looks));
            }
        }
        pattern
    }
}

impl fmt::Display for HeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PreviousToken => "previous_token_head",
            Self::DuplicateToken => "duplicate_token_head",
            Self::Induction => "induction_head",
        })
    }
}

impl FromStr for HeadKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| {
            let all = Self::ALL.map(|kind| kind.to_string()).join(", ");
            format!("there is no head kind \"{text}\"; give one of {all}")
        })
    }
}

/// How [`detect`] measures agreement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ErrorMeasure {
    /// The share of the attention that goes where it should: 0 to 1.
    #[default]
    Mul,
    /// 1 − Σ |pattern − detection pattern| / T: 1 for a perfect match, −1 for the opposite; rounded
    /// to three places, as TransformerLens does.
    Abs,
}

impl fmt::Display for ErrorMeasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mul => "mul",
            Self::Abs => "abs",
        })
    }
}

impl FromStr for ErrorMeasure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Mul, Self::Abs]
            .into_iter()
            .find(|measure| measure.to_string() == text.to_ascii_lowercase());
        found.ok_or_else(|| format!("there is no error measure \"{text}\"; give mul or abs"))
    }
}

/// How [`detect`] compares. The default is TransformerLens's: `mul`, nothing left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetectOptions {
    /// How agreement is measured.
    pub error_measure: ErrorMeasure,
    /// Leave out attention to the first token, whatever it is.
    pub exclude_bos: bool,
    /// Leave out attention to the token itself.
    pub exclude_current_token: bool,
}

/// How much each head is of a kind, on one prompt: `(n_layer, n_head)` (TransformerLens's
/// `detect_head`).
///
/// # Errors
/// If the model cannot read the prompt, or it has only one token.
pub fn detect(model: &Gpt2, ids: &[u32], kind: HeadKind, options: DetectOptions) -> Result<Tensor, Error> {
    let cache = run_with_cache_of(model, ids, |site| matches!(site.kind, SiteKind::Pattern))?;
    if ids.len() < 2 {
        return Err(Error::TooShort { count: ids.len() });
    }
    let detection = kind.detection_pattern(ids);
    let patterns = cache.iter().map(|(_, pattern)| pattern);
    let scores = patterns.flat_map(|pattern| {
        let heads = 0..pattern.shape()[0];
        heads.map(|head| similarity(pattern.at(head), &detection, options))
    });
    let config = &model.config;
    Ok(Tensor::new(&[config.n_layer, config.n_head], scores.collect()))
}

/// How much one head's pattern agrees with a detection pattern, both `(T, T)`. If all attention is
/// left out there is none to agree: 0.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn similarity(pattern: View<'_>, detection: &Tensor, options: DetectOptions) -> f32 {
    let [t, _] = pattern.shape();
    assert!(
        detection.shape() == pattern.shape(),
        "a pattern of {:?} against one of {:?}",
        pattern.shape(),
        detection.shape()
    );
    let (mut hit, mut all, mut error) = (0.0, 0.0, 0.0);
    for dest in 0..t {
        for src in 0..t {
            if (options.exclude_bos && src == 0) || (options.exclude_current_token && src == dest) {
                continue;
            }
            let (x, expected) = (f64::from(pattern.get(dest, src)), f64::from(detection.row(dest)[src]));
            hit += x * expected;
            all += x;
            error += (x - expected).abs();
        }
    }
    match options.error_measure {
        ErrorMeasure::Mul => (hit / all) as f32, // NaN if all attention is left out
        ErrorMeasure::Abs => (1.0 - (error / t as f64 * 1000.0).round_ties_even() / 1000.0) as f32,
    }
}

#[cfg(test)]
mod tests {
    use gpt2::Pretrained;

    use super::*;
    use crate::text::score_text;

    const BOS: Option<u32> = Some(50256);

    #[test]
    fn detection_patterns_are_those_of_transformer_lens() {
        // get_…_detection_pattern(torch.tensor([[5, 7, 5, 5, 7]]))
        let ids = [5, 7, 5, 5, 7];
        let rows = |kind: HeadKind| kind.detection_pattern(&ids).view().to_rows();
        assert_eq!(
            rows(HeadKind::PreviousToken),
            [
                [0., 0., 0., 0., 0.],
                [1., 0., 0., 0., 0.],
                [0., 1., 0., 0., 0.],
                [0., 0., 1., 0., 0.],
                [0., 0., 0., 1., 0.]
            ]
        );
        assert_eq!(
            rows(HeadKind::DuplicateToken),
            [
                [0., 0., 0., 0., 0.],
                [0., 0., 0., 0., 0.],
                [1., 0., 0., 0., 0.],
                [1., 0., 1., 0., 0.],
                [0., 1., 0., 0., 0.]
            ]
        );
        assert_eq!(
            rows(HeadKind::Induction),
            [
                [0., 0., 0., 0., 0.],
                [0., 0., 0., 0., 0.],
                [0., 1., 0., 0., 0.],
                [0., 1., 0., 1., 0.],
                [0., 0., 1., 0., 0.]
            ]
        );
    }

    #[test]
    fn a_perfect_head_scores_one_whatever_is_left_out() {
        let ids = [5, 7, 5, 7];
        let detection = HeadKind::PreviousToken.detection_pattern(&ids);
        let mut pattern = detection.clone();
        pattern.row_mut(0)[0] = 1.0; // the first token can only look at itself
        let score = |error_measure, exclude_bos, exclude_current_token| {
            let options = DetectOptions { error_measure, exclude_bos, exclude_current_token };
            similarity(pattern.view(), &detection, options)
        };
        assert_eq!(score(ErrorMeasure::Mul, false, false), 0.75);
        assert_eq!(score(ErrorMeasure::Mul, true, false), 1.0);
        assert_eq!(score(ErrorMeasure::Mul, false, true), 1.0);
        assert_eq!(score(ErrorMeasure::Abs, false, false), 0.75);
        assert_eq!(score(ErrorMeasure::Abs, true, true), 1.0);
        // No attention has no share.
        let nothing = Tensor::zeros(&[4, 4]);
        assert!(similarity(nothing.view(), &detection, DetectOptions::default()).is_nan());
    }

    #[test]
    fn a_stripe_is_a_diagonal() {
        let x = Tensor::new(&[3, 3], (0..9).map(|i| i as f32).collect());
        let x = x.view();
        let means = [0, -1, -2, 1].map(|offset| stripe_mean(x, offset));
        assert_eq!(means, [4.0, 5.0, 6.0, 3.0]);
        assert!(stripe_mean(x, -3).is_nan());
    }

    #[test]
    fn drawn_tokens_are_repeated_and_depend_on_the_seed() {
        let tiny = Pretrained::tiny().unwrap().model;
        let draw = |seed| RepeatedTokens::draw(&tiny, &[3, 4, 5, 6], 20, BOS, 3, seed).unwrap();
        let prompts = draw(1);
        assert_eq!(prompts, draw(1));
        assert_ne!(prompts, draw(2));
        assert_ne!(prompts[0], prompts[1]);
        for RepeatedTokens { ids, seq_len } in &prompts {
            assert_eq!((ids[0], ids.len(), *seq_len), (50256, 41, 20));
            assert_eq!(ids[1..21], ids[21..]);
            assert!(ids[1..].iter().all(|id| (3..=6).contains(id)));
        }
        assert_eq!(RepeatedTokens::new(&[3, 4], None).ids, [3, 4, 3, 4]);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let tiny = Pretrained::tiny().unwrap().model;
        let error = |candidates: &[u32], seq_len| {
            RepeatedTokens::draw(&tiny, candidates, seq_len, BOS, 1, 0).unwrap_err().to_string()
        };
        assert!(error(&[1], 64).contains("sequences of 1 to 63 tokens"));
        assert!(error(&[1], 0).contains("0 tokens cannot be repeated"));
        assert!(error(&[], 5).contains("no tokens"));
        let uneven = [1, 2].map(|n| RepeatedTokens::new(&[7, 8][..n], BOS));
        let message = repeat_study(&tiny, &uneven).unwrap_err().to_string();
        assert!(message.contains("prompts of [3, 5] tokens"), "{message}");
        assert!(repeat_study(&tiny, &[]).is_err());
        assert!(detect(&tiny, &[5], HeadKind::Induction, DetectOptions::default()).is_err());
    }

    #[test]
    fn a_batch_is_the_mean_of_its_prompts() {
        let tiny = Pretrained::tiny().unwrap().model;
        let prompts = RepeatedTokens::draw(&tiny, &[11, 257, 373], 6, BOS, 2, 3).unwrap();
        let both = repeat_study(&tiny, &prompts).unwrap();
        let [one, two] = [0, 1].map(|i| repeat_study(&tiny, &prompts[i..=i]).unwrap());
        let mean = |x: f32, y: f32| (x + y) / 2.0;
        for half in 0..2 {
            let expected = mean(one.mean_log_prob[half], two.mean_log_prob[half]);
            assert!((both.mean_log_prob[half] - expected).abs() < 1e-5);
            let expected = mean(one.accuracy[half], two.accuracy[half]);
            assert!((both.accuracy[half] - expected).abs() < 1e-5);
        }
        for ((name, grid), ((_, one), (_, two))) in
            both.scores.all().into_iter().zip(one.scores.all().into_iter().zip(two.scores.all()))
        {
            for (i, x) in grid.data().iter().enumerate() {
                assert!((x - mean(one.data()[i], two.data()[i])).abs() < 1e-6, "{name}");
            }
        }
        let scores = score_text(&tiny, &prompts[0].ids).unwrap();
        let log_probs: Vec<f32> = scores.iter().map(|score| score.log_prob as f32).collect();
        assert_eq!(log_probs, one.log_probs);
    }

    #[test]
    fn the_strongest_heads_come_first() {
        let grid = Tensor::new(&[2, 2], vec![0.1, 0.9, 0.5, 0.2]);
        assert_eq!(strongest(&grid, 2), [(0, 1, 0.9), (1, 0, 0.5)]);
        let missing = Tensor::new(&[2, 2], vec![0.1, f32::NAN, 0.5, -f32::NAN]);
        assert_eq!(strongest(&missing, 9), [(1, 0, 0.5), (0, 0, 0.1)]);
    }
}
