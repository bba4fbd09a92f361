//! Compares one broker on two cores with one on a single core, under a load that uses so little CPU
//! that the cores belong to the broker.
//!
//! All packets of a run have one length, and QoS 0 of MQTT 3.1.1 arrives as it was sent. So a
//! publisher prepares packets that lack only their number, and a subscriber walks through its input
//! in fixed strides. No thread waits for a socket: a client that shares a core with the broker and
//! wakes at each write would read little at a time and slow the broker down. Instead each thread
//! looks after a pause, with enough messages in flight that the broker never runs dry. No message
//! costs an allocation or a system call of its own. Knows PUBLISH alone; an [`Outbox`] writes the
//! packets before it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::QoS;

use super::{
    Outcome, Settings,
    brokers::{BROKER_CORE, Named, OWN_CORE, Running, Usage, cores, pin_this_thread},
    client::Outbox,
    report::Figures,
};

const PAYLOAD_BYTES: usize = 64;
/// Maximum for one subscriber; less than a broker buffers for a subscriber that does not read.
const UNDER_WAY_BYTES_MAX: usize = 48 * 1024;
/// Messages in flight of one publisher, which keeps a subscriber below that maximum.
const WINDOW: u64 = 600;
const SCRATCH_BYTES: usize = 2 * UNDER_WAY_BYTES_MAX;
const WARM_UP: Duration = Duration::from_millis(500);
/// Silence after which missing messages count as lost.
const SILENCE: Duration = Duration::from_secs(3);
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 0];

/// The pattern of publishers and subscribers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flood {
    Pairs(usize),
    /// One publisher, this many subscribers.
    FanOut(usize),
}

/// The settings of the load itself.
#[derive(Clone, Copy)]
struct Pace {
    /// Messages of a publisher that its slowest subscriber may lack.
    window: u64,
    /// Number of batches in a window; with one, publisher and subscribers would wait for each
    /// other.
    batches: u64,
    pause: Duration,
}

/// The measurements of one broker.
struct Measured {
    deliveries: f64,
    secs: f64,
    broker_secs: f64,
    load_secs: f64,
    faults: u64,
}

impl Flood {
    /// Measures a broker on one core with the load on the other, then one on both cores, with the
    /// load on both.
    pub(crate) fn measure(self, one: &Named, two: &Named, settings: &Settings) -> Outcome<Figures> {
        let one = self.run(&one.start(&cores(1))?, &[OWN_CORE], settings)?;
        let two = self.run(&two.start(&cores(2))?, &[BROKER_CORE, OWN_CORE], settings)?;
        let [rate, rate_of_two] = [&one, &two].map(|each| each.deliveries / each.secs);
        let [micros, micros_of_two] =
            [&one, &two].map(|each| each.broker_secs / each.deliveries * 1e6);
        let [load, load_of_two] = [&one, &two].map(|each| each.load_secs / each.broker_secs);
        let mut figures = Figures::with_faults(one.faults + two.faults);
        figures.put("per s, one core", rate);
        figures.put("per s, two cores", rate_of_two);
        figures.put("times", rate_of_two / rate);
        figures.put("CPU us each, one", micros);
        figures.put("CPU us each, two", micros_of_two);
        // The ratio if the load had a core of its own in both cases.
        figures.put("times, load apart", micros / micros_of_two * 2.0);
        figures.put("load % of its CPU, one", load * 100.0);
        figures.put("load % of its CPU, two", load_of_two * 100.0);
        figures.put("busy %, one", one.broker_secs / one.secs * 100.0);
        figures.put("busy %, two", (two.broker_secs + two.load_secs) / two.secs / 2.0 * 100.0);
        Ok(figures)
    }

    fn run(self, broker: &Running, threads: &[&str], settings: &Settings) -> Outcome<Measured> {
        let pace = self.pace();
        let lanes = self.connect(broker.address, threads.len())?;
        let (is_over, delivered) = (AtomicBool::new(false), AtomicU64::new(0));
        let at =
            || (Instant::now(), delivered.load(Ordering::Relaxed), broker.usage(), own_usage());
        let (before, after, lanes) = thread::scope(|scope| {
            let flow = |lanes, core| go_on(lanes, core, pace.pause, &is_over, &delivered);
            let threads: Vec<_> = lanes
                .into_iter()
                .zip(threads)
                .map(|(lanes, core)| scope.spawn(move || flow(lanes, core)))
                .collect();
            // The window fills and the allocator settles before the first reading.
            thread::sleep(WARM_UP);
            let before = at();
            thread::sleep(settings.time);
            let after = at();
            // After the second reading, so that the end of the load is not measured.
            is_over.store(true, Ordering::Relaxed);
            let lanes = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
            });
            (before, after, lanes.collect::<io::Result<Vec<_>>>())
        });
        Ok(Measured {
            deliveries: (after.1 - before.1) as f64,
            secs: (after.0 - before.0).as_secs_f64(),
            broker_secs: after.2.cpu_secs - before.2.cpu_secs,
            load_secs: after.3.cpu_secs - before.3.cpu_secs,
            faults: finish(lanes?.into_iter().flatten().collect())?,
        })
    }

    /// Found by trying: batches large enough to be cheap, pauses short enough that the broker does
    /// not run dry.
    const fn pace(self) -> Pace {
        let (batches, pause_micros) = match self {
            Self::Pairs(_) => (1, 2000),
            Self::FanOut(_) => (8, 2000),
        };
        Pace { window: WINDOW, batches, pause: Duration::from_micros(pause_micros) }
    }

    /// Connects all clients, and divides them among this many threads.
    fn connect(self, to: SocketAddr, threads: usize) -> Outcome<Vec<Vec<Lane>>> {
        let (topics, subscribers) = match self {
            Self::Pairs(count) => (count, 1),
            Self::FanOut(count) => (1, count),
        };
        let mut shared: Vec<Vec<Lane>> = (0..threads).map(|_| Vec::new()).collect();
        for number in 0..topics {
            let topic = format!("flood/{number:03}");
            let head: Arc<[u8]> = head(&topic, number as u32).into();
            let count = Arc::new(Count::new(threads));
            let mut lanes: Vec<Lane> = (0..threads)
                .map(|thread| Lane {
                    count: count.clone(),
                    thread,
                    subscribers: Vec::new(),
                    turn: 0,
                    publisher: None,
                })
                .collect();
            for subscriber in number * subscribers..(number + 1) * subscribers {
                let stream = connect(to, &format!("subscriber-{subscriber}"), Some(&topic))?;
                lanes[subscriber % threads].subscribers.push(Subscriber::new(stream, head.clone()));
            }
            let stream = connect(to, &format!("publisher-{number}"), None)?;
            lanes[number % threads].publisher = Some(Publisher::new(stream, &head, self.pace()));
            // A thread without a client of this topic needs no lane.
            for (lanes, lane) in shared.iter_mut().zip(lanes) {
                if lane.publisher.is_some() || !lane.subscribers.is_empty() {
                    lanes.push(lane);
                }
            }
        }
        Ok(shared)
    }
}

/// Runs the work of a thread until the end.
fn go_on(
    mut lanes: Vec<Lane>,
    core: &str,
    pause: Duration,
    is_over: &AtomicBool,
    delivered: &AtomicU64,
) -> io::Result<Vec<Lane>> {
    pin_this_thread(core);
    let mut scratch = vec![0; SCRATCH_BYTES];
    while !is_over.load(Ordering::Relaxed) {
        let mut arrived = 0;
        for lane in &mut lanes {
            arrived += lane.read(&mut scratch)?;
            lane.publish()?;
        }
        delivered.fetch_add(arrived, Ordering::Relaxed);
        // Lets the broker use the core; a loop without it would compete with what it measures.
        thread::sleep(pause);
    }
    Ok(lanes)
}

/// Stops publishing, waits for messages in flight, and counts faults.
fn finish(mut lanes: Vec<Lane>) -> Outcome<u64> {
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut last_delivery = Instant::now();
    while lanes.iter().any(|lane| lane.lacking() > 0) && last_delivery.elapsed() < SILENCE {
        for lane in &mut lanes {
            if lane.read(&mut scratch)? > 0 {
                last_delivery = Instant::now();
            }
            lane.write()?;
        }
    }
    let wrong = |lane: &Lane| lane.subscribers.iter().map(|s| s.faults).sum::<u64>();
    Ok(lanes.iter().map(|lane| lane.lacking() + wrong(lane)).sum())
}

fn own_usage() -> Usage {
    Usage::of(std::process::id())
}

/// The work of a thread for one topic.
struct Lane {
    count: Arc<Count>,
    thread: usize,
    subscribers: Vec<Subscriber>,
    /// The subscriber to read next. A broker serves them in turn: while one has received nothing,
    /// the others have received hardly anything.
    turn: usize,
    publisher: Option<Publisher>,
}

/// How far the messages of one topic have come.
struct Count {
    sent: AtomicU64,
    /// What the slowest subscriber of each thread has received.
    arrived: Vec<AtomicU64>,
}

impl Count {
    fn new(threads: usize) -> Self {
        let nobody = || AtomicU64::new(u64::MAX);
        Self { sent: AtomicU64::new(0), arrived: (0..threads).map(|_| nobody()).collect() }
    }

    fn slowest(&self) -> u64 {
        self.arrived.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

impl Lane {
    /// Reads what has come; returns the number of messages.
    fn read(&mut self, scratch: &mut [u8]) -> io::Result<u64> {
        let sent = self.count.sent.load(Ordering::Relaxed);
        let mut arrived = 0;
        for _ in 0..self.subscribers.len() {
            let subscriber = &mut self.subscribers[self.turn];
            // A subscriber that has everything is not read, which saves a system call.
            if subscriber.next < sent {
                let read = subscriber.read(scratch)?;
                if read == 0 {
                    break;
                }
                arrived += read;
            }
            self.turn = (self.turn + 1) % self.subscribers.len();
        }
        let slowest = self.subscribers.iter().map(|subscriber| subscriber.next).min();
        let slowest = slowest.unwrap_or(u64::MAX);
        self.count.arrived[self.thread].store(slowest, Ordering::Relaxed);
        Ok(arrived)
    }

    fn publish(&mut self) -> io::Result<()> {
        if let Some(publisher) = &mut self.publisher {
            publisher.prepare(&self.count);
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.publisher.as_mut().map_or(Ok(()), Publisher::write)
    }

    /// Returns how many messages its subscribers still lack.
    fn lacking(&self) -> u64 {
        let sent = self.count.sent.load(Ordering::Relaxed);
        self.subscribers.iter().map(|subscriber| sent.saturating_sub(subscriber.next)).sum()
    }
}

struct Publisher {
    stream: TcpStream,
    /// A batch, and how much of it has been written.
    packets: Vec<u8>,
    written: usize,
    /// Bytes before the number of a message.
    head_bytes: usize,
    batch: u64,
    window: u64,
}

impl Publisher {
    fn new(stream: TcpStream, head: &[u8], pace: Pace) -> Self {
        let length = packet_length(head);
        assert!(pace.window as usize * length <= UNDER_WAY_BYTES_MAX, "nothing is to be dropped");
        let mut packet = head.to_vec();
        packet.resize(length, b'x');
        let (window, batch) = (pace.window, pace.window / pace.batches);
        let packets = packet.repeat(batch as usize);
        let written = packets.len();
        Self { stream, packets, written, head_bytes: head.len(), batch, window }
    }

    /// Numbers the packets of the next batch, once the last one is written and the window has room.
    fn prepare(&mut self, count: &Count) {
        let sent = count.sent.load(Ordering::Relaxed);
        let under_way = sent.saturating_sub(count.slowest());
        if self.written < self.packets.len() || under_way + self.batch > self.window {
            return;
        }
        let length = self.packets.len() / self.batch as usize;
        for (packet, number) in self.packets.chunks_exact_mut(length).zip(sent..) {
            packet[self.head_bytes..][..8].copy_from_slice(&number.to_le_bytes());
        }
        count.sent.store(sent + self.batch, Ordering::Relaxed);
        self.written = 0;
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.packets.len() {
            match self.stream.write(&self.packets[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Subscriber {
    stream: TcpStream,
    head: Arc<[u8]>,
    /// The start of an incomplete packet.
    tail: Vec<u8>,
    /// The number that comes next.
    next: u64,
    /// Messages lost, doubled, out of order, or of another publisher.
    faults: u64,
}

impl Subscriber {
    fn new(stream: TcpStream, head: Arc<[u8]>) -> Self {
        let tail = Vec::with_capacity(packet_length(&head));
        Self { stream, head, tail, next: 0, faults: 0 }
    }

    /// Reads once, which gets all that is there; returns the number of messages.
    fn read(&mut self, scratch: &mut [u8]) -> io::Result<u64> {
        let kept = self.tail.len();
        let there = match self.stream.read(&mut scratch[kept..]) {
            Ok(0) => return Err(io::Error::other("the broker has closed a connection")),
            Ok(read) => kept + read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        // The beginning of a packet from the last read goes before what has come now.
        scratch[..kept].copy_from_slice(&self.tail);
        let mut packets = scratch[..there].chunks_exact(packet_length(&self.head));
        let count = packets.len() as u64;
        for packet in &mut packets {
            let (head, rest) = packet.split_at(self.head.len());
            let number = rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            if *head != *self.head || number < self.next {
                self.faults += 1;
            } else {
                // A gap in the numbers counts as the messages that are missing in it.
                self.faults += number - self.next;
                self.next = number + 1;
            }
        }
        self.tail.clear();
        self.tail.extend_from_slice(packets.remainder());
        Ok(count)
    }
}

/// Returns the start of a publisher's packets: up to the topic, and its own number in the payload.
fn head(topic: &str, publisher: u32) -> Vec<u8> {
    let mut out = Outbox::default();
    out.publish(topic, &[0; PAYLOAD_BYTES], QoS::AtMostOnce, 0);
    let mut bytes = out.take();
    bytes.truncate(bytes.len() - PAYLOAD_BYTES);
    bytes.extend_from_slice(&publisher.to_le_bytes());
    bytes
}

fn packet_length(head: &[u8]) -> usize {
    head.len() - size_of::<u32>() + PAYLOAD_BYTES
}

/// Returns an accepted connection, subscribed if there is a topic.
fn connect(to: SocketAddr, client_id: &str, topic: Option<&str>) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut out = Outbox::default();
    out.connect(client_id, true);
    stream.write_all(&out.take())?;
    expect(&mut stream, CONNACK)?;
    if let Some(topic) = topic {
        out.subscribe(1, &[topic.to_owned()], QoS::AtMostOnce);
        stream.write_all(&out.take())?;
        expect(&mut stream, SUBACK)?;
    }
    // Only after the answers: until here the load may wait.
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn expect<const N: usize>(stream: &mut TcpStream, answer: [u8; N]) -> Outcome<()> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    if bytes == answer { Ok(()) } else { Err(format!("the broker has answered {bytes:?}").into()) }
}
