//! Logs packets at `trace`: types, Packet Identifiers, topics; never payloads or passwords.
//!
//! A wrapper between a connection and its transport observes the bytes that are read and written
//! and changes none of them. The handshake adds it to a new connection only if packet logging is
//! enabled at that moment; otherwise there is no wrapper and no cost.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::packet_line::{PacketLine, packet_line};
use crate::{
    mqtt::ProtocolVersion,
    told::cut,
    traces::Framer,
    transport::{TlsFacts, Transport},
};

/// The `tracing` target of packet lines, for filters such as `hearthmq::packets=trace`.
const PACKETS: &str = "hearthmq::packets";

/// Wraps `transport` if packet logging is enabled.
pub(super) fn follow(
    transport: Box<dyn Transport>,
    peer: SocketAddr,
    listener: &Arc<str>,
) -> Box<dyn Transport> {
    if !tracing::enabled!(target: PACKETS, tracing::Level::TRACE) {
        return transport;
    }
    let who = Who { peer, listener: Arc::clone(listener), client_id: None, version: None };
    let (received, sent) = (Framer::default(), Framer::default());
    Box::new(Followed { transport, who, received, sent })
}

struct Followed {
    transport: Box<dyn Transport>,
    who: Who,
    received: Framer,
    sent: Framer,
}

/// The client that the packets belong to.
struct Who {
    peer: SocketAddr,
    listener: Arc<str>,
    /// Both are known once CONNECT has been seen.
    client_id: Option<String>,
    version: Option<ProtocolVersion>,
}

impl Who {
    fn tell(&mut self, direction: &'static str, head: &[u8], bytes: usize) {
        let PacketLine { name, packet_id, topic, qos, dup, retain, reason, connect } =
            packet_line(head, bytes, self.version);
        if let Some((client_id, version)) = connect {
            // Later packets are decoded by the version in
            // CONNECT, and their lines have its identifier.
            (self.client_id, self.version) = (Some(cut(client_id).into_owned()), Some(version));
        }
        let (topic, reason) =
            (topic.as_deref().map(cut), reason.map(|reason| format!("{reason:?}")));
        tracing::trace!(
            target: PACKETS, parent: None,
            peer = %self.peer, listener = &*self.listener, packet = name, packet_id,
            qos, dup, retain, topic = topic.as_deref(), reason, bytes,
            client_id = self.client_id.as_deref(), "{direction}"
        );
    }
}

impl Transport for Followed {
    fn leave_reactor(&mut self) -> io::Result<()> {
        self.transport.leave_reactor()
    }

    fn join_reactor(&mut self) -> io::Result<()> {
        self.transport.join_reactor()
    }

    fn has_peer_closed(&mut self, cx: &mut Context<'_>) -> bool {
        self.transport.has_peer_closed(cx)
    }

    fn has_farewell(&self) -> bool {
        self.transport.has_farewell()
    }

    fn verify_certificate(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.transport.verify_certificate()
    }

    fn tls(&self) -> Option<TlsFacts> {
        self.transport.tls()
    }
}

impl AsyncRead for Followed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { transport, who, received, .. } = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut **transport).poll_read(cx, buf);
        received.take(&buf.filled()[before..], |head, bytes| who.tell("received", head, bytes));
        polled
    }
}

impl AsyncWrite for Followed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { transport, who, sent, .. } = self.get_mut();
        let polled = Pin::new(&mut **transport).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut written)) = polled {
            // A write may end inside a piece, so each piece is
            // cut at the bytes that are still unaccounted for.
            for piece in bufs {
                let (part, _) = piece.split_at(piece.len().min(written));
                sent.take(part, |head, bytes| who.tell("sent", head, bytes));
                written -= part.len();
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().transport).poll_shutdown(cx)
    }
}
