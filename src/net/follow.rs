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
    transport::{TlsFacts, Transport},
};

/// The `tracing` target of packet lines, for filters such as `hearthmq::packets=trace`.
const PACKETS: &str = "hearthmq::packets";

/// Maximum bytes of a packet that are buffered: enough for its topic. The log line of a longer
/// packet has less detail.
const HEAD_BYTES_MAX: usize = 8 * 1024;

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

/// Finds packet boundaries in a stream of bytes.
#[derive(Default)]
struct Framer {
    /// The beginning of the current packet.
    head: Vec<u8>,
    /// The length of the current packet, once it is known.
    length: Option<usize>,
    /// Bytes of the current packet received so far.
    seen: usize,
    /// The bytes are not MQTT packets; the rest of the stream is ignored.
    is_lost: bool,
}

impl Framer {
    /// Takes the next bytes and calls `tell` with the beginning and the length of each packet that
    /// is now complete.
    fn take(&mut self, mut bytes: &[u8], mut tell: impl FnMut(&[u8], usize)) {
        while let Some((&first, rest)) = bytes.split_first()
            && !self.is_lost
        {
            let Some(length) = self.length else {
                (self.seen, bytes) = (self.seen + 1, rest);
                self.head.push(first);
                self.find_length();
                self.tell_if_whole(&mut tell);
                continue;
            };
            let (part, rest) = bytes.split_at(bytes.len().min(length - self.seen));
            let kept = part.len().min(HEAD_BYTES_MAX.saturating_sub(self.head.len()));
            self.head.extend_from_slice(&part[..kept]);
            self.seen += part.len();
            bytes = rest;
            self.tell_if_whole(&mut tell);
        }
    }

    /// Looks for the Remaining Length: one to four bytes after the first one (section 2.1.4).
    fn find_length(&mut self) {
        let digits = &self.head[1..];
        if digits.last().is_some_and(|digit| digit & 0x80 == 0) {
            let value =
                digits.iter().rev().fold(0, |value, digit| value << 7 | usize::from(digit & 0x7F));
            self.length = Some(self.head.len() + value);
        } else if digits.len() >= 4 {
            self.is_lost = true;
        }
    }

    fn tell_if_whole(&mut self, tell: &mut impl FnMut(&[u8], usize)) {
        if let Some(length) = self.length.filter(|length| *length == self.seen) {
            tell(&self.head, length);
            *self = Self::default();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what a framer finds when `bytes` arrive in pieces of `piece` bytes.
    fn found(bytes: &[u8], piece: usize) -> Vec<(Vec<u8>, usize)> {
        let (mut framer, mut found) = (Framer::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            framer.take(piece, |head, length| found.push((head.to_vec(), length)));
        }
        assert!(framer.head.len() <= HEAD_BYTES_MAX);
        found
    }

    #[test]
    fn packets_are_found_however_their_bytes_come() {
        let large_body = vec![b'x'; 20_000];
        let large = [&[0x30, 0xA0, 0x9C, 0x01][..], &large_body].concat();
        let stream = [&[0xC0, 0][..], &[0x40, 2, 0, 7], &large, &[0xE0, 0]].concat();
        let mut head = large;
        head.truncate(HEAD_BYTES_MAX);
        let expected =
            [(vec![0xC0, 0], 2), (vec![0x40, 2, 0, 7], 4), (head, 20_004), (vec![0xE0, 0], 2)];
        for piece in [1, 2, 3, 5, 1000, 30_000] {
            assert_eq!(found(&stream, piece), expected, "{piece}");
        }
    }

    #[test]
    fn what_is_no_packet_is_followed_no_further() {
        assert_eq!(found(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0xC0, 0, 0xC0, 0], 1), []);
    }
}
