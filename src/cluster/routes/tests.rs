//! Dialogues with the routes of a node, and of the others.

use super::{AppliedMarks, OwnRoutes, RemoteRoutes, SUBACK_WAITS_MILLIS_MAX};
use crate::{
    cluster::names::{Incarnation, NodeId, Sequence},
    mqtt::Timestamp,
};

const NOW: Timestamp = Timestamp(1_000_000);
const A: Incarnation = Incarnation(3);
const B: Incarnation = Incarnation(7);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn append(own: &mut OwnRoutes, remote: &mut [&mut RemoteRoutes], sequence: &mut u64) {
    while let Some(append) = own.poll_append(NOW) {
        *sequence += 1;
        for remote in &mut *remote {
            remote.handle_entry(&node("a"), Sequence(*sequence), &append.payload);
            // Written twice, applied once.
            remote.handle_entry(&node("a"), Sequence(*sequence), &append.payload);
        }
        own.handle_appended(append.number, Sequence(*sequence));
    }
}

#[test]
fn suback_waits_until_every_serving_node_has_applied_the_filter() {
    let (mut own, mut remote, mut at) = (OwnRoutes::new(A), RemoteRoutes::new(node("b")), 0);
    own.begin();
    append(&mut own, &mut [&mut remote], &mut at);
    assert!(own.is_begun());
    assert_eq!(own.placed(["x"]), None, "no subscriber is no place");
    own.add("x");
    let number = own.wait(vec!["x".into()], NOW);
    append(&mut own, &mut [&mut remote], &mut at);
    assert_eq!(remote.nodes_with("x").collect::<Vec<_>>(), [&node("a")]);
    let (a, b) = (node("a"), node("b"));
    let serving = [(&a, A), (&b, B)];
    let mut applied = AppliedMarks::default();
    applied.handle_applied(&a, A, Sequence(at));
    applied.handle_applied(&b, B, Sequence(at - 1));
    assert_eq!(own.poll_suback(&applied, serving.into_iter(), NOW), None);
    applied.handle_applied(&b, B, remote.applied());
    let ready = own.poll_suback(&applied, serving.into_iter(), NOW).unwrap();
    assert_eq!((ready.number, ready.is_everywhere), (number, true));
}

#[test]
fn a_node_that_does_not_apply_a_filter_is_not_awaited_for_longer_than_a_second() {
    let mut own = OwnRoutes::new(A);
    own.begin();
    own.add("x");
    own.wait(vec!["x".into()], NOW);
    let (b, applied) = (node("b"), AppliedMarks::default());
    let serving = [(&b, B)];
    let late = NOW.plus_millis(SUBACK_WAITS_MILLIS_MAX);
    let early = Timestamp(late.millis() - 1);
    assert_eq!(own.poll_suback(&applied, serving.into_iter(), early), None);
    assert!(!own.poll_suback(&applied, serving.into_iter(), late).unwrap().is_everywhere);
}

#[test]
fn snapshots_and_changes_give_every_node_the_same_filters() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut own = OwnRoutes::new(A);
    let (mut early, mut late, mut at) =
        (RemoteRoutes::new(node("b")), RemoteRoutes::new(node("c")), 0);
    let mut naive = std::collections::BTreeMap::<String, usize>::new();
    own.begin();
    for step in 0..20_000 {
        let filter = format!("f{}", rng.u32(0..40));
        let count = naive.entry(filter.clone()).or_default();
        if *count > 0 && rng.bool() {
            *count -= 1;
            own.remove(&filter);
        } else if *count < 3 {
            *count += 1;
            own.add(&filter);
        }
        if rng.u8(0..5) == 0 {
            // Another node begins late, with a snapshot that came meanwhile.
            let mut nodes = vec![&mut early];
            if step > 10_000 {
                nodes.push(&mut late);
            }
            append(&mut own, &mut nodes, &mut at);
        }
    }
    append(&mut own, &mut [&mut early, &mut late], &mut at);
    assert!(own.poll_cut().is_some(), "changes outgrow the snapshot");
    for (filter, count) in naive {
        let is_there = |remote: &RemoteRoutes| remote.nodes_with(&filter).next().is_some();
        assert_eq!((is_there(&early), is_there(&late)), (count > 0, count > 0), "{filter}");
    }
}
