//! `hearthmq trace`: shows every packet of a client as it comes, or writes them to a file.
//!
//! The trace ends on the broker with the command, however that ends.

mod line;

use std::{
    fs::File,
    io::{self, BufRead as _, BufWriter, Write},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::{
    pin,
    runtime::Builder,
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

use self::line::RecordLines;
use super::{
    OutputOptions, Remote, RemoteError, RemoteOptions, common::ask, follow::check_output,
    http::has_timed_out,
};
use crate::cli::{Failure, files::open_private, note};

/// Lines that wait to be written.
const LINES_MAX: usize = 1_000;
/// The pause before the records are read again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["client", "username", "address"]))]
pub(in crate::cli) struct Arguments {
    /// The Client Identifier; it may connect later, and several times
    client: Option<String>,
    /// All clients of this user
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// All clients at this address, or in a network such as 10.0.0.0/8
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Seconds after which the trace ends
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Only these kinds, such as connect,publish,connection_ended
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    kinds: Option<Vec<String>>,
    /// With the contents of messages; needs the permission administer
    #[arg(long)]
    payloads: bool,
    /// Write lines of JSON to this file, which only its owner may read
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    format: OutputOptions,
}

/// Where records go.
enum TraceSink {
    File(BufWriter<File>),
    Json,
    Lines(RecordLines),
}

impl Arguments {
    fn sink(&self) -> Result<TraceSink, RemoteError> {
        let Some(path) = &self.output else {
            let names_clients = self.client.is_none();
            return Ok(match self.format.is_json() {
                true => TraceSink::Json,
                false => TraceSink::Lines(RecordLines::new(names_clients)),
            });
        };
        // Opened before the trace starts: a wrong path must not leave a trace on the broker.
        let open = || Ok(TraceSink::File(BufWriter::new(open_private(path)?)));
        open().map_err(|error: io::Error| {
            let named = format!("{}: {error}", path.display());
            io::Error::new(error.kind(), named).into()
        })
    }

    fn body(&self) -> Value {
        let mut body = json!({ "duration_seconds": self.seconds, "payloads": self.payloads });
        let given = [
            ("client_id", json!(self.client)),
            ("username", json!(self.username)),
            ("address", json!(self.address)),
            ("kinds", json!(self.kinds)),
        ];
        for (name, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
            body[name] = value;
        }
        body
    }
}

impl TraceSink {
    /// Writes a record. An empty line only says that the broker is there.
    fn take(&mut self, line: &str) -> Result<(), Failure> {
        let record = serde_json::from_str::<Value>(line).ok();
        let record = record.filter(|record| record["kind"] != "trace_ended");
        let Some(record) = record else {
            return match self {
                Self::File(file) => Ok(file.flush().map_err(RemoteError::from)?),
                Self::Json | Self::Lines(_) => Ok(check_output()?),
            };
        };
        match self {
            Self::File(file) => Ok(writeln!(file, "{line}").map_err(RemoteError::from)?),
            Self::Json => Ok(writeln!(io::stdout().lock(), "{line}")?),
            Self::Lines(lines) => Ok(lines.write(&record)?),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let remote = Arc::new(arguments.remote.remote()?);
    let mut sink = arguments.sink()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // From before the trace starts: a signal that ended the command now would leave it on the broker.
    let mut signals = runtime.block_on(async { EndingSignals::new() })?;
    let started = runtime.block_on(start(&remote, arguments.body(), &mut signals))?;
    let path = format!("/api/v1/traces/{}", started["id"].as_str().unwrap_or_default());
    let shown = match signals.has_come {
        true => Ok(()),
        false => runtime.block_on(show(&remote, &path, &mut sink, &mut signals)),
    };
    // Before the trace ends, which removes its counters.
    let state = remote.get(&path);
    // Without it the trace would go on to its time; one that is gone needs no end.
    let ended = remote.ask("DELETE", &path, None);
    if let TraceSink::File(file) = &mut sink {
        file.flush().map_err(RemoteError::from)?;
    }
    if let Ok(state) = state {
        tell_lost(&state);
    }
    shown?;
    match ended {
        Ok(_) | Err(RemoteError::Refused { status: 404, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The signals that end the command.
struct EndingSignals {
    interrupted: Signal,
    terminated: Signal,
    /// Whether one has come.
    has_come: bool,
}

impl EndingSignals {
    fn new() -> io::Result<Self> {
        let (interrupted, terminated) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupted, terminated, has_come: false })
    }

    async fn next(&mut self) {
        select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
        self.has_come = true;
    }
}

/// Starts the trace. After a signal, it waits for the answer, which names the trace to end; a second
/// signal ends that.
async fn start(
    remote: &Arc<Remote>,
    body: Value,
    signals: &mut EndingSignals,
) -> Result<Value, Failure> {
    let (sender, answer) = oneshot::channel();
    let its_remote = Arc::clone(remote);
    // The call blocks; a thread of its own lets the command notice signals.
    thread::spawn(move || {
        drop(sender.send(ask(&its_remote, "POST", "/api/v1/traces", Some(&body))));
    });
    pin!(answer);
    loop {
        let was_asked = signals.has_come;
        select! {
            biased;
            answer = &mut answer => {
                return Ok(answer.map_err(|_| RemoteError::CutOff)??);
            }
            () = signals.next() => {}
        }
        if was_asked {
            return Err(RemoteError::from(io::Error::from(io::ErrorKind::Interrupted)).into());
        }
        note("waiting for the broker, to end the trace; interrupt again to leave it");
    }
}

/// Says how many packets are missing.
fn tell_lost(state: &Value) {
    for (name, what) in [
        ("dropped", "records left to make room for newer ones, some perhaps before they were read"),
        (
            "skipped",
            "packets were not recorded, because more came in a second than a trace records",
        ),
    ] {
        let number = state[name].as_u64().unwrap_or_default();
        if number > 0 {
            note(&format!("{number} {what}"));
        }
    }
}

/// Writes records until the trace ends, or until a signal ends the command.
async fn show(
    remote: &Arc<Remote>,
    path: &str,
    sink: &mut TraceSink,
    signals: &mut EndingSignals,
) -> Result<(), Failure> {
    // Bounded: a slow terminal slows the reader, and the broker then counts what is missed.
    let (sender, mut lines) = mpsc::channel(LINES_MAX);
    let reader = (Arc::clone(remote), path.to_owned());
    thread::spawn(move || {
        let (remote, path) = reader;
        if let Err(error) = read(&remote, &path, &sender) {
            drop(sender.blocking_send(Err(error)));
        }
    });
    loop {
        let line = select! {
            () = signals.next() => return Ok(()),
            line = lines.recv() => line,
        };
        match line {
            Some(Ok(line)) => sink.take(&line)?,
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
    }
}

/// Sends the lines of a trace, over connections that may end: each continues behind the last record.
fn read(
    remote: &Remote,
    path: &str,
    sender: &mpsc::Sender<Result<String, RemoteError>>,
) -> Result<(), RemoteError> {
    let mut after = 0;
    loop {
        let lines = remote.lines("GET", &format!("{path}?after={after}"), None)?;
        let mut has_timed = false;
        for line in lines.lines() {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    // The command limits the time of an answer, so its end is not a fault.
                    has_timed = has_timed_out(&error);
                    break;
                }
            };
            let record = serde_json::from_str::<Value>(&line).unwrap_or_default();
            // Noted before the line is passed on, so that it is not read twice.
            after = record["number"].as_u64().unwrap_or(after);
            let is_last = record["kind"] == "trace_ended";
            // Without a receiver, the command has ended.
            if sender.blocking_send(Ok(line)).is_err() || is_last {
                return Ok(());
            }
        }
        // A broker that ends its answers early must not be asked without a pause.
        if !has_timed {
            note("the broker has ended its answer early; reading again");
            thread::sleep(PAUSE);
        }
    }
}
