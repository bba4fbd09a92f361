//! `hearthmq rules | tokens | bans | logins | audit`: who may do what, and who has changed it.

mod bans;
mod rules;
mod tokens;

use clap::{Args, Subcommand};
use serde_json::Value;

pub(in crate::cli) use self::{bans::BansCommand, rules::RulesCommand, tokens::TokensCommand};
pub(super) use self::{bans::run as run_bans, rules::run as run_rules, tokens::run as run_tokens};
use super::{
    OutputOptions, Remote, RemoteError, RemoteOptions,
    clients::query,
    encoded,
    table::{TextTable, field, write_json, write_object},
};
use crate::cli::Failure;

/// Number of items of one page.
const PAGE: usize = 1_000;

/// The broker, the account, and how results are written.
#[derive(Args)]
struct Common {
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

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

/// Lists who has changed what.
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

impl Common {
    /// Writes all items of a list, page by page.
    fn list(
        &self,
        path: &str,
        limit: usize,
        head: &'static [&'static str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Result<(), Failure> {
        let remote = self.remote.remote()?;
        let (mut items, mut left, mut cursor) = (Vec::new(), limit, None);
        while left > 0 {
            let page = query(&[("cursor", cursor)]);
            let answer = remote.get(&format!("{path}?limit={}{page}", left.min(PAGE)))?;
            let found = answer["items"].as_array().cloned().unwrap_or_default();
            left = left.saturating_sub(found.len().max(1));
            if self.output.is_json() {
                found.iter().try_for_each(write_json)?;
            } else {
                items.extend(found);
            }
            cursor = answer["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        match self.output.is_json() {
            true => Ok(()),
            false => self.write_all(items.iter(), head, row),
        }
    }

    fn write_all<'v>(
        &self,
        items: impl Iterator<Item = &'v Value>,
        head: &'static [&'static str],
        row: impl Fn(&Value) -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.output.is_json() {
            for item in items {
                write_json(item)?;
            }
            return Ok(());
        }
        let mut table = TextTable::new(head);
        items.for_each(|item| table.add(row(item)));
        Ok(table.write()?)
    }

    /// Makes a call and writes its answer.
    fn make(&self, method: &str, target: &str, body: Option<&Value>) -> Result<(), Failure> {
        let answer = ask(&self.remote.remote()?, method, target, body)?;
        match self.output.is_json() {
            true => write_json(&answer)?,
            false => write_object(&answer)?,
        }
        Ok(())
    }
}

/// Makes a call with a JSON body.
fn ask(
    remote: &Remote,
    method: &str,
    target: &str,
    body: Option<&Value>,
) -> Result<Value, RemoteError> {
    remote.ask(method, target, body.map(|body| ("application/json", body.to_string().into_bytes())))
}
