//! The names of listeners in rules, by the listener that accepted a call.

use hearthmq::auth::{FilePolicy, Rule};

use super::world::{Rest, hosted_where, rest_where};

#[derive(serde::Deserialize)]
struct Inline {
    rules: Vec<Rule>,
}

fn policy(listener: &str) -> FilePolicy {
    let text = format!("[[rules]]\neffect = \"allow\"\nlisteners = [\"{listener}\"]\n");
    FilePolicy::new(toml::from_str::<Inline>(&text).unwrap().rules)
}

fn status(rest: &Rest) -> u16 {
    rest.call("GET /client-id/demo/status").status
}

#[test]
fn rules_name_the_listener_of_a_call_by_its_url() {
    assert_eq!(status(&rest_where(policy("http://127.0.0.1:*"))), 200);
    assert_eq!(status(&rest_where(policy("https://*"))), 403);
    assert_eq!(status(&rest_where(policy("hosted-http"))), 403);
}

#[test]
fn calls_that_an_application_has_accepted_come_from_a_host() {
    assert_eq!(status(&hosted_where(policy("hosted-http"))), 200);
    assert_eq!(status(&hosted_where(policy("http://*"))), 403);
}
