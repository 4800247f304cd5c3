//! The options of every subcommand that draws a figure, and writing one.

use std::path::PathBuf;

use visible::visible_line;

use crate::export::Provenance;
use crate::failure::Failure;
use crate::input::read_file;
use crate::names::{cell_values, color_maps};
use crate::output::{MAKER, Output};
use crate::screen;
use figures::{
    CellValues, ColorMap, DEFAULT_SCALE, Figure, FigureOptions, Fonts, SCALES, missing_characters,
    render_png, render_svg, scene,
};

/// The heading of these options in the help.
const HEADING: &str = "Figure";

/// The longest font that is read: several times the largest collections for Chinese.
const MAX_FONT_BYTES: u64 = 256 << 20;

/// Options of every subcommand that draws a figure.
#[derive(clap::Args)]
pub struct FigureArgs {
    /// Value at the lower end of the colours [default: from the values]
    #[arg(long, help_heading = HEADING, value_name = "VALUE", allow_negative_numbers = true, value_parser = parse_finite)]
    pub vmin: Option<f32>,

    /// Value at the upper end of the colours [default: from the values]
    #[arg(long, help_heading = HEADING, value_name = "VALUE", allow_negative_numbers = true, value_parser = parse_finite)]
    pub vmax: Option<f32>,

    /// Value of the middle colour [default: 0 for differences]
    #[arg(long, help_heading = HEADING, value_name = "VALUE", allow_negative_numbers = true, value_parser = parse_finite)]
    pub center: Option<f32>,

    /// Colours
    #[arg(long, help_heading = HEADING, value_name = "MAP", value_parser = color_maps(), ignore_case = true)]
    pub cmap: Option<ColorMap>,

    /// Numbers in the cells
    #[arg(long, help_heading = HEADING, value_name = "WHEN", value_parser = cell_values())]
    pub cell_values: Option<CellValues>,

    /// Heading of the figure, '' for none
    #[arg(long, help_heading = HEADING, value_name = "TEXT", allow_hyphen_values = true)]
    pub title: Option<String>,

    /// Pixels per unit of 1/96 inch, from 0.25 to 8, in PNG files
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = DEFAULT_SCALE, value_parser = parse_scale)]
    pub scale: f32,

    /// Font file (.ttf, .otf, .ttc) for characters that the built-in font lacks; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub font: Vec<PathBuf>,
}

impl FigureArgs {
    /// Checks the options and reads the fonts: to be done before any work.
    ///
    /// # Errors
    /// [`Failure::Input`] if the ends of the scale are the wrong way round or a font cannot be used.
    pub fn options(&self) -> Result<FigureOptions, Failure> {
        if let (Some(vmin), Some(vmax)) = (self.vmin, self.vmax)
            && vmin >= vmax
        {
            return Err(Failure::Input(format!("--vmin {vmin} must be less than --vmax {vmax}")));
        }
        let read = |path: &PathBuf| read_file(path, MAX_FONT_BYTES);
        let files: Vec<Vec<u8>> = self.font.iter().map(read).collect::<Result<_, _>>()?;
        let fonts = Fonts::with(files).map_err(|index| {
            Failure::Input(format!(
                "{} is not a TrueType or OpenType font (.ttf, .otf, .ttc)",
                self.font[index].display()
            ))
        })?;
        Ok(FigureOptions {
            vmin: self.vmin,
            vmax: self.vmax,
            center: self.center,
            color_map: self.cmap,
            cell_values: self.cell_values,
            title: self.title.clone(),
            scale: self.scale,
            fonts,
        })
    }
}

/// The largest PNG that is painted: six bytes a pixel are held, and few viewers open larger ones.
const MOST_PIXELS: f32 = 3e8;

/// Draws a figure and writes it, as SVG if the file's name ends in `.svg` and else as PNG, with what
/// made it inside. Says on stderr which characters no font has.
///
/// # Errors
/// [`Failure::Input`] if a PNG would have more than 300 million pixels; [`Failure::Other`] if it cannot be
/// encoded or written.
pub fn write_picture(
    figure: &Figure,
    options: &FigureOptions,
    output: &Output,
    provenance: &Provenance,
) -> Result<(), Failure> {
    let figure = &*figure.bounded();
    let title = options.title.as_deref().unwrap_or(figure.title());
    let metadata = [
        ("Software", MAKER.to_owned()),
        ("Title", title.to_owned()),
        ("Description", figure.subtitle().join("\n")),
        ("Provenance", serde_json::to_string(provenance)?),
    ]
    .map(|(key, text)| (key.to_owned(), text));
    let scene = scene(figure, options);
    let [width, height] = [scene.width, scene.height].map(|length| (length * options.scale).ceil());
    if !output.has_extension("svg") && width * height > MOST_PIXELS {
        return Err(Failure::Input(format!(
            "{} would have {width} × {height} pixels, more than can be painted: give a smaller --scale \
             than {}, draw a part, or write it as .svg",
            output.path().display(),
            options.scale
        )));
    }
    let bytes = match output.has_extension("svg") {
        true => render_svg(&scene, &options.fonts, &metadata).map(String::into_bytes),
        false => render_png(&scene, &options.fonts, options.scale, &metadata),
    };
    let bytes = bytes.map_err(|e| Failure::Other(format!("cannot encode the picture: {e}")))?;
    output.write(&bytes)?;
    let missing = missing_characters(&scene, &options.fonts);
    screen::notes(note_of_missing(&missing, output).as_slice());
    Ok(())
}

/// What is said of the characters of a picture that all fonts lack, if there are any.
fn note_of_missing(missing: &[char], output: &Output) -> Option<String> {
    const NAMED: usize = 8;
    let name = |&character: &char| {
        let code = format!("U+{:04X}", u32::from(character));
        let shown = character.to_string();
        match visible_line(&shown) == shown {
            true => format!("{shown} ({code})"),
            false => code,
        }
    };
    let named: Vec<String> = missing.iter().take(NAMED).map(name).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let instead = match output.has_extension("svg") {
        true => "the viewer takes them from its own fonts",
        false => "boxes with their codes stand for them",
    };
    (!missing.is_empty()).then(|| {
        format!(
            "{}: the fonts lack {}{more}: {instead}; give a font that has them with --font FILE",
            output.path().display(),
            named.join(", ")
        )
    })
}

fn parse_finite(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err("not a finite number".to_owned()),
    }
}

fn parse_scale(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(scale) if SCALES.contains(&scale) => Ok(scale),
        _ => Err(format!("give a number from {} to {}", SCALES.start(), SCALES.end())),
    }
}
