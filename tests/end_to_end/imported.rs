//! What a running Mosquitto allows, and what its import allows, by the same dialogues: never more. What is
//! allowed less is written down here, and reported by the import.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
};

use hearthmq::mqtt::{Packet, Publish, PublishFlags, PublishProperties, QoS, ReasonCode};
use hearthmq_test::{
    free_address,
    packets::{filter, id, subscribe},
};

use crate::{
    migration::{Mosquitto, import, import_command, import_users, is_installed, run},
    mqtt::{Client, connect, tcp},
    pki::{Pair, Pki},
    program::Place,
    skipped::not_installed,
    tls::Tls,
};

const PLUGIN: &str = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so";

/// A client that comes.
#[derive(Clone, Copy)]
struct Newcomer<'a> {
    port: u16,
    /// The CA that a TLS client trusts, and its certificate.
    tls: Option<(&'a Pki, Option<&'a Pair>)>,
    login: Option<(&'a str, &'a str)>,
    client_id: &'a str,
}

const fn plain<'a>(
    port: u16,
    login: Option<(&'a str, &'a str)>,
    client_id: &'a str,
) -> Newcomer<'a> {
    Newcomer { port, tls: None, login, client_id }
}

/// An installation at an address of its own.
struct Installation<'a> {
    place: &'a Place,
    address: IpAddr,
    /// The port at which `root` may publish and read everything.
    port: u16,
    newcomers: &'a [(&'a str, Newcomer<'a>)],
    topics: &'a [&'a str],
}

impl Installation<'_> {
    /// Returns what the newcomers may do: `NAME comes`, `NAME writes TOPIC`, `NAME reads TOPIC`.
    fn allowed(&self) -> Vec<String> {
        let mut allowed = Vec::new();
        for (name, newcomer) in self.newcomers {
            let address = SocketAddr::from((self.address, newcomer.port));
            let Ok(stream) = TcpStream::connect(address) else { continue };
            drop(stream);
            let may = match newcomer.tls {
                None => self.talk(tcp(address), newcomer),
                Some((pki, certificate)) => {
                    let tls = Tls::new(&pki.ca, &rustls::version::TLS13, certificate);
                    self.talk(tls.stream(address), newcomer)
                }
            };
            allowed.extend(may.into_iter().map(|what| format!("{name} {what}")));
        }
        allowed
    }

    fn talk<S: Read + Write>(&self, stream: S, newcomer: &Newcomer<'_>) -> Vec<String> {
        let mut packet = connect(newcomer.client_id);
        packet.username = newcomer.login.map(|(name, _)| name);
        packet.password = newcomer.login.map(|(_, password)| password.as_bytes());
        let Ok((mut client, ReasonCode::Success)) = Client::on(stream, packet) else {
            return Vec::new();
        };
        let mut root = connect("c-root");
        (root.username, root.password) = (Some("root"), Some(&b"root pass"[..]));
        let mut root = Client::connected((self.address, self.port).into(), root);
        let mut may = vec!["comes".to_owned()];
        for topic in self.topics {
            if publish(&mut client, topic) {
                may.push(format!("writes {topic}"));
            }
        }
        for topic in self.topics {
            for wanted in [topic, "sync"] {
                client.send(&subscribe(9, vec![filter(wanted, QoS::AtMostOnce)]));
                client.receive(|packet| assert!(matches!(packet, Packet::SubAck(_)), "{packet:?}"));
            }
            for sent in [topic, "sync"] {
                assert!(publish(&mut root, sent), "{sent}");
            }
            // What is delivered at all is delivered in order.
            let first = client.message();
            if first.topic == *topic {
                may.push(format!("reads {topic}"));
                assert_eq!(client.message().topic, "sync");
            }
        }
        may
    }

    /// Plays the dialogues with Mosquitto, imports its files, and plays them again. Returns what is no longer
    /// allowed, and the report of the import.
    fn compare(&self) -> (Vec<String>, String) {
        let config = self.place.path("mosquitto.conf");
        let root = SocketAddr::from((self.address, self.port));
        let mosquitto = Mosquitto::start(&config, root);
        let theirs = self.allowed();
        drop(mosquitto);
        fs::remove_file(self.place.path("hearthmq.toml")).unwrap();
        let done = import(self.place, &[]);
        let report = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{report}{}", String::from_utf8_lossy(&done.stderr));
        let program = self.place.start();
        // Dynamic security has an administrator of the same name.
        let name = if report.contains("hearthmq-admin") { "hearthmq-admin" } else { "admin" };
        import_users(&program, name, &self.place.path("hearthmq.users.ndjson"));
        let ours = self.allowed();
        let more: Vec<_> = ours.iter().filter(|what| !theirs.contains(what)).collect();
        assert!(more.is_empty(), "more than Mosquitto: {more:#?}");
        let is_less = |what: &String| !ours.contains(what);
        (theirs.into_iter().filter(is_less).collect(), report)
    }
}

/// Publishes with QoS 1; returns whether the broker allows it.
fn publish<S: Read + Write>(client: &mut Client<S>, topic: &str) -> bool {
    client.send(&Packet::Publish(Publish {
        flags: PublishFlags { qos: QoS::AtLeastOnce, ..PublishFlags::default() },
        topic,
        packet_id: Some(id(1)),
        properties: PublishProperties::default(),
        payload: b"x",
    }));
    client.receive(|packet| match packet {
        Packet::PubAck(ack) => ack.reason != ReasonCode::NotAuthorized,
        packet => panic!("PUBACK expected, not {packet:?}"),
    })
}

fn new_place() -> Place {
    Place::new()
        .set("http.listen=127.0.0.1:0")
        .set("auth.throttle.free_failures=0")
        .set("auth.throttle.failures_max=0")
        .set("auth.throttle.address_failures_max=0")
}

const ACL: &str = "\
topic read anonymous
user ann
topic write a/in
topic read a/out
topic readwrite a/both/#
topic deny a/both/secret
topic a/+/x
user root
topic #
user ben
topic deny p/#
user a+n
topic read sync
user device-1
topic write d/one
user CN=device-1
topic write d/subject
pattern write p/%u/%c
pattern read q/%c
pattern read sync
";

const TOPICS: [&str; 12] = [
    "a/in",
    "a/out",
    "a/both/1",
    "a/both/secret",
    "a/k/x",
    "d/one",
    "d/subject",
    "p/ann/c-1",
    "p/device-1/c-1",
    "q/c-1",
    "q/c-2",
    "anonymous",
];

/// Makes the files of an installation; returns the lines of a listener with TLS.
fn install(place: &Place, pki: &Pki) -> String {
    fs::write(place.path("acl"), ACL).unwrap();
    let users =
        [("root", "root pass"), ("ann", "1"), ("ben", "2"), ("device-1", "3"), ("a+n", "4")];
    for (number, (user, password)) in users.into_iter().enumerate() {
        let mut command = Command::new("mosquitto_passwd");
        command.current_dir(place.path("")).args((number == 0).then_some("-c"));
        run(command.args(["-b", "passwords", user, password]));
    }
    let crl: Vec<_> = pki.crl.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    fs::write(place.path("crl"), crl.concat()).unwrap();
    format!(
        "cafile {}\ncertfile {}\nkeyfile {}\nacl_file {}\n",
        pki.ca.display(),
        pki.server.chain.display(),
        pki.server.key.display(),
        place.path("acl").display(),
    )
}

#[test]
fn listeners_with_settings_of_their_own_allow_no_more_after_an_import() {
    for tool in ["mosquitto_passwd", "/usr/sbin/mosquitto"] {
        if !is_installed(tool) {
            return not_installed("mosquitto mosquitto-clients");
        }
    }
    let (place, pki, address) = (new_place(), Pki::new(), free_address().ip());
    let tls = install(&place, &pki);
    let (acl, passwords) = (place.path("acl"), place.path("passwords"));
    let (acl, passwords) = (acl.display(), passwords.display());
    let config = format!(
        "user root\nper_listener_settings true\nclientid_prefixes c-\n\
         listener 1901 {address}\npassword_file {passwords}\nacl_file {acl}\n\
         listener 1902 {address}\nallow_anonymous true\nacl_file {acl}\n\
         listener 1903 {address}\n{tls}require_certificate true\nuse_identity_as_username true\n\
         crlfile {crl}\n\
         listener 1905 {address}\n{tls}use_identity_as_username true\npassword_file {passwords}\n\
         listener 1906 {address}\n{tls}require_certificate true\nuse_subject_as_username true\n\
         listener 1907 {address}\nacl_file {acl}\n",
        crl = place.path("crl").display(),
    );
    fs::write(place.path("mosquitto.conf"), config).unwrap();
    let over = |port, certificate, login| Newcomer {
        port,
        tls: Some((&pki, certificate)),
        login,
        client_id: "c-1",
    };
    let (device, ann) = (Some(&pki.device), Some(("ann", "1")));
    let newcomers = [
        ("ann", plain(1901, ann, "c-1")),
        ("ann-2", plain(1901, ann, "c-2")),
        ("ann without the prefix", plain(1901, ann, "d-1")),
        ("ann without an identifier", plain(1901, ann, "")),
        ("ann with a wrong password", plain(1901, Some(("ann", "2")), "c-1")),
        ("ben", plain(1901, Some(("ben", "2")), "c-1")),
        ("a+n", plain(1901, Some(("a+n", "4")), "c-1")),
        ("nobody", plain(1901, None, "c-1")),
        ("anonymous", plain(1902, None, "c-1")),
        ("believed", plain(1902, Some(("ann", "any")), "c-1")),
        ("device", over(1903, device, None)),
        ("device as ann", over(1903, device, ann)),
        ("device with a wrong password", over(1903, device, Some(("device-1", "4")))),
        ("revoked", over(1903, Some(&pki.revoked), None)),
        ("foreign", over(1903, Some(&pki.foreign), None)),
        ("without certificate", over(1903, None, ann)),
        ("password alone", over(1905, None, ann)),
        ("certificate there", over(1905, device, None)),
        ("by subject", over(1906, device, None)),
        ("ann elsewhere", plain(1907, ann, "c-1")),
    ];
    let installation =
        Installation { place: &place, address, port: 1901, newcomers: &newcomers, topics: &TOPICS };
    let (less, report) = installation.compare();
    let whose = |name: &str| less.iter().any(|what| what.starts_with(name));
    // Each of these is in the report.
    for (name, reported) in [
        ("believed", "without password_file Mosquitto believes every user name"),
        ("device as ann", "must send the Common Name"),
        ("by subject", "the listener is left out"),
    ] {
        assert!(whose(name) && report.contains(reported), "{name}: {less:#?} {report}");
    }
    let others = ["believed", "device as ann", "device with a wrong", "by subject"];
    let unexpected = less.iter().filter(|what| !others.iter().any(|name| what.starts_with(name)));
    assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(
        report.contains("without require_certificate Mosquitto refuses every client"),
        "{report}"
    );
}

/// A certificate and a password of any user there; here that of the Common Name.
#[test]
fn a_certificate_with_a_password_allows_no_more_after_an_import() {
    if !is_installed("mosquitto_passwd") || !is_installed("/usr/sbin/mosquitto") {
        return not_installed("mosquitto mosquitto-clients");
    }
    let (place, pki, address) = (new_place(), Pki::new(), free_address().ip());
    let tls = install(&place, &pki);
    let (acl, passwords) = (place.path("acl"), place.path("passwords"));
    let (acl, passwords) = (acl.display(), passwords.display());
    let config = format!(
        "user root\nper_listener_settings true\n\
         listener 1901 {address}\npassword_file {passwords}\nacl_file {acl}\n\
         listener 1904 {address}\n{tls}require_certificate true\npassword_file {passwords}\n\
         listener 1903 {address}\n{tls}require_certificate true\nuse_identity_as_username true\n"
    );
    fs::write(place.path("mosquitto.conf"), config).unwrap();
    let over = |port, certificate, login| Newcomer {
        port,
        tls: Some((&pki, certificate)),
        login,
        client_id: "c-1",
    };
    let device = Some(&pki.device);
    let newcomers = [
        ("both", over(1904, device, Some(("device-1", "3")))),
        ("wrong password", over(1904, device, Some(("device-1", "4")))),
        ("ann", over(1904, device, Some(("ann", "1")))),
        ("certificate alone", over(1904, device, None)),
        ("password alone", over(1904, None, Some(("device-1", "3")))),
        ("identity", over(1903, device, None)),
    ];
    let installation =
        Installation { place: &place, address, port: 1901, newcomers: &newcomers, topics: &TOPICS };
    let (less, report) = installation.compare();
    // Each of these is in the report.
    for (name, reported) in [
        ("ann", "must have the Common Name of the certificate"),
        ("identity", "are refused without a password"),
    ] {
        let is_less = less.iter().any(|what| what.starts_with(name));
        assert!(is_less && report.contains(reported), "{name}: {less:#?} {report}");
    }
    assert!(!less.iter().any(|what| what.starts_with("both")), "{less:#?}");
}

/// Returns the rules of an import that allow to connect, by the client identifiers that they have.
fn connecting(prefix: &str) -> Vec<String> {
    let hash = format!("{}==", "A".repeat(86));
    let client = |name: &str, id: &str| {
        format!(
            r#"{{"username": "{name}", "clientid": "{id}", "password": "{hash}", "salt": "AAAA",
            "iterations": 1}}"#
        )
    };
    let clients =
        format!(r#"{{"clients": [{}, {}]}}"#, client("in", "c-in"), client("out", "d-out"));
    let place = new_place();
    fs::write(place.path("dynamic-security.json"), clients).unwrap();
    let config = format!(
        "listener 1931\nclientid_prefixes {prefix}\nplugin {PLUGIN}\n\
         plugin_opt_config_file {}\n",
        place.path("dynamic-security.json").display()
    );
    fs::write(place.path("mosquitto.conf"), config).unwrap();
    fs::remove_file(place.path("hearthmq.toml")).unwrap();
    run(&mut import_command(&place, &[]));
    let policy = fs::read_to_string(place.path("hearthmq.policy.toml")).unwrap();
    let policy: toml::Table = toml::from_str(&policy).unwrap();
    let rules = policy["rules"].as_array().unwrap().iter();
    let allowed = rules.filter(|rule| {
        let actions = rule["actions"].as_array().unwrap();
        rule["effect"].as_str() == Some("allow") && actions == &["connect".into()]
    });
    allowed.map(|rule| rule["clients"][0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_prefix_of_client_identifiers_holds_for_everybody() {
    assert_eq!(connecting("c-"), ["c-in", "c-*"]);
    assert_eq!(connecting("c*"), Vec::<String>::new(), "an asterisk would allow others");
}

/// What mosquitto_ctrl does, one line for each command.
const COMMANDS: &str = "\
createClient root -p|root pass
createClient car -p|old secret
createClient van -p|2 -c c-van
createClient off -p|3
createClient member -p|4
createRole all
addRoleACL all publishClientSend # allow
addRoleACL all subscribePattern # allow
addClientRole root all
createRole everybody
addRoleACL everybody subscribePattern sync allow
createRole cars
addRoleACL cars publishClientSend data/%u/# allow 5
addRoleACL cars publishClientSend data/+/x allow 4
addRoleACL cars publishClientSend data/car/x deny 9
addRoleACL cars subscribePattern cmd/# allow 5
addRoleACL cars subscribeLiteral cmd/private deny 1
addRoleACL cars subscribeLiteral cmd/more deny 9
addRoleACL cars publishClientReceive cmd/hidden deny 9
addRoleACL cars publishClientSend out allow 1
createRole strict
addRoleACL strict publishClientSend out deny 1
addRoleACL strict publishClientSend data/+/x deny 1
addRoleACL strict publishClientSend data/van/y deny 1
createGroup fleet
addGroupRole fleet cars 1
addGroupRole fleet strict 7
addGroupRole fleet everybody 1
addGroupClient fleet van 3
addGroupClient fleet member
addClientRole car cars 5
addClientRole car strict 4
addClientRole car everybody
addClientRole van cars
disableClient off";

const SECURED_TOPICS: [&str; 10] = [
    "data/car/x",
    "data/%u/z",
    "data/car/z",
    "data/van/y",
    "data/k/x",
    "out",
    "cmd/private",
    "cmd/more",
    "cmd/hidden",
    "cmd/else",
];

#[test]
fn dynamic_security_allows_no_more_after_an_import() {
    for tool in ["mosquitto_ctrl", "/usr/sbin/mosquitto"] {
        if !is_installed(tool) {
            return not_installed("mosquitto mosquitto-clients");
        }
    }
    let (place, address) = (new_place(), free_address().ip());
    let file = place.path("dynamic-security.json");
    run(Command::new("mosquitto_ctrl").args(["dynsec", "init"]).arg(&file).args(["admin", "pass"]));
    let config = format!(
        "user root\nlistener 1911 {address}\nallow_anonymous false\nplugin {PLUGIN}\n\
         plugin_opt_config_file {}\n",
        file.display()
    );
    fs::write(place.path("mosquitto.conf"), config).unwrap();
    let mosquitto = Mosquitto::start(&place.path("mosquitto.conf"), (address, 1911).into());
    for line in COMMANDS.lines() {
        let mut command = Command::new("mosquitto_ctrl");
        command.args(["-h", &address.to_string(), "-p", "1911", "-u", "admin", "-P", "pass"]);
        // Only a password has spaces.
        let (words, password) = line.split_once('|').unwrap_or((line, ""));
        let password = match password.split_once(" -c ") {
            Some((password, client_id)) => vec![password, "-c", client_id],
            None => Some(password).filter(|password| !password.is_empty()).into_iter().collect(),
        };
        run(command.arg("dynsec").args(words.split(' ')).args(password));
    }
    drop(mosquitto);
    let newcomers = [
        ("car", plain(1911, Some(("car", "old secret")), "c-1")),
        ("car with a wrong password", plain(1911, Some(("car", "old secre")), "c-1")),
        ("van", plain(1911, Some(("van", "2")), "c-van")),
        ("van as another", plain(1911, Some(("van", "2")), "c-1")),
        ("off", plain(1911, Some(("off", "3")), "c-1")),
        ("member", plain(1911, Some(("member", "4")), "c-1")),
        ("anonymous", plain(1911, None, "c-1")),
    ];
    let topics = &SECURED_TOPICS;
    let installation =
        Installation { place: &place, address, port: 1911, newcomers: &newcomers, topics };
    let (less, report) = installation.compare();
    assert_eq!(less, Vec::<String>::new(), "{report}");
    assert!(report.contains("%u and %c in the topics of roles have no meaning"), "{report}");
}
