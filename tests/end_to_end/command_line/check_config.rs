//! `hearthmq check-config` reports, before a start, errors and probable mistakes; a command line in
//! the style of other programs gets a hint.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Output};

use super::{Place, complaint, place, stdout};

impl Place {
    fn check(&self, configuration: &str) -> Output {
        fs::write(self.path("h.toml"), configuration).unwrap();
        self.run(&["check-config", "h.toml"])
    }

    /// Returns the warnings of a valid configuration.
    fn warnings(&self, configuration: &str) -> String {
        let output = self.check(configuration);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        said.split_inclusive('\n').filter(|line| line.contains("warning: ")).collect()
    }
}

#[test]
fn what_would_stop_a_start_is_found_without_one() {
    let place = place();
    fs::create_dir(place.path("data")).unwrap();
    let (users, policy) = (place.path("data/users.toml"), place.path("data/policy.toml"));
    let configuration = "data_dir = \"data\"\n";
    fs::write(&users, "").unwrap();
    fs::write(&policy, "\n[[rules]]\neffect = \"maybe\"\n").unwrap();
    assert!(complaint(&place.check(configuration)).starts_with("data/policy.toml:3: "));
    fs::write(&policy, "").unwrap();
    assert!(place.check(configuration).status.success());
    fs::write(&users, "[[users]]\nname = \"ann\"\npassword_hash = \"x\"\n").unwrap();
    assert!(complaint(&place.check(configuration)).starts_with("data/users.toml:3: "));
    fs::write(&users, "").unwrap();

    let tls =
        "[mqtt]\ntls = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"no.crt\"\nkey = \"no.key\"\n";
    let said = place.check(&format!("{configuration}{tls}"));
    assert!(complaint(&said).starts_with("no.crt: cannot be read: "), "{said:?}");
    fs::write(place.path("file"), "").unwrap();
    let said = place.check("data_dir = \"file/data\"\n");
    assert!(complaint(&said).contains("file/data: cannot be written"), "{said:?}");
    // An address of another machine (reserved for documentation).
    let said = place.check(&format!("{configuration}[mqtt]\nwebsocket = [\"192.0.2.1:8083\"]\n"));
    assert!(complaint(&said).contains("cannot listen on 192.0.2.1:8083"), "{said:?}");
    assert!(!place.path("data/store").exists(), "nothing was made");
}

#[test]
fn a_first_start_is_told_and_not_made() {
    let place = place();
    let output = place.check("");
    assert_eq!(stdout(&output), "h.toml: the configuration is valid\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("hearthmq-data is new: the first start creates"), "{said}");
    assert!(!place.path("hearthmq-data").exists());
}

#[test]
fn a_listener_may_be_a_name() {
    let place = place();
    let output = place.check("[mqtt]\nwebsocket = [\"localhost:0\"]\n[http]\nhttps = []\n");
    assert!(output.status.success(), "{output:?}");
    let said = place.check("[mqtt]\ntls = [\"no-such-name.invalid:8883\"]\n");
    let said = complaint(&said);
    assert!(said.starts_with("h.toml:2:8: the name in \"no-such-name.invalid:8883\""), "{said}");
}

#[test]
fn what_an_owner_may_not_have_meant_is_a_warning() {
    let place = place();
    assert_eq!(place.warnings("[limits]\nconnections_max = 100\n"), "");
    let public = "[mqtt]\nwebsocket = [\"0.0.0.0:0\"]\nproxy_protocol = [\"0.0.0.0:0\"]\n\
                  [http]\nmetrics_access = \"anyone\"\n[limits]\nconnections_max = 4000000000\n";
    let mut command = place.command(&["check-config", "h.toml"]);
    fs::write(place.path("h.toml"), public).unwrap();
    let output = command.env("HEARTHMQ_HTTP__LISTEN", "[::]:0").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "mqtt.websocket: ws://0.0.0.0:0 is open to the network without TLS",
        "http.listen: http://[::]:0 is open to the network without TLS",
        "http.metrics_access: anyone in the network can read /metrics",
        "mqtt.proxy_protocol: 0.0.0.0:0 is open to the network, but",
        "not for limits.connections_max = 4000000000",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    let trusting = public.replace("[http]", "proxy_trusted = [\"0.0.0.0/0\"]\n[http]");
    assert!(place.warnings(&trusting).contains("mqtt.proxy_trusted: 0.0.0.0/0 lets any client"));
}

#[test]
fn anonymous_clients_that_may_do_everything_are_a_warning() {
    let place = place();
    fs::create_dir(place.path("hearthmq-data")).unwrap();
    let warns = |policy: &str| {
        fs::write(place.path("hearthmq-data/policy.toml"), policy).unwrap();
        let limits = "[limits]\nconnections_max = 100\n";
        place.warnings(&format!("[auth]\nanonymous = true\n{limits}")).contains("auth.anonymous: ")
    };
    assert!(warns("[[rules]]\neffect = \"allow\"\n"));
    assert!(!warns("[[rules]]\neffect = \"allow\"\nusers = [\"*\"]\n"));
    assert!(!warns(
        "[[rules]]\neffect = \"allow\"\ntopics = [\"demo/#\"]\nactions = [\"subscribe\"]\n"
    ));
}

#[test]
fn a_private_key_that_others_can_read_is_a_warning_at_the_start_too() {
    let place = place();
    let key = place.path("key.pem");
    fs::write(&key, "").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let configuration = "[tls]\nkey = \"key.pem\"\n[limits]\nconnections_max = 100\n";
    assert!(place.warnings(configuration).contains("tls.key: key.pem can be read or written"));
    let (broker, log) = place.start_by(place.command(&["--config", "h.toml"]));
    assert!(log.contains("tls.key: key.pem can be read or written"), "{log}");
    broker.end("-TERM");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(place.warnings(configuration), "");
}

#[test]
fn a_configuration_file_in_the_way_of_other_programs_is_answered_with_the_option() {
    let place = place();
    fs::write(place.path("h.conf"), "").unwrap();
    for (arguments, file) in [
        (&["hearthmq.toml"] as &[&str], "hearthmq.toml"),
        (&["run", "hearthmq.toml"], "hearthmq.toml"),
        (&["h.conf"], "h.conf"),
        (&["-c", "h.conf"], "h.conf"),
        (&["run", "-c", "h.conf"], "h.conf"),
        (&["passwd", "ann", "-c", "h.conf"], "h.conf"),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("did you mean --config {file}?")), "{arguments:?}: {said}");
    }
}
