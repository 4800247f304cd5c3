//! What the studies share: naming heads and tokens, and, of every one that computes grids, its picture,
//! its exports and its words about them.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use gpt2::Pretrained;
use patching::Head;
use tensor::Tensor;

use crate::computation::computation;
use crate::export::{AxisLabels, ExportArgs, Exports, Grid, Study, named};
use crate::failure::Failure;
use crate::figure::{FigureArgs, write_picture};
use crate::output::Output;
use crate::processing::Studied;
use crate::render::{Figure, FigureOptions, write_figure};
use crate::report;
use crate::screen::Screen;
use crate::screen::terminal_style;

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
                "there is no list of the tokens that {} knows (known_tokens.json beside its weights): \
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
    /// Where to put the picture, .png or .svg [default: only the terminal]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    pub export: ExportArgs,
}

/// Files that can be written, and how pictures are drawn.
pub struct Outputs {
    options: FigureOptions,
    /// The study's picture, and then those of `others`.
    pictures: Vec<Option<Output>>,
    exports: Exports,
}

impl StudyArgs {
    /// Whether a picture or an export is asked for.
    pub fn wants_files(&self) -> bool {
        self.out.is_some() || self.export.is_wanted()
    }

    /// Checks, before any work is done, that everything can be written. `others` are the paths of
    /// further pictures; `grids` is how many grids there will be.
    ///
    /// # Errors
    /// As [`Output::picture`], [`ExportArgs::prepare`] and [`FigureArgs::options`].
    pub fn prepare(&self, others: &[&Option<PathBuf>], grids: usize) -> Result<Outputs, Failure> {
        let paths = [&[&self.out], others].concat();
        for (i, path) in paths.iter().enumerate() {
            if let Some(path) = path
                && paths[..i].iter().any(|other| other.as_ref() == Some(path))
            {
                return Err(Failure::Input(format!(
                    "two pictures cannot both be {}: give each a name of its own",
                    path.display()
                )));
            }
        }
        let pictures = paths.iter().map(|path| path.as_deref().map(Output::picture).transpose());
        Ok(Outputs {
            pictures: pictures.collect::<Result<_, _>>()?,
            exports: self.export.prepare(grids)?,
            options: self.figure.options()?,
        })
    }
}

impl Outputs {
    /// Writes the exports, and those of the pictures that were asked for. `figures` makes them in the
    /// order of the paths: the study's own first.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason.
    pub fn write(
        &self,
        study: &Study,
        figures: &[&dyn Fn() -> Result<Figure, Failure>],
    ) -> Result<(), Failure> {
        self.exports.write(study)?;
        for (picture, figure) in self.pictures.iter().zip(figures) {
            if let Some(picture) = picture {
                write_picture(&figure()?, &self.options, picture, &study.provenance)?;
            }
        }
        Ok(())
    }

    /// Shows a figure in the terminal; what is said under its title has been said already.
    pub fn show(&self, out: &mut Screen, figure: Figure) -> io::Result<()> {
        let figure = self.options.applied(&figure.without_subtitle());
        writeln!(out)?;
        write_figure(out.as_it_is(), &figure, terminal_style())
    }

    /// Says which files were written.
    pub fn say(&self, out: &mut impl Write) -> io::Result<()> {
        let pictures = self.pictures.iter().flatten().map(Output::path);
        let paths: Vec<_> = pictures.chain(self.exports.paths()).collect();
        if !paths.is_empty() {
            writeln!(out)?;
        }
        report::write_files(out, paths)
    }
}

impl Studied {
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
