//! The origin of a login attempt, in the units in which addresses are given out.
//!
//! Knows only addresses. An origin is what one customer of a provider has: an IPv4 address, or a /64 of IPv6.
//! Failures are counted and turns are taken by origin.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address (in its IPv6-mapped form), or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(u128);

impl Origin {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(masked(address.to_bits(), 64)),
        }
    }

    /// Returns three networks that contain the origin, the largest first; the last one is the origin itself.
    /// They are /16, /24 and the address of IPv4; /32, /48 and /64 of IPv6.
    pub(crate) fn levels(self) -> [u128; 3] {
        let is_v4 = Ipv6Addr::from_bits(self.0).to_ipv4_mapped().is_some();
        let bits = if is_v4 { [112, 120, 128] } else { [32, 48, 64] };
        bits.map(|bits| masked(self.0, bits))
    }

    /// Returns its first address.
    pub(super) fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self.0)).to_canonical()
    }

    pub(super) const fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

const fn masked(address: u128, bits: u32) -> u128 {
    address & (u128::MAX << (128 - bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_customer_has_a_prefix_of_64_bits_and_one_of_ipv4_an_address() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_eq!(origin("192.0.2.1"), origin("::ffff:192.0.2.1"));
    }

    #[test]
    fn neighbours_share_their_networks() {
        let shared = |one: &str, other: &str| {
            let (one, other) = (origin(one).levels(), origin(other).levels());
            one.iter().zip(other).filter(|(one, other)| *one == other).count()
        };
        assert_eq!(shared("192.0.2.1", "192.0.2.2"), 2);
        assert_eq!(shared("192.0.2.1", "192.0.3.1"), 1);
        assert_eq!(shared("192.0.2.1", "192.1.2.1"), 0);
        assert_eq!(shared("2001:db8:1:1::1", "2001:db8:1:2::1"), 2);
        assert_eq!(shared("2001:db8:1::1", "2001:db8:2::1"), 1);
        assert_eq!(shared("2001:db8::1", "2001:db9::1"), 0);
    }
}
