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
    /// A smooth line.
    Curve(Curve),
    /// Things with a common name.
    Group(Group),
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
            Self::Curve(curve) => {
                for point in &mut curve.points {
                    *point = place(*point);
                }
            }
            Self::Group(group) => {
                for item in &mut group.items {
                    *item = item.moved(x, y);
                }
            }
        }
        item
    }
}

impl Scene {
    /// Everything to paint, without the groups around it.
    pub fn flat(&self) -> Vec<&Item> {
        fn push<'a>(items: &'a [Item], flat: &mut Vec<&'a Item>) {
            for item in items {
                match item {
                    Item::Group(group) => push(&group.items, flat),
                    item => flat.push(item),
                }
            }
        }
        let mut flat = Vec::with_capacity(self.items.len());
        push(&self.items, &mut flat);
        flat
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

/// A chain of cubic Bézier curves, as a line of one thickness with ends as those of a [`Line`].
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// The first point, and for each curve its two control points and its end, from which the next goes on.
    pub points: Vec<[f32; 2]>,
    /// The thickness.
    pub width: f32,
    /// The colour.
    pub color: Rgb,
    /// How much of what is below is covered, from 0 to 1.
    pub opacity: f32,
}

impl Curve {
    /// Points along the curve, about `step` apart, each with the direction of the curve there (of length 1).
    pub fn samples(&self, step: f32) -> Vec<([f32; 2], [f32; 2])> {
        let mut samples = Vec::new();
        for start in (0..self.points.len().saturating_sub(3)).step_by(3) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|of| self.points[start + of]);
            let length = distance(a, b) + distance(b, c) + distance(c, d);
            let count = (length / step.max(0.1)).ceil().clamp(1.0, 500.0) as usize;
            let first = usize::from(start > 0);
            samples.extend((first..=count).map(|index| bezier([a, b, c, d], index as f32 / count as f32)));
        }
        samples
    }
}

fn distance([ax, ay]: [f32; 2], [bx, by]: [f32; 2]) -> f32 {
    (bx - ax).hypot(by - ay)
}

/// The point of a cubic Bézier curve at `t` from 0 to 1, and the direction there.
fn bezier([a, b, c, d]: [[f32; 2]; 4], t: f32) -> ([f32; 2], [f32; 2]) {
    let s = 1.0 - t;
    let at = |axis: usize| {
        s * s * s * a[axis] + 3.0 * s * s * t * b[axis] + 3.0 * s * t * t * c[axis] + t * t * t * d[axis]
    };
    let slope = |axis: usize| {
        s * s * (b[axis] - a[axis]) + 2.0 * s * t * (c[axis] - b[axis]) + t * t * (d[axis] - c[axis])
    };
    let (mut along, whole) = ([slope(0), slope(1)], [d[0] - a[0], d[1] - a[1]]);
    // Where two control points coincide, the curve has the direction of its ends.
    if along[0].hypot(along[1]) < 1e-6 {
        along = whole;
    }
    let length = along[0].hypot(along[1]).max(1e-6);
    ([at(0), at(1)], along.map(|axis| axis / length))
}

/// Things with a common name, which a viewer of a vector picture shows where one points at them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The name; empty for none.
    pub title: String,
    /// What a page may want to know of it: names (`edge` becomes `data-edge`) with their values.
    pub data: Vec<(&'static str, String)>,
    /// What to paint, in this order.
    pub items: Vec<Item>,
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
