//! Writing a scene as SVG.

use std::fmt::Write as _;

use ::image::RgbImage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use png::EncodingError;

use super::color::Rgb;
use super::image::encode_png;
use super::scene::{Anchor, Cells, Curve, Group, Item, Scene, Text, Weight};
use super::text::{Fonts, Typesetter};

/// The fonts that a viewer may set the texts in: ours, and others with the same widths. Characters
/// that they lack a viewer takes from wherever it finds them.
const FONTS: &str = "DejaVu Sans, Bitstream Vera Sans, Verdana, sans-serif";

/// A scene as an SVG document, with pairs of keyword and text in a comment and in `<metadata>`.
///
/// Texts stay texts, which can be searched and copied. Each is set in the width that layout measured
/// with our own fonts, so that nothing overlaps whatever fonts the viewer has.
///
/// # Errors
/// If a field of cells cannot be encoded as an embedded picture.
pub fn render_svg(
    scene: &Scene,
    fonts: &Fonts,
    metadata: &[(String, String)],
) -> Result<String, EncodingError> {
    let mut setter = Typesetter::new(fonts);
    let mut svg = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let of = |key: &str| {
        let found = metadata.iter().find(|(name, _)| name == key);
        found.map(|(_, text)| escaped(text)).unwrap_or_default()
    };
    // A comment must not hold two hyphens.
    let software = of("Software").replace("--", "-");
    let (width, height) = (number(scene.width), number(scene.height));
    let _ = writeln!(svg, "<!-- Software: {software} -->");
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{FONTS}\">"
    );
    let _ = writeln!(svg, "<title>{}</title>", of("Title"));
    let _ = writeln!(svg, "<desc>{}</desc>", of("Description"));
    for (keyword, text) in metadata {
        let (keyword, text) = (escaped(keyword), escaped(text));
        let _ = writeln!(svg, "<metadata id=\"{keyword}\">{text}</metadata>");
    }
    let _ = writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
    for item in &scene.items {
        push_item(&mut svg, item, &mut setter)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn push_item(svg: &mut String, item: &Item, setter: &mut Typesetter) -> Result<(), EncodingError> {
    // Writing to a string cannot fail.
    let _ = match item {
        Item::Rect(rect) => writeln!(
            svg,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
            number(rect.x),
            number(rect.y),
            number(rect.w.max(0.0)),
            number(rect.h.max(0.0)),
            color(rect.fill)
        ),
        Item::Cells(cells) => writeln!(
            svg,
            "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>",
            number(cells.x),
            number(cells.y),
            number(cells.w),
            number(cells.h),
            BASE64.encode(picture(cells)?)
        ),
        Item::Line(line) => writeln!(
            svg,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"{}\"/>",
            number(line.from[0]),
            number(line.from[1]),
            number(line.to[0]),
            number(line.to[1]),
            color(line.color),
            number(line.width)
        ),
        Item::Polygon(polygon) => {
            let points = polygon.points.iter();
            let points: Vec<String> = points.map(|[x, y]| format!("{},{}", number(*x), number(*y))).collect();
            writeln!(svg, "<polygon points=\"{}\" fill=\"{}\"/>", points.join(" "), color(polygon.fill))
        }
        Item::Dots(dots) => {
            // A line of no length with round ends is a disc, in a few bytes.
            let centers = dots.centers.iter();
            let path: String = centers.map(|[x, y]| format!("M{} {}h0", number(*x), number(*y))).collect();
            let (fill, width) = (color(dots.fill), number(2.0 * dots.radius));
            writeln!(
                svg,
                "<path d=\"{path}\" stroke=\"{fill}\" stroke-width=\"{width}\" stroke-linecap=\"round\"/>"
            )
        }
        Item::Text(text) => {
            push_text(svg, text, setter);
            Ok(())
        }
        Item::Curve(curve) => {
            push_curve(svg, curve);
            Ok(())
        }
        Item::Group(group) => return push_group(svg, group, setter),
    };
    Ok(())
}

fn push_curve(svg: &mut String, curve: &Curve) {
    svg.push_str("<path d=\"");
    for (index, [x, y]) in curve.points.iter().enumerate() {
        svg.push_str(match index {
            0 => "M",
            _ if index % 3 == 1 => "C",
            _ => " ",
        });
        let _ = write!(svg, "{},{}", number(*x), number(*y));
    }
    let _ = write!(
        svg,
        "\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"",
        color(curve.color),
        number(curve.width)
    );
    if curve.opacity < 1.0 {
        let _ = write!(svg, " stroke-opacity=\"{}\"", number(curve.opacity));
    }
    svg.push_str("/>\n");
}

fn push_group(svg: &mut String, group: &Group, setter: &mut Typesetter) -> Result<(), EncodingError> {
    svg.push_str("<g");
    for (name, value) in &group.data {
        let _ = write!(svg, " data-{name}=\"{}\"", escaped(value));
    }
    svg.push('>');
    if !group.title.is_empty() {
        let _ = write!(svg, "<title>{}</title>", escaped(&group.title));
    }
    svg.push('\n');
    for item in &group.items {
        push_item(svg, item, setter)?;
    }
    svg.push_str("</g>\n");
    Ok(())
}

fn push_text(svg: &mut String, text: &Text, setter: &mut Typesetter) {
    let width = setter.width(&text.string, text.size, text.weight);
    if width == 0.0 {
        return;
    }
    let (x, y) = (number(text.x), number(text.y));
    let anchor = match text.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    let mut more = String::new();
    if text.weight == Weight::Bold {
        more += " font-weight=\"bold\"";
    }
    if text.rotation != 0.0 {
        let _ = write!(more, " transform=\"rotate({} {x} {y})\"", number(text.rotation));
    }
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\" \
         textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"{more}>{}</text>",
        number(text.size),
        color(text.color),
        number(width),
        escaped(&text.string)
    );
}

/// The cells as a PNG file with a pixel for each.
fn picture(cells: &Cells) -> Result<Vec<u8>, EncodingError> {
    let rows = cells.rows() as u32;
    let picture = RgbImage::from_fn(cells.columns as u32, rows, |x, y| {
        ::image::Rgb(cells.colors[y as usize * cells.columns + x as usize])
    });
    encode_png(&picture, 1.0, &[])
}

/// A length with as many digits as can be seen.
fn number(value: f32) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

fn color([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text with its markup escaped; characters that XML does not allow become U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' => escaped.push(character),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::figure::{Figure, Heatmap, Sheet};
    use super::super::layout::layout;
    use super::*;

    fn svg(figure: &Figure, metadata: &[(String, String)]) -> String {
        let fonts = Fonts::default();
        render_svg(&layout(figure, &fonts), &fonts, metadata).unwrap()
    }

    fn heatmap(title: &str, token: &str) -> Heatmap {
        Heatmap {
            title: title.to_owned(),
            values: vec![-1.0, f32::NAN],
            rows: vec!["0".to_owned()],
            columns: vec![token.to_owned(), " b".to_owned()],
            center: Some(0.0),
            highlight_columns: vec![1],
            ..Heatmap::default()
        }
    }

    #[test]
    fn markup_in_a_prompt_stays_text() {
        let evil = "</text><script>alert(\"1\")</script>&amp;";
        let metadata =
            [("Software".to_owned(), "patch-cli --> <b>".to_owned()), ("Title".to_owned(), evil.to_owned())];
        let svg = svg(&heatmap(evil, evil).into(), &metadata);
        assert!(!svg.contains("<script") && !svg.contains("<b>"));
        assert!(svg.contains("<title>&lt;/text&gt;&lt;script&gt;alert(&quot;1&quot;)"));
        assert_eq!(svg.matches("-->").count(), 1);
    }

    #[test]
    fn the_document_has_every_item_of_the_scene_and_closes_every_element() {
        let figure = heatmap("A title", " 日本").into();
        let scene = layout(&figure, &Fonts::default());
        let svg = svg(&figure, &[]);
        let count = |of: fn(&Item) -> bool| scene.items.iter().filter(|item| of(item)).count();
        // One more rectangle is the background.
        assert_eq!(svg.matches("<rect").count(), count(|item| matches!(item, Item::Rect(_))) + 1);
        assert_eq!(svg.matches("<line").count(), count(|item| matches!(item, Item::Line(_))));
        assert_eq!(svg.matches("<text").count(), count(|item| matches!(item, Item::Text(_))));
        assert_eq!(svg.matches("<polygon").count(), 1);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.contains("日本") && svg.contains("font-weight=\"bold\""));
        assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn tiny_panels_are_embedded_pictures() {
        let sheet = Sheet {
            panels: vec![heatmap("0.0", "a"), heatmap("0.1", "a"), Heatmap::default()],
            compact: true,
            ..Sheet::default()
        };
        let svg = svg(&sheet.into(), &[]);
        assert_eq!(svg.matches("data:image/png;base64,iVBORw0KGgo").count(), 2);
    }

    #[test]
    fn lengths_have_no_more_digits_than_can_be_seen() {
        assert_eq!([1.0, 0.5, -0.001, 12.345, 100.0].map(number), ["1", "0.5", "0", "12.35", "100"]);
    }
}
