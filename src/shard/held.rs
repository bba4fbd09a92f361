//! The held connections of a shard: those that are not read at present. They are sorted by the reason of the hold, so
//! that only those are examined that may continue.
//!
//! Knows neither sessions nor queues; [`super::hold`] says why a connection is held, and decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{metrics::HoldReason, mqtt::Timestamp, owners::Account};

/// The interval in seconds at which a held connection checks whether its client has left. If so, the unread bytes are
/// dropped; so the first check comes after a whole interval, and a short hold loses nothing.
const ASK_EVERY_SECS: u64 = 1;

/// Maximum number of connections of one owner that continue at the same time after they waited for the store.
const OF_OWNER_AT_A_TIME: usize = 256;

/// A connection that is not read at present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) link: u64,
    pub(super) reason: HoldReason,
    pub(super) since: Timestamp,
    /// The number of the hold: connections that were held earlier have lower numbers.
    number: u64,
    /// When its rate allows the next read; `None` if another reason holds it.
    due: Option<Timestamp>,
    /// When it checks next whether its client has left; `None` if it waits for another shard, the store or the
    /// stream of retained messages, which does not take long.
    question: Option<Timestamp>,
    /// The key of its owner, if it waits for the store.
    owner: Option<usize>,
}

/// The connections of one owner that wait for the store.
struct OwnerHeld {
    account: Arc<Account>,
    /// The numbers of the holds, and the slots.
    waiting: BTreeSet<(u64, u32)>,
}

/// The event that ends the hold of a connection, besides the check of its reason.
pub(super) enum HeldUntil {
    /// A report.
    Told,
    /// This time.
    At(Timestamp),
    /// The owner has less on its way to the store.
    Stored(Arc<Account>),
}

/// All held connections of a shard.
#[derive(Default)]
pub(super) struct HeldConnections {
    held: BTreeMap<u32, Held>,
    /// Connections held by their rates, by the time of their next read.
    due: BTreeSet<(Timestamp, u32)>,
    /// Connections that check whether their clients have left, by the time of the next check.
    questions: BTreeSet<(Timestamp, u32)>,
    /// Connections that wait for other shards; they continue together.
    behind: BTreeSet<u32>,
    /// Connections that wait for the store, by their owners (the address of the account).
    for_store: BTreeMap<usize, OwnerHeld>,
    /// Connections that are examined next, whatever the reason of their hold is.
    marked: BTreeSet<u32>,
    next_number: u64,
}

impl HeldConnections {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn get(&self, slot: u32) -> Option<Held> {
        self.held.get(&slot).copied()
    }

    /// Adds a held connection.
    pub(super) fn insert(
        &mut self,
        slot: u32,
        (link, reason): (u64, HoldReason),
        now: Timestamp,
        until: HeldUntil,
    ) {
        // A connection that is now held for another reason must not stay in the sets of the former reason.
        self.remove(slot);
        let number = self.next_number;
        self.next_number += 1;
        // These holds end within milliseconds, so the question whether the client has left is not
        // worth its cost.
        // A client may close its connection directly behind a message with RETAIN, which must still be handled.
        let is_short = matches!(
            reason,
            HoldReason::ShardBehind | HoldReason::StoreBehind | HoldReason::RetainedBehind
        );
        let question = (!is_short).then(|| now.plus_secs(ASK_EVERY_SECS));
        let due = if let HeldUntil::At(due) = until { Some(due) } else { None };
        let mut owner = None;
        // By address: the account stays alive as long as it is in the map, so no other can take its address.
        if let HeldUntil::Stored(account) = until {
            let key = Arc::as_ptr(&account).addr();
            owner = Some(key);
            let new = || OwnerHeld { account, waiting: BTreeSet::new() };
            self.for_store.entry(key).or_insert_with(new).waiting.insert((number, slot));
        }
        self.held.insert(slot, Held { link, reason, since: now, number, due, question, owner });
        self.questions.extend(question.map(|at| (at, slot)));
        self.due.extend(due.map(|due| (due, slot)));
        if reason == HoldReason::ShardBehind {
            self.behind.insert(slot);
        }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Held> {
        let held = self.held.remove(&slot)?;
        if let Some(due) = held.due {
            self.due.remove(&(due, slot));
        }
        if let Some(at) = held.question {
            self.questions.remove(&(at, slot));
        }
        self.behind.remove(&slot);
        // An owner without held connections leaves the map, which also releases its account.
        if let Some(key) = held.owner
            && let Some(of_owner) = self.for_store.get_mut(&key)
        {
            of_owner.waiting.remove(&(held.number, slot));
            if of_owner.waiting.is_empty() {
                self.for_store.remove(&key);
            }
        }
        self.marked.remove(&slot);
        Some(held)
    }

    /// Marks a held connection to be examined next.
    pub(super) fn mark(&mut self, slot: u32) {
        if self.held.contains_key(&slot) {
            self.marked.insert(slot);
        }
    }

    /// Holds a connection until its rate allows more.
    pub(super) fn delay(&mut self, slot: u32, until: Timestamp) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        if let Some(due) = held.due.replace(until) {
            self.due.remove(&(due, slot));
        }
        self.due.insert((until, slot));
    }

    /// Returns the connections that must check now whether their clients have left.
    pub(super) fn take_due_questions(&mut self, now: Timestamp) -> Vec<u32> {
        let due = self.questions.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<_> = due.copied().collect();
        let next = now.plus_secs(ASK_EVERY_SECS);
        for (at, slot) in &due {
            self.questions.remove(&(*at, *slot));
            if let Some(held) = self.held.get_mut(slot) {
                held.question = Some(next);
                self.questions.insert((next, *slot));
            }
        }
        due.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Returns the connections that may be able to continue, the longest held first. They stay held until they are
    /// removed. `waits` tells whether an owner still has too much on its way to the store.
    pub(super) fn candidates(
        &mut self,
        now: Timestamp,
        is_congested: bool,
        waits: impl Fn(&Account) -> bool,
    ) -> Vec<u32> {
        let mut found = std::mem::take(&mut self.marked);
        found.extend(self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, slot)| *slot));
        if !is_congested {
            found.extend(&self.behind);
        }
        for of_owner in self.for_store.values().filter(|of_owner| !waits(&of_owner.account)) {
            let first = of_owner.waiting.iter().take(OF_OWNER_AT_A_TIME);
            found.extend(first.map(|(_, slot)| *slot));
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_by_key(|slot| self.held.get(slot).map(|held| held.number));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::Limits,
        owners::{Owner, Owners},
    };

    const RATE: HoldReason = HoldReason::RateLimit;
    const FULL: HoldReason = HoldReason::SubscriberFull;
    const BEHIND: HoldReason = HoldReason::ShardBehind;

    fn at(millis: u64) -> Timestamp {
        Timestamp(1_000_000 + millis)
    }

    #[test]
    fn those_that_may_go_on_come_in_the_order_in_which_they_were_held() {
        let mut held = HeldConnections::default();
        held.insert(5, (1, FULL), at(0), HeldUntil::Told);
        held.insert(9, (1, RATE), at(0), HeldUntil::At(at(20)));
        held.insert(2, (1, BEHIND), at(0), HeldUntil::Told);
        held.insert(1, (1, RATE), at(0), HeldUntil::At(at(10)));
        assert!(held.candidates(at(5), true, |_| true).is_empty());
        assert_eq!(held.candidates(at(10), true, |_| true), [1]);
        held.mark(5);
        held.mark(77);
        assert_eq!(held.candidates(at(20), false, |_| true), [5, 9, 2, 1]);
        // A mark counts once; the others are returned until they are removed or delayed.
        assert_eq!(held.candidates(at(20), true, |_| true), [9, 1]);
        held.delay(9, at(30));
        held.remove(1);
        assert!(held.candidates(at(29), true, |_| true).is_empty());
        assert_eq!(held.candidates(at(30), true, |_| true), [9]);
        // A slot has one connection.
        held.insert(9, (2, FULL), at(30), HeldUntil::Told);
        assert_eq!((held.candidates(at(99), true, |_| true), held.len()), (vec![], 3));
        for slot in [5, 9, 2] {
            held.remove(slot);
        }
        assert!(held.is_empty() && held.due.is_empty() && held.behind.is_empty());
        assert!(held.questions.is_empty());
    }

    #[test]
    fn each_that_may_be_held_for_long_is_asked_for_its_client_every_second() {
        let mut held = HeldConnections::default();
        held.insert(1, (1, FULL), at(0), HeldUntil::Told);
        held.insert(2, (1, BEHIND), at(0), HeldUntil::Told);
        held.insert(3, (1, RATE), at(500), HeldUntil::At(at(9_000)));
        let mut asked = Vec::new();
        for millis in (0..3_000).step_by(100) {
            let due = held.take_due_questions(at(millis));
            asked.extend(due.into_iter().map(|slot| (millis, slot)));
        }
        assert_eq!(asked, [(1_000, 1), (1_500, 3), (2_000, 1), (2_500, 3)]);
        held.remove(1);
        assert_eq!(held.take_due_questions(at(9_000)), [3]);
    }

    /// As many connections are examined as can continue, whatever the number of held connections is.
    #[test]
    fn nobody_is_looked_at_in_vain() {
        let mut held = HeldConnections::default();
        for slot in 0..10_000 {
            held.insert(slot, (1, RATE), at(0), HeldUntil::At(at(1 + u64::from(slot))));
        }
        for slot in 10_000..20_000 {
            held.insert(slot, (1, FULL), at(0), HeldUntil::Told);
        }
        let (mut looked_at, mut gone_on) = (0, 0);
        for millis in (0..=10_000).step_by(5) {
            for slot in held.candidates(at(millis), true, |_| true) {
                looked_at += 1;
                gone_on += usize::from(held.remove(slot).is_some());
            }
        }
        assert_eq!((looked_at, gone_on, held.len()), (10_000, 10_000, 10_000));
    }

    /// Connections of one owner continue together, a bounded number at a time; those of others are not affected.
    #[test]
    fn those_that_wait_for_the_store_go_on_with_their_owner() {
        const STORE: HoldReason = HoldReason::StoreBehind;
        let owners = Owners::new(&Limits::default(), None);
        let account = |name: &str| owners.account(Owner::User(name.into()), None);
        let (ann, ben) = (account("ann"), account("ben"));
        let mut held = HeldConnections::default();
        for slot in 0..OF_OWNER_AT_A_TIME as u32 + 1 {
            held.insert(slot, (1, STORE), at(0), HeldUntil::Stored(ann.clone()));
        }
        held.insert(999, (1, STORE), at(0), HeldUntil::Stored(ben.clone()));
        assert!(held.candidates(at(1), false, |_| true).is_empty());
        assert_eq!(held.candidates(at(1), true, |account| std::ptr::eq(account, &*ann)), [999]);
        let first = held.candidates(at(1), true, |account| std::ptr::eq(account, &*ben));
        assert_eq!((first.len(), first.first()), (OF_OWNER_AT_A_TIME, Some(&0)));
        for slot in first {
            held.remove(slot);
        }
        assert_eq!(held.candidates(at(1), true, |_| false), [OF_OWNER_AT_A_TIME as u32, 999]);
        held.remove(OF_OWNER_AT_A_TIME as u32);
        held.remove(999);
        assert!(held.is_empty() && held.for_store.is_empty());
    }
}
