//! What a user may want to have otherwise about a figure.

use std::collections::HashSet;

use super::color::ColorMap;
use super::figure::{CellValues, Figure, Heatmap};
use super::image::DEFAULT_SCALE;
use super::layout::layout;
use super::scene::{Item, Scene};
use super::text::{Fonts, Typesetter};

/// How a figure is drawn, where that is not for the figure to say.
#[derive(Clone, Debug)]
pub struct FigureOptions {
    /// The lower end of the scale of values.
    pub vmin: Option<f32>,
    /// The upper end of the scale of values.
    pub vmax: Option<f32>,
    /// The value that gets the middle colour.
    pub center: Option<f32>,
    /// The colours.
    pub color_map: Option<ColorMap>,
    /// Whether numbers stand in the cells.
    pub cell_values: Option<CellValues>,
    /// Another heading; empty for none.
    pub title: Option<String>,
    /// Pixels per unit, of a picture made of pixels.
    pub scale: f32,
    /// The fonts for text.
    pub fonts: Fonts,
}

impl Default for FigureOptions {
    fn default() -> Self {
        Self {
            vmin: None,
            vmax: None,
            center: None,
            color_map: None,
            cell_values: None,
            title: None,
            scale: DEFAULT_SCALE,
            fonts: Fonts::default(),
        }
    }
}

impl FigureOptions {
    /// The figure with everything that these options say.
    pub fn applied(&self, figure: &Figure) -> Figure {
        let mut figure = figure.clone();
        let title = match &mut figure {
            Figure::Heatmap(heatmap) => {
                self.apply_to(heatmap);
                &mut heatmap.title
            }
            Figure::Lines(chart) => {
                chart.vmin = self.vmin.or(chart.vmin);
                chart.vmax = self.vmax.or(chart.vmax);
                chart.center = self.center.or(chart.center);
                &mut chart.title
            }
            Figure::Sheet(sheet) => {
                sheet.panels.iter_mut().for_each(|panel| self.apply_to(panel));
                &mut sheet.title
            }
            Figure::Circuit(circuit) => {
                circuit.color_map = self.color_map.unwrap_or(circuit.color_map);
                &mut circuit.title
            }
            // (The scale of colours of a heatmap beside it is not one of its axes.)
            Figure::Scatter(scatter) => &mut scatter.title,
        };
        if let Some(other) = &self.title {
            title.clone_from(other);
        }
        figure
    }

    fn apply_to(&self, heatmap: &mut Heatmap) {
        heatmap.vmin = self.vmin.or(heatmap.vmin);
        heatmap.vmax = self.vmax.or(heatmap.vmax);
        heatmap.center = self.center.or(heatmap.center);
        heatmap.color_map = self.color_map.unwrap_or(heatmap.color_map);
        heatmap.cell_values = self.cell_values.unwrap_or(heatmap.cell_values);
    }
}

/// Lays a figure out: everything in its place, for whatever form of picture.
///
/// # Panics
/// If the figure does not have one value for each cell or point.
pub fn scene(figure: &Figure, options: &FigureOptions) -> Scene {
    layout(&options.applied(figure), &options.fonts)
}

/// The characters of a scene's texts that all fonts lack, each once, in the order in which they come.
pub fn missing_characters(scene: &Scene, fonts: &Fonts) -> Vec<char> {
    let mut setter = Typesetter::new(fonts);
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for item in scene.flat() {
        if let Item::Text(text) = item {
            let of_text = setter.missing(&text.string, text.weight).into_iter();
            missing.extend(of_text.filter(|&character| seen.insert(character)));
        }
    }
    missing
}
