//! Settings of clients over REST, and the double that answers about them.

use async_trait::async_trait;
use hearthmq::{
    auth::{FilePolicy, Rule},
    control::{
        ChangeSettings, ClientSettings, ControlError, ListSettings, QuerySettings, RemoveSettings,
        SettingsChanged, SettingsOf, SettingsOfClients, StickySettings,
    },
};

use super::{
    failed,
    world::{Fleet, basic, rest, rest_where},
};

const OPS: &str = "ops:pass:word";
/// May control single clients only.
const OTHER: &str = "öps:pass:word";

#[async_trait]
impl SettingsOfClients for Fleet {
    /// Answers with what was asked for, as if it were all.
    async fn change_settings(
        &self,
        request: ChangeSettings,
    ) -> Result<SettingsChanged, ControlError> {
        let settings = ClientSettings::new().changed_by(&request.change);
        let sticky = if request.is_sticky { " sticky" } else { "" };
        let share = if request.is_within_share { " within its share" } else { "" };
        let by = request.by.as_deref().filter(|_| request.is_sticky);
        let by = by.map_or(String::new(), |by| format!(" by {by}"));
        let rate = request.change.message_rate;
        let name = request.of.name();
        let kind = if matches!(request.of, SettingsOf::User(_)) { "user " } else { "" };
        self.answer(name, format!("{kind}{name} {rate:?}{sticky}{share}{by}")).await?;
        match &**name {
            "long" => Err(ControlError::UsernameTooLong),
            "clean" => Err(ControlError::SessionNotLasting),
            _ => Ok(SettingsChanged::new("here", settings)),
        }
    }

    async fn query_settings(
        &self,
        request: QuerySettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        Ok((&**request.of.name() != "none").then(|| sticky(request.of)))
    }

    async fn remove_settings(
        &self,
        request: RemoveSettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        Ok((&**request.of.name() != "none").then(|| sticky(request.of)))
    }

    async fn list_settings(
        &self,
        request: ListSettings,
    ) -> Result<Vec<StickySettings>, ControlError> {
        let of = |name: &str| match request.is_of_users {
            true => SettingsOf::User(name.into()),
            false => SettingsOf::Client(name.into()),
        };
        let all = ["a", "b", "secret"].map(|name| sticky(of(name)));
        let behind = |found: &StickySettings| Some(&**found.of.name()) > request.after.as_deref();
        Ok(all.into_iter().filter(behind).take(request.limit).collect())
    }
}

fn sticky(of: SettingsOf) -> StickySettings {
    let mut settings = ClientSettings::new();
    settings.message_rate = Some(5);
    let mut found = StickySettings::new(of, settings, 7);
    found.by = Some("ops".into());
    found
}

#[test]
fn settings_are_changed_by_a_merge_patch() {
    let rest = rest();
    let patch =
        |id: &str, body: &str| rest.post_json(OPS, &format!("PATCH /api/v1/clients/{id}"), body);
    let body = r#"{"session_expiry_interval":60,"message_rate":10,"byte_rate":5000,"queue_messages_max":3,"queue_bytes_max":4,"in_flight_max":5}"#;
    let expected = format!(r#"{{"success":true,"node":"here","settings":{body}}}"#);
    assert_eq!(patch("a", body).outcome(), (200, &*expected));
    let nothing = (200, r#"{"success":true,"node":"here","settings":{}}"#);
    assert_eq!(patch("a", r#"{"message_rate":null}"#).outcome(), nothing);
    assert_eq!(patch("a", "{}").outcome(), nothing);
    assert_eq!(rest.asked(), ["a Some(Some(10))", "a Some(None)", "a None"]);
    for (body, code, name) in [
        (r#"{"message_rate":0}"#, "invalid_setting", "message_rate"),
        (r#"{"byte_rate":999}"#, "invalid_setting", "byte_rate"),
        (r#"{"queue_bytes_max":-1}"#, "invalid_setting", "queue_bytes_max"),
        (r#"{"in_flight_max":65536}"#, "invalid_setting", "in_flight_max"),
        (r#"{"queue_messages_max":"3"}"#, "invalid_setting", "queue_messages_max"),
        (r#"{"rate":1}"#, "invalid_body", "rate"),
        ("[]", "invalid_body", ""),
    ] {
        let answer = patch("a", body);
        assert_eq!(answer.failure(), failed(400, code), "{body}");
        assert!(answer.body.contains(name), "{}", answer.body);
    }
    assert!(rest.asked().is_empty());
    let typed = |line: &str, content_type: &str| {
        let request = rest.request(line, "", "{}");
        rest.send(&request.replace("application/json", content_type)).status
    };
    assert_eq!(typed("PATCH /api/v1/clients/a", "application/merge-patch+json"), 200);
    assert_eq!(typed("PATCH /api/v1/clients/a", "application/json-patch+json"), 415);
    assert_eq!(typed("POST /api/v1/clients/query", "application/merge-patch+json"), 415);
    assert_eq!(rest.asked(), ["a None"]);
    assert_eq!(patch("secret", "{}").failure(), failed(403, "forbidden"));
    assert_eq!(patch("offline", "{}").failure(), failed(404, "client_not_online"));
    assert_eq!(patch("clean", "{}").failure(), failed(409, "session_not_lasting"));
    let too_long = patch("too-long", r#"{"sticky":true}"#);
    assert_eq!(too_long.failure(), failed(400, "client_id_too_long"));
    assert!(too_long.body.contains("at most 1024 bytes"), "{}", too_long.body);
}

#[test]
fn sticky_settings_are_listed_shown_and_removed() {
    let rest = rest();
    let body = r#"{"message_rate":10,"sticky":true}"#;
    let answer = rest.post_json(OPS, "PATCH /api/v1/clients/a", body);
    let expected = r#"{"success":true,"node":"here","settings":{"message_rate":10}}"#;
    assert_eq!(answer.outcome(), (200, expected));
    assert_eq!(rest.asked(), ["a Some(Some(10)) sticky by ops"]);
    let answer = rest.post_json(OPS, "PATCH /api/v1/clients/a", r#"{"sticky":1}"#);
    assert_eq!(answer.failure(), failed(400, "invalid_body"));
    let of_a = r#"{"client_id":"a","settings":{"message_rate":5},"by":"ops","set_at":7}"#;
    assert_eq!(rest.call("GET /api/v1/settings/a").outcome(), (200, of_a));
    let absent = failed(404, "settings_not_found");
    assert_eq!(rest.call("GET /api/v1/settings/none").failure(), absent);
    assert_eq!(rest.call("GET /api/v1/settings/secret").failure(), failed(403, "forbidden"));
    assert_eq!(rest.call("DELETE /api/v1/settings/a").outcome(), (200, r#"{"success":true}"#));
    assert_eq!(rest.call("DELETE /api/v1/settings/none").failure(), absent);
    // The double has `a`, `b` and `secret`, which `ops` may not observe.
    let page = rest.call("GET /api/v1/settings?limit=1");
    let (items, next) = page.body.split_once(r#","next":"#).unwrap();
    assert_eq!(items, format!(r#"{{"items":[{of_a}]"#));
    let cursor = next.trim_matches(['"', '}']);
    let of_b = of_a.replace(r#""a""#, r#""b""#);
    let rest_of = rest.call(&format!("GET /api/v1/settings?limit=1&cursor={cursor}"));
    assert_eq!(rest_of.outcome(), (200, &*format!(r#"{{"items":[{of_b}]}}"#)));
    let wrong = rest.call("GET /api/v1/settings?cursor=x");
    assert_eq!(wrong.failure(), failed(400, "invalid_parameter"));
}

#[test]
fn settings_of_a_user_need_a_permission_for_all_clients() {
    let rest = rest();
    let patch = |account: &str, name: &str, body: &str| {
        rest.post_json(account, &format!("PATCH /api/v1/user-settings/{name}"), body)
    };
    let answer = patch(OPS, "a%2Fb+c", r#"{"message_rate":10}"#);
    let expected = r#"{"success":true,"node":"here","settings":{"message_rate":10}}"#;
    assert_eq!(answer.outcome(), (200, expected));
    assert_eq!(rest.asked(), ["user a/b+c Some(Some(10)) sticky by ops"]);
    for (name, body, code) in [
        ("a", r#"{"message_rate":0}"#, "invalid_setting"),
        ("a", r#"{"message_rate":1,"sticky":true}"#, "invalid_body"),
        ("%ff", "{}", "invalid_parameter"),
        ("a%00", "{}", "invalid_parameter"),
        ("long", "{}", "username_too_long"),
    ] {
        assert_eq!(patch(OPS, name, body).failure(), failed(400, code), "{name} {body}");
    }
    let of_a = r#"{"username":"a","settings":{"message_rate":5},"by":"ops","set_at":7}"#;
    assert_eq!(rest.call("GET /api/v1/user-settings/a").outcome(), (200, of_a));
    let absent = failed(404, "settings_not_found");
    assert_eq!(rest.call("GET /api/v1/user-settings/none").failure(), absent);
    assert_eq!(rest.call("DELETE /api/v1/user-settings/a").outcome(), (200, r#"{"success":true}"#));
    assert_eq!(rest.call("DELETE /api/v1/user-settings/none").failure(), absent);
    let page = rest.call("GET /api/v1/user-settings?limit=2");
    let (items, next) = page.body.split_once(r#","next":"#).unwrap();
    let of_b = of_a.replace(r#""a""#, r#""b""#);
    assert_eq!(items, format!(r#"{{"items":[{of_a},{of_b}]"#));
    let cursor = next.trim_matches(['"', '}']);
    let rest_of = rest.call(&format!("GET /api/v1/user-settings?cursor={cursor}"));
    let last = of_a.replace(r#""a""#, r#""secret""#);
    assert_eq!(rest_of.outcome(), (200, &*format!(r#"{{"items":[{last}]}}"#)));
    rest.asked();
    let forbidden = failed(403, "forbidden");
    assert_eq!(patch(OTHER, "a", "{}").failure(), forbidden);
    for line in [
        "GET /api/v1/user-settings",
        "GET /api/v1/user-settings/a",
        "DELETE /api/v1/user-settings/a",
    ] {
        assert_eq!(rest.call_as(Some(&basic(OTHER)), line).failure(), forbidden, "{line}");
    }
    assert!(rest.asked().is_empty());
}

/// A rule for some identifiers is not enough: nobody knows those of later clients.
#[test]
fn a_rule_for_some_clients_does_not_allow_settings_of_a_user() {
    #[derive(serde::Deserialize)]
    struct Rules {
        rules: Vec<Rule>,
    }
    let status = |clients: &str| {
        let text = format!("[[rules]]\neffect = \"allow\"\nactions = [\"control\"]\n{clients}");
        let rest = rest_where(FilePolicy::new(toml::from_str::<Rules>(&text).unwrap().rules));
        rest.post_json(OPS, "PATCH /api/v1/user-settings/ann", "{}").status
    };
    assert_eq!(status("clients = [\"ann-*\", \"?\", \"${username}\"]"), 403);
    assert_eq!(status("clients = [\"*\"]"), 200);
    assert_eq!(status(""), 200);
}
