//! `patch-cli plot`: draw what was exported.

use std::io::Write;
use std::path::PathBuf;

use crate::export::{Grid, MadeHere, Provenance, Study, read_study};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::names::nearest;
use crate::output::Output;
use crate::place::Place;
use crate::screen;
use crate::screen::terminal_style;
use figures::Draw;
use figures::write_figure;
use visible::visible_path;

/// Arguments of `plot`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An export: .csv, .npy or .safetensors, or what --json printed in a file .json
    file: PathBuf,

    #[command(flatten)]
    part: Part,

    /// File of the picture, .png or .svg [default: only the terminal]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    color: colorchoice_clap::Color,
}

const EXAMPLES: &str = "\
Examples:
  patch-cli --json > run.json && patch-cli plot run.json --out run.svg
  patch-cli plot grids.safetensors --grid z --cmap viridis --vmin 0 --out z.png
  patch-cli plot attention.npy --select layer=3 --out layer3.png";

/// Which part of a study is meant.
#[derive(clap::Args)]
pub struct Part {
    /// One of the file's grids [default: all, side by side]
    #[arg(long, value_name = "NAME")]
    grid: Option<String>,

    /// Only one index along an axis, such as layer=3, or layer=-1 for the last; may be repeated
    #[arg(long, value_name = "AXIS=INDEX", value_parser = parse_selection)]
    select: Vec<(String, Place)>,
}

/// Reads the file and draws it.
pub fn run(args: &Args) -> Result<(), Failure> {
    args.color.write_global();
    let output = args.out.as_deref().map(Output::picture).transpose()?;
    let options = args.figure.options()?;
    let study = args.part.of(read_study(&args.file)?)?;
    let figure = study.figure()?;
    if let Some(output) = &output {
        // The picture shows what made the numbers, and carries it.
        let provenance = match study.provenance == Provenance::default() {
            true => Provenance::without_model(),
            false => study.provenance,
        };
        write_picture(&figure, &options, output, &provenance)?;
    }
    let mut out = screen::stdout();
    write_figure(out.as_it_is(), &options.applied(&figure), terminal_style())?;
    if let Some(output) = &output {
        writeln!(out, "\nwrote {}", visible_path(output.path()))?;
    }
    Ok(())
}

impl Part {
    /// The grid that is meant, if one is named.
    pub fn grid(&self) -> Option<&str> {
        self.grid.as_deref()
    }

    /// This part of a study.
    ///
    /// # Errors
    /// [`Failure::Input`] if there is no such grid, axis or index, with those that there are.
    pub fn of(&self, mut study: Study) -> Result<Study, Failure> {
        if let Some(name) = &self.grid {
            let names = study.names();
            study.grids.retain(|grid| grid.name == *name);
            if study.grids.is_empty() {
                let meant = nearest(name, names.split(", "));
                let meant = meant.map(|meant| format!("; did you mean {meant}?"));
                return Err(Failure::Input(format!(
                    "there is no grid {name:?}; the file has {names}{}",
                    meant.unwrap_or_default()
                )));
            }
        }
        for (axis, place) in &self.select {
            let part = |grid: &Grid| {
                let found = grid.axes.iter().find(|found| found.name == *axis);
                let index = match found {
                    Some(found) => place.of(found.labels.len(), axis)?,
                    None => 0, // which the grid refuses with its axes
                };
                Ok(grid.select(axis, index)?)
            };
            study.grids = study.grids.iter().map(part).collect::<Result<_, Failure>>()?;
            study.subtitle.push(format!("{axis} {place}"));
        }
        Ok(study)
    }
}

fn parse_selection(text: &str) -> Result<(String, Place), String> {
    let (axis, index) = text.split_once('=').ok_or("write an axis and an index, such as layer=3")?;
    let place = index.trim().parse();
    let place =
        place.map_err(|_| format!("{index:?} is not an index: write a number from 0, or -1 for the last"))?;
    Ok((axis.trim().to_owned(), place))
}
