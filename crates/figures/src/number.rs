//! Rounding: how values are written in cells and at the ticks of a scale.

/// How a set of numbers that stand together is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberStyle {
    /// Digits after the point.
    pub decimals: usize,
    /// Whether to write a power of ten, for numbers too large or too small to be spelled out.
    pub scientific: bool,
    /// Whether numbers above zero get a `+`.
    pub plus: bool,
}

impl NumberStyle {
    /// Writes numbers whose largest magnitude is `largest` with about three digits that matter.
    pub fn for_largest(largest: f32) -> Self {
        let scientific = largest >= 1e5 || (largest > 0.0 && largest < 1e-3);
        let decimals = match largest {
            _ if scientific => 1,
            100.0.. => 0,
            10.0.. => 1,
            0.1.. => 2,
            0.01.. => 3,
            _ if largest > 0.0 => 4,
            _ => 2,
        };
        Self { decimals, scientific, plus: false }
    }

    /// Writes the multiples of `step`, with no more digits than they need.
    pub fn for_step(step: f64) -> Self {
        let scientific = !(1e-4..1e5).contains(&step);
        let decimals = if scientific { 1 } else { (-step.log10().floor()).max(0.0) as usize };
        Self { decimals, scientific, plus: false }
    }

    /// The number as text. Nothing is ever written as a negative zero.
    pub fn format(self, value: f64) -> String {
        if value.is_nan() {
            return "nan".to_owned();
        }
        let digits = self.decimals;
        let magnitude = value.abs();
        let text = if magnitude.is_infinite() {
            "inf".to_owned()
        } else if self.scientific && magnitude > 0.0 {
            format!("{magnitude:.digits$e}")
        } else {
            format!("{magnitude:.digits$}")
        };
        let is_zero = !text.contains(|character: char| matches!(character, '1'..='9' | 'i'));
        match value {
            _ if is_zero => text,
            _ if value < 0.0 => format!("-{text}"),
            _ if self.plus => format!("+{text}"),
            _ => text,
        }
    }

    /// The number as it is printed on paper, with a true minus sign.
    pub fn typeset(self, value: f64) -> String {
        self.format(value).replace('-', "\u{2212}").replace("inf", "∞")
    }
}

/// Round numbers from `low` to `high` for the ticks of a scale, at most `most` of them if that can
/// be, and the step between them.
pub fn round_ticks(low: f64, high: f64, most: usize) -> (Vec<f64>, f64) {
    let rough = (high - low) / most.max(2) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&step| count(low, high, step) <= most.max(2) as f64)
        .unwrap_or(10.0 * power);
    let slack = step * 1e-6;
    let first = ((low - slack) / step).ceil();
    let last = ((high + slack) / step).floor();
    let ticks = (0..=(last - first).max(0.0) as usize).map(|index| (first + index as f64) * step).collect();
    (ticks, step)
}

fn count(low: f64, high: f64, step: f64) -> f64 {
    (high / step).floor() - (low / step).ceil() + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_zero_is_written_as_zero() {
        let style = NumberStyle { decimals: 2, scientific: false, plus: true };
        assert_eq!(style.format(-0.001), "0.00");
        assert_eq!(style.format(-0.0), "0.00");
        assert_eq!(style.format(0.001), "0.00");
        assert_eq!(style.format(-0.005001), "-0.01");
        assert_eq!(style.format(1.5), "+1.50");
    }

    #[test]
    fn digits_follow_the_largest_number() {
        let written = |largest: f32, value: f64| NumberStyle::for_largest(largest).format(value);
        assert_eq!(written(250.0, 12.3), "12");
        assert_eq!(written(25.0, 12.34), "12.3");
        assert_eq!(written(2.0, 1.234), "1.23");
        assert_eq!(written(0.05, 0.01234), "0.012");
        assert_eq!(written(1e-6, 5e-7), "5.0e-7");
        assert_eq!(written(1e9, -5e8), "-5.0e8");
        assert_eq!(written(0.0, 0.0), "0.00");
    }

    #[test]
    fn numbers_that_are_none_are_named() {
        let style = NumberStyle::for_largest(1.0);
        assert_eq!(style.format(f64::NAN), "nan");
        assert_eq!(style.format(f64::NEG_INFINITY), "-inf");
        assert_eq!(style.typeset(-1.0), "−1.00");
    }

    #[test]
    fn ticks_are_round_and_inside_the_range() {
        assert_eq!(round_ticks(-1.0, 1.0, 5).0, [-1.0, -0.5, 0.0, 0.5, 1.0]);
        assert_eq!(round_ticks(-3.7, 3.7, 8).0, [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
        for (low, high) in [(0.0, 1e-12), (-7e30, 7e30), (0.1, 0.11), (-3.4e38, 3.4e38)] {
            let (ticks, step) = round_ticks(low, high, 7);
            assert!((2..=7).contains(&ticks.len()), "{low} {high}: {ticks:?}");
            assert!(ticks.iter().all(|&tick| tick >= low - step * 1e-3 && tick <= high + step * 1e-3));
        }
    }

    #[test]
    fn ticks_have_the_digits_of_their_step() {
        assert_eq!(NumberStyle::for_step(0.5).format(1.5), "1.5");
        assert_eq!(NumberStyle::for_step(20.0).format(40.0), "40");
        assert_eq!(NumberStyle::for_step(0.02).format(0.04), "0.04");
    }
}
