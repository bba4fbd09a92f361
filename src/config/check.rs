//! What a configuration may not say although every value has the right type.
//!
//! Pure: it sees a [`Config`] and names the keys at fault; `load` knows where they were written.

use std::collections::HashSet;

use toml::Table;
use tracing_subscriber::EnvFilter;

use super::Config;
use crate::net::tls::ClientAuth;

/// Numbers for which zero has a meaning; every other number is at least 1.
const MAY_BE_ZERO: [&str; 8] = [
    "shards",
    "auth.verified_secs",
    "auth.hashes_at_once_max",
    "http.calls_per_account_per_sec",
    "http.calls_per_address_per_sec",
    "limits.connects_per_address_per_sec",
    "limits.topic_alias_maximum",
    "limits.keep_alive_secs_max",
];

/// The largest MQTT Control Packet: a fixed header of 5 bytes and the largest Remaining Length.
const PACKET_BYTES_LARGEST: u64 = 5 + 268_435_455;

/// A value, or several together, that cannot work.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Keys at fault. The first that was given by somebody is where the mistake is reported.
    pub(super) keys: Vec<String>,
    pub(super) what: String,
    pub(super) remedy: String,
}

impl Problem {
    fn new(keys: &[&str], what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            keys: keys.iter().map(|&key| key.into()).collect(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// The first problem of `config`; `table` is the same as a table.
pub(super) fn check(config: &Config, table: &Table) -> Result<(), Problem> {
    check_zeroes("", table)?;
    check_ranges(config)?;
    check_listeners(config)?;
    check_tls(config)?;
    check_queues(config)?;
    let prefix = &config.mqtt.response_topic_prefix;
    if prefix.contains(['+', '#', '\0']) {
        return Err(Problem::new(
            &["mqtt.response_topic_prefix"],
            format!("mqtt.response_topic_prefix = {prefix:?} is no beginning of a topic"),
            "write one without + and #, for example \"responses/\"",
        ));
    }
    EnvFilter::try_new(&config.log.filter).map(drop).map_err(|_| {
        Problem::new(
            &["log.filter"],
            format!("log.filter = {:?} is not understood", config.log.filter),
            "write a level such as \"info\", or \"warn,hearthmq=debug\"",
        )
    })
}

/// Refuses zero wherever it is not said what zero means. (In `auth.throttle` it turns a bound off.)
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
        // One shard is one thread; many more than a machine has cores is a slip.
        ("shards", u64::from(config.shards), 0, 1_024),
        ("http.workers", config.http.workers.into(), 1, 256),
        // Below the minimum not even a CONNECT with a user name fits.
        (
            "limits.packet_bytes_max",
            config.limits.packet_bytes_max.into(),
            128,
            PACKET_BYTES_LARGEST,
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
    if config.mqtt.tcp.is_empty() && config.mqtt.tls.is_empty() {
        return Err(Problem::new(
            &["mqtt.tcp", "mqtt.tls"],
            "mqtt.tcp and mqtt.tls are both empty, so no client can connect",
            "write an address, for example tcp = [\"127.0.0.1:1883\"]",
        ));
    }
    let mut taken = HashSet::new();
    for (key, addresses) in [
        ("mqtt.tcp", &config.mqtt.tcp),
        ("mqtt.tls", &config.mqtt.tls),
        ("http.listen", &config.http.listen),
        ("http.https", &config.http.https),
    ] {
        for address in addresses {
            // Port 0 is a different port each time.
            if address.port() != 0 && !taken.insert(address) {
                return Err(Problem::new(
                    &[key],
                    format!("{address} in {key} is given twice"),
                    "give each listener an address of its own",
                ));
            }
        }
    }
    Ok(())
}

fn check_tls(config: &Config) -> Result<(), Problem> {
    let tls = &config.tls;
    let has = |path: &std::path::Path| !path.as_os_str().is_empty();
    for (listeners, key) in [(&config.mqtt.tls, "mqtt.tls"), (&config.http.https, "http.https")] {
        let complete = has(&tls.certificate) && has(&tls.key);
        if !listeners.is_empty() && !complete {
            return Err(Problem::new(
                &[key],
                format!("{key} needs a certificate and its key"),
                "give both as certificate and key in [tls]",
            ));
        }
    }
    let asks = tls.client_auth != ClientAuth::None;
    if asks && tls.client_ca.is_empty() {
        return Err(Problem::new(
            &["tls.client_auth"],
            "tls.client_auth asks for certificates that nobody could have issued",
            "give the issuers in tls.client_ca, or write client_auth = \"none\"",
        ));
    }
    for (key, given) in [
        ("tls.client_ca", !tls.client_ca.is_empty()),
        ("tls.crl", !tls.crl.is_empty()),
        ("tls.client_id_is_common_name", tls.client_id_is_common_name),
    ] {
        if given && !asks {
            return Err(Problem::new(
                &[key, "tls.client_auth"],
                format!("{key} has no effect while clients are not asked for a certificate"),
                "write client_auth = \"optional\" or \"required\" in [tls]",
            ));
        }
    }
    Ok(())
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
