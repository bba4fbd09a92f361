//! A client's end of a byte stream into the broker, read without ever waiting.
//!
//! It knows packets and nothing of what they mean. The fuzzer uses it, too.

use std::{net::SocketAddr, time::Duration};

use futures_util::FutureExt;
use hearthmq::{
    Broker,
    mqtt::{DecodeLimits, Decoded, Packet, ProtocolVersion, decode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::unconstrained,
    time::timeout,
};

/// The broker takes so long at most, in virtual time, to take what is written to it.
const TAKING_TIME_MAX: Duration = Duration::from_millis(50);

pub(crate) struct Line {
    stream: DuplexStream,
    version: ProtocolVersion,
    received: Vec<u8>,
    is_ended: bool,
}

impl Line {
    /// A stream from this address that holds so many bytes each way.
    pub(crate) fn open(
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

    pub(crate) const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Writes all of it; whether the broker has taken it.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(TAKING_TIME_MAX, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Reads what is there, up to so many bytes; how many came.
    pub(crate) fn read(&mut self, bytes_max: usize) -> usize {
        let before = self.received.len();
        while self.received.len() - before < bytes_max && !self.is_ended {
            let left = bytes_max - (self.received.len() - before);
            let mut limited = (&mut self.stream).take(left as u64);
            // What is there is to be had, however often somebody asks in one turn.
            let read = unconstrained(limited.read_buf(&mut self.received)).now_or_never();
            match read {
                None => break,
                Some(read) => self.is_ended = read.unwrap_or(0) == 0,
            }
        }
        self.received.len() - before
    }

    /// Reads what is there and forgets it.
    pub(crate) fn discard(&mut self) {
        self.read(usize::MAX);
        self.received.clear();
    }

    /// Whether the broker has closed the stream and all of it was read.
    pub(crate) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Looks at the next whole packet, with its length in bytes.
    pub(crate) fn next<T>(
        &mut self,
        look: impl FnOnce(&Packet<'_>, usize) -> T,
    ) -> Result<Option<T>, String> {
        let limits = DecodeLimits { packet_bytes_max: u32::MAX, ..DecodeLimits::default() };
        match decode(&self.received, self.version, &limits) {
            Ok(Decoded::Packet { packet, length }) => {
                let seen = look(&packet, length);
                self.received.drain(..length);
                Ok(Some(seen))
            }
            Ok(Decoded::More { .. }) => Ok(None),
            Err(error) => Err(format!("the broker sent what is no packet: {error}")),
        }
    }
}
