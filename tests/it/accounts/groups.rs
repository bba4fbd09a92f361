//! Groups of an identity: the condition of a rule, and what becomes of live and absent sessions when
//! groups change.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use hearthmq::{
    auth::{
        AccessRequest, Action, AllowAll, AuthenticationError, Authenticator, Authorizer as _,
        Credentials, Decision, FilePolicy, Groups, Identity, Rule,
    },
    mqtt::ReasonCode,
};

use crate::{
    authentication::rechecks::connect_as,
    support::{Client, disk::Disk, packets::*, world_with},
};

fn policy(text: &str) -> FilePolicy {
    #[derive(serde::Deserialize)]
    struct File {
        rules: Vec<Rule>,
    }
    FilePolicy::new(toml::from_str::<File>(text).unwrap().rules)
}

fn may_connect(policy: &FilePolicy, groups: &[&str]) -> bool {
    let groups = Groups::new(groups.iter().copied()).unwrap();
    let identity = Identity { username: Some("ann".into()), groups, ..Identity::default() };
    let request = AccessRequest {
        identity: &identity,
        client_id: "car-1",
        peer: SocketAddr::from(([192, 0, 2, 1], 1883)),
        listener: "in-process",
        action: Action::Connect,
    };
    policy.authorize(&request) == Decision::Allow
}

#[test]
fn a_rule_is_about_the_members_of_a_group() {
    let allow = |groups| policy(&format!("[[rules]]\neffect = \"allow\"\ngroups = {groups}\n"));
    let night = allow("[\"day\", \"night-*\"]");
    assert!(may_connect(&night, &["cars", "night-2"]) && may_connect(&night, &["day"]));
    assert!(!may_connect(&night, &["cars", "night"]) && !may_connect(&night, &[]));
    let any = allow("[\"*\"]");
    assert!(may_connect(&any, &["x"]) && !may_connect(&any, &[]));
    let of_user = allow("[\"of-${username}\"]");
    assert!(may_connect(&of_user, &["of-ann"]) && !may_connect(&of_user, &["of-ben"]));
    assert!(allow("[\"${attributes.plan}\"]").uses_attributes() && !any.uses_attributes());
    let deny = policy(
        "[[rules]]\neffect = \"deny\"\ngroups = [\"blocked\"]\n[[rules]]\neffect = \"allow\"\n",
    );
    assert!(!may_connect(&deny, &["blocked"]) && may_connect(&deny, &["x"]));
    assert!(may_connect(&deny, &[]));
}

/// Admits every client, with the groups that its user has now.
#[derive(Clone, Default)]
struct Register(Arc<Mutex<HashMap<String, Groups>>>);

impl Register {
    fn set(&self, user: &str, groups: &[&str]) {
        let groups = Groups::new(groups.iter().copied()).unwrap();
        self.0.lock().unwrap().insert(user.to_owned(), groups);
    }

    fn of(&self, user: Option<&str>) -> Groups {
        user.and_then(|user| self.0.lock().unwrap().get(user).cloned()).unwrap_or_default()
    }
}

#[async_trait]
impl Authenticator for Register {
    async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Identity, AuthenticationError> {
        let identity = AllowAll.authenticate(credentials).await?;
        Ok(Identity { groups: self.of(credentials.username), ..identity })
    }

    fn renewed(&self, identity: &Identity) -> Option<Identity> {
        let groups = self.of(identity.username.as_deref());
        (groups != identity.groups).then(|| Identity { groups, ..identity.clone() })
    }
}

const OF_GROUPS: &str = "[[rules]]\neffect = \"allow\"\nactions = [\"connect\"]\n\
     [[rules]]\neffect = \"allow\"\nactions = [\"subscribe\", \"publish\"]\ngroups = [\"cars\"]\n\
     topics = [\"cars/#\"]\n\
     [[rules]]\neffect = \"allow\"\nactions = [\"subscribe\"]\ntopics = [\"open/#\"]\n";

#[actix_rt::test]
async fn other_groups_are_in_force_for_live_and_absent_sessions_of_the_user_alone() {
    let register = Register::default();
    register.set("ann", &["cars"]);
    register.set("ben", &["cars"]);
    let given = register.clone();
    let broker =
        world_with(|builder| builder.authenticator(given).authorizer(policy(OF_GROUPS))).await;
    let mut live = Client::connected(&broker, connect_as("ann", connect("live"))).await;
    let mut absent =
        Client::connected(&broker, connect_as("ann", connect_lasting("absent", V5))).await;
    let mut of_ben = Client::connected(&broker, connect_as("ben", connect("other"))).await;
    for client in [&mut live, &mut absent, &mut of_ben] {
        client.subscribe("cars/1", QOS_1).await;
        client.subscribe("open/1", QOS_1).await;
    }
    absent.vanish().await;
    for user in ["ann", "ben"] {
        register.set(user, &["boats"]);
    }
    let subscriptions = async |id: &str| broker.client(id).await.unwrap().unwrap().subscriptions;
    assert_eq!(broker.recheck_user("nobody").await.sessions, 0);
    let found = broker.recheck_user("ann").await;
    assert_eq!((found.sessions, found.touched), (2, 2));
    assert_eq!([subscriptions("live").await, subscriptions("absent").await], [1, 1]);
    assert_eq!(subscriptions("other").await, 2, "nobody has looked at ben");
    let found = broker.recheck().await;
    assert_eq!((found.sessions, found.touched), (3, 1));
    assert_eq!(subscriptions("other").await, 1);
    let found = broker.recheck().await;
    assert_eq!((found.sessions, found.touched), (3, 0));
    // The decision that the connection has made before is forgotten, too.
    register.set("ann", &["cars"]);
    broker.recheck_user("ann").await;
    live.publish(publish_1(1, "cars/1", "x")).await;
    live.expect_taken(QOS_1, 1, ReasonCode::NoMatchingSubscribers).await;
    register.set("ann", &[]);
    broker.recheck_user("ann").await;
    live.publish(publish_1(2, "cars/1", "x")).await;
    live.expect_taken(QOS_1, 2, ReasonCode::NotAuthorized).await;
}

#[actix_rt::test]
async fn groups_are_stored_with_the_session() {
    let disk = Disk::default();
    let power = |register: Register| {
        disk.power_with(move |builder| {
            builder.authenticator(register).authorizer(policy(OF_GROUPS))
        })
    };
    let register = Register::default();
    register.set("ann", &["cars"]);
    let first = power(register.clone()).await;
    let packet = connect_as("ann", connect_lasting("c", V5));
    let mut client = Client::connected(&first.broker, packet).await;
    client.subscribe("cars/1", QOS_1).await;
    client.vanish().await;
    first.crash();
    // An authenticator that does not keep the groups itself: those of the login count.
    let again =
        disk.power_with(|builder| builder.authenticator(AllowAll).authorizer(policy(OF_GROUPS)));
    let again = again.await;
    assert_eq!(again.broker.client("c").await.unwrap().unwrap().subscriptions, 1);
    again.crash();
    // One that keeps them: those of today count.
    register.set("ann", &["boats"]);
    let again = power(register).await;
    assert_eq!(again.broker.client("c").await.unwrap().unwrap().subscriptions, 0);
    again.crash();
}
