//! The standard's statements, chapter by chapter, over real sockets. Each dialogue names the
//! statements that it shows; `tests/clauses` lists them all and what shows each.

#![expect(clippy::unwrap_used, reason = "a test that meets what it does not expect fails")]

#[expect(dead_code, reason = "the dialogues on virtual time use the rest")]
#[path = "../it/support/mod.rs"]
mod support;

mod sockets;
mod wire;

mod connack;
mod connect;
mod connect_properties;
mod connect_sessions;
mod format;
mod publish;
mod publish_properties;
mod retained;
mod wills;
