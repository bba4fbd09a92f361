//! The records of a cluster keep the promises of records, on all nodes, and without one server.

use std::{sync::Arc, time::Duration};

use hearthmq::{
    internals::cluster::nats::{NatsDoor, NatsSettings},
    records::{Expected, Put, RecordChange, RecordKey, Records, RecordsError},
};
use hearthmq_test::{
    nats::NatsServers,
    records_contract::{every_promise, next},
};

use crate::support::{Cable, open, settings, until};

fn name(key: &str) -> RecordKey {
    RecordKey::new("app/test", key).unwrap()
}

async fn records(door: &NatsDoor) -> Arc<dyn Records> {
    Arc::new(door.records().await.unwrap())
}

#[tokio::test]
async fn records_on_one_server_keep_every_promise() {
    let Some(servers) = NatsServers::start(1) else { return };
    let door = open(&servers, "a").await;
    every_promise(&records(&door).await).await;
}

/// With three servers, then with one of them killed, and the one that leads the bucket last.
#[tokio::test]
async fn records_on_three_servers_keep_every_promise_without_one_of_them() {
    let Some(mut servers) = NatsServers::start(3) else { return };
    let door = open(&servers, "a").await;
    let records = records(&door).await;
    every_promise(&records).await;
    let stream = "KV_hearthmq_records";
    for is_leader in [false, true] {
        let leader = servers.leader_of(stream);
        let victim = if is_leader { leader } else { (leader + 1) % 3 };
        servers.kill(victim);
        until(async || records.put(Put::new(name("again"), "")).await.ok()).await;
        every_promise(&records).await;
        servers.start_again(victim);
    }
}

#[tokio::test]
async fn nodes_see_the_changes_of_each_other_and_of_former_runs() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    let (first, second) = (open(&servers, "a").await, open(&servers, "b").await);
    let (a, b) = (records(&first).await, records(&second).await);
    let mut changes = b.watch("app/test");
    let revision = a.put(Put::new(name("k"), "1")).await.unwrap();
    let RecordChange::Put(of, record) = next(&mut changes).await else { panic!("it is put") };
    assert_eq!((of, record.revision, &record.value[..]), (name("k"), revision, &b"1"[..]));
    let late = a.put(Put::new(name("k"), "2").expecting(Expected::At(revision))).await.unwrap();
    let lost = b.put(Put::new(name("k"), "3").expecting(Expected::At(revision))).await;
    assert_eq!(lost, Err(RecordsError::Conflict(Some(late))));
    // The loser sees at once what it has lost against.
    assert_eq!(b.get(&name("k")).await.unwrap().unwrap().revision, late);
    b.remove(name("k"), Expected::At(late)).await.unwrap();
    until(async || a.get(&name("k")).await.unwrap().is_none().then_some(())).await;
    let again = a.put(Put::new(name("k"), "4").expecting(Expected::Absent)).await.unwrap();

    servers.kill(0);
    until(async || (!first.is_connected()).then_some(())).await;
    let lost = a.put(Put::new(name("k"), "5")).await;
    assert_eq!(lost, Err(RecordsError::Unavailable));
    assert_eq!(a.get(&name("k")).await.unwrap().unwrap().revision, again, "it is read on");
    servers.start_again(0);
    let third = open(&servers, "c").await;
    let c = records(&third).await;
    let found = c.get(&name("k")).await.unwrap().unwrap();
    assert_eq!((found.revision, &found.value[..]), (again, &b"4"[..]));
    until(async || a.put(Put::new(name("k"), "6")).await.ok()).await;
    until(async || (c.get(&name("k")).await.unwrap()?.value == "6").then_some(())).await;
}

/// Marks of removals are taken away while one node has no connection: it reads everything once more, and
/// sees that the records are gone.
#[tokio::test]
async fn a_node_with_a_gap_learns_of_removals_whose_marks_are_gone() {
    let Some(servers) = NatsServers::start(1) else { return };
    let first = open(&servers, "a").await;
    let cable = Cable::to(&servers.url(0)).await;
    let second = NatsSettings { servers: vec![cable.url()], ..settings(&servers, "b") };
    let second = NatsDoor::open(&second).await.unwrap();
    let a = first.records_with(Duration::from_millis(500)).await.unwrap();
    let b = records(&second).await;
    for key in ["k1", "k2", "k3"] {
        a.put(Put::new(name(key), "")).await.unwrap();
    }
    until(async || b.get(&name("k3")).await.unwrap()).await;
    let mut changes = b.watch("app/test");
    cable.cut();
    until(async || (!second.is_connected()).then_some(())).await;
    for key in ["k1", "k2"] {
        a.remove(name(key), Expected::Any).await.unwrap();
    }
    // One record and the note are left.
    until(async || (servers.messages_of("KV_hearthmq_records") == 2).then_some(())).await;
    assert_eq!(b.list("app/test", None, 9).await.unwrap().len(), 3, "it has what it had");
    cable.mend();
    for key in ["k1", "k2"] {
        let RecordChange::Removed(of, _) = next(&mut changes).await else { panic!("it is gone") };
        assert_eq!(of, name(key));
    }
    assert_eq!(b.list("app/test", None, 9).await.unwrap().len(), 1);
    // Where no mark is, a record may be written as for the first time.
    b.put(Put::new(name("k1"), "1").expecting(Expected::Absent)).await.unwrap();
    until(async || a.get(&name("k1")).await.unwrap()).await;
}
