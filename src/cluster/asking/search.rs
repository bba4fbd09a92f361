//! The search for the node that has a client: its owner record, then the owner. It is pure.
//!
//! ```text
//!            known from before            holds the client
//!   begin ───────────────────▶ Ask ──────────────────────────▶ Ended
//!     │                         │ ▲
//!     │ not known    not there  │ │ the record names a node
//!     └──────────▶ Read ◀───────┘ │
//!                   │ ▲           │
//!                   │ └── Wait ◀──┤ the client is moving
//!                   └─────────────┘
//! ```
//!
//! An answer counts only from the node that owns the client, so a record from the past costs a question, and no truth.
//! While a client moves between two nodes, none of them may have its connection: the search goes on, because
//! a client is online throughout a takeover.

use super::super::{
    members::MemberStanding,
    names::NodeId,
    owner_record::{Hold, OwnerRecord},
};
use crate::journal::Revision;

/// How often a search repeats because its client is moving or its node cannot be reached.
const REPEATS_MAX: u32 = 25;

/// The next thing to do for a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchStep {
    /// Ask this node itself.
    Here,
    /// Ask another node; `by_record`: the owner record names it, so it need not prove that it owns the client.
    Ask {
        /// The node.
        node: NodeId,
        /// Whether the record names it.
        by_record: bool,
    },
    /// Read the owner record.
    Read,
    /// Wait a short time.
    Wait,
    /// Nothing.
    Ended(SearchEnd),
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchEnd {
    /// The last answer is true; without one, no node has the client.
    Answered,
    /// The client belongs to a node that does not serve: it is offline, and its session is on that node.
    Down,
    /// The node, or its record, was not reached.
    Unreachable,
}

/// The fate of a question to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerAnswer {
    /// It owns the client; whether that is connected, or the call has found what it is about.
    Owner {
        /// Whether the client is there.
        is_there: bool,
    },
    /// It owns the client, which is about to get its CONNACK.
    Arriving,
    /// It does not own the client.
    NotOwner,
    /// The question did not reach it.
    NotReached,
    /// There was no answer in time: the question may have been handled.
    Silent,
}

/// The search for one client.
#[derive(Clone, Debug)]
pub struct OwnerSearch {
    me: NodeId,
    step: SearchStep,
    /// The revision of the record that was read last, and whether its client is moving.
    read: Option<(Revision, bool)>,
    /// The revision of a record whose node has denied that it owns the client.
    denied: Option<Revision>,
    has_moved: bool,
    /// There is no record, so no other node has the client.
    is_last: bool,
    repeats: u32,
}

impl OwnerSearch {
    /// Begins a search from this node; `known` is the owner as far as is known.
    #[must_use]
    pub fn new(me: NodeId, known: Option<NodeId>) -> Self {
        let step = match known {
            Some(node) if node == me => SearchStep::Here,
            Some(node) => SearchStep::Ask { node, by_record: false },
            None => SearchStep::Read,
        };
        let (read, denied, has_moved, is_last, repeats) = (None, None, false, false, 0);
        Self { me, step, read, denied, has_moved, is_last, repeats }
    }

    /// Returns the next thing to do.
    #[must_use]
    pub const fn step(&self) -> &SearchStep {
        &self.step
    }

    /// Takes in the record, `None` for an absent one. `standing_of` tells what is known of a node.
    pub fn handle_record(
        &mut self,
        record: Option<(Revision, &OwnerRecord)>,
        standing_of: impl Fn(&NodeId) -> Option<MemberStanding>,
    ) {
        let Some((revision, record)) = record else {
            // No other node has it. This one may, without a record: the session of a bridge, for example.
            (self.read, self.is_last) = (None, true);
            self.step = SearchStep::Here;
            return;
        };
        self.is_last = false;
        let is_moving = record.hold == Hold::Taking;
        self.has_moved |= is_moving;
        self.read = Some((revision, is_moving));
        let node = record.holder().unwrap_or(&record.node).clone();
        let standing = standing_of(&node);
        self.step = if self.denied == Some(revision) && !is_moving {
            SearchStep::Ended(SearchEnd::Answered)
        } else if node == self.me {
            SearchStep::Here
        } else {
            match standing {
                Some(MemberStanding::Serving) => SearchStep::Ask { node, by_record: true },
                // A claimant goes on without a holder that has died.
                Some(MemberStanding::Dead | MemberStanding::Joining) if is_moving => {
                    self.repeat(SearchEnd::Down)
                }
                Some(MemberStanding::Dead | MemberStanding::Joining) => {
                    SearchStep::Ended(SearchEnd::Down)
                }
                // Its record comes soon.
                None => self.repeat(SearchEnd::Unreachable),
            }
        };
    }

    /// Notes that the record could not be read.
    pub fn handle_no_record(&mut self) {
        self.step = self.repeat(SearchEnd::Unreachable);
    }

    /// Takes in the answer of the node that was asked, or of this one.
    pub fn handle_answer(&mut self, answer: OwnerAnswer) {
        self.step = match (answer, self.read) {
            (OwnerAnswer::Owner { is_there: true }, _) => SearchStep::Ended(SearchEnd::Answered),
            (OwnerAnswer::NotOwner | OwnerAnswer::Owner { .. }, _) if self.is_last => {
                SearchStep::Ended(SearchEnd::Answered)
            }
            (OwnerAnswer::Arriving, _) => {
                self.has_moved = true;
                self.repeat(SearchEnd::Answered)
            }
            (OwnerAnswer::Silent, _) => SearchStep::Ended(SearchEnd::Unreachable),
            (OwnerAnswer::Owner { is_there: false }, _) if self.has_moved => {
                self.repeat(SearchEnd::Answered)
            }
            (OwnerAnswer::Owner { is_there: false }, _) => SearchStep::Ended(SearchEnd::Answered),
            // What was known is from the past.
            (OwnerAnswer::NotOwner | OwnerAnswer::NotReached, None) => {
                self.repeats += 1;
                SearchStep::Read
            }
            (OwnerAnswer::NotOwner, Some((_, true))) => self.repeat(SearchEnd::Answered),
            (OwnerAnswer::NotOwner, Some((revision, false))) => {
                // The session may have ended just now, or the record is from the past: it is read once more.
                self.denied = Some(revision);
                self.repeat(SearchEnd::Answered)
            }
            (OwnerAnswer::NotReached, Some(_)) => self.repeat(SearchEnd::Unreachable),
        };
    }

    /// Notes that the short time has passed.
    pub fn handle_waited(&mut self) {
        if self.step == SearchStep::Wait {
            self.step = SearchStep::Read;
        }
    }

    fn repeat(&mut self, end: SearchEnd) -> SearchStep {
        self.repeats += 1;
        if self.repeats > REPEATS_MAX { SearchStep::Ended(end) } else { SearchStep::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::names::{ClaimNumber, Incarnation, Term},
        *,
    };

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn record(of: &str, previous: Option<&str>) -> OwnerRecord {
        OwnerRecord {
            client_id: "car".into(),
            node: node(of),
            incarnation: Incarnation(1),
            term: Term(7),
            hold: if previous.is_some() { Hold::Taking } else { Hold::Holding },
            previous: previous.map(node),
            owed: Vec::new(),
            writer: node(of),
            claim: ClaimNumber(1),
        }
    }

    /// Of three nodes, the last one is dead.
    fn standing(of: &NodeId) -> Option<MemberStanding> {
        match of.as_str() {
            "a" | "b" => Some(MemberStanding::Serving),
            "dead" => Some(MemberStanding::Dead),
            _ => None,
        }
    }

    fn asks(name: &str, by_record: bool) -> SearchStep {
        SearchStep::Ask { node: node(name), by_record }
    }

    fn read(search: &mut OwnerSearch, revision: u64, record: &OwnerRecord) {
        search.handle_waited();
        assert_eq!(search.step(), &SearchStep::Read);
        search.handle_record(Some((Revision(revision), record)), standing);
    }

    const ANSWERED: SearchStep = SearchStep::Ended(SearchEnd::Answered);
    const THERE: OwnerAnswer = OwnerAnswer::Owner { is_there: true };
    const ABSENT: OwnerAnswer = OwnerAnswer::Owner { is_there: false };

    #[test]
    fn a_search_takes_the_record_and_the_owner() {
        let mut search = OwnerSearch::new(node("a"), None);
        read(&mut search, 1, &record("b", None));
        assert_eq!(search.step(), &asks("b", true));
        search.handle_answer(ABSENT);
        assert_eq!(search.step(), &ANSWERED);
    }

    #[test]
    fn a_known_owner_is_asked_without_the_record_and_must_be_the_owner() {
        let mut search = OwnerSearch::new(node("a"), Some(node("b")));
        assert_eq!(search.step(), &asks("b", false));
        search.handle_answer(OwnerAnswer::NotOwner);
        read(&mut search, 2, &record("a", None));
        assert_eq!(search.step(), &SearchStep::Here, "it has moved to this node");
        let mut search = OwnerSearch::new(node("a"), Some(node("b")));
        search.handle_answer(OwnerAnswer::NotReached);
        assert_eq!(search.step(), &SearchStep::Read, "it may have died");
    }

    #[test]
    fn without_a_record_only_this_node_can_have_the_client() {
        let mut search = OwnerSearch::new(node("a"), None);
        search.handle_record(None, standing);
        assert_eq!(search.step(), &SearchStep::Here);
        search.handle_answer(OwnerAnswer::NotOwner);
        assert_eq!(search.step(), &ANSWERED);
    }

    #[test]
    fn a_client_that_moves_is_searched_until_it_has_arrived() {
        let mut search = OwnerSearch::new(node("a"), None);
        read(&mut search, 1, &record("b", Some("a")));
        assert_eq!(search.step(), &SearchStep::Here, "the former holder");
        search.handle_answer(ABSENT);
        assert_eq!(search.step(), &SearchStep::Wait);
        read(&mut search, 2, &record("b", None));
        search.handle_answer(OwnerAnswer::NotOwner);
        read(&mut search, 2, &record("b", None));
        assert_eq!(search.step(), &ANSWERED, "the record is the same, and its node has no client");
        let mut search = OwnerSearch::new(node("a"), None);
        read(&mut search, 1, &record("b", Some("a")));
        search.handle_answer(ABSENT);
        read(&mut search, 2, &record("b", None));
        search.handle_answer(OwnerAnswer::Arriving);
        assert_eq!(search.step(), &SearchStep::Wait, "CONNACK follows");
        read(&mut search, 2, &record("b", None));
        search.handle_answer(THERE);
        assert_eq!(search.step(), &ANSWERED);
    }

    #[test]
    fn an_owner_that_denies_is_believed_when_the_record_stays() {
        let mut search = OwnerSearch::new(node("a"), None);
        read(&mut search, 1, &record("b", None));
        search.handle_answer(OwnerAnswer::NotOwner);
        read(&mut search, 3, &record("a", None));
        assert_eq!(search.step(), &SearchStep::Here, "the record has changed");
    }

    #[test]
    fn a_client_of_a_dead_node_is_down_and_one_of_a_silent_node_is_not_known() {
        let mut search = OwnerSearch::new(node("a"), None);
        read(&mut search, 1, &record("dead", None));
        assert_eq!(search.step(), &SearchStep::Ended(SearchEnd::Down));
        let mut search = OwnerSearch::new(node("a"), None);
        read(&mut search, 1, &record("b", None));
        search.handle_answer(OwnerAnswer::Silent);
        assert_eq!(search.step(), &SearchStep::Ended(SearchEnd::Unreachable));
    }

    #[test]
    fn every_search_ends() {
        let mut search = OwnerSearch::new(node("a"), None);
        for _ in 0..=REPEATS_MAX {
            read(&mut search, 1, &record("unknown", None));
        }
        assert_eq!(search.step(), &SearchStep::Ended(SearchEnd::Unreachable));
        let mut search = OwnerSearch::new(node("a"), None);
        for _ in 0..=REPEATS_MAX {
            read(&mut search, 1, &record("b", Some("a")));
            search.handle_answer(ABSENT);
        }
        assert_eq!(search.step(), &ANSWERED, "its claim does not end");
        let mut search = OwnerSearch::new(node("a"), None);
        for _ in 0..=REPEATS_MAX {
            search.handle_waited();
            search.handle_no_record();
        }
        assert_eq!(search.step(), &SearchStep::Ended(SearchEnd::Unreachable));
    }
}
