//! Reads the PROXY protocol header, by which a load balancer names the client of a connection
//! before any other byte (haproxy.org, proxy-protocol.txt, versions 1 and 2).
//!
//! Knows nothing of TLS or MQTT. Only the client's address is taken from the header; a certificate
//! name in it is ignored, because the broker has not verified that certificate.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::auth::Network;

/// Which peers may send a PROXY header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The trusted balancers: the sender of the header chooses the address that permissions and
    /// limits apply to. If empty, only peers on this machine are trusted.
    pub trusted: Vec<Network>,
}

/// Why there is no usable header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("connection ended in the PROXY header: {0}")]
    Read(#[from] io::Error),
    #[error("connection does not begin with a PROXY header")]
    Missing,
    #[error("PROXY header is malformed: {0}")]
    Malformed(#[from] proxy_header::Error),
    #[error("PROXY header has {0} bytes, more than {HEADER_BYTES_MAX}")]
    TooLong(usize),
    #[error("{0} is not trusted to send a PROXY header; see proxy_trusted")]
    NotTrusted(SocketAddr),
}

/// The fixed part of version 2, which contains the length of the rest.
const FIXED_BYTES: usize = 16;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The shortest header of version 1: `PROXY UNKNOWN` and the end of the line.
const TEXT_BYTES_MIN: usize = 15;
const TEXT_BYTES_MAX: usize = 107;

/// Addresses take up to 232 bytes; the rest is for what balancers add about TLS and themselves.
const HEADER_BYTES_MAX: usize = 4096;

impl ProxyProtocol {
    /// Returns whether a header from this address is trusted.
    fn trusts(&self, address: IpAddr) -> bool {
        match self.trusted.is_empty() {
            true => address.to_canonical().is_loopback(),
            false => self.trusted.iter().any(|one| one.contains(address)),
        }
    }

    /// Reads exactly the header and returns the client address in it. A balancer's own health check
    /// names no client; then this is the balancer's address.
    pub(crate) async fn read_peer<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        from: SocketAddr,
    ) -> Result<SocketAddr, ProxyError> {
        // Before a byte is read: a stranger could name any address in the header.
        if !self.trusts(from.ip()) {
            return Err(ProxyError::NotTrusted(from));
        }
        let header = read_header(stream).await?;
        // The other fields are not used: the broker has not verified what they say.
        let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
        let (header, _) = ProxyHeader::parse(&header, config)?;
        Ok(header.proxied_address().map_or(from, |address| address.source))
    }
}

async fn read_header<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, ProxyError> {
    // Read one byte first: a client that sends no PROXY header is refused after its first byte.
    let mut header = vec![stream.read_u8().await?];
    if header != SIGNATURE[..1] && header != *b"P" {
        return Err(ProxyError::Missing);
    }
    // Both versions have at least these bytes, so no byte of the client is read here.
    header.resize(TEXT_BYTES_MIN, 0);
    stream.read_exact(&mut header[1..]).await?;
    if header.starts_with(SIGNATURE) {
        header.push(stream.read_u8().await?);
        let rest =
            usize::from(u16::from_be_bytes([header[FIXED_BYTES - 2], header[FIXED_BYTES - 1]]));
        // Before memory is reserved: the sender chooses this length.
        if FIXED_BYTES + rest > HEADER_BYTES_MAX {
            return Err(ProxyError::TooLong(FIXED_BYTES + rest));
        }
        header.resize(FIXED_BYTES + rest, 0);
        stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    } else if header.starts_with(b"PROXY ") {
        // Bytes after the line belong to the client and must stay unread.
        while !header.ends_with(b"\r\n") {
            if header.len() == TEXT_BYTES_MAX {
                return Err(ProxyError::TooLong(TEXT_BYTES_MAX + 1));
            }
            header.push(stream.read_u8().await?);
        }
    } else {
        return Err(ProxyError::Missing);
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn peer(trusted: &[&str], from: &str) -> Result<SocketAddr, ProxyError> {
        let trusted = trusted.iter().map(|text| text.parse().expect("a network")).collect();
        let mut header: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 5000 1883\r\n";
        let from = from.parse().expect("an address");
        ProxyProtocol { trusted }.read_peer(&mut header, from).await
    }

    #[actix_rt::test]
    async fn without_names_a_header_counts_from_this_machine_alone() {
        for from in ["127.0.0.1:1", "127.7.0.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(peer(&[], from).await.is_ok_and(|peer| peer.port() == 5000), "{from}");
        }
        for from in ["192.0.2.9:1", "[2001:db8::1]:1", "[::ffff:192.0.2.9]:1", "0.0.0.0:1"] {
            assert!(matches!(peer(&[], from).await, Err(ProxyError::NotTrusted(_))), "{from}");
        }
        assert!(peer(&["192.0.2.0/24"], "192.0.2.9:1").await.is_ok());
        assert!(peer(&["192.0.2.0/24"], "127.0.0.1:1").await.is_err());
    }
}
