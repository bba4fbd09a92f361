//! The whole program over real sockets: the binary with its own configuration, MQTT clients and
//! REST callers, with control of every byte that they send.
//!
//! Nothing here outlives the tests: a program is killed when its test ends.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on, or meets a packet that it does not expect, fails there"
)]

mod backup;
#[path = "../support/beats.rs"]
mod beats;
mod certificates;
mod command_line;
mod crash;
mod dead_peers;
mod fail2ban;
mod flow;
mod full_queues;
#[path = "../support/http.rs"]
mod http;
mod https;
mod keep_alive;
mod listeners;
mod log;
mod log_of_clients;
mod mosquitto;
#[path = "../support/mqtt.rs"]
mod mqtt;
mod open_files;
#[path = "../support/pki.rs"]
#[expect(dead_code, reason = "some of it is for other tests")]
mod pki;
mod presence;
mod program;
mod readme;
mod refusals;
mod reload;
mod restored;
mod revocation;
mod shutdown;
#[path = "../support/skipped.rs"]
mod skipped;
mod start;
mod status;
mod store_commands;
mod tls;
mod trouble;
#[path = "../it/store/vocabulary.rs"]
#[expect(dead_code, reason = "some of it is for other tests")]
mod vocabulary;
