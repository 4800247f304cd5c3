//! Figures of grids: one description, drawn in several forms.
//!
//! [`Draw`] turns the grids of a study into a [`Figure`].
//!
//! A [`Figure`] says *what* is to be seen: a [`Heatmap`] has numbers in rows and columns, the words
//! around them, the colour map, and which columns matter; a [`LineChart`] has series over an axis; a
//! [`Sheet`] has several heatmaps; a [`Scatter`] has points over two axes; a [`CircuitFigure`] has nodes and edges. They
//! know nothing of pixels. Everything else in this module is a
//! way from there to something a person can look at. [`FigureOptions`] are what a user may want to
//! have otherwise: the ends of the scale, the colours, the title.
//!
//! **The picture.** [`scene()`] turns the description into a [`Scene`]: a flat list of
//! rectangles, lines, polygons and texts with all coordinates decided. Layout happens once, in one
//! place, so that every picture format shows the same figure; a painter of a scene never moves
//! anything.
//! Lengths in a scene are *units*, of which 96 make an inch (a CSS pixel). The origin is the upper
//! left corner and y grows downwards. Cells become smaller as rows and columns become more, and
//! the labels of the columns turn from horizontal to slanted to upright as they must; if even
//! upright labels would touch each other, only every second, fifth, tenth… column is labelled, but
//! a highlighted column always is. Long titles wrap. The canvas is made to fit what is on it, so
//! that nothing can be cut off.
//!
//! To know how wide a text is, layout asks a `Typesetter`, which shapes text with
//! the DejaVu fonts compiled into the program: a figure looks the same on every machine, and no font
//! has to be installed. A character that DejaVu lacks (Chinese, most emoji) is taken from the
//! [`Fonts`] that the user adds, or else becomes a box with its hex code, because a heatmap of tokens
//! must never hide one.
//!
//! [`render_png`] puts a scene on pixels, at some number of them per unit, with antialiased shapes and
//! with glyphs that are rasterised where they stand (rotated text is rotated as an outline, not as a
//! bitmap), and compresses that into bytes with text chunks that say where the picture comes from.
//! [`render_svg`] writes the same scene as SVG, whose texts stay texts: a viewer sets them in its own
//! fonts, in the width that layout gave them. Nothing here touches the disk, and the same figure
//! always gives the same bytes.
//!
//! **The terminal.** [`write_figure`] prints the same description as text: coloured cells if the
//! reader's terminal has colours, a plain table of signed numbers if it has none. It needs no
//! scene, since a terminal has a layout of its own.
//!
//! What both forms share is small and stands apart: [`ColorMap`] for colours, [`mod@visible`] for
//! showing tokens (a leading space is part of a token and has to be seen), and the rounding of
//! numbers.

pub mod circuit;
mod color;
mod dot;
mod draw;
mod figure;
mod image;
mod layout;
mod number;
mod options;
pub mod page;
mod scatter;
mod scene;
#[cfg(test)]
mod snapshots;
mod svg;
mod terminal;
mod text;

pub use self::circuit::CircuitFigure;
pub use self::color::ColorMap;
pub use self::dot::dot;
pub use self::draw::Draw;
pub use self::figure::{CellValues, Figure, Heatmap, LineChart, Series, Sheet};
pub use self::image::{DEFAULT_SCALE, SCALES, encode_png, render_png};
pub use self::options::{FigureOptions, missing_characters, scene};
pub use self::scatter::Scatter;
pub use self::scene::Scene;
pub use self::svg::render_svg;
pub use self::terminal::{TerminalColor, TerminalStyle, write_figure};
pub use self::text::Fonts;

use std::fmt;

/// Why a study or a grid cannot be drawn, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undrawable(pub String);

impl fmt::Display for Undrawable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Undrawable {}
