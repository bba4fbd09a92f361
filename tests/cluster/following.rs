//! Followers of buckets and logs: nothing is missed, whatever happens to the servers.

use std::collections::BTreeMap;

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use hearthmq::{
    bytes::Bytes,
    internals::cluster::{
        door::{BucketEvent, Nats as _},
        names::{Bucket, Log, Sequence},
    },
    records::Revision,
};
use hearthmq_test::nats::NatsServers;
use tokio::{sync::mpsc, time::timeout};

use crate::support::{PATIENCE, WRITE, node, open, shown, until, update, write_through};

#[tokio::test]
async fn a_follower_hears_what_is_there_then_what_comes() {
    let Some(servers) = NatsServers::start(1) else { return };
    let door = open(&servers, "a").await;
    let bucket = Bucket::Members;
    let mut empty = door.watch(Bucket::Owners(1));
    assert_eq!(timeout(PATIENCE, empty.next()).await.unwrap(), Some(BucketEvent::Current));
    let first = update(&door, bucket, "a", "1", Revision(0)).await.unwrap();
    update(&door, bucket, "a", "2", first).await.unwrap();
    let third = update(&door, bucket, "b", "3", Revision(0)).await.unwrap();
    door.remove(bucket, "b", third, WRITE).await.unwrap();

    let mut events = door.watch(bucket);
    let mut next = async || shown(timeout(PATIENCE, events.next()).await.unwrap().unwrap());
    assert_eq!(next().await, ("a".to_owned(), 2, Some("2".to_owned())));
    assert_eq!(next().await, ("b".to_owned(), 4, None));
    assert_eq!(next().await, ("current".to_owned(), 0, None));
    update(&door, bucket, "b", "5", Revision(0)).await.unwrap();
    assert_eq!(next().await, ("b".to_owned(), 5, Some("5".to_owned())));
    assert!(empty.next().now_or_never().is_none());
    drop(door);
    assert_eq!(timeout(PATIENCE, empty.next()).await.unwrap(), None);
}

/// The server restarts while nobody is connected; then the follower goes on where it was.
#[tokio::test]
async fn a_follower_goes_on_after_the_restart_of_the_server() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    let (follower, writer) = (open(&servers, "a").await, open(&servers, "b").await);
    let mut events = follower.watch(Bucket::Members);
    let mut entries = follower.follow(Log::Routes, Sequence(0));
    let mut expected = Revision(0);
    for round in 0..3 {
        expected = update(&writer, Bucket::Members, "k", "v", expected).await.unwrap();
        let id = format!("{round}");
        writer.append(Log::Routes, &node("b"), &id, id.clone().into(), WRITE).await.unwrap();
        let seen = timeout(PATIENCE, async {
            loop {
                if let Some(BucketEvent::Entry(entry)) = events.next().await {
                    return entry.revision;
                }
            }
        });
        assert_eq!(seen.await.unwrap(), expected);
        let entry = timeout(PATIENCE, entries.next()).await.unwrap().unwrap();
        assert_eq!(entry.sequence, Sequence(round + 1));
        servers.kill(0);
        until(async || (!follower.is_connected() && !writer.is_connected()).then_some(())).await;
        servers.start_again(0);
        until(async || writer.read(Bucket::Members, "k", WRITE).await.ok()).await;
    }
}

/// Each server is killed in turn while a writer goes on. The log has every acknowledged entry once, in its
/// order; a follower of the bucket ends with the last state of each key.
#[tokio::test]
async fn a_follower_misses_nothing_while_servers_die() {
    let Some(mut servers) = NatsServers::start(3) else { return };
    let (follower, writer) = (open(&servers, "a").await, open(&servers, "b").await);
    let mut events = collected(follower.watch(Bucket::Owners(0)));
    let mut entries = collected(follower.follow(Log::Routes, Sequence(0)));
    let (mut acknowledged, mut last) = (Vec::new(), Revision(0));
    for victim in 0..3 {
        for step in 0..30 {
            if step == 10 {
                servers.kill(victim);
            }
            let id = (victim * 30 + step).to_string();
            last = write_through(&writer, Bucket::Owners(0), &format!("k{step}"), &id).await;
            let sequence = until(async || {
                let payload = id.clone().into();
                writer.append(Log::Routes, &node("b"), &id, payload, WRITE).await.ok()
            });
            acknowledged.push((sequence.await, id.clone()));
        }
        servers.start_again(victim);
    }
    let mut seen: Vec<(Sequence, String)> = Vec::new();
    while seen.len() < acknowledged.len() {
        let entry = timeout(PATIENCE, entries.recv()).await.unwrap().unwrap();
        seen.push((entry.sequence, String::from_utf8(entry.payload.to_vec()).unwrap()));
    }
    assert_eq!(seen, acknowledged);
    let (mut revision, mut currents, mut states) = (Revision(0), 0, BTreeMap::new());
    while revision < last || currents == 0 {
        match timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
            BucketEvent::Entry(entry) => {
                assert!(entry.revision > revision, "{entry:?} after {revision:?}");
                revision = entry.revision;
                states.insert(entry.key, entry.value.unwrap());
            }
            BucketEvent::Current => currents += 1,
        }
    }
    let expected = (0..30).map(|step| (format!("k{step}"), Bytes::from((60 + step).to_string())));
    assert_eq!((states, currents), (expected.collect(), 1));
}

/// Reads a stream from now on.
fn collected<T: Send + 'static>(mut stream: BoxStream<'static, T>) -> mpsc::UnboundedReceiver<T> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(item) = stream.next().await {
            if sender.send(item).is_err() {
                return;
            }
        }
    });
    receiver
}
