//! Numbers with named axes, what made them, and files of both.
//!
//! A [`Study`] is one or more [`Grid`]s, numbers with named axes and labels, and the [`Provenance`]
//! that says what made them. As bytes it is
//!
//! - JSON, as `patch-cli --json` prints it: `"grids": [...]` beside `"provenance": {...}`
//!   (`Study` is serde's `Serialize` and `Deserialize`; [`read_json`]);
//! - CSV in long form, a row for each number: `grid`, then for each axis its index and, where it
//!   says more than the index, its label (`pos`, `pos_label`), then `value`. A file `NAME.csv.json`
//!   beside it holds everything else, so that `pandas.read_csv("NAME.csv")` reads it as it is
//!   ([`write_csv`], [`Study::words`], [`read_csv`]);
//! - NPY, the numbers of one grid in its shape, as `<f4` in C order, with `NAME.npy.json` beside it
//!   ([`write_npy`], [`Study::words`], [`read_npy`]);
//! - safetensors, all grids by name as F32, with everything else in `__metadata__`
//!   ([`write_safetensors`], [`read_safetensors`]).
//!
//! [`read_study`] reads a file of any of them. JSON has no NaN and no infinity: such a value is `null`
//! there, and NaN when it is read again. CSV keeps every number, and the two binary formats every bit.
//!
//! Any bytes may be read: those that are not a study are an [`Error`], and the memory used is a fixed
//! multiple of their size.
//!
//! ```
//! use grids::{AxisLabels, Grid, Study, read_csv, write_csv};
//!
//! let grid = Grid {
//!     name: "z".to_owned(),
//!     axes: vec![AxisLabels::indices("layer", 2), AxisLabels::indices("head", 3)],
//!     values: vec![0.0, 0.1, 0.2, 1.0, 1.1, 1.2],
//!     ..Grid::default()
//! };
//! let study = Study { grids: vec![grid], ..Study::default() };
//! let table = write_csv(&study)?;
//! assert!(table.starts_with(b"grid,layer,head,value\nz,0,0,0\nz,0,1,0.1\n"));
//! assert_eq!(read_csv(&table, Some(study.clone()))?, study);
//! assert_eq!(study.grids[0].select("layer", 1)?.values, [1.0, 1.1, 1.2]);
//! # Ok::<(), grids::Error>(())
//! ```

mod csv_form;
mod error;
mod grid;
mod npy;
mod read;
mod study;
mod tensors;

pub use csv_form::write_csv;
pub use error::Error;
pub use grid::{AxisLabels, Form, Grid, Highlight, MAX_AXES};
pub use npy::write_npy;
pub use read::{
    Format, MAX_BYTES, read_csv, read_file, read_json, read_npy, read_safetensors, read_study, read_words,
    words_beside,
};
pub use study::{NamedText, Provenance, Study, sha256};
pub use tensors::write_safetensors;
