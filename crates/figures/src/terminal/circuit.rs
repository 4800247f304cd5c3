//! A circuit as a table of its edges.

use super::*;
use crate::circuit::CircuitFigure;

/// Further edges are counted only: the picture has them.
const MOST_EDGES: usize = 40;

pub(super) fn lines(figure: &CircuitFigure, style: TerminalStyle) -> Vec<String> {
    figure.check_shape();
    let around = Heatmap {
        title: figure.title.clone(),
        subtitle: figure.subtitle.clone(),
        legend: figure.legend.clone(),
        values: figure.edges.iter().map(|edge| edge.score).collect(),
        rows: vec![String::new(); figure.edges.len()],
        columns: vec![String::new()],
        color_map: figure.color_map,
        center: Some(0.0),
        ..Heatmap::default()
    };
    let page = Page::new(&around, style);
    let order = figure.strongest();
    let shown = &order[..order.len().min(MOST_EDGES)];
    let names = shown.iter().map(|&edge| visible_line(&figure.edge_name(&figure.edges[edge])));
    let names: Vec<String> = names.collect();
    let scores: Vec<f32> = shown.iter().map(|&edge| figure.edges[edge].score).collect();
    let widest = |texts: &[String]| texts.iter().map(|text| text_width(text)).max().unwrap_or(0);
    let numbers: Vec<String> = scores.iter().map(|&score| page.number.format(score.into())).collect();
    let number_width = widest(&numbers);
    let name_width = widest(&names).min(page.width.saturating_sub(number_width + 3));

    let mut lines = page.heading();
    for ((name, number), &score) in names.iter().zip(&numbers).zip(&scores) {
        let name = cut(name, name_width);
        let padding = " ".repeat(name_width - text_width(&name).min(name_width));
        let cell = format!(" {number:>number_width$} ");
        lines.push(format!("{name}{padding} {}", page.on_color(&cell, score)));
    }
    if shown.len() < order.len() {
        let note =
            format!("(the {} strongest of {} edges; the picture shows more)", shown.len(), order.len());
        lines.extend(wrap(&note, page.width));
    }
    if !figure.score_label.is_empty() {
        lines.push(String::new());
        lines.extend(wrap(&format!("number: {}", visible_line(&figure.score_label)), page.width));
    }
    lines.extend(page.legend());
    lines
}

impl Page<'_> {
    /// A text on the colour of a value, where there are colours.
    fn on_color(&self, text: &str, value: f32) -> String {
        match self.color {
            TerminalColor::None => text.trim_end().to_owned(),
            _ => {
                let fill = cell_color(self.figure.color_map, self.range, value);
                format!("{}{text}{}", self.paint(fill), self.reset())
            }
        }
    }
}
