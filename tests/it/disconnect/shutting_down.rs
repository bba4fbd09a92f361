//! A CONNECT that comes while the broker ends is answered, whichever of the two is first.

use actix_rt::task::JoinHandle;
use hearthmq::{
    Broker,
    metrics::ConnectRefusal,
    mqtt::{Packet, ReasonCode},
};
use tokio::task::yield_now;

use crate::{
    riddle::{Riddle, answer, question, riddled},
    support::{Client, Undecided, packets::*, refused, secs, world, world_with},
};

#[actix_rt::test]
async fn a_connect_that_finds_its_shard_shutting_down_is_told_so() {
    for version in [V3_1, V3_1_1, V5] {
        for (is_online, connect) in [
            (false, connect_in(version, "c")),
            (true, connect_in(version, "c")),
            (true, connect_lasting("c", version)),
        ] {
            let broker = world().await;
            let mut older = None;
            if is_online {
                older = Some(Client::connected(&broker, connect.clone()).await);
            }
            let mut client = Client::new(&broker, version);
            for _ in 0..10 {
                yield_now().await; // Its connection is read from now on.
            }
            let ended = end(&broker);
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
        let broker = world().await;
        let mut client = Client::new(&broker, version);
        client.send(Packet::Connect(Box::new(connect_lasting("c", version)))).await;
        while broker.client("c").await.unwrap().is_none() {}
        let ended = end(&broker);
        client.expect_connected().await;
        client.expect_disconnect(ReasonCode::ServerShuttingDown).await;
        ended.await.unwrap();
    }
}

/// The client waits for the broker, so it is not left without an answer.
#[actix_rt::test]
async fn a_client_whose_password_is_being_checked_is_told_that_the_broker_ends() {
    for version in [V3_1, V3_1_1, V5] {
        let checking = Undecided::default();
        let broker = world_with(|builder| builder.authenticator(checking.clone())).await;
        let mut client = Client::new(&broker, version);
        client.send(Packet::Connect(Box::new(connect_in(version, "c")))).await;
        checking.is_asked().await;
        let mut silent = Client::new(&broker, version);
        let ended = end(&broker);
        client.expect_refused(ReasonCode::ServerUnavailable).await;
        silent.expect_closed().await;
        assert_eq!(refused(&broker, ConnectRefusal::ShuttingDown), 1);
        ended.await.unwrap();
    }
}

/// The same with an Authentication Method, whichever side has to speak.
#[actix_rt::test]
async fn a_client_that_is_being_authenticated_is_told_that_the_broker_ends() {
    for has_answered in [false, true] {
        let broker = world_with(|builder| builder.enhanced_authenticator(Riddle)).await;
        let mut client = Client::new(&broker, V5);
        client.send(Packet::Connect(Box::new(riddled(connect("c"))))).await;
        client.expect(question()).await;
        if has_answered {
            client.send(answer("slow")).await;
            client.expect_nothing_for(secs(1)).await;
        }
        let ended = end(&broker);
        client.expect_refused(ReasonCode::ServerUnavailable).await;
        ended.await.unwrap();
    }
}

/// Begins to shut the broker down.
fn end(broker: &Broker) -> JoinHandle<()> {
    let broker = broker.clone();
    actix_rt::spawn(async move { broker.shutdown(secs(5)).await })
}
