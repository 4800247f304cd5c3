//! A display list: what a laid out figure consists of.
//!
//! All lengths are in units of 1/96 inch, the origin is the upper left corner, y grows downwards.
//! Later items cover earlier ones.

use super::color::Rgb;

/// A figure with everything in its place, on white.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// Width in units.
    pub width: f32,
    /// Height in units.
    pub height: f32,
    /// What to paint, in this order.
    pub items: Vec<Item>,
}

/// One thing to paint.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A filled rectangle.
    Rect(Rect),
    /// A field of small coloured cells.
    Cells(Cells),
    /// A straight line.
    Line(Line),
    /// A filled polygon.
    Polygon(Polygon),
    /// Many small discs.
    Dots(Dots),
    /// A line of text.
    Text(Text),
}

impl Item {
    /// The same thing elsewhere: `x` further right and `y` further down.
    pub fn moved(&self, x: f32, y: f32) -> Self {
        let place = |[px, py]: [f32; 2]| [px + x, py + y];
        let mut item = self.clone();
        match &mut item {
            Self::Rect(rect) => [rect.x, rect.y] = place([rect.x, rect.y]),
            Self::Cells(cells) => [cells.x, cells.y] = place([cells.x, cells.y]),
            Self::Line(line) => [line.from, line.to] = [line.from, line.to].map(place),
            Self::Polygon(polygon) => {
                for point in &mut polygon.points {
                    *point = place(*point);
                }
            }
            Self::Dots(dots) => {
                for center in &mut dots.centers {
                    *center = place(*center);
                }
            }
            Self::Text(text) => [text.x, text.y] = place([text.x, text.y]),
        }
        item
    }
}

/// A filled rectangle without a border.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// The left edge.
    pub x: f32,
    /// The upper edge.
    pub y: f32,
    /// The width.
    pub w: f32,
    /// The height.
    pub h: f32,
    /// The colour.
    pub fill: Rgb,
}

/// A rectangle of equally large cells without gaps, for grids too fine to draw cell by cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cells {
    /// The left edge.
    pub x: f32,
    /// The upper edge.
    pub y: f32,
    /// The width of all.
    pub w: f32,
    /// The height of all.
    pub h: f32,
    /// How many cells there are in a row.
    pub columns: usize,
    /// The colours, row after row.
    pub colors: Vec<Rgb>,
}

impl Cells {
    /// How many rows of cells there are.
    pub fn rows(&self) -> usize {
        self.colors.len() / self.columns.max(1)
    }
}

/// A straight line with square ends that do not reach beyond its points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// x and y of one end.
    pub from: [f32; 2],
    /// x and y of the other end.
    pub to: [f32; 2],
    /// The thickness.
    pub width: f32,
    /// The colour.
    pub color: Rgb,
}

/// A filled polygon without a border.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    /// x and y of each corner.
    pub points: Vec<[f32; 2]>,
    /// The colour.
    pub fill: Rgb,
}

/// Discs of one size and colour.
#[derive(Clone, Debug, PartialEq)]
pub struct Dots {
    /// x and y of the middle of each disc.
    pub centers: Vec<[f32; 2]>,
    /// The radius.
    pub radius: f32,
    /// The colour.
    pub fill: Rgb,
}

/// A line of text in DejaVu Sans.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// x of the anchor point.
    pub x: f32,
    /// y of the anchor point, which lies on the baseline.
    pub y: f32,
    /// The font size: the length of one em.
    pub size: f32,
    /// Which point of the text is the anchor point.
    pub anchor: Anchor,
    /// The angle in degrees by which the text is turned clockwise about its anchor point.
    pub rotation: f32,
    /// The colour.
    pub color: Rgb,
    /// Regular or bold.
    pub weight: Weight,
    /// The characters.
    pub string: String,
}

/// The point of a text that its coordinates speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Where the text begins.
    Start,
    /// The middle of its width.
    Middle,
    /// Where the text ends.
    End,
}

/// The weight of a font.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weight {
    /// The ordinary weight.
    Regular,
    /// Bold.
    Bold,
}
