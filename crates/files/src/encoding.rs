//! Texts that are not written in UTF-8.

/// What to do with a file in another encoding.
pub const SAVE_AS_UTF8: &str = "save it as UTF-8 (Excel: \"CSV UTF-8\"; Notepad: Encoding UTF-8; PowerShell: \
                            Out-File -Encoding utf8)";

/// Why a text is not UTF-8, and how to save it as UTF-8, if it is UTF-16 or UTF-32. Those are recognised by
/// their byte order mark, or by the zeros between ASCII characters.
pub fn other_encoding(bytes: &[u8]) -> Option<String> {
    // Without a mark, every second byte of an ASCII text is 0, or three of four.
    let zeros = bytes.first_chunk().map(|first: &[u8; 4]| first.map(|byte| byte == 0));
    let encoding = match (bytes, zeros) {
        ([0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..], _) => "UTF-32",
        ([0xff, 0xfe, ..] | [0xfe, 0xff, ..], _) => "UTF-16",
        (_, Some([true, false, true, false] | [false, true, false, true])) => "UTF-16",
        (_, Some([true, true, true, false] | [false, true, true, true])) => "UTF-32",
        _ => return None,
    };
    Some(format!("it is written in {encoding}; {SAVE_AS_UTF8}"))
}

/// The bytes of a text without the byte order mark of UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_encodings_are_recognised_with_and_without_a_mark() {
        let utf16: Vec<u16> = "{\"a\"}".encode_utf16().collect();
        let little: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for (mark, bytes) in [(&b"\xff\xfe"[..], &little), (b"\xfe\xff", &big), (b"", &little), (b"", &big)] {
            let reason = other_encoding(&[mark, bytes].concat()).unwrap();
            assert!(reason.starts_with("it is written in UTF-16; save it as UTF-8"), "{reason}");
        }
        for bytes in [&b"\xff\xfe\0\0{\0\0\0"[..], b"\0\0\xfe\xff\0\0\0{", b"{\0\0\0", b"\0\0\0{"] {
            assert!(other_encoding(bytes).unwrap().contains("UTF-32"), "{bytes:?}");
        }
        for bytes in [&b"{\"a\": 1}"[..], b"\xef\xbb\xbf{}", b"", b"\0", "é".as_bytes()] {
            assert_eq!(other_encoding(bytes), None);
        }
    }
}
