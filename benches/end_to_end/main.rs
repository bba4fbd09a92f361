//! Measures how fast a broker is, how late its messages are, and what it uses. Takes any MQTT 3.1.1
//! broker, by address or by the command that starts it; every message is accounted for.
//!
//!     cargo bench --bench end_to_end                      # HearthMQ alone, every workload
//!     cargo bench --bench end_to_end -- --rounds 3 --broker 'mosquitto=mosquitto -p {port}' p2p
//!     cargo bench --bench end_to_end -- growth            # HearthMQ's plots
//!     cargo bench --bench end_to_end -- --broker other=192.0.2.7:1883 fan-out
//!
//! A broker given as a command is restarted for each run, on a core of its own; this program has
//! another. Brokers take turns, and the tables contain medians; in brackets is the ratio to the
//! first broker. `faults` are deliveries that were lost, doubled, out of order or not due. In the
//! workloads of two cores the broker has both, and shares them with a special load.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its results")]

mod brokers;
mod calls;
mod client;
mod comings;
mod crowd;
mod flood;
mod growth;
mod in_process;
mod ledger;
mod plot;
mod publishing;
mod relay;
mod report;
mod together;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use hearthmq::mqtt::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};

use self::{
    brokers::{Named, Running},
    calls::Call,
    comings::Visit,
    flood::Flood,
    publishing::{Pattern, Publishing},
    report::{Figures, Row},
};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

const HEARTHMQ: &str = env!("CARGO_BIN_EXE_hearthmq");

#[derive(Parser)]
#[command(about = "Compares brokers of MQTT on one machine")]
struct Arguments {
    /// NAME=ADDRESS[@PID], or NAME=COMMAND with {port} in it; HearthMQ itself comes first
    #[arg(long = "broker", value_name = "BROKER")]
    brokers: Vec<Named>,
    /// Leave out HearthMQ
    #[arg(long)]
    only: bool,
    /// Another hearthmq to compare with: NAME=PATH of the program
    #[arg(long = "build", value_name = "NAME=PATH")]
    builds: Vec<String>,
    /// How often each broker runs each workload
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Cores, and shards, of a HearthMQ
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Workloads whose names contain one of these; all if none is given
    workloads: Vec<String>,
    /// Print the names of the workloads
    #[arg(long)]
    list: bool,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(subcommand)]
    ceiling: Option<Ceiling>,
}

/// Other modes of this program, in a separate process.
#[derive(Subcommand)]
enum Ceiling {
    /// Draw what a message costs HearthMQ while something grows, into docs/plots
    Growth,
    #[command(hide = true)]
    InProcess { connections: usize },
    #[command(hide = true)]
    Relay { port: u16 },
    #[command(hide = true)]
    EmptyHandler { port: u16, accounts: PathBuf },
}

/// Settings of all workloads.
pub(crate) struct Settings {
    /// Duration of a measurement, after warming up.
    pub(crate) time: Duration,
    /// Cores of a HearthMQ.
    pub(crate) cores: String,
}

/// A workload, by its name.
enum Workload {
    Publishing(Publishing),
    Churn(Visit),
    Idle(usize),
    Away(usize, usize),
    Calls(Call),
    /// SetKeepAlive calls while messages flow at a rate.
    Together,
    /// Two shards on two cores against one on one.
    TwoCores(Flood),
}

fn workloads() -> Vec<(String, Workload)> {
    let mut all = Vec::new();
    let qos = [AtMostOnce, AtLeastOnce, ExactlyOnce];
    let publishing = |pattern, qos, payload_bytes, rate| {
        Workload::Publishing(Publishing { pattern, qos, payload_bytes, rate })
    };
    let number = |qos: QoS| qos.number();
    for qos in qos {
        for bytes in [64, 1024] {
            let name = format!("p2p, 100 pairs, QoS {}, {bytes} B", number(qos));
            all.push((name, publishing(Pattern::Pairs(100), qos, bytes, None)));
        }
    }
    for qos in [AtMostOnce, AtLeastOnce] {
        let name = format!("fan-out, 1 to 500, QoS {}", number(qos));
        all.push((name, publishing(Pattern::FanOut(500), qos, 64, None)));
    }
    all.push((
        "fan-in, 200 to 2, QoS 1".into(),
        publishing(Pattern::FanIn(200), AtLeastOnce, 64, None),
    ));
    for rate in [5_000, 20_000] {
        let name = format!("p2p at {rate} a second, QoS 1");
        all.push((name, publishing(Pattern::Pairs(100), AtLeastOnce, 64, Some(rate))));
    }
    for count in [10_000, 100_000, 1_000_000] {
        let name = format!("{count} filters, QoS 0");
        all.push((name, publishing(Pattern::Filters(count), AtMostOnce, 64, None)));
    }
    for members in [1, 10, 100] {
        let name = format!("shared, {members} members, QoS 1");
        all.push((name, publishing(Pattern::Shared(members), AtLeastOnce, 64, None)));
    }
    all.push((
        "churn: connect, subscribe, publish, disconnect".into(),
        Workload::Churn(Visit::Whole),
    ));
    all.push(("churn: connect, disconnect".into(), Workload::Churn(Visit::Bare)));
    all.push(("idle, 18000 connections".into(), Workload::Idle(18_000)));
    all.push(("away, 100000 sessions with 10 messages".into(), Workload::Away(100_000, 10)));
    all.push(("call QueryOnline".into(), Workload::Calls(Call::QueryOnline)));
    all.push(("call SetKeepAlive".into(), Workload::Calls(Call::SetKeepAlive)));
    all.push(("messages beside 10000 SetKeepAlive a second".into(), Workload::Together));
    all.push(("two cores, p2p, QoS 0".into(), Workload::TwoCores(Flood::Pairs(100))));
    all.push(("two cores, fan-out, QoS 0".into(), Workload::TwoCores(Flood::FanOut(500))));
    all
}

impl Workload {
    fn run(&self, broker: &Named, settings: &Settings) -> Outcome<Figures> {
        match self {
            Self::Publishing(what) => what.measure(&start(broker, settings)?, settings),
            Self::Churn(visit) => comings::churn(*visit, &start(broker, settings)?, settings),
            Self::Idle(count) => comings::idle(*count, &start(broker, settings)?, settings),
            Self::Away(sessions, messages) => {
                comings::away(*sessions, *messages, &start(broker, settings)?)
            }
            Self::Calls(call) => together::calls(*call, broker, settings),
            Self::Together => together::beside(broker, settings),
            Self::TwoCores(flood) => {
                flood.measure(&broker.with_shards(1), &broker.with_shards(2), settings)
            }
        }
    }

    /// Returns whether every broker can run it; some workloads use HearthMQ's own interface.
    const fn is_for_all(&self) -> bool {
        !matches!(self, Self::Calls(_) | Self::Together | Self::TwoCores(_))
    }

    /// Returns whether a relay in place of a broker can run it, as a ceiling.
    const fn has_relay(&self) -> bool {
        let Self::Publishing(Publishing { pattern, qos, rate, .. }) = self else { return false };
        matches!((pattern, qos, rate), (Pattern::Pairs(_), AtMostOnce, None))
    }
}

fn start(broker: &Named, settings: &Settings) -> Outcome<Running> {
    broker.start(&settings.cores)
}

/// The program with all features of normal use turned on: permissions, limits, metrics, Keep Alive.
/// Raises only limits that a hundred times any real fleet would not reach.
fn hearthmq(name: &str, program: &str, shards: usize, directory: &str) -> Named {
    let settings = [
        "mqtt.tcp=127.0.0.1:{port}",
        "http.listen=127.0.0.1:{http}",
        "auth.anonymous=true",
        "log.filter=warn",
        "limits.connects_per_address_per_sec=1000000",
        "limits.connects_per_address_burst=1000000",
        "limits.subscriptions_per_client_max=100000",
        "limits.subscription_bytes_per_user_max=1073741824",
        "limits.sessions_per_user_max=1000000",
        "http.calls_per_account_per_sec=1000000",
        "http.calls_per_account_burst=1000000",
        "http.calls_per_address_per_sec=1000000",
        "http.calls_per_address_burst=1000000",
    ];
    let settings: String = settings.map(|setting| format!(" --set {setting}")).concat();
    let command =
        format!("{program} run --set data_dir={directory} --set shards={{shards}}{settings}");
    Named::command(name, command).with_shards(shards)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.ceiling {
        Some(Ceiling::Relay { port }) => relay::run(port),
        Some(Ceiling::EmptyHandler { port, accounts }) => {
            calls::serve_empty_handler(port, accounts).map_err(Into::into)
        }
        Some(Ceiling::InProcess { connections }) => {
            in_process::micros_a_delivery(connections).map(|micros| println!("{micros}"))
        }
        Some(Ceiling::Growth) | None => compare(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Outcome<()> {
    let workloads = workloads();
    let is_chosen = |name: &str| {
        arguments.workloads.is_empty() || arguments.workloads.iter().any(|part| name.contains(part))
    };
    let chosen = workloads.iter().filter(|(name, _)| is_chosen(name));
    if arguments.list {
        workloads.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    brokers::pin_self();
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_str().ok_or("the temporary directory has a strange name")?;
    std::fs::write(directory.path().join("policy.toml"), together::POLICY)?;
    calls::make_account(HEARTHMQ, directory.path())?;
    let settings = Settings {
        time: Duration::from_secs_f64(arguments.secs),
        cores: brokers::cores(arguments.shards),
    };
    if matches!(arguments.ceiling, Some(Ceiling::Growth)) {
        let plots = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plots");
        let start = |shards| hearthmq("HearthMQ", HEARTHMQ, shards, path);
        return growth::measure(&plots, &settings, &start);
    }
    let mut contestants = Vec::new();
    if !arguments.only {
        contestants.push(hearthmq("HearthMQ", HEARTHMQ, arguments.shards, path));
    }
    for build in &arguments.builds {
        let (name, program) = build.split_once('=').ok_or("write NAME=PATH")?;
        contestants.push(hearthmq(name, program, arguments.shards, path));
    }
    // Builds of HearthMQ come first; some workloads are for them alone.
    let own = contestants.len();
    contestants.extend(arguments.brokers.iter().cloned());
    let this = std::env::current_exe()?;
    contestants.push(Named::command("(relay)", format!("{} relay {{port}}", this.display())));
    let accounts = directory.path().join("users.toml");
    let empty = format!("{} empty-handler {{port}} {}", this.display(), accounts.display());
    let empty = Named::command("(empty handler)", empty);
    for (name, workload) in chosen {
        // The relay is the last one, and cannot play each workload.
        let without_relay = contestants.len() - 1;
        let takes_part: Vec<&Named> = if let Workload::Calls(_) = workload {
            contestants[..own].iter().chain([&empty]).collect()
        } else if !workload.is_for_all() {
            contestants[..own].iter().collect()
        } else if workload.has_relay() {
            contestants.iter().collect()
        } else {
            contestants[..without_relay].iter().collect()
        };
        println!(
            "{}",
            report::table(name, &rounds(arguments.rounds, workload, &takes_part, &settings))
        );
    }
    Ok(())
}

/// Runs the rounds in turn, so that disturbances of the machine affect all brokers alike.
fn rounds(count: usize, workload: &Workload, brokers: &[&Named], settings: &Settings) -> Vec<Row> {
    let mut rows: Vec<Row> =
        brokers.iter().map(|b| Row { broker: b.name.clone(), rounds: Vec::new() }).collect();
    for _ in 0..count {
        for (row, broker) in rows.iter_mut().zip(brokers) {
            row.rounds.push(workload.run(broker, settings).map_err(|error| error.to_string()));
        }
    }
    rows
}
