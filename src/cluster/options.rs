//! `[cluster]`: the options of a cluster, with their checks.
//!
//! Plain data. Does not read the files that it names.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    names::NodeId,
    nats::{ClusterPrefix, NatsLogin, NatsSettings, NatsTls},
};

/// Maximum number of addresses.
const SERVERS_MAX: usize = 32;

/// `[cluster]`: the NATS servers that the brokers of a cluster share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterOptions {
    /// URLs of NATS servers, `nats://host:port` or `tls://host:port`; the servers name the others of their
    /// cluster.
    pub servers: Vec<String>,
    /// Separates several clusters of brokers on the same NATS servers.
    pub prefix: String,
    /// Number of NATS servers that store each stream: 1, 3 or 5.
    pub replicas: u8,
    /// User name for NATS; with `password_file`.
    pub user: String,
    /// A file with the password.
    pub password_file: PathBuf,
    /// A file with a token.
    pub token_file: PathBuf,
    /// A file with the seed of an NKey.
    pub nkey_file: PathBuf,
    /// A credentials file.
    pub credentials_file: PathBuf,
    /// A PEM file of the certification authorities that are trusted; empty = those of the system.
    pub ca: PathBuf,
    /// A PEM file with the certificate of this node; with `key`.
    pub cert: PathBuf,
    /// A PEM file with its key.
    pub key: PathBuf,
    /// Whether a connection to another machine may be without TLS.
    pub allow_unencrypted: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            prefix: ClusterPrefix::default().to_string(),
            replicas: 3,
            user: String::new(),
            password_file: PathBuf::new(),
            token_file: PathBuf::new(),
            nkey_file: PathBuf::new(),
            credentials_file: PathBuf::new(),
            ca: PathBuf::new(),
            cert: PathBuf::new(),
            key: PathBuf::new(),
            allow_unencrypted: false,
        }
    }
}

/// An option that is invalid, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {why}")]
pub struct ClusterOptionError {
    /// The name of the option.
    pub option: &'static str,
    /// The fault, and its remedy.
    pub why: String,
}

fn fault(option: &'static str, why: impl Into<String>) -> ClusterOptionError {
    ClusterOptionError { option, why: why.into() }
}

impl ClusterOptions {
    /// Returns how this node reaches NATS.
    ///
    /// # Errors
    /// The first option that is invalid. `node` is the option beside the table.
    pub fn settings(&self, node: &str) -> Result<NatsSettings, ClusterOptionError> {
        let names = "1 to 64 of A-Z a-z 0-9 - _ in a cluster";
        let node = NodeId::new(node).ok_or_else(|| fault("node", format!("must be {names}")))?;
        let prefix = ClusterPrefix::new(&self.prefix);
        let prefix = prefix.ok_or_else(|| fault("prefix", "must be 1 to 32 of A-Z a-z 0-9 - _"))?;
        // JetStream needs an odd number for its quorum.
        if ![1, 3, 5].contains(&self.replicas) {
            return Err(fault("replicas", "must be 1, 3 or 5"));
        }
        Ok(NatsSettings {
            servers: self.servers.clone(),
            login: self.login()?,
            tls: self.tls()?,
            prefix,
            node,
            replicas: self.replicas.into(),
        })
    }

    fn login(&self) -> Result<NatsLogin, ClusterOptionError> {
        let has = |file: &PathBuf| !file.as_os_str().is_empty();
        // One of both would be a login that cannot work.
        if self.user.is_empty() == has(&self.password_file) {
            return Err(fault("user", "must be set together with password_file"));
        }
        let password = NatsLogin::Password {
            user: self.user.clone(),
            password_file: self.password_file.clone(),
        };
        let all = [
            has(&self.password_file).then_some(password),
            has(&self.token_file).then(|| NatsLogin::Token(self.token_file.clone())),
            has(&self.nkey_file).then(|| NatsLogin::Nkey(self.nkey_file.clone())),
            has(&self.credentials_file)
                .then(|| NatsLogin::Credentials(self.credentials_file.clone())),
        ];
        let mut set = all.into_iter().flatten();
        // The first one that is set, and whether there is a second.
        match (set.next(), set.next()) {
            (login, None) => Ok(login.unwrap_or_default()),
            (_, Some(_)) => Err(fault(
                "user",
                "one login is used: user, token_file, nkey_file or credentials_file",
            )),
        }
    }

    fn tls(&self) -> Result<NatsTls, ClusterOptionError> {
        if !(1..=SERVERS_MAX).contains(&self.servers.len()) {
            return Err(fault("servers", format!("must be 1 to {SERVERS_MAX} URLs")));
        }
        let mut is_required = false;
        for url in &self.servers {
            let host = host(url).ok_or_else(|| {
                fault("servers", format!("{url:?} must be nats://host:port or tls://host:port"))
            })?;
            // Loopback leaves no machine, so it needs no TLS.
            is_required |= !is_loopback(host) && !self.allow_unencrypted;
        }
        let has = |file: &PathBuf| !file.as_os_str().is_empty();
        // A certificate proves nothing without its key.
        if has(&self.cert) != has(&self.key) {
            return Err(fault("cert", "must be set together with key"));
        }
        Ok(NatsTls {
            is_required,
            authorities: has(&self.ca).then(|| self.ca.clone()),
            certificate: has(&self.cert).then(|| (self.cert.clone(), self.key.clone())),
        })
    }
}

/// Returns the host of a URL that has a scheme of NATS, a host and a port, and nothing else: no login,
/// because the configuration is shown to administrators.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"))?;
    let (host, port) = rest.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let plain = host.trim_matches(['[', ']']);
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let fits = match is_bracketed {
        true => plain.parse::<std::net::Ipv6Addr>().is_ok(),
        false => !host.is_empty() && host.bytes().all(is_fit),
    };
    fits.then_some(plain)
}

fn is_loopback(host: &str) -> bool {
    let is_loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}
