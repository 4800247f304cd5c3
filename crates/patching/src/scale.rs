//! How the numbers of patched runs are given: as they are, as changes, or on the scale of the two
//! unpatched runs.
//!
//! | scale | formula |
//! |---|---|
//! | [`Scale::Value`] | `patched` |
//! | [`Scale::Change`] | `patched − base` |
//! | [`Scale::Normalized`] | `(patched − corrupted) / (clean − corrupted)`: 1 as clean, 0 as corrupted |
//! | [`Scale::NormalizedChange`] | `(patched − base) / (clean − corrupted)` |
//!
//! Over many pairs there are two normalised means. TransformerLens's demos put the *means* on one scale:
//! the mean of the patched runs, between the means of the unpatched ones ([`Means::OnOneScale`]). The mean
//! of each pair on its own scale ([`Means::OfScaled`]) is ruled by pairs whose two ends nearly meet.

use std::fmt;
use std::str::FromStr;

use crate::metric::finite_or_nan;
use crate::{Direction, Error};

/// How numbers are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scale {
    /// The metric of the patched run.
    #[default]
    Value,
    /// The change from the base run.
    Change,
    /// Between that of the corrupted run, 0, and that of the clean one, 1.
    Normalized,
    /// The change from the base run, in units of the distance from the corrupted run to the clean run.
    NormalizedChange,
}

/// Which mean over many pairs is normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Means {
    /// The means of patched and unpatched runs, on one scale.
    #[default]
    OnOneScale,
    /// The mean of the pairs, each on its own scale.
    OfScaled,
}

/// The metric of the runs that nothing was patched in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Endpoints {
    /// Of the clean run.
    pub clean: f32,
    /// Of the corrupted run.
    pub corrupted: f32,
    /// Of the one of them that is patched.
    pub base: f32,
}

impl Endpoints {
    /// The ends of an experiment of this direction.
    pub fn new(direction: Direction, clean: f32, corrupted: f32) -> Self {
        let base = match direction {
            Direction::Denoising => corrupted,
            Direction::Noising => clean,
        };
        Self { clean, corrupted, base }
    }

    /// Of the run that activations are taken from.
    pub fn source(&self) -> f32 {
        match self.base == self.corrupted {
            true => self.clean,
            false => self.corrupted,
        }
    }

    /// The means over some experiments; NaN of none.
    pub fn means(ends: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f32| Self::mean(ends, of);
        Self { clean: mean(|it| it.clean), corrupted: mean(|it| it.corrupted), base: mean(|it| it.base) }
    }

    /// The mean of a metric over some experiments; NaN of none.
    pub fn mean(ends: &[Self], of: impl Fn(&Self) -> f32) -> f32 {
        ends.iter().map(of).sum::<f32>() / ends.len() as f32
    }
}

impl Scale {
    /// Whether the two unpatched runs are its unit.
    pub fn is_normalized(self) -> bool {
        matches!(self, Self::Normalized | Self::NormalizedChange)
    }

    /// Puts values of a metric on this scale. One that is not finite there is NaN.
    ///
    /// # Errors
    /// As [`normalized_unit`], of a scale that has it.
    pub fn apply(self, values: &mut [f32], ends: Endpoints) -> Result<(), Error> {
        let unit = if self.is_normalized() { normalized_unit(ends.clean, ends.corrupted)? } else { 1.0 };
        let origin = self.origin(0.0, ends.corrupted, ends.base);
        for value in values {
            *value = finite_or_nan((*value - origin) / unit);
        }
        Ok(())
    }

    /// What a run that changes nothing comes to on this scale; `base` is the metric of the base run.
    pub fn unmoved(self, direction: Direction, base: f32) -> f32 {
        match (self, direction) {
            (Self::Value, _) => base,
            (Self::Normalized, Direction::Noising) => 1.0,
            (Self::Normalized, Direction::Denoising) | (Self::Change | Self::NormalizedChange, _) => 0.0,
        }
    }

    /// What counts as 0.
    pub(crate) fn origin<T>(self, zero: T, corrupted: T, base: T) -> T {
        match self {
            Self::Value => zero,
            Self::Normalized => corrupted,
            Self::Change | Self::NormalizedChange => base,
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Value => "value",
            Self::Change => "change",
            Self::Normalized => "normalized",
            Self::NormalizedChange => "normalized change",
        })
    }
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Value, Self::Change, Self::Normalized]
            .into_iter()
            .find(|scale| scale.to_string() == text)
            .ok_or_else(|| format!("there is no scale \"{text}\"; give value, change or normalized"))
    }
}

/// How far the clean run's metric lies from the corrupted one's: the unit of the normalised scale.
///
/// # Errors
/// If one of the two is not finite, or they are closer to each other than a ten-thousandth of the larger, as
/// rounding is then all that the scale would show.
pub fn normalized_unit(clean: f32, corrupted: f32) -> Result<f32, Error> {
    let unit = clean - corrupted;
    let enough = 1e-4 * clean.abs().max(corrupted.abs());
    if unit.is_finite() && unit.abs() > enough {
        Ok(unit)
    } else {
        Err(Error::NothingToNormalize { clean, corrupted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scale_is_its_formula() {
        for (direction, base) in [(Direction::Denoising, 2.0), (Direction::Noising, 10.0)] {
            let ends = Endpoints::new(direction, 10.0, 2.0);
            for (scale, expected) in [
                (Scale::Value, 6.0),
                (Scale::Change, 6.0 - base),
                (Scale::Normalized, 0.5),
                (Scale::NormalizedChange, (6.0 - base) / 8.0),
            ] {
                let mut values = [6.0, f32::NAN];
                scale.apply(&mut values, ends).unwrap();
                assert_eq!(values[0], expected, "{scale} of {direction}");
                assert!(values[1].is_nan());
            }
        }
    }

    #[test]
    fn ends_that_meet_are_not_a_scale() {
        let ends = Endpoints::new(Direction::Denoising, 3.0, 3.0);
        assert_eq!(Scale::Change.apply(&mut [4.0], ends).ok(), Some(()));
        let error = Scale::Normalized.apply(&mut [4.0], ends).unwrap_err();
        assert!(error.to_string().contains("too close to each other"));
    }

    #[test]
    fn what_is_not_finite_on_a_scale_is_nan() {
        let ends = Endpoints::new(Direction::Denoising, 3e38, -3e38);
        let mut values = [3e38, f32::INFINITY, 1.0];
        Scale::Change.apply(&mut values, ends).unwrap();
        assert!(values[0].is_nan() && values[1].is_nan());
        assert_eq!(values[2], 1.0 + 3e38);
        for ends in [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::INFINITY, 1.0], [3e38, -3e38]] {
            let error = normalized_unit(ends[0], ends[1]).unwrap_err().to_string();
            assert!(error.contains("no finite scale"), "{error}");
        }
    }

    #[test]
    fn scales_are_read_by_their_names() {
        for scale in [Scale::Value, Scale::Change, Scale::Normalized] {
            assert_eq!(scale.to_string().parse(), Ok(scale));
        }
        assert!("x".parse::<Scale>().unwrap_err().contains("value, change"));
    }
}
