//! Networks in CIDR notation, `10.0.0.0/8`, `2001:db8::/32`, or one address.
//!
//! Knows only addresses. Called by the rules, and by the listeners that trust balancers.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// A network. An IPv4 network also contains the IPv4-mapped form of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

/// Why a text is not a valid network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Neither an address nor an address with a prefix.
    #[error("not a network; write it like `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.7`")]
    Malformed,
    /// An address inside the network in place of the network's own address.
    #[error("bits are set behind the prefix; `{0}/{1}` would be right")]
    HostBits(IpAddr, u32),
}

impl Network {
    /// Returns the network around an address.
    #[must_use]
    pub fn around(address: IpAddr, prefix_bits: u32) -> Self {
        let (address, prefix_bits) = canonical(address, prefix_bits);
        Self { address: masked(address, prefix_bits), prefix_bits }
    }

    /// Returns the first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the number of bits that its addresses have in common.
    #[must_use]
    pub const fn prefix_bits(&self) -> u32 {
        self.prefix_bits
    }

    /// Returns whether the network contains the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix_bits) == self.address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix
            .map_or(Ok(bits_max), str::parse)
            .ok()
            .filter(|bits| *bits <= bits_max)
            .ok_or(NetworkError::Malformed)?;
        let network = masked(address, prefix_bits);
        // `10.1.2.3/8` is usually a typing mistake, and would cover a whole network.
        if network != address {
            return Err(NetworkError::HostBits(network, prefix_bits));
        }
        let (address, prefix_bits) = canonical(address, prefix_bits);
        Ok(Self { address, prefix_bits })
    }
}

/// Returns the IPv4 network that is meant by a network of IPv4-mapped addresses. Addresses are compared in
/// their IPv4 form.
fn canonical(address: IpAddr, prefix_bits: u32) -> (IpAddr, u32) {
    match (address.to_canonical(), prefix_bits.checked_sub(96)) {
        (mapped @ IpAddr::V4(_), Some(bits)) if address.is_ipv6() => (mapped, bits),
        _ => (address, prefix_bits),
    }
}

fn masked(address: IpAddr, prefix_bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix_bits)).unwrap_or(0);
            Ipv4Addr::from(u32::from(address) & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix_bits)).unwrap_or(0);
            Ipv6Addr::from(u128::from(address) & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Network, NetworkError> {
        text.parse()
    }

    fn contains(network: &str, address: &str) -> bool {
        parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_other() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("192.0.2.7", "192.0.2.7"));
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.0"));
        assert!(!contains("192.0.2.7", "192.0.2.6"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(!contains("::/0", "8.8.8.8"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
    }

    #[test]
    fn what_is_no_network_is_an_error_that_says_what_would_be() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "host"] {
            assert_eq!(parse(text), Err(NetworkError::Malformed), "{text}");
        }
        let error = parse("10.1.2.3/8").unwrap_err();
        assert_eq!(
            error.to_string(),
            "bits are set behind the prefix; `10.0.0.0/8` would be right"
        );
    }

    #[test]
    fn a_network_of_mapped_addresses_is_the_one_of_ipv4() {
        for (mapped, same) in [
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse(mapped).expect("a network").to_string(), same);
        }
        assert!(parse("::ffff:192.0.2.0/120").unwrap().contains("192.0.2.9".parse().unwrap()));
        let around = Network::around("::ffff:192.0.2.7".parse().unwrap(), 120);
        assert_eq!(around, parse("192.0.2.0/24").unwrap());
    }
}
