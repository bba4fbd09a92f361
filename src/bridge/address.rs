//! The address of another broker.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use super::error::BridgeError;

/// The address where another broker listens: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeAddress {
    pub(super) is_encrypted: bool,
    /// Name or IP address, without brackets.
    pub(super) host: Box<str>,
    pub(super) port: u16,
}

impl FromStr for BridgeAddress {
    type Err = BridgeError;

    fn from_str(text: &str) -> Result<Self, BridgeError> {
        let fault = || BridgeError::Address(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(fault)?;
        let (is_encrypted, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(fault()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // Only in brackets may a host contain colons; a bare IPv6 address would be ambiguous.
        let (host, port) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (host, behind) = inner.split_once(']').ok_or_else(fault)?;
                host.parse::<Ipv6Addr>().map_err(|_| fault())?;
                (host, behind.strip_prefix(':').or_else(|| behind.is_empty().then_some("")))
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, Some("")),
            },
        };
        let port = match port.ok_or_else(fault)? {
            "" => default_port,
            port => port.parse().ok().filter(|port| *port > 0).ok_or_else(fault)?,
        };
        // Names that TLS and the resolver accept, and nothing that could be read as another part of a URL.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(is_plain) {
            return Err(fault());
        }
        Ok(Self { is_encrypted, host: host.into(), port })
    }
}

impl fmt::Display for BridgeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_encrypted, host, port } = self;
        let scheme = if *is_encrypted { "mqtts" } else { "mqtt" };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        for (text, shown) in [
            ("mqtt://broker.example", "mqtt://broker.example:1883"),
            ("mqtts://broker.example/", "mqtts://broker.example:8883"),
            ("mqtt://192.0.2.7:1884", "mqtt://192.0.2.7:1884"),
            ("mqtts://[2001:db8::1]", "mqtts://[2001:db8::1]:8883"),
            ("mqtt://[::1]:7", "mqtt://[::1]:7"),
        ] {
            let address: BridgeAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
        }
        for wrong in [
            "",
            "broker",
            "http://broker",
            "mqtt://",
            "mqtt://a:0",
            "mqtt://a:65536",
            "mqtt://a b",
            "mqtt://user@a",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://a/b",
        ] {
            assert!(wrong.parse::<BridgeAddress>().is_err(), "{wrong}");
        }
    }
}
