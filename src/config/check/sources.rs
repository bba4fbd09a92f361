//! Checks of `[auth] sources`.

use std::collections::HashSet;

use crate::{
    auth::{HttpAuthError, JwtError, PostgresError},
    config::{Config, problem::Problem},
};

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
    if let Some(source) = sources.iter().find(|source| !named.insert(**source)) {
        return Err(Problem::new(
            &["auth.sources"],
            format!("auth.sources names {source:?} twice", source = source.name()),
            "name each source once",
        ));
    }
    // What is wrong with an option also says what would be right.
    let problem = |section: &str, option: &str, why: String| {
        let key = format!("auth.{section}.{option}");
        let (what, remedy) = match why.split_once([':', ';']) {
            Some((what, remedy)) => (what.to_owned(), remedy.trim().to_owned()),
            None => (why, "see `hearthmq example-config`".to_owned()),
        };
        Problem::new(&[&key], format!("{key}: {what}"), remedy)
    };
    // Errors about files come when these are read.
    if let Err(JwtError::Option { option, why }) = config.auth.jwt.check() {
        return Err(problem("jwt", option, why));
    }
    if let Err(HttpAuthError::Option { option, why }) = config.auth.http.check() {
        return Err(problem("http", option, why));
    }
    if let Err(PostgresError::Option { option, why }) = config.auth.postgres.check() {
        return Err(problem("postgres", option, why));
    }
    Ok(())
}
