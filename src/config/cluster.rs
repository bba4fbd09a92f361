//! `[cluster]`: the check of its options, and what the broker takes of them.

use super::{Config, problem::Problem};
use crate::cluster::joining::ClusterSettings;
pub use crate::cluster::options::{ClusterOptionError, ClusterOptions};

impl Config {
    /// Returns how the broker joins its cluster; `None` without one.
    ///
    /// # Errors
    /// The first option that is invalid.
    pub fn cluster_settings(&self) -> Result<Option<ClusterSettings>, ClusterOptionError> {
        let Some(options) = &self.cluster else { return Ok(None) };
        let (nats, directory) = (options.settings(&self.node)?, self.data_dir.clone());
        Ok(Some(ClusterSettings { nats, directory }))
    }
}

/// Refuses a table with which no cluster can be joined.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    let Err(ClusterOptionError { option, why }) = config.cluster_settings() else { return Ok(()) };
    let key = match option {
        "node" => option.to_owned(),
        _ => format!("cluster.{option}"),
    };
    let remedy = match option {
        "node" => "give each broker of a cluster a name of its own",
        "servers" => "write servers = [\"nats://127.0.0.1:4222\"], or tls://host:port for others",
        _ => "docs/cluster.md has all options of [cluster]",
    };
    Err(Problem {
        what: format!("{key} {why}"),
        keys: vec![key, "cluster".to_owned()],
        remedy: remedy.to_owned(),
    })
}
