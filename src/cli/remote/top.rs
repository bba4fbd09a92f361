//! `hearthmq top`: the present figures of the broker and its busiest clients, refreshed each second.
//!
//! Without a terminal, and with `--once`, it writes one table. Each second it asks for the metrics and for
//! as many clients as the terminal has lines, so its cost does not depend on the number of clients.

mod numbers;
mod reader;
mod screen;
mod state;
mod view;

use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::{
    numbers::TopNumbers,
    reader::{TopReader, WantedNumbers},
};
use super::{
    RemoteOptions,
    table::{TextTable, write_json},
};
use crate::cli::Failure;

/// Number of clients of a table, without an option on the command line.
const CLIENTS: u16 = 20;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Order the clients by this
    #[arg(long, value_name = "VALUE", default_value = "messages-in")]
    sort: SortBy,
    /// Only clients whose identifier contains this text; a pattern if it has a *
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write one table and end [default: if standard input or output is not a terminal]
    #[arg(long)]
    once: bool,
    /// Write the clients of one table as JSON, each on a line of its own
    #[arg(long)]
    json: bool,
    /// Maximum number of clients of a table
    #[arg(long, value_name = "NUMBER", default_value_t = CLIENTS,
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    #[command(flatten)]
    remote: RemoteOptions,
}

/// The order of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SortBy {
    /// Messages from the client in a second
    MessagesIn,
    /// Messages to the client in a second
    MessagesOut,
    /// Bytes from the client in a second
    BytesIn,
    /// Bytes to the client in a second
    BytesOut,
    /// Messages that wait for the client
    Queued,
    /// Time since the last packet of the client
    Idle,
}

impl SortBy {
    const ALL: [Self; 6] = [
        Self::MessagesIn,
        Self::MessagesOut,
        Self::BytesIn,
        Self::BytesOut,
        Self::Queued,
        Self::Idle,
    ];

    /// Returns its name in the REST interface.
    const fn name(self) -> &'static str {
        match self {
            Self::MessagesIn => "messages_in",
            Self::MessagesOut => "messages_out",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::Queued => "queued",
            Self::Idle => "idle",
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut reader = TopReader::new(arguments.remote.remote()?);
    let wanted = WantedNumbers {
        sort: arguments.sort,
        limit: arguments.limit.into(),
        filter: arguments.filter.clone().unwrap_or_default(),
        shown: None,
    };
    let is_live = io::stdin().is_terminal() && io::stdout().is_terminal();
    if is_live && !arguments.once && !arguments.json {
        let first = reader.read(&wanted)?; // before the terminal is changed, so that an error is seen
        return Ok(screen::show(reader, wanted, first)?);
    }
    reader.read(&wanted)?;
    // Rates are differences, so one table needs two readings.
    reader.wait_a_second();
    let numbers = reader.read(&wanted)?;
    if arguments.json {
        return Ok(numbers.clients.iter().try_for_each(write_json)?);
    }
    write_once(&numbers)?;
    Ok(())
}

/// Writes the numbers once.
fn write_once(numbers: &TopNumbers) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for line in numbers.summary() {
        writeln!(output, "{line}")?;
    }
    drop(output);
    let mut table = TextTable::new(&view::HEAD);
    numbers.clients.iter().for_each(|client| table.add(view::row(client)));
    table.write()
}

/// Returns the text of a member; empty if there is none.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => super::table::plain(text).into_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
