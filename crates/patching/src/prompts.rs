//! Prompt sets: many pairs of prompts, and the mean over them.
//!
//! One pair of prompts shows what a model does with that pair. To see what it does with a *task*, run the
//! same sweep for many pairs and average. A [`PromptSet`] is a list of pairs as text:
//!
//! - out of a file, with the columns `clean`, `corrupted`, `a` and `b`, or as other tools name them
//!   ([`PromptSet::open`] lists the forms);
//! - made from the templates of the indirect-object task ([`Ioi`]), or that task's eight prompts of
//!   TransformerLens's tutorial ([`PromptSet::ioi_tutorial`]);
//! - made from the templates of other tasks of the literature ([`TaskPrompts`]).
//!
//! [`PromptSet::tokenize`] turns all of it into [`Pair`]s of tokens that are ready to run, or says which
//! line cannot be used: before any work is done. [`average`] takes the mean of the pairs' grids, with a
//! bootstrap confidence interval.
//!
//! ```
//! use gpt2::Pretrained;
//! use patching::prompts::{self, Bootstrap, Ioi, Part};
//! use patching::{Direction, Engine, SiteKind, Sweep};
//!
//! let tiny = Pretrained::tiny()?;
//! let set = Ioi { count: 4, ..Ioi::default() }.prompts(&tiny)?;
//! let pairs = set.tokenize(&tiny, None, Direction::Denoising)?;
//! let mut grids = Vec::new();
//! for pair in &pairs {
//!     let sweep = Sweep::over(&pair.experiment, SiteKind::Z); // every layer × head
//!     grids.push(sweep.run(&tiny.model, pair.metric(), Engine::default(), &|_| {}).grid);
//! }
//! let parts: Vec<Part> = pairs.iter().zip(&grids).map(|(pair, grid)| Part::new(pair, grid)).collect();
//! let average = prompts::average(&parts, None, Bootstrap::default())?;
//! assert_eq!(average.mean.shape(), [12, 4]);
//! assert_eq!(average.n, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod average;
mod ioi;
mod read;
mod task;
#[cfg(test)]
mod toy;

use std::collections::HashSet;

use gpt2::{Pretrained, Tokenizer};
use visible::visible_line;

pub use self::average::{Align, Average, Bootstrap, Part, average, average_on, mean_sweep};
pub use self::ioi::{Corruption, Ioi};
pub use self::read::Format;
pub use self::task::{Task, TaskPrompts};
use crate::{Direction, Experiment, Metric};

/// A prompt as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A text.
    Text(String),
    /// The token ids that stand for it.
    Ids(Vec<u32>),
}

/// One answer as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A text that must be one token, with its space.
    Text(String),
    /// A token id.
    Id(u32),
    /// A token id, and the text of the answer beside it: it must begin with that token, blanks apart.
    /// (EAP-IG writes "gem" beside the id of " gem".)
    Named {
        /// The token id.
        id: u32,
        /// The text.
        text: String,
    },
}

/// One pair of prompts, with the answers that a metric compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptPair {
    /// Which one it is: what [`PromptSet::numbering`] says. No two of a set have the same.
    pub line: usize,
    /// The prompt whose answer is the right one.
    pub clean: Written,
    /// The same prompt with the fact of interest changed.
    pub corrupted: Written,
    /// The answers that count positively; there may be none.
    pub a: Vec<Answer>,
    /// The answers that count negatively; there may be none.
    pub b: Vec<Answer>,
}

/// What [`PromptPair::line`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The lines of the file, from 1, on which the pairs begin.
    Lines,
    /// The pairs, from 1: of a JSON document, which may be one long line, or of pairs that were made.
    Pairs,
}

/// Pairs of prompts, and where they are from. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptSet {
    /// The file, or a name for pairs that were made: what errors begin with.
    pub name: String,
    /// The pairs.
    pub pairs: Vec<PromptPair>,
    /// What their numbers count.
    pub numbering: Numbering,
    /// What a user should know of the file, a sentence each, such as
    /// `pairs.csv: columns passed over: plural, template`.
    pub notes: Vec<String>,
}

/// Prompts without a partner, out of a file ([`Prompts::open`]). There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts {
    /// The file: what errors begin with.
    pub name: String,
    /// The number of each, as [`Prompts::numbering`] says, and the prompt.
    pub prompts: Vec<(usize, Written)>,
    /// What their numbers count.
    pub numbering: Numbering,
    /// As [`PromptSet::notes`].
    pub notes: Vec<String>,
}

/// One pair of prompts as tokens, checked: ready to run.
#[derive(Clone, Debug)]
pub struct Pair {
    /// [`PromptPair::line`].
    pub line: usize,
    /// The two prompts, and which is patched into which.
    pub experiment: Experiment,
    /// The tokens that count positively, each once; there may be none.
    pub a: Vec<u32>,
    /// The tokens that count negatively, each once and none of `a`; there may be none.
    pub b: Vec<u32>,
}

impl Pair {
    /// `logit(a) − logit(b)`, of the means where there are several answers on a side.
    pub fn metric(&self) -> Metric<'_> {
        Metric::LogitDiff { a: &self.a, b: &self.b }
    }
}

impl Answer {
    /// As a list of words shows it: the text, or the id with its sign, such as `#319`.
    pub fn words(&self) -> String {
        match self {
            Self::Text(text) | Self::Named { text, .. } => text.clone(),
            Self::Id(id) => format!("#{id}"),
        }
    }
}

impl Written {
    /// As a list of words shows it: the text, or the ids with blanks between them.
    pub fn words(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Ids(ids) => {
                let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                ids.join(" ")
            }
        }
    }
}

impl Numbering {
    /// `line 3` or `pair 3`.
    pub fn place(self, number: usize) -> String {
        match self {
            Self::Lines => format!("line {number}"),
            Self::Pairs => format!("pair {number}"),
        }
    }
}

/// What is wrong with a prompt set, or with the mean that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read, or has no pairs.
    #[error("{}: {reason}", visible_line(name))]
    File {
        /// The file.
        name: String,
        /// What was found and what was expected.
        reason: String,
    },

    /// A line that is not a pair of prompts, or not one that can be patched.
    #[error("{}, line {line}: {reason}", visible_line(name))]
    Line {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        reason: String,
    },

    /// A pair that cannot be patched, if pairs are not numbered by lines.
    #[error("{}, pair {pair}: {reason}", visible_line(name))]
    Pair {
        /// The file.
        name: String,
        /// The pair, from 1.
        pair: usize,
        /// What was found and what was expected.
        reason: String,
    },

    /// Prompts that cannot be made, or an average that cannot be taken.
    #[error("{reason}")]
    Request {
        /// The request, why it cannot be done, and what can.
        reason: String,
    },
}

impl PromptSet {
    /// Every pair as tokens, with `bos` in front of each prompt if there is one.
    ///
    /// # Errors
    /// If a pair cannot be run, with its line: a prompt that is empty or too long for the model, prompts
    /// of different token counts (with both rows of tokens) or the same ones, an answer that is not one
    /// token, unknown to the model, not the token of its id, or there twice.
    pub fn tokenize(
        &self,
        pretrained: &Pretrained,
        bos: Option<u32>,
        direction: Direction,
    ) -> Result<Vec<Pair>, Error> {
        let pair = |pair: &PromptPair| {
            let ready = pair.tokenize(pretrained, bos, direction);
            ready.map_err(|reason| self.error(pair.line, reason))
        };
        self.pairs.iter().map(pair).collect()
    }

    /// An error about the pair of this number.
    fn error(&self, number: usize, reason: String) -> Error {
        let name = self.name.clone();
        match self.numbering {
            Numbering::Lines => Error::Line { name, line: number, reason },
            Numbering::Pairs => Error::Pair { name, pair: number, reason },
        }
    }
}

impl PromptPair {
    /// A pair of texts with one answer on either side: clean, corrupted, a and b.
    pub fn of_texts(line: usize, [clean, corrupted, a, b]: [String; 4]) -> Self {
        Self {
            line,
            clean: Written::Text(clean),
            corrupted: Written::Text(corrupted),
            a: vec![Answer::Text(a)],
            b: vec![Answer::Text(b)],
        }
    }

    /// The pair as tokens, or what is wrong with it.
    fn tokenize(
        &self,
        pretrained: &Pretrained,
        bos: Option<u32>,
        direction: Direction,
    ) -> Result<Pair, String> {
        let Pretrained { model, tokenizer, .. } = pretrained;
        let encode = |which: &str, prompt: &Written| {
            let mut ids = Vec::from_iter(bos);
            match prompt {
                Written::Text(text) => {
                    ids.extend(tokenizer.encode(text).map_err(|e| format!("the {which} prompt: {e}"))?)
                }
                Written::Ids(given) => ids.extend(given),
            }
            Ok::<_, String>(ids)
        };
        let clean = encode("clean", &self.clean)?;
        let corrupted = encode("corrupted", &self.corrupted)?;
        let experiment = Experiment::new(model, clean.clone(), corrupted.clone(), direction).map_err(
            |error| match error {
                crate::Error::DifferentLengths { .. } => format!(
                    "{error}\n  clean      {}\n  corrupted  {}\nChange a word for one of as many tokens \
                     (patch-cli tokens TEXT … counts them).",
                    row(tokenizer, &clean),
                    row(tokenizer, &corrupted)
                ),
                _ => error.to_string(),
            },
        )?;
        let a = answer_tokens(pretrained, "a", &self.a)?;
        let b = answer_tokens(pretrained, "b", &self.b)?;
        if let Some(&both) = a.iter().find(|token| b.contains(token)) {
            return Err(format!(
                "the metric would compare \"{}\" with itself: it is an answer in both columns, \"a\" and \
                 \"b\"",
                visible_line(&tokenizer.token(both))
            ));
        }
        Ok(Pair { line: self.line, experiment, a, b })
    }
}

/// The tokens of the answers in a column, or what is wrong with them.
fn answer_tokens(pretrained: &Pretrained, column: &str, answers: &[Answer]) -> Result<Vec<u32>, String> {
    let Pretrained { model, tokenizer, .. } = pretrained;
    let known = |id: u32| model.check_prompt(&[id]).map(|()| id);
    let token = |answer: &Answer| match answer {
        Answer::Text(text) => tokenizer.to_single_token(text).and_then(known).map_err(|e| e.to_string()),
        Answer::Id(id) => known(*id).map_err(|e| e.to_string()),
        Answer::Named { id, text } => {
            let id = known(*id).map_err(|e| e.to_string())?;
            let token = tokenizer.token(id);
            let begins = text.trim_start().starts_with(token.trim_start());
            if token.trim().is_empty() || !begins {
                return Err(format!(
                    "the token {id} is \"{}\", and the answer beside it \"{}\": the ids seem to be of \
                     another model's vocabulary",
                    visible_line(&token),
                    visible_line(text)
                ));
            }
            Ok(id)
        }
    };
    let mut tokens = Vec::new();
    let mut seen = HashSet::new();
    for answer in answers {
        let id = token(answer).map_err(|reason| format!("column \"{column}\": {reason}"))?;
        if !seen.insert(id) {
            return Err(format!(
                "column \"{column}\": \"{}\" is there twice",
                visible_line(&tokenizer.token(id))
            ));
        }
        tokens.push(id);
    }
    Ok(tokens)
}

/// Tokens in a row with slashes between them.
fn row(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let tokens: Vec<String> = tokenizer.tokens(ids).iter().map(|token| visible_line(token)).collect();
    tokens.join("/")
}

#[cfg(test)]
mod tests {
    use gpt2::tokenizer::END_OF_TEXT;

    use super::*;

    const CLEAN: &str = "Michelle Jones was a top-notch student. Michelle";
    const CORRUPTED: &str = "Michelle Smith was a top-notch student. Michelle";

    fn set(pairs: &[[&str; 4]]) -> PromptSet {
        let pair = |(i, texts): (usize, &[&str; 4])| PromptPair::of_texts(i + 2, texts.map(str::to_owned));
        PromptSet {
            name: "pairs.csv".to_owned(),
            pairs: pairs.iter().enumerate().map(pair).collect(),
            numbering: Numbering::Lines,
            notes: vec![],
        }
    }

    #[test]
    fn a_good_pair_has_the_ids_of_the_main_job() {
        let tiny = Pretrained::tiny().unwrap();
        let set = set(&[[CLEAN, CORRUPTED, " Smith", " Jones"]]);
        let pairs = set.tokenize(&tiny, None, Direction::Denoising).unwrap();
        assert_eq!([&pairs[0].a[..], &pairs[0].b], [[4176], [5437]]);
        assert_eq!(pairs[0].experiment.clean()[..2], [48736, 5437]);
        assert_eq!(pairs[0].experiment.differing_positions(), [1]);
        let pairs = set.tokenize(&tiny, Some(END_OF_TEXT), Direction::Noising).unwrap();
        assert_eq!(pairs[0].experiment.base()[..3], [END_OF_TEXT, 48736, 5437]);
    }

    #[test]
    fn a_bad_pair_is_named_by_its_line_with_what_to_do() {
        let tiny = Pretrained::tiny().unwrap();
        let long = " a".repeat(129);
        for (pair, parts) in [
            (
                [CLEAN, "Michelle Turing was a top-notch student. Michelle Ann", " Smith", " Jones"],
                &[
                    "pairs.csv, line 3: the clean prompt has 11 tokens and the corrupted one 12; ",
                    "clean      Michelle/ Jones/ was/ a/ top",
                    "corrupted  Michelle/ Turing/ was/ a/ top",
                    "Change a word",
                ][..],
            ),
            (
                [CLEAN, CLEAN, " Smith", " Jones"],
                &["line 3: the clean and the corrupted prompt are the same 11"],
            ),
            (["", CORRUPTED, " Smith", " Jones"], &["line 3: the clean prompt: the prompt is empty"]),
            (
                [CLEAN, &long, " Smith", " Jones"],
                &["line 3: the corrupted prompt: the prompt has 129 tokens"],
            ),
            (
                [CLEAN, CORRUPTED, " Smith", "Turing"],
                &[
                    "line 3: column \"b\": \"Turing\" is 2 tokens (\"T\", \"uring\")",
                    "\" Turing\" is a single token",
                ],
            ),
            ([CLEAN, CORRUPTED, "", " Jones"], &["line 3: column \"a\": the answer is empty"]),
            (
                [CLEAN, CORRUPTED, " Jones", " Jones"],
                &["line 3: the metric would compare \" Jones\" with itself"],
            ),
        ] {
            let set = set(&[[CLEAN, CORRUPTED, " Smith", " Jones"], pair]);
            for bos in [None, Some(END_OF_TEXT)] {
                let error = set.tokenize(&tiny, bos, Direction::Denoising).unwrap_err().to_string();
                // With <|endoftext|> in front there is a token more.
                if bos.is_some() && error.contains("tokens") {
                    continue;
                }
                for part in parts {
                    assert!(error.contains(part), "no «{part}» in: {error}");
                }
            }
        }
    }
}
