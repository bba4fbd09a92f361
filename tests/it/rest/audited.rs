//! The values before and after a change in `/api/v1/audit`.

use std::sync::Arc;

use hearthmq::{
    auth::{
        Accounts as FileAccounts, AuthenticationConfig, Chain, FileAuthenticator, Source,
        hash_password,
    },
    broker::Builder,
    mqtt::{Connect, LastWill, ProtocolVersion::V5, WillProperties},
};
use hearthmq_test::{
    http::basic,
    mqtt::{Client, connect},
    packets::{connect_lasting, will},
};
use serde_json::{Value, json};

use super::live::{Live, json, live, live_with};

fn audit(live: &Live) -> Vec<Value> {
    json(&live.call("GET /api/v1/audit?limit=10000"))["items"].as_array().unwrap().clone()
}

fn text(entry: &Value, name: &str) -> String {
    entry[name].as_str().unwrap_or("-").to_owned()
}

/// Makes a call that succeeds; returns target, old and new value of the last entry.
fn noted(live: &Live, line: &str, body: &str) -> [String; 3] {
    let answer = if body.is_empty() { live.call(line) } else { live.call_with(line, body) };
    assert_eq!(answer.status, 200, "{line}: {}", answer.body);
    let last = audit(live).pop().unwrap();
    ["target", "old", "new"].map(|name| text(&last, name))
}

/// The user `ops` in a file, and the accounts of the store.
fn stored(builder: Builder) -> Builder {
    let hash = hash_password(b"pass:word");
    let text = format!("[[users]]\nname = \"ops\"\npassword_hash = \"{hash}\"\n");
    let accounts = FileAccounts::parse(std::path::Path::new("users.toml"), &text).unwrap();
    let file = Arc::new(FileAuthenticator::new(accounts, AuthenticationConfig::default()));
    let stored = file.stored_users();
    let chain = Chain::new()
        .with(Source::new("accounts", Arc::clone(&file)))
        .with(Source::new("users", Arc::clone(&stored)));
    builder.authenticator(chain).stored_users(stored)
}

fn as_ops(connect: Connect<'_>) -> Connect<'_> {
    Connect { username: Some("ops"), password: Some(b"pass:word"), ..connect }
}

#[test]
fn a_change_of_an_account_is_noted_with_what_differs() {
    let live = live_with(stored);
    let create = r#"{"name":"car-17","password":"correct horse","groups":["cars"]}"#;
    let whole = |disabled: bool| {
        format!(
            r#"{{"disabled":{disabled},"password":"argon2id","groups":["cars"],"attributes":{{}},"limits":null}}"#
        )
    };
    let created = noted(&live, "POST /api/v1/users", create);
    assert_eq!(created, ["car-17".into(), "-".into(), whole(false)]);
    let patch = |body: &str| {
        let [_, old, new] = noted(&live, "PATCH /api/v1/users/car-17", body);
        [old, new]
    };
    let both = patch(r#"{"disabled":true,"groups":["cars"]}"#);
    assert_eq!(both, [r#"{"disabled":false}"#, r#"{"disabled":true}"#]);
    let both = patch(r#"{"attributes":{"site":"s1"},"limits":{"sessions_max":3}}"#);
    let old = r#"{"attributes":{},"limits":null}"#;
    let new = r#"{"attributes":{"site":"s1"},"limits":{"sessions_max":3}}"#;
    assert_eq!(both, [old, new]);
    assert_eq!(patch(r#"{"attributes":{},"limits":null}"#), [new, old]);
    assert_eq!(patch(r#"{"disabled":true}"#), ["{}", "{}"]);
    let password =
        noted(&live, "PUT /api/v1/users/car-17/password", r#"{"password":"battery staple"}"#);
    assert_eq!(password[1..], ["password", "password"]);
    let removed = noted(&live, "DELETE /api/v1/users/car-17", "");
    assert_eq!(removed, ["car-17".into(), whole(true), "none".into()]);
    let all = format!("{:?}", audit(&live));
    assert!(!all.contains("horse") && !all.contains("staple") && !all.contains("$argon"), "{all}");
}

#[test]
fn a_device_secret_is_noted_by_its_name() {
    let live = live_with(stored);
    noted(&live, "POST /api/v1/users", r#"{"name":"car-17"}"#);
    let [_, old, new] = noted(&live, "POST /api/v1/users/car-17/secrets", "");
    assert_eq!((&*old, new.starts_with("secret ")), ("-", true));
    let id = &new["secret ".len()..];
    let removed = noted(&live, &format!("DELETE /api/v1/users/car-17/secrets/{id}"), "");
    assert_eq!(removed[1..], [new, "none".into()]);
    assert!(!format!("{:?}", audit(&live)).contains("hmq_d_"));
}

#[test]
fn a_change_of_settings_is_noted_with_the_former_ones() {
    let live = live_with(stored);
    let _car = Client::connected(live.mqtt_address(), as_ops(connect("car-1")));
    let [fifty, sixty] = [r#"{"message_rate":50}"#, r#"{"message_rate":60}"#];
    let line = "PATCH /api/v1/clients/car-1";
    assert_eq!(noted(&live, line, fifty), ["car-1", "{}", fifty]);
    let sticky = r#"{"message_rate":60,"sticky":true}"#;
    assert_eq!(noted(&live, line, sticky), ["car-1", fifty, sixty]);
    let absent = "PATCH /api/v1/clients/absent";
    assert_eq!(noted(&live, absent, sticky), ["absent", "{}", sixty]);
    let fewer = r#"{"message_rate":50,"sticky":true}"#;
    assert_eq!(noted(&live, absent, fewer), ["absent", sixty, fifty]);
    assert_eq!(noted(&live, "DELETE /api/v1/settings/car-1", ""), ["car-1", sixty, "none"]);
    let removed = noted(&live, "DELETE /api/v1/settings?clients=a*", "");
    assert_eq!(removed, ["a*", &format!("absent: {fifty}"), "1 removed"]);
    let of_user = "PATCH /api/v1/user-settings/fleet";
    assert_eq!(noted(&live, of_user, fifty), ["fleet", "{}", fifty]);
    assert_eq!(noted(&live, of_user, sixty), ["fleet", fifty, sixty]);
    let removed = noted(&live, "DELETE /api/v1/user-settings/fleet", "");
    assert_eq!(removed, ["fleet", sixty, "none"]);
}

const KEEP_ALIVES: &str = "POST /api/v1/keep-alive";

#[test]
fn a_change_of_keep_alives_is_noted_with_clients_and_values() {
    let live = live_with(stored);
    let keep_alive = |id, secs| {
        let connect = Connect { keep_alive: secs, ..as_ops(connect(id)) };
        Client::connected(live.mqtt_address(), connect)
    };
    let _cars = [keep_alive("car-1", 60), keep_alive("car-2", 90)];
    let body = json!([
        {"client_id": "car-1", "interval": 100}, {"client_id": "nobody", "interval": 100},
        {"client_id": "car-2", "interval": 200},
    ]);
    let entry = noted(&live, KEEP_ALIVES, &body.to_string());
    assert_eq!(entry, ["car-1, car-2", "60 to 90", "100 to 200; 2 of 3 clients"]);
    assert_eq!(audit(&live)[0]["target_kind"], "client_ids");
    let dry = json!([{"client_id": "car-1", "interval": 300, "dry_run": true}]);
    live.call_with(KEEP_ALIVES, &dry.to_string());
    assert_eq!(audit(&live).len(), 1, "nothing has changed");
    noted(&live, KEEP_ALIVES, r#"{"clients":"car-*","interval":120}"#);
    // The clients may be on two shards, and are two portions then.
    let entries = audit(&live).split_off(1);
    let parts = |name| entries.iter().map(|entry| text(entry, name)).collect::<Vec<_>>();
    match &*parts("new") {
        [one] => assert_eq!(one, "120; 2 of 2 clients"),
        two => assert_eq!(two, ["120; 1 of 1 clients", "120; 1 of 1 clients"]),
    }
    assert!(parts("target").iter().all(|target| target == "car-*"));
    assert!(parts("old").iter().all(|old| ["100", "200", "100 to 200"].contains(&&**old)));
    let sticky = json!([{"client_id": "absent", "interval": 300, "sticky": true}]);
    let entry = noted(&live, KEEP_ALIVES, &sticky.to_string());
    assert_eq!(entry, ["absent", "-", "300; 1 of 1 clients"]);
    let entry = noted(&live, "DELETE /api/v1/keep-alive/overrides/absent", "");
    assert_eq!(entry, ["absent", "300", "none"]);
    noted(&live, KEEP_ALIVES, &sticky.to_string());
    let entry = noted(&live, "DELETE /api/v1/keep-alive/overrides?clients=*", "");
    assert_eq!(entry, ["*", "absent: 300", "1 removed"]);
}

/// The first Client Identifiers of a long list stand for all of them.
#[test]
fn the_clients_of_a_long_list_are_noted_as_far_as_there_is_room() {
    let live = live();
    let id = |number: usize| format!("{number:03}{}", "x".repeat(97));
    let items = (0..20)
        .map(|number| json!({"client_id": id(number), "interval": 60, "sticky": true}))
        .collect::<Vec<_>>();
    let [target, ..] = noted(&live, KEEP_ALIVES, &Value::from(items).to_string());
    assert!(target.len() <= 1_024, "{}", target.len());
    let expected = (0..10).map(id).collect::<Vec<_>>().join(", ");
    assert_eq!(target, format!("{expected}, …"));
}

#[test]
fn the_end_of_a_connection_is_noted_with_its_result() {
    let live = live_with(stored);
    let with_will = |id, delay| {
        let properties =
            WillProperties { will_delay_interval: Some(delay), ..WillProperties::default() };
        let will = LastWill { properties, ..will("will", "gone") };
        Connect { will: Some(will), ..connect_lasting(id, V5) }
    };
    let come = |connect| Client::connected(live.mqtt_address(), as_ops(connect));
    let kick = |call: &str| noted(&live, &format!("DELETE /api/v1/clients/{call}"), "")[2].clone();
    let _cars = [
        come(connect("short")),
        come(with_will("kept", 0)),
        come(with_will("delayed", 60)),
        come(with_will("dropped", 0)),
        come(with_will("ended", 60)),
    ];
    assert_eq!(kick("short"), "disconnected, session ended, no Will");
    assert_eq!(kick("kept"), "disconnected, session kept, Will published");
    assert_eq!(kick("delayed"), "disconnected, session kept, Will delayed");
    assert_eq!(kick("dropped?will=discard"), "disconnected, session kept, Will discarded");
    assert_eq!(kick("ended?session=end"), "disconnected, session ended, Will published");
    // The clients are absent now.
    assert_eq!(kick("kept?session=end"), "absent, session ended, no Will");
    let discard = "delayed?session=end&will=discard";
    assert_eq!(kick(discard), "absent, session ended, Will discarded");
    let before = audit(&live).len();
    assert_eq!(live.call("DELETE /api/v1/clients/dropped").status, 404);
    assert_eq!(audit(&live).len(), before, "nothing has changed");
}

#[test]
fn the_end_of_several_connections_is_noted_with_its_sums() {
    let live = live_with(stored);
    let come = |connect| Client::connected(live.mqtt_address(), as_ops(connect));
    let _cars = [come(connect("c")), come(connect_lasting("d", V5))];
    let body = r#"{"client_ids":["c","nobody","d"],"will":"discard"}"#;
    let entry = noted(&live, "POST /api/v1/clients/kick", body);
    let new = "2 of 3 clients: disconnected 2, not online 1, sessions ended 1";
    assert_eq!(entry, ["c, d", "-", new]);
    let entry = noted(&live, "POST /api/v1/clients/kick", r#"{"clients":"d","session":"end"}"#);
    assert_eq!(entry, ["d", "-", "1 of 1 clients: sessions ended 1"]);
}

#[test]
fn a_change_of_subscriptions_is_noted_with_the_filters() {
    let live = live_with(stored);
    let _car = Client::connected(live.mqtt_address(), as_ops(connect("car-1")));
    let body =
        r#"{"subscriptions":[{"filter":"a/#","qos":1},{"filter":"a#"},{"filter":"b","qos":2}]}"#;
    let entry = noted(&live, "POST /api/v1/clients/car-1/subscribe", body);
    assert_eq!(entry, ["car-1", "-", "a/# QoS 1, b QoS 2"]);
    let body = r#"{"filters":["b","none"]}"#;
    let entry = noted(&live, "POST /api/v1/clients/car-1/unsubscribe", body);
    assert_eq!(entry, ["car-1", "b", "none"]);
    let before = audit(&live).len();
    live.call_with("POST /api/v1/clients/car-1/unsubscribe", body);
    assert_eq!(audit(&live).len(), before, "nothing has changed");
}

#[test]
fn a_removed_message_and_forgotten_logins_are_noted() {
    let live = live_with(stored);
    live.call_with("POST /topics/a?retained=true", "x");
    let entry = noted(&live, "DELETE /api/v1/retained/a", "");
    assert_eq!(entry, ["a", "retained", "none"]);
    for password in ["1", "2"] {
        live.call_as(&basic(&format!("ann:{password}")), "GET /api/v1/logins", "", "");
    }
    let entry = noted(&live, "DELETE /api/v1/logins/127.0.0.1", "");
    assert_eq!(entry, ["127.0.0.1", "2 failed", "none"]);
}

#[test]
fn the_end_of_a_trace_is_noted_with_what_it_was() {
    let live = live();
    let body = r#"{"client_id":"car-1","duration_seconds":60,"payloads":true}"#;
    let started = json(&live.call_with("POST /api/v1/traces", body));
    let last = audit(&live).pop().unwrap();
    assert_eq!([text(&last, "old"), text(&last, "new")], ["-", "60 s with payloads"]);
    let line = format!("DELETE /api/v1/traces/{}", started["id"].as_str().unwrap());
    assert_eq!(noted(&live, &line, ""), ["car-1", "60 s with payloads", "none"]);
}
