//! Settings of clients over REST, and the double that answers about them.

use async_trait::async_trait;
use hearthmq::control::{
    ChangeSettings, ClientSettings, ControlError, ListSettings, QuerySettings, RemoveSettings,
    SettingsOfClients, StickySettings,
};

use super::{
    failed,
    world::{Fleet, rest},
};

const OPS: &str = "ops:pass:word";

#[async_trait]
impl SettingsOfClients for Fleet {
    /// Answers with what was asked for, as if it were all.
    async fn change_settings(
        &self,
        request: ChangeSettings,
    ) -> Result<ClientSettings, ControlError> {
        let settings = ClientSettings::new().changed_by(&request.change);
        let sticky = if request.is_sticky { " sticky" } else { "" };
        let by = request.by.as_deref().filter(|_| request.is_sticky);
        let by = by.map_or(String::new(), |by| format!(" by {by}"));
        let rate = request.change.message_rate;
        let question = format!("{} {rate:?}{sticky}{by}", request.client_id);
        self.answer(&request.client_id, question).await?;
        match &*request.client_id {
            "clean" => Err(ControlError::SessionNotLasting),
            _ => Ok(settings),
        }
    }

    async fn query_settings(
        &self,
        request: QuerySettings,
    ) -> Result<Option<StickySettings>, ControlError> {
        Ok((&*request.client_id != "none").then(|| sticky(&request.client_id)))
    }

    async fn remove_settings(&self, request: RemoveSettings) -> Result<bool, ControlError> {
        Ok(&*request.client_id != "none")
    }

    async fn list_settings(
        &self,
        request: ListSettings,
    ) -> Result<Vec<StickySettings>, ControlError> {
        let all = ["a", "b", "secret"].map(sticky);
        let behind = |found: &StickySettings| Some(&*found.client_id) > request.after.as_deref();
        Ok(all.into_iter().filter(behind).take(request.limit).collect())
    }
}

fn sticky(client_id: &str) -> StickySettings {
    let mut settings = ClientSettings::new();
    settings.message_rate = Some(5);
    let mut found = StickySettings::new(client_id, settings, 7);
    found.by = Some("ops".into());
    found
}

#[test]
fn settings_are_changed_by_a_merge_patch() {
    let rest = rest();
    let patch =
        |id: &str, body: &str| rest.post_json(OPS, &format!("PATCH /api/v1/clients/{id}"), body);
    let body = r#"{"session_expiry_interval":60,"message_rate":10,"byte_rate":5000,"queue_messages_max":3,"queue_bytes_max":4,"in_flight_max":5}"#;
    let expected = format!(r#"{{"success":true,"settings":{body}}}"#);
    assert_eq!(patch("a", body).outcome(), (200, &*expected));
    let nothing = (200, r#"{"success":true,"settings":{}}"#);
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
}

#[test]
fn sticky_settings_are_listed_shown_and_removed() {
    let rest = rest();
    let body = r#"{"message_rate":10,"sticky":true}"#;
    let answer = rest.post_json(OPS, "PATCH /api/v1/clients/a", body);
    assert_eq!(answer.outcome(), (200, r#"{"success":true,"settings":{"message_rate":10}}"#));
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
