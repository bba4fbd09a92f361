//! `hearthmq cluster`: the cluster of which a broker is a member.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    common::Common,
    table::{field, write_json, write_object},
};
use crate::cli::Failure;

/// Commands about the cluster.
#[derive(Subcommand)]
pub(in crate::cli) enum ClusterCommand {
    /// List the members with their leases and messages, as the broker that is asked sees them
    Status(ClusterStatusArguments),
}

#[derive(Args)]
pub(in crate::cli) struct ClusterStatusArguments {
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(command: &ClusterCommand) -> Result<(), Failure> {
    const HEAD: &[&str] =
        &["NODE", "STATE", "LIFE", "KEEPER", "LEASE AGES (MS)", "SENT", "RECEIVED", "WAITING"];
    let ClusterCommand::Status(ClusterStatusArguments { common }) = command;
    let answer = common.remote.remote()?.get("/api/v1/cluster")?;
    if common.output.is_json() {
        return Ok(write_json(&answer)?);
    }
    // Without the members, which are a table.
    let mut own = answer;
    let members = own.as_object_mut().and_then(|own| own.remove("members"));
    write_object(&own)?;
    let members = members.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    // A head without rows would look like a cluster without members.
    if members.is_empty() {
        return Ok(());
    }
    common.write_all(members.iter(), HEAD, |member| {
        let ages = member["lease_ages_ms"].as_array().cloned().unwrap_or_default();
        let ages: Vec<_> = ages.iter().map(ToString::to_string).collect();
        vec![
            field(member, "node"),
            field(member, "state"),
            field(member, "incarnation"),
            field(member, "keeper"),
            ages.join(" "),
            field(&member["mail"], "messages_sent"),
            field(&member["mail"], "messages_received"),
            field(&member["mail"], "unacknowledged"),
        ]
    })
}
