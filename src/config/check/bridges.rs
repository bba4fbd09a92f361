//! Checks of `[[bridges]]`, without the files that they name.

use std::collections::HashSet;

use crate::{
    bridge::{BRIDGES_MAX, BridgeError},
    config::{Config, problem::Problem, webhooks::Fault},
};

pub(super) fn check(config: &Config) -> Result<(), Problem> {
    if config.bridges.len() > BRIDGES_MAX {
        let what = BridgeError::TooMany.to_string();
        return Err(Problem::new(&["bridges"], what, "see `hearthmq example-config`"));
    }
    let mut names = HashSet::new();
    for (number, bridge) in config.bridges.iter().enumerate() {
        let problem = |(option, why): Fault| {
            Problem::new(
                &[&format!("bridges.{number}.{option}"), "bridges"],
                format!("{option} of a [[bridges]]: {why}"),
                "see `hearthmq example-config`",
            )
        };
        // By the code that makes the bridge, so that no rule is written twice.
        bridge.without_files().map(drop).map_err(problem)?;
        if !names.insert(&bridge.name) {
            let why = BridgeError::Repeated(bridge.name.clone()).to_string();
            return Err(problem(("name", why)));
        }
    }
    Ok(())
}
