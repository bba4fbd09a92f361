//! Checks of `[auth] sources`.

use std::collections::HashSet;

use super::Problem;
use crate::config::Config;

pub(super) fn check(config: &Config) -> Result<(), Problem> {
    let sources = &config.auth.sources;
    if sources.is_empty() {
        return Err(Problem::new(
            &["auth.sources"],
            "auth.sources is empty, so nobody can log in",
            "name a source, for example sources = [\"accounts\"]",
        ));
    }
    let mut named = HashSet::new();
    match sources.iter().find(|source| !named.insert(**source)) {
        None => Ok(()),
        Some(source) => Err(Problem::new(
            &["auth.sources"],
            format!("auth.sources names {source:?} twice", source = source.name()),
            "name each source once",
        )),
    }
}
