//! The busiest clients: counts, rates, order, and who sees them.

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    control::{BusyBy, BusyClient, Caller, ClientPattern, ClientTraffic, FindBusiest},
};

use crate::support::{Client, packets::*, pass, secs, world, world_where};

async fn busiest(broker: &Broker, by: BusyBy) -> Vec<BusyClient> {
    broker.find_busiest(FindBusiest::new(by, 10)).await.unwrap()
}

fn ids(clients: &[BusyClient]) -> Vec<&str> {
    clients.iter().map(|client| &*client.client_id).collect()
}

#[actix_rt::test]
async fn messages_and_bytes_are_counted_for_each_connection() {
    let broker = world().await;
    let mut subscriber = Client::connected(&broker, connect("subscriber")).await;
    subscriber.subscribe("t", QOS_0).await;
    let mut client = Client::connected(&broker, connect("client")).await;
    for _ in 0..3 {
        client.publish(publish("t", "hello")).await;
        subscriber.receive(|_| ()).await;
    }
    client.ping().await;
    let found = busiest(&broker, BusyBy::MessagesIn).await;
    assert_eq!(ids(&found), ["client", "subscriber"]);
    // PUBLISH of 11 bytes; PINGREQ and PINGRESP; CONNECT came before.
    let ClientTraffic { messages_in, messages_out, bytes_in, .. } = found[0].total;
    assert_eq!((messages_in, messages_out, bytes_in), (3, 0, 3 * 11 + 2));
    let of_subscriber = found[1].total;
    assert_eq!((of_subscriber.messages_in, of_subscriber.messages_out), (0, 3));
    let conn_ack_and_suback = of_subscriber.bytes_out - 3 * 11;
    assert!((10..60).contains(&conn_ack_and_suback), "{of_subscriber:?}");
    // Another connection counts for itself.
    client.leave().await;
    let _client = Client::connected(&broker, connect("client")).await;
    let found = busiest(&broker, BusyBy::MessagesOut).await;
    assert_eq!(ids(&found), ["subscriber", "client"]);
    assert_eq!((found[1].total.messages_in, found[1].total.bytes_in), (0, 0));
}

#[actix_rt::test]
async fn rates_are_those_since_an_earlier_question() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("a")).await;
    let _other = Client::connected(&broker, connect("b")).await;
    pass(secs(10)).await;
    for _ in 0..100 {
        client.publish(publish("t", "x")).await;
    }
    client.ping().await;
    let rate = |found: &[BusyClient]| found[0].per_sec.messages_in;
    let since_connect = rate(&busiest(&broker, BusyBy::MessagesIn).await);
    assert!((9..=10).contains(&since_connect), "{since_connect}");
    pass(secs(2)).await;
    for _ in 0..100 {
        client.publish(publish("t", "x")).await;
    }
    client.ping().await;
    let found = busiest(&broker, BusyBy::MessagesIn).await;
    assert_eq!(&*found[0].client_id, "a");
    let since_then = rate(&found);
    assert!((49..=50).contains(&since_then), "{since_then}");
    let again = rate(&busiest(&broker, BusyBy::MessagesIn).await);
    assert_eq!(again, since_then, "another caller sees the same");
    // After a minute without a question the counts are gone.
    pass(secs(62)).await;
    let found = busiest(&broker, BusyBy::MessagesIn).await;
    assert_eq!(rate(&found), 200 / 74);
}

#[actix_rt::test]
async fn the_highest_come_first_up_to_the_limit() {
    let broker = world().await;
    let mut clients = Vec::new();
    for number in 0..300 {
        clients.push(Client::connected(&broker, connect(&format!("c-{number:03}"))).await);
        pass(std::time::Duration::from_millis(10)).await;
    }
    clients.pop().unwrap().leave().await;
    let question = FindBusiest::new(BusyBy::Idle, 3);
    let found = broker.find_busiest(question.clone()).await.unwrap();
    assert_eq!(ids(&found), ["c-000", "c-001", "c-002"]);
    assert!(found.is_sorted_by(|a, b| a.idle_millis >= b.idle_millis));
    let some = question.matching(ClientPattern::new("c-2*").unwrap());
    assert_eq!(ids(&broker.find_busiest(some).await.unwrap()), ["c-200", "c-201", "c-202"]);
    let all = broker.find_busiest(FindBusiest::new(BusyBy::Queued, 1_000)).await.unwrap();
    assert_eq!(all.len(), 299, "who is absent is not busy");
}

/// Lets callers observe nobody but the cars.
struct CarsInSight;

impl Authorizer for CarsInSight {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        match request.action {
            Action::Observe if !request.client_id.starts_with("car-") => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

#[actix_rt::test]
async fn a_caller_sees_clients_that_it_may_observe() {
    let broker = world_where(CarsInSight).await;
    let mut clients = Vec::new();
    for name in ["truck", "car-1", "bus", "car-2"] {
        clients.push(Client::connected(&broker, connect(name)).await);
    }
    let identity = Identity { username: Some("ops".into()), ..Identity::default() };
    let caller = Caller { identity, peer: "127.0.0.1:1".parse().unwrap(), listener: "http".into() };
    let question = FindBusiest::new(BusyBy::MessagesIn, 2).by(caller);
    assert_eq!(ids(&broker.find_busiest(question).await.unwrap()), ["car-1", "car-2"]);
}
