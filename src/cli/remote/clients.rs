//! `hearthmq clients`: lists and shows clients.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use clap::{Args, Subcommand};

use super::{
    OutputOptions, RemoteOptions, encoded,
    many::{self, KeepAliveArguments, KickArguments},
    query,
    settings::{self, ClientSettingsCommand},
    table::{TextTable, duration, field, write_json, write_object},
};
use crate::cli::Failure;

/// Number of clients of one page.
const PAGE: usize = 1_000;

/// Commands about clients.
#[derive(Subcommand)]
pub(in crate::cli) enum ClientsCommand {
    /// List clients and the sessions of absent ones
    List(ListArguments),
    /// Show everything about a client
    Show(OneClient),
    /// End the connections of clients
    Kick(KickArguments),
    /// Change the Keep Alive of clients
    KeepAlive(KeepAliveArguments),
    /// List the last connections of a client, and why they ended
    History(OneClient),
    /// Rates, limits and the session expiry of a client
    #[command(subcommand)]
    Settings(ClientSettingsCommand),
}

#[derive(Args)]
pub(in crate::cli) struct ListArguments {
    /// Only clients whose identifier matches; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    client_id: Option<String>,
    /// Only clients of this user
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Only clients at this IP address or in this network
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Only clients of this listener
    #[arg(long, value_name = "URL")]
    listener: Option<String>,
    /// Only connected clients (true), or only absent ones (false)
    #[arg(long, value_name = "BOOL")]
    connected: Option<bool>,
    /// Only clients for which at least this number of messages waits
    #[arg(long, value_name = "NUMBER")]
    queued_min: Option<u64>,
    /// Stop after this number of clients
    #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
pub(in crate::cli) struct OneClient {
    /// The client identifier
    client_id: String,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(command: ClientsCommand) -> Result<(), Failure> {
    match command {
        ClientsCommand::List(arguments) => list(&arguments),
        ClientsCommand::Show(client) => show(&client),
        ClientsCommand::Kick(arguments) => many::kick(&arguments),
        ClientsCommand::KeepAlive(arguments) => many::keep_alive(&arguments),
        ClientsCommand::History(client) => history(&client),
        ClientsCommand::Settings(command) => settings::of_clients(&command),
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let filters = query(&[
        ("client_id", arguments.client_id.clone()),
        ("username", arguments.username.clone()),
        ("address", arguments.address.clone()),
        ("listener", arguments.listener.clone()),
        ("connected", arguments.connected.map(|is| is.to_string())),
        ("queued_min", arguments.queued_min.map(|min| min.to_string())),
    ]);
    let remote = arguments.remote.remote()?;
    let is_json = arguments.output.is_json();
    let mut table = TextTable::new(&[
        "CLIENT ID",
        "USER",
        "ONLINE",
        "ADDRESS",
        "MQTT",
        "KEEP ALIVE",
        "QUEUED",
        "CONNECTED AT",
    ]);
    // JSON is written page by page; a table needs all rows for the widths of its columns.
    let (mut left, mut cursor) = (arguments.limit, None);
    let mut missing = BTreeMap::new();
    while left > 0 {
        let page = query(&[("cursor", cursor)]);
        // The cursor is only a place in the list, so each page repeats the filters.
        let target = format!("/api/v1/clients?limit={}{filters}{page}", left.min(PAGE));
        let answer = remote.get(&target)?;
        for client in answer["items"].as_array().into_iter().flatten() {
            left = left.saturating_sub(1);
            if is_json {
                write_json(client)?;
                continue;
            }
            let columns = [
                "client_id",
                "username",
                "online",
                "address",
                "protocol",
                "keep_alive",
                "queued",
                "connected_at",
            ];
            table.add(columns.map(|name| field(client, name)));
        }
        for node in answer["missing_nodes"].as_array().into_iter().flatten() {
            missing.insert(field(node, "node"), field(node, "state"));
        }
        cursor = answer["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if !is_json {
        table.write()?;
    }
    // Beside the list, so that a program reads clients alone.
    for (node, state) in missing {
        writeln!(io::stderr(), "the clients of node {node} ({state}) are missing")?;
    }
    Ok(())
}

fn show(client: &OneClient) -> Result<(), Failure> {
    let target = format!("/api/v1/client?id={}", encoded(&client.client_id));
    let shown = client.remote.remote()?.get(&target)?;
    match client.output.is_json() {
        true => write_json(&shown)?,
        false => write_object(&shown)?,
    }
    Ok(())
}

fn history(client: &OneClient) -> Result<(), Failure> {
    // One page: a broker keeps at most 1,000 connections of a client.
    let target = format!("/api/v1/client/history?id={}&limit=1000", encoded(&client.client_id));
    let answer = client.remote.remote()?.get(&target)?;
    let mut table = TextTable::new(&[
        "CONNECTED AT",
        "ENDED AT",
        "DURATION",
        "REASON",
        "BY",
        "ADDRESS",
        "MQTT",
    ]);
    for connection in answer["items"].as_array().into_iter().flatten() {
        if client.output.is_json() {
            write_json(connection)?;
            continue;
        }
        let lasted = connection["duration_ms"].as_u64().map(duration).unwrap_or_default();
        let text = |name: &str| field(connection, name);
        let (began, ended) = (text("connected_at"), text("ended_at"));
        let columns =
            [began, ended, lasted, text("reason"), text("by"), text("address"), text("protocol")];
        table.add(columns);
    }
    if !client.output.is_json() {
        table.write()?;
    }
    Ok(())
}
