//! The stream of one connection: the bytes on one side, the session on the other.
//!
//! It is driven for one turn, reads and writes as far as it can, and answers what comes next. It knows
//! neither actors nor timers: the Connection actor drives it, waits, and ends what takes too long. It
//! knows nothing of MQTT: the shard decodes, decides and encodes.

mod authentication;
mod messages;
mod reading;
mod rest;
mod tail;
mod takeover;
mod traced;
mod writing;

use std::{
    io,
    pin::Pin,
    task::{Context as Task, Poll, ready},
};

use tokio::io::ReadBuf;

pub(crate) use self::{authentication::StepResult, messages::AfterMessage};
use self::{reading::Reading, rest::Rest, tail::Tail, takeover::Successors};
use crate::{
    hooks::DisconnectReason,
    shard::{Departure, FiltersAsked, Shard},
    transport::{Transport, poll_write_all},
};

/// Maximum number of reads, and of writes, before other connections get their turn.
const TURNS_PER_WAKE: usize = 4;

/// The stream of one connection, and the bytes that are read and not handled.
pub(crate) struct ClientStream {
    slot: u32,
    link: u64,
    transport: Box<dyn Transport>,
    tail: Tail,
    /// A packet of which a part has been handled; the tail follows it.
    asked: Option<Box<FiltersAsked>>,
    /// The bytes left to read of a client that closed its connection while it was held.
    rest: Option<Box<Rest>>,
    phase: Phase,
    keep_alive_expired: bool,
    /// Whether bytes arrived in this turn.
    has_read: bool,
    /// Whether pending output has waited for one turn; the next turn writes it.
    gives_way: bool,
    /// Whether reading has ended; the connection leaves once all output is written.
    is_leaving: bool,
    /// Whether the stream takes no more bytes at present.
    is_blocked: bool,
    /// Whether the stream has taken bytes since the last check.
    has_written: bool,
    /// Newer connections that wait until this connection has been read once more.
    successors: Option<Box<Successors>>,
}

/// ```text
///         session left            all written             client closes
///   Open ──────────────► Closing ─────────────► Lingering ─────────────► (the actor ends)
/// ```
enum Phase {
    Open,
    /// The session is gone; the connection writes these bytes and then closes the stream.
    Closing {
        bytes: Vec<u8>,
        written: usize,
    },
    /// All is written and this side of the stream is closed; the client must close the other side.
    Lingering,
}

/// The time of the next turn of an open stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextTurn {
    /// There is more to do: it is driven again after the tasks that are ready now.
    Soon,
    /// It is driven again when bytes arrive, the transport takes bytes, or its session wakes it.
    WhenWoken,
}

impl ClientStream {
    /// Returns the stream of a connection with a session: its slot and its link.
    pub(crate) fn new(
        (slot, link): (u32, u64),
        transport: Box<dyn Transport>,
        read_ahead: Vec<u8>,
    ) -> Self {
        Self {
            slot,
            link,
            transport,
            tail: Tail::read_ahead(read_ahead),
            asked: None,
            rest: None,
            phase: Phase::Open,
            keep_alive_expired: false,
            has_read: false,
            gives_way: false,
            is_leaving: false,
            is_blocked: false,
            has_written: false,
            successors: None,
        }
    }

    /// Returns a stream without a session: it writes these bytes, then closes.
    pub(crate) fn closing(transport: Box<dyn Transport>, bytes: Vec<u8>) -> Self {
        let mut stream = Self::new((u32::MAX, 0), transport, Vec::new());
        stream.phase = Phase::Closing { bytes, written: 0 };
        stream
    }

    /// Returns whether the connection has not begun to close.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Returns whether the last bytes are still to be written.
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Reads and writes all that can be read and written now.
    ///
    /// # Errors
    /// Returns how the connection must end.
    pub(crate) fn drive(
        &mut self,
        shard: &mut Shard,
        task: &mut Task<'_>,
    ) -> Result<NextTurn, Departure> {
        if let Some(slot) = shard.linked(self.slot, self.link)
            && let Some(connected) = &mut slot.connected
        {
            connected.is_awake = true;
            if !connected.waker.as_ref().is_some_and(|w| w.will_wake(task.waker())) {
                connected.waker = Some(task.waker().clone());
            }
        } else {
            return Ok(NextTurn::WhenWoken); // The session has left; Finish is in the mailbox.
        }
        shard.charge(self.slot);
        let outcome = self.read(shard, task);
        shard.flush();
        if self.lets_others_go_first(shard, &outcome) {
            return Ok(NextTurn::Soon);
        }
        let reading = outcome?;
        shard.charge(self.slot);
        let mut is_drained = self.write(shard, task)?;
        // Flushing notes what was sent, which may release output that waited for it.
        if shard.flush_changes() && shard.has_output(self.slot) {
            is_drained = false;
        }
        let reads_on = match reading {
            Reading::Waits => false,
            Reading::Yields => true,
            Reading::Blocked => self.may_read(shard),
            // The output just written may be what held this connection, and a working
            // connection gets no wake-up.
            Reading::Held => !shard.is_held(self.slot),
        };
        let has_more_to_do = reads_on || !is_drained;
        if self.is_leaving && !has_more_to_do && !shard.has_pending(self.slot) {
            return Err(Departure::SERVER_SHUTDOWN);
        }
        if let Some(connected) =
            shard.linked(self.slot, self.link).and_then(|s| s.connected.as_mut())
        {
            connected.is_awake = false;
        }
        Ok(if has_more_to_do { NextTurn::Soon } else { NextTurn::WhenWoken })
    }

    /// Returns whether pending output waits until other ready tasks had their turn. Then one write
    /// also carries the answers to what this client sends meanwhile, and what other clients send to
    /// it; a write is the most expensive step here. Output waits once, and not at all where no
    /// other task is ready.
    fn lets_others_go_first(
        &mut self,
        shard: &Shard,
        reading: &Result<Reading, Departure>,
    ) -> bool {
        let has_read = std::mem::take(&mut self.has_read);
        let may_wait = has_read && matches!(reading, Ok(Reading::Waits));
        self.gives_way = may_wait && !self.gives_way && shard.has_output(self.slot);
        self.gives_way
    }

    /// Leaves the session; returns what is left to be said.
    pub(crate) fn depart(&mut self, shard: &mut Shard, departure: Departure) -> Departed {
        let is_by_client = departure.is_by_client();
        let Some(bytes) = self.leave(shard, departure) else { return Departed::Before };
        let has_all_been_said = is_by_client && bytes.is_empty();
        if has_all_been_said && !self.transport.has_farewell() {
            Departed::Silently
        } else {
            Departed::With(bytes)
        }
    }

    /// Leaves the session, unless it has left already; returns the bytes that are still to be
    /// written.
    pub(crate) fn leave(&self, shard: &mut Shard, departure: Departure) -> Option<Vec<u8>> {
        shard.linked(self.slot, self.link)?;
        let now = shard.core.clock.now();
        shard.charge_leaving(self.slot);
        let bytes = shard.depart(self.slot, departure, now);
        shard.flush();
        Some(bytes)
    }

    /// Begins to close with these bytes; returns `false` if it has begun already.
    pub(crate) fn close(&mut self, bytes: Vec<u8>) -> bool {
        let is_first = self.is_open();
        if is_first {
            self.phase = Phase::Closing { bytes, written: 0 };
            self.tail = Tail::default();
            self.asked = None;
        }
        is_first
    }

    /// Writes the last bytes, and then closes this side of the stream.
    pub(crate) fn poll_close(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        if let Phase::Closing { bytes, written } = &mut self.phase {
            let before = *written;
            let wrote = poll_write_all(&mut *self.transport, task, bytes, written);
            self.has_written |= *written > before;
            self.is_blocked = wrote.is_pending();
            ready!(wrote)?;
            ready!(Pin::new(&mut *self.transport).poll_shutdown(task))?;
            self.phase = Phase::Lingering;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops what the client sends to a closed connection; returns `Ready` once the
    /// client has closed its side.
    pub(crate) fn poll_client_close(&mut self, shard: &mut Shard, task: &mut Task<'_>) -> Poll<()> {
        for _ in 0..TURNS_PER_WAKE {
            let mut buffer = ReadBuf::new(shard.buffers.scratch());
            let read = ready!(Pin::new(&mut *self.transport).poll_read(task, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// Begins a period for [`Self::has_stalled`].
    pub(crate) const fn watch(&mut self) {
        self.has_written = false;
    }

    /// Ends a period, and begins the next one; returns whether the stream has taken no bytes in it
    /// although there were some.
    pub(crate) const fn has_stalled(&mut self) -> bool {
        let has_stalled = self.is_blocked && !self.has_written;
        self.has_written = false;
        has_stalled
    }
}

/// How a stream has left its session.
pub(crate) enum Departed {
    /// It had left before.
    Before,
    /// Neither side has anything left to say, so there is nothing to wait for.
    Silently,
    /// These bytes are still to be written.
    With(Vec<u8>),
}

fn lost(error: &io::Error) -> Departure {
    tracing::debug!(%error, "connection lost");
    Departure { is_cut: is_cut(error.kind()), ..ended() }
}

/// Returns whether the network has dropped a connection that failed in this way: its client, or a
/// device between, knows it no longer, or nothing arrives there.
const fn is_cut(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

const fn ended() -> Departure {
    Departure::unannounced(DisconnectReason::TcpClosed)
}
