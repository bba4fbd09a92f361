//! The whole program over real sockets: the binary with its own configuration, MQTT clients and
//! REST callers, with control of every byte that they send.
//!
//! Nothing here outlives the tests: a program is killed when its test ends.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on, or meets a packet that it does not expect, fails there"
)]

use hearthmq_test::{http, mqtt, pki, skipped, vocabulary};

mod access;
mod backup;
mod bridges;
mod certificates;
mod command_line;
mod database;
mod dead_peers;
mod expired;
mod fail2ban;
mod flow;
mod full_queues;
mod history;
mod https;
mod huge_pages;
mod imported;
mod imported_bridges;
mod keep_alive;
mod listeners;
mod log;
mod log_of_clients;
mod migration;
mod mosquitto;
mod open_files;
mod pins;
mod presence;
mod program;
mod readme;
mod refusals;
mod reload;
mod remote;
mod restored;
mod revocation;
mod revocation_lists;
mod service_manager;
mod shutdown;
mod start;
mod status;
mod store_commands;
mod tls;
mod tokens;
mod trouble;
mod users;
mod watching;
mod webhooks;
