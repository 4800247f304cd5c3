//! How tokenizer files write bytes: every byte is one printable character.
//!
//! A token need not be UTF-8, and JSON strings must be. GPT-2's files therefore write the printable
//! characters of Latin-1 as they are and every other byte as the next unused character from U+0100
//! on: a space is `Ġ`, a newline `Ċ` (`bytes_to_unicode` in OpenAI's `encoder.py`).

/// The bytes that are written as the character of the same code.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The character of each byte.
const CHARACTERS: [char; 256] = {
    let mut characters = ['\0'; 256];
    let (mut code, mut unprintable) = (0, 0);
    while code < 256 {
        let byte = code as u8;
        let point = if is_printable(byte) {
            code as u32
        } else {
            unprintable += 1;
            255 + unprintable
        };
        characters[code] = match char::from_u32(point) {
            Some(character) => character,
            None => panic!("the last one is U+0143"),
        };
        code += 1;
    }
    characters
};

/// The character that stands for a byte.
pub(super) fn character(byte: u8) -> char {
    CHARACTERS[usize::from(byte)]
}

/// The byte that a character stands for; none for a character that stands for no byte.
fn byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match u8::try_from(code) {
        Ok(byte) => Some(byte).filter(|&byte| is_printable(byte)),
        // The unprintable bytes are in order, so the first of them is found by counting.
        Err(_) => (0..=255).find(|&byte| CHARACTERS[usize::from(byte)] == character),
    }
}

/// Bytes as tokenizer files write them.
pub(super) fn written(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| character(byte)).collect()
}

/// The bytes of a token of a vocabulary. A token with a character that stands for no byte is its own
/// UTF-8, as in Hugging Face's `ByteLevel` decoder.
pub(super) fn bytes(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for value in 0..=255 {
            assert_eq!(byte(character(value)), Some(value));
        }
        assert_eq!(written(b" a\n\xff"), "ĠaĊÿ");
        assert_eq!(character(0xad), 'Ń');
        assert_eq!(byte(' '), None);
        assert_eq!(byte('\u{144}'), None);
    }

    #[test]
    fn a_token_with_other_characters_is_its_own_text() {
        assert_eq!(bytes("ĠÃ¼ber"), " über".as_bytes());
        assert_eq!(bytes("a b"), b"a b");
        assert_eq!(bytes("日本"), "日本".as_bytes());
    }
}
