//! The value of one field of a file: a prompt, or answers.

use std::borrow::Cow;

use gpt2::tokenizer::parse_ids;

use super::super::{Answer, Written};
use super::columns::normal;
use super::shown;

/// The most entries that a list may have: more than any vocabulary has.
const MAX_LIST: usize = 1_000_000;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Nothing: null, or a field of CSV that is empty or not a number.
    Empty,
    Text(Cow<'a, str>),
    /// A number of JSON.
    Id(u32),
    List(Vec<Item>),
    /// Anything else, in words.
    Other(&'static str),
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Text(String),
    Id(u32),
    /// Anything else, in words.
    Other(&'static str),
}

/// What is known of a field besides its value.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// The column's name in the file.
    pub name: &'a str,
    /// Whether it holds token ids.
    pub ids: bool,
}

impl Cell<'_> {
    /// The field of a table.
    pub fn of_table(text: Cow<'_, str>) -> Cell<'_> {
        match text.as_ref() {
            // pandas writes this for a missing value.
            "" | "NaN" | "nan" => Cell::Empty,
            _ => Cell::Text(text),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Text(_) => "a text",
            Self::Id(_) => "a number",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

impl Field<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> String {
        format!("column \"{}\" {what}", shown(self.name))
    }

    /// The prompt in a field.
    pub fn prompt(&self, cell: Cell<'_>) -> Result<Written, String> {
        let unlike =
            |kind: &str| self.wrong(format_args!("is {kind}, and must be a text, or a list of token ids"));
        match cell {
            Cell::Text(text) if self.ids => self.parse_ids(&text).map(Written::Ids),
            Cell::Text(text) => match list_literal(&text) {
                // A prompt may begin with a bracket; one of nothing but numbers is a list of ids.
                Some(Ok(items)) if !items.is_empty() && are_ids(&items) => Err(self.wrong(
                    "is a list of numbers: say that the prompts are token ids, or name the column \
                     clean_ids or corrupted_ids",
                )),
                _ => Ok(Written::Text(text.into_owned())),
            },
            Cell::Id(id) if self.ids => Ok(Written::Ids(vec![id])),
            Cell::List(items) if items.is_empty() => Err(unlike("an empty list")),
            Cell::List(items) => {
                let id = |item| match item {
                    Item::Id(id) => Ok(id),
                    Item::Text(_) => Err(unlike("a list of texts")),
                    Item::Other(kind) => Err(unlike(&format!("a list with {kind} in it"))),
                };
                items.into_iter().map(id).collect::<Result<_, _>>().map(Written::Ids)
            }
            // It is empty, which is reported when the prompt is tokenized.
            Cell::Empty => Ok(Written::Text(String::new())),
            other => Err(unlike(other.kind())),
        }
    }

    /// The answers in a field: none, one or a set.
    pub fn answers(&self, cell: Cell<'_>) -> Result<Vec<Answer>, String> {
        let items = match cell {
            Cell::Empty => return Ok(Vec::new()),
            Cell::Text(text) if text.is_empty() => return Ok(Vec::new()),
            Cell::Text(text) => match list_literal(&text) {
                Some(Ok(items)) => items,
                Some(Err(reason)) => {
                    return Err(self.wrong(format_args!(
                        "begins with [ and ends with ], but is not a list: {reason}; an answer that \
                         begins with [ stands in quotes within a list"
                    )));
                }
                None if self.ids => {
                    let ids = self.parse_ids(&text)?;
                    ids.into_iter().map(Item::Id).collect()
                }
                None => vec![Item::Text(text.into_owned())],
            },
            Cell::Id(id) => vec![Item::Id(id)],
            Cell::List(items) => items,
            Cell::Other(kind) => {
                return Err(
                    self.wrong(format_args!("is {kind}, and must be a text, a token id or a list of them"))
                );
            }
        };
        items.into_iter().map(|item| self.answer(item)).collect()
    }

    fn answer(&self, item: Item) -> Result<Answer, String> {
        // Columns of these names often record whether a model was right.
        let may_be_flag = ["correct", "incorrect", "wrong"].contains(&normal(self.name).as_str());
        let is_flag = match &item {
            Item::Text(text) => matches!(text.trim().to_lowercase().as_str(), "true" | "false" | "0" | "1"),
            Item::Id(id) => *id < 2,
            Item::Other(_) => false,
        };
        if may_be_flag && is_flag {
            return Err(self.wrong(
                "seems to say whether something is right, not which answer is; remove it, or call the \
                 columns of answers a and b",
            ));
        }
        match item {
            Item::Text(text) if self.ids => match self.parse_ids(&text)?[..] {
                [id] => Ok(Answer::Id(id)),
                _ => Err(self.wrong(format_args!("has \"{}\" where a token id must stand", shown(&text)))),
            },
            Item::Text(text) => Ok(Answer::Text(text)),
            Item::Id(id) => Ok(Answer::Id(id)),
            Item::Other(kind) => {
                Err(self.wrong(format_args!("is a list with {kind} in it; answers are texts or token ids")))
            }
        }
    }

    /// Ids as text, with or without brackets. pandas writes a column of whole numbers in which one is
    /// missing with a point: `319.0`.
    fn parse_ids(&self, text: &str) -> Result<Vec<u32>, String> {
        let inside = text.trim();
        let unwrapped = inside.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let inside = unwrapped.unwrap_or(inside);
        let ids = parse_ids(inside.strip_suffix(".0").unwrap_or(inside));
        ids.map_err(|reason| self.wrong(format_args!("holds token ids: {reason}")))
    }
}

/// Answers as ids with the texts that stand beside them: each id has its text.
pub fn with_texts(ids: Vec<Answer>, texts: Vec<Answer>, names: [&str; 2]) -> Result<Vec<Answer>, String> {
    // Nothing beside it: nothing to compare with.
    if texts.is_empty() {
        return Ok(ids);
    }
    if ids.len() != texts.len() {
        let [ids_name, texts_name] = names.map(shown);
        return Err(format!(
            "columns \"{ids_name}\" and \"{texts_name}\" hold the same answers, but {} ids and {} texts",
            ids.len(),
            texts.len()
        ));
    }
    let both = |(id, text)| match (id, text) {
        (Answer::Id(id), Answer::Text(text)) => Answer::Named { id, text },
        (id, _) => id,
    };
    Ok(ids.into_iter().zip(texts).map(both).collect())
}

fn are_ids(items: &[Item]) -> bool {
    items.iter().all(|item| matches!(item, Item::Id(_)))
}

/// The list that a text is as a whole, as JSON, Python or NumPy writes it: `[" is", " has"]`,
/// `['gem', 'gems']`, `[318, 468]`, `[318 468]`; nothing if it does not stand between brackets.
fn list_literal(text: &str) -> Option<Result<Vec<Item>, String>> {
    let inside = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    Some(Literal { rest: inside }.items())
}

/// What is left of a list to be read.
struct Literal<'a> {
    rest: &'a str,
}

impl Literal<'_> {
    fn items(mut self) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            let Some(first) = self.rest.chars().next() else {
                return Ok(items);
            };
            if items.len() == MAX_LIST {
                return Err(format!("it has more than {MAX_LIST} entries"));
            }
            let item = match first {
                '"' | '\'' => Item::Text(self.quoted(first)?),
                '0'..='9' => Item::Id(self.number()?),
                _ => {
                    return Err(format!("\"{}\" is neither a number nor a text in quotes", shown(self.rest)));
                }
            };
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                // NumPy puts no commas between numbers.
                None if self.rest.is_empty() => {}
                None if matches!(item, Item::Id(_))
                    && self.rest.starts_with(|c: char| c.is_ascii_digit()) => {}
                None => {
                    return Err(format!("a comma is missing before \"{}\"", shown(self.rest)));
                }
            }
            items.push(item);
        }
    }

    fn number(&mut self) -> Result<u32, String> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let follows = rest.chars().next().is_none_or(|c| c == ',' || c.is_whitespace());
        let id = digits.parse().ok().filter(|_| follows);
        id.ok_or_else(|| format!("\"{}{}\" is not a token id", shown(digits), shown(rest)))
    }

    /// A text in quotes of this kind, with the escapes of JSON and Python.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, c)) = characters.next() {
            if c == quote {
                self.rest = &self.rest[at + 1..];
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let escape = characters.next().map(|(_, c)| c);
            let n_digits = match escape {
                Some('x') => 2,
                Some('u') => 4,
                _ => 0,
            };
            let digits: String = characters.by_ref().take(n_digits).map(|(_, c)| c).collect();
            let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == n_digits);
            text.push(match escape {
                Some(c @ ('\\' | '\'' | '"' | '/')) => c,
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('x' | 'u') => code.and_then(char::from_u32).ok_or("an escape is not a character")?,
                _ => return Err("an escape is unknown".to_owned()),
            });
        }
        Err("a quote is never closed".to_owned())
    }
}

/// The most entries that are taken of a list of JSON.
pub fn check_length(n: usize) -> Result<(), String> {
    match n {
        0..=MAX_LIST => Ok(()),
        _ => Err(format!("a list has more than {MAX_LIST} entries")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Field<'_> = Field { name: "a", ids: false };
    const A_IDX: Field<'_> = Field { name: "a_idx", ids: true };
    const CLEAN: Field<'_> = Field { name: "clean", ids: false };

    fn text(text: &str) -> Cell<'_> {
        Cell::Text(text.into())
    }

    fn texts(texts: &[&str]) -> Vec<Answer> {
        texts.iter().map(|text| Answer::Text((*text).to_owned())).collect()
    }

    fn ids(ids: &[u32]) -> Vec<Answer> {
        ids.iter().map(|id| Answer::Id(*id)).collect()
    }

    #[test]
    fn an_answer_is_a_text_unless_its_column_says_ids() {
        assert_eq!(A.answers(text("319")), Ok(texts(&["319"])));
        assert_eq!(A.answers(text(" ")), Ok(texts(&[" "])));
        assert_eq!(A.answers(Cell::Id(319)), Ok(ids(&[319])));
        for spelling in ["319", " 319 ", "[319]", "319.0"] {
            assert_eq!(A_IDX.answers(text(spelling)), Ok(ids(&[319])), "{spelling}");
        }
        assert_eq!(A_IDX.answers(text("319, 287")), Ok(ids(&[319, 287])));
        for none in [Cell::Empty, text(""), text("[]"), Cell::List(vec![])] {
            assert_eq!(A.answers(none.clone()), Ok(vec![]));
            assert_eq!(A_IDX.answers(none), Ok(vec![]));
        }
    }

    #[test]
    fn lists_are_read_as_json_python_and_numpy_write_them() {
        for (literal, expected) in [
            (r#"[" is", " has"]"#, texts(&[" is", " has"])),
            ("[' is',  ' has',]", texts(&[" is", " has"])),
            (r#" ["it's", 'a "b"', 'c\'d', "\u00e9\x41\n"] "#, texts(&["it's", "a \"b\"", "c'd", "éA\n"])),
            ("[318, 468]", ids(&[318, 468])),
            ("[ 318   468]", ids(&[318, 468])),
            ("['[']", texts(&["["])),
        ] {
            assert_eq!(A.answers(text(literal)), Ok(expected), "{literal}");
        }
        assert_eq!(A.answers(text("[x")), Ok(texts(&["[x"])));
        assert_eq!(A.answers(text("x]")), Ok(texts(&["x]"])));
        for (literal, message) in [
            ("[UNK]", "\"UNK\" is neither a number nor a text"),
            ("['a' 'b']", "a comma is missing before \"'b'\""),
            ("['a]", "a quote is never closed"),
            ("['\\q']", "an escape is unknown"),
            ("['\\ud800']", "an escape is not a character"),
            ("[1.5]", "\"1.5\" is not a token id"),
            ("[99999999999]", "\"99999999999\" is not a token id"),
            ("[[1]]", "\"[1]\" is neither"),
            ("[-1]", "\"-1\" is neither"),
        ] {
            let error = A.answers(text(literal)).unwrap_err();
            assert!(error.contains(message), "{literal}: {error}");
            assert!(error.contains("stands in quotes within a list"), "{error}");
        }
    }

    #[test]
    fn a_prompt_is_a_text_or_ids_and_no_list_of_texts() {
        assert_eq!(CLEAN.prompt(text("[INST] a [/INST]")), Ok(Written::Text("[INST] a [/INST]".to_owned())));
        let of_ids = Cell::List(vec![Item::Id(464), Item::Id(3290)]);
        assert_eq!(CLEAN.prompt(of_ids), Ok(Written::Ids(vec![464, 3290])));
        let field = Field { ids: true, ..CLEAN };
        for spelling in ["464 3290", "464,3290", "[464, 3290]"] {
            assert_eq!(field.prompt(text(spelling)), Ok(Written::Ids(vec![464, 3290])));
        }
        for (cell, message) in [
            (text("[464, 3290]"), "column \"clean\" is a list of numbers: say that"),
            (Cell::Id(1), "column \"clean\" is a number, and must be a text"),
            (Cell::List(vec![]), "column \"clean\" is an empty list"),
            (Cell::List(vec![Item::Text(" a".to_owned())]), "column \"clean\" is a list of texts"),
            (Cell::List(vec![Item::Other("a list")]), "column \"clean\" is a list with a list in it"),
        ] {
            let error = CLEAN.prompt(cell).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
        let error = field.prompt(text("The dog")).unwrap_err();
        assert!(error.starts_with("column \"clean\" holds token ids: \"The\" is not"), "{error}");
    }

    #[test]
    fn what_says_whether_a_model_was_right_is_no_answer() {
        let correct = Field { name: "Correct", ids: false };
        for cell in [text("True"), text("0"), Cell::Id(1)] {
            let error = correct.answers(cell).unwrap_err();
            assert!(error.contains("whether something is right"), "{error}");
        }
        assert_eq!(correct.answers(text(" true story")), Ok(texts(&[" true story"])));
        assert_eq!(A.answers(text("True")), Ok(texts(&["True"])));
    }
}
