//! Checks for values that have the right type but are invalid, alone or together.
//!
//! Pure: it sees a [`Config`] and names the keys at fault; `load` knows where they were given.

mod bridges;
mod sources;
mod tls;
mod webhooks;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use toml::Table;
use tracing_subscriber::EnvFilter;

use super::{Config, HttpConfig, MqttConfig, problem::Problem};
use crate::{
    auth::SCRAM_ITERATIONS,
    limits::{HISTORY_PER_CLIENT_LARGEST, TOPIC_LEVELS_LARGEST},
};

/// Numbers for which zero has a meaning; every other number must be at least 1.
const MAY_BE_ZERO: &[&str] = &[
    "mqtt.sys_interval_secs",
    "limits.subscriptions_per_client_max",
    "shards",
    "auth.verified_secs",
    "auth.hashes_at_once_max",
    "auth.known_logins_max",
    "auth.jwt.leeway_secs",
    "auth.http.cache_secs",
    "auth.http.cache_refused_secs",
    "auth.http.cache_entries_max",
    "auth.postgres.refresh_secs",
    "http.calls_per_account_per_sec",
    "http.calls_per_address_per_sec",
    "http.session_idle_secs",
    "mqtt.tcp_keep_alive_secs",
    "otlp.metrics_interval_secs",
    "otlp.trace_deliveries_max",
    "limits.connecting_max",
    "limits.connecting_per_address_max",
    "limits.connects_per_address_per_sec",
    "limits.topic_alias_maximum",
    "limits.keep_alive_secs_max",
    "limits.keep_alive_overrides_max",
    "limits.keep_alive_overrides_per_user_max",
    "limits.keep_alive_override_bytes_per_user_max",
    "limits.stored_rules_max",
    "limits.bans_max",
    "limits.certificate_pins_per_user_max",
    "limits.flapping_connects_max",
    "limits.audit_entries_max",
    "limits.tokens_max",
    "limits.history_per_client_max",
    "limits.queue_messages_per_user_max",
    "limits.queue_bytes_per_user_max",
    "limits.history_connections_per_user_max",
    "limits.traces_max",
    "tls.watch_secs",
];

/// The largest MQTT Control Packet: a fixed header of 5 bytes and the largest Remaining Length.
const PACKET_BYTES_LARGEST: u64 = 5 + 268_435_455;

/// Returns the first problem of `config`; `table` is the same configuration as a table.
pub(super) fn check(config: &Config, table: &Table) -> Result<(), Problem> {
    // First, so that a 0 is named as such, and not as a part of another problem.
    check_zeroes("", table)?;
    check_ranges(config)?;
    check_listeners(config)?;
    tls::check(config)?;
    sources::check(config)?;
    check_queues(config)?;
    webhooks::check(config)?;
    config.otlp.check().map_err(|fault| {
        Problem::new(&[fault.option], fault.to_string(), "see `hearthmq example-config`")
    })?;
    bridges::check(config)?;
    #[cfg(feature = "cluster")]
    super::cluster::check(config)?;
    let prefix = &config.mqtt.response_topic_prefix;
    // Response Topics begin with it, and may have no wildcards. [MQTT-3.3.2-14]
    if prefix.contains(['+', '#', '\0']) {
        return Err(Problem::new(
            &["mqtt.response_topic_prefix"],
            format!("mqtt.response_topic_prefix = {prefix:?} cannot start a topic"),
            "write one without + and #, for example \"responses/\"",
        ));
    }
    // The log is made with the filter, so it could not report an invalid one.
    EnvFilter::try_new(&config.log.filter).map(drop).map_err(|_| {
        Problem::new(
            &["log.filter"],
            format!("log.filter = {:?} is not a valid filter", config.log.filter),
            "write a level such as \"info\", or \"warn,hearthmq=debug\"",
        )
    })
}

/// Refuses zero for every number for which it has no meaning. (In `auth.throttle` it turns a limit
/// off.)
fn check_zeroes(section: &str, table: &Table) -> Result<(), Problem> {
    for (name, value) in table {
        let key = format!("{section}{name}");
        if let Some(inner) = value.as_table() {
            check_zeroes(&format!("{key}."), inner)?;
        } else if value.as_integer() == Some(0) && !may_be_zero(&key) {
            return Err(Problem::new(&[&key], format!("{key} is 0"), "write 1 or more"));
        }
    }
    Ok(())
}

fn may_be_zero(key: &str) -> bool {
    MAY_BE_ZERO.contains(&key) || key.starts_with("auth.throttle.")
}

fn check_ranges(config: &Config) -> Result<(), Problem> {
    let ranges = [
        // One shard is one thread; far more shards than cores are a mistake.
        ("shards", u64::from(config.shards), 0, 1_024),
        (
            "auth.scram_iterations",
            config.auth.scram_iterations.into(),
            (*SCRAM_ITERATIONS.start()).into(),
            (*SCRAM_ITERATIONS.end()).into(),
        ),
        // The operating system accepts no more.
        ("mqtt.tcp_keep_alive_secs", config.mqtt.tcp_keep_alive_secs.into(), 0, 32_767),
        ("auth.http.timeout_ms", config.auth.http.timeout_ms.into(), 1, 60_000),
        ("auth.postgres.timeout_ms", config.auth.postgres.timeout_ms.into(), 1, 60_000),
        ("auth.postgres.connections_max", config.auth.postgres.connections_max.into(), 1, 1_000),
        ("http.workers", config.http.workers.into(), 1, 256),
        ("otlp.traces_percent", config.otlp.traces_percent.into(), 1, 100),
        ("otlp.timeout_ms", config.otlp.timeout_ms.into(), 1, 60_000),
        // Each takes about a kilobyte.
        ("otlp.queue_spans_max", config.otlp.queue_spans_max.into(), 1, 1_000_000),
        ("store.sync_interval_ms", config.store.sync_interval_ms.into(), 1, 3_600_000),
        // Below the minimum not even a CONNECT with a user name fits.
        (
            "limits.packet_bytes_max",
            config.limits.packet_bytes_max.into(),
            128,
            PACKET_BYTES_LARGEST,
        ),
        // The functions that walk topic trees recurse once for each level.
        (
            "limits.topic_levels_max",
            config.limits.topic_levels_max.into(),
            1,
            TOPIC_LEVELS_LARGEST.into(),
        ),
        (
            "limits.history_per_client_max",
            config.limits.history_per_client_max.into(),
            0,
            HISTORY_PER_CLIENT_LARGEST.into(),
        ),
    ];
    for (key, value, min, max) in ranges {
        if !(min..=max).contains(&value) {
            return Err(Problem::new(
                &[key],
                format!("{key} is {value}"),
                format!("write a number from {min} to {max}"),
            ));
        }
    }
    Ok(())
}

fn check_listeners(config: &Config) -> Result<(), Problem> {
    let mqtt = &config.mqtt;
    let for_mqtt = [
        ("mqtt.tcp", &mqtt.tcp),
        ("mqtt.tls", &mqtt.tls),
        ("mqtt.websocket", &mqtt.websocket),
        ("mqtt.secure_websocket", &mqtt.secure_websocket),
    ];
    if for_mqtt.iter().all(|(_, addresses)| addresses.is_empty()) && mqtt.unix.is_empty() {
        return Err(Problem::new(
            &["mqtt.tcp", "mqtt.tls", "mqtt.websocket", "mqtt.secure_websocket", "mqtt.unix"],
            "there is no MQTT listener, so no client can connect",
            "write an address, for example tcp = [\"127.0.0.1:1883\"]",
        ));
    }
    let for_http = [("http.listen", &config.http.listen), ("http.https", &config.http.https)];
    // MQTT and HTTP together: they share the ports of the machine.
    let mut taken = HashSet::new();
    for (key, addresses) in for_mqtt.into_iter().chain(for_http) {
        for address in addresses {
            // Port 0 is a different port each time.
            if address.port() != 0 && !taken.insert(*address) {
                return Err(Problem::new(
                    &[key],
                    format!("{address} in {key} is given twice"),
                    "give each listener an address of its own",
                ));
            }
            // A listener on `[::]` also takes IPv4, so the second one could not be bound.
            if address.port() != 0 && taken.contains(&other_family(*address)) {
                return Err(Problem::new(
                    &[key],
                    format!(
                        "{address} in {key} overlaps with the same port of the other IP version"
                    ),
                    "leave 0.0.0.0 out: [::] takes IPv4 as well",
                ));
            }
        }
    }
    check_unix(mqtt)?;
    check_websocket(mqtt)?;
    check_proxy(mqtt, |address| for_mqtt.iter().any(|(_, known)| known.contains(address)))?;
    check_http_proxy(&config.http)
}

/// Returns the address that stands for all addresses of the other IP version; for any other address
/// one that is never taken.
fn other_family(address: SocketAddr) -> SocketAddr {
    let all_of = |ip: IpAddr| SocketAddr::new(ip, address.port());
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => all_of(Ipv6Addr::UNSPECIFIED.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => all_of(Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(address.ip(), 0),
    }
}

fn check_unix(mqtt: &MqttConfig) -> Result<(), Problem> {
    if mqtt.unix_mode_bits().is_none() {
        return Err(Problem::new(
            &["mqtt.unix_mode"],
            format!("mqtt.unix_mode = {:?} is not a set of permissions", mqtt.unix_mode),
            "write three octal digits as for chmod, for example \"660\"",
        ));
    }
    // A second listener on one path would replace the socket of the first.
    let paths: HashSet<_> = mqtt.unix.iter().collect();
    if paths.len() < mqtt.unix.len() || mqtt.unix.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(Problem::new(
            &["mqtt.unix"],
            "mqtt.unix has a path that is empty or given twice",
            "give each socket a path of its own",
        ));
    }
    Ok(())
}

fn check_websocket(mqtt: &MqttConfig) -> Result<(), Problem> {
    // The path is compared with that of a request, which never has these characters.
    if !mqtt.websocket_path.starts_with('/') || mqtt.websocket_path.contains(['?', '#', ' ']) {
        return Err(Problem::new(
            &["mqtt.websocket_path"],
            format!("mqtt.websocket_path = {:?} is not a path of a URL", mqtt.websocket_path),
            "write one that begins with a slash, for example \"/mqtt\"",
        ));
    }
    // `https://example.org`, without a path: a browser sends nothing more.
    let is_origin = |origin: &&String| {
        origin.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*'])
        })
    };
    match mqtt.websocket_origins.iter().find(|origin| !is_origin(origin)) {
        None => Ok(()),
        Some(origin) => Err(Problem::new(
            &["mqtt.websocket_origins"],
            format!("{origin:?} in mqtt.websocket_origins is not an origin"),
            "write scheme and host as a browser sends them, for example \"https://example.org\"",
        )),
    }
}

fn check_proxy(
    mqtt: &MqttConfig,
    is_listener: impl Fn(&SocketAddr) -> bool,
) -> Result<(), Problem> {
    // A misspelt address would leave the real listener without PROXY headers.
    if let Some(address) = mqtt.proxy_protocol.iter().find(|address| !is_listener(address)) {
        return Err(Problem::new(
            &["mqtt.proxy_protocol"],
            format!("{address} in mqtt.proxy_protocol is not the address of an MQTT listener"),
            "write it as in tcp, tls, websocket or secure_websocket",
        ));
    }
    if mqtt.proxy_protocol.is_empty() && !mqtt.proxy_trusted.is_empty() {
        return Err(Problem::new(
            &["mqtt.proxy_trusted", "mqtt.proxy_protocol"],
            "mqtt.proxy_trusted has no effect while no listener expects a PROXY header",
            "name the listeners in proxy_protocol",
        ));
    }
    Ok(())
}

/// `proxy_trusted` has an effect without `proxy_protocol`: it names the proxies whose headers are
/// trusted.
fn check_http_proxy(http: &HttpConfig) -> Result<(), Problem> {
    let is_listener = |address| http.listen.contains(address) || http.https.contains(address);
    match http.proxy_protocol.iter().find(|address| !is_listener(address)) {
        None => Ok(()),
        Some(address) => Err(Problem::new(
            &["http.proxy_protocol"],
            format!("{address} in http.proxy_protocol is not the address of an HTTP listener"),
            "write it as in listen or https",
        )),
    }
}

fn check_queues(config: &Config) -> Result<(), Problem> {
    let limits = &config.limits;
    let ordered = [
        (
            ("limits.packet_bytes_max", u64::from(limits.packet_bytes_max)),
            ("limits.queue_bytes_per_client_max", limits.queue_bytes_per_client_max),
        ),
        (
            ("limits.queue_bytes_per_client_max", limits.queue_bytes_per_client_max),
            ("limits.queue_bytes_max", limits.queue_bytes_max),
        ),
        (
            ("limits.queue_messages_per_client_max", limits.queue_messages_per_client_max.into()),
            ("limits.queue_messages_max", limits.queue_messages_max),
        ),
    ];
    for ((smaller_key, smaller), (larger_key, larger)) in ordered {
        // A single message or client could then exceed a limit that is meant for more.
        if smaller > larger {
            return Err(Problem::new(
                &[smaller_key, larger_key],
                format!("{smaller_key} = {smaller} is more than {larger_key} = {larger}"),
                format!("lower {smaller_key} or raise {larger_key}"),
            ));
        }
    }
    Ok(())
}
