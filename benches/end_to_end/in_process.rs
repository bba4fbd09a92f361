//! Clients over in-process streams: more of them than a process may open files.
//!
//! Broker and clients share one thread, so the measurement is an upper limit of the broker's cost.

use std::time::{Duration, Instant};

use actix_rt::System;
use hearthmq::{Broker, auth::AllowAll, limits::Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Outcome, brokers::Usage, client::Outbox};
use hearthmq::mqtt::QoS;

const PAYLOAD: [u8; 64] = [b'x'; 64];
/// Capacity of a stream in each direction.
const STREAM_BYTES: usize = 512;
/// Messages that are published before they are received.
const AT_ONCE: usize = 1_000;
const TIME: Duration = Duration::from_secs(2);

/// Returns the microseconds of CPU time of a delivery, with this many connections in pairs that
/// take turns.
pub(crate) fn micros_a_delivery(connections: usize) -> Outcome<f64> {
    System::new().block_on(measure((connections / 2).max(1)))
}

async fn measure(pairs: usize) -> Outcome<f64> {
    let limits = Limits { connections_max: u32::MAX, ..Limits::default() };
    let broker = Broker::builder().authenticator(AllowAll).authorizer(AllowAll).limits(limits);
    let broker = broker.shards(1).start().await?;
    let mut clients = Vec::with_capacity(pairs);
    let mut published = Vec::with_capacity(pairs);
    for number in 0..pairs {
        let topic = format!("bench/{number}");
        let mut subscriber = connect(&broker, format!("s{number}")).await?;
        let mut outbox = Outbox::default();
        outbox.subscribe(1, std::slice::from_ref(&topic), QoS::AtMostOnce);
        subscriber.write_all(&outbox.take()).await?;
        subscriber.read_exact(&mut [0; 5]).await?;
        clients.push((connect(&broker, format!("p{number}")).await?, subscriber));
        outbox.publish(&topic, &PAYLOAD, QoS::AtMostOnce, 0);
        published.push(outbox.take());
    }
    let mut buffer = [0; STREAM_BYTES];
    let mut deliveries = 0;
    let (began, before) = (Instant::now(), Usage::of(std::process::id()));
    let mut next = 0;
    while began.elapsed() < TIME {
        // Some pairs at a time: with all of them the buffers of the streams would be the limit.
        let some: Vec<usize> = (0..AT_ONCE.min(pairs)).map(|at| (next + at) % pairs).collect();
        next += some.len();
        for at in &some {
            clients[*at].0.write_all(&published[*at]).await?;
        }
        for at in &some {
            clients[*at].1.read_exact(&mut buffer[..published[*at].len()]).await?;
        }
        deliveries += some.len();
    }
    let after = Usage::of(std::process::id());
    broker.shutdown(Duration::ZERO).await;
    Ok((after.cpu_secs - before.cpu_secs) / deliveries as f64 * 1e6)
}

async fn connect(broker: &Broker, client_id: String) -> Outcome<DuplexStream> {
    let (mut here, there) = tokio::io::duplex(STREAM_BYTES);
    let mut outbox = Outbox::default();
    outbox.connect(&client_id, true);
    here.write_all(&outbox.take()).await?;
    broker.serve(there, "192.0.2.1:1".parse()?).await;
    here.read_exact(&mut [0; 4]).await?;
    Ok(here)
}
