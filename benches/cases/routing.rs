//! Cases of the subscription index with many filters: matching a topic, subscribing, unsubscribing.
//!
//! A third of the filters is exact, a third has `+`, a third ends in `#`; a topic matches one of
//! each. All random choices come from a fixed seed.

use std::{cell::LazyCell, hint::black_box, rc::Rc};

use fastrand::Rng;
use hearthmq::{
    internals::router::{Host, Index, Place, ShardNumber, Subscriber},
    mqtt::{FilterParts, QoS, RetainHandling, SubscriptionOptions},
};

use crate::measure::Measure;

const SEED: u64 = 17;
/// A number at which the entries of a large index do not all stay in the processor's cache.
const TOPICS: usize = 65_536;
/// Number of hosts among which the sessions of the router are divided.
const HOSTS: u16 = 4;
const FAN_OUT_SUBSCRIBERS: u32 = 500;
const FAN_OUT_TOPIC: &str = "fleet/all/announcements";
const KINDS: usize = 3;
const VEHICLES_PER_FLEET: usize = 100;

/// Adds `plan/…` and `subscribe and unsubscribe/…` for each number of filters.
pub(crate) fn cases(measure: &mut impl Measure, sizes: &[usize]) {
    for filters in sizes {
        // Built for the first case that is chosen: an index of a million filters takes seconds.
        let index = LazyCell::new(|| Rc::new(index_of(*filters)));
        measure.case(&format!("plan/{filters} filters"), || plan_three(index.clone(), *filters));
        let name = format!("subscribe and unsubscribe/{filters} filters");
        measure.case(&name, || subscribe_new(index.clone(), *filters));
    }
    let index = LazyCell::new(|| Rc::new(fan_out_index()));
    measure.case("plan/500 subscribers", || {
        let index = index.clone();
        move || black_box(index.plan(black_box(FAN_OUT_TOPIC))).len()
    });
    measure.case("subscribe and unsubscribe/500 subscribers", || {
        let index = index.clone();
        let filter = FilterParts { share_name: None, filter: FAN_OUT_TOPIC };
        let place = place(FAN_OUT_SUBSCRIBERS);
        move || {
            index.subscribe(black_box(filter), subscriber(place));
            index.unsubscribe(black_box(filter), place)
        }
    });
}

/// Returns a step that plans topics, each of which matches three filters.
fn plan_three(index: Rc<Index>, filters: usize) -> impl FnMut() -> usize {
    let mut rng = Rng::with_seed(SEED);
    let vehicles = filters / KINDS;
    let topics: Vec<String> =
        (0..TOPICS).map(|_| filters_of(rng.usize(..vehicles))[0].clone()).collect();
    let mut some = topics.iter().take(100);
    assert!(some.all(|topic| index.plan(topic).len() == KINDS), "a topic matches one of each");
    let mut at = 0;
    move || {
        at = (at + 1) % TOPICS;
        black_box(index.plan(black_box(&topics[at]))).len()
    }
}

/// Returns a step that subscribes to new filters, in existing fleets.
fn subscribe_new(index: Rc<Index>, filters: usize) -> impl FnMut() -> bool {
    let mut rng = Rng::with_seed(SEED);
    let vehicles = filters / KINDS;
    let new: Vec<String> = (0..TOPICS)
        .map(|number| {
            let [mut exact, ..] = filters_of(rng.usize(..vehicles));
            exact.push_str(&number.to_string());
            exact
        })
        .collect();
    let mut at = 0;
    move || {
        // Another filter in each step, so that the caches of the processor do not have it.
        at = (at + 1) % TOPICS;
        let filter = FilterParts { share_name: None, filter: black_box(&new[at]) };
        index.subscribe(filter, subscriber(place(0))) && index.unsubscribe(filter, place(0))
    }
}

fn index_of(filters: usize) -> Index {
    let index = Index::default();
    let mut slots: Vec<u32> = (0..filters as u32).collect();
    Rng::with_seed(SEED).shuffle(&mut slots);
    let all = (0..filters.div_ceil(KINDS)).flat_map(filters_of);
    for (filter, slot) in all.zip(slots) {
        let filter = FilterParts { share_name: None, filter: &filter };
        assert!(index.subscribe(filter, subscriber(place(slot))), "no filter comes twice");
    }
    index
}

fn fan_out_index() -> Index {
    let index = Index::default();
    let filter = FilterParts { share_name: None, filter: FAN_OUT_TOPIC };
    for slot in 0..FAN_OUT_SUBSCRIBERS {
        index.subscribe(filter, subscriber(place(slot)));
    }
    index
}

/// Returns the three filters that match the topic of one vehicle; the first is its topic.
fn filters_of(vehicle: usize) -> [String; KINDS] {
    let fleet = vehicle / VEHICLES_PER_FLEET;
    [
        format!("fleet/{fleet:04}/vehicle/{vehicle:06}/telemetry"),
        format!("fleet/{fleet:04}/+/{vehicle:06}/telemetry"),
        format!("fleet/{fleet:04}/vehicle/{vehicle:06}/#"),
    ]
}

const fn place(slot: u32) -> Place {
    Place { host: Host::Shard(ShardNumber(slot as u16 % HOSTS)), slot, generation: 0 }
}

const fn subscriber(place: Place) -> Subscriber {
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Subscriber { place, options, identifier: None, is_durable: false }
}
