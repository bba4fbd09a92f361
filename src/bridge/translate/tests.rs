//! Messages that go over, their form, and messages that are answered here.

use super::*;
use crate::{
    bridge::{
        marks::PATH,
        topic::{BridgeTopic, Direction},
    },
    mqtt::{
        Decoded, PacketId, Publish, PublishFlags, PublishProperties, UserPropertiesBuf, decode,
    },
};

const NOW: Timestamp = Timestamp(1_000_000);

/// A translator between the topics `out/#` and `site/out/#`, and `cmd/#` and `site/cmd/#`.
struct World {
    memory: BridgeMemory,
    remote: RemoteSide,
    marks: Option<Marks>,
    local_bytes_max: u32,
}

impl Default for World {
    fn default() -> Self {
        Self {
            memory: BridgeMemory::default(),
            remote: RemoteSide {
                version: ProtocolVersion::V5,
                session_present: true,
                qos_max: ExactlyOnce,
                takes_retain: true,
                packet_bytes_max: u32::MAX,
                returns_messages: false,
            },
            marks: None,
            local_bytes_max: u32::MAX,
        }
    }
}

impl World {
    fn translator(&mut self) -> Translator<'_> {
        let topic = |filter: &str, direction| BridgeTopic {
            filter: filter.into(),
            direction,
            remote_prefix: "site/".into(),
            ..BridgeTopic::default()
        };
        let topics = [
            topic("out/#", Direction::Out),
            topic("cmd/#", Direction::In),
            topic("both/#", Direction::Both),
        ];
        let local = LocalSideLimits {
            packet_bytes_max: self.local_bytes_max,
            allows_topic: Box::new(|topic| topic.len() < 100),
        };
        let routes = (Arc::new(Routes::new(&topics)), self.marks.clone());
        let metrics = Arc::new(BridgeMetrics::new("test".into()));
        Translator::new(routes, self.remote, local, &mut self.memory, metrics)
    }
}

impl Translator<'_> {
    fn session_sends(&mut self, packet: Packet<'_>) {
        self.take_local(&packet, NOW).unwrap();
    }

    fn broker_sends(&mut self, packet: Packet<'_>) {
        self.take_remote(&packet, NOW).unwrap();
    }

    /// Takes what the other broker gets.
    fn sent(&mut self) -> Vec<String> {
        described(&std::mem::take(&mut self.to_remote), self.remote.version)
    }

    /// Takes what the session gets.
    fn given(&mut self) -> Vec<String> {
        described(&std::mem::take(&mut self.to_local), ProtocolVersion::V5)
    }
}

fn described(mut bytes: &[u8], version: ProtocolVersion) -> Vec<String> {
    let mut all = Vec::new();
    while let Decoded::Packet { packet, length } =
        decode(bytes, version, &crate::bridge::prime::limits()).unwrap()
    {
        all.push(describe(&packet));
        bytes = &bytes[length..];
    }
    all
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the others are shown as they are")]
fn describe(packet: &Packet<'_>) -> String {
    let ack = |name: &str, ack: &Ack<'_>| {
        let shown = format!("{name} {}", ack.packet_id.number());
        let is_good = ack.reason == Success;
        if is_good { shown } else { format!("{shown} {:?}", ack.reason) }
    };
    match packet {
        Packet::Publish(publish) => {
            let PublishFlags { dup, qos, retain } = publish.flags;
            let id = publish.packet_id.map_or(String::new(), |id| format!(" {}", id.number()));
            let flags = [(dup, " dup"), (retain, " retain")];
            let flags: String =
                flags.iter().filter(|(is_set, _)| *is_set).map(|(_, s)| *s).collect();
            format!("PUBLISH{id} qos {}{flags} {}", qos.number(), publish.topic)
        }
        Packet::PubAck(it) => ack("PUBACK", it),
        Packet::PubRec(it) => ack("PUBREC", it),
        Packet::PubRel(it) => ack("PUBREL", it),
        Packet::PubComp(it) => ack("PUBCOMP", it),
        other => format!("{other:?}"),
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn publish(qos: QoS, topic: &str) -> Publish<'_> {
    Publish {
        flags: PublishFlags { qos, ..PublishFlags::default() },
        topic,
        packet_id: Some(id(7)).filter(|_| qos > AtMostOnce),
        properties: PublishProperties::default(),
        payload: b"hi",
    }
}

fn again(mut publish: Publish<'_>) -> Packet<'_> {
    publish.flags.dup = true;
    Packet::Publish(publish)
}

fn once(qos: QoS, topic: &str) -> Packet<'_> {
    Packet::Publish(publish(qos, topic))
}

fn puback(reason: ReasonCode) -> Packet<'static> {
    Packet::PubAck(Ack::with_reason(id(7), reason))
}

fn pubrec(reason: ReasonCode) -> Packet<'static> {
    Packet::PubRec(Ack::with_reason(id(7), reason))
}

const PUBREL: fn() -> Packet<'static> = || Packet::PubRel(Ack::success(id(7)));
const PUBCOMP: fn() -> Packet<'static> = || Packet::PubComp(Ack::success(id(7)));

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use ReasonCode::Success;

#[test]
fn a_message_keeps_its_identifier_and_gets_the_topic_of_the_other_side() {
    for version in [ProtocolVersion::V5, ProtocolVersion::V3_1_1] {
        let mut world = World::default();
        world.remote.version = version;
        let mut it = world.translator();
        it.session_sends(once(ExactlyOnce, "out/a"));
        assert_eq!(it.sent(), ["PUBLISH 7 qos 2 site/out/a"]);
        it.broker_sends(pubrec(Success));
        it.session_sends(PUBREL());
        it.broker_sends(PUBCOMP());
        assert_eq!(
            (it.given(), it.sent()),
            (vec!["PUBREC 7".into(), "PUBCOMP 7".into()], vec!["PUBREL 7".into()])
        );
        it.broker_sends(once(ExactlyOnce, "site/cmd/a"));
        assert_eq!(it.given(), ["PUBLISH 7 qos 2 cmd/a"]);
        it.session_sends(pubrec(ReasonCode::NoMatchingSubscribers));
        it.broker_sends(PUBREL());
        it.session_sends(PUBCOMP());
        assert_eq!(
            (it.sent(), it.given()),
            (vec!["PUBREC 7".into(), "PUBCOMP 7".into()], vec!["PUBREL 7".into()])
        );
    }
}

#[test]
fn a_broker_without_session_gets_old_messages_as_new_ones() {
    let mut world = World::default();
    let mut it = world.translator();
    it.session_sends(again(publish(AtLeastOnce, "out/a")));
    assert_eq!(it.sent(), ["PUBLISH 7 qos 1 dup site/out/a"]);
    world.remote.session_present = false;
    let mut it = world.translator();
    // It knows nothing of what was released.
    it.session_sends(Packet::PubRel(Ack::success(id(9))));
    it.session_sends(again(publish(ExactlyOnce, "out/a")));
    assert_eq!(it.sent(), ["PUBLISH 7 qos 2 site/out/a"]);
    assert_eq!(it.given(), ["PUBCOMP 9"]);
    it.broker_sends(pubrec(Success));
    it.session_sends(PUBREL());
    assert_eq!(it.sent(), ["PUBREL 7"]);
}

#[test]
fn a_new_session_frees_identifiers_at_a_broker_with_an_old_one() {
    let mut world = World::default();
    world.memory.session_is_new();
    let mut it = world.translator();
    it.session_sends(once(ExactlyOnce, "out/a"));
    assert_eq!(it.sent(), ["PUBREL 7", "PUBLISH 7 qos 2 site/out/a"]);
    it.broker_sends(Packet::PubComp(Ack::with_reason(id(7), ReasonCode::PacketIdentifierNotFound)));
    it.broker_sends(pubrec(Success));
    assert_eq!(it.given(), ["PUBREC 7"]);
    it.session_sends(PUBREL());
    it.broker_sends(PUBCOMP());
    assert_eq!(it.given(), ["PUBCOMP 7"]);
    it.session_sends(once(ExactlyOnce, "out/a"));
    assert_eq!(it.sent(), ["PUBREL 7", "PUBLISH 7 qos 2 site/out/a"], "the second is the new one");
}

#[test]
fn a_broker_with_qos_1_takes_messages_of_qos_2() {
    let mut world = World::default();
    world.remote.qos_max = AtLeastOnce;
    let mut it = world.translator();
    it.session_sends(once(ExactlyOnce, "out/a"));
    assert_eq!(it.sent(), ["PUBLISH 7 qos 1 site/out/a"]);
    it.broker_sends(puback(Success));
    assert_eq!(it.given(), ["PUBREC 7"]);
    it.session_sends(PUBREL());
    assert_eq!((it.given(), it.sent().len()), (vec!["PUBCOMP 7".into()], 0));
    // One that was received there before, while it had QoS 2.
    it.session_sends(PUBREL());
    assert_eq!(it.given(), ["PUBCOMP 7"]);
    it.session_sends(once(ExactlyOnce, "out/a"));
    it.broker_sends(puback(ReasonCode::NotAuthorized));
    assert_eq!(it.given(), ["PUBREC 7 NotAuthorized"]);
}

#[test]
fn a_broker_with_qos_0_takes_all_messages() {
    let mut world = World::default();
    world.remote.qos_max = AtMostOnce;
    world.remote.takes_retain = false;
    let mut it = world.translator();
    let mut retained = publish(AtLeastOnce, "out/a");
    retained.flags.retain = true;
    it.session_sends(Packet::Publish(retained));
    it.session_sends(once(ExactlyOnce, "out/b"));
    it.session_sends(PUBREL());
    assert_eq!(it.sent(), ["PUBLISH qos 0 site/out/a", "PUBLISH qos 0 site/out/b"]);
    assert_eq!(it.given(), ["PUBACK 7", "PUBREC 7", "PUBCOMP 7"]);
}

#[test]
fn what_does_not_go_over_is_answered_here() {
    let mut world = World::default();
    world.remote.packet_bytes_max = 30;
    world.local_bytes_max = 30;
    let mut it = world.translator();
    let long = "out/123456789012345678901234567890";
    for topic in ["other", long] {
        it.session_sends(once(AtMostOnce, topic));
        it.session_sends(once(AtLeastOnce, topic));
        it.session_sends(once(ExactlyOnce, topic));
        assert_eq!(it.given(), ["PUBACK 7", "PUBREC 7 UnspecifiedError"], "{topic}");
    }
    // The other broker may have it from before: else a new message with its identifier would be taken
    // for this one.
    it.session_sends(again(publish(ExactlyOnce, "other")));
    assert_eq!(it.sent(), ["PUBREL 7"]);
    it.broker_sends(PUBCOMP());
    assert_eq!(it.given(), ["PUBREC 7 UnspecifiedError"]);
    let long = format!("site/{}", long.replace("out", "cmd"));
    for topic in ["other", "site/out/a", &long] {
        it.broker_sends(once(AtMostOnce, topic));
        it.broker_sends(once(AtLeastOnce, topic));
        it.broker_sends(once(ExactlyOnce, topic));
        assert_eq!((it.sent(), it.given().len()), (vec!["PUBACK 7".into(), "PUBREC 7".into()], 0));
    }
    let dropped = |way| it.metrics.way(way).dropped.sum();
    assert_eq!((dropped(BridgeWay::Out), dropped(BridgeWay::In)), (7, 9));
    assert_eq!(it.notes.len(), 16);
}

#[test]
fn a_message_that_may_be_taken_later_is_not_acknowledged() {
    let mut world = World::default();
    let mut it = world.translator();
    for reason in [ReasonCode::QuotaExceeded, ReasonCode::UnspecifiedError] {
        for packet in [puback(reason), pubrec(reason)] {
            let fault = it.take_remote(&packet, NOW).unwrap_err();
            assert_eq!(fault.code, TroubleKind::MessageRefused);
            let fault = it.take_local(&packet, NOW).unwrap_err();
            assert_eq!(fault.code, TroubleKind::MessageRefused);
        }
    }
    assert!(it.given().is_empty() && it.sent().is_empty());
    let refused = || puback(ReasonCode::NotAuthorized);
    it.broker_sends(refused());
    it.session_sends(refused());
    assert_eq!(it.given(), ["PUBACK 7 NotAuthorized"]);
    assert_eq!(it.sent(), ["PUBACK 7 NotAuthorized"]);
    assert_eq!(it.metrics.way(BridgeWay::Out).dropped.sum(), 1);
}

#[test]
fn messages_are_marked_and_loops_end() {
    let marks = Marks { own: "a".into(), remote: Some("b".into()), hops_max: 4 };
    let mut world = World { marks: Some(marks), ..World::default() };
    let mut it = world.translator();
    let marked = |path: &str| {
        let mut properties = UserPropertiesBuf::new();
        properties.push(PATH, path).unwrap();
        properties
    };
    let path = marked("c");
    let mut passed = publish(AtLeastOnce, "both/x");
    passed.properties.user_properties = path.as_user_properties();
    it.session_sends(Packet::Publish(passed));
    let bytes = std::mem::take(&mut it.to_remote);
    assert!(bytes.windows(3).any(|part| part == b"c,a"));
    for goes_round in ["a", "b", "c,d,e,f"] {
        let path = marked(goes_round);
        let mut passed = publish(AtLeastOnce, "both/x");
        passed.properties.user_properties = path.as_user_properties();
        it.session_sends(Packet::Publish(passed));
        assert_eq!((it.given(), it.sent().len()), (vec!["PUBACK 7".into()], 0), "{goes_round}");
    }
    let path = marked("c,a");
    let mut returned = publish(AtLeastOnce, "site/both/x");
    returned.properties.user_properties = path.as_user_properties();
    it.broker_sends(Packet::Publish(returned));
    assert_eq!((it.sent(), it.given().len()), (vec!["PUBACK 7".into()], 0));
    assert!(it.notes.is_empty(), "it is as intended");
}

#[test]
fn an_echo_of_a_broker_that_knows_no_bridges_is_dropped_once() {
    let mut world = World::default();
    world.remote.version = ProtocolVersion::V3_1_1;
    world.remote.returns_messages = true;
    let mut it = world.translator();
    it.session_sends(once(AtLeastOnce, "both/x"));
    it.broker_sends(once(AtLeastOnce, "site/both/x"));
    assert_eq!(it.sent(), ["PUBLISH 7 qos 1 site/both/x", "PUBACK 7"]);
    assert!(it.given().is_empty());
    it.broker_sends(once(AtLeastOnce, "site/both/x"));
    assert_eq!(it.given(), ["PUBLISH 7 qos 1 both/x"]);
}

#[test]
fn a_broker_that_breaks_a_rule_is_left() {
    let mut world = World::default();
    let mut it = world.translator();
    let mut aliased = publish(AtMostOnce, "site/cmd/a");
    aliased.properties.topic_alias = Some(1);
    for packet in [Packet::Publish(aliased), Packet::PingReq] {
        assert_eq!(it.take_remote(&packet, NOW).unwrap_err().code, TroubleKind::ProtocolError);
    }
}
