//! Warnings about a configuration that is valid, but perhaps not what its owner meant: a line for
//! each, at the start and in `check-config`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use hearthmq::{
    auth::{
        AccessRequest, Action, Authorizer as _, Decision, FilePolicy, Identity, Login, Network,
    },
    config::{Config, SourceName},
    http::MetricsAccess,
    mqtt::QoS,
};

use super::tls;

/// Permission bits of users who are neither the owner nor in its group.
const OTHERS: u32 = 0o006;

/// Address of a client from elsewhere (reserved for documentation), for which no rule is written.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Returns all warnings about this configuration.
pub(super) fn of(config: &Config) -> Vec<String> {
    let mut all = plaintext(config);
    all.extend(anonymous(config));
    all.extend(private_keys(config));
    all.extend(tls::look_at_files(config).unwrap_or_default()); // the start reports errors
    all.extend(metrics(config));
    all.extend(proxies(config));
    all.extend(sources(config));
    all
}

fn is_public(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn plaintext(config: &Config) -> Vec<String> {
    let lists = [
        ("mqtt.tcp", "mqtt", &config.mqtt.tcp, "mqtt.tls"),
        ("mqtt.websocket", "ws", &config.mqtt.websocket, "mqtt.secure_websocket"),
        ("http.listen", "http", &config.http.listen, "http.https"),
    ];
    let mut all = Vec::new();
    for (option, scheme, addresses, secure) in lists {
        for address in addresses.iter().filter(|address| is_public(address)) {
            all.push(format!(
                "{option}: {scheme}://{address} is open to the network without TLS, so passwords and \
                 messages can be read in transit; use {secure}, or listen on 127.0.0.1"
            ));
        }
    }
    all
}

fn anonymous(config: &Config) -> Option<String> {
    if !config.auth.anonymous {
        return None;
    }
    let policy = FilePolicy::open(config.policy_file()).ok()?; // the start reports errors
    let identity = Identity { login: Login::Anonymous, ..Identity::default() };
    let may = |listener: &str, action| {
        let peer = SocketAddr::new(STRANGER, 1);
        let request =
            AccessRequest { identity: &identity, client_id: "anybody", peer, listener, action };
        policy.authorize(&request) == Decision::Allow
    };
    let qos = QoS::AtMostOnce;
    // A topic that no rule is likely to name stands for every topic.
    let may_all = |listener: &String| {
        may(listener, Action::Connect)
            && (may(listener, Action::Subscribe { filter: "#", qos })
                || may(listener, Action::Publish { topic: "any/topic", qos, retain: true }))
    };
    mqtt_urls(config).iter().any(may_all).then(|| {
        format!(
            "auth.anonymous: {} lets clients without an account publish or subscribe everywhere; give \
             the rule users or topics",
            config.policy_file().display()
        )
    })
}

/// Returns the URLs of the listeners that clients of other machines can reach, as rules name them.
fn mqtt_urls(config: &Config) -> Vec<String> {
    let mqtt = &config.mqtt;
    let of = |scheme: &str, addresses: &[SocketAddr], path: &str| -> Vec<String> {
        addresses.iter().map(|address| format!("{scheme}://{address}{path}")).collect()
    };
    let path = &mqtt.websocket_path;
    [
        of("mqtt", &mqtt.tcp, ""),
        of("mqtts", &mqtt.tls, ""),
        of("ws", &mqtt.websocket, path),
        of("wss", &mqtt.secure_websocket, path),
    ]
    .concat()
}

fn private_keys(config: &Config) -> Vec<String> {
    let listeners = [&config.mqtt.tls, &config.mqtt.secure_websocket, &config.http.https];
    let addresses = listeners.into_iter().flatten();
    let own = addresses.map(|address| config.tls_at(&address.to_string()).key);
    let mut keys: Vec<_> = own.chain([config.tls.key.clone()]).collect();
    keys.sort();
    keys.dedup();
    keys.iter().filter_map(|key| private_key(key)).collect()
}

fn private_key(key: &Path) -> Option<String> {
    let mode = fs::metadata(key).ok().filter(fs::Metadata::is_file)?.permissions().mode();
    (mode & OTHERS != 0).then(|| {
        format!(
            "tls.key: {path} can be read or written by every user of this machine (mode {:o}); \
             `chmod 600 {path}`",
            mode & 0o777,
            path = key.display(),
        )
    })
}

fn metrics(config: &Config) -> Option<String> {
    let mut addresses = config.http.listen.iter().chain(&config.http.https);
    let is_open = config.http.metrics_access == MetricsAccess::Anyone && addresses.any(is_public);
    is_open.then(|| {
        "http.metrics_access: anyone in the network can read /metrics without an account; set it \
         to \"loopback\" unless the network is yours"
            .to_owned()
    })
}

fn sources(config: &Config) -> Vec<String> {
    let auth = &config.auth;
    let mut all = Vec::new();
    // One identity provider signs for many services, and each token would be accepted here.
    if auth.jwt.is_used() && auth.jwt.audiences.is_empty() {
        all.push(
            "auth.jwt.audiences: tokens that were made for other services log in; name the audience of this \
             broker"
                .to_owned(),
        );
    }
    for (source, is_used) in [
        (SourceName::Jwt, auth.jwt.is_used()),
        (SourceName::Http, auth.http.is_used()),
        (SourceName::Postgres, auth.postgres.is_used()),
    ] {
        if is_used && !auth.sources.contains(&source) {
            all.push(format!(
                "auth.sources: [auth.{source}] has no effect, because {source} is not named"
            ));
        }
    }
    all
}

fn proxies(config: &Config) -> Vec<String> {
    let (mqtt, http) = (&config.mqtt, &config.http);
    let is_all = |network: &&Network| network.to_string().ends_with("/0");
    let mut all = Vec::new();
    for (section, listeners, trusted) in [
        ("mqtt", &mqtt.proxy_protocol, &mqtt.proxy_trusted),
        ("http", &http.proxy_protocol, &http.proxy_trusted),
    ] {
        // Trusting every network is the same as believing every client.
        if let Some(network) = trusted.iter().find(is_all) {
            all.push(format!(
                "{section}.proxy_trusted: {network} lets any client choose the address that \
                 permissions and limits use; name only the balancers"
            ));
        }
        for address in listeners.iter().filter(|address| is_public(address) && trusted.is_empty()) {
            all.push(format!(
                "{section}.proxy_protocol: {address} is open to the network, but PROXY headers are \
                 trusted from this machine only; name the balancers in proxy_trusted"
            ));
        }
    }
    all
}
