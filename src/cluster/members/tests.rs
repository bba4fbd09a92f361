//! Dialogues of a node with leases and records of members.

use super::{EndOfLife, MemberRecord, MemberStanding, Membership, MembershipEvent};
use crate::{
    cluster::{
        door::{KeyWrite, NatsWriteError},
        lease::{EXPIRE_AFTER_MILLIS, FENCE_AFTER_MILLIS, Lease, RENEW_EVERY_MILLIS},
        names::{Bucket, Incarnation, NodeId},
        wire,
    },
    journal::Revision,
    mqtt::Timestamp,
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LIFE: Incarnation = Incarnation(3);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn lease(generation: u32, is_expired: bool) -> Lease {
    Lease { incarnation: LIFE, generation, is_expired }
}

fn writes(member: &mut Membership, now: Timestamp) -> Vec<KeyWrite> {
    std::iter::from_fn(|| member.poll_write(now)).collect()
}

/// A node `a` that serves, its leases at revision 1 and its record at revision 2.
fn serving() -> Membership {
    let mut member = Membership::new(node("a"), 7, LIFE);
    for bucket in [Bucket::Lease(0), Bucket::Lease(1), Bucket::Lease(2), Bucket::Members] {
        member.handle_current(bucket);
    }
    for (round, event) in [None, Some(MembershipEvent::Prepare), Some(MembershipEvent::Served)]
        .into_iter()
        .enumerate()
    {
        for write in writes(&mut member, NOW) {
            let revision = if write.bucket == Bucket::Members { 1 + round as u64 / 2 } else { 1 };
            member.handle_written(write.request, Ok(Revision(revision)), NOW);
        }
        member.handle_time(NOW);
        assert_eq!(member.poll_event(), event, "round {round}");
        member.handle_prepared();
    }
    member
}

#[test]
fn a_node_acts_until_four_seconds_after_the_second_newest_sending() {
    let mut member = serving();
    let later = NOW.plus_millis(RENEW_EVERY_MILLIS);
    let renewals = writes(&mut member, later);
    assert_eq!(renewals.len(), 3);
    // One answer is not enough: two buckets decide.
    member.handle_written(renewals[0].request, Ok(Revision(2)), later.plus_millis(400));
    assert_eq!(member.valid_until(), Some(NOW.plus_millis(FENCE_AFTER_MILLIS)));
    member.handle_written(renewals[1].request, Ok(Revision(2)), later.plus_millis(400));
    let until = later.plus_millis(FENCE_AFTER_MILLIS);
    assert_eq!(member.valid_until(), Some(until));
    assert!(member.may_act(Timestamp(until.millis() - 1)));
    assert!(!member.may_act(until));
    assert_eq!(member.poll_event(), Some(MembershipEvent::Ended(EndOfLife::LeaseLost)));
    // A late answer does not bring it back.
    member.handle_written(renewals[2].request, Ok(Revision(2)), until);
    assert!(!member.may_act(until) && writes(&mut member, until).is_empty());
}

#[test]
fn a_node_does_not_renew_over_a_mark_before_it_has_a_new_generation() {
    let mut member = serving();
    let mark = wire::encode(&lease(0, true));
    member.handle_lease(1, node("a"), Revision(5), Some(&mark), NOW);
    let later = NOW.plus_millis(RENEW_EVERY_MILLIS);
    let asked = writes(&mut member, later);
    let buckets: Vec<_> = asked.iter().map(|write| write.bucket).collect();
    assert_eq!(buckets, [Bucket::Members, Bucket::Lease(0), Bucket::Lease(2)]);
    let record: MemberRecord = wire::decode(&asked[0].value).unwrap();
    assert_eq!((record.generation, record.standing), (1, MemberStanding::Serving));
    member.handle_written(asked[0].request, Ok(Revision(9)), later);
    let renewal = &writes(&mut member, later)[0];
    assert_eq!((renewal.bucket, renewal.expected), (Bucket::Lease(1), Revision(5)));
    assert_eq!(wire::decode(&renewal.value), Ok(lease(1, false)));
}

/// Lets a serving node see another member `b` with leases in all buckets.
fn sees_b(member: &mut Membership, generation: u32, revision: u64) {
    let record = MemberRecord {
        store: 8,
        incarnation: LIFE,
        generation,
        standing: MemberStanding::Serving,
        keepers: Vec::new(),
    };
    let record = wire::encode(&record);
    member.handle_member(node("b"), Revision(revision), Some(&record), NOW);
}

/// Renews the own leases at a time.
fn renew(member: &mut Membership, now: Timestamp) -> Vec<KeyWrite> {
    let (own, others): (Vec<_>, Vec<_>) =
        writes(member, now).into_iter().partition(|write| write.key == "a");
    for write in own {
        member.handle_written(write.request, Ok(Revision(now.millis())), now);
    }
    others
}

#[test]
fn two_marks_of_one_generation_are_a_verdict_and_one_of_an_older_one_does_not_count() {
    let mut member = serving();
    sees_b(&mut member, 0, 20);
    let bytes = wire::encode(&lease(0, false));
    for bucket in 0..3 {
        member.handle_lease(bucket, node("b"), Revision(1), Some(&bytes), NOW);
    }
    for second in 1..6 {
        assert!(renew(&mut member, NOW.plus_millis(second * 1000)).is_empty());
    }
    let expired = NOW.plus_millis(EXPIRE_AFTER_MILLIS);
    let marks = renew(&mut member, expired);
    assert_eq!(marks.len(), 3, "each bucket is marked over the revision that was seen");
    assert!(marks.iter().all(|mark| mark.expected == Revision(1)));
    member.handle_written(marks[0].request, Ok(Revision(2)), expired);
    // The node has a new generation: its mark of the older one proves nothing any more.
    sees_b(&mut member, 1, 21);
    member.handle_written(marks[1].request, Ok(Revision(2)), expired);
    member.handle_written(marks[2].request, Err(NatsWriteError::Unknown), expired);
    assert!(renew(&mut member, expired).iter().all(|write| write.bucket != Bucket::Members));
    // Marks of the new generation are.
    let mark = wire::encode(&lease(1, true));
    member.handle_lease(0, node("b"), Revision(3), Some(&mark), expired);
    member.handle_lease(1, node("b"), Revision(3), Some(&mark), expired);
    let asked = renew(&mut member, expired);
    let verdict = asked.iter().find(|write| write.bucket == Bucket::Members).unwrap();
    let record: MemberRecord = wire::decode(&verdict.value).unwrap();
    assert_eq!((record.standing, record.keeper()), (MemberStanding::Dead, Some(&node("a"))));
    assert_eq!(verdict.expected, Revision(21));
}
