//! From the description of a figure to a scene: where everything goes.

pub mod circuit;
mod lines;
mod scatter;
mod sheet;

use visible::{SPACE, visible, visible_line};

use super::color::{ColorMap, NO_VALUE, Rgb, ink_on};
use super::figure::{CellValues, Figure, Heatmap, ValueRange};
use super::number::{NumberStyle, round_ticks};
use super::scene::{Anchor, Item, Line, Polygon, Rect, Scene, Text, Weight};
use super::text::{ASCENT, CAP_HEIGHT, DESCENT, Fonts, Typesetter};

/// Free space at the four edges of the picture.
const MARGIN: f32 = 22.0;
/// No picture is narrower, so that titles have some room.
const LEAST_WIDTH: f32 = 560.0;
/// No colour bar is shorter, however few rows there are.
const LEAST_BAR_HEIGHT: f32 = 190.0;

/// The title takes the first of these sizes that keeps it on one line, or else the last.
const TITLE_SIZES: [f32; 3] = [14.5, 13.5, 12.5];
const SUBTITLE_SIZE: f32 = 11.0;
const LEGEND_SIZE: f32 = 10.5;
const AXIS_SIZE: f32 = 11.0;
const TICK_SIZE: f32 = 10.0;
const LEAST_TICK_SIZE: f32 = 6.5;
const TOKEN_SIZE: f32 = 10.5;
const CELL_SIZES: [f32; 5] = [11.0, 10.0, 9.0, 8.0, 7.5];
/// Cells become as wide as their tokens, but no wider than this, and all columns together no wider than
/// that: longer tokens are cut.
const LONGEST_CELL_TEXT: f32 = 64.0;
const MOST_TEXT_WIDTH: f32 = 2200.0;

/// From one baseline to the next, in ems.
const LINE_HEIGHT: f32 = 1.32;
/// How close parallel lines of text may come, in ems, before they touch.
const CLOSEST_LINES: f32 = 1.17;
/// A token label is cut (with an ellipsis) beyond this length.
const LONGEST_LABEL: f32 = 130.0;

/// What is said where values lie beyond the scale.
pub const CLIPPED: &str = "Values beyond the scale have the colours of its ends.";

/// Between the signs for leading spaces and the letters of a token, in ems.
const SPACE_GAP: f32 = 0.09;

const BAR_GAP: f32 = 20.0;
const BAR_WIDTH: f32 = 13.0;
const BAR_TICK: f32 = 4.0;
/// Between two things that belong together.
const SMALL_GAP: f32 = 6.0;
const MARKER_WIDTH: f32 = 9.0;
const MARKER_HEIGHT: f32 = 6.5;
/// The side of the hatched sample in the legend.
const SAMPLE: f32 = 10.0;

const INK: Rgb = [26, 26, 26];
const SOFT_INK: Rgb = [92, 92, 92];
const PALE_INK: Rgb = [165, 165, 165];
const FRAME: Rgb = [150, 150, 150];
const HATCH: Rgb = [165, 165, 165];
/// How a line of the legend begins that says why cells have no number.
const HATCHED: &str = "Hatched: ";
/// The colour of marked columns: neither of the ends of a diverging map.
const ACCENT: Rgb = [178, 84, 0];

/// Arranges a figure. The canvas is as large as its contents need.
///
/// Panics if the number of values is not that of rows times columns.
pub fn layout(figure: &Figure, fonts: &Fonts) -> Scene {
    let setter = Typesetter::new(fonts);
    match &*figure.bounded() {
        Figure::Heatmap(heatmap) => layout_heatmap(heatmap, setter, &Setting::ALONE).scene,
        Figure::Lines(chart) => lines::layout(chart, setter),
        Figure::Sheet(sheet) => sheet::layout(sheet, setter),
        Figure::Circuit(circuit) => circuit::layout(circuit, setter),
        Figure::Scatter(scatter) => scatter::layout(scatter, setter),
    }
}

/// The room that a heatmap is given.
#[derive(Clone, Copy, Debug)]
struct Setting {
    margin: f32,
    /// No picture is narrower, so that titles have some room.
    least_width: f32,
    /// How large the field of cells is compared with that of a heatmap which stands alone.
    size: f32,
    /// Whether there is a colour bar beside the cells.
    bar: bool,
    /// No colour bar is shorter, however few rows there are.
    least_bar_height: f32,
    /// How the numbers in the cells are rounded, and how large they are: of panels with one scale as all of their
    /// numbers need it; else as its own do.
    numbers: Option<Numbers>,
}

/// What is written in cells.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    style: NumberStyle,
    /// The width of the widest string at size 1.
    widest: f32,
}

impl Numbers {
    fn of(figure: &Heatmap, setter: &mut Typesetter) -> Self {
        let widths = cell_strings(figure).map(|string| setter.width(&string, 1.0, Weight::Regular));
        Self { widest: widest(widths), style: NumberStyle::for_largest(largest_magnitude(figure)) }
    }
}

impl Setting {
    /// A picture of its own.
    const ALONE: Self = Self {
        numbers: None,
        margin: MARGIN,
        least_width: LEAST_WIDTH,
        size: 1.0,
        bar: true,
        least_bar_height: LEAST_BAR_HEIGHT,
    };
}

/// Arranges a heatmap, and gives the typesetter back in the drawing.
fn layout_heatmap(figure: &Heatmap, mut setter: Typesetter, setting: &Setting) -> Drawing {
    figure.check_shape();
    let plan = Plan::new(figure, &mut setter, setting);
    let mut drawing =
        Drawing { setter, margin: setting.margin, scene: Scene { width: plan.width, ..Scene::default() } };

    let y = drawing.heading(&figure.title, &figure.subtitle, plan.width);
    let marker_band = if figure.has_highlights() { MARKER_HEIGHT + 3.0 } else { 0.0 };
    let grid = Grid { y: y + marker_band, ..plan.grid };
    drawing.cells(figure, &grid, setting.numbers);
    let mut bottom =
        drawing.row_labels(figure, &plan, &grid).max(drawing.columns(figure, &plan.tokens, &grid));
    if let Some(bar) = &plan.bar {
        let x = grid.x + grid.width() + BAR_GAP;
        bottom = bottom.max(drawing.color_bar(bar, x, grid.y, grid.gap));
    }
    drawing.scene.height = (drawing.legend(figure, bottom) + setting.margin).ceil();
    drawing
}

/// The place and the measures of the grid of cells.
#[derive(Clone, Copy, Debug)]
struct Grid {
    x: f32,
    y: f32,
    cell_width: f32,
    cell_height: f32,
    rows: usize,
    columns: usize,
    gap: f32,
}

impl Grid {
    fn width(&self) -> f32 {
        self.cell_width * self.columns as f32
    }

    fn height(&self) -> f32 {
        self.cell_height * self.rows as f32
    }

    fn column_center(&self, column: usize) -> f32 {
        self.x + (column as f32 + 0.5) * self.cell_width
    }

    fn row_center(&self, row: usize) -> f32 {
        self.y + (row as f32 + 0.5) * self.cell_height
    }

    /// The rectangle to fill for a cell. Its edges are on half units: sharp at a scale of 2.
    fn cell(&self, row: usize, column: usize, fill: Rgb) -> Rect {
        let snap = |at: f32| (at * 2.0).round() / 2.0;
        let left = snap(self.x + column as f32 * self.cell_width);
        let right = snap(self.x + (column + 1) as f32 * self.cell_width);
        let top = snap(self.y + row as f32 * self.cell_height);
        let bottom = snap(self.y + (row + 1) as f32 * self.cell_height);
        Rect { x: left, y: top, w: right - left - self.gap, h: bottom - top - self.gap, fill }
    }
}

/// Everything about the width of the figure, which has to be known before anything is placed.
struct Plan {
    width: f32,
    /// The grid; its `y` is not known yet.
    grid: Grid,
    /// The left edge of the part with the grid and the colour bar.
    body_x: f32,
    row_size: f32,
    row_step: usize,
    tokens: TokenPlan,
    bar: Option<BarPlan>,
}

impl Plan {
    fn new(figure: &Heatmap, setter: &mut Typesetter, setting: &Setting) -> Self {
        let (rows, columns) = (figure.rows.len(), figure.columns.len());
        let labels = token_labels(figure, setter);
        let widest_label = widest(labels.iter().map(|label| label.width));
        let (cell_width, cell_height) = cell_size(figure, widest_label, setter, setting);
        let gap = if cell_width >= 10.0 && cell_height >= 9.0 { 1.0 } else { 0.0 };
        let mut grid = Grid { x: 0.0, y: 0.0, cell_width, cell_height, rows, columns, gap };

        let row_size = (cell_height / CLOSEST_LINES).clamp(LEAST_TICK_SIZE, TICK_SIZE);
        let row_step = (row_size * CLOSEST_LINES / cell_height).ceil().max(1.0) as usize;
        let row_labels: Vec<String> = (0..rows).map(|row| row_label(figure, row, row_size, setter)).collect();
        let row_labels = row_labels.iter().map(|label| setter.width(label, row_size, Weight::Regular));
        let mut left = setting.margin + widest(row_labels) + SMALL_GAP;
        if !figure.row_axis.is_empty() {
            left += AXIS_SIZE + SMALL_GAP;
        }

        let tokens = TokenPlan::new(figure, labels, &grid, setter);
        let body_left = (setting.margin + tokens.left_reach(&grid) - left).max(0.0);
        grid.x = (left + body_left).ceil();
        let bar_height = grid.height().max(setting.least_bar_height);
        let bar = setting.bar.then(|| BarPlan::new(figure, bar_height, setter));
        let bar_width = bar.as_ref().map_or(0.0, |bar| BAR_GAP + bar.width());
        let bar_right = grid.x + grid.width() + bar_width;
        let tokens_right = grid.x + grid.width() + tokens.right_reach(&grid);
        let axis_width = setter.width(&visible_line(&figure.column_axis), AXIS_SIZE, Weight::Regular);
        let axis_right = grid.x + (grid.width() + axis_width) / 2.0;
        let content = bar_right.max(tokens_right).max(axis_right) + setting.margin;
        let width = content.max(setting.least_width).ceil();
        // A small grid stands in the middle of the sheet.
        let shift = ((width - content) / 2.0).floor();
        grid.x += shift;
        Self { width, grid, body_x: body_left + shift + setting.margin, row_size, row_step, tokens, bar }
    }
}

/// The width and the height of a cell.
fn cell_size(figure: &Heatmap, widest_label: f32, setter: &mut Typesetter, setting: &Setting) -> (f32, f32) {
    let (rows, columns) = (figure.rows.len(), figure.columns.len());
    let mut width = cell_width(columns, widest_label, setting.size);
    let mut height = cell_height(rows, setting.size);
    if figure.rows_are_tokens {
        width = width.min(height);
        height = width;
    }
    // Tokens are wanted where there is room for them, numbers only where they are asked for.
    let most = match figure.cell_values {
        CellValues::Always => f32::INFINITY,
        CellValues::Auto if !figure.cell_texts.is_empty() => {
            (MOST_TEXT_WIDTH / columns.max(1) as f32).min(LONGEST_CELL_TEXT)
        }
        _ => 0.0,
    };
    if most > 0.0 {
        let size = CELL_SIZES[CELL_SIZES.len() - 1];
        let numbers = setting.numbers.unwrap_or_else(|| Numbers::of(figure, setter));
        width = width.max((numbers.widest * size + 5.0).ceil().min(most));
        height = height.max((size * 1.25).ceil());
    }
    (width, height)
}

/// What is written in the cells: the tokens that are given, or the rounded values.
fn cell_strings(figure: &Heatmap) -> impl Iterator<Item = String> {
    let style = NumberStyle::for_largest(largest_magnitude(figure));
    let string = move |(i, &value): (usize, &f32)| match figure.cell_texts.get(i) {
        Some(text) => visible(text),
        None if value.is_finite() => style.typeset(value.into()),
        None => String::new(),
    };
    figure.values.iter().enumerate().map(string)
}

/// The width of a cell: the more columns, the narrower. A short row of tokens gets cells that are
/// wide enough for the tokens.
fn cell_width(columns: usize, widest_label: f32, size: f32) -> f32 {
    let count = columns.max(1) as f32;
    let target = size * (540.0 + 8.0 * count).min(2200.0) / count;
    let width =
        if columns <= 12 { target.max(widest_label + 7.0).clamp(44.0 * size, 62.0 * size) } else { target };
    if width >= 8.0 { width.floor() } else { width.max(1.0) }
}

/// The height of a cell: the more rows, the lower; but never so low that rows cannot be told apart.
fn cell_height(rows: usize, size: f32) -> f32 {
    let height = size * 480.0 / rows.max(1) as f32;
    match rows {
        0..=48 => height.clamp(13.0_f32.min(30.0 * size), 30.0 * size).floor(),
        49..=400 => (size * 640.0 / rows as f32).max(8.0 * size),
        _ => (size * 3200.0 / rows as f32).max(1.0),
    }
}

/// The label of a row as it is written.
fn row_label(figure: &Heatmap, row: usize, size: f32, setter: &mut Typesetter) -> String {
    let label = &figure.rows[row];
    let shown = match figure.rows_are_tokens {
        true => visible(label),
        false => visible_line(label),
    };
    setter.shorten(&shown, size, Weight::Regular, LONGEST_LABEL)
}

fn widest(widths: impl Iterator<Item = f32>) -> f32 {
    widths.fold(0.0, f32::max)
}

/// A token as it is written under its column.
#[derive(Clone, Debug)]
struct TokenLabel {
    string: String,
    weight: Weight,
    /// At the size `TOKEN_SIZE`.
    width: f32,
}

fn token_labels(figure: &Heatmap, setter: &mut Typesetter) -> Vec<TokenLabel> {
    let label = |(column, token): (usize, &String)| {
        let weight = if figure.is_highlighted(column) { Weight::Bold } else { Weight::Regular };
        let string = setter.shorten(&visible(token), TOKEN_SIZE, weight, LONGEST_LABEL);
        let gap = if string.starts_with(SPACE) { SPACE_GAP * TOKEN_SIZE } else { 0.0 };
        let width = setter.width(&string, TOKEN_SIZE, weight) + gap;
        TokenLabel { string, weight, width }
    };
    figure.columns.iter().enumerate().map(label).collect()
}

/// How the tokens are written under the columns.
struct TokenPlan {
    labels: Vec<TokenLabel>,
    /// The columns that are labelled, in order.
    shown: Vec<usize>,
    size: f32,
    /// How far the labels rise, in degrees: 0 is horizontal, 90 upright.
    rise: f32,
    /// The font size of the position numbers.
    number_size: f32,
    /// The columns whose position is shown.
    numbered: Vec<usize>,
}

impl TokenPlan {
    fn new(figure: &Heatmap, labels: Vec<TokenLabel>, grid: &Grid, setter: &mut Typesetter) -> Self {
        let cell = grid.cell_width;
        let widest_label = widest(labels.iter().map(|label| label.width));
        let attempts = [(45.0, 1.0), (60.0, 1.0), (90.0, 1.0), (90.0, 0.9), (90.0, 0.8)];
        let (rise, scale) = if widest_label + 5.0 <= cell {
            (0.0, 1.0)
        } else if widest_label * 0.88 + 4.0 <= cell {
            (0.0, 0.88)
        } else {
            let fits = |&(rise, scale): &(f32, f32)| {
                cell * rise.to_radians().sin() >= TOKEN_SIZE * scale * CLOSEST_LINES
            };
            attempts.into_iter().find(fits).unwrap_or((90.0, 0.8))
        };
        let size = TOKEN_SIZE * scale;
        let needed = if rise == 0.0 { 0.0 } else { size * CLOSEST_LINES / rise.to_radians().sin() };
        let shown = columns_apart(figure, needed, cell);

        let last = figure.columns.len().saturating_sub(1).to_string();
        let digits = setter.width(&last, 1.0, Weight::Bold);
        let number_size = ((cell - 2.0) / digits).clamp(LEAST_TICK_SIZE, TICK_SIZE - 1.0);
        let numbered = if figure.column_numbers {
            columns_apart(figure, digits * number_size + 2.0, cell)
        } else {
            Vec::new()
        };
        Self { labels, shown, size, rise, number_size, numbered }
    }

    fn length(&self, column: usize) -> f32 {
        self.labels[column].width * self.size / TOKEN_SIZE
    }

    fn sin_cos(&self) -> (f32, f32) {
        self.rise.to_radians().sin_cos()
    }

    /// How far the labels reach down from their top.
    fn height(&self) -> f32 {
        let (sin, cos) = self.sin_cos();
        let longest = widest(self.shown.iter().map(|&column| self.length(column)));
        longest * sin + (ASCENT + DESCENT) * self.size * cos
    }

    /// How far the labels reach to the left of the grid.
    fn left_reach(&self, grid: &Grid) -> f32 {
        let (sin, cos) = self.sin_cos();
        let reach = |&column: &usize| {
            let before = if self.rise == 0.0 { 0.5 } else { cos } * self.length(column);
            before + sin * ASCENT * self.size - (column as f32 + 0.5) * grid.cell_width
        };
        widest(self.shown.iter().map(reach))
    }

    /// How far the labels reach to the right of the grid.
    fn right_reach(&self, grid: &Grid) -> f32 {
        let reach = |&column: &usize| {
            let after = if self.rise == 0.0 { self.length(column) / 2.0 } else { self.size };
            after - ((grid.columns - column) as f32 - 0.5) * grid.cell_width
        };
        widest(self.shown.iter().map(reach))
    }
}

/// The columns to label if two labels must be `needed` apart: all, or every second, fifth, tenth…
/// Highlighted columns are always among them, and displace their neighbours.
fn columns_apart(figure: &Heatmap, needed: f32, cell: f32) -> Vec<usize> {
    let count = figure.columns.len();
    // A grain of tolerance, since both lengths are rounded.
    let least = ((needed / cell - 1e-3).ceil() as usize).max(1);
    let round = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500].into_iter();
    let step = round.into_iter().find(|&step| step >= least).unwrap_or(least);
    let mut shown: Vec<usize> = Vec::new();
    for column in (0..count).filter(|&column| figure.is_highlighted(column)) {
        if shown.last().is_none_or(|&last| column >= last + least) {
            shown.push(column);
        }
    }
    let marked = shown.clone();
    let is_free = |column: &usize| marked.iter().all(|&other| column.abs_diff(other) >= least);
    shown.extend((0..count).step_by(step).filter(is_free));
    shown.sort_unstable();
    shown
}

/// The colour bar and what is written beside it.
struct BarPlan {
    height: f32,
    range: ValueRange,
    color_map: ColorMap,
    ticks: Vec<(f32, String)>,
    ticks_width: f32,
    label: Vec<String>,
}

impl BarPlan {
    fn new(figure: &Heatmap, height: f32, setter: &mut Typesetter) -> Self {
        let range = figure.range();
        let most = (height / 44.0) as usize;
        let (ticks, step) = round_ticks(range.low.into(), range.high.into(), most.clamp(3, 9));
        let style = NumberStyle::for_step(step);
        let ticks: Vec<_> =
            ticks.into_iter().map(|tick| (range.fraction(tick as f32), style.typeset(tick))).collect();
        let widths = ticks.iter().map(|(_, text)| setter.width(text, TICK_SIZE, Weight::Regular));
        let ticks_width = widest(widths);
        let label = visible_line(&figure.value_label);
        let label = setter.wrap(&label, AXIS_SIZE, Weight::Regular, height);
        Self { height, range, color_map: figure.color_map, ticks, ticks_width, label }
    }

    fn width(&self) -> f32 {
        let label = self.label.len() as f32 * AXIS_SIZE * LINE_HEIGHT;
        BAR_WIDTH + BAR_TICK + 3.0 + self.ticks_width + SMALL_GAP + label
    }
}

/// A scene in the making. The methods return the y up to which they have used the sheet.
struct Drawing {
    setter: Typesetter,
    margin: f32,
    scene: Scene,
}

impl Drawing {
    fn heading(&mut self, title: &str, subtitle: &[String], width: f32) -> f32 {
        let margin = self.margin;
        let limit = width - 2.0 * margin;
        let mut y = margin;
        let title_width = self.setter.width(&visible_line(title), 1.0, Weight::Bold);
        let fits = |size: &f32| title_width * size <= limit;
        let size = TITLE_SIZES.into_iter().find(fits).unwrap_or(TITLE_SIZES[2]);
        y = self.paragraph(title, margin, y, limit, (size, Weight::Bold, INK));
        if !title.is_empty() && !subtitle.is_empty() {
            y += 3.0;
        }
        let style = (SUBTITLE_SIZE, Weight::Regular, SOFT_INK);
        for line in subtitle {
            y = self.paragraph(line, margin, y, limit, style);
        }
        if y > margin { (y + 12.0).round() } else { y }
    }

    /// Sets wrapped lines whose top is at `y`.
    fn paragraph(
        &mut self,
        text: &str,
        x: f32,
        mut y: f32,
        limit: f32,
        (size, weight, color): (f32, Weight, Rgb),
    ) -> f32 {
        for line in self.setter.wrap(&visible_line(text), size, weight, limit) {
            let baseline = y + size * ASCENT;
            self.text(line, [x, baseline], size, Anchor::Start, color, weight);
            y += size * LINE_HEIGHT;
        }
        y
    }

    fn text(
        &mut self,
        string: String,
        [x, y]: [f32; 2],
        size: f32,
        anchor: Anchor,
        color: Rgb,
        weight: Weight,
    ) {
        let text = Text { x, y, size, anchor, rotation: 0.0, color, weight, string };
        self.scene.items.push(Item::Text(text));
    }

    /// A text that is read from below.
    fn upright_text(&mut self, string: String, [x, y]: [f32; 2], color: Rgb) {
        let (anchor, weight) = (Anchor::Middle, Weight::Regular);
        let text = Text { x, y, size: AXIS_SIZE, anchor, rotation: -90.0, color, weight, string };
        self.scene.items.push(Item::Text(text));
    }

    fn cells(&mut self, figure: &Heatmap, grid: &Grid, numbers: Option<Numbers>) {
        let range = figure.range();
        let largest = || NumberStyle::for_largest(largest_magnitude(figure));
        let number_style = numbers.map_or_else(largest, |numbers| numbers.style);
        let string_size = self.cell_string_size(figure, numbers, grid);
        for row in 0..grid.rows {
            for column in 0..grid.columns {
                let value = figure.value(row, column);
                let fill = cell_color(figure.color_map, range, value);
                let rect = grid.cell(row, column, fill);
                self.scene.items.push(Item::Rect(rect));
                if !value.is_finite() {
                    self.hatch(&rect);
                } else if let Some(size) = string_size {
                    let center = [rect.x + rect.w / 2.0, rect.y + rect.h / 2.0];
                    let place = [center[0], center[1] + size * CAP_HEIGHT / 2.0];
                    let string = match figure.cell_texts.get(row * grid.columns + column) {
                        Some(text) => {
                            let room = rect.w - 2.0;
                            let text = visible(text);
                            self.setter.shorten(&text, size, Weight::Regular, room)
                        }
                        None => number_style.typeset(value.into()),
                    };
                    self.text(string, place, size, Anchor::Middle, ink_on(fill), Weight::Regular);
                }
            }
        }
        if grid.rows > 0 && grid.columns > 0 {
            let frame = Rect {
                x: grid.x - 1.0,
                y: grid.y - 1.0,
                w: grid.width() + 2.0 - grid.gap,
                h: grid.height() + 2.0 - grid.gap,
                fill: FRAME,
            };
            self.frame(&frame);
        }
        for column in (0..grid.columns).filter(|&column| figure.is_highlighted(column)) {
            self.marker(grid.column_center(column) - grid.gap / 2.0, grid.y - 3.0, grid.cell_width);
        }
    }

    /// The largest font size at which all that is written in cells fits into them, if there is one. Tokens
    /// that are too long for the smallest size are cut, so they need the height only.
    fn cell_string_size(&mut self, figure: &Heatmap, numbers: Option<Numbers>, grid: &Grid) -> Option<f32> {
        match figure.cell_values {
            CellValues::Never => return None,
            CellValues::Auto if grid.cell_width < 14.0 => return None,
            _ => {}
        }
        let widest = numbers.unwrap_or_else(|| Numbers::of(figure, &mut self.setter)).widest;
        let [.., least] = CELL_SIZES;
        CELL_SIZES.into_iter().find(|&size| {
            let cut = !figure.cell_texts.is_empty() && size == least;
            (cut || widest * size + 4.0 <= grid.cell_width) && size * 1.25 <= grid.cell_height
        })
    }

    /// Diagonal lines over a cell without a number.
    fn hatch(&mut self, rect: &Rect) {
        const SPACING: f32 = 5.0;
        let Rect { x, y, w, h, .. } = *rect;
        // Each line has the points with (right of x) + (below y) = reach.
        let mut reach = SPACING / 2.0;
        while reach < w + h {
            let from = [x + reach.min(w), y + (reach - w).max(0.0)];
            let to = [x + (reach - h).max(0.0), y + reach.min(h)];
            self.scene.items.push(Item::Line(Line { from, to, width: 0.8, color: HATCH }));
            reach += SPACING;
        }
    }

    /// A frame of half a unit just inside the edges of a rectangle.
    fn frame(&mut self, rect: &Rect) {
        const WIDTH: f32 = 0.5;
        let Rect { x, y, w, h, fill } = *rect;
        let sides = [
            Rect { x, y, w, h: WIDTH, fill },
            Rect { x, y: y + h - WIDTH, w, h: WIDTH, fill },
            Rect { x, y, w: WIDTH, h, fill },
            Rect { x: x + w - WIDTH, y, w: WIDTH, h, fill },
        ];
        self.scene.items.extend(sides.map(Item::Rect));
    }

    /// A triangle that points down to (x, y), no wider than `room` allows.
    fn marker(&mut self, x: f32, y: f32, room: f32) {
        let half = (MARKER_WIDTH / 2.0).min(room * 0.4).max(2.0);
        let points = vec![[x - half, y - MARKER_HEIGHT], [x + half, y - MARKER_HEIGHT], [x, y]];
        self.scene.items.push(Item::Polygon(Polygon { points, fill: ACCENT }));
    }

    fn row_labels(&mut self, figure: &Heatmap, plan: &Plan, grid: &Grid) -> f32 {
        let x = grid.x - SMALL_GAP;
        for row in (0..figure.rows.len()).step_by(plan.row_step) {
            let y = grid.row_center(row) - grid.gap / 2.0 + plan.row_size * CAP_HEIGHT / 2.0;
            let place = [x, y];
            let label = row_label(figure, row, plan.row_size, &mut self.setter);
            self.text(label, place, plan.row_size, Anchor::End, INK, Weight::Regular);
        }
        let axis = visible_line(&figure.row_axis);
        // Beside a low grid the text reaches below it, but never up into the heading.
        let length = self.setter.width(&axis, AXIS_SIZE, Weight::Regular);
        let height = grid.height().max(length);
        if !axis.is_empty() {
            let place = [plan.body_x + AXIS_SIZE * 0.8, grid.y + height / 2.0];
            self.upright_text(axis, place, SOFT_INK);
        }
        grid.y + height
    }

    /// A colour bar whose upper left corner is given; `gap` is what the cells beside it leave free.
    fn color_bar(&mut self, bar: &BarPlan, x: f32, top: f32, gap: f32) -> f32 {
        let height = bar.height - gap;
        // Each slice reaches to the lower end, so that no gap can show between two of them.
        let slices = height.ceil() as usize;
        for slice in 0..slices {
            let from_top = slice as f32;
            let t = 1.0 - (from_top + 0.5) / slices as f32;
            let fill = cell_color(bar.color_map, bar.range, bar.range.value_at(t));
            let rect = Rect { x, y: top + from_top, w: BAR_WIDTH, h: height - from_top, fill };
            self.scene.items.push(Item::Rect(rect));
        }
        let frame = Rect { x: x - 1.0, y: top - 1.0, w: BAR_WIDTH + 2.0, h: height + 2.0, fill: FRAME };
        self.frame(&frame);
        for (fraction, text) in &bar.ticks {
            let y = top + (1.0 - fraction) * height;
            let right = x + BAR_WIDTH + 1.0;
            let (from, to) = ([right, y], [right + BAR_TICK - 1.0, y]);
            self.scene.items.push(Item::Line(Line { from, to, width: 1.0, color: FRAME }));
            let place = [right + BAR_TICK + 2.0, y + TICK_SIZE * CAP_HEIGHT / 2.0];
            self.text(text.clone(), place, TICK_SIZE, Anchor::Start, INK, Weight::Regular);
        }
        let mut label_x = x + BAR_WIDTH + BAR_TICK + 3.0 + bar.ticks_width + SMALL_GAP;
        for line in &bar.label {
            let place = [label_x + AXIS_SIZE * ASCENT, top + height / 2.0];
            self.upright_text(line.clone(), place, SOFT_INK);
            label_x += AXIS_SIZE * LINE_HEIGHT;
        }
        top + height
    }

    fn columns(&mut self, figure: &Heatmap, tokens: &TokenPlan, grid: &Grid) -> f32 {
        let center = |column: usize| grid.column_center(column) - grid.gap / 2.0;
        let mut y = grid.y + grid.height() + 4.0;
        if !tokens.numbered.is_empty() {
            let size = tokens.number_size;
            let baseline = y + size * ASCENT;
            for &column in &tokens.numbered {
                let (weight, color) = if figure.is_highlighted(column) {
                    (Weight::Bold, ACCENT)
                } else {
                    (Weight::Regular, SOFT_INK)
                };
                let place = [center(column), baseline];
                self.text(column.to_string(), place, size, Anchor::Middle, color, weight);
            }
            y += size * LINE_HEIGHT + 2.0;
        }
        for &column in &tokens.shown {
            let color = if figure.is_highlighted(column) { ACCENT } else { INK };
            self.token(tokens, column, [center(column), y], color);
        }
        y += tokens.height();
        if !figure.column_axis.is_empty() {
            let size = AXIS_SIZE;
            y += SMALL_GAP;
            let place = [grid.x + grid.width() / 2.0, y + size * ASCENT];
            let axis = visible_line(&figure.column_axis);
            self.text(axis, place, size, Anchor::Middle, SOFT_INK, Weight::Regular);
            y += size * (ASCENT + DESCENT);
        }
        y
    }

    /// Writes a token so that its end (or, if horizontal, its middle) is under the point `top`.
    /// The signs for leading spaces are pale: they matter, but less than the letters.
    fn token(&mut self, tokens: &TokenPlan, column: usize, [x, y]: [f32; 2], color: Rgb) {
        let label = &tokens.labels[column];
        let (size, weight) = (tokens.size, label.weight);
        let (sin, cos) = tokens.sin_cos();
        let (end_x, end_y) = if tokens.rise == 0.0 {
            (x + tokens.length(column) / 2.0, y + size * ASCENT)
        } else {
            (x + sin * size * CAP_HEIGHT / 2.0, y + cos * size * ASCENT)
        };
        let letters = label.string.trim_start_matches(SPACE);
        let spaces = &label.string[..label.string.len() - letters.len()];
        let letters_length = self.setter.width(letters, size, weight) + SPACE_GAP * size;
        // Backwards along the baseline, from the end of the label.
        let place = |back: f32| [end_x - back * cos, end_y + back * sin];
        for (part, [x, y], color, weight) in
            [(letters, place(0.0), color, weight), (spaces, place(letters_length), PALE_INK, Weight::Regular)]
        {
            if !part.is_empty() {
                let (rotation, string) = (-tokens.rise, part.to_owned());
                let anchor = Anchor::End;
                let text = Text { x, y, size, anchor, rotation, color, weight, string };
                self.scene.items.push(Item::Text(text));
            }
        }
    }

    fn legend(&mut self, figure: &Heatmap, mut y: f32) -> f32 {
        let margin = self.margin;
        let limit = self.scene.width - 2.0 * margin;
        let style = (LEGEND_SIZE, Weight::Regular, SOFT_INK);
        let marked = figure.has_highlights() && !figure.highlight_label.is_empty();
        let hatched = figure.values.iter().any(|value| !value.is_finite());
        let text_x = margin + SAMPLE + SMALL_GAP;
        let clipped = figure.is_clipped();
        if marked || hatched || clipped || !figure.legend.is_empty() {
            y += 12.0;
        }
        if marked {
            let middle = y + LEGEND_SIZE * (ASCENT - CAP_HEIGHT / 2.0);
            self.marker(margin + SAMPLE / 2.0, middle + MARKER_HEIGHT / 2.0, SAMPLE * 2.0);
            let indent = limit - SAMPLE - SMALL_GAP;
            y = self.paragraph(&figure.highlight_label, text_x, y, indent, style);
        }
        if hatched {
            let top = y + LEGEND_SIZE * (ASCENT - CAP_HEIGHT / 2.0) - SAMPLE / 2.0;
            let rect = Rect { x: margin, y: top, w: SAMPLE, h: SAMPLE, fill: NO_VALUE };
            self.scene.items.push(Item::Rect(rect));
            self.hatch(&rect);
            // A figure may say itself why cells have no number.
            let why = figure.legend.iter().find_map(|line| line.strip_prefix(HATCHED));
            y = self.paragraph(why.unwrap_or("not a finite number"), text_x, y, limit, style);
        }
        if clipped {
            y = self.paragraph(CLIPPED, margin, y, limit, style);
        }
        for line in figure.legend.iter().filter(|line| !hatched || !line.starts_with(HATCHED)) {
            y = self.paragraph(line, margin, y, limit, style);
        }
        y
    }
}

/// The colour of a value.
pub fn cell_color(color_map: ColorMap, range: ValueRange, value: f32) -> Rgb {
    color_map.color(range.color_fraction(value))
}

/// The largest finite magnitude among the values.
pub fn largest_magnitude(figure: &Heatmap) -> f32 {
    widest(figure.values.iter().map(|value| value.abs()).filter(|value| value.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::super::figure::{LineChart, Series, Sheet};
    use super::super::scatter::Scatter;
    use super::*;

    fn layout(figure: &Heatmap) -> Scene {
        super::layout(&figure.clone().into(), &Fonts::default())
    }

    type Corners = [[f32; 2]; 4];

    fn figure(rows: usize, columns: usize) -> Heatmap {
        let tokens =
            ["When", " Mary", ",", " extraordinarily", "\n", " 日本", " antidisestablishmentarianism"];
        Heatmap {
            title: "Activation patching of the residual stream".into(),
            subtitle: vec!["clean: Michelle Jones was a top-notch student. Michelle".into()],
            values: (0..rows * columns).map(|index| (index % 9) as f32 - 4.0).collect(),
            rows: (0..rows).map(|row| row.to_string()).collect(),
            columns: (0..columns).map(|column| tokens[column % tokens.len()].into()).collect(),
            row_axis: "layer".into(),
            column_axis: "position, token".into(),
            value_label: "logit( Smith) − logit( Jones)".into(),
            center: Some(0.0),
            highlight_columns: vec![1, columns - 1],
            highlight_label: "the prompts differ here".into(),
            legend: vec!["blue: towards Smith".into(), "red: towards Jones".into()],
            ..Heatmap::default()
        }
    }

    fn texts(scene: &Scene) -> Vec<&Text> {
        let mut texts = Vec::new();
        for item in scene.flat() {
            if let Item::Text(text) = item {
                texts.push(text);
            }
        }
        texts
    }

    /// The corners of the box of a text, as high as capital letters.
    fn corners(text: &Text, setter: &mut Typesetter) -> Corners {
        let width = setter.width(&text.string, text.size, text.weight);
        let start = match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let (sin, cos) = text.rotation.to_radians().sin_cos();
        let top = -CAP_HEIGHT * text.size;
        [[start, 0.0], [start + width, 0.0], [start + width, top], [start, top]]
            .map(|[x, y]| [text.x + x * cos - y * sin, text.y + x * sin + y * cos])
    }

    /// Whether two boxes overlap by more than a touch: no edge of either separates them.
    fn overlap(a: &Corners, b: &Corners) -> bool {
        [a, b].into_iter().all(|corners| {
            [0, 1].into_iter().all(|edge| {
                let [from, to] = [corners[edge], corners[edge + 1]];
                let along = [to[0] - from[0], to[1] - from[1]];
                let length = along[0].hypot(along[1]).max(1e-6);
                let shadow = |corners: &Corners| {
                    let place = |point: &[f32; 2]| (point[0] * along[0] + point[1] * along[1]) / length;
                    let places = corners.each_ref().map(place);
                    (places.into_iter().fold(f32::MAX, f32::min), widest_of(&places))
                };
                let ((low, high), (other_low, other_high)) = (shadow(a), shadow(b));
                low + 0.1 < other_high && other_low + 0.1 < high
            })
        })
    }

    fn widest_of(places: &[f32]) -> f32 {
        places.iter().copied().fold(f32::MIN, f32::max)
    }

    const SHAPES: [(usize, usize); 12] = [
        (12, 8),
        (12, 11),
        (12, 12),
        (12, 13),
        (12, 30),
        (24, 30),
        (48, 60),
        (1, 2),
        (2, 3),
        (100, 20),
        (12, 200),
        (12, 1024),
    ];

    /// A chart over the same axis as [`figure`].
    fn chart(series: usize, columns: usize) -> Figure {
        let figure = figure(series, columns);
        let rows = figure.values.chunks(columns);
        LineChart {
            title: figure.title.clone(),
            subtitle: figure.subtitle.clone(),
            series: rows
                .enumerate()
                .map(|(row, values)| Series { name: format!("series {row}"), values: values.to_vec() })
                .collect(),
            columns: figure.columns,
            column_axis: figure.column_axis,
            series_axis: "layer".into(),
            value_label: figure.value_label,
            center: Some(0.0),
            highlight_columns: figure.highlight_columns,
            highlight_label: figure.highlight_label,
            legend: figure.legend,
            column_numbers: true,
            ..LineChart::default()
        }
        .into()
    }

    fn sheet(panels: usize, compact: bool, shared_range: bool, rows_are_tokens: bool) -> Figure {
        let (rows, columns) = if rows_are_tokens { (8, 8) } else { (12, 11) };
        let panel = |index: usize| Heatmap {
            title: format!("11.{index}"),
            subtitle: Vec::new(),
            rows_are_tokens,
            ..figure(rows, columns)
        };
        Sheet {
            title: "All heads".into(),
            subtitle: vec!["clean: Michelle Jones was a top-notch student. Michelle".into()],
            panels: (0..panels).map(panel).collect(),
            compact,
            shared_range,
            legend: vec!["blue: towards Smith".into()],
            ..Sheet::default()
        }
        .into()
    }

    /// Figures of every kind and many shapes, with what they are.
    fn all_figures() -> Vec<(String, Figure)> {
        let heatmaps =
            SHAPES.map(|(rows, columns)| (format!("heatmap {rows}×{columns}"), figure(rows, columns).into()));
        let charts = [(1, 3), (3, 13), (12, 24), (40, 60), (2, 300)]
            .map(|(series, columns)| (format!("chart {series}×{columns}"), chart(series, columns)));
        let sheets = [
            (5, false, true, false),
            (4, false, false, false),
            (1, false, true, true),
            (12, false, true, true),
            (144, true, true, true),
            (7, true, false, false),
        ];
        let sheets = sheets.map(|(panels, compact, shared, tokens)| {
            let name = format!("sheet of {panels} {compact} {shared} {tokens}");
            (name, sheet(panels, compact, shared, tokens))
        });
        let always = Heatmap { cell_values: CellValues::Always, ..figure(12, 60) };
        let mut all = Vec::from(heatmaps);
        all.extend(charts);
        all.extend(sheets);
        let points = |group: usize| (0..50).map(|i| [i as f32 * 1e-3, (i * group) as f32 * 1e-4]).collect();
        let groups = (0..14).map(|group| (format!("layer {group}"), points(group))).collect();
        let (x_label, y_label) = ("exact ".repeat(20), "predicted ".repeat(20));
        all.push(("scatter".into(), Scatter { x_label, y_label, groups, ..Scatter::default() }.into()));
        all.push(("scatter of nothing".into(), Scatter::default().into()));
        all.push(("numbers in any case".into(), always.into()));
        let circuits = [(0, 0), (1, 2), (12, 2), (25, 4), (80, 12), (300, 12)];
        all.extend(circuits.map(|(edges, heads)| {
            (format!("circuit of {edges} edges"), circuit::tests::circuit(edges, heads).into())
        }));
        all
    }

    #[test]
    fn no_two_texts_overlap() {
        let mut setter = Typesetter::new(&Fonts::default());
        for (name, figure) in all_figures() {
            let scene = super::layout(&figure, &Fonts::default());
            let texts = texts(&scene);
            let boxes: Vec<_> = texts.iter().map(|text| corners(text, &mut setter)).collect();
            for (index, one) in boxes.iter().enumerate() {
                for (other, two) in boxes.iter().enumerate().skip(index + 1) {
                    let strings = (&texts[index].string, &texts[other].string);
                    assert!(!overlap(one, two), "{name}: {strings:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_leaves_the_canvas() {
        let mut setter = Typesetter::new(&Fonts::default());
        for (name, figure) in all_figures() {
            let scene = super::layout(&figure, &Fonts::default());
            let inside = |[x, y]: [f32; 2]| {
                (1.0..scene.width - 1.0).contains(&x) && (1.0..scene.height - 1.0).contains(&y)
            };
            for item in scene.flat() {
                let points = match item {
                    Item::Rect(rect) => {
                        vec![[rect.x, rect.y], [rect.x + rect.w, rect.y + rect.h]]
                    }
                    Item::Cells(cells) => {
                        vec![[cells.x, cells.y], [cells.x + cells.w, cells.y + cells.h]]
                    }
                    Item::Line(line) => vec![line.from, line.to],
                    Item::Polygon(polygon) => polygon.points.clone(),
                    Item::Dots(dots) => dots.centers.clone(),
                    Item::Text(text) => corners(text, &mut setter).to_vec(),
                    Item::Curve(curve) => curve.points.clone(),
                    Item::Group(_) => unreachable!("a flat scene has no groups"),
                };
                assert!(points.into_iter().all(inside), "{name}: {item:?}");
            }
        }
    }

    #[test]
    fn numbers_stand_in_narrow_cells_if_they_must() {
        let has_number = |cell_values| {
            let figure = Heatmap { cell_values, ..figure(12, 60) };
            let scene = layout(&figure);
            texts(&scene).iter().any(|text| text.string == "−4.00")
        };
        assert!(has_number(CellValues::Always));
        assert!(!has_number(CellValues::Auto));
    }

    #[test]
    fn panels_with_one_scale_have_numbers_of_one_size_and_one_bar() {
        let Figure::Sheet(mut sheet) = sheet(2, false, true, false) else { unreachable!() };
        sheet.panels[1].values.fill(0.25);
        let sizes = |sheet: &Sheet| {
            let scene = super::layout(&sheet.clone().into(), &Fonts::default());
            let texts = texts(&scene);
            let of = |string: &str| {
                let found = texts.iter().find(|text| text.string == string);
                found.map(|text| text.size)
            };
            let bars = texts.iter().filter(|text| text.string.starts_with("logit("));
            (of("−4.00"), of("0.25"), bars.count())
        };
        let (first, second, bars) = sizes(&sheet);
        assert!(first.is_some() && first == second);
        assert_eq!(bars, 1);
        sheet.shared_range = false;
        assert_eq!(sizes(&sheet).2, 2);
    }

    #[test]
    fn a_gap_in_a_line_is_left_open_and_a_lonely_point_is_seen() {
        let values = vec![1.0, f32::NAN, 2.0, f32::NAN, 3.0, 4.0];
        let chart = LineChart {
            columns: (0..6).map(|column| column.to_string()).collect(),
            series: vec![Series { name: String::new(), values }],
            ..LineChart::default()
        };
        let scene = super::layout(&chart.into(), &Fonts::default());
        let color = lines::series_color(0, 1);
        let lines = scene.items.iter();
        let lines = lines.filter(|item| matches!(item, Item::Line(line) if line.color == color));
        assert_eq!(lines.count(), 1);
        let dots = scene.items.iter();
        let dots = dots.filter(|item| matches!(item, Item::Rect(rect) if rect.fill == color));
        assert_eq!(dots.count(), 4);
    }

    #[test]
    fn every_cell_has_its_colour() {
        let figure = figure(3, 4);
        let scene = layout(&figure);
        for (index, &value) in figure.values.iter().enumerate() {
            let color = figure.color_map.color((value + 4.0) / 8.0);
            let Item::Rect(rect) =
                scene.items.iter().filter(|item| matches!(item, Item::Rect(_))).nth(index).unwrap()
            else {
                unreachable!()
            };
            assert_eq!(rect.fill, color);
        }
    }

    #[test]
    fn wide_cells_have_numbers_and_narrow_ones_none() {
        let has_number = |figure: &Heatmap| texts(&layout(figure)).iter().any(|text| text.string == "−4.00");
        assert!(has_number(&figure(12, 11)));
        assert!(!has_number(&figure(12, 60)));
        assert!(!has_number(&Heatmap { cell_values: CellValues::Never, ..figure(12, 11) }));
    }

    #[test]
    fn short_tokens_stand_horizontally_and_long_ones_slanted() {
        let rotation = |figure: &Heatmap, string: &str| {
            texts(&layout(figure)).iter().find(|text| text.string == string).map(|text| text.rotation)
        };
        let mut short = figure(12, 8);
        short.columns = (0..8).map(|column| format!(" t{column}")).collect();
        assert_eq!(rotation(&short, "t0"), Some(0.0));
        assert_eq!(rotation(&figure(12, 8), "When"), Some(-45.0));
        assert_eq!(rotation(&figure(12, 60), "When"), Some(-60.0));
    }

    #[test]
    fn a_marked_column_is_bold_and_always_labelled() {
        let mut figure = figure(12, 1024);
        figure.highlight_columns = vec![777];
        let scene = layout(&figure);
        let bold = |text: &&&Text| text.weight == Weight::Bold && text.color == ACCENT;
        let strings: Vec<_> = texts(&scene).iter().filter(bold).map(|text| text.string.clone()).collect();
        assert_eq!(strings, ["777", "When"]);
    }

    #[test]
    fn cells_without_a_number_are_hatched_and_explained() {
        let mut figure = figure(2, 2);
        let lines = |figure: &Heatmap| {
            layout(figure).items.iter().filter(|item| matches!(item, Item::Line(_))).count()
        };
        let before = lines(&figure);
        figure.values[0] = f32::NAN;
        assert!(lines(&figure) > before + 4);
        assert!(texts(&layout(&figure)).iter().any(|text| text.string == "not a finite number"));
    }

    #[test]
    fn a_long_axis_label_beside_a_low_grid_stays_clear_of_the_heading() {
        let mut setter = Typesetter::new(&Fonts::default());
        let mut figure = figure(1, 4);
        figure.row_axis = "attention head of the residual stream".into();
        let scene = layout(&figure);
        let texts = texts(&scene);
        let axis = texts.iter().find(|text| text.string == figure.row_axis).unwrap();
        let subtitle = texts.iter().find(|text| text.string == figure.subtitle[0]).unwrap();
        let top = |text: &Text, setter: &mut Typesetter| {
            corners(text, setter).into_iter().map(|[_, y]| y).fold(f32::MAX, f32::min)
        };
        assert!(top(axis, &mut setter) > subtitle.y);
    }

    #[test]
    fn tokens_in_cells_widen_them_up_to_a_point_and_are_cut_beyond_it() {
        let cells = |tokens: [&str; 4], values| {
            let figure = Heatmap {
                cell_texts: tokens.map(str::to_owned).to_vec(),
                cell_values: values,
                ..figure(2, 2)
            };
            let scene = layout(&figure);
            let is_cell = |text: &&Text| text.anchor == Anchor::Middle && text.size <= 11.0;
            let written: Vec<String> =
                texts(&scene).into_iter().filter(is_cell).map(|text| text.string.clone()).collect();
            (scene.width, written)
        };
        let short = [" the", "a", " of", "\n"];
        let (_, written) = cells(short, CellValues::Auto);
        for shown in ["␣the", "a", "␣of", "⏎"] {
            assert!(written.iter().any(|text| text == shown), "{shown}: {written:?}");
        }
        let long = [" incomprehensibilities", "a", " of", "b"];
        let (width, written) = cells(long, CellValues::Auto);
        assert!(written.iter().any(|text| text.starts_with("␣inc") && text.ends_with('…')), "{written:?}");
        let (whole, written) = cells(long, CellValues::Always);
        assert!(written.iter().any(|text| text == "␣incomprehensibilities"), "{written:?}");
        assert!(whole >= width);
        let (_, written) = cells(short, CellValues::Never);
        assert!(!written.iter().any(|text| text == "␣of"), "{written:?}");
    }

    #[test]
    fn a_figure_without_anything_has_a_canvas() {
        let scene = layout(&Heatmap::default());
        assert!(scene.width > 0.0 && scene.height > 0.0);
    }
}
