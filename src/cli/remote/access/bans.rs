//! `hearthmq bans`: clients that are kept out.

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{Common, CommonArguments, encoded, field};
use crate::cli::Failure;

/// Commands about bans.
#[derive(Subcommand)]
pub(in crate::cli) enum BansCommand {
    /// List the bans
    List(CommonArguments),
    /// Keep clients out, and disconnect them
    Add(AddBanArguments),
    /// Lift a ban
    Lift(LiftArguments),
}

/// The clients that a ban keeps out.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Banned {
    /// Clients with this identifier; * stands for any text
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Clients of this user; * stands for any text
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Clients at this IP address or in this network
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
}

#[derive(Args)]
pub(in crate::cli) struct AddBanArguments {
    #[command(flatten)]
    banned: Banned,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The ban ends after this number of seconds [default: it stays until it is lifted]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct LiftArguments {
    #[command(flatten)]
    banned: Banned,
    #[command(flatten)]
    common: Common,
}

impl Banned {
    /// Returns kind and value.
    fn parts(&self) -> (&'static str, &str) {
        let all =
            [("client_id", &self.client_id), ("user", &self.username), ("address", &self.address)];
        let given = all.into_iter().find_map(|(kind, value)| Some((kind, value.as_deref()?)));
        given.unwrap_or(("client_id", "")) // clap has made sure that one is given
    }
}

pub(in crate::cli::remote) fn run(command: &BansCommand) -> Result<(), Failure> {
    match command {
        BansCommand::List(CommonArguments { common }) => {
            const HEAD: &[&str] = &["KIND", "VALUE", "REASON", "BY", "SET AT", "EXPIRES AT"];
            common.list("/api/v1/bans", usize::MAX, HEAD, |ban| {
                let names = ["kind", "value", "reason", "by", "set_at", "expires_at"];
                names.map(|name| field(ban, name)).to_vec()
            })
        }
        BansCommand::Add(AddBanArguments { banned, reason, ttl, common }) => {
            let mut body = Map::new();
            let (kind, value) = banned.parts();
            body.insert(kind.to_owned(), value.into());
            if let Some(reason) = reason {
                body.insert("reason".to_owned(), reason.clone().into());
            }
            if let Some(ttl) = ttl {
                body.insert("ttl_seconds".to_owned(), (*ttl).into());
            }
            common.make("POST", "/api/v1/bans", Some(&Value::from(body)))
        }
        BansCommand::Lift(LiftArguments { banned, common }) => {
            let (kind, value) = banned.parts();
            common.make(
                "DELETE",
                &format!("/api/v1/ban?kind={kind}&value={}", encoded(value)),
                None,
            )
        }
    }
}
