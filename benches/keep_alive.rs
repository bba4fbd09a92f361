//! Measures how late silent clients are disconnected, in real time, with many connections.
//!
//!     cargo bench --bench keep_alive -- 100000
//!
//! Starts a broker in this process and connects that many clients over in-process streams, each
//! with a Keep Alive of 20 to 39 seconds, half of which are changed while the client is silent.
//! Prints how long after its deadline each client was disconnected. Too early is a failure; so is
//! more than 250 ms late.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark talks, and ends where it cannot go on"
)]

use std::time::{Duration, Instant};

use hearthmq::{
    Broker,
    auth::AllowAll,
    mqtt::{Connect, Packet},
};
use hearthmq_test::packets::{V3_1_1, connect_in, encoded};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinSet,
};

/// The promised maximum.
const LATE_MAX: Duration = Duration::from_millis(250);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[actix_web::main]
async fn main() {
    let clients = std::env::args().find_map(|text| text.parse().ok()).unwrap_or(10_000);
    let broker = Broker::builder().authenticator(AllowAll).authorizer(AllowAll);
    let broker = broker.start().await.unwrap();
    let mut silent = JoinSet::new();
    for number in 0..clients {
        let keep_alive_secs = 20 + (number % 20) as u16;
        let mut stream = connect(&broker, number, keep_alive_secs).await;
        // The broker counts from an earlier moment, so the measured delay is too large, never too
        // small.
        let connected = Instant::now();
        let broker = broker.clone();
        silent.spawn_local(async move {
            let mut due = connected + grace(keep_alive_secs);
            // Half of them are changed in the middle of a
            // silence, which must not give them more time.
            if number % 2 == 0 {
                tokio::time::sleep(Duration::from_secs(u64::from(keep_alive_secs))).await;
                let id = client_id(number);
                let shorter = keep_alive_secs / 2;
                broker.set_keep_alive(&id, shorter).await.unwrap();
                due = due.min(Instant::now() + grace(shorter));
            }
            stream.read_to_end(&mut Vec::new()).await.unwrap();
            Instant::now().saturating_duration_since(due)
        });
    }
    println!("{clients} clients are connected and silent");
    let mut late = silent.join_all().await;
    late.sort_unstable();
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    println!(
        "late by: half {:?}, 99 % {:?}, 99.9 % {:?}, all {:?}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    assert!(at(1.0) <= LATE_MAX, "late by more than {LATE_MAX:?}");
    broker.shutdown(Duration::from_secs(5)).await;
}

const fn grace(keep_alive_secs: u16) -> Duration {
    Duration::from_millis(keep_alive_secs as u64 * 1500)
}

fn client_id(number: usize) -> String {
    format!("meter-{number}")
}

async fn connect(broker: &Broker, number: usize, keep_alive_secs: u16) -> DuplexStream {
    let (mut here, there) = tokio::io::duplex(64);
    let serve = broker.serve(there, "192.0.2.1:1".parse().unwrap());
    let client_id = client_id(number);
    let packet = Connect { keep_alive: keep_alive_secs, ..connect_in(V3_1_1, &client_id) };
    let packet = Packet::Connect(Box::new(packet));
    here.write_all(&encoded(&packet, V3_1_1)).await.unwrap();
    serve.await;
    here.read_exact(&mut [0; 4]).await.unwrap();
    here
}
