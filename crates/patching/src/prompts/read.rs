//! Prompt sets out of files, in the forms in which other tools write them.
//!
//! # Files
//!
//! | ending | content |
//! |---|---|
//! | `.jsonl`, `.ndjson` | an object a line |
//! | `.json` | a list of objects; an object with such a list under `prompts`, `pairs`, `data`, `examples`, `samples`, `records` or `rows` (auto-circuit); columns, as pandas' `to_json` writes them; or an object a line (feature-circuits) |
//! | `.csv`, `.tsv` | a header and a record a line (RFC 4180). Commas, tabs, semicolons or bars separate the columns: whichever makes the most names in the header known, or what Excel's first line `sep=;` says |
//!
//! All are UTF-8, with or without a byte order mark, with any line ends, and blank lines anywhere.
//!
//! # Columns
//!
//! A column of a table is a key of an object. Upper and lower case are the same, and so are blanks, hyphens
//! and underscores. Columns of other names are passed over and named once in [`PromptSet::notes`]; two
//! columns of one role are refused.
//!
//! | role | names |
//! |---|---|
//! | clean prompt | clean, clean_prompt, clean_text, clean_input, clean_prefix, clean_sentence, prompt, text |
//! | corrupted prompt | corrupted, corrupt, each of them with _prompt, _text, _input, _prefix; corrupted_sentence, patch_prefix, counterfactual, counterfactual_prompt |
//! | `a`, answers that count positively (optional) | a, answer(s), correct, correct_answer(s), correct_token(s), clean_answer(s), right_answer(s) |
//! | `b`, answers that count negatively (optional) | b, wrong, wrong_answer(s), wrong_token(s), incorrect, incorrect_answer(s), incorrect_token(s), corrupted_answer(s), corrupt_answer(s), patch_answer(s), counterfactual_answer(s) |
//! | the same as token ids | prompts: the name with _ids, _token_ids, _input_ids; answers: with _id, _ids, _idx, _idxs, _token_id, _token_ids; country_idx (a) and corrupted_country_idx (b) of EAP-IG |
//!
//! Where a file has answers both as ids and as texts (`answers_idx` and `answers`), the ids are read, and
//! each text must begin with the token of its id.
//!
//! # Values
//!
//! - A prompt is a text, or a list of token ids in JSON. With `ids` it is token ids in any case, such as
//!   `464 3290`, `464,3290` or `[464, 3290]`.
//! - An answer is a text that is one token, with its space. A field of a table is a text even if it is a
//!   number: `319` in a column `a` is the text. A number of JSON is a token id.
//! - Several answers are a list of JSON; in a text, they are the list of JSON, Python or NumPy that the
//!   text is as a whole: `[" is", " has"]`, `['gem', 'gems']`, `[318, 468]`. (An answer that begins with [
//!   and ends with ] stands in quotes within a list.)
//! - No answer is an empty field, `NaN` or `nan` in a table, and null, an empty text or list in JSON.
//!
//! # What some names mean in the files of others
//!
//! - EAP-IG's greater-than files have a number below 100 in `correct_idx` (or `label`, or in MIB's `year`
//!   all four digits) and no wrong answers: a year. It is read as EAP-IG's metric reads it, where every
//!   prompt of the file confirms it: all later two-digit years against the others. Otherwise it is refused.
//! - EAP-IG's `plural` (subject-verb agreement) says which of two lists of verbs is right. The lists are not
//!   in the file, so it is passed over: such a file has no answers.
//! - MIB's records on the Hugging Face hub have a `prompt` and objects such as
//!   `s2_io_flip_counterfactual`. The prompt of the only one is the corrupted one, or of the one that
//!   MIB-circuit-track takes (s2_io_flip, symbol, random). The answers are, as there, the metadata's
//!   `indirect_object` and `subject` with a space in front; the labels that `answerKey` names; or `label`.
//! - `correct`, `incorrect` and `wrong` with true, false, 0 or 1, and numbers beside a column of `choices`,
//!   may say something else than which token is meant, and are refused.

use std::io;
use std::path::Path;

use files::encoding::{other_encoding, without_mark};
use visible::{visible_line, visible_start};

use self::cells::{Cell, Field};
use self::columns::{Column, Layout, Wanted};
use self::json::DocumentFlaw;
use super::{Answer, Error, Numbering, PromptPair, PromptSet, Prompts, Written};

mod cells;
mod columns;
mod json;
mod mib;
mod table;
mod years;

/// The longest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The most pairs that are read of a file.
const MAX_PAIRS: usize = 1_000_000;

/// The most answers that all pairs of a file may have together.
const MAX_ANSWERS: usize = 4_000_000;

/// How a file of pairs is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line: `{"clean": "…", "corrupted": "…", "a": " Smith", "b": " Jones"}`.
    Jsonl,
    /// A JSON document with a list of such objects; or an object a line.
    Json,
    /// Comma-separated values under a header with the names of the columns, in any order (RFC 4180:
    /// a text with a comma, a quote or a line break stands in quotes, with its quotes doubled). Another
    /// separator is found by the header.
    Csv,
    /// The same, with tabs unless the header has another separator.
    Tsv,
}

impl Format {
    /// The format that a file's name ends in: `.jsonl` or `.ndjson`, `.json`, `.csv`, `.tsv`.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            _ => None,
        }
    }
}

impl PromptSet {
    /// The pairs in a file, whose name says in which format they are. With `ids`, prompts and answers are
    /// token ids; without, those that the file says are.
    ///
    /// # Errors
    /// If the file cannot be read, is not a regular file, has more than 64 MiB or another ending than
    /// `.jsonl`, `.ndjson`, `.json`, `.csv` or `.tsv`, and as [`PromptSet::parse`].
    pub fn open(path: &Path, ids: bool) -> Result<Self, Error> {
        let name = path.display().to_string();
        let Some(format) = Format::of(path) else {
            let reason = "the name must say what the file holds: .jsonl (an object a line), .json (a list \
                          of objects), .csv or .tsv (a header, then a pair a line)";
            return Err(Error::File { name, reason: reason.to_owned() });
        };
        Self::parse(&name, &read_bytes(path)?, format, ids)
    }

    /// The pairs in the bytes of a file; `name` is what errors call it.
    ///
    /// # Errors
    /// If the bytes are not UTF-8, a record is not of the format, a prompt's column is missing, a column
    /// is there twice, a value is not of its column's kind or cannot be understood without doubt, or there
    /// are no pairs: with the line or pair, what was found and what was expected.
    pub fn parse(name: &str, bytes: &[u8], format: Format, ids: bool) -> Result<Self, Error> {
        let (records, notes, numbering) = records(name, bytes, format, Reader::new(ids, Wanted::Pairs))?;
        let pair = |record: Record| PromptPair {
            line: record.number,
            clean: record.clean,
            // The layout of pairs has both.
            corrupted: record.corrupted.unwrap_or_else(|| Written::Text(String::new())),
            a: record.a,
            b: record.b,
        };
        let pairs: Vec<PromptPair> = records.into_iter().map(pair).collect();
        if pairs.is_empty() {
            let reason = match format {
                Format::Jsonl => {
                    "it has no pairs: give a line such as {\"clean\": \"…\", \"corrupted\": \"…\", \
                     \"a\": \" Smith\", \"b\": \" Jones\"}"
                }
                Format::Json => {
                    "it has no pairs: give a list such as [{\"clean\": \"…\", \"corrupted\": \"…\", \
                     \"a\": \" Smith\", \"b\": \" Jones\"}]"
                }
                Format::Csv | Format::Tsv => {
                    "it has no pairs: give a header clean,corrupted,a,b and a line for every pair"
                }
            };
            return Err(Error::File { name: name.to_owned(), reason: reason.to_owned() });
        }
        Ok(Self { name: name.to_owned(), pairs, numbering, notes })
    }
}

impl Prompts {
    /// The prompts in a file: the clean ones of a file of pairs, which needs no other column, or the lines
    /// of any other file. With `ids` they are token ids.
    ///
    /// # Errors
    /// As [`PromptSet::open`] and [`Prompts::parse`].
    pub fn open(path: &Path, ids: bool) -> Result<Self, Error> {
        let name = path.display().to_string();
        Self::parse(&name, &read_bytes(path)?, Format::of(path), ids)
    }

    /// The prompts in the bytes of a file; without a format, a prompt a line. A byte order mark is not part
    /// of a prompt, and blank lines are passed over.
    ///
    /// # Errors
    /// As [`PromptSet::parse`]; with `ids`, if a line has anything but token ids.
    pub fn parse(name: &str, bytes: &[u8], format: Option<Format>, ids: bool) -> Result<Self, Error> {
        let (prompts, notes, numbering) = match format {
            Some(format) => {
                let (records, notes, numbering) =
                    records(name, bytes, format, Reader::new(ids, Wanted::Clean))?;
                let prompts = records.into_iter().map(|record| (record.number, record.clean));
                (prompts.collect(), notes, numbering)
            }
            None => (plain_lines(name, bytes, ids)?, Vec::new(), Numbering::Lines),
        };
        if prompts.is_empty() {
            let reason = "it contains no prompts: give one on each line, or a file of pairs";
            return Err(Error::File { name: name.to_owned(), reason: reason.to_owned() });
        }
        Ok(Self { name: name.to_owned(), prompts, numbering, notes })
    }
}

/// The lines of a file as prompts.
fn plain_lines(name: &str, bytes: &[u8], ids: bool) -> Result<Vec<(usize, Written)>, Error> {
    let text = text_of(name, bytes)?;
    let lines = lines_of(text).filter(|(_, line)| !line.trim().is_empty());
    let prompt = |(line, text): (usize, &str)| {
        if !ids {
            return Ok((line, Written::Text(text.to_owned())));
        }
        let ids = gpt2::tokenizer::parse_ids(text);
        ids.map(|ids| (line, Written::Ids(ids))).map_err(|reason| Error::Line {
            name: name.to_owned(),
            line,
            reason,
        })
    };
    lines.map(prompt).collect()
}

/// The bytes of a regular file of at most [`MAX_FILE_BYTES`].
fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |reason: String| Error::File { name: path.display().to_string(), reason };
    files::read(path, MAX_FILE_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => fail(format!("{error}: cut it into several")),
        _ => fail(format!("cannot read it: {error}")),
    })
}

/// The bytes of a file as text, without a byte order mark.
fn text_of<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Error> {
    if let Some(reason) = other_encoding(bytes) {
        return Err(Error::File { name: name.to_owned(), reason });
    }
    let bytes = without_mark(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let (good, bad) = bytes.split_at(error.valid_up_to());
        let good = std::str::from_utf8(good).unwrap_or_default();
        Error::Line {
            name: name.to_owned(),
            line: lines_of(good).count(),
            reason: format!(
                "not UTF-8: the byte 0x{:02x} cannot stand here; save the file as UTF-8",
                bad.first().copied().unwrap_or_default()
            ),
        }
    })
}

/// The lines of a text with their numbers, from 1. A line ends with `\n`, `\r\n` or `\r`; the last one may
/// be empty.
fn lines_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = Some(text);
    let lines = std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let (line, after) = text.split_at(end);
        rest = Some(after.strip_prefix("\r\n").unwrap_or(&after[1..]));
        Some(line)
    });
    (1..).zip(lines)
}

/// The records of a file, notes about it, and what their numbers count.
fn records(
    name: &str,
    bytes: &[u8],
    format: Format,
    mut reader: Reader,
) -> Result<(Vec<Record>, Vec<String>, Numbering), Error> {
    let text = text_of(name, bytes)?;
    let name = || name.to_owned();
    let in_line = |(line, reason): Flaw| Error::Line { name: name(), line, reason };
    let numbering = match format {
        Format::Json if !json::is_lines(text) => Numbering::Pairs,
        _ => Numbering::Lines,
    };
    match (format, numbering) {
        (_, Numbering::Pairs) => json::read_document(text, &mut reader).map_err(|flaw| match flaw {
            DocumentFlaw::Line(flaw) => in_line(flaw),
            DocumentFlaw::Pair((pair, reason)) => Error::Pair { name: name(), pair, reason },
        })?,
        (Format::Jsonl | Format::Json, _) => json::read_lines(text, &mut reader).map_err(in_line)?,
        (Format::Csv, _) => table::read(text, b',', &mut reader).map_err(in_line)?,
        (Format::Tsv, _) => table::read(text, b'\t', &mut reader).map_err(in_line)?,
    }
    let notes = reader.notes(&name());
    Ok((reader.records, notes, numbering))
}

/// A line, from 1, and what is wrong with it.
type Flaw = (usize, String);

/// A pair as it is read, or only its clean prompt.
struct Record {
    /// Its line or number, from 1.
    number: usize,
    clean: Written,
    corrupted: Option<Written>,
    a: Vec<Answer>,
    b: Vec<Answer>,
}

/// A record in the columns of a file.
struct Row<'r> {
    /// Its line or number, from 1.
    number: usize,
    names: &'r [String],
    layout: &'r Layout,
    /// The value in a place.
    cell: &'r dyn Fn(usize) -> Result<Cell<'r>, String>,
}

impl Row<'_> {
    fn prompt(&self, column: Column, ids: bool) -> Result<Written, String> {
        let field = self.field(column.place, ids || column.ids);
        field.prompt((self.cell)(column.place)?)
    }

    fn answers(&self, column: Option<Column>, ids: bool) -> Result<Vec<Answer>, String> {
        let Some(column) = column else {
            return Ok(Vec::new());
        };
        let cell = (self.cell)(column.place)?;
        if let Some(choices) = self.layout.choices.filter(|_| !ids)
            && (column.ids || matches!(cell, Cell::Id(_)))
        {
            return Err(format!(
                "column \"{}\" may hold places in \"{}\" and not token ids; write the answers as texts into \
                 columns a and b",
                shown(&self.names[column.place]),
                shown(&self.names[choices])
            ));
        }
        let answers = self.field(column.place, ids || column.ids).answers(cell)?;
        match column.text {
            None => Ok(answers),
            Some(text) => {
                let texts = self.field(text, false).answers((self.cell)(text)?)?;
                cells::with_texts(
                    answers,
                    texts,
                    [column.place, text].map(|place| self.names[place].as_str()),
                )
            }
        }
    }

    fn field(&self, place: usize, ids: bool) -> Field<'_> {
        Field { name: &self.names[place], ids }
    }
}

/// What is read of a file, record by record.
struct Reader {
    /// Whether all prompts and answers are token ids.
    ids: bool,
    wanted: Wanted,
    records: Vec<Record>,
    n_answers: usize,
    /// Whether the column that may contain years does: the first record with a number there decides.
    holds_years: Option<bool>,
    /// Names of columns that are not read, each once.
    passed_over: Vec<String>,
    notes: Vec<String>,
}

impl Reader {
    fn new(ids: bool, wanted: Wanted) -> Self {
        Self {
            ids,
            wanted,
            records: Vec::new(),
            n_answers: 0,
            holds_years: None,
            passed_over: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a record.
    fn add(&mut self, row: &Row<'_>) -> Result<(), String> {
        let layout = row.layout;
        let clean = row.prompt(layout.clean, self.ids)?;
        let corrupted = match layout.corrupted {
            Some(column) => Some(row.prompt(column, self.ids)?),
            None => None,
        };
        let [a, b] = match self.years(row, &clean)? {
            Some(answers) => answers,
            None => [row.answers(layout.a, self.ids)?, row.answers(layout.b, self.ids)?],
        };
        self.push(Record { number: row.number, clean, corrupted, a, b })
    }

    fn push(&mut self, record: Record) -> Result<(), String> {
        self.check_count(self.records.len() + 1)?;
        self.n_answers += record.a.len() + record.b.len();
        if self.n_answers > MAX_ANSWERS {
            return Err(format!(
                "up to here there are more than {MAX_ANSWERS} answers: cut the file into several"
            ));
        }
        self.records.push(record);
        Ok(())
    }

    fn check_count(&self, n: usize) -> Result<(), String> {
        match n {
            0..=MAX_PAIRS => Ok(()),
            _ => Err(format!("there are more than {MAX_PAIRS} pairs: cut the file into several")),
        }
    }

    /// The answers that a column of years stands for, if there is one and it holds years.
    fn years(&mut self, row: &Row<'_>, clean: &Written) -> Result<Option<[Vec<Answer>; 2]>, String> {
        let Some(column) = row.layout.years else {
            return Ok(None);
        };
        let name = &row.names[column.place];
        let number = years::number(&(row.cell)(column.place)?);
        let year = number.and_then(|number| years::year(clean, number));
        let may_be_year = number.is_some_and(|number| number < 100);
        let holds_years = match (self.holds_years, number) {
            (Some(known), _) => known,
            (None, None) => false,
            (None, Some(_)) => *self.holds_years.insert(year.is_some()),
        };
        match (year, holds_years) {
            (Some(99), true) => Err(format!("column \"{name}\": there is no two-digit year after 99")),
            (Some(year), true) => {
                self.note(format!(
                    "column {name} holds years, as in EAP-IG's greater-than files: a is every later \
                     two-digit year, b every other"
                ));
                Ok(Some(years::answers(year)))
            }
            _ if self.ids => Ok(None),
            (None, true) => Err(unclear_year(name, number)),
            (_, false) if column.is_answer && may_be_year => Err(unclear_year(name, number)),
            (_, false) => {
                if !column.is_answer {
                    self.pass_over(name);
                }
                Ok(None)
            }
        }
    }

    /// The layout of a record with columns of these names.
    fn layout(&mut self, names: &[String]) -> Result<Layout, String> {
        let layout = Layout::of(names, self.wanted)?;
        let passed_over = layout.passed_over.iter();
        passed_over.for_each(|&place| self.pass_over(&names[place]));
        Ok(layout)
    }

    /// Remembers that a column is not read.
    fn pass_over(&mut self, name: &str) {
        const MOST: usize = 1000;
        let name = match name.trim() {
            "" => "(without a name)".to_owned(),
            _ => shown(name),
        };
        if self.passed_over.len() < MOST && !self.passed_over.contains(&name) {
            self.passed_over.push(name);
        }
    }

    /// Adds a note about the file, once.
    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// All notes about the file.
    fn notes(&self, name: &str) -> Vec<String> {
        const SHOWN: usize = 20;
        let mut notes = self.notes.clone();
        let passed_over = &self.passed_over;
        if !passed_over.is_empty() {
            let mut names = passed_over[..passed_over.len().min(SHOWN)].join(", ");
            if passed_over.len() > SHOWN {
                names += &format!(" and {} more", passed_over.len() - SHOWN);
            }
            notes.push(format!("columns passed over: {names}"));
        }
        let has_answers = self.n_answers > 0 || self.wanted == Wanted::Clean;
        if !has_answers && passed_over.iter().any(|name| columns::normal(name) == "plural") {
            notes.push(
                "column plural says whether singular or plural verbs are right, not which: give the verbs \
                 as lists in columns a and b"
                    .to_owned(),
            );
        }
        notes.iter().map(|note| format!("{}: {note}", visible_line(name))).collect()
    }
}

/// The message for a number that is not clearly a year or a token id.
fn unclear_year(name: &str, number: Option<u32>) -> String {
    let number = number.map_or_else(|| "no number".to_owned(), |number| number.to_string());
    format!(
        "column \"{}\" is {number}: in EAP-IG's greater-than files it is a year, elsewhere a token id, and the \
         prompts of this file do not tell which; for token ids call the column a_ids, for years give the \
         tokens as lists in columns a and b",
        shown(name)
    )
}

/// A text out of a file as a message can show it: in one line, and not too long.
fn shown(text: &str) -> String {
    visible_start(text, 80)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const FORMATS: [Format; 4] = [Format::Jsonl, Format::Json, Format::Csv, Format::Tsv];

    fn pair(line: usize, texts: [&str; 4]) -> PromptPair {
        PromptPair::of_texts(line, texts.map(str::to_owned))
    }

    fn texts<const N: usize>(texts: [&str; N]) -> Vec<Answer> {
        texts.map(|text| Answer::Text(text.to_owned())).to_vec()
    }

    #[track_caller]
    fn set(text: impl AsRef<[u8]>, format: Format) -> PromptSet {
        let set = PromptSet::parse("pairs", text.as_ref(), format, false);
        set.unwrap_or_else(|e| panic!("{e}"))
    }

    #[track_caller]
    fn parsed(text: impl AsRef<[u8]>, format: Format) -> Vec<PromptPair> {
        set(text, format).pairs
    }

    #[track_caller]
    fn assert_error(text: impl AsRef<[u8]>, format: Format, message: &str) {
        let error = PromptSet::parse("pairs", text.as_ref(), format, false).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(message), "no «{message}» in: {error}");
    }

    #[test]
    fn both_formats_give_the_same_pairs_with_their_lines() {
        let json = r#"
{"clean": "A, b", "corrupted": "A \"c\"", "a": " x", "b": " y"}

{"b": " y", "a": "", "corrupted": "two\nlines", "clean": "é"}"#;
        let expected = |lines: [usize; 2]| {
            let no_answer = PromptPair { a: vec![], ..pair(lines[1], ["é", "two\nlines", "", " y"]) };
            vec![pair(lines[0], ["A, b", "A \"c\"", " x", " y"]), no_answer]
        };
        assert_eq!(parsed(json, Format::Jsonl), expected([2, 4]));
        let csv = "b,a,clean,corrupted\n y, x,\"A, b\",\"A \"\"c\"\"\"\n\n y,,é,\"two\nlines\"\n";
        assert_eq!(parsed(csv, Format::Csv), expected([2, 4]));
    }

    /// One pair in the forms of pandas, Excel and others; the files' ends say which.
    #[test]
    fn one_pair_is_the_same_in_every_form() {
        let quoted = "\"When Mary, John\",\"When John, Mary\", Mary, John";
        let (header, csv) = ("clean,corrupted,a,b", Format::Csv);
        let tabs = "When Mary, John\tWhen John, Mary\t Mary\t John";
        let semicolons = tabs.replace('\t', ";");
        let object =
            r#"{"clean": "When Mary, John", "corrupted": "When John, Mary", "a": " Mary", "b": " John"}"#;
        let renamed = |names: [&str; 4]| {
            let columns = ["\"clean\"", "\"corrupted\"", "\"a\"", "\"b\""].into_iter().zip(names);
            columns.fold(object.to_owned(), |object, (from, to)| object.replace(from, &format!("\"{to}\"")))
        };
        let in_lists = object.replace("\" Mary\"", "[\" Mary\"]").replace("\" John\"}", "[\" John\"]}");
        let in_columns = |[open, close]: [&str; 2]| {
            let texts = ["When Mary, John", "When John, Mary", " Mary", " John"];
            let columns = ["clean", "corrupted", "a", "b"].into_iter().zip(texts);
            let columns = columns.map(|(name, text)| format!("\"{name}\": {open}\"{text}\"{close}"));
            format!("{{{}}}", columns.collect::<Vec<_>>().join(", "))
        };
        let auto_circuit = renamed(["clean", "corrupt", "answers", "wrong_answers"]);
        for (text, format) in [
            (format!("{header}\n{quoted}"), csv),
            (format!("\u{feff}{header}\r\n{quoted}\r\n\r\n"), csv),
            (format!(",{header},template\n17,{quoted},3\n"), csv),
            (format!("Unnamed: 0,{header}\n17,{quoted}\n"), csv),
            (format!("{header},,\n{quoted},,\n,,,,,\n   \n"), csv),
            (format!("Clean, CORRUPT,Correct_Answer ,wrong-answer\n{quoted}"), csv),
            (format!("{}\n{tabs}\n", header.replace(',', "\t")), csv),
            (format!("{}\n{tabs}\n", header.replace(',', "\t")), Format::Tsv),
            (format!("{}\n{semicolons}\n", header.replace(',', ";")), csv),
            (format!("sep=;\r\n{}\r\n{semicolons}\r\n", header.replace(',', ";")), csv),
            (format!("sep=#\n{}\n{}\n", header.replace(',', "#"), tabs.replace('\t', "#")), csv),
            (format!("{header}\n{}", quoted.replace(", Mary, John", ",[' Mary'],\"[\"\" John\"\"]\"")), csv),
            (object.to_owned(), Format::Jsonl),
            (in_lists.clone(), Format::Jsonl),
            (format!("{{\"idx\": 4, {}", &object[1..]), Format::Jsonl),
            (
                renamed(["clean_prefix", "patch_prefix", "clean_answer", "patch_answer"]) + "\n\n",
                Format::Json,
            ),
            (object.to_owned(), Format::Json),
            (in_lists.clone(), Format::Json),
            (format!(" [{object}]"), Format::Json),
            (
                format!(
                    "{{\"seq_labels\": [\"x\"], \"word_idxs\": {{\"x\": 1}}, \"prompts\": [\n{auto_circuit}\n]}}"
                ),
                Format::Json,
            ),
            (in_columns(["{\"5\": ", "}"]), Format::Json),
            (in_columns(["[", "]"]), Format::Json),
        ] {
            let pairs = parsed(&text, format);
            let [found] = &pairs[..] else {
                panic!("{text}: {pairs:?}");
            };
            let expected = pair(found.line, ["When Mary, John", "When John, Mary", " Mary", " John"]);
            assert_eq!(*found, expected, "{text}");
        }
    }

    #[test]
    fn columns_passed_over_are_named_once() {
        let csv = ",clean,corrupted,plural,template\n0,1,2,3,4\n1,1,2,3,4\n";
        let notes = set(csv, Format::Csv).notes;
        assert_eq!(notes[0], "pairs: columns passed over: (without a name), plural, template");
        assert!(notes[1].starts_with("pairs: column plural says whether singular or plural verbs"));
        let line = r#"{"clean": "1", "corrupted": "2", "idx": 0}"#;
        let other = r#"{"clean": "1", "note": null, "corrupted": "2", "a": "3", "b": "4"}"#;
        let set = set([line, other, line].join("\n"), Format::Jsonl);
        assert_eq!(set.notes, ["pairs: columns passed over: idx, note"]);
        assert_eq!((&set.pairs[0].a, &set.pairs[1].a), (&vec![], &texts(["3"])));
        let many: Vec<String> = (0..30).map(|i| format!("c{i}")).collect();
        let csv = format!("clean,corrupted,{}\n1,2{}\n", many.join(","), ",".repeat(30));
        let [note] = &self::set(csv, Format::Csv).notes[..] else {
            panic!();
        };
        assert!(note.ends_with("c18, c19 and 10 more"), "{note}");
    }

    #[test]
    fn answers_may_be_missing_sets_or_ids() {
        let csv = "clean,corrupted,a,b_idx\n1,2,NaN,\n1,2,\"[' x', ' y']\",319.0\n1,2,319,\"319, 287\"\n";
        let pairs = parsed(csv, Format::Csv);
        let answers: Vec<_> = pairs.iter().map(|pair| (pair.a.clone(), pair.b.clone())).collect();
        let expected = [
            (vec![], vec![]),
            (texts([" x", " y"]), vec![Answer::Id(319)]),
            (texts(["319"]), vec![Answer::Id(319), Answer::Id(287)]),
        ];
        assert_eq!(answers, expected);
        let json = r#"{"clean": [464, 3290], "corrupted": "2", "a": 319, "b": [287, " x"]}"#;
        let pair = &parsed(json, Format::Json)[0];
        assert_eq!(pair.clean, Written::Ids(vec![464, 3290]));
        assert_eq!(pair.a, [Answer::Id(319)]);
        assert_eq!(pair.b, [Answer::Id(287), Answer::Text(" x".to_owned())]);
    }

    #[test]
    fn with_ids_everything_is_token_ids() {
        let csv = "clean,corrupted,a,b\n464 3290,\"[464, 3797]\",319,287\n";
        let json = r#"{"clean": "464,3290", "corrupted": [464, 3797], "a": ["319"], "b": 287}"#;
        for (text, format) in [(csv, Format::Csv), (json, Format::Jsonl)] {
            let set = PromptSet::parse("pairs", text.as_bytes(), format, true).unwrap();
            let pair = &set.pairs[0];
            assert_eq!(pair.clean, Written::Ids(vec![464, 3290]));
            assert_eq!(pair.corrupted, Written::Ids(vec![464, 3797]));
            assert_eq!((&pair.a[..], &pair.b[..]), (&[Answer::Id(319)][..], &[Answer::Id(287)][..]));
        }
        let error = PromptSet::parse("pairs", b"clean,corrupted\nThe dog,1\n", Format::Csv, true);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("pairs, line 2: column \"clean\" holds token ids: \"The\""), "{error}");
    }

    /// The columns of EAP-IG's files (hannamw/eap-ig-faithfulness, `data/`), each with a row of one.
    #[test]
    fn eap_igs_files_are_read_as_its_code_reads_them() {
        let answers = |csv: &str| {
            let pair = parsed(csv, Format::Csv).remove(0);
            (pair.a, pair.b)
        };
        let named = |id, text: &str| Answer::Named { id, text: text.to_owned() };
        let ioi = ",clean,corrupted,corrupted_hard,correct_idx,incorrect_idx\n\
                   826,\"When Amy and Laura got, Laura gave to\",\"When, Nicholas to\",\"When, Amy to\",14235,16753\n";
        assert_eq!(answers(ioi), (vec![Answer::Id(14235)], vec![Answer::Id(16753)]));
        let gender = "clean,corrupted,clean_answer_idx,corrupted_answer_idx,label\n\
                      The poet was promoted because,The man was promoted because,673,339,0\n";
        assert_eq!(answers(gender), (vec![Answer::Id(673)], vec![Answer::Id(339)]));
        let facts = "clean,capital,country,country_idx,corrupted,corrupted_capital,corrupted_country,corrupted_country_idx\n\
                     \" Kabul, the capital of\",Kabul,Afghanistan,8037,\" London, the capital of\",London,United Kingdom,1578\n";
        assert_eq!(answers(facts), (vec![named(8037, "Afghanistan")], vec![named(1578, "United Kingdom")]));
        let hypernymy = "clean,h1,hypernym,answers,answers_idx,corrupted,c1,corrupted_hypernym,corrupted_answers,corrupted_answers_idx\n\
                         \", gemstones and other\",gemstones,gem,\"['gem', 'gems']\",\"[16840, 23685]\",\
                         \", vice presidents and other\",vice presidents,politician,\"['elected', 'politicians']\",\"[7018, 7602]\"\n";
        let expected = (
            vec![named(16840, "gem"), named(23685, "gems")],
            vec![named(7018, "elected"), named(7602, "politicians")],
        );
        assert_eq!(answers(hypernymy), expected);
        let agreement = "clean,corrupted,group,plural\nThe poems that the skater likes,The poem that the skater likes,ML,1\n";
        assert_eq!(answers(agreement), (vec![], vec![]));
    }

    #[test]
    fn years_are_answers_only_where_the_prompts_confirm_them() {
        let csv = |header: &str, rows: &[&str]| {
            let row = |year: &&str| {
                format!(
                    "The war lasted from the year 1352 to the year 13,The war lasted from the year 1301 to the year 13,{year}\n"
                )
            };
            let rows: String = rows.iter().map(row).collect();
            format!("clean,corrupted,{header}\n{rows}")
        };
        for (header, year) in [("correct_idx", "52"), ("label", "52"), ("year", "1352")] {
            let set = set(csv(header, &[year, year]), Format::Csv);
            let pair = &set.pairs[1];
            assert_eq!((pair.a.len(), pair.b.len()), (47, 53), "{header}");
            assert_eq!((&pair.a[..1], &pair.b[..1]), (&texts(["53"])[..], &texts(["00"])[..]));
            assert_eq!(pair.b[52], Answer::Text("52".to_owned()));
            let note = format!("pairs: column {header} holds years, as in EAP-IG's");
            assert!(set.notes.len() == 1 && set.notes[0].starts_with(&note), "{:?}", set.notes);
        }
        // Token ids, of which none can be a year of two digits.
        let ids = parsed(csv("correct_idx", &["319", "287"]), Format::Csv);
        assert_eq!((&ids[0].a, &ids[0].b), (&vec![Answer::Id(319)], &vec![]));
        for (header, years, line) in [
            ("correct_idx", &["53"][..], 2),
            ("correct_idx", &["52", "53"], 3),
            ("correct_idx", &["52", "319"], 3),
            ("correct_idx", &["52", ""], 3),
            ("correct_idx", &["319", "52"], 3),
            ("label", &["52", "1"], 3),
        ] {
            let message = format!("pairs, line {line}: column \"{header}\" is ");
            assert_error(csv(header, years), Format::Csv, &message);
        }
        let text = csv("correct_idx", &["99"]).replace("1352", "1399");
        assert_error(text, Format::Csv, "pairs, line 2: column \"correct_idx\": there is no two-digit year");
        // A label that is not a year is passed over.
        let set = set(csv("label", &["1", "52"]), Format::Csv);
        assert_eq!(set.notes, ["pairs: columns passed over: label"]);
        assert_eq!(set.pairs[1].a, []);
    }

    /// As MIB-circuit-track's HFEAPDataset reads rows of mib-bench's data.
    #[test]
    fn mibs_records_have_the_answers_that_its_code_takes() {
        let ioi = r#"{"prompt": "Mary and John; John gave to", "template": "t",
            "metadata": {"subject": "John", "indirect_object": "Mary", "object": "ring"},
            "choices": ["Mary", "John"], "answerKey": 0,
            "abc_counterfactual": {"prompt": "Ann and Bob; Carl gave to", "choices": [], "answerKey": 0},
            "s2_io_flip_counterfactual": {"prompt": "Mary and John; Mary gave to", "choices": ["Mary", "John"], "answerKey": 1}}"#;
        let ioi = ioi.replace('\n', " ");
        let set = set(&ioi, Format::Jsonl);
        let expected =
            pair(1, ["Mary and John; John gave to", "Mary and John; Mary gave to", " Mary", " John"]);
        assert_eq!(set.pairs, [expected]);
        assert_eq!(
            set.notes,
            [
                "pairs: the corrupted prompts are those of s2_io_flip_counterfactual, which MIB's code takes",
                "pairs: columns passed over: template, abc_counterfactual"
            ]
        );
        let choice = r#"{"prompt": "A or B? Answer:", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": 1,
            "randomLetter_counterfactual": {"prompt": "?"},
            "symbol_counterfactual": {"prompt": "K or L? Answer:", "choices": {"label": ["K", "L"]}, "answerKey": 0}}"#;
        let expected = pair(1, ["A or B? Answer:", "K or L? Answer:", "B", "K"]);
        assert_eq!(parsed(format!("[{choice}]"), Format::Json), [expected]);
        // The numbers of sums are texts, as Python's str writes them.
        let sum = r#"{"prompt": "2 + 3 =", "operator": "+", "label": 5, "random_counterfactual": {"prompt": "2 + 6 =", "label": 8}}"#;
        assert_eq!(parsed(sum, Format::Jsonl), [pair(1, ["2 + 3 =", "2 + 6 =", "5", "8"])]);
        for (line, message) in [
            (
                sum.replace("{\"prompt\": \"2 + 6 =\", \"label\": 8}", "null"),
                "\"random_counterfactual\" is null; MIB's",
            ),
            (sum.replace("\"prompt\": \"2 + 6 =\",", ""), "\"random_counterfactual\" has no key \"prompt\""),
            (
                choice.replace("symbol_", "x_").replace('\n', " "),
                "there are several counterfactuals (randomLetter_counterfactual, x_counterfactual)",
            ),
            (
                choice.replace("\"answerKey\": 1", "\"answerKey\": 2").replace('\n', " "),
                "answerKey 2 is not a place in choices.label",
            ),
        ] {
            assert_error(line, Format::Jsonl, &format!("pairs, line 1: {message}"));
        }
    }

    #[test]
    fn what_cannot_be_understood_beyond_doubt_is_refused() {
        for (line, message) in [
            (r#""a": 0, "choices": ["x", "y"]"#, "column \"a\" may hold places in \"choices\""),
            (r#""answer_idx": "1", "options": []"#, "column \"answer_idx\" may hold places in \"options\""),
            (r#""correct": true"#, "column \"correct\" is true or false, and must be"),
            (r#""correct": 1"#, "column \"correct\" seems to say whether something is right"),
            (r#""answers": [[1], [2]]"#, "column \"answers\" is a list with a list in it"),
            (r#""a": 1.5"#, "column \"a\" is a number that is not a token id"),
            (
                r#""answers": ["x"], "answers_idx": [1, 2]"#,
                "columns \"answers_idx\" and \"answers\" hold the same answers, but 2 ids and 1 texts",
            ),
            (r#""a": "[UNK]""#, "column \"a\" begins with [ and ends with ], but is not a list"),
        ] {
            let line = format!("{{\"clean\": \"1\", \"corrupted\": \"2\", {line}}}");
            assert_error(&line, Format::Jsonl, &format!("pairs, line 1: {message}"));
            assert_error(format!("[{line}]"), Format::Json, &format!("pairs, pair 1: {message}"));
        }
        // auto-circuit's toy models take numbers that are not tokens.
        let toy = r#"{"prompts": [{"clean": [[3.0, 3.0]], "corrupt": [[1.0, 1.0]], "answers": [0], "wrong_answers": [1]}]}"#;
        assert_error(toy, Format::Json, "pairs, pair 1: column \"clean\" is a list with a list in it");
    }

    #[test]
    fn a_byte_order_mark_and_any_line_ends_are_taken() {
        let csv = "clean,corrupted,a,b\n1,2, x, y\n3,\"4\n\",5,6\n7,8,9,0";
        let windows = format!("\u{feff}{}", csv.replace('\n', "\r\n"));
        let old_mac = csv.replace('\n', "\r");
        for (text, line_end) in [(csv, "\n"), (&windows, "\r\n"), (&old_mac, "\r")] {
            let expected = [
                pair(2, ["1", "2", " x", " y"]),
                pair(3, ["3", &format!("4{line_end}"), "5", "6"]),
                pair(5, ["7", "8", "9", "0"]),
            ];
            assert_eq!(parsed(text, Format::Csv), expected, "{text:?}");
        }
        let json = "\u{feff}\r\n{\"clean\":\"1\",\"corrupted\":\"2\",\"a\":\"3\",\"b\":\"4\"}\r\n\r\n";
        assert_eq!(parsed(json, Format::Jsonl), [pair(2, ["1", "2", "3", "4"])]);
    }

    #[test]
    fn a_line_that_is_no_pair_is_named_with_what_was_expected() {
        let good = r#"{"clean": "1", "corrupted": "2", "a": "3", "b": "4"}"#;
        for (line, message) in [
            (
                r#"{"clean": "1", "a": "2", "b": "3"}"#,
                "column \"corrupted\" is missing; the columns here are \"clean\", \"a\", \"b\"; it may",
            ),
            (
                r#"{"clean": "1", "corupted": "2"}"#,
                "column \"corrupted\" is missing (is it \"corupted\"?); the columns here are",
            ),
            (
                r#"{"zzz": "1"}"#,
                "column \"clean\" is missing; the columns here are \"zzz\"; it may be called clean, ",
            ),
            ("{}", "column \"clean\" is missing; the columns here are none"),
            (r#"{"clean": "1", "clean": "2"}"#, "column \"clean\" is there twice"),
            (
                r#"{"clean": 1, "corrupted": "2", "a": "3", "b": "4"}"#,
                "column \"clean\" is a number, and must be a text",
            ),
            (
                r#"{"clean": "1", "corrupted": "2", "a": {}, "b": "4"}"#,
                "column \"a\" is an object, and must be a text",
            ),
            (
                r#"["1", "2"]"#,
                "invalid type: sequence, expected an object (column 0); every line is one object",
            ),
            (r#"{"clean": "1"#, "EOF while parsing a string (column 12); every line"),
            (&format!("{good} {good}"), "trailing characters (column 54)"),
            (&"[".repeat(100_000), "invalid type: sequence"),
            (&format!("{{\"clean\": {}", "[".repeat(100_000)), "EOF while parsing"),
            (&format!("{{{}\"clean\": 1}}", "\"x\": 1, ".repeat(1000)), "it has more than 1000 columns"),
        ] {
            let message = format!("pairs, line 3: {message}");
            assert_error(format!("{good}\n\n{line}\n{good}"), Format::Jsonl, &message);
        }
        for (line, message) in [
            ("1,2,3", "it has 3 fields where the header has 4; a text with a comma"),
            ("Hello, world,2,3,4", "it has 5 fields"),
            ("1,2,3,\"4", "a quote is opened here and never closed"),
            ("1,2,\"3\"x,4", "text after a closing quote"),
        ] {
            let message = format!("pairs, line 4: {message}");
            let text = format!("clean,corrupted,a,b\n1,2,\"3\n\",4\n{line}\n");
            assert_error(text, Format::Csv, &message);
        }
        for (header, message) in [
            ("clean,corupted,a,b", "column \"corrupted\" is missing (is it \"corupted\"?)"),
            ("corrupted,a,b,c", "column \"clean\" is missing; the columns here"),
            ("clean,corrupted,a,a", "column \"a\" is there twice"),
        ] {
            let message = format!("pairs, line 2: the header: {message}");
            assert_error(format!("\n{header}\n1,2,3,4\n"), Format::Csv, &message);
        }
        let header = format!("clean,corrupted{}", ",x".repeat(1000));
        assert_error(header, Format::Csv, "pairs, line 1: the header: it has more than 1000 columns");
        assert_error(
            "sep=ab\nclean,corrupted\n",
            Format::Csv,
            "pairs, line 1: \"sep=ab\" names no separator",
        );
    }

    #[test]
    fn a_flaw_in_a_document_is_named_by_line_or_by_pair() {
        let good = r#"{"clean": "1", "corrupted": "2"}"#;
        for (text, message) in [
            (
                format!("[{good},\n{good},\n{{\"clean\": NaN}}]"),
                "pairs, line 3: expected value (column 11); JSON has no NaN: write null",
            ),
            (format!("[{good},\n"), "pairs, line 2: EOF while parsing a value"),
            (format!("[{good}] x"), "pairs, line 1: trailing characters"),
            (format!("[{good}, {good}, {{}}]"), "pairs, pair 3: column \"clean\" is missing"),
            (format!("[{good}, []]"), "pairs, pair 2: a pair must be an object {"),
            (format!("{{\"data\": [{good}, 5]}}"), "pairs, pair 2: a pair must be an object {"),
            (
                r#"{"clean": ["1"], "corrupted": ["1", "2"]}"#.to_owned(),
                "pairs, pair 1: columns \"clean\" and \"corrupted\" have different rows",
            ),
            (
                r#"{"clean": {"0": "1"}, "corrupted": {"1": "1"}}"#.to_owned(),
                "pairs, pair 1: columns \"clean\" and \"corrupted\" have",
            ),
            (
                r#"{"clean": ["1"], "corrupted": "2"}"#.to_owned(),
                "pairs, pair 1: column \"corrupted\" is a text, and must be a list of values",
            ),
            ("5".to_owned(), "pairs, line 1: invalid type: integer `5`, expected an object"),
            ("[]".to_owned(), "pairs: it has no pairs: give a list"),
            ("{\"prompts\": []}".to_owned(), "pairs: it has no pairs: give a list"),
            (format!("{good}\n{good} {{}}"), "pairs, line 2: trailing characters (column 34); every line"),
        ] {
            assert_error(text, Format::Json, message);
        }
    }

    #[test]
    fn what_is_no_text_or_holds_no_pairs_is_refused_as_a_whole() {
        for format in FORMATS {
            for empty in ["", "\n\n", "\u{feff}", "\r\n"] {
                assert_error(empty, format, "pairs: it has no pairs: give");
            }
            for utf16 in [&b"\xff\xfe{\0"[..], b"c\0l\0e\0", b"\0c\0l\0e"] {
                assert_error(utf16, format, "pairs: it is written in UTF-16; save it as UTF-8 (Excel");
            }
            assert_error(
                b"\n\r\nab\xe9\n",
                format,
                "pairs, line 3: not UTF-8: the byte 0xe9 cannot stand here",
            );
        }
        assert_error("clean,corrupted,a,b\n", Format::Csv, "pairs: it has no pairs");
    }

    #[test]
    fn a_huge_line_is_read_or_shown_in_short() {
        let long = "x".repeat(5 << 20);
        let csv = format!("clean,corrupted,a,b\n{long},2,3,4\n");
        assert_eq!(parsed(csv, Format::Csv)[0].clean, Written::Text(long.clone()));
        let error = PromptSet::parse("pairs", format!("{long},a").as_bytes(), Format::Csv, false);
        assert!(error.unwrap_err().to_string().len() < 500);
    }

    #[test]
    fn no_more_pairs_or_answers_are_kept_than_a_sweep_could_use() {
        let csv = format!("clean,corrupted\n{}", "a,b\n".repeat(MAX_PAIRS + 1));
        let message = format!("pairs, line {}: there are more than 1000000 pairs", MAX_PAIRS + 2);
        assert_error(csv, Format::Csv, &message);
        let list = format!("[{}1]", "1,".repeat(1_000_000));
        let line = format!("{{\"clean\": \"1\", \"corrupted\": \"2\", \"a\": {list}}}");
        assert_error(line, Format::Jsonl, "pairs, line 1: a list has more than 1000000 entries");
    }

    #[test]
    fn prompts_alone_are_lines_or_the_clean_ones_of_pairs() {
        let prompts = |text: &str, format| Prompts::parse("others", text.as_bytes(), format, false).unwrap();
        let expected = |lines: [usize; 2]| {
            let texts = ["The big red dog ran home", " Nobody knows why"];
            lines.into_iter().zip(texts.map(|text| Written::Text(text.to_owned()))).collect::<Vec<_>>()
        };
        let lines = "The big red dog ran home\n Nobody knows why\n";
        for text in [lines, &format!("\u{feff}{lines}"), &lines.replace('\n', "\r\n")] {
            assert_eq!(prompts(text, None).prompts, expected([1, 2]), "{text:?}");
        }
        let blanks = lines.replace('\n', "\n \t\n\n").replace('\n', "\r");
        assert_eq!(prompts(&blanks, None).prompts, expected([1, 4]));
        let json = r#"[{"text": "The big red dog ran home", "a": 5.5}, {"text": " Nobody knows why"}]"#;
        let found = prompts(json, Some(Format::Json));
        assert_eq!((found.prompts, found.numbering), (expected([1, 2]), Numbering::Pairs));
        let csv = format!("clean,corrupted,note\n{}", lines.replace('\n', ",x,y\n"));
        let found = prompts(&csv, Some(Format::Csv));
        assert_eq!(found.prompts, expected([2, 3]));
        assert_eq!(found.notes, ["others: columns passed over: note"]);
        let ids = Prompts::parse("others", b"464 3290\n\n5,6\n", None, true).unwrap();
        assert_eq!(ids.prompts, [(1, Written::Ids(vec![464, 3290])), (3, Written::Ids(vec![5, 6]))]);
        for (bytes, ids, message) in [
            (&b"5\nfive\n"[..], true, "others, line 2: \"five\" is not a token id"),
            (b" \n\t\r\n", false, "others: it contains no prompts"),
            (b"\xff\xfea\0", false, "others: it is written in UTF-16"),
            (b"a\n\xe9", false, "others, line 2: not UTF-8: the byte 0xe9"),
        ] {
            let error = Prompts::parse("others", bytes, None, ids).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_file_is_opened_by_its_ending_and_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.CSV");
        fs::write(&path, "clean,corrupted,a,b\n1,2,3,4\n").unwrap();
        assert_eq!(PromptSet::open(&path, false).unwrap().pairs.len(), 1);
        assert_eq!(Prompts::open(&path, false).unwrap().prompts.len(), 1);
        fs::create_dir(folder.path().join("folder.csv")).unwrap();
        for (name, message) in [
            ("pairs.txt", "pairs.txt: the name must say what the file holds"),
            ("none.jsonl", "none.jsonl: cannot read it: No such file"),
            ("folder.csv", "folder.csv: cannot read it: it is a folder"),
        ] {
            let error = PromptSet::open(&folder.path().join(name), false).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        #[cfg(unix)]
        {
            let error = Prompts::open(Path::new("/dev/zero"), false).unwrap_err();
            assert_eq!(error.to_string(), "/dev/zero: cannot read it: it is not a regular file");
        }
    }

    proptest! {
        /// Bytes, and texts that are nearly files of pairs, give pairs or one short message.
        #[test]
        fn no_file_makes_the_reader_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            text in "(\\[|\\]|\\{|\\}|\"|'|,|;|\t|:|\n|\r|\\\\|clean|corrupt|\"a\"|correct_idx|label|_idx|prompt|_counterfactual|prompts|choices|answerKey|metadata|sep=|[0-9]{1,4}|null|é|\u{feff}| ){0,30}",
            ids in any::<bool>(),
        ) {
            let header = "clean,corrupted,a,b_idx,correct\n";
            let object = format!("{{\"clean\": {text}, \"corrupted\": \"x\", \"a\": {text}}}");
            let counterfactual = format!("{{\"prompt\": \"1\", \"x_counterfactual\": {{{text}}}, \"metadata\": {text}}}");
            for bytes in [bytes, text.clone().into_bytes(), (header.to_owned() + &text).into_bytes(), object.into_bytes(), counterfactual.into_bytes()] {
                for format in FORMATS {
                    match PromptSet::parse("pairs", &bytes, format, ids) {
                        Ok(set) => {
                            prop_assert!(!set.pairs.is_empty());
                            let numbers: Vec<usize> = set.pairs.iter().map(|pair| pair.line).collect();
                            prop_assert!(numbers[0] > 0 && numbers.is_sorted_by(|x, y| x < y));
                        }
                        Err(error) => {
                            let message = error.to_string();
                            prop_assert!(message.starts_with("pairs") && message.len() < 2000);
                        }
                    }
                }
                for format in FORMATS.map(Some).into_iter().chain([None]) {
                    let _ = Prompts::parse("others", &bytes, format, ids);
                }
            }
        }
    }
}
