//! Many clients in one thread: readable sockets are read, answers are written at once.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hearthmq::mqtt::{DecodeLimits, Decoded, Packet, QoS, decode};
use mio::{Events, Interest, Poll, Token};

use super::{
    Outcome,
    client::{Client, Outbox, VERSION},
};

/// Time limit for each step before a measurement.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of clients that connect at the same time.
const CONNECTING_AT_ONCE: usize = 200;
/// Filters in one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 100;

pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Option<Client>>,
    /// Clients with something to write.
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    limits: DecodeLimits,
    to: SocketAddr,
    /// Number of connections opened so far.
    opened: u32,
    /// First loopback address that they use.
    first_address: u32,
}

/// What a client receives, and may answer.
pub(crate) enum Heard<'p> {
    Packet(Packet<'p>),
    Closed,
}

impl Crowd {
    pub(crate) fn new(to: SocketAddr) -> Outcome<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            clients: Vec::new(),
            dirty: Vec::new(),
            scratch: vec![0; 2 * 1024 * 1024],
            limits: DecodeLimits { packet_bytes_max: u32::MAX, ..DecodeLimits::default() },
            to,
            opened: 0,
            first_address: fastrand::u32(..0xFF_0000),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// Opens one more connection; returns its number.
    pub(crate) fn open(&mut self) -> Outcome<usize> {
        self.clients.push(None);
        self.reopen(self.clients.len() - 1)?;
        Ok(self.clients.len() - 1)
    }

    /// Opens a new connection in place of the one with this number.
    pub(crate) fn reopen(&mut self, who: usize) -> Outcome<()> {
        // Ports of one address stay blocked for a while after use, for the next run as well.
        let number = (self.first_address + self.opened / 8192) % 0xFF_0000;
        let from = IpAddr::V4(Ipv4Addr::from(0x7F00_0001 + number));
        self.opened += 1;
        let mut client = Client::open(self.to, self.to.is_ipv4().then_some(from))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut client.stream, Token(who), interest)?;
        self.clients[who] = Some(client);
        Ok(())
    }

    pub(crate) fn close(&mut self, who: usize) {
        self.clients[who] = None;
    }

    /// Adds output of client `who`; it is written at the end of the turn.
    pub(crate) fn say(&mut self, who: usize, say: impl FnOnce(&mut Outbox)) {
        if let Some(client) = &mut self.clients[who] {
            say(&mut client.outbox);
            if !std::mem::replace(&mut client.is_dirty, true) {
                self.dirty.push(who);
            }
        }
    }

    /// Writes, waits for readable sockets for `wait` at most, and passes on what came.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        mut hear: impl FnMut(usize, Heard<'_>, &mut Outbox),
    ) -> Outcome<()> {
        // What was said since the last turn goes out before the wait.
        self.flush()?;
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        let Self { events, clients, dirty, scratch, limits, .. } = self;
        for event in &*events {
            let who = event.token().0;
            let Some(client) = &mut clients[who] else { continue };
            let mut is_open = true;
            if event.is_readable() {
                is_open = receive(client, scratch, limits, |heard, out| hear(who, heard, out))?;
            }
            if !is_open {
                clients[who] = None;
            } else if !std::mem::replace(&mut client.is_dirty, true) {
                // Once in the list, however many packets it has answered.
                dirty.push(who);
            }
        }
        self.flush()
    }

    /// Does the same for bytes that are not MQTT packets.
    pub(crate) fn turn_raw(
        &mut self,
        wait: Duration,
        mut hear: impl FnMut(usize, &[u8], &mut Outbox) -> usize,
    ) -> Outcome<()> {
        self.flush()?;
        self.poll.poll(&mut self.events, Some(wait))?;
        let Self { events, clients, dirty, scratch, .. } = self;
        for event in &*events {
            let who = event.token().0;
            let Some(client) = &mut clients[who] else { continue };
            while let Some(there) = client.read(scratch)? {
                if there == 0 {
                    return Err("a server has closed its connection".into());
                }
                let used = hear(who, &scratch[..there], &mut client.outbox);
                client.tail.extend_from_slice(&scratch[used..there]);
            }
            if !std::mem::replace(&mut client.is_dirty, true) {
                dirty.push(who);
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Outcome<()> {
        for who in self.dirty.drain(..) {
            if let Some(client) = &mut self.clients[who] {
                client.is_dirty = false;
                client.flush()?;
            }
        }
        Ok(())
    }

    /// Opens connections, sends CONNECT on each, and waits until all are accepted; returns the
    /// first number.
    pub(crate) fn connect(
        &mut self,
        count: usize,
        clean_start: bool,
        client_id: impl Fn(usize) -> String,
    ) -> Outcome<usize> {
        let first = self.len();
        // In portions: the queue of a listener holds a limited number of connections.
        for begin in (0..count).step_by(CONNECTING_AT_ONCE) {
            let end = (begin + CONNECTING_AT_ONCE).min(count);
            for number in begin..end {
                let who = self.open()?;
                self.say(who, |out| out.connect(&client_id(number), clean_start));
            }
            self.wait_for(end - begin, |packet| matches!(packet, Packet::ConnAck(_)))?;
        }
        Ok(first)
    }

    /// Subscribes each of the clients to its filters.
    pub(crate) fn subscribe(
        &mut self,
        clients: impl Iterator<Item = (usize, Vec<String>)>,
        qos: QoS,
    ) -> Outcome<()> {
        for (who, filters) in clients {
            for (id, some) in (1..).zip(filters.chunks(FILTERS_AT_ONCE)) {
                self.say(who, |out| out.subscribe(id, some, qos));
            }
            let packets = filters.len().div_ceil(FILTERS_AT_ONCE);
            self.wait_for(packets, |packet| matches!(packet, Packet::SubAck(_)))?;
        }
        Ok(())
    }

    /// Waits for this many packets of a kind.
    pub(crate) fn wait_for(
        &mut self,
        mut count: usize,
        is_one: impl Fn(&Packet<'_>) -> bool,
    ) -> Outcome<()> {
        let give_up_at = Instant::now() + PATIENCE;
        let mut is_closed = false;
        while count > 0 {
            self.turn(Duration::from_millis(100), |_, heard, _| match heard {
                Heard::Packet(packet) => count -= usize::from(count > 0 && is_one(&packet)),
                Heard::Closed => is_closed = true,
            })?;
            if is_closed {
                return Err("the broker has closed a connection".into());
            }
            if Instant::now() > give_up_at {
                return Err(format!("{count} answers are missing after {PATIENCE:?}").into());
            }
        }
        Ok(())
    }
}

/// Reads until the socket is empty; returns whether the connection is still open.
fn receive(
    client: &mut Client,
    scratch: &mut [u8],
    limits: &DecodeLimits,
    mut hear: impl FnMut(Heard<'_>, &mut Outbox),
) -> Outcome<bool> {
    loop {
        let there = match client.read(scratch) {
            Ok(None) => return Ok(true),
            Ok(Some(0)) | Err(_) => {
                hear(Heard::Closed, &mut client.outbox);
                return Ok(false);
            }
            Ok(Some(there)) => there,
        };
        let mut at = 0;
        while let Decoded::Packet { packet, length } = decode(&scratch[at..there], VERSION, limits)?
        {
            hear(Heard::Packet(packet), &mut client.outbox);
            at += length;
        }
        client.tail.extend_from_slice(&scratch[at..there]);
    }
}
