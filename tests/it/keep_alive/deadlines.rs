//! Keep Alive: when a silent client is disconnected, and how a changed interval affects that.

use std::time::Duration;

use futures_util::future::join_all;
use hearthmq::{
    Broker,
    control::{ControlError, LiveClients as _, SetKeepAlive},
    internals::session::KeepAlive,
    mqtt::{Connect, Packet, ReasonCode, Timestamp},
};
use proptest::prelude::*;
use tokio::{io::AsyncReadExt, time::Instant};

use crate::support::{Client, millis, packets::*, pass, secs, stream_of, world};

/// Maximum delay.
const LATE_MAX: Duration = Duration::from_millis(250);

async fn connected(broker: &Broker, keep_alive: u16) -> Client {
    let mut packet = connect("car");
    packet.keep_alive = keep_alive;
    Client::connected(broker, packet).await
}

/// Waits for the end of the connection; returns its time.
async fn end_of(client: &mut Client) -> Instant {
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.unwrap();
    Instant::now()
}

fn assert_on_time(ended: Instant, due: Instant) {
    assert!(ended >= due, "early by {:?}", due - ended);
    assert!(ended - due <= LATE_MAX, "late by {:?}", ended - due);
}

/// [MQTT-3.1.2-22] [MQTT-3.2.2-22]; [MQTT-3.1.2-24] of 3.1.1
#[actix_rt::test]
async fn a_silent_client_is_disconnected_after_one_and_a_half_times_its_keep_alive() {
    let broker = world().await;
    for version in VERSIONS {
        let packet = Connect { keep_alive: 60, ..connect_in(version, "car") };
        let mut client = Client::connected(&broker, packet).await;
        let due = Instant::now() + secs(90);
        client.expect_nothing_for(millis(89_999)).await;
        client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
        assert_on_time(Instant::now(), due);
        assert!(!broker.online("car").await.unwrap());
    }
}

/// [MQTT-3.1.2-22]
#[actix_rt::test]
async fn every_packet_from_the_client_moves_the_deadline() {
    let broker = world().await;
    let mut client = connected(&broker, 10).await;
    for _ in 0..5 {
        pass(secs(14)).await;
        client.ping().await;
    }
    let due = Instant::now() + secs(15);
    assert_on_time(end_of(&mut client).await, due);
}

#[actix_rt::test]
async fn packets_to_the_client_do_not_move_the_deadline() {
    let broker = world().await;
    let mut client = connected(&broker, 10).await;
    client.subscribe("t", QOS_0).await;
    let due = Instant::now() + secs(15);
    pass(secs(14)).await;
    broker.publish("t", b"x", QOS_0, false).await.unwrap();
    client.expect_publish(publish("t", "x")).await;
    assert_on_time(end_of(&mut client).await, due);
}

#[actix_rt::test]
async fn half_a_packet_is_no_packet() {
    let broker = world().await;
    let mut client = connected(&broker, 10).await;
    let due = Instant::now() + secs(15);
    pass(secs(10)).await;
    client.send_bytes(&[0xC0]).await;
    assert_on_time(end_of(&mut client).await, due);
}

/// [MQTT-3.1.2-22]
#[actix_rt::test]
async fn keep_alive_0_never_expires_and_cannot_be_changed() {
    let broker = world().await;
    let mut client = connected(&broker, 0).await;
    assert_eq!(broker.set_keep_alive("car", 30).await, Err(ControlError::KeepAliveDisabled));
    assert_eq!(broker.set_keep_alive("car", 0).await, Err(ControlError::InvalidInterval));
    client.expect_nothing_for(secs(4 * 3600)).await;
    client.ping().await;
}

#[actix_rt::test]
async fn changing_the_keep_alive_of_a_client_that_is_not_connected_is_refused() {
    let broker = world().await;
    assert_eq!(broker.set_keep_alive("nobody", 30).await, Err(ControlError::NotOnline));
    let mut client = Client::connected(&broker, connect_lasting("car", V5)).await;
    client.send(disconnect(ReasonCode::Success)).await;
    client.expect_closed().await;
    assert_eq!(broker.set_keep_alive("car", 30).await, Err(ControlError::NotOnline));
}

#[actix_rt::test]
async fn a_shorter_keep_alive_counts_from_now_for_a_client_that_was_silent() {
    let broker = world().await;
    let mut client = connected(&broker, 1200).await;
    pass(secs(600)).await;
    let changed = broker.set_keep_alive("car", 30).await.unwrap();
    assert_eq!((changed.old_secs, changed.new_secs), (1200, 30));
    let due = Instant::now() + secs(45);
    assert_on_time(end_of(&mut client).await, due);
}

#[actix_rt::test]
async fn repeating_the_call_does_not_keep_a_dead_client() {
    let broker = world().await;
    let mut client = connected(&broker, 1200).await;
    pass(secs(600)).await;
    let due = Instant::now() + secs(45);
    for _ in 0..4 {
        broker.set_keep_alive("car", 30).await.unwrap();
        pass(secs(10)).await;
    }
    assert_on_time(end_of(&mut client).await, due);
}

#[actix_rt::test]
async fn a_longer_keep_alive_counts_from_the_last_packet() {
    let broker = world().await;
    let mut client = connected(&broker, 60).await;
    let due = Instant::now() + secs(1800);
    pass(secs(80)).await;
    broker.set_keep_alive("car", 1200).await.unwrap();
    assert_on_time(end_of(&mut client).await, due);
}

#[actix_rt::test]
async fn after_a_change_the_next_packet_brings_the_new_interval() {
    let broker = world().await;
    let mut client = connected(&broker, 60).await;
    broker.set_keep_alive("car", 30).await.unwrap();
    client.ping().await;
    let due = Instant::now() + secs(45);
    assert_on_time(end_of(&mut client).await, due);
}

#[actix_rt::test]
async fn a_change_ends_with_the_connection() {
    let broker = world().await;
    let client = connected(&broker, 60).await;
    broker.set_keep_alive("car", 30).await.unwrap();
    drop(client);
    let mut client = connected(&broker, 60).await;
    let due = Instant::now() + secs(90);
    assert_on_time(end_of(&mut client).await, due);
}

#[actix_rt::test]
async fn a_change_leaves_what_is_in_flight_alone() {
    let broker = world().await;
    let mut client = connected(&broker, 60).await;
    client.subscribe("t", QOS_2).await;
    broker.publish("t", b"x", QOS_2, false).await.unwrap();
    client.expect_publish(publish_2(1, "t", "x")).await;
    broker.set_keep_alive("car", 30).await.unwrap();
    client.send(pubrec(1, ReasonCode::Success)).await;
    client.expect(pubrel(1)).await;
    client.send(pubcomp(1)).await;
    client.ping().await;
    assert_eq!(broker.client("car").await.unwrap().unwrap().in_flight, 0);
}

/// Server Keep Alive. [MQTT-3.1.2-21] [MQTT-3.2.2-21]
#[actix_rt::test]
async fn a_client_that_asks_for_too_long_a_keep_alive_is_told_another() {
    let mut limits = crate::support::generous();
    limits.keep_alive_secs_max = 100;
    let broker = crate::support::world_with(|builder| builder.limits(limits)).await;
    let mut client = Client::new(&broker, V5);
    let mut packet = connect("car");
    packet.keep_alive = 1000;
    client.send(Packet::Connect(Box::new(packet))).await;
    client
        .receive(|packet| {
            let Packet::ConnAck(ack) = packet else { panic!("{packet:?}") };
            assert_eq!(ack.properties.server_keep_alive, Some(100));
        })
        .await;
    let due = Instant::now() + secs(150);
    assert_on_time(end_of(&mut client).await, due);
}

/// Ten thousand arrive each second, half of them send one packet, and all are disconnected on time.
#[actix_rt::test]
async fn a_hundred_thousand_connections_are_given_up_neither_early_nor_late() {
    const CLIENTS: u64 = 100_000;
    let broker = world().await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = Client::on(stream_of(&broker, 128), V3_1_1);
        clients.spawn_local(async move {
            pass(millis(number / 10)).await;
            let client_id = format!("car-{number}");
            let packet = connect(&client_id);
            let keep_alive = 10 + (number % 50) as u16;
            let version = V3_1_1;
            let connect = Connect { version, keep_alive, ..packet };
            client.send(Packet::Connect(Box::new(connect))).await;
            client.receive(|_| ()).await;
            if number % 2 == 0 {
                pass(millis(number % 9000)).await;
                client.ping().await;
            }
            let due = Instant::now() + millis(u64::from(keep_alive) * 1500);
            assert_on_time(end_of(&mut client).await, due);
        });
    }
    let mut ended = 0;
    while let Some(outcome) = clients.join_next().await {
        outcome.unwrap();
        ended += 1;
    }
    assert_eq!(ended, CLIENTS);
    assert_eq!(broker.metrics().shard(0).keep_alive_timeouts.value(), CLIENTS);
}

/// Events of a connection's Keep Alive.
#[derive(Clone, Copy, Debug)]
enum Step {
    Packet,
    Change(u16),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = (u16, Vec<Step>)> {
    let step = prop_oneof![
        Just(Step::Packet),
        (30..=1200_u16).prop_map(Step::Change),
        (0..2_000_000_u64).prop_map(Step::Pass),
        (0..50_000_u64).prop_map(Step::Pass),
    ];
    (0..=2000_u16, prop::collection::vec(step, 0..60))
}

/// The promise in its naive form: the deadline, computed as the contract words it.
struct Promises {
    interval_millis: u64,
    last: u64,
    deadline: u64,
}

impl Promises {
    fn change(&mut self, interval_secs: u16, now: u64) {
        self.interval_millis = u64::from(interval_secs) * 1000;
        let new = self.interval_millis * 3 / 2;
        let kept_promise = if self.deadline < now + new { self.deadline } else { now + new };
        let from_last = self.last + new;
        self.deadline = if from_last > kept_promise { from_last } else { kept_promise };
    }
}

proptest! {
    #[test]
    fn the_deadline_is_that_of_the_naive_model((first, steps) in steps()) {
        let mut now = 1_700_000_000_000_u64;
        let mut keep_alive = KeepAlive::new(first, Timestamp(now));
        let off = first == 0;
        let interval_millis = u64::from(first) * 1000;
        let mut model = Promises { interval_millis, last: now, deadline: now + interval_millis * 3 / 2 };
        for step in steps {
            match step {
                Step::Packet => {
                    keep_alive.packet_received(Timestamp(now));
                    model.last = now;
                    model.deadline = now + model.interval_millis * 3 / 2;
                }
                Step::Change(interval_secs) => {
                    let before = keep_alive.deadline();
                    let changed = keep_alive.change(interval_secs, Timestamp(now));
                    prop_assert_eq!(changed.is_none(), off);
                    if off {
                        prop_assert_eq!(keep_alive.deadline(), before);
                    } else {
                        model.change(interval_secs, now);
                        // The call itself never disconnects a client that was not due before it.
                        prop_assert!(before.0 <= now || keep_alive.deadline().0 > now);
                    }
                }
                Step::Pass(millis) => now += millis,
            }
            if off {
                prop_assert_eq!(keep_alive.deadline(), Timestamp::NEVER);
            } else {
                prop_assert_eq!(keep_alive.deadline().0, model.deadline);
            }
        }
    }
}

/// More than the default capacity of an actor's mailbox.
#[actix_rt::test]
async fn many_messages_for_one_client_at_once_are_all_answered() {
    let broker = world().await;
    let mut car = connected(&broker, 60).await;
    let request = |interval_secs| SetKeepAlive::new("car", interval_secs);
    for count in [20, 1_000] {
        let registry = broker.registry("car");
        let asked = (0..count).map(|number| registry.send(request(30 + number)));
        for (number, answer) in (0..count).zip(join_all(asked).await) {
            assert_eq!(answer.unwrap().unwrap().new_secs, 30 + number);
        }
        // As the REST calls of one turn do.
        let requests = (0..count).map(|number| request(30 + number)).collect();
        for (number, answer) in (0..count).zip(broker.set_each_keep_alive(requests).await) {
            assert_eq!(answer.unwrap().new_secs, 30 + number);
        }
    }
    car.ping().await;
}
