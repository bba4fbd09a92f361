//! The words that the dialogues are spoken in: a world with a broker, and clients that say what
//! they send and what they expect, packet by packet.

mod client;
pub(crate) mod packets;

pub(crate) use client::Client;

use std::time::Duration;

use hearthmq::{
    Broker,
    auth::{AllowAll, Authorizer},
    broker::Builder,
    limits::Limits,
};
use tokio::io::DuplexStream;

/// A broker on this thread and on virtual time: whenever everybody waits, the clock jumps to the
/// next thing that is due.
pub(crate) async fn world() -> Broker {
    world_with(|builder| builder).await
}

/// The same, configured.
pub(crate) async fn world_with(configure: impl FnOnce(Builder) -> Builder) -> Broker {
    tokio::time::pause();
    configure(builder()).start().await.unwrap()
}

/// A broker to be, on this thread, that lets everybody in.
pub(crate) fn builder() -> Builder {
    Broker::builder()
        .on_current_arbiter()
        .limits(generous())
        .authenticator(AllowAll)
        .authorizer(AllowAll)
}

/// A broker on virtual time with limits of the test's own.
pub(crate) async fn world_within(change: impl FnOnce(&mut Limits)) -> Broker {
    let mut limits = generous();
    change(&mut limits);
    world_with(|builder| builder.limits(limits)).await
}

/// Limits that no test meets by accident.
pub(crate) fn generous() -> Limits {
    Limits { connects_per_address_per_sec: 0, connections_max: 1_000_000, ..Limits::default() }
}

/// A broker that asks `authorizer`.
pub(crate) async fn world_where(authorizer: impl Authorizer) -> Broker {
    world_with(|builder| builder.authorizer(authorizer)).await
}

/// A stream into the broker.
pub(crate) fn stream(broker: &Broker) -> DuplexStream {
    stream_of(broker, 1 << 20)
}

/// A stream that holds so many bytes each way.
pub(crate) fn stream_of(broker: &Broker, bytes: usize) -> DuplexStream {
    let (here, there) = tokio::io::duplex(bytes);
    let broker = broker.clone();
    actix_rt::spawn(async move {
        broker.serve(there, "192.0.2.7:40000".parse().unwrap()).await;
    });
    here
}

/// Lets so much virtual time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Seconds.
pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Milliseconds.
pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
