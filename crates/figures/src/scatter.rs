//! The description of a scatter plot.

use grids::Grid;

use super::figure::{Heatmap, ValueRange};

/// Points over two axes with one scale, and the diagonal: what was predicted against what was measured.
///
/// As for a [`Heatmap`], all texts are shown as they are but for what cannot be seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scatter {
    /// The heading. Wrapped if it is long; empty for none.
    pub title: String,
    /// Short lines under the title, for example how well the two agree.
    pub subtitle: Vec<String>,
    /// What is to the right.
    pub x_label: String,
    /// What is upwards.
    pub y_label: String,
    /// The name of each group of points, and x and y of its points. A point with a number that is not finite
    /// is left out, and counted under the picture. The groups have different colours, named in a key if there
    /// is more than one.
    pub groups: Vec<(String, Vec<[f32; 2]>)>,
    /// A line or two under the picture.
    pub legend: Vec<String>,
}

impl Scatter {
    /// A point for each cell of two grids of one shape: its value in the one to the right, in the other upwards.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn points(x: &Grid, y: &Grid) -> Vec<[f32; 2]> {
        assert!(x.shape() == y.shape(), "points of grids of {:?} and {:?}", x.shape(), y.shape());
        x.values.iter().zip(&y.values).map(|(&x, &y)| [x, y]).collect()
    }

    /// The same points in a group for each layer, if the first axis of the grids is one of layers.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn by_layer(x: &Grid, y: &Grid) -> Vec<(String, Vec<[f32; 2]>)> {
        let points = Self::points(x, y);
        match x.axes.first() {
            Some(axis) if axis.name == "layer" && !points.is_empty() => {
                let groups = points.chunks(points.len() / axis.labels.len());
                let layers = axis.labels.iter().map(|layer| format!("layer {layer}"));
                layers.zip(groups.map(<[_]>::to_vec)).collect()
            }
            _ => vec![(String::new(), points)],
        }
    }

    /// Every text, and every list of lines.
    pub(crate) fn texts(
        &mut self,
        text: &mut dyn FnMut(&mut String),
        lines: &mut dyn FnMut(&mut Vec<String>),
    ) {
        [&mut self.title, &mut self.x_label, &mut self.y_label].into_iter().for_each(&mut *text);
        self.groups.iter_mut().map(|(name, _)| name).for_each(&mut *text);
        self.subtitle.iter_mut().chain(&mut self.legend).for_each(text);
        [&mut self.subtitle, &mut self.legend].into_iter().for_each(lines);
    }

    /// The points of each group that can be drawn.
    pub(crate) fn drawn(&self) -> impl Iterator<Item = impl Iterator<Item = [f32; 2]>> {
        self.groups.iter().map(|(_, points)| points.iter().copied().filter(is_finite))
    }

    /// The scale of both axes: all points, with some air around them.
    pub(crate) fn range(&self) -> ValueRange {
        let values: Vec<f32> = self.drawn().flatten().flatten().collect();
        let all = Heatmap {
            columns: vec![String::new(); values.len()],
            rows: vec![String::new()],
            values,
            ..Heatmap::default()
        };
        let range = all.range();
        let air = 0.04 * (range.high - range.low);
        match air.is_finite() {
            true => ValueRange { low: range.low - air, high: range.high + air, center: None },
            false => range,
        }
    }

    /// The lines under the picture, the last of which says how many points were left out.
    pub(crate) fn notes(&self) -> Vec<String> {
        let all: usize = self.groups.iter().map(|(_, points)| points.len()).sum();
        let left_out = all - self.drawn().map(Iterator::count).sum::<usize>();
        let note = format!("Left out: {left_out} of {all} points, which have no number.");
        self.legend.iter().cloned().chain((left_out > 0).then_some(note)).collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as Iterator::filter gives it")]
fn is_finite([x, y]: &[f32; 2]) -> bool {
    x.is_finite() && y.is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scatter(points: &[[f32; 2]]) -> Scatter {
        Scatter { groups: vec![(String::new(), points.to_vec())], ..Scatter::default() }
    }

    #[test]
    fn both_axes_have_one_scale_with_room_for_all_points() {
        let range = scatter(&[[0.0, 1.0], [-1.0, 3.0]]).range();
        assert_eq!((range.low, range.high), (-1.16, 3.16));
        let range = scatter(&[]).range();
        assert!(range.low < range.high);
        let range = scatter(&[[f32::MIN, f32::MAX]]).range();
        assert!(range.low.is_finite() && range.high.is_finite());
    }

    #[test]
    fn the_cells_of_two_grids_are_points_in_groups_of_layers() {
        let axes = vec![grids::AxisLabels::indices("layer", 2), grids::AxisLabels::indices("pos", 1)];
        let grid = |values: [f32; 2]| Grid { axes: axes.clone(), values: values.to_vec(), ..Grid::default() };
        let groups = Scatter::by_layer(&grid([1.0, 2.0]), &grid([3.0, 4.0]));
        let expected = [("layer 0".to_owned(), vec![[1.0, 3.0]]), ("layer 1".to_owned(), vec![[2.0, 4.0]])];
        assert_eq!(groups, expected);
    }

    #[test]
    fn points_without_a_number_are_left_out_and_counted() {
        let scatter = scatter(&[[0.0, f32::NAN], [f32::INFINITY, 1.0], [1.0, 2.0]]);
        assert_eq!(scatter.drawn().map(Iterator::count).collect::<Vec<_>>(), [1]);
        assert_eq!(scatter.notes(), ["Left out: 2 of 3 points, which have no number."]);
        let range = scatter.range();
        assert!(range.low > 0.9 && range.high < 2.1);
    }
}
