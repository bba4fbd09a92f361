//! Measures logins with accounts in the store: CONNECTs a second with device secrets beside anonymous
//! ones, and a million accounts: the time to import them, the memory that they take, and the time of a
//! start with them.
//!
//!     cargo bench --bench logins                       # all
//!     cargo bench --bench logins -- --quick connects   # a short run of one
//!
//! Brokers are of this build, one for each run. The kinds of logins take turns on one broker.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its results")]

mod broker;

use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use clap::Parser;
use hearthmq::auth::generate_secret;
use socket2::{Domain, SockRef, Socket, Type};

use self::broker::Broker;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Accounts in one call of an import.
const LINES_AT_A_TIME: usize = 10_000;
/// Threads that connect.
const CALLERS: u32 = 8;

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
    accounts: usize,
    /// Few accounts and short measurements, to check that everything works
    #[arg(long)]
    quick: bool,
    /// `connects`, `accounts`; both if none is given
    workloads: Vec<String>,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.secs, arguments.accounts) = (1, 0.3, 20_000);
    }
    let is_chosen = |name: &str| {
        arguments.workloads.is_empty() || arguments.workloads.iter().any(|it| it == name)
    };
    let connects = if is_chosen("connects") { connects(&arguments) } else { Ok(()) };
    let accounts = if is_chosen("accounts") { accounts(&arguments) } else { Ok(()) };
    match connects.and(accounts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Compares CONNECTs with device secrets with anonymous ones.
fn connects(arguments: &Arguments) -> Outcome<()> {
    let broker = Broker::start()?;
    let secrets: Vec<_> = (0..10_000).map(|_| generate_secret()).collect();
    import(&broker, secrets.len(), |number| of_secret(&secrets[number]))?;
    type Packets<'a> = &'a (dyn Fn(u32) -> Vec<u8> + Sync);
    let kinds: [(&str, Packets<'_>); 2] = [
        ("anonymous", &|number| connect(number, None)),
        ("device secret", &|number| {
            let at = number as usize % secrets.len();
            connect(number, Some((&format!("car-{at}"), &secrets[at])))
        }),
    ];
    let mut rates = vec![Vec::new(); kinds.len()];
    for _ in 0..arguments.rounds {
        for (rates, (_, packet)) in rates.iter_mut().zip(kinds) {
            rates.push(rate(broker.mqtt, Duration::from_secs_f64(arguments.secs), packet)?);
        }
    }
    println!("CONNECTs a second, {CALLERS} at a time (median of {} rounds)", arguments.rounds);
    let first = median(&mut rates[0].clone());
    for ((name, _), rates) in kinds.iter().zip(&mut rates) {
        let rate = median(rates);
        println!("  {name:<14} {rate:>8.0}   {:.2} of the first", rate / first);
    }
    Ok(())
}

/// Measures a store with many accounts.
fn accounts(arguments: &Arguments) -> Outcome<()> {
    let count = arguments.accounts;
    let mut broker = Broker::start()?;
    let before = broker.resident_mib();
    let began = Instant::now();
    import(&broker, count, |number| format!("{number:064x}"))?;
    let secs = began.elapsed().as_secs_f64();
    println!("{count} accounts with a secret each");
    println!("  import         {secs:>8.1} s, {:.0} accounts a second", count as f64 / secs);
    let after = broker.resident_mib();
    let each = (after - before) * 1_048_576.0 / count as f64;
    println!("  memory         {after:>8.0} MiB, {each:.0} bytes for each account");
    let took = broker.restart()?;
    println!("  start          {:>8.2} s", took.as_secs_f64());
    println!("  memory then    {:>8.0} MiB", broker.resident_mib());
    Ok(())
}

/// Returns the SHA-256 of a secret, in hexadecimal.
fn of_secret(secret: &str) -> String {
    let hash = digest(&SHA256, secret.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Creates accounts `car-N`, each with a secret of this hash.
fn import(broker: &Broker, count: usize, hash: impl Fn(usize) -> String) -> Outcome<()> {
    for first in (0..count).step_by(LINES_AT_A_TIME) {
        let mut body = String::new();
        for number in first..count.min(first + LINES_AT_A_TIME) {
            let hash = hash(number);
            body +=
                &format!("{{\"name\":\"car-{number}\",\"secrets\":[{{\"sha256\":\"{hash}\"}}]}}\n");
        }
        let answer = broker.post("/api/v1/users/import", &body)?;
        if !answer.contains("\"failed\":0,") {
            return Err(
                format!("the import failed: {}", answer.lines().last().unwrap_or("")).into()
            );
        }
    }
    Ok(())
}

/// Returns a CONNECT of MQTT 3.1.1 with Clean Session.
fn connect(number: u32, login: Option<(&str, &str)>) -> Vec<u8> {
    let mut body =
        vec![0, 4, b'M', b'Q', b'T', b'T', 4, if login.is_some() { 0xc2 } else { 2 }, 0, 60];
    let client_id = format!("c{number}");
    let texts = [Some(&*client_id), login.map(|it| it.0), login.map(|it| it.1)];
    for text in texts.into_iter().flatten() {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut packet = vec![0x10, body.len() as u8];
    packet.append(&mut body);
    packet
}

/// Connects for some time, and returns the number of CONNACKs a second.
fn rate(
    address: SocketAddr,
    time: Duration,
    packet: &(dyn Fn(u32) -> Vec<u8> + Sync),
) -> Outcome<f64> {
    let next = AtomicU32::new(0);
    let began = Instant::now();
    let done: Outcome<u64> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let next = &next;
                scope.spawn(move || -> Outcome<u64> {
                    let mut done = 0;
                    while began.elapsed() < time {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        log_in(address, caller, &packet(number))?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap_or(Ok(0))).sum()
    });
    Ok(done? as f64 / began.elapsed().as_secs_f64())
}

/// Connects once, and leaves without a trace in the tables of the system.
fn log_in(address: SocketAddr, caller: u32, packet: &[u8]) -> Outcome<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Addresses of their own, each with its ports.
    let from = Ipv4Addr::from_bits(0x7f01_0000 + caller);
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&address.into())?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(packet)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer != [0x20, 2, 0, 0] {
        return Err(format!("CONNACK is {answer:?}").into());
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
