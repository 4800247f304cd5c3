//! Errors in numbers that come from elsewhere.

use std::path::PathBuf;

/// What is wrong with a grid, a study or a file of them, in words for the person who gave it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read, is not a regular file or is too long.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },

    /// A file with an unknown ending.
    #[error("{}: the name of an export ends in .json, .csv, .npy or .safetensors", path.display())]
    Ending {
        /// The file.
        path: PathBuf,
    },

    /// A file without a study.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        error: Box<Error>,
    },

    /// Bytes that are not of their format, or use a part of it that is not supported.
    #[error("{0}")]
    Format(String),

    /// A study without grids.
    #[error("it contains no grid")]
    NoGrid,

    /// Two grids of one name in a study.
    #[error("two grids have the name {grid:?}")]
    GridTwice {
        /// The name.
        grid: String,
    },

    /// The description lists a grid that the numbers do not contain.
    #[error("the grid {grid:?} is missing")]
    GridMissing {
        /// The name of the grid.
        grid: String,
    },

    /// Numbers of another shape than the description says.
    #[error(
        "the grid {grid:?} has the shape {found:?}, and its description {described:?}: the two do not belong \
         together"
    )]
    OtherShape {
        /// The name of the grid.
        grid: String,
        /// The shape of the numbers.
        found: Vec<usize>,
        /// The shape in the description.
        described: Vec<usize>,
    },

    /// Other numbers than those that the description was written for.
    #[error(
        "its numbers are not those that its words were written for (their checksum is another): they are of \
         another run, or were changed since; make it again, or, to read the numbers alone, move the file of \
         words (NAME.json beside NAME) away"
    )]
    OtherNumbers,

    /// A grid without numbers.
    #[error("the grid {grid:?} of the shape {shape:?} contains no numbers")]
    Empty {
        /// The name of the grid.
        grid: String,
        /// Its shape, with a length of 0 in it.
        shape: Vec<usize>,
    },

    /// More or fewer numbers than a grid's shape has places.
    #[error(
        "the grid {grid:?} has the shape {shape:?} and {values} values: the product of the lengths is expected"
    )]
    OtherCount {
        /// The name of the grid.
        grid: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many numbers it has.
        values: usize,
    },

    /// More or fewer texts than numbers.
    #[error("the grid {grid:?} has {texts} texts and {values} values: a text for each, or none, is expected")]
    OtherTexts {
        /// The name of the grid.
        grid: String,
        /// How many texts it has.
        texts: usize,
        /// How many numbers it has.
        values: usize,
    },

    /// More axes than [`MAX_AXES`](crate::MAX_AXES).
    #[error("the grid {grid:?} has {axes} axes; a grid has {max} at most", max = crate::MAX_AXES)]
    TooManyAxes {
        /// The name of the grid.
        grid: String,
        /// How many axes it has.
        axes: usize,
    },

    /// Two axes of one name in a grid that is to be written as CSV.
    #[error("cannot write the grids as CSV: two axes of {grid:?} have the name {axis:?}")]
    AxisTwice {
        /// The name of the grid.
        grid: String,
        /// The name of the axes.
        axis: String,
    },

    /// An axis that a grid does not have.
    #[error("the grid {grid:?} has no axis {axis:?}; it has {}", axes.join(", "))]
    NoSuchAxis {
        /// The name of the grid.
        grid: String,
        /// The axis that was asked for.
        axis: String,
        /// The names of those that there are.
        axes: Vec<String>,
    },

    /// An index beyond the end of an axis.
    #[error(
        "{axis} {index} is not in the grid {grid:?}: give one from 0 to {}",
        length.saturating_sub(1)
    )]
    NoSuchIndex {
        /// The name of the grid.
        grid: String,
        /// The name of the axis.
        axis: String,
        /// The index that was asked for.
        index: usize,
        /// How many there are.
        length: usize,
    },

    /// A study that cannot be written, though nothing is wrong with it.
    #[error("cannot write the grids as {format}: {reason}")]
    Unwritable {
        /// The format.
        format: &'static str,
        /// Why it cannot be written.
        reason: String,
    },
}
