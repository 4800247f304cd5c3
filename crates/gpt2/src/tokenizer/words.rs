//! Cutting a text into words before byte-pair encoding: tokens never reach over a word's end.
//!
//! This is the `pre_tokenizer` of `tokenizer.json`: patterns in the order of the file, and `ByteLevel`
//! last, which may put a space in front and has GPT-2's own pattern.

use std::borrow::Cow;

use fancy_regex::Regex;
use serde_json::Value;

/// GPT-2's words: contractions, then letters, digits or signs with the space before them, then
/// blanks, of which the last is left to the word after them (OpenAI's `encoder.py`).
const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Qwen2's words (its tokenizer in transformers): contractions in either case, words with any sign
/// before them, digits one by one, line breaks with the blanks before them.
const QWEN2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One way to cut.
#[derive(Debug)]
enum Cut {
    /// At both ends of every match.
    Around(Regex),
    /// The matches alone; what is between them is left out (`Removed`, inverted).
    Matches(Regex),
    /// Around numbers; each character of one by itself, if `single`.
    Digits { single: bool },
}

/// How a text is cut into words.
#[derive(Debug)]
pub(super) struct Words {
    cuts: Vec<Cut>,
    /// Whether a piece that does not begin with a space is given one, once the cuts before `ByteLevel`
    /// are made.
    prefix_space: bool,
    /// `ByteLevel`'s own pattern, if it uses it.
    last: Option<Cut>,
}

impl Words {
    /// GPT-2's words.
    pub(super) fn gpt2(prefix_space: bool) -> Self {
        Self { cuts: Vec::new(), prefix_space, last: Some(Cut::around(GPT2_WORDS)) }
    }

    /// Qwen2's words.
    pub(super) fn qwen2(prefix_space: bool) -> Self {
        Self { cuts: vec![Cut::around(QWEN2_WORDS)], prefix_space, last: None }
    }

    /// What the `pre_tokenizer` of a `tokenizer.json` says; `prefix_space` is `add_prefix_space` of
    /// `tokenizer_config.json`, which overrules the file.
    ///
    /// # Errors
    /// If it is anything but a `ByteLevel`, or a sequence that ends with one; the name of what it is.
    pub(super) fn from_json(json: &Value, prefix_space: Option<bool>) -> Result<Self, String> {
        let steps = match kind(json) {
            "Sequence" => json["pretokenizers"].as_array().map_or(&[][..], |s| &s[..]),
            _ => std::slice::from_ref(json),
        };
        let Some((byte_level, before)) = steps.split_last() else {
            return Err("an empty sequence of pre-tokenizers is not read".to_owned());
        };
        if kind(byte_level) != "ByteLevel" {
            return Err(format!(
                "the pre-tokenizer {} is not read: only byte-level tokenizers are, whose last \
                 pre-tokenizer is ByteLevel",
                name(byte_level)
            ));
        }
        let flag = |key: &str, default| byte_level[key].as_bool().unwrap_or(default);
        let words = Self {
            cuts: before.iter().map(Cut::from_json).collect::<Result<_, _>>()?,
            prefix_space: flag("add_prefix_space", true),
            last: flag("use_regex", true).then(|| Cut::around(GPT2_WORDS)),
        };
        match prefix_space.filter(|&wanted| wanted != words.prefix_space) {
            Some(_) if !before.is_empty() => {
                Err("add_prefix_space of ByteLevel contradicts that of tokenizer_config.json".to_owned())
            }
            Some(prefix_space) => Ok(Self { prefix_space, ..words }),
            None => Ok(words),
        }
    }

    /// The words of a text that is not empty, in order.
    ///
    /// # Errors
    /// If a pattern gives up: it tried a million ways to match one word.
    pub(super) fn of<'t>(&self, text: &'t str) -> Result<Vec<Cow<'t, str>>, String> {
        let mut pieces = vec![Cow::Borrowed(text)];
        for cut in &self.cuts {
            pieces = cut_all(cut, pieces)?;
        }
        if self.prefix_space {
            for piece in pieces.iter_mut().filter(|piece| !piece.starts_with(' ')) {
                *piece = Cow::Owned(format!(" {piece}"));
            }
        }
        match &self.last {
            Some(cut) => cut_all(cut, pieces),
            None => Ok(pieces),
        }
    }
}

/// The pieces of pieces.
fn cut_all<'t>(cut: &Cut, pieces: Vec<Cow<'t, str>>) -> Result<Vec<Cow<'t, str>>, String> {
    let mut smaller = Vec::new();
    for piece in pieces {
        for range in cut.ranges(&piece)? {
            smaller.push(match &piece {
                Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
                Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
            });
        }
    }
    Ok(smaller)
}

impl Cut {
    /// A cut around the matches of a pattern of this file.
    fn around(pattern: &str) -> Self {
        Self::Around(compile(pattern).expect("the pattern is valid"))
    }

    /// A step of a sequence.
    fn from_json(json: &Value) -> Result<Self, String> {
        match kind(json) {
            "Split" => Self::split_from_json(json),
            "Digits" => Ok(Self::Digits { single: json["individual_digits"].as_bool().unwrap_or(false) }),
            _ => Err(format!("the pre-tokenizer {} is not read before ByteLevel", name(json))),
        }
    }

    fn split_from_json(json: &Value) -> Result<Self, String> {
        let pattern = &json["pattern"];
        let regex = match (pattern["Regex"].as_str(), pattern["String"].as_str()) {
            (Some(regex), _) => {
                check_portable(regex).map_err(|part| {
                    format!(
                        "the pattern {regex:?} of Split is not read: {part} may mean something else in \
                         Hugging Face's tokenizers"
                    )
                })?;
                compile(regex)?
            }
            (None, Some(text)) => compile(&fancy_regex::escape(text))?,
            (None, None) => return Err("Split has no pattern".to_owned()),
        };
        let behavior = json["behavior"].as_str().unwrap_or_default();
        let invert = json["invert"].as_bool().unwrap_or(false);
        match (behavior, invert) {
            ("Isolated", _) => Ok(Self::Around(regex)),
            ("Removed", true) => Ok(Self::Matches(regex)),
            _ => Err(format!("Split with behavior {behavior:?} and invert {invert} is not read")),
        }
    }

    /// The parts of a text that this cut makes; none is empty.
    fn ranges(&self, text: &str) -> Result<Vec<std::ops::Range<usize>>, String> {
        let mut ranges = Vec::new();
        let mut done = 0;
        match self {
            Self::Around(regex) | Self::Matches(regex) => {
                let keeps_gaps = matches!(self, Self::Around(_));
                for found in regex.find_iter(text) {
                    let range = found.map_err(|error| error.to_string())?.range();
                    if keeps_gaps && done < range.start {
                        ranges.push(done..range.start);
                    }
                    done = range.end;
                    ranges.push(range);
                }
                if keeps_gaps && done < text.len() {
                    ranges.push(done..text.len());
                }
            }
            Self::Digits { single } => {
                let mut was_numeric = None;
                for (place, character) in text.char_indices() {
                    let numeric = character.is_numeric();
                    let joins = was_numeric == Some(numeric) && !(numeric && *single);
                    if !joins && place > 0 {
                        ranges.push(done..place);
                        done = place;
                    }
                    was_numeric = Some(numeric);
                }
                ranges.push(done..text.len());
            }
        }
        Ok(ranges)
    }
}

/// The `type` of a part of a `tokenizer.json`.
pub(super) fn kind(json: &Value) -> &str {
    json["type"].as_str().unwrap_or_default()
}

/// A part of a `tokenizer.json` by name, in a message.
pub(super) fn name(json: &Value) -> String {
    match json {
        Value::Null => "null".to_owned(),
        _ => format!("{:?}", kind(json)),
    }
}

/// A pattern that matches nothing but texts of at least one character.
fn compile(pattern: &str) -> Result<Regex, String> {
    let regex =
        Regex::new(pattern).map_err(|error| format!("the pattern {pattern:?} cannot be read: {error}"))?;
    // Without look-behinds, anchors and look-aheads other than negative ones (`check_portable`), a
    // pattern that matches an empty text anywhere matches the empty text.
    match regex.is_match("") {
        Ok(false) => Ok(regex),
        _ => Err(format!("the pattern {pattern:?} matches the empty text")),
    }
}

/// Checks that a pattern has only what means the same in Oniguruma, which Hugging Face's tokenizers
/// use, and in this program's regular expressions; else says which part has not.
///
/// `\w`, `\h`, `.`, `^`, `$`, sets in sets and most flags differ. `(?i:…)` is taken for contractions
/// only, because Oniguruma lets two letters of it match one character (`ss` and `ß`).
fn check_portable(pattern: &str) -> Result<(), String> {
    let mut rest = pattern;
    let mut in_set = false;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '\\' => escape_length(rest),
            '(' if !in_set => group_length(rest),
            '{' if !in_set => repetition_length(rest),
            '[' if !in_set => {
                in_set = true;
                Some(1 + usize::from(rest[1..].starts_with('^')))
            }
            ']' if in_set => {
                in_set = false;
                Some(1)
            }
            '[' | '^' | '&' | '~' if in_set => None,
            '-' if in_set && rest.starts_with("--") => None,
            '.' | '^' | '$' | ']' | '}' if !in_set => None,
            _ => Some(character.len_utf8()),
        };
        let Some(length) = length else {
            let part: String = rest.chars().take(8).collect();
            return Err(format!("{part:?}"));
        };
        rest = &rest[length..];
    }
    Ok(())
}

/// The length of an escape at the front of a pattern, if it is known.
fn escape_length(rest: &str) -> Option<usize> {
    const CLASSES: [&str; 14] =
        ["L", "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "Nd", "Nl", "No", "P", "S", "Z"];
    let escaped = rest[1..].chars().next()?;
    match escaped {
        'r' | 'n' | 't' | 's' | 'S' | 'd' | 'D' => Some(2),
        'p' | 'P' => {
            let (class, _) = rest[2..].strip_prefix('{')?.split_once('}')?;
            CLASSES.contains(&class).then_some(class.len() + 4)
        }
        // `\<` and `\>` are ends of words here.
        _ => (escaped.is_ascii_punctuation() && !"<>".contains(escaped)).then_some(2),
    }
}

/// The length of what opens a group at the front of a pattern, if it is known; all of a group of
/// contractions.
fn group_length(rest: &str) -> Option<usize> {
    const CONTRACTIONS: [&str; 3] =
        ["(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:[sdmt]|ll|ve|re)", "(?i:'(?:[sdmt]|ll|ve|re))"];
    let known = CONTRACTIONS.into_iter().chain(["(?:", "(?!"]);
    let mut known = known.filter(|known| rest.starts_with(known));
    match known.next() {
        Some(known) => Some(known.len()),
        None => (!rest.starts_with("(?")).then_some(1),
    }
}

/// The length of `{n}`, `{n,}` or `{n,m}` at the front of a pattern.
fn repetition_length(rest: &str) -> Option<usize> {
    let (inside, after) = rest[1..].split_once('}')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (low, high) = inside.split_once(',').unwrap_or((inside, inside));
    let known = is_number(low) && (high.is_empty() || is_number(high));
    (known && !after.starts_with(['+', '?', '*', '{'])).then_some(inside.len() + 2)
}
