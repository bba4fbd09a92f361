//! Traces: every packet of a client, in both directions, over connections, and nothing of others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    control::{
        Caller, ControlError, KickOptions, ReadTrace, StartTrace, TraceKind, TraceTarget, TraceView,
    },
    mqtt::{Packet, PublicationBuilder, ReasonCode},
};
use serde_json::Value;

use crate::{
    riddle::{Riddle, answer, question, riddled},
    support::{
        Client,
        disk::{Disk, until_written},
        packets::*,
        pass, secs, stream_of, world, world_where, world_with, world_within,
    },
};

fn of_client(client_id: &str) -> StartTrace {
    StartTrace::new(TraceTarget::Client(client_id.into()))
}

async fn start(broker: &Broker, request: StartTrace) -> TraceView {
    let trace = broker.start_trace(request).await.unwrap();
    pass(Duration::from_millis(1)).await; // the connection takes the message
    trace
}

async fn lines(broker: &Broker, trace: &TraceView) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let part = broker.read_trace(ReadTrace::new(trace.id.clone(), after)).await.unwrap();
        if part.records.is_empty() {
            return found;
        }
        after = part.next;
        for record in part.records {
            let line: Value = serde_json::from_slice(&record.json).unwrap();
            assert_eq!(line["number"], record.number);
            found.push(line);
        }
    }
}

/// Returns the lines in short: `> publish` from the client, `< publish` to it, and events.
async fn kinds(broker: &Broker, trace: &TraceView) -> Vec<String> {
    let lines = lines(broker, trace).await;
    let short = |line: &Value| {
        let kind = line["kind"].as_str().unwrap();
        match line["direction"].as_str() {
            Some("in") => format!("> {kind}"),
            Some(_) => format!("< {kind}"),
            None => format!("{kind} {}", line["reason"].as_str().unwrap_or("-")),
        }
    };
    lines.iter().map(short).collect()
}

/// Connects, subscribes, sends itself a message, and leaves.
async fn one_life(broker: &Broker, client_id: &str) {
    let mut client = Client::connected(broker, connect(client_id)).await;
    client.subscribe("a/b", QOS_1).await;
    client.publish(publish_1(7, "a/b", "hello")).await;
    let mut expected = [true; 2];
    for _ in 0..2 {
        client
            .receive(|packet| match packet {
                Packet::PubAck(_) => expected[0] = false,
                Packet::Publish(_) => expected[1] = false,
                packet => panic!("{packet:?}"),
            })
            .await;
    }
    assert_eq!(expected, [false; 2]);
    client.send(puback(1, ReasonCode::Success)).await;
    client.ping().await;
    client.leave().await;
}

#[actix_rt::test]
async fn every_packet_of_a_client_is_recorded_from_connect_on_and_over_connections() {
    let broker = world().await;
    let trace = start(&broker, of_client("car")).await;
    assert_eq!((trace.is_running, trace.records, trace.connections), (true, 0, 0));
    one_life(&broker, "car").await;
    one_life(&broker, "truck").await;
    let once = [
        "> connect",
        "< connack",
        "> subscribe",
        "< suback",
        "> publish",
        "< publish",
        "< puback",
        "> puback",
        "> pingreq",
        "< pingresp",
        "> disconnect",
        "connection_ended normal",
    ];
    let mut found = kinds(&broker, &trace).await;
    found[5..7].sort_unstable_by_key(|kind| kind == "< puback"); // both are in one write
    assert_eq!(found, once);
    let lines = lines(&broker, &trace).await;
    assert!(lines.iter().all(|line| line["client_id"] == "car" && line["at"].is_u64()));
    let published = &lines[4];
    for (name, value) in [
        ("topic", Value::from("a/b")),
        ("packet_id", 7.into()),
        ("qos", 1.into()),
        ("retain", false.into()),
        ("dup", false.into()),
        ("payload_bytes", 5.into()),
        ("payload_base64", Value::Null),
        ("bytes", 15.into()),
        ("address", "192.0.2.7:40000".into()),
    ] {
        assert_eq!(published[name], value, "{name} of {published}");
    }
    one_life(&broker, "car").await;
    assert_eq!(kinds(&broker, &trace).await.len(), 2 * once.len());
}

#[actix_rt::test]
async fn a_client_that_is_there_already_is_followed_from_now_on() {
    let broker = world().await;
    for version in VERSIONS {
        let mut client = Client::connected(&broker, connect_in(version, "car")).await;
        client.ping().await;
        let trace = start(&broker, of_client("car")).await;
        client.ping().await;
        // A second trace of the same client does not disturb the first one.
        let other = start(&broker, of_client("car")).await;
        client.ping().await;
        let pings = ["> pingreq", "< pingresp"];
        let followed = ["connection_followed -"];
        assert_eq!(kinds(&broker, &other).await, [&followed[..], &pings].concat());
        assert_eq!(kinds(&broker, &trace).await, [&followed[..], &pings, &pings].concat());
        let lines = lines(&broker, &trace).await;
        assert_eq!(lines[0]["protocol"], version.level());
        client.leave().await;
        pass(secs(2)).await;
        for trace in [trace, other] {
            assert_eq!(broker.end_trace(&trace.id).unwrap().connections, 0);
        }
    }
    assert!(broker.traces().is_empty());
}

/// A trace may begin while a packet is read in part, and while others are written in part.
#[actix_rt::test]
async fn what_is_under_way_at_the_beginning_of_a_trace_is_not_torn() {
    let broker = world().await;
    let mut client = Client::on(stream_of(&broker, 64), V5);
    client.connect(connect("car")).await;
    client.subscribe("t/#", QOS_0).await;
    // More than the stream takes, of which the client reads nothing.
    let payload = "x".repeat(1_000);
    for _ in 0..3 {
        broker.publish("t/before", payload.as_bytes(), QOS_0, false).await.unwrap();
    }
    pass(secs(1)).await;
    client.send_bytes(&[0x30, 9, 0]).await;
    pass(secs(1)).await;
    let trace = start(&broker, of_client("car")).await;
    client.send_bytes(b"\x03t/x\0abc").await;
    broker.publish("t/after", b"y", QOS_0, false).await.unwrap();
    for _ in 0..3 {
        client.expect_publish(publish("t/before", &payload)).await;
    }
    let mut topics = Vec::new();
    for _ in 0..2 {
        client
            .receive(|packet| match packet {
                Packet::Publish(publish) => topics.push(publish.topic.to_owned()),
                packet => panic!("{packet:?}"),
            })
            .await;
    }
    client.ping().await;
    let found = lines(&broker, &trace).await;
    let told = found.iter().filter(|line| line["kind"] == "publish");
    let mut told: Vec<_> = told.map(|line| line["topic"].as_str().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, ["t/after", "t/x", "t/x"], "one in, two out: {found:?}");
    assert!(found.iter().all(|line| line["incomplete"].is_null()), "{found:?}");
    assert_eq!(found.last().unwrap()["kind"], "pingresp");
}

/// Output that waits for the store when a trace begins is recorded when it is sent.
#[actix_rt::test]
async fn a_connack_that_waits_for_the_store_is_recorded() {
    let disk = Disk::default();
    let powered = disk.power_slowly().await;
    powered.hold_writes(true);
    let mut client = Client::new(&powered.broker, V5);
    client.send(Packet::Connect(Box::new(connect_lasting("car", V5)))).await;
    pass(secs(1)).await;
    let trace = start(&powered.broker, of_client("car")).await;
    powered.hold_writes(false);
    until_written(&powered.broker).await;
    client.expect_connected().await;
    client.ping().await;
    let found = kinds(&powered.broker, &trace).await;
    assert_eq!(found, ["connection_followed -", "< connack", "> pingreq", "< pingresp"]);
}

#[actix_rt::test]
async fn ends_say_why() {
    let broker = world().await;
    let trace = start(&broker, of_client("car")).await;
    let mut packet = connect("car");
    packet.keep_alive = 10;
    let mut client = Client::connected(&broker, packet).await;
    client.expect_nothing_for(secs(14)).await;
    client.expect_disconnect(ReasonCode::KeepAliveTimeout).await;
    let mut old = Client::connected(&broker, connect("car")).await;
    let mut client = Client::connected(&broker, connect("car")).await;
    old.expect_disconnect(ReasonCode::SessionTakenOver).await;
    broker.kick("car", KickOptions::default()).await.unwrap();
    client.expect_disconnect(ReasonCode::AdministrativeAction).await;
    let mut client = Client::connected(&broker, connect("car")).await;
    client.send_bytes(&[0xC0, 0, 0x60, 0]).await; // a PUBREL with a wrong flag
    client.receive(|packet| assert_eq!(packet, Packet::PingResp)).await;
    client.expect_disconnect(ReasonCode::MalformedPacket).await;
    let found = lines(&broker, &trace).await;
    let ends: Vec<_> = found.iter().filter(|line| line["kind"] == "connection_ended").collect();
    let reasons: Vec<_> = ends.iter().map(|end| end["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["keepalive_timeout", "takeovered", "kicked", "protocol_error"]);
    let codes = found.iter().filter(|line| line["kind"] == "disconnect");
    let codes: Vec<_> = codes.map(|line| line["reason_code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [0x8D, 0x8E, 0x98, 0x81]);
    let wrong = found.iter().find(|line| line["kind"] == "pubrel").unwrap();
    assert_eq!(wrong["incomplete"], true, "{wrong}");
}

#[actix_rt::test]
async fn a_refused_connect_is_recorded_without_its_secrets() {
    let broker = world_with(|builder| {
        builder.enhanced_authenticator(Riddle).authorizer(NotThe("stranger", Action::Connect))
    })
    .await;
    let trace = start(&broker, of_client("stranger").with_payloads()).await;
    let mut packet = connect("stranger");
    packet.username = Some("ann");
    packet.password = Some(b"very secret");
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(packet))).await;
    client.expect_refused(ReasonCode::NotAuthorized).await;
    assert_eq!(
        kinds(&broker, &trace).await,
        ["> connect", "connection_refused not_authorized", "< connack"]
    );
    // An exchange of AUTH packets, whose data nobody sees.
    let mut client = Client::new(&broker, V5);
    client.send(Packet::Connect(Box::new(riddled(connect("stranger"))))).await;
    client.expect(question()).await;
    client.send(answer("I am ann")).await;
    client.expect_refused(ReasonCode::NotAuthorized).await;
    let found = kinds(&broker, &trace).await;
    assert_eq!(found[3..6], ["> connect", "< auth", "> auth"]);
    let text = lines(&broker, &trace).await.iter().map(Value::to_string).collect::<String>();
    assert!(text.contains(r#""has_password":true"#), "{text}");
    for secret in ["very secret", "dmVyeSBzZWNyZXQ", "I am ann", "SSBhbSBhbm4"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// Allows everything but this action for this client.
struct NotThe(&'static str, Action<'static>);

impl Authorizer for NotThe {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_denied = request.client_id == self.0 && request.action == self.1;
        if is_denied { Decision::Deny } else { Decision::Allow }
    }
}

#[actix_rt::test]
async fn contents_are_recorded_only_where_the_trace_has_them() {
    let broker = world().await;
    let plain = start(&broker, of_client("car")).await;
    let whole = start(&broker, of_client("car").with_payloads()).await;
    let mut client = Client::connected(&broker, connect("car")).await;
    client.subscribe("t", QOS_0).await;
    let message = PublicationBuilder::new("t", b"hello")
        .correlation_data(b"data")
        .content_type("text/plain")
        .user_property("key", "value");
    broker.publish_with(message).await.unwrap();
    client.receive(|_| ()).await;
    let last = |lines: Vec<Value>| lines.last().unwrap().clone();
    let (plain, whole) = (last(lines(&broker, &plain).await), last(lines(&broker, &whole).await));
    assert_eq!((&plain["payload_bytes"], &plain["payload_base64"]), (&5.into(), &Value::Null));
    let expected = serde_json::json!({ "content_type": "text/plain", "correlation_data_bytes": 4,
        "user_properties": [{ "key": "key" }] });
    assert_eq!(plain["properties"], expected);
    assert_eq!(whole["payload_base64"], "aGVsbG8=");
    assert_eq!(whole["properties"]["correlation_data_base64"], "ZGF0YQ==");
    assert_eq!(whole["properties"]["user_properties"][0]["value"], "value");
}

#[actix_rt::test]
async fn clients_of_a_user_and_of_a_network_are_recorded() {
    let broker = world().await;
    let named = |client_id, username| {
        let mut packet = connect(client_id);
        packet.username = username;
        packet
    };
    let mut early = Client::connected(&broker, named("early", Some("ann"))).await;
    let of_ann = start(&broker, StartTrace::new(TraceTarget::User("ann".into()))).await;
    let here = "192.0.2.0/24".parse().unwrap();
    let of_here = start(&broker, StartTrace::new(TraceTarget::Network(here))).await;
    let there = "198.51.100.7".parse().unwrap();
    let of_there = start(&broker, StartTrace::new(TraceTarget::Network(there))).await;
    let _late = Client::connected(&broker, named("late", Some("ann"))).await;
    let _other = Client::connected(&broker, named("other", Some("bob"))).await;
    early.ping().await;
    let clients = |lines: Vec<Value>| {
        let ids = lines.iter().map(|line| line["client_id"].as_str().unwrap().to_owned());
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    assert_eq!(clients(lines(&broker, &of_ann).await), ["early", "late"]);
    assert_eq!(clients(lines(&broker, &of_here).await), ["early", "late", "other"]);
    assert!(lines(&broker, &of_there).await.is_empty());
    assert_eq!(broker.traces().iter().map(|it| it.connections).collect::<Vec<_>>(), [2, 3, 0]);
}

/// Lets callers observe nobody but the cars, until the rules change.
#[derive(Clone, Default)]
struct CarsInSight {
    is_closed: Arc<AtomicBool>,
    generation: Arc<AtomicU64>,
}

impl Authorizer for CarsInSight {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_allowed = match request.action {
            Action::Observe => {
                request.client_id.starts_with("car-") && !self.is_closed.load(Ordering::Relaxed)
            }
            _ => true,
        };
        if is_allowed { Decision::Allow } else { Decision::Deny }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}

#[actix_rt::test]
async fn a_caller_gets_the_packets_of_clients_that_it_may_observe_and_no_longer() {
    let rules = CarsInSight::default();
    let broker = world_where(rules.clone()).await;
    let identity = Identity { username: Some("ops".into()), ..Identity::default() };
    let caller = Caller { identity, peer: "127.0.0.1:1".parse().unwrap(), listener: "http".into() };
    let anywhere = TraceTarget::Network("0.0.0.0/0".parse().unwrap());
    let trace = start(&broker, StartTrace::new(anywhere).by(caller)).await;
    let mut car = Client::connected(&broker, connect("car-1")).await;
    let _truck = Client::connected(&broker, connect("truck")).await;
    // The broker chooses the identifier; it is known with CONNACK.
    let _assigned = Client::connected(&broker, connect("")).await;
    assert_eq!(kinds(&broker, &trace).await, ["> connect", "< connack"]);
    rules.is_closed.store(true, Ordering::Relaxed);
    rules.generation.fetch_add(1, Ordering::Relaxed);
    car.ping().await;
    car.leave().await;
    assert_eq!(lines(&broker, &trace).await.len(), 2);
}

#[actix_rt::test]
async fn a_trace_ends_at_its_time_and_its_records_stay_for_a_while() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("car")).await;
    let trace = start(&broker, of_client("car").lasting(30)).await;
    assert_eq!(trace.ends_at_millis - trace.started_at_millis, 30_000);
    pass(secs(29)).await;
    client.ping().await;
    pass(secs(2)).await;
    client.ping().await;
    assert_eq!(lines(&broker, &trace).await.len(), 3, "nothing after the end");
    let part = broker.read_trace(ReadTrace::new(trace.id.clone(), 3)).await.unwrap();
    assert!(part.is_over && part.records.is_empty());
    assert!(!broker.traces()[0].is_running);
    pass(secs(890)).await;
    assert_eq!(broker.traces().len(), 1);
    pass(secs(10)).await;
    assert!(broker.traces().is_empty());
    let gone = broker.read_trace(ReadTrace::new(trace.id.clone(), 0)).await;
    assert_eq!(gone, Err(ControlError::TraceNotFound));
    assert_eq!(broker.end_trace(&trace.id), Err(ControlError::TraceNotFound));
}

#[actix_rt::test]
async fn a_reader_waits_for_the_next_record_and_is_told_of_the_end() {
    let broker = world().await;
    let mut client = Client::connected(&broker, connect("car")).await;
    let trace = start(&broker, of_client("car").kinds([TraceKind::PingReq])).await;
    let waiting = ReadTrace::new(trace.id.clone(), 0).waiting(secs(60));
    let (part, ()) = tokio::join!(broker.read_trace(waiting), async {
        pass(secs(5)).await;
        client.ping().await;
    });
    assert_eq!(part.unwrap().records.len(), 1, "only the kind that is wanted");
    let waiting = ReadTrace::new(trace.id.clone(), 1).waiting(secs(5));
    let part = broker.read_trace(waiting).await.unwrap();
    assert!(part.records.is_empty() && !part.is_over);
    let waiting = ReadTrace::new(trace.id.clone(), 1).waiting(secs(3_600));
    let (part, ()) = tokio::join!(broker.read_trace(waiting), async {
        pass(secs(5)).await;
        broker.end_trace(&trace.id).unwrap();
    });
    assert!(part.unwrap().is_over);
}

#[actix_rt::test]
async fn the_memory_of_a_trace_is_bounded_and_the_oldest_records_leave() {
    let broker = world_within(|limits| {
        limits.traces_max = 4;
        limits.trace_bytes_max = 64 * 1024; // 12 KiB for each
        limits.trace_records_per_sec_max = 1_000;
    })
    .await;
    let mut client = Client::connected(&broker, connect("car")).await;
    let trace = start(&broker, of_client("car")).await;
    for _ in 0..300 {
        client.ping().await;
    }
    let now = broker.traces().remove(0);
    assert!(now.bytes <= 12 * 1024, "{now:?}");
    assert_eq!((now.records, now.skipped), (601, 0));
    let part = broker.read_trace(ReadTrace::new(trace.id.clone(), 0)).await.unwrap();
    assert_eq!((part.missed, part.next), (now.dropped, 601));
    assert_eq!(part.records.len() as u64 + now.dropped, 601);
    // A rate, above which packets are only counted.
    for _ in 0..300 {
        client.ping().await;
    }
    let now = broker.traces().remove(0);
    assert_eq!((now.records, now.skipped), (1_000, 201));
    pass(secs(1)).await;
    client.ping().await;
    assert_eq!(broker.traces()[0].records, 1_002);
}

#[actix_rt::test]
async fn traces_are_limited_in_all_and_for_one_caller() {
    let broker = world_within(|limits| limits.traces_max = 4).await;
    let by = |name: &str| {
        let identity = Identity { username: Some(name.into()), ..Identity::default() };
        let peer = "127.0.0.1:1".parse().unwrap();
        of_client("car").lasting(60).by(Caller { identity, peer, listener: "http".into() })
    };
    let first = start(&broker, by("ann")).await;
    start(&broker, by("ann")).await;
    assert_eq!(broker.start_trace(by("ann")).await, Err(ControlError::TooManyTraces));
    start(&broker, by("bob")).await;
    start(&broker, of_client("car")).await;
    assert_eq!(broker.start_trace(by("eve")).await, Err(ControlError::TooManyTraces));
    broker.end_trace(&first.id).unwrap();
    start(&broker, by("eve")).await;
    // Those that have ended make room.
    pass(secs(61)).await;
    assert_eq!(broker.traces().len(), 4);
    let last = start(&broker, by("ann")).await;
    assert_eq!(broker.traces().len(), 4);
    assert_eq!(broker.traces().last().unwrap().id, last.id);
}
