//! Limits how many calls wait for a password check at the same time.
//!
//! A check is expensive and waits for others, so strangers that guess passwords would hold the
//! connections of a server with calls that wait. A call beyond the limit displaces another one, which
//! is answered 503: of the network with the most waiting calls, in it of the address with the most,
//! and of these the oldest. It is answered 503 itself if its own network or address has as many: so
//! strangers that call again immediately do not displace calls whose check has begun. A call of a
//! known caller, whose user logged in from its address before, is not displaced.
//!
//! Knows no HTTP and no passwords. Called by `admission`.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};

use foldhash::fast::RandomState;

use crate::{auth::Origin, net::Seat};

/// The place that a call's connection holds in its server.
pub(super) trait CallPlace {
    /// Notes that the call waits until the password of an unknown caller is checked.
    fn begin_check(&self);

    /// Notes that the check is over.
    fn end_check(&self);
}

/// The place of a connection, in the connection's data. A host application's server has none.
pub(super) type ItsPlace = Rc<dyn CallPlace>;

/// The calls that wait for a password check.
pub(super) struct Asking {
    max: AtomicUsize,
    calls: Mutex<Calls>,
}

/// The call found no place, or lost it to another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Displaced;

impl Asking {
    pub(super) fn new(max: usize) -> Self {
        Self { max: AtomicUsize::new(max), calls: Mutex::default() }
    }

    /// Changes the limit. Calls beyond it are displaced when the next one arrives.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// Waits for a check of a call from this address. A check that has its result immediately needs
    /// no place.
    pub(super) async fn wait<F: Future>(
        &self,
        (from, is_known): (IpAddr, impl FnOnce() -> bool),
        place: Option<&ItsPlace>,
        check: F,
    ) -> Result<F::Output, Displaced> {
        let mut check = pin!(check);
        let now = std::future::poll_fn(|cx| Poll::Ready(check.as_mut().poll(cx))).await;
        if let Poll::Ready(result) = now {
            return Ok(result);
        }
        let is_known = is_known();
        let waiting = self.enter(from, is_known).ok_or(Displaced)?;
        let place = place.filter(|_| !is_known);
        if let Some(place) = place {
            place.begin_check();
        }
        let result = waiting.seat.sit(check).await.ok_or(Displaced);
        if let Some(place) = place {
            place.end_check();
        }
        result
    }

    fn enter(&self, from: IpAddr, is_known: bool) -> Option<Waiting<'_>> {
        let seat = Arc::new(Seat::default());
        let mut calls = self.calls();
        let levels = (!is_known).then(|| Origin::of(from).levels());
        while calls.all.len() >= self.max.load(Relaxed) {
            let first = calls.first_to_go(levels)?;
            calls.remove(first)?.seat.take_away();
        }
        let number = calls.insert(Call { levels, seat: Arc::clone(&seat) });
        Some(Waiting { asking: self, number, seat })
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits; dropping it gives its place back.
struct Waiting<'a> {
    asking: &'a Asking,
    number: u64,
    seat: Arc<Seat>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.asking.calls().remove(self.number);
    }
}

#[derive(Default)]
struct Calls {
    last_number: u64,
    all: HashMap<u64, Call, RandomState>,
    /// The calls of each network, in the order in which they came. A network has a level and an
    /// address. Calls of known callers are not in it.
    networks: HashMap<(usize, u128), BTreeSet<u64>, RandomState>,
    /// The networks with the most calls first, within the network that contains them.
    fullest: BTreeSet<Fullness>,
}

struct Call {
    /// The networks that contain the caller, the largest first; `None` for a known caller.
    levels: Option<[u128; 3]>,
    seat: Arc<Seat>,
}

/// The number of calls of a network, and their oldest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Fullness {
    level: usize,
    within: u128,
    calls: Reverse<usize>,
    oldest: u64,
    network: u128,
}

/// Stands for the network that contains all others.
const EVERYWHERE: u128 = 0;

impl Calls {
    fn insert(&mut self, call: Call) -> u64 {
        self.last_number += 1;
        let number = self.last_number;
        self.count(call.levels, |calls| calls.insert(number));
        self.all.insert(number, call);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Call> {
        let call = self.all.remove(&number)?;
        self.count(call.levels, |calls| calls.remove(&number));
        Some(call)
    }

    /// Changes the calls of these networks.
    fn count(&mut self, levels: Option<[u128; 3]>, change: impl Fn(&mut BTreeSet<u64>) -> bool) {
        let mut within = EVERYWHERE;
        for (level, network) in levels.into_iter().flatten().enumerate() {
            let calls = self.networks.entry((level, network)).or_default();
            let fullness = |calls: &BTreeSet<u64>| {
                let (oldest, calls) = (*calls.first()?, Reverse(calls.len()));
                Some(Fullness { level, within, calls, oldest, network })
            };
            if let Some(before) = fullness(calls) {
                self.fullest.remove(&before);
            }
            change(calls);
            match fullness(calls) {
                Some(after) => drop(self.fullest.insert(after)),
                None => drop(self.networks.remove(&(level, network))),
            }
            within = network;
        }
    }

    /// Returns the call to displace for one from these networks, or for one of a known caller. `None`
    /// if all are of known callers, or the networks have as many calls as others.
    fn first_to_go(&self, mut newcomer: Option<[u128; 3]>) -> Option<u64> {
        let mut first = None;
        let mut within = EVERYWHERE;
        for level in 0..3 {
            let most = Reverse(usize::MAX);
            let from = Fullness { level, within, calls: most, oldest: 0, network: 0 };
            let fullest = self.fullest.range(from..).next()?;
            if let Some(levels) = newcomer
                && levels[level] != fullest.network
            {
                let own = self.networks.get(&(level, levels[level])).map_or(0, BTreeSet::len);
                if fullest.calls.0 <= own + 1 {
                    return None;
                }
                newcomer = None;
            }
            (within, first) = (fullest.network, Some(fullest.oldest));
        }
        first.filter(|_| newcomer.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        future::{pending, ready},
    };

    use futures_util::{FutureExt as _, future::LocalBoxFuture};

    use super::*;

    type Wait<'a> = LocalBoxFuture<'a, Result<(), Displaced>>;

    /// Starts to wait for a check that does not end.
    fn wait<'a>(asking: &'a Asking, from: &str, is_known: bool) -> Wait<'a> {
        let from = from.parse().unwrap();
        let mut call = asking.wait((from, move || is_known), None, pending()).boxed_local();
        let result = (&mut call).now_or_never();
        match result {
            Some(result) => ready(result).boxed_local(),
            None => call,
        }
    }

    fn is_displaced(call: &mut Wait<'_>) -> bool {
        call.now_or_never() == Some(Err(Displaced))
    }

    #[test]
    fn a_caller_is_refused_where_those_of_its_network_have_all_places() {
        let asking = Asking::new(3);
        let hosts = [3, 2, 9, 1];
        let mut calls = hosts.map(|host| wait(&asking, &format!("192.0.2.{host}"), false));
        assert!(is_displaced(&mut calls[3]), "the others may be in the middle of their check");
        assert!(!calls[..3].iter_mut().any(is_displaced));
        drop(calls);
        let calls = asking.calls();
        assert!(calls.all.is_empty() && calls.networks.is_empty() && calls.fullest.is_empty());
    }

    #[test]
    fn a_caller_has_a_place_where_those_of_a_network_with_more_of_them_have_all() {
        let asking = Asking::new(20);
        let mut good = wait(&asking, "198.51.100.1", false);
        let mut strangers: Vec<_> = (0..1_000)
            .map(|number| wait(&asking, &format!("192.0.{}.1", number % 200), false))
            .collect();
        let mut late = wait(&asking, "198.51.100.2", false);
        assert!(!is_displaced(&mut good) && !is_displaced(&mut late));
        let displaced: Vec<_> = strangers.iter_mut().map(is_displaced).collect();
        assert!(
            displaced[0] && !displaced[1..19].contains(&true),
            "the oldest went for the late one"
        );
        assert!(!displaced[19..].contains(&false), "they were refused");
    }

    #[test]
    fn of_an_address_with_many_calls_the_oldest_goes_for_one_of_an_address_with_few() {
        let asking = Asking::new(5);
        let mut good = wait(&asking, "192.0.2.9", false);
        let mut many: Vec<_> = (0..50).map(|_| wait(&asking, "192.0.2.1", false)).collect();
        let mut other = wait(&asking, "192.0.2.8", false);
        assert!(!is_displaced(&mut good) && !is_displaced(&mut other));
        let displaced: Vec<_> = many.iter_mut().map(is_displaced).collect();
        assert_eq!(displaced[..5], [true, false, false, false, true]);
        assert!(!displaced[4..].contains(&false), "they were refused");
    }

    #[test]
    fn a_known_caller_is_not_displaced() {
        let asking = Asking::new(2);
        let mut known = wait(&asking, "192.0.2.1", true);
        let mut unknown = wait(&asking, "192.0.2.1", false);
        let mut other = wait(&asking, "192.0.2.1", true);
        assert!(is_displaced(&mut unknown));
        let mut more = [true, false].map(|known| wait(&asking, "192.0.2.2", known));
        assert!(more.iter_mut().all(is_displaced), "known callers have all places");
        assert!(!is_displaced(&mut known) && !is_displaced(&mut other));
    }

    #[test]
    fn a_check_that_ends_immediately_needs_no_place() {
        let asking = Asking::new(0);
        let from = "192.0.2.1".parse().unwrap();
        let check = asking.wait((from, || unreachable!()), None, ready(7));
        assert_eq!(check.now_or_never(), Some(Ok(7)));
        assert!(is_displaced(&mut wait(&asking, "192.0.2.1", false)));
    }

    /// Finds the call to displace as the rule says.
    fn first_naively(calls: &Calls) -> Option<u64> {
        let mut among: BTreeMap<u64, [u128; 3]> =
            calls.all.iter().filter_map(|(number, call)| Some((*number, call.levels?))).collect();
        for level in 0..3 {
            let of_network = |levels: &[u128; 3]| {
                let network = levels[level];
                let mut calls = among.iter().filter(|(_, levels)| levels[level] == network);
                let oldest = *calls.next()?.0;
                Some((Reverse(calls.count()), oldest, network))
            };
            let (.., fullest) = among.values().filter_map(of_network).min()?;
            among.retain(|_, levels| levels[level] == fullest);
        }
        among.into_keys().next()
    }

    #[test]
    fn the_first_to_go_is_the_one_of_the_rule() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut calls = Calls::default();
        for _ in 0..5_000 {
            match random.u8(..3) {
                0 | 1 if calls.all.len() < 40 => {
                    let host = [10, random.u8(..3), random.u8(..3), random.u8(..3)];
                    let levels = Origin::of(host.into()).levels();
                    let levels = (random.u8(..8) > 0).then_some(levels);
                    calls.insert(Call { levels, seat: Arc::default() });
                }
                0 | 1 => match calls.first_to_go(None) {
                    Some(first) => drop(calls.remove(first)),
                    None => calls.all.clear(), // all are of known callers
                },
                _ => {
                    let number = random.u64(0..=calls.last_number);
                    calls.remove(number);
                }
            }
            assert_eq!(calls.first_to_go(None), first_naively(&calls));
        }
    }
}
