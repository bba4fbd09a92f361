//! The log as a whole: a log that is not read, changes at run time, and its end. `log_of_clients`
//! tests the lines about clients.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, ChildStderr, Stdio},
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::Packet;

use crate::{
    http::{exchange, request},
    mqtt::{Client, connect, tcp},
    program::{PASSWORD, Place},
};

/// A program whose log is read until it has started, and no further.
struct Unread {
    child: Child,
    log: BufReader<ChildStderr>,
    mqtt: SocketAddr,
    http: SocketAddr,
}

impl Unread {
    fn start(place: &Place) -> Self {
        let mut child = place.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut found = Vec::new();
        while found.len() < 2 {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the program does not start");
            if let Some((_, url)) = line.trim_end().split_once("listening on ") {
                let address = url.split_once("://").unwrap().1.split('"').next().unwrap();
                found.push(address.parse::<SocketAddr>().unwrap());
            }
        }
        Self { child, log, mqtt: found[0], http: found[1] }
    }

    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the program does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(&mut self) {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    }

    fn dropped(&self) -> u64 {
        let answer = exchange(tcp(self.http), request("GET /metrics", None)).unwrap();
        let name = "hearthmq_log_lines_dropped_total ";
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Makes the program log more than a pipe and its queue hold, while it keeps serving.
fn make_it_drop(program: &Unread) {
    let mut login = connect("live");
    login.username = Some("ops");
    login.password = Some(PASSWORD.as_bytes());
    let mut live = Client::connected(program.mqtt, login);
    // Two lines for each: one received packet, one sent packet.
    let pings = [0xC0, 0].repeat(1000);
    while program.dropped() == 0 {
        live.stream.write_all(&pings).unwrap();
        for _ in 0..1000 {
            live.receive(|packet| assert_eq!(packet, Packet::PingResp));
        }
    }
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_broker_nor_its_end() {
    let place = Place::new().set("log.filter=trace");
    let mut program = Unread::start(&place);
    make_it_drop(&program);
    program.end();
    program.wait();
}

#[test]
fn what_was_dropped_is_told_once_the_log_is_read_again() {
    let place = Place::new().set("log.filter=trace").set("log.format=json");
    let mut program = Unread::start(&place);
    make_it_drop(&program);
    program.end();
    let mut told = Vec::new();
    for line in program.log.by_ref().lines() {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).expect("whole lines");
        if line["message"] == "dropped log lines because standard error is not read" {
            told.push(line["lines"].as_u64().unwrap());
        }
    }
    program.wait();
    assert!(told.iter().any(|lines| *lines > 0), "{told:?}");
    assert!(told.is_sorted());
}

#[test]
fn what_was_logged_last_is_written_before_the_end() {
    let place = Place::new();
    let mut program = place.start();
    program.signal("-TERM");
    assert!(program.wait(Duration::from_secs(60)).success());
    let log = program.killed();
    assert!(log.lines().last().unwrap().ends_with(": ended"), "{log}");
}

#[test]
fn the_configuration_is_read_again_and_what_needs_a_restart_is_named() {
    let place = Place::new();
    let program = place.start();
    let file = place.path("hearthmq.toml");
    let text = fs::read_to_string(&file).unwrap();
    let first = "shards = 3\nnode = \"other\"\n";
    let last = "[log]\nfilter = \"hearthmq=trace\"\n[limits]\nkeep_alive_secs_max = 30\n";
    fs::write(&file, format!("{first}{text}\n{last}")).unwrap();
    program.signal("-HUP");
    let changed = "changed=\"limits.keep_alive_secs_max, log.filter\"";
    program.line_with(&["configuration read again", changed]);
    program.line_with(&["WARN", "need a restart", "options=\"node, shards\""]);
    program.line_with(&["permissions read again"]);
    // The log's own thread writes the lines: this one comes after the change.
    drop(program.client("shorter"));
    program.line_with(&["connected", "client_id=\"shorter\"", "keep_alive_secs=30"]);
    tcp(program.address("mqtt")).write_all(&[0xC0, 0]).unwrap();
    program.line_with(&["TRACE"]);

    // A mistake changes nothing, and is reported with its place and correction.
    fs::write(&file, format!("{text}\n[limits]\nconnections_max = 0\n")).unwrap();
    program.signal("-HUP");
    let line = text.lines().count() + 3;
    let place = format!("the configuration stays as it was: hearthmq.toml:{line}:1: ");
    program.line_with(&["ERROR", &place, "limits.connections_max", "; write"]);
    let traced = |program: &crate::program::Program| {
        program.logged().iter().filter(|line| line.contains("TRACE")).count()
    };
    let before = traced(&program);
    tcp(program.address("mqtt")).write_all(&[0xC0, 0]).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while traced(&program) == before {
        assert!(Instant::now() < until, "the filter is another");
        thread::sleep(Duration::from_millis(10));
    }
}
