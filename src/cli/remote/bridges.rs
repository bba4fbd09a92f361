//! `hearthmq bridges`: connections to other brokers.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{common::Common, encoded, table::field};
use crate::cli::Failure;

/// Where the calls are.
const PATH: &str = "/api/v1/bridges";

/// Commands about bridges.
#[derive(Subcommand)]
pub(in crate::cli) enum BridgesCommand {
    /// List the bridges with their states
    List(ListBridgesArguments),
    /// Show one bridge
    Show(BridgeArguments),
    /// Stop a bridge, also for later starts; its session collects messages all the same
    Stop(BridgeArguments),
    /// Start a bridge
    Start(BridgeArguments),
    /// End the connection of a bridge, or its wait, and connect now
    Reconnect(BridgeArguments),
}

#[derive(Args)]
pub(in crate::cli) struct ListBridgesArguments {
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct BridgeArguments {
    /// The name of the bridge
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &BridgesCommand) -> Result<(), Failure> {
    match command {
        BridgesCommand::List(ListBridgesArguments { common }) => {
            const HEAD: &[&str] =
                &["NAME", "STATE", "ADDRESS", "OUT", "IN", "QUEUED", "LAST ERROR"];
            let answer = common.remote.remote()?.get(PATH)?;
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            common.write_all(items.iter(), HEAD, |bridge| {
                vec![
                    field(bridge, "name"),
                    field(bridge, "state"),
                    field(bridge, "address"),
                    field(&bridge["out"], "messages"),
                    field(&bridge["in"], "messages"),
                    field(&bridge["queued"], "messages"),
                    field(&bridge["last_error"], "message"),
                ]
            })
        }
        BridgesCommand::Show(bridge) => bridge.make("GET", "", None),
        BridgesCommand::Stop(bridge) => bridge.make("PATCH", "", Some(&json!({"enabled": false}))),
        BridgesCommand::Start(bridge) => bridge.make("PATCH", "", Some(&json!({"enabled": true}))),
        BridgesCommand::Reconnect(bridge) => bridge.make("POST", "/reconnect", None),
    }
}

impl BridgeArguments {
    fn make(&self, method: &str, what: &str, body: Option<&Value>) -> Result<(), Failure> {
        self.common.make(method, &format!("{PATH}/{}{what}", encoded(&self.name)), body)
    }
}
