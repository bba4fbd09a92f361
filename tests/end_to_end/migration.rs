//! An installation of Mosquitto that runs, is imported, and is served by the program: its clients log in
//! with their old passwords, and may do what Mosquitto let them do.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use hearthmq::mqtt::{Packet, QoS, ReasonCode};
use hearthmq_test::{
    free_address,
    packets::{filter, subscribe},
};

use crate::{
    mqtt::{Client, connect, tcp},
    program::{PASSWORD, Place, Program},
    skipped::not_installed,
};

const USERS: usize = 20;

const ACL: &str = "\
# Everybody has a place of its own.
pattern write devices/%u/data
pattern read devices/%u/commands
topic read public/#
user user-0
topic readwrite devices/#
topic deny devices/user-7/#
user user-1
topic read devices/#
topic write news
user star*
topic #
";

/// Who publishes where, and whether that is allowed.
const PUBLICATIONS: [(usize, &str, bool); 8] = [
    (0, "devices/user-3/commands", true),
    (0, "devices/user-7/commands", false),
    (1, "news", true),
    (1, "devices/user-1/data", true),
    (1, "devices/user-2/data", false),
    (7, "devices/user-7/data", true),
    (7, "devices/user-8/data", false),
    (7, "news", false),
];

pub(crate) struct Mosquitto(Child);

impl Mosquitto {
    /// Starts it with a configuration, and waits until it listens here.
    pub(crate) fn start(config: &Path, address: SocketAddr) -> Self {
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Self(command.spawn().unwrap());
        while TcpStream::connect(address).is_err() {
            assert_eq!(running.0.try_wait().unwrap(), None, "Mosquitto does not start");
            thread::sleep(Duration::from_millis(10));
        }
        running
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn is_installed(tool: &str) -> bool {
    Command::new(tool).arg("--help").output().is_ok()
}

fn password(user: usize) -> String {
    format!("old secret {user}")
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// Makes the files of the installation with Mosquitto's own tools.
fn install(place: &Place, address: SocketAddr) {
    fs::write(place.path("acl"), ACL).unwrap();
    for user in 0..USERS {
        let mut command = Command::new("mosquitto_passwd");
        command.current_dir(place.path("")).args(if user == 0 { &["-c"][..] } else { &[] });
        if user % 2 == 1 {
            command.args(["-H", "sha512"]); // $6$; the others are $7$
        }
        run(command.args(["-b", "passwords", &format!("user-{user}"), &password(user)]));
    }
    let directory = place.path("");
    let directory = directory.display();
    let config = format!(
        "include_dir {directory}/conf.d\npersistence false\nmax_queued_messages 500\nfrobnicate 1\n\
         connection far\naddress far.example:1883\nremote_password hidden\n"
    );
    fs::write(place.path("mosquitto.conf"), config).unwrap();
    fs::create_dir(place.path("conf.d")).unwrap();
    let (host, port) = (address.ip(), address.port());
    let included = format!(
        "listener {port} {host}\nallow_anonymous false\npassword_file {directory}/passwords\n\
         acl_file {directory}/acl\n"
    );
    fs::write(place.path("conf.d/listener.conf"), included).unwrap();
    // Mosquitto gives up its rights if it is started by the superuser.
    for name in ["", "acl", "passwords", "conf.d", "conf.d/listener.conf"] {
        let mode = if place.path(name).is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

fn start_mosquitto(place: &Place, address: SocketAddr) -> Mosquitto {
    // Without what Mosquitto itself refuses.
    let own = format!("include_dir {}\n", place.path("conf.d").display());
    fs::write(place.path("runs.conf"), own).unwrap();
    Mosquitto::start(&place.path("runs.conf"), address)
}

fn login(address: SocketAddr, user: usize, password: &str) -> Option<Client<TcpStream>> {
    let name = format!("user-{user}");
    let mut packet = connect(&name);
    (packet.username, packet.password) = (Some(name.as_str()), Some(password.as_bytes()));
    let (client, reason) = Client::on(tcp(address), packet).unwrap();
    (reason == ReasonCode::Success).then_some(client)
}

/// Publishes with QoS 1; returns whether the broker allows it.
fn may_publish(client: &mut Client<TcpStream>, topic: &str) -> bool {
    client.publish(topic, b"x", Some(1)).unwrap();
    client.receive(|packet| match packet {
        Packet::PubAck(ack) => ack.reason != ReasonCode::NotAuthorized,
        packet => panic!("PUBACK expected, not {packet:?}"),
    })
}

/// Checks logins, publications, and a delivery between Mosquitto's own clients.
fn check(address: SocketAddr) {
    for user in 0..USERS {
        assert!(login(address, user, &password(user)).is_some(), "user-{user}");
    }
    assert!(login(address, 3, &password(4)).is_none());
    for (user, topic, is_allowed) in PUBLICATIONS {
        let mut client = login(address, user, &password(user)).unwrap();
        assert_eq!(may_publish(&mut client, topic), is_allowed, "user-{user} to {topic}");
    }
    let tool = |name: &str, user: usize, more: &[&str]| {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let mut command = Command::new(name);
        command.args(["-h", &host, "-p", &port, "-u", &format!("user-{user}")]);
        command.args(["-P", &password(user), "-V", "mqttv311", "-q", "1"]).args(more);
        run(&mut command)
    };
    let topic = "devices/user-3/commands";
    // The session waits for the message, so nothing needs to be waited for.
    tool("mosquitto_sub", 3, &["-c", "-i", "waiting", "-t", topic, "-E"]);
    tool("mosquitto_pub", 0, &["-t", topic, "-m", "go"]);
    let arrived = tool(
        "mosquitto_sub",
        3,
        &["-c", "-i", "waiting", "-t", topic, "-C", "1", "-W", "60", "-v"],
    );
    assert_eq!(String::from_utf8_lossy(&arrived.stdout), format!("{topic} go\n"));
}

pub(crate) fn import(place: &Place, arguments: &[&str]) -> Output {
    import_command(place, arguments).output().unwrap()
}

pub(crate) fn import_command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.args(["import", "mosquitto", "--config", "mosquitto.conf"]).args(arguments);
    command.current_dir(place.path("")).env("HEARTHMQ_ADMIN_PASSWORD", PASSWORD);
    command
}

#[test]
fn an_installation_of_mosquitto_is_imported_and_its_clients_log_in() {
    for tool in ["mosquitto_passwd", "mosquitto_pub", "/usr/sbin/mosquitto"] {
        if !is_installed(tool) {
            not_installed("mosquitto mosquitto-clients");
            return;
        }
    }
    let address = free_address();
    let place = Place::new().set("http.listen=127.0.0.1:0");
    install(&place, address);
    let mosquitto = start_mosquitto(&place, address);
    check(address);
    drop(mosquitto);

    fs::remove_file(place.path("hearthmq.toml")).unwrap();
    let reported = import(&place, &["--dry-run"]);
    let text = String::from_utf8(reported.stdout).unwrap();
    assert!(reported.status.success(), "{text}");
    assert!(!place.path("hearthmq.toml").exists());
    for expected in [
        "20 accounts",
        "mosquitto.conf:4: frobnicate 1: the option is not known",
        "mosquitto.conf:5: connection far: it has no topic, and is left out",
        "acl:11: user star*: `*` stands for any text",
        "Here a SUBSCRIBE is refused",
        "always stored, also with persistence false",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("hidden"), "{text}");
    let done = import(&place, &[]);
    assert!(done.status.success(), "{done:?}");
    let again = import(&place, &[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"), "{again:?}");

    let program = place.start();
    import_users(&program, "admin", &place.path("hearthmq.users.ndjson"));
    check(address);
    // The weak hashes were replaced at these logins, and the passwords are the same.
    check(address);
    let mut subscriber = login(address, 7, &password(7)).unwrap();
    subscriber.send(&subscribe(1, vec![filter("devices/#", QoS::AtMostOnce)]));
    subscriber.receive(|packet| match packet {
        Packet::SubAck(ack) => assert_eq!(ack.reasons[..], [ReasonCode::NotAuthorized]),
        packet => panic!("SUBACK expected, not {packet:?}"),
    });
}

pub(crate) fn import_users(program: &Program, administrator: &str, lines: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearthmq"));
    command.args(["users", "import"]).arg(lines);
    command.env("HEARTHMQ_REMOTE_URL", format!("http://{}", program.address("http")));
    command.env("HEARTHMQ_REMOTE_USER", administrator).env("HEARTHMQ_REMOTE_PASSWORD", PASSWORD);
    run(&mut command);
}

/// What Mosquitto 2.0 of Debian cannot make: a hash of 2.1, and dynamic security with all its parts.
const DYNAMIC_SECURITY: &str = r##"{
  "clients": [
    {"username": "one", "encoded_password": "$argon2id$v=19$m=47104,t=1,p=1$c29tZXNhbHQxMjM0NTY3OA$K1d0dHhSbm1mZ2hqa2wxMjM0NTY3ODkwMTIzNDU2Nzg",
     "roles": [{"rolename": "writer", "priority": 1}, {"rolename": "denied", "priority": 9}]},
    {"username": "two", "clientid": "only", "disabled": true, "iterations": 101,
     "salt": "AAECAwQFBgcICQoL",
     "password": "OEjZ01t9qw9e+6tl9U4iLTJ36+7+YvBmM+ZF4EYvmw3y8ePeqod3lWPTWoV4/F+WJH+3+kie2TFZki7J7WetuA=="},
    {"username": "three"}
  ],
  "groups": [{"groupname": "cars", "roles": [{"rolename": "reader"}], "clients": [{"username": "two"}]}],
  "roles": [
    {"rolename": "writer", "acls": [
      {"acltype": "publishClientSend", "topic": "a/%u", "priority": 1, "allow": true},
      {"acltype": "publishClientSend", "topic": "a/secret", "priority": 5, "allow": false}]},
    {"rolename": "denied", "acls": [
      {"acltype": "publishClientSend", "topic": "b", "allow": false},
      {"acltype": "subscribeLiteral", "topic": "#", "allow": false},
      {"acltype": "publishClientSend", "topic": "$CONTROL/dynamic-security/#", "allow": true}]},
    {"rolename": "reader", "acls": [
      {"acltype": "subscribePattern", "topic": "c/#", "allow": true},
      {"acltype": "publishClientReceive", "topic": "c/private", "allow": false}]}
  ],
  "defaultACLAccess": {"publishClientSend": false, "publishClientReceive": true, "subscribe": false, "unsubscribe": true}
}"##;

#[test]
fn dynamic_security_becomes_accounts_groups_and_rules_in_its_order() {
    let place = Place::new();
    fs::remove_file(place.path("hearthmq.toml")).unwrap();
    fs::write(place.path("dynamic-security.json"), DYNAMIC_SECURITY).unwrap();
    let config = "per_listener_settings false\nlistener 1884 127.0.0.1\nlistener 8883\n\
                  certfile server.crt\nkeyfile server.key\ncafile ca.crt\nrequire_certificate true\n\
                  use_identity_as_username true\nlistener 8884\npsk_hint x\n\
                  plugin /usr/lib/mosquitto_dynamic_security.so\n\
                  plugin_opt_config_file dynamic-security.json\nmax_inflight_messages 0\n\
                  persistent_client_expiration 2d\nretain_available false\n";
    fs::write(place.path("mosquitto.conf"), config).unwrap();
    let done = import(&place, &[]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{text}{:?}", done.stderr);
    for expected in [
        "user \"three\": it has no password",
        "role \"denied\": deny subscribeLiteral \"#\"",
        "role \"denied\": allow publishClientSend \"$CONTROL/dynamic-security/#\"",
        "psk_hint x: the listener used TLS-PSK, and is left out",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let lines = fs::read_to_string(place.path("hearthmq.users.ndjson")).unwrap();
    let accounts: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((accounts.len(), &accounts[0]["name"]), (2, &"one".into()));
    assert_eq!(
        (&accounts[1]["disabled"], &accounts[1]["groups"][0]),
        (&true.into(), &"cars".into())
    );
    assert!(accounts[1]["password_hash"].as_str().unwrap().starts_with("$7$101$AAECAwQFBgcICQoL$"));

    let policy = fs::read_to_string(place.path("hearthmq.policy.toml")).unwrap();
    let policy: toml::Table = toml::from_str(&policy).unwrap();
    let shown = |rule: &toml::Value| {
        let text = |name: &str| rule.get(name).map(ToString::to_string).unwrap_or_default();
        let who = text("users") + &text("groups");
        format!("{} {who} {}", text("effect"), text("topics")).replace('"', "")
    };
    let rules: Vec<_> = policy["rules"].as_array().unwrap().iter().map(shown).collect();
    let place_of = |rule: &str| {
        rules.iter().position(|other| other == rule).unwrap_or_else(|| panic!("{rule}: {rules:?}"))
    };
    // The role with the higher priority comes first, and in a role the entry with the higher one.
    let order = [
        "allow [admin] ",
        "deny [two] ",
        "allow [*] ",
        "deny [cars] [c/private]",
        "deny [one] [b]",
        "deny [one] [a/secret]",
        "allow [one] [a/${username}]",
        "allow [cars] [c/#]",
    ];
    assert!(order.map(place_of).is_sorted(), "{rules:?}");
    let written = fs::read_to_string(place.path("hearthmq.toml")).unwrap();
    for expected in ["in_flight_max = 65535", "session_expiry_secs_max = 172800", "[[listeners]]"] {
        assert!(written.contains(expected), "{written}");
    }
}

/// Of several listeners, the limit of one must not become that of all.
#[test]
fn the_limit_of_one_listener_does_not_become_that_of_all() {
    let imported = |first: &str, second: &str| {
        let place = Place::new();
        fs::remove_file(place.path("hearthmq.toml")).unwrap();
        let config = format!("listener 1883\n{first}\nlistener 1884\n{second}\n");
        fs::write(place.path("mosquitto.conf"), config).unwrap();
        let done = import(&place, &[]);
        assert!(done.status.success(), "{done:?}");
        let made = fs::read_to_string(place.path("hearthmq.toml")).unwrap();
        let limit = made.lines().find(|line| line.starts_with("connections_max"));
        (limit.map(str::to_owned), String::from_utf8(done.stdout).unwrap())
    };
    let (limit, report) = imported("max_connections 10", "max_connections 20");
    assert_eq!(limit.as_deref(), Some("connections_max = 30"));
    assert!(report.contains("mosquitto.conf:2: max_connections bounds one listener"), "{report}");
    assert!(report.contains("mosquitto.conf:4: max_connections bounds one listener"), "{report}");
    for other in ["max_connections -1", "max_topic_alias 10"] {
        let (limit, report) = imported("max_connections 10", other);
        assert_eq!(limit, None, "{other}");
        let said = "mosquitto.conf:2: max_connections 10: limits.connections_max bounds all";
        assert!(report.contains(said), "{report}");
    }
}
