//! The broker from outside, in dialogues. Time is virtual where it matters.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect fails"
)]

#[expect(dead_code, reason = "the world uses the rest")]
#[path = "../support/post.rs"]
mod post;
#[path = "../support/riddle.rs"]
mod riddle;
#[path = "../support/scram.rs"]
mod scram;
mod support;

mod admission;
mod aliases_and_properties;
mod back_pressure;
mod between_shards;
mod bounds_in_all;
mod bridges;
mod connecting;
mod corners;
mod durable;
mod durable_moments;
mod durable_wills;
mod enhanced_authentication;
mod expired_queues;
mod flow_control;
mod information;
mod keep_alive;
mod large_messages;
mod limits;
mod mqtt_3_1;
mod overtaken;
mod ownership;
mod portions;
mod presence;
mod protocol;
mod rechecks;
mod rechecks_waiting;
mod redirection;
mod resending;
mod restored;
mod restored_rules;
mod retained;
mod retained_walks;
mod sessions;
mod sessions_model;
mod settings;
mod shared_backlogs;
mod shared_redelivery;
mod shared_subscriptions;
mod shares;
mod shutting_down;
mod slow_packets;
mod slow_readers;
mod subscriptions;
mod system_topics;
mod takeover;
mod wills;
