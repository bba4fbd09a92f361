//! Writes: what each outcome says, while servers live and when they do not.

use hearthmq::{
    internals::cluster::{
        door::{Nats as _, NatsAskError, NatsWriteError},
        names::{Bucket, Log, Sequence},
        nats::{ClusterPrefix, NatsDoor, NatsSettings},
    },
    records::Revision,
};
use hearthmq_test::nats::NatsServers;

use crate::support::{WRITE, node, open, settings, until, update, write_through};

#[tokio::test]
async fn a_key_is_written_only_over_the_expected_revision() {
    let Some(servers) = NatsServers::start(1) else { return };
    let door = open(&servers, "a").await;
    let bucket = Bucket::Members;
    assert_eq!(door.read(bucket, "k", WRITE).await, Ok(None));
    let first = update(&door, bucket, "k", "1", Revision(0)).await.unwrap();
    let conflict = Err(NatsWriteError::Conflict(Some(first)));
    assert_eq!(update(&door, bucket, "k", "2", Revision(0)).await, conflict);
    assert_eq!(update(&door, bucket, "k", "2", Revision(first.0 + 1)).await, conflict);
    let second = update(&door, bucket, "k", "2", first).await.unwrap();
    assert!(second > first);
    let entry = door.read(bucket, "k", WRITE).await.unwrap().unwrap();
    assert_eq!((entry.revision, entry.value.as_deref()), (second, Some(&b"2"[..])));

    let conflict = Err(NatsWriteError::Conflict(Some(second)));
    assert_eq!(door.remove(bucket, "k", first, WRITE).await, conflict);
    let removed = door.remove(bucket, "k", second, WRITE).await.unwrap();
    let entry = door.read(bucket, "k", WRITE).await.unwrap().unwrap();
    assert_eq!((entry.revision, entry.value), (removed, None));
    assert_eq!(
        update(&door, bucket, "k", "3", second).await,
        Err(NatsWriteError::Conflict(Some(removed)))
    );
    let third = update(&door, bucket, "k", "3", Revision(0)).await.unwrap();
    assert!(third > removed);
    let never = Err(NatsWriteError::Conflict(Some(Revision(0))));
    assert_eq!(update(&door, bucket, "other", "1", third).await, never);
}

/// The removal of the record of an owner leaves no mark.
#[tokio::test]
async fn a_removed_owner_leaves_nothing() {
    let Some(servers) = NatsServers::start(1) else { return };
    let door = open(&servers, "a").await;
    let bucket = Bucket::Owners(3);
    let first = update(&door, bucket, "k", "1", Revision(0)).await.unwrap();
    let other = update(&door, bucket, "other", "1", Revision(0)).await.unwrap();
    let removed = door.remove(bucket, "k", first, WRITE).await.unwrap();
    assert_eq!(door.read(bucket, "k", WRITE).await, Ok(None));
    assert_eq!(servers.messages_of("KV_hearthmq_owners_3"), 1, "the other record");
    let conflict = Err(NatsWriteError::Conflict(Some(Revision(0))));
    assert_eq!(update(&door, bucket, "k", "2", removed).await, conflict);
    assert!(update(&door, bucket, "k", "2", Revision(0)).await.unwrap() > removed);
    assert_eq!(update(&door, bucket, "other", "2", Revision(0)).await, {
        Err(NatsWriteError::Conflict(Some(other)))
    });
}

/// Of many nodes that claim at the same time, one has the key, also over the mark of a removal.
#[tokio::test]
async fn of_nodes_that_write_at_the_same_time_one_succeeds() {
    let Some(servers) = NatsServers::start(1) else { return };
    let doors = futures_util::future::join_all(
        (0..4).map(async |number| open(&servers, &format!("n{number}")).await),
    );
    let doors = doors.await;
    for round in 0..20 {
        let claims = doors.iter().enumerate().flat_map(|(number, door)| {
            let text = number.to_string();
            (0..4).map(move |_| {
                let text = text.clone();
                async move { update(door, Bucket::Members, "k", &text, Revision(0)).await }
            })
        });
        let outcomes = futures_util::future::join_all(claims).await;
        let won: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(won.len(), 1, "round {round}: {outcomes:?}");
        doors[0].remove(Bucket::Members, "k", *won[0], WRITE).await.unwrap();
    }
}

#[tokio::test]
async fn a_log_takes_each_identifier_once_and_is_cut() {
    let Some(servers) = NatsServers::start(1) else { return };
    let door = open(&servers, "a").await;
    let (a, b) = (node("a"), node("b"));
    let append = async |of, id, text: &'static str| {
        door.append(Log::Routes, of, id, text.into(), WRITE).await.unwrap().0
    };
    assert_eq!(append(&a, "1", "one").await, 1);
    assert_eq!(append(&b, "2", "two").await, 2);
    assert_eq!(append(&a, "1", "one").await, 1);
    assert_eq!(append(&a, "3", "three").await, 3);
    door.cut(Log::Routes, &a, Sequence(3)).await.unwrap();
    let mut entries = door.follow(Log::Routes, Sequence(0));
    for (of, sequence) in [(&b, 2), (&a, 3)] {
        let entry = futures_util::StreamExt::next(&mut entries).await.unwrap();
        assert_eq!((&entry.node, entry.sequence), (of, Sequence(sequence)));
    }
}

#[tokio::test]
async fn clusters_with_other_prefixes_do_not_meet() {
    let Some(servers) = NatsServers::start(1) else { return };
    let first = open(&servers, "a").await;
    let prefix = ClusterPrefix::new("other").unwrap();
    let other = NatsSettings { prefix, ..settings(&servers, "a") };
    let second = NatsDoor::open(&other).await.unwrap();
    update(&first, Bucket::Members, "a", "1", Revision(0)).await.unwrap();
    assert_eq!(second.read(Bucket::Members, "a", WRITE).await, Ok(None));
    update(&second, Bucket::Members, "a", "2", Revision(0)).await.unwrap();
    let entry = first.read(Bucket::Members, "a", WRITE).await.unwrap().unwrap();
    assert_eq!(entry.value.as_deref(), Some(&b"1"[..]));
}

#[tokio::test]
async fn a_stream_with_other_settings_is_refused() {
    let Some(servers) = NatsServers::start(1) else { return };
    drop(open(&servers, "a").await);
    let more = NatsSettings { replicas: 3, ..settings(&servers, "a") };
    let error = NatsDoor::open(&more).await.unwrap_err().to_string();
    assert!(error.contains("its number of replicas is 1, not 3"), "{error}");
}

/// The server is frozen while it has the write: nobody knows what becomes of it, until it goes on.
#[tokio::test]
async fn a_write_without_an_answer_has_an_unknown_outcome() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    let door = open(&servers, "a").await;
    let first = update(&door, Bucket::Members, "k", "1", Revision(0)).await.unwrap();
    servers.freeze(0);
    let unknown = Err(NatsWriteError::Unknown);
    assert_eq!(update(&door, Bucket::Members, "k", "2", first).await, unknown);
    servers.thaw(0);
    // The write that had no answer is in one of two states, and the revision tells which.
    let last = write_through(&door, Bucket::Members, "k", "3").await;
    assert!(last > first);

    servers.kill(0);
    until(async || (!door.is_connected()).then_some(())).await;
    assert_eq!(update(&door, Bucket::Members, "k", "4", last).await, unknown);
    assert_eq!(door.read(Bucket::Members, "k", WRITE).await, Err(NatsAskError::Unreachable));
    servers.start_again(0);
    // What was acknowledged survives, and what was not sent does not come later.
    until(async || {
        let entry = door.read(Bucket::Members, "k", WRITE).await.ok()??;
        assert_eq!((entry.revision, entry.value.as_deref()), (last, Some(&b"3"[..])));
        Some(())
    })
    .await;
}

/// Two of three servers are dead: nothing is agreed on. When one is back, everything goes on.
#[tokio::test]
async fn without_a_quorum_no_write_is_acknowledged() {
    let Some(mut servers) = NatsServers::start(3) else { return };
    let door = open(&servers, "a").await;
    let first = update(&door, Bucket::Members, "k", "1", Revision(0)).await.unwrap();
    servers.kill(0);
    let second = write_through(&door, Bucket::Members, "k", "2").await;
    assert!(second > first);
    servers.kill(1);
    for bucket in [Bucket::Members, Bucket::Lease(0), Bucket::Lease(1), Bucket::Lease(2)] {
        for number in 0..5 {
            let outcome = update(&door, bucket, "k", &number.to_string(), second).await;
            // A leader that has not noticed yet may still tell a conflict.
            assert!(outcome.is_err(), "{bucket}: {outcome:?}");
        }
    }
    servers.start_again(1);
    let third = write_through(&door, Bucket::Members, "k", "3").await;
    assert!(third > second);
}
