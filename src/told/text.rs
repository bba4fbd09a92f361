//! Shortens and escapes text from strangers for the log: no longer than a line can bear, and
//! nothing that a terminal takes for a command.

use std::borrow::Cow;

/// Maximum number of characters shown of a text.
const CHARS_MAX: usize = 128;
/// Maximum number of bytes shown of a text, counted as the log writes it. Enough for any text of
/// Latin letters, and for 85 of other scripts.
const BYTES_MAX: usize = 256;
/// Minimum number of bytes of a token: no header and signature are shorter together.
const TOKEN_BYTES_MIN: usize = 60;

/// Returns a user name, or a substitute if it is a signed token (a JSON Web Token: three
/// parts in Base64, of which the first is an object).
pub(crate) fn without_token(name: &str) -> &str {
    let is_token = name.len() > TOKEN_BYTES_MIN
        && name.starts_with("ey")
        && name.bytes().filter(|byte| *byte == b'.').count() == 2;
    if is_token { "(a token)" } else { name }
}

/// Returns the beginning of `text`, with an ellipsis if the rest is left out.
///
/// The text format escapes characters that do not print, JSON those below U+0020. Other characters
/// that do not print are escaped here, as Rust writes them, so that JSON is also safe to look at.
/// A token, which may stand in place of a user name, is not shown.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    // First, because a token could be longer than what is shown.
    let text = without_token(text);
    let mut bytes = 0;
    let mut all = text.char_indices().enumerate();
    let end = all.find_map(|(number, (at, character))| {
        // Counted as the log will write them: one character may become several bytes.
        bytes += bytes_in_log(character);
        (number == CHARS_MAX || bytes > BYTES_MAX).then_some(at)
    });
    let shown = &text[..end.unwrap_or(text.len())];
    let is_harmless = shown.chars().all(|character| !must_be_escaped(character));
    // The usual text is short and harmless, and costs no allocation.
    if end.is_none() && is_harmless {
        return Cow::Borrowed(shown);
    }
    let mut escaped = String::with_capacity(shown.len() + 8);
    for character in shown.chars() {
        if must_be_escaped(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    if end.is_some() {
        escaped.push('…');
    }
    Cow::Owned(escaped)
}

/// Returns the maximum number of bytes of a character in either format of the log.
fn bytes_in_log(character: char) -> usize {
    if character.is_ascii_alphanumeric() {
        1
    } else if must_be_escaped(character) {
        // The text format doubles the backslash.
        character.escape_default().len() + 1
    } else {
        let in_json = if character < ' ' { 6 } else { character.len_utf8() };
        character.escape_debug().map(char::len_utf8).sum::<usize>().max(in_json)
    }
}

/// Returns whether it does not print and JSON does not escape it: control characters from U+007F
/// on, and characters that change the direction or the lines of a text.
const fn must_be_escaped(character: char) -> bool {
    matches!(
        character,
        '\u{7F}'..='\u{9F}'
            | '\u{AD}'
            | '\u{61C}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{FEFF}'
            | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E007F}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_place_of_a_name_is_not_shown() {
        let token = format!("eyJhbGciOiJFUzI1NiJ9.{}.{}", "a".repeat(20), "b".repeat(86));
        assert_eq!(cut(&token), "(a token)");
        assert_eq!(cut("eyes.of.ann"), "eyes.of.ann");
    }

    #[test]
    fn what_prints_and_is_short_stays_as_it_is() {
        for text in ["", "car-17", "Größe/ü 漢字 🚗", &"x".repeat(128), &"漢".repeat(85)] {
            assert!(matches!(cut(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let shown = cut(&"ü".repeat(65_535)).into_owned();
        assert_eq!(shown.chars().count(), CHARS_MAX + 1);
        assert_eq!(shown, "ü".repeat(CHARS_MAX) + "…");
    }

    #[test]
    fn no_text_makes_a_line_long() {
        for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let shown = cut(&String::from(character).repeat(200)).into_owned();
            let lengths =
                [format!("{shown:?}").len(), serde_json::to_string(&shown).unwrap().len()];
            // With quotes and the ellipsis.
            assert!(lengths.iter().all(|length| *length <= BYTES_MAX + 5), "{character:?}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_in_json_and_in_text() {
        let evil = "a\n2026-11-28T00:00:00Z  INFO x: y \x1b[2J\u{9b}2J\u{7f}\u{202e}\u{2028}\0";
        let shown = cut(evil);
        let json = serde_json::to_string(&shown).unwrap();
        let text = format!("{shown:?}");
        for line in [json, text] {
            let prints = |character: char| !character.is_control() && !must_be_escaped(character);
            assert!(line.chars().all(prints), "{line}");
        }
        // Text escapes everything that does not print for Rust; these are the ones that JSON does
        // not escape.
        for character in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let is_control = character.is_control() && character >= ' ';
            assert!(!is_control || must_be_escaped(character), "{character:?}");
        }
    }
}
