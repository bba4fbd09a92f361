//! Leaders of the lease buckets are on different servers, and a lease survives a server.

use std::{collections::BTreeSet, time::Duration};

use hearthmq::{
    internals::cluster::{
        door::{Nats, NatsWriteError},
        names::Bucket,
    },
    records::Revision,
};
use hearthmq_test::nats::NatsServers;
use tokio::time::sleep;

use crate::support::{open, until};

fn leaders(servers: &NatsServers) -> BTreeSet<usize> {
    (0..3).map(|one| servers.leader_of(&format!("KV_hearthmq_lease_{one}"))).collect()
}

#[tokio::test]
async fn the_leaders_of_lease_buckets_are_spread() {
    let Some(servers) = NatsServers::start(3) else { return };
    let door = open(&servers, "a").await;
    for one in 0..3 {
        servers.step_down(&format!("KV_hearthmq_lease_{one}"), 1);
    }
    assert_eq!(leaders(&servers), BTreeSet::from([1]));
    until(async || {
        door.spread_leaders().await;
        (leaders(&servers).len() == 3).then_some(())
    })
    .await;
}

/// Two of three leases are renewed while one server is dead, or frozen with the connection of the node.
#[tokio::test]
async fn a_quorum_of_leases_is_renewed_without_one_server() {
    let Some(mut servers) = NatsServers::start(3) else { return };
    let door = open(&servers, "a").await;
    until(async || {
        door.spread_leaders().await;
        (leaders(&servers).len() == 3).then_some(())
    })
    .await;
    let mut revisions = [Revision(0); 3];
    for victim in 0..3 {
        renew(&door, &mut revisions).await;
        servers.freeze(victim);
        renew(&door, &mut revisions).await;
        servers.thaw(victim);
        servers.kill(victim);
        renew(&door, &mut revisions).await;
        servers.start_again(victim);
    }
}

/// Renews as the core does, every 0.5 s with an answer within 0.5 s, until two of three are acknowledged.
async fn renew(door: &impl Nats, revisions: &mut [Revision; 3]) {
    let answer = Duration::from_millis(500);
    for _ in 0..120 {
        let renewals = (0..3).map(|one| {
            door.update(Bucket::Lease(one as u8), "a", "lease".into(), revisions[one], answer)
        });
        let outcomes = futures_util::future::join_all(renewals).await;
        let mut renewed = 0;
        for (revision, outcome) in revisions.iter_mut().zip(outcomes) {
            match outcome {
                Ok(now) => {
                    (*revision, renewed) = (now, renewed + 1);
                }
                Err(NatsWriteError::Conflict(Some(found))) => *revision = found,
                Err(NatsWriteError::Conflict(None) | NatsWriteError::Unknown) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if renewed >= 2 {
            return;
        }
        sleep(answer).await;
    }
    panic!("no quorum of leases is renewed");
}
