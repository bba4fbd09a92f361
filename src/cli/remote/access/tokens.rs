//! `hearthmq tokens`: credentials of services that call the REST interface.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{Common, CommonArguments, encoded, field, rules::json_of};
use crate::cli::Failure;

/// Commands about API tokens.
#[derive(Subcommand)]
pub(in crate::cli) enum TokensCommand {
    /// List the tokens, without their secrets
    List(CommonArguments),
    /// Make a token, and write its secret, which nobody can see again
    Create(CreateArguments),
    /// Remove a token: calls with it are refused from then on
    Delete(OneToken),
}

#[derive(Args)]
pub(in crate::cli) struct CreateArguments {
    /// The name of the token
    name: String,
    /// A file with its rules, a JSON list [default: standard input]
    file: Option<PathBuf>,
    /// It expires after this number of seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct OneToken {
    /// The name of the token
    name: String,
    #[command(flatten)]
    common: Common,
}

pub(in crate::cli::remote) fn run(command: &TokensCommand) -> Result<(), Failure> {
    match command {
        TokensCommand::List(CommonArguments { common }) => {
            const HEAD: &[&str] = &["NAME", "CREATED AT", "EXPIRES AT", "LAST USED AT", "RULES"];
            common.list("/api/v1/tokens", usize::MAX, HEAD, |token| {
                let names = ["name", "created_at", "expires_at", "last_used_at", "rules"];
                names.map(|name| field(token, name)).to_vec()
            })
        }
        TokensCommand::Create(CreateArguments { name, file, ttl, common }) => {
            let mut body = Map::new();
            body.insert("name".to_owned(), name.clone().into());
            body.insert("rules".to_owned(), json_of(file.as_ref())?);
            if let Some(ttl) = ttl {
                body.insert("ttl_seconds".to_owned(), (*ttl).into());
            }
            common.make("POST", "/api/v1/tokens", Some(&Value::from(body)))
        }
        TokensCommand::Delete(OneToken { name, common }) => {
            common.make("DELETE", &format!("/api/v1/token?name={}", encoded(name)), None)
        }
    }
}
