//! Bridges of a `mosquitto.conf`: its `connection` blocks, as `[[bridges]]` tables.
//!
//! A password goes into a file of its own, and never into the configuration. Knows no other option.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use hearthmq::{bridge::BridgeAddress, mqtt::validate_topic};
use toml::{Table, Value};

use super::{
    bridge_topics::{read_topic, words},
    conf::Line,
    report::Report,
    settings::MosquittoSettings,
};

/// The most bridges, addresses and topics that a configuration may have.
const BRIDGES_MAX: usize = 64;
const ADDRESSES_MAX: usize = 16;
const TOPICS_MAX: usize = 256;
/// The longest name of a bridge.
const NAME_BYTES_MAX: usize = 64;
/// The largest packet of MQTT.
const PACKET_BYTES_MAX: i64 = 268_435_455;

/// Options without a counterpart, and the reason.
const WITHOUT_COUNTERPART: &[(&str, &str)] = &[
    ("bridge_attempt_unsubscribe", "the bridge unsubscribes from what it no longer takes in"),
    ("bridge_capath", "name the file of the authority in tls.ca"),
    ("bridge_ciphers", "the TLS library chooses the cipher suites"),
    ("bridge_ciphers_tls1.3", "the TLS library chooses the cipher suites"),
    (
        "bridge_insecure",
        "the certificate of the other broker is always checked: write its name into tls.server_name",
    ),
    ("bridge_max_topic_alias", "a bridge uses no Topic Aliases"),
    ("bridge_reload_type", "SIGHUP restarts the bridges whose options have changed"),
    ("bridge_require_ocsp", "OCSP is not supported"),
    ("bridge_tcp_keepalive", "keep_alive_secs finds a dead connection"),
    ("bridge_tcp_user_timeout", "keep_alive_secs finds a dead connection"),
    ("idle_timeout", "a bridge stays connected"),
    ("local_clientid", "the session of a bridge has the Client Identifier $bridge/NAME here"),
    ("local_password", "a bridge needs no account here: its topics are what it may do"),
    ("local_username", "a bridge needs no account here: its topics are what it may do"),
    ("threshold", "a bridge stays connected"),
];

/// Whether an option of this name concerns a bridge.
pub(super) fn is_of_bridge(name: &str) -> bool {
    ["bridge_", "remote_", "local_", "notification"].iter().any(|known| name.starts_with(known))
        || matches!(
            name,
            "connection"
                | "address"
                | "addresses"
                | "topic"
                | "cleansession"
                | "clientid"
                | "username"
                | "password"
                | "keepalive_interval"
                | "idle_timeout"
                | "restart_timeout"
                | "round_robin"
                | "start_type"
                | "threshold"
                | "try_private"
        )
}

/// A bridge with its own lines.
pub(super) struct MosquittoBridge {
    connection: Line,
    lines: Vec<Line>,
}

/// All bridges, in their order.
#[derive(Default)]
pub(super) struct MosquittoBridges(Vec<MosquittoBridge>);

impl MosquittoBridges {
    /// Adds a line to the bridge that it belongs to.
    pub(super) fn add(&mut self, line: Line, report: &mut Report) {
        match self.0.last_mut() {
            _ if line.name == "connection" => {
                self.0.push(MosquittoBridge { connection: line, lines: Vec::new() });
            }
            Some(bridge) => bridge.lines.push(line),
            None => report.not_taken(&line, "it stands before the first connection"),
        }
    }

    /// Takes all of them over. Secrets go to files beside this configuration.
    pub(super) fn take(
        &self,
        config: &Path,
        settings: &mut MosquittoSettings,
        report: &mut Report,
    ) {
        let mut names = BTreeSet::new();
        for bridge in &self.0 {
            // One more would make the whole configuration invalid.
            if settings.bridges.len() == BRIDGES_MAX {
                report.not_taken(&bridge.connection, "there may be 64 bridges");
                continue;
            }
            // A name here is part of a client identifier, so it may have to be changed.
            let name = bridge.name(&names);
            let secret = config.with_extension(format!("bridge-{name}.secret"));
            if let Some((table, password)) = bridge.take(&name, &secret, report) {
                if name != bridge.connection.value {
                    report.differs(
                        Some(&bridge.connection.place),
                        &format!("the bridge {:?} has the name {name}", bridge.connection.value),
                    );
                }
                settings.bridges.push(table);
                settings.secrets.extend(password.map(|password| (secret, password)));
                // Only now: a bridge that is left out leaves its name to others.
                names.insert(name);
            }
        }
        if !settings.bridges.is_empty() {
            report.differs(
                None,
                "A bridge keeps its messages of QoS 1 and 2 in the store while it is not connected; those \
                 of QoS 0 do not wait. Its state is on $SYS/broker/connection/NAME/state here",
            );
        }
    }
}

/// The result for one bridge.
struct TakenBridge<'a> {
    table: Table,
    tls: Table,
    topics: Vec<Value>,
    password: Option<String>,
    report: &'a mut Report,
}

impl TakenBridge<'_> {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.table.insert(key.to_owned(), value.into());
    }

    fn set_tls(&mut self, key: &str, value: impl Into<Value>) {
        self.tls.insert(key.to_owned(), value.into());
    }

    /// Sets a number that lies in these bounds, or reports the line.
    fn set_number(&mut self, line: &Line, key: &str, (min, max): (i64, i64)) {
        match line.number() {
            Some(number) => self.set(key, number.clamp(min, max)),
            None => self.report.not_taken(line, "the value is not valid"),
        }
    }

    fn not_taken(&mut self, line: &Line, why: &str) {
        self.report.not_taken(line, why);
    }
}

impl MosquittoBridge {
    /// Returns a name that a bridge may have here, and no other has.
    fn name(&self, others: &BTreeSet<String>) -> String {
        let may_be = |c: char| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '-' | '_') => c,
            _ => '-',
        };
        let mut name: String = self.connection.value.chars().map(may_be).collect();
        name.truncate(NAME_BYTES_MAX - 3); // each character is one byte, and a number fits
        if name.is_empty() {
            name.push_str("bridge");
        }
        let numbered = (2..).map(|number| format!("{name}-{number}"));
        let mut possible = std::iter::once(name.clone()).chain(numbered);
        possible.find(|name| !others.contains(name)).unwrap_or(name)
    }

    fn last(&self, name: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.name == name)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.last(name).and_then(Line::flag)
    }

    /// Takes the bridge over; returns its table, and its password. Returns `None` if it cannot be one.
    fn take(
        &self,
        name: &str,
        secret: &Path,
        report: &mut Report,
    ) -> Option<(Table, Option<String>)> {
        let addresses = self.addresses(report);
        if addresses.is_empty() {
            report.not_taken(&self.connection, "it has no address, and is left out");
            return None;
        }
        let (table, tls) = (Table::new(), Table::new());
        let mut taken = TakenBridge { table, tls, topics: Vec::new(), password: None, report };
        taken.set("name", name);
        taken.set("addresses", addresses);
        taken.set("protocol", "3.1.1"); // unless a line says otherwise
        for line in &self.lines {
            self.take_line(line, &mut taken);
        }
        // After the lines, because each of its topics may have been refused.
        if taken.topics.is_empty() {
            taken.not_taken(&self.connection, "it has no topic, and is left out");
            return None;
        }
        self.take_state(&mut taken);
        self.take_login(secret, &mut taken);
        if let Some(line) = self.last("bridge_psk").or_else(|| self.last("bridge_identity")) {
            taken.set("enabled", false);
            taken.not_taken(
                line,
                "TLS-PSK is not supported, so the bridge is not enabled: give it a certificate or a password",
            );
        }
        if !taken.tls.is_empty() {
            let tls = std::mem::take(&mut taken.tls);
            taken.set("tls", tls);
        }
        let topics = std::mem::take(&mut taken.topics);
        taken.set("topics", topics);
        Some((taken.table, taken.password))
    }

    /// Returns whether Mosquitto uses TLS for it: a certificate alone is not enough.
    fn has_tls(&self) -> bool {
        self.lines.iter().any(|line| match line.name.as_str() {
            "bridge_cafile" | "bridge_capath" | "bridge_psk" | "bridge_identity" => true,
            "bridge_tls_use_os_certs" => line.flag() == Some(true),
            _ => false,
        })
    }

    /// Returns the addresses as URLs.
    fn addresses(&self, report: &mut Report) -> Vec<Value> {
        let scheme = if self.has_tls() { "mqtts" } else { "mqtt" };
        let is_address = |line: &&Line| matches!(line.name.as_str(), "address" | "addresses");
        let mut lines = self.lines.iter().filter(is_address);
        let mut addresses = Vec::new();
        let Some(line) = lines.next() else { return addresses };
        for more in lines {
            report.not_taken(more, "a bridge has one line of addresses");
        }
        for word in words(&line.value) {
            match url(scheme, word) {
                // The bound of the option; more would make the whole configuration invalid.
                Some(_) if addresses.len() == ADDRESSES_MAX => {
                    report.not_taken(line, &format!("{word}: a bridge may have 16 addresses"));
                }
                Some(url) => addresses.push(url.into()),
                None => {
                    report.not_taken(line, &format!("{word}: it is not an address with a port"))
                }
            }
        }
        addresses
    }

    fn take_line(&self, line: &Line, taken: &mut TakenBridge<'_>) {
        let path = || line.path().display().to_string();
        match line.name.as_str() {
            // Read elsewhere.
            "address"
            | "addresses"
            | "bridge_psk"
            | "bridge_identity"
            | "notifications"
            | "notifications_local_only"
            | "notification_topic"
            | "remote_username"
            | "username"
            | "remote_password"
            | "password"
            | "bridge_tls_use_os_certs" => {}
            // One more would make the whole configuration invalid.
            "topic" if taken.topics.len() == TOPICS_MAX => {
                taken.not_taken(line, "a bridge may have 256 topics");
            }
            "topic" => match read_topic(&line.value) {
                Ok(topic) => taken.topics.push(Value::Table(topic)),
                Err(why) => taken.not_taken(line, &why),
            },
            "remote_clientid" | "clientid" => taken.set("client_id", line.value.as_str()),
            "round_robin" => self.take_flag(line, "round_robin", taken),
            "bridge_outgoing_retain" => self.take_flag(line, "retain", taken),
            "cleansession" => self.take_flag(line, "clean_start", taken),
            // An arm without a body, here and below, is what a bridge does in any case.
            "local_cleansession" if line.flag() == Some(false) => {}
            "local_cleansession" => taken.not_taken(line, "messages always wait for a bridge"),
            "keepalive_interval" => taken.set_number(line, "keep_alive_secs", (5, 65_535)),
            "restart_timeout" => take_restart(line, taken),
            "start_type" if line.value == "automatic" => {}
            "start_type" => taken.not_taken(line, "a bridge starts with the broker, and stays"),
            "try_private" if line.flag() == Some(true) => {}
            "try_private" => taken.not_taken(
                line,
                "the bridge says that it is one, and tries again without if that is refused",
            ),
            "bridge_protocol_version" => take_version(line, taken),
            "bridge_max_packet_size" => {
                taken.set_number(line, "packet_bytes_max", (0, PACKET_BYTES_MAX));
            }
            "bridge_receive_maximum" => taken.set_number(line, "in_flight_max", (1, 65_535)),
            "bridge_session_expiry_interval" => {
                taken.set_number(line, "session_expiry_secs", (0, i64::from(u32::MAX)));
            }
            "bridge_bind_address" if line.value.parse::<IpAddr>().is_ok() => {
                taken.set("bind_address", line.value.as_str());
            }
            "bridge_bind_address" => taken.not_taken(line, "write an IP address into bind_address"),
            "bridge_cafile" => taken.set_tls("ca", path()),
            "bridge_certfile" | "bridge_keyfile" | "bridge_alpn" if !self.has_tls() => {
                taken.not_taken(line, "without bridge_cafile the connection has no TLS");
            }
            "bridge_certfile" => taken.set_tls("certificate", path()),
            "bridge_keyfile" => taken.set_tls("key", path()),
            "bridge_alpn" => taken.set_tls("alpn", line.value.as_str()),
            "bridge_tls_version" if matches!(line.value.as_str(), "tlsv1.2" | "tlsv1.3") => {}
            "bridge_tls_version" => taken.not_taken(line, "the oldest version of TLS is 1.2"),
            "bridge_insecure" | "bridge_require_ocsp" if line.flag() == Some(false) => {}
            name => {
                let known = WITHOUT_COUNTERPART.iter().find(|(known, _)| *known == name);
                taken.not_taken(line, known.map_or("the option is not known", |(_, why)| why));
            }
        }
    }

    fn take_flag(&self, line: &Line, key: &str, taken: &mut TakenBridge<'_>) {
        match line.flag() {
            Some(flag) => taken.set(key, flag),
            None => taken.not_taken(line, "the value is not valid"),
        }
        if line.name == "cleansession" && line.flag() == Some(true) && !self.has_local_session() {
            taken.report.differs(
                Some(&line.place),
                "cleansession also drops what waits for a bridge there; here it waits in the store",
            );
        }
    }

    fn has_local_session(&self) -> bool {
        self.flag("local_cleansession") == Some(false)
    }

    /// Takes over where the other broker finds the state of the bridge.
    fn take_state(&self, taken: &mut TakenBridge<'_>) {
        let is_told = self.flag("notifications") != Some(false)
            && self.flag("notifications_local_only") != Some(true);
        let client_id = self.last("remote_clientid").or_else(|| self.last("clientid"));
        match (self.last("notification_topic"), client_id) {
            _ if !is_told => {}
            (Some(line), _) if validate_topic(&line.value).is_err() => {
                taken.not_taken(line, "it is not a Topic Name");
            }
            (Some(line), _) => taken.set("status_topic", line.value.as_str()),
            // The topic that Mosquitto would have used, so that its watchers go on.
            (None, Some(line)) => {
                let topic = format!("$SYS/broker/connection/{}/state", line.value);
                taken.set("status_topic", topic);
            }
            (None, None) => taken.report.differs(
                Some(&self.connection.place),
                "the other broker is not told the state of the bridge: status_topic names the topic for it",
            ),
        }
        if client_id.is_none() {
            taken.report.differs(
                Some(&self.connection.place),
                "the Client Identifier at the other broker is NODE-NAME; Mosquitto has NAME.HOST. A \
                 session of the former bridge stays there until it ends: client_id takes it over",
            );
        }
    }

    fn take_login(&self, secret: &Path, taken: &mut TakenBridge<'_>) {
        let user = self.last("remote_username").or_else(|| self.last("username"));
        let password = self.last("remote_password").or_else(|| self.last("password"));
        match (user, password) {
            (None, Some(line)) => taken.not_taken(line, "it needs a user name"),
            (user, password) => {
                if let Some(line) = user {
                    taken.set("username", line.value.as_str());
                }
                if let Some(line) = password {
                    taken.set("password_file", secret.display().to_string());
                    // Goes into a file of its own, because the configuration is readable by others.
                    taken.password = Some(line.value.clone());
                }
            }
        }
    }
}

/// Returns the URL of an address with or without a port.
fn url(scheme: &str, address: &str) -> Option<String> {
    // An IPv6 address has its port, so the last colon is that of the port.
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0)?),
        None => (address, 1883),
    };
    let is_bare = host.contains(':') && !host.starts_with('[');
    let url = match is_bare {
        true => format!("{scheme}://[{host}]:{port}"),
        false => format!("{scheme}://{host}:{port}"),
    };
    url.parse::<BridgeAddress>().ok().map(|_| url)
}

/// Takes the wait before the next attempt over: a constant, or a base and a cap.
fn take_restart(line: &Line, taken: &mut TakenBridge<'_>) {
    let mut numbers = words(&line.value).map(str::parse::<i64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(base)), None) => {
            let base = base.clamp(1, 3_600);
            taken.set("reconnect_secs_min", base);
            taken.set("reconnect_secs_max", base);
        }
        // Clamped to what the option accepts; Mosquitto has no bounds.
        (Some(Ok(base)), Some(Ok(cap))) if cap >= base => {
            taken.set("reconnect_secs_min", base.clamp(1, 3_600));
            taken.set("reconnect_secs_max", cap.clamp(1, 3_600));
        }
        _ => taken.not_taken(line, "the value is not valid"),
    }
}

fn take_version(line: &Line, taken: &mut TakenBridge<'_>) {
    match line.value.as_str() {
        "mqttv50" | "mqttv5" => taken.set("protocol", "5"),
        "mqttv311" => {}
        "mqttv31" => {
            taken.not_taken(line, "the oldest version of a bridge is 3.1.1, which it uses")
        }
        _ => taken.not_taken(line, "the value is not valid"),
    }
}
