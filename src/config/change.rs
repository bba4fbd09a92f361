//! The differences between two configurations, and which of them a running broker applies.

use toml::{Table, Value};

use super::{
    Config,
    load::{as_table, from_table},
};

/// Options that can change while the broker runs; a section stands for all options in it.
///
/// A step of the program's reload applies each of them.
const CHANGEABLE: &[&str] = &[
    "auth.anonymous",
    "auth.anonymous_with_name",
    "auth.certificate_is_enough",
    "auth.certificate_needs_account",
    "auth.hashes_at_once_max",
    "auth.http",
    "auth.jwt",
    "auth.known_logins_max",
    "auth.pin_certificates",
    "auth.policy",
    "auth.postgres",
    "auth.scram",
    "auth.scram_iterations",
    "auth.throttle",
    "auth.username_without_query",
    "auth.users",
    "auth.verified_secs",
    "bridges",
    "http.call_timeout_ms",
    "http.calls_per_account_burst",
    "http.calls_per_account_per_sec",
    "http.calls_per_address_burst",
    "http.calls_per_address_per_sec",
    "http.connections_max",
    "http.connections_per_address_max",
    "http.followers_max",
    "http.followers_per_account_max",
    "http.login_timeout_ms",
    "http.metrics_access",
    "http.metrics_hosts",
    "http.proxy_protocol",
    "http.proxy_trusted",
    "http.session_idle_secs",
    "http.session_secs_max",
    "limits",
    "listeners",
    "log.clients",
    "log.filter",
    "mqtt.proxy_protocol",
    "mqtt.proxy_trusted",
    "mqtt.response_topic_prefix",
    "mqtt.sys_interval_secs",
    "mqtt.websocket_origins",
    "shutdown_deadline_secs",
    "tls",
];

/// Options that need a restart, with the reason.
#[cfg(test)]
const NEEDS_RESTART: &[(&str, &str)] = &[
    ("auth.sources", "each session was accepted by a source at its place in the chain"),
    #[cfg(feature = "cluster")]
    ("cluster", "a node keeps its connections to NATS and its name as long as it lives"),
    ("data_dir", "the store in it is open, and a lock keeps others off it"),
    ("http.https", "listeners are bound at the start"),
    ("http.listen", "listeners are bound at the start"),
    ("http.workers", "each worker is a thread with copies of the listeners"),
    ("log.format", "who reads the log would find two formats in one file"),
    ("mqtt.secure_websocket", "listeners are bound at the start"),
    ("mqtt.tcp", "listeners are bound at the start"),
    ("mqtt.tcp_keep_alive_secs", "the system hands it on from a listener to what it accepts"),
    ("mqtt.tls", "listeners are bound at the start"),
    ("mqtt.unix", "listeners are bound at the start"),
    ("mqtt.unix_mode", "the file of a socket is made when it is bound"),
    ("mqtt.websocket", "listeners are bound at the start"),
    ("mqtt.websocket_path", "it is part of the name that rules know a listener by"),
    ("node", "who follows the events takes another name for another broker"),
    ("otlp", "the thread of the export takes them when it starts"),
    ("shards", "each client identifier lives on one of them"),
    ("store.cache_bytes", "the database takes it when it is opened"),
    ("store.free_bytes_min", "the database takes it when it is opened"),
    ("store.sync", "what was acknowledged is owed what was promised at that time"),
    ("store.sync_interval_ms", "what was acknowledged is owed what was promised at that time"),
    // Without the secrets, which can change.
    ("webhook", "what is stored for an endpoint was selected and bounded by these options"),
];

/// The result of changing the configuration while the broker runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// The configuration from now on: the former one with those changes that can be applied.
    pub config: Config,
    /// Keys whose changes were applied.
    pub changed: Vec<String>,
    /// Keys whose changes need a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Applies the changes in `wanted` that can be applied while the broker runs.
    #[must_use]
    pub fn change_to(&self, wanted: &Self) -> Change {
        let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());
        let mut former = self.clone();
        // First and apart: secrets are in a list of tables, which is compared as a whole.
        if former.take_webhook_secrets(wanted) {
            changed.push("webhook.secrets".to_owned());
        }
        let mut table = as_table(&former);
        for key in differences(&table, &as_table(wanted)) {
            let list = if can_change(&key) { &mut changed } else { &mut needs_restart };
            list.push(key);
        }
        for key in changed.iter().filter(|key| !key.starts_with("webhook.")) {
            take_over(&mut table, &as_table(wanted), key);
        }
        // Only what can change is taken over, so later comparisons still show what needs a restart.
        let config = from_table(&table).expect("values of two configurations make a configuration");
        Change { config, changed, needs_restart }
    }

    /// Takes over the secrets of webhooks that both configurations have; returns whether any differ.
    fn take_webhook_secrets(&mut self, wanted: &Self) -> bool {
        let mut differ = false;
        for webhook in &mut self.webhook {
            let same = wanted.webhook.iter().find(|other| other.name == webhook.name);
            differ |= same.is_some_and(|other| webhook.take_secrets(other));
        }
        differ
    }
}

/// Returns whether an option can change while the broker runs.
pub(super) fn can_change(key: &str) -> bool {
    CHANGEABLE.iter().any(|changeable| is_of(key, changeable))
}

/// Returns whether a key is this option, or one in this section.
fn is_of(key: &str, option: &str) -> bool {
    key.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns the keys, as `section.name`, whose values differ.
fn differences(old: &Table, new: &Table) -> Vec<String> {
    let mut found = Vec::new();
    // Also keys that only one of them has: an option may be absent.
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
    use super::{
        super::{
            WebhookConfig,
            load::{keys, schema},
        },
        *,
    };

    #[test]
    fn every_option_can_change_or_needs_a_restart_for_a_reason() {
        let options = keys(&schema());
        for option in &options {
            let reasons = NEEDS_RESTART.iter().filter(|(key, _)| is_of(option, key)).count();
            assert_eq!(
                usize::from(can_change(option)) + reasons,
                1,
                "{option}: is it put into force at SIGHUP, or why does it need a restart?"
            );
        }
        let known = CHANGEABLE.iter().chain(NEEDS_RESTART.iter().map(|(key, _)| key));
        for key in known {
            assert!(options.iter().any(|option| is_of(option, key)), "{key} is no option");
        }
    }

    /// README and example file say the same.
    #[test]
    fn document_and_example_name_what_needs_a_restart() {
        let document = include_str!("../../docs/configuration.md");
        let list = document.split_once("except these, which need a restart:\n\n```text\n");
        let (said, _) = list.and_then(|(_, rest)| rest.split_once("\n```")).expect("it is said");
        let said: Vec<_> = said.lines().collect();
        let mut expected: Vec<_> = NEEDS_RESTART.iter().map(|(key, _)| *key).collect();
        expected.retain(|key| *key != "cluster"); // docs/cluster.md says it
        expected.sort_unstable();
        assert_eq!(said, expected);
        let mut section = String::new();
        for line in crate::config::EXAMPLE.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = format!("{name}.");
            }
            let Some((name, rest)) = line.split_once(" = ") else { continue };
            if line.starts_with('#') {
                continue;
            }
            let key = format!("{section}{name}");
            let is_said = rest.ends_with(" # restart");
            assert_eq!(is_said, !can_change(&key), "{key}: `# restart` in the example");
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
        // Options that need a restart are reported each time.
        assert_eq!(change.config.change_to(&wanted).needs_restart, ["mqtt.tcp", "shards"]);
        assert!(wanted.change_to(&wanted).needs_restart.is_empty());
    }

    #[test]
    fn secrets_of_webhooks_are_taken_over_and_their_other_options_are_not() {
        let webhook = |text: &str| toml::from_str::<WebhookConfig>(text).expect("options");
        let fleet = "name = \"fleet\"\nurl = \"https://a/\"\n";
        let old = Config { webhook: vec![webhook(fleet)], ..Config::default() };
        let files = |names: &str| format!("{fleet}secret_files = [{names}]\n");
        let wanted = webhook(&files("\"former\", \"next\""));
        let change = old.change_to(&Config { webhook: vec![wanted.clone()], ..Config::default() });
        assert_eq!(
            (change.changed, change.needs_restart.len()),
            (vec!["webhook.secrets".into()], 0)
        );
        assert_eq!(change.config.webhook, std::slice::from_ref(&wanted));
        let slower = WebhookConfig { delay_ms: 300, ..wanted.clone() };
        let other = webhook("name = \"other\"");
        let change = old.change_to(&Config { webhook: vec![slower, other], ..Config::default() });
        assert_eq!(
            (&*change.changed[0], &*change.needs_restart[0]),
            ("webhook.secrets", "webhook")
        );
        assert_eq!(change.config.webhook, [wanted]);
    }
}
