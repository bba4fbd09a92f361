//! `hearthmq certificates`: the certificates of connected clients, revoked ones, and pinned ones.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    OutputOptions, RemoteOptions, encoded, query,
    table::{TextTable, field, write_json},
};
use crate::cli::Failure;

/// Number of certificates of one page.
const PAGE: usize = 1_000;

/// Commands about certificates.
#[derive(Subcommand)]
pub(in crate::cli) enum CertificatesCommand {
    /// List the certificates of connected clients: first those that expire first
    List(CertificateListArguments),
    /// List the certificates that were revoked
    Revoked(CertificateListArguments),
    /// Revoke a certificate; connections with it end
    Revoke(RevokeArguments),
    /// Accept a revoked certificate again
    Accept(NameArguments),
    /// List the certificates that are pinned to client identifiers
    Pins(CertificateListArguments),
    /// Remove the pin of a client identifier; the next certificate that the client shows is pinned
    Unpin(UnpinArguments),
}

#[derive(Args)]
pub(in crate::cli) struct CertificateListArguments {
    /// Stop after this number of certificates
    #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
pub(in crate::cli) struct NameArguments {
    /// The serial number in hexadecimal, with or without colons
    serial_number: String,
    /// The issuer, as `hearthmq certificates list` shows it
    #[arg(long)]
    issuer: String,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args)]
pub(in crate::cli) struct RevokeArguments {
    #[command(flatten)]
    name: NameArguments,
    /// Why, for people
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Args)]
pub(in crate::cli) struct UnpinArguments {
    /// The client identifier
    client_id: String,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(command: CertificatesCommand) -> Result<(), Failure> {
    match command {
        CertificatesCommand::List(arguments) => list(
            &arguments,
            "/api/v1/certificates",
            &["CLIENT", "EXPIRES AT", "SERIAL NUMBER", "SUBJECT", "ISSUER"],
            &["client_id", "expires_at", "serial_number", "subject", "issuer"],
        ),
        CertificatesCommand::Revoked(arguments) => list(
            &arguments,
            "/api/v1/certificates/revoked",
            &["SERIAL NUMBER", "ISSUER", "REVOKED AT", "BY", "REASON"],
            &["serial_number", "issuer", "revoked_at", "by", "reason"],
        ),
        CertificatesCommand::Revoke(RevokeArguments { name, reason }) => revoke(&name, reason),
        CertificatesCommand::Accept(name) => accept(&name),
        CertificatesCommand::Pins(arguments) => list(
            &arguments,
            "/api/v1/certificates/pins",
            &["CLIENT", "PINNED AT", "SERIAL NUMBER", "SUBJECT", "ISSUER"],
            &["client_id", "pinned_at", "serial_number", "subject", "issuer"],
        ),
        CertificatesCommand::Unpin(arguments) => unpin(&arguments),
    }
}

fn list(
    arguments: &CertificateListArguments,
    path: &str,
    head: &'static [&'static str],
    columns: &[&str],
) -> Result<(), Failure> {
    let remote = arguments.remote.remote()?;
    let is_json = arguments.output.is_json();
    let mut table = TextTable::new(head);
    let (mut left, mut cursor) = (arguments.limit, None);
    // JSON is written page by page; a table waits for its widest row.
    while left > 0 {
        let page = query(&[("cursor", cursor)]);
        let answer = remote.get(&format!("{path}?limit={}{page}", left.min(PAGE)))?;
        for item in answer["items"].as_array().into_iter().flatten() {
            left = left.saturating_sub(1);
            match is_json {
                true => write_json(item)?,
                false => table.add(columns.iter().map(|name| field(item, name))),
            }
        }
        cursor = answer["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if !is_json {
        table.write()?;
    }
    Ok(())
}

fn revoke(name: &NameArguments, reason: Option<String>) -> Result<(), Failure> {
    let NameArguments { serial_number, issuer, .. } = name;
    let body = json!({ "issuer": issuer, "serial_number": serial_number, "reason": reason });
    let body = Some(("application/json", body.to_string().into_bytes()));
    let changed = name.remote.remote()?.ask("POST", "/api/v1/certificates/revoked", body)?;
    told(&format!("{serial_number} is revoked"), &changed, &name.output)
}

fn accept(name: &NameArguments) -> Result<(), Failure> {
    let NameArguments { serial_number, issuer, .. } = name;
    let (serial, issuer) = (encoded(serial_number), encoded(issuer));
    let target = format!("/api/v1/certificates/revoked/{serial}?issuer={issuer}");
    let changed = name.remote.remote()?.ask("DELETE", &target, None)?;
    told(&format!("{serial_number} is accepted again"), &changed, &name.output)
}

fn unpin(UnpinArguments { client_id, remote, output }: &UnpinArguments) -> Result<(), Failure> {
    let target = format!("/api/v1/certificates/pin?id={}", encoded(client_id));
    let changed = remote.remote()?.ask("DELETE", &target, None)?;
    if output.is_json() {
        return Ok(write_json(&changed)?);
    }
    crate::cli::print(&format!("{client_id} has no pinned certificate any more\n"))
}

/// Writes what a change has done.
fn told(what: &str, changed: &Value, output: &OutputOptions) -> Result<(), Failure> {
    if output.is_json() {
        return Ok(write_json(changed)?);
    }
    let touched = changed["sessions_touched"].as_u64().unwrap_or_default();
    crate::cli::print(&format!("{what}; sessions touched: {touched}\n"))
}
