//! A client whose network is cut goes offline even with Keep Alive turned off: tested in network
//! namespaces, whose link is taken down.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::mqtt::{Connect, Packet, ProtocolVersion, encode};

use crate::{
    mqtt::connect,
    program::{PASSWORD, Place},
    skipped::skipped,
};

/// Two namespaces with a link between them; removed when dropped.
struct Link {
    here: String,
    there: String,
}

const HERE: &str = "10.99.0.1";

impl Link {
    /// Returns `None`, and reports it, where this is not permitted.
    fn new(name: &str) -> Option<Self> {
        let id = std::process::id();
        let link = Self { here: format!("hmq-{name}a-{id}"), there: format!("hmq-{name}b-{id}") };
        let Self { here, there } = &link;
        let steps = [
            format!("netns add {here}"),
            format!("netns add {there}"),
            format!("-n {here} link add name near type veth peer name far netns {there}"),
            format!("-n {here} addr add {HERE}/24 dev near"),
            format!("-n {there} addr add 10.99.0.2/24 dev far"),
            format!("-n {here} link set near up"),
            format!("-n {here} link set lo up"),
            format!("-n {there} link set far up"),
        ];
        let failed = steps.iter().find(|step| !ip(step));
        if let Some(step) = failed {
            skipped(&format!("no network namespace can be made here (ip {step})"));
            return None;
        }
        Some(link)
    }

    fn cut(&self) {
        assert!(ip(&format!("-n {} link set far down", self.there)));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for namespace in [&self.here, &self.there] {
            ip(&format!("netns del {namespace}"));
        }
    }
}

fn ip(arguments: &str) -> bool {
    let done = Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// A process in a namespace that holds a connection; killed when dropped.
struct Talker(Child);

impl Talker {
    /// Sends `bytes` to `address` and keeps the connection.
    fn start(namespace: &str, address: &str, bytes: &[u8]) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap();
        let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let script =
            format!("exec 3<>/dev/tcp/{host}/{port} && printf '{escaped}' >&3 && exec cat <&3");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "bash", "-c", &script]);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.0.stdout.as_mut().unwrap().read_exact(&mut read).unwrap();
        read
    }

    fn read_all(mut self) -> String {
        let mut answer = String::new();
        self.0.stdout.as_mut().unwrap().read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        drop(self.0.kill()); // it may have ended already
        drop(self.0.wait());
    }
}

/// Returns CONNECT without Keep Alive, and other packets, as bytes.
fn bytes_of(client_id: &str, rest: &[u8]) -> Vec<u8> {
    let version = ProtocolVersion::V3_1_1;
    let connect = Connect {
        version,
        keep_alive: 0,
        username: Some("ops"),
        password: Some(PASSWORD.as_bytes()),
        ..connect(client_id)
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(connect)), version, &mut bytes).unwrap();
    bytes.extend_from_slice(rest);
    bytes
}

fn is_online(link: &Link, http: &str, client_id: &str) -> bool {
    let login = STANDARD.encode(format!("ops:{PASSWORD}"));
    let request = format!(
        "GET /client-id/{client_id}/status HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {login}\r\n\
         Connection: close\r\n\r\n"
    );
    let answer = Talker::start(&link.here, http, request.as_bytes()).read_all();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.ends_with(r#"{"online":true}"#)
}

#[test]
fn a_client_without_keep_alive_whose_network_is_cut_goes_offline() {
    let Some(link) = Link::new("dead") else { return };
    let place = Place::new().set(format!("mqtt.tcp={HERE}:0")).set("mqtt.tcp_keep_alive_secs=1");
    let shell = ["ip", "netns", "exec", &link.here];
    let program = place.start_by(place.command_after(&shell, "true"));
    let (mqtt, http) = (program.address("mqtt").to_string(), program.address("http").to_string());

    let mut idle = Talker::start(&link.there, &mqtt, &bytes_of("idle", b""));
    assert_eq!(idle.read(4), [0x20, 2, 0, 0]);
    // SUBSCRIBE to topic t.
    let bytes = bytes_of("sent-to", b"\x82\x06\0\x01\0\x01t\0");
    let mut sent_to = Talker::start(&link.there, &mqtt, &bytes);
    assert_eq!(sent_to.read(9), [0x20, 2, 0, 0, 0x90, 3, 0, 1, 0]);
    assert!(is_online(&link, &http, "idle") && is_online(&link, &http, "sent-to"));
    // While the link is up, the peer's kernel answers the probes.
    thread::sleep(Duration::from_secs(3)); // longer than the probes of a dead peer take
    assert!(is_online(&link, &http, "idle") && is_online(&link, &http, "sent-to"));

    link.cut();
    // PUBLISH to topic t.
    let mut publisher = Talker::start(&link.here, &mqtt, &bytes_of("p", b"\x30\x04\0\x01tx"));
    assert_eq!(publisher.read(4), [0x20, 2, 0, 0]);
    let until = Instant::now() + Duration::from_secs(60);
    for client_id in ["idle", "sent-to"] {
        while is_online(&link, &http, client_id) {
            assert!(Instant::now() < until, "{client_id} is still online");
            thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(is_online(&link, &http, "p"), "who is there stays");
}
