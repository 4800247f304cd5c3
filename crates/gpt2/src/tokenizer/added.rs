//! Added tokens: texts that are one token wherever they stand, such as `<|endoftext|>`.
//!
//! They are found before a text is cut into words. Most are matched against the text as it is; those
//! that are `normalized` against the normalized pieces between the others. At every place the longest
//! one counts (Hugging Face's `AddedVocabulary`).

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use fancy_regex::Regex;
use serde::Deserialize;

/// An added token, as `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` write
/// it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct AddedToken {
    /// Its text.
    pub(super) content: String,
    /// Whether it must not stand beside a letter, a digit or an underscore.
    #[serde(default)]
    single_word: bool,
    /// Whether the blanks before it belong to it.
    #[serde(default)]
    lstrip: bool,
    /// Whether the blanks after it belong to it.
    #[serde(default)]
    rstrip: bool,
    /// Whether it is matched in the normalized text; all but special tokens are where nothing is said.
    normalized: Option<bool>,
    /// Whether it is a mark, such as the end of a document, and not text.
    #[serde(default)]
    special: bool,
}

impl AddedToken {
    /// A token of which only the text is known.
    pub(super) fn new(content: &str, special: bool) -> Self {
        Self {
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: Some(!special),
            special,
        }
    }

    /// The same token as a special one.
    pub(super) fn as_special(&self) -> Self {
        Self { normalized: Some(self.is_normalized()), special: true, ..self.clone() }
    }

    fn is_normalized(&self) -> bool {
        self.normalized.unwrap_or(!self.special)
    }
}

/// A part of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    /// Text to be cut into words, already normalized; never empty.
    Text(String),
    /// An added token.
    Token(u32),
}

/// The added tokens of a tokenizer.
#[derive(Debug, Default)]
pub(super) struct Added {
    raw: Option<Matcher>,
    normalized: Option<Matcher>,
    /// Whether texts are normalized to NFC.
    nfc: bool,
}

impl Added {
    /// Tokens with their ids.
    ///
    /// # Errors
    /// If two have the same text, or there are too many to search for.
    pub(super) fn new(tokens: &[(u32, AddedToken)], nfc: bool) -> Result<Self, String> {
        let matcher = |normalized: bool| {
            let tokens = tokens.iter().filter(|(_, t)| t.is_normalized() == normalized);
            let texts = tokens.map(|(id, token)| {
                let text = normalize(&token.content, nfc && normalized);
                (text, *id, token.clone())
            });
            Matcher::new(texts.collect())
        };
        Ok(Self { raw: matcher(false)?, normalized: matcher(true)?, nfc })
    }

    /// Cuts a text into added tokens and the normalized text between them.
    pub(super) fn split(&self, text: &str) -> Vec<Part> {
        let raw = find(&self.raw, text);
        let mut parts = Vec::new();
        for part in raw {
            match part {
                Part::Text(text) => {
                    parts.extend(find(&self.normalized, &normalize(&text, self.nfc)));
                }
                Part::Token(_) => parts.push(part),
            }
        }
        parts
    }
}

/// A text in NFC, if that is asked for. The tables are those of Hugging Face's tokenizers (Unicode
/// 9): newer ones would compose characters that it leaves alone.
fn normalize(text: &str, nfc: bool) -> String {
    use unicode_normalization_alignments::UnicodeNormalization as _;
    if !nfc || text.is_ascii() {
        return text.to_owned();
    }
    text.nfc().map(|(character, _)| character).collect()
}

/// A text's parts; without a matcher, the text is one.
fn find(matcher: &Option<Matcher>, text: &str) -> Vec<Part> {
    match matcher {
        Some(matcher) => matcher.find(text),
        None if text.is_empty() => Vec::new(),
        None => vec![Part::Text(text.to_owned())],
    }
}

/// Finds the longest of several tokens at every place of a text.
#[derive(Debug)]
struct Matcher {
    automaton: AhoCorasick,
    tokens: Vec<(u32, AddedToken)>,
}

/// A letter, a digit, an underscore, a mark or a joiner.
static WORD_CHARACTER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\w").expect("the pattern is valid"));

impl Matcher {
    /// Of texts, with the ids and tokens that they are; none for no texts.
    fn new(mut texts: Vec<(String, u32, AddedToken)>) -> Result<Option<Self>, String> {
        if texts.is_empty() {
            return Ok(None);
        }
        texts.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = texts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("the added tokens {} and {} have the same text", pair[0].1, pair[1].1));
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts.iter().map(|(text, ..)| text))
            .map_err(|error| format!("the added tokens cannot be searched for: {error}"))?;
        let tokens = texts.into_iter().map(|(_, id, token)| (id, token));
        Ok(Some(Self { automaton, tokens: tokens.collect() }))
    }

    fn find(&self, text: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        let push_text = |parts: &mut Vec<Part>, text: &str| {
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
        };
        let mut done = 0;
        // Where the run of blanks ends that was looked through last.
        let mut blanks_end = 0;
        for found in self.automaton.find_iter(text) {
            let (id, token) = &self.tokens[found.pattern().as_usize()];
            let (mut start, mut end) = (found.start(), found.end());
            if token.single_word && is_inside_a_word(text, start, end) {
                continue;
            }
            if token.lstrip && done < start {
                start = done + text[done..start].trim_end().len();
            }
            if token.rstrip {
                if end >= blanks_end {
                    blanks_end = text.len() - text[end..].trim_start().len();
                }
                end = blanks_end;
            }
            push_text(&mut parts, text.get(done..start).unwrap_or_default());
            parts.push(Part::Token(*id));
            done = end;
        }
        push_text(&mut parts, &text[done..]);
        parts
    }
}

/// Whether a word continues at either end of a part of a text.
fn is_inside_a_word(text: &str, start: usize, end: usize) -> bool {
    let is_word = |character: Option<char>| {
        let mut buffer = [0; 4];
        let text = character.map_or("", |c| c.encode_utf8(&mut buffer));
        WORD_CHARACTER.is_match(text).unwrap_or(false)
    };
    is_word(text[..start].chars().next_back()) || is_word(text[end..].chars().next())
}
