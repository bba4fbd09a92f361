//! Lists of clients: their order, their pages, and the clients that they show.

use std::sync::Arc;

use hearthmq::{
    Broker,
    auth::{AccessRequest, Action, Authorizer, Decision, Identity},
    control::{Caller, ClientFilter, ClientPattern, ClientSummary, CountClients, ListClients},
};

use crate::{
    between_shards::Shards,
    support::{Client, disk::Disk, packets::*, pass, secs, world, world_where},
};

fn all() -> ClientFilter {
    ClientFilter::default()
}

fn ids_of(clients: &[ClientSummary]) -> Vec<&str> {
    clients.iter().map(|client| &*client.client_id).collect()
}

/// Returns the identifiers of all pages, and checks that only the last page has no successor.
async fn walk(broker: &Broker, first: ListClients) -> Vec<Arc<str>> {
    let (mut found, mut question) = (Vec::new(), first);
    loop {
        let page = broker.list_clients(question.clone()).await.unwrap();
        found.extend(page.clients.iter().map(|client| client.client_id.clone()));
        let Some(next) = page.next else { return found };
        assert_eq!(page.clients.len(), question.limit);
        question = question.after(next);
    }
}

async fn selected(broker: &Broker, filter: ClientFilter) -> Vec<String> {
    let page = broker.list_clients(ListClients::new(filter.clone(), 1_000)).await.unwrap();
    let count = broker.count_clients(CountClients::new(filter)).await.unwrap();
    assert_eq!(count, page.clients.len() as u64);
    ids_of(&page.clients).into_iter().map(str::to_owned).collect()
}

#[actix_rt::test]
async fn the_pages_of_several_shards_are_one_list_in_the_order_of_the_bytes() {
    let disk = Disk::default();
    let shards = Shards::within(3, &disk, |_| {}).await;
    let broker = &shards.powered.broker;
    let mut names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    names.extend(["", "C", "c", "c/", "ü", "\u{10000}", "\u{ffff}"].map(|name| format!("x{name}")));
    let mut clients = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let client = Client::connected(broker, connect_lasting(name, V5)).await;
        // A session without its client is listed, too.
        if number % 3 == 0 { client.vanish().await } else { clients.push(client) }
    }
    pass(secs(1)).await;
    names.sort_unstable();
    for limit in [1, 2, 7, names.len() - 1, names.len(), names.len() + 1] {
        let found = walk(broker, ListClients::new(all(), limit)).await;
        assert_eq!(
            found,
            names.iter().map(|name| Arc::from(&**name)).collect::<Vec<_>>(),
            "{limit}"
        );
    }
    let count = broker.count_clients(CountClients::new(all())).await;
    assert_eq!(count, Ok(names.len() as u64));
}

#[actix_rt::test]
async fn who_is_there_throughout_a_walk_appears_once_whatever_comes_and_goes() {
    let disk = Disk::default();
    let shards = Shards::within(2, &disk, |_| {}).await;
    let broker = &shards.powered.broker;
    let mut stay = Vec::new();
    for number in 0..30 {
        stay.push(Client::connected(broker, connect(&format!("stays-{number:02}"))).await);
    }
    let (mut found, mut question) = (Vec::new(), ListClients::new(all(), 4));
    let mut guests: Vec<Client> = Vec::new();
    for round in 0.. {
        let page = broker.list_clients(question.clone()).await.unwrap();
        found.extend(page.clients.iter().map(|client| client.client_id.clone()));
        let Some(next) = page.next else { break };
        question = question.after(next);
        for guest in guests.drain(..) {
            guest.vanish().await;
        }
        // One before, one behind, and one of those that stay again.
        for name in [format!("guest-{round}"), format!("z-{round}"), format!("stays-{round:02}x")] {
            guests.push(Client::connected(broker, connect(&name)).await);
        }
        let again = format!("stays-{:02}", round * 4 % 30);
        stay.push(Client::connected(broker, connect(&again)).await);
        pass(secs(1)).await;
    }
    for number in 0..30 {
        let name = format!("stays-{number:02}");
        assert_eq!(found.iter().filter(|found| ***found == *name).count(), 1, "{name}");
    }
    assert!(found.is_sorted());
}

/// More clients than a shard examines in one turn, most of which are not meant.
#[actix_rt::test]
async fn a_few_are_found_among_many() {
    let broker = world().await;
    let mut clients = Vec::new();
    for number in 0..700 {
        clients.push(Client::connected(&broker, connect(&format!("car-{number:03}"))).await);
    }
    let matching = |pattern: &str| ClientFilter {
        client_id: Some(ClientPattern::new(pattern).unwrap()),
        ..all()
    };
    assert_eq!(selected(&broker, matching("*-*99")).await.len(), 7);
    assert_eq!(selected(&broker, matching("car-69*")).await.len(), 10);
    assert_eq!(selected(&broker, matching("car-699")).await, ["car-699"]);
    assert!(selected(&broker, matching("carx*")).await.is_empty());
    assert_eq!(walk(&broker, ListClients::new(matching("*7"), 10)).await.len(), 70);
    let ids: Vec<String> = (0..900).rev().map(|number| format!("car-{number:03}")).collect();
    let among =
        || all().among(ids.iter().map(String::as_str)).among(["car-5", "car-500", "a", "car-0"]);
    assert_eq!(selected(&broker, among()).await, ["car-500"]);
    let among = all().among(ids.iter().map(String::as_str));
    assert_eq!(walk(&broker, ListClients::new(among, 50)).await.len(), 700);
}

#[actix_rt::test]
async fn clients_are_selected_by_what_they_are() {
    let broker = world().await;
    let mut old = connect_in(V3_1_1, "old");
    old.keep_alive = 600;
    old.username = Some("ann");
    let _old = Client::connected(&broker, old).await;
    let mut new = connect("new");
    new.keep_alive = 30;
    let mut new = Client::connected(&broker, new).await;
    let mut away = Client::connected(&broker, connect_lasting("away", V5)).await;
    away.subscribe("t", QOS_1).await;
    away.vanish().await;
    pass(secs(20)).await;
    new.ping().await;
    new.publish(publish_1(1, "t", "x")).await;
    new.expect(puback(1, hearthmq::mqtt::ReasonCode::Success)).await;
    let cases: &[(ClientFilter, &[&str])] = &[
        (ClientFilter { online: Some(true), ..all() }, &["new", "old"]),
        (ClientFilter { online: Some(false), ..all() }, &["away"]),
        (ClientFilter { protocol: Some(4), ..all() }, &["old"]),
        (ClientFilter { protocol: Some(5), ..all() }, &["new"]),
        (ClientFilter { username: Some("ann".into()), ..all() }, &["old"]),
        (ClientFilter { keep_alive_secs_min: Some(31), ..all() }, &["old"]),
        (ClientFilter { keep_alive_secs_max: Some(599), ..all() }, &["new"]),
        (ClientFilter { idle_secs_min: Some(20), ..all() }, &["old"]),
        (ClientFilter { idle_secs_min: Some(21), ..all() }, &[]),
        (ClientFilter { queued_min: Some(1), ..all() }, &["away"]),
        (ClientFilter { network: "192.0.2.0/24".parse().ok(), ..all() }, &["away", "new", "old"]),
        (ClientFilter { network: "10.0.0.0/8".parse().ok(), ..all() }, &[]),
        (ClientFilter { listener: Some("in-process".into()), ..all() }, &["away", "new", "old"]),
        (ClientFilter { listener: Some("tcp://x".into()), ..all() }, &[]),
    ];
    for (filter, expected) in cases {
        assert_eq!(selected(&broker, filter.clone()).await, *expected, "{filter:?}");
    }
    let page = broker.list_clients(ListClients::new(all(), 10)).await.unwrap();
    let [away, new, old] = &*page.clients else { panic!("{page:?}") };
    assert_eq!((away.online, away.keep_alive_secs, away.subscriptions), (false, None, 1));
    assert!(away.expires_at_millis.is_some() && away.last_packet_at_millis.is_none());
    assert_eq!((new.online, new.keep_alive_secs, new.expires_at_millis), (true, Some(30), None));
    let idle = new.last_packet_at_millis.unwrap() - old.last_packet_at_millis.unwrap();
    assert!((20_000..21_000).contains(&idle), "{idle}");
    assert_eq!((old.username.as_deref(), old.version > 0), (Some("ann"), true));
}

/// Lets `ops` observe the cars, and control everything.
struct CarsInSight;

impl Authorizer for CarsInSight {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let AccessRequest { identity, client_id, peer, listener, action } = request;
        let is_allowed = match action {
            Action::Observe => {
                identity.username.as_deref() == Some("ops")
                    && client_id.starts_with("car-")
                    && peer.ip().is_loopback()
                    && *listener == "https://127.0.0.1:8443"
            }
            _ => true,
        };
        if is_allowed { Decision::Allow } else { Decision::Deny }
    }
}

#[actix_rt::test]
async fn a_list_and_a_count_have_the_clients_that_the_caller_may_observe() {
    let broker = world_where(CarsInSight).await;
    let mut clients = Vec::new();
    for name in ["bus-1", "car-1", "car-2", "ship"] {
        clients.push(Client::connected(&broker, connect(name)).await);
    }
    let named = |name: &str| Identity { username: Some(name.into()), ..Identity::default() };
    let ops = Caller {
        identity: named("ops"),
        peer: "127.0.0.1:4711".parse().unwrap(),
        listener: "https://127.0.0.1:8443".into(),
    };
    let ben = Caller { identity: named("ben"), ..ops.clone() };
    for (caller, expected) in [(ops, vec!["car-1", "car-2"]), (ben, vec![])] {
        let question = ListClients::new(all(), expected.len().max(1)).by(caller.clone());
        let page = broker.list_clients(question).await.unwrap();
        assert_eq!(ids_of(&page.clients), expected);
        assert_eq!(page.next, None, "what is hidden does not follow");
        let count = broker.count_clients(CountClients::new(all()).by(caller)).await;
        assert_eq!(count, Ok(expected.len() as u64));
    }
}

#[actix_rt::test]
async fn sessions_of_the_store_are_listed_and_ended_ones_are_not() {
    let disk = Disk::default();
    let powered = disk.power().await;
    for name in ["b", "a"] {
        Client::connected(&powered.broker, connect_lasting(name, V5)).await.vanish().await;
    }
    let mut packet = connect("will");
    packet.will = Some(will("w", "x"));
    let _will = Client::connected(&powered.broker, packet).await;
    pass(secs(1)).await;
    powered.plug.pull();
    let powered = disk.power().await;
    assert_eq!(selected(&powered.broker, all()).await, ["a", "b"]);
    let mut starts_clean = connect("a");
    starts_clean.clean_start = true;
    Client::connected(&powered.broker, starts_clean).await.leave().await;
    pass(secs(1)).await;
    assert_eq!(selected(&powered.broker, all()).await, ["b"]);
}
