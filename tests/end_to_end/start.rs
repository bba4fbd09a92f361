//! A start that fails: the first line of the log, one line that names the cause, and exit code 1.

use std::{fs, net::TcpListener, process::Output};

use crate::program::Place;

/// Returns the only line after the first line of the log.
fn complaint(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let text = std::str::from_utf8(&output.stderr).unwrap();
    let (first, text) = text.split_once('\n').unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for field in ["hearthmq starts", version, "configuration=\"hearthmq.toml\"", "data_dir="] {
        assert!(first.contains(field), "{first}");
    }
    let line = text.strip_prefix("hearthmq: ").expect(text);
    let line = line.strip_suffix('\n').expect(text);
    assert!(!line.contains('\n'), "{text}");
    line
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for option in ["mqtt.tcp", "http.listen"] {
        let output = Place::new().set(format!("{option}={address}")).run();
        let said = complaint(&output);
        assert!(said.contains(&address.to_string()), "{said}");
        assert!(said.contains("in use"), "{said}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let place = Place::new().set("data_dir=file");
    fs::write(place.path("file"), "").unwrap();
    let output = place.run();
    assert!(complaint(&output).contains("file"));
    let place = Place::new().set("data_dir=file/data");
    fs::write(place.path("file"), "").unwrap();
    let output = place.run();
    assert!(complaint(&output).contains("file/data"));
}

#[test]
fn a_certificate_that_cannot_be_read_is_named() {
    for option in ["mqtt.tls", "http.https"] {
        let place = Place::new()
            .set(format!("{option}=127.0.0.1:0"))
            .set("tls.certificate=missing.crt")
            .set("tls.key=missing.key");
        let output = place.run();
        assert!(complaint(&output).starts_with("missing.crt: cannot be read: "));
    }
    let place = Place::new()
        .set("mqtt.tls=127.0.0.1:0")
        .set("tls.certificate=no.crt")
        .set("tls.key=no.key");
    fs::write(place.path("no.crt"), "not a certificate").unwrap();
    let output = place.run();
    let said = complaint(&output);
    assert!(said.contains("no.crt") && said.contains("BEGIN CERTIFICATE"), "{said}");
}

#[test]
fn two_brokers_do_not_share_a_data_directory() {
    let place = Place::new();
    let program = place.start();
    let output = place.run();
    let said = complaint(&output);
    assert!(said.contains("data") && said.contains("another broker"), "{said}");
    assert!(!program.is_online("anybody"), "the first one goes on");
}

#[test]
fn without_an_http_listener_mqtt_is_served() {
    let place = Place::new().set("http.listen=");
    let program = place.start();
    program.client("demo").ping();
}
