//! Reads the table. Does not check its statements.

use std::{collections::BTreeMap, fmt, fs};

use serde::Deserialize;

use super::sources::root;

/// One of the two OASIS Standards. MQTT 3.1 came before them and has no numbered statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edition {
    V3_1_1,
    V5_0,
}

impl Edition {
    pub(crate) const BOTH: [Self; 2] = [Self::V3_1_1, Self::V5_0];

    /// Returns the number of its statements.
    pub(crate) const fn published(self) -> usize {
        match self {
            Self::V3_1_1 => 141,
            Self::V5_0 => 251,
        }
    }

    const fn directory(self) -> &'static str {
        match self {
            Self::V3_1_1 => "tests/clauses/v3_1_1",
            Self::V5_0 => "tests/clauses/v5_0",
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_1_1 => "3.1.1",
            Self::V5_0 => "5.0",
        })
    }
}

/// The party that a statement binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Binds {
    Server,
    Client,
    Both,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    asks: String,
    binds: Binds,
    #[serde(default)]
    tests: Vec<String>,
    why_not: Option<String>,
}

/// A normative statement in the table.
pub(crate) struct Clause {
    /// The table's file, from the project's root.
    pub(crate) file: String,
    pub(crate) id: String,
    /// What it requires, in our own words.
    pub(crate) asks: String,
    pub(crate) binds: Binds,
    /// The tests that show it, as `target::module::function`.
    pub(crate) tests: Vec<String>,
    /// Why no test shows it.
    pub(crate) why_not: Option<String>,
}

impl Clause {
    /// Returns whether it is in the file of its chapter: `3.01.toml` has `MQTT-3.1.…`, `1-2.toml`
    /// has `MQTT-1.…` and `MQTT-2.…`.
    pub(crate) fn belongs(&self) -> bool {
        let stem = self.file.rsplit('/').next().unwrap().trim_end_matches(".toml");
        stem.split('-').any(|chapter| {
            let chapter = chapter.replace(".0", ".");
            self.id.starts_with(&format!("MQTT-{chapter}."))
        })
    }
}

/// Returns all statements of an edition in the table.
pub(crate) fn clauses(edition: Edition) -> Vec<Clause> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root().join(edition.directory())).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = format!("{}/{name}", edition.directory());
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let entries: BTreeMap<String, Entry> =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        all.extend(entries.into_iter().map(|(id, entry)| {
            let Entry { asks, binds, tests, why_not } = entry;
            Clause { file: file.clone(), id, asks, binds, tests, why_not }
        }));
    }
    all
}
