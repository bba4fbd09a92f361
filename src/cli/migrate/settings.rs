//! The configuration that an import makes, and its text.

use std::{collections::BTreeMap, path::PathBuf};

use toml::{Table, Value};

use super::{conf::Place, rules::NewRule};

/// Options of HearthMQ, and rules that follow from options of Mosquitto.
#[derive(Default)]
pub(super) struct MosquittoSettings {
    sections: BTreeMap<&'static str, Table>,
    /// The `[[listeners]]` tables.
    pub(super) listeners: Vec<Table>,
    /// The `[[bridges]]` tables.
    pub(super) bridges: Vec<Table>,
    /// Files that only their owner may read, and their content.
    pub(super) secrets: Vec<(PathBuf, String)>,
    pub(super) rules: Vec<NewRule>,
    /// The prefix that each client identifier must have, and the line that sets it.
    pub(super) client_id_prefix: Option<(Place, String)>,
}

impl MosquittoSettings {
    pub(super) fn set(&mut self, section: &'static str, key: &str, value: impl Into<Value>) {
        self.sections.entry(section).or_default().insert(key.to_owned(), value.into());
    }

    pub(super) fn set_some(
        &mut self,
        section: &'static str,
        key: &str,
        value: Option<impl Into<Value>>,
    ) {
        if let Some(value) = value {
            self.set(section, key, value);
        }
    }

    pub(super) fn number(&self, section: &str, key: &str) -> Option<i64> {
        self.sections.get(section)?.get(key)?.as_integer()
    }

    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.sections.get(section).is_some_and(|section| section.contains_key(key))
    }

    /// Adds a text to a list.
    pub(super) fn push(&mut self, section: &'static str, key: &str, text: &str) {
        let section = self.sections.entry(section).or_default();
        let list = section.entry(key).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(text.into());
        }
    }

    /// Sets whether the listener at this address admits clients without an account.
    pub(super) fn let_anonymous(&mut self, address: &str, is_allowed: bool) {
        let is_it = |table: &Table| table.get("address").and_then(Value::as_str) == Some(address);
        let at = self.listeners.iter().position(is_it).unwrap_or_else(|| {
            self.listeners.push(Table::from_iter([("address".to_owned(), Value::from(address))]));
            self.listeners.len() - 1
        });
        self.listeners[at].insert("anonymous".to_owned(), is_allowed.into());
    }

    /// Returns the text of the configuration.
    pub(super) fn text(&self, from: &str) -> String {
        let mut all: Table = self
            .sections
            .iter()
            .map(|(name, section)| ((*name).to_owned(), Value::Table(section.clone())))
            .collect();
        for (key, tables) in [("listeners", &self.listeners), ("bridges", &self.bridges)] {
            if !tables.is_empty() {
                let tables = tables.iter().cloned().map(Value::Table).collect();
                all.insert(key.to_owned(), Value::Array(tables));
            }
        }
        let text = toml::to_string(&all).expect("the tables have texts, numbers, flags and lists");
        format!(
            "# Imported from {from}. `hearthmq example-config` describes every option.\n\n{text}"
        )
    }
}
