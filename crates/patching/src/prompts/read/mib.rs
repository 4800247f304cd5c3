//! Records of MIB's data on the Hugging Face hub (mib-bench/ioi, copycolors_mcqa, arc, arithmetic): a
//! `prompt`, several prompts of which each is an object such as `s2_io_flip_counterfactual`, and answers
//! that other keys describe. They are read as MIB-circuit-track's `HFEAPDataset` reads them.

use gpt2::tokenizer::parse_ids;
use serde_json::value::RawValue;

use super::super::{Answer, Written};
use super::columns::{Wanted, normal};
use super::json::{elements, entries, kind, string};
use super::{Reader, Record, shown};

const ENDING: &str = "_counterfactual";

/// The counterfactual that MIB's code takes by default: for indirect objects, multiple choice, and
/// arithmetic.
const DEFAULTS: [&str; 3] = ["s2_io_flip_counterfactual", "symbol_counterfactual", "random_counterfactual"];

type Entry<'a> = (String, &'a RawValue);

/// The record, if the object is one of MIB's: with a prompt and counterfactuals, without a corrupted
/// prompt.
pub fn record(number: usize, object: &[Entry<'_>], reader: &mut Reader) -> Result<Option<Record>, String> {
    let is_counterfactual =
        |(name, value): &&Entry<'_>| name.ends_with(ENDING) && value.get().starts_with(['{', 'n']);
    let found: Vec<&Entry<'_>> = object.iter().filter(is_counterfactual).collect();
    let has = |name: &str| object.iter().any(|(other, _)| normal(other) == name);
    let Some(prompt) = get(object, "prompt")
        .filter(|_| !found.is_empty() && !has("corrupted") && !has("corrupt") && !has("clean"))
    else {
        return Ok(None);
    };
    let (name, counterfactual) = chosen(&found)?;
    let Ok(other) = entries(counterfactual.get()) else {
        return Err(format!("\"{name}\" is null; MIB's code leaves such records out: remove it"));
    };
    let clean = prompt_text("prompt", prompt, reader.ids)?;
    let corrupted = get(&other, "prompt")
        .ok_or_else(|| format!("\"{name}\" has no key \"prompt\""))
        .and_then(|prompt| prompt_text(&format!("{name}.prompt"), prompt, reader.ids))?;
    let (answers, used) = match reader.wanted {
        Wanted::Clean => (None, &[][..]),
        Wanted::Pairs => answers(object, &other)?,
    };
    if reader.wanted == Wanted::Pairs {
        reader.note(format!("the corrupted prompts are those of {name}, which MIB's code takes"));
    }
    let is_read = |other: &str| other == "prompt" || other == name || used.contains(&other);
    let passed_over = object.iter().filter(|(other, _)| !is_read(other));
    passed_over.for_each(|(other, _)| reader.pass_over(other));
    let [a, b] = answers.map_or([vec![], vec![]], |answers| answers.map(|text| vec![Answer::Text(text)]));
    Ok(Some(Record { number, clean, corrupted: Some(corrupted), a, b }))
}

/// The only counterfactual, or the one that MIB's code takes.
fn chosen<'a>(found: &[&'a Entry<'a>]) -> Result<(&'a str, &'a RawValue), String> {
    let default = || {
        let mut defaults = DEFAULTS.iter();
        defaults.find_map(|default| found.iter().find(|(name, _)| name == default))
    };
    match found {
        [(name, value)] => Ok((name, value)),
        _ => match default() {
            Some((name, value)) => Ok((name, value)),
            None => {
                let names: Vec<String> = found.iter().map(|(name, _)| shown(name)).collect();
                Err(format!(
                    "there are several counterfactuals ({}); write the prompts of one into a column \
                     \"corrupted\", and the answers into columns a and b",
                    names.join(", ")
                ))
            }
        },
    }
}

/// The answers that a record describes, and the keys that do so.
type Answers = (Option<[String; 2]>, &'static [&'static str]);

fn answers(object: &[Entry<'_>], other: &[Entry<'_>]) -> Result<Answers, String> {
    let inner = |name: &str| get(object, name).and_then(|value| entries(value.get()).ok());
    if let Some(metadata) = inner("metadata") {
        let name = |key: &str| get(&metadata, key).and_then(|name| string(name.get()).ok());
        if let (Some(object), Some(subject)) = (name("indirect_object"), name("subject")) {
            let answers = [object, subject].map(|name| format!(" {name}"));
            return Ok((Some(answers), &["metadata", "choices", "answerKey"]));
        }
    }
    if let (Some(a), Some(b)) = (label_of_choice(object)?, label_of_choice(other)?) {
        return Ok((Some([a, b]), &["choices", "answerKey"]));
    }
    if let [Some(a), Some(b)] = [object, other].map(|object| get(object, "label").and_then(scalar)) {
        return Ok((Some([a, b]), &["label", "operator"]));
    }
    Ok((None, &[]))
}

/// `choices.label[answerKey]`.
fn label_of_choice(object: &[Entry<'_>]) -> Result<Option<String>, String> {
    let (Some(choices), Some(key)) = (get(object, "choices"), get(object, "answerKey")) else {
        return Ok(None);
    };
    let Ok(choices) = entries(choices.get()) else {
        return Ok(None);
    };
    let Some(labels) = get(&choices, "label") else {
        return Ok(None);
    };
    let wrong = || format!("answerKey {} is not a place in choices.label", shown(key.get()));
    let wanted: usize = key.get().parse().map_err(|_| wrong())?;
    let (mut at, mut found) = (0, None);
    let walked = elements(labels.get(), &mut |label| {
        if at == wanted {
            found = scalar(label);
        }
        at += 1;
        Ok(())
    });
    walked.ok().and(found).map(Some).ok_or_else(wrong)
}

/// A text, or a number as Python's `str` writes it.
fn scalar(value: &RawValue) -> Option<String> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => string(text).ok(),
        b'-' | b'0'..=b'9' => Some(text.to_owned()),
        _ => None,
    }
}

fn prompt_text(name: &str, value: &RawValue, ids: bool) -> Result<Written, String> {
    let text = value.get();
    if !text.starts_with('"') {
        return Err(format!("\"{name}\" is {}, and must be a text", kind(text)));
    }
    let text = string(text)?;
    if ids { parse_ids(&text).map(Written::Ids) } else { Ok(Written::Text(text)) }
}

fn get<'a>(object: &[Entry<'a>], name: &str) -> Option<&'a RawValue> {
    let found = object.iter().find(|(other, _)| other == name);
    found.map(|(_, value)| *value)
}
