//! `hearthmq events`: follows which clients are online.

use std::io::{self, Write as _};

use clap::Args;
use serde_json::Value;

use super::{
    OutputOptions, RemoteOptions,
    follow::follow,
    query,
    table::{field, write_json},
};
use crate::cli::Failure;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// Only clients whose identifier matches; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    client_id: Option<String>,
    /// Only clients of this user
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Only changes of these kinds, such as client_connected,client_disconnected
    #[arg(long, value_name = "KINDS")]
    kinds: Option<String>,
    /// Continue behind the event with this id, instead of with a snapshot
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// End with the snapshot
    #[arg(long, conflicts_with = "after")]
    snapshot: bool,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let filters = query(&[
        ("client_id", arguments.client_id.clone()),
        ("username", arguments.username.clone()),
        ("kinds", arguments.kinds.clone()),
    ]);
    let remote = arguments.remote.remote()?;
    let is_json = arguments.output.is_json();
    follow(&remote, &filters, arguments.after.clone(), |event| {
        match is_json {
            true => write_json(event)?,
            false => write_line(event)?,
        }
        Ok(!(arguments.snapshot && event["event"] == "snapshot_end"))
    })
}

/// Writes an event as a line for people.
fn write_line(event: &Value) -> io::Result<()> {
    let data = &event["data"];
    let text = |name: &str| field(data, name);
    let mut line = format!("{} {}", text("timestamp"), field(event, "event"));
    for name in ["clientid", "username", "peername", "reason", "topic", "old", "new", "by"] {
        if !data[name].is_null() {
            line.push_str(&format!(" {name}={}", text(name)));
        }
    }
    writeln!(io::stdout().lock(), "{line}")
}
