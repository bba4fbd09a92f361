//! Changes one account in the file, and nothing else in it.
//!
//! Called by the command line. The new text is parsed before it is written, so that no mistake gets
//! in.

use std::{num::NonZeroU32, ops::Range, path::Path};

use toml::{Spanned, Value};

use super::{Accounts, AccountsFile, SecretText, UserEntry};
use crate::auth::builtin::{
    file::{self, FileError},
    keys::{SaltSecret, ScramKeys},
    password::hash_password,
};

/// Adds user `name` to the file at `path`, or replaces the hash of an existing user. The rest of
/// the file, with its comments, stays as it is, as do its owner and mode. A missing file is
/// created, readable by its owner only. The file is replaced as a whole, so it is never incomplete.
/// SCRAM keys of the user are removed, because they may be those of another password.
///
/// # Errors
/// The file cannot be read or written, is invalid already, or would be with this name or hash.
pub fn add_user(path: &Path, name: &str, password_hash: &str) -> Result<(), FileError> {
    edit(path, |old| with_user(path, old, name, password_hash, None))
}

/// Does the same as [`add_user`] for a password, which it hashes. With `scram_iterations` the user
/// may also log in by SCRAM, and the client computes that many iterations at each login. The range
/// is [`SCRAM_ITERATIONS`](crate::auth::SCRAM_ITERATIONS).
///
/// # Errors
/// The same as [`add_user`], or the iterations are out of range.
pub fn set_password(
    path: &Path,
    name: &str,
    password: &str,
    scram_iterations: Option<NonZeroU32>,
) -> Result<(), FileError> {
    edit(path, |mut old| {
        let scram = match scram_iterations {
            None => None,
            Some(iterations) => {
                // May add the secret for salts to the text, so it
                // comes before the positions of entries are taken.
                let salts = salts(path, &mut old)?;
                Some(ScramKeys::derive(password, salts.salt(name), iterations))
            }
        };
        let hash = hash_password(password.as_bytes());
        with_user(path, old, name, &hash, scram.as_ref())
    })
}

/// Removes user `name` from the file at `path`; the rest of the file stays as it is.
///
/// # Errors
/// The same as [`add_user`], or the user does not exist.
pub fn remove_user(path: &Path, name: &str) -> Result<(), FileError> {
    edit(path, |old| {
        let listed = file::parse::<AccountsFile>(path, &old)?.users;
        let at = position(path, &listed, name)?;
        let range = whole_entry(&old, &listed[at]);
        let new = format!("{}{}", &old[..range.start], &old[range.end..]);
        // Text inside of a string can look like a table; the cut may have divided it.
        let names = |users: &[Spanned<UserEntry>]| -> Vec<String> {
            users.iter().map(|user| user.get_ref().name.get_ref().0.clone()).collect()
        };
        let mut expected = names(&listed);
        expected.remove(at);
        match file::parse::<AccountsFile>(path, &new) {
            Ok(left) if names(&left.users) == expected => Ok(new),
            _ => {
                let problem =
                    format!("user {name:?} cannot be removed automatically; remove it by hand");
                Err(FileError::invalid(path, &old, listed[at].span(), &problem))
            }
        }
    })
}

/// Writes into the file at `path` whether user `name` is disabled.
///
/// # Errors
/// The same as [`remove_user`].
pub fn set_disabled(path: &Path, name: &str, is_disabled: bool) -> Result<(), FileError> {
    edit(path, |mut old| {
        let listed = file::parse::<AccountsFile>(path, &old)?.users;
        let entry = &listed[position(path, &listed, name)?];
        let user = entry.get_ref();
        match &user.disabled {
            Some(former) => old.replace_range(former.span(), &is_disabled.to_string()),
            // Behind the hash, because an entry has one; other members may be missing.
            None if is_disabled => {
                let separator = separator(&old, entry);
                let end = user.password_hash.span().end;
                old.insert_str(end, &format!("{separator}disabled = true"));
            }
            None => {}
        }
        Ok(old)
    })
}

fn position(path: &Path, listed: &[Spanned<UserEntry>], name: &str) -> Result<usize, FileError> {
    let found = listed.iter().position(|user| user.get_ref().name.get_ref().0 == name);
    found.ok_or_else(|| FileError::NoSuchUser { path: path.to_owned(), name: name.into() })
}

/// Replaces the text of the file at `path` by the result of `change`, unless that is not a valid
/// accounts file.
fn edit(
    path: &Path,
    change: impl FnOnce(String) -> Result<String, FileError>,
) -> Result<(), FileError> {
    let _lock = file::lock_beside(path);
    let new = change(read_or_empty(path)?)?;
    Accounts::parse(path, &new)?;
    file::replace(path, &new)
}

fn read_or_empty(path: &Path) -> Result<String, FileError> {
    match file::read(path) {
        Err(FileError::Unreadable { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(String::new())
        }
        read => read,
    }
}

/// Returns the secret from which salts are derived; adds one to `text` if there is none.
fn salts(path: &Path, text: &mut String) -> Result<SaltSecret, FileError> {
    if let Some(scram) = file::parse::<AccountsFile>(path, text)?.scram {
        let SecretText(secret) = scram.secret;
        return Ok(secret);
    }
    let secret = SaltSecret::generate();
    begin_paragraph(text);
    text.push_str(&format!(
        "# Salts are made from this, also for names that have no account.\n\
         [scram]\nsecret = \"{secret}\"\n"
    ));
    Ok(secret)
}

fn with_user(
    path: &Path,
    mut text: String,
    name: &str,
    hash: &str,
    scram: Option<&ScramKeys>,
) -> Result<String, FileError> {
    let listed = file::parse::<AccountsFile>(path, &text)?.users;
    // TOML quotes the values, so no text of a caller can end a string or begin a table.
    let hash = Value::from(hash).to_string();
    let scram = scram.map(|keys| Value::from(keys.to_string()).to_string());
    let Some(user) = listed.iter().find(|user| user.get_ref().name.get_ref().0 == name) else {
        begin_paragraph(&mut text);
        let name = Value::from(name);
        text.push_str(&format!("[[users]]\nname = {name}\npassword_hash = {hash}\n"));
        if let Some(scram) = scram {
            text.push_str(&format!("scram = {scram}\n"));
        }
        return Ok(text);
    };
    let (user, separator) = (user.get_ref(), separator(&text, user));
    let mut changes: Vec<(Range<usize>, String)> = vec![(user.password_hash.span(), hash)];
    // Keys of the former password would still allow a login with it, so they never stay.
    match (&user.scram, scram) {
        (Some(former), scram) => {
            changes.push((former.span(), scram.unwrap_or_else(|| "\"\"".to_owned())));
        }
        (None, Some(scram)) => changes[0].1.push_str(&format!("{separator}scram = {scram}")),
        (None, None) => {}
    }
    // From the end of the file, so that the spans of earlier changes stay valid.
    changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    for (span, value) in changes {
        text.replace_range(span, &value);
    }
    Ok(text)
}

fn is_inline(text: &str, user: &Spanned<UserEntry>) -> bool {
    text[user.span().start..].starts_with('{')
}

/// Returns the separator between two values of one account.
fn separator(text: &str, user: &Spanned<UserEntry>) -> &'static str {
    if is_inline(text, user) { ", " } else { "\n" }
}

/// Returns the bytes of one account, with the separator behind it. Comments before and after it
/// stay, because they may be about the next account.
fn whole_entry(text: &str, user: &Spanned<UserEntry>) -> Range<usize> {
    if is_inline(text, user) {
        let Range { start, end } = user.span();
        let rest = text[end..].trim_start();
        let end = if rest.starts_with(',') { text.len() - rest.len() + 1 } else { end };
        return start..end;
    }
    let entry = user.get_ref();
    // The header may be far above, behind comments, so it is searched backwards from a value.
    let first_value = entry.name.span().start.min(entry.password_hash.span().start);
    let header = |line: &str| line.trim_start().starts_with("[[");
    let start = lines(text, 0).filter(|(at, line)| *at <= first_value && header(line)).last();
    let start = start.map_or(first_value, |(at, _)| at);
    let mut end = start;
    for (at, line) in lines(text, start) {
        let line_text = line.trim();
        // `[users.limits]` belongs to the account; any other table begins something else.
        let is_table = at > start && line_text.starts_with('[');
        if is_table && !line_text.trim_start_matches('[').trim_start().starts_with("users.") {
            break;
        }
        if !line_text.is_empty() && !line_text.starts_with('#') {
            end = at + line.len();
        }
    }
    // One empty line separated it from the text before it, another separates it from the next.
    if text[end..].starts_with('\n') { start..end + 1 } else { start..end }
}

/// Returns the lines of `text` from byte `from` on, with line ends, each with its offset.
fn lines(text: &str, from: usize) -> impl Iterator<Item = (usize, &str)> {
    let mut at = from;
    text[from..].split_inclusive('\n').map(move |line| {
        at += line.len();
        (at - line.len(), line)
    })
}

fn begin_paragraph(text: &mut String) {
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
}
