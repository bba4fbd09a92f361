//! Changing one account in the file, and nothing else in it.
//!
//! Called by the command line. What is written is read again first, so that no mistake gets in.

use std::{num::NonZeroU32, ops::Range, path::Path};

use toml::Value;

use super::{Accounts, AccountsFile, SecretText};
use crate::auth::{
    file::{self, FileError},
    password::hash_password,
    scram::{SaltSecret, ScramKeys},
};

/// Adds user `name` to the file at `path`, or replaces the hash of one who is in it; the rest of
/// the file, with its comments, stays as it is. A file that is missing is made. It can then be
/// read by its owner only, and at no time is half of it there. SCRAM keys of the user, which are
/// of another password perhaps, are taken out.
///
/// # Errors
/// The file cannot be read or written, is wrong already, or would be with this name or hash.
pub fn add_user(path: &Path, name: &str, password_hash: &str) -> Result<(), FileError> {
    let old = read_or_empty(path)?;
    replace(path, with_user(path, old, name, password_hash, None)?)
}

/// As [`add_user`], for a password whose hash is made here; with `scram_iterations` the user may
/// also log in by SCRAM, and the client computes that many iterations each time. The range is
/// [`SCRAM_ITERATIONS`](crate::auth::SCRAM_ITERATIONS).
///
/// # Errors
/// As [`add_user`], or the iterations are out of range.
pub fn set_password(
    path: &Path,
    name: &str,
    password: &str,
    scram_iterations: Option<NonZeroU32>,
) -> Result<(), FileError> {
    let mut old = read_or_empty(path)?;
    let scram = match scram_iterations {
        None => None,
        Some(iterations) => {
            let salts = salts(path, &mut old)?;
            Some(ScramKeys::derive(password, salts.salt(name), iterations))
        }
    };
    let hash = hash_password(password.as_bytes());
    replace(path, with_user(path, old, name, &hash, scram.as_ref())?)
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

fn replace(path: &Path, new: String) -> Result<(), FileError> {
    Accounts::parse(path, &new)?;
    file::write_private(path, &new)
}

/// The secret that salts are made from; `text` has it from now on.
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
    let is_inline = text[user.span().start..].starts_with('{');
    let (user, separator) = (user.get_ref(), if is_inline { ", " } else { "\n" });
    let mut changes: Vec<(Range<usize>, String)> = vec![(user.password_hash.span(), hash)];
    match (&user.scram, scram) {
        (Some(former), scram) => {
            changes.push((former.span(), scram.unwrap_or_else(|| "\"\"".to_owned())));
        }
        (None, Some(scram)) => changes[0].1.push_str(&format!("{separator}scram = {scram}")),
        (None, None) => {}
    }
    changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    for (span, value) in changes {
        text.replace_range(span, &value);
    }
    Ok(text)
}

fn begin_paragraph(text: &mut String) {
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
}
