//! Names that users type, and what they may have meant.

use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use patching::Direction;

/// Reads the name of a direction.
pub fn direction() -> impl TypedValueParser<Value = Direction> {
    parsed([Direction::Denoising, Direction::Noising].map(|it| it.to_string().into()))
}

/// Reads one of these names. Unlike a plain [`FromStr`], it lets clap suggest the nearest one, and complete it.
pub fn parsed<T>(names: impl IntoIterator<Item = PossibleValue>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// The name that is most like the one that was given, if any is like it.
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The measure and the threshold that clap has for its own suggestions.
    const ALIKE: f64 = 0.7;
    let likeness = |name: &'a str| (strsim::jaro(given, name), name);
    let best = names.into_iter().map(likeness).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness > ALIKE).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest_and_a_strange_one_with_none() {
        let names = ["tiny", "gpt2", "gpt2-medium", "distilgpt2"];
        assert_eq!(nearest("gpt2-medum", names), Some("gpt2-medium"));
        assert_eq!(nearest("gtp2", names), Some("gpt2"));
        assert_eq!(nearest("llama", names), None);
        assert_eq!(nearest("x", []), None);
    }
}
