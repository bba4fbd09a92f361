//! A process that may open few files: the broker logs what they are enough for, and reserves some.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use crate::{mqtt::tcp, program::Place};

/// Starts the program from a shell that first sets the limits of open files, soft and hard.
fn start_with(place: &Place, soft: u32, hard: u32) -> crate::program::Program {
    let limits = format!("ulimit -Sn {soft} && ulimit -Hn {hard}");
    place.start_by(place.command_after(&["env"], &limits))
}

#[test]
fn the_soft_limit_is_raised_and_what_does_not_fit_is_told_once() {
    for (option, level) in
        [("limits.connections_max=100000", "INFO"), ("limits.connections_max=9000", "WARN")]
    {
        let place = Place::new().set(option);
        let mut program = start_with(&place, 300, 1_024);
        assert_eq!(program.files_max(), 1_024);
        let client = program.client("c");
        drop(client);
        let log = program.killed();
        let told: Vec<_> = log.lines().filter(|line| line.contains("room for ")).collect();
        assert_eq!(told.len(), 1, "{log}");
        for part in [level, "MQTT connections", "1024", "LimitNOFILE=", "ulimit -n"] {
            let part = if level == "WARN" {
                part.replace("MQTT connections", "MQTT and ")
            } else {
                part.to_owned()
            };
            assert!(told[0].contains(&part), "{part} is not in {}", told[0]);
        }
    }
}

#[test]
fn nothing_is_said_where_everything_fits() {
    let place = Place::new().set("limits.connections_max=100");
    let mut program = start_with(&place, 2_048, 2_048);
    let until = Instant::now() + Duration::from_secs(30);
    while program.readiness().0 != 200 {
        assert!(Instant::now() < until, "not ready");
    }
    let log = program.killed();
    assert!(!log.contains("room for "), "{log}");
}

/// The limits on connections keep files free; here somebody has taken them, as an application or the
/// system may.
#[cfg(target_os = "linux")]
#[test]
fn without_a_file_left_health_is_answered_and_a_client_gets_in() {
    let place = Place::new().set("mqtt.websocket=127.0.0.1:0");
    let mut program = start_with(&place, 1_024, 1_024);
    let metric = |name: &str| {
        let text = program.call_as(None, "GET /metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap().parse::<f64>().unwrap()
    };
    assert!(metric("process_max_fds") == 1_024.0 && metric("process_resident_memory_bytes") > 1e6);
    let files = metric("process_open_fds") as u64 + 20;
    program.limit_files(files);
    let mut silent = Vec::new();
    let until = Instant::now() + crate::program::PATIENCE;
    while metric("hearthmq_accepts_failed_total") < 50.0 {
        assert!(Instant::now() < until, "{:#?}", program.logged());
        for scheme in ["mqtt", "http", "ws"] {
            for _ in 0..10 {
                let mut socket = tcp(program.address(scheme));
                drop(socket.write_all(b"\x10")); // else the kernel keeps it back for a second
                silent.push(socket);
            }
        }
        assert_eq!(program.call_as(None, "GET /health/live").status, 200);
        program.client("good").ping();
    }
    let lines = program.killed();
    let told: Vec<_> = lines.lines().filter(|line| line.contains("accept failed")).collect();
    assert!(!told.is_empty() && told.iter().all(|line| line.contains("failures=")), "{lines}");
    let mut times = told.iter().map(|line| seconds_of(line));
    let first = times.next().unwrap();
    times
        .try_fold(first, |before, at| (at - before >= 9.9).then_some(at))
        .expect("one in ten seconds");
}

/// The time of day of a line, in seconds.
#[cfg(target_os = "linux")]
fn seconds_of(line: &str) -> f64 {
    let (_, time) = line.split_once('T').unwrap();
    let (time, _) = time.split_once('Z').unwrap();
    time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}
