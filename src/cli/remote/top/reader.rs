//! Asks the broker for the numbers.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    SortBy,
    numbers::{MetricSums, TopNumbers},
};
use crate::cli::remote::{Remote, RemoteError, query};

/// The time between two questions.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// The numbers to request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedNumbers {
    pub(super) sort: SortBy,
    /// Maximum number of clients.
    pub(super) limit: usize,
    /// A part of the identifier, or a pattern; empty: all clients.
    pub(super) filter: String,
    /// The client to show in full.
    pub(super) shown: Option<String>,
}

impl WantedNumbers {
    /// Returns the pattern for the identifiers.
    fn pattern(&self) -> Option<String> {
        match &*self.filter {
            "" => None,
            pattern if pattern.contains('*') => Some(pattern.to_owned()),
            part => Some(format!("*{part}*")),
        }
    }
}

/// Reads the numbers.
pub(super) struct TopReader {
    remote: Remote,
    before: Option<(MetricSums, Instant)>,
}

impl TopReader {
    pub(super) const fn new(remote: Remote) -> Self {
        Self { remote, before: None }
    }

    /// Waits for the time between two questions.
    pub(super) fn wait_a_second(&self) {
        thread::sleep(EVERY);
    }

    pub(super) fn read(&mut self, wanted: &WantedNumbers) -> Result<TopNumbers, RemoteError> {
        let node = permitted(self.remote.get("/api/v1/node"))?.unwrap_or_default();
        // An account without the permission for metrics still sees its clients.
        let stats = permitted(self.remote.get("/api/v1/stats"))?;
        let at = Instant::now();
        let metrics = stats.map(|stats| {
            let now = MetricSums::of(&stats);
            let before = self.before.replace((now.clone(), at));
            (now, before.map(|(before, then)| (before, (at - then).as_secs_f64())))
        });
        let filter = query(&[("client_id", wanted.pattern())]);
        let (by, limit) = (wanted.sort.name(), wanted.limit);
        let found = self.remote.get(&format!("/api/v1/busiest?by={by}&limit={limit}{filter}"))?;
        let shown = wanted.shown.as_ref().map(|client_id| self.client(client_id)).transpose()?;
        let clients = found["items"].as_array().cloned().unwrap_or_default();
        Ok(TopNumbers { node, metrics, clients, shown })
    }

    /// Reads everything about a client, or the reason why it cannot be read.
    fn client(&self, client_id: &str) -> Result<Result<Value, String>, RemoteError> {
        let target = query(&[("id", Some(client_id.to_owned()))]);
        let target = format!("/api/v1/client?{}", target.trim_start_matches('&'));
        match self.remote.get(&target) {
            Ok(client) => Ok(Ok(client)),
            Err(RemoteError::Refused { message, .. }) => Ok(Err(message)),
            Err(error) => Err(error),
        }
    }
}

/// Returns `None` where the account has no permission.
fn permitted(answer: Result<Value, RemoteError>) -> Result<Option<Value>, RemoteError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(RemoteError::Refused { status: 403, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
