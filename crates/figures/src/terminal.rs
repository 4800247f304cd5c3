//! Printing a figure as text, with the colours a terminal has or none.

mod circuit;

use std::io::{self, Write};
use std::ops::Range;

use unicode_width::UnicodeWidthChar;
use visible::{visible, visible_line};

use super::color::{Rgb, ink_on, oklab};
use super::figure::{CellValues, Figure, Heatmap, Sheet, ValueRange};
use super::layout::{CLIPPED, cell_color, largest_magnitude};
use super::number::NumberStyle;
use super::scatter::Scatter;

/// The colours that a terminal understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalColor {
    /// 24 bits for each colour.
    Truecolor,
    /// The fixed palette of 256 colours.
    Ansi256,
    /// Plain text without any escape sequence.
    None,
}

/// How to print a heatmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalStyle {
    /// The colours to use.
    pub color: TerminalColor,
    /// How many columns of characters there are. No line gets longer (but less than 32 columns are
    /// treated as 32).
    pub width: usize,
}

/// Narrower terminals are not served.
const LEAST_WIDTH: usize = 32;
/// Row labels and the like are cut beyond this.
const LONGEST_LABEL: usize = 16;
/// Tokens in the key are cut beyond this.
const LONGEST_TOKEN: usize = 40;
/// The number of characters of the strip that shows the colours.
const STRIP: usize = 24;
const MARK: &str = "▲";

/// Prints a figure as lines of text that are no longer than the terminal is wide.
///
/// **A heatmap**, with colours: each value is a coloured cell with the rounded value in it; if these do
/// not fit, the cells are narrower and without numbers, and if that does not fit either, the last
/// columns are left out and a note says so. More than 48 rows are drawn two to a line, as half blocks.
/// Without colours the values are a table of signed numbers, in several blocks if the columns do not
/// fit side by side.
///
/// **Lines** are a heatmap with a row for each of them.
///
/// **A scatter plot** is a field of characters, `·` for one point, `o` for up to nine and `@` for more.
///
/// **A sheet** is its panels one under the other; of tiny panels, with colours, as many side by side as
/// the sheet has, each value standing for a square of cells if there is no room for all; without
/// colours, a table with a number for each panel, the strongest in it.
///
/// **A circuit** is a table of its edges, the strongest first.
///
/// # Panics
/// If the figure does not have one value for each cell or point.
pub fn write_figure(out: &mut impl Write, figure: &Figure, style: TerminalStyle) -> io::Result<()> {
    let lines = match &*figure.bounded() {
        Figure::Heatmap(heatmap) => heatmap_lines(heatmap, style),
        Figure::Lines(chart) => heatmap_lines(&chart.as_heatmap(), style),
        Figure::Sheet(sheet) => sheet_lines(sheet, style),
        Figure::Circuit(circuit) => circuit::lines(circuit, style),
        Figure::Scatter(scatter) => scatter_lines(scatter, style),
    };
    for line in lines {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn heatmap_lines(heatmap: &Heatmap, style: TerminalStyle) -> Vec<String> {
    heatmap.check_shape();
    let page = Page::new(heatmap, style);
    let mut lines = page.heading();
    lines.extend(page.grid());
    lines.extend(page.key());
    lines.extend(page.scale());
    lines.extend(page.legend());
    lines
}

fn sheet_lines(sheet: &Sheet, style: TerminalStyle) -> Vec<String> {
    let panels = sheet.drawn_panels();
    let scale = sheet.scale();
    let around = Heatmap {
        title: sheet.title.clone(),
        subtitle: sheet.subtitle.clone(),
        legend: sheet.legend.clone(),
        ..scale.clone().unwrap_or_default()
    };
    let page = Page::new(&around, style);
    let mut lines = page.heading();
    if sheet.compact {
        lines.extend(match style.color {
            TerminalColor::None => strongest_of_panels(sheet, &panels, style),
            _ => page.tiles(&panels, sheet.panels_per_row()),
        });
    } else {
        let same_columns = |a: &Heatmap, b: &Heatmap| a.columns == b.columns;
        for (index, panel) in panels.iter().enumerate() {
            panel.check_shape();
            let mut own = Page::new(panel, style);
            if scale.is_some() {
                own.number = page.number;
            }
            if index > 0 {
                lines.push(String::new());
            }
            // The title stands directly over the cells.
            lines.extend(own.heading().into_iter().filter(|line| !line.is_empty()));
            lines.extend(own.grid());
            // Tokens that are those of the next panel are listed once.
            let next = panels.get(index + 1);
            if !next.is_some_and(|next| same_columns(panel, next)) {
                lines.extend(own.key());
            }
            if scale.is_none() {
                lines.extend(own.scale());
            }
        }
    }
    if scale.is_some() {
        lines.extend(page.scale_with(|mut index| {
            let mut panels = panels.iter();
            let panel = panels.find(|panel| {
                let is_inside = index < panel.values.len();
                if !is_inside {
                    index -= panel.values.len();
                }
                is_inside
            });
            panel.map_or_else(String::new, |panel| {
                let mut own = Page::new(panel, style);
                own.number = page.number;
                own.place(index, &panel.title)
            })
        }));
    }
    lines.extend(page.legend());
    lines
}

/// The height of the field of a scatter plot; its width is twice as many characters, which are about as wide as
/// half their height.
const SCATTER_ROWS: usize = 18;

/// A field of characters: `·` for one point, `o` for up to nine, `@` for more, and `/` for the diagonal.
fn scatter_lines(scatter: &Scatter, style: TerminalStyle) -> Vec<String> {
    let words = Heatmap {
        title: scatter.title.clone(),
        subtitle: scatter.subtitle.clone(),
        legend: scatter.notes(),
        ..Heatmap::default()
    };
    let page = Page::new(&words, style);
    let range = scatter.range();
    let number = NumberStyle::for_largest(range.low.abs().max(range.high.abs()));
    let [low, high] = [range.low, range.high].map(|end| number.format(end.into()));
    let label_width = text_width(&low).max(text_width(&high));
    let columns = (2 * SCATTER_ROWS).min(page.width - label_width - 3);
    let mut counts = vec![0_usize; SCATTER_ROWS * columns];
    for [x, y] in scatter.drawn().flatten() {
        let place = |value: f32, count: usize| {
            let place = (range.fraction(value) * count as f32) as usize;
            place.min(count - 1)
        };
        counts[(SCATTER_ROWS - 1 - place(y, SCATTER_ROWS)) * columns + place(x, columns)] += 1;
    }
    let mut lines = page.heading();
    lines.extend(wrap(&visible_line(&scatter.y_label), page.width));
    for (row, counts) in counts.chunks(columns).enumerate() {
        let diagonal = |column: usize| (column * SCATTER_ROWS) / columns == SCATTER_ROWS - 1 - row;
        let cell = |(column, &count): (usize, &usize)| match count {
            0 if diagonal(column) => '/',
            0 => ' ',
            1 => '·',
            2..=9 => 'o',
            _ => '@',
        };
        let label = match row {
            0 => &*high,
            _ if row == SCATTER_ROWS - 1 => &*low,
            _ => "",
        };
        let cells: String = counts.iter().enumerate().map(cell).collect();
        lines.push(format!("{label:>label_width$} |{cells}|"));
    }
    let gap = columns.saturating_sub(text_width(&low) + text_width(&high));
    lines.push(format!("{:label_width$}  {low}{}{high}", "", " ".repeat(gap)));
    lines.extend(wrap(&visible_line(&scatter.x_label), page.width));
    lines.extend(page.legend());
    lines
}

/// A table with a number for each panel, for where cells cannot be coloured: the strongest value, or, of
/// attention, the strongest in the last row, because the first row is always 1.
fn strongest_of_panels(sheet: &Sheet, panels: &[Heatmap], style: TerminalStyle) -> Vec<String> {
    let per_row = sheet.panels_per_row();
    let rows: Vec<&[Heatmap]> = panels.chunks(per_row).collect();
    let of_tokens = panels.iter().all(|panel| panel.rows_are_tokens);
    let strongest = |panel: &Heatmap| {
        let skipped = match of_tokens {
            true => panel.values.len().saturating_sub(panel.columns.len()),
            false => 0,
        };
        panel.strongest(panel.values[skipped..].iter().copied())
    };
    let mut values: Vec<f32> = panels.iter().map(strongest).collect();
    values.resize(rows.len() * per_row, f32::NAN);
    let table = Heatmap {
        rows: rows.iter().map(|row| row[0].title.clone()).collect(),
        columns: (0..per_row).map(|column| column.to_string()).collect(),
        row_axis: "panel".to_owned(),
        values,
        ..Heatmap::default()
    };
    let page = Page::new(&table, style);
    let whole = if of_tokens { "the last row of " } else { "" };
    let note = format!(
        "The strongest value of {whole}each panel. Each line is named after its first panel; the others \
         follow in order."
    );
    let mut lines = page.grid();
    lines.push(String::new());
    lines.extend(wrap(&note, page.width));
    lines
}

/// How wide the cells are and what is in them. Lengths are in columns of characters.
#[derive(Clone, Copy)]
struct Cells {
    width: usize,
    numbers: bool,
    /// The free space after a number.
    after: usize,
}

impl Cells {
    fn numbered(width: usize, after: usize) -> Self {
        Self { width, numbers: true, after }
    }

    fn without_numbers(width: usize) -> Self {
        Self { width, numbers: false, after: 0 }
    }

    /// Puts text into a cell: to the right as numbers stand, to the left in a cell without them.
    fn fill(self, text: &str) -> String {
        let Self { width, after, .. } = self;
        match self.numbers {
            true => format!("{text:>number$}{:after$}", "", number = width - after),
            false => format!("{text:<width$}"),
        }
    }
}

/// More rows than this are drawn two to a line.
const MOST_FULL_ROWS: usize = 48;
/// The narrowest panel of a sheet of tiny ones.
const LEAST_TILE: usize = 5;

struct Page<'a> {
    figure: &'a Heatmap,
    color: TerminalColor,
    width: usize,
    range: ValueRange,
    number: NumberStyle,
    /// The width of the row labels.
    label_width: usize,
}

impl<'a> Page<'a> {
    fn new(figure: &'a Heatmap, style: TerminalStyle) -> Self {
        let color = style.color;
        let number = NumberStyle {
            // A table without colours is read by its signs.
            plus: figure.center.is_some() || figure.values.iter().any(|&value| value < 0.0),
            ..NumberStyle::for_largest(largest_magnitude(figure))
        };
        let labels = figure.rows.iter().map(|label| shown_row(figure, label));
        let labels = labels.chain([short_axis(&figure.row_axis)]);
        let longest = labels.map(|label| text_width(&label)).max().unwrap_or(0);
        let label_width = longest.min(LONGEST_LABEL);
        Self {
            figure,
            color,
            width: style.width.max(LEAST_WIDTH),
            range: figure.range(),
            number,
            label_width,
        }
    }

    fn heading(&self) -> Vec<String> {
        let mut lines: Vec<_> = wrap(&visible_line(&self.figure.title), self.width)
            .into_iter()
            .map(|line| self.bold(&line))
            .collect();
        for line in &self.figure.subtitle {
            lines.extend(wrap(&visible_line(line), self.width));
        }
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines
    }

    fn grid(&self) -> Vec<String> {
        let columns = self.figure.columns.len();
        let room = self.width - self.label_width - 1;
        let number = self.number_width();
        if self.color == TerminalColor::None {
            let cells = Cells::numbered(number + 1, 0);
            return self.blocks((room / cells.width).max(1), cells);
        }
        let numbered = [Cells::numbered(number + 2, 1), Cells::numbered(number + 1, 0)];
        let paired = self.figure.rows.len() > MOST_FULL_ROWS && self.figure.cell_values != CellValues::Always;
        let has_numbers = self.figure.cell_values != CellValues::Never && !paired;
        let numbered = numbered.into_iter().filter(|_| has_numbers);
        let narrow = [3, 2, 1].map(Cells::without_numbers);
        let fits = |cells: &Cells| columns * cells.width <= room;
        let cells = numbered.chain(narrow).find(fits).unwrap_or(narrow[2]);
        let shown = columns.min(room / cells.width);
        let mut lines = match paired {
            true => self.paired_block(0..shown, cells),
            false => self.block(0..shown, cells),
        };
        if shown < columns {
            let note = format!("(the first {shown} of {columns} columns; a wider terminal shows more)");
            lines.extend(wrap(&note, self.width));
        }
        lines
    }

    /// Some columns with two rows to a line: the label is that of the upper one.
    fn paired_block(&self, columns: Range<usize>, cells: Cells) -> Vec<String> {
        let axis = fit_right(&short_axis(&self.figure.row_axis), self.label_width);
        let mut lines = vec![format!("{axis} {}", self.positions(columns.clone(), cells))];
        for row in (0..self.figure.rows.len()).step_by(2) {
            let mut line = fit_right(&self.row_label(row), self.label_width);
            line.push(' ');
            for column in columns.clone() {
                let color = |row: usize| {
                    (row < self.figure.rows.len()).then(|| {
                        let value = self.figure.value(row, column);
                        cell_color(self.figure.color_map, self.range, value)
                    })
                };
                line += &self.half_blocks(color(row), color(row + 1), cells.width);
            }
            line.push_str(self.reset());
            lines.push(line);
        }
        lines.extend(self.marks(columns, cells));
        lines
    }

    /// Small panels side by side, `per_row` of them or as many as fit.
    fn tiles(&self, panels: &[Heatmap], per_row: usize) -> Vec<String> {
        let longest = panels.iter().map(|panel| panel.columns.len().max(panel.rows.len()));
        let longest = longest.max().unwrap_or(0);
        let room = ((self.width + 1) / per_row.max(1)).saturating_sub(1);
        // Each character stands for `step` columns and, as two half blocks, for twice as many rows.
        let step = longest.div_ceil(room.max(LEAST_TILE)).max(1);
        let width = longest.div_ceil(step).max(LEAST_TILE);
        let shown = ((self.width + 1) / (width + 1)).clamp(1, per_row.max(1));
        let mut lines = Vec::new();
        for row in panels.chunks(per_row.max(1)) {
            let row = &row[..row.len().min(shown)];
            let titles = row.iter().map(|panel| {
                let title = cut(&visible_line(&panel.title), width);
                let padding = width - text_width(&title).min(width);
                format!("{title}{}", " ".repeat(padding))
            });
            lines.push(titles.collect::<Vec<String>>().join(" "));
            let tiles: Vec<Vec<String>> = row.iter().map(|panel| self.tile(panel, step, width)).collect();
            let height = tiles.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..height {
                let blank = " ".repeat(width);
                let parts = tiles.iter().map(|tile| tile.get(at).unwrap_or(&blank).clone());
                lines.push(parts.collect::<Vec<String>>().join(" "));
            }
        }
        let mut notes = Vec::new();
        if step > 1 {
            notes.push(format!(
                "(each half block is the strongest of {step} × {step} cells; a wider terminal shows more)"
            ));
        }
        if shown < per_row {
            notes.push(format!(
                "(the first {shown} of {per_row} panels of each row; a wider terminal shows more)"
            ));
        }
        lines.extend(notes.iter().flat_map(|note| wrap(note, self.width)));
        lines
    }

    fn tile(&self, panel: &Heatmap, step: usize, width: usize) -> Vec<String> {
        let (rows, columns) = (panel.rows.len(), panel.columns.len());
        let color = |row: usize, column: usize| {
            let rows = row * step..((row + 1) * step).min(rows);
            let cells = rows.flat_map(|row| {
                let columns = column * step..((column + 1) * step).min(columns);
                columns.map(move |column| panel.value(row, column))
            });
            cell_color(panel.color_map, panel.range(), panel.strongest(cells))
        };
        let (height, across) = (rows.div_ceil(step), columns.div_ceil(step));
        let mut lines = Vec::new();
        for row in (0..height).step_by(2) {
            let mut line = String::new();
            for column in 0..across {
                let lower = (row + 1 < height).then(|| color(row + 1, column));
                line += &self.half_blocks(Some(color(row, column)), lower, 1);
            }
            line.push_str(self.reset());
            line.push_str(&" ".repeat(width - across.min(width)));
            lines.push(line);
        }
        lines
    }

    /// Upper half blocks in one colour over another.
    fn half_blocks(&self, upper: Option<Rgb>, lower: Option<Rgb>, width: usize) -> String {
        let code = |layer: u8, color: Rgb| match self.color {
            TerminalColor::None => String::new(),
            TerminalColor::Truecolor => {
                let [red, green, blue] = color;
                format!("{layer};2;{red};{green};{blue}")
            }
            TerminalColor::Ansi256 => format!("{layer};5;{}", nearest_in_palette(color).0),
        };
        let codes = [upper.map(|color| code(38, color)), lower.map(|color| code(48, color))];
        let codes: Vec<String> = codes.into_iter().flatten().collect();
        // Where there is no lower half, the terminal's own background shows.
        let before = if lower.is_none() { "\x1b[0m" } else { "" };
        format!("{before}\x1b[{}m{}", codes.join(";"), "▀".repeat(width))
    }

    /// A table in as many parts as needed, each with `at_once` columns.
    fn blocks(&self, at_once: usize, cells: Cells) -> Vec<String> {
        let columns = self.figure.columns.len();
        let mut lines = Vec::new();
        for start in (0..columns).step_by(at_once) {
            if start > 0 {
                lines.push(String::new());
            }
            lines.extend(self.block(start..columns.min(start + at_once), cells));
        }
        lines
    }

    /// Some columns with their positions above and marks below.
    fn block(&self, columns: Range<usize>, cells: Cells) -> Vec<String> {
        let mut lines = Vec::new();
        let axis = fit_right(&short_axis(&self.figure.row_axis), self.label_width);
        if self.has_positions() || !self.figure.row_axis.is_empty() {
            lines.push(format!("{axis} {}", self.positions(columns.clone(), cells)));
        }
        for row in 0..self.figure.rows.len() {
            let mut line = fit_right(&self.row_label(row), self.label_width);
            line.push(' ');
            for column in columns.clone() {
                line.push_str(&self.cell(self.figure.value(row, column), cells));
            }
            line.push_str(self.reset());
            lines.push(line);
        }
        lines.extend(self.marks(columns, cells));
        lines
    }

    /// The line of marks under the columns, if any of them is marked.
    fn marks(&self, columns: Range<usize>, cells: Cells) -> Option<String> {
        let is_marked = |column: usize| self.figure.is_highlighted(column);
        columns.clone().any(is_marked).then(|| {
            let mark = |column| cells.fill(if is_marked(column) { MARK } else { "" });
            let marks: String = columns.map(mark).collect();
            format!("{} {marks}", " ".repeat(self.label_width))
        })
    }

    fn row_label(&self, row: usize) -> String {
        shown_row(self.figure, &self.figure.rows[row])
    }

    /// Whether numbers stand over the columns.
    fn has_positions(&self) -> bool {
        self.figure.column_numbers || self.figure.has_numbered_columns()
    }

    /// The position numbers over the columns: over each if there is room, else over some.
    fn positions(&self, columns: Range<usize>, cells: Cells) -> String {
        if !self.has_positions() {
            return String::new();
        }
        let length = columns.len() * cells.width;
        let digits = columns.end.saturating_sub(1).to_string().len();
        let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
        let step = steps.into_iter().find(|step| step * cells.width > digits).unwrap_or(1000);
        let mut line = String::new();
        for column in columns.step_by(step) {
            let number = cells.fill(&column.to_string());
            // The last number may have to stand over fewer columns than it needs.
            if line.len() + number.len() <= length {
                line.push_str(&format!("{number:<width$}", width = step * cells.width));
            }
        }
        line
    }

    fn cell(&self, value: f32, cells: Cells) -> String {
        let text = if cells.numbers { self.number.format(value.into()) } else { String::new() };
        let fill = cell_color(self.figure.color_map, self.range, value);
        format!("{}{}", self.paint(fill), cells.fill(&text))
    }

    fn number_width(&self) -> usize {
        let numbers = self.figure.values.iter().map(|&value| self.number.format(value.into()).len());
        let position = self.figure.columns.len().saturating_sub(1).to_string().len();
        numbers.max().unwrap_or(0).max(position)
    }

    /// Which token is at which position, unless the numbers over the columns say all, and what the
    /// marks mean.
    fn key(&self) -> Vec<String> {
        let listed = match self.figure.has_numbered_columns() {
            true => &[],
            false => self.figure.columns.as_slice(),
        };
        let columns = listed.iter().enumerate();
        let entries = columns.map(|(column, token)| {
            let token = cut(&visible(token), LONGEST_TOKEN.min(self.width - 8));
            let token = isolated(token);
            match self.figure.is_highlighted(column) {
                true => format!("{MARK}{column} {token}"),
                false => format!("{column} {token}"),
            }
        });
        let mut lines = vec![String::new()];
        let mut line = String::new();
        let mut length = 0;
        for (column, entry) in entries.enumerate() {
            let more = text_width(&entry);
            if length > 0 && length + 3 + more > self.width {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            if length > 0 {
                line.push_str(" · ");
                length += 3;
            }
            let marked = self.figure.is_highlighted(column);
            line.push_str(&if marked { self.bold(&entry) } else { entry });
            length += more;
        }
        lines.extend((!line.is_empty()).then_some(line));
        if self.figure.has_highlights() && !self.figure.highlight_label.is_empty() {
            let note = format!("{MARK} {}", visible_line(&self.figure.highlight_label));
            lines.extend(wrap(&note, self.width));
        }
        if lines.len() == 1 {
            lines.clear();
        }
        lines
    }

    /// What the colours mean, and the smallest and the largest value.
    fn scale(&self) -> Vec<String> {
        self.scale_with(|index| self.place(index, ""))
    }

    /// As [`Page::scale`], with words for where the value at an index stands.
    fn scale_with(&self, place: impl Fn(usize) -> String) -> Vec<String> {
        let range = self.range;
        let mut lines = vec![String::new()];
        lines.extend(wrap(&visible_line(&self.figure.value_label), self.width));
        let low = self.number.format(range.low.into());
        let high = self.number.format(range.high.into());
        let strip = STRIP.min(self.width.saturating_sub(low.len() + high.len() + 2));
        if self.color != TerminalColor::None && strip > 2 {
            let colors: String = (0..strip)
                .map(|step| {
                    let t = step as f32 / (strip - 1) as f32;
                    format!("{} ", self.paint(cell_color(self.figure.color_map, range, range.value_at(t))))
                })
                .collect();
            lines.push(format!("{low} {colors}{} {high}", self.reset()));
        }
        let finite = || (0..self.figure.values.len()).filter(|&at| self.figure.values[at].is_finite());
        let by_value = |a: &usize, b: &usize| self.figure.values[*a].total_cmp(&self.figure.values[*b]);
        if let (Some(least), Some(most)) = (finite().min_by(by_value), finite().rev().max_by(by_value)) {
            let text = format!("min {}, max {}", place(least), place(most));
            lines.extend(wrap(&text, self.width));
        }
        lines
    }

    /// A value and where it stands, in the panel of this name if there are several.
    fn place(&self, index: usize, panel: &str) -> String {
        let columns = self.figure.columns.len();
        let (row, column) = (index / columns, index % columns);
        let value = self.number.format(self.figure.values[index].into());
        let mut parts = Vec::new();
        if !panel.is_empty() {
            parts.push(visible_line(panel));
        }
        // A row such as L0H1 says itself what it is.
        let (axis, label) = (short_axis(&self.figure.row_axis), self.row_label(row));
        match label.parse::<usize>() {
            _ if self.figure.rows_are_tokens => parts.push(format!("{axis} {row} {label}")),
            Ok(_) => parts.push(format!("{axis} {label}").trim().to_owned()),
            Err(_) => parts.push(label),
        }
        let mut words = vec![short_axis(&self.figure.column_axis)];
        if self.has_positions() {
            words.push(column.to_string());
        }
        if !self.figure.has_numbered_columns() {
            let token = cut(&visible(&self.figure.columns[column]), LONGEST_LABEL);
            words.push(isolated(token));
        }
        words.retain(|word| !word.is_empty());
        parts.push(words.join(" "));
        parts.retain(|part| !part.is_empty());
        format!("{value} ({})", parts.join(", "))
    }

    fn legend(&self) -> Vec<String> {
        let clipped = self.figure.is_clipped().then(|| CLIPPED.to_owned());
        let legend = clipped.iter().chain(&self.figure.legend);
        legend.flat_map(|line| wrap(&visible_line(line), self.width)).collect()
    }

    /// The escape sequence for a background and for ink that can be read on it.
    fn paint(&self, background: Rgb) -> String {
        match self.color {
            TerminalColor::None => String::new(),
            TerminalColor::Truecolor => {
                let ([r, g, b], [red, green, blue]) = (background, ink_on(background));
                format!("\x1b[48;2;{r};{g};{b};38;2;{red};{green};{blue}m")
            }
            TerminalColor::Ansi256 => {
                let (index, shown) = nearest_in_palette(background);
                // 16 is black and 231 white, whatever the theme of the terminal.
                let ink = if ink_on(shown)[0] > 127 { 231 } else { 16 };
                format!("\x1b[48;5;{index};38;5;{ink}m")
            }
        }
    }

    fn reset(&self) -> &'static str {
        if self.color == TerminalColor::None { "" } else { "\x1b[0m" }
    }

    fn bold(&self, text: &str) -> String {
        match self.color {
            TerminalColor::None => text.to_owned(),
            _ => format!("\x1b[1m{text}\x1b[0m"),
        }
    }
}

/// The first word or two of what an axis is: `position` of "position and token".
fn short_axis(axis: &str) -> String {
    let axis = axis.split(" and ").next().unwrap_or_default();
    visible_line(axis.split(',').next().unwrap_or_default())
}

/// The label of a row as it is printed.
fn shown_row(figure: &Heatmap, label: &str) -> String {
    match figure.rows_are_tokens {
        true => visible(label),
        false => visible_line(label),
    }
}

/// The colour of the 256 that looks closest, from the cube (16 to 231) or the greys (232 to 255), and
/// what it looks like.
fn nearest_in_palette(color: Rgb) -> (u8, Rgb) {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    // The distance of two colours as people see it (that of their bytes would turn pale blues violet),
    // with more weight on hue: which side of the centre a value lies on matters most.
    const WEIGHTS: [f32; 3] = [1.0, 3.0, 3.0];
    let wanted = oklab(color);
    let distance = |other: Rgb| -> f32 {
        let pairs = wanted.into_iter().zip(oklab(other)).zip(WEIGHTS);
        pairs.map(|((a, b), weight)| weight * (a - b).powi(2)).sum()
    };
    let cube = (0..216u8).map(|index| {
        let [red, green, blue] = [index / 36, index / 6 % 6, index % 6];
        (16 + index, [red, green, blue].map(|level| LEVELS[usize::from(level)]))
    });
    let greys = (0..24u8).map(|index| (232 + index, [8 + 10 * index; 3]));
    cube.chain(greys).min_by(|a, b| distance(a.1).total_cmp(&distance(b.1))).unwrap_or((16, [0; 3]))
}

/// How many columns a text takes: two for wide characters (Chinese, Japanese, Korean, emoji), none
/// for combining marks. Coarser than the Unicode tables, and good enough for tokens.
fn text_width(text: &str) -> usize {
    text.chars().map(character_width).sum()
}

fn character_width(character: char) -> usize {
    character.width().unwrap_or(0)
}

/// A token that does not change the order of what is printed after it: a terminal that writes Arabic and
/// Hebrew from right to left would take numbers and signs along.
fn isolated(token: String) -> String {
    const LEFT_TO_RIGHT_MARK: char = '\u{200e}';
    let is_leftwards = |character: char| matches!(character, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}');
    match token.contains(is_leftwards) {
        true => token + LEFT_TO_RIGHT_MARK.to_string().as_str(),
        false => token,
    }
}

/// `text` if it takes no more than `width` columns, otherwise its beginning and `…`.
fn cut(text: &str, width: usize) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let mut head = String::new();
    let mut used = 0;
    for character in text.chars() {
        used += character_width(character);
        if used >= width {
            break;
        }
        head.push(character);
    }
    head.push('…');
    head
}

/// `text` cut to `width` columns and moved to the right.
fn fit_right(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let padding = width.saturating_sub(text_width(&text));
    format!("{}{text}", " ".repeat(padding))
}

/// Lines of at most `width` columns, broken between words and, if a word is too long, inside it.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        if text_width(&line) + text_width(word.trim_end()) > width && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for character in word.chars() {
            if text_width(&line) + character_width(character) > width && character != ' ' {
                lines.push(std::mem::take(&mut line));
            }
            line.push(character);
        }
    }
    lines.push(line);
    lines.retain(|line| !line.trim().is_empty());
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::color::ColorMap;
    use super::*;

    fn figure(rows: usize, columns: usize) -> Heatmap {
        let value = |index: usize| (index % 7) as f32 * 0.5 - 1.5;
        Heatmap {
            title: "Patching the residual stream".into(),
            subtitle: vec!["clean: Michelle Jones was a top-notch student.".into()],
            values: (0..rows * columns).map(value).collect(),
            rows: (0..rows).map(|row| row.to_string()).collect(),
            columns: (0..columns).map(|column| format!(" tok{}", column % 4)).collect(),
            row_axis: "layer".into(),
            column_axis: "position, token".into(),
            value_label: "logit difference".into(),
            center: Some(0.0),
            highlight_columns: vec![1],
            highlight_label: "the prompts differ here".into(),
            ..Heatmap::default()
        }
    }

    fn printed(figure: &Heatmap, color: TerminalColor, width: usize) -> String {
        let mut out = Vec::new();
        let style = TerminalStyle { color, width };
        write_figure(&mut out, &figure.clone().into(), style).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The text without escape sequences.
    fn stripped(text: &str) -> String {
        let mut parts = text.split('\x1b');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + part.split_once('m').unwrap().1)
    }

    #[test]
    fn plain_output_is_an_aligned_table_of_signed_numbers() {
        let text = printed(&figure(2, 4), TerminalColor::None, 80);
        let expected = "\
Patching the residual stream
clean: Michelle Jones was a top-notch student.

layer      0     1     2     3
    0  -1.50 -1.00 -0.50  0.00
    1  +0.50 +1.00 +1.50 -1.50
                 ▲

0 ␣tok0 · ▲1 ␣tok1 · 2 ␣tok2 · 3 ␣tok3
▲ the prompts differ here

logit difference
min -1.50 (layer 0, position 0 ␣tok0), max +1.50 (layer 1, position 2 ␣tok2)
";
        assert_eq!(text, expected);
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn truecolor_output_puts_numbers_on_coloured_cells() {
        let text = printed(&figure(2, 4), TerminalColor::Truecolor, 80);
        let [r, g, b] = ColorMap::RdBu.color(1.0);
        assert!(text.contains(&format!("\x1b[48;2;{r};{g};{b};38;2;255;255;255m +1.50 ")));
        assert!(stripped(&text).contains("    0  -1.50  -1.00  -0.50   0.00"));
        for line in text.lines().filter(|line| line.contains('\x1b')) {
            let last = line.rfind('\x1b').map(|at| &line[at..]).unwrap();
            assert!(last.starts_with("\x1b[0m"), "{last:?}");
        }
    }

    #[test]
    fn the_palette_of_256_colours_is_used_if_asked_for() {
        let text = printed(&figure(2, 4), TerminalColor::Ansi256, 80);
        assert!(text.contains("\x1b[48;5;") && !text.contains(";2;"));
        assert_eq!(nearest_in_palette([255, 255, 255]), (231, [255; 3]));
        assert_eq!(nearest_in_palette([8, 8, 8]), (232, [8; 3]));
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        for color in [TerminalColor::Truecolor, TerminalColor::Ansi256, TerminalColor::None] {
            for (columns, width) in [(11, 32), (11, 80), (30, 60), (60, 80), (60, 200), (300, 80)] {
                let text = stripped(&printed(&figure(3, columns), color, width));
                for line in text.lines() {
                    assert!(text_width(line) <= width, "{columns} {width} {color:?}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_cut_with_a_note() {
        let text = printed(&figure(2, 300), TerminalColor::Truecolor, 80);
        assert!(text.contains("(the first 74 of 300 columns"), "{text}");
        assert!(!printed(&figure(2, 60), TerminalColor::Truecolor, 80).contains("the first"));
    }

    #[test]
    fn a_plain_table_keeps_all_columns() {
        let text = printed(&figure(2, 60), TerminalColor::None, 80);
        let headers = text.lines().filter(|line| line.starts_with("layer"));
        let positions = headers.flat_map(|line| line.split_whitespace().skip(1));
        assert!(positions.eq((0..60).map(|column| column.to_string())));
    }

    #[test]
    fn values_that_are_no_numbers_are_printed_as_such() {
        let mut figure = figure(2, 3);
        figure.values = vec![f32::NAN, f32::INFINITY, -0.001, f32::NEG_INFINITY, 1.0, 2.0];
        let text = printed(&figure, TerminalColor::None, 80);
        for expected in ["nan", "+inf", "-inf", " 0.00", "max +2.00"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("-0.00"));
        figure.values.fill(f32::NAN);
        assert!(!printed(&figure, TerminalColor::Truecolor, 80).contains("min"));
    }

    #[test]
    fn a_figure_without_anything_is_printed() {
        let style = TerminalStyle { color: TerminalColor::Truecolor, width: 0 };
        assert!(write_figure(&mut Vec::new(), &Heatmap::default().into(), style).is_ok());
    }

    #[test]
    fn wide_characters_take_two_columns_and_marks_none() {
        assert_eq!(text_width("日本"), 4);
        assert_eq!(text_width("😀"), 2);
        assert_eq!(text_width("e\u{301}␣"), 2);
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(fit_right("日", 4), "  日");
    }

    #[test]
    fn long_words_are_broken_and_none_is_lost() {
        let lines = wrap("one twothreefour five", 6);
        assert_eq!(lines, ["one", "twothr", "eefour", "five"]);
        assert!(wrap("", 6).is_empty());
    }
}
