//! Measures logins with accounts in the store: CONNECTs a second with device secrets beside anonymous
//! ones, with the p99 of an echo meanwhile; the time in which many devices return after a restart; and a
//! million accounts: the time to import them, their memory, the time of a start, and logins with them.
//!
//!     cargo bench --bench logins                       # all
//!     cargo bench --bench logins -- --quick connects   # a short run of one
//!
//! Brokers are of this build, one for each run. The kinds of logins take turns on one broker.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark talks, and ends where it cannot go on"
)]

mod broker;
mod storm;

use std::{
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use clap::Parser;
use hearthmq::auth::generate_secret;

use self::{
    broker::Broker,
    storm::{CALLERS, Figures, connect_as, echo, median, storm},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Accounts in one call of an import.
const LINES_AT_A_TIME: usize = 10_000;

#[derive(Parser)]
#[command(about = "Measures logins with accounts in the store")]
struct Arguments {
    /// How often the kinds of logins take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each turn
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Accounts of the large store
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u32,
    /// Devices that return after a restart
    #[arg(long, default_value_t = 100_000)]
    devices: u32,
    /// Few accounts and short measurements, to check that everything works
    #[arg(long)]
    quick: bool,
    /// `connects`, `returns`, `accounts`; all if none is given
    workloads: Vec<String>,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if !arguments.bench {
        return ExitCode::SUCCESS; // `cargo test --benches` only starts it
    }
    if arguments.quick {
        (arguments.rounds, arguments.secs) = (1, 0.3);
        (arguments.accounts, arguments.devices) = (20_000, 2_000);
    }
    type Workload = fn(&Arguments) -> Outcome<()>;
    let workloads: [(&str, Workload); 3] =
        [("connects", connects), ("returns", returns), ("accounts", accounts)];
    let is_chosen = |name: &str| {
        arguments.workloads.is_empty() || arguments.workloads.iter().any(|it| it == name)
    };
    for (name, measure) in workloads {
        if is_chosen(name)
            && let Err(error) = measure(&arguments)
        {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Compares CONNECTs with device secrets with anonymous ones.
fn connects(arguments: &Arguments) -> Outcome<()> {
    let broker = Broker::start()?;
    let secrets = Secrets::of(10_000);
    secrets.import(&broker)?;
    println!("10000 accounts");
    compare(&broker, &secrets, arguments);
    Ok(())
}

/// Lets anonymous clients and those with secrets take turns, and prints the figures of both.
fn compare(broker: &Broker, secrets: &Secrets, arguments: &Arguments) {
    let time = Duration::from_secs_f64(arguments.secs);
    println!("  echo without logins: p99 {:.0?}", echo(broker.mqtt, time));
    let (mut anonymous, mut with_secrets) = (Figures::default(), Figures::default());
    for _ in 0..arguments.rounds {
        anonymous.measure(broker.mqtt, time, &anonymous_connect);
        with_secrets.measure(broker.mqtt, time, &|number| secrets.connect(number));
    }
    println!("  CONNECTs, {CALLERS} at a time (medians of {} rounds)", arguments.rounds);
    anonymous.print("anonymous", &anonymous);
    with_secrets.print("device secrets", &anonymous);
}

/// Measures how long many devices take to return after a restart.
fn returns(arguments: &Arguments) -> Outcome<()> {
    let mut broker = Broker::start()?;
    let secrets = Secrets::of(arguments.devices);
    secrets.import(&broker)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..arguments.rounds {
        // In turns, so that a disturbance of the machine affects both kinds.
        for (kind, times) in times.iter_mut().enumerate() {
            broker.restart()?;
            let began = Instant::now();
            let packet = |number| match kind {
                0 => anonymous_connect(number),
                _ => secrets.connect(number),
            };
            storm(broker.mqtt, &packet, |number| number < arguments.devices);
            times.push(began.elapsed().as_secs_f64());
        }
    }
    let [anonymous, with_secrets] = times.map(|times| median(&times));
    println!(
        "{} devices return after a restart: {with_secrets:.2} s, anonymous {anonymous:.2} s, ratio {:.2}",
        arguments.devices,
        with_secrets / anonymous
    );
    Ok(())
}

/// Measures a store with many accounts.
fn accounts(arguments: &Arguments) -> Outcome<()> {
    let secrets = Secrets::of(arguments.accounts);
    let count = f64::from(arguments.accounts);
    let mut broker = Broker::start()?;
    let before = broker.resident_mib();
    let began = Instant::now();
    secrets.import(&broker)?;
    let secs = began.elapsed().as_secs_f64();
    println!("{count} accounts with a secret each");
    println!("  import         {secs:>8.1} s, {:.0} accounts a second", count / secs);
    let after = broker.resident_mib();
    let each = (after - before) * 1_048_576.0 / count;
    println!("  memory         {after:>8.0} MiB, {each:.0} bytes for each account");
    // Memory is measured again after the start: an import
    // leaves other buffers than reading the store.
    let took = broker.restart()?;
    println!("  start          {:>8.2} s", took.as_secs_f64());
    println!("  memory then    {:>8.0} MiB", broker.resident_mib());
    compare(&broker, &secrets, arguments);
    Ok(())
}

fn anonymous_connect(number: u32) -> Vec<u8> {
    connect_as(&format!("c{number}"), None)
}

/// The secrets of the accounts `car-N`.
struct Secrets(Vec<String>);

impl Secrets {
    fn of(accounts: u32) -> Self {
        Self((0..accounts).map(|_| generate_secret()).collect())
    }

    /// Returns the CONNECT of an account.
    fn connect(&self, number: u32) -> Vec<u8> {
        // Neighbours in time are not neighbours in the store.
        let at = (u64::from(number) * 7_919 % self.0.len() as u64) as usize;
        connect_as(&format!("c{number}"), Some((&format!("car-{at}"), &self.0[at])))
    }

    /// Creates the accounts over REST.
    fn import(&self, broker: &Broker) -> Outcome<()> {
        for (part, secrets) in self.0.chunks(LINES_AT_A_TIME).enumerate() {
            let mut body = String::new();
            for (number, secret) in secrets.iter().enumerate() {
                let (at, hash) = (part * LINES_AT_A_TIME + number, sha256(secret));
                body +=
                    &format!("{{\"name\":\"car-{at}\",\"secrets\":[{{\"sha256\":\"{hash}\"}}]}}\n");
            }
            let answer = broker.post("/api/v1/users/import", &body)?;
            if !answer.contains("\"failed\":0,") {
                let last = answer.lines().last().unwrap_or_default();
                return Err(format!("the import failed: {last}").into());
            }
        }
        Ok(())
    }
}

/// Returns the SHA-256 of a secret, in hexadecimal.
fn sha256(secret: &str) -> String {
    let hash = digest(&SHA256, secret.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
