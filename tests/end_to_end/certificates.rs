//! Certificates on both TLS listeners, MQTT and HTTPS: which are accepted, and as which user.

use std::{io, path::Path, process::Command};

use hearthmq::mqtt::{QoS, ReasonCode};

use crate::{
    access::{OPS, run},
    http::basic,
    mqtt::connect,
    pki::{DEVICE_SERIAL_NUMBER, Pair, Pki},
    program::{PASSWORD, Place, Program},
    revocation::administered,
    tls::{Tls, VERSIONS},
};

const STATUS: &str = "GET /client-id/demo/status";

/// Returns TLS listeners with this certificate and key.
fn listening(certificate: &Path, key: &Path) -> Place {
    Place::new()
        .set("mqtt.tls=127.0.0.1:0")
        .set("http.https=127.0.0.1:0")
        .set(format!("tls.certificate={}", certificate.display()))
        .set(format!("tls.key={}", key.display()))
}

/// Returns TLS listeners that ask for certificates.
pub(crate) fn asking(pki: &Pki, client_auth: &str) -> Place {
    let crl: Vec<_> = pki.crl.iter().map(|path| path.display().to_string()).collect();
    listening(&pki.server.chain, &pki.server.key)
        .set(format!("tls.client_ca={}", pki.ca.display()))
        .set(format!("tls.crl={}", crl.join(",")))
        .set(format!("tls.client_auth={client_auth}"))
}

/// Returns the outcome of a REST call and of a CONNECT with this certificate.
fn both(
    program: &Program,
    tls: &Tls,
    login: Option<&str>,
) -> (io::Result<u16>, io::Result<ReasonCode>) {
    let authorization = login.map(basic);
    let answer = tls.call(program.address("https"), authorization.as_deref(), STATUS);
    let mut packet = connect("demo");
    if let Some((username, password)) = login.and_then(|login| login.split_once(':')) {
        packet.username = Some(username);
        packet.password = Some(password.as_bytes());
    }
    let connected = tls.connect(program.address("mqtts"), packet);
    (answer.map(|answer| answer.status), connected.map(|(_, reason)| reason))
}

#[test]
fn the_common_name_of_a_right_certificate_is_the_user_name() {
    let pki = Pki::new();
    for client_auth in ["optional", "required"] {
        let place = asking(&pki, client_auth);
        let program = place.start();
        let mut watcher = program.client("watcher");
        watcher.subscribe("$events/client_connected", QoS::AtMostOnce);
        for version in VERSIONS {
            for (pair, name) in [(&pki.device, "device-1"), (&pki.other_device, "device-2")] {
                let tls = Tls::new(&pki.ca, version, Some(pair));
                let (status, reason) = both(&program, &tls, None);
                assert_eq!((status.unwrap(), reason.unwrap()), (200, ReasonCode::Success));
                let event: serde_json::Value =
                    serde_json::from_slice(&watcher.message().payload).unwrap();
                assert_eq!(
                    (&event["clientid"], &event["username"]),
                    (&"demo".into(), &name.into())
                );
            }
        }
    }
}

#[test]
fn the_certificate_of_a_connected_client_is_shown() {
    let pki = Pki::new();
    let place = asking(&pki, "optional");
    let program = place.start();
    for (version, shown) in VERSIONS.into_iter().zip(["1.2", "1.3"]) {
        let tls = Tls::new(&pki.ca, version, Some(&pki.device));
        let (_client, reason) = tls.connect(program.address("mqtts"), connect("demo")).unwrap();
        assert_eq!(reason, ReasonCode::Success);
        let caller = Tls::new(&pki.ca, version, None);
        let authorization = basic(&format!("ops:{PASSWORD}"));
        let call = "GET /api/v1/clients/demo";
        let answer = caller.call(program.address("https"), Some(&authorization), call).unwrap();
        let found: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let tls = &found["connection"]["tls"];
        assert_eq!((answer.status, &tls["version"]), (200, &shown.into()), "{found}");
        assert_eq!(tls["certificate"]["subject"], "CN=device-1");
        assert_eq!(tls["certificate"]["issuer"], "CN=HearthMQ test intermediate");
        assert_eq!(tls["certificate"]["serial_number"], DEVICE_SERIAL_NUMBER);
        assert!(
            tls["certificate"]["expires_at"].as_u64()
                > found["connection"]["connected_at"].as_u64()
        );
    }
}

#[test]
fn a_certificate_that_is_not_right_fails_the_handshake() {
    let pki = Pki::new();
    for client_auth in ["optional", "required"] {
        let place = asking(&pki, client_auth);
        let program = place.start();
        for version in VERSIONS {
            for (pair, what) in [
                (&pki.expired, "expired"),
                (&pki.not_yet_valid, "not yet valid"),
                (&pki.foreign, "foreign"),
                (&pki.revoked, "revoked"),
            ] {
                let tls = Tls::new(&pki.ca, version, Some(pair));
                // A right password beside it does not help.
                let (status, reason) = both(&program, &tls, Some(&format!("ops:{PASSWORD}")));
                assert!(status.is_err(), "{what} {version:?} over HTTPS: {status:?}");
                assert!(reason.is_err(), "{what} {version:?} over MQTT: {reason:?}");
            }
        }
        assert!(!program.is_online("demo"));
    }
}

#[test]
fn without_a_certificate_a_password_is_needed_or_nothing_helps() {
    let pki = Pki::new();
    let login = format!("ops:{PASSWORD}");
    for version in VERSIONS {
        let tls = Tls::new(&pki.ca, version, None);
        let place = asking(&pki, "optional");
        let program = place.start();
        let (status, reason) = both(&program, &tls, Some(&login));
        assert_eq!((status.unwrap(), reason.unwrap()), (200, ReasonCode::Success));
        let (status, reason) = both(&program, &tls, None);
        assert_eq!(status.unwrap(), 401);
        assert_eq!(reason.unwrap(), ReasonCode::NotAuthorized);

        let place = asking(&pki, "required");
        let program = place.start();
        let (status, reason) = both(&program, &tls, Some(&login));
        assert!(status.is_err() && reason.is_err());
    }
}

#[test]
fn a_user_that_is_not_the_certificates_is_401_and_the_same_one_is_welcome() {
    let pki = Pki::new();
    let place = asking(&pki, "optional");
    let program = place.start();
    let tls = Tls::new(&pki.ca, VERSIONS[1], Some(&pki.device));
    let call = |login: &str| {
        let answer = tls.call(program.address("https"), Some(&basic(login)), STATUS);
        answer.unwrap()
    };
    let other = call(&format!("ops:{PASSWORD}"));
    assert_eq!(other.failure(), (401, "unauthenticated".into()));
    assert_eq!(call(&format!("device-1:{PASSWORD}")).status, 200);
}

/// [MQTT-3.1.3-8] The identifier of another device is refused, and the connection closed.
#[test]
fn a_client_id_can_be_tied_to_the_common_name() {
    let pki = Pki::new();
    let place = asking(&pki, "optional").set("tls.client_id_is_common_name=true");
    let program = place.start();
    let tls = Tls::new(&pki.ca, VERSIONS[0], Some(&pki.device));
    for (client_id, reason) in [
        ("device-1", ReasonCode::Success),
        ("device-2", ReasonCode::NotAuthorized),
        ("Device-1", ReasonCode::NotAuthorized),
    ] {
        let connected = tls.connect(program.address("mqtts"), connect(client_id));
        let (mut client, said) = connected.unwrap();
        assert_eq!(said, reason, "{client_id}");
        if reason != ReasonCode::Success {
            client.expect_closed();
        }
    }
}

#[test]
fn an_account_in_the_store_stops_its_certificate_while_the_client_is_connected() {
    let pki = Pki::new();
    let place = administered(asking(&pki, "optional").set("auth.certificate_needs_account=true"));
    let program = place.start();
    let tls = Tls::new(&pki.ca, VERSIONS[1], Some(&pki.other_device));
    let log_in = || tls.connect(program.address("mqtts"), connect("car")).unwrap();
    let users = |line: &[&str]| {
        let output = run(&program, OPS, &[&["users"], line].concat());
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    assert_eq!(log_in().1, ReasonCode::NotAuthorized);
    users(&["add", "device-2"]);
    for (change, undo) in [("disable", "enable"), ("delete", "add")] {
        let (mut client, reason) = log_in();
        assert_eq!(reason, ReasonCode::Success);
        users(&[change, "device-2"]);
        client.expect_disconnect(ReasonCode::NotAuthorized);
        assert_eq!(log_in().1, ReasonCode::NotAuthorized);
        users(&[undo, "device-2"]);
        assert_eq!(log_in().1, ReasonCode::Success);
    }
    // The log names the user in a field of its own.
    program.line_with(&["changed", "username=\"device-2\"", "call=\"user\""]);
}

#[test]
fn the_server_key_may_be_pkcs_8_pkcs_1_or_sec1() {
    let pki = Pki::new();
    for (certificate, key) in [
        (&pki.server.chain, &pki.server.key),
        (&pki.server.chain, &pki.server_sec1_key),
        (&pki.rsa_server.chain, &pki.rsa_server.key),
        (&pki.rsa_server.chain, &pki.rsa_server_pkcs1_key),
    ] {
        let place = listening(certificate, key);
        let program = place.start();
        for version in VERSIONS {
            let tls = Tls::new(&pki.ca, version, None);
            let (status, reason) = both(&program, &tls, Some(&format!("ops:{PASSWORD}")));
            assert_eq!((status.unwrap(), reason.unwrap()), (200, ReasonCode::Success));
        }
    }
}

#[test]
fn https_speaks_http_1_1_to_a_client_that_offers_http_2() {
    let pki = Pki::new();
    let place = listening(&pki.server.chain, &pki.server.key);
    let program = place.start();
    for version in VERSIONS {
        let tls = Tls::new(&pki.ca, version, None);
        let chosen = tls.chosen_protocol(program.address("https"), &["h2", "http/1.1"]);
        assert_eq!(chosen.as_deref(), Some("http/1.1"), "{version:?}");
    }
}

#[test]
fn tls_1_2_can_be_refused() {
    let pki = Pki::new();
    let place = listening(&pki.server.chain, &pki.server.key).set("tls.min_version=1.3");
    let program = place.start();
    let login = format!("ops:{PASSWORD}");
    let [old, new] = VERSIONS.map(|version| Tls::new(&pki.ca, version, None));
    let (status, reason) = both(&program, &old, Some(&login));
    assert!(status.is_err() && reason.is_err());
    let (status, reason) = both(&program, &new, Some(&login));
    assert_eq!((status.unwrap(), reason.unwrap()), (200, ReasonCode::Success));
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn curl_with_a_certificate_of_its_own_makes_both_calls() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("LEFT OUT: curl is not installed");
        return;
    }
    let pki = Pki::new();
    let place = asking(&pki, "required");
    let program = place.start();
    let _demo = program.client("demo");
    let port = program.address("https").port();
    let Pair { chain, key } = &pki.device;
    for (arguments, target, body) in [
        (&[][..], "client-id/demo/status", r#"{"online":true}"#),
        (&["-X", "POST"], "client-id/demo/status", r#"{"online":true}"#),
        (
            &["-X", "POST"],
            "keep-alive?client-id=demo&interval=120",
            r#"{"success":true,"keepalive":120}"#,
        ),
        (
            &["-X", "POST", "--tls-max", "1.2", "--http1.1"],
            "keep-alive?client-id=demo&interval=30",
            r#"{"success":true,"keepalive":30}"#,
        ),
    ] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time", "20", "--tlsv1.2"])
            .arg("--cacert")
            .arg(&pki.ca)
            .arg("--cert")
            .arg(chain)
            .arg("--key")
            .arg(key)
            .args(arguments)
            .arg(format!("https://localhost:{port}/{target}"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), body);
    }
}
