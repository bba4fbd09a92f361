//! Names that do not fit a path, such as `..`: the same calls have them in the query.

use super::{failed, world::rest};

/// Calls with names in their path, where `ID` stands for a name, and the same with names in the query.
const CALLS: [(&str, &str, &str, &str); 29] = [
    ("GET", "clients/ID", "client?id=ID", ""),
    ("HEAD", "clients/ID", "client?id=ID", ""),
    ("DELETE", "clients/ID?session=end", "client?session=end&id=ID", ""),
    ("PATCH", "clients/ID", "client?id=ID", r#"{"message_rate":5}"#),
    ("GET", "clients/ID/history?limit=3", "client/history?id=ID&limit=3", ""),
    ("GET", "clients/ID/subscriptions?limit=3", "client/subscriptions?limit=3&id=ID", ""),
    ("GET", "clients/ID/queue?limit=3", "client/queue?limit=3&id=ID", ""),
    ("DELETE", "clients/ID/queue", "client/queue?id=ID", ""),
    (
        "POST",
        "clients/ID/subscribe",
        "client/subscribe?id=ID",
        r#"{"subscriptions":[{"filter":"a"}]}"#,
    ),
    ("POST", "clients/ID/unsubscribe", "client/unsubscribe?id=ID", r#"{"filters":["a"]}"#),
    ("GET", "settings/ID", "client/settings?id=ID", ""),
    ("DELETE", "settings/ID", "client/settings?id=ID", ""),
    ("GET", "keep-alive/overrides/ID", "keep-alive/override?id=ID", ""),
    ("DELETE", "keep-alive/overrides/ID", "keep-alive/override?id=ID", ""),
    ("GET", "certificates/pins/ID", "certificates/pin?id=ID", ""),
    ("DELETE", "certificates/pins/ID", "certificates/pin?id=ID", ""),
    ("GET", "users/ID", "user?name=ID", ""),
    ("PATCH", "users/ID", "user?name=ID", r#"{"disabled":true}"#),
    ("PUT", "users/ID/password", "user/password?name=ID", r#"{"password":"correct horse"}"#),
    ("DELETE", "users/ID/secrets/9f86d081884c7d65", "user/secret?id=9f86d081884c7d65&name=ID", ""),
    ("GET", "user-settings/ID", "user/settings?username=ID", ""),
    ("PATCH", "user-settings/ID", "user/settings?username=ID", r#"{"message_rate":5}"#),
    ("GET", "bans/client_id/ID", "ban?value=ID&kind=client_id", ""),
    ("DELETE", "bans/user/ID", "ban?kind=user&value=ID", ""),
    ("GET", "rules/ID", "rule?id=ID", ""),
    ("DELETE", "tokens/ID", "token?name=ID", ""),
    ("GET", "retained/ID", "retained-message?topic=ID", ""),
    ("DELETE", "retained/ID", "retained-message?topic=ID", ""),
    ("POST", "users/ID/secrets", "user/secrets?name=ID", ""),
];

/// The tests send a path as it is; a browser would not.
#[test]
fn a_call_with_its_names_in_the_query_is_the_same_call() {
    let rest = rest();
    for (name_in_path, name_in_query) in
        [("a", "a"), ("..", ".."), (".", "%2E"), ("a%20b%2Bc", "a+b%2Bc")]
    {
        for (method, path, query, body) in CALLS {
            let line = |target: &str, name: &str| {
                let target = format!("{method} /api/v1/{}", target.replace("ID", name));
                let answer = rest.call_with(&target, "", body);
                let outcome = (answer.status, answer.body);
                (outcome, rest.asked())
            };
            let expected = line(path, name_in_path);
            assert_eq!(line(query, name_in_query), expected, "{method} {query} {name_in_query}");
            let ((status, body), _) = expected;
            // Which names are valid differs; that the call is there does not.
            let code = |code: &str| body.contains(&format!("\"code\":\"{code}\""));
            let is_there =
                !["not_found", "unknown_parameter", "missing_parameter"].map(code).contains(&true);
            assert!(is_there && status != 405, "{method} {path}: {status} {body}");
        }
    }
}

#[test]
fn a_name_is_in_one_place_once() {
    let rest = rest();
    for (line, status, code) in [
        ("DELETE /api/v1/client", 400, "missing_parameter"),
        ("DELETE /api/v1/client?id=", 400, "missing_parameter"),
        ("DELETE /api/v1/client?id=a&id=b", 400, "duplicate_parameter"),
        ("DELETE /api/v1/client?id=a&name=b", 400, "unknown_parameter"),
        ("DELETE /api/v1/client?id=%FF", 400, "invalid_client_id"),
        ("DELETE /api/v1/clients/a?id=b", 400, "unknown_parameter"),
        ("GET /api/v1/ban?kind=user", 400, "missing_parameter"),
        ("GET /api/v1/retained-message?topic=%23", 400, "invalid_parameter"),
        ("DELETE /api/v1/client?id=secret", 403, "forbidden"),
        ("GET /api/v1/client/queue?id=secret", 403, "forbidden"),
        ("POST /api/v1/client?id=kick", 405, "method_not_allowed"),
        ("POST /api/v1/client?id=query", 405, "method_not_allowed"),
    ] {
        assert_eq!(rest.call(line).failure(), failed(status, code), "{line}");
    }
    assert!(rest.asked().is_empty());
    let refused = rest.call("POST /api/v1/client?id=kick");
    assert_eq!(refused.header("allow"), "GET, HEAD, DELETE, PATCH");
}
