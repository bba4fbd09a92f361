//! `[[bridges]]` of the configuration: its example, its mistakes, and its secrets.

use std::{fs, os::unix::fs::PermissionsExt as _};

use hearthmq::config::{BridgeConfig, Config, EXAMPLE};
use toml::Table;

fn load(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hearthmq.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), [], &[]).map_err(|error| error.to_string())
}

/// The example's `[[bridges]]`, without comment signs and files.
#[test]
fn the_example_of_a_bridge_is_the_default_of_every_option() {
    let (_, lines) = EXAMPLE.split_once("\n# [[bridges]]\n").unwrap();
    let (lines, _) = lines.split_once("\n\n").unwrap();
    let lines = format!("\n# [[bridges]]\n{lines}").replace("\n# ", "\n").replace("\n#\n", "\n");
    let config = load(&lines).unwrap();
    let [bridge] = &config.bridges[..] else { panic!("{:?}", config.bridges) };
    assert_eq!(bridge.topics[0].remote_prefix, "site7/");
    let named = BridgeConfig {
        name: bridge.name.clone(),
        addresses: bridge.addresses.clone(),
        password_file: bridge.password_file.clone(),
        topics: bridge.topics.clone(),
        tls: bridge.tls.clone(),
        ..BridgeConfig::default()
    };
    assert_eq!(*bridge, named);
    let known = Table::try_from(named).unwrap();
    assert!(known.keys().all(|key| lines.contains(key)));
}

/// Each is a line of a `[[bridges]]` table with name, address and topic.
#[test]
fn a_mistake_in_a_bridge_is_named() {
    for (line, said) in [
        ("protocol = \"3.1\"", "write \"5\" or \"3.1.1\""),
        ("loops = \"\"", "write \"mark\" or \"none\""),
        ("bind_address = \"host\"", "write an IP address"),
        ("keep_alive_secs = 4", "a Keep Alive of at least 5 s"),
        ("status_topic = \"a/#\"", "topic name contains a wildcard"),
        ("password_file = \"a\"\npassword_env = \"B\"", "write password_file or password_env"),
        ("tls.key = \"a.key\"", "write certificate and key together"),
        ("addressses = []", "did you mean addresses?"),
        ("[[bridges]]\nname = \"a\"", "a bridge has 1 to 16 addresses"),
    ] {
        let text = format!(
            "[[bridges]]\nname = \"a\"\naddresses = [\"mqtt://h\"]\ntopics = [{{ filter = \"a\" }}]\n{line}\n"
        );
        let mistake = load(&text).unwrap_err();
        assert!(mistake.contains(said), "{line}: {mistake}");
    }
}

/// A password is read from a file that nobody else may read, and shown nowhere.
#[test]
fn a_password_is_read_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "s3cret-word\n").unwrap();
    let text = format!(
        "name = \"a\"\naddresses = [\"mqtt://h\"]\nusername = \"u\"\npassword_file = {path:?}\n\
         topics = [{{ filter = \"a\" }}]\n"
    );
    let config: BridgeConfig = toml::from_str(&text).unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    let error = config.bridge().unwrap_err();
    assert_eq!(error.option(), "password_file");
    assert!(error.why().contains("others may read it (mode 640)"), "{error}");
    mode(0o600);
    let bridge = config.bridge().unwrap();
    assert!(!format!("{bridge:?} {config:?}").contains("s3cret-word"));
}

/// The variables are those of a test that cargo runs.
#[test]
fn a_password_comes_from_a_file_or_from_a_variable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let secret = |text: &[u8]| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let bridge = |lines: &str| {
        let text = format!(
            "name = \"a\"\naddresses = [\"mqtt://h\"]\ntopics = [{{ filter = \"a\" }}]\n{lines}\n"
        );
        toml::from_str::<BridgeConfig>(&text).unwrap().bridge()
    };
    let with = |username: Option<&str>, password: Option<&str>| {
        let plain = bridge("").unwrap();
        plain.credentials(username, password).unwrap()
    };
    let user = "username = \"u\"\n";
    let file = format!("{user}password_file = {path:?}");
    for text in ["p w:\u{e4}", "p w:\u{e4}\n", "p w:\u{e4}\r\n"] {
        secret(text.as_bytes());
        assert_eq!(bridge(&file).unwrap(), with(Some("u"), Some("p w:\u{e4}")));
    }
    assert_ne!(bridge(&file).unwrap(), with(Some("u"), Some("another")));
    let variable = format!("{user}password_env = \"CARGO_MANIFEST_DIR\"");
    let value = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    assert_eq!(bridge(&variable).unwrap(), with(Some("u"), Some(&value)));
    // MQTT 5.0 has passwords without a user name (section 3.1.2.9).
    let variable = "password_env = \"CARGO_MANIFEST_DIR\"";
    assert_eq!(bridge(variable).unwrap(), with(None, Some(&value)));
    let old = format!("{variable}\nprotocol = \"3.1.1\"");
    assert_eq!(bridge(&old).unwrap_err().option(), "username");
    let error = bridge("password_env = \"NO_SUCH_VARIABLE\"").unwrap_err();
    assert_eq!(error.option(), "password_env");
    assert_eq!(error.why(), "there is no variable NO_SUCH_VARIABLE");
    secret(b"\xFF");
    for file in [path.clone(), dir.path().join("missing"), dir.path().to_owned()] {
        let error = bridge(&format!("password_file = {file:?}")).unwrap_err();
        assert_eq!(error.option(), "password_file", "{error}");
        assert!(error.why().contains(&*file.to_string_lossy()), "{error}");
    }
}
