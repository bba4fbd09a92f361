//! The reading side of a connection, and when it stops reading.
//!
//! A connection is read while its client takes the answers, no subscriber holds it, and other
//! connections get their turn. The shard decodes packets; the bytes that are left are the tail.

use std::{
    pin::Pin,
    task::{Context as Task, Poll},
};

use tokio::io::ReadBuf;

use super::{
    ClientStream, TURNS_PER_WAKE, ended, lost,
    rest::Rest,
    tail::{Tail, UNCOUNTED_BYTES_MAX},
};
use crate::{
    hooks::DisconnectReason,
    metrics::HoldReason,
    mqtt::ReasonCode,
    shard::{Departure, ReadOutcome, Shard},
};

/// The result of reading.
pub(super) enum Reading {
    /// There is nothing more to read now.
    Waits,
    /// There may be more to read, but other connections have their turn first.
    Yields,
    /// The client does not take its answers; the connection is not read until it does.
    Blocked,
    /// The connection is held until a subscriber has room.
    Held,
}

impl ClientStream {
    /// Reads the bytes that have arrived and has the shard handle them.
    pub(super) fn read(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Result<Reading, Departure> {
        for _ in 0..TURNS_PER_WAKE {
            // The broker does not read a held connection, so its Keep Alive does not expire either.
            if shard.lifecycle.is_quiet() {
                return Ok(Reading::Waits);
            }
            if shard.awaits_conn_ack(self.slot, self.link) {
                return self.read_ahead(shard, task);
            }
            if self.rest.is_some() {
                self.read_rest(shard, task)?;
                continue;
            }
            if shard.is_held(self.slot) {
                if shard.takes_question(self.slot) && self.transport.has_peer_closed(task) {
                    self.begin_rest(shard)?;
                    continue;
                }
                return Ok(Reading::Held);
            }
            if shard.is_congested() {
                self.hold(shard, HoldReason::ShardBehind);
                return Ok(Reading::Held);
            }
            if self.asked.is_some()
                && shard.session_waits_for_store(self.slot, shard.core.clock.now())
            {
                self.hold(shard, HoldReason::StoreBehind);
                return Ok(Reading::Held);
            }
            if self.asked.as_ref().is_some_and(|asked| asked.awaits_routes()) {
                self.hold(shard, HoldReason::RoutesBehind);
                return Ok(Reading::Held);
            }
            if let Some(asked) = self.asked.take() {
                self.asked = shard.go_on(self.slot, asked, shard.core.clock.now())?;
                continue;
            }
            if std::mem::take(&mut self.tail.has_unhandled) {
                self.handle_tail(shard)?;
                continue;
            }
            if !self.may_read(shard) {
                self.check_keep_alive(shard)?;
                return Ok(Reading::Blocked);
            }
            let is_ahead = self.is_ahead_of_rate(shard);
            if is_ahead && self.tail.has_large() {
                // Its memory would be held as long as the rate holds the connection.
                self.hold(shard, HoldReason::RateLimit);
                return Ok(Reading::Held);
            }
            let read = if is_ahead { None } else { self.read_rest_of_large(shard, task) };
            match read.unwrap_or_else(|| self.read_into_scratch(shard, task)) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => {
                    self.check_keep_alive(shard)?;
                    return Ok(Reading::Waits);
                }
            }
            self.keep_alive_expired = false;
            self.has_read = true;
        }
        Ok(Reading::Yields)
    }

    /// Begins to read what a client has sent before it left; the tail is the beginning.
    fn begin_rest(&mut self, shard: &mut Shard) -> Result<(), Departure> {
        self.asked = None;
        let tail = std::mem::take(&mut self.tail);
        let rest = self.rest.insert(Box::<Rest>::default());
        let found = rest.find_disconnect(&tail.bytes);
        self.end_by(shard, found)
    }

    /// Reads on what a client has sent before it left, and drops it.
    fn read_rest(&mut self, shard: &mut Shard, task: &mut Task<'_>) -> Result<(), Departure> {
        let mut buffer = ReadBuf::new(shard.buffers.scratch());
        match Pin::new(&mut *self.transport).poll_read(task, &mut buffer) {
            Poll::Ready(Err(error)) => return Err(lost(&error)),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(Ok(())) | Poll::Pending => return Err(ended()),
        }
        let rest = self.rest.get_or_insert_default();
        let found = rest.find_disconnect(buffer.filled());
        shard.metrics.bytes_received.add(buffer.filled().len() as u64);
        self.end_by(shard, found)
    }

    /// Has the shard handle the last packet of a client, if it is found.
    fn end_by(&self, shard: &mut Shard, found: Option<Vec<u8>>) -> Result<(), Departure> {
        let Some(disconnect) = found else { return Ok(()) };
        shard.receive(self.slot, &disconnect, None, shard.core.clock.now())?;
        Err(ended()) // The session did not take it.
    }

    /// Returns whether the connection has rates, and its next PUBLISH has to wait for them.
    fn is_ahead_of_rate(&self, shard: &mut Shard) -> bool {
        shard.is_paced(self.slot) && !shard.may_read_now(self.slot, shard.core.clock.now())
    }

    /// Reads a few bytes of what the client sends before it has received its CONNACK, and notices
    /// if the client closes. The bytes wait until CONNACK is sent, and nothing more is read.
    fn read_ahead(&mut self, shard: &mut Shard, task: &mut Task<'_>) -> Result<Reading, Departure> {
        if self.tail.has_unhandled {
            return Ok(Reading::Waits);
        }
        let mut buffer = ReadBuf::new(&mut shard.buffers.scratch()[..READ_AHEAD_BYTES]);
        match Pin::new(&mut *self.transport).poll_read(task, &mut buffer) {
            Poll::Pending => self.check_keep_alive(shard)?,
            Poll::Ready(Err(error)) => return Err(lost(&error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Err(ended()),
            Poll::Ready(Ok(())) => {
                let bytes = buffer.filled().to_vec();
                shard.metrics.bytes_received.add(bytes.len() as u64);
                self.tail = Tail::read_ahead(bytes);
            }
        }
        Ok(Reading::Waits)
    }

    /// Reads in the usual way: all bytes that are there, decoded in the scratch buffer.
    fn read_into_scratch(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Poll<Result<(), Departure>> {
        // Taken out, because the shard is borrowed while it handles the bytes in this buffer.
        let mut scratch = shard.buffers.take_scratch();
        let before = self.tail.bytes.len();
        // What a rate holds back is not counted, so it is not more than any tail may be.
        let end = if shard.is_paced(self.slot) { PACED_BYTES_MAX } else { scratch.len() };
        // Room for the tail is left in front, so that its packet is decoded in one piece.
        let mut buffer = ReadBuf::new(&mut scratch[before..end.max(before + 1)]);
        let polled = Pin::new(&mut *self.transport).poll_read(task, &mut buffer);
        let read = buffer.filled().len();
        let outcome = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(&error))),
            Poll::Ready(Ok(())) if read == 0 => Poll::Ready(Err(ended())),
            Poll::Ready(Ok(())) => {
                shard.metrics.bytes_received.add(read as u64);
                // Copied only now: a read that brings nothing costs no copy.
                scratch[..before].copy_from_slice(&self.tail.bytes);
                let bytes = &scratch[..before + read];
                let received = shard.receive(self.slot, bytes, None, shard.core.clock.now());
                Poll::Ready(received.and_then(|received| {
                    // A slow packet may take longer than the Keep Alive; its bytes are a sign of life.
                    if received.used == 0 {
                        shard.note_partial(self.slot, read);
                    }
                    self.tail.keep(&bytes[received.used..], received.at_least);
                    // Before the tail is counted: the tail of a held connection may exceed the limit.
                    self.wait_if_need_be(shard, received);
                    self.count_tail(shard)
                }))
            }
        };
        shard.buffers.put_scratch_back(scratch);
        outcome
    }

    /// Reads a large packet alone, into an allocation that all its receivers can share, so that its
    /// payload is copied for none of them. Returns `None` if no such packet has begun.
    fn read_rest_of_large(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Option<Poll<Result<(), Departure>>> {
        let mut lacking = self.tail.lacking()?;
        let stream = Pin::new(&mut *self.transport);
        Some(match tokio_util::io::poll_read_buf(stream, task, &mut lacking) {
            Poll::Pending => {
                // An idle connection has no memory for a packet that is only expected.
                self.tail.nothing_came();
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(&error))),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ended())),
            Poll::Ready(Ok(read)) => {
                shard.metrics.bytes_received.add(read as u64);
                // A slow packet may take longer than the Keep Alive; its bytes are a sign of life.
                shard.note_partial(self.slot, read);
                Poll::Ready(self.handle_tail(shard))
            }
        })
    }

    /// Has the shard handle the packets in the tail.
    fn handle_tail(&mut self, shard: &mut Shard) -> Result<(), Departure> {
        if let Some(bytes) = self.tail.take_whole() {
            let now = shard.core.clock.now();
            let received = shard.receive(self.slot, &bytes, Some(&bytes), now)?;
            self.tail.put_back(bytes, received.used, received.at_least);
            self.wait_if_need_be(shard, received);
        }
        self.count_tail(shard)
    }

    fn count_tail(&mut self, shard: &Shard) -> Result<(), Departure> {
        let owner = shard.slot(self.slot).and_then(|found| found.session.account());
        let has_room = self.tail.count(&shard.core.incomplete_packets, owner);
        // A held connection cannot avoid this, and adds nothing while it is held.
        (has_room || self.tail.has_unhandled).then_some(()).ok_or(TOO_MANY_INCOMPLETE)
    }

    fn wait_if_need_be(&mut self, shard: &mut Shard, received: ReadOutcome) {
        self.asked = received.asked;
        self.tail.has_unhandled |= received.is_paused;
        if let Some(reason) = received.must_wait {
            self.tail.has_unhandled = true;
            self.hold(shard, reason);
        }
    }

    pub(super) fn may_read(&self, shard: &Shard) -> bool {
        let link = shard.slot(self.slot).and_then(|s| s.session.link());
        link.is_some_and(|link| link.may_read())
    }

    /// Checks the Keep Alive after a read that brought nothing. If the sweep has reported that the
    /// deadline has passed, the connection ends.
    fn check_keep_alive(&mut self, shard: &mut Shard) -> Result<(), Departure> {
        if !std::mem::take(&mut self.keep_alive_expired) {
            return Ok(());
        }
        let now = shard.core.clock.now();
        let link = shard.slot_mut(self.slot).and_then(|s| s.session.link_mut());
        let is_over = link.is_some_and(|link| link.keep_alive_mut().is_over(now));
        shard.note_deadline(self.slot);
        if is_over {
            shard.metrics.keep_alive_timeouts.add(1);
            return Err(Departure::by_server(
                DisconnectReason::KeepaliveTimeout, // [MQTT-3.1.2-22]
                ReasonCode::KeepAliveTimeout,
            ));
        }
        Ok(())
    }

    /// Stops reading until the reason for it is gone.
    fn hold(&self, shard: &mut Shard, reason: HoldReason) {
        let now = shard.core.clock.now();
        shard.hold(self.slot, reason, now);
    }
}

/// Maximum number of bytes that are read at once of a client with rates.
const PACED_BYTES_MAX: usize = UNCOUNTED_BYTES_MAX;
/// Maximum number of bytes that are read of a client that has not received its CONNACK.
const READ_AHEAD_BYTES: usize = 2048;
/// The incomplete large packets of all clients have reached their limit.
const TOO_MANY_INCOMPLETE: Departure =
    Departure::by_server(DisconnectReason::QuotaExceeded, ReasonCode::QuotaExceeded)
        .because("too many large packets are incomplete");
