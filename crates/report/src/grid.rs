//! Grids with their labels, and the words under them, as several studies have them.

use grids::{AxisLabels, Grid};
use patching::Axis;
use tensor::Tensor;

use crate::words::signed;

/// The labels of a grid's axes: tokens for positions, numbers for all else.
pub fn axis_labels(axes: &[Axis], places: &[Vec<usize>], tokens: &[String]) -> Vec<AxisLabels> {
    let labels = |(axis, places): (&Axis, &Vec<usize>)| {
        let label = |&place: &usize| match axis {
            Axis::Layer | Axis::Head | Axis::Neuron => place.to_string(),
            Axis::Pos | Axis::Dest | Axis::Src => tokens[place].clone(),
        };
        AxisLabels::at(&axis.to_string(), places.clone(), places.iter().map(label))
    };
    axes.iter().zip(places).map(labels).collect()
}

/// A number for each head, `(n_layer, n_head)`.
pub fn grid_of_heads(name: &str, title: &str, numbers: &Tensor) -> Grid {
    let [n_layer, n_head] = numbers.dims();
    Grid {
        name: name.to_owned(),
        title: title.to_owned(),
        axes: vec![AxisLabels::indices("layer", n_layer), AxisLabels::indices("head", n_head)],
        values: numbers.data().to_vec(),
        ..Grid::default()
    }
}

/// How many patched runs have no number, if there are some.
pub fn missing_in_words(missing: usize) -> Option<String> {
    match missing {
        0 => None,
        1 => Some("Missing: 1 patched run has no finite metric.".to_owned()),
        n => Some(format!("Missing: {n} patched runs have no finite metric.")),
    }
}

/// Where the unpatched runs of a pair lie.
pub fn unpatched_in_words(unpatched: [f32; 2]) -> String {
    let [clean, corrupted] = unpatched.map(signed);
    format!("Unpatched: clean {clean}, corrupted {corrupted}.")
}
