//! Measures logins whose identities come from elsewhere: CONNECTs a second with tokens, an HTTP service
//! and PostgreSQL, beside anonymous ones, with the p99 of an echo during each storm.
//!
//!     cargo bench --bench identities                       # all
//!     cargo bench --bench identities -- --quick            # a short run
//!     cargo bench --bench identities -- es256 postgres     # anonymous, and these
//!
//! One broker of this build; the kinds of logins take turns on it. The HTTP service is a thread for each
//! connection, the database a cluster of Debian's package (`postgresql`), both on this machine. Answers of
//! the service are not kept (`no-store`), unless `cached` is measured. The hash in the database is an
//! Argon2id of little cost, so that the database is measured and not the hash.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks, and ends where it cannot go on"
)]

mod counterparts;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use clap::Parser;
use hearthmq::mqtt::{Connect, Packet};
use hearthmq_test::packets::{QOS_0, V3_1_1, connect_in, encoded, filter, publish, subscribe};
use socket2::SockRef;
use tempfile::TempDir;

use self::counterparts::{Database, Service, Signers};

/// Threads that connect.
const CALLERS: u32 = 8;
const KINDS: [&str; 6] = ["anonymous", "es256", "rs256", "http", "cached", "postgres"];

#[derive(Parser)]
#[command(about = "Measures logins whose identities come from elsewhere")]
struct Arguments {
    /// How often the kinds take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each turn
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// One short round, to check that everything works
    #[arg(long)]
    quick: bool,
    /// es256, rs256, http, cached, postgres; all if none is given
    kinds: Vec<String>,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let mut arguments = Arguments::parse();
    if !arguments.bench {
        return; // `cargo test --benches` only starts it
    }
    if arguments.quick {
        (arguments.rounds, arguments.secs) = (1, 0.5);
    }
    let is_wanted = |kind: &&str| {
        *kind == "anonymous"
            || arguments.kinds.is_empty()
            || arguments.kinds.iter().any(|wanted| wanted == kind)
    };
    let kinds: Vec<_> = KINDS.into_iter().filter(is_wanted).collect();
    let directory = tempfile::tempdir().unwrap();
    let signers = Signers::new(directory.path());
    let service = Service::start();
    let database = if kinds.contains(&"postgres") { Database::start() } else { None };
    let broker = Broker::start(directory, &service, database.as_ref());
    let idle = broker.echo(Duration::from_secs_f64(arguments.secs));
    println!("echo without logins: p99 {idle:.0?}");
    let mut results = vec![(Vec::new(), Vec::new()); kinds.len()];
    for _ in 0..arguments.rounds {
        for ((rates, echoes), kind) in results.iter_mut().zip(&kinds) {
            if *kind == "postgres" && database.is_none() {
                continue;
            }
            let (rate, echo) = broker.storm(kind, &signers, arguments.secs);
            rates.push(rate);
            echoes.push(echo.as_secs_f64() * 1e6);
        }
    }
    println!("CONNECTs a second, {CALLERS} at a time (medians of {} rounds)", arguments.rounds);
    let anonymous = median(results[0].0.clone());
    for ((rates, echoes), kind) in results.into_iter().zip(kinds) {
        if rates.is_empty() {
            println!("  {kind:<10} not measured: PostgreSQL is not installed");
            continue;
        }
        let (rate, echo) = (median(rates), median(echoes));
        let beside = rate / anonymous;
        println!("  {kind:<10} {rate:>8.0}   {beside:.2} of anonymous   echo p99 {echo:>6.0} µs");
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A running broker. Dropping it kills it.
struct Broker {
    child: Child,
    mqtt: SocketAddr,
    _directory: TempDir,
}

impl Broker {
    fn start(directory: TempDir, service: &Service, database: Option<&Database>) -> Self {
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("policy.toml"), "[[rules]]\neffect = \"allow\"\n").unwrap();
        fs::write(path("users.toml"), "").unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let mut options = vec![
            format!("data_dir={}", directory.path().display()),
            format!("mqtt.tcp={port}"),
            "http.listen=127.0.0.1:0".to_owned(),
            "auth.anonymous=true".to_owned(),
            "auth.sources=jwt,http,postgres,accounts".to_owned(),
            "auth.jwt.algorithms=ES256,RS256".to_owned(),
            format!("auth.jwt.keys={},{}", path("es256.pem"), path("rs256.pem")),
            format!("auth.http.url=http://{}/", service.address),
            "auth.http.timeout_ms=10000".to_owned(),
            "auth.verified_secs=0".to_owned(),
            "log.filter=warn".to_owned(),
            "limits.connects_per_address_per_sec=0".to_owned(),
        ];
        if let Some(database) = database {
            options.push(format!("auth.postgres.url={}", database.url()));
            options.push("auth.postgres.query=SELECT hash FROM users WHERE name = $1".to_owned());
            options.push("auth.postgres.timeout_ms=10000".to_owned());
        }
        let options = options.iter().flat_map(|option| ["--set", option]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
        command.args(["run", "--config", "/dev/null"]).args(options).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let broker = Self { child, mqtt: port, _directory: directory };
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(broker.mqtt).is_err() {
            assert!(Instant::now() < until, "the broker does not start");
            sleep(Duration::from_millis(5));
        }
        broker
    }

    /// Connects clients of one kind as fast as possible; returns how many a second, and the p99 of the
    /// echo meanwhile.
    fn storm(&self, kind: &str, signers: &Signers, secs: f64) -> (f64, Duration) {
        let (next, count) = (AtomicU32::new(0), AtomicU32::new(0));
        let until = Instant::now() + Duration::from_secs_f64(secs);
        let mut echo = Duration::ZERO;
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    while Instant::now() < until {
                        let number = next.fetch_add(1, Relaxed);
                        let (name, password) = signers.credentials(kind, number);
                        let packet = connect_as(&format!("{kind}-{number}"), name, &password);
                        drop(self.connect(&packet));
                        count.fetch_add(1, Relaxed);
                    }
                });
            }
            echo = self.echo(Duration::from_secs_f64(secs));
        });
        (f64::from(count.into_inner()) / secs, echo)
    }

    /// Connects, and returns the stream once CONNACK has let the client in.
    fn connect(&self, packet: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.mqtt).unwrap();
        stream.set_nodelay(true).unwrap();
        // Closed at once, without TIME_WAIT.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        stream.write_all(packet).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[3], 0, "CONNACK says {}", answer[3]);
        stream
    }

    /// Sends a message each millisecond from one client to another; returns the p99.
    fn echo(&self, time: Duration) -> Duration {
        let [mut publisher, mut subscriber] =
            ["echo-1", "echo-2"].map(|id| self.connect(&connect_as(id, None, "")));
        let topic = encoded(&subscribe(1, vec![filter("echo", QOS_0)]), V3_1_1);
        subscriber.write_all(&topic).unwrap();
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
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn connect_as(client_id: &str, username: Option<&str>, password: &str) -> Vec<u8> {
    let password = username.map(|_| password.as_bytes());
    let connect = Connect { username, password, ..connect_in(V3_1_1, client_id) };
    encoded(&Packet::Connect(Box::new(connect)), V3_1_1)
}
