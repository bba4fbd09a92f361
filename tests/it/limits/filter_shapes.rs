//! The filters of one user that one topic may match: at most one of each shape.

use hearthmq::{
    metrics::UserLimit,
    mqtt::{Packet, ReasonCode},
};

use super::shares::{lasting, of, reached};
use crate::support::{Client, disk::Disk, packets::*};

/// Otherwise a topic of 12 levels would match 4,096 filters of one user.
#[actix_rt::test]
async fn filters_are_bounded_in_shapes_for_each_user() {
    const LEVELS: usize = 12;
    const SHAPES: usize = 256;
    let disk = Disk::default();
    let first = disk.power().await;
    let broker = &first.broker;
    let of_bits = |bits: usize| {
        let level = |at: usize| if bits >> at & 1 == 1 { "+" } else { "a" };
        (0..LEVELS).map(level).collect::<Vec<_>>().join("/")
    };
    let filters: Vec<String> = (0..1 << LEVELS).map(of_bits).collect();
    // The sessions of a user share the limit.
    let mut granted = 0;
    for (name, some) in (0..).zip(filters.chunks(1_024)) {
        let name = name.to_string();
        let mut client = Client::connected(broker, lasting("u", &name)).await;
        client.send(subscribe(1, some.iter().map(|name| filter(name, QOS_0)).collect())).await;
        granted += client
            .receive(|packet| {
                let Packet::SubAck(ack) = packet else { panic!("{packet:?}") };
                let count = |reason| ack.reasons.iter().filter(|it| **it == reason).count();
                let granted = count(ReasonCode::Success);
                assert_eq!(granted + count(ReasonCode::QuotaExceeded), some.len());
                granted
            })
            .await;
    }
    // The first filter has no wildcard, and no shape.
    assert_eq!(granted, 1 + SHAPES);
    assert_eq!(reached(broker, UserLimit::FilterShapes) as usize, (1 << LEVELS) - granted);
    first.crash();
    let second = disk.power().await;
    let broker = &second.broker;
    let mut client = Client::connected(broker, lasting("u", "0")).await;
    let mut ask = async |asked: &str, reason: ReasonCode| {
        client.send(subscribe(2, vec![filter(asked, QOS_0)])).await;
        let answer = |packet: Packet<'_>| {
            let Packet::SubAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.reasons, [reason]);
        };
        client.receive(answer).await;
    };
    ask("$share/g/a", ReasonCode::QuotaExceeded).await;
    ask("+/+/+/+/+/+/+/+/+", ReasonCode::QuotaExceeded).await;
    ask("none/of/them", ReasonCode::Success).await;
    // The same shape with other levels, and the same filter again.
    let same = filters[1].replace('a', "b");
    ask(&same, ReasonCode::Success).await;
    ask(&filters[1], ReasonCode::Success).await;
    client.send(unsubscribe(3, vec![&same, &filters[1]])).await;
    client.expect(unsuback(3, &[ReasonCode::Success; 2])).await;
    client.send(subscribe(2, vec![filter("$share/g/a", QOS_0)])).await;
    client.expect(suback(2, &[ReasonCode::Success])).await;
    let mut other = Client::connected(broker, of("other", connect("other"))).await;
    other.subscribe("$share/h/a", QOS_0).await;
}
