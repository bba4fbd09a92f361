//! The cluster on real NATS servers, which the tests start, kill, freeze and start again.
//!
//! A machine without the program `nats-server` skips the tests, and says so (`crates/hearthmq-test`,
//! `nats.rs`).

#![expect(clippy::print_stdout, reason = "the rounds say what was promised and kept")]
#![expect(clippy::unwrap_used, reason = "a test that meets what it does not expect fails")]

mod access;
mod asking;
mod brokers;
mod following;
mod joining;
mod leaders;
mod mail;
mod measured;
mod messages;
mod moving;
mod options;
mod owning;
mod program;
mod records;
mod retained;
mod rounds;
mod running;
mod sharing;
mod subscriber;
mod support;
mod writing;
