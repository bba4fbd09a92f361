//! Advice on Keep Alive, from the silences that connections survived.

use hearthmq::{
    Broker,
    control::{AdviceCertainty, KeepAliveAdvice, ListKeepAliveAdvice},
    mqtt::ReasonCode,
};

use crate::support::{Client, packets::*, pass, secs, world};

/// Returns what is known of the only network.
async fn advice(broker: &Broker) -> KeepAliveAdvice {
    let page = broker.list_keep_alive_advice(ListKeepAliveAdvice::new(9)).await.unwrap();
    let [found] = &page.items[..] else { panic!("{:?}", page.items) };
    found.clone()
}

async fn connected(broker: &Broker, keep_alive: u16) -> Client {
    Client::connected(broker, hearthmq::mqtt::Connect { keep_alive, ..connect("car") }).await
}

#[actix_rt::test]
async fn silences_are_counted_when_connections_end() {
    let broker = world().await;
    let question = ListKeepAliveAdvice::new(9);
    assert_eq!(broker.list_keep_alive_advice(question).await.unwrap().items, []);
    for connection in 1..=3 {
        let mut client = connected(&broker, 300).await;
        pass(secs(290)).await;
        client.ping().await;
        pass(secs(10)).await;
        client.send(disconnect(ReasonCode::Success)).await;
        client.expect_closed().await;
        assert_eq!(advice(&broker).await.connections, connection);
    }
    let found = advice(&broker).await;
    assert_eq!(found.network.to_string(), "192.0.2.0/24");
    assert_eq!(&*found.listener, "in-process");
    assert_eq!((found.survived.p50_secs, found.survived.max_secs), (256, 290));
    assert_eq!(found.fatal, None);
    let expected = (Some(256), Some(AdviceCertainty::Low));
    assert_eq!((found.advised_keep_alive_secs, found.certainty), expected);

    // A client that is not heard of again: its packet was due after 100 seconds.
    for _ in 0..3 {
        let client = connected(&broker, 100).await;
        pass(secs(151)).await;
        drop(client);
    }
    // Output to a client does not show that the client is there.
    let mut client = connected(&broker, 600).await;
    client.subscribe("t", QOS_0).await;
    pass(secs(400)).await;
    broker.publish("t", b"x", QOS_0, false).await.unwrap();
    pass(secs(1)).await;
    client.vanish().await;
    let found = advice(&broker).await;
    assert_eq!((found.connections, found.survived.max_secs), (7, 290));
    let fatal = found.fatal.unwrap();
    assert_eq!((fatal.count, fatal.shortest_secs, fatal.p50_secs), (3, 100, 90));
    assert_eq!(found.advised_keep_alive_secs, Some(60));
}
