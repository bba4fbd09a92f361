//! Moves packets between the session of a bridge and the other broker, as far as each side takes them.
//!
//! Each direction has a buffer of packets that are read, and one of translated packets. While the second
//! is full, the first is not read: so the other broker is held as the session is, and the session as
//! the other broker is. Acknowledgements are bounded by the messages in flight.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, split},
    select,
    time::{Duration, Instant, sleep_until, timeout},
};

use super::{
    connect::{read_more, status, status_topic},
    dial::BridgeStream,
    fault::{BridgeTrouble, TroubleKind},
    keeping_alive::{KeepAliveDue, KeepingAlive},
    options::BridgeOptions,
    oversized::Oversized,
    prime::limits,
    translate::{BridgeNote, Translator},
};
use crate::mqtt::{
    DecodeErrorKind, DecodeLimits, Decoded, Disconnect, DisconnectProperties, Packet,
    ProtocolVersion, ReasonCode, Timestamp, decode, encode,
};

/// From this number of translated bytes on, the side that sends them is not read.
const BYTES_AHEAD: usize = 64 * 1024;
/// From this number of bytes for the other broker on, it is not read: it takes no answers.
const ANSWERS_AHEAD: usize = 4 * 1024 * 1024;
/// A buffer that is empty and larger than this is given back.
const BYTES_KEPT: usize = 256 * 1024;
/// The time for the last bytes on each side.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// Why a pump has stopped.
#[derive(Debug)]
pub(super) enum PumpStopped {
    /// Its owner has asked for it.
    Asked,
    /// The connection cannot go on.
    Fault(BridgeTrouble),
}

/// A side of the pump.
struct PumpEnd<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    /// Bytes that are read and not translated.
    received: Vec<u8>,
    /// Number of translated bytes that are written.
    written: usize,
    must_flush: bool,
}

/// One connection of a bridge.
pub(super) struct Pump<'m> {
    pub(super) translator: Translator<'m>,
    local: PumpEnd<DuplexStream>,
    remote: PumpEnd<Box<dyn BridgeStream>>,
    keeping_alive: KeepingAlive,
    remote_limits: DecodeLimits,
    /// A message of the other broker that is too large, while it comes.
    oversized: Option<Oversized>,
    /// Returns the time of the broker.
    now: Box<dyn Fn() -> Timestamp + Send>,
}

/// The event that ended a wait.
enum PumpStep {
    Wrote(io::Result<usize>, PumpSide),
    Read(io::Result<bool>, PumpSide),
    Time,
    Asked,
}

#[derive(Clone, Copy)]
enum PumpSide {
    Local,
    Remote,
}

impl<S: AsyncRead + AsyncWrite> PumpEnd<S> {
    fn new(stream: S, received: Vec<u8>) -> Self {
        let (reader, writer) = split(stream);
        Self { reader, writer, received, written: 0, must_flush: false }
    }

    /// Notes the number of translated bytes that were written.
    fn wrote(&mut self, bytes: &mut Vec<u8>, written: io::Result<usize>) -> io::Result<()> {
        let written = written?;
        // Nothing was left to write, so the step was a flush.
        if bytes.is_empty() {
            self.must_flush = false;
            return Ok(());
        }
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.written += written;
        self.must_flush = true;
        if self.written == bytes.len() {
            self.written = 0;
            // A large buffer is not kept while nothing is under way.
            give_back(bytes);
        } else if self.written >= BYTES_AHEAD {
            // Removing the written part moves bytes, so it waits until this is worth it.
            bytes.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

/// Writes some of these bytes, or flushes if there are none.
async fn write_or_flush<W: AsyncWrite + Unpin>(writer: &mut W, bytes: &[u8]) -> io::Result<usize> {
    match bytes.is_empty() {
        true => writer.flush().await.map(|()| 0),
        false => writer.write(bytes).await,
    }
}

/// Empties a buffer, and frees it if it has become large.
fn give_back(bytes: &mut Vec<u8>) {
    if bytes.capacity() > BYTES_KEPT {
        *bytes = Vec::new();
    }
    bytes.clear();
}

impl<'m> Pump<'m> {
    pub(super) fn new(
        translator: Translator<'m>,
        (local, local_behind): (DuplexStream, Vec<u8>),
        (remote, remote_behind): (Box<dyn BridgeStream>, Vec<u8>),
        keep_alive_secs: u16,
        now: Box<dyn Fn() -> Timestamp + Send>,
    ) -> Self {
        // Topics are checked later, where a message that breaks a limit is dropped and not the connection.
        let remote_limits = DecodeLimits {
            packet_bytes_max: translator.local.packet_bytes_max,
            topic_bytes_max: u16::MAX,
            topic_levels_max: u16::MAX,
        };
        Self {
            translator,
            local: PumpEnd::new(local, local_behind),
            remote: PumpEnd::new(remote, remote_behind),
            keeping_alive: KeepingAlive::new(keep_alive_secs, Instant::now()),
            remote_limits,
            oversized: None,
            now,
        }
    }

    /// Moves packets until the connection ends or `halt` is ready. `tell` gets the notes for the owner.
    pub(super) async fn run(
        &mut self,
        halt: impl Future<Output = ()>,
        mut tell: impl FnMut(BridgeNote),
    ) -> PumpStopped {
        let mut halt = std::pin::pin!(halt);
        loop {
            // Everything that was read is translated before the next wait.
            let translated = self.translate();
            // Notes first: they may explain the fault.
            self.translator.notes.drain(..).for_each(&mut tell);
            if let Err(fault) = translated {
                return PumpStopped::Fault(fault);
            }
            let step = self.step(halt.as_mut()).await;
            if let PumpStep::Asked = step {
                return PumpStopped::Asked;
            }
            if let Err(fault) = self.take(step) {
                return PumpStopped::Fault(fault);
            }
        }
    }

    /// Waits until one of the sides accepts or has bytes.
    async fn step(&mut self, halt: std::pin::Pin<&mut impl Future<Output = ()>>) -> PumpStep {
        let Self { translator, local, remote, keeping_alive, .. } = self;
        let to_remote = &translator.to_remote[remote.written..];
        let to_local = &translator.to_local[local.written..];
        // While the session takes nothing, the other broker is not read, and its sender waits.
        let reads_remote = to_local.len() < BYTES_AHEAD && to_remote.len() < ANSWERS_AHEAD;
        if !reads_remote {
            keeping_alive.heard(Instant::now()); // what it sends is not seen
        }
        let writes_remote = remote.must_flush || !to_remote.is_empty();
        let writes_local = local.must_flush || !to_local.is_empty();
        // In this order: writing makes room, and reading needs it.
        select! {
            biased;
            () = halt => PumpStep::Asked,
            written = write_or_flush(&mut remote.writer, to_remote), if writes_remote => {
                PumpStep::Wrote(written, PumpSide::Remote)
            }
            written = write_or_flush(&mut local.writer, to_local), if writes_local => {
                PumpStep::Wrote(written, PumpSide::Local)
            }
            read = read_more(&mut remote.reader, &mut remote.received), if reads_remote => {
                PumpStep::Read(read, PumpSide::Remote)
            }
            // While the other broker takes nothing, messages wait in the queue of the session.
            read = read_more(&mut local.reader, &mut local.received),
                if to_remote.len() < BYTES_AHEAD => PumpStep::Read(read, PumpSide::Local),
            () = sleep_until(keeping_alive.next()) => PumpStep::Time,
        }
    }

    fn take(&mut self, step: PumpStep) -> Result<(), BridgeTrouble> {
        let now = Instant::now();
        let closed = |error: io::Error| BridgeTrouble::new(TroubleKind::Closed, error);
        let ended = |error: io::Error| BridgeTrouble::new(TroubleKind::Kicked, error);
        let Self { translator, local, remote, .. } = self;
        match step {
            PumpStep::Wrote(written, PumpSide::Remote) => {
                remote.wrote(&mut translator.to_remote, written).map_err(closed)?;
                // Each packet that is sent puts off the next PINGREQ. [MQTT-3.1.2-20]
                self.keeping_alive.sent(now);
            }
            PumpStep::Wrote(written, PumpSide::Local) => {
                local.wrote(&mut translator.to_local, written).map_err(ended)?;
            }
            PumpStep::Read(read, PumpSide::Remote) => {
                // Any bytes show that the other broker is there; a packet may take long to arrive.
                self.keeping_alive.heard(now);
                if !read.map_err(closed)? {
                    let why = "the other broker closed the connection";
                    return Err(BridgeTrouble::new(TroubleKind::Closed, why));
                }
            }
            PumpStep::Read(read, PumpSide::Local) => {
                if !read.map_err(ended)? {
                    let why = "the connection of the session was ended";
                    return Err(BridgeTrouble::new(TroubleKind::Kicked, why));
                }
            }
            PumpStep::Time => match self.keeping_alive.due(now) {
                KeepAliveDue::Nothing => {}
                KeepAliveDue::Ping => {
                    let version = translator.remote.version;
                    // Counts as sent although it waits behind messages, because these are signs of life too.
                    let _ = encode(&Packet::PingReq, version, &mut translator.to_remote);
                }
                KeepAliveDue::GiveUp => {
                    let why = "nothing came for one and a half Keep Alives";
                    return Err(BridgeTrouble::new(TroubleKind::KeepAlive, why));
                }
            },
            PumpStep::Asked => {}
        }
        Ok(())
    }

    /// Translates whole packets, as far as there is room for them.
    fn translate(&mut self) -> Result<(), BridgeTrouble> {
        let now = (self.now)();
        self.translate_local(now)?;
        self.translate_remote(now)
    }

    fn translate_local(&mut self, now: Timestamp) -> Result<(), BridgeTrouble> {
        let Self { translator, local, remote, .. } = self;
        let limits = limits();
        let mut at = 0;
        // Stops with the buffer full; the rest is translated when the other side has taken some.
        while translator.to_remote.len() - remote.written < BYTES_AHEAD {
            let decoded = decode(&local.received[at..], ProtocolVersion::V5, &limits);
            match decoded.map_err(|error| BridgeTrouble::malformed(&error))? {
                Decoded::Packet { packet, length } => {
                    at += length;
                    translator.take_local(&packet, now)?;
                }
                Decoded::More { .. } => break,
            }
        }
        // Once for all packets, because removing from the front moves the rest.
        consume(&mut local.received, at);
        Ok(())
    }

    fn translate_remote(&mut self, now: Timestamp) -> Result<(), BridgeTrouble> {
        let Self { translator, local, remote, remote_limits, oversized, .. } = self;
        let version = translator.remote.version;
        let mut at = 0;
        while translator.to_local.len() - local.written < BYTES_AHEAD {
            // The rest of a message that is too large comes in later reads.
            if let Some(left) = oversized {
                at += left.skip(remote.received.len() - at);
                if !left.is_over() {
                    break;
                }
                *oversized = None;
            }
            match decode(&remote.received[at..], version, remote_limits) {
                Ok(Decoded::Packet { packet, length }) => {
                    at += length;
                    translator.take_remote(&packet, now)?;
                }
                Ok(Decoded::More { .. }) => break,
                Err(error) if error.kind == DecodeErrorKind::PacketTooLarge => {
                    let found = Oversized::find(&remote.received[at..]);
                    // Another packet of this size is a fault of the other broker.
                    let found = found.ok_or_else(|| BridgeTrouble::malformed(&error))?;
                    let Some(found) = found else { break };
                    // Acknowledged, or the other broker would send it again on each connection.
                    translator.answer_oversized(&found);
                    *oversized = Some(found);
                }
                Err(error) => return Err(BridgeTrouble::malformed(&error)),
            }
        }
        consume(&mut remote.received, at);
        Ok(())
    }

    /// Says goodbye on both sides: translated bytes are still written, each side within a second.
    pub(super) async fn part(mut self, options: &BridgeOptions, is_polite: bool) {
        let Self { translator, local, remote, .. } = &mut self;
        let goodbye = Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties::default(),
        });
        // The session ends normally, so it publishes no Will.
        let _ = encode(&goodbye, ProtocolVersion::V5, &mut translator.to_local);
        let to_local = &translator.to_local[local.written..];
        let _ = timeout(FAREWELL_TIME_MAX, local.writer.write_all(to_local)).await;
        // After a fault, the other side is not there, or must publish the Will.
        if !is_polite {
            return;
        }
        let version = translator.remote.version;
        if let Some(topic) = status_topic(options) {
            // The status goes before DISCONNECT, which discards the Will. [MQTT-3.14.4-3]
            let _ = encode(&status(topic, false), version, &mut translator.to_remote);
        }
        let _ = encode(&goodbye, version, &mut translator.to_remote);
        let to_remote = &translator.to_remote[remote.written..];
        // Shut down after the bytes, so that the other broker reads them before the end.
        let said = async {
            remote.writer.write_all(to_remote).await?;
            remote.writer.shutdown().await
        };
        let _ = timeout(FAREWELL_TIME_MAX, said).await;
    }
}

/// Removes the first bytes of a buffer.
fn consume(received: &mut Vec<u8>, bytes: usize) {
    if bytes == received.len() {
        give_back(received);
    } else {
        received.drain(..bytes);
    }
}
