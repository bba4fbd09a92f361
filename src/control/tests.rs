//! Patterns for client identifiers.

use super::*;

#[test]
fn asterisks_stand_for_any_text() {
    let matches = |pattern: &str, text: &str| ClientPattern::new(pattern).unwrap().matches(text);
    for (pattern, text) in [
        ("*", ""),
        ("*", "a"),
        ("**", "a"),
        ("a", "a"),
        ("a*", "a"),
        ("a*", "abc"),
        ("*a", "bca"),
        ("a*a", "aa"),
        ("a*b*c", "a-b-b-c"),
        ("*b*", "abc"),
        ("a?", "a?"),
        ("", ""),
    ] {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [
        ("", "a"),
        ("a", "A"),
        ("a*a", "a"),
        ("a*b*c", "a-c"),
        ("*b*", "ac"),
        ("a?", "ab"),
        ("a*b*b", "ab"),
    ] {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
}

#[test]
fn asterisks_in_a_row_are_one() {
    assert_eq!(ClientPattern::new("a***b**"), ClientPattern::new("a*b*"));
    assert!(ClientPattern::new(&"*".repeat(100_000)).unwrap().is_everybody());
    assert!(!ClientPattern::new("").unwrap().is_everybody());
}

#[test]
fn a_pattern_that_no_client_needs_is_refused() {
    let longest = "x".repeat(65_535);
    assert!(ClientPattern::new(&longest).unwrap().matches(&longest));
    let with_asterisks = format!("{longest}{}", "*a".repeat(16)).replacen(&"x".repeat(16), "", 1);
    assert!(ClientPattern::new(&with_asterisks).is_ok());
    for pattern in [format!("{longest}x"), format!("*x{longest}"), "*a".repeat(17)] {
        assert_eq!(ClientPattern::new(&pattern), Err(ClientPatternError));
    }
}
