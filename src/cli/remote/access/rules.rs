//! `hearthmq rules`: the rules in the store, and which rule decides.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{super::RemoteError, Common, CommonArguments, encoded, field};
use crate::cli::Failure;

/// Commands about rules in the store.
#[derive(Subcommand)]
pub(in crate::cli) enum RulesCommand {
    /// List the rules in the store, in the order in which they are evaluated
    List(CommonArguments),
    /// Show a rule
    Show(OneRule),
    /// Add a rule, or replace it: a JSON object from a file or from standard input
    Put(PutArguments),
    /// Remove a rule
    Delete(OneRule),
    /// Say whether an action is allowed, and which rule decides
    Check(CheckArguments),
}

#[derive(Args)]
pub(in crate::cli) struct OneRule {
    /// The identifier of the rule
    id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct PutArguments {
    /// The identifier of the rule
    id: String,
    /// The file [default: standard input]
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct CheckArguments {
    /// connect, publish, subscribe, observe, control or administer
    action: String,
    /// The topic, or the filter of a subscription
    topic: Option<String>,
    /// The user name
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The client identifier
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The IP address
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// The URL of the listener
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,
    /// A group of the user; may be repeated
    #[arg(long, value_name = "NAME")]
    group: Vec<String>,
    /// A JSON file with a list of the rules of the identity alone, such as the claim `acl` of its token
    #[arg(long, value_name = "FILE")]
    acl: Option<PathBuf>,
    /// The QoS
    #[arg(long, value_name = "NUMBER")]
    qos: Option<u8>,
    #[command(flatten)]
    common: Common,
}

pub(in crate::cli::remote) fn run(command: &RulesCommand) -> Result<(), Failure> {
    match command {
        RulesCommand::List(CommonArguments { common }) => {
            common.list("/api/v1/rules", usize::MAX, &["PRIORITY", "ID", "RULE"], |rule| {
                ["priority", "id", "rule"].map(|name| field(rule, name)).to_vec()
            })
        }
        RulesCommand::Show(OneRule { id, common }) => common.make("GET", &path(id), None),
        RulesCommand::Delete(OneRule { id, common }) => common.make("DELETE", &path(id), None),
        RulesCommand::Put(PutArguments { id, file, common }) => {
            let rule = json_of(file.as_ref())?;
            common.make("PUT", &path(id), Some(&rule))
        }
        RulesCommand::Check(asked) => {
            asked.common.make("POST", "/api/v1/rules/check", Some(&asked.question()?))
        }
    }
}

fn path(id: &str) -> String {
    format!("/api/v1/rule?id={}", encoded(id))
}

/// Returns the JSON of a file, or of standard input.
pub(super) fn json_of(file: Option<&PathBuf>) -> Result<Value, Failure> {
    let mut text = String::new();
    match file {
        Some(file) => text = fs::read_to_string(file).map_err(RemoteError::Io)?,
        None => drop(io::stdin().read_to_string(&mut text).map_err(RemoteError::Io)?),
    }
    let invalid = |error: serde_json::Error| {
        RemoteError::Io(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    };
    Ok(serde_json::from_str(&text).map_err(invalid)?)
}

impl CheckArguments {
    fn question(&self) -> Result<Value, Failure> {
        let mut question = Map::new();
        question.insert("action".to_owned(), self.action.clone().into());
        for (name, value) in [
            ("topic", &self.topic),
            ("username", &self.username),
            ("client_id", &self.client_id),
            ("address", &self.address),
            ("listener", &self.listener),
        ] {
            // A member that is not given stays out: an empty one would be a value to compare.
            if let Some(value) = value {
                question.insert(name.to_owned(), value.clone().into());
            }
        }
        if !self.group.is_empty() {
            question.insert("groups".to_owned(), self.group.clone().into());
        }
        if let Some(qos) = self.qos {
            question.insert("qos".to_owned(), qos.into());
        }
        if let Some(file) = &self.acl {
            question.insert("acl".to_owned(), json_of(Some(file))?);
        }
        Ok(question.into())
    }
}
