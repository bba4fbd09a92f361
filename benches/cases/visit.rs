//! Cases of the whole broker in process: a client connects, and disconnects, while others stay.
//!
//! As in `passage`, the broker runs on this thread and on virtual time, and the work of the client
//! is counted too.

use std::{cell::Cell, time::Duration};

use actix_rt::System;
use hearthmq::{
    Broker,
    auth::AllowAll,
    broker::simulation::SimulatedShards,
    limits::Limits,
    mqtt::{Disconnect, DisconnectProperties, Packet, ProtocolVersion, ReasonCode},
    store::MemoryStore,
};
use tokio::io::AsyncReadExt as _;

use crate::{
    measure::Measure,
    passage::{carry, connect, put, write},
};

/// Clients that are connected meanwhile.
const OTHERS: usize = 2_000;
/// Connections of one client that the history has room for, so that it is as long in each step.
const HISTORY: u16 = 20;

/// Adds `visit/…`: CONNECT with Clean Start, CONNACK, DISCONNECT, end of the stream.
pub(crate) fn cases(measure: &mut impl Measure) {
    for (name, has_store, history) in [
        ("visit/store off", false, 0),
        ("visit/store on, no history", true, 0),
        ("visit/store on", true, HISTORY),
    ] {
        measure.case(name, || {
            // They live until the end of the process, as in `passage`.
            let system = Box::leak(Box::new(System::new()));
            let visits = Box::leak(Box::new(system.block_on(Visits::start(has_store, history))));
            move || system.block_on(visits.visit())
        });
    }
}

struct Visits {
    broker: Broker,
    others: Vec<tokio::io::DuplexStream>,
    goodbye: Vec<u8>,
    visited: Cell<usize>,
}

impl Visits {
    async fn start(has_store: bool, history: u16) -> Self {
        // On virtual time no timer fires during a step, whatever the speed of the machine.
        tokio::time::pause();
        let shards = SimulatedShards::new(1, 1);
        actix_rt::spawn(carry(shards.clone()));
        let limits = Limits {
            connects_per_address_per_sec: 0,
            history_per_client_max: history,
            ..Limits::default()
        };
        let mut builder = Broker::builder().simulated(&shards).limits(limits);
        if has_store {
            builder = builder.store(MemoryStore::default());
        }
        let broker = builder.authenticator(AllowAll).authorizer(AllowAll).start().await;
        let broker = broker.expect("a broker without listeners starts");
        let mut others = Vec::new();
        for number in 0..OTHERS {
            let client_id = format!("vehicle-{number:06}");
            others.push(connect(&broker, ProtocolVersion::V3_1_1, &client_id).await);
        }
        let mut goodbye = Vec::new();
        let packet = Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: DisconnectProperties::default(),
        });
        put(&mut goodbye, ProtocolVersion::V3_1_1, &packet);
        Self { broker, others, goodbye, visited: Cell::new(0) }
    }

    async fn visit(&self) {
        debug_assert_eq!(self.others.len(), OTHERS);
        let number = self.visited.replace(self.visited.get() + 1);
        // One of a hundred clients comes back, and is somewhere in the order of all.
        let client_id = format!("vehicle-{:06}x", number % 100 * (OTHERS / 100));
        let mut client = connect(&self.broker, ProtocolVersion::V3_1_1, &client_id).await;
        write(&mut client, &self.goodbye).await;
        let end = client.read(&mut [0]).await.expect("the broker closes");
        assert_eq!(end, 0, "nothing follows");
        // The history is handed to the store by a timer.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
