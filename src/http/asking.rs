//! Limits how many calls wait for a password check at the same time.
//!
//! A check is expensive and waits for others, so strangers that guess passwords would hold the
//! connections of a server with calls that wait. A call beyond the limit displaces one that ranks
//! behind it, which is answered 503: of an address with failures, or of an address or network with
//! more waiting calls. If there is none, it is answered 503 itself: so strangers that call again
//! immediately do not displace each other in the middle of their checks.
//!
//! Knows no HTTP and no passwords. Called by `admission`.

use std::{
    net::IpAddr,
    pin::pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use crate::{
    auth::{Origin, Precedence, WaitingRoom},
    net::Seat,
};

/// The place that a call's connection holds in its server.
pub(super) trait CallPlace {
    /// Notes that the call waits until the password of an unknown caller is checked.
    fn begin_check(&self);

    /// Notes that the check is over.
    fn end_check(&self);

    /// Notes that the call waits for others, for as long as its caller is there.
    fn begin_wait(&self);

    /// Notes that the wait is over.
    fn end_wait(&self);
}

/// The place of a connection, in the connection's data. A host application's server has none.
pub(super) type ItsPlace = Rc<dyn CallPlace>;

/// The calls that wait for a password check.
pub(super) struct Asking(Mutex<WaitingRoom<Arc<Seat>>>);

/// The call found no place, or lost it to another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Displaced;

impl Asking {
    pub(super) fn new(max: usize) -> Self {
        Self(Mutex::new(WaitingRoom::without_shares(max)))
    }

    /// Changes the limit. Calls beyond it stay.
    pub(super) fn set_max(&self, max: usize) {
        self.room().set_places_max(max);
    }

    /// Waits for a check of a call from this address. A check that has its result immediately needs
    /// no place.
    pub(super) async fn wait<F: Future>(
        &self,
        (from, precedence): (IpAddr, impl FnOnce() -> Precedence),
        place: Option<&ItsPlace>,
        check: F,
    ) -> Result<F::Output, Displaced> {
        let mut check = pin!(check);
        let now = std::future::poll_fn(|cx| Poll::Ready(check.as_mut().poll(cx))).await;
        if let Poll::Ready(result) = now {
            return Ok(result);
        }
        // Asked for only if the check must wait: finding it out takes a lock.
        let precedence = precedence();
        let waiting = self.enter(precedence, from).ok_or(Displaced)?;
        // Connections of unknown callers are closed for others first, that of a known one is not.
        let place = place.filter(|_| precedence != Precedence::Known);
        if let Some(place) = place {
            place.begin_check();
        }
        let result = waiting.seat.sit(check).await.ok_or(Displaced);
        if let Some(place) = place {
            place.end_check();
        }
        result
    }

    fn enter(&self, precedence: Precedence, from: IpAddr) -> Option<WaitingCall<'_>> {
        let seat = Arc::new(Seat::default());
        let entered = self.room().enter(precedence, Origin::of(from), Arc::clone(&seat))?;
        if let Some(displaced) = entered.displaced {
            displaced.take_away();
        }
        Some(WaitingCall { asking: self, id: entered.id, seat })
    }

    fn room(&self) -> MutexGuard<'_, WaitingRoom<Arc<Seat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits; dropping it gives its place back.
struct WaitingCall<'a> {
    asking: &'a Asking,
    id: u64,
    seat: Arc<Seat>,
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.asking.room().leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        collections::HashSet,
        future::{pending, ready},
        net::Ipv4Addr,
        time::Duration,
    };

    use futures_util::{
        FutureExt as _,
        future::{LocalBoxFuture, join, join_all, select},
    };
    use tokio::{
        sync::oneshot,
        time::{Instant, sleep, timeout},
    };

    use super::*;
    use Precedence::{Failed, Fresh, Known};

    type Wait<'a> = LocalBoxFuture<'a, Result<(), Displaced>>;

    /// Starts to wait for a check that does not end.
    fn wait<'a>(asking: &'a Asking, from: &str, precedence: Precedence) -> Wait<'a> {
        let from = from.parse().unwrap();
        let mut call = asking.wait((from, move || precedence), None, pending()).boxed_local();
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
        let mut calls = hosts.map(|host| wait(&asking, &format!("192.0.2.{host}"), Fresh));
        assert!(is_displaced(&mut calls[3]), "the others may be in the middle of their check");
        assert!(!calls[..3].iter_mut().any(is_displaced));
        drop(calls);
        assert_eq!(asking.room().len(), 0);
    }

    #[test]
    fn a_caller_has_a_place_where_those_of_a_network_with_more_of_them_have_all() {
        let asking = Asking::new(20);
        let mut good = wait(&asking, "198.51.100.1", Fresh);
        let mut strangers: Vec<_> = (0..1_000)
            .map(|number| wait(&asking, &format!("192.0.{}.1", number % 200), Fresh))
            .collect();
        let mut late = wait(&asking, "198.51.100.2", Fresh);
        assert!(!is_displaced(&mut good) && !is_displaced(&mut late));
        let displaced: Vec<_> = strangers.iter_mut().map(is_displaced).collect();
        let waiting = displaced[..19].iter().filter(|displaced| !**displaced);
        assert_eq!(waiting.count(), 18, "one went for the late one");
        assert!(!displaced[19..].contains(&false), "they were refused");
    }

    #[test]
    fn a_caller_of_an_address_without_failures_has_the_place_of_one_with_failures() {
        let asking = Asking::new(20);
        let strangers = |number: usize| format!("192.0.2.{number}");
        let mut strangers: Vec<_> =
            (0..40).map(|number| wait(&asking, &strangers(number), Failed)).collect();
        let mut good: Vec<_> = (0..20)
            .map(|number| wait(&asking, &format!("192.0.2.{}", 100 + number), Fresh))
            .collect();
        assert!(!good.iter_mut().any(is_displaced));
        assert!(strangers.iter_mut().all(is_displaced));
    }

    #[test]
    fn a_known_caller_is_not_displaced() {
        let asking = Asking::new(2);
        let mut known = wait(&asking, "192.0.2.1", Known);
        let mut unknown = wait(&asking, "192.0.2.1", Fresh);
        let mut other = wait(&asking, "192.0.2.1", Known);
        assert!(is_displaced(&mut unknown));
        let mut more = [Known, Fresh].map(|known| wait(&asking, "192.0.2.1", known));
        assert!(more.iter_mut().all(is_displaced), "known callers have all places");
        assert!(!is_displaced(&mut known) && !is_displaced(&mut other));
    }

    /// Strangers that guess without end, and good callers that come meanwhile, on virtual time. Hashes
    /// are as slow as on a busy machine.
    struct Play {
        asking: Asking,
        room: RefCell<WaitingRoom<oneshot::Sender<()>>>,
        failed: RefCell<HashSet<IpAddr>>,
    }

    /// A login that leaves the queue of the hashes when it ends.
    struct Leaves<'a> {
        play: &'a Play,
        id: u64,
    }

    impl Drop for Leaves<'_> {
        fn drop(&mut self) {
            self.play.room.borrow_mut().leave(self.id);
        }
    }

    impl Play {
        fn new() -> Self {
            Self {
                asking: Asking::new(100),
                room: RefCell::new(WaitingRoom::new(200)),
                failed: RefCell::default(),
            }
        }

        fn precedence(&self, from: IpAddr) -> Precedence {
            if self.failed.borrow().contains(&from) { Failed } else { Fresh }
        }

        /// Calls once; returns whether the password was checked.
        async fn call(&self, from: IpAddr) -> bool {
            let precedence = self.precedence(from);
            let check = async {
                let (turn, comes) = oneshot::channel();
                let entered = self.room.borrow_mut().enter(precedence, Origin::of(from), turn);
                let Some(entered) = entered else { return false };
                let _place = Leaves { play: self, id: entered.id };
                comes.await.is_ok()
            };
            let checked = timeout(Duration::from_secs(5), check);
            self.asking.wait((from, || precedence), None, checked).await == Ok(Ok(true))
        }

        async fn guess_without_end(&self, from: IpAddr) {
            loop {
                if self.call(from).await {
                    self.failed.borrow_mut().insert(from);
                }
                sleep(Duration::from_millis(50)).await;
            }
        }

        async fn hash_without_end(&self) {
            for number in 0.. {
                sleep(Duration::from_millis(200)).await;
                let mut room = self.room.borrow_mut();
                let next = room.next().into_iter();
                let failed = (number % 5 == 0).then(|| room.next_failed()).flatten();
                next.chain(failed).for_each(|turn| turn.send(()).unwrap_or(()));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_caller_gets_in_while_strangers_guess_without_end() {
        // Before they have failed, the addresses of a site are all alike.
        let alike = (240, "127.7.0.250");
        for addresses in [1_u32, 4, 240] {
            for good in ["127.9.200.0", "127.7.200.0", "127.7.0.250"] {
                if (addresses, good) == alike {
                    continue;
                }
                let play = Play::new();
                let stranger = |number: u32| {
                    let number = number % addresses;
                    Ipv4Addr::from_bits(0x7F07_0000 + (number / 50) * 256 + number % 50).into()
                };
                let strangers = (0..240).map(|number| play.guess_without_end(stranger(number)));
                let good: Ipv4Addr = good.parse().unwrap();
                let good = async {
                    sleep(Duration::from_secs(1)).await;
                    for number in 0..20 {
                        let began = Instant::now();
                        let good = Ipv4Addr::from_bits(good.to_bits() + number % 4).into();
                        assert!(play.call(good).await, "{good} of {addresses}: {number}");
                        let took = began.elapsed();
                        assert!(took < Duration::from_secs(2), "{good} of {addresses}: {took:?}");
                        sleep(Duration::from_millis(100)).await;
                    }
                };
                let strangers = join(join_all(strangers), play.hash_without_end());
                select(pin!(good), pin!(strangers)).await;
            }
        }
    }

    #[test]
    fn a_check_that_ends_immediately_needs_no_place() {
        let asking = Asking::new(0);
        let from = "192.0.2.1".parse().unwrap();
        let check = asking.wait((from, || unreachable!()), None, ready(7));
        assert_eq!(check.now_or_never(), Some(Ok(7)));
        assert!(is_displaced(&mut wait(&asking, "192.0.2.1", Fresh)));
    }
}
