//! What the studies share: naming heads and tokens, and, of every one that computes grids, its picture,
//! its exports and its words about them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use gpt2::Pretrained;
use patching::Head;
use report::{Block, Report, write_columns};

use crate::computation::computation;
use crate::export::{ExportArgs, Exports, Grid, Study, named};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::output::{Output, write_together};
use crate::processing::Studied;
use crate::screen::{self, terminal_style, terminal_width};
use figures::{Figure, FigureOptions, write_figure};

pub use report::grid_of_heads;

/// Which tokens a study of the vocabulary is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Vocab {
    /// Those that the model was trained on (its folder's known_tokens.json)
    Known,
    /// All of them
    All,
}

impl Vocab {
    /// The tokens, in ascending order, and words for them. Without a choice: the known ones, where
    /// it is said which those are.
    pub fn tokens(choice: Option<Self>, model: &Pretrained) -> Result<(Vec<u32>, String), Failure> {
        match (choice, &model.known_tokens) {
            (Some(Self::Known) | None, Some(known)) => {
                let mut known: Vec<u32> = known.iter().copied().collect();
                known.sort_unstable();
                let words = format!("the {} tokens that {} knows", known.len(), model.name);
                Ok((known, words))
            }
            (Some(Self::Known), None) => Err(Failure::Input(format!(
                "{} has no list of known tokens (known_tokens.json beside its weights): \
                 leave out --vocab known to take all tokens",
                model.name
            ))),
            (Some(Self::All) | None, _) => {
                // Embeddings beyond the tokenizer's last token are there only to fill up.
                let vocab_size = model.model.config.vocab_size;
                let count = match model.tokenizer.n_tokens() {
                    0 => vocab_size,
                    n => vocab_size.min(n),
                };
                Ok(((0..count as u32).collect(), format!("all {count} tokens")))
            }
        }
    }
}

/// The layer and the index of a head, which the model must have.
pub fn checked(head: Head, model: &Pretrained) -> Result<(usize, usize), Failure> {
    lens::weights::head_weights(&model.model, head.layer, head.head)?;
    Ok((head.layer, head.head))
}

/// Options of every study that computes grids.
#[derive(clap::Args)]
pub struct StudyArgs {
    /// File of the picture, .png or .svg [default: only the terminal]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    pub export: ExportArgs,
}

/// The name of a study's main picture.
pub const PICTURE: &str = "picture";

/// Files that can be written, and how pictures are drawn.
#[derive(Default)]
pub struct Outputs {
    pub options: FigureOptions,
    /// Where the drawings of a report go, by their names.
    pub pictures: Vec<(&'static str, Output)>,
    pub exports: Exports,
    /// Other files, with what is in them.
    pub texts: Vec<(Output, String)>,
    /// The page, which the caller writes.
    pub page: Option<Output>,
}

/// The words for work that took some time.
pub struct Work {
    /// What was done, such as "132 patched runs".
    pub done: String,
    /// How long it took.
    pub seconds: f64,
    /// When the program began.
    pub start: Instant,
}

impl StudyArgs {
    /// Whether a picture or an export is asked for.
    pub fn wants_files(&self) -> bool {
        self.out.is_some() || self.export.is_wanted()
    }

    /// Checks, before any work is done, that everything can be written. `others` are the names and the paths of
    /// further pictures; `grids` is how many grids there will be.
    ///
    /// # Errors
    /// As [`Output::picture`], [`ExportArgs::prepare`] and [`FigureArgs::options`].
    pub fn prepare(
        &self,
        others: &[(&'static str, &Option<PathBuf>)],
        grids: usize,
    ) -> Result<Outputs, Failure> {
        let all = [(PICTURE, &self.out)].into_iter().chain(others.iter().copied());
        let pictures = pictures(all.filter_map(|(name, path)| Some((name, path.as_deref()?))))?;
        let exports = self.export.prepare(grids)?;
        Ok(Outputs { options: self.figure.options()?, pictures, exports, ..Outputs::default() })
    }
}

/// Checks that pictures can be written there, under names of their own.
///
/// # Errors
/// As [`Output::picture`]; [`Failure::Input`] if two of them have one path.
pub fn pictures<'a>(
    named: impl IntoIterator<Item = (&'static str, &'a Path)>,
) -> Result<Vec<(&'static str, Output)>, Failure> {
    let mut pictures: Vec<(&str, Output)> = Vec::new();
    for (name, path) in named {
        if pictures.iter().any(|(_, other)| other.path() == path) {
            return Err(Failure::Input(format!(
                "two pictures cannot both be {}: give each a name of its own",
                path.display()
            )));
        }
        pictures.push((name, Output::picture(path)?));
    }
    Ok(pictures)
}

impl Outputs {
    /// Writes the files that were asked for, and prints the report: as text, or as JSON.
    ///
    /// # Errors
    /// As [`Outputs::write`] and [`Outputs::print`].
    pub fn finish(&self, report: &Report, json: bool) -> Result<(), Failure> {
        self.write(report)?;
        self.print(report, json, None)
    }

    /// Writes the exports, and those of the pictures that were asked for.
    ///
    /// # Errors
    /// [`Failure::Input`] if the grids cannot be drawn; [`Failure::Other`] with the path and the reason if a file
    /// cannot be written.
    pub fn write(&self, report: &Report) -> Result<(), Failure> {
        let Some(study) = &report.study else {
            return Ok(());
        };
        // What cannot be drawn is refused before anything is written.
        let drawn = self.pictures.iter().map(|(name, output)| Ok((report.figure(name)?, output)));
        let drawn: Vec<(Option<Figure>, &Output)> = drawn.collect::<Result<_, Failure>>()?;
        self.exports.write(study)?;
        let texts = self.texts.iter().map(|(output, text)| (output, text.as_bytes()));
        write_together(&texts.collect::<Vec<_>>())?;
        for (figure, output) in drawn {
            if let Some(figure) = figure {
                write_picture(&figure, &self.options, output, &study.provenance)?;
            }
        }
        Ok(())
    }

    /// Prints a report as text or as JSON; the text ends with the work, and with the files that were written.
    ///
    /// # Errors
    /// If stdout cannot be written to.
    pub fn print(&self, report: &Report, json: bool, work: Option<Work>) -> Result<(), Failure> {
        if json {
            return screen::print_json(&report.json());
        }
        let mut out = screen::stdout();
        for block in &report.text {
            match block {
                Block::Text(text) => write!(out, "{text}")?,
                Block::Columns(rows) => {
                    write_columns(&mut out, rows, terminal_width())?;
                }
                Block::Drawing(name) => {
                    if let Some(figure) = report.figure(name)? {
                        // What is said under its title has been said already.
                        let figure = self.options.applied(&figure.without_subtitle());
                        writeln!(out)?;
                        write_figure(out.as_it_is(), &figure, terminal_style())?;
                    }
                }
            }
        }
        let pictures = self.pictures.iter().map(|(_, output)| output.path());
        let others = self.texts.iter().map(|(output, _)| output).chain(&self.page).map(Output::path);
        let files: Vec<&Path> = pictures.chain(self.exports.paths()).chain(others).collect();
        match work {
            Some(Work { done, seconds, start }) => {
                let total = start.elapsed().as_secs_f64();
                writeln!(out, "\n{done} in {seconds:.2} s; {total:.2} s from start to end")?;
            }
            None if files.is_empty() => {}
            None => writeln!(out)?,
        }
        Ok(screen::write_files(&mut out, files)?)
    }
}

impl Studied {
    /// A report on this model, with what it says of the model.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn report(&self) -> Result<Report, Failure> {
        let mut report = Report::new();
        report.fact("model", &self.pretrained.name)?;
        report.fact("processing", &self.processing)?;
        Ok(report)
    }

    /// A study of this model: its grids with the words around them. `prompts` are pairs of what a
    /// text is and the text; the lines under the title are `about`, these, and the model.
    ///
    /// # Errors
    /// As [`Studied::provenance`].
    pub fn study(
        &self,
        title: &str,
        about: &[String],
        prompts: &[(&str, &str)],
        grids: Vec<Grid>,
    ) -> Result<Study, Failure> {
        let prompt_lines = prompts.iter().map(|(name, text)| format!("{name}: {text}"));
        let lines = about.iter().cloned().chain(prompt_lines);
        Ok(Study {
            provenance: self.provenance(named(prompts), computation([]))?,
            title: title.to_owned(),
            subtitle: lines.chain([format!("model: {}", self.label())]).collect(),
            numbers_sha256: None,
            grids,
        })
    }
}
