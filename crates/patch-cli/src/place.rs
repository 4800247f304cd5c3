//! Layers and positions as users count them: `0` is the first, `-1` (or `end`) the last, `-2` the one before.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::failure::Failure;

/// No model has as many layers or positions; a longer list would only fill the memory.
const MOST: usize = 1 << 20;

/// One place along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Counted from 0.
    FromStart(usize),
    /// Counted from the end, where the last is 1.
    FromEnd(usize),
}

impl Place {
    /// The last one.
    pub const END: Self = Self::FromEnd(1);

    /// The place among `length`. One that is counted from the start may lie beyond the end: what it is
    /// used for says so. `what` is the word for one of them.
    ///
    /// # Errors
    /// [`Failure::Input`] if it is counted from the end and lies before the start.
    pub fn of(self, length: usize, what: &str) -> Result<usize, Failure> {
        match self {
            Self::FromStart(place) => Ok(place),
            Self::FromEnd(back) => length.checked_sub(back).ok_or_else(|| {
                Failure::Input(format!(
                    "there is no {what} {self}: from the end, counting runs from -1 to -{length}"
                ))
            }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromStart(place) => write!(f, "{place}"),
            Self::FromEnd(back) => write!(f, "-{back}"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("\"{text}\" is not a place: give a number from 0, -1 for the last, or end for the last")
        };
        let number = |digits: &str| match digits.parse::<usize>() {
            Ok(number) if !digits.starts_with('+') => Ok(number),
            _ => Err(wrong()),
        };
        match text.strip_prefix('-') {
            _ if text == "end" => Ok(Self::END),
            None => number(text).map(Self::FromStart),
            Some(back) => number(back).map(|back| match back {
                0 => Self::FromStart(0),
                _ => Self::FromEnd(back),
            }),
        }
    }
}

/// One place, or all from one to another: `5`, `5..8` (which ends before 8), `5..=7`, `-3..`, `..2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// One place.
    At(Place),
    /// From the first (else from the start) to the second, which is part of it if the flag says so (else to
    /// the end).
    Between(Option<Place>, Option<(Place, bool)>),
}

impl Span {
    /// The places among `length`; what lies beyond the end is kept, as by [`Place::of`].
    ///
    /// # Errors
    /// As [`Place::of`], and if the range is empty.
    pub fn of(self, length: usize, what: &str) -> Result<Range<usize>, Failure> {
        let at = |place: Place| place.of(length, what);
        let range = match self {
            Self::At(place) => at(place).map(|place| place..place + 1)?,
            Self::Between(start, end) => {
                let start = start.map_or(Ok(0), at)?;
                let end = match end {
                    Some((end, is_part)) => at(end)? + usize::from(is_part),
                    None => length,
                };
                start..end
            }
        };
        match range.is_empty() {
            true => Err(Failure::Input(format!("{self} is an empty range of the {length} {what}s"))),
            false => Ok(range),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(place) => write!(f, "{place}"),
            Self::Between(start, end) => {
                if let Some(start) = start {
                    write!(f, "{start}")?;
                }
                match end {
                    Some((end, true)) => write!(f, "..={end}"),
                    Some((end, false)) => write!(f, "..{end}"),
                    None => write!(f, ".."),
                }
            }
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is neither a number nor a range such as 5..8 (which ends before 8), 5..=7 or \
                 -3.. (the last three)"
            )
        };
        let place = |part: &str| match part.trim().parse::<Place>() {
            Ok(Place::FromStart(place)) if place > MOST => Err(format!("\"{text}\" is beyond {MOST}")),
            place => place.map_err(|_| wrong()),
        };
        let Some((start, end)) = text.split_once("..") else {
            return place(text).map(Self::At);
        };
        let (end, is_part) = match end.strip_prefix('=') {
            Some(end) => (end, true),
            None => (end, false),
        };
        let given = |text: &str| match text.trim().is_empty() {
            true => Ok(None),
            false => place(text).map(Some),
        };
        match (given(start)?, given(end)?) {
            (None, None) => Err(wrong()),
            (_, None) if is_part => Err(wrong()),
            (start, end) => Ok(Self::Between(start, end.map(|end| (end, is_part)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_twelve(text: &str) -> Result<Range<usize>, String> {
        let span: Span = text.parse()?;
        span.of(12, "layer").map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn places_and_ranges_are_counted_from_both_ends() {
        for (text, expected) in [
            ("7", 7..8),
            ("-1", 11..12),
            ("end", 11..12),
            ("-12", 0..1),
            ("5..8", 5..8),
            ("5..=8", 5..9),
            ("-3..", 9..12),
            ("-3..-1", 9..11),
            ("-3..=-1", 9..12),
            ("..2", 0..2),
            ("..=end", 0..12),
            (" 5 .. 8 ", 5..8),
            ("10..20", 10..20),
        ] {
            assert_eq!(of_twelve(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_or_none_of_these_is_an_error() {
        for text in ["", "x", "1.5", "..", "..=", "3..=", "a..b", "3...4", "+1", "- 1", "1..x"] {
            let error = of_twelve(text).unwrap_err();
            assert!(error.contains("neither a number nor a range"), "{text}: {error}");
        }
        for text in ["0..99999999999", "18446744073709551615"] {
            assert!(of_twelve(text).unwrap_err().contains("is beyond 1048576"));
        }
        for text in ["8..5", "4..4", "-1..-2"] {
            assert!(of_twelve(text).unwrap_err().contains("is an empty range"));
        }
        let error = of_twelve("-13").unwrap_err();
        assert!(error.contains("no layer -13: from the end, counting runs from -1 to -12"));
    }

    #[test]
    fn a_span_is_written_as_it_is_read() {
        for text in ["7", "-2", "5..8", "5..=-1", "-3..", "..=4"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }
}
