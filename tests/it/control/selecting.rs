//! Requests about many clients at once.

use std::collections::BTreeSet;

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    control::{
        Caller, ClientPattern, ClientSelector, ControlError, KeepAliveChanged, Kick, KickOptions,
        ListOverrides, SelectClients, SetKeepAlive,
    },
    mqtt::Connect,
};

use crate::{
    between_shards::Shards,
    support::{Client, disk::Disk, packets::*, world, world_where},
};

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
    let changed = Ok(KeepAliveChanged::new("hearthmq", 60, 300));
    assert_eq!(results.await, [changed, Err(ControlError::NotOnline)]);
    assert_eq!(broker.client("car").await.unwrap().unwrap().keep_alive_secs, 60);
    assert_eq!(deadline().await, before);
}

#[actix_rt::test]
async fn requests_about_many_clients_reach_all_shards() {
    let disk = Disk::default();
    let shards = Shards::within(3, &disk, |_| {}).await;
    let broker = &shards.powered.broker;
    let mut clients = Vec::new();
    for (number, shard) in [2, 0, 1, 0].into_iter().enumerate() {
        let id = shards.resident(&format!("car-{number}"), shard);
        let packet = Connect { keep_alive: 60, ..connect(&id) };
        clients.push(Client::connected(broker, packet).await);
    }
    let (mut found, _) = selected(broker, SelectClients::new(pattern("car-*"))).await;
    found.sort();
    assert_eq!(found.len(), 4);
    let requests = found.iter().map(|id| SetKeepAlive::new(id.clone(), 300).sticky());
    let results = broker.set_keep_alive_many(requests.collect()).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    for id in &found {
        assert_eq!(broker.client(id).await.unwrap().unwrap().keep_alive_secs, 300);
    }
    let listed = broker.keep_alive_overrides(ListOverrides::new(3)).await.unwrap();
    assert_eq!(
        listed.iter().map(|it| &it.client_id).collect::<Vec<_>>(),
        found[..3].iter().collect::<Vec<_>>()
    );
    let rest = ListOverrides::new(3).after(&*found[2]);
    let rest = broker.keep_alive_overrides(rest).await.unwrap();
    assert_eq!(rest.iter().map(|it| &it.client_id).collect::<Vec<_>>(), [&found[3]]);
    let kicks = found.iter().map(|id| Kick::new(id.clone(), KickOptions::new()));
    assert!(broker.kick_many(kicks.collect()).await.iter().all(Result::is_ok));
    assert!(selected(broker, SelectClients::new(pattern("car-*"))).await.0.is_empty());
}
