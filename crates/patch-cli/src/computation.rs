//! What determines a study's numbers: every export says it, and `--resume` compares it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use clap::{ArgMatches, Command};
use grids::sha256;

/// What determines numbers, by name ([`grids::Provenance::computation`]).
pub type Computation = BTreeMap<String, String>;

/// To be raised when equal computations no longer give equal numbers.
const FORMAT: &str = "1";

/// The arguments of this process that can change a number, defaults included.
static ARGUMENTS: OnceLock<Computation> = OnceLock::new();

/// Arguments that change no number, and those that name what the checksums of weights and tokens
/// stand for.
const WITHOUT_EFFECT: [&str; 21] = [
    "cell_values",
    "center",
    "cmap",
    "color",
    "csv",
    "font",
    "json",
    "model",
    "npy",
    "out",
    "out_components",
    "out_curve",
    "out_heads",
    "out_transplant",
    "safetensors",
    "save",
    "scatter",
    "threads",
    "title",
    "vmax",
    "vmin",
];

/// Keeps the arguments of this process. `command` is the whole command line.
pub fn remember(command: &Command, matches: &ArgMatches) {
    let (name, subcommand, matches) = match matches.subcommand() {
        Some((name, matches)) => (name, command.find_subcommand(name), matches),
        None => ("sweep", Some(command), matches),
    };
    let mut arguments = Computation::from([("study".to_owned(), name.to_owned())]);
    let all = subcommand.into_iter().flat_map(Command::get_arguments).map(|arg| arg.get_id().as_str());
    for id in all.filter(|id| !WITHOUT_EFFECT.contains(id)) {
        if let Ok(Some(values)) = matches.try_get_raw(id) {
            let values: Vec<String> = values.map(|value| value.to_string_lossy().into_owned()).collect();
            arguments.insert(format!("--{}", id.replace('_', "-")), values.join(" "));
        }
    }
    ARGUMENTS.get_or_init(|| arguments);
}

/// What determines the numbers of a study beside its model: its name, and these facts. Without facts, all
/// arguments that can change a number.
pub fn computation<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> Computation {
    let mut facts: Computation = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let arguments = ARGUMENTS.get();
    match (facts.is_empty(), arguments) {
        (true, Some(arguments)) => facts.clone_from(arguments),
        (false, Some(arguments)) => {
            facts.extend(arguments.get_key_value("study").map(|(k, v)| (k.clone(), v.clone())))
        }
        (_, None) => {}
    }
    facts.insert("format".to_owned(), FORMAT.to_owned());
    facts
}

/// The checksum of lists of token ids.
pub fn checksum_of_tokens<'a>(lists: impl IntoIterator<Item = &'a [u32]>) -> String {
    let bytes = |ids: &[u32]| -> Vec<u8> {
        // The length keeps two lists from being read as one.
        let length = ids.len() as u32;
        [length].iter().chain(ids).flat_map(|id| id.to_le_bytes()).collect()
    };
    sha256(lists.into_iter().map(bytes))
}

/// In which facts two computations differ, in words.
pub fn differences(there: &Computation, here: &Computation) -> Vec<String> {
    let names = here.keys().chain(there.keys().filter(|name| !here.contains_key(*name)));
    let value = |computation: &Computation, name: &String| {
        computation.get(name).map_or_else(|| "not given".to_owned(), Clone::clone)
    };
    let differing = names.filter(|name| there.get(*name) != here.get(*name));
    differing
        .map(|name| format!("{name}: {} there, {} here", value(there, name), value(here, name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tokens_in_other_lists_are_other_tokens() {
        let checksum = |lists: &[&[u32]]| checksum_of_tokens(lists.iter().copied());
        assert_eq!(checksum(&[&[1, 2], &[3]]), checksum(&[&[1, 2], &[3]]));
        assert_ne!(checksum(&[&[1, 2], &[3]]), checksum(&[&[1], &[2, 3]]));
        assert_ne!(checksum(&[&[1, 2]]), checksum(&[&[2, 1]]));
    }

    #[test]
    fn computations_are_compared_fact_by_fact() {
        let of = |facts: &[(&'static str, &str)]| {
            computation(facts.iter().map(|(name, value)| (*name, (*value).to_owned())))
        };
        let (a, b) =
            (of(&[("bos", "none"), ("engine", "plain")]), of(&[("bos", "50256"), ("engine", "plain")]));
        assert_eq!(differences(&a, &b), ["bos: none there, 50256 here"]);
        assert!(differences(&a, &a).is_empty());
        assert_eq!(differences(&of(&[("bos", "none")]), &a), ["engine: not given there, plain here"]);
    }
}
