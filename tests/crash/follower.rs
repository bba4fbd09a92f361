//! What a receiver of a webhook knows if it applies messages as `docs/events.md` says, and whether
//! the messages keep what is promised there.
//!
//! Plain data: knows neither sockets nor the program.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What the receiver knows of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    version: u64,
    is_online: bool,
}

/// The changes of one run of the broker, as far as they were delivered.
#[derive(Debug)]
struct Run {
    epoch: String,
    /// The highest version of earlier runs.
    floor: u64,
    /// The number of the last change.
    last: Option<u64>,
    /// The versions of the connections of each client, and whether the last one has ended.
    connections: BTreeMap<String, (Vec<u64>, bool)>,
}

/// How much was delivered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) messages: u64,
    pub(crate) changes: u64,
    pub(crate) repeated: u64,
    pub(crate) resets: u64,
    /// Changes of an earlier run behind the `reset` of a later one.
    pub(crate) history: u64,
}

/// The receiver.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    rows: BTreeMap<String, Row>,
    /// The version of the last `reset`: that of clients without a row.
    floor: u64,
    runs: Vec<Run>,
    /// The changes that came behind the `reset` of a later run, each once, since a test has cleared
    /// this.
    pub(crate) late: BTreeSet<String>,
    pub(crate) delivered: Delivered,
}

impl Follower {
    /// Applies a message.
    ///
    /// # Errors
    /// Says which promise the message breaks.
    pub(crate) fn apply(&mut self, message: &Value) -> Result<(), String> {
        self.delivered.messages += 1;
        let events = message["events"].as_array().ok_or("a message without events")?;
        events
            .iter()
            .try_for_each(|event| self.apply_event(event).map_err(|why| format!("{why}: {event}")))
    }

    fn apply_event(&mut self, event: &Value) -> Result<(), String> {
        let data = &event["data"];
        let name = event["event"].as_str().ok_or("an event without a name")?;
        let id = event["id"].as_str().ok_or("an event without an id")?;
        let (epoch, number) = id.split_once('.').ok_or("no id")?;
        let number: u64 = number.parse().map_err(|_| "no number")?;
        if name == "reset" {
            return self.reset(number, data);
        }
        let at = self.run_of(epoch)?;
        if at + 1 < self.runs.len() {
            if data["version"].as_u64() > Some(self.floor) {
                return Err("the reset does not cover the version of an earlier run".to_owned());
            }
            self.late.insert(id.to_owned());
        }
        if self.runs[at].last.is_some_and(|last| number <= last) {
            self.delivered.repeated += 1;
            return self.row(name, data); // applied again, which must make no difference
        }
        if let Some(last) = self.runs[at].last
            && number != last + 1
        {
            return Err(format!("{} changes are missing", number - last - 1));
        }
        self.runs[at].last = Some(number);
        self.delivered.changes += 1;
        self.delivered.history += u64::from(at + 1 < self.runs.len());
        self.runs[at].note(name, data)?;
        self.row(name, data)
    }

    /// Returns the place of a run.
    ///
    /// One that was killed before the endpoint had taken its `reset` begins with a change, behind the
    /// `reset` of a later one.
    fn run_of(&mut self, epoch: &str) -> Result<usize, String> {
        if let Some(at) = self.runs.iter().position(|run| run.epoch == epoch) {
            return Ok(at);
        }
        let at = self.runs.len().checked_sub(1).ok_or("the first message is no reset")?;
        self.runs.insert(at, Run::new(epoch));
        Ok(at)
    }

    fn reset(&mut self, number: u64, data: &Value) -> Result<(), String> {
        let epoch = data["epoch"].as_str().ok_or("reset without an epoch")?;
        let version = data["version"].as_u64().ok_or("reset without a version")?;
        if self.runs.last().is_some_and(|run| run.epoch == epoch) {
            self.delivered.repeated += 1; // the answer was lost
        } else {
            if self.runs.iter().any(|run| run.epoch == epoch) {
                return Err("reset to an earlier run".to_owned());
            }
            let highest = self.runs.iter().flat_map(|run| run.connections.values());
            let highest = highest.flat_map(|(versions, _)| versions).max().copied();
            if highest.is_some_and(|highest| highest > version) {
                return Err(format!("reset does not cover the version {highest:?}"));
            }
            self.delivered.resets += 1;
            // The end of the snapshot has a number too: nobody is online yet.
            self.runs.push(Run { floor: version, last: Some(number + 1), ..Run::new(epoch) });
        }
        self.rows.clear();
        self.floor = version;
        Ok(())
    }

    /// Applies an event to the row of its client, by the table in the document.
    fn row(&mut self, name: &str, data: &Value) -> Result<(), String> {
        let Some(client_id) = data["clientid"].as_str() else { return Ok(()) };
        let version = data["version"].as_u64().unwrap_or(0);
        let begins = Row { version: self.floor, is_online: false };
        let row = self.rows.entry(client_id.to_owned()).or_insert(begins);
        match name {
            "client_connected" | "snapshot" if version > row.version => {
                *row = Row { version, is_online: true };
            }
            "client_disconnected" if version >= row.version => {
                *row = Row { version, is_online: false };
            }
            "client_connected" | "snapshot" | "client_disconnected" => {}
            other => return Err(format!("{other} was not expected here")),
        }
        Ok(())
    }

    /// Returns the clients that it believes to be online.
    pub(crate) fn online(&self) -> Vec<&str> {
        let online = self.rows.iter().filter(|(_, row)| row.is_online);
        online.map(|(client_id, _)| &**client_id).collect()
    }

    /// Returns whether it knows this client to be online.
    pub(crate) fn is_online(&self, client_id: &str) -> bool {
        self.rows.get(client_id).is_some_and(|row| row.is_online)
    }

    /// Returns how many connections of all clients were delivered.
    pub(crate) fn all_connections(&self) -> usize {
        let of_runs = self.runs.iter().flat_map(|run| run.connections.values());
        of_runs.map(|(versions, _)| versions.len()).sum()
    }

    /// Returns how many connections of a client in the present run were delivered.
    pub(crate) fn connections(&self, client_id: &str) -> usize {
        let run = self.runs.last();
        run.and_then(|run| run.connections.get(client_id)).map_or(0, |(versions, _)| versions.len())
    }
}

impl Run {
    fn new(epoch: &str) -> Self {
        Self { epoch: epoch.to_owned(), floor: 0, last: None, connections: BTreeMap::new() }
    }

    /// Notes a change that is delivered for the first time: the connections of a client come one after
    /// the other, with rising versions.
    fn note(&mut self, name: &str, data: &Value) -> Result<(), String> {
        let Some(client_id) = data["clientid"].as_str() else { return Ok(()) };
        let version = data["version"].as_u64().ok_or("an event without a version")?;
        if version <= self.floor {
            return Err(format!("the version is not above that of the reset, {}", self.floor));
        }
        let begins = || (Vec::new(), true);
        let (versions, has_ended) =
            self.connections.entry(client_id.to_owned()).or_insert_with(begins);
        let last = versions.last().copied();
        match name {
            "client_connected" if *has_ended && last.is_none_or(|last| version > last) => {
                versions.push(version);
                *has_ended = false;
                Ok(())
            }
            "client_disconnected" if !*has_ended && last == Some(version) => {
                *has_ended = true;
                Ok(())
            }
            _ => Err(format!("out of order after {versions:?}, ended: {has_ended}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reset(epoch: &str, version: u64) -> Value {
        let data = json!({ "epoch": epoch, "version": version });
        json!({ "id": format!("{epoch}.1"), "event": "reset", "data": data })
    }

    fn event(id: &str, name: &str, version: u64) -> Value {
        let data = json!({ "clientid": "car", "version": version });
        json!({ "id": id, "event": name, "data": data })
    }

    fn played(events: &[Value]) -> Result<Follower, String> {
        let mut follower = Follower::default();
        events.iter().try_for_each(|event| follower.apply(&json!({ "events": [event] })))?;
        Ok(follower)
    }

    #[test]
    fn a_follower_that_gets_all_changes_knows_who_is_online() {
        let first = [
            reset("a", 0),
            event("a.3", "client_connected", 1),
            event("a.4", "client_disconnected", 1),
            event("a.3", "client_connected", 1),
            event("a.4", "client_disconnected", 1),
            event("a.5", "client_connected", 2),
        ];
        let follower = played(&first).unwrap();
        assert_eq!((follower.online(), follower.delivered.repeated), (vec!["car"], 2));
        let second = [
            reset("b", 10),
            event("a.5", "client_connected", 2),
            event("a.6", "client_disconnected", 2),
            event("a.7", "client_connected", 3),
        ];
        let follower = played(&[&first[..], &second[..]].concat()).unwrap();
        assert!(follower.online().is_empty() && follower.delivered.history == 2);
    }

    #[test]
    fn a_broken_promise_is_noticed() {
        let connected = event("a.3", "client_connected", 1);
        for (broken, why) in [
            (vec![connected.clone()], "no reset"),
            (vec![reset("a", 0), event("a.4", "client_connected", 1)], "missing"),
            (vec![reset("b", 0), connected.clone()], "does not cover"),
            (
                vec![reset("a", 0), connected.clone(), event("a.5", "client_connected", 2)],
                "missing",
            ),
            (
                vec![reset("a", 0), connected.clone(), event("a.4", "client_connected", 2)],
                "out of order",
            ),
            (vec![reset("a", 0), event("a.3", "client_disconnected", 1)], "out of order"),
            (vec![reset("a", 1), connected.clone()], "not above that of the reset"),
            (vec![reset("a", 0), connected, reset("b", 0)], "does not cover"),
            (vec![reset("a", 0), reset("b", 0), reset("a", 0)], "earlier run"),
        ] {
            let said = played(&broken).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
