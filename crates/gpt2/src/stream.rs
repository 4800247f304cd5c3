//! Text out of tokens that come one at a time: shown as soon as it is certain, up to a stop text.
//!
//! A token need not be whole characters, and a stop text need not be whole tokens. So the bytes of a
//! character wait until it is complete, and what may be the beginning of a stop text waits until it is
//! clear whether it is one.

/// Text that is written token by token.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    stops: &'a [String],
    /// All bytes so far; after a stop text, those before it.
    bytes: Vec<u8>,
    /// How many of them have been handed out.
    shown: usize,
    /// The stop text that was found.
    stop: Option<&'a str>,
}

impl<'a> TextStream<'a> {
    /// An empty text, which will end before the first of these stop texts, none of which is empty.
    pub fn new(stops: &'a [String]) -> Self {
        Self { stops, bytes: Vec::new(), shown: 0, stop: None }
    }

    /// Adds the bytes of a token, and returns the text that has become certain. Bytes that cannot be part
    /// of a character are written `\xNN`, as [`crate::Tokenizer::token`] writes them. After a stop text,
    /// nothing is added.
    pub fn push(&mut self, token: &[u8]) -> String {
        if self.stop.is_some() {
            return String::new();
        }
        self.bytes.extend_from_slice(token);
        let waiting = &self.bytes[self.shown..];
        let found = self.stops.iter().filter_map(|stop| {
            let mut places = waiting.windows(stop.len().max(1));
            let place = places.position(|bytes| bytes == stop.as_bytes())?;
            Some((place, stop.as_str()))
        });
        if let Some((place, stop)) = found.min_by_key(|(place, _)| *place) {
            self.stop = Some(stop);
            self.bytes.truncate(self.shown + place);
            return self.finish();
        }
        let held = self.stops.iter().map(|stop| overlap(waiting, stop));
        self.show(self.bytes.len() - held.max().unwrap_or(0))
    }

    /// The stop text that ended the text, if one did.
    pub fn stop(&self) -> Option<&'a str> {
        self.stop
    }

    /// The text that is left at the end. Bytes of an incomplete character are
    /// written `\xNN`.
    pub fn finish(&mut self) -> String {
        let rest = self.show(self.bytes.len());
        let incomplete = self.bytes[self.shown..].iter();
        let rest = rest + &incomplete.map(escaped).collect::<String>();
        self.shown = self.bytes.len();
        rest
    }

    /// All text so far, before a stop text. Bytes that are not UTF-8 become U+FFFD, as in
    /// [`crate::Tokenizer::decode`].
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Hands out what lies before `end`, but for a last character that is incomplete.
    fn show(&mut self, end: usize) -> String {
        let bytes = &self.bytes[self.shown..end];
        let complete = match bytes.utf8_chunks().last() {
            Some(last) if is_incomplete(last.invalid()) => bytes.len() - last.invalid().len(),
            _ => bytes.len(),
        };
        let mut text = String::new();
        for chunk in bytes[..complete].utf8_chunks() {
            text += chunk.valid();
            text.extend(chunk.invalid().iter().map(escaped));
        }
        self.shown += complete;
        text
    }
}

/// Whether these bytes are the beginning of a character that further bytes can complete.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// How many bytes at the end of a text are the beginning of a stop text.
fn overlap(text: &[u8], stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    let lengths = (1..=longest).rev();
    let mut beginnings = lengths.filter(|&n| text.ends_with(&stop.as_bytes()[..n]));
    beginnings.next().unwrap_or(0)
}

fn escaped(byte: &u8) -> String {
    format!("\\x{byte:02x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Tokenizer;

    /// What each token shows, and what the end shows.
    fn shown(stops: &[&str], tokens: &[&[u8]]) -> (Vec<String>, String, String) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stream = TextStream::new(&stops);
        let pieces = tokens.iter().map(|token| stream.push(token)).collect();
        (pieces, stream.finish(), stream.text())
    }

    #[test]
    fn a_character_is_shown_once_all_of_its_tokens_are_there() {
        let tokenizer = Tokenizer::gpt2();
        let ids = tokenizer.encode("a🦀b").unwrap();
        let tokens: Vec<Vec<u8>> = ids.iter().map(|&id| tokenizer.bytes(id)).collect();
        let tokens: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
        let (pieces, rest, text) = shown(&[], &tokens);
        assert_eq!(pieces, ["a", "", "", "🦀", "b"]);
        assert_eq!((rest.as_str(), text.as_str()), ("", "a🦀b"));
    }

    #[test]
    fn bytes_that_make_no_character_are_shown_as_such() {
        let (pieces, rest, text) = shown(&[], &[b"a\xe6", b"b", b"\x97", b"\xf0\x9f"]);
        assert_eq!(pieces, ["a", "\\xe6b", "\\x97", ""]);
        assert_eq!(rest, "\\xf0\\x9f");
        assert_eq!(text, "a\u{fffd}b\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_stop_text_is_found_across_tokens_and_not_shown() {
        let (pieces, rest, text) = shown(&["stop here"], &[b"now st", b"op h", b"ere and", b" on"]);
        assert_eq!(pieces, ["now ", "", "", ""]);
        assert_eq!((rest.as_str(), text.as_str()), ("", "now "));
    }

    #[test]
    fn a_beginning_of_a_stop_text_is_shown_if_nothing_comes_of_it() {
        let (pieces, rest, text) = shown(&["aab", "é!"], &[b"aa", b"a", b"c", b"\xc3", b"\xa9", b"a"]);
        assert_eq!(pieces, ["", "a", "aac", "", "", "é"]);
        assert_eq!((rest.as_str(), text.as_str()), ("a", "aaacéa"));
    }

    #[test]
    fn the_stop_text_that_begins_first_ends_the_text() {
        let stops = ["c".to_owned(), "bcd".to_owned(), "never".to_owned()];
        let mut stream = TextStream::new(&stops);
        assert_eq!(stream.push(b"abcd"), "a");
        assert_eq!(stream.stop(), Some("bcd"));
        assert_eq!(stream.text(), "a");
        let mut stream = TextStream::new(&stops);
        assert_eq!(stream.push(b"abc"), "ab");
        assert_eq!(stream.stop(), Some("c"));
        assert_eq!(stream.push(b"more") + &stream.finish(), "");
    }

    proptest! {
        #[test]
        fn what_is_shown_adds_up_however_the_text_is_cut(
            text in "[abé🦀\n]{0,30}",
            cuts in prop::collection::vec(1..4_usize, 100),
            stop in "[abé🦀]{1,3}",
        ) {
            let stops = [stop.clone()];
            let mut stream = TextStream::new(&stops);
            let (mut rest, mut pieces) = (text.as_bytes(), String::new());
            for cut in cuts {
                let (token, after) = rest.split_at(cut.min(rest.len()));
                pieces += &stream.push(token);
                rest = after;
            }
            pieces += &stream.finish();
            let expected = text.split(&stop).next().unwrap();
            prop_assert_eq!(&pieces, expected);
            prop_assert_eq!(stream.text(), expected);
            prop_assert_eq!(stream.stop().is_some(), text.contains(&stop));
        }
    }
}
