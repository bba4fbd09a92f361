//! Certificates that are pinned to client identifiers: with real TLS clients, over a restart, over REST
//! and by the commands of a shell.

use std::{fs, sync::Barrier, thread};

use hearthmq::mqtt::{Connect, ProtocolVersion, ReasonCode};

use crate::{
    access::{OPS, done, run},
    certificates::asking,
    mqtt::connect,
    pki::{Pair, Pki},
    program::{PASSWORD, Place, Program},
    revocation::administered,
    tls::{Tls, VERSIONS},
};

fn pinning(pki: &Pki) -> Place {
    administered(asking(pki, "optional").set("auth.pin_certificates=true"))
}

/// Returns the code of CONNACK for a client with this certificate.
fn code(
    program: &Program,
    (pki, pair): (&Pki, Option<&Pair>),
    packet: Connect<'_>,
) -> (u8, ProtocolVersion) {
    let version = packet.version;
    let tls = Tls::new(&pki.ca, VERSIONS[1], pair);
    let (_, reason) = tls.connect(program.address("mqtts"), packet).unwrap();
    (reason.connect_return_code(version), version)
}

#[test]
fn the_first_certificate_of_a_client_identifier_is_pinned_until_it_is_removed() {
    let pki = Pki::new();
    let place = pinning(&pki);
    let program = place.start();
    let outcome = |program: &Program, pair, id| code(program, (&pki, pair), connect(id)).0;
    let refused = ReasonCode::NotAuthorized.number();
    assert_eq!(outcome(&program, Some(&pki.device), "demo"), 0);
    program.line_with(&["certificate pinned", "demo", "device-1"]);
    assert_eq!(outcome(&program, Some(&pki.device), "demo"), 0);
    // A renewed certificate has the same key.
    assert_eq!(outcome(&program, Some(&pki.renewed_device), "demo"), 0);
    assert_eq!(outcome(&program, Some(&pki.device_with_new_key), "demo"), refused);
    program.line_with(&["connect refused", "not_authorized", "another certificate is pinned"]);
    let old = |version| Connect { version, ..connect("demo") };
    for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1] {
        let code = code(&program, (&pki, Some(&pki.device_with_new_key)), old(version)).0;
        assert_eq!(code, 5, "{version:?}");
    }
    let password =
        |id| Connect { username: Some("ops"), password: Some(PASSWORD.as_bytes()), ..connect(id) };
    assert_eq!(code(&program, (&pki, None), password("demo")).0, refused);
    program.line_with(&["connect refused", "the client has shown none"]);
    assert_eq!(code(&program, (&pki, None), password("other")).0, 0);
    assert_eq!(outcome(&program, Some(&pki.device_with_new_key), "other-2"), 0);
    // An identifier that the broker assigns has no pin.
    assert_eq!(outcome(&program, Some(&pki.device), ""), 0);
    drop(program);

    let program = place.start();
    assert_eq!(outcome(&program, Some(&pki.device_with_new_key), "demo"), refused);
    let pins = done(&program, &["certificates", "pins", "--json"]);
    let ids: Vec<_> = pins.iter().map(|pin| pin["client_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["demo", "other-2"]);
    assert_eq!(
        (&pins[0]["subject"], &pins[0]["username"]),
        (&"CN=device-1".into(), &"device-1".into())
    );
    assert_eq!(pins[0]["public_key_sha256"].as_str().unwrap().len(), 64);
    let changed = run(&program, OPS, &["certificates", "unpin", "demo"]);
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    assert_eq!(outcome(&program, Some(&pki.device_with_new_key), "demo"), 0);
    assert_eq!(outcome(&program, Some(&pki.device), "demo"), refused);
    let audit = done(&program, &["audit", "--json"]);
    let entry = audit.iter().find(|entry| entry["action"] == "certificates/pins").unwrap();
    assert_eq!((&entry["user"], &entry["target"]), (&"ops".into(), &"demo".into()));
    let again = run(&program, OPS, &["certificates", "unpin", "nobody"]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("No certificate is pinned"));
}

#[test]
fn pins_are_bounded_for_a_common_name_and_in_all() {
    let pki = Pki::new();
    let place = pinning(&pki)
        .set("limits.certificate_pins_max=3")
        .set("limits.certificate_pins_per_user_max=2");
    let program = place.start();
    let outcome = |pair, id| code(&program, (&pki, Some(pair)), connect(id)).0;
    let (first, second) = (&pki.device, &pki.other_device);
    assert_eq!(["a", "b", "c"].map(|id| outcome(first, id)), [0, 0, 0x97]);
    program.line_with(&["connect refused", "certificate_pins_max", "the user has as many"]);
    assert_eq!(["d", "e"].map(|id| outcome(second, id)), [0, 0x97]);
    program.line_with(&["connect refused", "certificate_pins_max", "the broker has as many"]);
    assert_eq!(outcome(first, "a"), 0);
}

#[test]
fn one_listener_pins_after_a_reload_and_the_other_does_not() {
    let pki = Pki::new();
    let place = asking(&pki, "optional").set("mqtt.secure_websocket=127.0.0.3:0");
    let program = place.start();
    let outcome = |pair, id| code(&program, (&pki, Some(pair)), connect(id)).0;
    assert_eq!(outcome(&pki.device, "a"), 0);
    assert_eq!(outcome(&pki.device_with_new_key, "a"), 0);
    let file = place.path("hearthmq.toml");
    let own = "\n[[listeners]]\naddress = \"127.0.0.1:0\"\npin_certificates = true\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + own).unwrap();
    program.signal("-HUP");
    program.line_with(&["all sessions checked again"]);
    assert_eq!(outcome(&pki.device, "a"), 0);
    assert_eq!(outcome(&pki.device_with_new_key, "a"), ReasonCode::NotAuthorized.number());
}

/// Two devices with one name show their certificates for the first time at the same time.
#[test]
fn of_two_certificates_at_the_same_time_one_is_pinned() {
    let pki = Pki::new();
    let place = pinning(&pki);
    let program = place.start();
    let refused = ReasonCode::NotAuthorized.number();
    let pairs = [&pki.device, &pki.device_with_new_key];
    let rounds = 8;
    for round in 0..rounds {
        let id = format!("demo-{round}");
        let at_once = Barrier::new(pairs.len());
        let come = |pair| {
            at_once.wait();
            code(&program, (&pki, Some(pair)), connect(&id)).0
        };
        let together = || {
            thread::scope(|scope| {
                pairs
                    .map(|pair| scope.spawn(move || come(pair)))
                    .map(|coming| coming.join().unwrap())
            })
        };
        let first = together();
        assert!(first == [0, refused] || first == [refused, 0], "{first:?}");
        assert_eq!(together(), first, "the same one is pinned");
    }
    assert_eq!(done(&program, &["certificates", "pins", "--json"]).len(), rounds);
}
