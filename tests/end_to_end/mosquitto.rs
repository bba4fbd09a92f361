//! Eclipse Mosquitto's command-line clients with the broker: every QoS, both versions, with TLS and
//! without.

use std::{
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use crate::{
    pki::Pki,
    program::{PASSWORD, Place, Program},
    skipped::not_installed,
};

/// Returns `mosquitto_pub` or `mosquitto_sub`, with an account and a listener.
fn mosquitto(tool: &str, program: &Program, ca: Option<&Pki>, version: &str) -> Command {
    let mut command = Command::new(tool);
    let scheme = if ca.is_some() { "mqtts" } else { "mqtt" };
    let port = program.address(scheme).port().to_string();
    command
        .args(["-h", "localhost", "-p", &port, "-u", "ops", "-P", PASSWORD])
        .args(["-V", version])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(pki) = ca {
        command.arg("--cafile").arg(&pki.ca);
    }
    command
}

/// A process that does not outlive its test.
struct Running(Option<Child>);

impl Running {
    fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[test]
fn mosquitto_pub_and_sub_exchange_messages() {
    if Command::new("mosquitto_sub").arg("--help").output().is_err() {
        not_installed("mosquitto-clients");
        return;
    }
    let pki = Pki::new();
    let place = Place::new()
        .set("mqtt.tls=127.0.0.1:0")
        .set(format!("tls.certificate={}", pki.server.chain.display()))
        .set(format!("tls.key={}", pki.server.key.display()));
    let program = place.start();
    for ca in [None, Some(&pki)] {
        for version in ["mqttv311", "mqttv5"] {
            for qos in ["0", "1", "2"] {
                let mut subscriber = mosquitto("mosquitto_sub", &program, ca, version);
                subscriber.args(["-i", "listener", "-t", "mosquitto/+", "-q", qos]);
                subscriber.args(["-C", "2", "-W", "120", "-F", "%t %q %p"]);
                let listening = Running(Some(subscriber.spawn().unwrap()));
                while !subscribed(&program) {
                    thread::sleep(Duration::from_millis(5));
                }
                for payload in ["first", "second"] {
                    let mut publisher = mosquitto("mosquitto_pub", &program, ca, version);
                    publisher.args(["-t", "mosquitto/test", "-q", qos, "-m", payload]);
                    let output = publisher.output().unwrap();
                    assert!(output.status.success(), "{output:?}");
                }
                let output = listening.output();
                let expected = format!("mosquitto/test {qos} first\nmosquitto/test {qos} second\n");
                assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
                while subscribed(&program) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

/// Returns whether the metrics show a subscription.
fn subscribed(program: &Program) -> bool {
    let metrics = program.call("GET /metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("hearthmq_subscriptions "));
    line.expect("the metric is there") != "0"
}
