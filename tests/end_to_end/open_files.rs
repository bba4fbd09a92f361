//! A process that may open few files: the broker logs what they are enough for, and reserves some.

use std::time::{Duration, Instant};

use crate::program::Place;

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
