//! What goes wrong in a world, from its seed: a list that shrinks to what a failure needs.

use fastrand::Rng;
use hearthmq::internals::cluster::names::{Bucket, LEASE_BUCKETS, OWNER_BUCKETS};

use super::{
    io::{Event, Io},
    nats::Led,
    node::Node,
};

/// Something that goes wrong, for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A node is killed, and starts again on its disk.
    Death,
    /// A process is stopped and goes on.
    Pause,
    /// A node does not reach NATS, and so nobody.
    Partition,
    /// Two nodes do not reach each other.
    Cut,
    /// The link of a node is slow.
    Slow,
    /// A NATS server dies: the buckets that it leads stand still.
    Server,
    /// The leader of one bucket of owners moves.
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Milliseconds since the begin.
    pub(super) at: u64,
    pub(super) kind: Kind,
    pub(super) which: usize,
    pub(super) millis: u64,
}

/// The faults of a world.
pub(super) fn plan(seed: u64, nodes: usize, until: u64) -> Vec<Fault> {
    let mut rng = Rng::with_seed(seed.wrapping_mul(7).wrapping_add(1));
    let mut faults = Vec::new();
    let mut at = 12_000;
    let mut server_at = 0;
    while at < until {
        at += rng.u64(1_500..16_000);
        let kinds = [
            Kind::Death,
            Kind::Death,
            Kind::Pause,
            Kind::Pause,
            Kind::Partition,
            Kind::Cut,
            Kind::Slow,
            Kind::Server,
            Kind::Server,
            Kind::Stall,
        ];
        let kind = kinds[rng.usize(0..kinds.len())];
        let millis = match kind {
            Kind::Death => [500, 3_000, 7_000, 15_000, 30_000][rng.usize(0..5)],
            Kind::Pause => [1_000, 3_500, 4_500, 6_000, 7_500, 10_000, 20_000][rng.usize(0..7)],
            Kind::Partition => [1_000, 4_500, 8_000, 15_000][rng.usize(0..4)],
            Kind::Cut => [2_000, 8_000, 15_000][rng.usize(0..3)],
            Kind::Slow => [2_000, 5_000, 10_000][rng.usize(0..3)],
            Kind::Server | Kind::Stall => rng.u64(4_000..9_100),
        };
        // The leaders of the lease buckets are spread again before the next server dies.
        if kind == Kind::Server && at < server_at {
            continue;
        }
        if kind == Kind::Server {
            server_at = at + millis + 8_000;
        }
        faults.push(Fault { at, kind, which: rng.usize(0..60) % nodes.max(3), millis });
    }
    faults
}

/// Begins a fault.
pub(super) fn begin(fault: Fault, nodes: &mut [Node], io: &mut Io) {
    let Fault { kind, which, millis, .. } = fault;
    let node = which % nodes.len();
    io.tell(format!("FAULT {kind:?} {which} for {millis} ms"));
    let until = io.now + millis;
    match kind {
        Kind::Death if nodes[node].is_up => {
            nodes[node].die(io);
            io.later(millis, Event::Start(node));
        }
        Kind::Death => {}
        Kind::Pause => nodes[node].frozen_until = until,
        Kind::Partition => {
            io.reaches[node] = false;
            io.later(millis, Event::Connected(node));
        }
        Kind::Cut => {
            let other = (node + 1) % nodes.len();
            let pair = (node.min(other), node.max(other));
            io.cut.insert(pair);
            io.later(millis, Event::Joined(pair.0, pair.1));
        }
        Kind::Slow => {
            io.slow.insert(node, io.rng.u64(200..1_500));
            io.later(millis, Event::Fast(node));
        }
        Kind::Server => {
            let server = which % LEASE_BUCKETS;
            io.nats.stall(Led::Bucket(Bucket::Lease(server as u8)), until);
            for number in 0..OWNER_BUCKETS {
                if usize::from(number) % LEASE_BUCKETS == server {
                    io.nats.stall(Led::Bucket(Bucket::Owners(number)), until);
                }
            }
            let other = if server == 0 { Led::Bucket(Bucket::Members) } else { Led::Routes };
            io.nats.stall(other, until);
        }
        Kind::Stall => {
            let number = io.rng.u8(0..OWNER_BUCKETS);
            io.nats.stall(Led::Bucket(Bucket::Owners(number)), until);
        }
    }
}
