//! Bridges of Mosquitto that are imported: their options one by one, and the messages of one that runs.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{ProtocolVersion, QoS};
use hearthmq_test::{
    free_address,
    packets::{connect_in, connect_lasting},
};
use toml::{Table, Value};

use crate::{
    http::basic,
    migration::{Mosquitto, import, is_installed},
    mqtt::Client,
    program::{PASSWORD, PATIENCE, Place},
    skipped::not_installed,
};

/// As mosquitto.conf(5) writes bridges, with every option of it.
const CONNECTIONS: &str = r#"
topic lost out
connection test-mosquitto-org
address test.mosquitto.org
cleansession true
topic clients/total in 0 test/mosquitto/org/ $SYS/broker/

connection Cloud.01
addresses broker-a.example:8883 fe80::1:8883 broker-c.example # three of them
round_robin true
remote_clientid plant-7
remote_username plant
remote_password a secret with spaces
bridge_cafile /etc/ca.crt
bridge_certfile /etc/bridge.crt
bridge_keyfile /etc/bridge.key
bridge_alpn mqtt
bridge_insecure true
bridge_tls_version tlsv1.2
bridge_protocol_version mqttv50
bridge_max_packet_size 65536
bridge_receive_maximum 30
bridge_session_expiry_interval 3600
bridge_bind_address 127.0.0.1
bridge_attempt_unsubscribe false
bridge_outgoing_retain false
bridge_require_ocsp false
keepalive_interval 2
restart_timeout 10 30
start_type lazy
threshold 5
idle_timeout 60
notifications true
notification_topic plants/7/state
try_private false
local_clientid here
local_username here
local_password hidden-here
local_cleansession false
topic # both 2 local/topic/ remote/topic/
topic "" out 1 alarm plant-7/alarm
topic quiet in
topic bad/#/x out
topic x sideways
bridge_surprise 1

connection Cloud.01
address 10.0.0.2:1884
notifications false
restart_timeout 20
remote_password hidden-there
topic a out

connection psk
address 10.0.0.1:8883
bridge_identity me
bridge_psk 0123abcd
bridge_protocol_version mqttv31
topic a out 1

connection nothing
topic a out
connection nowhere
address 10.0.0.1:70000
topic a out
connection idle
address 10.0.0.1
"#;

/// What the report must say.
const NOT_TAKEN: [&str; 26] = [
    "mosquitto.conf:2: topic lost out: it stands before the first connection",
    "bridge_insecure true: the certificate of the other broker is always checked",
    "bridge_attempt_unsubscribe false: the bridge unsubscribes from what it no longer takes in",
    "start_type lazy: a bridge starts with the broker, and stays",
    "threshold 5: a bridge stays connected",
    "idle_timeout 60: a bridge stays connected",
    "try_private false: the bridge says that it is one",
    "local_clientid here: the session of a bridge has the Client Identifier $bridge/NAME here",
    "local_username here: a bridge needs no account here",
    "local_password …: a bridge needs no account here",
    "topic bad/#/x out: \"bad/#/x\": ",
    "topic x sideways: \"sideways\" is not a direction: in, out or both",
    "bridge_surprise 1: the option is not known",
    "remote_password …: it needs a user name",
    "mosquitto.conf:57: bridge_psk …: TLS-PSK is not supported, so the bridge is not enabled",
    "bridge_protocol_version mqttv31: the oldest version of a bridge is 3.1.1, which it uses",
    "connection nothing: it has no address, and is left out",
    "address 10.0.0.1:70000: 10.0.0.1:70000: it is not an address with a port",
    "connection nowhere: it has no address, and is left out",
    "connection idle: it has no topic, and is left out",
    // What differs.
    "cleansession also drops what waits for a bridge there",
    "the other broker is not told the state of the bridge",
    "the Client Identifier at the other broker is NODE-NAME",
    "the bridge \"Cloud.01\" has the name cloud-01",
    "the bridge \"Cloud.01\" has the name cloud-01-2",
    "A bridge keeps its messages of QoS 1 and 2 in the store",
];

fn text_of(table: &Table, key: &str) -> String {
    match &table[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn each_option_of_a_bridge_is_taken_over_or_reported() {
    let place = Place::new();
    fs::remove_file(place.path("hearthmq.toml")).unwrap();
    fs::write(place.path("mosquitto.conf"), CONNECTIONS).unwrap();
    let done = import(&place, &[]);
    let report = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{report}{:?}", String::from_utf8(done.stderr));
    for expected in NOT_TAKEN {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    assert!(report.contains("0 accounts, 4 rules, 4 bridges"), "{report}");
    let text = fs::read_to_string(place.path("hearthmq.toml")).unwrap();
    for secret in ["a secret with spaces", "hidden-here", "0123abcd", "hidden-there"] {
        assert!(!report.contains(secret) && !text.contains(secret), "{secret}: {report}{text}");
    }
    let secret = place.path("hearthmq.bridge-cloud-01.secret");
    assert_eq!(fs::read_to_string(&secret).unwrap(), "a secret with spaces");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let names = fs::read_dir(place.path("")).unwrap().map(|it| it.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().ends_with(".secret")).count(), 1);

    let written: Table = toml::from_str(&text).unwrap();
    let bridges: Vec<_> =
        written["bridges"].as_array().unwrap().iter().map(|it| it.as_table().unwrap()).collect();
    let names: Vec<_> = bridges.iter().map(|bridge| text_of(bridge, "name")).collect();
    assert_eq!(names, ["test-mosquitto-org", "cloud-01", "cloud-01-2", "psk"]);
    check_cloud(bridges[1], &secret);
    assert_eq!(text_of(bridges[0], "addresses"), r#"["mqtt://test.mosquitto.org:1883"]"#);
    for (bridge, key, value) in [
        (0, "protocol", "3.1.1"),
        (0, "clean_start", "true"),
        (2, "reconnect_secs_min", "20"),
        (2, "reconnect_secs_max", "20"),
        (2, "addresses", r#"["mqtt://10.0.0.2:1884"]"#),
        (3, "enabled", "false"),
        (3, "addresses", r#"["mqtts://10.0.0.1:8883"]"#),
    ] {
        assert_eq!(text_of(bridges[bridge], key), value, "{}", names[bridge]);
    }
    let topic = bridges[0]["topics"][0].as_table().unwrap();
    for (key, value) in [
        ("filter", "clients/total"),
        ("direction", "in"),
        ("qos", "0"),
        ("local_prefix", "test/mosquitto/org/"),
        ("remote_prefix", "$SYS/broker/"),
        ("retained", "always"),
    ] {
        assert_eq!(text_of(topic, key), value);
    }
}

fn check_cloud(cloud: &Table, secret: &Path) {
    let addresses = r#"["mqtts://broker-a.example:8883", "mqtts://[fe80::1]:8883", "mqtts://broker-c.example:1883"]"#;
    let secret = secret.canonicalize().unwrap();
    for (key, value) in [
        ("addresses", addresses),
        ("round_robin", "true"),
        ("retain", "false"),
        ("protocol", "5"),
        ("client_id", "plant-7"),
        ("username", "plant"),
        ("password_file", secret.to_str().unwrap()),
        ("keep_alive_secs", "5"),
        ("reconnect_secs_min", "10"),
        ("reconnect_secs_max", "30"),
        ("packet_bytes_max", "65536"),
        ("in_flight_max", "30"),
        ("session_expiry_secs", "3600"),
        ("bind_address", "127.0.0.1"),
        ("status_topic", "plants/7/state"),
    ] {
        assert_eq!(text_of(cloud, key), value, "{key}");
    }
    let tls = cloud["tls"].as_table().unwrap();
    let files = ["ca", "certificate", "key", "alpn"].map(|key| text_of(tls, key));
    assert_eq!(files, ["/etc/ca.crt", "/etc/bridge.crt", "/etc/bridge.key", "mqtt"]);
    let topics: Vec<String> = cloud["topics"].as_array().unwrap().iter().map(topic_text).collect();
    assert_eq!(
        topics,
        ["#|both|2|local/topic/|remote/topic/", "|out|1|alarm|plant-7/alarm", "quiet|in|0||"]
    );
}

fn topic_text(topic: &Value) -> String {
    let topic = topic.as_table().unwrap();
    let keys = ["filter", "direction", "qos", "local_prefix", "remote_prefix"];
    keys.map(|key| text_of(topic, key)).join("|")
}

/// Publishes at one broker until the message has arrived at the other one: a bridge is not connected
/// immediately, and no broker keeps a message for nobody.
fn crosses(from: SocketAddr, topic: &str, to: SocketAddr, topic_there: &str) {
    let mut subscriber = Client::connected(to, connect_in(ProtocolVersion::V3_1_1, "reader"));
    subscriber.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    subscriber.subscribe(topic_there, QoS::AtLeastOnce);
    let mut publisher = Client::connected(from, connect_in(ProtocolVersion::V3_1_1, "writer"));
    let until = Instant::now() + PATIENCE;
    loop {
        publisher.publish(topic, b"a message", None).unwrap();
        let arrived = subscriber.try_receive(|packet| match packet {
            hearthmq::mqtt::Packet::Publish(publish) => {
                assert_eq!((publish.topic, publish.payload), (topic_there, &b"a message"[..]));
            }
            packet => panic!("PUBLISH expected, not {packet:?}"),
        });
        match arrived {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < until, "{topic} does not cross: {why}"),
        }
    }
}

#[test]
fn a_bridge_of_mosquitto_goes_on_as_one_of_hearthmq() {
    if !is_installed("/usr/sbin/mosquitto") {
        not_installed("mosquitto");
        return;
    }
    let [near, far] = [free_address(), free_address()];
    let place = Place::new().set("http.listen=127.0.0.1:0");
    fs::remove_file(place.path("hearthmq.toml")).unwrap();
    let far_config = format!("listener {} {}\nallow_anonymous true\n", far.port(), far.ip());
    fs::write(place.path("far.conf"), far_config).unwrap();
    let near_config = format!(
        "listener {} {}\nallow_anonymous true\nconnection far\naddress {far}\nremote_clientid plant\n\
         topic sensors/# out 1 \"\" plant-7/\ntopic commands/# in 1 here/ plant-7/\n",
        near.port(),
        near.ip(),
    );
    fs::write(place.path("mosquitto.conf"), near_config).unwrap();
    for name in ["", "far.conf", "mosquitto.conf"] {
        let mode = if name.is_empty() { 0o755 } else { 0o644 };
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let _far = Mosquitto::start(&place.path("far.conf"), far);
    let check = || {
        crosses(near, "sensors/oven", far, "plant-7/sensors/oven");
        crosses(far, "plant-7/commands/open", near, "here/commands/open");
    };
    let before = Mosquitto::start(&place.path("mosquitto.conf"), near);
    check();
    drop(before);
    // A message for the session of the bridge waits there, and comes to its successor.
    let mut writer = Client::connected(far, connect_lasting("writer", ProtocolVersion::V3_1_1));
    writer.publish("plant-7/commands/wait", b"a message", Some(1)).unwrap();
    writer.receive(|packet| assert!(matches!(packet, hearthmq::mqtt::Packet::PubAck(_))));

    let done = import(&place, &[]);
    assert!(done.status.success(), "{done:?}");
    let program = place.start();
    check();
    let until = Instant::now() + PATIENCE;
    let login = basic(&format!("admin:{PASSWORD}"));
    let bridge = || program.call_as(Some(&login), "GET /api/v1/bridges/far").body;
    while !bridge().contains(r#""session_present":true"#) {
        assert!(Instant::now() < until, "{}", bridge());
        thread::sleep(Duration::from_millis(10));
    }
}
