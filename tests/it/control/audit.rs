//! The audit log: changes by callers and by clients, over restarts and within its bound.

use hearthmq::{
    Broker,
    control::{AccessControl as _, AuditEntry, ListAudit},
    mqtt::Connect,
};

use crate::support::{Client, disk::Disk, packets::*, pass, secs, world, world_within};

fn entry(user: &str, target: &str) -> AuditEntry {
    let mut entry = AuditEntry::new("test");
    entry.user = Some(user.into());
    entry.target = Some(target.into());
    entry
}

fn connect_as<'a>(user: &'a str, connect: Connect<'a>) -> Connect<'a> {
    Connect { username: Some(user), ..connect }
}

async fn targets(broker: &Broker) -> Vec<String> {
    let found = broker.list_audit(ListAudit::new(100)).await.unwrap();
    found.iter().map(|entry| entry.target.as_deref().unwrap_or("none").to_owned()).collect()
}

#[actix_rt::test]
async fn what_a_client_changes_of_itself_is_noted() {
    let broker = world().await;
    let mut client = Client::connected(
        &broker,
        Connect { keep_alive: 60, ..connect_as("ann", connect("car-1")) },
    )
    .await;
    client.publish(publish("$SETOPTS/mqtt/keepalive", "90")).await;
    client.ping().await;
    let found = broker.list_audit(ListAudit::new(10)).await.unwrap();
    let [noted] = &*found else { panic!("{found:?}") };
    assert_eq!(&*noted.action, "$SETOPTS/mqtt/keepalive");
    assert_eq!((noted.user.as_deref(), noted.target.as_deref()), (Some("ann"), Some("car-1")));
    assert_eq!((noted.old.as_deref(), noted.new.as_deref()), (Some("60"), Some("90")));
    assert_eq!(noted.address.unwrap().to_string(), "192.0.2.7:40000");
}

#[actix_rt::test]
async fn entries_outlive_the_broker_and_their_numbers_go_on() {
    let disk = Disk::default();
    let first = disk.power().await;
    first.broker.note_audit(entry("ann", "1"));
    first.broker.note_audit(entry("ann", "2"));
    assert!(first.broker.flush_store(secs(10)));
    first.crash();
    let second = disk.power().await;
    second.broker.note_audit(entry("ben", "3"));
    let found = second.broker.list_audit(ListAudit::new(100)).await.unwrap();
    let numbers: Vec<_> = found.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let mut question = ListAudit::new(1);
    question.after = 1;
    assert_eq!(second.broker.list_audit(question).await.unwrap()[0].number, 2);
}

#[actix_rt::test]
async fn an_account_that_changes_much_loses_its_own_entries() {
    let broker = world_within(|limits| limits.audit_entries_max = 4).await;
    broker.note_audit(entry("ann", "first"));
    for number in 0..10 {
        broker.note_audit(entry("busy", &number.to_string()));
    }
    assert_eq!(targets(&broker).await, ["first", "7", "8", "9"]);
}

#[actix_rt::test]
async fn without_room_there_are_no_entries() {
    let broker = world_within(|limits| limits.audit_entries_max = 0).await;
    broker.note_audit(entry("ann", "x"));
    assert!(targets(&broker).await.is_empty());
}

/// The entries of two users have numbers in turn, and are in different records.
#[actix_rt::test]
async fn entries_that_come_fast_are_stored_soon_and_listed_in_order() {
    const ENTRIES: u64 = 700;
    let disk = Disk::default();
    let first = disk.power().await;
    for number in 1..=ENTRIES {
        first.broker.note_audit(entry(["ann", "ben"][number as usize % 2], &number.to_string()));
    }
    pass(secs(1)).await;
    first.crash();
    let second = disk.power().await;
    let mut question = ListAudit::new(250);
    let mut found = Vec::new();
    loop {
        let page = second.broker.list_audit(question.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        question.after = last.number;
        found.extend(page);
    }
    let numbers =
        found.iter().map(|entry| (entry.number, entry.target.as_deref().unwrap().to_owned()));
    let expected = (1..=ENTRIES).map(|number| (number, number.to_string()));
    assert!(numbers.eq(expected));
    second.broker.note_audit(entry("ann", "next"));
    question.after = ENTRIES;
    assert_eq!(second.broker.list_audit(question).await.unwrap()[0].number, ENTRIES + 1);
}

/// They are written under a lock, so a block of long ones must not become large.
#[actix_rt::test]
async fn long_entries_are_collected_up_to_a_number_of_bytes() {
    const BYTES: usize = 4_000;
    let disk = Disk::default();
    let first = disk.power().await;
    let long = "x".repeat(1_000);
    for _ in 0..100 {
        let mut entry = entry("ann", &long);
        (entry.old, entry.new) = (Some((&*long).into()), Some((&*long).into()));
        entry.listener = Some((&*long).into());
        first.broker.note_audit(entry);
    }
    pass(std::time::Duration::from_millis(50)).await; // less than entries are collected for
    first.crash();
    let second = disk.power().await;
    let found = second.broker.list_audit(ListAudit::new(1_000)).await.unwrap().len();
    assert!(found > 100 - 64 * 1_024 / BYTES, "{found} were handed over");
}
