//! Addresses of listeners: IP and port, or a name and port, which stands for all its addresses.
//!
//! Called while a configuration is read, so that later code needs to know addresses only.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs as _, UdpSocket},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// Reads a list of addresses and names.
pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let listed = Vec::<Listed>::deserialize(deserializer)?;
    Ok(listed.into_iter().flat_map(|Listed(addresses)| addresses).collect())
}

/// The addresses that one text stands for.
struct Listed(Vec<SocketAddr>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(AddressVisitor)
    }
}

/// A visitor, so that an error in it has the position of this one address.
struct AddressVisitor;

impl Visitor<'_> for AddressVisitor {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Listed, E> {
        match resolve(text) {
            Some(found) => found.map(Listed).map_err(|error| {
                E::custom(format!("the name in {text:?} cannot be resolved: {error}"))
            }),
            None => Err(E::custom("invalid socket address")),
        }
    }
}

/// Returns the addresses that `text` stands for; `None` if it is neither an address nor a name with
/// a port.
pub(super) fn resolve(text: &str) -> Option<io::Result<Vec<SocketAddr>>> {
    if let Ok(address) = text.parse() {
        return Some(Ok(vec![address]));
    }
    let (name, port) = text.rsplit_once(':')?;
    let is_one = is_name(name) && port.parse::<u16>().is_ok();
    is_one.then(|| text.to_socket_addrs().map(|found| of_this_machine(found.collect())))
}

fn is_name(text: &str) -> bool {
    let of_name = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '.' | '_');
    let is_number =
        |text: &str| text.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
    !text.is_empty() && text.chars().all(of_name) && !is_number(text)
}

/// Removes addresses that this machine cannot listen on, such as `::1` of `localhost` without IPv6,
/// unless none would be left.
fn of_this_machine(mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_here = |address: &SocketAddr| UdpSocket::bind((address.ip(), 0)).is_ok();
    if found.iter().any(is_here) {
        found.retain(is_here);
    }
    found.sort_unstable();
    found.dedup();
    found
}
