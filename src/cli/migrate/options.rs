//! Options of a `mosquitto.conf` that concern all clients: limits, persistence, log.

use super::{
    conf::Line,
    report::Report,
    rules::{NewRule, PUBLISH, priority},
    settings::MosquittoSettings,
};

/// Options without a counterpart, and the reason. A name that ends in `*` stands for all names that
/// begin so.
const WITHOUT_COUNTERPART: &[(&str, &str)] = &[
    ("psk_*", "TLS-PSK is not supported; use client certificates or device secrets over TLS"),
    (
        "mount_point",
        "topics have no prefix here: CLIENTS OF THIS LISTENER USE OTHER TOPICS THAN BEFORE",
    ),
    ("allow_zero_length_clientid", "clients may always leave their identifier empty"),
    ("auto_id_prefix", "the broker makes identifiers of its own form"),
    ("autosave_*", "every change is stored before it is acknowledged; see [store]"),
    ("persistence_*", "the data of mosquitto.db is not taken over; data_dir has the store"),
    ("allow_duplicate_messages", "a client gets a message once for overlapping subscriptions"),
    ("queue_qos0_messages", "messages of QoS 0 do not wait for absent clients"),
    ("upgrade_outgoing_qos", "a message keeps its QoS"),
    ("memory_limit", "[limits] bounds the memory; see docs/operations.md"),
    ("check_retain_source", "retained messages stay when a rule changes"),
    ("pid_file", "the service manager knows the process"),
    ("user", "the service manager chooses the user of the process"),
    ("log_*", "the log goes to standard error; see [log]"),
    ("connection_messages", "see log.clients"),
    ("websockets_log_level", "see log.filter"),
    ("http_dir", "HearthMQ serves no files"),
    ("websockets_headers_size", "the size of HTTP headers has a fixed bound"),
    ("max_qos", "every QoS is allowed; a rule with qos can deny one"),
    ("bind_interface", "listeners are bound to addresses"),
    ("capath", "name the files of the authorities in tls.client_ca"),
    ("ciphers*", "the TLS library chooses the cipher suites"),
    ("dhparamfile", "the TLS library needs none"),
    ("tls_engine*", "keys are read from PEM files"),
    ("tls_keyform", "keys are read from PEM files"),
    ("disable_client_cert_date_checks", "an expired certificate is never accepted"),
    ("use_subject_as_username", "the Common Name of the certificate is the user name"),
    (
        "use_username_as_clientid",
        "write clients = [\"${username}\"] into the rule that allows to connect",
    ),
    ("accept_protocol_versions", "MQTT 3.1, 3.1.1 and 5.0 are accepted everywhere"),
    ("enable_control_api", "REST administers the broker"),
    ("enable_proxy_protocol", "see mqtt.proxy_protocol and mqtt.proxy_trusted"),
    ("auth_*", "plugins of Mosquitto cannot be loaded; see the sources in [auth]"),
    ("plugin*", "plugins of Mosquitto cannot be loaded; see the sources in [auth]"),
    ("global_plugin", "plugins of Mosquitto cannot be loaded; see the sources in [auth]"),
];

/// The largest number of messages that may wait for one client: `limits.queue_messages_max`.
const QUEUE_MESSAGES_MAX: i64 = 10_000_000;
/// The same for bytes.
const QUEUE_BYTES_MAX: i64 = 1_073_741_824;
/// The largest packet of MQTT.
const PACKET_BYTES_MAX: i64 = 268_435_455;
/// Room for a topic and the properties beside a payload.
const BESIDE_PAYLOAD: i64 = 8_192;

/// Takes an option over that concerns all clients, or reports it.
pub(super) fn take(line: &Line, settings: &mut MosquittoSettings, report: &mut Report) {
    let limit = |key| Some(("limits", key));
    // Options of one number are set at the end; the others return.
    let (place, max) = match line.name.as_str() {
        "max_inflight_messages" => {
            // 0 means no limit there; here the largest value stands for it.
            let number = unlimited(line, 65_535);
            settings.set_some("limits", "receive_maximum", number);
            settings.set_some("limits", "in_flight_max", number);
            return number.map_or_else(|| invalid(line, report), drop);
        }
        "max_keepalive" => (limit("keep_alive_secs_max"), 65_535),
        "max_topic_alias" => (limit("topic_alias_maximum"), 65_535),
        "sys_interval" => (Some(("mqtt", "sys_interval_secs")), 65_535),
        "max_queued_messages" => {
            let number = unlimited(line, QUEUE_MESSAGES_MAX);
            settings.set_some("limits", "queue_messages_per_client_max", number);
            return number.map_or_else(|| invalid(line, report), drop);
        }
        "max_packet_size" | "message_size_limit" | "max_queued_bytes" => {
            return sizes(line, settings, report);
        }
        "persistent_client_expiration" => return expiration(line, settings, report),
        "persistence" | "retain_available" if line.flag() == Some(true) => return,
        "persistence" => {
            return report.differs(
                Some(&line.place),
                "sessions and retained messages are always stored, also with persistence false",
            );
        }
        "retain_available" if line.flag() == Some(false) => {
            let mut rule = NewRule::deny(priority::NEVER, &[PUBLISH]);
            rule.retain = Some(true);
            return settings.rules.push(rule);
        }
        "clientid_prefixes" => {
            return settings.client_id_prefix = Some((line.place.clone(), line.value.clone()));
        }
        "set_tcp_nodelay" => return, // always set here
        name => {
            let why = without_counterpart(name).unwrap_or("the option is not known");
            return report.not_taken(line, why);
        }
    };
    match (place, line.number().filter(|number| (0..=max).contains(number))) {
        (Some((section, key)), Some(number)) => settings.set(section, key, number),
        _ => invalid(line, report),
    }
}

/// Returns why an option has no counterpart.
pub(super) fn without_counterpart(name: &str) -> Option<&'static str> {
    let is_it = |known: &str| match known.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == known,
    };
    WITHOUT_COUNTERPART.iter().find(|(known, _)| is_it(known)).map(|(_, why)| *why)
}

fn invalid(line: &Line, report: &mut Report) {
    report.not_taken(line, "the value is not valid");
}

/// Returns a number of which 0 means no limit, or the largest that is possible.
fn unlimited(line: &Line, max: i64) -> Option<i64> {
    match line.number()? {
        0 => Some(max),
        number if number > 0 => Some(number.min(max)),
        _ => None,
    }
}

fn sizes(line: &Line, settings: &mut MosquittoSettings, report: &mut Report) {
    let Some(number) = line.number().filter(|number| *number >= 0) else {
        return invalid(line, report);
    };
    match line.name.as_str() {
        "max_queued_bytes" => {
            // 0 means no limit there.
            let bytes = if number == 0 { QUEUE_BYTES_MAX } else { number.min(QUEUE_BYTES_MAX) };
            settings.set("limits", "queue_bytes_per_client_max", bytes);
        }
        "message_size_limit" if number > 0 => {
            settings.set(
                "limits",
                "packet_bytes_max",
                number.saturating_add(BESIDE_PAYLOAD).min(PACKET_BYTES_MAX),
            );
            report.differs(
                Some(&line.place),
                "message_size_limit bounds a payload there; here limits.packet_bytes_max bounds the \
                 whole packet, and has 8,192 bytes more",
            );
        }
        _ => {
            let bytes = if number == 0 { PACKET_BYTES_MAX } else { number };
            settings.set("limits", "packet_bytes_max", bytes.clamp(128, PACKET_BYTES_MAX));
        }
    }
}

/// Takes a number with a unit over: hours, days, weeks, months or years.
fn expiration(line: &Line, settings: &mut MosquittoSettings, report: &mut Report) {
    let unit_secs = match line.value.chars().last() {
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        Some('m') => 30 * 86_400,
        Some('y') => 365 * 86_400,
        _ => return invalid(line, report),
    };
    let number: Option<i64> = line.value[..line.value.len() - 1].trim().parse().ok();
    let secs = number.and_then(|number| number.checked_mul(unit_secs));
    // The largest number means "never" in MQTT, so it cannot be a limit.
    match secs.filter(|secs| (1..=i64::from(u32::MAX - 1)).contains(secs)) {
        Some(secs) => settings.set("limits", "session_expiry_secs_max", secs),
        None => invalid(line, report),
    }
}
