//! Dialogues of a claimant and of a holder.

use bytes::Bytes;

use super::{
    AskNumber, CLAIM_WAITS_MILLIS_MAX, CLAIMS_IN_FLIGHT_MAX, ClientOwners, ConnectNumber,
    ConnectRefusal, CustodyState, Hold, OlderCopy, OwnerRecord, OwnerStep, ReleaseReply,
    ReleaseRequest,
};
use crate::{
    cluster::{
        door::KeyWrite,
        mail::Mail,
        members::Lives,
        names::{ClientKey, Incarnation, MessageId, MessageSource, NodeId, Term},
        wire,
    },
    journal::Revision,
    mqtt::{QoS, Timestamp},
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LIFE: Incarnation = Incarnation(3);

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

struct Dead(&'static [&'static str]);

impl Lives for Dead {
    fn is_dead(&self, node: &NodeId) -> bool {
        self.0.contains(&node.as_str())
    }
}

const KEY: ClientKey = ClientKey(5);

fn steps(owners: &mut ClientOwners, now: Timestamp) -> Vec<OwnerStep> {
    owners.handle_time(&Dead(&[]), now);
    std::iter::from_fn(|| owners.poll_step()).collect()
}

fn record_of(steps: &[OwnerStep]) -> (OwnerRecord, KeyWrite) {
    let write = steps.iter().find_map(|step| {
        let OwnerStep::Write(write) = step else { return None };
        Some(write.clone())
    });
    let write = write.expect("a write");
    (wire::decode(&write.value).unwrap(), write)
}

fn held_by_b() -> OwnerRecord {
    OwnerRecord {
        client_id: "car".into(),
        node: node("b"),
        incarnation: LIFE,
        term: Term(9),
        hold: Hold::Holding,
        previous: None,
        owed: Vec::new(),
        writer: node("b"),
        claim: Default::default(),
    }
}

#[test]
fn connack_comes_after_the_confirmation_and_a_reconnect_writes_nothing() {
    let mut owners = ClientOwners::new(node("a"), LIFE);
    owners.handle_connect(KEY, "car", ConnectNumber(1), NOW);
    assert_eq!(steps(&mut owners, NOW), [OwnerStep::Read(KEY)]);
    owners.handle_read(KEY, Revision(4), Some(&held_by_b()), &Dead(&[]), NOW);
    let (taking, write) = record_of(&steps(&mut owners, NOW));
    assert_eq!((taking.hold, taking.previous), (Hold::Taking, Some(node("b"))));
    assert_eq!((write.expected, taking.term), (Revision(4), Term(NOW.millis() / 1000)));
    owners.handle_written(write.request, Some(Revision(5)), NOW);
    let request = ReleaseRequest { key: KEY, term: taking.term };
    assert_eq!(steps(&mut owners, NOW), [OwnerStep::Release(node("b"), request)]);
    let reply = ReleaseReply::Session { copy: Bytes::from_static(b"s"), has_rest: true };
    owners.handle_release_reply(&node("b"), request, reply, NOW);
    let adopt = OwnerStep::Adopt(KEY, taking.term, Some(Bytes::from_static(b"s")));
    assert_eq!(steps(&mut owners, NOW), [adopt]);
    owners.handle_adopted(KEY, taking.term, NOW);
    let asked = steps(&mut owners, NOW);
    let (holding, write) = record_of(&asked);
    assert_eq!(asked.len(), 1, "no CONNACK yet: {asked:?}");
    assert_eq!((holding.hold, &holding.owed[..]), (Hold::Holding, &[node("b")][..]));
    owners.handle_written(write.request, Some(Revision(6)), NOW);
    let admitted = OwnerStep::Admit(ConnectNumber(1), KEY, taking.term);
    assert!(steps(&mut owners, NOW).contains(&admitted));
    owners.handle_connect(KEY, "car", ConnectNumber(2), NOW);
    assert_eq!(steps(&mut owners, NOW), [OwnerStep::Admit(ConnectNumber(2), KEY, taking.term)]);
}

#[test]
fn a_session_that_cannot_be_stored_goes_back_to_its_holder() {
    let mut owners = ClientOwners::new(node("a"), LIFE);
    owners.handle_connect(KEY, "car", ConnectNumber(1), NOW);
    owners.handle_read(KEY, Revision(4), Some(&held_by_b()), &Dead(&[]), NOW);
    let (taking, write) = record_of(&steps(&mut owners, NOW));
    owners.handle_written(write.request, Some(Revision(5)), NOW);
    let request = ReleaseRequest { key: KEY, term: taking.term };
    let reply = ReleaseReply::Session { copy: Bytes::from_static(b"s"), has_rest: false };
    owners.handle_release_reply(&node("b"), request, reply, NOW);
    owners.handle_not_adopted(KEY, Term(taking.term.0 + 1), NOW);
    assert!(!steps(&mut owners, NOW).iter().any(|step| matches!(step, OwnerStep::Write(_))));
    owners.handle_not_adopted(KEY, taking.term, NOW);
    let (given_back, write) = record_of(&steps(&mut owners, NOW));
    assert_eq!((given_back.node, given_back.hold), (node("b"), Hold::Holding));
    assert_eq!((given_back.term, write.expected), (Term(taking.term.0 + 1), Revision(5)));
    owners.handle_written(write.request, Some(Revision(6)), NOW);
    let refused = OwnerStep::Refuse(ConnectNumber(1), ConnectRefusal::Unavailable);
    assert_eq!(steps(&mut owners, NOW), [refused]);
    assert!(owners.custody(KEY).is_none() && !owners.is_claiming(KEY));
}

#[test]
fn all_doubtful_sessions_are_looked_at_however_many_they_are() {
    const SESSIONS: u128 = 1_000;
    let mut owners = ClientOwners::new(node("a"), LIFE);
    for key in 0..SESSIONS {
        owners.restore(ClientKey(key), Term(0), CustodyState::Own, NOW);
    }
    let mut read = std::collections::BTreeSet::new();
    for second in 0..17 {
        // No record is found, so all stay doubtful.
        for step in steps(&mut owners, NOW.plus_secs(second)) {
            let OwnerStep::Read(key) = step else { panic!("{step:?}") };
            read.insert(key);
        }
    }
    assert_eq!(read.len() as u128, SESSIONS);
}

#[test]
fn a_dead_holder_is_owed_and_not_asked() {
    let mut owners = ClientOwners::new(node("a"), LIFE);
    owners.handle_connect(KEY, "car", ConnectNumber(1), NOW);
    owners.handle_read(KEY, Revision(4), Some(&held_by_b()), &Dead(&["b"]), NOW);
    let (record, write) = record_of(&steps(&mut owners, NOW));
    assert_eq!((record.hold, record.previous), (Hold::Holding, None));
    assert_eq!(record.owed, [node("b")]);
    owners.handle_written(write.request, Some(Revision(5)), NOW);
    owners.handle_adopted(KEY, record.term, NOW);
    // Only what had no other way is certainly not delivered by the dead node.
    let source = MessageSource { store: 1, incarnation: LIFE, shard: 0 };
    let (id, qos) = (MessageId { source, number: 1 }, QoS::ExactlyOnce);
    let (topic, content) = (Box::from("t"), Bytes::new());
    let mut mail = Mail { id, qos, is_alone: true, topic, content };
    let custody = owners.custody(KEY).unwrap();
    assert!(custody.may_queue_mail(&mail, None));
    mail.is_alone = false;
    assert!(!custody.may_queue_mail(&mail, None));
    assert!(!custody.may_queue_mail(&mail, Some(Term(record.term.0 - 1))), "by an older record");
    assert!(custody.may_queue_mail(&mail, Some(record.term)));
}

#[test]
fn a_write_whose_outcome_is_unknown_is_made_again_until_its_record_is_seen() {
    let mut owners = ClientOwners::new(node("a"), LIFE);
    owners.handle_connect(KEY, "car", ConnectNumber(1), NOW);
    owners.handle_read(KEY, Revision(0), None, &Dead(&[]), NOW);
    let (record, write) = record_of(&steps(&mut owners, NOW));
    owners.handle_written(write.request, None, NOW);
    let later = NOW.plus_millis(400);
    assert_eq!(steps(&mut owners, later), [OwnerStep::Read(KEY)]);
    // An answer from the past tells nothing.
    owners.handle_read(KEY, Revision(0), None, &Dead(&[]), later);
    let (again, _) = record_of(&steps(&mut owners, later.plus_millis(400)));
    assert_eq!(again, record);
    owners.handle_read(KEY, Revision(8), Some(&record), &Dead(&[]), later);
    let adopt = OwnerStep::Adopt(KEY, record.term, None);
    assert!(steps(&mut owners, later).contains(&adopt));
}

#[test]
fn a_release_of_a_lower_term_is_refused_and_the_same_term_gets_the_same_answer() {
    let mut owners = ClientOwners::new(node("b"), LIFE);
    owners.restore(KEY, Term(9), CustodyState::Own, NOW);
    let release = |term: u64| ReleaseRequest { key: KEY, term: Term(term) };
    let old = |ask: u64| OwnerStep::Answer(AskNumber(ask), ReleaseReply::Old);
    owners.handle_release(release(9), AskNumber(1), NOW);
    assert_eq!(owners.poll_step(), Some(old(1)));
    for ask in [2, 3] {
        owners.handle_release(release(12), AskNumber(ask), NOW);
        assert_eq!(owners.poll_step(), Some(OwnerStep::Offer(KEY, Term(12), AskNumber(ask))));
    }
    owners.handle_release(release(11), AskNumber(4), NOW);
    assert_eq!(owners.poll_step(), Some(old(4)));
    assert!(!owners.custody(KEY).unwrap().may_queue_qos2());
}

#[test]
fn a_storm_of_connects_is_bounded_and_late_ones_are_refused_before_a_write() {
    let mut owners = ClientOwners::new(node("a"), LIFE);
    for number in 0..100 {
        let connect = ConnectNumber(number);
        owners.handle_connect(ClientKey(u128::from(number)), "car", connect, NOW);
    }
    let reads = steps(&mut owners, NOW);
    assert_eq!(reads.len(), CLAIMS_IN_FLIGHT_MAX);
    let late = NOW.plus_millis(CLAIM_WAITS_MILLIS_MAX);
    let refused = steps(&mut owners, late).into_iter();
    let refused = refused.filter(|step| matches!(step, OwnerStep::Refuse(_, ConnectRefusal::Busy)));
    assert_eq!(refused.count(), 100 - CLAIMS_IN_FLIGHT_MAX);
}

#[test]
fn versions_of_a_term_have_an_order_and_end_below_2_to_the_53() {
    let term = Term::next(Some(Term(9)), 5).unwrap();
    assert_eq!(term, Term(10));
    assert_eq!(Term::next(None, 1_700_000_000), Some(Term(1_700_000_000)));
    assert!(term.version(0) < term.version(1));
    assert_eq!(term.version((1 << 20) - 1), None, "that one is node_down's");
    assert!(term.version((1 << 20) - 2) < Some(term.node_down_version()));
    assert!(term.node_down_version() < Term(11).version(0).unwrap());
    assert!(Term::MAX.node_down_version() < 1 << 53);
    assert_eq!(Term::next(Some(Term::MAX), 0), None);
}

#[test]
fn a_claim_that_is_undone_still_names_this_node_as_owed() {
    let mut owners = ClientOwners::new(node("a"), LIFE);
    owners.handle_connect(KEY, "car", ConnectNumber(1), NOW);
    let found = OwnerRecord { owed: vec![node("a")], ..held_by_b() };
    owners.handle_read(KEY, Revision(4), Some(&found), &Dead(&[]), NOW);
    let (taking, write) = record_of(&steps(&mut owners, NOW));
    assert_eq!(taking.owed, [node("a")]);
    owners.handle_written(write.request, Some(Revision(5)), NOW);
    // The holder does not answer.
    let late = NOW.plus_millis(super::CLAIM_MILLIS_MAX);
    steps(&mut owners, NOW);
    steps(&mut owners, late);
    let (undone, _) = record_of(&steps(&mut owners, late));
    assert_eq!((undone.node, undone.hold), (node("b"), Hold::Holding));
    assert_eq!((undone.owed, undone.term), (vec![node("a")], Term(taking.term.0 + 1)));
}

/// A claim of term 10 was undone, in term 11, before the claim of term 12 was offered the session. A node that reads
/// the record of term 11 after the offer must not take it for the end of that claim: two nodes would own it.
#[test]
fn a_record_from_before_the_offer_gives_nothing_back() {
    let mut owners = ClientOwners::new(node("b"), LIFE);
    owners.restore(KEY, Term(9), CustodyState::Own, NOW);
    let claim = ReleaseRequest { key: KEY, term: Term(12) };
    owners.handle_release(claim, AskNumber(1), NOW);
    owners.handle_offered(AskNumber(1), Some((Bytes::from_static(b"s"), false)));
    steps(&mut owners, NOW);
    let undone = |term| OwnerRecord { term: Term(term), writer: node("a"), ..held_by_b() };
    owners.handle_read(KEY, Revision(5), Some(&undone(11)), &Dead(&[]), NOW);
    assert_eq!(owners.custody(KEY).unwrap().state, CustodyState::Offered(Term(12)));
    owners.handle_read(KEY, Revision(7), Some(&undone(13)), &Dead(&[]), NOW);
    assert_eq!(owners.custody(KEY).unwrap().state, CustodyState::Own);
    assert_eq!(owners.custody(KEY).unwrap().term, Term(13));
}

/// Seed 1209 of the simulated clusters lost a message here: this node had confirmed, another one had claimed
/// after that and given up, and this node came back with the copy still pending.
#[test]
fn a_pending_copy_counts_when_a_later_claim_was_undone() {
    let pending = |record: OwnerRecord| {
        let mut owners = ClientOwners::new(node("a"), LIFE);
        owners.restore_pending(KEY, Term(10), NOW);
        owners.handle_read(KEY, Revision(7), Some(&record), &Dead(&[]), NOW);
        steps(&mut owners, NOW)
    };
    let held_by_a = OwnerRecord { node: node("a"), term: Term(12), ..held_by_b() };
    let settled = pending(OwnerRecord { writer: node("b"), ..held_by_a.clone() });
    assert!(settled.contains(&OwnerStep::Settle(KEY, Term(10), OlderCopy::Whole)), "{settled:?}");
    // A later claim of this node itself.
    let dropped = pending(OwnerRecord { writer: node("a"), ..held_by_a });
    assert!(dropped.contains(&OwnerStep::Drop(KEY)), "{dropped:?}");
}

/// The earlier life stored whether the previous holder has more only in the record that it did not write.
#[test]
fn a_confirmation_that_is_written_again_names_the_previous_holder_as_owed() {
    let mut owners = ClientOwners::new(node("a"), LIFE);
    owners.restore_pending(KEY, Term(10), NOW);
    let taking = OwnerRecord {
        node: node("a"),
        term: Term(10),
        hold: Hold::Taking,
        previous: Some(node("b")),
        ..held_by_b()
    };
    owners.handle_read(KEY, Revision(7), Some(&taking), &Dead(&[]), NOW);
    let (record, _) = record_of(&steps(&mut owners, NOW));
    assert_eq!((record.hold, record.owed), (Hold::Holding, vec![node("b")]));
}
