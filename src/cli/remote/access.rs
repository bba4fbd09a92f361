//! `hearthmq rules | tokens | bans | logins | audit`: permissions, and the log of their changes.

mod bans;
mod rules;
mod tokens;

use clap::{Args, Subcommand};
use serde_json::Value;

pub(in crate::cli) use self::{bans::BansCommand, rules::RulesCommand, tokens::TokensCommand};
pub(super) use self::{bans::run as run_bans, rules::run as run_rules, tokens::run as run_tokens};
use super::{common::Common, encoded, query, table::field};
use crate::cli::Failure;

#[derive(Args)]
pub(in crate::cli) struct AuditArguments {
    /// Stop after this number of entries
    #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    #[command(flatten)]
    common: Common,
}

/// Commands about failed logins.
#[derive(Subcommand)]
pub(in crate::cli) enum LoginsCommand {
    /// List addresses with failed logins
    List(CommonArguments),
    /// Show the failed logins of an address
    Show(LoginPlace),
    /// Forget the failed logins of an address, so that its next attempt is checked
    Forget(LoginPlace),
}

#[derive(Args)]
pub(in crate::cli) struct CommonArguments {
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct LoginPlace {
    /// The IP address
    address: String,
    /// Only this user at the address
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Lists the changes in the audit log.
pub(super) fn audit(arguments: &AuditArguments) -> Result<(), Failure> {
    const HEAD: &[&str] = &["AT", "ACTION", "USER", "ADDRESS", "TARGET", "OLD", "NEW"];
    arguments.common.list("/api/v1/audit", arguments.limit, HEAD, |entry| {
        let names = ["at", "action", "user", "address", "target", "old", "new"];
        names.map(|name| field(entry, name)).to_vec()
    })
}

/// Runs a command about failed logins.
pub(super) fn logins(command: &LoginsCommand) -> Result<(), Failure> {
    const HEAD: &[&str] = &["ADDRESS", "OVER", "FAILURES", "DELAY (MS)", "REFUSED (S)"];
    let row = |item: &Value| {
        let names = ["address", "over", "failures", "delay_ms", "refused_seconds"];
        names.map(|name| field(item, name)).to_vec()
    };
    match command {
        LoginsCommand::List(CommonArguments { common }) => {
            common.list("/api/v1/logins", usize::MAX, HEAD, row)
        }
        LoginsCommand::Show(place) => {
            let answer = place.common.remote.remote()?.get(&place.target())?;
            let items = answer["items"].as_array();
            place.common.write_all(items.into_iter().flatten(), HEAD, row)
        }
        LoginsCommand::Forget(place) => place.common.make("DELETE", &place.target(), None),
    }
}

impl LoginPlace {
    fn target(&self) -> String {
        let of_user = query(&[("username", self.username.clone())]).replacen('&', "?", 1);
        format!("/api/v1/logins/{}{of_user}", encoded(&self.address))
    }
}
