//! `hearthmq health`: asks whether the broker accepts clients, for health checks of containers.

use clap::Args;

use super::{RemoteOptions, table::write_json};
use crate::cli::Failure;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    remote: RemoteOptions,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    Ok(write_json(&arguments.remote.stranger()?.get("/health/ready")?)?)
}
