//! SIGHUP: the configuration is read and applied, and options that need a restart are logged.

use std::fs;

use hearthmq::mqtt::ReasonCode;

use crate::{
    http::{basic, exchange, request},
    mqtt::{Client, connect, tcp},
    program::{PASSWORD, Place, Program},
};

/// Rewrites the configuration, and waits until it is read.
fn configure(place: &Place, program: &Program, sections: &[(&str, &str)]) {
    let file = place.path("hearthmq.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for (section, options) in sections {
        let header = format!("[{section}]\n");
        match text.contains(&header) {
            true => text = text.replace(&header, &format!("{header}{options}\n")),
            false => text += &format!("\n{header}{options}\n"),
        }
    }
    fs::write(file, text).unwrap();
    read_again(program);
}

/// Lets the program read its configuration and the files, and waits until it has.
pub(crate) fn read_again(program: &Program) {
    let checked = |program: &Program| {
        let lines = program.logged();
        lines.iter().filter(|line| line.contains("all sessions checked again")).count()
    };
    let before = checked(program);
    program.signal("-HUP");
    let until = std::time::Instant::now() + crate::program::PATIENCE;
    while checked(program) == before {
        assert!(std::time::Instant::now() < until, "{:#?}", program.logged());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// With the option for all listeners, and with that of one.
#[test]
fn clients_without_an_account_are_let_in_and_sent_away_at_sighup() {
    let place = Place::new();
    let policy = place.path("data/policy.toml");
    fs::write(&policy, "[[rules]]\neffect = \"allow\"\n").unwrap();
    let program = place.start();
    let come = || Client::on(tcp(program.address("mqtt")), connect("nobody")).unwrap();
    let mut named = program.client("named");
    assert_eq!(come().1, ReasonCode::NotAuthorized);
    configure(&place, &program, &[("auth", "anonymous = true")]);
    let (mut nobody, reason) = come();
    assert_eq!(reason, ReasonCode::Success);
    nobody.ping();
    let file = place.path("hearthmq.toml");
    let text = fs::read_to_string(&file).unwrap().replace("anonymous = true", "anonymous = false");
    fs::write(file, text).unwrap();
    configure(&place, &program, &[]);
    nobody.expect_disconnect(ReasonCode::NotAuthorized);
    assert_eq!(come().1, ReasonCode::NotAuthorized);
    let own = "address = \"127.0.0.1:0\"\nanonymous = true";
    configure(&place, &program, &[("[listeners]", own)]);
    assert_eq!(come().1, ReasonCode::Success);
    named.ping();
}

#[test]
fn options_of_every_section_are_in_force_after_sighup() {
    let place = Place::new().set("mqtt.websocket=127.0.0.1:0");
    let program = place.start();
    let upgrade = || {
        let head = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://a.example\r\n\r\n";
        let mut stream = tcp(program.address("ws"));
        std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    };
    let metrics = || program.call_as(None, "GET /metrics").status;
    let status = || program.call("GET /client-id/demo/status").status;
    assert_eq!((metrics(), status(), &*upgrade()), (200, 200, "HTTP/1.1 101"));
    let other = place.path("data/other.toml");
    fs::copy(place.path("data/users.toml"), &other).unwrap();
    hearthmq::auth::remove_user(&other, "device-1").unwrap();
    configure(
        &place,
        &program,
        &[
            ("mqtt", "websocket_origins = [\"https://b.example\"]\nsys_interval_secs = 1"),
            ("http", "metrics_access = \"nobody\""),
            ("auth", "users = \"other.toml\""),
            ("limits", "client_id_bytes_max = 3"),
        ],
    );
    assert_eq!((metrics(), status(), &*upgrade()), (404, 200, "HTTP/1.1 403"));
    let by_device = basic(&format!("device-1:{PASSWORD}"));
    let call = request("GET /client-id/demo/status", Some(&by_device));
    assert_eq!(exchange(tcp(program.address("http")), call).unwrap().status, 401);
    let mut long = connect("four");
    (long.username, long.password) = (Some("ops"), Some(PASSWORD.as_bytes()));
    let (_, reason) = Client::on(tcp(program.address("mqtt")), long).unwrap();
    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
    program.client("one").ping();
}

#[test]
fn what_needs_a_restart_is_named_each_time_and_stays_as_it_was() {
    let place = Place::new();
    let program = place.start();
    configure(&place, &program, &[("store", "sync = \"off\""), ("log", "clients = \"none\"")]);
    let line = program.line_with(&["need a restart"]);
    assert!(line.contains("store.sync") && !line.contains("log.clients"), "{line}");
    configure(&place, &program, &[]);
    let lines = program.logged();
    assert_eq!(lines.iter().filter(|line| line.contains("need a restart")).count(), 2);
    program.client("c").ping();
}
