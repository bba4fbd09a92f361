//! The configuration: its layers, its example file, and the messages for mistakes.

use std::{fs, path::PathBuf};

use hearthmq::config::{Config, EXAMPLE};
use hearthmq::{limits::QueueFull, net::tls::ClientAuth};
use tempfile::TempDir;
use toml::Table;

/// A configuration file of one test.
struct File {
    _dir: TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearthmq.toml");
    fs::write(&path, text).unwrap();
    File { _dir: dir, path }
}

impl File {
    fn load(&self, variables: &[(&str, &str)], settings: &[&str]) -> Result<Config, String> {
        load(Some(self), variables, settings)
    }

    /// Returns the error of this file alone, without the directory.
    fn mistake(&self) -> String {
        let error = self.load(&[], &[]).unwrap_err();
        error.split_once("hearthmq.toml").unwrap().1.to_owned()
    }
}

fn load(
    file: Option<&File>,
    variables: &[(&str, &str)],
    settings: &[&str],
) -> Result<Config, String> {
    Config::load(
        file.map(|file| file.path.as_path()),
        variables.iter().map(|(name, value)| ((*name).into(), (*value).into())),
        &settings.iter().map(|&setting| setting.into()).collect::<Vec<_>>(),
    )
    .map_err(|error| error.to_string())
}

fn keys(table: &Table) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in table {
        match value.as_table() {
            Some(section) => all.extend(keys(section).iter().map(|key| format!("{name}.{key}"))),
            None => all.push(name.clone()),
        }
    }
    all
}

#[test]
fn the_example_file_is_the_default() {
    let example: Config = toml::from_str(EXAMPLE).unwrap();
    assert_eq!(example, Config::default());
    assert_eq!(file(EXAMPLE).load(&[], &[]).unwrap(), Config::default());
}

#[test]
fn the_example_file_shows_every_option() {
    let shown = keys(&EXAMPLE.parse().unwrap());
    let known = keys(&Table::try_from(Config::default()).unwrap());
    assert_eq!(shown, known);
}

/// An option follows its comment, or shares it with the option on the line before.
#[test]
fn the_example_file_explains_every_option() {
    let mut explained = false;
    for line in EXAMPLE.lines() {
        explained = line.starts_with('#') || (explained && !line.is_empty());
        assert!(explained || line.is_empty() || line.starts_with('['), "{line}");
        assert!(line.len() <= 100, "too long: {line}");
    }
}

#[test]
fn the_command_line_overrides_the_environment_that_overrides_the_file() {
    let file = file("[limits]\nconnections_max = 1\nin_flight_max = 2\ntopic_levels_max = 3\n");
    let config = file
        .load(
            &[
                ("HEARTHMQ_LIMITS__IN_FLIGHT_MAX", "20"),
                ("HEARTHMQ_LIMITS__TOPIC_LEVELS_MAX", "30"),
                ("PATH", "/bin"),
            ],
            &["limits.topic_levels_max=300"],
        )
        .unwrap();
    assert_eq!(config.limits.connections_max, 1);
    assert_eq!(config.limits.in_flight_max, 20);
    assert_eq!(config.limits.topic_levels_max, 300);
    assert_eq!(config.limits.receive_maximum, 1_000);
}

#[test]
fn every_option_has_an_environment_variable() {
    let config = load(
        None,
        &[
            ("HEARTHMQ_DATA_DIR", "/var/lib/hearthmq"),
            ("HEARTHMQ_MQTT__TCP", "0.0.0.0:1883, [::1]:1884"),
            ("HEARTHMQ_HTTP__LISTEN", ""),
            ("HEARTHMQ_TLS__CLIENT_CA", r#"["with,comma.crt"]"#),
            ("HEARTHMQ_TLS__CLIENT_AUTH", "optional"),
            ("HEARTHMQ_AUTH__ANONYMOUS", "true"),
            ("HEARTHMQ_LIMITS__QUEUE_FULL", "drop-newest"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.users_file(), PathBuf::from("/var/lib/hearthmq/users.toml"));
    assert_eq!(config.mqtt.tcp.len(), 2);
    let addresses = ["[::1]:1884", "[::1]:1884,127.0.0.1:1883", r#"["[::1]:1884"]"#];
    for (text, count) in addresses.into_iter().zip([1, 2, 1]) {
        let config = load(None, &[("HEARTHMQ_MQTT__TCP", text)], &[]).unwrap();
        assert_eq!(config.mqtt.tcp.len(), count, "{text}");
    }
    assert!(config.http.listen.is_empty());
    assert_eq!(config.tls.client_ca, [PathBuf::from("with,comma.crt")]);
    assert!(config.auth.anonymous);
    assert_eq!(config.limits.queue_full, QueueFull::DropNewest);

    for key in keys(&Table::try_from(Config::default()).unwrap()) {
        let name = format!("HEARTHMQ_{}", key.replace('.', "__").to_uppercase());
        if let Err(error) = load(None, &[(&name, "?")], &[]) {
            assert!(!error.contains("no such option"), "{error}");
        }
    }
}

#[test]
fn what_kubernetes_puts_into_the_environment_is_none_of_ours() {
    let variables = [
        ("HEARTHMQ_SERVICE_HOST", "10.0.0.1"),
        ("HEARTHMQ_PORT", "tcp://10.0.0.1:1883"),
        ("HEARTHMQ_PORT_1883_TCP_ADDR", "10.0.0.1"),
        ("HEARTHMQ_CONFIG", "/etc/hearthmq.toml"),
    ];
    assert_eq!(load(None, &variables, &[]).unwrap(), Config::default());
}

/// Here and below: a file, and its message from the position on.
#[test]
fn a_mistake_in_the_file_is_named_with_its_line_and_with_what_would_be_right() {
    for (text, message) in [
        ("# é\n[mqtt]\n  tpc = []", ":3:3: there is no option tpc in [mqtt]; did you mean tcp?"),
        (
            "[mqtt]\nconnections_max = 5",
            ":2:1: there is no option connections_max in [mqtt]; write it in [auth.postgres] or [http] or \
             [limits]",
        ),
        ("\n[mqqt]\ntcp = []", ":2:2: there is no option or section mqqt; did you mean mqtt?"),
        (
            "[limits]\nmax_connections = 5",
            ":2:1: there is no option max_connections in [limits]; did you mean connections_max?",
        ),
        (
            "[log]\nzzz = 1",
            ":2:1: there is no option zzz in [log]; there are clients, filter, format",
        ),
        (
            "shards = \"four\"",
            ":1:10: invalid type: string \"four\"; write a whole number from 0 to 65535",
        ),
        (
            "[limits]\npacket_bytes_max = -1",
            ":2:20: invalid value: integer -1; write a whole number from 0 to 4294967295",
        ),
        (
            "[mqtt]\ntcp = [\"127.0.0.1:1883\", \"localhost\"]",
            ":2:26: not an address with a port; write address:port, for example \
             \"127.0.0.1:1883\" or \"[::1]:1883\"",
        ),
        ("[log]\nformat = \"xml\"", ":2:10: unknown variant xml; write \"text\" or \"json\""),
    ] {
        assert_eq!(file(text).mistake(), message);
    }
}

#[test]
fn values_that_cannot_work_are_named_with_their_line_too() {
    for (text, message) in [
        ("[limits]\nconnections_max = 0", ":2:1: limits.connections_max is 0; write 1 or more"),
        (
            "[limits]\n\npacket_bytes_max = 16",
            ":3:1: limits.packet_bytes_max is 16; write a number from 128 to 268435460",
        ),
        (
            "[http]\nlisten = [\"127.0.0.1:1883\"]",
            ":2:1: 127.0.0.1:1883 in http.listen is given twice; give each listener an address \
             of its own",
        ),
        (
            "[mqtt]\ntls = [\"[::]:8883\"]",
            ":2:1: mqtt.tls needs a certificate and its key; give both as certificate and key in \
             [tls]",
        ),
        (
            "[tls]\ncrl = [\"a.crl\"]",
            ":2:1: tls.crl has no effect while clients are not asked for a certificate; write \
             client_auth = \"optional\" or \"required\" in [tls]",
        ),
        (
            "[limits]\nqueue_bytes_per_client_max = 1000",
            ":2:1: limits.packet_bytes_max = 1048576 is more than \
             limits.queue_bytes_per_client_max = 1000; lower limits.packet_bytes_max or raise \
             limits.queue_bytes_per_client_max",
        ),
        (
            "[log]\nfilter = \"a=b=c\"",
            ":2:1: log.filter = \"a=b=c\" is not a valid filter; write a level such as \"info\", \
             or \"warn,hearthmq=debug\"",
        ),
    ] {
        assert_eq!(file(text).mistake(), message);
    }
}

#[test]
fn listeners_that_cannot_work_are_named_with_what_would_be_right() {
    for (text, message) in [
        (
            "[mqtt]\ntcp = []",
            ":2:1: there is no MQTT listener, so no client can connect; write an address, for \
             example tcp = [\"127.0.0.1:1883\"]",
        ),
        (
            "[mqtt]\nsecure_websocket = [\"[::]:8084\"]",
            ":2:1: mqtt.secure_websocket needs a certificate and its key; give both as certificate \
             and key in [tls]",
        ),
        (
            "[mqtt]\ntcp = [\"0.0.0.0:1883\", \"[::]:1883\"]",
            ":2:1: [::]:1883 in mqtt.tcp overlaps with the same port of the other IP version; \
             leave 0.0.0.0 out: [::] takes IPv4 as well",
        ),
        (
            "[mqtt]\nunix_mode = \"rw\"",
            ":2:1: mqtt.unix_mode = \"rw\" is not a set of permissions; write three octal digits \
             as for chmod, for example \"660\"",
        ),
        (
            "[mqtt]\nunix = [\"/a\", \"/a\"]",
            ":2:1: mqtt.unix has a path that is empty or given twice; give each socket a path of \
             its own",
        ),
        (
            "[mqtt]\nwebsocket_path = \"mqtt\"",
            ":2:1: mqtt.websocket_path = \"mqtt\" is not a path of a URL; write one that \
             begins with a slash, for example \"/mqtt\"",
        ),
        (
            "[mqtt]\nwebsocket_origins = [\"https://example.org/\"]",
            ":2:1: \"https://example.org/\" in mqtt.websocket_origins is not an origin; write \
             scheme and host as a browser sends them, for example \"https://example.org\"",
        ),
        (
            "[mqtt]\nproxy_protocol = [\"127.0.0.1:1884\"]",
            ":2:1: 127.0.0.1:1884 in mqtt.proxy_protocol is not the address of an MQTT listener; \
             write it as in tcp, tls, websocket or secure_websocket",
        ),
        (
            "[mqtt]\nproxy_trusted = [\"10.0.0.0/8\"]",
            ":2:1: mqtt.proxy_trusted has no effect while no listener expects a PROXY header; name \
             the listeners in proxy_protocol",
        ),
        (
            "[mqtt]\ntcp = [\"127.0.0.1:0\", \"[::1:1883\"]",
            ":2:23: not an address with a port; write address:port, for example \
             \"127.0.0.1:1883\" or \"[::1]:1883\"",
        ),
        (
            "[mqtt]\nproxy_trusted = [\"10.0.0.1/8\"]",
            ":2:17: bits are set behind the prefix; `10.0.0.0/8` would be right; see `hearthmq \
             example-config`",
        ),
    ] {
        assert_eq!(file(text).mistake(), message);
    }
}

/// The example's `[[listeners]]`, without comment signs.
#[test]
fn the_example_of_a_listener_with_settings_of_its_own_can_be_used() {
    let (_, lines) = EXAMPLE.split_once("\n# [[listeners]]\n").unwrap();
    let lines = format!("\n{lines}").replace("\n# ", "\n");
    let text = format!(
        "[mqtt]\ntls = [\"[::]:8883\", \"[::]:8884\"]\n[tls]\ncertificate = \"a.crt\"\nkey = \
         \"a.key\"\n[[listeners]]\n{lines}"
    );
    let config = file(&text).load(&[], &[]).unwrap();
    let own = config.tls_at("[::]:8884");
    assert_eq!(own.client_auth, ClientAuth::Required);
    assert_eq!(own.certificate, PathBuf::from("a.crt"));
    assert_eq!(config.tls_at("[::]:8883"), config.tls);
}

#[test]
fn a_listener_that_asks_nobody_for_a_certificate_needs_no_authority() {
    let text = "[mqtt]\ntls = [\"127.0.0.1:8883\"]\n[http]\nhttps = [\"127.0.0.1:8443\"]\n[tls]\n\
                certificate = \"a.crt\"\nkey = \"a.key\"\nclient_ca = [\"ca.crt\"]\ncrl = [\"ca.crl\"]\n\
                client_auth = \"required\"\n[[listeners]]\naddress = \"127.0.0.1:8443\"\n\
                tls.client_auth = \"none\"\ntls.key = \"b.key\"";
    let config = file(text).load(&[], &[]).unwrap();
    let own = config.tls_at("127.0.0.1:8443");
    assert_eq!((own.client_auth, own.client_ca, own.crl), (ClientAuth::None, vec![], vec![]));
    assert_eq!((own.certificate, own.key), ("a.crt".into(), "b.key".into()));
    assert_eq!(config.tls_at("127.0.0.1:8883").client_auth, ClientAuth::Required);
}

/// Each is appended to valid settings: a TLS listener, then a `[[listeners]]` table.
#[test]
fn settings_of_one_listener_that_cannot_work_are_named_with_what_would_be_right() {
    for (text, message) in [
        (
            "address = \"[::]:8885\"",
            ":7:1: \"[::]:8885\" in [[listeners]] is not the address of a listener; write one of \
             those in [mqtt] and [http]: 127.0.0.1:1883, 127.0.0.1:8080, [::]:8883",
        ),
        (
            "address = \"[::]:8883\"\n[[listeners]]\naddress = \"[0::0]:8883\"",
            ":9:1: [0::0]:8883 is given twice in [[listeners]]; put all settings of one \
             listener into a single [[listeners]] table",
        ),
        (
            "address = \"127.0.0.1:1883\"\ntls.key = \"b.key\"",
            ":8:1: tls of 127.0.0.1:1883 in [[listeners]] has no effect, because it does not use \
             TLS; list the address in tls or secure_websocket of [mqtt] or in https of [http]",
        ),
        (
            "address = \"[::]:8883\"\ntls.client_auth = \"optional\"",
            ":8:5: [::]:8883 asks for certificates, but no issuer is trusted; give the issuers \
             in client_ca of its tls or of [tls], or write client_auth = \"none\"",
        ),
        (
            "address = \"[::]:8883\"\ntls = { crl = [\"a.crl\"] }",
            ":8:9: crl of [::]:8883 has no effect while its clients are not asked for a \
             certificate; write client_auth = \"optional\" or \"required\" in its tls",
        ),
        (
            "address = \"[::]:8883\"\ntls = { crt = \"a\" }",
            ":8:9: there is no option crt in tls of [[listeners]]; did you mean crl?",
        ),
        (
            "adress = \"[::]:8883\"",
            ":7:1: there is no option adress in [[listeners]]; did you mean address?",
        ),
    ] {
        let before = "[tls]\ncertificate = \"a.crt\"\nkey = \"a.key\"\n[mqtt]\ntls = [\"[::]:8883\"]\n\
                      [[listeners]]\n";
        assert_eq!(file(&format!("{before}{text}")).mistake(), message);
    }
    for (setting, place) in
        [("listeners=x", "--set listeners"), ("listeners.a=x", "--set listeners.a")]
    {
        let mistake = load(None, &[], &[setting]).unwrap_err();
        let remedy = "there is no such option; write [[listeners]] in the configuration file";
        assert_eq!(mistake, format!("{place}: {remedy}"));
    }
}

#[test]
fn a_unix_socket_is_listener_enough() {
    let config = load(None, &[("HEARTHMQ_MQTT__UNIX", "/run/a.sock")], &["mqtt.tcp="]).unwrap();
    assert_eq!(config.mqtt.unix, [PathBuf::from("/run/a.sock")]);
    assert_eq!(config.mqtt.unix_mode_bits(), Some(0o660));
}

#[test]
fn broken_toml_is_named_with_its_line() {
    let mistake = file("[mqtt]\ntcp = [").mistake();
    assert!(mistake.starts_with(":2:"), "{mistake}");
    assert!(!mistake.contains('\n'));
    let mistake = file("shards = 1\nshards = 2").mistake();
    assert!(mistake.starts_with(":2:1: duplicate key"), "{mistake}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some("/nowhere/h.toml".as_ref()), [], &[]).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/h.toml: cannot be read: "), "{error}");
}

#[test]
fn a_mistake_in_the_environment_names_the_variable() {
    for (name, value, message) in [
        (
            "HEARTHMQ_LIMITS__CONECTIONS_MAX",
            "5",
            "HEARTHMQ_LIMITS__CONECTIONS_MAX: there is no such option; did you mean \
             HEARTHMQ_LIMITS__CONNECTIONS_MAX?",
        ),
        (
            "HEARTHMQ_SHARDS",
            "many",
            "HEARTHMQ_SHARDS: \"many\" is not a whole number; write a whole number such as 0",
        ),
        (
            "HEARTHMQ_SHARDS",
            "70000",
            "HEARTHMQ_SHARDS: invalid value: integer 70000; write a whole number from 0 to 65535",
        ),
        (
            "HEARTHMQ_LIMITS__QUEUE_FULL",
            "drop",
            "HEARTHMQ_LIMITS__QUEUE_FULL: unknown variant drop; write \"drop-oldest\" or \
             \"drop-newest\" or \"hold-publisher\"",
        ),
        (
            "HEARTHMQ_HTTP__WORKERS",
            "0",
            "HEARTHMQ_HTTP__WORKERS: http.workers is 0; write 1 or more",
        ),
    ] {
        assert_eq!(load(None, &[(name, value)], &[]).unwrap_err(), message);
    }
}

#[test]
fn a_mistake_on_the_command_line_names_the_setting() {
    for (setting, message) in [
        ("shards", "--set shards: has no value; write --set section.key=value"),
        (
            "limit.connections_max=1",
            "--set limit.connections_max: there is no such option; did you mean \
             limits.connections_max?",
        ),
        (
            "auth.anonymous=yes",
            "--set auth.anonymous: \"yes\" is not true or false; write true or false",
        ),
    ] {
        assert_eq!(load(None, &[], &[setting]).unwrap_err(), message);
    }
}

/// A name stands for all its addresses, whatever option it is in and however it is given.
#[test]
fn localhost_is_an_address_of_every_listener() {
    let all: Vec<std::net::SocketAddr> =
        std::net::ToSocketAddrs::to_socket_addrs("localhost:1883").unwrap().collect();
    for option in ["mqtt.tcp", "mqtt.websocket", "http.listen"] {
        let named = format!("{option}=localhost:1883");
        let settings = ["mqtt.tcp=", "http.listen=", "mqtt.unix=/run/a.sock", named.as_str()];
        let Config { mqtt, http, .. } = load(None, &[], &settings).unwrap();
        let found = [mqtt.tcp, mqtt.websocket, http.listen].concat();
        assert!(!found.is_empty());
        assert!(found.iter().all(|address| all.contains(address)), "{found:?}");
    }
    let config =
        load(None, &[], &["mqtt.tcp=localhost:1884", "mqtt.proxy_protocol=localhost:1884"]);
    let config = config.unwrap();
    assert_eq!(config.mqtt.tcp, config.mqtt.proxy_protocol);
    let error = load(None, &[], &["mqtt.tcp=1.2.3:1883"]).unwrap_err();
    assert!(error.contains("not an address with a port"), "{error}");
}
