//! A connection that a test can cut: it accepts connections at one address, and forwards their bytes
//! to the broker of the moment.
//!
//! It forwards bytes, so a cut may be in the middle of a packet. Of those of the other broker it notes the
//! order of messages.

use std::{
    collections::{BTreeSet, HashMap},
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use hearthmq::mqtt::{Packet, ProtocolVersion};
use hearthmq_test::{free_address, packets::next_packet};

use super::{
    ledger::{Direction, Stream},
    players::{Stage, number_of},
};

/// The most bytes that are forwarded at the same time; small, so that a cut finds some on their way.
const CHUNK_BYTES: usize = 1_500;

#[derive(Default)]
struct Line {
    /// The broker; `None` while the line is cut.
    target: Option<SocketAddr>,
    /// Both ends of each connection.
    ends: Vec<TcpStream>,
    /// Connections that were forwarded.
    count: u32,
}

pub(super) struct Link {
    /// Where it accepts connections.
    pub(super) address: SocketAddr,
    line: Arc<Mutex<Line>>,
    is_over: Arc<AtomicBool>,
}

impl Link {
    pub(super) fn start(version: ProtocolVersion, stage: &Arc<Stage>) -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        let link = Self {
            address: listener.local_addr().unwrap(),
            line: Arc::default(),
            is_over: Arc::default(),
        };
        let (line, is_over) = (Arc::clone(&link.line), Arc::clone(&link.is_over));
        let watcher = Watcher {
            version,
            stage: Arc::clone(stage),
            received: Vec::new(),
            seen: HashMap::new(),
        };
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                forward(near, &line, &watcher);
            }
        });
        link
    }

    /// Lets new connections through to this broker.
    pub(super) fn lead_to(&self, target: SocketAddr) {
        self.line.lock().unwrap().target = Some(target);
    }

    /// Ends all connections, and lets no new one through.
    pub(super) fn cut(&self) {
        let mut line = self.line.lock().unwrap();
        line.target = None;
        for end in line.ends.drain(..) {
            drop(end.shutdown(Shutdown::Both)); // it may have ended already
        }
    }

    /// Returns how many connections were forwarded.
    pub(super) fn count(&self) -> u32 {
        self.line.lock().unwrap().count
    }
}

/// Notes which messages the other broker sends.
#[derive(Clone)]
struct Watcher {
    version: ProtocolVersion,
    stage: Arc<Stage>,
    received: Vec<u8>,
    /// The numbers of each stream on this connection.
    seen: HashMap<Stream, BTreeSet<u32>>,
}

impl Watcher {
    fn see(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        let (seen, ledger) = (&mut self.seen, &self.stage.ledger);
        let mut look = |packet: Packet<'_>, _| {
            if let Packet::Publish(publish) = packet
                && let Some(stream) = Stream::of_topic(Direction::In, publish.topic)
                && let Some(number) = number_of(publish.payload)
            {
                let seen = seen.entry(stream).or_default();
                let last = seen.last().copied();
                if seen.insert(number) {
                    ledger.sent_by_other(stream, number, last);
                }
            }
        };
        while let Ok(Some(())) = next_packet(&mut self.received, self.version, &mut look) {}
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.cut();
        drop(TcpStream::connect(self.address)); // ends the thread, which waits for a connection
    }
}

/// Forwards a new connection, or closes it.
fn forward(near: TcpStream, line: &Mutex<Line>, watcher: &Watcher) {
    let mut line = line.lock().unwrap();
    let Some(far) = line.target.and_then(|target| TcpStream::connect(target).ok()) else { return };
    for (from, to, watcher) in [(&near, &far, None), (&far, &near, Some(watcher.clone()))] {
        from.set_nodelay(true).unwrap();
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        line.ends.push(from.try_clone().unwrap());
        thread::spawn(move || copy(from, to, watcher));
    }
    line.count += 1;
}

/// Forwards one direction until either end closes; then closes both.
fn copy(mut from: TcpStream, mut to: TcpStream, mut watcher: Option<Watcher>) {
    let mut chunk = [0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        if let Some(watcher) = &mut watcher {
            watcher.see(&chunk[..read]);
        }
        if to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        drop(end.shutdown(Shutdown::Both)); // it may have ended already
    }
}
