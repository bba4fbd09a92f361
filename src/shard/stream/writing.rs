//! The writing side of a connection: its session's output, as much as the stream takes.
//!
//! A large payload is written from the memory that all its subscribers share, together with the
//! bytes before and behind it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context as Task, Poll, ready},
};

use super::{ClientStream, TURNS_PER_WAKE, lost};
use crate::{
    session::Link,
    shard::{Departure, Shard},
    transport::Transport,
};

/// Maximum number of pieces in one write. Payloads that are pieces of their own are large, so a
/// stream would not take more of them at once anyway.
const PIECES_MAX: usize = 8;

impl ClientStream {
    /// Writes the session's output for the client; returns whether all of it is written.
    pub(super) fn write(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Result<bool, Departure> {
        for _ in 0..TURNS_PER_WAKE {
            let now = shard.core.clock.now();
            // Queued messages go into the output as far as the client takes them.
            let has_all = shard.pump(self.slot, now);
            if !shard.core.may_act() {
                return Err(Departure::FENCED); // Nothing leaves a node that has lost its leases.
            }
            let Some(slot) = shard.slot_mut(self.slot) else {
                return Ok(true);
            };
            let Some(link) = slot.session.link_mut() else {
                return Ok(true);
            };
            let tally = link.take_tally();
            // Nothing to write, but the portion of `pump` may have ended before the queue: then it continues.
            if !link.has_output() {
                shard.count(self.slot, tally);
                if has_all {
                    return Ok(true);
                }
                continue;
            }
            // Only room for more could let more messages go on after the write.
            let has_all = has_all && link.has_room();
            let mut wrote = 0;
            let outcome = poll_write_output(&mut *self.transport, task, link, &mut wrote);
            self.has_written |= wrote > 0;
            self.is_blocked = outcome.is_pending();
            // A written buffer goes back to the shard; a part of one stays with the link.
            let finished = match outcome {
                Poll::Pending => None,
                Poll::Ready(Ok(())) => {
                    link.keep_alive_mut().bytes_sent(now);
                    Some(link.take_written())
                }
                Poll::Ready(Err(error)) => return Err(lost(&error)),
            };
            shard.metrics.bytes_sent.add(wrote as u64);
            shard.count(self.slot, tally);
            let Some(buffer) = finished else {
                return Ok(true);
            };
            shard.buffers.take_back(buffer);
            if has_all {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Writes the link's output and counts it; returns `Ready` once all is written and flushed.
fn poll_write_output(
    transport: &mut dyn Transport,
    task: &mut Task<'_>,
    link: &mut Link,
    wrote: &mut usize,
) -> Poll<io::Result<()>> {
    while let Some(polled) = poll_write_once(transport, task, link) {
        let n = ready!(polled)?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        link.note_written(n);
        *wrote += n;
    }
    Pin::new(transport).poll_flush(task)
}

/// Writes once; returns `None` if there is nothing to write.
fn poll_write_once(
    transport: &mut dyn Transport,
    task: &mut Task<'_>,
    link: &Link,
) -> Option<Poll<io::Result<usize>>> {
    let stream = Pin::new(transport);
    let mut pieces = link.output();
    let first = pieces.next()?;
    let Some(second) = pieces.next() else {
        return Some(stream.poll_write(task, first)); // The usual case.
    };
    let mut slices = [IoSlice::new(&[]); PIECES_MAX];
    let mut len = 0;
    for (slice, piece) in slices.iter_mut().zip([first, second].into_iter().chain(pieces)) {
        *slice = IoSlice::new(piece);
        len += 1;
    }
    Some(stream.poll_write_vectored(task, &slices[..len]))
}
