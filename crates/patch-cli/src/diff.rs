//! `patch-cli diff`: how two exports differ.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::export::{ExportArgs, Exports, Grid, MadeHere, Provenance, Study, place_in_words, read_study};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::output::Output;
use crate::plot::Part;
use crate::screen;
use crate::screen::terminal_style;
use figures::Draw;
use figures::{Figure, write_figure};

/// Arguments of `diff`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An export: .csv, .npy or .safetensors, or what --json printed in a file .json
    a: PathBuf,

    /// Another one, with the same axes
    b: PathBuf,

    #[command(flatten)]
    part: Part,

    /// End with exit code 1 if any two numbers differ by more
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true, value_parser = parse_tolerance)]
    tolerance: Option<f32>,

    /// Picture of B − A, .png or .svg [default: only the terminal]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    export: ExportArgs,

    #[command(flatten)]
    color: colorchoice_clap::Color,
}

const EXAMPLES: &str = "\
Examples:
  patch-cli diff incremental.json plain.json --tolerance 1e-4
  patch-cli diff tiny.csv gpt2.csv --out difference.png";

/// How much two grids differ.
#[derive(Serialize)]
struct Difference {
    grid: String,
    /// How many numbers were compared.
    values: usize,
    /// The largest absolute difference; infinite where only one of two is a finite number.
    largest: f32,
    /// Where it is, as words.
    at: String,
    a: f32,
    b: f32,
    /// The mean of the absolute differences of finite numbers.
    mean: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    study: &'a Study,
    differences: &'a [Difference],
}

impl Args {
    /// Refuses to replace one of the two files by their difference.
    fn keep_inputs(&self, exports: &Exports) -> Result<(), Failure> {
        let same = |a: &Path, b: &Path| {
            fs::canonicalize(a).ok().zip(fs::canonicalize(b).ok()).is_some_and(|(a, b)| a == b)
        };
        let replaced = exports.paths().into_iter().find(|path| same(path, &self.a) || same(path, &self.b));
        replaced.map_or(Ok(()), |path| {
            Err(Failure::Input(format!(
                "{} is one of the two files that are compared, and would be replaced: give another name",
                path.display()
            )))
        })
    }
}

/// Compares two files grid by grid.
pub fn run(args: &Args) -> Result<(), Failure> {
    args.color.write_global();
    let output = args.out.as_deref().map(Output::picture).transpose()?;
    let options = args.figure.options()?;
    let names = [&args.a, &args.b].map(|path| path.display().to_string());
    let (a, b) = matched(args, &names)?;
    let pairs = pairs(&a, &b, &names)?;
    let exports = args.export.prepare(pairs.len())?;
    args.keep_inputs(&exports)?;

    let mut differences = Vec::new();
    let mut grids = Vec::new();
    for (a, b) in pairs {
        differences.push(Difference::of(a, b));
        grids.push(subtracted(a, b));
    }
    let study = Study {
        provenance: Provenance::without_model(),
        numbers_sha256: None,
        title: "Difference B − A".to_owned(),
        subtitle: vec![format!("A: {}", names[0]), format!("B: {}", names[1])],
        grids,
    };
    let drawn = output.iter().map(|output| Ok((output, study.figure()?)));
    let drawn: Vec<(&Output, Figure)> = drawn.collect::<Result<_, Failure>>()?;
    exports.write(&study)?;
    for (output, figure) in &drawn {
        write_picture(figure, &options, output, &study.provenance)?;
    }
    if args.json {
        let report = Report { study: &study, differences: &differences };
        screen::print_json(&report)?;
    } else {
        let mut out = screen::stdout();
        match study.figure() {
            Ok(figure) => write_figure(out.as_it_is(), &options.applied(&figure), terminal_style())?,
            // The numbers are compared all the same.
            Err(why) => writeln!(out, "no figure: {why}")?,
        }
        writeln!(out)?;
        for difference in &differences {
            writeln!(out, "{}", difference.words())?;
        }
        let files = output.iter().map(Output::path).chain(exports.paths());
        screen::write_files(&mut out, files)?;
    }
    let worst = differences.iter().map(|difference| difference.largest);
    let worst = worst.fold(0.0, f32::max);
    match args.tolerance {
        Some(tolerance) if worst > tolerance => Err(Failure::Other(format!(
            "the largest difference, {worst}, is more than --tolerance {tolerance}"
        ))),
        _ => Ok(()),
    }
}

/// The grid B − A.
fn subtracted(a: &Grid, b: &Grid) -> Grid {
    Grid {
        title: String::new(),
        values: a.values.iter().zip(&b.values).map(|(a, b)| b - a).collect(),
        texts: Vec::new(),
        value_label: format!("B − A of {}", a.value_label),
        center: Some(0.0),
        legend: vec!["Blue: larger in B; red: larger in A.".to_owned()],
        ..a.clone()
    }
}

fn parse_tolerance(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        // Not NaN, which nothing is more than.
        Ok(tolerance) if tolerance >= 0.0 => Ok(tolerance),
        _ => Err("give a number from 0".to_owned()),
    }
}

/// The parts of the two files that are compared. Where a file does not say what the axes of its numbers
/// are, they are those of the other file.
fn matched(args: &Args, names: &[String; 2]) -> Result<(Study, Study), Failure> {
    let (mut a, mut b) = (read_study(&args.a)?, read_study(&args.b)?);
    let grid = args.part.grid();
    let by_place = "numbers are compared by their place";
    let note = |bare: &str, other: &str| {
        let words = format!("{bare} does not say what its axes are, as {other} does: {by_place}");
        screen::notes(&[words]);
    };
    if match_by_place(&mut b, &a, grid) {
        note(&names[1], &names[0]);
    }
    if match_by_place(&mut a, &b, grid) {
        note(&names[0], &names[1]);
    }
    let unknown = |study: &Study| study.grids.iter().any(|grid| !grid.has_known_axes());
    if unknown(&a) && unknown(&b) {
        let words = format!("neither file says what its axes are: {by_place}");
        screen::notes(&[words]);
    }
    Ok((args.part.of(a)?, args.part.of(b)?))
}

/// Gives the grids of `bare` whose axes are not known the name and the words of those in `other` with which
/// they are compared, and the axes if the shapes agree. The grid of an array that stood alone is compared
/// with the one that was asked for, or the only one. Whether any axes were given.
fn match_by_place(bare: &mut Study, other: &Study, wanted: Option<&str>) -> bool {
    let alone = bare.grids.len() == 1;
    let mut given = false;
    for grid in bare.grids.iter_mut().filter(|grid| !grid.has_known_axes()) {
        let named = |name: &str| other.grids.iter().find(|grid| grid.name == name);
        let of_array = || match (wanted, other.grids.as_slice()) {
            _ if !alone => None,
            (Some(wanted), _) => named(wanted),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let Some(partner) = named(&grid.name).or_else(of_array) else {
            continue;
        };
        grid.name.clone_from(&partner.name);
        if partner.has_known_axes() && partner.shape() == grid.shape() {
            grid.axes.clone_from(&partner.axes);
            grid.value_label.clone_from(&partner.value_label);
            given = true;
        }
    }
    given
}

/// The grids to compare: those of the same name, or the only one of each file.
fn pairs<'a>(a: &'a Study, b: &'a Study, names: &[String; 2]) -> Result<Vec<(&'a Grid, &'a Grid)>, Failure> {
    let pairs = match (a.grids.as_slice(), b.grids.as_slice()) {
        ([a], [b]) => vec![(a, b)],
        (of_a, of_b) => {
            let pair = |a: &'a Grid| Some((a, of_b.iter().find(|b| b.name == a.name)?));
            of_a.iter().filter_map(pair).collect()
        }
    };
    if pairs.is_empty() {
        return Err(Failure::Input(format!(
            "no grid is in both files: {} has {}, {} has {}; an array alone is compared with the grid that \
             --grid names",
            names[0],
            a.names(),
            names[1],
            b.names()
        )));
    }
    for (a, b) in &pairs {
        let axes = |grid: &Grid| -> Vec<String> {
            let axes = grid.axes.iter();
            match grid.axes.as_slice() {
                [] => vec!["a single number".to_owned()],
                _ => axes.map(|axis| format!("{} {}", axis.name, axis.labels.len())).collect(),
            }
        };
        let (of_a, of_b) = (axes(a), axes(b));
        if of_a != of_b {
            return Err(Failure::Input(format!(
                "the grids {:?} and {:?} have different axes: {} in {}, {} in {}; only grids of the \
                 same axes can be compared",
                a.name,
                b.name,
                of_a.join(" × "),
                names[0],
                of_b.join(" × "),
                names[1]
            )));
        }
    }
    Ok(pairs)
}

impl Difference {
    fn of(a: &Grid, b: &Grid) -> Self {
        let distance = |place: usize| {
            let (a, b) = (a.values[place], b.values[place]);
            match a == b || (a.is_nan() && b.is_nan()) {
                true => 0.0,
                false if (a - b).is_nan() => f32::INFINITY,
                false => (a - b).abs(),
            }
        };
        let places = 0..a.values.len();
        let worst = places.clone().max_by(|&x, &y| distance(x).total_cmp(&distance(y)));
        let finite: Vec<f64> =
            places.map(|place| f64::from(distance(place))).filter(|distance| distance.is_finite()).collect();
        let value = |grid: &Grid| worst.map_or(f32::NAN, |place| grid.values[place]);
        Self {
            grid: a.name.clone(),
            values: a.values.len(),
            largest: worst.map_or(0.0, distance),
            at: worst.map(|place| place_in_words(a, place)).unwrap_or_default(),
            a: value(a),
            b: value(b),
            mean: finite.iter().sum::<f64>() / finite.len().max(1) as f64,
        }
    }

    fn words(&self) -> String {
        match self.largest == 0.0 {
            true => format!("{}: {} values, all equal", self.grid, self.values),
            false => format!(
                "{}: {} values; largest difference {:.2e} ({}: {} against {}), mean {:.2e}",
                self.grid, self.values, self.largest, self.at, self.a, self.b, self.mean
            ),
        }
    }
}
