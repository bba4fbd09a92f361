//! The ceiling: a relay that passes frames on and knows no more of MQTT than where a frame ends.
//!
//! It answers CONNECT and SUBSCRIBE so that the same clients can use it. It pairs subscribers with
//! publishers in their order: publisher n writes to subscriber n, as in the workload of pairs.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};

use super::Outcome;

const LISTENER: Token = Token(usize::MAX);
const CONNECT: u8 = 0x10;
const SUBSCRIBE: u8 = 0x82;
const PUBLISH: u8 = 0x30;
const SCRATCH_BYTES: usize = 64 * 1024;

struct Peer {
    stream: TcpStream,
    tail: Vec<u8>,
    out: Vec<u8>,
    /// The receiver of its messages.
    partner: Option<usize>,
}

/// Relays on a loopback port until it is killed.
pub(crate) fn run(port: u16) -> Outcome<()> {
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut subscribers = Vec::new();
    let mut publishers = 0;
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1)))?;
        // Written after all events, so that one write takes what several frames have added.
        let mut dirty = Vec::new();
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(peers.len()), interest)?;
                    let (tail, out) = (Vec::new(), Vec::new());
                    peers.push(Some(Peer { stream, tail, out, partner: None }));
                }
                continue;
            }
            let who = event.token().0;
            dirty.push(who);
            // Taken out while it is read, because its frames go to other peers of the same list.
            let Some(mut peer) = peers[who].take() else { continue };
            let is_open = peer.read(&mut scratch, |peer, frame| match frame[0] {
                CONNECT => peer.out.extend_from_slice(b"\x20\x02\0\0"),
                SUBSCRIBE => {
                    subscribers.push(who);
                    peer.out.extend_from_slice(&[0x90, 3, frame[2], frame[3], 0]);
                }
                first if first & 0xF0 == PUBLISH => {
                    let partner = *peer.partner.get_or_insert_with(|| {
                        publishers += 1;
                        subscribers[(publishers - 1) % subscribers.len()]
                    });
                    if let Some(Some(partner_peer)) = peers.get_mut(partner) {
                        partner_peer.out.extend_from_slice(frame);
                        dirty.push(partner);
                    }
                }
                _ => {}
            });
            peers[who] = is_open?.then_some(peer);
        }
        for who in dirty {
            if let Some(Some(peer)) = peers.get_mut(who) {
                peer.write()?;
            }
        }
    }
}

impl Peer {
    /// Reads what is there and passes whole frames on; returns whether the connection is still
    /// open.
    fn read(
        &mut self,
        scratch: &mut [u8],
        mut take: impl FnMut(&mut Self, &[u8]),
    ) -> io::Result<bool> {
        loop {
            let kept = self.tail.len();
            let read = match self.stream.read(&mut scratch[kept..]) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(_) => return Ok(false),
            };
            scratch[..kept].copy_from_slice(&self.tail);
            self.tail.clear();
            let bytes = &scratch[..kept + read];
            let mut at = 0;
            while let Some(length) = frame_length(&bytes[at..]).filter(|l| at + l <= bytes.len()) {
                take(self, &bytes[at..at + length]);
                at += length;
            }
            // An incomplete frame waits for the next read.
            self.tail.extend_from_slice(&bytes[at..]);
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.write(&self.out[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => written = self.out.len(),
            }
        }
        self.out.drain(..written);
        Ok(())
    }
}

/// Returns the length of the frame that begins here, once it is known; section 2.1.4.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(2 + at + remaining);
        }
    }
    None
}
