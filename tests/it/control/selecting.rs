//! Requests about many clients at once.

use std::collections::BTreeSet;

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    control::{
        Caller, ClientPattern, ClientSelector, ControlError, KeepAliveChanged, KickOptions,
        SelectClients, SetKeepAlive,
    },
};

use crate::support::{Client, packets::*, world, world_where};

/// Returns the clients that a request finds, and in how many answers.
async fn selected(broker: &Broker, mut request: SelectClients) -> (Vec<String>, usize) {
    let mut all = Vec::new();
    for answers in 1.. {
        let found = broker.select(request.clone()).await.unwrap();
        all.extend(found.client_ids.iter().map(|id| id.to_string()));
        match found.next {
            Some(place) => request = request.from(place),
            None => return (all, answers),
        }
    }
    unreachable!()
}

fn pattern(text: &str) -> ClientSelector {
    ClientSelector::new().client_id(ClientPattern::new(text).unwrap())
}

#[actix_rt::test]
async fn a_selector_finds_each_client_once_in_portions() {
    let broker = world().await;
    let mut clients = Vec::new();
    for number in 0..1_200 {
        clients.push(Client::connected(&broker, connect(&format!("car-{number}"))).await);
    }
    let _other = Client::connected(&broker, connect("ship")).await;
    let _absent = Client::connected(&broker, connect_lasting("car-x", V5)).await;
    broker.kick("car-x", KickOptions::default()).await.unwrap();
    let (found, answers) = selected(&broker, SelectClients::new(pattern("car-*"))).await;
    assert_eq!(found.len(), 1_200);
    assert!((2..=6).contains(&answers), "{answers}");
    let different: BTreeSet<_> = found.iter().collect();
    assert_eq!(different.len(), found.len());
    let (found, _) = selected(&broker, SelectClients::new(pattern("car-x").with_absent())).await;
    assert_eq!(found, ["car-x"]);
    assert!(selected(&broker, SelectClients::new(pattern("car-x"))).await.0.is_empty());
}

/// Lets everybody do everything, but nobody control `secret`.
struct NotSecret;

impl Authorizer for NotSecret {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let is_forbidden = request.client_id == "secret" && request.action == Action::Control;
        if is_forbidden { Decision::Deny } else { Decision::Allow }
    }
}

#[actix_rt::test]
async fn a_selector_finds_only_what_its_caller_may_control() {
    let broker = world_where(NotSecret).await;
    let mut packet = connect("car");
    packet.username = Some("fleet");
    let _car = Client::connected(&broker, packet).await;
    let _secret = Client::connected(&broker, connect("secret")).await;
    let caller = Caller {
        identity: Identity::default(),
        peer: "192.0.2.1:1".parse().unwrap(),
        listener: "".into(),
    };
    let everybody = SelectClients::new(ClientSelector::new());
    assert_eq!(selected(&broker, everybody.clone()).await.0.len(), 2);
    assert_eq!(selected(&broker, everybody.by(caller)).await.0, ["car"]);
    let fleet = SelectClients::new(ClientSelector::new().username("fleet"));
    assert_eq!(selected(&broker, fleet).await.0, ["car"]);
}

#[actix_rt::test]
async fn a_dry_run_changes_nothing() {
    let broker = world().await;
    let mut packet = connect("car");
    packet.keep_alive = 60;
    let _car = Client::connected(&broker, packet).await;
    let deadline = async || broker.client("car").await.unwrap().unwrap().deadline_millis;
    let before = deadline().await;
    let results = broker.set_keep_alive_many(vec![
        SetKeepAlive::new("car", 300).dry_run(),
        SetKeepAlive::new("nobody", 300).dry_run(),
    ]);
    let changed = Ok(KeepAliveChanged::new(60, 300));
    assert_eq!(results.await, [changed, Err(ControlError::NotOnline)]);
    assert_eq!(broker.client("car").await.unwrap().unwrap().keep_alive_secs, 60);
    assert_eq!(deadline().await, before);
}
