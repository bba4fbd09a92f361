//! The post between the shards of a broker on one thread: it delivers their mail in an order drawn
//! from a seed, among all orders that the doors allow. A test can hold some mail back.
//!
//! Knows routes and kinds of messages, and nothing of their meaning.

use std::{
    cell::{Cell, RefCell},
    mem::take,
    rc::Rc,
};

use actix_rt::task::JoinHandle;
use fastrand::Rng;
use hearthmq::{
    broker::simulation::{Route, Sender, SimulatedShards},
    internals::router::ShardNumber,
};
use tokio::{sync::Notify, task::yield_now};

/// Maximum number of turns of the thread before a message is delivered, usually and now and then.
const TURNS_MAX: u8 = 4;
const TURNS_MAX_OF_SLOW: u8 = 40;

/// The post of one broker. It ends when this is dropped; the mail that is left is not delivered.
pub struct Post {
    shards: SimulatedShards,
    desk: Rc<Desk>,
    carrier: JoinHandle<()>,
}

/// Returns whether a message of this kind on this route is held back.
type Holds = Box<dyn Fn(Route, &str) -> bool>;

struct Desk {
    rng: RefCell<Rng>,
    holds: RefCell<Holds>,
    is_holding: Cell<bool>,
    has_changed: Notify,
    delivered: RefCell<Vec<(Route, &'static str)>>,
}

impl Post {
    /// Opens the post of these shards. The order of its mail comes from the seed.
    pub fn open(shards: &SimulatedShards, seed: u64) -> Self {
        let desk = Rc::new(Desk {
            rng: RefCell::new(Rng::with_seed(seed)),
            holds: RefCell::new(Box::new(|_, _| false)),
            is_holding: Cell::new(false),
            has_changed: Notify::new(),
            delivered: RefCell::default(),
        });
        let carrier = actix_rt::spawn(carry(shards.clone(), desk.clone()));
        Self { shards: shards.clone(), desk, carrier }
    }

    /// Draws the order from another seed from now on.
    pub fn reseed(&self, seed: u64) {
        self.desk.rng.borrow_mut().seed(seed);
    }

    /// Holds back mail for which this returns `true`, and all behind it on its route.
    pub fn hold(&self, which: impl Fn(Route, &str) -> bool + 'static) {
        *self.desk.holds.borrow_mut() = Box::new(which);
        self.desk.is_holding.set(true);
        self.desk.has_changed.notify_one();
    }

    /// Delivers all mail again.
    pub fn release(&self) {
        self.hold(|_, _| false);
        self.desk.is_holding.set(false);
    }

    /// Returns whether mail may be held back.
    pub fn is_holding(&self) -> bool {
        self.desk.is_holding.get()
    }

    /// Returns what was delivered since the last call.
    pub fn take_delivered(&self) -> Vec<(Route, &'static str)> {
        take(&mut *self.desk.delivered.borrow_mut())
    }

    /// Returns the shards.
    pub const fn shards(&self) -> &SimulatedShards {
        &self.shards
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

/// Returns the numbers of the shards that a message goes from and to; `None` if no shard sent it.
pub const fn between(route: Route) -> Option<(u16, u16)> {
    match route.from {
        Sender::Shard(ShardNumber(from)) => Some((from, route.to)),
        _ => None,
    }
}

impl Desk {
    fn may_go(&self, shards: &SimulatedShards) -> Vec<(Route, &'static str)> {
        let holds = self.holds.borrow();
        let mut waiting = shards.waiting();
        waiting.retain(|(route, kind)| !holds(*route, kind));
        waiting
    }

    fn turns(&self) -> u8 {
        let mut rng = self.rng.borrow_mut();
        let turns_max = if rng.u8(..16) == 0 { TURNS_MAX_OF_SLOW } else { TURNS_MAX };
        rng.u8(..turns_max)
    }
}

/// Delivers one message after the other, from any route with mail.
async fn carry(shards: SimulatedShards, desk: Rc<Desk>) {
    loop {
        if desk.may_go(&shards).is_empty() {
            tokio::select! {
                () = shards.posted() => {}
                () = desk.has_changed.notified() => {}
            }
            continue;
        }
        // Other tasks run meanwhile, so that mail is late in different ways.
        for _ in 0..desk.turns() {
            yield_now().await;
        }
        // Asked again: a test may have held some mail back during these turns.
        let waiting = desk.may_go(&shards);
        if waiting.is_empty() {
            continue;
        }
        let (route, kind) = waiting[desk.rng.borrow_mut().usize(..waiting.len())];
        if shards.deliver(route) {
            desk.delivered.borrow_mut().push((route, kind));
        }
    }
}
