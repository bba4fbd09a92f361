//! A client's end of a byte stream to the broker, read without waiting.
//!
//! It knows packets, but not their meaning. The fuzzer uses it too.

use std::{net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use hearthmq::{
    Broker,
    mqtt::{Packet, ProtocolVersion},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::unconstrained,
    time::timeout,
};

use crate::packets::next_packet;

/// How long the broker may take, in virtual time, to read what is written to it.
const TAKING_TIME_MAX: Duration = Duration::from_millis(50);

pub struct Line {
    stream: DuplexStream,
    version: ProtocolVersion,
    received: Vec<u8>,
    is_ended: bool,
}

impl Line {
    /// Opens a stream from this address that holds this many bytes in each direction.
    pub fn open(
        broker: &Broker,
        version: ProtocolVersion,
        bytes_max: usize,
        peer: SocketAddr,
    ) -> Self {
        let (stream, there) = tokio::io::duplex(bytes_max);
        let broker = broker.clone();
        actix_rt::spawn(async move {
            broker.serve(there, peer).await;
        });
        Self { stream, version, received: Vec::new(), is_ended: false }
    }

    pub const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Writes all bytes; returns whether the broker has read them.
    pub async fn write(&mut self, mut bytes: &[u8]) -> bool {
        self.write_from(&mut bytes).await
    }

    /// Does the same, and leaves in `bytes` those that the broker has not read.
    pub async fn write_from(&mut self, bytes: &mut &[u8]) -> bool {
        matches!(timeout(TAKING_TIME_MAX, self.stream.write_all_buf(bytes)).await, Ok(Ok(())))
    }

    /// Reads what is there, up to `bytes_max`; returns the number of bytes.
    pub fn read(&mut self, bytes_max: usize) -> usize {
        let before = self.received.len();
        while self.received.len() - before < bytes_max && !self.is_ended {
            let left = bytes_max - (self.received.len() - before);
            let mut limited = (&mut self.stream).take(left as u64);
            // Unconstrained: available bytes must be readable, however often a task asks in one
            // turn.
            let read = unconstrained(limited.read_buf(&mut self.received)).now_or_never();
            match read {
                None => break,
                Some(read) => self.is_ended = read.unwrap_or(0) == 0,
            }
        }
        self.received.len() - before
    }

    /// Returns whether anything has come that was not handled.
    pub fn has_received(&mut self) -> bool {
        self.read(usize::MAX);
        !self.received.is_empty()
    }

    /// Reads what is there and discards it.
    pub fn discard(&mut self) {
        self.read(usize::MAX);
        self.received.clear();
    }

    /// Returns whether the broker has closed the stream and all of it was read.
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Inspects the next complete packet, with its length in bytes.
    pub fn next<T>(
        &mut self,
        look: impl FnOnce(&Packet<'_>, usize) -> T,
    ) -> Result<Option<T>, String> {
        let look = |packet: Packet<'_>, length| look(&packet, length);
        next_packet(&mut self.received, self.version, look)
            .map_err(|error| format!("the broker sent what is no packet: {error}"))
    }
}
