//! Accounts over REST, and the double that answers about them.

use async_trait::async_trait;
use hearthmq::{
    auth::Groups,
    control::{
        ChangeUser, ExistingUsers, ImportUsers, Imported, ListUsers, NewPassword, NewSecret,
        Rechecked, SecretView, UserAccounts, UserChange, UserChanged, UserHashes, UserView,
        UsersError,
    },
    limits::OwnLimits,
    mqtt::Timestamp,
};
use hearthmq_test::http::basic;

use super::{
    failed,
    world::{Fleet, rest},
};

const OPS: &str = "ops:pass:word";

/// Returns an account with everything.
fn view(name: &str) -> UserView {
    let mut user = UserView::new(name, 7);
    user.password_scheme = Some("argon2id");
    user.secrets = vec![
        SecretView::new(0x1f, Timestamp(5), Some(Timestamp(9_000))),
        SecretView::new(u64::MAX, Timestamp(6), None),
    ];
    user.groups = Groups::new(["cars"]).unwrap();
    user.limits = Some(OwnLimits { sessions_max: Some(1), ..OwnLimits::default() });
    user.created_at = Timestamp(4);
    user
}

const SHOWN: &str = r#"{"name":"car-17","disabled":false,"password":"argon2id","secrets":[{"id":"000000000000001f","created_at":5,"last_used_at":9000},{"id":"ffffffffffffffff","created_at":6}],"groups":["cars"],"attributes":{},"limits":{"sessions_max":1},"created_at":4,"revision":7}"#;

fn error_of(name: &str) -> Result<(), UsersError> {
    match name {
        "nobody" => Err(UsersError::NotFound),
        "file" => Err(UsersError::InFile),
        "there" => Err(UsersError::Exists),
        "changed" => Err(UsersError::Changed),
        "full" => Err(UsersError::TooManySecrets),
        "busy" => Err(UsersError::Unavailable),
        "a:b" => Err(UsersError::InvalidName),
        "none" => Err(UsersError::NoSource),
        _ => Ok(()),
    }
}

/// Answers by the name.
#[async_trait]
impl UserAccounts for Fleet {
    async fn find_user(&self, name: &str) -> Result<UserView, UsersError> {
        error_of(name).map(|()| view(name))
    }

    async fn list_users(&self, request: ListUsers) -> Result<Vec<UserView>, UsersError> {
        let all = (0..700).map(|number| view(&format!("user {number:03}")));
        let behind = |user: &UserView| Some(&user.name) > request.after.as_ref();
        let limit = request.limit.min(ListUsers::LIMIT_MAX);
        let found = all.filter(behind).take(limit).map(|mut user| {
            let hashes = UserHashes::new(Some("$hash".into()), vec![([0xab; 32], Timestamp(5))]);
            user.hashes = request.with_hashes.then_some(hashes);
            user
        });
        Ok(found.collect())
    }

    async fn change_user(&self, request: ChangeUser) -> Result<UserChanged, UsersError> {
        let ChangeUser { name, change, expected, .. } = request;
        let (what, secret) = match &change {
            UserChange::Create(user) => {
                let groups: Vec<_> = user.groups.iter().collect();
                (format!("create {:?} {groups:?} {:?}", user.password, user.limits), None)
            }
            UserChange::Password(NewPassword::Hash(hash)) if hash == "wrong" => {
                return Err(UsersError::InvalidHash);
            }
            UserChange::AddSecret => {
                ("secret".into(), Some(NewSecret::new(0x2a, "hmq_d_x".into())))
            }
            UserChange::RemoveSecret(0) => return Err(UsersError::SecretNotFound),
            UserChange::Properties(some) => {
                let groups = some.groups.as_ref().map(|groups| groups.iter().count());
                let limits = some.limits.map(|limits| limits.is_some());
                (format!("set {:?} {groups:?} {limits:?}", some.is_disabled), None)
            }
            other => (format!("{other:?}"), None),
        };
        self.note(format!("{name} {what} {expected:?}"));
        error_of(&name)?;
        let mut sessions = Rechecked::default();
        sessions.touched = 2;
        let user = (change != UserChange::Remove).then(|| view(&name));
        let mut changed = UserChanged::new(user, sessions);
        changed.secret = secret;
        Ok(changed)
    }

    async fn import_users(&self, request: ImportUsers) -> Vec<Result<Imported, UsersError>> {
        let of = |name: &str| match (error_of(name), request.existing) {
            (Ok(()), _) => Ok(Imported::Created),
            (Err(UsersError::Exists), ExistingUsers::Skip) => Ok(Imported::Skipped),
            (Err(UsersError::Exists), ExistingUsers::Replace) => Ok(Imported::Replaced),
            (Err(error), _) => Err(error),
        };
        self.note(format!("import {}", request.users.len()));
        request.users.iter().map(|user| of(&user.name)).collect()
    }

    async fn check_sessions_of(&self, names: Option<Vec<String>>) -> Rechecked {
        self.note(format!("check {:?}", names.map(|names| names.len())));
        let mut found = Rechecked::default();
        found.touched = 3;
        found
    }
}

#[test]
fn an_account_is_shown_with_its_revision() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/users/car-17");
    assert_eq!(answer.outcome(), (200, SHOWN));
    assert_eq!(answer.header("etag"), "\"7\"");
    for (name, outcome) in [
        ("nobody", failed(404, "user_not_found")),
        ("none", failed(404, "no_stored_users")),
        ("a:b", failed(400, "invalid_user_name")),
        ("%ff", failed(400, "invalid_user_name")),
        ("%zz", failed(400, "invalid_user_name")),
        ("busy", failed(503, "unavailable")),
    ] {
        assert_eq!(rest.call(&format!("GET /api/v1/users/{name}")).failure(), outcome, "{name}");
    }
    let slash = rest.call("GET /api/v1/users/a%2Fb%20%C3%BC");
    assert!(slash.body.starts_with(r#"{"name":"a/b ü","#), "{}", slash.body);
}

#[test]
fn every_call_needs_the_permission_to_administer() {
    let rest = rest();
    let stranger = basic("goes-on:x");
    for line in [
        "GET /api/v1/users",
        "POST /api/v1/users",
        "GET /api/v1/users/car-17",
        "PATCH /api/v1/users/car-17",
        "DELETE /api/v1/users/car-17",
        "PUT /api/v1/users/car-17/password",
        "POST /api/v1/users/car-17/secrets",
        "DELETE /api/v1/users/car-17/secrets/1f",
        "POST /api/v1/users/import",
        "GET /api/v1/users/export",
    ] {
        let answer = rest.call_as(Some(&stranger), line);
        assert_eq!(answer.failure(), failed(403, "forbidden"), "{line}");
        assert_eq!(rest.call_as(None, line).status, 401, "{line}");
    }
    assert!(rest.asked().is_empty());
}

#[test]
fn accounts_are_listed_page_by_page() {
    let rest = rest();
    let mut names = Vec::new();
    let mut target = "GET /api/v1/users?limit=600".to_owned();
    loop {
        let answer = rest.call(&target);
        let page: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|user| user["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        target = format!("GET /api/v1/users?limit=600&cursor={next}");
    }
    let expected: Vec<_> = (0..700).map(|number| format!("user {number:03}")).collect();
    assert_eq!(names, expected);
    let wrong = rest.call("GET /api/v1/users?cursor=x");
    assert_eq!(wrong.failure(), failed(400, "invalid_parameter"));
}

#[test]
fn accounts_are_created_changed_and_removed() {
    let rest = rest();
    let user = format!(r#"{{"success":true,"user":{SHOWN},"sessions_touched":2}}"#);
    let body = r#"{"name":"car-17","password":"pw","groups":["cars"],"limits":{"sessions_max":1}}"#;
    let created = rest.post_json(OPS, "POST /api/v1/users", body);
    assert_eq!(created.outcome(), (200, &*user));
    assert_eq!(created.header("etag"), "\"7\"");
    let patch = |body: &str| rest.post_json(OPS, "PATCH /api/v1/users/car-17", body);
    assert_eq!(patch(r#"{"disabled":true}"#).outcome(), (200, &*user));
    assert_eq!(patch(r#"{"groups":[],"limits":null}"#).outcome(), (200, &*user));
    assert_eq!(patch(r#"{"limits":{}}"#).status, 200);
    let put = |body: &str| rest.post_json(OPS, "PUT /api/v1/users/car-17/password", body);
    assert_eq!(put(r#"{"password":"secret words"}"#).outcome(), (200, &*user));
    assert_eq!(put(r#"{"password_hash":"wrong"}"#).failure(), failed(400, "invalid_hash"));
    let secret = rest.call("POST /api/v1/users/car-17/secrets");
    let expected =
        r#"{"success":true,"id":"000000000000002a","secret":"hmq_d_x","sessions_touched":2}"#;
    assert_eq!(secret.outcome(), (200, expected));
    assert_eq!(rest.call("DELETE /api/v1/users/car-17/secrets/1f").outcome(), (200, &*user));
    for id in ["0", "x", ""] {
        let answer = rest.call(&format!("DELETE /api/v1/users/car-17/secrets/{id}"));
        assert_eq!(answer.status, 404, "{id}");
    }
    let removed = rest.call("DELETE /api/v1/users/car-17");
    assert_eq!(removed.outcome(), (200, r#"{"success":true,"sessions_touched":2}"#));
    assert_eq!(
        rest.asked(),
        [
            "car-17 create Some(Plain(…)) [\"cars\"] Some(OwnLimits { sessions_max: Some(1), \
             retained_messages_max: None, retained_bytes_max: None, subscription_bytes_max: None, \
             filter_shapes_max: None, stored_messages_max: None, stored_bytes_max: None, \
             will_bytes_max: None, queue_messages_max: None, queue_bytes_max: None }) None",
            "car-17 set Some(true) None None None",
            "car-17 set None Some(0) Some(false) None",
            "car-17 set None None Some(true) None",
            "car-17 Password(Plain(…)) None",
            "car-17 secret None",
            "car-17 RemoveSecret(31) None",
            "car-17 Remove None",
        ]
    );
}

#[test]
fn a_call_may_say_which_revision_it_expects() {
    let rest = rest();
    let remove = |header: &str| rest.call_with("DELETE /api/v1/users/car-17", header, "");
    assert_eq!(remove("If-Match: \"7\"").status, 200);
    assert_eq!(remove("If-Match: *").status, 200);
    assert_eq!(rest.asked(), ["car-17 Remove Some(7)", "car-17 Remove None"]);
    let wrong = remove("If-Match: 7");
    assert_eq!(wrong.failure(), failed(400, "invalid_precondition"));
    let absent = remove("If-None-Match: *");
    assert_eq!(absent.failure(), failed(412, "precondition_failed"));
    assert!(rest.asked().is_empty());
    let changed = rest.call_with("DELETE /api/v1/users/changed", "If-Match: \"6\"", "");
    assert_eq!(changed.failure(), failed(412, "precondition_failed"));
}

#[test]
fn what_is_wrong_with_a_body_is_said() {
    let rest = rest();
    for (line, body, expected) in [
        ("POST /api/v1/users", "{}", failed(400, "invalid_body")),
        ("POST /api/v1/users", r#"{"name":"a","x":1}"#, failed(400, "invalid_body")),
        ("POST /api/v1/users", r#"{"name":"a","groups":[""]}"#, failed(400, "invalid_body")),
        (
            "POST /api/v1/users",
            r#"{"name":"a","password":"p","password_hash":"h"}"#,
            failed(400, "invalid_body"),
        ),
        ("POST /api/v1/users", r#"{"name":"file"}"#, failed(409, "user_in_file")),
        ("POST /api/v1/users", r#"{"name":"there"}"#, failed(409, "user_exists")),
        ("POST /api/v1/users", r#"{"name":"a:b"}"#, failed(400, "invalid_user_name")),
        ("POST /api/v1/users/full/secrets", "", failed(409, "too_many_secrets")),
        ("PUT /api/v1/users/a/password", "{}", failed(400, "invalid_body")),
        ("PATCH /api/v1/users/a", "[]", failed(400, "invalid_body")),
        ("PATCH /api/v1/users/a", r#"{"password":"x"}"#, failed(400, "invalid_body")),
        ("PATCH /api/v1/users/nobody", "{}", failed(404, "user_not_found")),
    ] {
        assert_eq!(rest.post_json(OPS, line, body).failure(), expected, "{line} {body}");
    }
}

/// Returns the lines of an answer that comes in chunks.
fn lines(body: &str) -> Vec<&str> {
    body.lines().filter(|line| line.starts_with('{')).collect()
}

#[test]
fn each_line_of_an_import_has_a_result() {
    let rest = rest();
    let good = r#"{"name":"a","secrets":[{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}"#;
    let body = [
        good,
        "",
        r#"{"name":"there"}"#,
        "no JSON",
        r#"{"name":"b","secrets":[{"sha256":"e3b0"}]}"#,
        r#"{"name":"b","password":"x","password_hash":"y"}"#,
        r#"{"name":"file"}"#,
    ];
    let import = |existing: &str| {
        let line = format!("POST /api/v1/users/import{existing}");
        rest.post_json(OPS, &line, &body.join("\n"))
    };
    let answer = import("");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let found = lines(&answer.body);
    let code = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["code"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(found[0], r#"{"line":1,"result":"created"}"#);
    let codes: Vec<_> = found[1..6].iter().map(|line| code(line)).collect();
    let expected =
        ["user_exists", "invalid_body", "invalid_secret", "invalid_body", "user_in_file"];
    assert_eq!(codes, expected);
    let sums =
        r#"{"lines":6,"created":1,"replaced":0,"skipped":0,"failed":5,"sessions_touched":0}"#;
    assert_eq!((found.len(), found[6]), (7, sums));
    let answer = import("?existing=skip");
    assert_eq!(lines(&answer.body)[1], r#"{"line":2,"result":"skipped"}"#);
    let answer = import("?existing=replace");
    assert_eq!(lines(&answer.body)[1], r#"{"line":2,"result":"replaced"}"#);
    assert!(answer.body.contains(r#""sessions_touched":3"#));
    assert_eq!(import("?existing=x").failure(), failed(400, "invalid_parameter"));
    assert_eq!(rest.asked(), ["import 3", "import 3", "import 3", "check Some(1)"]);
}

#[test]
fn a_long_import_goes_in_portions_and_ends_where_it_must() {
    let rest = rest();
    let many: String =
        (0..1_300).map(|number| format!("{{\"name\":\"user {number}\"}}\n")).collect();
    let answer = rest.post_json(OPS, "POST /api/v1/users/import", &many);
    assert_eq!(lines(&answer.body).len(), 1_301);
    assert_eq!(rest.asked(), ["import 512", "import 512", "import 276"]);
    let long = format!("{{\"name\":\"a\"}}\n{{\"name\":\"{}\"}}\n", "x".repeat(200_000));
    let answer = rest.post_json(OPS, "POST /api/v1/users/import", &long);
    let found = lines(&answer.body);
    assert_eq!((found.len(), found[0]), (2, r#"{"line":1,"result":"created"}"#));
    assert!(found[1].contains(r#""ended":"a line is longer than 131072 bytes""#), "{}", found[1]);
}

#[test]
fn an_export_has_what_an_import_takes() {
    let rest = rest();
    let answer = rest.call("GET /api/v1/users/export");
    let found = lines(&answer.body);
    assert_eq!(found.len(), 700);
    let hash = "ab".repeat(32);
    let expected = format!(
        r#"{{"name":"user 000","password_hash":"$hash","secrets":[{{"sha256":"{hash}","created_at":5}}],"disabled":false,"groups":["cars"],"limits":{{"sessions_max":1}}}}"#
    );
    assert_eq!(found[0], expected);
    let answer = rest.post_json(OPS, "POST /api/v1/users/import", &found[..2].join("\n"));
    assert!(answer.body.contains(r#""created":2"#), "{}", answer.body);
}
