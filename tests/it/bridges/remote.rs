//! A bridge of the broker leads to the test, which is the other broker.

use hearthmq::{
    bridge::{Bridge, BridgeTopic, Direction, RetainedOf},
    control::{BridgeControl as _, BridgePhase, KickOptions},
    mqtt::{
        Ack, AckProperties, ConnAckProperties, Packet, Publish, ReasonCode, RetainHandling, SubAck,
    },
};

use super::network::{Network, Server, bridge_with, connected, topic, until};
use crate::support::{Client, packets::*, pass, secs, world_with};

/// The other broker, after CONNECT of the bridge `remote`.
struct Remote {
    client: Client,
}

/// Takes the CONNECT of a bridge, and answers with these properties.
async fn greeted(
    server: &mut Server,
    session_present: bool,
    properties: ConnAckProperties<'_>,
) -> Remote {
    let mut client = server.accept(V5).await;
    client.receive(|packet| assert!(matches!(packet, Packet::Connect(_)), "{packet:?}")).await;
    let ack =
        hearthmq::mqtt::ConnAck { session_present, properties, ..connack(ReasonCode::Success) };
    client.send(Packet::ConnAck(Box::new(ack))).await;
    Remote { client }
}

impl Remote {
    /// Grants the next SUBSCRIBE; returns its filters.
    async fn grant(&mut self) -> Vec<(String, RetainHandling)> {
        let (id, filters) = self
            .client
            .receive(|packet| {
                let Packet::Subscribe(subscribe) = packet else { panic!("{packet:?}") };
                let all = subscribe.filters.iter().map(|asked| {
                    assert!(asked.options.no_local && asked.options.retain_as_published);
                    (asked.filter.to_owned(), asked.options.retain_handling)
                });
                (subscribe.packet_id, all.collect::<Vec<_>>())
            })
            .await;
        let reasons = vec![ReasonCode::GrantedQoS2; filters.len()];
        let ack = SubAck { packet_id: id, properties: AckProperties::NONE, reasons };
        self.client.send(Packet::SubAck(ack)).await;
        filters
    }
}

fn out() -> Vec<BridgeTopic> {
    vec![topic("out/#", Direction::Out, QOS_2)]
}

async fn broker_to(network: &Network, bridge: Bridge) -> hearthmq::Broker {
    world_with(|builder| network.join(builder, [bridge])).await
}

/// Publishes as a client, and waits for the acknowledgement.
async fn say(client: &mut Client, packet: Publish<'_>) {
    let (qos, id) = (packet.flags.qos, packet.packet_id);
    client.publish(packet).await;
    let Some(id) = id else { return };
    client
        .receive(|packet| match packet {
            Packet::PubAck(ack) | Packet::PubRec(ack) => assert_eq!(ack.packet_id, id),
            other => panic!("{other:?}"),
        })
        .await;
    if qos == QOS_2 {
        client.send(pubrel(id.number())).await;
        client.receive(|packet| assert!(matches!(packet, Packet::PubComp(_)))).await;
    }
}

#[actix_rt::test]
async fn what_is_published_before_the_first_connection_waits_in_the_session() {
    let network = Network::default();
    let broker = broker_to(&network, bridge_with("remote", out(), |_| ())).await;
    let mut client = Client::connected(&broker, connect("publisher")).await;
    say(&mut client, publish_1(1, "out/a", "first")).await;
    say(&mut client, publish_1(2, "other", "no")).await;
    let view = until(&broker, "remote", BridgePhase::Waiting).await;
    let error = view.last_error.unwrap();
    assert_eq!((error.code, view.queued.0, view.enabled), ("unreachable", 1, true));
    let mut server = network.server("remote");
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    remote.client.expect_publish(publish_1(1, "out/a", "first")).await;
    remote.client.send(puback(1, ReasonCode::Success)).await;
    say(&mut client, publish_2(3, "out/b", "second")).await;
    remote.client.expect_publish(publish_2(2, "out/b", "second")).await;
    remote.client.take(QOS_2, 2).await;
    say(&mut client, publish("out/c", "third")).await;
    remote.client.expect_publish(publish("out/c", "third")).await;
    let view = connected(&broker, "remote").await;
    assert_eq!((view.queued.0, view.in_flight, view.outgoing.messages), (0, 0, 3));
    let session = broker.client("$bridge/remote").await.unwrap().unwrap();
    assert!(session.online && session.username.as_deref() == Some("bridge:remote"));
}

#[actix_rt::test]
async fn the_receive_maximum_of_the_other_broker_is_kept() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker = broker_to(&network, bridge_with("remote", out(), |_| ())).await;
    let properties = ConnAckProperties { receive_maximum: Some(1), ..ConnAckProperties::default() };
    let mut remote = greeted(&mut server, false, properties).await;
    connected(&broker, "remote").await;
    let mut client = Client::connected(&broker, connect("publisher")).await;
    for (id, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        say(&mut client, publish_2(id, "out/a", payload)).await;
    }
    for (id, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        remote.client.expect_publish(publish_2(id, "out/a", payload)).await;
        remote.client.expect_nothing_for(secs(1)).await;
        remote.client.take(QOS_2, id).await;
    }
}

#[actix_rt::test]
async fn a_message_that_is_too_large_for_the_other_broker_holds_up_nothing() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker =
        broker_to(&network, bridge_with("remote", out(), |it| it.marks_loops = false)).await;
    let properties =
        ConnAckProperties { maximum_packet_size: Some(40), ..ConnAckProperties::default() };
    let mut remote = greeted(&mut server, false, properties).await;
    connected(&broker, "remote").await;
    let mut client = Client::connected(&broker, connect("publisher")).await;
    let long = "x".repeat(40);
    say(&mut client, publish_2(1, "out/a", &long)).await;
    say(&mut client, publish_1(2, "out/a", &long)).await;
    say(&mut client, publish_1(3, "out/a", "short")).await;
    remote.client.expect_publish(publish_1(3, "out/a", "short")).await;
    remote.client.send(puback(3, ReasonCode::Success)).await;
    pass(secs(1)).await;
    let view = connected(&broker, "remote").await;
    assert_eq!((view.outgoing.dropped, view.outgoing.messages, view.in_flight), (2, 1, 0));
}

#[actix_rt::test]
async fn a_broker_without_qos_2_and_retained_messages_gets_what_it_can_take() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker =
        broker_to(&network, bridge_with("remote", out(), |it| it.marks_loops = false)).await;
    let properties = ConnAckProperties {
        maximum_qos: Some(1),
        retain_available: Some(false),
        ..ConnAckProperties::default()
    };
    let mut remote = greeted(&mut server, false, properties).await;
    connected(&broker, "remote").await;
    let mut client = Client::connected(&broker, connect("publisher")).await;
    say(&mut client, retained(publish_2(1, "out/a", "two"))).await;
    remote.client.expect_publish(publish_1(1, "out/a", "two")).await;
    remote.client.send(puback(1, ReasonCode::Success)).await;
    pass(secs(1)).await;
    assert_eq!(connected(&broker, "remote").await.in_flight, 0);
}

#[actix_rt::test]
async fn a_message_that_the_other_broker_may_take_later_is_sent_again() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker =
        broker_to(&network, bridge_with("remote", out(), |it| it.marks_loops = false)).await;
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    connected(&broker, "remote").await;
    let mut client = Client::connected(&broker, connect("publisher")).await;
    say(&mut client, publish_1(1, "out/a", "hi")).await;
    remote.client.expect_publish(publish_1(1, "out/a", "hi")).await;
    remote.client.send(puback(1, ReasonCode::QuotaExceeded)).await;
    remote.client.expect_closed().await;
    let view = until(&broker, "remote", BridgePhase::Waiting).await;
    assert_eq!((view.last_error.unwrap().code, view.in_flight), ("message_refused", 1));
    let mut remote = greeted(&mut server, true, ConnAckProperties::default()).await;
    remote.client.expect_publish(dup(publish_1(1, "out/a", "hi"))).await;
    // One that would be refused again is given up.
    remote.client.send(puback(1, ReasonCode::NotAuthorized)).await;
    pass(secs(1)).await;
    let view = connected(&broker, "remote").await;
    assert_eq!((view.in_flight, view.outgoing.dropped), (0, 1));
}

#[actix_rt::test]
async fn messages_come_in_under_the_local_prefix_and_are_acknowledged_by_the_session() {
    let network = Network::default();
    let mut server = network.server("remote");
    let mut cmd = topic("cmd/#", Direction::In, QOS_2);
    (cmd.local_prefix, cmd.remote_prefix) = ("from/".into(), "site/".into());
    let broker = broker_to(&network, bridge_with("remote", vec![cmd], |_| ())).await;
    let mut client = Client::connected(&broker, connect("subscriber")).await;
    client.subscribe("from/#", QOS_2).await;
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    assert_eq!(remote.grant().await, [("site/cmd/#".to_owned(), RetainHandling::Send)]);
    remote.client.publish(publish_2(5, "site/cmd/a", "two")).await;
    client.expect_publish(publish_2(1, "from/cmd/a", "two")).await;
    remote.client.expect_taken(QOS_2, 5, ReasonCode::Success).await;
    client.take(QOS_2, 1).await;
    // Nothing else may come in.
    remote.client.publish(publish_1(6, "elsewhere", "no")).await;
    remote.client.expect_taken(QOS_1, 6, ReasonCode::Success).await;
    client.expect_nothing().await;
    let view = connected(&broker, "remote").await;
    assert_eq!((view.incoming.messages, view.incoming.dropped), (1, 1));
}

/// PUBREC is lost with the connection.
#[actix_rt::test]
async fn a_message_of_qos_2_comes_in_once_although_the_connection_is_cut() {
    let network = Network::default();
    let mut server = network.server("remote");
    let cmd = vec![topic("cmd/#", Direction::In, QOS_2)];
    let broker = broker_to(&network, bridge_with("remote", cmd, |_| ())).await;
    let mut client = Client::connected(&broker, connect("subscriber")).await;
    client.subscribe("cmd/#", QOS_2).await;
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    remote.grant().await;
    remote.client.publish(publish_2(5, "cmd/a", "one")).await;
    client.expect_publish(publish_2(1, "cmd/a", "one")).await;
    client.take(QOS_2, 1).await;
    drop(remote); // PUBREC is lost
    let mut remote = greeted(&mut server, true, ConnAckProperties::default()).await;
    assert_eq!(remote.grant().await[0].1, RetainHandling::SendIfNew);
    remote.client.publish(dup(publish_2(5, "cmd/a", "one"))).await;
    remote.client.expect_taken(QOS_2, 5, ReasonCode::Success).await;
    client.expect_nothing().await;
    // A broker that has lost its session uses the identifier for another message.
    remote.client.publish(publish_2(6, "cmd/a", "two")).await;
    client.expect_publish(publish_2(2, "cmd/a", "two")).await;
    client.take(QOS_2, 2).await;
    drop(remote);
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    remote.grant().await;
    remote.client.publish(publish_2(6, "cmd/a", "three")).await;
    client.expect_publish(publish_2(3, "cmd/a", "three")).await;
    remote.client.expect_taken(QOS_2, 6, ReasonCode::Success).await;
}

#[actix_rt::test]
async fn a_silent_broker_is_pinged_and_given_up() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker =
        broker_to(&network, bridge_with("remote", out(), |it| it.keep_alive_secs = 10)).await;
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    connected(&broker, "remote").await;
    remote.client.patience = secs(11);
    remote.client.expect(Packet::PingReq).await;
    remote.client.send(Packet::PingResp).await;
    remote.client.expect(Packet::PingReq).await;
    remote.client.expect_closed().await;
    let view = until(&broker, "remote", BridgePhase::Waiting).await;
    assert_eq!(view.last_error.unwrap().code, "keep_alive");
}

#[actix_rt::test]
async fn the_keep_alive_of_the_other_broker_is_obeyed() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker =
        broker_to(&network, bridge_with("remote", out(), |it| it.keep_alive_secs = 600)).await;
    let properties =
        ConnAckProperties { server_keep_alive: Some(5), ..ConnAckProperties::default() };
    let mut remote = greeted(&mut server, false, properties).await;
    connected(&broker, "remote").await;
    remote.client.patience = secs(6);
    remote.client.expect(Packet::PingReq).await;
}

#[actix_rt::test]
async fn a_bridge_is_stopped_started_and_reconnected_by_calls() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker =
        broker_to(&network, bridge_with("remote", out(), |it| it.marks_loops = false)).await;
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    connected(&broker, "remote").await;
    broker.reconnect_bridge("remote").await.unwrap();
    remote.client.expect_disconnect(ReasonCode::Success).await;
    let mut remote = greeted(&mut server, true, ConnAckProperties::default()).await;
    connected(&broker, "remote").await;
    assert!(!broker.set_bridge_enabled("remote", false).await.unwrap().enabled);
    remote.client.expect_disconnect(ReasonCode::Success).await;
    until(&broker, "remote", BridgePhase::Stopped).await;
    assert!(broker.reconnect_bridge("remote").await.is_err());
    assert!(broker.reconnect_bridge("other").await.is_err());
    let mut client = Client::connected(&broker, connect("publisher")).await;
    say(&mut client, publish_1(1, "out/a", "kept")).await;
    assert_eq!(broker.find_bridge("remote").await.unwrap().queued.0, 1);
    assert!(broker.set_bridge_enabled("remote", true).await.unwrap().enabled);
    let mut remote = greeted(&mut server, true, ConnAckProperties::default()).await;
    remote.client.expect_publish(publish_1(1, "out/a", "kept")).await;
    // A caller may end the connection of its session too; then it connects again.
    connected(&broker, "remote").await;
    broker.kick("$bridge/remote", KickOptions::new()).await.unwrap();
    let mut remote = greeted(&mut server, true, ConnAckProperties::default()).await;
    remote.client.expect_publish(dup(publish_1(1, "out/a", "kept"))).await;
    assert_eq!(connected(&broker, "remote").await.last_error.unwrap().code, "kicked");
}

#[actix_rt::test]
async fn the_state_is_told_at_the_other_broker_and_here() {
    let network = Network::default();
    let mut server = network.server("remote");
    let bridge = bridge_with("remote", out(), |it| it.status_topic = "bridges/plant".into());
    let broker = broker_to(&network, bridge).await;
    let mut client = Client::connected(&broker, connect("watcher")).await;
    client.subscribe("$SYS/broker/connection/#", QOS_0).await;
    let topic = "$SYS/broker/connection/remote/state";
    let mut other = server.accept(V5).await;
    other
        .receive(|packet| {
            let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
            let will = connect.will.unwrap();
            assert_eq!((will.topic, will.payload, will.retain), ("bridges/plant", &b"0"[..], true));
            assert_eq!((connect.client_id, connect.clean_start), ("hearthmq-remote", false));
        })
        .await;
    other.send(Packet::ConnAck(Box::new(connack(ReasonCode::Success)))).await;
    other.expect_publish(retained(publish("bridges/plant", "1"))).await;
    connected(&broker, "remote").await;
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "1") {
        let payload = client.receive(|packet| {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            assert_eq!(publish.topic, topic);
            String::from_utf8(publish.payload.to_vec()).unwrap()
        });
        told.push(payload.await);
    }
    broker.set_bridge_enabled("remote", false).await.unwrap();
    other.expect_publish(retained(publish("bridges/plant", "0"))).await;
    other.expect_disconnect(ReasonCode::Success).await;
    client.expect_publish(publish(topic, "0")).await;
}

#[actix_rt::test]
async fn retained_messages_go_to_a_broker_without_session() {
    let network = Network::default();
    let mut server = network.server("remote");
    let mut never = topic("never/#", Direction::Out, QOS_1);
    never.retained = RetainedOf::Never;
    let mut always = topic("always/#", Direction::Out, QOS_1);
    always.retained = RetainedOf::Always;
    let topics = vec![topic("new/#", Direction::Out, QOS_1), never, always];
    let bridge = bridge_with("remote", topics, |it| it.marks_loops = false);
    let broker = broker_to(&network, bridge).await;
    for name in ["new/a", "never/a", "always/a"] {
        // Without subscribers of the bridge's own QoS 0, it waits for nobody.
        broker.publish(name, b"kept", QOS_0, true).await.unwrap();
    }
    let mut remote = greeted(&mut server, false, ConnAckProperties::default()).await;
    remote.client.expect_publish(retained(publish("new/a", "kept"))).await;
    remote.client.expect_publish(retained(publish("always/a", "kept"))).await;
    pass(secs(11)).await;
    drop(remote);
    let mut remote = greeted(&mut server, true, ConnAckProperties::default()).await;
    remote.client.expect_publish(retained(publish("always/a", "kept"))).await;
    remote.client.expect_nothing_for(secs(5)).await;
}

/// A broker of MQTT 3.1.1 that does not know the bit of bridges.
#[actix_rt::test]
async fn a_broker_that_refuses_the_bit_of_bridges_is_asked_without_it() {
    let network = Network::default();
    let mut server = network.server("remote");
    let topics = vec![topic("both/#", Direction::Both, QOS_1)];
    let bridge = bridge_with("remote", topics, |it| it.version = V3_1_1);
    let broker = broker_to(&network, bridge).await;
    let mut first = server.accept(V3_1_1).await;
    let has_bit = |packet: Packet<'_>| match packet {
        Packet::Connect(connect) => connect.is_bridge,
        other => panic!("{other:?}"),
    };
    assert!(first.receive(has_bit).await);
    let refusal = connack(ReasonCode::UnsupportedProtocolVersion);
    first.send(Packet::ConnAck(Box::new(refusal))).await;
    let mut remote = server.accept(V3_1_1).await;
    assert!(!remote.receive(has_bit).await);
    remote.send(Packet::ConnAck(Box::new(connack(ReasonCode::Success)))).await;
    let id = remote
        .receive(|packet| match packet {
            Packet::Subscribe(subscribe) => subscribe.packet_id,
            other => panic!("{other:?}"),
        })
        .await;
    let reasons = vec![ReasonCode::GrantedQoS1];
    let ack = SubAck { packet_id: id, properties: AckProperties::NONE, reasons };
    remote.send(Packet::SubAck(ack)).await;
    connected(&broker, "remote").await;
    // It sends back what it gets, and the bridge knows it.
    let mut client = Client::connected(&broker, connect("client")).await;
    client.subscribe("both/#", QOS_1).await;
    client.publish(publish_1(1, "both/a", "mine")).await;
    client.expect_publish(publish_1(1, "both/a", "mine")).await;
    client.expect_taken(QOS_1, 1, ReasonCode::Success).await;
    remote.expect_publish(publish_1(1, "both/a", "mine")).await;
    remote.publish(publish_1(9, "both/a", "mine")).await;
    remote.expect(Packet::PubAck(Ack::success(hearthmq_test::packets::id(9)))).await;
    remote.publish(publish_1(10, "both/a", "theirs")).await;
    client.send(puback(1, ReasonCode::Success)).await;
    client.expect_publish(publish_1(2, "both/a", "theirs")).await;
}

#[actix_rt::test]
async fn a_refusal_of_the_other_broker_is_shown_and_tried_again_later() {
    let network = Network::default();
    let mut server = network.server("remote");
    let broker = broker_to(&network, bridge_with("remote", out(), |_| ())).await;
    for _ in 0..3 {
        let mut client = server.accept(V5).await;
        client.receive(|packet| assert!(matches!(packet, Packet::Connect(_)))).await;
        client.send(Packet::ConnAck(Box::new(connack(ReasonCode::NotAuthorized)))).await;
        let view = until(&broker, "remote", BridgePhase::Waiting).await;
        let error = view.last_error.unwrap();
        assert_eq!(error.code, "connect_refused");
        assert!(error.message.contains("NotAuthorized (0x87)"), "{}", error.message);
        assert!(view.retry_at.is_some());
    }
    let view = broker.find_bridge("remote").await.unwrap();
    assert_eq!((view.connects, view.failures), (0, 3));
}

/// No client may have the identifier of a bridge, and no login its identity.
#[actix_rt::test]
async fn no_client_may_be_a_bridge() {
    let network = Network::default();
    let broker = broker_to(&network, bridge_with("remote", out(), |_| ())).await;
    for version in VERSIONS {
        let mut client = Client::new(&broker, version);
        client.send(Packet::Connect(Box::new(connect_in(version, "$bridge/remote")))).await;
        client.expect_refused(ReasonCode::ClientIdentifierNotValid).await;
    }
    let mut client = Client::new(&broker, V5);
    let mut asks = connect("client");
    asks.properties.authentication_method = Some("$bridge");
    client.send(Packet::Connect(Box::new(asks))).await;
    client.expect_refused(ReasonCode::NotAuthorized).await;
}
