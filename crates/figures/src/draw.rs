//! From grids to figures.

use grids::{AxisLabels, Form, Grid, Study};
use visible::visible;

use crate::{ColorMap, Figure, Heatmap, LineChart, Series, Sheet, Undrawable};

/// A figure with more cells takes minutes, and shows nothing.
const MOST_CELLS: usize = 8_000_000;
/// More rows or columns are thinner than a pixel of any screen.
const MOST_ALONG_AN_AXIS: usize = 10_000;
/// How many grids a sheet shows.
const MOST_GRIDS: usize = 150;
/// More panels cannot be told apart (GPT-2 xl has 1,200 heads).
const MOST_PANELS: usize = 1_296;
/// More points of a line than this, at places with numbers, stand on a scale.
const MOST_SIDE_BY_SIDE: usize = 24;
/// More panels than this are tiny ones.
const MOST_LARGE_PANELS: usize = 12;

/// What can be drawn.
pub trait Draw {
    /// The figure.
    ///
    /// # Errors
    /// [`Undrawable`] if it cannot be drawn, with what to do instead.
    fn figure(&self) -> Result<Figure, Undrawable>;
}

impl Draw for Study {
    /// The figure of all grids: of one grid its own, of several a sheet with a panel for each.
    ///
    /// # Errors
    /// [`Undrawable`] if a grid cannot be drawn, or several cannot be drawn side by side, with
    /// what to do instead.
    fn figure(&self) -> Result<Figure, Undrawable> {
        if let [grid] = self.grids.as_slice() {
            let mut figure = grid.figure()?;
            let (title, subtitle) = match &mut figure {
                Figure::Heatmap(heatmap) => (&mut heatmap.title, &mut heatmap.subtitle),
                Figure::Lines(chart) => (&mut chart.title, &mut chart.subtitle),
                Figure::Sheet(sheet) => (&mut sheet.title, &mut sheet.subtitle),
                Figure::Circuit(circuit) => (&mut circuit.title, &mut circuit.subtitle),
                Figure::Scatter(scatter) => (&mut scatter.title, &mut scatter.subtitle),
            };
            if title.is_empty() {
                title.clone_from(&self.title);
            }
            subtitle.clone_from(&self.subtitle);
            return Ok(figure);
        }
        side_by_side(self)
    }
}

impl Draw for Grid {
    /// The figure of this grid alone, by the number of its axes:
    ///
    /// - one: a line;
    /// - two: a heatmap, with the texts if it has any, or lines, as its form says;
    /// - three: with `layer`, `head` and another axis, a heatmap with a row `L0H1` for each head, as
    ///   TransformerLens draws it; else a sheet with a panel for each index of the first axis, tiny
    ///   ones if they are more than twelve;
    /// - four: a sheet with a tiny panel `5.1` for each pair of indices of the first two.
    ///
    /// # Errors
    /// [`Undrawable`] if there are no values for all cells, if there are too many or too few axes,
    /// or too much of anything to be seen, with what to do instead.
    fn figure(&self) -> Result<Figure, Undrawable> {
        self.check().map_err(|error| Undrawable(error.to_string()))?;
        let shape = self.shape();
        let cannot = |why: String| {
            Undrawable(format!("the grid {:?} of the shape {shape:?} cannot be drawn: {why}", self.name))
        };
        check_size(self).map_err(cannot)?;
        match self.axes.as_slice() {
            [] => Err(cannot("it is a single number".to_owned())),
            [_] => Ok(lines(self, &AxisLabels::new("", [String::new()]), &self.axes[0])),
            [series, columns] if self.form == Form::Lines => Ok(lines(self, series, columns)),
            [rows, columns] => Ok(Heatmap {
                cell_texts: self.texts.clone(),
                ..heatmap(self, rows, columns, self.values.clone())
            }
            .into()),
            [layer, head, columns] if (&*layer.name, &*head.name) == ("layer", "head") => {
                let heatmap = heatmap(self, &heads(layer, head), columns, self.values.clone());
                Ok(heatmap.into())
            }
            [layer, columns, head] if (&*layer.name, &*head.name) == ("layer", "head") => {
                // Rows are (layer, head), so the last two axes change places.
                let (width, heads_per_layer) = (columns.labels.len(), head.labels.len());
                let value = |place: usize| {
                    let (row, column) = (place / width, place % width);
                    let (layer, head) = (row / heads_per_layer, row % heads_per_layer);
                    self.values[(layer * width + column) * heads_per_layer + head]
                };
                let values = (0..self.values.len()).map(value).collect();
                Ok(heatmap(self, &heads(layer, head), columns, values).into())
            }
            [panels, rows, columns] => {
                let titles = panels
                    .labels
                    .iter()
                    .map(|label| match panels.is_numbered() {
                        true => format!("{} {label}", panels.name),
                        false => label.clone(),
                    })
                    .collect();
                sheet(self, titles, 0, rows, columns).map_err(cannot)
            }
            [first, second, rows, columns] => {
                let titles = first.labels.iter().flat_map(|first| {
                    let titles = second.labels.iter();
                    titles.map(move |second| format!("{first}.{second}"))
                });
                let per_row = second.labels.len();
                let titles = titles.collect();
                sheet(self, titles, per_row, rows, columns).map_err(cannot)
            }
            axes => Err(cannot(format!(
                "a figure has at most 4 axes; take a part of it, for example --select {}=0",
                axes[0].name
            ))),
        }
    }
}

/// A sheet with a panel for each grid.
fn side_by_side(study: &Study) -> Result<Figure, Undrawable> {
    let mut panels = Vec::new();
    // (Of a set of thousands of pairs the means come first.)
    let cells = study.grids.iter().scan(0, |cells, grid| {
        *cells += grid.values.len();
        Some(*cells)
    });
    let shown = cells.take(MOST_GRIDS).take_while(|cells| *cells <= MOST_CELLS).count().max(1);
    for grid in study.grids.iter().take(shown) {
        let Figure::Heatmap(mut heatmap) = grid.figure()? else {
            return Err(Undrawable(format!(
                "the grid {:?} is not a heatmap and cannot be a panel among {} grids; choose one with \
                 --grid: {}",
                grid.name,
                study.grids.len(),
                study.names()
            )));
        };
        if heatmap.title.is_empty() {
            heatmap.title.clone_from(&grid.name);
        }
        heatmap.legend.clear();
        panels.push(heatmap);
    }
    let Some(first) = study.grids.first() else {
        return Err(Undrawable("there is no grid to draw".to_owned()));
    };
    let alike = |grid: &Grid| (grid.value_label == first.value_label) && (grid.center == first.center);
    let mut legend: Vec<String> = Vec::new();
    let left_out = study.grids.len().saturating_sub(shown);
    if left_out > 0 {
        legend.push(format!(
            "Left out: {left_out} of {} grids; --grid NAME shows one of them.",
            study.grids.len()
        ));
    }
    for line in study.grids.iter().take(shown).flat_map(|grid| &grid.legend) {
        if !legend.contains(line) {
            legend.push(line.clone());
        }
    }
    Ok(Sheet {
        title: study.title.clone(),
        subtitle: study.subtitle.clone(),
        shared_range: study.grids.iter().take(shown).all(alike),
        panels,
        legend,
        ..Sheet::default()
    }
    .into())
}

/// Refuses a grid that is too large to be seen.
fn check_size(grid: &Grid) -> Result<(), String> {
    if grid.values.len() > MOST_CELLS {
        return Err(format!(
            "a figure has {MOST_CELLS} cells at most; take a part of it, for example --select {}=0",
            grid.axes[0].name
        ));
    }
    if let Some(axis) = (grid.axes.iter()).find(|axis| axis.labels.len() > MOST_ALONG_AN_AXIS) {
        return Err(format!(
            "a figure has {MOST_ALONG_AN_AXIS} rows and columns at most; take a part of it, for \
             example --select {}=0",
            axis.name
        ));
    }
    Ok(())
}

fn heatmap(grid: &Grid, rows: &AxisLabels, columns: &AxisLabels, values: Vec<f32>) -> Heatmap {
    let marked = grid.highlight.as_ref().filter(|marked| marked.axis == columns.name);
    Heatmap {
        title: grid.title.clone(),
        values,
        rows: (0..rows.labels.len()).map(|i| rows.full_label(i)).collect(),
        columns: (0..columns.labels.len()).map(|i| columns.full_label(i)).collect(),
        row_axis: description(rows),
        column_axis: description(columns),
        value_label: grid.value_label.clone(),
        color_map: match grid.center {
            Some(_) => ColorMap::RdBu,
            None => ColorMap::Viridis,
        },
        center: grid.center,
        highlight_columns: marked.map(|marked| marked.indices.clone()).unwrap_or_default(),
        highlight_label: marked.map(|marked| marked.label.clone()).unwrap_or_default(),
        legend: grid.legend.clone(),
        // (A head's name says where it is.)
        column_numbers: !columns.is_numbered()
            && columns.places.is_empty()
            && !columns.name.ends_with("head"),
        rows_are_tokens: rows.has_tokens(),
        ..Heatmap::default()
    }
}

fn lines(grid: &Grid, series_axis: &AxisLabels, columns: &AxisLabels) -> Figure {
    let is_scale = !columns.places.is_empty()
        && columns.is_numbered()
        && columns.labels.len() > MOST_SIDE_BY_SIDE
        && columns.places.is_sorted();
    let places = if is_scale { columns.places.as_slice() } else { &[] };
    let Heatmap {
        title,
        values,
        columns,
        column_axis,
        row_axis,
        value_label,
        center,
        highlight_columns,
        highlight_label,
        legend,
        column_numbers,
        ..
    } = heatmap(grid, series_axis, columns, grid.values.clone());
    let rows = values.chunks(columns.len().max(1));
    let tokens = series_axis.has_tokens();
    let series = series_axis.labels.iter().zip(rows);
    LineChart {
        title,
        series: series
            .map(|(name, values)| Series {
                name: if tokens { visible(name) } else { name.clone() },
                values: values.to_vec(),
            })
            .collect(),
        columns,
        scale: places.iter().map(|place| *place as f32).collect(),
        column_axis,
        series_axis: row_axis,
        value_label,
        center,
        highlight_columns,
        highlight_label,
        legend,
        column_numbers,
        ..LineChart::default()
    }
    .into()
}

/// A panel for each title, over the last two axes; `per_row` is 0 for as many as look well.
fn sheet(
    grid: &Grid,
    titles: Vec<String>,
    per_row: usize,
    rows: &AxisLabels,
    columns: &AxisLabels,
) -> Result<Figure, String> {
    let count = titles.len();
    if count > MOST_PANELS {
        return Err(format!(
            "{count} panels cannot be told apart ({MOST_PANELS} at most); take a part of it, for \
             example --select {}=0",
            grid.axes[0].name
        ));
    }
    let cells = (rows.labels.len() * columns.labels.len()).max(1);
    let panels = titles.into_iter().zip(grid.values.chunks(cells));
    let panels = panels.map(|(title, values)| Heatmap {
        title,
        legend: Vec::new(),
        ..heatmap(grid, rows, columns, values.to_vec())
    });
    let compact = per_row > 0 || count > MOST_LARGE_PANELS;
    Ok(Sheet {
        title: grid.title.clone(),
        panels: panels.collect(),
        columns: per_row,
        shared_range: true,
        compact,
        legend: grid.legend.clone(),
        ..Sheet::default()
    }
    .into())
}

/// The words at an axis of a figure.
fn description(axis: &AxisLabels) -> String {
    let words = match (axis.name.as_str(), axis.has_tokens()) {
        ("pos", true) => "position and token",
        ("pos", false) => "position",
        ("dest", _) => "dest, which attends",
        ("src", _) => "src, which is attended to",
        (name, _) => name,
    };
    words.to_owned()
}

/// A row for each head of each layer, `L0H1`.
fn heads(layer: &AxisLabels, head: &AxisLabels) -> AxisLabels {
    let rows = layer.labels.iter().flat_map(|layer| {
        let heads = head.labels.iter();
        heads.map(move |head| format!("L{layer}H{head}"))
    });
    AxisLabels::new("layer and head", rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(name: &str, tokens: &[&str]) -> AxisLabels {
        AxisLabels::new(name, tokens.iter().map(|&token| token.to_owned()))
    }

    fn message(result: Result<Figure, Undrawable>) -> String {
        result.unwrap_err().0
    }

    /// A grid of these axes with its places as values.
    fn counted(axes: Vec<AxisLabels>) -> Grid {
        let mut grid = Grid { name: "x".to_owned(), axes, ..Grid::default() };
        let cells: usize = grid.shape().iter().product();
        grid.values = (0..cells).map(|value| value as f32).collect();
        grid
    }

    #[test]
    fn heads_over_positions_are_rows_in_either_order_of_the_axes() {
        let (layer, head) = (AxisLabels::indices("layer", 2), AxisLabels::indices("head", 3));
        let pos = tokens("pos", &["a", " b"]);
        let names = ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"];
        let grid = counted(vec![layer.clone(), head.clone(), pos.clone()]);
        let Figure::Heatmap(heatmap) = grid.figure().unwrap() else { panic!("no heatmap") };
        assert_eq!(heatmap.rows, names);
        assert_eq!(heatmap.value(4, 1), 9.0);
        let grid = counted(vec![layer, pos, head]);
        let Figure::Heatmap(heatmap) = grid.figure().unwrap() else { panic!("no heatmap") };
        assert_eq!(heatmap.rows, names);
        // Layer 1, head 1, position 1 is (1 · 2 + 1) · 3 + 1.
        assert_eq!(heatmap.value(4, 1), 10.0);
    }

    #[test]
    fn attention_becomes_panels_and_of_all_heads_tiny_ones() {
        let rows = tokens("dest", &["a", " b"]);
        let columns = tokens("src", &["a", " b"]);
        let head = AxisLabels::indices("head", 4);
        let of_layer = counted(vec![head.clone(), rows.clone(), columns.clone()]);
        let Figure::Sheet(sheet) = of_layer.figure().unwrap() else { panic!("no sheet") };
        assert!(!sheet.compact && sheet.shared_range && sheet.panels[0].rows_are_tokens);
        assert_eq!(sheet.panels[2].title, "head 2");
        assert_eq!(sheet.panels[2].values, [8.0, 9.0, 10.0, 11.0]);
        let all = counted(vec![AxisLabels::indices("layer", 3), head, rows, columns]);
        let Figure::Sheet(sheet) = all.figure().unwrap() else { panic!("no sheet") };
        assert!(sheet.compact && sheet.columns == 4);
        assert_eq!(sheet.panels[11].title, "2.3");
    }

    #[test]
    fn many_numbered_places_are_a_scale() {
        let chart = |places: Vec<usize>| {
            let labels: Vec<String> = places.iter().map(usize::to_string).collect();
            let Figure::Lines(chart) =
                counted(vec![AxisLabels::at("step", places, labels)]).figure().unwrap()
            else {
                panic!("no lines")
            };
            chart
        };
        assert!(chart(vec![3, 5, 7]).scale.is_empty());
        assert!(chart((0..40).collect()).scale.is_empty(), "positions, not places");
        let steps = chart((0..40).map(|point| 50 * point).collect());
        assert_eq!((steps.scale[39], steps.columns[39].as_str()), (1950.0, "1950"));
    }

    #[test]
    fn what_cannot_be_drawn_says_what_to_do() {
        let axis = |name: &str| AxisLabels::indices(name, 1);
        let five = counted(["a", "b", "c", "d", "e"].map(axis).to_vec());
        assert!(message(five.figure()).contains("--select a=0"));
        assert!(message(counted(vec![]).figure()).contains("a single number"));
        let many = counted(vec![
            AxisLabels::indices("layer", 60),
            AxisLabels::indices("head", 60),
            axis("dest"),
            axis("src"),
        ]);
        assert!(message(many.figure()).contains("3600 panels cannot be told apart"));
        let pos = tokens("pos", &["a", " b"]);
        let named = |name: &str, grid: Grid| Grid { name: name.to_owned(), ..grid };
        let lines = Grid { form: Form::Lines, ..counted(vec![pos.clone(), axis("head")]) };
        let layers = named("resid_post", counted(vec![axis("layer"), pos]));
        let mut study = Study { grids: vec![layers, named("heads", lines)], ..Study::default() };
        let error = message(study.figure());
        assert!(error.contains("choose one with --grid: resid_post, heads"), "{error}");
        study.grids.remove(0);
        assert!(matches!(study.figure(), Ok(Figure::Lines(chart)) if chart.series.len() == 2));
    }
}
