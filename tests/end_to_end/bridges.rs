//! Bridges of the program to a second one: commands, TLS, reload, a broker that stops answering, and
//! secrets that are shown nowhere.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, ProtocolVersion, QoS};
use hearthmq_test::packets::connect_lasting;
use serde_json::Value;

use crate::{
    mqtt::Client,
    pki::Pki,
    program::{PASSWORD, PATIENCE, Place, Program},
    reload::read_again,
    remote::Shell,
};

/// A password that is nowhere else.
const SECRET: &str = "Ohm0eiph-shown-nowhere";

/// What `ops` may not do without it.
const ADMINISTRATION: &str =
    "[[rules]]\neffect = \"allow\"\nusers = [\"ops\"]\nactions = [\"administer\"]\n";

/// A bridge to an address, with further lines.
fn bridge(name: &str, address: &str, more: &str) -> String {
    format!(
        "\n[[bridges]]\nname = \"{name}\"\naddresses = [\"{address}\"]\nkeep_alive_secs = 5\n\
         reconnect_secs_max = 1\n{more}\n[[bridges.topics]]\nfilter = \"sensors/#\"\n\
         remote_prefix = \"{name}/\"\n[[bridges.topics]]\nfilter = \"commands/#\"\n\
         direction = \"in\"\nremote_prefix = \"{name}/\"\n"
    )
}

/// A bridge that logs in as `ops`.
fn bridge_of_ops(place: &Place, name: &str, address: SocketAddr) -> String {
    write_secret(place, PASSWORD);
    bridge(name, &format!("mqtt://{address}"), "username = \"ops\"\npassword_file = \"secret\"")
}

fn write_secret(place: &Place, secret: &str) {
    let path = place.path("secret");
    fs::write(&path, secret).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Appends to the configuration of a place.
fn append(place: &Place, text: &str) {
    let path = place.path("hearthmq.toml");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(path, before + text).unwrap();
}

/// Waits until a bridge is as expected; returns it.
fn wait_for(program: &Program, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = program.call(&format!("GET /api/v1/bridges/{name}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let bridge: Value = serde_json::from_str(&answer.body).unwrap();
        if is_so(&bridge) {
            return bridge;
        }
        assert!(Instant::now() < until, "{what} expected: {bridge:#}\n{:#?}", program.logged());
        thread::sleep(Duration::from_millis(10));
    }
}

fn wait_for_state(program: &Program, name: &str, state: &str) -> Value {
    wait_for(program, name, state, |bridge| bridge["state"] == state)
}

fn publish(program: &Program, topic: &str, payload: &str) {
    let mut client = program.client("writer");
    client.publish(topic, payload.as_bytes(), Some(1)).unwrap();
    client.receive(|packet| assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}"));
}

/// Returns a subscriber whose session stays.
fn reader(program: &Program, filter: &str) -> Client {
    let mut client = program.connected(connect_lasting("reader", ProtocolVersion::V5));
    client.subscribe(filter, QoS::AtLeastOnce);
    client
}

fn expect(client: &mut Client, topic: &str, payload: &str) {
    let message = client.message();
    assert_eq!((message.topic.as_str(), &*message.payload), (topic, payload.as_bytes()));
}

#[test]
fn a_bridge_is_shown_stopped_and_started_and_stays_stopped_over_a_restart() {
    let (far_place, near_place) = (Place::new(), Place::new());
    let far = far_place.start();
    append(&near_place, &bridge_of_ops(&near_place, "plant", far.address("mqtt")));
    let policy = near_place.path("data/policy.toml");
    let rules = fs::read_to_string(&policy).unwrap() + ADMINISTRATION;
    fs::write(policy, rules).unwrap();
    let near = near_place.start();
    let shell = Shell::at(&near);
    wait_for_state(&near, "plant", "connected");
    let listed = shell.json(&["bridges", "list"]);
    assert_eq!((listed.len(), &listed[0]["name"]), (1, &"plant".into()));
    let shown = &shell.json(&["bridges", "show", "plant"])[0];
    assert_eq!((&shown["state"], &shown["connects"]), (&"connected".into(), &1.into()));
    let mut there = reader(&far, "plant/sensors/#");
    let mut here = reader(&near, "commands/#");
    publish(&near, "sensors/oven", "1");
    expect(&mut there, "plant/sensors/oven", "1");
    publish(&far, "plant/commands/open", "2");
    expect(&mut here, "commands/open", "2");

    assert_eq!(shell.run(&["bridges", "reconnect", "plant"]).0, 0);
    wait_for(&near, "plant", "a second connection", |bridge| {
        bridge["connects"] == 2 && bridge["state"] == "connected"
    });
    for (user, line, code) in [
        ("stranger", "stop", 3),
        ("stranger", "show", 3),
        ("ops", "stop unknown", 4),
        ("ops", "show unknown", 4),
    ] {
        let words: Vec<_> = line.split(' ').chain(["plant"]).take(2).collect();
        let shell = Shell::at(&near).with("HEARTHMQ_REMOTE_USER", user);
        let (ended, said) = shell.failure(&[&["bridges"], &words[..]].concat());
        assert_eq!(ended, code, "{user} {line}: {said}");
    }

    assert_eq!(shell.run(&["bridges", "stop", "plant"]).0, 0);
    wait_for_state(&near, "plant", "stopped");
    let (code, said) = shell.failure(&["bridges", "reconnect", "plant"]);
    assert_eq!(code, 3, "{said}");
    publish(&near, "sensors/oven", "3");
    drop(near);
    let near = near_place.start();
    let shell = Shell::at(&near);
    let bridge = wait_for_state(&near, "plant", "stopped");
    assert_eq!((&bridge["enabled"], &bridge["queued"]["messages"]), (&false.into(), &1.into()));
    assert_eq!(shell.run(&["bridges", "start", "plant"]).0, 0);
    expect(&mut there, "plant/sensors/oven", "3");
    // A stranger to both brokers publishes nothing, and the bridge has dropped nothing.
    let bridge = wait_for_state(&near, "plant", "connected");
    assert_eq!((&bridge["out"]["dropped"], &bridge["in"]["dropped"]), (&0.into(), &0.into()));
}

#[test]
fn a_bridge_logs_in_by_certificate_and_trusts_only_its_authority() {
    let (pki, other) = (Pki::new(), Pki::new());
    let far_place = Place::new()
        .set("mqtt.tls=127.0.0.1:0")
        .set("tls.client_auth=required")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()))
        .set(format!("tls.client_ca={}", pki.ca.display()));
    let far = far_place.start();
    let address = format!("mqtts://localhost:{}", far.address("mqtts").port());
    let near_place = Place::new();
    let tls = |ca: &Pki| {
        format!(
            "tls = {{ ca = \"{}\", certificate = \"{}\", key = \"{}\" }}",
            ca.ca.display(),
            pki.device.chain.display(),
            pki.device.key.display(),
        )
    };
    append(&near_place, &bridge("plant", &address, &tls(&pki)));
    append(&near_place, &bridge("deceived", &address, &tls(&other)));
    append(&near_place, &bridge("nameless", &address, &format!("tls = {{ ca = {:?} }}", pki.ca)));
    let near = near_place.start();
    wait_for_state(&near, "plant", "connected");
    // With TLS 1.3, a server asks for a certificate after the handshake of its client.
    for (name, code, why) in [
        ("deceived", "tls", "invalid peer certificate"),
        ("nameless", "closed", "CertificateRequired"),
    ] {
        let bridge = wait_for(&near, name, "an error", |bridge| bridge["last_error"].is_object());
        let error = &bridge["last_error"];
        assert_eq!(error["code"], code, "{bridge}");
        assert!(error["message"].as_str().unwrap().contains(why), "{bridge}");
        assert_ne!(bridge["state"], "connected");
    }
    let mut there = reader(&far, "plant/sensors/#");
    publish(&near, "sensors/oven", "1");
    expect(&mut there, "plant/sensors/oven", "1");
}

/// The certificate is for localhost, 127.0.0.1 and ::1.
#[test]
fn the_name_in_the_certificate_is_that_of_the_address_or_the_one_that_is_configured() {
    let pki = Pki::new();
    let far_place = Place::new()
        .set("mqtt.tls=0.0.0.0:0")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()));
    let far = far_place.start();
    let port = far.address("mqtts").port();
    let near_place = Place::new();
    write_secret(&near_place, PASSWORD);
    // Nobody has 127.0.0.9, and the names are those of other networks.
    for (name, host, tls) in [
        ("address", "127.0.0.1", "{ ca = CA }"),
        ("wrong-address", "127.0.0.9", "{ ca = CA }"),
        ("right-name", "127.0.0.9", "{ ca = CA, server_name = \"localhost\" }"),
        ("wrong-name", "localhost", "{ ca = CA, server_name = \"broker.example\" }"),
        // Authorities of the system, which the variable replaces.
        ("system", "localhost", "{ alpn = \"mqtt\" }"),
    ] {
        let tls = tls.replace("CA", &format!("{:?}", pki.ca));
        let lines = format!(
            "username = \"ops\"\npassword_env = \"PLANT_PASSWORD\"\nclient_id = \"{name}\"\ntls = {tls}"
        );
        append(&near_place, &bridge(name, &format!("mqtts://{host}:{port}"), &lines));
    }
    let mut command = near_place.command();
    command.env("PLANT_PASSWORD", PASSWORD).env("SSL_CERT_FILE", &pki.ca);
    let near = near_place.start_by(command);
    for name in ["address", "right-name", "system"] {
        wait_for_state(&near, name, "connected");
    }
    for name in ["wrong-address", "wrong-name"] {
        let bridge = wait_for(&near, name, "an error", |bridge| bridge["last_error"].is_object());
        let error = &bridge["last_error"];
        assert_eq!((&error["code"], &bridge["connects"]), (&"tls".into(), &0.into()), "{bridge}");
        assert!(error["message"].as_str().unwrap().contains("not valid for name"), "{bridge}");
    }
    // The variable is not shown, and without it the program does not start.
    assert!(!near.call("GET /api/v1/configuration").body.contains(PASSWORD));
    drop(near);
    let refused = near_place.run();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("password_env: there is no variable PLANT_PASSWORD"), "{said}");
}

#[test]
fn the_first_address_may_be_dead() {
    let (far_place, near_place) = (Place::new(), Place::new());
    let far = far_place.start();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = format!(
        "mqtt://{dead}\", \"mqtt://no-such-host.invalid\", \"mqtt://{}",
        far.address("mqtt")
    );
    write_secret(&near_place, PASSWORD);
    let login = "username = \"ops\"\npassword_file = \"secret\"";
    append(&near_place, &bridge("plant", &addresses, login));
    let near = near_place.start();
    let bridge = wait_for_state(&near, "plant", "connected");
    assert_eq!(bridge["address"], format!("mqtt://{}", far.address("mqtt")));
    let mut there = reader(&far, "plant/sensors/#");
    publish(&near, "sensors/oven", "1");
    expect(&mut there, "plant/sensors/oven", "1");
}

#[test]
fn bridges_come_and_go_at_sighup_and_the_others_are_not_touched() {
    let (far_place, near_place) = (Place::new(), Place::new());
    let far = far_place.start();
    let address = far.address("mqtt");
    let config = near_place.path("hearthmq.toml");
    let without = fs::read_to_string(&config).unwrap();
    let (one, two) =
        (bridge_of_ops(&near_place, "one", address), bridge_of_ops(&near_place, "two", address));
    fs::write(&config, without.clone() + &one).unwrap();
    let near = near_place.start();
    let mut witness = near.client("witness");
    wait_for_state(&near, "one", "connected");
    fs::write(&config, without.clone() + &one + &two).unwrap();
    read_again(&near);
    wait_for_state(&near, "two", "connected");
    assert_eq!(wait_for_state(&near, "one", "connected")["connects"], 1);
    fs::write(&config, without + &two).unwrap();
    read_again(&near);
    let until = Instant::now() + PATIENCE;
    while near.call("GET /api/v1/bridges/one").status != 404 {
        assert!(Instant::now() < until, "{:#?}", near.logged());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(near.call("GET /api/v1/clients/%24bridge%2Fone").status, 404);
    assert_eq!(wait_for_state(&near, "two", "connected")["connects"], 1);
    witness.ping();
}

#[test]
fn a_broker_that_answers_no_more_is_left_and_found_again() {
    let (far_place, near_place) = (Place::new(), Place::new());
    let far = far_place.start();
    append(&near_place, &bridge_of_ops(&near_place, "plant", far.address("mqtt")));
    let near = near_place.start();
    wait_for_state(&near, "plant", "connected");
    let mut there = reader(&far, "plant/sensors/#");
    far.suspend();
    publish(&near, "sensors/oven", "1");
    let error = wait_for(&near, "plant", "an error", |bridge| bridge["last_error"].is_object());
    assert_eq!(error["last_error"]["code"], "keep_alive", "{error}");
    far.signal("-CONT");
    wait_for_state(&near, "plant", "connected");
    expect(&mut there, "plant/sensors/oven", "1");
}

#[test]
fn the_password_of_a_bridge_is_shown_nowhere() {
    let (far_place, near_place) = (Place::new(), Place::new().set("log.filter=trace"));
    let far = far_place.start();
    append(&near_place, &bridge_of_ops(&near_place, "plant", far.address("mqtt")));
    write_secret(&near_place, SECRET); // a wrong one
    let mut near = near_place.start();
    let error = wait_for(&near, "plant", "an error", |bridge| bridge["last_error"].is_object());
    assert_eq!(error["last_error"]["code"], "connect_refused", "{error}");
    let answers = [
        "bridges/plant",
        "configuration",
        "clients/%24bridge%2Fplant",
        "clients/%24bridge%2Fplant/history",
    ];
    for target in answers {
        let answer = near.call(&format!("GET /api/v1/{target}"));
        assert!(!answer.body.contains(SECRET), "{target}: {}", answer.body);
    }
    let mut check = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    check.args(["check-config", "hearthmq.toml"]).current_dir(near_place.path(""));
    let checked = check.output().unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(!String::from_utf8_lossy(&said).contains(SECRET));
    // A file that others can read is refused, before anything is sent.
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(near_place.path("secret"), mode).unwrap();
    let log = near.killed();
    assert!(!log.contains(SECRET), "{log}");
    let refused = near_place.run();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("secret"), "{said}");
}
