//! Clients with an Authentication Method: time, limits, and what an identity permits. `auth` checks
//! the packets.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use hearthmq::{
    Broker,
    auth::{
        AccessRequest, Action, AuthenticationConfig, AuthenticationError, Authorizer,
        ClientCertificate, Decision, EnhancedAuthenticator, Exchange, ExchangeStart,
        FileAuthenticator, Identity, ScramSha256, Step, ThrottleConfig, Throttled, set_password,
    },
    hooks::{ClientDisconnected, DisconnectReason, Hooks},
    limits::QueueFull,
    mqtt::{Connect, Packet, ReasonCode},
};
use tokio::time::Instant;

use crate::{
    riddle::{Riddle, again, answer, auth_by, connect_by, question, riddled, settled},
    scram::{SCRAM, ScramClient},
    support::{Client, generous, millis, packets::*, pass, secs, world_with},
};

async fn riddling() -> Broker {
    world_with(|builder| builder.enhanced_authenticator(Riddle)).await
}

/// Returns a client that has been challenged and has not answered.
async fn asked(broker: &Broker, connect: Connect<'_>) -> Client {
    let mut client = Client::new(broker, V5);
    client.send(Packet::Connect(Box::new(riddled(connect)))).await;
    client.expect(question()).await;
    client
}

/// Returns a client that has answered and is connected as `ann`.
async fn let_in(broker: &Broker, connect: Connect<'_>) -> Client {
    let mut client = asked(broker, connect).await;
    client.send(answer("I am ann")).await;
    client.receive(expect_connack).await;
    client
}

fn expect_connack(packet: Packet<'_>) {
    let Packet::ConnAck(ack) = packet else { panic!("CONNACK expected, not {packet:?}") };
    assert_eq!(ack.reason, ReasonCode::Success);
}

#[actix_rt::test]
async fn the_exchange_at_connect_has_the_time_of_connect_however_many_steps_it_takes() {
    let broker = riddling().await;
    let mut silent = asked(&broker, connect("c")).await;
    pass(secs(9)).await;
    silent.send(answer("hm")).await;
    silent.expect(question()).await;
    silent.expect_refused(ReasonCode::NotAuthorized).await;
}

#[actix_rt::test]
async fn a_method_that_thinks_for_too_long_refuses() {
    let broker = riddling().await;
    let mut client = asked(&broker, connect("c")).await;
    client.send(answer("slow")).await;
    client.expect_nothing_for(secs(9)).await;
    client.expect_refused(ReasonCode::NotAuthorized).await;
}

#[actix_rt::test]
async fn an_exchange_has_a_bounded_number_of_steps_and_bytes() {
    let broker = world_with(|builder| {
        let mut limits = generous();
        limits.authentication_rounds_max = 3;
        limits.authentication_bytes_max = 20;
        builder.limits(limits).enhanced_authenticator(Riddle)
    })
    .await;
    let mut talker = asked(&broker, connect("c")).await;
    talker.send(answer("hm")).await;
    talker.expect(question()).await;
    talker.send(answer("hm")).await;
    talker.expect(question()).await;
    talker.send(answer("I am ann")).await;
    talker.expect_refused(ReasonCode::NotAuthorized).await;
    let mut lengthy = asked(&broker, connect("c")).await;
    lengthy.send(answer("hm, eleven.")).await;
    lengthy.expect(question()).await;
    lengthy.send(answer("I am ann, I")).await;
    lengthy.expect_refused(ReasonCode::NotAuthorized).await;
    // The same for a re-authentication, which starts with the full limits each time.
    let mut client = let_in(&broker, connect("c")).await;
    for _ in 0..2 {
        client.send(again("hm")).await;
        client.expect(question()).await;
        client.send(answer("I am ann")).await;
        client.expect(settled()).await;
    }
    client.send(again("twenty-one characters")).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
}

#[actix_rt::test]
async fn to_authenticate_again_has_the_time_of_connect_from_its_beginning() {
    let broker = riddling().await;
    let mut client = let_in(&broker, connect("c")).await;
    pass(secs(100)).await;
    client.send(again("I am ann")).await;
    client.expect(settled()).await;
    client.expect_nothing_for(secs(100)).await;
    client.send(again("hm")).await;
    client.expect(question()).await;
    pass(secs(9)).await;
    client.send(answer("hm")).await;
    client.expect(question()).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;

    let mut client = let_in(&broker, connect("c")).await;
    client.send(again("slow")).await;
    client.expect_nothing_for(secs(9)).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
}

/// The client may have answered: a client held for a full queue is not read.
#[actix_rt::test]
async fn who_is_held_has_the_time_to_authenticate_again_once_more() {
    let broker = world_with(|builder| {
        let mut limits = generous();
        limits.queue_full = QueueFull::HoldPublisher;
        limits.queue_messages_per_client_max = 4;
        limits.queue_hold_secs_max = 100;
        builder.limits(limits).enhanced_authenticator(Riddle)
    })
    .await;
    let mut packet = connect("slow");
    packet.properties.receive_maximum = Some(1);
    let mut slow = Client::connected(&broker, packet).await;
    slow.subscribe("t", QOS_1).await;
    let mut client = let_in(&broker, connect("c")).await;
    client.send(again("hm")).await;
    client.expect(question()).await;
    for packet_id in 1..=6 {
        client.publish(publish_1(packet_id, "t", "x")).await;
    }
    client.send(answer("I am ann")).await;
    for packet_id in 1..=5 {
        client.expect(puback(packet_id, ReasonCode::Success)).await;
    }
    client.expect_nothing_for(secs(25)).await;
    for packet_id in 1..=6 {
        slow.expect_publish(publish_1(packet_id, "t", "x")).await;
        slow.take(QOS_1, packet_id).await;
    }
    client.expect(puback(6, ReasonCode::Success)).await;
    client.expect(settled()).await;
    // A client that is read and sends nothing has no more time than before.
    client.send(again("hm")).await;
    client.expect(question()).await;
    client.expect_nothing_for(secs(9)).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
}

#[actix_rt::test]
async fn everything_else_goes_on_while_a_method_thinks() {
    let broker = riddling().await;
    let mut client = let_in(&broker, Connect { keep_alive: 30, ..connect("c") }).await;
    let mut other = Client::connected(&broker, connect("o")).await;
    client.subscribe("in", QOS_2).await;
    other.subscribe("out", QOS_1).await;
    client.send(again("slow")).await;
    for packet_id in 1..4 {
        client.publish(publish_2(packet_id, "out", "x")).await;
        client.expect_taken(QOS_2, packet_id, ReasonCode::Success).await;
        other.expect_publish(publish_1(packet_id, "out", "x")).await;
        other.take(QOS_1, packet_id).await;
        other.publish(publish_2(packet_id, "in", "x")).await;
        other.expect_taken(QOS_2, packet_id, ReasonCode::Success).await;
        client.expect_publish(publish_2(packet_id, "in", "x")).await;
        client.take(QOS_2, packet_id).await;
    }
    broker.set_keep_alive("c", 60).await.unwrap();
    client.ping().await;
}

/// [MQTT-3.1.2-20]
#[actix_rt::test]
async fn auth_is_a_packet_that_keeps_the_connection_alive() {
    let broker = riddling().await;
    let mut client = let_in(&broker, Connect { keep_alive: 10, ..connect("c") }).await;
    for _ in 0..5 {
        pass(secs(14)).await;
        client.send(again("I am ann")).await;
        client.expect(settled()).await;
    }
    pass(secs(14)).await;
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
}

/// The exchange of an old connection, and its deadline, do not affect the connection that took
/// over.
#[actix_rt::test]
async fn an_exchange_ends_with_its_connection() {
    let broker = riddling().await;
    let mut old = let_in(&broker, connect_lasting("c", V5)).await;
    old.send(again("slow")).await;
    old.ping().await;
    let mut new = let_in(&broker, connect_lasting("c", V5)).await;
    old.expect_disconnect(ReasonCode::SessionTakenOver).await;
    new.send(again("hm")).await;
    new.expect(question()).await;
    pass(secs(9)).await;
    new.send(answer("I am ann")).await;
    new.expect(settled()).await;
    new.expect_nothing_for(secs(60)).await;
    new.vanish().await;
    assert!(!broker.online("c").await.unwrap());
}

/// Records why connections end.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<DisconnectReason>>>);

impl Hooks for Ends {
    fn client_disconnected(&self, event: &ClientDisconnected) {
        self.0.lock().unwrap().push(event.reason);
    }
}

#[actix_rt::test]
async fn a_client_that_fails_is_reported_as_not_authorized_and_its_will_is_published() {
    let ends = Ends::default();
    let hooks = ends.clone();
    let broker = world_with(|builder| builder.enhanced_authenticator(Riddle).hooks(hooks)).await;
    let mut watcher = Client::connected(&broker, connect("w")).await;
    watcher.subscribe("wills", QOS_0).await;
    for text in ["wrong", "I am ben"] {
        let connect = Connect { will: Some(will("wills", text)), ..connect("c") };
        let mut client = let_in(&broker, connect).await;
        client.send(again(text)).await;
        client.expect_disconnect(ReasonCode::NotAuthorized).await;
        watcher.expect_publish(publish("wills", text)).await;
    }
    let ends = ends.0.lock().unwrap().clone();
    assert_eq!(ends, [DisconnectReason::NotAuthorized; 2]);
}

#[actix_rt::test]
async fn a_session_belongs_to_the_user_that_the_method_names() {
    let broker = riddling().await;
    let_in(&broker, connect_lasting("c", V5)).await.leave().await;
    for (name, is_present) in [("ann", true), ("ben", false), ("ben", true)] {
        let mut client = asked(&broker, connect_lasting("c", V5)).await;
        client.send(answer(&format!("I am {name}"))).await;
        client
            .receive(|packet| {
                let Packet::ConnAck(ack) = packet else { panic!("not {packet:?}") };
                assert_eq!(ack.session_present, is_present, "{name}");
            })
            .await;
        client.leave().await;
    }
}

/// Clients present a serial number: that of their current certificate.
#[derive(Clone, Default)]
struct Serials {
    begun: Arc<Mutex<Vec<Begun>>>,
}

/// What is known when an exchange begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Begun {
    username: Option<String>,
    client_id: Option<String>,
    /// Serial number of the current identity.
    serial_number: Option<String>,
}

struct Serial;

const SERIALS: &str = "SERIALS";

impl EnhancedAuthenticator for Serials {
    fn knows(&self, method: &str) -> bool {
        method == SERIALS
    }

    fn begin(&self, start: ExchangeStart<'_>) -> Box<dyn Exchange> {
        let certificate = start.identity.and_then(|identity| identity.certificate.as_ref());
        let begun = Begun {
            username: start.credentials.username.map(Into::into),
            client_id: start.credentials.client_id.map(Into::into),
            serial_number: certificate.map(|certificate| certificate.serial_number.clone()),
        };
        self.begun.lock().unwrap().push(begun);
        Box::new(Serial)
    }
}

#[async_trait]
impl Exchange for Serial {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        let serial_number = str::from_utf8(data.unwrap()).unwrap().to_owned();
        let certificate = ClientCertificate { common_name: "ann".to_owned(), serial_number };
        let (username, certificate) = (Some("ann".into()), Some(certificate.into()));
        let identity = Identity { username, certificate, ..Identity::default() };
        Ok(Step::Done { identity, data: None })
    }
}

/// Serial numbers name their permitted topics; `0` may not even connect.
struct OwnSerial;

impl Authorizer for OwnSerial {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let certificate = request.identity.certificate.as_ref();
        let serial = certificate.map_or("", |certificate| &certificate.serial_number);
        let allowed = match request.action {
            Action::Connect => serial != "0",
            Action::Publish { topic, .. } => topic == serial,
            Action::Subscribe { filter, .. } => filter == serial,
            Action::Observe | Action::Control | Action::Administer => false,
            _ => false, // an action of a later version
        };
        if allowed { Decision::Allow } else { Decision::Deny }
    }
}

#[actix_rt::test]
async fn who_authenticates_again_may_what_the_new_identity_may() {
    let serials = Serials::default();
    let method = serials.clone();
    let broker =
        world_with(|builder| builder.enhanced_authenticator(method).authorizer(OwnSerial)).await;
    let mut client = Client::new(&broker, V5);
    let connect = Connect { username: Some("somebody"), ..connect("c") };
    client.send(Packet::Connect(Box::new(connect_by(connect, SERIALS, Some(b"1"))))).await;
    client.receive(expect_connack).await;
    client.subscribe("1", QOS_0).await;
    client.publish(publish_1(1, "1", "x")).await;
    client.expect_publish(publish("1", "x")).await;
    client.expect(puback(1, ReasonCode::Success)).await;

    let shows = |serial| auth_by(ReasonCode::ReAuthenticate, SERIALS, Some(serial));
    client.send(shows(b"2")).await;
    client.expect(auth_by(ReasonCode::Success, SERIALS, None)).await;
    client.publish(publish_1(2, "1", "x")).await;
    client.expect(puback(2, ReasonCode::NotAuthorized)).await;
    client.publish(publish_1(3, "2", "x")).await;
    client.expect(puback(3, ReasonCode::NoMatchingSubscribers)).await;
    broker.publish("1", b"x", QOS_0, false).await.unwrap();
    client.expect_nothing().await;
    client.subscribe("2", QOS_0).await;

    client.send(shows(b"0")).await;
    client.expect_disconnect(ReasonCode::NotAuthorized).await;
    let begun = serials.begun.lock().unwrap().clone();
    let expected = [None, Some("1"), Some("2")].map(|serial_number| Begun {
        username: Some("somebody".to_owned()),
        client_id: Some("c".to_owned()),
        serial_number: serial_number.map(str::to_owned),
    });
    assert_eq!(begun, expected);
}

#[actix_rt::test]
async fn who_guesses_at_a_method_is_slowed_down_and_then_not_looked_at() {
    let broker = world_with(|builder| {
        builder.enhanced_authenticator(Throttled::new(Riddle, ThrottleConfig::default()))
    })
    .await;
    for failures in 0_u32..10 {
        let start = Instant::now();
        let mut client = Client::new(&broker, V5);
        client.send(Packet::Connect(Box::new(riddled(connect("c"))))).await;
        // 0.25, 0.5, 1, 2 and then 4 seconds, from the fourth failure on.
        let delay = millis(failures.checked_sub(3).map_or(0, |n| (250 << n).min(4_000)));
        if !delay.is_zero() {
            client.expect_nothing_for(delay - millis(10)).await;
        }
        client.expect(question()).await;
        assert!(start.elapsed() >= delay);
        client.send(answer("wrong")).await;
        client.expect_refused(ReasonCode::BadUserNameOrPassword).await;
    }
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(riddled(connect("c"))))).await;
    client.expect_refused(ReasonCode::ConnectionRateExceeded).await;
    asked(&broker, connect("another")).await;
}

/// Starts a broker with an accounts file, which has ann with `secret`.
async fn with_scram(config: AuthenticationConfig) -> Broker {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.toml");
    set_password(&path, "ann", "secret", 4_096.try_into().ok()).unwrap();
    let accounts = Arc::new(FileAuthenticator::open(Path::new(&path), config).unwrap());
    let scram = ScramSha256::new(Arc::clone(&accounts));
    world_with(|builder| builder.authenticator(accounts).enhanced_authenticator(scram)).await
}

#[actix_rt::test]
async fn a_client_logs_in_by_scram_and_again_and_both_sides_know_each_other() {
    let broker = with_scram(AuthenticationConfig::default()).await;
    let ann = ScramClient { name: "ann", password: "secret" };
    let mut client = Client::new(&broker, V5);
    let first = ann.first();
    let connect = connect_by(connect("c"), SCRAM, Some(&first));
    client.send(Packet::Connect(Box::new(connect))).await;
    for phase in 0..3 {
        let (last, expected) = client.receive(|packet| ann.last(challenge(&packet))).await;
        client.send(auth_by(ReasonCode::ContinueAuthentication, SCRAM, Some(&last))).await;
        client
            .receive(|packet| match packet {
                Packet::ConnAck(ack) if phase == 0 => {
                    assert_eq!(ack.properties.authentication_data, Some(&*expected));
                }
                Packet::Auth(auth) if phase > 0 => {
                    assert_eq!(auth.reason, ReasonCode::Success);
                    assert_eq!(auth.properties.authentication_data, Some(&*expected));
                }
                packet => panic!("{packet:?}"),
            })
            .await;
        client.send(auth_by(ReasonCode::ReAuthenticate, SCRAM, Some(&first))).await;
    }
    assert_eq!(broker.online("c").await, Ok(true));
}

#[actix_rt::test]
async fn a_wrong_password_by_scram_is_refused_with_the_reason_of_a_wrong_password() {
    let broker = with_scram(AuthenticationConfig::default()).await;
    for name in ["ann", "nobody"] {
        let liar = ScramClient { name, password: "guess" };
        let mut client = Client::new(&broker, V5);
        let connect = connect_by(connect("c"), SCRAM, None);
        client.send(Packet::Connect(Box::new(connect))).await;
        client.expect(auth_by(ReasonCode::ContinueAuthentication, SCRAM, None)).await;
        let first = liar.first();
        client.send(auth_by(ReasonCode::ContinueAuthentication, SCRAM, Some(&first))).await;
        let (last, _) = client.receive(|packet| liar.last(challenge(&packet))).await;
        client.send(auth_by(ReasonCode::ContinueAuthentication, SCRAM, Some(&last))).await;
        client.expect_refused(ReasonCode::BadUserNameOrPassword).await;
    }
}

fn challenge<'p>(packet: &Packet<'p>) -> &'p [u8] {
    let Packet::Auth(auth) = packet else { panic!("AUTH expected, not {packet:?}") };
    assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
    auth.properties.authentication_data.unwrap()
}
