//! JSON: an object on every line, or one document with all of them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::de::StrRead;
use serde_json::value::RawValue;

use super::cells::{Cell, Item, check_length};
use super::columns::{Layout, is_known, is_prompt, normal};
use super::{Flaw, Reader, Row, lines_of, mib, shown};

/// The most columns that a record may have.
const MAX_COLUMNS: usize = 1000;

/// What a line must look like.
const EXAMPLE: &str = "{\"clean\": \"…\", \"corrupted\": \"…\", \"a\": \" Smith\", \"b\": \" Jones\"}";

/// The keys of a document under which a list of records stands.
const LISTS: [&str; 7] = ["prompts", "pairs", "data", "examples", "samples", "records", "rows"];

/// Reads an object a line.
pub fn read_lines(text: &str, reader: &mut Reader) -> Result<(), Flaw> {
    let mut records = Records::default();
    for (line, text) in lines_of(text) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let entries = entries(text).map_err(|stop| match stop {
            Stop::Syntax(error) => {
                let (reason, column) = (reason(&error), error.column());
                (line, format!("{reason} (column {column}); every line is one object {EXAMPLE}"))
            }
            Stop::Own(reason) => (line, reason),
        })?;
        records.add(line, &entries, reader).map_err(|reason| (line, reason))?;
    }
    Ok(())
}

/// What is wrong with a document.
pub enum DocumentFlaw {
    /// A line, and what is wrong there.
    Line(Flaw),
    /// A pair, counted from 1, and what is wrong with it.
    Pair(Flaw),
}

/// Whether a text is more than one object: then there is one a line.
pub fn is_lines(text: &str) -> bool {
    if !text.trim_ascii_start().starts_with('{') {
        return false;
    }
    let mut values = Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let first_is_whole = matches!(values.next(), Some(Ok(_)));
    first_is_whole && !text[values.byte_offset()..].trim_ascii().is_empty()
}

/// Reads a document: a list of objects, an object that holds such a list, columns, or one record.
pub fn read_document(text: &str, reader: &mut Reader) -> Result<(), DocumentFlaw> {
    if text.trim_ascii().is_empty() {
        return Ok(());
    }
    if text.trim_ascii_start().starts_with('[') {
        return read_list(text, reader);
    }
    let entries = entries(text).map_err(|stop| match stop {
        Stop::Syntax(error) => syntax_flaw(text, &error),
        Stop::Own(reason) => DocumentFlaw::Line((1, reason)),
    })?;
    let of_list = |(name, value): &&(String, &RawValue)| {
        LISTS.contains(&normal(name).as_str()) && value.get().starts_with('[')
    };
    if let Some((name, list)) = entries.iter().find(of_list) {
        let others = entries.iter().filter(|(other, _)| other != name);
        others.for_each(|(other, _)| reader.pass_over(other));
        return read_list(list.get(), reader);
    }
    let is_column = |(name, value): &(String, &RawValue)| is_prompt(name) && is_column(value.get());
    if entries.iter().any(is_column) {
        return read_columns(&entries, reader).map_err(DocumentFlaw::Pair);
    }
    let mut records = Records::default();
    let record = records.add(1, &entries, reader);
    record.map_err(|reason| DocumentFlaw::Pair((1, reason)))
}

/// The line of a syntax error, and what is wrong there.
fn syntax_flaw(text: &str, error: &serde_json::Error) -> DocumentFlaw {
    let line = lines_of(text).nth(error.line().saturating_sub(1));
    let rest = line.and_then(|(_, line)| line.get(error.column().saturating_sub(1)..));
    let hint = match rest {
        Some(rest) if rest.starts_with("NaN") => "; JSON has no NaN: write null",
        _ => "",
    };
    let reason = format!("{} (column {}){hint}", reason(error), error.column());
    DocumentFlaw::Line((error.line().max(1), reason))
}

/// What the parser says, without the place.
fn reason(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    let (reason, _) = reason.rsplit_once(" at line ").unwrap_or((&reason, ""));
    shown(reason)
}

/// Whether a value is a column of texts or lists: an object from row to value, or a list that is not a list
/// of token ids.
fn is_column(value: &str) -> bool {
    let inside = value.get(1..).unwrap_or_default().trim_ascii_start();
    match value.as_bytes().first() {
        Some(b'{') => true,
        Some(b'[') => inside.starts_with(['"', '[']),
        _ => false,
    }
}

fn read_list(text: &str, reader: &mut Reader) -> Result<(), DocumentFlaw> {
    let mut records = Records::default();
    let mut number = 0;
    let walked = elements(text, &mut |value| {
        number += 1;
        let entries = entries(value.get()).map_err(|stop| match stop {
            Stop::Syntax(_) => format!("a pair must be an object {EXAMPLE}, and is {}", kind(value.get())),
            Stop::Own(reason) => reason,
        })?;
        records.add(number, &entries, reader)
    });
    walked.map_err(|stop| match stop {
        Stop::Own(reason) => DocumentFlaw::Pair((number, reason)),
        Stop::Syntax(error) => syntax_flaw(text, &error),
    })
}

/// Reads columns as pandas writes them: `{"clean": {"0": "…", "1": "…"}, …}`, or with lists.
fn read_columns(entries: &[(String, &RawValue)], reader: &mut Reader) -> Result<(), Flaw> {
    let mut names: Vec<String> = Vec::new();
    let mut columns: Vec<Vec<(String, &RawValue)>> = Vec::new();
    let read = |name: &String| is_known(name) || ["label", "year"].contains(&normal(name).as_str());
    for (name, value) in entries {
        if !read(name) {
            reader.pass_over(name);
            continue;
        }
        let mut column = Vec::new();
        let mut push = |key: String, value| {
            column.push((key, value));
            reader.check_count(column.len())
        };
        let mut number = 0;
        let walked = if value.get().starts_with('{') {
            objects(value.get(), &mut push)
        } else {
            elements(value.get(), &mut |value| {
                number += 1;
                push(number.to_string(), value)
            })
        };
        walked.map_err(|stop| match stop {
            Stop::Own(reason) => (1, reason),
            Stop::Syntax(_) => (
                1,
                format!("column \"{}\" is {}, and must be a list of values", shown(name), kind(value.get())),
            ),
        })?;
        let first = columns.first().unwrap_or(&column);
        let same_keys = first.len() == column.len() && first.iter().zip(&column).all(|(x, y)| x.0 == y.0);
        if !same_keys {
            let reason =
                format!("columns \"{}\" and \"{}\" have different rows", shown(&names[0]), shown(name));
            return Err((1, reason));
        }
        names.push(name.clone());
        columns.push(column);
    }
    let layout = reader.layout(&names).map_err(|reason| (1, reason))?;
    let n_rows = columns.first().map_or(0, Vec::len);
    for number in 1..=n_rows {
        let cell = |place: usize| cell(columns[place][number - 1].1);
        let row = Row { number, names: &names, layout: &layout, cell: &cell };
        reader.add(&row).map_err(|reason| (row.number, reason))?;
    }
    Ok(())
}

/// Adds objects to a reader. Most have the names of the object before, and so its layout.
#[derive(Default)]
struct Records {
    names: Vec<String>,
    layout: Option<Layout>,
}

impl Records {
    fn add(
        &mut self,
        number: usize,
        entries: &[(String, &RawValue)],
        reader: &mut Reader,
    ) -> Result<(), String> {
        if let Some(record) = mib::record(number, entries, reader)? {
            return reader.push(record);
        }
        let names = entries.iter().map(|(name, _)| name);
        if self.layout.is_none() || !names.clone().eq(&self.names) {
            self.names = names.cloned().collect();
            self.layout = None;
        }
        let layout = match &mut self.layout {
            Some(layout) => layout,
            none => none.insert(reader.layout(&self.names)?),
        };
        let cell = |place: usize| cell(entries[place].1);
        reader.add(&Row { number, names: &self.names, layout, cell: &cell })
    }
}

/// A value as a cell.
fn cell(value: &RawValue) -> Result<Cell<'static>, String> {
    let text = value.get();
    Ok(match text.as_bytes().first() {
        Some(b'"') => Cell::Text(Cow::Owned(string(text)?)),
        Some(b'[') => {
            let mut items = Vec::new();
            let walked = elements(text, &mut |value| {
                check_length(items.len() + 1)?;
                items.push(item(value.get())?);
                Ok(())
            });
            walked.map_err(|stop| match stop {
                Stop::Own(reason) => reason,
                Stop::Syntax(error) => shown(&error.to_string()),
            })?;
            Cell::List(items)
        }
        Some(b'n') => Cell::Empty,
        _ => number(text).map_or(Cell::Other(kind(text)), Cell::Id),
    })
}

fn item(text: &str) -> Result<Item, String> {
    match text.as_bytes().first() {
        Some(b'"') => string(text).map(Item::Text),
        _ => Ok(number(text).map_or(Item::Other(kind(text)), Item::Id)),
    }
}

/// A string of JSON as a text.
pub fn string(text: &str) -> Result<String, String> {
    serde_json::from_str(text).map_err(|error| shown(&error.to_string()))
}

/// A whole number; pandas writes a column in which one is missing with a point: `319.0`.
fn number(text: &str) -> Option<u32> {
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

/// What a value is, in words.
pub fn kind(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "true or false",
        Some(b'"') => "a text",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        _ if number(text).is_none() => "a number that is not a token id",
        _ => "a number",
    }
}

/// Why a walk has ended.
pub enum Stop {
    Syntax(serde_json::Error),
    /// What the visit found.
    Own(String),
}

/// The names and values of an object in order, double ones too.
pub fn entries(text: &str) -> Result<Vec<(String, &RawValue)>, Stop> {
    let mut entries = Vec::new();
    objects(text, &mut |name, value| {
        if entries.len() == MAX_COLUMNS {
            return Err(format!("it has more than {MAX_COLUMNS} columns"));
        }
        entries.push((name, value));
        Ok(())
    })?;
    Ok(entries)
}

/// Visits the entries of an object; nothing is kept of it.
fn objects<'a>(
    text: &'a str,
    visit: &mut dyn FnMut(String, &'a RawValue) -> Result<(), String>,
) -> Result<(), Stop> {
    walk(text, |own, deserializer| deserializer.deserialize_map(Entries { visit, own }))
}

/// Visits the elements of a list; nothing is kept of it.
pub fn elements<'a>(
    text: &'a str,
    visit: &mut dyn FnMut(&'a RawValue) -> Result<(), String>,
) -> Result<(), Stop> {
    walk(text, |own, deserializer| deserializer.deserialize_seq(Elements { visit, own }))
}

fn walk<'a>(
    text: &'a str,
    walk: impl FnOnce(&mut Option<String>, &mut Deserializer<StrRead<'a>>) -> serde_json::Result<()>,
) -> Result<(), Stop> {
    let mut own = None;
    let mut deserializer = Deserializer::from_str(text);
    let walked = walk(&mut own, &mut deserializer).and_then(|()| deserializer.end());
    match own {
        Some(reason) => Err(Stop::Own(reason)),
        None => walked.map_err(Stop::Syntax),
    }
}

/// An object to be visited; `own` is what the visit ends with if it fails.
struct Entries<'v, 'a> {
    visit: &'v mut dyn FnMut(String, &'a RawValue) -> Result<(), String>,
    own: &'v mut Option<String>,
}

impl<'a> Visitor<'a> for Entries<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some((name, value)) = map.next_entry()? {
            if let Err(reason) = (self.visit)(name, value) {
                *self.own = Some(reason);
                return Err(M::Error::custom(""));
            }
        }
        Ok(())
    }
}

/// A list to be visited, as [`Entries`].
struct Elements<'v, 'a> {
    visit: &'v mut dyn FnMut(&'a RawValue) -> Result<(), String>,
    own: &'v mut Option<String>,
}

impl<'a> Visitor<'a> for Elements<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut list: S) -> Result<(), S::Error> {
        while let Some(value) = list.next_element()? {
            if let Err(reason) = (self.visit)(value) {
                *self.own = Some(reason);
                return Err(S::Error::custom(""));
            }
        }
        Ok(())
    }
}
