//! `hearthmq publish`: publishes a message.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use super::{
    OutputOptions, RemoteOptions, encoded, query,
    table::{write_json, write_object},
};
use crate::cli::Failure;

#[derive(Args)]
pub(in crate::cli) struct Arguments {
    /// The topic
    topic: String,
    /// The payload [default: that of --file, or standard input]
    payload: Option<String>,
    /// Read the payload from a file
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    file: Option<PathBuf>,
    /// QoS: 0, 1 or 2
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Retain the message
    #[arg(long)]
    retain: bool,
    /// Wait until each session has the message so far
    #[arg(long, value_name = "STAGE")]
    wait: Option<PublishStage>,
    /// The longest time to wait, in milliseconds [default: 5000]
    #[arg(long, value_name = "MILLIS", requires = "wait")]
    timeout_ms: Option<u32>,
    #[command(flatten)]
    remote: RemoteOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// How far each delivery must have come.
#[derive(Clone, Copy, ValueEnum)]
enum PublishStage {
    /// In the store, for sessions that are durable
    Stored,
    /// Sent to the client
    Delivered,
    /// Acknowledged by the client
    Acknowledged,
}

impl PublishStage {
    const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Delivered => "delivered",
            Self::Acknowledged => "acknowledged",
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let payload = match (&arguments.payload, &arguments.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(file)) => fs::read(file).map_err(Failure::Input)?,
        (None, None) => {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(Failure::Input)?;
            bytes
        }
    };
    let options = query(&[
        ("retained", arguments.retain.then(|| "true".to_owned())),
        ("wait", arguments.wait.map(|stage| stage.name().to_owned())),
        ("timeout_ms", arguments.timeout_ms.map(|millis| millis.to_string())),
    ]);
    let topic = encoded(&arguments.topic);
    let target = format!("/topics/{topic}?qos={}{options}", arguments.qos);
    let body = Some(("application/octet-stream", payload));
    // After the payload is read, because a password may be asked for on the same terminal.
    let published = arguments.remote.remote()?.ask("POST", &target, body)?;
    match arguments.output.is_json() {
        true => write_json(&published)?,
        false => write_object(&published)?,
    }
    Ok(())
}
