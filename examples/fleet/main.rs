//! Shows what a change of Keep Alive does to a fleet of 1,000 clients that asked for 4 s.
//!
//! ```text
//! cargo run --release --example fleet
//! cargo run --release --example fleet -- --broker 127.0.0.1:1883 127.0.0.1:8080 admin:PASSWORD
//! ```
//!
//! Half of the clients send PINGREQ, half stay silent. Once all are connected, every second client
//! gets a Keep Alive of 30 s. Silent clients are disconnected 6 s after their last packet, or after
//! 45 s if their Keep Alive was changed; the others stay. It takes 50 s. The broker is one of this
//! program or, with `--broker`, a running one, which is called over REST.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod client;
mod target;

use std::{error::Error, time::Duration};

use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

const CLIENTS: u64 = 1_000;
const INTERVAL_SECS: u16 = 30;
const KINDS: [&str; 4] = ["silent", "silent, changed", "speaking", "speaking, changed"];

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = target::choose().await?;
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} {msg}")?;
    let bar = ProgressBar::new(CLIENTS).with_style(style).with_message("connected");
    let start = |number: u64| {
        let (mqtt, login, bar) = (target.mqtt, target.login.clone(), bar.clone());
        let id = format!("fleet-{number}");
        actix_rt::spawn(async move { client::live(&id, number % 4 >= 2, mqtt, &login, &bar).await })
    };
    let clients: Vec<_> = (0..CLIENTS).map(start).collect();
    // Changed only after all are connected, so that all are watched for the same time.
    while bar.position() < CLIENTS {
        sleep(Duration::from_millis(20)).await;
    }
    for number in (1..CLIENTS).step_by(2) {
        target.set_keep_alive(&format!("fleet-{number}"), INTERVAL_SECS).await?;
    }
    bar.set_message("connected, every second one was changed; now they are watched");

    let lived = join_all(clients).await;
    bar.finish_and_clear();
    for (kind, name) in KINDS.iter().enumerate() {
        let of_kind = lived.iter().skip(kind).step_by(KINDS.len());
        let ended: Vec<&Duration> = of_kind.flatten().flatten().flatten().collect();
        match (ended.iter().min(), ended.iter().max()) {
            (Some(first), Some(last)) => {
                println!("{name}: {} given up after {first:.2?} to {last:.2?}", ended.len());
            }
            _ => println!("{name}: all stay connected"),
        }
    }
    Ok(())
}
