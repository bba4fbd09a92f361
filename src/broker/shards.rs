//! Starts the shards of a broker: each on a thread of its own, or all on the current one.

use std::sync::Arc;

use actix::{Actor, Addr};
use actix_rt::Arbiter;

use super::simulation::SimulatedShards;
use crate::{
    actors::Registry,
    between::door::{ShardDoor, ShardHandle},
    router::ShardNumber,
    shard::Core,
    shard::doors::ArrivalDoor,
};

/// Where the shards of a broker run.
#[derive(Clone, Default)]
pub(super) enum Threads {
    /// Each on a thread of its own.
    #[default]
    Own,
    /// One shard, on the thread that starts the broker.
    Current,
    /// Several shards on the thread that starts the broker; a test delivers the messages between them.
    Simulated(SimulatedShards),
}

impl Threads {
    /// Returns the number of shards, if `asked` is the configured one.
    pub(super) fn shards(&self, asked: usize) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        match self {
            Self::Current => 1,
            Self::Simulated(shards) => usize::from(shards.homes().shards),
            Self::Own if asked == 0 => cores(),
            Self::Own => asked,
        }
    }

    /// Starts the threads of this many shards; none if the shards run on the current one.
    pub(super) fn start(&self, shards: usize) -> Vec<Arbiter> {
        match self {
            Self::Own => (0..shards).map(|_| Arbiter::new()).collect(),
            Self::Current | Self::Simulated(_) => Vec::new(),
        }
    }

    /// Starts the shards, makes them known to each other, and returns their registries.
    pub(super) fn start_shards(
        &self,
        core: &Arc<Core>,
        shards: usize,
        arbiters: &[Arbiter],
    ) -> Vec<Addr<Registry>> {
        if let Self::Simulated(simulated) = self {
            core.set_homes(simulated.homes());
        }
        let mut registries = Vec::new();
        let mut handles = Vec::new();
        let mut arrivals: Vec<Box<dyn ArrivalDoor>> = Vec::new();
        for number in 0..shards {
            let bytes_waiting = Arc::default();
            let handle_bytes = Arc::clone(&bytes_waiting);
            let (core, metrics) = (core.clone(), core.metrics.shard(number));
            let shard = ShardNumber(number as u16);
            // Called on the thread of the shard, because parts
            // of a registry must not move between threads.
            let make = move || Registry::new(shard, core, metrics, bytes_waiting);
            let registry = match arbiters.get(number) {
                Some(arbiter) => Registry::start_in_arbiter(&arbiter.handle(), |_| make()),
                None => make().start(),
            };
            let (door, arrival): (Box<dyn ShardDoor>, Box<dyn ArrivalDoor>) = match self {
                Self::Own | Self::Current => {
                    (Box::new(registry.clone()), Box::new(registry.clone()))
                }
                Self::Simulated(simulated) => {
                    let door = simulated.door(shard, registry.clone());
                    (Box::new(door.clone()), Box::new(door))
                }
            };
            registries.push(registry);
            handles.push(ShardHandle { door, bytes_waiting: handle_bytes });
            arrivals.push(arrival);
        }
        // Last and at the same time, because each shard may send to every other one from now on.
        core.set_shards(handles, arrivals);
        registries
    }
}
