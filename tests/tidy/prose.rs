//! Words that a reader with English as a second language finds difficult, in the comments and texts of the
//! sources. CONTRIBUTING has the rules; `tests/end_to_end/readme` checks the documents.

use super::{none, sources};

/// Words and phrases that no source uses.
const BANNED: &[&str] = &["whoever", "whom", "so many", "anew", "dear", "dearer", "for ever"];

/// Words that do not begin a comment: a noun names its thing better.
const NO_SUBJECT: &[&str] = &["What ", "Who ", "Whom ", "Whose "];

/// Returns whether a file is checked. Two are not: they list the banned words.
fn is_checked(name: &str) -> bool {
    name != "tests/end_to_end/readme/facts.rs" && name != "tests/tidy/prose.rs"
}

/// Returns the banned words in a line.
fn banned_in(line: &str) -> Vec<&'static str> {
    let line = line.to_lowercase();
    let words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let words = format!(" {} ", words.collect::<Vec<_>>().join(" "));
    BANNED.iter().copied().filter(|word| words.contains(&format!(" {word} "))).collect()
}

/// Returns the text of a doc comment that has one on this line.
fn doc_comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("/// ").or_else(|| line.strip_prefix("//! "))
}

#[test]
fn no_source_uses_a_banned_word() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| is_checked(&source.name)) {
        for (at, line) in source.text.lines().enumerate() {
            let found = banned_in(line);
            faults.extend(found.iter().map(|word| format!("{}:{}: {word}", source.name, at + 1)));
        }
    }
    none(&faults);
}

#[test]
fn a_comment_begins_with_its_subject() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| is_checked(&source.name)) {
        let shipped = source.name.starts_with("src/");
        for (at, line) in source.text.lines().enumerate().filter(|_| shipped) {
            let begins = doc_comment(line)
                .is_some_and(|text| NO_SUBJECT.iter().any(|word| text.starts_with(word)));
            if begins {
                faults.push(format!("{}:{}: {}", source.name, at + 1, line.trim()));
            }
        }
    }
    none(&faults);
}

#[test]
fn a_banned_word_is_found_in_a_name_too() {
    assert_eq!(
        banned_in("fn whoever_asks() { // for ever, so many"),
        ["whoever", "so many", "for ever"]
    );
    assert!(banned_in("forever, a dearth of manuals").is_empty());
    assert_eq!(doc_comment("    /// What is due."), Some("What is due."));
}
