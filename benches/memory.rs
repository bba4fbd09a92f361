//! Measures how many bytes of heap a subscription costs, in the index and in its session.
//!
//!     cargo bench --bench memory
//!
//! Counts the bytes requested from the allocator and not returned, with 100,000 subscriptions of
//! each kind; the allocator's rounding comes on top. The table of the tree's nodes doubles when it
//! grows, so up to half of it is unused, and unused pages cost no memory.

#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::{alloc::System, sync::Arc};

use hearthmq::{
    internals::{
        router::{Host, Index, Place, ShardNumber, Subscriber},
        session::{QueueLimits, QueueUsage, Session, SubscribedAs, WhenFull},
    },
    mqtt::{FilterParts, SubscriptionOptions},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SUBSCRIPTIONS: usize = 100_000;
const VEHICLES_PER_FLEET: usize = 100;

/// Returns the Topic Filter of the subscription with this number.
type FilterOf = fn(usize) -> String;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --benches` only starts it
    }
    println!("{:44}{:>8}{:>14}{:>10}", "a subscription", "bytes", "allocations", "counted");
    let kinds: [(&str, FilterOf); 6] = [
        ("fleet/0815/vehicle/081500/telemetry", |n| vehicle(n, "vehicle", "telemetry")),
        ("fleet/0815/+/081500/telemetry", |n| vehicle(n, "+", "telemetry")),
        ("fleet/0815/vehicle/081500/#", |n| vehicle(n, "vehicle", "#")),
        ("a third each of these", |n| {
            let [middle, end] =
                [["vehicle", "telemetry"], ["+", "telemetry"], ["vehicle", "#"]][n % 3];
            vehicle(n / 3, middle, end)
        }),
        ("vehicle-081500", |n| format!("vehicle-{n:06}")),
        ("500 to each of fleet/0815/announcements", |n| {
            format!("fleet/{:04}/announcements", n / 500)
        }),
    ];
    for (name, filter) in kinds {
        index_of(name, filter);
    }
    sessions(1);
    sessions(10);
}

fn vehicle(number: usize, middle: &str, end: &str) -> String {
    format!("fleet/{:04}/{middle}/{number:06}/{end}", number / VEHICLES_PER_FLEET)
}

fn index_of(name: &str, filter: FilterOf) {
    let region = Region::new(ALLOCATOR);
    let index = Index::default();
    for number in 0..SUBSCRIPTIONS {
        let place = Place { host: Host::Shard(ShardNumber(0)), slot: number as u32, generation: 0 };
        let options = SubscriptionOptions::default();
        let filter = filter(number);
        let filter = FilterParts { share_name: None, filter: &filter };
        index.subscribe(filter, Subscriber { place, options, identifier: None, is_durable: false });
    }
    say(&format!("index: {name}"), &region, SUBSCRIPTIONS, index.bytes());
}

/// Measures a session's own table, without the session.
fn sessions(subscriptions_each: usize) {
    let limits = QueueLimits {
        messages_max: 1000,
        bytes_max: 1 << 20,
        messages_in_all_max: 1 << 20,
        bytes_in_all_max: 1 << 30,
        when_full: WhenFull::DropOldest,
    };
    let count = SUBSCRIPTIONS / subscriptions_each;
    let usage = Arc::new(QueueUsage::new(limits));
    let mut sessions: Vec<Session> =
        (0..count).map(|number| Session::new(number.to_string().into(), usage.clone())).collect();
    // Begins after the sessions exist, so that only their subscriptions are counted.
    let region = Region::new(ALLOCATOR);
    for (number, session) in sessions.iter_mut().enumerate() {
        for at in 0..subscriptions_each {
            let filter = vehicle(number * subscriptions_each + at, "vehicle", "telemetry");
            let options = SubscriptionOptions::default();
            session.subscribe(&filter, SubscribedAs { options, identifier: None });
        }
    }
    say(&format!("session: {subscriptions_each} of it"), &region, SUBSCRIPTIONS, 0);
}

/// Prints a line. `counted` is how much all of it counts towards `subscription_bytes_max`.
fn say(name: &str, region: &Region<'_, System>, count: usize, counted: usize) {
    let change = region.change();
    let bytes = (change.bytes_allocated - change.bytes_deallocated) as f64 / count as f64;
    let allocations = (change.allocations - change.deallocations) as f64 / count as f64;
    let counted = counted / count;
    println!("{name:44}{bytes:>8.1}{allocations:>14.2}{counted:>10}");
}
