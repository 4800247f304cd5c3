//! Words and tables that several subcommands print, and their JSON forms.

use std::borrow::Borrow;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use gpt2::generate::{LogProbs, log_prob, rank};
use gpt2::visible::{visible_line, visible_path};
use gpt2::{Pretrained, Tokenizer};
use serde::Serialize;
use tensor::Tensor;
use unicode_width::UnicodeWidthStr;

use crate::screen;

/// What a user should know of a file that was read.
pub fn write_notes(notes: &[String]) {
    for note in notes {
        screen::note(note);
    }
}

/// The last lines of a run: how long `work` took, and which files were written.
pub fn write_end<'a>(
    out: &mut impl Write,
    work: &str,
    seconds: f64,
    start: Instant,
    files: impl IntoIterator<Item = &'a Path>,
) -> io::Result<()> {
    let total = start.elapsed().as_secs_f64();
    writeln!(out, "\n{work} in {seconds:.2} s; {total:.2} s from start to end")?;
    write_files(out, files)
}

/// Says which files were written.
pub fn write_files<'a>(out: &mut impl Write, files: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
    let mut files = files.into_iter();
    files.try_for_each(|file| writeln!(out, "wrote {}", visible_path(file)))
}

/// A prompt with its tokens.
#[derive(Serialize)]
pub struct Prompt {
    /// The text as it was given.
    pub text: String,
    /// Its token ids.
    pub ids: Vec<u32>,
    /// Each token as text.
    pub tokens: Vec<String>,
}

impl Prompt {
    /// A prompt of these tokens.
    pub fn new(tokenizer: &Tokenizer, text: &str, ids: &[u32]) -> Self {
        Self { text: text.to_owned(), ids: ids.to_vec(), tokens: tokenizer.tokens(ids) }
    }

    /// The tokens in a row with slashes between them.
    pub fn row(&self) -> String {
        let tokens: Vec<String> = self.tokens.iter().map(|token| visible_line(token)).collect();
        tokens.join("/")
    }

    /// The ids in a row.
    pub fn id_row(&self) -> String {
        let ids: Vec<String> = self.ids.iter().map(u32::to_string).collect();
        ids.join(" ")
    }
}

/// A token that the model expects next.
#[derive(Serialize)]
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

/// A token in quotes, as it is written on a command line.
pub fn quoted(token: &str) -> String {
    format!("\"{}\"", visible_line(token))
}

/// A number with its sign, as it stands in a sentence.
pub fn signed(value: f32) -> String {
    format!("{value:+.2}").replace('-', "−")
}

/// A text filled up with spaces on the right, by its width on a terminal.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Several rows of tokens, position under position, in as many lines as the width asks for. Rows may
/// have different lengths.
pub fn write_aligned(out: &mut impl Write, rows: &[(&str, &Prompt)], width: usize) -> io::Result<()> {
    let rows: Vec<(&str, Vec<String>)> = rows
        .iter()
        .map(|(label, prompt)| {
            let tokens = prompt.tokens.iter().map(|token| visible_line(token));
            (*label, tokens.collect())
        })
        .collect();
    let columns = rows.iter().map(|(_, row)| row.len()).max().unwrap_or(0);
    let positions = (0..columns).map(|i| i.to_string()).collect();
    let rows = [&[("position", positions)], rows.as_slice()].concat();
    write_columns(out, &rows, width)
}

/// Labelled rows of cells, one under the other; where the width does not suffice for all columns,
/// some at a time. The first row is the head.
pub fn write_columns(out: &mut impl Write, rows: &[(&str, Vec<String>)], width: usize) -> io::Result<()> {
    let label_width = rows.iter().map(|(label, _)| label.width()).max();
    let label_width = label_width.unwrap_or(0);
    let columns = rows.iter().map(|(_, row)| row.len()).max().unwrap_or(0);
    let column_width = |i: usize| {
        let cells = rows.iter().filter_map(|(_, row)| row.get(i));
        cells.map(|cell| cell.width()).max().unwrap_or(0)
    };
    let mut start = 0;
    while start < columns {
        let mut end = start;
        let mut used = label_width;
        while end < columns && (end == start || used + 2 + column_width(end) <= width) {
            used += 2 + column_width(end);
            end += 1;
        }
        for (label, row) in rows {
            let cell = |i: usize| row.get(i).map_or("", String::as_str);
            let cells: Vec<String> =
                (start..end).map(|i| format!("  {}", pad(cell(i), column_width(i)))).collect();
            let line = format!("{}{}", pad(label, label_width), cells.concat());
            writeln!(out, "{}", line.trim_end())?;
        }
        start = end;
    }
    Ok(())
}

/// A text filled up with spaces on the left, by its width on a terminal.
pub fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

/// The heads of a grid `(n_layer, n_head)` with the highest scores, the highest first.
pub fn highest_heads(grid: &Tensor, count: usize) -> String {
    let heads = lens::heads::strongest(grid, count);
    match heads.is_empty() && count > 0 {
        true => "none: no head has a finite number".to_owned(),
        false => heads_in_a_row(&heads),
    }
}

/// The heads of a grid `(n_layer, n_head)` with the numbers farthest from 0, the farthest first.
pub fn largest_heads(grid: &Tensor, count: usize) -> String {
    let mut heads = lens::heads::strongest(grid, usize::MAX); // (none whose number is missing)
    heads.sort_by(|x, y| y.2.abs().total_cmp(&x.2.abs()));
    heads.truncate(count);
    heads_in_a_row(&heads)
}

fn heads_in_a_row(heads: &[(usize, usize, f32)]) -> String {
    let heads: Vec<String> = (heads.iter())
        .map(|(layer, head, score)| format!("{} {score:.4}", pad(&format!("{layer}.{head}"), 5)))
        .collect();
    heads.join("   ")
}

/// The tables of the most likely next tokens of one or more runs, side by side.
pub fn write_top_tables<C: Borrow<Candidate>>(
    out: &mut impl Write,
    tables: &[(&str, &[C])],
) -> io::Result<()> {
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
    lines.iter().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(tokens: &[&str]) -> Prompt {
        Prompt {
            text: tokens.concat(),
            ids: (0..tokens.len() as u32).collect(),
            tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
        }
    }

    fn aligned(width: usize) -> String {
        let mut out = Vec::new();
        let rows = [("clean", &prompt(&["A", " 漢字", " c"])), ("other", &prompt(&["A", " b"]))];
        write_aligned(&mut out, &rows, width).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_of_different_lengths_stand_position_under_position() {
        let lines = "position  0  1      2\nclean     A   漢字   c\nother     A   b\n";
        assert_eq!(aligned(80), lines);
    }

    #[test]
    fn long_rows_go_on_in_further_lines() {
        assert_eq!(aligned(18).lines().count(), 6);
        assert_eq!(aligned(1).lines().count(), 9);
    }
}
