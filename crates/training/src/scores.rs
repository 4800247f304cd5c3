//! What the tiny model has learned, in a few numbers.
//!
//! They are about the corpus ([`crate::corpus`]): last names that come back, indirect objects, roles, facts, text that
//! it has not seen, and repeated tokens with the heads that continue them.

use gpt2::generate::log_prob;
use gpt2::tokenizer::END_OF_TEXT;
use gpt2::{Pretrained, no_hook};
use lens::heads::{HeadScores, RepeatedTokens, repeat_study, strongest};
use patching::prompts::{Answer, Ioi, Written};

use crate::{Corpus, Dice};

/// Any reason why a model cannot be scored: it lacks words, or its numbers are not finite.
pub type Error = Box<dyn std::error::Error>;

/// Prompts with one right answer each.
const QUESTIONS: [(&str, &str); 6] = [
    ("Michelle Jones was a top-notch student. Michelle", " Jones"),
    ("Michelle Smith was a top-notch student. Michelle", " Smith"),
    ("Famous computer scientist Alan", " Turing"),
    ("Famous physicist Albert", " Einstein"),
    ("The capital of France is", " Paris"),
    ("The cat chased the mouse. The mouse was chased by the", " cat"),
];

/// How many indirect objects are asked for.
const INDIRECT_OBJECTS: usize = 200;
/// How many rows of text are read, of how many tokens.
const TEXTS: [usize; 2] = [64, 65];
/// How many sequences are repeated, of how many tokens.
const REPEATED: [usize; 2] = [32, 30];
/// The seed of all that is drawn: no training draws with it.
const SEED: u64 = u64::MAX;

/// The scores of a model.
pub struct Scores {
    /// Prompts, their answers, and the probability of each.
    pub questions: Vec<(&'static str, &'static str, f64)>,
    /// The mean probability of the indirect object.
    pub indirect_object: f64,
    /// How often it is likelier than the subject.
    pub indirect_object_first: f64,
    /// The mean loss of text that was not trained on, in nats a token.
    pub text_loss: f64,
    /// On repeated tokens, the mean log probability of those of the second reading.
    pub repeated_log_prob: f32,
    /// How often these are the most likely ones.
    pub repeated_accuracy: f32,
    /// Where the heads look meanwhile.
    pub heads: HeadScores,
}

/// A score with its name, to be shown.
pub struct Row {
    /// What is scored.
    pub name: String,
    /// The score.
    pub value: String,
}

impl Scores {
    /// The scores of a model that has GPT-2's tokens.
    ///
    /// # Errors
    /// If it does not know the words, or its logits are not finite.
    pub fn of(pretrained: &Pretrained) -> Result<Self, Error> {
        let questions = QUESTIONS.iter().map(|(prompt, answer)| {
            probability(pretrained, prompt, answer).map(|probability| (*prompt, *answer, probability))
        });
        let [indirect_object, indirect_object_first] = indirect_objects(pretrained)?;
        let known: Vec<u32> = match &pretrained.known_tokens {
            Some(known) => known.iter().copied().filter(|token| *token != END_OF_TEXT).collect(),
            None => (0..END_OF_TEXT).collect(),
        };
        let mut candidates = known;
        candidates.sort_unstable();
        let [count, length] = REPEATED;
        let prompts =
            RepeatedTokens::draw(&pretrained.model, &candidates, length, Some(END_OF_TEXT), count, SEED)?;
        let repeated = repeat_study(&pretrained.model, &prompts)?;
        Ok(Self {
            questions: questions.collect::<Result<_, _>>()?,
            indirect_object,
            indirect_object_first,
            text_loss: text_loss(pretrained)?,
            repeated_log_prob: repeated.mean_log_prob[1],
            repeated_accuracy: repeated.accuracy[1],
            heads: repeated.scores,
        })
    }

    /// The scores as lines of a table.
    pub fn rows(&self) -> Vec<Row> {
        let row = |name: &str, value: String| Row { name: name.to_owned(), value };
        let heads = |name: &str, grid| {
            let heads = strongest(grid, 2).into_iter();
            let heads = heads.enumerate().map(|(i, (layer, head, score))| {
                row(["best", "second"][i], format!("{layer}.{head} {score:.2}"))
            });
            heads.map(|row| Row { name: format!("{} {name} head", row.name), ..row }).collect::<Vec<_>>()
        };
        let questions = self.questions.iter().map(|(prompt, answer, probability)| {
            let end: Vec<&str> = prompt.split(' ').collect();
            let end = end[end.len().saturating_sub(5)..].join(" ");
            let begin = if end.len() < prompt.len() { "…" } else { "" };
            // The two prompts about Michelle differ in their answers.
            row(&format!("{begin}{end} →{answer}"), format!("{probability:.3}"))
        });
        let mut rows: Vec<Row> = questions.collect();
        rows.extend([
            row("indirect objects, mean probability", format!("{:.3}", self.indirect_object)),
            row("indirect objects, likelier than the subject", format!("{:.3}", self.indirect_object_first)),
            row("new text, loss in nats a token", format!("{:.3}", self.text_loss)),
            row("repeated tokens, mean log probability", format!("{:.4}", self.repeated_log_prob)),
            row("repeated tokens, accuracy", format!("{:.4}", self.repeated_accuracy)),
        ]);
        rows.extend(heads("induction", &self.heads.induction));
        rows.extend(heads("previous-token", &self.heads.previous));
        rows.extend(heads("duplicate-token", &self.heads.duplicate));
        rows
    }
}

/// The probability of an answer after a prompt.
fn probability(pretrained: &Pretrained, prompt: &str, answer: &str) -> Result<f64, Error> {
    let ids = pretrained.tokenizer.encode(prompt)?;
    pretrained.model.check_prompt(&ids)?;
    let logits = pretrained.model.next_token_logits(&ids, &mut no_hook);
    Ok(log_prob(&logits, pretrained.tokenizer.to_single_token(answer)?).exp())
}

/// The mean probability of indirect objects, and how often they are likelier than the subject.
fn indirect_objects(pretrained: &Pretrained) -> Result<[f64; 2], Error> {
    let ioi = Ioi { count: INDIRECT_OBJECTS, seed: SEED, ..Ioi::default() };
    let mut sums = [0.0; 2];
    for pair in ioi.prompts(pretrained)?.pairs {
        let (Written::Text(prompt), [Answer::Text(object)], [Answer::Text(subject)]) =
            (&pair.clean, &pair.a[..], &pair.b[..])
        else {
            unreachable!("the templates are texts with two names");
        };
        let [object, subject] = [object, subject].map(|name| probability(pretrained, prompt, name));
        let object = object?;
        sums[0] += object;
        sums[1] += f64::from(u8::from(object > subject?));
    }
    Ok(sums.map(|sum| sum / INDIRECT_OBJECTS as f64))
}

/// The mean loss over rows of text.
fn text_loss(pretrained: &Pretrained) -> Result<f64, Error> {
    let (corpus, [rows, length]) = (Corpus::default(), TEXTS);
    let mut log_probs = Vec::new();
    for row in 0..rows {
        let ids = corpus.text(length, &mut Dice::new(SEED, 0, row as u64));
        let scores = lens::text::score_text(&pretrained.model, &ids)?;
        log_probs.extend(scores.iter().map(|score| score.log_prob));
    }
    Ok(-log_probs.iter().sum::<f64>() / log_probs.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_model_has_the_scores_of_its_readme() {
        let scores = Scores::of(&Pretrained::tiny().unwrap()).unwrap();
        let [jones, smith, turing, ..] = [0, 1, 2, 3].map(|i| scores.questions[i].2);
        assert!((jones - 0.612).abs() < 5e-3 && (smith - 0.410).abs() < 5e-3, "{jones} {smith}");
        assert!(turing > 0.95 && scores.indirect_object > 0.6, "{turing} {}", scores.indirect_object);
        assert!(scores.repeated_accuracy > 0.99 && scores.repeated_log_prob > -0.03);
        let mut heads = strongest(&scores.heads.induction, 2);
        heads.sort_by_key(|(layer, ..)| *layer);
        assert_eq!(
            heads.iter().map(|(layer, head, _)| (*layer, *head)).collect::<Vec<_>>(),
            [(7, 1), (8, 3)]
        );
        assert_eq!(scores.rows().len(), QUESTIONS.len() + 11);
    }
}
