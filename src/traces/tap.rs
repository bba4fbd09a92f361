//! Observes the stream of a connection for traces, between the connection and its transport.
//!
//! It changes no byte. It stays for the rest of the connection, and does nothing once all its traces
//! have ended.

use std::{
    any::Any,
    error::Error,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Trace, TracedClient, Traces,
    framer::Framer,
    line::{LIMITS, PacketPart, TraceLine, kind_of, packet_part, with_packet},
    properties::text,
    trace::TracePlace,
};
use crate::{
    auth::Authorizer,
    clock::Clock,
    control::TraceKind,
    flow::{Budget, BudgetShare},
    mqtt::{Decoded, Packet, ProtocolVersion, Timestamp, decode_connect},
    told::without_token,
    transport::{TlsFacts, Transport, absent},
};

/// The position of a stream when a trace begins to observe it.
#[derive(Clone, Copy, Default)]
pub(crate) struct StreamPlace<'a> {
    /// Bytes that were read and not handled; the last packet may be incomplete.
    pub(crate) read: &'a [u8],
    /// Bytes of whole packets that are to be written, and were encoded before.
    pub(crate) unwritten: usize,
}

/// An event of a connection.
#[derive(Clone, Copy)]
pub(crate) enum TracedEvent<'a> {
    /// It is followed from now on.
    Followed {
        /// The version of the client.
        version: ProtocolVersion,
        /// Keep Alive in force, in seconds.
        keep_alive_secs: u16,
    },
    /// It was refused.
    Refused {
        /// A word.
        reason: &'a str,
    },
    /// It has ended.
    Ended {
        /// A word.
        reason: &'a str,
        /// The user name of the caller that requested it.
        by: Option<&'a str>,
    },
}

impl TracedEvent<'_> {
    const fn kind(&self) -> TraceKind {
        match self {
            Self::Followed { .. } => TraceKind::ConnectionFollowed,
            Self::Refused { .. } => TraceKind::ConnectionRefused,
            Self::Ended { .. } => TraceKind::ConnectionEnded,
        }
    }

    /// Records this event in a trace.
    pub(crate) fn record(
        &self,
        trace: &Trace,
        (peer, client_id): (SocketAddr, Option<&str>),
        now: Timestamp,
    ) {
        let packet = match *self {
            Self::Followed { version, keep_alive_secs } => {
                PacketPart::of_connection(version, keep_alive_secs)
            }
            Self::Refused { reason } => PacketPart::of_end(reason, None),
            Self::Ended { reason, by } => PacketPart::of_end(reason, by),
        };
        // A closure, so that a line costs nothing if the trace does not record its kind.
        let line = || TraceLine {
            client_id: client_id.map(text),
            address: Some(peer),
            packet,
            ..TraceLine::default()
        };
        record(trace, self.kind(), now, line);
    }
}

/// Records a line in a trace, if the trace takes it.
fn record(trace: &Trace, kind: TraceKind, now: Timestamp, line: impl FnOnce() -> TraceLine) {
    let Some(micros) = trace.admits(kind, now) else { return };
    let line = TraceLine { at: now.millis(), micros, kind: kind.name(), ..line() };
    if let Ok(json) = serde_json::to_vec(&line) {
        trace.push(json.into_boxed_slice().into());
    }
}

/// A transport that is observed.
struct Tapped {
    transport: Box<dyn Transport>,
    watch: TapWatch,
    received: Framer,
    sent: Framer,
    /// The number of unwritten bytes that belong to packets which are not recorded.
    skipped: usize,
    heads: Arc<Budget>,
    /// Memory for the beginnings of incomplete packets, while there are any.
    share: Option<BudgetShare>,
}

/// The traces of a connection, and the facts about its client.
struct TapWatch {
    traces: Vec<TracePlace>,
    rules: Arc<dyn Authorizer>,
    clock: Clock,
    peer: SocketAddr,
    client_id: Option<Arc<str>>,
    username: Option<Arc<str>>,
    /// As in CONNECT.
    version: ProtocolVersion,
}

impl TapWatch {
    /// Drops the traces that have ended, or whose callers may not observe the client any more.
    fn drop_ended(&mut self, is_another_client: bool) {
        // The rules may have changed, and the caller may have lost the permission.
        let generation = self.rules.generation();
        let Self { traces, rules, peer, client_id, username, .. } = self;
        let client = TracedClient {
            client_id: client_id.as_deref(),
            username: username.as_deref(),
            address: peer.ip(),
        };
        // Asked only after a change; otherwise a trace stays until it ends.
        traces.retain_mut(|place| {
            if place.rules != generation || is_another_client {
                place.rules = generation;
                return place.trace.still_follows(client, &**rules);
            }
            !place.trace.is_over()
        });
    }

    /// Records a packet of `length` bytes that begins with `head`.
    fn tell(&mut self, direction: &'static str, head: &[u8], length: usize) {
        let Some(kind) = head.first().and_then(|first| kind_of(*first)) else { return };
        self.drop_ended(false);
        // Only CONNACK tells an identifier that the broker has assigned.
        if kind == TraceKind::ConnAck {
            self.learn_identifier(head, length);
        }
        let now = self.clock.now();
        // The line differs by trace, because one may have contents and another not.
        for place in &self.traces {
            let contents = place.trace.payloads;
            let line = || TraceLine {
                client_id: self.client_id.as_deref().map(text),
                address: Some(self.peer),
                direction: Some(direction),
                bytes: Some(length),
                packet: packet_part((head, length), self.version, contents),
                ..TraceLine::default()
            };
            record(&place.trace, kind, now, line);
        }
    }

    /// Notes the identifier that the broker has assigned.
    fn learn_identifier(&mut self, head: &[u8], length: usize) {
        if self.client_id.is_some() {
            return;
        }
        let assigned = with_packet((head, length), self.version, |packet| {
            let Packet::ConnAck(ack) = packet else { return None };
            ack.properties.assigned_client_identifier.map(Arc::from)
        });
        if let Some(assigned) = assigned.flatten() {
            self.client_id = Some(assigned);
            self.drop_ended(true);
        }
    }
}

impl Traces {
    /// Observes a connection whose CONNECT has arrived, with the bytes behind it, if a trace records its
    /// client. `name` is the user name of its certificate.
    pub(crate) fn tap_newcomer(
        &self,
        transport: Box<dyn Transport>,
        bytes: &[u8],
        (peer, name): (SocketAddr, Option<&str>),
    ) -> Box<dyn Transport> {
        // A CONNECT that cannot be decoded is refused, and belongs to no client.
        let Ok(Decoded::Packet { packet: Packet::Connect(connect), .. }) =
            decode_connect(bytes, &LIMITS)
        else {
            return transport;
        };
        // An empty identifier is none; CONNACK will tell the assigned one.
        let client_id = Some(connect.client_id).filter(|client_id| !client_id.is_empty());
        let username = name.or_else(|| connect.username.map(without_token));
        let client = TracedClient { client_id, username, address: peer.ip() };
        // Most connections end here, without an observer.
        let traces = self.places(client, &[]);
        if traces.is_empty() {
            return transport;
        }
        let mut tapped = self.tapped(transport, (peer, client), connect.version);
        tapped.watch.traces = traces;
        // The CONNECT was read before the observer was there.
        tapped.take_received(bytes);
        Box::new(tapped)
    }

    /// Observes a connection that has arrived at its shard with its CONNECT accepted, if a trace records
    /// its client and does not observe it yet.
    pub(crate) fn tap_arrived(
        &self,
        transport: &mut Box<dyn Transport>,
        (peer, client): (SocketAddr, TracedClient<'_>),
        version: ProtocolVersion,
        read_ahead: &[u8],
    ) {
        let known = tapped(transport).map_or(&[][..], |tapped| &tapped.watch.traces[..]);
        let new = self.places(client, known);
        let place = StreamPlace { read: read_ahead, unwritten: 0 };
        self.add(transport, new, (peer, client), version, place);
    }

    /// Has a trace observe a connection from now on; returns whether it did not do so before.
    pub(crate) fn tap(
        &self,
        transport: &mut Box<dyn Transport>,
        trace: &Arc<Trace>,
        (peer, client): (SocketAddr, TracedClient<'_>),
        (version, place): (ProtocolVersion, StreamPlace<'_>),
    ) -> bool {
        let known = tapped(transport).map_or(&[][..], |tapped| &tapped.watch.traces[..]);
        // A trace must not record a connection twice.
        let is_known = known.iter().any(|it| Arc::ptr_eq(&it.trace, trace));
        if is_known || !trace.follows(client, &*self.rules) {
            return false;
        }
        let new = TracePlace::take(trace, self.rules.generation());
        let is_new = new.is_some();
        self.add(transport, new.into_iter().collect(), (peer, client), version, place);
        is_new
    }

    fn add(
        &self,
        transport: &mut Box<dyn Transport>,
        new: Vec<TracePlace>,
        (peer, client): (SocketAddr, TracedClient<'_>),
        version: ProtocolVersion,
        place: StreamPlace<'_>,
    ) {
        // The client may have another identity since the observer was made.
        if let Some(tapped) = tapped(transport) {
            tapped.watch.client_id = client.client_id.map(Into::into);
            tapped.watch.username = client.username.map(Into::into);
            tapped.watch.drop_ended(true);
            tapped.begin(new, place);
        } else if !new.is_empty() {
            // `absent` stands in for the transport, which moves into the observer.
            let inner = std::mem::replace(transport, absent());
            let mut tapped = self.tapped(inner, (peer, client), version);
            tapped.begin(new, place);
            *transport = Box::new(tapped);
        }
    }

    fn tapped(
        &self,
        transport: Box<dyn Transport>,
        (peer, client): (SocketAddr, TracedClient<'_>),
        version: ProtocolVersion,
    ) -> Tapped {
        let watch = TapWatch {
            traces: Vec::new(),
            rules: Arc::clone(&self.rules),
            clock: self.clock,
            peer,
            client_id: client.client_id.map(Into::into),
            username: client.username.map(Into::into),
            version,
        };
        Tapped {
            transport,
            watch,
            received: Framer::default(),
            sent: Framer::default(),
            skipped: 0,
            heads: Arc::clone(&self.bounds.heads),
            share: None,
        }
    }
}

/// Returns the observer of a connection, if it has one.
fn tapped(transport: &mut Box<dyn Transport>) -> Option<&mut Tapped> {
    transport.observer()?.downcast_mut()
}

impl Tapped {
    /// Adds traces. They do not get packets that are already under way.
    fn begin(&mut self, new: Vec<TracePlace>, place: StreamPlace<'_>) {
        if self.watch.traces.is_empty() {
            (self.received, self.sent) = (Framer::default(), Framer::default());
            self.received.take(place.read, |_, _| {});
            self.skipped = place.unwritten;
        }
        self.watch.traces.extend(new);
        self.count_heads();
    }

    fn take_received(&mut self, bytes: &[u8]) {
        let Self { watch, received, .. } = self;
        if !watch.traces.is_empty() {
            received.take(bytes, |head, length| watch.tell("in", head, length));
            self.count_heads();
        }
    }

    fn take_sent(&mut self, bytes: &[u8]) {
        let Self { watch, sent, skipped, .. } = self;
        if !watch.traces.is_empty() {
            let (before, bytes) = bytes.split_at(bytes.len().min(*skipped));
            *skipped -= before.len();
            sent.take(bytes, |head, length| watch.tell("out", head, length));
            self.count_heads();
        }
    }

    /// Takes memory for incomplete packets, or keeps only their types.
    fn count_heads(&mut self) {
        let kept = self.received.kept() + self.sent.kept();
        self.share = None;
        if kept > 0 {
            self.share = self.heads.share(kept);
            if self.share.is_none() {
                self.received.cut();
                self.sent.cut();
            }
        }
    }
}

impl Transport for Tapped {
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

    fn observer(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut *this.transport).poll_read(cx, buf);
        this.take_received(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.transport).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            this.take_sent(&buf[..written.min(buf.len())]);
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.transport).poll_write_vectored(cx, bufs);
        // Only what was written is recorded, also if it is a part of the pieces.
        if let Poll::Ready(Ok(mut written)) = polled {
            for piece in bufs {
                let (part, _) = piece.split_at(piece.len().min(written));
                this.take_sent(part);
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
