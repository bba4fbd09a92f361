//! Commands that ask a running broker over its REST interface.
//!
//! Exit codes: 0 for success; 1 if the broker cannot be reached or is not ready, or for a fault on this
//! side; 2 for a wrong command line, or a selector without a terminal and without `--yes`; 3 if the
//! broker refuses the call; 4 if it does not know the client or user (404); 5 if some of several clients
//! were not changed, or lines not imported.

mod access;
mod account;
mod bridges;
mod certificates;
mod clients;
mod cluster;
mod common;
mod events;
mod follow;
mod health;
mod http;
mod many;
mod node;
mod publish;
mod settings;
mod table;
mod top;
mod trace;
mod users;

use std::io::{self, IsTerminal as _};

use clap::{Args, Subcommand};

use self::http::Remote;
pub(super) use self::{account::RemoteOptions, clients::ClientsCommand, http::RemoteError};
use super::Failure;

/// The help text of remote commands about exit codes.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the broker cannot be reached or is not ready, a fault on this side, or the answer to the question was no
  2  a wrong command line, or a selector without --yes where nobody can be asked
  3  the broker refuses the call
  4  the broker does not know the client or user, or the client is not online
  5  some of several clients were not changed, or lines not imported";

/// Commands that ask a running broker.
#[derive(Subcommand)]
#[command(defer = true)]
pub(super) enum RemoteCommand {
    /// List clients, show one, change Keep Alives, end connections
    #[command(subcommand, after_help = EXIT_CODES)]
    Clients(ClientsCommand),
    /// Accounts in the broker's store: list, create, credentials, import, export
    #[command(subcommand, after_help = EXIT_CODES)]
    Users(users::UsersCommand),
    /// List certificates of connected clients, revoke certificates
    #[command(subcommand, after_help = EXIT_CODES)]
    Certificates(certificates::CertificatesCommand),
    /// Connections to other brokers: list, show, stop, start
    #[command(subcommand, after_help = EXIT_CODES)]
    Bridges(bridges::BridgesCommand),
    /// The cluster of which the broker is a member
    #[command(subcommand, after_help = EXIT_CODES)]
    Cluster(cluster::ClusterCommand),
    /// Follow which clients are online
    #[command(after_help = EXIT_CODES)]
    Events(events::Arguments),
    /// Watch rates and the busiest clients
    #[command(after_help = EXIT_CODES)]
    Top(top::Arguments),
    /// Show every packet of a client for a time
    #[command(after_help = EXIT_CODES)]
    Trace(trace::Arguments),
    /// Publish a message
    #[command(after_help = EXIT_CODES)]
    Publish(publish::Arguments),
    /// List and change the rules in the store, and ask which rule decides
    #[command(subcommand, after_help = EXIT_CODES)]
    Rules(access::RulesCommand),
    /// Make and remove API tokens, with which services call the REST interface
    #[command(subcommand, after_help = EXIT_CODES)]
    Tokens(access::TokensCommand),
    /// Keep clients out
    #[command(subcommand, after_help = EXIT_CODES)]
    Bans(access::BansCommand),
    /// Look at failed logins, and forget them
    #[command(subcommand, after_help = EXIT_CODES)]
    Logins(access::LoginsCommand),
    /// List the changes in the audit log
    #[command(after_help = EXIT_CODES)]
    Audit(access::AuditArguments),
    /// Ask whether the broker is ready, as the health check of a container does; needs no account
    #[command(after_help = EXIT_CODES)]
    Health(health::Arguments),
    /// Describe the node: version, listeners, limits
    #[command(after_help = EXIT_CODES)]
    Node(node::Arguments),
}

/// How results are written.
#[derive(Args)]
struct OutputOptions {
    /// Write JSON, each item on a line of its own [default: if standard output is not a terminal]
    #[arg(long, global = true)]
    json: bool,
}

impl OutputOptions {
    fn is_json(&self) -> bool {
        self.json || !io::stdout().is_terminal()
    }
}

/// Runs a command.
pub(super) fn run(command: RemoteCommand) -> Result<(), Failure> {
    match command {
        RemoteCommand::Clients(command) => clients::run(command),
        RemoteCommand::Users(command) => users::run(command),
        RemoteCommand::Certificates(command) => certificates::run(command),
        RemoteCommand::Bridges(command) => bridges::run(&command),
        RemoteCommand::Cluster(command) => cluster::run(&command),
        RemoteCommand::Events(arguments) => events::run(&arguments),
        RemoteCommand::Top(arguments) => top::run(&arguments),
        RemoteCommand::Trace(arguments) => trace::run(&arguments),
        RemoteCommand::Publish(arguments) => publish::run(&arguments),
        RemoteCommand::Rules(command) => access::run_rules(&command),
        RemoteCommand::Tokens(command) => access::run_tokens(&command),
        RemoteCommand::Bans(command) => access::run_bans(&command),
        RemoteCommand::Logins(command) => access::logins(&command),
        RemoteCommand::Audit(arguments) => access::audit(&arguments),
        RemoteCommand::Health(arguments) => health::run(&arguments),
        RemoteCommand::Node(arguments) => node::run(&arguments),
    }
}

/// Returns the parameters of a query, those that are given.
fn query(parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    given.map(|(name, value)| format!("&{name}={}", encoded(value))).collect()
}

/// Percent-encodes a text for a segment of a path or a value of a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            // Also of a dot: an id of dots has a special meaning in a path.
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
