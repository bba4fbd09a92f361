//! The library from outside: dialogues with the whole broker, chapter by chapter, and its public
//! parts alone. Time is virtual where it matters; sockets are on the loopback interface.
//!
//! A dialogue names the statements of the standard that it shows. `tests/clauses` lists all
//! statements and the tests for each.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect fails"
)]

use hearthmq_test::{
    self as support, mqtt, pki, post, riddle, scram, torn_store, websocket_client, wire,
};

/// Sections 3.1 and 3.2: CONNECT and CONNACK.
mod connect {
    mod admission;
    mod bridges;
    mod connack;
    mod connecting;
    mod information;
    mod mqtt_3_1;
    mod overtaken;
    mod properties;
    mod takeover;
    mod validity;
}

/// Sections 3.1.2.5 and 3.1.3.2 to 3.1.3.4: the Will.
mod will {
    mod durable;
    mod on_connect;
    mod wills;
}

/// Section 3.1.2.10: Keep Alive.
mod keep_alive {
    mod advice;
    mod deadlines;
    mod overrides;
    mod slow_packets;
}

/// Sections 3.3 to 3.7 and 4.6: PUBLISH, its acknowledgements, and the order of messages.
mod publish {
    mod acknowledgements;
    mod aliases_and_properties;
    mod both_ways;
    mod large_messages;
    mod order;
    mod properties;
    mod protocol;
}

/// Section 3.3.1.3: retained messages.
mod retained {
    mod flag;
    mod messages;
    mod walks;
}

/// Sections 3.8 to 3.11 and 4.7: subscriptions, and the filters that they have.
mod subscribe {
    mod suback;
    mod subscriptions;
    mod topics;
    mod unsubscribe;
}

/// Section 4.8.2: shared subscriptions.
mod shared_subscriptions {
    mod backlogs;
    mod members;
    mod redelivery;
    mod section_4_8_2;
}

/// Sections 3.14 and 4.13: what ends a connection.
mod disconnect {
    mod errors;
    mod packets;
    mod shutting_down;
}

/// Sections 4.1 to 4.5: sessions, and what they store and deliver.
mod sessions {
    pub(crate) mod at_connect;
    mod bad_line;
    pub(crate) mod delivery;
    mod expired_queues;
    mod lasting;
    mod ownership;
    mod resending;
}

/// Section 4.9, and what the broker does where a client takes less than it is sent.
mod flow_control {
    mod announced;
    mod back_pressure;
    mod held_between_shards;
    pub(crate) mod numbers;
    mod send_quota;
    mod slow_readers;
}

/// Sections 3.15 and 4.12: enhanced authentication; and what a client may do afterwards.
mod authentication {
    mod auth;
    mod enhanced;
    mod expiry;
    mod prepared;
    pub(crate) mod rechecks;
    mod rechecks_waiting;
    mod sources;
}

mod bridges;
mod elsewhere;

/// Chapters 1 and 2: data representation, and the form of packets.
mod format {
    mod bytes;
    mod corners;
}

/// What outlives the broker.
mod durable {
    mod acknowledged;
    mod moments;
    mod restored;
    mod restored_rules;
}

/// Limits of the broker, and the work of one turn.
mod limits {
    mod each;
    mod filter_shapes;
    mod in_all;
    mod portions;
    mod portions_of_filters;
    mod shares;
    mod store_shares;
}

/// What applications see and change: events, status topics, settings, redirection.
mod control {
    mod application;
    mod audit;
    mod bans;
    mod busiest;
    mod clients;
    mod contents;
    mod deliveries;
    mod drops;
    mod feed;
    mod history;
    mod lists;
    mod live_settings;
    mod on_behalf;
    mod presence;
    mod publishing;
    mod redirection;
    mod requests;
    mod rules;
    mod selecting;
    mod settings;
    mod starting;
    mod system_topics;
    mod tokens;
    mod topics;
    mod traces;
    mod user_settings;
    mod webhooks;
}

mod between_shards;

mod transports;

mod accounts;
mod codec;
mod config;
mod embedding;
mod rest;
mod store;
