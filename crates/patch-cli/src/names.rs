//! Names that users type, and what they may have meant.

use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use figures::{CellValues, ColorMap};
use lens::processing::Flags;
use patching::path::{HeadInput, Reader, Senders};
use patching::prompts::{Align, Corruption, Task};
use patching::{Direction, Engine, Means, Method, Scale, circuit};
use report::metric::MetricKind;

use crate::pairs::SetName;

/// Reads the name of a direction.
pub fn direction() -> impl TypedValueParser<Value = Direction> {
    parsed([Direction::Denoising, Direction::Noising].map(|it| it.to_string().into()))
}

/// Reads the name of a metric.
pub fn metrics() -> impl TypedValueParser<Value = MetricKind> {
    let words = |kind: MetricKind| match kind {
        MetricKind::LogitDiff => "logit(A) − logit(B)",
        MetricKind::Normalized => {
            "logit(A) − logit(B) on a scale where the clean run is 1 and the corrupted one 0; over many pairs the \
             means are put on one scale"
        }
        MetricKind::NormalizedByPair => {
            "The same, but over many pairs the mean of each pair on its own scale"
        }
        MetricKind::ProbDiff => "p(A) − p(B)",
        MetricKind::Logit => "logit(TOKEN)",
        MetricKind::Prob => "p(TOKEN)",
        MetricKind::LogProb => "ln p(TOKEN)",
        MetricKind::Rank => "How many tokens are more likely than TOKEN: 0 for the most likely",
        MetricKind::LogitChange => "logit(TOKEN) minus the clean run's",
        MetricKind::ProbChange => "p(TOKEN) minus the clean run's",
        MetricKind::Kl => "Divergence from the clean run's distribution of the next token, in nats",
        MetricKind::Loss => "Mean −ln p(next token of the base prompt) over --loss-at",
    };
    parsed(MetricKind::all().map(move |kind| PossibleValue::new(kind.to_string()).help(words(kind))))
}

/// Reads the name of a way to find circuits.
pub fn circuit_methods() -> impl TypedValueParser<Value = circuit::Method> {
    parsed(circuit::Method::ALL.map(|method| method.to_string().into()))
}

/// Reads what is put in the place of what is cut.
pub fn replacements() -> impl TypedValueParser<Value = circuit::Replacement> {
    parsed(circuit::Replacement::ALL.map(|it| it.to_string().into()))
}

/// Reads an order of ACDC.
pub fn orders() -> impl TypedValueParser<Value = circuit::Order> {
    parsed(circuit::Order::ALL.map(|it| it.to_string().into()))
}

/// Reads the name of a method of attribution.
pub fn methods() -> impl TypedValueParser<Value = Method> {
    parsed(Method::ALL.map(|method| method.to_string().into()))
}

/// Reads the name of an engine.
pub fn engines() -> impl TypedValueParser<Value = Engine> {
    parsed(Engine::ALL.map(|engine| engine.to_string().into()))
}

/// Reads the name of a scale, with which mean over many pairs is on it.
pub fn scales() -> impl TypedValueParser<Value = (Scale, Means)> {
    const BY_PAIR: &str = "normalized_by_pair";
    let names = [Scale::Value, Scale::Change].map(|scale| PossibleValue::new(scale.to_string()));
    let normalized =
        PossibleValue::new(Scale::Normalized.to_string()).help("Over many pairs: normalize the means");
    let by_pair =
        PossibleValue::new(BY_PAIR).help("Over many pairs: the mean of the pairs, each normalized by itself");
    let names = names.into_iter().chain([normalized, by_pair]);
    PossibleValuesParser::new(names).try_map(|name| match &*name {
        BY_PAIR => Ok((Scale::Normalized, Means::OfScaled)),
        name => name.parse().map(|scale| (scale, Means::OnOneScale)),
    })
}

/// Reads how corrupted prompts are made.
pub fn corruptions() -> impl TypedValueParser<Value = Corruption> {
    parsed(Corruption::ALL.map(|corruption| corruption.to_string().into()))
}

/// Reads from where positions are counted.
pub fn aligns() -> impl TypedValueParser<Value = Align> {
    parsed(Align::ALL.map(|align| align.to_string().into()))
}

/// Reads what a sender is.
pub fn senders() -> impl TypedValueParser<Value = Senders> {
    let words = |senders: Senders| match senders {
        Senders::Heads => {
            "The output of each head's attention, before it is projected into the residual stream"
        }
        Senders::Mlps => "The output of each MLP",
        Senders::Embeddings => "The token embedding at each position",
    };
    parsed(Senders::ALL.map(|senders| PossibleValue::new(senders.to_string()).help(words(senders))))
}

/// Reads what reads a sender's change.
pub fn readers() -> impl TypedValueParser<Value = Reader> {
    use HeadInput::{K, Q, V};
    let value = |reader: Reader| PossibleValue::new(reader.to_string());
    parsed(Reader::ALL.map(|reader| match reader {
        Reader::Logits => value(reader),
        Reader::Head(Q) => value(reader).help("Queries of --receivers"),
        Reader::Head(K) => value(reader).help("Keys of --receivers"),
        Reader::Head(V) => value(reader).help("Values of --receivers"),
        Reader::Mlp => value(reader).help("The MLPs of the layers --receivers"),
    }))
}

/// Reads which steps of processing are taken.
pub fn processing() -> impl TypedValueParser<Value = Flags> {
    parsed(["all".into(), "default".into()])
}

/// Reads the name of a set of pairs.
pub fn prompt_sets() -> impl TypedValueParser<Value = SetName> {
    let words = |task: Task| match task {
        Task::GreaterThan => "A later year: \"The war lasted from the year 1732 to the year 17\"",
        Task::Gender => "A pronoun: \"So Mary is a really great friend, isn't\"",
        Task::SubjectVerb => "A verb in the number of its subject: \"The keys to the cabinet\"",
        Task::Capitals => "A capital: \"The capital of France is\"",
    };
    let ioi =
        PossibleValue::new("ioi").help("Indirect objects: \"Then, John and Mary … John gave a drink to\"");
    let tutorial = PossibleValue::new("ioi-tutorial").help("Eight of these, of TransformerLens's tutorial");
    let tasks = Task::ALL.map(|task| PossibleValue::new(task.to_string()).help(words(task)));
    parsed([ioi, tutorial].into_iter().chain(tasks))
}

/// Reads the name of a colour map.
pub fn color_maps() -> impl TypedValueParser<Value = ColorMap> {
    let words = |map: ColorMap| match map {
        ColorMap::RdBu => {
            "Diverging, from red (low) over near-white to blue (high), as papers on interpretability use it"
        }
        ColorMap::Coolwarm => {
            "Diverging, from blue (low) over light grey to red (high), after Kenneth Moreland"
        }
        ColorMap::Viridis => "Sequential, from dark violet over green to yellow",
        ColorMap::Grey => "Sequential, from white to black",
    };
    let value = |map: ColorMap| PossibleValue::new(map.name()).help(words(map));
    parsed(ColorMap::ALL.map(|map| match map {
        ColorMap::Grey => value(map).alias("gray"),
        _ => value(map),
    }))
}

/// Reads when numbers stand in the cells.
pub fn cell_values() -> impl TypedValueParser<Value = CellValues> {
    let words = |when: CellValues| match when {
        CellValues::Auto => "Where they fit",
        CellValues::Always => "In any case: cells become as wide as the numbers need",
        CellValues::Never => "Nowhere",
    };
    parsed(CellValues::ALL.map(|when| PossibleValue::new(when.to_string()).help(words(when))))
}

/// Reads one of these names. Unlike a plain [`FromStr`], it lets clap suggest the nearest one, and complete it.
pub fn parsed<T>(names: impl IntoIterator<Item = PossibleValue>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    // (Where case is ignored, the name comes as it was typed.)
    PossibleValuesParser::new(names)
        .try_map(|name| name.parse::<T>().or_else(|_| name.to_ascii_lowercase().parse()))
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
