//! The table `[cluster]`: what it means, and what it refuses.

use hearthmq::internals::cluster::{
    nats::{NatsLogin, NatsSettings},
    options::ClusterOptions,
};

fn options(text: &str) -> ClusterOptions {
    toml::from_str(text).unwrap()
}

fn settings(text: &str) -> Result<NatsSettings, String> {
    options(text).settings("node-1").map_err(|error| error.to_string())
}

#[test]
fn a_table_is_the_settings_of_a_node() {
    let few = settings("servers = ['nats://127.0.0.1:4222']").unwrap();
    assert_eq!((few.prefix.as_str(), few.node.as_str(), few.replicas), ("hearthmq", "node-1", 3));
    assert_eq!((few.login, few.tls.is_required), (NatsLogin::None, false));

    let text = "servers = ['tls://nats-1.example.com:4222', 'nats://[::1]:4222']\nprefix = 'blue'\n\
                replicas = 5\nuser = 'node'\npassword_file = '/run/password'\nca = 'ca.pem'\n\
                cert = 'node.pem'\nkey = 'node.key'\n";
    let all = settings(text).unwrap();
    let password_file = "/run/password".into();
    assert_eq!(all.login, NatsLogin::Password { user: "node".to_owned(), password_file });
    assert!(all.tls.is_required, "another machine is reached with TLS alone");
    assert_eq!(all.tls.authorities, Some("ca.pem".into()));
    assert_eq!(all.tls.certificate, Some(("node.pem".into(), "node.key".into())));
    let all = options(text);
    assert_eq!(options(&toml::to_string(&all).unwrap()), all);

    let plain = "servers = ['nats://10.0.0.7:4222']\nallow_unencrypted = true";
    assert!(!settings(plain).unwrap().tls.is_required);
    for (option, login) in [
        ("token_file", NatsLogin::Token("f".into())),
        ("nkey_file", NatsLogin::Nkey("f".into())),
        ("credentials_file", NatsLogin::Credentials("f".into())),
    ] {
        let text = format!("servers = ['nats://localhost:1']\n{option} = 'f'");
        assert_eq!(settings(&text).unwrap().login, login);
    }
}

#[test]
fn an_invalid_option_is_refused_by_its_name() {
    let good = "servers = ['nats://localhost:4222']\n";
    let cases = [
        (String::new(), "servers: must be 1 to 32 URLs"),
        ("servers = ['localhost:4222']".to_owned(), "servers: \"localhost:4222\" must be"),
        ("servers = ['nats://u:p@host:4222']".to_owned(), "servers: "),
        ("servers = ['nats://host']".to_owned(), "servers: "),
        ("servers = ['nats://host:0']".to_owned(), "servers: "),
        ("servers = ['ws://host:80']".to_owned(), "servers: "),
        (format!("{good}prefix = 'a.b'"), "prefix: must be 1 to 32"),
        (format!("{good}replicas = 2"), "replicas: must be 1, 3 or 5"),
        (format!("{good}user = 'node'"), "user: must be set together with password_file"),
        (format!("{good}password_file = 'f'"), "user: must be set together"),
        (format!("{good}token_file = 'f'\nnkey_file = 'g'"), "user: one login is used"),
        (format!("{good}cert = 'f'"), "cert: must be set together with key"),
    ];
    for (text, expected) in cases {
        let error = settings(&text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    let error = options(good).settings("node 1").unwrap_err().to_string();
    assert!(error.starts_with("node: must be 1 to 64"), "{error}");
    for unknown in ["server = []", "subscribe = 'here'", "replicas = 'all'"] {
        assert!(toml::from_str::<ClusterOptions>(unknown).is_err(), "{unknown}");
    }
}
