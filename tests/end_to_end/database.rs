//! A PostgreSQL database behind the program: what the log says of answers that cannot be used.

use std::time::Instant;

use hearthmq::{
    auth::hash_password,
    mqtt::{Connect, ReasonCode},
};
use hearthmq_test::cluster::Cluster;

use crate::{
    mqtt::{Client, connect, tcp},
    program::{Place, Program},
};

fn come(program: &Program, name: &str) -> ReasonCode {
    let connect = Connect { username: Some(name), password: Some(b"secret"), ..connect("demo") };
    Client::on(tcp(program.address("mqtt")), connect).unwrap().1
}

fn with_users() -> Option<Cluster> {
    let cluster = Cluster::start()?;
    let hash = hash_password(b"secret");
    cluster.sql(&format!(
        "CREATE TABLE users (name text, hash text, disabled int, groups text, acl text, number int, \
         list text[]); \
         INSERT INTO users VALUES ('ann', '{hash}', 0, 'a', '[]', 7, ARRAY['a', null])"
    ));
    Some(cluster)
}

fn program_with(cluster: &Cluster, query: &str, rules_query: &str) -> Program {
    let place = Place::new()
        .set(format!("auth.postgres.url={}", cluster.url()))
        .set("auth.postgres.timeout_ms=60000")
        .set(format!("auth.postgres.query={query}"))
        .set(format!("auth.postgres.rules_query={rules_query}"));
    place.start()
}

#[test]
fn the_log_says_what_is_wrong_with_an_answer_of_the_database() {
    let Some(cluster) = with_users() else { return };
    let of_ann = |columns: &str| format!("SELECT {columns} FROM users WHERE name = $1");
    for (query, rules_query, expected) in [
        (of_ann("hash, disabled"), "", "column disabled has the type int4; it must be boolean"),
        (of_ann("hash, groups"), "", "column groups has the type text; it must be text[]"),
        (of_ann("hash, list AS groups"), "", "column groups: "),
        (of_ann("hash, acl"), "", "column acl has the type text; it must be json or jsonb"),
        (of_ann("number"), "", "column number has the type int4; it must be text"),
        (of_ann(""), "", "it has no column; the first one is the hash"),
        (of_ann("absent"), "", "column \\\"absent\\\" does not exist"),
        (of_ann("hash"), "SELECT now() AS since", "column since has the type timestamptz"),
        (of_ann("hash"), "SELECT 'x' AS permission", "rule 1: missing field"),
        (
            "SELECT hash FROM users WHERE number = $1::int".into(),
            "",
            "invalid input syntax for type integer",
        ),
    ] {
        let program = program_with(&cluster, &query, rules_query);
        assert_eq!(come(&program, "ann"), ReasonCode::ServerUnavailable, "{query}");
        program.line_with(&["WARN", expected]);
    }
}

/// Nobody can log in by such a hash, whatever the state of the database.
#[test]
fn a_user_without_a_hash_that_can_be_checked_is_refused() {
    let Some(cluster) = with_users() else { return };
    for (column, expected) in [("null::text", None), ("'secret'", Some("the hash: "))] {
        let query = format!("SELECT {column} FROM users WHERE name = $1");
        let program = program_with(&cluster, &query, "");
        assert_eq!(come(&program, "ann"), ReasonCode::BadUserNameOrPassword, "{query}");
        let lines = program.logged();
        let lines: Vec<_> = lines.iter().filter(|line| line.contains("the hash")).collect();
        assert_eq!(lines.len(), expected.into_iter().count(), "{lines:#?}");
        if let Some(why) = expected {
            program.line_with(&["WARN", "login refused", why, "ann"]);
        }
    }
}

/// A stranger can have the same line as often as it likes.
#[test]
fn lines_about_answers_of_the_database_have_a_rate() {
    let Some(cluster) = with_users() else { return };
    let program = program_with(&cluster, "SELECT hash, disabled FROM users WHERE name = $1", "");
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(come(&program, "ann"), ReasonCode::ServerUnavailable);
    }
    let secs = began.elapsed().as_secs() as usize;
    let lines = program.logged();
    let lines = lines.iter().filter(|line| line.contains("column disabled")).count();
    assert!((1..=22 + secs).contains(&lines), "{lines} in {secs} s");
}
