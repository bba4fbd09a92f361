//! What has changed between two configurations, and which of it a running broker takes over.

use toml::{Table, Value};

use super::{Config, load::as_table};

/// Options that can change while the broker runs; a section stands for everything in it.
///
/// Each of them is put into force by a step of the program's reload.
const CHANGEABLE: &[&str] = &[
    "limits.authentication_bytes_max",
    "limits.authentication_rounds_max",
    "limits.authentication_secs_max",
    "limits.client_id_bytes_max",
    "limits.client_id_v3_1_chars_max",
    "limits.connect_timeout_secs",
    "limits.filters_per_subscribe_max",
    "limits.in_flight_max",
    "limits.keep_alive_secs_max",
    "limits.receive_maximum",
    "limits.session_expiry_secs_max",
    "limits.sessions_max",
    "limits.subscription_bytes_max",
    "limits.subscriptions_per_client_max",
    "limits.topic_alias_maximum",
    "log.clients",
    "log.filter",
    "tls.certificate",
    "tls.client_auth",
    "tls.client_ca",
    "tls.crl",
    "tls.key",
    "tls.min_version",
    "tls.watch_secs",
];

/// What becomes of a configuration when another one is wanted while the broker runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// The configuration that is in force from now on: the former one with those options that can
    /// change.
    pub config: Config,
    /// Keys that have changed.
    pub changed: Vec<String>,
    /// Keys whose values differ and that need a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Takes over from `wanted` what can change while the broker runs.
    #[must_use]
    pub fn change_to(&self, wanted: &Self) -> Change {
        let mut table = as_table(self);
        let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());
        for key in differences(&table, &as_table(wanted)) {
            let list = if can_change(&key) { &mut changed } else { &mut needs_restart };
            list.push(key);
        }
        for key in &changed {
            take_over(&mut table, &as_table(wanted), key);
        }
        let config = table.try_into().expect("values of two configurations make a configuration");
        Change { config, changed, needs_restart }
    }
}

fn can_change(key: &str) -> bool {
    CHANGEABLE.iter().any(|changeable| {
        key.strip_prefix(changeable).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// The keys, `section.name`, whose values differ.
fn differences(old: &Table, new: &Table) -> Vec<String> {
    let mut found = Vec::new();
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => {
                let inner = differences(old, new).into_iter();
                found.extend(inner.map(|key| format!("{name}.{key}")));
            }
            (old, new) if old != new => found.push(name.clone()),
            _ => {}
        }
    }
    found
}

fn take_over(table: &mut Table, wanted: &Table, key: &str) {
    match key.split_once('.') {
        Some((section, rest)) => {
            if let (Some(Value::Table(table)), Some(Value::Table(wanted))) =
                (table.get_mut(section), wanted.get(section))
            {
                take_over(table, wanted, rest);
            }
        }
        None => match wanted.get(key) {
            Some(value) => drop(table.insert(key.to_owned(), value.clone())),
            None => drop(table.remove(key)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_that_can_change_is_one() {
        let table = as_table(&Config::default());
        for key in CHANGEABLE {
            let mut found = Some(&Value::Table(table.clone())).cloned();
            for name in key.split('.') {
                found = found.and_then(|value| value.as_table()?.get(name).cloned());
            }
            assert!(found.is_some(), "{key}");
        }
    }

    #[test]
    fn what_can_change_is_taken_over_and_the_rest_is_named() {
        let old = Config::default();
        let mut wanted = old.clone();
        wanted.log.filter = "debug".into();
        wanted.shards = 7;
        wanted.mqtt.tcp.clear();
        let change = old.change_to(&wanted);
        assert_eq!(change.changed, ["log.filter"]);
        assert_eq!(change.needs_restart, ["mqtt.tcp", "shards"]);
        let expected = Config { log: wanted.log.clone(), ..old };
        assert_eq!(change.config, expected);
        // What needs a restart is named each time.
        assert_eq!(change.config.change_to(&wanted).needs_restart, ["mqtt.tcp", "shards"]);
        assert!(wanted.change_to(&wanted).needs_restart.is_empty());
    }
}
