//! A caller that bans hostile clients meanwhile, and denies them topics by rules of the store. No ban and no
//! rule is about the well-behaved clients.

use hearthmq::{
    Broker,
    control::{
        AccessControl as _, AccessError, BanSubject, PutBan, PutRule, RemoveBan, RemoveRule,
    },
};

/// By kind and value.
const BANS: [(&str, &str); 4] =
    [("client_id", "x*"), ("client_id", "y"), ("user", "good"), ("address", "192.0.2.66")];
/// By what they deny, and further conditions.
const RULES: [(&str, &str); 4] = [
    ("connect", r#""clients":["z","x/*"]"#),
    ("publish", r#""addresses":["192.0.2.66"],"topics":["a/#"]"#),
    ("subscribe", r#""addresses":["192.0.2.66"],"topics":["a/b"]"#),
    ("subscribe", r#""clients":["x"],"topics":["good/#"]"#),
];

/// Adds a ban or a rule, or removes one.
pub(crate) async fn change(broker: &Broker, which: u8) {
    let at = usize::from(which) % 4;
    match which / 4 % 4 {
        0 => {
            let mut request = PutBan::new(subject(at));
            request.ttl_secs = (which >= 128).then_some(1);
            broker.put_ban(request).await.expect("it is a ban");
        }
        1 => {
            let (action, about) = RULES[at];
            let json =
                format!(r#"{{"effect":"deny","priority":1,"actions":["{action}"],{about}}}"#);
            let request = PutRule::new(json).with_id(at.to_string());
            broker.put_rule(request).await.expect("it is a rule");
        }
        2 => lift(broker, at).await,
        _ => remove(broker, at).await,
    }
}

/// Removes all bans and rules.
pub(crate) async fn clear(broker: &Broker) {
    for at in 0..4 {
        lift(broker, at).await;
        remove(broker, at).await;
    }
}

async fn lift(broker: &Broker, at: usize) {
    expect_removed(broker.remove_ban(RemoveBan::new(subject(at))).await);
}

async fn remove(broker: &Broker, at: usize) {
    expect_removed(broker.remove_rule(RemoveRule::new(at.to_string())).await);
}

fn subject(at: usize) -> BanSubject {
    let (kind, value) = BANS[at];
    BanSubject::parse(kind, value).expect("it is a subject")
}

fn expect_removed<T>(removed: Result<T, AccessError>) {
    if let Err(error) = removed {
        assert_eq!(error, AccessError::NotFound);
    }
}
