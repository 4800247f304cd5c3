//! Tokens and texts as a person can read them: every character is visible.

use std::path::Path;

/// How a space is shown in a token.
pub const SPACE: char = '␣';

/// A token as people can read it: spaces become `␣` and a newline `⏎`, and characters that cannot
/// be seen are escaped (`\t`, `\x07`, `\u{200b}`), as is U+FFFD, which stands for the bytes of a
/// broken character. The empty token becomes `∅`. All other characters stay as they are.
pub fn visible(token: &str) -> String {
    if token.is_empty() {
        return "∅".to_owned();
    }
    let mut shown = String::with_capacity(token.len() + 4);
    for character in token.chars() {
        if character == ' ' {
            shown.push(SPACE);
        } else {
            push_visible(&mut shown, character);
        }
    }
    shown
}

/// A line of running text with everything invisible escaped, except for ordinary spaces.
pub fn visible_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        push_visible(&mut shown, character);
    }
    shown
}

/// The beginning of a text in a message: on one line, with everything invisible escaped, and at most `most`
/// characters as they are shown.
pub fn visible_start(text: &str, most: usize) -> String {
    // (An invisible character takes several to show.)
    let visible = visible_line(&text.chars().take(most).collect::<String>());
    let mut shown: String = visible.chars().take(most).collect();
    if shown.len() < visible.len() || text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// A path in a message, on one line and with everything invisible escaped.
pub fn visible_path(path: &Path) -> String {
    visible_line(&path.to_string_lossy())
}

/// Text of any number of lines with everything escaped that a terminal would obey or hide, such as escape
/// sequences and characters that reverse the direction of writing. Line breaks, tabs, blanks of any width
/// and U+FFFD stay, because they are harmless, and common in what a model writes.
pub fn visible_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmless(character) { shown.push(character) } else { push_visible(&mut shown, character) }
    }
    shown
}

/// Whether [`visible_text`] leaves this character as it is.
pub fn is_harmless(character: char) -> bool {
    match character {
        '\n' | '\t' | char::REPLACEMENT_CHARACTER => true,
        '\u{2028}' | '\u{2029}' => false,
        _ if character.is_control() => false,
        _ => character.is_whitespace() || !is_invisible(character),
    }
}

fn push_visible(shown: &mut String, character: char) {
    let code = u32::from(character);
    match character {
        ' ' => shown.push(' '),
        '\n' => shown.push('⏎'),
        '\t' => shown.push_str("\\t"),
        '\r' => shown.push_str("\\r"),
        _ if character.is_control() => shown.push_str(&format!("\\x{code:02x}")),
        _ if is_invisible(character) => shown.push_str(&format!("\\u{{{code:x}}}")),
        _ => shown.push(character),
    }
}

/// Blank, zero-width, direction-changing and placeholder characters.
fn is_invisible(character: char) -> bool {
    character.is_whitespace()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202f}'
                | '\u{205f}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{e000}'..='\u{f8ff}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{ffff}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{10ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_of_a_token_are_shown() {
        assert_eq!(visible(" Jones"), "␣Jones");
        assert_eq!(visible("  "), "␣␣");
        assert_eq!(visible("Michelle"), "Michelle");
    }

    #[test]
    fn line_breaks_and_tabs_are_shown() {
        assert_eq!(visible("\n\n"), "⏎⏎");
        assert_eq!(visible("\ta\r"), "\\ta\\r");
    }

    #[test]
    fn control_and_invisible_characters_are_escaped() {
        assert_eq!(visible("a\u{7}"), "a\\x07");
        assert_eq!(visible("\u{85}"), "\\x85");
        assert_eq!(visible("\u{200b}"), "\\u{200b}");
        assert_eq!(visible("\u{a0}"), "\\u{a0}");
        assert_eq!(visible(" \u{fffd}"), "␣\\u{fffd}");
        assert_eq!(visible("\u{202e}x"), "\\u{202e}x");
    }

    #[test]
    fn letters_of_any_script_stay_as_they_are() {
        assert_eq!(visible("日本"), "日本");
        assert_eq!(visible(" é😀"), "␣é😀");
    }

    #[test]
    fn the_start_of_a_text_is_as_long_as_it_is_shown() {
        assert_eq!(visible_start("short", 5), "short");
        assert_eq!(visible_start("longer", 5), "longe…");
        assert_eq!(visible_start("\0\0\0", 5), "\\x00\\…");
    }

    #[test]
    fn the_empty_token_is_not_nothing() {
        assert_eq!(visible(""), "∅");
    }

    #[test]
    fn running_text_keeps_its_spaces() {
        assert_eq!(visible_line("a b\nc"), "a b⏎c");
    }

    #[test]
    fn several_lines_keep_their_breaks_and_blanks() {
        let harmless = "a\tb\n\u{a0}\u{3000}é日🦀\u{fffd}";
        assert_eq!(visible_text(harmless), harmless);
        assert_eq!(visible_text("\u{1b}[2J\r\u{7f}\u{9b}"), "\\x1b[2J\\r\\x7f\\x9b");
        assert_eq!(visible_text("\u{202e}\u{200b}\u{2028}"), "\\u{202e}\\u{200b}\\u{2028}");
    }

    #[test]
    fn a_path_stays_on_one_line() {
        assert_eq!(visible_path(Path::new("a b\nerror: c")), "a b⏎error: c");
    }
}
