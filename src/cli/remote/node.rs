//! `hearthmq node`: describes the node.

use clap::Args;

use super::{
    OutputOptions, RemoteOptions,
    table::{write_json, write_object},
};
use crate::cli::Failure;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let node = arguments.remote.remote()?.get("/api/v1/node")?;
    match arguments.output.is_json() {
        true => write_json(&node)?,
        false => write_object(&node)?,
    }
    Ok(())
}
