//! Setting text: which glyphs a string needs, how wide it is, and what the glyphs look like.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use swash::scale::{Render, ScaleContext, Source};
use swash::shape::{Direction, ShapeContext};
use swash::text::{Codepoint, Script};
use swash::zeno::{Angle, Placement, Transform, Vector};
use swash::{CacheKey, FontRef, GlyphId};

use super::scene::Weight;

/// The height of capital letters and digits over the baseline, in ems.
pub const CAP_HEIGHT: f32 = 0.729;
/// How far letters (with their accents) reach over the baseline, in ems.
pub const ASCENT: f32 = 0.93;
/// How far letters reach under the baseline, in ems.
pub const DESCENT: f32 = 0.24;

/// Glyphs are placed to this fraction of a pixel, which keeps letter spacing even and still lets
/// rasterised glyphs be used again.
const SUBPIXEL_STEPS: f32 = 4.0;

/// What stands for the text that was left out.
const ELLIPSIS: char = '…';

static REGULAR: LazyLock<FontRef<'static>> = LazyLock::new(|| parse(dejavu::sans::regular()));
static BOLD: LazyLock<FontRef<'static>> = LazyLock::new(|| parse(dejavu::sans::bold()));

fn parse(data: &'static [u8]) -> FontRef<'static> {
    FontRef::from_index(data, 0).expect("the fonts compiled into the program are well formed")
}

/// The fonts that text is set in: DejaVu Sans, which is compiled into the program, and after it the
/// fonts that the user adds for the characters that DejaVu lacks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Fonts {
    added: Arc<Vec<AddedFont>>,
}

/// A font out of a file. The key is made once, because caches go by it.
struct AddedFont {
    data: Vec<u8>,
    offset: u32,
    key: CacheKey,
}

impl fmt::Debug for AddedFont {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddedFont({} bytes)", self.data.len())
    }
}

impl Fonts {
    /// DejaVu Sans and these files of fonts (TrueType or OpenType, or the first font of a
    /// collection), which are asked in this order. Fonts are taken on trust beyond the few numbers
    /// that are checked: one made to do harm can make shaping slow.
    ///
    /// # Errors
    /// The index of the first file that is not a font.
    pub fn with(files: Vec<Vec<u8>>) -> Result<Self, usize> {
        let mut added = Vec::new();
        for (index, data) in files.into_iter().enumerate() {
            let font = FontRef::from_index(&data, 0).filter(|font| is_sound(*font)).ok_or(index)?;
            let (offset, key) = (font.offset, font.key);
            added.push(AddedFont { data, offset, key });
        }
        Ok(Self { added: Arc::new(added) })
    }

    fn font(&self, face: Face) -> FontRef<'_> {
        match face {
            Face::DejaVu(Weight::Regular) => *REGULAR,
            Face::DejaVu(Weight::Bold) => *BOLD,
            Face::Added(index) => {
                let AddedFont { data, offset, key } = &self.added[index];
                FontRef { data, offset: *offset, key: *key }
            }
        }
    }

    fn glyph(&self, face: Face, character: char) -> GlyphId {
        self.font(face).charmap().map(character)
    }
}

/// Whether a font has glyphs, widths for them and a size, as swash takes for granted.
fn is_sound(font: FontRef<'_>) -> bool {
    // The units to the em that OpenType allows.
    const UNITS_PER_EM: std::ops::RangeInclusive<u16> = 16..=16_384;
    // Table hhea has the number of widths at 34, and vhea that of heights; maxp that of glyphs at 4;
    // head that of units to the em at 18.
    let count = |name: &[u8; 4], at: usize| number(table(font, name)?, at);
    let heights = table(font, b"vhea").map(|heights| number(heights, 34));
    count(b"hhea", 34) > Some(0)
        && count(b"maxp", 4) > Some(0)
        && count(b"head", 18).is_some_and(|units| UNITS_PER_EM.contains(&units))
        && heights.is_none_or(|heights| heights > Some(0))
}

/// A table of a font by its name, out of the directory at the font's beginning: the number of tables at
/// 4, and from 12 on 16 bytes for each, its name, a checksum, its place in the file and its length.
fn table<'a>(font: FontRef<'a>, name: &[u8; 4]) -> Option<&'a [u8]> {
    let directory = font.data.get(font.offset as usize..)?;
    let records = directory.get(12..)?.chunks_exact(16);
    let mut records = records.take(number(directory, 4)?.into());
    let record = records.find(|record| record.starts_with(name))?;
    let place = |at: usize| {
        let bytes = record[at..at + 4].try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    font.data.get(place(8)?..)?.get(..place(12)?)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// A font of the [`Fonts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Face {
    /// DejaVu Sans.
    DejaVu(Weight),
    /// One of the fonts that were added, by its index.
    Added(usize),
}

/// Shapes, measures and rasterises text with the fonts compiled into the program.
///
/// It remembers what it has shaped and rasterised, so use one for a whole figure.
#[derive(Default)]
pub struct Typesetter {
    fonts: Fonts,
    shaping: ShapeContext,
    scaling: ScaleContext,
    lines: HashMap<(Weight, String), Rc<ShapedLine>>,
    glyphs: HashMap<GlyphKey, Rc<GlyphMask>>,
    faces: HashMap<(char, Weight), Option<Face>>,
}

/// A line of text of size 1, starting at the origin. Lengths are in ems, y grows upwards.
#[derive(Debug, Default)]
pub struct ShapedLine {
    /// The glyphs in the order in which they are drawn.
    pub glyphs: Vec<ShapedGlyph>,
    /// The frames of the boxes that stand for characters which the fonts lack: left, bottom,
    /// right, top.
    pub boxes: Vec<[f32; 4]>,
    /// How far the line advances.
    pub width: f32,
}

/// A glyph and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct ShapedGlyph {
    /// The number of the glyph in the font.
    pub id: GlyphId,
    /// The font.
    pub face: Face,
    /// x of its origin.
    pub x: f32,
    /// y of its origin.
    pub y: f32,
    /// Its size relative to the text it belongs to.
    pub scale: f32,
}

/// A rasterised glyph.
#[derive(Debug)]
pub struct GlyphMask {
    /// Where the upper left corner of the mask is, in pixels from the pixel of the origin: `left` to
    /// the right, `top` upwards; and the size of the mask.
    pub placement: Placement,
    /// How much of each pixel is covered, 0 to 255, row after row.
    pub coverage: Vec<u8>,
}

/// What a rasterised glyph depends on. Floats are kept as bits, to be compared exactly.
#[derive(PartialEq, Eq, Hash)]
struct GlyphKey {
    face: Face,
    id: GlyphId,
    size: u32,
    rotation: u32,
    subpixel: [u8; 2],
}

impl Typesetter {
    /// A typesetter that has not set anything yet.
    pub fn new(fonts: &Fonts) -> Self {
        Self { fonts: fonts.clone(), ..Self::default() }
    }

    /// How far `text` advances, in the unit of `size`, the font size.
    pub fn width(&mut self, text: &str, size: f32, weight: Weight) -> f32 {
        self.shape(text, weight).width * size
    }

    /// Breaks `text` into lines no wider than `limit`: between words, and inside a word only if
    /// the word alone is too wide.
    pub fn wrap(&mut self, text: &str, size: f32, weight: Weight, limit: f32) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in text.split_inclusive(' ') {
            let mut rest = word;
            let longer = format!("{line}{}", word.trim_end());
            if !line.is_empty() && self.width(&longer, size, weight) > limit {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
            }
            if line.is_empty() {
                while self.width(rest.trim_end(), size, weight) > limit {
                    let head = self.longest_prefix(rest, size, weight, limit);
                    lines.push(rest[..head].to_owned());
                    rest = &rest[head..];
                }
            }
            line.push_str(rest);
        }
        if !line.trim_end().is_empty() {
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// `text` as it is if it is no wider than `limit`, otherwise its beginning and `…`.
    pub fn shorten(&mut self, text: &str, size: f32, weight: Weight, limit: f32) -> String {
        if self.width(text, size, weight) <= limit {
            return text.to_owned();
        }
        let room = limit - self.width(&ELLIPSIS.to_string(), size, weight);
        let head = self.longest_prefix(text, size, weight, room);
        format!("{}{ELLIPSIS}", &text[..head])
    }

    /// The length in bytes of the longest beginning of `text` (one character at least) that is no
    /// wider than `limit`.
    fn longest_prefix(&mut self, text: &str, size: f32, weight: Weight, limit: f32) -> usize {
        let mut longest = 0;
        for (start, character) in text.char_indices() {
            let end = start + character.len_utf8();
            if longest > 0 && self.width(&text[..end], size, weight) > limit {
                break;
            }
            longest = end;
        }
        longest
    }

    /// The characters of `text` that all fonts lack, in whose place boxes stand.
    pub fn missing(&mut self, text: &str, weight: Weight) -> Vec<char> {
        let characters = text.chars();
        characters.filter(|&character| self.face_with(character, weight).is_none()).collect()
    }

    /// The glyphs of `text` and where they stand.
    pub fn shape(&mut self, text: &str, weight: Weight) -> Rc<ShapedLine> {
        let key = (weight, text.to_owned());
        if let Some(line) = self.lines.get(&key) {
            return Rc::clone(line);
        }
        let line = Rc::new(self.shape_anew(text, weight));
        self.lines.insert(key, Rc::clone(&line));
        line
    }

    fn shape_anew(&mut self, text: &str, weight: Weight) -> ShapedLine {
        let mut line = ShapedLine::default();
        let mut run = String::new();
        let mut of_run = (None, Script::Latin);
        for character in text.chars() {
            let face = self.face_with(character, weight);
            let script = match character.script() {
                Script::Common | Script::Inherited | Script::Unknown => of_run.1,
                script => script,
            };
            if (face, script) != of_run {
                self.append(&mut line, &run, of_run, weight);
                run.clear();
                of_run = (face, script);
            }
            run.push(character);
        }
        self.append(&mut line, &run, of_run, weight);
        line
    }

    /// The face to set a character in: the wanted one, or else the regular one, which has more
    /// characters, or else the first added font that can draw it. None if all lack it.
    fn face_with(&mut self, character: char, weight: Weight) -> Option<Face> {
        if let Some(&face) = self.faces.get(&(character, weight)) {
            return face;
        }
        let built_in = [weight, Weight::Regular].map(Face::DejaVu);
        let added = (0..self.fonts.added.len()).map(Face::Added);
        let mut faces = built_in.into_iter().chain(added);
        let face = faces.find(|&face| {
            let id = self.fonts.glyph(face, character);
            // A font of coloured bitmaps (most emoji fonts) has glyphs that cannot be painted.
            let drawable = |scaling: &mut ScaleContext| {
                let mut scaler = scaling.builder(self.fonts.font(face)).build();
                let outline = scaler.scale_outline(id);
                character.is_whitespace() || outline.is_some_and(|outline| !outline.is_empty())
            };
            id != 0 && (matches!(face, Face::DejaVu(_)) || drawable(&mut self.scaling))
        });
        self.faces.insert((character, weight), face);
        face
    }

    /// Appends characters of one script that have one face, or none.
    fn append(
        &mut self,
        line: &mut ShapedLine,
        run: &str,
        (face, script): (Option<Face>, Script),
        weight: Weight,
    ) {
        match face {
            Some(face) if is_leftwards(script) => {
                // A space between scripts stands where the line goes on, to the right.
                let (words, space) = run.split_at(run.trim_end().len());
                self.append_run(line, words, face, script);
                self.append_run(line, space, face, Script::Latin);
            }
            Some(face) => self.append_run(line, run, face, script),
            None => run.chars().for_each(|character| append_substitute(line, character, weight)),
        }
    }

    /// Appends characters that the font has.
    fn append_run(&mut self, line: &mut ShapedLine, run: &str, face: Face, script: Script) {
        let leftwards = is_leftwards(script);
        let font = self.fonts.font(face);
        let shaper = self.shaping.builder(font).script(script).size(EM);
        let direction = if leftwards { Direction::RightToLeft } else { Direction::LeftToRight };
        let mut shaper = shaper.direction(direction).build();
        shaper.add_str(run);
        let mut clusters = Vec::new();
        shaper.shape_with(|cluster| clusters.push(cluster.glyphs.to_vec()));
        if leftwards {
            clusters.reverse();
        }
        for glyph in clusters.into_iter().flatten() {
            let (x, y) = (line.width + glyph.x / EM, glyph.y / EM);
            line.glyphs.push(ShapedGlyph { id: glyph.id, face, x, y, scale: 1.0 });
            line.width += glyph.advance / EM;
        }
    }

    /// Rasterises one glyph whose origin is at `origin` (in pixels, y downwards), `size` pixels to
    /// the em and turned clockwise by `rotation` degrees. Returns the pixel that the placement of
    /// the mask counts from, and the mask.
    pub fn rasterise(
        &mut self,
        id: GlyphId,
        face: Face,
        size: f32,
        rotation: f32,
        origin: [f32; 2],
    ) -> ([i32; 2], Rc<GlyphMask>) {
        let steps = origin.map(|place| (place * SUBPIXEL_STEPS).round());
        let pixel = steps.map(|step| (step / SUBPIXEL_STEPS).floor());
        let subpixel = [0, 1].map(|axis| (steps[axis] - pixel[axis] * SUBPIXEL_STEPS) as u8);
        let key = GlyphKey { face, id, size: size.to_bits(), rotation: rotation.to_bits(), subpixel };
        let mask = match self.glyphs.get(&key) {
            Some(mask) => Rc::clone(mask),
            None => {
                let mask = Rc::new(self.rasterise_anew(&key));
                self.glyphs.insert(key, Rc::clone(&mask));
                mask
            }
        };
        (pixel.map(|place| place as i32), mask)
    }

    fn rasterise_anew(&mut self, key: &GlyphKey) -> GlyphMask {
        let [right, down] = key.subpixel.map(|step| f32::from(step) / SUBPIXEL_STEPS);
        let rotation = f32::from_bits(key.rotation);
        let size = f32::from_bits(key.size);
        let mut scaler = self.scaling.builder(self.fonts.font(key.face)).size(size).build();
        // Outlines have y upwards, where a clockwise turn is a negative one.
        let turn = Transform::rotation(Angle::from_degrees(-rotation));
        let image = Render::new(&[Source::Outline])
            .transform((rotation != 0.0).then_some(turn))
            .offset(Vector::new(right, -down))
            .render(&mut scaler, key.id);
        // A glyph without an outline (a space) has nothing to draw.
        let image = image.unwrap_or_default();
        GlyphMask { placement: image.placement, coverage: image.data }
    }
}

/// The size at which text is shaped; large, because the shaper may round.
const EM: f32 = 2048.0;

fn is_leftwards(script: Script) -> bool {
    matches!(script, Script::Arabic | Script::Hebrew | Script::Nko | Script::Syriac | Script::Thaana)
}

/// Appends a box with the hex code of a character that the font lacks, in two rows of digits.
fn append_substitute(line: &mut ShapedLine, character: char, weight: Weight) {
    const DIGIT_SCALE: f32 = 0.47;
    const SIDE_GAP: f32 = 0.06;
    const BOTTOM: f32 = -0.2;
    const TOP: f32 = 0.86;
    const ROWS: [f32; 2] = [0.40, -0.08];

    let face = Face::DejaVu(weight);
    let font = Fonts::default();
    let font = font.font(face);
    let code = u32::from(character);
    let code = if code > 0xffff { format!("{code:06X}") } else { format!("{code:04X}") };
    let per_row = code.len() / 2;
    let advance = DIGIT_SCALE * digit_advance(font);
    let left = line.width + SIDE_GAP;
    let right = left + per_row as f32 * advance + 2.0 * SIDE_GAP;
    for (index, digit) in code.chars().enumerate() {
        line.glyphs.push(ShapedGlyph {
            id: font.charmap().map(digit),
            face,
            x: left + SIDE_GAP + (index % per_row) as f32 * advance,
            y: ROWS[index / per_row],
            scale: DIGIT_SCALE,
        });
    }
    line.boxes.push([left, BOTTOM, right, TOP]);
    line.width = right + SIDE_GAP;
}

/// How far a digit advances, in ems. The letters A to F are a little wider; the gaps make up for it.
fn digit_advance(font: FontRef<'_>) -> f32 {
    let metrics = font.glyph_metrics(&[]).scale(1.0);
    metrics.advance_width(font.charmap().map('D')).min(0.74)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setter() -> Typesetter {
        Typesetter::new(&Fonts::default())
    }

    fn glyph(weight: Weight, character: char) -> GlyphId {
        Fonts::default().glyph(Face::DejaVu(weight), character)
    }

    #[test]
    fn an_added_font_draws_what_dejavu_sans_lacks_and_nothing_else() {
        let mono = dejavu::sans_mono::regular();
        let fonts = Fonts::with(vec![mono.to_vec()]).unwrap();
        let lacking = ('\u{21}'..'\u{1ffff}')
            .find(|&sign| {
                let has = |face| fonts.glyph(face, sign) != 0;
                has(Face::Added(0)) && !has(Face::DejaVu(Weight::Regular))
            })
            .unwrap();
        let text = format!("a{lacking}日");
        let line = Typesetter::new(&fonts).shape(&text, Weight::Regular);
        assert_eq!(line.glyphs[0].face, Face::DejaVu(Weight::Regular));
        assert_eq!(line.glyphs[1].face, Face::Added(0));
        assert_eq!(line.boxes.len(), 1);
        assert_eq!(setter().shape(&text, Weight::Regular).boxes.len(), 2);
    }

    #[test]
    fn what_is_no_font_is_refused_with_its_place_among_the_files() {
        let sans = dejavu::sans::regular();
        assert_eq!(Fonts::with(vec![sans.to_vec(), b"no font".to_vec()]).err(), Some(1));
        assert_eq!(Fonts::with(vec![sans[..100].to_vec()]).err(), Some(0));
        // Without widths: swash would count from minus one.
        let font = FontRef::from_index(sans, 0).unwrap();
        let hhea = table(font, b"hhea").unwrap();
        let at = hhea.as_ptr() as usize - sans.as_ptr() as usize + 34;
        let mut broken = sans.to_vec();
        broken[at..at + 2].fill(0);
        assert_eq!(Fonts::with(vec![broken]).err(), Some(0));
    }

    #[test]
    fn arabic_is_joined_and_reads_from_the_right_and_latin_beside_it_from_the_left() {
        let mut setter = setter();
        let alone: f32 =
            ["م", "ر", "ح", "ب", "ا"].map(|letter| setter.width(letter, 1.0, Weight::Regular)).iter().sum();
        let word = setter.shape("مرحبا", Weight::Regular);
        assert!(word.width < 0.95 * alone, "joined letters are narrower");
        let mixed = setter.shape("a مرحبا b", Weight::Regular);
        let letter = glyph(Weight::Regular, 'b');
        let last = mixed.glyphs.iter().max_by(|a, b| a.x.total_cmp(&b.x));
        assert_eq!(last.map(|glyph| glyph.id), Some(letter));
        let ids: Vec<_> = mixed.glyphs.iter().map(|glyph| glyph.id).collect();
        let joined: Vec<_> = word.glyphs.iter().map(|glyph| glyph.id).collect();
        assert!(ids.windows(joined.len()).any(|part| part == joined));
    }

    #[test]
    fn wider_text_is_wider() {
        let mut setter = setter();
        let one = setter.width("x", 10.0, Weight::Regular);
        let two = setter.width("xx", 10.0, Weight::Regular);
        assert!((two - 2.0 * one).abs() < 1e-3);
        assert!(setter.width("x", 20.0, Weight::Regular) > 1.9 * one);
        assert_eq!(setter.width("", 10.0, Weight::Regular), 0.0);
    }

    #[test]
    fn a_character_that_the_font_lacks_becomes_a_box_with_its_code() {
        let mut setter = setter();
        let line = setter.shape("a日🦀", Weight::Regular);
        assert_eq!(line.boxes.len(), 2);
        // The letter, four digits of U+65E5, six digits of U+01F980.
        assert_eq!(line.glyphs.len(), 1 + 4 + 6);
        assert!(line.boxes[0][2] < line.boxes[1][0], "the boxes stand side by side");
        assert!(line.width > line.boxes[1][2]);
        assert!(line.glyphs.iter().all(|glyph| glyph.id != 0));
    }

    #[test]
    fn a_character_that_only_the_regular_face_has_is_taken_from_there() {
        let has = |weight, character| glyph(weight, character) != 0;
        let only_regular =
            ('\0'..'\u{1ffff}').find(|&sign| has(Weight::Regular, sign) && !has(Weight::Bold, sign)).unwrap();
        let line = setter().shape(&format!("a{only_regular}"), Weight::Bold);
        let weights: Vec<_> = line.glyphs.iter().map(|glyph| glyph.face).collect();
        assert_eq!(weights, [Weight::Bold, Weight::Regular].map(Face::DejaVu));
        assert!(line.boxes.is_empty());
    }

    #[test]
    fn the_signs_that_figures_use_are_in_both_fonts() {
        for weight in [Weight::Regular, Weight::Bold] {
            for sign in "␣⏎…−∞∅·→▲▼é".chars() {
                assert_ne!(glyph(weight, sign), 0, "{sign}");
            }
        }
    }

    #[test]
    fn wrapped_lines_are_narrow_enough_and_lose_no_word() {
        let mut setter = setter();
        let text = "the quick brown fox jumps over Donaudampfschifffahrtsgesellschaft twice";
        let lines = setter.wrap(text, 10.0, Weight::Bold, 80.0);
        assert!(lines.len() > 3);
        for line in &lines {
            assert!(setter.width(line, 10.0, Weight::Bold) <= 80.0, "{line}");
        }
        let letters = |text: &str| text.replace(' ', "");
        assert_eq!(letters(&lines.concat()), letters(text));
        assert!(setter.wrap("", 10.0, Weight::Bold, 80.0).is_empty());
        assert_eq!(setter.wrap("short", 10.0, Weight::Bold, 80.0), ["short"]);
    }

    #[test]
    fn shortened_text_ends_in_an_ellipsis() {
        let mut setter = setter();
        let short = setter.shorten("================", 10.0, Weight::Regular, 50.0);
        assert!(short.ends_with('…') && short.starts_with("=="));
        assert!(setter.width(&short, 10.0, Weight::Regular) <= 50.0);
        assert_eq!(setter.shorten("=", 10.0, Weight::Regular, 50.0), "=");
    }

    #[test]
    fn a_rasterised_glyph_has_ink_and_turns() {
        let mut setter = setter();
        let id = glyph(Weight::Regular, 'I');
        let (_, upright) = setter.rasterise(id, Face::DejaVu(Weight::Regular), 40.0, 0.0, [10.0, 10.0]);
        let (_, lying) = setter.rasterise(id, Face::DejaVu(Weight::Regular), 40.0, -90.0, [10.0, 10.0]);
        assert!(upright.coverage.iter().any(|&coverage| coverage > 200));
        assert!(upright.placement.height > 2 * upright.placement.width);
        assert!(lying.placement.width > 2 * lying.placement.height);
    }

    #[test]
    fn a_space_has_width_but_no_ink() {
        let mut setter = setter();
        assert!(setter.width(" ", 10.0, Weight::Regular) > 2.0);
        let id = glyph(Weight::Regular, ' ');
        let (_, mask) = setter.rasterise(id, Face::DejaVu(Weight::Regular), 40.0, 0.0, [0.0, 0.0]);
        assert!(mask.coverage.iter().all(|&coverage| coverage == 0));
    }
}
