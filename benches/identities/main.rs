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
#[path = "../logins/storm.rs"]
mod storm;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Parser;
use tempfile::TempDir;

use self::{
    counterparts::{Database, Service, Signers},
    storm::{CALLERS, Figures, connect_as, echo},
};

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
    let mut kinds: Vec<_> = KINDS.into_iter().filter(is_wanted).collect();
    let directory = tempfile::tempdir().unwrap();
    let signers = Signers::new(directory.path());
    let service = Service::start();
    let database = if kinds.contains(&"postgres") { Database::start() } else { None };
    if database.is_none() {
        kinds.retain(|kind| *kind != "postgres");
        println!("postgres is not measured: it is not wanted, or not installed");
    }
    let broker = Broker::start(directory, &service, database.as_ref());
    let time = Duration::from_secs_f64(arguments.secs);
    // The reference: the same echo, without any login beside it.
    println!("echo without logins: p99 {:.0?}", echo(broker.mqtt, time));
    let mut figures: Vec<_> = kinds.iter().map(|_| Figures::default()).collect();
    for _ in 0..arguments.rounds {
        for (figures, kind) in figures.iter_mut().zip(&kinds) {
            figures.measure(broker.mqtt, time, &|number| {
                let (name, password) = signers.credentials(kind, number);
                connect_as(&format!("{kind}-{number}"), name.map(|name| (name, &*password)))
            });
        }
    }
    println!("CONNECTs, {CALLERS} at a time (medians of {} rounds)", arguments.rounds);
    for (kind, of_kind) in kinds.iter().zip(&figures) {
        of_kind.print(kind, &figures[0]);
    }
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
            // Otherwise only the first login of each password would be computed.
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
        // A start reads keys and connects to the database, so its end is not known in advance.
        while TcpStream::connect(broker.mqtt).is_err() {
            assert!(Instant::now() < until, "the broker does not start");
            sleep(Duration::from_millis(5));
        }
        broker
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
