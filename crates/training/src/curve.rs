//! The loss over the steps of a training, as a grid to be drawn.

use grids::{AxisLabels, Form, Grid, Study};

use crate::recipe::{Kind, Training};

/// The curve has at most so many points.
const MOST_POINTS: usize = 60;

/// The mean loss of each kind of batch over every few steps. A point at which there was no batch of a kind is NaN.
pub fn loss_curve(training: &Training) -> Study {
    let (recipe, losses) = (&training.recipe, &training.losses);
    let width = width_of_a_point(recipe.steps);
    let points = losses.len().div_ceil(width);
    let mut values = Vec::new();
    for kind in [Kind::Text, Kind::Repeated] {
        for point in 0..points {
            let steps = point * width..losses.len().min((point + 1) * width);
            let of_kind: Vec<f32> =
                steps.filter(|step| recipe.kind(*step) == kind).map(|step| losses[step]).collect();
            values.push(of_kind.iter().sum::<f32>() / of_kind.len() as f32);
        }
    }
    let ends: Vec<usize> = (1..=points).map(|point| losses.len().min(point * width)).collect();
    let labels: Vec<String> = ends.iter().map(usize::to_string).collect();
    let kinds = ["text", "repeated tokens"].map(str::to_owned);
    let grid = Grid {
        name: "loss".to_owned(),
        form: Form::Lines,
        axes: vec![AxisLabels::new("batches", kinds), AxisLabels::at("step", ends, labels)],
        values,
        value_label: "loss, nats a token".to_owned(),
        center: Some(0.0),
        legend: vec!["What needs recall counts six times in text.".to_owned()],
        ..Grid::default()
    };
    Study {
        title: "Training the tiny model".to_owned(),
        subtitle: vec![format!("seed {}, {} of {} steps", recipe.seed, losses.len(), recipe.steps)],
        grids: vec![grid],
        ..Study::default()
    }
}

/// A round number of steps, so that the labels are round too.
fn width_of_a_point(steps: usize) -> usize {
    let least = steps.div_ceil(MOST_POINTS).max(1);
    let powers = (0..).map(|power| 10_usize.pow(power));
    let round = powers.flat_map(|power| [1, 2, 5].map(|digit| digit * power));
    round.into_iter().find(|width| *width >= least).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;

    #[test]
    fn a_point_is_the_mean_of_the_batches_of_its_kind() {
        let mut training = Training::begin(Recipe::new(1, 200));
        training.losses = (0..12).map(|step| step as f32).collect();
        let study = loss_curve(&training);
        let grid = study.grid("loss").unwrap();
        assert_eq!(grid.axes[1].labels, ["5", "10", "12"]);
        let of_kind = |kind, steps: std::ops::Range<usize>| {
            let steps: Vec<usize> = steps.filter(|step| training.recipe.kind(*step) == kind).collect();
            steps.iter().sum::<usize>() as f32 / steps.len() as f32
        };
        let expected = [Kind::Text, Kind::Repeated]
            .iter()
            .flat_map(|kind| [0..5, 5..10, 10..12].map(|steps| of_kind(*kind, steps)));
        for (got, expected) in grid.values.iter().zip(expected) {
            assert!(*got == expected || (got.is_nan() && expected.is_nan()), "{got} {expected}");
        }
        assert_eq!([1, 60, 61, 6000, 10_000].map(width_of_a_point), [1, 1, 2, 100, 200]);
    }
}
