//! Text to token ids and back.
//!
//! A model reads *byte-pair* tokens: frequent runs of bytes, most of them a word with the space before
//! it. Which ones depends on the model: the tokenizer files in its folder are read exactly as Hugging
//! Face's tokenizers reads them, or refused by name. GPT-2's own vocabulary (r50k) is part of tiktoken-rs,
//! so nothing is fetched. A token need not be valid UTF-8 by itself: an emoji is several tokens, each of
//! them a few of its bytes.
//!
//! How a text becomes tokens, step by step:
//!
//! | file | step |
//! |---|---|
//! | `added.rs` | added tokens (`<|endoftext|>`) are taken out, the text between them normalized |
//! | `words.rs` | that text is cut into words |
//! | `alphabet.rs` | how files write the bytes of a word |
//! | `bpe.rs` | the bytes of a word are merged into tokens |
//!
//! and the files that say how: `files.rs` (which files of a folder), `json.rs` (`tokenizer.json`),
//! `settings.rs` (the files that are laid over it), `ids.rs` (which id an added token has).
//!
//! Two things differ from Hugging Face's: a text is never truncated or padded (`truncation`, `padding`),
//! and an added token is always shown as its text, which their `ByteLevel` decoder turns into single bytes
//! where it has letters such as `é`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tiktoken_rs::CoreBPE;

use crate::Error;
use visible::{visible, visible_line, visible_start};

mod added;
mod alphabet;
mod bpe;
mod files;
mod ids;
mod json;
#[cfg(test)]
mod reference;
mod settings;
mod words;

use added::{Added, AddedToken, Part};
use bpe::Bpe;
use words::Words;

/// The id of `<|endoftext|>` in r50k, which separates documents in GPT-2's training data.
pub const END_OF_TEXT: u32 = 50256;

const END_OF_TEXT_NAME: &str = "<|endoftext|>";

/// How many tokens r50k has.
pub const N_TOKENS: usize = 50257;

/// The longest text that is taken, in bytes. The longest token of r50k has 128 bytes, so this is more
/// than any GPT-2 has positions for; and the cutting into words gives up on texts much longer.
const MAX_TEXT_BYTES: usize = 1 << 19;

/// A model's tokenizer. A clone is the same one: its tables are shared.
#[derive(Clone)]
pub struct Tokenizer {
    tables: Arc<Tables>,
}

/// The tables of a tokenizer.
struct Tables {
    /// The file that says how texts are cut.
    path: PathBuf,
    engine: Engine,
    added: Added,
    /// The bytes of the tokens; of r50k only those of added ones.
    bytes: HashMap<u32, Vec<u8>>,
    bos: Option<u32>,
    eos: Option<u32>,
    opens_texts: bool,
    n_tokens: usize,
    n_vocabulary: usize,
}

/// What turns text without added tokens into ids.
enum Engine {
    /// GPT-2's own tokens.
    R50k { bpe: &'static CoreBPE, prefix_space: bool },
    /// Those of a model's files.
    Files { words: Box<Words>, bpe: Box<Bpe> },
    /// The model has no tokens with text.
    WithoutText,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::gpt2()
    }
}

impl Tokenizer {
    /// GPT-2's tokenizer, r50k. The first call builds its tables (tens of milliseconds); later ones
    /// are free.
    pub fn gpt2() -> Self {
        static GPT2: OnceLock<Tokenizer> = OnceLock::new();
        let build = || {
            let bpe = tiktoken_rs::r50k_base_singleton();
            let end_of_text = (END_OF_TEXT, AddedToken::new(END_OF_TEXT_NAME, true));
            let added = Added::new(&[end_of_text], false);
            Self::from(Tables {
                added: added.expect("one token can be searched for"),
                bos: Some(END_OF_TEXT),
                eos: Some(END_OF_TEXT),
                n_tokens: N_TOKENS,
                n_vocabulary: N_TOKENS,
                ..Tables::new(Engine::R50k { bpe, prefix_space: false })
            })
        };
        GPT2.get_or_init(build).clone()
    }

    /// The tokenizer of a model's folder: of `tokenizer.json`, else of `vocab.json` and `merges.txt`,
    /// with what `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say. A
    /// folder that has only some of these three has r50k with their added tokens; a folder without any
    /// of the files has no tokenizer (`None`).
    ///
    /// # Errors
    /// If a file is broken, one of a pair is missing, or the files ask for something that is not read
    /// exactly: which file, and what.
    pub fn in_folder(folder: &Path) -> Result<Option<Self>, Error> {
        Ok(files::read(folder)?.map(Self::from))
    }

    /// The tokenizer of a model whose tokens have no text: only ids can be given.
    pub fn without_text() -> Self {
        Self::from(Tables::new(Engine::WithoutText))
    }

    /// The token ids of a text. An added token in the text (`<|endoftext|>`) is the token of that
    /// name, as in Hugging Face's tokenizer. No token is put in front (see
    /// [`Tokenizer::opens_texts`]).
    ///
    /// # Errors
    /// If the text has more than half a million bytes, or the model has no tokenizer; or if the files
    /// have a pattern that gives up on this text, or no token for a byte of it and not the `unk_token`
    /// that they name for this.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if let Engine::WithoutText = self.tables.engine {
            return Err(Error::NoTokenizer);
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::TextTooLong { bytes: text.len(), limit: MAX_TEXT_BYTES });
        }
        let mut ids = Vec::new();
        for part in self.tables.added.split(text) {
            match part {
                Part::Token(id) => ids.push(id),
                Part::Text(text) => {
                    let fail = |reason| Error::tokenizer(&self.tables.path, reason);
                    self.tables.engine.encode(&text, &mut ids).map_err(fail)?;
                }
            }
        }
        Ok(ids)
    }

    /// The token that opens a text, as far as the files say one.
    pub fn bos(&self) -> Option<u32> {
        self.tables.bos
    }

    /// The token that ends a text, as far as the files say one.
    pub fn eos(&self) -> Option<u32> {
        self.tables.eos
    }

    /// Whether the files put [`Tokenizer::bos`] in front of every text (OPT's `</s>`, Llama-3's
    /// `<|begin_of_text|>`). [`Tokenizer::encode`] does not.
    pub fn opens_texts(&self) -> bool {
        self.tables.opens_texts
    }

    /// One more than the largest id of a token with text.
    pub fn n_tokens(&self) -> usize {
        self.tables.n_tokens
    }

    /// One more than the largest id of the vocabulary itself, without tokens that were added to it. A
    /// model with fewer embeddings cannot have been trained on this vocabulary; added tokens without
    /// one (a `[PAD]`) are common.
    pub fn n_vocabulary(&self) -> usize {
        self.tables.n_vocabulary
    }

    /// The bytes of one token; none for an id that has no text.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        match (self.tables.bytes.get(&id), &self.tables.engine) {
            (Some(bytes), _) => bytes.clone(),
            (None, Engine::R50k { bpe, .. }) => bpe.decode_bytes(&[id]).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// One token as text. Bytes that are not UTF-8 by themselves are written `\xNN`, an id that has
    /// no text as `#ID`.
    pub fn token(&self, id: u32) -> String {
        let bytes = self.bytes(id);
        if bytes.is_empty() {
            return format!("#{id}");
        }
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            text += chunk.valid();
            for byte in chunk.invalid() {
                text += &format!("\\x{byte:02x}");
            }
        }
        text
    }

    /// Each token as text, as [`Tokenizer::token`] writes it.
    pub fn tokens(&self, ids: &[u32]) -> Vec<String> {
        ids.iter().map(|&id| self.token(id)).collect()
    }

    /// A text's tokens as texts (TransformerLens's `to_str_tokens`): what `encode` finds, written as
    /// [`Tokenizer::token`] writes it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn to_str_tokens(&self, text: &str) -> Result<Vec<String>, Error> {
        Ok(self.tokens(&self.encode(text)?))
    }

    /// Where a token stands among `ids`, from 0 (TransformerLens's `get_token_position`). Where it
    /// stands several times, `occurrence` chooses.
    ///
    /// # Errors
    /// If the text is not exactly one token, or the token is not among the ids.
    pub fn get_token_position(
        &self,
        token: &str,
        ids: &[u32],
        occurrence: Occurrence,
    ) -> Result<usize, Error> {
        let id = self.to_single_token(token)?;
        let is_it = |found: &u32| *found == id;
        let pos = match occurrence {
            Occurrence::First => ids.iter().position(is_it),
            Occurrence::Last => ids.iter().rposition(is_it),
        };
        pos.ok_or_else(|| Error::TokenNotInPrompt { token: token.to_owned(), tokens: self.tokens(ids) })
    }

    /// The text of a row of tokens. Bytes that do not add up to UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The id of a text that is exactly one token. It may be given in three ways:
    ///
    /// - `#319`, a `#` with nothing but digits behind it, is always an id, whether or not the model has
    ///   it (`NoSuchToken` of the forward pass says if not);
    /// - a text that [`Tokenizer::encode`] finds one token in is that token;
    /// - any other text is the token that this program prints like that ([`visible`](mod@visible)):
    ///   `\xe6\x97`, `⏎`, `␣the`, `\u{200b}`.
    ///
    /// # Errors
    /// If it is none of these: with the pieces, and with the spelling that is one token (a space put in
    /// front or taken away) if there is one. If several tokens are printed like that: with their ids.
    pub fn to_single_token(&self, text: &str) -> Result<u32, Error> {
        if let Some(digits) = text.strip_prefix('#')
            && !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
        {
            let text = text.to_owned();
            return digits.parse().map_err(|_| Error::NotAnId { text });
        }
        let ids = self.encode(text)?;
        if let [id] = ids[..] {
            return Ok(id);
        }
        match self.printed_as(text)[..] {
            [id] => return Ok(id),
            [] => {}
            [..] => {
                return Err(Error::AmbiguousToken { text: text.to_owned(), ids: self.printed_as(text) });
            }
        }
        let trimmed = text.trim();
        let suggestion = [format!(" {trimmed}"), trimmed.to_owned()].into_iter().find(|spelling| {
            spelling != text && matches!(self.encode(spelling).as_deref(), Ok([_])) && !trimmed.is_empty()
        });
        Err(Error::NotOneToken { text: text.to_owned(), pieces: self.tokens(&ids), suggestion })
    }

    /// The tokens that are printed like this text, in the order of their ids.
    fn printed_as(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self.tables.bytes.keys().copied().collect();
        if let Engine::R50k { .. } = self.tables.engine {
            ids.extend(0..N_TOKENS as u32);
        }
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|&id| {
            let token = self.token(id);
            visible_line(&token) == text || visible(&token) == text
        });
        ids
    }
}

impl From<Tables> for Tokenizer {
    fn from(tables: Tables) -> Self {
        Self { tables: Arc::new(tables) }
    }
}

impl Tables {
    /// Tables without added tokens and without roles.
    fn new(engine: Engine) -> Self {
        Self {
            path: PathBuf::new(),
            engine,
            added: Added::default(),
            bytes: HashMap::new(),
            bos: None,
            eos: None,
            opens_texts: false,
            n_tokens: 0,
            n_vocabulary: 0,
        }
    }
}

impl Engine {
    /// Appends the ids of a text without added tokens.
    fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        match self {
            Self::R50k { bpe, prefix_space } => {
                let space = if *prefix_space && !text.starts_with(' ') { " " } else { "" };
                ids.extend(bpe.encode_ordinary(&format!("{space}{text}")));
            }
            Self::Files { words, bpe } => {
                for word in words.of(text)? {
                    bpe.encode(&word, ids)?;
                }
            }
            Self::WithoutText => {}
        }
        Ok(())
    }
}

/// Token ids as text: numbers with blanks or commas between them, such as `464 3290` or `464,3290`.
///
/// # Errors
/// If something between the separators is not a number below 2³².
pub fn parse_ids(text: &str) -> Result<Vec<u32>, String> {
    let is_separator = |c: char| c.is_whitespace() || c == ',';
    let pieces = text.split(is_separator).filter(|piece| !piece.is_empty());
    let id = |piece: &str| {
        // `u32::from_str` would take a plus sign.
        let digits = piece.bytes().all(|byte| byte.is_ascii_digit());
        piece.parse().ok().filter(|_| digits).ok_or_else(|| {
            let piece = visible_start(piece, 80);
            format!("\"{piece}\" is not a token id: give whole numbers, such as \"464 3290\"")
        })
    };
    pieces.map(id).collect()
}

/// Which of several equal tokens is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Occurrence {
    /// The leftmost.
    #[default]
    First,
    /// The rightmost.
    Last,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_main_prompt_has_the_ids_that_everyone_gets() {
        let ids = Tokenizer::gpt2().encode("Michelle Jones was a top-notch student. Michelle").unwrap();
        assert_eq!(ids, [48736, 5437, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738]);
    }

    #[test]
    fn end_of_text_is_one_token() {
        assert_eq!(Tokenizer::gpt2().encode("<|endoftext|>Hi").unwrap(), [END_OF_TEXT, 17250]);
    }

    #[test]
    fn a_piece_of_an_emoji_shows_its_bytes() {
        let tokenizer = Tokenizer::gpt2();
        let ids = tokenizer.encode("🦀").unwrap();
        assert!(ids.len() > 1);
        assert_eq!(tokenizer.tokens(&ids).concat(), r"\xf0\x9f\xa6\x80");
        assert_eq!(tokenizer.decode(&ids), "🦀");
        assert_eq!(tokenizer.token(60_000), "#60000");
    }

    #[test]
    fn an_answer_without_its_space_gets_the_right_spelling() {
        let error = Tokenizer::gpt2().to_single_token("Turing").unwrap_err().to_string();
        assert_eq!(
            error,
            "\"Turing\" is 2 tokens (\"T\", \"uring\"), and exactly one is needed; \" Turing\" is a single token"
        );
        let error = Tokenizer::gpt2().to_single_token(" Smith ").unwrap_err().to_string();
        assert!(error.ends_with("\" Smith\" is a single token"), "{error}");
        let error = Tokenizer::gpt2().to_single_token("").unwrap_err().to_string();
        assert!(error.starts_with("the answer is empty"), "{error}");
    }

    #[test]
    fn ids_are_read_with_blanks_and_commas_between_them() {
        assert_eq!(parse_ids(" 464 3290,\t7 "), Ok(vec![464, 3290, 7]));
        assert_eq!(parse_ids(""), Ok(vec![]));
        for wrong in ["1 x", "-1", "+1", "4294967296", "1.0", "１"] {
            let error = parse_ids(wrong).unwrap_err();
            assert!(error.contains("is not a token id"), "{error}");
        }
    }

    #[test]
    fn a_tokens_place_is_found_from_either_end() {
        let tokenizer = Tokenizer::gpt2();
        let text = "Michelle Jones and Michelle Jones and";
        let ids = tokenizer.encode(text).unwrap();
        let tokens = tokenizer.to_str_tokens(text).unwrap();
        assert_eq!(tokens[1], " Jones");
        let place = |token, occurrence| tokenizer.get_token_position(token, &ids, occurrence);
        assert_eq!(place(" Jones", Occurrence::First).unwrap(), 1);
        assert_eq!(place(" Jones", Occurrence::Last).unwrap(), 4);
        let error = place(" Smith", Occurrence::First).unwrap_err().to_string();
        assert!(
            error.starts_with("\" Smith\" is not among the 6 tokens \"Michelle\", \" Jones\","),
            "{error}"
        );
        let error = place("Turing", Occurrence::First).unwrap_err().to_string();
        assert!(error.contains("is 2 tokens"), "{error}");
    }

    #[test]
    fn a_text_beyond_all_measure_is_refused() {
        let error = Tokenizer::gpt2().encode(&" ".repeat(2_000_000)).unwrap_err().to_string();
        assert!(error.starts_with("the text has 2000000 bytes"), "{error}");
    }

    #[test]
    fn the_longest_text_that_is_taken_is_tokenised() {
        let tokenizer = Tokenizer::gpt2();
        for text in [" ".repeat(MAX_TEXT_BYTES), "é".repeat(MAX_TEXT_BYTES / 2)] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_the_round_trip(text in "\\PC*|(?s).*") {
            let tokenizer = Tokenizer::gpt2();
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
        }

        #[test]
        fn the_bytes_of_the_tokens_are_those_of_the_text(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            // Of arbitrary bytes, those that are UTF-8.
            let text: String = bytes.utf8_chunks().map(|chunk| chunk.valid()).collect();
            let tokenizer = Tokenizer::gpt2();
            let ids = tokenizer.encode(&text).unwrap();
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).collect();
            prop_assert_eq!(bytes, text.as_bytes());
        }

        #[test]
        fn tokens_in_any_order_are_a_text_that_survives_the_round_trip(
            ids in prop::collection::vec(0..N_TOKENS as u32, 0..40),
        ) {
            // Most such texts are cut into other tokens than they were made of; pieces of characters
            // become U+FFFD.
            let tokenizer = Tokenizer::gpt2();
            let text = tokenizer.decode(&ids);
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
            prop_assert!(tokenizer.tokens(&ids).iter().all(|token| !token.is_empty()));
        }
    }
}
