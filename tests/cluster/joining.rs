//! Nodes join, see each other, end, and begin again, with real NATS servers.

use std::{path::Path, sync::Arc, time::Duration};

use hearthmq::internals::cluster::{
    life_file::LifeFile,
    members::{EndOfLife, LifePhase, MemberStanding},
    names::Incarnation,
    nats::{NatsDoor, NatsSettings},
    node::{ClusterNode, NodeStatus},
};
use hearthmq_test::nats::NatsServers;
use tempfile::{TempDir, tempdir};
use tokio::time::{Instant, timeout};

use crate::support::{Cable, PATIENCE, node, settings};

/// A node must not be declared dead earlier than this after its last renewal.
const EXPIRE_AFTER: Duration = Duration::from_secs(6);

async fn join(settings: &NatsSettings, directory: &Path) -> ClusterNode {
    let door = Arc::new(NatsDoor::open(settings).await.unwrap());
    let file = LifeFile::new(directory.to_owned());
    ClusterNode::start(door, settings.node.clone(), file).unwrap()
}

async fn wait(node: &ClusterNode, is_it: impl FnMut(&NodeStatus) -> bool) -> NodeStatus {
    timeout(PATIENCE, node.wait_for(is_it)).await.expect("it does not happen").unwrap()
}

/// Returns whether a node sees a member with this standing, in this life or a later one.
fn sees<'a>(
    name: &'a str,
    standing: MemberStanding,
    life: u64,
) -> impl FnMut(&NodeStatus) -> bool + 'a {
    move |status| {
        status
            .members
            .get(&node(name))
            .is_some_and(|member| member.standing == standing && member.incarnation.0 >= life)
    }
}

async fn serves(one: &ClusterNode) -> NodeStatus {
    let status = wait(one, |status| status.phase == LifePhase::Serving).await;
    assert!(one.may_act());
    status
}

/// Three servers, three nodes: each serves, and sees that the others do.
#[tokio::test]
async fn nodes_join_and_see_each_other() {
    let Some(servers) = NatsServers::start(3) else { return };
    let homes: Vec<TempDir> = (0..3).map(|_| tempdir().unwrap()).collect();
    let mut nodes = Vec::new();
    for (name, home) in ["a", "b", "c"].into_iter().zip(&homes) {
        nodes.push(join(&settings(&servers, name), home.path()).await);
    }
    for one in &nodes {
        assert_eq!(serves(one).await.incarnation, Incarnation(1));
        for other in ["a", "b", "c"] {
            wait(one, sees(other, MemberStanding::Serving, 1)).await;
        }
    }
}

/// A node that ends is declared dead by another one, which is its keeper, and not before six seconds. It
/// comes back as a later incarnation.
#[tokio::test]
async fn a_node_that_ends_is_declared_dead_and_comes_back_in_a_later_life() {
    let Some(servers) = NatsServers::start(1) else { return };
    let (home, other_home) = (tempdir().unwrap(), tempdir().unwrap());
    let a = join(&settings(&servers, "a"), home.path()).await;
    let b = join(&settings(&servers, "b"), other_home.path()).await;
    serves(&a).await;
    serves(&b).await;
    wait(&a, sees("b", MemberStanding::Serving, 1)).await;
    let ended = Instant::now();
    drop(b);
    let status = wait(&a, sees("b", MemberStanding::Dead, 1)).await;
    // The last renewal was sent up to two seconds before the end.
    assert!(ended.elapsed() >= EXPIRE_AFTER - Duration::from_secs(2), "declared dead early");
    assert_eq!(status.members[&node("b")].keeper, Some(node("a")));
    assert!(a.may_act());
    let b = join(&settings(&servers, "b"), other_home.path()).await;
    assert_eq!(serves(&b).await.incarnation, Incarnation(2));
    wait(&a, sees("b", MemberStanding::Serving, 2)).await;
}

/// When the others see that a node is dead that lost NATS, it has stopped to act; with NATS it begins again.
#[tokio::test]
async fn a_node_without_nats_stops_to_act_before_it_is_declared_dead() {
    let Some(servers) = NatsServers::start(1) else { return };
    let (home, other_home) = (tempdir().unwrap(), tempdir().unwrap());
    let a = join(&settings(&servers, "a"), home.path()).await;
    let cable = Cable::to(&servers.url(0)).await;
    let far = NatsSettings { servers: vec![cable.url()], ..settings(&servers, "b") };
    let b = join(&far, other_home.path()).await;
    serves(&a).await;
    serves(&b).await;
    wait(&a, sees("b", MemberStanding::Serving, 1)).await;
    cable.cut();
    wait(&a, sees("b", MemberStanding::Dead, 1)).await;
    assert!(!b.may_act(), "two nodes hold that they may act for the same clients");
    assert_eq!(wait(&b, |b| b.last_end.is_some()).await.last_end, Some(EndOfLife::LeaseLost));
    cable.mend();
    wait(&a, sees("b", MemberStanding::Serving, 2)).await;
    serves(&b).await;
}

/// A second process of the same name, with another store, waits for the end of the first one.
#[tokio::test]
async fn a_second_node_of_the_same_name_waits_for_the_end_of_the_first() {
    let Some(servers) = NatsServers::start(1) else { return };
    let (home, other_home) = (tempdir().unwrap(), tempdir().unwrap());
    let first = join(&settings(&servers, "a"), home.path()).await;
    serves(&first).await;
    let second = join(&settings(&servers, "a"), other_home.path()).await;
    wait(&second, sees("a", MemberStanding::Serving, 1)).await;
    let status = second.status();
    assert_eq!((status.phase, second.may_act()), (LifePhase::Announcing, false));
    assert!(first.may_act());
    drop(first);
    assert!(serves(&second).await.incarnation > Incarnation(1));
}
