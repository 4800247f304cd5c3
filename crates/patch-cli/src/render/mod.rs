//! Figures: one description of a heatmap, drawn in several forms.
//!
//! A [`Heatmap`] says *what* is to be seen: numbers in rows and columns, the words around them,
//! the colour map, and which columns matter. It knows nothing of pixels. Everything else in this
//! module is a way from there to something a person can look at, and there are two of them.
//!
//! **The picture.** [`layout`](mod@layout) turns the description into a [`Scene`](scene::Scene): a flat list of rectangles,
//! lines, polygons and texts with all coordinates decided. Layout happens once, in one place, so
//! that every picture format shows the same figure; a painter of a scene never moves anything.
//! Lengths in a scene are *units*, of which 96 make an inch (a CSS pixel). The origin is the upper
//! left corner and y grows downwards. Cells become smaller as rows and columns become more, and
//! the labels of the columns turn from horizontal to slanted to upright as they must; if even
//! upright labels would touch each other, only every second, fifth, tenth… column is labelled, but
//! a highlighted column always is. Long titles wrap. The canvas is made to fit what is on it, so
//! that nothing can be cut off.
//!
//! To know how wide a text is, layout asks a [`Typesetter`](text::Typesetter), which shapes text with the DejaVu
//! fonts compiled into the program: a figure looks the same on every machine, and no font has to
//! be installed. A character that DejaVu lacks (Chinese, most emoji) becomes a box with its hex
//! code, because a heatmap of tokens must never hide one.
//!
//! [`paint`](image::paint) puts a scene on an [`RgbImage`](::image::RgbImage) at some number of pixels per unit,
//! with antialiased shapes and with glyphs that are rasterised where they stand (rotated text is
//! rotated as an outline, not as a bitmap), and [`encode_png`] compresses that into bytes with
//! text chunks that say where the picture comes from. [`render_png`] does all of it in one call. Nothing
//! here touches the disk, and the same figure always gives the same bytes.
//!
//! **The terminal.** [`write_heatmap`] prints the same description as text: coloured cells if the
//! reader's terminal has colours, a plain table of signed numbers if it has none. It needs no
//! scene, since a terminal has a layout of its own.
//!
//! What both forms share is small and stands apart: [`ColorMap`] for colours, [`gpt2::visible`] for
//! showing tokens (a leading space is part of a token and has to be seen), and the rounding of
//! numbers.

mod color;
mod figure;
mod image;
mod layout;
mod number;
mod scene;
mod terminal;
mod text;

pub use self::figure::Heatmap;
pub use self::image::{DEFAULT_SCALE, render_png};
pub use self::terminal::{TerminalColor, TerminalStyle, write_heatmap};

#[allow(
    unused_imports,
    reason = "parts of the interface that not every program needs"
)]
pub use self::{color::ColorMap, image::encode_png};
