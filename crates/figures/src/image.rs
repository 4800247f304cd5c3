//! Painting a scene as pixels, and packing the pixels into a PNG.

use ::image::RgbImage;
use png::{BitDepth, ColorType, DeflateCompression, Encoder, EncodingError, Filter, PixelDimensions, Unit};

use super::color::Rgb;
use super::scene::{Anchor, Cells, Curve, Dots, Item, Line, Polygon, Rect, Scene, Text};
use super::text::{Fonts, Typesetter};

/// Pixels per unit that are crisp on today's screens and in print.
pub const DEFAULT_SCALE: f32 = 2.0;

/// The scales that make sense: below, nothing can be read; above, memory runs out.
pub const SCALES: std::ops::RangeInclusive<f32> = 0.25..=8.0;

const INCHES_PER_METRE: f32 = 39.370_08;
const UNITS_PER_INCH: f32 = 96.0;

/// Paints and encodes a scene: the bytes of a PNG file with `scale` pixels per unit and the given
/// pairs of keyword and text inside. The fonts are those that the scene was laid out with.
pub fn render_png(
    scene: &Scene,
    fonts: &Fonts,
    scale: f32,
    metadata: &[(String, String)],
) -> Result<Vec<u8>, EncodingError> {
    encode_png(&paint(scene, fonts, scale), scale, metadata)
}

/// Paints a scene on white, with `scale` pixels per unit (clamped to ¼ … 8).
pub fn paint(scene: &Scene, fonts: &Fonts, scale: f32) -> RgbImage {
    let scale = sensible(scale);
    let pixels = |length: f32| ((length * scale).ceil() as u32).max(1);
    let image = RgbImage::from_pixel(pixels(scene.width), pixels(scene.height), [255; 3].into());
    let mut canvas = Canvas { image, scale };
    let mut setter = Typesetter::new(fonts);
    for item in scene.flat() {
        match item {
            Item::Rect(rect) => canvas.rect(rect),
            Item::Cells(cells) => canvas.cells(cells),
            Item::Line(line) => canvas.line(line),
            Item::Polygon(Polygon { points, fill }) => canvas.polygon(points, *fill, 1.0),
            Item::Dots(dots) => dots.centers.iter().for_each(|&center| canvas.dot(center, dots)),
            Item::Text(text) => canvas.text(text, &mut setter),
            Item::Curve(curve) => canvas.curve(curve),
            Item::Group(_) => unreachable!("a flat scene has no groups"),
        }
    }
    canvas.image
}

/// Encodes a picture that was painted with `scale` pixels per unit as the bytes of a PNG file.
///
/// The resolution is noted in the file, so that the picture has the same size on paper whatever the
/// scale, and so is each pair of keyword and text in `metadata`. A keyword has 1 to 79 Latin-1
/// characters; the PNG specification knows `Title`, `Description`, `Software`, `Comment` and some
/// more. Equal input gives equal bytes.
pub fn encode_png(
    picture: &RgbImage,
    scale: f32,
    metadata: &[(String, String)],
) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    // For flat colours this is as quick as the quickest setting and gives much smaller files.
    encoder.set_filter(Filter::Up);
    encoder.set_deflate_compression(DeflateCompression::Level(1));
    let per_metre = (sensible(scale) * UNITS_PER_INCH * INCHES_PER_METRE).round() as u32;
    let resolution = PixelDimensions { xppu: per_metre, yppu: per_metre, unit: Unit::Meter };
    encoder.set_pixel_dims(Some(resolution));
    for (keyword, text) in metadata {
        if is_plain(text) {
            encoder.add_text_chunk(keyword.clone(), text.clone())?;
        } else {
            // The format ends a text at a zero byte.
            encoder.add_itxt_chunk(keyword.clone(), text.replace('\0', "␀"))?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(picture)?;
    writer.finish()?;
    Ok(bytes)
}

/// Whether a tEXt chunk may hold `text`: printable Latin-1 and newlines.
fn is_plain(text: &str) -> bool {
    text.chars().all(|character| matches!(character, '\n' | ' '..='~' | '\u{a0}'..='\u{ff}'))
}

fn sensible(scale: f32) -> f32 {
    if scale.is_nan() { DEFAULT_SCALE } else { scale.clamp(*SCALES.start(), *SCALES.end()) }
}

/// A picture being painted. Its methods take units; `scale` pixels make a unit.
struct Canvas {
    image: RgbImage,
    scale: f32,
}

impl Canvas {
    /// Fills a rectangle; pixels at its edges are covered in part.
    fn rect(&mut self, rect: &Rect) {
        let (left, right) = (rect.x * self.scale, (rect.x + rect.w) * self.scale);
        let (top, bottom) = (rect.y * self.scale, (rect.y + rect.h) * self.scale);
        let width = self.image.width();
        for y in pixels_between(top, bottom, self.image.height()) {
            let vertical = overlap(y, top, bottom);
            for x in pixels_between(left, right, width) {
                self.blend(x, y, rect.fill, vertical * overlap(x, left, right));
            }
        }
    }

    /// Gives each pixel the colour of the cell that its centre is in.
    fn cells(&mut self, cells: &Cells) {
        let (rows, columns) = (cells.rows(), cells.columns);
        let (left, right) = (cells.x * self.scale, (cells.x + cells.w) * self.scale);
        let (top, bottom) = (cells.y * self.scale, (cells.y + cells.h) * self.scale);
        let index = |at: u32, low: f32, high: f32, count: usize| {
            let place = (at as f32 + 0.5 - low) / (high - low);
            (0.0..1.0).contains(&place).then(|| ((place * count as f32) as usize).min(count - 1))
        };
        for y in pixels_between(top, bottom, self.image.height()) {
            let Some(row) = index(y, top, bottom, rows) else {
                continue;
            };
            for x in pixels_between(left, right, self.image.width()) {
                if let Some(column) = index(x, left, right, columns) {
                    self.blend(x, y, cells.colors[row * columns + column], 1.0);
                }
            }
        }
    }

    fn line(&mut self, line: &Line) {
        let ([x1, y1], [x2, y2]) = (line.from, line.to);
        let length = (x2 - x1).hypot(y2 - y1);
        if length == 0.0 {
            return;
        }
        // The vector from the middle of the line to its side.
        let side_x = (y1 - y2) / length * line.width / 2.0;
        let side_y = (x2 - x1) / length * line.width / 2.0;
        let corners = [
            [x1 + side_x, y1 + side_y],
            [x2 + side_x, y2 + side_y],
            [x2 - side_x, y2 - side_y],
            [x1 - side_x, y1 - side_y],
        ];
        self.polygon(&corners, line.color, 1.0);
    }

    /// Fills the outline of a curve: its left side upwards, and its right side back.
    fn curve(&mut self, curve: &Curve) {
        let samples = curve.samples(3.0 / self.scale);
        let half = curve.width / 2.0;
        let side = |&([x, y], [along_x, along_y]): &([f32; 2], [f32; 2]), half: f32| {
            [x - along_y * half, y + along_x * half]
        };
        let left = samples.iter().map(|sample| side(sample, half));
        let right = samples.iter().rev().map(|sample| side(sample, -half));
        let outline: Vec<_> = left.chain(right).collect();
        self.polygon(&outline, curve.color, curve.opacity);
    }

    /// Fills a polygon (even-odd): each row of pixels is the mean of some scanlines, on which the
    /// coverage is exact.
    fn polygon(&mut self, points: &[[f32; 2]], fill: Rgb, opacity: f32) {
        const SCANLINES: usize = 8;
        let points: Vec<_> = points.iter().map(|point| point.map(|at| at * self.scale)).collect();
        let (top, bottom) = extent(points.iter().map(|point| point[1]));
        let rows = pixels_between(top, bottom, self.image.height());
        let sides = sides_by_row(&points, &rows);
        let mut coverage = Vec::new();
        for (y, sides) in rows.zip(&sides) {
            let (left, right) = extent(sides.iter().flatten().map(|point| point[0]));
            let columns = pixels_between(left, right, self.image.width());
            coverage.clear();
            coverage.resize(columns.len(), 0.0);
            for scanline in 0..SCANLINES {
                let height = y as f32 + (scanline as f32 + 0.5) / SCANLINES as f32;
                for span in crossings(sides, height).chunks_exact(2) {
                    for x in pixels_between(span[0].max(left), span[1], columns.end) {
                        coverage[(x - columns.start) as usize] += overlap(x, span[0], span[1]);
                    }
                }
            }
            for (covered, x) in coverage.iter().zip(columns) {
                self.blend(x, y, fill, covered / SCANLINES as f32 * opacity);
            }
        }
    }

    /// Fills one of the discs. A pixel at its edge is covered as far as its centre lies inside.
    fn dot(&mut self, center: [f32; 2], dots: &Dots) {
        let radius = dots.radius * self.scale;
        let [x, y] = center.map(|at| at * self.scale);
        for row in pixels_between(y - radius, y + radius, self.image.height()) {
            for column in pixels_between(x - radius, x + radius, self.image.width()) {
                let distance = (column as f32 + 0.5 - x).hypot(row as f32 + 0.5 - y);
                self.blend(column, row, dots.fill, (radius + 0.5 - distance).clamp(0.0, 1.0));
            }
        }
    }

    fn text(&mut self, text: &Text, setter: &mut Typesetter) {
        let line = setter.shape(&text.string, text.weight);
        let start = match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -line.width / 2.0,
            Anchor::End => -line.width,
        };
        let (sin, cos) = text.rotation.to_radians().sin_cos();
        // From ems along the baseline to units on the canvas.
        let place = |x: f32, y: f32| {
            let (x, y) = ((start + x) * text.size, -y * text.size);
            [text.x + x * cos - y * sin, text.y + x * sin + y * cos]
        };
        for glyph in &line.glyphs {
            let size = text.size * glyph.scale * self.scale;
            let origin = place(glyph.x, glyph.y).map(|at| at * self.scale);
            let (pixel, mask) = setter.rasterise(glyph.id, glyph.face, size, text.rotation, origin);
            let left = pixel[0] + mask.placement.left;
            let top = pixel[1] - mask.placement.top;
            self.mask(left, top, mask.placement.width, &mask.coverage, text.color);
        }
        for &[left, bottom, right, top] in &line.boxes {
            let corners = [[left, bottom], [left, top], [right, top], [right, bottom]];
            let corners = corners.map(|[x, y]| place(x, y));
            for (index, &from) in corners.iter().enumerate() {
                let to = corners[(index + 1) % corners.len()];
                self.line(&Line { from, to, width: text.size * 0.05, color: text.color });
            }
        }
    }

    /// Puts colour where a mask of the given width covers the picture.
    fn mask(&mut self, left: i32, top: i32, width: u32, coverage: &[u8], color: Rgb) {
        for (row, line) in coverage.chunks_exact(width.max(1) as usize).enumerate() {
            for (column, &covered) in line.iter().enumerate() {
                let x = u32::try_from(left + column as i32);
                let y = u32::try_from(top + row as i32);
                if let (1.., Ok(x), Ok(y)) = (covered, x, y) {
                    self.blend(x, y, color, f32::from(covered) / 255.0);
                }
            }
        }
    }

    /// Covers the fraction `coverage` of a pixel; pixels outside the picture are ignored.
    fn blend(&mut self, x: u32, y: u32, color: Rgb, coverage: f32) {
        let Some(pixel) = self.image.get_pixel_mut_checked(x, y) else {
            return;
        };
        if coverage >= 1.0 {
            pixel.0 = color;
            return;
        }
        for (channel, ink) in pixel.0.iter_mut().zip(color) {
            let below = f32::from(*channel);
            *channel = (below + (f32::from(ink) - below) * coverage + 0.5) as u8;
        }
    }
}

/// The pixels that touch the stretch from `low` to `high`, out of `count`.
fn pixels_between(low: f32, high: f32, count: u32) -> std::ops::Range<u32> {
    // Casts of floats to integers saturate, which is what is wanted here.
    let first = (low.floor() as u32).min(count);
    first..(high.ceil() as u32).clamp(first, count)
}

/// How much of the pixel at `index` the stretch from `low` to `high` covers, 0 to 1.
fn overlap(index: u32, low: f32, high: f32) -> f32 {
    let start = index as f32;
    (high.min(start + 1.0) - low.max(start)).max(0.0)
}

fn extent(values: impl Iterator<Item = f32>) -> (f32, f32) {
    values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// A side of a polygon: its two ends.
type Side = [[f32; 2]; 2];

/// For each row of pixels the sides of a polygon that touch it.
fn sides_by_row(points: &[[f32; 2]], rows: &std::ops::Range<u32>) -> Vec<Vec<Side>> {
    let mut sides = vec![Vec::new(); rows.len()];
    for (index, &from) in points.iter().enumerate() {
        let to = points[(index + 1) % points.len()];
        let (low, high) = (from[1].min(to[1]), from[1].max(to[1]));
        // Casts saturate; a row too many does no harm.
        let touched = (low.floor() as u32).max(rows.start)..(high.floor() as u32 + 1).min(rows.end);
        for row in touched {
            sides[(row - rows.start) as usize].push([from, to]);
        }
    }
    sides
}

/// Where the sides of a polygon cross a horizontal line, from left to right.
fn crossings(sides: &[Side], height: f32) -> Vec<f32> {
    let mut crossings = Vec::new();
    for &[[x1, y1], [x2, y2]] in sides {
        if (y1 <= height) != (y2 <= height) {
            crossings.push(x1 + (height - y1) / (y2 - y1) * (x2 - x1));
        }
    }
    crossings.sort_by(f32::total_cmp);
    crossings
}

#[cfg(test)]
mod tests {
    use super::super::figure::Heatmap;
    use super::super::layout::layout;
    use super::super::scene::Weight;
    use super::*;

    fn paint(scene: &Scene, scale: f32) -> RgbImage {
        super::paint(scene, &Fonts::default(), scale)
    }

    fn render_png(
        figure: &Heatmap,
        scale: f32,
        metadata: &[(String, String)],
    ) -> Result<Vec<u8>, EncodingError> {
        let fonts = Fonts::default();
        let scene = layout(&figure.clone().into(), &fonts);
        super::render_png(&scene, &fonts, scale, metadata)
    }

    fn scene(items: Vec<Item>) -> Scene {
        Scene { width: 40.0, height: 20.0, items }
    }

    #[test]
    fn a_rectangle_covers_its_pixels_and_shares_the_ones_at_its_edge() {
        let rect = Rect { x: 1.0, y: 2.0, w: 2.5, h: 3.0, fill: [0, 0, 0] };
        let picture = paint(&scene(vec![Item::Rect(rect)]), 1.0);
        assert_eq!(picture.dimensions(), (40, 20));
        assert_eq!(picture.get_pixel(0, 2).0, [255; 3]);
        assert_eq!(picture.get_pixel(1, 2).0, [0; 3]);
        assert_eq!(picture.get_pixel(2, 4).0, [0; 3]);
        assert_eq!(picture.get_pixel(2, 5).0, [255; 3]);
        let [shared, ..] = picture.get_pixel(3, 3).0;
        assert!((100..156).contains(&shared), "{shared}");
    }

    #[test]
    fn polygons_and_lines_are_filled() {
        let points = vec![[2.0, 2.0], [18.0, 2.0], [10.0, 18.0]];
        let triangle = Polygon { points, fill: [200, 0, 0] };
        let line = Line { from: [20.0, 10.0], to: [40.0, 10.0], width: 2.0, color: [0, 0, 200] };
        let picture = paint(&scene(vec![Item::Polygon(triangle), Item::Line(line)]), 1.0);
        assert_eq!(picture.get_pixel(10, 8).0, [200, 0, 0]);
        assert_eq!(picture.get_pixel(3, 15).0, [255; 3]);
        assert_eq!(picture.get_pixel(30, 9).0, [0, 0, 200]);
        assert_eq!(picture.get_pixel(30, 12).0, [255; 3]);
    }

    #[test]
    fn a_dot_is_round() {
        let dots = Dots { centers: vec![[5.0, 10.0], [20.0, 10.0]], radius: 3.0, fill: [0, 120, 0] };
        let picture = paint(&scene(vec![Item::Dots(dots)]), 2.0);
        for center in [10, 40] {
            assert_eq!(picture.get_pixel(center + 4, 20).0, [0, 120, 0]);
            assert_eq!(picture.get_pixel(center + 5, 25).0, [255; 3]);
        }
    }

    #[test]
    fn what_lies_outside_the_canvas_is_left_out() {
        let rect = Rect { x: -50.0, y: -50.0, w: 500.0, h: 500.0, fill: [1, 2, 3] };
        let line = Line { from: [-10.0, -10.0], to: [90.0, 90.0], width: 3.0, color: [9, 9, 9] };
        let picture = paint(&scene(vec![Item::Rect(rect), Item::Line(line)]), 1.0);
        assert_eq!(picture.get_pixel(39, 0).0, [1, 2, 3]);
        assert_eq!(picture.get_pixel(5, 5).0, [9, 9, 9]);
    }

    #[test]
    fn text_leaves_ink_on_the_right_side_of_its_anchor() {
        let ink_left_and_right = |anchor| {
            let text = Text {
                x: 20.0,
                y: 15.0,
                size: 10.0,
                anchor,
                rotation: 0.0,
                color: [0, 0, 0],
                weight: Weight::Regular,
                string: "HH".into(),
            };
            let picture = paint(&scene(vec![Item::Text(text)]), 2.0);
            let dark = |low: u32, high: u32| {
                picture.enumerate_pixels().any(|(x, _, pixel)| (low..high).contains(&x) && pixel.0[0] < 99)
            };
            (dark(0, 40), dark(40, 80))
        };
        assert_eq!(ink_left_and_right(Anchor::Start), (false, true));
        assert_eq!(ink_left_and_right(Anchor::Middle), (true, true));
        assert_eq!(ink_left_and_right(Anchor::End), (true, false));
    }

    #[test]
    fn a_scale_that_makes_no_sense_is_clamped() {
        assert_eq!(paint(&scene(vec![]), 1e9).dimensions(), (320, 160));
        assert_eq!(paint(&scene(vec![]), f32::NAN).dimensions(), (80, 40));
        assert_eq!(paint(&Scene::default(), -1.0).dimensions(), (1, 1));
    }

    fn small_figure() -> Heatmap {
        Heatmap {
            title: "A title".into(),
            values: vec![-1.0, 0.0, 0.5, f32::NAN],
            rows: vec!["0".into(), "1".into()],
            columns: vec!["a".into(), " 日".into()],
            center: Some(0.0),
            ..Heatmap::default()
        }
    }

    #[test]
    fn the_same_figure_gives_the_same_bytes() {
        let once = render_png(&small_figure(), 2.0, &[]).unwrap();
        let twice = render_png(&small_figure(), 2.0, &[]).unwrap();
        assert_eq!(once, twice);
    }

    #[test]
    fn text_chunks_and_pixels_can_be_read_back() {
        let metadata = [
            ("Software".to_owned(), "patch-cli".to_owned()),
            ("Description".to_owned(), "naïve\nsecond line".to_owned()),
            ("Prompt".to_owned(), "日本 − ␣Jones".to_owned()),
        ];
        let picture = paint(&layout(&small_figure().into(), &Fonts::default()), 2.0);
        let bytes = encode_png(&picture, 2.0, &metadata).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, picture.into_raw());
        let info = reader.info();
        assert_eq!(info.pixel_dims.unwrap().xppu, 7559);
        let latin = &info.uncompressed_latin1_text;
        assert_eq!((&latin[0].keyword, &latin[0].text), (&metadata[0].0, &metadata[0].1));
        assert_eq!((&latin[1].keyword, &latin[1].text), (&metadata[1].0, &metadata[1].1));
        assert_eq!(info.utf8_text[0].keyword, "Prompt");
        assert_eq!(info.utf8_text[0].get_text().unwrap(), metadata[2].1);
    }

    #[test]
    fn an_unusable_keyword_is_an_error() {
        let metadata = [("日本".to_owned(), "x".to_owned())];
        assert!(render_png(&small_figure(), 1.0, &metadata).is_err());
    }
}
