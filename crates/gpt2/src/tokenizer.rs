//! Text to token ids and back.
//!
//! GPT-2 reads *byte-pair* tokens: frequent runs of bytes, most of them a word with the space before
//! it. The vocabulary (r50k) is part of tiktoken-rs, so nothing is fetched. A token need not be
//! valid UTF-8 by itself: an emoji is several tokens, each of them a few of its bytes.

use tiktoken_rs::CoreBPE;

use crate::Error;
use crate::visible::visible_line;

/// The id of `<|endoftext|>`, which separates documents in GPT-2's training data.
pub const END_OF_TEXT: u32 = 50256;

/// How many tokens there are.
pub const N_TOKENS: usize = 50257;

/// The longest text that is taken, in bytes. The longest token has 128 bytes, so this is more than
/// any GPT-2 has positions for; and the tokenizer's splitting gives up on texts much longer.
const MAX_TEXT_BYTES: usize = 1 << 19;

/// GPT-2's tokenizer.
#[derive(Clone, Copy)]
pub struct Tokenizer {
    bpe: &'static CoreBPE,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// The tokenizer. The first call builds its tables (tens of milliseconds); later ones are free.
    pub fn new() -> Self {
        Self {
            bpe: tiktoken_rs::r50k_base_singleton(),
        }
    }

    /// The token ids of a text. `<|endoftext|>` in the text is the token of that name, as in Hugging
    /// Face's tokenizer.
    ///
    /// # Errors
    /// If the text has more than half a million bytes.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::TextTooLong {
                bytes: text.len(),
                limit: MAX_TEXT_BYTES,
            });
        }
        Ok(self.bpe.encode_with_special_tokens(text))
    }

    /// The bytes of one token; none for an id that there is not.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        self.bpe.decode_bytes(&[id]).unwrap_or_default()
    }

    /// One token as text. Bytes that are not UTF-8 by themselves are written `\xNN`, an id that
    /// there is not as `<|ID|>`.
    pub fn token(&self, id: u32) -> String {
        let bytes = self.bytes(id);
        if bytes.is_empty() {
            return format!("<|{id}|>");
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
        pos.ok_or_else(|| Error::TokenNotInPrompt {
            token: token.to_owned(),
            tokens: self.tokens(ids),
        })
    }

    /// The text of a row of tokens. Bytes that do not add up to UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The id of a text that is exactly one token.
    ///
    /// # Errors
    /// If it is none or several: with the pieces, and with the spelling that is one token (a space
    /// put in front or taken away) if there is one.
    pub fn to_single_token(&self, text: &str) -> Result<u32, Error> {
        let ids = self.encode(text)?;
        if let [id] = ids[..] {
            return Ok(id);
        }
        let trimmed = text.trim();
        let suggestion = [format!(" {trimmed}"), trimmed.to_owned()]
            .into_iter()
            .find(|spelling| {
                spelling != text
                    && matches!(self.encode(spelling).as_deref(), Ok([_]))
                    && !trimmed.is_empty()
            });
        Err(Error::NotOneToken {
            text: text.to_owned(),
            pieces: self.tokens(&ids),
            suggestion,
        })
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
            format!(
                "\"{}\" is not a token id: give whole numbers, such as \"464 3290\"",
                visible_line(piece)
            )
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
        let ids = Tokenizer::new()
            .encode("Michelle Jones was a top-notch student. Michelle")
            .unwrap();
        assert_eq!(
            ids,
            [48736, 5437, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738]
        );
    }

    #[test]
    fn end_of_text_is_one_token() {
        assert_eq!(
            Tokenizer::new().encode("<|endoftext|>Hi").unwrap(),
            [END_OF_TEXT, 17250]
        );
    }

    #[test]
    fn a_piece_of_an_emoji_shows_its_bytes() {
        let tokenizer = Tokenizer::new();
        let ids = tokenizer.encode("🦀").unwrap();
        assert!(ids.len() > 1);
        assert_eq!(tokenizer.tokens(&ids).concat(), r"\xf0\x9f\xa6\x80");
        assert_eq!(tokenizer.decode(&ids), "🦀");
        assert_eq!(tokenizer.token(60_000), "<|60000|>");
    }

    #[test]
    fn an_answer_without_its_space_is_refused_with_the_right_spelling() {
        let error = Tokenizer::new()
            .to_single_token("Turing")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "\"Turing\" is 2 tokens (\"T\", \"uring\"), and exactly one is needed; \" Turing\" is a single token"
        );
        let error = Tokenizer::new()
            .to_single_token(" Smith ")
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("\" Smith\" is a single token"), "{error}");
        let error = Tokenizer::new()
            .to_single_token("")
            .unwrap_err()
            .to_string();
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
        let tokenizer = Tokenizer::new();
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
        let error = Tokenizer::new()
            .encode(&" ".repeat(2_000_000))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("the text has 2000000 bytes"), "{error}");
    }

    #[test]
    fn the_longest_text_that_is_taken_is_tokenised() {
        let tokenizer = Tokenizer::new();
        for text in [" ".repeat(MAX_TEXT_BYTES), "é".repeat(MAX_TEXT_BYTES / 2)] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_the_round_trip(text in "\\PC*|(?s).*") {
            let tokenizer = Tokenizer::new();
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
        }

        #[test]
        fn the_bytes_of_the_tokens_are_those_of_the_text(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            // Of arbitrary bytes, those that are UTF-8.
            let text: String = bytes.utf8_chunks().map(|chunk| chunk.valid()).collect();
            let tokenizer = Tokenizer::new();
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
            let tokenizer = Tokenizer::new();
            let text = tokenizer.decode(&ids);
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()), text);
            prop_assert!(tokenizer.tokens(&ids).iter().all(|token| !token.is_empty()));
        }
    }
}
