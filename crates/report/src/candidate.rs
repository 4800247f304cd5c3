//! Tokens that a model expects next.

use std::borrow::Borrow;

use gpt2::Pretrained;
use gpt2::generate::{LogProbs, log_prob, rank};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::words::{pad, quoted};

/// A token that the model expects next.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// 0 for the most likely token.
    pub rank: usize,
    /// The token.
    pub id: u32,
    /// The token as text.
    pub token: String,
    /// Its logit.
    pub logit: f32,
    /// Its probability.
    pub prob: f32,
}

/// The most likely next tokens after finite logits ([`gpt2::generate::check_logits`]).
pub fn top(model: &Pretrained, logits: &[f32], count: usize) -> Vec<Candidate> {
    let probs = LogProbs::of(logits);
    let candidate = |(rank, id): (usize, u32)| {
        let logit = logits[id as usize];
        Candidate { rank, id, token: model.tokenizer.token(id), logit, prob: probs.prob(id) as f32 }
    };
    rank(logits, count).into_iter().enumerate().map(candidate).collect()
}

/// One token, and its place among all of them (of equal logits the smaller id comes first).
pub fn candidate(model: &Pretrained, logits: &[f32], id: u32) -> Candidate {
    let logit = logits[id as usize];
    let before = |(i, x): (usize, &f32)| *x > logit || (*x == logit && i < id as usize);
    Candidate {
        rank: (logits.iter().enumerate()).filter(|entry| before(*entry)).count(),
        id,
        token: model.tokenizer.token(id),
        logit,
        prob: log_prob(logits, id).exp() as f32,
    }
}

/// The tables of the most likely next tokens of one or more runs, side by side.
pub fn top_tables<C: Borrow<Candidate>>(tables: &[(&str, &[C])]) -> String {
    const GAP: &str = "    ";
    let token_width = |table: &[C]| {
        table.iter().map(|c| quoted(&c.borrow().token).width()).chain(["token".len()]).max().unwrap_or(0)
    };
    let mut lines = vec![String::new(); 2 + tables.iter().map(|(_, table)| table.len()).max().unwrap_or(0)];
    for (title, table) in tables {
        let width = token_width(table);
        let mut column = vec![
            (*title).to_owned(),
            format!("{:>4}  {:>5}  {}  {:>7}  {:>7}", "rank", "id", pad("token", width), "logit", "prob"),
        ];
        column.extend(table.iter().map(|c| {
            let c = c.borrow();
            let token = pad(&quoted(&c.token), width);
            format!("{:>4}  {:>5}  {token}  {:>7.2}  {:>7.4}", c.rank, c.id, c.logit, c.prob)
        }));
        let column_width = column.iter().map(|line| line.width()).max().unwrap_or(0);
        column.resize(lines.len(), String::new());
        for (line, cell) in lines.iter_mut().zip(&column) {
            *line += &format!("{}{GAP}", pad(cell, column_width));
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}
