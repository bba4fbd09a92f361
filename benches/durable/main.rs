//! Measures the cost of durability: messages for sessions that outlive their connections, with any
//! MQTT 3.1.1 broker that a command starts. How fast they are accepted, how late acknowledged, how
//! fast they come out again, what they cost in disk and memory, and how long a start takes with
//! them.
//!
//!     ulimit -n 20000
//!     cargo bench --bench durable                                # HearthMQ alone, every workload
//!     cargo bench --bench durable -- --quick                     # a smaller measure of everything
//!     cargo bench --bench durable -- --rounds 3 publish \
//!         --hearthmq HearthMQ --hearthmq 'other:OPTION=VALUE,OPTION=VALUE' \
//!         --broker 'mosquitto=mosquitto.sh {port} {dir}'
//!
//! `--hearthmq NAME:SETTINGS` is HearthMQ with these options set, so that one run compares ways to
//! sync. In the command of another broker `{port}` is its MQTT port and `{dir}` a directory that is
//! empty at first and stays the same at a restart; the command contains the rest of its
//! configuration. Brokers take turns; tables contain medians, and in brackets the ratio to the
//! first broker. `faults` are messages that did not arrive, and sessions that were missing.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its results")]

mod away;
#[path = "../end_to_end/brokers.rs"]
#[expect(dead_code, reason = "some of it is for other benchmarks")]
mod brokers;
#[path = "../end_to_end/client.rs"]
#[expect(dead_code, reason = "some of it is for other benchmarks")]
mod client;
#[path = "../end_to_end/crowd.rs"]
#[expect(dead_code, reason = "some of it is for other benchmarks")]
mod crowd;
mod host;
mod publishing;
#[path = "../end_to_end/report.rs"]
mod report;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

use self::{
    away::{Drain, Restart},
    host::Host,
    publishing::Publishing,
    report::{Figures, Row},
};

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

const HEARTHMQ: &str = env!("CARGO_BIN_EXE_hearthmq");

#[derive(Parser)]
#[command(about = "Measures what durable sessions cost a broker")]
struct Arguments {
    /// A HearthMQ with options of its own, NAME:OPTION=VALUE,…; the defaults if none is given
    #[arg(long = "hearthmq", value_name = "NAME:SETTINGS")]
    own: Vec<String>,
    /// NAME=COMMAND with {port} and {dir} in it
    #[arg(long = "broker", value_name = "BROKER")]
    brokers: Vec<Host>,
    /// Leave out HearthMQ
    #[arg(long)]
    only: bool,
    /// How often each broker runs each workload
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Cores, and shards, of a HearthMQ
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Directory for the data of the brokers; its disk is measured
    #[arg(long, value_name = "DIRECTORY")]
    disk: Option<PathBuf>,
    /// Few messages and short measurements, to check that everything works
    #[arg(long)]
    quick: bool,
    /// Workloads whose names contain one of these; all if none is given
    workloads: Vec<String>,
    /// Print the names of the workloads
    #[arg(long)]
    list: bool,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Settings of all workloads.
pub(crate) struct Settings {
    /// Duration of a measurement, after warming up.
    pub(crate) time: Duration,
    /// Cores of a broker.
    pub(crate) cores: String,
    /// Where the directories of brokers are created.
    pub(crate) disk: PathBuf,
}

/// A workload, by its name.
enum Workload {
    Publishing(Publishing),
    Drain(Drain),
    Restart(Restart),
}

fn workloads(is_quick: bool) -> Vec<(String, Workload)> {
    let mut all = Vec::new();
    let largest = if is_quick { 200 } else { 1_000 };
    for is_online in [true, false] {
        let where_they_are = if is_online { "online" } else { "offline" };
        for (publishers, in_flight) in [(1, 1), (1, 100), (100, 1), (largest, 1)] {
            let name = format!(
                "publish, {publishers} with {in_flight} in flight each, subscribers {where_they_are}"
            );
            all.push((name, Workload::Publishing(Publishing { publishers, in_flight, is_online })));
        }
    }
    let messages = if is_quick { 5_000 } else { 100_000 };
    all.push((format!("drain of {messages} messages"), Workload::Drain(Drain { messages })));
    let (sessions, each) = (if is_quick { 2_000 } else { 100_000 }, 10);
    let name = format!("restart with {sessions} sessions of {each} messages");
    all.push((name, Workload::Restart(Restart { sessions, each })));
    all
}

impl Workload {
    fn run(&self, host: &Host, settings: &Settings) -> Outcome<Figures> {
        match self {
            Self::Publishing(what) => what.measure(host, settings),
            Self::Drain(what) => what.measure(host, settings),
            Self::Restart(what) => what.measure(host, settings),
        }
    }
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Outcome<()> {
    let workloads = workloads(arguments.quick);
    if arguments.list {
        workloads.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    brokers::pin_self();
    let secs = if arguments.quick { 0.5 } else { arguments.secs };
    let settings = Settings {
        time: Duration::from_secs_f64(secs),
        cores: brokers::cores(arguments.shards),
        disk: arguments.disk.clone().unwrap_or_else(std::env::temp_dir),
    };
    let hosts = hosts(arguments);
    for (name, workload) in workloads {
        let is_chosen = arguments.workloads.iter().any(|part| name.contains(part));
        if is_chosen || arguments.workloads.is_empty() {
            let rows = rounds(arguments.rounds, &workload, &hosts, &settings);
            println!("{}", report::table(&name, &rows));
        }
    }
    Ok(())
}

fn hosts(arguments: &Arguments) -> Vec<Host> {
    let mut hosts = Vec::new();
    if !arguments.only {
        let as_it_is = ["HearthMQ".to_owned()];
        let own = if arguments.own.is_empty() { &as_it_is[..] } else { &arguments.own[..] };
        for one in own {
            let (name, settings) = one.split_once(':').unwrap_or((one, ""));
            hosts.push(Host::hearthmq(name, HEARTHMQ, arguments.shards, settings));
        }
    }
    hosts.extend(arguments.brokers.iter().cloned());
    hosts
}

/// Runs the rounds in turn, so that disturbances of the machine affect all brokers alike.
fn rounds(count: usize, workload: &Workload, hosts: &[Host], settings: &Settings) -> Vec<Row> {
    let mut rows: Vec<Row> =
        hosts.iter().map(|host| Row { broker: host.name.clone(), rounds: Vec::new() }).collect();
    for _ in 0..count {
        for (row, host) in rows.iter_mut().zip(hosts) {
            row.rounds.push(workload.run(host, settings).map_err(|error| error.to_string()));
        }
    }
    rows
}
