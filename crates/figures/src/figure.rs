//! The description of a figure, free of any notion of how it is drawn.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::circuit::CircuitFigure;
use super::color::ColorMap;
use super::scatter::Scatter;

/// Something to look at.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    /// Numbers in rows and columns.
    Heatmap(Heatmap),
    /// Numbers along one axis.
    Lines(LineChart),
    /// Several heatmaps.
    Sheet(Sheet),
    /// Nodes and edges.
    Circuit(CircuitFigure),
    /// Points over two axes.
    Scatter(Scatter),
}

impl Figure {
    /// The heading.
    pub fn title(&self) -> &str {
        match self {
            Self::Heatmap(heatmap) => &heatmap.title,
            Self::Lines(chart) => &chart.title,
            Self::Sheet(sheet) => &sheet.title,
            Self::Circuit(circuit) => &circuit.title,
            Self::Scatter(scatter) => &scatter.title,
        }
    }

    /// The lines under the title.
    pub fn subtitle(&self) -> &[String] {
        match self {
            Self::Heatmap(heatmap) => &heatmap.subtitle,
            Self::Lines(chart) => &chart.subtitle,
            Self::Sheet(sheet) => &sheet.subtitle,
            Self::Circuit(circuit) => &circuit.subtitle,
            Self::Scatter(scatter) => &scatter.subtitle,
        }
    }

    /// The same figure with its texts cut to what anybody reads: they come out of files, and to lay out a text
    /// without end takes memory without end.
    pub fn bounded(&self) -> Cow<'_, Self> {
        let mut bounded = self.clone();
        let mut is_cut = false;
        bounded.texts(&mut |text| is_cut |= cut(text), &mut |_| {});
        bounded.texts(&mut |_| {}, &mut |lines| is_cut |= cut_lines(lines));
        match is_cut {
            true => Cow::Owned(bounded),
            false => Cow::Borrowed(self),
        }
    }

    /// Every text of the figure, and every list of lines.
    fn texts(&mut self, text: &mut dyn FnMut(&mut String), lines: &mut dyn FnMut(&mut Vec<String>)) {
        match self {
            Self::Heatmap(heatmap) => heatmap.texts(text, lines),
            Self::Circuit(circuit) => circuit.texts(text, lines),
            Self::Lines(chart) => {
                let LineChart { title, subtitle, series, columns, column_axis, series_axis, .. } = chart;
                [title, column_axis, series_axis, &mut chart.value_label, &mut chart.highlight_label]
                    .into_iter()
                    .for_each(&mut *text);
                series.iter_mut().map(|series| &mut series.name).for_each(&mut *text);
                columns.iter_mut().chain(&mut *subtitle).chain(&mut chart.legend).for_each(&mut *text);
                [subtitle, &mut chart.legend].into_iter().for_each(lines);
            }
            Self::Sheet(sheet) => {
                text(&mut sheet.title);
                sheet.subtitle.iter_mut().chain(&mut sheet.legend).for_each(&mut *text);
                [&mut sheet.subtitle, &mut sheet.legend].into_iter().for_each(&mut *lines);
                sheet.panels.iter_mut().for_each(|panel| panel.texts(text, lines));
            }
            Self::Scatter(scatter) => scatter.texts(text, lines),
        }
    }

    /// The same figure without the lines under its title, for where they have been said already.
    pub fn without_subtitle(mut self) -> Self {
        match &mut self {
            Self::Heatmap(heatmap) => heatmap.subtitle.clear(),
            Self::Lines(chart) => chart.subtitle.clear(),
            Self::Sheet(sheet) => sheet.subtitle.clear(),
            Self::Circuit(circuit) => circuit.subtitle.clear(),
            Self::Scatter(scatter) => scatter.subtitle.clear(),
        }
        self
    }
}

/// Longer texts are cut.
const MOST_CHARACTERS: usize = 1000;
/// More lines of a heading or a legend are left out.
const MOST_LINES: usize = 60;

/// Cuts a text that is too long, and says in it how much is missing.
fn cut(text: &mut String) -> bool {
    // Bytes are never fewer than characters.
    if text.len() <= MOST_CHARACTERS {
        return false;
    }
    let Some((end, _)) = text.char_indices().nth(MOST_CHARACTERS) else {
        return false;
    };
    let missing = text[end..].chars().count();
    text.truncate(end);
    *text += &format!(" […{missing} more characters…]");
    true
}

fn cut_lines(lines: &mut Vec<String>) -> bool {
    let missing = lines.len().saturating_sub(MOST_LINES);
    if missing > 0 {
        lines.truncate(MOST_LINES);
        lines.push(format!("[…{missing} more lines…]"));
    }
    missing > 0
}

impl From<Heatmap> for Figure {
    fn from(heatmap: Heatmap) -> Self {
        Self::Heatmap(heatmap)
    }
}

impl From<LineChart> for Figure {
    fn from(chart: LineChart) -> Self {
        Self::Lines(chart)
    }
}

impl From<CircuitFigure> for Figure {
    fn from(circuit: CircuitFigure) -> Self {
        Self::Circuit(circuit)
    }
}

impl From<Sheet> for Figure {
    fn from(sheet: Sheet) -> Self {
        Self::Sheet(sheet)
    }
}

impl From<Scatter> for Figure {
    fn from(scatter: Scatter) -> Self {
        Self::Scatter(scatter)
    }
}

/// One or more series of numbers over a common axis, as lines.
///
/// As for a [`Heatmap`], all texts are shown as they are but for what cannot be seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineChart {
    /// The heading. Wrapped if it is long; empty for none.
    pub title: String,
    /// Short lines under the title.
    pub subtitle: Vec<String>,
    /// The lines, named in a key beside them if there is more than one.
    pub series: Vec<Series>,
    /// The label of each point of the axis: the raw text of a token, or a number.
    pub columns: Vec<String>,
    /// Where the points stand if the axis is a scale, for example of steps: a number for each, in ascending order.
    /// Empty where they stand side by side.
    pub scale: Vec<f32>,
    /// What the axis is, for example `position and token`.
    pub column_axis: String,
    /// What the series are, for example `head`. Heads the key.
    pub series_axis: String,
    /// What a value is, for example `logit( Smith) − logit( Jones)`.
    pub value_label: String,
    /// A value that gets a line across, for example 0.
    pub center: Option<f32>,
    /// The indices of the points of the axis to mark. Indices beyond the last are ignored.
    pub highlight_columns: Vec<usize>,
    /// What a marked point means. Empty for no explanation.
    pub highlight_label: String,
    /// A line or two under the picture.
    pub legend: Vec<String>,
    /// Whether the number of each point is shown as well as its label, counting from 0.
    pub column_numbers: bool,
    /// The lower end of the scale of values; without it, room for all values.
    pub vmin: Option<f32>,
    /// The upper end of the scale of values; without it, room for all values.
    pub vmax: Option<f32>,
}

/// A line of a [`LineChart`].
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is called in the key.
    pub name: String,
    /// One value for each point of the axis. Where one is not finite, the line is interrupted.
    pub values: Vec<f32>,
}

impl LineChart {
    /// Panics unless every series has one value for each point of the axis: anything else is a
    /// mistake in the program.
    #[track_caller]
    pub fn check_shape(&self) {
        for series in &self.series {
            assert!(
                series.values.len() == self.columns.len(),
                "series {:?} needs {} values but was given {}",
                series.name,
                self.columns.len(),
                series.values.len()
            );
        }
    }

    /// The same numbers as a heatmap with a row for each series: what a terminal shows, and what
    /// has all the words around a chart.
    pub fn as_heatmap(&self) -> Heatmap {
        self.check_shape();
        Heatmap {
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            values: self.series.iter().flat_map(|series| series.values.iter().copied()).collect(),
            rows: self.series.iter().map(|series| series.name.clone()).collect(),
            columns: self.columns.clone(),
            row_axis: self.series_axis.clone(),
            column_axis: self.column_axis.clone(),
            value_label: self.value_label.clone(),
            center: self.center,
            highlight_columns: self.highlight_columns.clone(),
            highlight_label: self.highlight_label.clone(),
            legend: self.legend.clone(),
            column_numbers: self.column_numbers,
            vmin: self.vmin,
            vmax: self.vmax,
            ..Heatmap::default()
        }
    }
}

/// Several heatmaps with something in common, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sheet {
    /// The heading of all. Wrapped if it is long; empty for none.
    pub title: String,
    /// Short lines under the title.
    pub subtitle: Vec<String>,
    /// The heatmaps, each with its own title and subtitle.
    pub panels: Vec<Heatmap>,
    /// How many panels stand side by side; 0 for as many as look well.
    pub columns: usize,
    /// Whether the panels have one scale of colours, which is then drawn once.
    pub shared_range: bool,
    /// Whether the panels are tiny: cells and the title only. For a look at very many, such as the
    /// attention of all heads with titles such as `5.1` (layer.head). The scale is then shared.
    pub compact: bool,
    /// A line or two under all panels.
    pub legend: Vec<String>,
}

impl Sheet {
    /// The panels as they are drawn: if the range is shared, each one has it.
    pub fn drawn_panels(&self) -> Vec<Heatmap> {
        let mut panels = self.panels.clone();
        if let Some(scale) = self.scale() {
            let range = scale.range();
            for panel in &mut panels {
                panel.vmin = Some(range.low);
                panel.vmax = Some(range.high);
                panel.center = scale.center;
                panel.color_map = scale.color_map;
            }
        }
        panels
    }

    /// If the panels share a scale: all their numbers as one heatmap, with the first one's colours
    /// and words.
    pub fn scale(&self) -> Option<Heatmap> {
        let first = self.panels.first()?;
        if !self.shared_range && !self.compact {
            return None;
        }
        let values: Vec<f32> = self.panels.iter().flat_map(|panel| panel.values.iter().copied()).collect();
        Some(Heatmap {
            columns: vec![String::new(); values.len()],
            rows: vec![String::new()],
            values,
            value_label: first.value_label.clone(),
            color_map: first.color_map,
            center: first.center,
            vmin: first.vmin,
            vmax: first.vmax,
            ..Heatmap::default()
        })
    }

    /// How many panels stand side by side.
    pub fn panels_per_row(&self) -> usize {
        let count = self.panels.len().max(1);
        let narrow = self.panels.iter().all(|panel| panel.columns.len() <= 6);
        match self.columns {
            0 if self.compact => (count as f32).sqrt().ceil() as usize,
            0 if narrow => count.min(6),
            0 => match count {
                1 => 1,
                2..=4 => 2,
                _ => 3,
            },
            columns => columns.min(count),
        }
    }
}

/// A heatmap: a grid of numbers and the words that explain it.
///
/// The fields are plain data; `Heatmap { values, rows, columns, ..Heatmap::default() }` is a
/// complete figure. Texts are shown as they are, except that characters which cannot be seen are
/// made visible (see [`visible`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Heatmap {
    /// The heading. Wrapped if it is long; empty for none.
    pub title: String,
    /// Short lines under the title, for example the prompts and the model.
    pub subtitle: Vec<String>,
    /// The values, row after row: `rows.len() * columns.len()` of them. A value that is not finite
    /// is drawn as a hatched cell and has no influence on the colours of the others.
    pub values: Vec<f32>,
    /// The label of each row from top to bottom, for example layer numbers.
    pub rows: Vec<String>,
    /// The raw text of each column's token, spaces and all, from left to right.
    pub columns: Vec<String>,
    /// What the rows are, for example `layer`.
    pub row_axis: String,
    /// What the columns are, for example `position, token`.
    pub column_axis: String,
    /// What a value is, for example `logit( Smith) − logit( Jones)`. Put at the colour bar.
    pub value_label: String,
    /// The colours.
    pub color_map: ColorMap,
    /// The value that gets the middle colour; the range is then symmetric about it, unless both its
    /// ends are given. Without it the colours span the smallest to the largest value.
    pub center: Option<f32>,
    /// The lower end of the range, if it is not to follow from the values. Smaller values get its
    /// colour.
    pub vmin: Option<f32>,
    /// The upper end of the range, if it is not to follow from the values.
    pub vmax: Option<f32>,
    /// The indices of the columns to mark, for example where two prompts differ. Indices beyond
    /// the last column are ignored.
    pub highlight_columns: Vec<usize>,
    /// What a marked column means, for example `the prompts differ here`. Empty for no explanation.
    pub highlight_label: String,
    /// A line or two under the picture that say which way is which.
    pub legend: Vec<String>,
    /// Whether the position number of each column is shown, counting from 0.
    pub column_numbers: bool,
    /// Whether the rounded values, or `cell_texts`, are written in the cells.
    pub cell_values: CellValues,
    /// Tokens to write in the cells of a picture in the place of the values, `rows.len() * columns.len()` of
    /// them; empty for the values. What is too long for its cell is cut.
    pub cell_texts: Vec<String>,
    /// Whether the rows are tokens as the columns are, as in an attention pattern: their spaces are
    /// then visible, and cells are square.
    pub rows_are_tokens: bool,
}

/// Whether numbers are written in the cells of a heatmap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CellValues {
    /// Where they fit.
    #[default]
    Auto,
    /// In any case: cells become as wide as the numbers need.
    Always,
    /// Nowhere.
    Never,
}

impl CellValues {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];
}

impl fmt::Display for CellValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

impl FromStr for CellValues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|when| when.to_string() == text);
        found.ok_or_else(|| format!("\"{text}\" is not one of auto, always, never"))
    }
}

impl Default for Heatmap {
    fn default() -> Self {
        Self {
            title: String::new(),
            subtitle: Vec::new(),
            values: Vec::new(),
            rows: Vec::new(),
            columns: Vec::new(),
            row_axis: String::new(),
            column_axis: String::new(),
            value_label: String::new(),
            color_map: ColorMap::RdBu,
            center: None,
            highlight_columns: Vec::new(),
            highlight_label: String::new(),
            legend: Vec::new(),
            vmin: None,
            vmax: None,
            column_numbers: true,
            cell_values: CellValues::Auto,
            cell_texts: Vec::new(),
            rows_are_tokens: false,
        }
    }
}

impl Heatmap {
    /// Every text of the heatmap, and every list of lines.
    fn texts(&mut self, text: &mut dyn FnMut(&mut String), lines: &mut dyn FnMut(&mut Vec<String>)) {
        let Self { title, row_axis, column_axis, value_label, highlight_label, .. } = self;
        [title, row_axis, column_axis, value_label, highlight_label].into_iter().for_each(&mut *text);
        let labels = self.rows.iter_mut().chain(&mut self.columns).chain(&mut self.cell_texts);
        labels.chain(&mut self.subtitle).chain(&mut self.legend).for_each(text);
        [&mut self.subtitle, &mut self.legend].into_iter().for_each(lines);
    }

    /// Panics unless there is one value for each pair of row and column: anything else is a mistake
    /// in the program, and a figure of it would be a wrong figure.
    pub fn check_shape(&self) {
        let cells = self.rows.len() * self.columns.len();
        assert!(
            self.values.len() == cells,
            "a heatmap of {} rows and {} columns needs {cells} values but was given {}",
            self.rows.len(),
            self.columns.len(),
            self.values.len(),
        );
    }

    /// The value at `row` and `column`, both counted from 0.
    pub fn value(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.columns.len() + column]
    }

    /// Whether the labels of the columns are their numbers, and say nothing more.
    pub fn has_numbered_columns(&self) -> bool {
        let mut columns = self.columns.iter().enumerate();
        columns.all(|(column, label)| *label == column.to_string())
    }

    /// The value that is furthest from the centre (or from 0) among some; NaN if none is finite.
    pub fn strongest(&self, values: impl IntoIterator<Item = f32>) -> f32 {
        let distance = |value: f32| (value - self.center.unwrap_or(0.0)).abs();
        let finite = values.into_iter().filter(|value| value.is_finite());
        finite.fold(f32::NAN, |best, value| match best.is_nan() || distance(value) > distance(best) {
            true => value,
            false => best,
        })
    }

    /// Whether `column` (from 0) is one of the marked ones.
    pub fn is_highlighted(&self, column: usize) -> bool {
        self.highlight_columns.contains(&column)
    }

    /// Whether there are marked columns in this figure at all.
    pub fn has_highlights(&self) -> bool {
        (0..self.columns.len()).any(|column| self.is_highlighted(column))
    }

    /// The range of values that the colours span, from the finite values alone.
    ///
    /// With a [`center`](Self::center) the range is symmetric about it; if both ends are given as
    /// well, it is as given, and the colours are those of the part of the symmetric range. The range
    /// is never empty: if all values are the same (or there are none), it is widened so that they
    /// get the middle colour.
    pub fn range(&self) -> ValueRange {
        self.check_shape();
        let finite = || self.values.iter().copied().filter(|value| value.is_finite()).map(f64::from);
        let given = |end: Option<f32>| end.filter(|end| end.is_finite()).map(f64::from);
        let (vmin, vmax) = (given(self.vmin), given(self.vmax));
        let center = given(self.center);
        let data = finite().reduce(f64::min).zip(finite().reduce(f64::max));
        let (low, high) = match (vmin, vmax, center, data) {
            (Some(low), Some(high), ..) => (low, high),
            // The end that is not given is the mirror image of the other.
            (Some(end), None, Some(center), _) if end < center => (end, 2.0 * center - end),
            (None, Some(end), Some(center), _) if end > center => (2.0 * center - end, end),
            (Some(low), None, _, Some((_, largest))) => (low, largest),
            (None, Some(high), _, Some((smallest, _))) => (smallest, high),
            (Some(low), None, _, None) => (low, low + 1.0),
            (None, Some(high), _, None) => (high - 1.0, high),
            (None, None, Some(center), Some((smallest, largest))) => {
                let reach = (largest - center).abs().max((center - smallest).abs());
                around(center, reach)
            }
            (None, None, Some(center), None) => around(center, 0.0),
            (None, None, None, Some(data)) => data,
            (None, None, None, None) => (0.0, 1.0),
        };
        let (low, high) = match (vmin, vmax) {
            _ if low < high => (low, high),
            // An end that was given stays; the other makes way.
            (Some(_), _) => (low, low + (low.abs() * 0.5).max(0.5)),
            (_, Some(_)) => (high - (high.abs() * 0.5).max(0.5), high),
            _ => around(low, 0.0),
        };
        ValueRange { low: saturate(low), high: saturate(high), center: center.map(saturate) }
    }

    /// Whether a value lies beyond the range that was given for the colours.
    pub fn is_clipped(&self) -> bool {
        let range = self.range();
        let beyond = |value: &f32| value.is_finite() && (*value < range.low || *value > range.high);
        self.values.iter().any(beyond)
    }
}

/// The values at the two ends of the scale of colours; `low < high`, both finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRange {
    /// The value at the lower end.
    pub low: f32,
    /// The value at the upper end.
    pub high: f32,
    /// The value that has the middle colour, if it is not the one in the middle.
    pub center: Option<f32>,
}

impl ValueRange {
    /// Where `value` lies between `low` (0) and `high` (1), clamped to these; NaN if `value` is not
    /// finite.
    pub fn fraction(self, value: f32) -> f32 {
        fraction(f64::from(self.low), f64::from(self.high), value)
    }

    /// The place of `value` on a colour map, from 0 to 1; NaN if `value` is not finite.
    ///
    /// With a centre, both sides of it change colour equally fast, as in seaborn: the end that is
    /// nearer to the centre does not reach the end of the map.
    pub fn color_fraction(self, value: f32) -> f32 {
        let Some(center) = self.center.map(f64::from) else {
            return self.fraction(value);
        };
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let reach = (high - center).abs().max((center - low).abs());
        let shown = value.clamp(self.low, self.high);
        let value = if value.is_finite() { shown } else { value };
        fraction(center - reach, center + reach, value)
    }

    /// The value at a fraction of the way from `low` to `high`.
    pub fn value_at(self, fraction: f32) -> f32 {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        saturate(low + (high - low) * f64::from(fraction))
    }
}

fn fraction(low: f64, high: f64, value: f32) -> f32 {
    if !value.is_finite() {
        return f32::NAN;
    }
    // In f64, because high − low may be more than an f32 can hold.
    ((f64::from(value) - low) / (high - low)).clamp(0.0, 1.0) as f32
}

/// The range that reaches equally far to both sides; some visible distance if `reach` is zero.
fn around(center: f64, reach: f64) -> (f64, f64) {
    let reach = if reach > 0.0 { reach } else { (center.abs() * 0.5).max(0.5) };
    (center - reach, center + reach)
}

fn saturate(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(values: &[f32], center: Option<f32>) -> Heatmap {
        Heatmap {
            values: values.to_vec(),
            rows: vec!["0".into()],
            columns: values.iter().map(|_| " a".into()).collect(),
            center,
            ..Heatmap::default()
        }
    }

    fn range_of(values: &[f32], center: Option<f32>) -> (f32, f32) {
        let range = row_of(values, center).range();
        (range.low, range.high)
    }

    #[test]
    fn a_centred_range_is_symmetric() {
        assert_eq!(range_of(&[-1.0, 3.0], Some(0.0)), (-3.0, 3.0));
        assert_eq!(range_of(&[2.0, 3.0], Some(1.0)), (-1.0, 3.0));
    }

    #[test]
    fn a_range_without_a_centre_spans_the_values() {
        assert_eq!(range_of(&[-1.0, 0.5, 3.0], None), (-1.0, 3.0));
    }

    #[test]
    fn values_that_are_not_finite_do_not_widen_the_range() {
        let values = [f32::NAN, -1.0, f32::INFINITY, 2.0, f32::NEG_INFINITY];
        assert_eq!(range_of(&values, None), (-1.0, 2.0));
        assert_eq!(range_of(&values, Some(0.0)), (-2.0, 2.0));
    }

    #[test]
    fn the_ends_of_the_scale_can_be_given() {
        let range = |vmin, vmax, center| {
            let figure = Heatmap { vmin, vmax, ..row_of(&[-1.0, 3.0], center) };
            let range = figure.range();
            (range.low, range.high)
        };
        assert_eq!(range(Some(0.0), Some(2.0), None), (0.0, 2.0));
        assert_eq!(range(Some(0.0), None, None), (0.0, 3.0));
        assert_eq!(range(None, Some(2.0), None), (-1.0, 2.0));
        // About a centre, the end that is not given mirrors the other.
        assert_eq!(range(None, Some(2.0), Some(0.0)), (-2.0, 2.0));
        assert_eq!(range(Some(-5.0), None, Some(1.0)), (-5.0, 7.0));
        assert_eq!(range(Some(-1.0), Some(2.0), Some(0.0)), (-1.0, 2.0));
        // An end beyond all values leaves a range all the same.
        assert_eq!(range(Some(4.0), None, None), (4.0, 6.0));
        assert_eq!(range(None, Some(-4.0), None), (-6.0, -4.0));
    }

    #[test]
    fn both_sides_of_the_centre_change_colour_equally_fast() {
        let range = ValueRange { low: -1.0, high: 3.0, center: Some(0.0) };
        assert_eq!(range.color_fraction(0.0), 0.5);
        assert_eq!(range.color_fraction(3.0), 1.0);
        assert!((range.color_fraction(-1.0) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(range.color_fraction(-9.0), range.color_fraction(-1.0));
        assert!(range.color_fraction(f32::INFINITY).is_nan());
        assert_eq!(range.value_at(0.25), 0.0);
    }

    #[test]
    fn values_beyond_a_given_scale_are_noticed() {
        let mut figure = row_of(&[-1.0, 3.0, f32::NAN], None);
        assert!(!figure.is_clipped());
        figure.vmax = Some(2.9);
        assert!(figure.is_clipped());
    }

    #[test]
    fn panels_share_their_scale_if_they_are_to() {
        let mut sheet =
            Sheet { panels: vec![row_of(&[-1.0], Some(0.0)), row_of(&[4.0], Some(0.0))], ..Sheet::default() };
        assert_eq!(sheet.drawn_panels(), sheet.panels);
        sheet.shared_range = true;
        for panel in sheet.drawn_panels() {
            assert_eq!((panel.range().low, panel.range().high), (-4.0, 4.0));
        }
    }

    #[test]
    fn the_strongest_value_is_the_furthest_from_the_centre() {
        let figure = row_of(&[], Some(1.0));
        assert_eq!(figure.strongest([0.0, 1.5, f32::NAN, 2.1]), 2.1);
        assert_eq!(figure.strongest([-0.5, 2.1]), -0.5);
        assert!(figure.strongest([]).is_nan());
    }

    #[test]
    #[should_panic(expected = "series \"a\" needs 2 values but was given 1")]
    fn a_series_of_another_length_is_a_programming_error() {
        let chart = LineChart {
            series: vec![Series { name: "a".into(), values: vec![1.0] }],
            columns: vec!["0".into(), "1".into()],
            ..LineChart::default()
        };
        chart.as_heatmap();
    }

    #[test]
    fn equal_values_get_the_middle_colour() {
        for value in [0.0, 0.25, -7.0, 1e30, 1e-30] {
            let range = row_of(&[value, value], None).range();
            assert!(range.low < range.high);
            assert!((range.fraction(value) - 0.5).abs() < 1e-3, "{value}: {range:?}");
        }
        assert_eq!(row_of(&[0.0, 0.0], Some(0.0)).range().fraction(0.0), 0.5);
    }

    #[test]
    fn a_grid_without_a_single_number_still_has_a_range() {
        assert_eq!(range_of(&[f32::NAN], None), (0.0, 1.0));
        assert_eq!(range_of(&[f32::NAN], Some(2.0)), (1.0, 3.0));
        assert_eq!(range_of(&[], None), (0.0, 1.0));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let range = row_of(&[f32::MIN, f32::MAX], Some(0.0)).range();
        assert_eq!((range.low, range.high), (f32::MIN, f32::MAX));
        assert_eq!(range.fraction(f32::MAX), 1.0);
        assert_eq!(range.fraction(0.0), 0.5);
    }

    #[test]
    fn the_fraction_of_a_value_that_is_not_finite_is_nan() {
        let range = ValueRange { low: 0.0, high: 1.0, center: None };
        assert!(range.fraction(f32::NAN).is_nan());
        assert!(range.fraction(f32::INFINITY).is_nan());
        assert_eq!(range.fraction(7.0), 1.0);
    }

    #[test]
    #[should_panic(expected = "needs 2 values but was given 1")]
    fn a_wrong_number_of_values_is_a_programming_error() {
        let mut figure = row_of(&[1.0, 2.0], None);
        figure.values.pop();
        figure.range();
    }
}
