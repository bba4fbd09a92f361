//! A client whose CONNECT is complete and that waits for CONNACK, and how it is read until then.
//!
//! Used by the handshake and by the exchange of AUTH packets within it; knows neither.

use std::{net::SocketAddr, sync::Arc};

use tokio::{io::AsyncReadExt, time::Instant};

use super::tls::ClientCertificateError;
use super::{admission::Admitted, refusal::Refusal, room::Room};
use crate::{
    auth::{ClientCertificate, Credentials, ListenerLogins},
    metrics::ConnectRefusal,
    mqtt::{Connect, DecodeLimits},
    shard::Core,
    transport::Transport,
};

/// The client certificate that TLS has verified, if there is one, or why it has no usable name.
pub(crate) type Shown = Result<Option<ClientCertificate>, ClientCertificateError>;

/// Bytes read at a time before CONNECT is complete.
pub(super) const READ_BYTES: usize = 2048;

/// Maximum size of CONNECT, even if other packets may be larger: its sender is not authenticated
/// yet.
const CONNECT_BYTES_MAX: u32 = 256 * 1024;

pub(super) fn connect_limits(core: &Core) -> DecodeLimits {
    let limits = core.decode_limits();
    DecodeLimits { packet_bytes_max: limits.packet_bytes_max.min(CONNECT_BYTES_MAX), ..limits }
}

/// A client whose CONNECT is complete and that waits for CONNACK.
pub(super) struct Newcomer<'a> {
    pub(super) transport: &'a mut dyn Transport,
    /// Bytes that were read after CONNECT.
    pub(super) read_ahead: &'a mut Vec<u8>,
    /// Room for CONNECT and the bytes after it.
    pub(super) room: &'a mut Room,
    pub(super) admitted: &'a mut Admitted,
    pub(super) connect_by: Instant,
    pub(super) peer: SocketAddr,
    pub(super) listener: &'a Arc<str>,
    pub(super) logins: ListenerLogins,
    pub(super) certificate: Option<&'a ClientCertificate>,
    pub(super) core: &'a Core,
}

impl<'a> Newcomer<'a> {
    /// Returns the credentials in CONNECT, with those of the connection.
    pub(super) fn credentials<'c>(
        &self,
        connect: &Connect<'c>,
        client_id: &'c str,
    ) -> Credentials<'c>
    where
        'a: 'c,
    {
        Credentials {
            client_id: Some(client_id),
            username: connect.username,
            password: connect.password,
            certificate: self.certificate,
            rules: self.logins,
            ..Credentials::new(self.peer, self.listener)
        }
    }
}

/// Reads at least one byte.
pub(super) async fn read_more(
    transport: &mut dyn Transport,
    buffer: &mut Vec<u8>,
) -> Result<(), Refusal> {
    buffer.reserve(READ_BYTES);
    match transport.read_buf(buffer).await {
        Ok(0) | Err(_) => Err(Refusal::silent(ConnectRefusal::Closed)),
        Ok(_) => Ok(()),
    }
}
