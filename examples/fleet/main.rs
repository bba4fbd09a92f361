//! What a change of Keep Alive does to a fleet of 1,000 clients that asked for 4 s.
//!
//! ```text
//! cargo run --release --example fleet
//! cargo run --release --example fleet -- --broker 127.0.0.1:1883 127.0.0.1:8080 admin:PASSWORD
//! ```
//!
//! Half of the clients speak, half fall silent; when all are connected, half of each kind are
//! given a Keep Alive of 30 s. The silent ones are given up 6 s after their last word, those that
//! were changed after 45 s; whoever speaks stays. It takes 50 s, and connects to a broker of its
//! own or, with `--broker`, to a running one, whose REST interface it then calls.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

mod client;

use std::{env, error::Error, time::Duration};

use client::{CLIENTS, Remote, live};
use futures_util::future::join_all;
use hearthmq::{Broker, auth::AllowAll};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

const INTERVAL_SECS: u16 = 30;

/// Where the clients connect, and who changes their Keep Alive.
enum Target {
    Own(Broker),
    Running(Remote),
}

impl Target {
    async fn choose() -> Result<Self, Box<dyn Error>> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        if let [flag, mqtt, http, login] = arguments.as_slice()
            && flag == "--broker"
        {
            return Ok(Self::Running(Remote::new(mqtt, http, login)?));
        }
        let builder = Broker::builder().tcp("127.0.0.1:0");
        let broker = builder
            .authenticator(AllowAll)
            .authorizer(AllowAll)
            .start()
            .await?;
        Ok(Self::Own(broker))
    }

    async fn change(&self, client_id: &str) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Own(broker) => drop(broker.set_keep_alive(client_id, INTERVAL_SECS).await?),
            Self::Running(remote) => remote.set_keep_alive(client_id, INTERVAL_SECS).await?,
        }
        Ok(())
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let target = Target::choose().await?;
    let remote = match &target {
        Target::Own(broker) => Remote::of(broker.local_addrs()[0]),
        Target::Running(remote) => remote.clone(),
    };
    let style = ProgressStyle::with_template("{bar:50} {pos} of {len} {msg}")?;
    let bar = ProgressBar::new(CLIENTS as u64)
        .with_style(style)
        .with_message("connected");
    let start = |number: usize| {
        let (remote, bar) = (remote.clone(), bar.clone());
        let id = format!("fleet-{number}");
        actix_rt::spawn(async move { live(&id, number % 4 >= 2, &remote, &bar).await })
    };
    let clients: Vec<_> = (0..CLIENTS).map(start).collect();
    while bar.position() < CLIENTS as u64 {
        sleep(Duration::from_millis(50)).await;
    }
    bar.set_message("connected, every second one changed to 30 s");
    for number in (1..CLIENTS).step_by(2) {
        target.change(&format!("fleet-{number}")).await?;
    }
    let ended: Vec<_> = join_all(clients).await;
    bar.finish();
    let kinds = ["silent", "silent, changed", "speaking", "speaking, changed"];
    for (kind, name) in kinds.iter().enumerate() {
        let of_kind = ended.iter().skip(kind).step_by(kinds.len());
        let ends: Vec<Duration> = of_kind.flatten().flatten().flatten().copied().collect();
        match (ends.iter().min(), ends.iter().max()) {
            (Some(first), Some(last)) => {
                println!(
                    "{name}: {} given up after {first:.2?} to {last:.2?}",
                    ends.len()
                );
            }
            _ => println!("{name}: all are still connected"),
        }
    }
    Ok(())
}
