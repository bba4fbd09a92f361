//! The policy: every condition of a rule, variables, order, files and speed.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use hearthmq::{
    auth::{
        AccessRequest, Action, Attributes, Authorizer as _, ClientCertificate, Decision,
        FilePolicy, Identity, Login, Rule,
    },
    mqtt::QoS,
};

#[derive(serde::Deserialize)]
struct Inline {
    rules: Vec<Rule>,
}

fn policy(text: &str) -> FilePolicy {
    FilePolicy::new(toml::from_str::<Inline>(text).unwrap().rules)
}

/// Returns a policy of one rule that allows.
fn allow(conditions: &str) -> FilePolicy {
    policy(&format!("[[rules]]\neffect = \"allow\"\n{conditions}\n"))
}

/// Returns a policy that allows everything except what one rule denies.
fn deny(conditions: &str) -> FilePolicy {
    policy(&format!("[[rules]]\neffect = \"deny\"\n{conditions}\n[[rules]]\neffect = \"allow\"\n"))
}

/// The caller: by default user `ann` as client `car-1` from 192.0.2.1.
#[derive(Clone)]
struct Who {
    identity: Identity,
    client_id: &'static str,
    peer: SocketAddr,
    listener: &'static str,
}

impl Who {
    fn ann() -> Self {
        Self {
            identity: Identity {
                username: Some("ann".into()),
                login: Login::Password,
                ..Identity::default()
            },
            client_id: "car-1",
            peer: SocketAddr::from(([192, 0, 2, 1], 1883)),
            listener: "mqtts://[::]:8883",
        }
    }

    fn anonymous() -> Self {
        let identity = Identity { login: Login::Anonymous, ..Identity::default() };
        Self { identity, ..Self::ann() }
    }

    fn client(self, client_id: &'static str) -> Self {
        Self { client_id, ..self }
    }

    fn with_certificate(mut self, common_name: &str, serial_number: &str) -> Self {
        self.identity.certificate = Some(Arc::new(ClientCertificate {
            common_name: common_name.to_owned(),
            serial_number: serial_number.to_owned(),
        }));
        self
    }

    fn may(&self, policy: &FilePolicy, action: Action<'_>) -> bool {
        let request = AccessRequest {
            identity: &self.identity,
            client_id: self.client_id,
            peer: self.peer,
            listener: self.listener,
            action,
        };
        policy.authorize(&request) == Decision::Allow
    }

    fn may_publish(&self, policy: &FilePolicy, topic: &str) -> bool {
        self.may(policy, publish(topic))
    }

    fn may_subscribe(&self, policy: &FilePolicy, filter: &str) -> bool {
        self.may(policy, subscribe(filter))
    }
}

fn publish(topic: &str) -> Action<'_> {
    Action::Publish { topic, qos: QoS::AtLeastOnce, retain: false }
}

fn subscribe(filter: &str) -> Action<'_> {
    Action::Subscribe { filter, qos: QoS::AtLeastOnce }
}

#[test]
fn without_a_rule_that_matches_everything_is_denied() {
    for policy in [policy("rules = []"), allow("users = [\"ben\"]")] {
        for action in [Action::Connect, publish("a"), subscribe("a")] {
            assert!(!Who::ann().may(&policy, action));
        }
    }
}

#[test]
fn the_first_rule_by_priority_and_then_by_place_decides() {
    let policy = policy(
        "[[rules]]\npriority = 20\neffect = \"deny\"\ntopics = [\"a\"]\n\
         [[rules]]\npriority = 10\neffect = \"allow\"\ntopics = [\"a\", \"b\"]\n\
         [[rules]]\npriority = 10\neffect = \"deny\"\ntopics = [\"b\", \"c\"]\n\
         [[rules]]\neffect = \"allow\"\ntopics = [\"c\", \"d\"]\n\
         [[rules]]\npriority = -1\neffect = \"deny\"\ntopics = [\"d\"]\n\
         [[rules]]\npriority = 999\neffect = \"allow\"\ntopics = [\"e\"]\n\
         [[rules]]\neffect = \"deny\"\ntopics = [\"e\"]\n",
    );
    let allowed = ["a", "b", "c", "d", "e"].map(|topic| Who::ann().may_publish(&policy, topic));
    assert_eq!(allowed, [true, true, false, false, true]);
}

#[test]
fn a_rule_is_about_its_actions() {
    let (observe, control, administer) = (Action::Observe, Action::Control, Action::Administer);
    let all = [Action::Connect, publish("a"), subscribe("a"), observe, control, administer];
    for (actions, expected) in [
        ("", [true, true, true, true, true, false]),
        ("actions = [\"connect\"]", [true, false, false, false, false, false]),
        ("actions = [\"publish\"]", [false, true, false, false, false, false]),
        ("actions = [\"subscribe\"]", [false, false, true, false, false, false]),
        ("actions = [\"observe\"]", [false, false, false, true, false, false]),
        ("actions = [\"control\"]", [false, false, false, false, true, false]),
        ("actions = [\"administer\"]", [false, false, false, false, false, true]),
        ("actions = [\"connect\", \"subscribe\"]", [true, false, true, false, false, false]),
    ] {
        assert_eq!(
            all.map(|action| Who::ann().may(&allow(actions), action)),
            expected,
            "{actions}"
        );
    }
}

#[test]
fn a_rule_is_about_its_clients_users_and_addresses() {
    for (conditions, expected) in [
        ("clients = [\"car-*\"]", true),
        ("clients = [\"bus-*\", \"*-1\"]", true),
        ("clients = [\"car\"]", false),
        ("users = [\"ann\"]", true),
        ("users = [\"a*\"]", true),
        ("users = [\"\"]", false),
        ("addresses = [\"192.0.2.0/24\"]", true),
        ("addresses = [\"10.0.0.0/8\", \"192.0.2.1\"]", true),
        ("addresses = [\"::/0\"]", false),
        ("clients = [\"car-*\"]\nusers = [\"ben\"]", false),
        ("clients = [\"car-*\"]\nusers = [\"ann\"]\naddresses = [\"192.0.2.1/32\"]", true),
        ("clients = [\"${username}\"]", false),
        ("users = [\"${clientId}\"]", false),
    ] {
        assert_eq!(Who::ann().may(&allow(conditions), Action::Connect), expected, "{conditions}");
        assert_eq!(Who::ann().may(&deny(conditions), Action::Connect), !expected, "{conditions}");
    }
    assert!(Who::ann().client("ann").may(&allow("clients = [\"${username}\"]"), Action::Connect));
    let mut mapped = Who::ann();
    mapped.peer = "[::ffff:192.0.2.1]:1883".parse().unwrap();
    assert!(mapped.may(&allow("addresses = [\"192.0.2.0/24\"]"), Action::Connect));
}

#[test]
fn a_rule_that_denies_without_naming_actions_is_about_all_of_them() {
    let policy = policy(
        "[[rules]]\neffect = \"deny\"\nusers = [\"ann\"]\n\
         [[rules]]\neffect = \"allow\"\nactions = [\"administer\"]\n",
    );
    assert!(!Who::ann().may(&policy, Action::Administer));
    assert!(Who::anonymous().may(&policy, Action::Administer));
}

#[test]
fn a_rule_is_about_its_listeners_and_how_the_client_logged_in() {
    for (conditions, expected) in [
        ("listeners = [\"mqtts://*\"]", true),
        ("listeners = [\"mqtt://*\", \"*:8883\"]", true),
        ("listeners = [\"mqtt://*\"]", false),
        ("listeners = [\"in-process\"]", false),
        ("login = [\"password\"]", true),
        ("login = [\"certificate\", \"password\"]", true),
        ("login = [\"certificate\", \"scram\", \"anonymous\", \"other\"]", false),
        ("login = [\"password\"]\nlisteners = [\"unix:*\"]", false),
    ] {
        assert_eq!(Who::ann().may(&allow(conditions), Action::Connect), expected, "{conditions}");
        assert_eq!(Who::ann().may(&deny(conditions), Action::Connect), !expected, "{conditions}");
    }
    for (login, word) in [
        (Login::Password, "password"),
        (Login::Certificate, "certificate"),
        (Login::Scram, "scram"),
        (Login::Anonymous, "anonymous"),
        (Login::Other, "other"),
    ] {
        let mut who = Who::ann();
        who.identity.login = login;
        assert!(who.may(&allow(&format!("login = [\"{word}\"]")), Action::Connect), "{word}");
    }
}

#[test]
fn a_listener_that_nobody_knows_any_more_is_allowed_nothing_and_denied_everything() {
    let lost = Who { listener: "", ..Who::ann() };
    for listeners in ["listeners = [\"*\"]", "listeners = [\"mqtt://*\"]"] {
        assert!(!lost.may(&allow(listeners), publish("a")));
        assert!(!lost.may(&deny(listeners), publish("a")));
    }
    assert!(lost.may(&allow("login = [\"password\"]"), publish("a")));
}

#[test]
fn the_empty_user_is_for_clients_without_a_user_name() {
    assert!(Who::anonymous().may(&allow("users = [\"\"]"), Action::Connect));
    assert!(!Who::anonymous().may(&allow("users = [\"ann\"]"), Action::Connect));
    assert!(Who::anonymous().may(&allow("clients = [\"car-1\"]"), Action::Connect));
}

#[test]
fn an_asterisk_for_users_does_not_mean_those_without_a_user_name() {
    assert!(!Who::anonymous().may(&allow("users = [\"*\"]"), Action::Connect));
    assert!(Who::anonymous().may(&deny("users = [\"*\"]"), Action::Connect));
}

#[test]
fn a_rule_is_about_its_qos_and_retain() {
    let publish = |qos, retain| Action::Publish { topic: "a", qos, retain };
    let subscribe = |qos| Action::Subscribe { filter: "a", qos };
    let asked = [
        publish(QoS::AtMostOnce, false),
        publish(QoS::ExactlyOnce, false),
        publish(QoS::AtMostOnce, true),
        subscribe(QoS::AtMostOnce),
        subscribe(QoS::ExactlyOnce),
        Action::Connect,
    ];
    for (conditions, expected) in [
        ("qos = [0, 1]", [true, false, true, true, false, false]),
        ("qos = [2]", [false, true, false, false, true, false]),
        ("retain = true", [false, false, true, false, false, false]),
        ("retain = false", [true, true, false, false, false, false]),
        ("qos = [0]\nretain = false", [true, false, false, false, false, false]),
        ("topics = [\"a\"]", [true, true, true, true, true, false]),
    ] {
        let allowed = asked.map(|action| Who::ann().may(&allow(conditions), action));
        assert_eq!(allowed, expected, "{conditions}");
        let allowed = asked.map(|action| Who::ann().may(&deny(conditions), action));
        assert_eq!(allowed, expected.map(|denied| !denied), "{conditions}");
    }
}

#[test]
fn allowing_a_subscription_takes_a_filter_that_covers_it() {
    for (rule, asked, expected) in [
        ("v/#", "v/#", true),
        ("v/#", "v/+/x", true),
        ("v/#", "v", true),
        ("v/+", "v/#", false),
        ("v/+", "v/+", true),
        ("v/+", "v/a", true),
        ("v/+", "+/a", false),
        ("v/+/#", "v/#", false),
        ("v/a", "v/+", false),
        ("#", "#", true),
        ("+/#", "#", true),
        ("#", "+/a", true),
        ("#", "$events/client_connected", false),
        ("+/client_connected", "$events/client_connected", false),
        ("$events/#", "$events/+", true),
        ("$events/+", "$events/#", false),
    ] {
        let policy = allow(&format!("topics = [\"{rule}\"]"));
        assert_eq!(Who::ann().may_subscribe(&policy, asked), expected, "{rule} {asked}");
    }
}

/// Otherwise every device of a fleet that "may do everything" could redirect the others to its own
/// server.
#[test]
fn what_controls_the_broker_is_allowed_by_name_only() {
    let ann = Who::ann();
    for (conditions, allows) in [
        ("", false),
        ("users = [\"ann\"]", false),
        ("topics = [\"#\"]", false),
        ("topics = [\"+/redirect\"]", false),
        ("topics = [\"$control/redirect\"]", true),
        ("topics = [\"$control/#\"]", true),
    ] {
        let policy = allow(conditions);
        assert_eq!(ann.may_publish(&policy, "$control/redirect"), allows, "{conditions}");
        assert_eq!(ann.may_subscribe(&policy, "$control/redirect"), allows, "{conditions}");
    }
    let all = allow("");
    assert!(!ann.may_subscribe(&all, "$control/#") && !ann.may_publish(&all, "$control"));
    for topic in ["$controls", "control/redirect", "a/$control", "$events/x"] {
        assert!(ann.may_publish(&all, topic) && ann.may_subscribe(&all, topic), "{topic}");
    }
    let denied = policy(
        "[[rules]]\neffect = \"deny\"\nusers = [\"ann\"]\n\
         [[rules]]\neffect = \"allow\"\ntopics = [\"$control/#\"]\n",
    );
    assert!(!ann.may_publish(&denied, "$control/redirect"));
}

#[test]
fn denying_a_subscription_takes_a_filter_that_overlaps_it() {
    for (rule, asked, denied) in [
        ("v/secret", "v/#", true),
        ("v/secret", "v/+", true),
        ("v/secret", "+/secret", true),
        ("v/secret", "v/open", false),
        ("v/secret/#", "v/+", true),
        ("v/secret/#", "v/+/a/b", true),
        ("v/secret/+", "v/+", false),
        ("v/+/a", "v/b/+", true),
        ("#", "anything", true),
        ("#", "$SYS/#", false),
        ("$SYS/#", "#", false),
        ("$SYS/#", "$SYS/a", true),
    ] {
        let policy = deny(&format!("topics = [\"{rule}\"]"));
        assert_eq!(Who::ann().may_subscribe(&policy, asked), !denied, "{rule} {asked}");
    }
}

#[test]
fn a_topic_to_publish_must_be_matched() {
    let allow = allow("topics = [\"v/+/up\", \"w/#\"]");
    let deny = deny("topics = [\"v/+/up\", \"w/#\"]");
    for (topic, matched) in [("v/1/up", true), ("v/1/down", false), ("w", true), ("$w", false)] {
        assert_eq!(Who::ann().may_publish(&allow, topic), matched, "{topic}");
        assert_eq!(Who::ann().may_publish(&deny, topic), !matched, "{topic}");
    }
}

#[test]
fn variables_stand_for_the_one_who_asks() {
    let policy = allow(
        "topics = [\"c/${clientId}/#\", \"u/${username}\", \"n/${certificate.commonName}\", \
         \"s/x-${certificate.serialNumber}-x\"]",
    );
    let ann = Who::ann();
    let with_certificate = Who::ann().with_certificate("device-7", "0a1b");
    for (topic, without, with) in [
        ("c/car-1/x", true, true),
        ("c/car-2/x", false, false),
        ("u/ann", true, true),
        ("u/ben", false, false),
        ("n/device-7", false, true),
        ("s/x-0a1b-x", false, true),
        ("s/x--x", false, false),
    ] {
        assert_eq!(ann.may_publish(&policy, topic), without, "{topic}");
        assert_eq!(with_certificate.may_publish(&policy, topic), with, "{topic}");
    }
}

#[test]
fn a_variable_without_a_value_allows_nothing_and_denies() {
    let nobody = Who::anonymous();
    assert!(!nobody.may_publish(&allow("topics = [\"u/${username}\"]"), "u/"));
    assert!(!nobody.may(&allow("clients = [\"*${username}*\"]"), Action::Connect));
    let policy = deny("topics = [\"u/${username}/#\"]");
    assert!(!nobody.may_publish(&policy, "u/ann/x"));
    assert!(nobody.may_publish(&policy, "w/ann/x"));
    assert!(!nobody.may_subscribe(&policy, "#"));
    let policy = deny("clients = [\"${certificate.commonName}\"]");
    assert!(!Who::ann().may(&policy, Action::Connect));
    let policy = deny("clients = [\"${certificate.commonName}\"]\nusers = [\"ben\"]");
    assert!(Who::ann().may(&policy, Action::Connect));
}

#[test]
fn a_value_is_plain_text_whatever_it_holds() {
    let own = allow("topics = [\"v/${clientId}/#\"]");
    for client_id in ["+", "#", "a/b", "", "*"] {
        let who = Who::ann().client(client_id);
        for filter in ["v/#", "v/+/#", "v/a/#", "v/car-1/x", "v/a/b/#"] {
            assert!(!who.may_subscribe(&own, filter), "{client_id} {filter}");
        }
        assert!(!who.may_publish(&own, "v/a/b/c"), "{client_id}");
    }
    assert!(
        !Who::ann()
            .client("$events")
            .may_subscribe(&allow("topics = [\"${clientId}/#\"]"), "$events/#")
    );
    let mut star = Who::ann();
    star.identity.username = Some("*".into());
    assert!(!star.may(&allow("clients = [\"${username}\"]"), Action::Connect));
    assert!(star.client("*").may(&allow("clients = [\"${username}\"]"), Action::Connect));
    // Denied: it is unknown which topics the author of the rule meant.
    let policy = deny("topics = [\"v/${clientId}/secret\"]");
    assert!(!Who::ann().client("a/b").may_publish(&policy, "v/a/b/secret"));
}

fn error(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.toml");
    fs::write(&path, text).unwrap();
    let Err(error) = FilePolicy::open(&path) else {
        panic!("accepted: {text}");
    };
    let error = error.to_string();
    let (_, relative) = error.split_once("rules.toml").unwrap();
    format!("rules.toml{relative}")
}

#[test]
fn every_mistake_in_the_file_is_reported_with_its_line() {
    let rule = "[[rules]]\neffect = \"allow\"\n";
    for (line, says) in [
        ("topics = [\"a\", \"v/${clientid}\"]", "3: unknown variable `${clientid}`; there are"),
        ("topics = [\n\"a\",\n\"v/#/b\"]", "5: `#` stands alone"),
        ("topics = [\"v/${clientId\"]", "3: `${` without `}`"),
        ("topics = [\"$share/g/a\"]", "3: a shared subscription is checked"),
        ("clients = [\"${user}\"]", "3: unknown variable `${user}`"),
        ("addresses = [\"10.0.0.1/8\"]", "3: bits are set behind the prefix; `10.0.0.0/8`"),
        ("addresses = [\"localhost\"]", "3: not a network; write it like"),
        ("qos = [3]", "3: QoS is 0, 1 or 2"),
        ("users = []", "3: an empty list never matches"),
        ("actions = [\"read\"]", "3: unknown variant `read`, expected one of `connect`"),
        ("topic = [\"a\"]", "3: unknown field `topic`, expected one of `priority`"),
        (
            "actions = [\"subscribe\"]\nretain = true",
            "1: rule has retain, which concerns publishing",
        ),
        ("actions = [\"observe\", \"control\"]\nqos = [0]", "1: rule has topics or qos, but only"),
        ("login = [\"sms\"]", "3: unknown variant `sms`, expected one of `password`"),
        ("listeners = []", "3: an empty list never matches"),
        ("actions = [\"connect\"]\ntopics = [\"a\"]", "1: rule has topics or qos, but only"),
    ] {
        let error = error(&format!("{rule}{line}\n"));
        assert!(error.starts_with(&format!("rules.toml:{says}")), "{error}");
    }
    assert!(error("[[rules]]\npriority = 1\n").starts_with("rules.toml:1: missing field `effect`"));
    assert!(error("[[rule]]\n").starts_with("rules.toml:1: unknown field `rule`"));
    let missing = FilePolicy::open(PathBuf::from("/nowhere/rules.toml")).err().unwrap();
    assert!(missing.to_string().starts_with("/nowhere/rules.toml: cannot be read"));
}

#[test]
fn a_reload_changes_the_answers_and_the_generation_and_a_broken_file_neither() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.toml");
    fs::write(&path, "[[rules]]\neffect = \"allow\"\n").unwrap();
    let policy = FilePolicy::open(&path).unwrap();
    assert!(Who::ann().may(&policy, Action::Connect));
    let before = policy.generation();
    fs::write(&path, "[[rules]]\neffect = \"perhaps\"\n").unwrap();
    policy.reload().unwrap_err();
    assert_eq!(policy.generation(), before);
    assert!(Who::ann().may(&policy, Action::Connect));
    fs::write(&path, "").unwrap();
    policy.reload().unwrap();
    assert_ne!(policy.generation(), before);
    assert!(!Who::ann().may(&policy, Action::Connect));
}

#[test]
fn a_variable_stands_for_an_attribute_of_the_identity() {
    let who = |attributes: &[(&str, &str)]| {
        let mut who = Who::ann();
        who.identity.attributes = Attributes::new(attributes.iter().copied()).unwrap();
        who
    };
    let gold = who(&[("plan", "gold"), ("two words", "x")]);
    let policy = allow("topics = [\"${attributes.plan}/${attributes.two words}/#\"]");
    assert!(gold.may_publish(&policy, "gold/x/t") && !gold.may_publish(&policy, "basic/x/t"));
    assert!(!who(&[("plan", "gold")]).may_publish(&policy, "gold//t"), "one of them is missing");
    assert!(policy.uses_attributes());
    for condition in ["clients", "users", "listeners"] {
        let uses = |pattern| allow(&format!("{condition} = [\"{pattern}\"]")).uses_attributes();
        assert!(uses("a*${attributes.plan}") && !uses("${username}*"), "{condition}");
    }
    let with_denied = deny("topics = [\"${attributes.plan}/#\"]");
    assert!(!gold.may_publish(&with_denied, "gold/t") && gold.may_publish(&with_denied, "t"));
    assert!(!Who::ann().may_publish(&with_denied, "t"), "undecided, so it denies");
}
