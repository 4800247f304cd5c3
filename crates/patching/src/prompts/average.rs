//! The mean of the grids of many pairs, with a confidence interval.
//!
//! # Which cells belong together
//!
//! Layers and heads are the same for every pair. A position is not: position 5 may be a name in one
//! prompt and a comma in another. Pairs of equally many tokens are averaged position by position, which
//! suits prompts of one pattern. Others need positions that are named by their *role* ([`Align`]), and
//! only roles that every pair has are kept.
//!
//! # The interval
//!
//! The percentile bootstrap (Efron 1979; Efron & Tibshirani 1993, chapter 13): draw as many pairs as
//! there are, with replacement, take the mean, and do so many times; the interval lies between the (1 −
//! level) / 2 and the (1 + level) / 2 quantile of these means. A draw takes a whole pair with all its
//! cells, so that cells that vary together do so in the draws too.
//!
//! # Missing numbers
//!
//! A cell that is NaN in one pair is NaN in the mean, and so are both ends of its interval: the mean of the
//! other pairs would be that of another set. On a normalised scale it can also happen that a draw has no
//! number, because the unpatched runs of the drawn pairs do not differ: the ends of the interval are then NaN
//! as well, wherever that draw would have stood.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use gpt2::{Gpt2, SiteKind};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use super::{Error, Pair};
use crate::metric::finite_or_nan;
use crate::{Axis, Endpoints, Engine, Grid, Metric, Progress, Scale, Sweep, normalized_unit};

/// From where positions are counted, so that equal numbers have equal roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Align {
    /// From the first token in which the two prompts of a pair differ.
    FirstDifference,
    /// From the last token.
    End,
}

impl Align {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::FirstDifference, Self::End];
}

impl fmt::Display for Align {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FirstDifference => "first-difference",
            Self::End => "end",
        })
    }
}

impl FromStr for Align {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|align| align.to_string() == text);
        found
            .ok_or_else(|| format!("positions are not counted from \"{text}\"; give first-difference or end"))
    }
}

/// How the confidence interval is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// How many times pairs are drawn, at least 1.
    pub resamples: usize,
    /// The share of the draws' means that lie within the interval, between 0 and 1.
    pub level: f64,
    /// Equal seeds give equal intervals.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 1000 draws, 95 %, seed 0.
    fn default() -> Self {
        Self { resamples: 1000, level: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// The most resamples that are made, and the most pairs that are drawn in all of them together.
    pub const MAX_RESAMPLES: usize = 1_000_000;
    const MAX_DRAWS: usize = 100_000_000;

    /// Refuses numbers that cannot be drawn with, for `n` pairs.
    fn check(&self, n: usize) -> Result<(), String> {
        let Self { resamples, level, .. } = self;
        if !(1..=Self::MAX_RESAMPLES).contains(resamples) {
            return Err(format!(
                "{resamples} draws were asked for; give a number from 1 to {}",
                Self::MAX_RESAMPLES
            ));
        }
        if !(*level > 0.0 && *level < 1.0) {
            return Err(format!(
                "a confidence level of {level} was asked for; give a number between 0 and 1, such as 0.95"
            ));
        }
        if n == 0 {
            return Err("there is nothing to average: give at least one pair of prompts".to_owned());
        }
        if resamples.saturating_mul(n) > Self::MAX_DRAWS {
            return Err(format!(
                "{resamples} draws of {n} pairs are more than can be held; give at most {}",
                Self::MAX_DRAWS / n
            ));
        }
        Ok(())
    }

    /// How often each pair is drawn in each resample, `resamples × n`.
    fn draws(&self, n: usize) -> Vec<u32> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let mut counts = vec![0; self.resamples * n];
        for counts in counts.chunks_exact_mut(n) {
            for _ in 0..n {
                counts[rng.random_range(0..n)] += 1;
            }
        }
        counts
    }
}

/// What one pair adds to the mean.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The pair.
    pub pair: &'a Pair,
    /// Its grid.
    pub grid: &'a Grid,
    /// The metric of its unpatched runs: what a scale is made of.
    pub ends: Endpoints,
}

impl<'a> Part<'a> {
    /// A pair and its grid.
    pub fn new(pair: &'a Pair, grid: &'a Grid) -> Self {
        let ends = Endpoints::default();
        Self { pair, grid, ends }
    }

    /// The same with the metric of the pair's unpatched runs.
    pub fn with_ends(self, ends: Endpoints) -> Self {
        Self { ends, ..self }
    }

    /// The positions along the first axis that counts positions. (Of a pattern's two axes both count
    /// the same, unless the attending positions are a subset: then the others count all.)
    fn positions(&self, axis: Axis) -> &'a [usize] {
        let found = self.grid.axes.iter().position(|known| *known == axis);
        found.map_or(&[], |at| &self.grid.places[at])
    }
}

/// The mean over pairs, cell by cell, with a confidence interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Average {
    /// The mean; NaN in cells that are not a finite number in every pair.
    pub mean: Grid,
    /// The lower end of the interval; the mean itself if there is one pair only. NaN where the mean is, or a
    /// draw is not a finite number.
    pub low: Grid,
    /// The upper end.
    pub high: Grid,
    /// How many pairs there are, in every cell alike.
    pub n: usize,
    /// What the positions are counted from; none for the first token.
    pub align: Option<Align>,
    /// For each axis of positions (pos, dest and src) the positions, counted from there; for any other
    /// axis nothing.
    pub positions: Vec<Vec<isize>>,
}

impl Average {
    /// A name for each place along one axis: `5`; `diff`, `diff+1`, `diff−1` from the first difference;
    /// `end`, `end−1` from the last token. Layers and heads are numbers.
    ///
    /// # Panics
    /// If there is no such axis.
    pub fn labels(&self, axis: usize) -> Vec<String> {
        let origin = match self.align {
            None => "",
            Some(Align::FirstDifference) => "diff",
            Some(Align::End) => "end",
        };
        let label = |&position: &isize| match (self.align, position) {
            (None, _) => position.to_string(),
            (Some(_), 0) => origin.to_owned(),
            (Some(_), 1..) => format!("{origin}+{position}"),
            (Some(_), _) => format!("{origin}−{}", position.unsigned_abs()),
        };
        match self.positions[axis].as_slice() {
            [] => self.mean.places[axis].iter().map(usize::to_string).collect(),
            positions => positions.iter().map(label).collect(),
        }
    }
}

/// The mean of the pairs' grids. Positions are matched by `align`, or one by one if it is `None`. The
/// order of the pairs changes no bit, neither of the mean nor of its interval.
///
/// # Errors
/// If there are no pairs; if prompts have different token counts and `align` does not say how to match
/// their positions; if the pairs do not all differ at the same places, counted from the first difference;
/// if the pairs have no position in common; or if `bootstrap` has no draws, too many, or a level that is
/// not between 0 and 1.
///
/// # Panics
/// If the grids are not over the same axes, or not of one model's layers and heads.
pub fn average(parts: &[Part<'_>], align: Option<Align>, bootstrap: Bootstrap) -> Result<Average, Error> {
    average_on(Scale::Value, parts, align, bootstrap)
}

/// The mean over some pairs of the sweep of logit(a) − logit(b) over a site's usual axes, on the scale of the means
/// of the unpatched runs. The pairs have the same places. `progress` is told the share of each sweep.
///
/// # Errors
/// If a pair's unpatched runs have logits that are not finite ([`crate::Experiment::check_ends`]); as
/// [`Scale::apply`].
///
/// # Panics
/// If there is no pair.
pub fn mean_sweep(
    model: &Gpt2,
    pairs: &[Pair],
    site: SiteKind,
    scale: Scale,
    progress: Progress<'_>,
) -> Result<Grid, crate::Error> {
    let mean = |sum: f64| (sum / pairs.len() as f64) as f32;
    let direction = pairs[0].experiment.direction();
    let (mut sums, mut clean, mut corrupted) = (Vec::new(), 0.0, 0.0);
    for pair in pairs {
        let metric = Metric::LogitDiff { a: &pair.a, b: &pair.b };
        let outcome = Sweep::over(&pair.experiment, site).run(model, metric, Engine::default(), progress);
        pair.experiment.check_ends(model, outcome.ends(direction))?;
        clean += f64::from(outcome.clean_metric);
        corrupted += f64::from(outcome.corrupted_metric);
        sums.resize(outcome.grid.values.len(), 0.0);
        sums.iter_mut().zip(&outcome.grid.values).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let mut values: Vec<f32> = sums.into_iter().map(mean).collect();
    scale.apply(&mut values, Endpoints::new(direction, mean(clean), mean(corrupted)))?;
    let first = Sweep::over(&pairs[0].experiment, site);
    Ok(Grid { axes: first.axes().to_vec(), places: first.places(model), values })
}

/// [`average`], with the means on a scale: on that of the means of the unpatched runs' metrics
/// ([`crate::Means::OnOneScale`]). In each draw they are the means of the pairs that were drawn.
///
/// # Errors
/// As [`average`], and if the scale is normalised and the means of the unpatched runs are too close to
/// each other.
///
/// # Panics
/// As [`average`].
pub fn average_on(
    scale: Scale,
    parts: &[Part<'_>],
    align: Option<Align>,
    bootstrap: Bootstrap,
) -> Result<Average, Error> {
    let request = |reason: String| Error::Request { reason };
    bootstrap.check(parts.len()).map_err(request)?;
    let Common { places, positions, rows } = Common::of(parts, align).map_err(request)?;
    let n = parts.len();
    let draws = bootstrap.draws(n);
    let n_cells = places.iter().map(Vec::len).product();
    let mean_of = |counts: &[u32], column: usize| {
        let drawn = counts.iter().zip(&rows);
        let sum: f64 = drawn.map(|(&count, row)| f64::from(count) * f64::from(row[column])).sum();
        sum / n as f64
    };
    let ends_of = |counts: &[u32]| {
        let [clean, corrupted, base] = [0, 1, 2].map(|i| mean_of(counts, n_cells + i));
        Zero::of(scale, clean, corrupted, base)
    };
    let once = vec![1; n];
    let zero = ends_of(&once);
    zero.check().map_err(request)?;
    let zeros: Vec<Zero> = draws.chunks_exact(n).map(ends_of).collect();
    let of_cell = |means: &mut Vec<f64>, cell: usize| {
        let mean = zero.scaled(mean_of(&once, cell));
        if !mean.is_finite() {
            return [f32::NAN; 3]; // as where one pair has no number
        }
        means.clear();
        let drawn = draws.chunks_exact(n).zip(&zeros);
        means.extend(drawn.map(|(counts, zero)| zero.scaled(mean_of(counts, cell))));
        // NaN has no place in the order.
        if !means.iter().all(|mean| mean.is_finite()) {
            return [mean as f32, f32::NAN, f32::NAN];
        }
        means.sort_by(f64::total_cmp);
        let tail = (1.0 - bootstrap.level) / 2.0;
        [mean, quantile(means, tail), quantile(means, 1.0 - tail)].map(|x| finite_or_nan(x as f32))
    };
    let cells: Vec<[f32; 3]> = (0..n_cells).into_par_iter().map_init(Vec::new, of_cell).collect();
    let [mean, low, high] = [0, 1, 2].map(|i| Grid {
        places: places.clone(),
        values: cells.iter().map(|cell| cell[i]).collect(),
        ..parts[0].grid.clone()
    });
    Ok(Average { mean, low, high, n, align, positions })
}

/// What the grids of all pairs have in common.
struct Common {
    /// The places along each axis of the mean.
    places: Vec<Vec<usize>>,
    /// [`Average::positions`].
    positions: Vec<Vec<isize>>,
    /// For each pair its values in the cells of the mean, and the metric of its unpatched runs, because
    /// these are drawn with their pair.
    rows: Vec<Vec<f32>>,
}

impl Common {
    fn of(parts: &[Part<'_>], align: Option<Align>) -> Result<Self, String> {
        let first = parts[0].grid;
        // For each pair, which of its places are kept, axis by axis.
        let mut kept = vec![Vec::new(); parts.len()];
        let (mut places, mut positions) = (Vec::new(), Vec::new());
        for (axis, common) in first.axes.iter().zip(&first.places) {
            let of_parts = if is_position(*axis) {
                let (of_parts, roles) = common_positions(parts, *axis, align)?;
                places.push(match align {
                    None => roles.iter().map(|role| role.unsigned_abs()).collect(),
                    Some(_) => (0..roles.len()).collect(),
                });
                positions.push(roles);
                of_parts
            } else {
                places.push(common.clone());
                positions.push(Vec::new());
                vec![(0..common.len()).collect(); parts.len()]
            };
            for (kept, of_part) in kept.iter_mut().zip(of_parts) {
                kept.push(of_part);
            }
        }
        let row = |(part, kept): (&Part<'_>, &Vec<Vec<usize>>)| {
            let grid = part.grid;
            let alike = (first.axes.iter().zip(&grid.places).zip(&places))
                .all(|((axis, own), common)| is_position(*axis) || own == common);
            assert!(
                grid.axes == first.axes && alike,
                "grids over {:?} at {places:?} and over {:?} at {:?} in one mean",
                first.axes,
                grid.axes,
                grid.places
            );
            let mut cells = vec![0];
            for (along, length) in kept.iter().zip(grid.shape()) {
                cells = cells.iter().flat_map(|cell| along.iter().map(move |i| cell * length + i)).collect();
            }
            let values = cells.iter().map(|&cell| grid.values[cell]);
            let Endpoints { clean, corrupted, base } = part.ends;
            values.chain([clean, corrupted, base]).collect()
        };
        let mut rows: Vec<Vec<f32>> = parts.iter().zip(&kept).map(row).collect();
        // Sums and draws depend on the order, so that of the pairs is replaced by that of the numbers.
        rows.sort_by(|x, y| {
            let mut orders = x.iter().zip(y).map(|(x, y)| x.total_cmp(y));
            orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        Ok(Self { places, positions, rows })
    }
}

fn is_position(axis: Axis) -> bool {
    matches!(axis, Axis::Pos | Axis::Dest | Axis::Src)
}

/// The zero of a scale of means, and its unit.
#[derive(Clone, Copy)]
struct Zero {
    origin: f64,
    /// From the mean of the corrupted runs to that of the clean ones, if that is the unit.
    ends: Option<[f64; 2]>,
}

impl Zero {
    fn of(scale: Scale, clean: f64, corrupted: f64, base: f64) -> Self {
        Self {
            origin: scale.origin(0.0, corrupted, base),
            ends: scale.is_normalized().then_some([corrupted, clean]),
        }
    }

    fn scaled(&self, x: f64) -> f64 {
        let unit = self.ends.map_or(1.0, |[corrupted, clean]| clean - corrupted);
        (x - self.origin) / unit
    }

    fn check(&self) -> Result<(), String> {
        let Some([corrupted, clean]) = self.ends else {
            return Ok(());
        };
        let unit = normalized_unit(clean as f32, corrupted as f32);
        unit.map(|_| ()).map_err(|error| format!("in the mean over the pairs {error}"))
    }
}

/// The number below which a share of the sorted numbers lies, between two of them in proportion
/// (definition 7 of Hyndman & Fan 1996, the usual one of numpy).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    // Not x + (y − x) · share: with two equal numbers, rounding could return another.
    let share = place - below as f64;
    if sorted[below] == sorted[above] {
        return sorted[below];
    }
    sorted[below] * (1.0 - share) + sorted[above] * share
}

/// For each pair, which of its positions are kept, as indices into them; and the roles of the positions.
type Kept = (Vec<Vec<usize>>, Vec<isize>);

fn common_positions(parts: &[Part<'_>], axis: Axis, align: Option<Align>) -> Result<Kept, String> {
    require_equal_roles(parts, align)?;
    let origin = |pair: &Pair| match align {
        None => 0,
        Some(Align::FirstDifference) => pair.experiment.differing_positions()[0],
        Some(Align::End) => pair.experiment.n_tokens() - 1,
    };
    let roles: Vec<Vec<isize>> = parts
        .iter()
        .map(|part| {
            let origin = origin(part.pair) as isize;
            part.positions(axis).iter().map(|&pos| pos as isize - origin).collect()
        })
        .collect();
    let mut common = roles[0].clone();
    for (part, roles) in parts.iter().zip(&roles) {
        let before = common.len();
        common.retain(|role| roles.contains(role));
        if common.is_empty() {
            let reason = match before {
                0 => "there are no positions to average".to_owned(),
                _ => format!(
                    "the pairs have no position in common, up to line {}: choose other positions, or \
                     count them from elsewhere",
                    part.pair.line
                ),
            };
            return Err(reason);
        }
    }
    let place = |roles: &Vec<isize>| -> Vec<usize> {
        common.iter().filter_map(|role| roles.iter().position(|known| known == role)).collect()
    };
    Ok((roles.iter().map(place).collect(), common))
}

/// Refuses pairs in which equal positions have different roles.
fn require_equal_roles(parts: &[Part<'_>], align: Option<Align>) -> Result<(), String> {
    let first = parts[0].pair;
    let n_tokens = |pair: &Pair| pair.experiment.n_tokens();
    // After a second difference, or in a longer one, the same number means something else.
    let from_first = |pair: &Pair| -> Vec<usize> {
        let differing = pair.experiment.differing_positions();
        differing.iter().map(|pos| pos - differing[0]).collect()
    };
    let is_other = |part: &&Part<'_>| match align {
        None => n_tokens(part.pair) != n_tokens(first),
        Some(Align::FirstDifference) => from_first(part.pair) != from_first(first),
        Some(Align::End) => false,
    };
    let Some(Part { pair: other, .. }) = parts.iter().find(is_other) else {
        return Ok(());
    };
    Err(match align {
        None => format!(
            "the prompts of line {} have {} tokens and those of line {} have {}: their positions do not belong \
             together one by one; say from where to count them, from the first difference or from the end",
            first.line,
            n_tokens(first),
            other.line,
            n_tokens(other)
        ),
        Some(_) => format!(
            "positions cannot be counted from the first difference: from there on the prompts of line {} \
             differ at {} and those of line {} at {}, so that equal numbers would not mean equal roles; count \
             from the end, or give pairs that differ in the same places",
            first.line,
            list(&from_first(first)),
            other.line,
            list(&from_first(other))
        ),
    })
}

/// The first numbers of a list, each with a plus.
fn list(numbers: &[usize]) -> String {
    const SHOWN: usize = 6;
    let mut shown: Vec<String> = numbers.iter().take(SHOWN).map(|n| format!("+{n}")).collect();
    if numbers.len() > SHOWN {
        shown.push(format!("and {} more", numbers.len() - SHOWN));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use gpt2::{Config, Gpt2};
    use proptest::prelude::*;

    use super::*;
    use crate::{Direction, Experiment};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_order_of_the_pairs_changes_no_bit(
            (numbers, shuffled) in prop::collection::vec(-1e3_f32..1e3, 1..20)
                .prop_flat_map(|numbers| (Just(numbers.clone()), Just(numbers).prop_shuffle())),
            seed: u64,
        ) {
            let bootstrap = Bootstrap { resamples: 50, seed, ..Bootstrap::default() };
            let bits = |average: Average| {
                let grids = [average.mean, average.low, average.high];
                grids.map(|grid| grid.values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>())
            };
            prop_assert_eq!(
                bits(average_of(&shuffled, bootstrap)),
                bits(average_of(&numbers, bootstrap))
            );
        }
    }

    /// A pair of `t` tokens that differ at these positions.
    fn pair(line: usize, t: usize, differing: &[usize]) -> Pair {
        let config =
            Config { vocab_size: 3, block_size: 32, n_layer: 1, n_head: 1, n_embd: 1, ..Config::default() };
        let model = Gpt2::random(config, 1);
        let mut corrupted = vec![0; t];
        differing.iter().for_each(|&pos| corrupted[pos] = 1);
        let experiment = Experiment::new(&model, vec![0; t], corrupted, Direction::Denoising).unwrap();
        Pair { line, experiment, a: vec![0], b: vec![1] }
    }

    fn grid(axes: &[Axis], shape: &[usize], value: impl Fn(&[usize]) -> f32) -> Grid {
        let mut indices = vec![Vec::new()];
        for &n in shape {
            let longer = |index: Vec<usize>| (0..n).map(move |i| [&index[..], &[i]].concat());
            indices = indices.into_iter().flat_map(longer).collect();
        }
        Grid {
            axes: axes.to_vec(),
            places: shape.iter().map(|&n| (0..n).collect()).collect(),
            values: indices.iter().map(|index| value(index)).collect(),
        }
    }

    /// One pair a number, in a grid of one layer and two heads: the number and its opposite.
    fn average_of(numbers: &[f32], bootstrap: Bootstrap) -> Average {
        let pair = pair(1, 3, &[1]);
        let of_number =
            |&x: &f32| grid(&[Axis::Layer, Axis::Head], &[1, 2], |index| if index[1] == 0 { x } else { -x });
        let grids: Vec<Grid> = numbers.iter().map(of_number).collect();
        let parts: Vec<Part<'_>> = grids.iter().map(|grid| Part::new(&pair, grid)).collect();
        average(&parts, None, bootstrap).unwrap()
    }

    #[test]
    fn means_on_one_scale_are_not_ruled_by_a_pair_whose_ends_meet() {
        let pair = pair(1, 3, &[1]);
        let numbers = [[5.0_f32, 10.0, 0.0], [3.01, 3.02, 3.0], [6.0, 8.0, 2.0]];
        let grids = numbers.map(|[value, ..]| grid(&[Axis::Layer], &[1], |_| value));
        let part = |(grid, [_, clean, corrupted]): (_, &[f32; 3])| {
            let ends = Endpoints::new(Direction::Denoising, *clean, *corrupted);
            Part::new(&pair, grid).with_ends(ends)
        };
        let parts: Vec<Part<'_>> = grids.iter().zip(&numbers).map(part).collect();
        let on = |scale| average_on(scale, &parts, None, Bootstrap::default());
        let mean = |scale| on(scale).unwrap().mean.values[0];
        let expected = (14.01 - 5.0) / (21.02 - 5.0);
        assert!((mean(Scale::Normalized) - expected).abs() < 1e-6);
        assert_eq!(mean(Scale::NormalizedChange), mean(Scale::Normalized));
        assert!((mean(Scale::Change) - 9.01 / 3.0).abs() < 1e-6);
        assert!((mean(Scale::Value) - 14.01 / 3.0).abs() < 1e-6);
        // The ends are drawn with their pairs: a draw of one pair alone has its own scale.
        let normalized = on(Scale::Normalized).unwrap();
        assert!(normalized.low.values[0] >= 0.499 && normalized.high.values[0] <= 0.668);
        let same = parts.iter().map(|part| part.with_ends(Endpoints::default()));
        let same: Vec<Part<'_>> = same.collect();
        let error = average_on(Scale::Normalized, &same, None, Bootstrap::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("in the mean over the pairs the clean"), "{error}");
    }

    #[test]
    fn the_interval_is_about_that_of_the_normal_distribution() {
        // 400 numbers with the mean 5 and the standard deviation 2.
        let numbers: Vec<f32> = (0..400).map(|i| if i % 2 == 0 { 3.0 } else { 7.0 }).collect();
        for (level, deviations) in [(0.95, 1.96), (0.68, 0.994)] {
            let bootstrap = Bootstrap { resamples: 4000, level, seed: 7 };
            let Average { mean, low, high, n, .. } = average_of(&numbers, bootstrap);
            assert_eq!((mean.values[0], n), (5.0, 400));
            let expected = deviations * 2.0 / 400.0_f32.sqrt();
            for half in [high.values[0] - 5.0, 5.0 - low.values[0]] {
                assert!((half / expected - 1.0).abs() < 0.1, "{half} for {expected}");
            }
        }
    }

    #[test]
    fn opposite_cells_have_opposite_intervals() {
        let numbers: Vec<f32> = (0..20).map(|i| (i * i) as f32).collect();
        let Average { low, high, .. } = average_of(&numbers, Bootstrap::default());
        assert!((low.values[0] + high.values[1]).abs() < 1e-4, "{low:?} {high:?}");
        assert!((high.values[0] + low.values[1]).abs() < 1e-4, "{low:?} {high:?}");
        assert!(low.values[0] < high.values[0]);
    }

    #[test]
    fn a_cell_that_one_pair_lacks_is_nan_and_its_interval_too() {
        let pair = pair(1, 3, &[1]);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let grids = [[1.0, bad], [2.0, 3.0], [4.0, 5.0]]
                .map(|row| grid(&[Axis::Layer, Axis::Head], &[1, 2], |index| row[index[1]]));
            let parts = grids.each_ref().map(|grid| Part::new(&pair, grid));
            let average = average(&parts, None, Bootstrap::default()).unwrap();
            let [whole, lacking] =
                [0, 1].map(|cell| [&average.mean, &average.low, &average.high].map(|grid| grid.values[cell]));
            assert!(whole.iter().all(|x| x.is_finite()), "{whole:?}");
            assert!(lacking.iter().all(|x| x.is_nan()), "{bad}: {lacking:?}");
        }
    }

    #[test]
    fn a_draw_without_a_scale_leaves_no_interval() {
        let pair = pair(1, 3, &[1]);
        let grids = [1.0, 3.0].map(|x| grid(&[Axis::Layer], &[1], |_| x));
        // The unpatched runs of the first pair are equal, so its draws alone are on no scale.
        let ends = [1.0, 5.0].map(|clean| Endpoints::new(Direction::Denoising, clean, 1.0));
        let parts = [0, 1].map(|i| Part::new(&pair, &grids[i]).with_ends(ends[i]));
        let of = |scale| average_on(scale, &parts, None, Bootstrap::default()).unwrap();
        let normalized = of(Scale::Normalized);
        assert_eq!(normalized.mean.values, [0.5]);
        assert!(normalized.low.values[0].is_nan() && normalized.high.values[0].is_nan());
        assert_eq!(of(Scale::Value).low.values, [1.0]);
    }

    #[test]
    fn equal_pairs_and_a_single_pair_have_an_interval_of_no_width() {
        for numbers in [&[0.1_f32; 7][..], &[0.1]] {
            let Average { mean, low, high, .. } = average_of(numbers, Bootstrap::default());
            assert_eq!(mean.values, [0.1, -0.1]);
            assert_eq!((&low.values, &high.values), (&mean.values, &mean.values));
        }
    }

    #[test]
    fn the_seed_decides_and_the_number_of_threads_does_not() {
        let numbers: Vec<f32> = (0..20).map(|i| (i * 7 % 11) as f32 + 0.1).collect();
        let with_seed = |seed| average_of(&numbers, Bootstrap { seed, ..Bootstrap::default() });
        assert_eq!(with_seed(1), with_seed(1));
        assert_ne!(with_seed(1).low, with_seed(2).low);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| with_seed(1)), with_seed(1));
    }

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0, 0.025, 0.5, 0.9, 1])
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.0, 1.0), (0.025, 1.075), (0.5, 3.0), (0.9, 6.8), (1.0, 8.0)] {
            assert!((quantile(&sorted, share) - expected).abs() < 1e-12, "{share}");
        }
    }

    #[test]
    fn positions_are_matched_by_their_roles() {
        let pairs = [pair(2, 6, &[2]), pair(3, 5, &[3])];
        let layer_pos = [Axis::Layer, Axis::Pos];
        for (align, origins, positions, labels) in [
            (Align::End, [5, 4], -4..=0, ["end−4", "end−3", "end−2", "end−1", "end"].as_slice()),
            (Align::FirstDifference, [2, 3], -2..=1, &["diff−2", "diff−1", "diff", "diff+1"]),
        ] {
            // Every cell says what it is: 100 times the layer, and the role.
            let of_pair = |(pair, origin): (&Pair, usize)| {
                grid(&layer_pos, &[2, pair.experiment.n_tokens()], |index| {
                    (index[0] * 100 + index[1]) as f32 - origin as f32
                })
            };
            let grids: Vec<Grid> = pairs.iter().zip(origins).map(of_pair).collect();
            let parts: Vec<Part<'_>> =
                pairs.iter().zip(&grids).map(|(pair, grid)| Part::new(pair, grid)).collect();
            let average = average(&parts, Some(align), Bootstrap::default()).unwrap();
            let roles: Vec<isize> = positions.collect();
            let expected: Vec<f32> = [0.0, 100.0]
                .iter()
                .flat_map(|layer| roles.iter().map(move |role| layer + *role as f32))
                .collect();
            assert_eq!(average.mean.values, expected, "{align:?}");
            assert_eq!(average.mean.shape(), [2, roles.len()]);
            assert_eq!(average.labels(0), ["0", "1"]);
            assert_eq!(average.labels(1), labels);
            assert_eq!(average.positions, [vec![], roles]);
        }
    }

    #[test]
    fn patterns_and_chosen_positions_are_matched_by_role() {
        let pairs = [pair(1, 4, &[1]), pair(2, 5, &[2])];
        let chosen = [vec![1, 3], vec![0, 2, 4]];
        let axes = [Axis::Layer, Axis::Head, Axis::Dest, Axis::Src];
        let grids = [0, 1].map(|i| {
            let (chosen, last) = (&chosen[i], pairs[i].experiment.n_tokens() as f32 - 1.0);
            let n_tokens = pairs[i].experiment.n_tokens();
            let mut grid = grid(&axes, &[1, 2, chosen.len(), n_tokens], |index| {
                let (dest, src) = (chosen[index[2]] as f32 - last, index[3] as f32 - last);
                1000.0 * index[1] as f32 + 10.0 * dest + src
            });
            grid.places[2].clone_from(chosen);
            grid
        });
        let parts = [0, 1].map(|i| Part::new(&pairs[i], &grids[i]));
        let average = average(&parts, Some(Align::End), Bootstrap::default()).unwrap();
        assert_eq!(average.positions[2..], [vec![-2, 0], vec![-3, -2, -1, 0]]);
        let expected = [-23.0, -22.0, -21.0, -20.0, -3.0, -2.0, -1.0, 0.0];
        assert_eq!(average.mean.values[..8], expected);
        assert_eq!(average.mean.values[8..], expected.map(|x| x + 1000.0));
        assert_eq!(average.mean.shape(), [1, 2, 2, 4]);
    }

    #[test]
    fn equally_long_pairs_need_no_roles() {
        let pairs = [pair(1, 3, &[1]), pair(2, 3, &[0, 2])];
        let grids = [1.0, 2.0].map(|x| grid(&[Axis::Layer, Axis::Pos], &[1, 3], |index| x * index[1] as f32));
        let parts = [0, 1].map(|i| Part::new(&pairs[i], &grids[i]));
        let average = average(&parts, None, Bootstrap::default()).unwrap();
        assert_eq!(average.mean.values, [0.0, 1.5, 3.0]);
        assert_eq!(average.labels(1), ["0", "1", "2"]);
    }

    #[test]
    fn what_cannot_be_averaged_is_refused_with_the_reason() {
        let refusal =
            |parts: &[Part<'_>], align, bootstrap| average(parts, align, bootstrap).unwrap_err().to_string();
        let default = Bootstrap::default();
        let grid_of =
            |pair: &Pair| grid(&[Axis::Layer, Axis::Pos], &[1, pair.experiment.n_tokens()], |_| 0.0);
        let pairs = [pair(1, 5, &[1]), pair(4, 6, &[1]), pair(7, 5, &[1, 3])];
        let grids = pairs.each_ref().map(grid_of);
        let part = |i: usize| Part::new(&pairs[i], &grids[i]);
        let message = refusal(&[part(0), part(1)], None, default);
        assert!(message.contains("line 1 have 5 tokens and those of line 4 have 6"), "{message}");
        let message = refusal(&[part(0), part(2)], Some(Align::FirstDifference), default);
        assert!(message.contains("line 1 differ at +0 and those of line 7 at +0, +2"), "{message}");
        assert!(average(&[part(0), part(2)], Some(Align::End), default).is_ok());

        let chosen = [vec![0], vec![1]].map(|chosen| Grid {
            places: vec![vec![0], chosen],
            ..grid(&[Axis::Layer, Axis::Pos], &[1, 1], |_| 0.0)
        });
        let parts = [0, 1].map(|i| Part::new(&pairs[0], &chosen[i]));
        let message = refusal(&parts, None, default);
        assert!(message.contains("no position in common"), "{message}");

        assert!(refusal(&[], None, default).contains("nothing to average"));
        for level in [0.0, 1.0, f64::NAN] {
            let message = refusal(&[part(0)], None, Bootstrap { level, ..default });
            assert!(message.contains("between 0 and 1"), "{message}");
        }
        for resamples in [0, usize::MAX] {
            let message = refusal(&[part(0)], None, Bootstrap { resamples, ..default });
            assert!(message.contains("from 1 to 1000000"), "{message}");
        }
    }
}
