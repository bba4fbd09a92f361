//! Many CONNECTs at a time, and an echo beside them.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Connect, Packet};
use hearthmq_test::packets::{QOS_0, V3_1_1, connect_in, encoded, filter, publish, subscribe};
use socket2::{Domain, SockRef, Socket, Type};

/// Threads that connect.
pub(crate) const CALLERS: u32 = 8;

/// Makes the CONNECT with a number.
pub(crate) type Packets<'a> = dyn Fn(u32) -> Vec<u8> + Sync + 'a;

/// The figures of one kind of logins, one for each round.
#[derive(Default)]
pub(crate) struct Figures {
    rates: Vec<f64>,
    echoes: Vec<f64>,
}

impl Figures {
    /// Connects for some time, as fast as possible, beside an echo.
    pub(crate) fn measure(&mut self, broker: SocketAddr, time: Duration, packets: &Packets<'_>) {
        let until = Instant::now() + time;
        let (logins, echo) = thread::scope(|scope| {
            let logins = scope.spawn(|| storm(broker, packets, |_| Instant::now() < until));
            let echo = echo(broker, time);
            (logins.join().unwrap(), echo)
        });
        self.rates.push(f64::from(logins) / time.as_secs_f64());
        self.echoes.push(echo.as_secs_f64() * 1e6);
    }

    /// Prints the medians beside those of another kind.
    pub(crate) fn print(&self, name: &str, others: &Self) {
        let (rate, other) = (median(&self.rates), median(&others.rates));
        let (echo, other_echo) = (median(&self.echoes), median(&others.echoes));
        println!(
            "  {name:<14} {rate:>7.0} a second, {:.2} of anonymous; echo p99 {echo:>6.0} µs, {:.2} of \
             that beside anonymous",
            rate / other,
            echo / other_echo,
        );
    }
}

/// Connects with the packets 0, 1, … by several threads while `goes_on` says so of a number; returns
/// the count of logins.
pub(crate) fn storm(
    broker: SocketAddr,
    packets: &Packets<'_>,
    goes_on: impl Fn(u32) -> bool + Sync,
) -> u32 {
    let (next, count) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (next, count, goes_on) = (&next, &count, &goes_on);
            scope.spawn(move || {
                loop {
                    // One counter for all threads: a slow login delays its own thread alone.
                    let number = next.fetch_add(1, Relaxed);
                    if !goes_on(number) {
                        return;
                    }
                    drop(log_in(broker, caller, &packets(number)));
                    count.fetch_add(1, Relaxed);
                }
            });
        }
    });
    count.into_inner()
}

/// Returns a CONNECT of MQTT 3.1.1 with Clean Session.
pub(crate) fn connect_as(client_id: &str, login: Option<(&str, &str)>) -> Vec<u8> {
    let (username, password) = login.unzip();
    let password = password.map(str::as_bytes);
    let connect = Connect { username, password, ..connect_in(V3_1_1, client_id) };
    encoded(&Packet::Connect(Box::new(connect)), V3_1_1)
}

/// Connects from an address of the caller, each of which has its own ports. Returns the stream once
/// CONNACK has accepted the client. Its end leaves nothing in the tables of the system.
fn log_in(broker: SocketAddr, caller: u32, packet: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = Ipv4Addr::from_bits(0x7f01_0000 + caller);
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&broker.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    stream.write_all(packet).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
    stream
}

/// Sends a message each millisecond from one client to another; returns the 99th percentile of the time
/// that it takes.
pub(crate) fn echo(broker: SocketAddr, time: Duration) -> Duration {
    let [mut publisher, mut subscriber] =
        ["echo-1", "echo-2"].map(|id| log_in(broker, CALLERS, &connect_as(id, None)));
    let subscription = encoded(&subscribe(1, vec![filter("echo", QOS_0)]), V3_1_1);
    subscriber.write_all(&subscription).unwrap();
    subscriber.read_exact(&mut [0; 5]).unwrap();
    let message = encoded(&Packet::Publish(publish("echo", "x")), V3_1_1);
    let (mut took, mut buffer) = (Vec::new(), vec![0; message.len()]);
    let began = Instant::now();
    while began.elapsed() < time {
        let sent = Instant::now();
        publisher.write_all(&message).unwrap();
        subscriber.read_exact(&mut buffer).unwrap();
        took.push(sent.elapsed());
        sleep(Duration::from_millis(1));
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Returns the median.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
