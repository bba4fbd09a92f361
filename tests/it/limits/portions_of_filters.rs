//! The Topic Filters of one read are handled in portions, and other tasks of the thread have their
//! turn in between.

use std::sync::atomic::Ordering;

use hearthmq::{
    Broker,
    mqtt::{Packet, ProtocolVersion, ReasonCode, encode},
};

use tokio::task::yield_now;

use super::portions::{PORTION, Rules, largest_step};
use crate::support::{Client, disk::Disk, packets::*, world, world_where};

/// Returns packets that a client sends in one piece: one with all filters, or one for each filter,
/// and others behind them.
fn in_one_piece(
    version: ProtocolVersion,
    filters: &[String],
    filters_per_packet: usize,
    packet: fn(&[String]) -> Packet<'_>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for some in filters.chunks(filters_per_packet) {
        encode(&packet(some), version, &mut bytes).unwrap();
    }
    encode(&Packet::Publish(publish("t/0", "behind")), version, &mut bytes).unwrap();
    encode(&Packet::PingReq, version, &mut bytes).unwrap();
    bytes
}

fn subscribe_all(filters: &[String]) -> Packet<'_> {
    subscribe(1, filters.iter().map(|name| filter(name, QOS_0)).collect())
}

fn unsubscribe_all(filters: &[String]) -> Packet<'_> {
    unsubscribe(1, filters.iter().map(String::as_str).collect())
}

/// The packets behind them keep their order.
#[actix_rt::test]
async fn very_many_filters_of_one_read_are_handled_in_portions() {
    const FILTERS: usize = 4_000;
    let broker = world().await;
    let filters: Vec<String> = (0..FILTERS).map(|number| format!("t/{number}")).collect();
    let subscribed = |broker: &Broker| broker.metrics().totals().subscriptions.value() as usize;
    let look = |last| {
        let looked = broker.clone();
        actix_rt::spawn(largest_step(move || subscribed(&looked), last))
    };
    for (version, per_packet) in VERSIONS.into_iter().flat_map(|v| [(v, FILTERS), (v, 1)]) {
        let mut client = Client::connected(&broker, connect_in(version, "c")).await;
        let looking = look(FILTERS);
        yield_now().await; // It has looked once.
        client.send_bytes(&in_one_piece(version, &filters, per_packet, subscribe_all)).await;
        let largest = looking.await.unwrap();
        assert!(largest <= PORTION, "{largest} in one turn");
        for _ in 0..FILTERS / per_packet {
            let granted = |packet: Packet<'_>| {
                let Packet::SubAck(ack) = packet else { panic!("{packet:?}") };
                assert_eq!(ack.reasons, vec![ReasonCode::Success; per_packet]);
            };
            client.receive(granted).await;
        }
        assert_eq!(client.receive_payload().await, "behind");
        client.expect(Packet::PingResp).await;
        let looking = look(0);
        yield_now().await;
        client.send_bytes(&in_one_piece(version, &filters, per_packet, unsubscribe_all)).await;
        let largest = looking.await.unwrap();
        assert!(largest <= PORTION, "{largest} in one turn");
        for _ in 0..FILTERS / per_packet {
            client.receive(|packet| assert!(matches!(packet, Packet::UnsubAck(_)))).await;
        }
        client.expect(Packet::PingResp).await;
        client.leave().await;
    }
}

/// The answer to very many filters has their Reason Codes in their order.
#[actix_rt::test]
async fn retained_messages_follow_the_answer_to_very_many_filters() {
    const FILTERS: usize = 500;
    let rules = Rules::default();
    rules.is_strict.store(true, Ordering::Relaxed);
    let broker = world_where(rules).await;
    let is_secret = |number: usize| number.is_multiple_of(3);
    let name = |number| match is_secret(number) {
        true => format!("secret/{number}"),
        false => format!("open/{number}"),
    };
    let names: Vec<String> = (0..FILTERS).map(name).collect();
    for name in &names {
        broker.publish(name, name.as_bytes(), QOS_0, true).await.unwrap();
    }
    let mut client = Client::connected(&broker, connect("c")).await;
    let filters: Vec<_> = names.iter().map(|name| filter(name, QOS_0)).collect();
    client.send(subscribe(7, filters)).await;
    let reasons: Vec<_> = (0..FILTERS)
        .map(|number| match is_secret(number) {
            true => ReasonCode::NotAuthorized,
            false => ReasonCode::Success,
        })
        .collect();
    client.expect(suback(7, &reasons)).await;
    for name in (0..FILTERS).filter(|number| !is_secret(*number)).map(name) {
        assert_eq!(client.receive_payload().await, name);
    }
    client.expect_nothing().await;
    let filters = names.iter().map(String::as_str).collect();
    client.send(unsubscribe(8, filters)).await;
    let reasons: Vec<_> = (0..FILTERS)
        .map(|number| match is_secret(number) {
            true => ReasonCode::NoSubscriptionExisted,
            false => ReasonCode::Success,
        })
        .collect();
    client.expect(unsuback(8, &reasons)).await;
}

/// The rest of its packet is not handled.
#[actix_rt::test]
async fn a_client_that_is_gone_in_the_middle_of_very_many_filters_leaves_a_session() {
    const FILTERS: usize = 40_000;
    let disk = Disk::default();
    let first = disk.power_within(|limits| limits.filters_per_subscribe_max = 100_000).await;
    let client = || Client::connected(&first.broker, connect_lasting("c", V5));
    let mut former = client().await;
    let names: Vec<String> = (0..FILTERS).map(|number| format!("t/{number}")).collect();
    let filters: Vec<_> = names.iter().map(|name| filter(name, QOS_1)).collect();
    former.send(subscribe(1, filters)).await;
    let known = async || first.broker.client("c").await.unwrap().unwrap().subscriptions;
    while known().await == 0 {}
    let mut client = client().await;
    former.expect_disconnect(ReasonCode::SessionTakenOver).await;
    client.ping().await;
    let subscribed = known().await;
    assert!((1..FILTERS).contains(&subscribed), "{subscribed}");
    first.crash();
    assert_eq!(disk.session("c").unwrap().subscriptions.len(), subscribed);
}
