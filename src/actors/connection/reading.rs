//! What a connection reads, and when it reads no further.
//!
//! It is read as long as its answers are taken, nobody has to be waited for, and others get their
//! turn. Packets are the shard's to decode; what is left of the bytes is the tail.

use std::{
    pin::Pin,
    task::{Context as Task, Poll, ready},
};

use tokio::io::ReadBuf;

use super::{Connection, TURNS_PER_WAKE, ended, lost};
use crate::{
    actors::{
        shard::{Departure, SCRATCH_BYTES, Shard, look_after_held},
        tail::UNCOUNTED_BYTES_MAX,
    },
    hooks::DisconnectReason,
    metrics::HoldReason,
    mqtt::ReasonCode,
};

/// What reading led to.
pub(super) enum Reading {
    /// There is nothing more to read now.
    Waits,
    /// There may be more, but it is others' turn.
    Yields,
    /// The client does not take its answers, and is asked for nothing before it does.
    Blocked,
    /// Somebody has to be waited for.
    Held,
}

impl Connection {
    /// Reads and has handled what came.
    pub(super) fn read(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Result<Reading, Departure> {
        for _ in 0..TURNS_PER_WAKE {
            // Who is held is not heard, so its Keep Alive does not end either.
            if shard.is_quiet {
                return Ok(Reading::Waits);
            }
            if shard.is_held(self.slot) {
                return Ok(Reading::Held);
            }
            if shard.is_congested() {
                self.hold(shard, HoldReason::ShardBehind);
                return Ok(Reading::Held);
            }
            if std::mem::take(&mut self.tail.has_unhandled) {
                self.handle_tail(shard)?;
                continue;
            }
            if !self.may_read(shard) {
                self.check_keep_alive(shard)?;
                return Ok(Reading::Blocked);
            }
            let read = if self.tail.bytes.len() > UNCOUNTED_BYTES_MAX {
                self.read_into_tail(shard, task)
            } else {
                self.read_into_scratch(shard, task)
            };
            match read {
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

    /// The usual way: everything that is there, decoded where it lies.
    fn read_into_scratch(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Poll<Result<(), Departure>> {
        let mut scratch = std::mem::take(&mut shard.scratch);
        let before = self.tail.bytes.len();
        let mut buffer = ReadBuf::new(&mut scratch[before..]);
        let polled = Pin::new(&mut *self.transport).poll_read(task, &mut buffer);
        let read = buffer.filled().len();
        let outcome = match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(lost(&error))),
            Poll::Ready(Ok(())) if read == 0 => Poll::Ready(Err(ended())),
            Poll::Ready(Ok(())) => {
                shard.metrics.bytes_received.add(read as u64);
                scratch[..before].copy_from_slice(&self.tail.bytes);
                let bytes = &scratch[..before + read];
                let received = self.receive(shard, bytes);
                Poll::Ready(received.and_then(|used| {
                    self.tail.keep(&bytes[used..]);
                    self.count_tail(shard)
                }))
            }
        };
        shard.scratch = scratch;
        outcome
    }

    /// A packet that is larger than the scratch grows here, as fast as it arrives and no faster.
    fn read_into_tail(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Poll<Result<(), Departure>> {
        self.tail.bytes.reserve(SCRATCH_BYTES);
        let stream = Pin::new(&mut *self.transport);
        match ready!(tokio_util::io::poll_read_buf(stream, task, &mut self.tail.bytes)) {
            Err(error) => Poll::Ready(Err(lost(&error))),
            Ok(0) => Poll::Ready(Err(ended())),
            Ok(read) => {
                shard.metrics.bytes_received.add(read as u64);
                Poll::Ready(self.handle_tail(shard))
            }
        }
    }

    /// Has the packets handled that the tail holds.
    fn handle_tail(&mut self, shard: &mut Shard) -> Result<(), Departure> {
        let bytes = std::mem::take(&mut self.tail.bytes);
        let used = self.receive(shard, &bytes)?;
        self.tail.put_back(bytes, used);
        self.count_tail(shard)
    }

    fn count_tail(&mut self, shard: &Shard) -> Result<(), Departure> {
        let has_room = self.tail.count(&shard.core.incomplete_packets);
        // Who is held can do nothing about it, and adds nothing as long as it is.
        (has_room || self.tail.has_unhandled).then_some(()).ok_or(TOO_MANY_INCOMPLETE)
    }

    /// Has packets handled; how many bytes they were. The rest is to be kept.
    fn receive(&mut self, shard: &mut Shard, bytes: &[u8]) -> Result<usize, Departure> {
        let received = shard.receive(self.slot, bytes, shard.core.clock.now())?;
        if received.must_wait {
            self.tail.has_unhandled = true;
            self.hold(shard, HoldReason::SubscriberFull);
        }
        Ok(received.used)
    }

    pub(super) fn may_read(&self, shard: &Shard) -> bool {
        let link = shard.slot(self.slot).and_then(|s| s.session.link());
        link.is_some_and(|link| link.may_read())
    }

    /// Nothing came. If the deadline has passed, and the sweep has said so, that was it.
    fn check_keep_alive(&mut self, shard: &Shard) -> Result<(), Departure> {
        if !std::mem::take(&mut self.keep_alive_expired) {
            return Ok(());
        }
        let now = shard.core.clock.now();
        let link = shard.slot(self.slot).and_then(|s| s.session.link());
        if link.is_some_and(|link| link.keep_alive().deadline() <= now) {
            shard.metrics.keep_alive_timeouts.add(1);
            return Err(Departure::by_server(
                DisconnectReason::KeepaliveTimeout, // [MQTT-3.1.2-22]
                ReasonCode::KeepAliveTimeout,
            ));
        }
        Ok(())
    }

    /// Reads no further until the reason for it is gone.
    fn hold(&self, shard: &mut Shard, reason: HoldReason) {
        let now = shard.core.clock.now();
        if shard.hold(self.slot, reason, now) {
            actix_rt::spawn(look_after_held(self.shard.clone()));
        }
    }
}

/// Large packets of all clients that are not whole take as much as they may.
const TOO_MANY_INCOMPLETE: Departure =
    Departure::by_server(DisconnectReason::QuotaExceeded, ReasonCode::QuotaExceeded)
        .because("too many large packets are incomplete");
