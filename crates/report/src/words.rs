//! Words and tables that several studies share.

use std::io::{self, Write};

use tensor::Tensor;
use unicode_width::UnicodeWidthStr;
use visible::visible_line;

use crate::Prompt;

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

/// A text filled up with spaces on the left, by its width on a terminal.
pub fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
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
