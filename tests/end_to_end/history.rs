//! The history of a client after the program was killed, and after it was stopped.

use std::{process::Command, thread, time::Duration};

use hearthmq::mqtt::ReasonCode;
use serde_json::Value;

use crate::program::{PATIENCE, Place, Program};

/// Returns the history that the program shows, the newest connection first.
fn history(program: &Program, client_id: &str) -> Vec<Value> {
    let answer = program.call(&format!("GET /api/v1/clients/{client_id}/history"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["items"].as_array().unwrap().clone()
}

fn reasons(program: &Program, client_id: &str) -> Vec<Value> {
    history(program, client_id).iter().map(|it| it["reason"].clone()).collect()
}

/// Waits until the store has this number of connections of a client.
fn wait_for_store(place: &Place, client_id: &str, connections: usize) {
    let begun = std::time::Instant::now();
    loop {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
        command.args(["store", "export", "--data-dir", "data"]).current_dir(place.path(""));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found = lines.find(|line| line["kind"] == "history" && line["client_id"] == client_id);
        let found = found.map_or(0, |line| line["connections"].as_array().unwrap().len());
        if found == connections {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{found}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_connection_that_a_kill_has_cut_off_is_in_the_history() {
    let place = Place::new();
    let mut program = place.start();
    let mut left = program.client("car");
    left.send(&hearthmq_test::packets::disconnect(ReasonCode::Success));
    left.expect_closed();
    let cut = program.client("car");
    wait_for_store(&place, "car", 2);
    let before = history(&program, "car");
    assert_eq!((&before[0]["online"], &before[1]["reason"]), (&true.into(), &"normal".into()));
    program.signal("-KILL");
    program.wait(PATIENCE);
    drop(cut);

    let mut program = place.start();
    assert_eq!(reasons(&program, "car"), ["broker_ended", "normal"]);
    let after = history(&program, "car");
    for field in ["version", "address", "listener", "username", "connected_at", "protocol"] {
        assert_eq!(after[0][field], before[0][field], "{field}");
        assert_eq!(after[1][field], before[1][field], "{field}");
    }
    assert!(after[0]["ended_at"].as_u64() >= after[0]["connected_at"].as_u64());
    let stopped = program.client("car");
    assert_eq!(history(&program, "car").len(), 3);
    program.signal("-TERM");
    assert!(program.wait(PATIENCE).success());
    drop(stopped);

    let program = place.start();
    assert_eq!(reasons(&program, "car"), ["server_shutdown", "broker_ended", "normal"]);
    let answer = program.call("GET /api/v1/clients/nobody/history");
    assert_eq!(answer.status, 404);
}
