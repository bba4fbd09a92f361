//! Commands that change one client, some, or all that a selector selects: `hearthmq clients kick` and
//! `keep-alive`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use super::{
    OutputOptions, Remote, RemoteError, RemoteOptions, query,
    table::{TextTable, field, write_json},
};
use crate::cli::Failure;

/// Number of clients of one call.
const AT_A_TIME: usize = 1_000;

/// The clients that a command is about.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Which {
    /// Client identifiers
    #[arg(value_name = "CLIENT_ID", conflicts_with_all = ["clients", "username"])]
    client_ids: Vec<String>,
    /// All clients whose identifier matches; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    clients: Option<String>,
    /// All clients of this user
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
}

/// Whether a command with a selector asks before it changes anything.
#[derive(Args)]
struct Confirmation {
    /// Do not ask before clients are changed that --clients or --username select. Without a terminal,
    /// nobody can be asked, and this is required
    #[arg(long, short)]
    yes: bool,
}

#[derive(Args)]
pub(in crate::cli) struct KickArguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    confirmation: Confirmation,
    /// End the sessions too
    #[arg(long)]
    end_session: bool,
    /// Do not publish the Wills
    #[arg(long)]
    discard_will: bool,
    /// The Reason String for clients of MQTT 5.0
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
pub(in crate::cli) struct KeepAliveArguments {
    /// The Keep Alive, in seconds (30 to 1200)
    interval: u16,
    #[command(flatten)]
    which: Which,
    /// Keep it for later connections too
    #[arg(long)]
    sticky: bool,
    /// End it after this time
    #[arg(long, value_name = "SECONDS")]
    ttl_seconds: Option<u32>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// A call about several clients.
struct Many<'a> {
    target: &'a str,
    which: &'a Which,
    /// The parameters of the call besides its clients.
    options: Map<String, Value>,
    form: BodyForm,
    is_json: bool,
    /// Whether a selector selects the sessions of absent clients too.
    with_absent: bool,
    /// The effect on clients that a selector selects, for the question before the call.
    question: Option<String>,
}

/// The form of a body that lists clients.
enum BodyForm {
    /// An object with all identifiers.
    Object,
    /// A list with an object for each identifier.
    List,
}

impl Many<'_> {
    /// Returns the body of a call about these clients.
    fn listing(&self, client_ids: &[String]) -> Value {
        let with = |name: &str, value: Value| {
            let mut object = self.options.clone();
            object.insert(name.into(), value);
            Value::Object(object)
        };
        match self.form {
            BodyForm::Object => with("client_ids", json!(client_ids)),
            BodyForm::List => {
                client_ids.iter().map(|id| with("client_id", id.as_str().into())).collect()
            }
        }
    }
}

pub(super) fn kick(arguments: &KickArguments) -> Result<(), Failure> {
    let mut options = Map::new();
    if arguments.end_session {
        options.insert("session".into(), "end".into());
    }
    if arguments.discard_will {
        options.insert("will".into(), "discard".into());
    }
    options.extend(arguments.reason.clone().map(|reason| ("reason".into(), reason.into())));
    let is_json = arguments.output.is_json();
    let with_absent = arguments.end_session;
    let what = if with_absent { "End the sessions" } else { "End the connections" };
    let question = (!arguments.confirmation.yes).then(|| what.to_owned());
    let (target, form, which) = ("/api/v1/clients/kick", BodyForm::Object, &arguments.which);
    let many = Many { target, which, options, form, is_json, with_absent, question };
    run(&arguments.remote.remote()?, &many)
}

pub(super) fn keep_alive(arguments: &KeepAliveArguments) -> Result<(), Failure> {
    let mut options = Map::new();
    options.insert("interval".into(), arguments.interval.into());
    for (name, is) in [("sticky", arguments.sticky), ("dry_run", arguments.dry_run)] {
        if is {
            options.insert(name.into(), true.into());
        }
    }
    options.extend(arguments.ttl_seconds.map(|secs| ("ttl_seconds".into(), secs.into())));
    let is_json = arguments.output.is_json();
    let with_absent = arguments.sticky;
    let asks = !arguments.confirmation.yes && !arguments.dry_run;
    let question = asks.then(|| format!("Set {} s as the Keep Alive", arguments.interval));
    let (target, form, which) = ("/api/v1/keep-alive", BodyForm::List, &arguments.which);
    let many = Many { target, which, options, form, is_json, with_absent, question };
    run(&arguments.remote.remote()?, &many)
}

fn run(remote: &Remote, many: &Many<'_>) -> Result<(), Failure> {
    let Which { client_ids, clients, username } = many.which;
    let mut results = ManyResults::new(many.is_json);
    if !client_ids.is_empty() {
        // A call takes a bounded number of clients.
        for some in client_ids.chunks(AT_A_TIME) {
            let body = Some(("application/json", many.listing(some).to_string().into_bytes()));
            let answer = remote.ask("POST", many.target, body)?;
            answer["results"]
                .as_array()
                .into_iter()
                .flatten()
                .try_for_each(|it| results.add(it))?;
        }
        return results.end();
    }
    let connected = (!many.with_absent).then(|| "true".to_owned());
    let selector =
        [("client_id", clients.clone()), ("username", username.clone()), ("connected", connected)];
    // Counted once, for the question and for the progress bar.
    let counted = match &many.question {
        Some(what) => Some(confirm(what, || count(remote, &selector))?),
        None => None,
    };
    let bar = progress(|| counted.map_or_else(|| count(remote, &selector), Ok))?;
    let mut body = many.options.clone();
    body.extend(clients.clone().map(|pattern| ("clients".into(), pattern.into())));
    body.extend(username.clone().map(|name| ("username".into(), name.into())));
    let body = Some(("application/json", Value::Object(body).to_string().into_bytes()));
    for line in remote.lines("POST", many.target, body)?.lines() {
        let line = line.map_err(|_| RemoteError::CutOff)?;
        let Ok(result) = serde_json::from_str::<Value>(&line) else { continue };
        if let (None, Some(code)) = (result.get("client_id"), result["code"].as_str()) {
            // The broker could not go on.
            let message = field(&result, "message");
            bar.abandon();
            return Err(RemoteError::Refused { status: 503, code: code.into(), message }.into());
        }
        bar.inc(1);
        // Suspended, or the bar would be in the middle of the output.
        bar.suspend(|| results.add(&result))?;
    }
    bar.finish_and_clear();
    results.end()
}

/// Asks whether this is done to all selected clients; returns how many they are.
fn confirm(
    what: &str,
    count: impl FnOnce() -> Result<u64, RemoteError>,
) -> Result<u64, RemoteError> {
    // A script cannot answer; it must say `--yes`.
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(RemoteError::NobodyToAsk);
    }
    let clients = count()?;
    let mut answer = String::new();
    if clients > 0 {
        let all = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        write!(io::stderr(), "{what} of {all}? [y/N] ")?;
        io::stdin().lock().read_line(&mut answer)?;
    }
    let is_confirmed = clients == 0 || ["y", "yes"].contains(&&*answer.trim().to_lowercase());
    is_confirmed.then_some(clients).ok_or(RemoteError::NotConfirmed)
}

/// Returns a progress bar for this number of clients, on a terminal.
fn progress(all: impl FnOnce() -> Result<u64, RemoteError>) -> Result<ProgressBar, RemoteError> {
    if !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} clients, {eta} left");
    let bar = ProgressBar::with_draw_target(Some(all()?), ProgressDrawTarget::stderr());
    Ok(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
}

/// The results of several clients. On a terminal, a table has those that were not changed.
struct ManyResults {
    is_json: bool,
    failures: TextTable,
    /// The code of the last failure.
    code: String,
    failed: usize,
    all: usize,
    /// Whether the reader of standard output has enough. The clients are changed all the same.
    is_output_closed: bool,
}

impl ManyResults {
    const fn new(is_json: bool) -> Self {
        let failures = TextTable::new(&["CLIENT ID", "CODE"]);
        Self { is_json, failures, code: String::new(), failed: 0, all: 0, is_output_closed: false }
    }

    fn add(&mut self, result: &Value) -> io::Result<()> {
        let has_failed = result["success"] == false;
        self.all += 1;
        self.failed += usize::from(has_failed);
        if has_failed {
            self.code = field(result, "code");
            if !self.is_json {
                self.failures.add([field(result, "client_id"), self.code.clone()]);
            }
        }
        if self.is_json && !self.is_output_closed {
            self.is_output_closed = !is_read(write_json(result))?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        let Self { is_json, failures, code, failed, all, .. } = self;
        if !is_json && failed > 0 {
            is_read(failures.write())?;
        }
        if !is_json {
            crate::cli::note(&format!("{} of {all} clients", all - failed));
        }
        let is_unknown = || ["client_not_online", "client_not_found"].contains(&&*code);
        match failed {
            0 => Ok(()),
            // A script wants to tell "no such client" from other failures, by the exit code.
            1 if all == 1 && is_unknown() => Err(RemoteError::Unknown { code }.into()),
            _ => Err(RemoteError::SomeFailed { failed, all }.into()),
        }
    }
}

/// Returns whether the reader of standard output takes more.
fn is_read(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Returns the number of clients that a selector selects.
fn count(remote: &Remote, selector: &[(&str, Option<String>)]) -> Result<u64, RemoteError> {
    let target = format!("/api/v1/clients?limit=1&count=true{}", query(selector));
    Ok(remote.get(&target)?.get("total").and_then(Value::as_u64).unwrap_or_default())
}
