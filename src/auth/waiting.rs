//! The logins that wait, for a hash or for any check, and the order in which they are served.
//!
//! Hashes are expensive and strangers are many, so the order decides which clients get in.
//! **Precedence comes first**: pairs of user and address that logged in before, then addresses
//! without failures. But one turn in four starts with the second group, so that it does not starve.
//! Addresses with failures have turns of their own. **Within a precedence the networks take
//! turns**: first the region that was served longest ago, within it the site, within that the
//! address. On a tie the oldest and the newest login take turns, so that a login that has just come
//! need not wait behind a wave of strangers that came before it.
//!
//! Each address may hold a share of the places. When all places are taken, a login displaces
//! another one that ranks behind it: of a lower precedence, or of a network with more waiting logins,
//! the largest network first.
//!
//! Pure: no clock, no threads. Called by the hashing of accounts and by the REST interface, which
//! uses the places alone.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
};

use super::{Precedence, origin::Origin};

use Precedence::{Failed, Fresh, Known};

/// Returns the divisor of a share: one address may use 1/n of all places for logins of this precedence.
const fn share_of(precedence: Precedence) -> usize {
    match precedence {
        Known => 2,
        Fresh => 16,
        Failed => 128,
    }
}

/// The order of the precedences, turn by turn.
const TURNS: [[Precedence; 2]; 4] =
    [[Known, Fresh], [Known, Fresh], [Known, Fresh], [Fresh, Known]];

/// Number of networks of each size whose last turn is remembered. More than can wait at any time,
/// so that a network that returns immediately goes to the end of the line.
const SERVED_MAX: usize = 8_192;

/// Lower limit of a share, however few places there are.
const SHARE_MIN: usize = 4;

/// If the room is full, this many waiting logins are examined to find one to displace.
const LOOKED_AT: usize = 24;

/// The places for waiting logins. `T` notifies a login that its turn has come.
pub(crate) struct WaitingRoom<T> {
    /// The logins of each precedence.
    waiting: [Vec<WaitingLogin<T>>; 3],
    places_max: usize,
    has_shares: bool,
    /// Number of waiting logins of each region, site and address.
    counts: [HashMap<u128, usize>; 3],
    /// Number of waiting logins of each address and precedence.
    shares: HashMap<(u128, Precedence), usize>,
    served: [LastTurns; 3],
    turns: u64,
    /// Turns for logins from addresses without failures.
    turns_without_failures: usize,
    last_id: u64,
    /// For each precedence, whether its newest login comes next on a tie.
    is_newest_next: [bool; 3],
}

struct WaitingLogin<T> {
    id: u64,
    levels: [u128; 3],
    token: T,
}

/// The place of a login.
pub(crate) struct Entered<T> {
    /// Identifies the place in [`WaitingRoom::leave`].
    pub(crate) id: u64,
    /// The login that had to give up its place for this one.
    pub(crate) displaced: Option<T>,
}

impl<T> WaitingRoom<T> {
    /// Creates a room in which each address has a share of the places.
    pub(crate) fn new(places_max: usize) -> Self {
        Self {
            waiting: Default::default(),
            places_max,
            has_shares: true,
            counts: Default::default(),
            shares: HashMap::new(),
            served: Default::default(),
            turns: 0,
            turns_without_failures: 0,
            last_id: 0,
            is_newest_next: [false; 3],
        }
    }

    /// Creates a room without shares: one address may hold all places that no other address needs.
    #[cfg(any(feature = "http", test))]
    pub(crate) fn without_shares(places_max: usize) -> Self {
        Self { has_shares: false, ..Self::new(places_max) }
    }

    /// Changes the number of places. Logins beyond it stay until others come.
    #[cfg(feature = "http")]
    pub(crate) const fn set_places_max(&mut self, places_max: usize) {
        self.places_max = places_max;
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.iter().map(Vec::len).sum()
    }

    /// Takes a place for a login; `None` if it gets none.
    pub(crate) fn enter(
        &mut self,
        precedence: Precedence,
        origin: Origin,
        token: T,
    ) -> Option<Entered<T>> {
        let levels = origin.levels();
        let held = self.shares.get(&(levels[2], precedence)).copied().unwrap_or(0);
        // One address cannot fill the room, whatever its precedence.
        if held >= self.share(precedence) {
            return None;
        }
        self.last_id += 1;
        // Before anything is counted, because a login that gets no place must not count.
        let displaced = match self.len() < self.places_max {
            true => None,
            false => Some(self.make_place(precedence, levels)?),
        };
        for (counts, level) in self.counts.iter_mut().zip(levels) {
            *counts.entry(level).or_default() += 1;
        }
        *self.shares.entry((levels[2], precedence)).or_default() += 1;
        self.waiting[precedence as usize].push(WaitingLogin { id: self.last_id, levels, token });
        Some(Entered { id: self.last_id, displaced })
    }

    /// Returns how many logins of this precedence may wait of one address.
    fn share(&self, precedence: Precedence) -> usize {
        match self.has_shares {
            true => (self.places_max / share_of(precedence)).max(SHARE_MIN).min(self.places_max),
            false => self.places_max,
        }
    }

    /// Gives the place back, unless its turn has come already.
    pub(crate) fn leave(&mut self, id: u64) {
        for precedence in [Known, Fresh, Failed] {
            let mut waiting = self.waiting[precedence as usize].iter();
            if let Some(at) = waiting.position(|waiting| waiting.id == id) {
                self.take(precedence, at);
                return;
            }
        }
    }

    /// Returns the login whose turn it is, of addresses without failures.
    pub(crate) fn next(&mut self) -> Option<T> {
        let order = TURNS[self.turns_without_failures % TURNS.len()];
        let token = order.into_iter().find_map(|precedence| self.next_of(precedence))?;
        self.turns_without_failures += 1;
        Some(token)
    }

    /// Returns the login whose turn it is, of addresses with failures.
    pub(crate) fn next_failed(&mut self) -> Option<T> {
        self.next_of(Failed)
    }

    fn next_of(&mut self, precedence: Precedence) -> Option<T> {
        let is_newest_next = &mut self.is_newest_next[precedence as usize];
        // The network that was served longest ago comes
        // first, so a large one cannot crowd out others.
        let rank = |(_, waiting): &(usize, &WaitingLogin<T>)| {
            let [region, site, address] = [0, 1, 2].map(|i| self.served[i].of(waiting.levels[i]));
            let age = if *is_newest_next { u64::MAX - waiting.id } else { waiting.id };
            (region, site, address, age)
        };
        let (at, _) = self.waiting[precedence as usize].iter().enumerate().min_by_key(rank)?;
        *is_newest_next ^= true;
        let waiting = self.take(precedence, at);
        self.turns += 1;
        for (served, level) in self.served.iter_mut().zip(waiting.levels) {
            served.note(level, self.turns);
        }
        Some(waiting.token)
    }

    /// Displaces a login that ranks behind one of this precedence, if it finds one.
    fn make_place(&mut self, precedence: Precedence, levels: [u128; 3]) -> Option<T> {
        let last = [Failed, Fresh, Known].into_iter().find(|p| !self.of(*p).is_empty())?;
        let waiting = self.of(last);
        let len = waiting.len();
        // Any sequence will do that visits all places over time.
        let begin = (self.last_id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize;
        let looked_at = (0..LOOKED_AT.min(len)).map(|i| (begin + i * len / LOOKED_AT) % len);
        let held = |levels: [u128; 3]| [0, 1, 2].map(|level| self.held(level, levels));
        // A sample instead of all: displacing must stay cheap while strangers fill the room.
        let worst = looked_at.max_by_key(|at| held(waiting[*at].levels))?;
        let ranks_behind = match last.cmp(&precedence) {
            Ordering::Greater => true,
            Ordering::Equal => self.has_more(waiting[worst].levels, levels),
            Ordering::Less => false,
        };
        ranks_behind.then(|| self.take(last, worst).token)
    }

    /// Returns whether the largest network that contains only one of the two has more logins than the
    /// network of the other one will have.
    fn has_more(&self, levels: [u128; 3], newcomer: [u128; 3]) -> bool {
        let differs = (0..3).find(|level| levels[*level] != newcomer[*level]);
        differs.is_some_and(|level| self.held(level, levels) > self.held(level, newcomer) + 1)
    }

    fn held(&self, level: usize, levels: [u128; 3]) -> usize {
        self.counts[level].get(&levels[level]).copied().unwrap_or(0)
    }

    fn of(&self, precedence: Precedence) -> &Vec<WaitingLogin<T>> {
        &self.waiting[precedence as usize]
    }

    fn take(&mut self, precedence: Precedence, at: usize) -> WaitingLogin<T> {
        let waiting = self.waiting[precedence as usize].swap_remove(at);
        for (counts, level) in self.counts.iter_mut().zip(waiting.levels) {
            decrement(counts, level);
        }
        decrement(&mut self.shares, (waiting.levels[2], precedence));
        waiting
    }
}

fn decrement<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// The last turn of each network; the oldest are forgotten.
#[derive(Default)]
struct LastTurns {
    turns: HashMap<u128, u64>,
    in_order: VecDeque<(u128, u64)>,
}

impl LastTurns {
    /// Returns 0 for a network that is not remembered.
    fn of(&self, network: u128) -> u64 {
        self.turns.get(&network).copied().unwrap_or(0)
    }

    fn note(&mut self, network: u128, turn: u64) {
        self.turns.insert(network, turn);
        self.in_order.push_back((network, turn));
        if self.in_order.len() > SERVED_MAX
            && let Some((oldest, turn)) = self.in_order.pop_front()
            && self.of(oldest) == turn
        {
            self.turns.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Origin {
        Origin::of(text.parse().unwrap())
    }

    fn stranger(number: usize) -> Origin {
        from(&format!("127.7.{}.{}", number / 250, number % 250 + 1))
    }

    fn room(places_max: usize) -> WaitingRoom<String> {
        WaitingRoom::new(places_max)
    }

    fn enter(room: &mut WaitingRoom<String>, precedence: Precedence, origin: Origin, name: &str) {
        assert!(room.enter(precedence, origin, name.to_owned()).is_some(), "{name}");
    }

    /// Returns after how many turns this login is served.
    fn turns_until(room: &mut WaitingRoom<String>, name: &str) -> usize {
        (1..).find(|_| room.next().unwrap() == name).unwrap()
    }

    #[test]
    fn who_was_right_before_comes_first_then_who_has_not_failed() {
        let mut room = room(100);
        enter(&mut room, Failed, from("10.0.0.1"), "failed");
        enter(&mut room, Fresh, from("10.1.0.1"), "fresh");
        enter(&mut room, Known, from("10.2.0.1"), "known");
        let order: Vec<_> = std::iter::from_fn(|| room.next()).collect();
        assert_eq!(order, ["known", "fresh"]);
        assert_eq!(room.next_failed().as_deref(), Some("failed"));
        assert!(room.next_failed().is_none());
    }

    #[test]
    fn no_login_waits_forever_behind_those_of_a_better_precedence() {
        let mut room = room(1_000);
        enter(&mut room, Failed, from("10.0.0.1"), "failed");
        enter(&mut room, Fresh, from("10.1.0.1"), "fresh");
        for number in 0..100 {
            enter(&mut room, Known, stranger(number), "known");
        }
        assert_eq!(room.next_failed().as_deref(), Some("failed"));
        assert!(turns_until(&mut room, "fresh") <= 4);
    }

    #[test]
    fn a_login_does_not_wait_behind_all_logins_of_another_network() {
        for addresses in [1, 20, 900] {
            let mut room = room(1_000);
            for number in 0..1_200 {
                room.enter(Fresh, stranger(number % addresses), "stranger".to_owned());
            }
            assert!(room.next().is_some());
            enter(&mut room, Fresh, from("127.9.0.1"), "good");
            assert!(turns_until(&mut room, "good") <= 2, "{addresses}");
        }
    }

    #[test]
    fn a_login_does_not_wait_behind_a_wave_from_everywhere() {
        let mut room = room(1_000);
        for number in 0..1_000 {
            let origin = from(&format!("{}.{}.0.1", number % 200 + 1, number / 200));
            enter(&mut room, Fresh, origin, "stranger");
        }
        for number in 0..40 {
            let name = format!("good {number}");
            let origin = from(&format!("210.{number}.0.1"));
            let entered = room.enter(Fresh, origin, name.clone());
            // All places are taken by strangers of equal rank; one is free after a turn.
            if entered.is_none() {
                room.next();
                enter(&mut room, Fresh, origin, &name);
            }
            assert!(turns_until(&mut room, &name) <= 8, "{number}");
        }
    }

    #[test]
    fn the_addresses_of_a_network_take_turns() {
        let mut room = room(1_000);
        for number in 0..30 {
            enter(&mut room, Fresh, from("192.0.2.1"), &format!("many {number}"));
        }
        for address in ["192.0.2.2", "192.0.3.1"] {
            enter(&mut room, Fresh, from(address), address);
        }
        let first: Vec<_> = (0..4).map(|_| room.next().unwrap()).collect();
        for address in ["192.0.2.2", "192.0.3.1"] {
            assert!(first.iter().any(|name| name == address), "{first:?}");
        }
    }

    #[test]
    fn an_address_holds_a_share_of_the_places_and_less_after_failures() {
        for (precedence, share) in [(Known, 500), (Fresh, 62), (Failed, 7)] {
            let mut room = room(1_000);
            let origin = from("192.0.2.1");
            let entered =
                (0..1_000).filter(|_| room.enter(precedence, origin, 0.to_string()).is_some());
            assert_eq!(entered.count(), share);
        }
        let mut room = room(1);
        enter(&mut room, Fresh, from("192.0.2.1"), "only");
    }

    #[test]
    fn without_shares_one_address_holds_all_places_that_no_other_one_needs() {
        let mut room = WaitingRoom::without_shares(50);
        let entered = (0..60).filter(|_| room.enter(Failed, from("192.0.2.1"), ()).is_some());
        assert_eq!(entered.count(), 50);
        for number in 1..=20 {
            let entered = room.enter(Failed, from(&format!("192.0.3.{number}")), ()).unwrap();
            assert!(entered.displaced.is_some());
        }
        assert_eq!(room.len(), 50);
    }

    /// This also holds for a room with few places.
    #[test]
    fn the_only_login_of_a_lower_precedence_is_found() {
        let mut room = room(1_000);
        for number in 0..999 {
            enter(&mut room, Known, stranger(number), "known");
        }
        enter(&mut room, Fresh, from("10.0.0.1"), "fresh");
        let entered = room.enter(Known, stranger(1_000), "known".to_owned()).unwrap();
        assert_eq!(entered.displaced.as_deref(), Some("fresh"));
    }

    #[test]
    fn a_full_room_has_a_place_for_who_stands_before_those_who_wait() {
        let mut room = room(1_000);
        for number in 0..1_000 {
            enter(&mut room, Failed, stranger(number), "stranger");
        }
        for number in 0..40 {
            let origin = from(&format!("10.{number}.0.1"));
            let entered = room.enter(Fresh, origin, "good".to_owned()).unwrap();
            assert_eq!(entered.displaced.as_deref(), Some("stranger"));
        }
        assert!(room.enter(Failed, stranger(0), "stranger".to_owned()).is_none());
        assert_eq!(room.len(), 1_000);
    }

    #[test]
    fn of_strangers_who_fill_the_room_those_of_the_fullest_network_go() {
        let mut room = room(1_000);
        for number in 0..1_000 {
            enter(&mut room, Fresh, stranger(number), "stranger");
        }
        let entered = room.enter(Fresh, from("127.9.0.1"), "good".to_owned()).unwrap();
        assert_eq!(entered.displaced.as_deref(), Some("stranger"));
        assert!(room.enter(Fresh, stranger(0), "stranger".to_owned()).is_none());
    }

    #[test]
    fn who_leaves_gives_place_and_share_back() {
        let mut room = room(1);
        let first = room.enter(Fresh, from("192.0.2.1"), "first".to_owned()).unwrap();
        assert!(room.enter(Fresh, from("192.0.2.1"), "second".to_owned()).is_none());
        room.leave(first.id);
        room.leave(first.id);
        assert_eq!(room.len(), 0);
        assert!(room.shares.is_empty() && room.counts.iter().all(HashMap::is_empty));
        enter(&mut room, Fresh, from("192.0.2.1"), "second");
        assert_eq!(room.next().as_deref(), Some("second"));
        assert!(room.next().is_none());
    }

    #[test]
    fn what_is_remembered_of_turns_is_bounded() {
        let mut room = room(10);
        for number in 0..20_000_u32 {
            let origin = Origin::of(std::net::Ipv4Addr::from_bits(number << 8).into());
            enter(&mut room, Fresh, origin, "stranger");
            room.next();
        }
        assert!(room.served.iter().all(|served| served.turns.len() <= SERVED_MAX));
    }
}
