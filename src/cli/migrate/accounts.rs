//! Accounts of a `password_file`, and the lines by which `hearthmq users import` takes them.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use hearthmq::auth::{StoredPassword, check_user_name};
use serde::Serialize;

use super::{
    MigrateError,
    conf::{Place, read_text},
    report::Report,
};

/// An account, as `hearthmq users import` reads it.
#[derive(Serialize)]
pub(super) struct NewAccount {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password_hash: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) disabled: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
}

/// The accounts of all listeners.
#[derive(Default)]
pub(super) struct MigratedAccounts {
    all: Vec<NewAccount>,
    names: BTreeSet<String>,
}

impl MigratedAccounts {
    /// Adds an account if its name and hash can be used; returns whether it is there now.
    pub(super) fn add(&mut self, account: NewAccount, place: &Place, report: &mut Report) -> bool {
        let what = format!("user {:?}", account.name);
        if let Err(error) = check_user_name(&account.name) {
            report.not_taken_at(place, &what, &error.to_string());
            return false;
        }
        let hash = account.password_hash.as_deref().map(str::parse::<StoredPassword>);
        if let Some(Err(error)) = hash {
            report.not_taken_at(place, &what, &error.to_string());
            return false;
        }
        if !self.names.insert(account.name.clone()) {
            let known = self.all.iter().find(|known| known.name == account.name);
            // The same line in two files is no conflict, so it is not reported.
            if known.is_none_or(|known| known.password_hash != account.password_hash) {
                report.not_taken_at(
                    place,
                    &what,
                    "the name has an account with another password already, and a name has one",
                );
            }
            return true;
        }
        self.all.push(account);
        true
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the lines for `hearthmq users import`.
    pub(super) fn lines(&self) -> String {
        let line = |account| {
            serde_json::to_string(account).expect("an account has only texts and flags") + "\n"
        };
        self.all.iter().map(line).collect()
    }
}

/// Adds the accounts of a password file; returns their names.
pub(super) fn read_password_file(
    path: &Path,
    accounts: &mut MigratedAccounts,
    report: &mut Report,
) -> Result<Vec<String>, MigrateError> {
    let text = read_text(path)?;
    let file: Arc<Path> = path.into();
    let mut names = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        // Mosquitto skips such lines too.
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = Place::new(&file, number);
        let Some((name, hash)) = line.split_once(':') else {
            report.not_taken_at(&place, "a line without a colon", "it has no password hash");
            continue;
        };
        let account = NewAccount {
            name: name.to_owned(),
            password_hash: Some(hash.to_owned()),
            disabled: false,
            groups: Vec::new(),
        };
        // The rules name only accounts that are taken over.
        if accounts.add(account, &place, report) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
