//! Colour maps, and which ink can be read on a colour.

use std::fmt;
use std::str::FromStr;

/// A colour: red, green and blue of sRGB, 0 to 255 each.
pub type Rgb = [u8; 3];

/// The colour of a cell that has no number.
pub const NO_VALUE: Rgb = [222, 222, 222];

/// Dark and light ink, as put on cells.
const DARK_INK: Rgb = [26, 26, 26];
const LIGHT_INK: Rgb = [255, 255, 255];

/// A colour map: how a value between the low and the high end is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorMap {
    /// Diverging, from red (low) over near-white to blue (high), as papers on interpretability use
    /// it.
    #[default]
    RdBu,
    /// Diverging, from blue (low) over light grey to red (high), after Kenneth Moreland.
    Coolwarm,
    /// Sequential, from dark violet over green to yellow.
    Viridis,
    /// Sequential, from white to black.
    Grey,
}

impl ColorMap {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RdBu, Self::Coolwarm, Self::Viridis, Self::Grey];

    /// The name, as the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RdBu => "rdbu",
            Self::Coolwarm => "coolwarm",
            Self::Viridis => "viridis",
            Self::Grey => "grey",
        }
    }

    /// The colour at `t`, from 0 (low) to 1 (high). Values outside are clamped; NaN gives a neutral
    /// grey.
    pub fn color(self, t: f32) -> Rgb {
        if t.is_nan() {
            return NO_VALUE;
        }
        let t = t.clamp(0.0, 1.0);
        let gradient = match self {
            Self::RdBu => colorous::RED_BLUE,
            Self::Viridis => colorous::VIRIDIS,
            Self::Grey => colorous::GREYS,
            Self::Coolwarm => return between(&COOLWARM, t),
        };
        gradient.eval_continuous(f64::from(t)).as_array()
    }
}

impl FromStr for ColorMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "gray" => Ok(Self::Grey),
            name => Self::ALL.into_iter().find(|map| map.name() == name).ok_or_else(|| {
                format!("invalid colour map \"{text}\": expected {}", Self::ALL.map(Self::name).join(", "))
            }),
        }
    }
}

impl fmt::Display for ColorMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Black or white, whichever is easier to read on `background`.
pub fn ink_on(background: Rgb) -> Rgb {
    // The contrast with white and with black is equal at 0.18; a little above that, white still
    // looks better on saturated colours.
    if luminance(background) > 0.24 { DARK_INK } else { LIGHT_INK }
}

/// The channels in proportion to light, from 0 to 1.
fn linear(color: Rgb) -> [f32; 3] {
    color.map(|channel| {
        let channel = f32::from(channel) / 255.0;
        if channel <= 0.04045 { channel / 12.92 } else { ((channel + 0.055) / 1.055).powf(2.4) }
    })
}

/// Lightness and two axes of hue, in which distances are as people see them: Björn Ottosson, "A
/// perceptual color space for image processing" (2020).
pub fn oklab(color: Rgb) -> [f32; 3] {
    let [red, green, blue] = linear(color);
    let l = (0.412_221_46 * red + 0.536_332_55 * green + 0.051_445_995 * blue).cbrt();
    let m = (0.211_903_5 * red + 0.680_699_5 * green + 0.107_396_96 * blue).cbrt();
    let s = (0.088_302_46 * red + 0.281_718_85 * green + 0.629_978_7 * blue).cbrt();
    [
        0.210_454_26 * l + 0.793_617_8 * m - 0.004_072_047 * s,
        1.977_998_5 * l - 2.428_592_2 * m + 0.450_593_7 * s,
        0.025_904_037 * l + 0.782_771_77 * m - 0.808_675_77 * s,
    ]
}

/// The relative luminance, from 0 (black) to 1 (white), after WCAG 2.
pub fn luminance(color: Rgb) -> f32 {
    let [red, green, blue] = linear(color);
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// Linear interpolation in a table of evenly spaced colours.
fn between(table: &[Rgb], t: f32) -> Rgb {
    let place = t * (table.len() - 1) as f32;
    let index = (place as usize).min(table.len() - 2);
    let weight = place - index as f32;
    let (from, to) = (table[index], table[index + 1]);
    std::array::from_fn(|channel| {
        let (from, to) = (f32::from(from[channel]), f32::from(to[channel]));
        (from + (to - from) * weight).round() as u8
    })
}

/// Moreland's map, "Diverging Color Maps for Scientific Visualization" (2009), at seventeen points.
const COOLWARM: [Rgb; 17] = [
    [59, 76, 192],
    [77, 104, 215],
    [98, 130, 234],
    [119, 154, 247],
    [141, 176, 254],
    [163, 194, 255],
    [184, 208, 249],
    [204, 217, 238],
    [221, 221, 221],
    [236, 211, 197],
    [245, 196, 173],
    [247, 177, 148],
    [244, 154, 123],
    [236, 127, 99],
    [222, 96, 77],
    [203, 62, 56],
    [180, 4, 38],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn is_red([red, green, blue]: Rgb) -> bool {
        red > 90 && red > green + 60 && red > blue + 60
    }

    fn is_blue([red, green, blue]: Rgb) -> bool {
        blue > 90 && blue > red + 60 && blue > green + 40
    }

    #[test]
    fn rdbu_runs_from_red_over_near_white_to_blue() {
        assert!(is_red(ColorMap::RdBu.color(0.0)));
        assert!(ColorMap::RdBu.color(0.5).iter().all(|&channel| channel > 235));
        assert!(is_blue(ColorMap::RdBu.color(1.0)));
    }

    #[test]
    fn coolwarm_runs_from_blue_over_grey_to_red() {
        assert!(is_blue(ColorMap::Coolwarm.color(0.0)));
        assert_eq!(ColorMap::Coolwarm.color(0.5), [221, 221, 221]);
        assert!(is_red(ColorMap::Coolwarm.color(1.0)));
    }

    #[test]
    fn the_sequential_maps_run_from_end_to_end() {
        assert!(luminance(ColorMap::Viridis.color(0.0)) < 0.05);
        assert!(luminance(ColorMap::Viridis.color(1.0)) > 0.7);
        assert!(luminance(ColorMap::Grey.color(0.0)) > 0.95);
        assert!(luminance(ColorMap::Grey.color(1.0)) < 0.05);
    }

    #[test]
    fn not_a_number_is_grey_and_values_outside_are_clamped() {
        for map in ColorMap::ALL {
            assert_eq!(map.color(f32::NAN), NO_VALUE);
            assert_eq!(map.color(-3.0), map.color(0.0));
            assert_eq!(map.color(f32::INFINITY), map.color(1.0));
        }
    }

    #[test]
    fn names_are_read_back() {
        for map in ColorMap::ALL {
            assert_eq!(map.name().parse(), Ok(map));
        }
    }

    #[test]
    fn ink_contrasts_with_every_colour() {
        for map in ColorMap::ALL {
            for step in 0..=50 {
                let background = map.color(step as f32 / 50.0);
                let (a, b) = (luminance(background), luminance(ink_on(background)));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast > 3.4, "{map} at {step}: {contrast}");
            }
        }
    }
}
