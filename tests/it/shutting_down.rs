//! A CONNECT that comes while the broker ends is answered, whichever of the two is first.

use hearthmq::mqtt::{Packet, ReasonCode};
use tokio::task::yield_now;

use super::support::{Client, packets::*, secs, world};

#[actix_rt::test]
async fn a_connect_that_finds_its_shard_shutting_down_is_told_so() {
    for version in [V3_1, V3_1_1, V5] {
        for (is_online, connect) in [
            (false, connect_in(version, "c")),
            (true, connect_in(version, "c")),
            (true, connect_lasting("c", version)),
        ] {
            let broker = world_again().await;
            let mut older = None;
            if is_online {
                older = Some(Client::connected(&broker, connect.clone()).await);
            }
            let mut client = Client::new(&broker, version);
            for _ in 0..10 {
                yield_now().await; // Its connection is read from now on.
            }
            let ended = {
                let broker = broker.clone();
                actix_rt::spawn(async move { broker.shutdown(secs(5)).await })
            };
            client.send(Packet::Connect(Box::new(connect))).await;
            client.expect_refused(ReasonCode::ServerUnavailable).await;
            if let Some(mut older) = older {
                older.expect_disconnect(ReasonCode::ServerShuttingDown).await;
            }
            ended.await.unwrap();
        }
    }
}

/// It came first.
#[actix_rt::test]
async fn a_client_that_has_just_been_let_in_is_told_that_the_broker_ends() {
    for version in [V3_1, V3_1_1, V5] {
        let broker = world_again().await;
        let mut client = Client::new(&broker, version);
        client.send(Packet::Connect(Box::new(connect_lasting("c", version)))).await;
        while broker.client("c").await.unwrap().is_none() {}
        let ended = {
            let broker = broker.clone();
            actix_rt::spawn(async move { broker.shutdown(secs(5)).await })
        };
        client.expect_connected().await;
        client.expect_disconnect(ReasonCode::ServerShuttingDown).await;
        ended.await.unwrap();
    }
}

/// Another broker on the same virtual time.
async fn world_again() -> hearthmq::Broker {
    use std::cell::Cell;
    thread_local! {
        static IS_FIRST: Cell<bool> = const { Cell::new(true) };
    }
    if IS_FIRST.replace(false) {
        return world().await;
    }
    super::support::builder().start().await.unwrap()
}
